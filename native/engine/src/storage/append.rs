//! Appending to the two streams of a device: which block a record goes to, and what is done with a block that is full.

use super::device::{BlockState, Device, DeviceState, FilledBlock, OpenBlock, Phase, Stream};
use super::error::{AppendError, DeviceError};
use super::header::BlockHeader;
use super::medium::PAGE_BYTES;
use super::space::{KEPT_BLOCKS, RESERVE_BLOCKS};
use super::write_block::BlockBuf;
use super::{Appended, CommitTicket, CommitWaiter};
use crate::record::image::{
    BLOCK_HEADER_BYTES, FILLER_BYTES, ImageView, RECORD_BYTES_MAX, seal, write_filler,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Block buffers kept for the next block: as many as the write cache holds by default, so that a stream of writes does not
/// have the system clear a new one for each block.
const SPARE_BUFFERS_MAX: usize = 8;

impl Device {
    pub(super) fn append(&self, stream: Stream, image: &mut [u8]) -> Result<Appended, AppendError> {
        if image.len() > RECORD_BYTES_MAX.min(self.block_bytes - BLOCK_HEADER_BYTES) {
            return Err(AppendError::TooBig);
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.failure.is_some() || self.closed.load(Ordering::Relaxed) {
            return Err(AppendError::DeviceFailed);
        }
        let kept = match stream {
            Stream::Defrag => 0,
            Stream::Client if ImageView::trusted(image).is_tombstone() => RESERVE_BLOCKS,
            Stream::Client => KEPT_BLOCKS,
        };
        let fits = |open: &OpenBlock| {
            open.position + image.len() <= self.block_bytes
                && !(open.is_reserve && kept == KEPT_BLOCKS && state.free.len() < KEPT_BLOCKS)
        };
        if !state.streams[stream as usize]
            .open
            .as_ref()
            .is_some_and(fits)
        {
            self.check_room(state, stream, kept)?;
            self.fill(state, stream);
            self.open(state, stream);
        }
        let current = &mut state.streams[stream as usize];
        let open = current.open.as_mut().expect("a block was just opened");
        let at = open.position;
        seal(image, open.sequence);
        // SAFETY: `at` is the append position, and the device's lock is held.
        unsafe { open.buffer.write(at, image) };
        open.position += image.len();
        current.appended = current.log_start + open.position as u64;
        // Live bytes before the position: what a start finds below it and not in the index is in a block
        // whose live bytes do not add up.
        self.ledger[open.block as usize]
            .live
            .fetch_add(image.len() as u32, Ordering::AcqRel);
        open.buffer.note_position(open.position);
        self.used_bytes
            .fetch_add(image.len() as u64, Ordering::Relaxed);
        let appended = Appended {
            location: self.location(open.block, at, image.len()),
            ticket: CommitTicket {
                device: self.index,
                position: current.appended,
            },
        };
        let unit = self.config.flush_size_bytes as usize;
        let unit_complete = at / unit != open.position / unit;
        match stream {
            Stream::Client => {
                state.writes += 1;
                state.write_bytes += image.len() as u64;
                if unit_complete && self.is_short(state) {
                    self.signal.raise();
                }
            }
            Stream::Defrag => self.counters.defrag_write_bytes.add(image.len() as u64),
        }
        if !self.is_volatile {
            let first = state.unsynced_since.is_none();
            if first {
                state.unsynced_since = Some(Instant::now());
            }
            if first || unit_complete {
                self.work.notify_one();
            }
        }
        Ok(appended)
    }

    /// Completes the stream's open block, if there is one.
    pub(super) fn fill(&self, state: &mut DeviceState, stream: Stream) {
        let current = &mut state.streams[stream as usize];
        let Some(open) = current.open.take() else {
            return;
        };
        let OpenBlock {
            block,
            sequence,
            buffer,
            position,
            taken,
            padded,
            ..
        } = open;
        let end = position.next_multiple_of(PAGE_BYTES);
        if position < end {
            // It stands for the rest of the block, though only the rest of its page is written.
            // SAFETY: from the append position on, and the device's lock is held.
            unsafe {
                put_filler(
                    &buffer,
                    position,
                    end,
                    self.block_bytes - position,
                    sequence,
                )
            };
        }
        let records_end = (current.appended - current.log_start) as usize;
        current.log_start += self.block_bytes as u64;
        let log_end = current.log_start;
        // The padding that follows the last copy is room too, which copies of other records may have.
        let (filled, repadded) = match stream {
            Stream::Client => (records_end, 0),
            Stream::Defrag => (position, padded.min(PAGE_BYTES)),
        };
        state.blocks[block as usize].filled = filled - BLOCK_HEADER_BYTES;
        state.blocks[block as usize].repadded = repadded;
        state.blocks[block as usize].log_end = (stream, log_end);
        state.blocks[block as usize].phase = Phase::Filled;
        if self.is_volatile {
            self.own.writes[stream as usize].add(1);
            self.finish(state, stream, block);
            return;
        }
        state.unwritten += 1;
        state.unwritten_copies += usize::from(stream == Stream::Defrag);
        current.filled.push_back(FilledBlock {
            block,
            buffer,
            taken,
            end,
            log_end,
        });
        self.work.notify_one();
    }

    /// Opens a free block for the stream; there is one.
    fn open(&self, state: &mut DeviceState, stream: Stream) {
        let block = state.free.pop().expect("room was checked");
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let bytes = self.block_bytes;
        let buffer = match &self.mapping {
            Some(mapping) => Arc::new(BlockBuf::mapped(
                mapping,
                self.block_offset(block) as usize,
                bytes,
            )),
            None => state
                .spare
                .pop()
                .unwrap_or_else(|| Arc::new(self.new_buffer())),
        };
        self.ledger[block as usize]
            .sequence
            .store(sequence, Ordering::Relaxed);
        let header = BlockHeader {
            sequence,
            device_id: self.device_id,
            block,
            device: self.index,
        };
        // SAFETY: nothing of the block is in use, since it was free, and the device's lock is held.
        unsafe { buffer.write(0, &header.encode()) };
        buffer.begin(self.index, block, sequence, BLOCK_HEADER_BYTES);
        debug_assert_eq!(self.ledger[block as usize].live.load(Ordering::Relaxed), 0);
        if self.mapping.is_none() {
            *self.blocks[block as usize].buffer.write() = Some(Arc::clone(&buffer));
        }
        self.blocks[block as usize]
            .look_at
            .store(0, Ordering::SeqCst);
        state.blocks[block as usize] = BlockState {
            phase: Phase::Open,
            sequence,
            filled: 0,
            log_end: (Stream::Client, 0),
            repadded: 0,
            shunned: false,
            damage_told: false,
        };
        state.streams[stream as usize].open = Some(OpenBlock {
            block,
            sequence,
            buffer,
            position: BLOCK_HEADER_BYTES,
            taken: 0,
            padded: 0,
            is_reserve: state.free.len() < KEPT_BLOCKS,
        });
        if stream == Stream::Client {
            state.refused = false;
            state.tombstone_refused = false;
            state.padded_emptied = 0;
        }
        if self.is_low(state) {
            self.hurry(state);
        }
        if self.is_short(state) {
            self.signal.raise();
        }
    }

    fn new_buffer(&self) -> BlockBuf {
        let Some(shared) = &self.shared else {
            return BlockBuf::heap(self.block_bytes);
        };
        match shared.pool().take() {
            Some(block) => BlockBuf::shared(block, self.block_bytes),
            None => {
                // What is in it would not be found.
                shared.distrust();
                BlockBuf::heap(self.block_bytes)
            }
        }
    }

    /// Pads the stream's open block to a page boundary, so that the page can be written for good.
    pub(super) fn pad(&self, state: &mut DeviceState, stream: Stream) {
        let Some(open) = &mut state.streams[stream as usize].open else {
            return;
        };
        let end = open.position.next_multiple_of(PAGE_BYTES);
        if open.position == end || open.position == BLOCK_HEADER_BYTES {
            return;
        }
        let covers = end - open.position;
        // SAFETY: from the append position on, and the device's lock is held.
        unsafe { put_filler(&open.buffer, open.position, end, covers, open.sequence) };
        open.position = end;
        open.padded += covers;
        open.buffer.note_position(end);
        self.counters.padding_bytes.add(covers as u64);
    }

    /// A filled block is written: it may now be compacted or freed, and its memory is the cache's.
    pub(super) fn finish(&self, state: &mut DeviceState, stream: Stream, block: u32) {
        state.blocks[block as usize].phase = Phase::Used;
        if self.mapping.is_none() {
            if stream == Stream::Client && self.cached_max > 0 {
                state.cache.push_back(block);
                if state.cache.len() > self.cached_max
                    && let Some(oldest) = state.cache.pop_front()
                {
                    self.drop_buffer(state, oldest);
                }
            } else {
                self.drop_buffer(state, block);
            }
        }
        self.settle(state, block);
    }

    pub(super) fn drop_buffer(&self, state: &mut DeviceState, block: u32) {
        let buffer = self.blocks[block as usize].buffer.write().take();
        // Whoever still reads it holds another reference; then it is not for reuse.
        if let Some(mut buffer) = buffer
            && state.spare.len() < SPARE_BUFFERS_MAX
            && Arc::get_mut(&mut buffer).is_some()
        {
            state.spare.push(buffer);
        }
    }

    /// True if the position is durable, or need not be. Otherwise the waiter is kept. An error if it
    /// will never be durable, and there is no thread to tell the waiter.
    pub(super) fn await_commit(
        &self,
        position: u64,
        waiter: CommitWaiter,
    ) -> Result<bool, DeviceError> {
        if !self.config.commit_to_device || self.is_volatile {
            return Ok(true);
        }
        let mut state = self.state.lock();
        if position <= state.streams[Stream::Client as usize].durable {
            return Ok(true);
        }
        if state.flush_ended {
            return Err(self.failure_of_ended(&state));
        }
        state.waiters.push((position, waiter));
        self.work.notify_one();
        Ok(false)
    }
}

/// Puts a filler at `from` that stands for `covers` bytes, and clears the rest up to `end`.
///
/// # Safety
///
/// As for [`BlockBuf::write`], from `from` on.
unsafe fn put_filler(buffer: &BlockBuf, from: usize, end: usize, covers: usize, sequence: u64) {
    let mut filler = [0; FILLER_BYTES];
    write_filler(&mut filler, covers, sequence);
    // SAFETY: passed on to the caller.
    unsafe {
        buffer.write(from, &filler);
        buffer.zero(from + FILLER_BYTES..end);
    }
}
