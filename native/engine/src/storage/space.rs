//! The space of one device: what becomes of a block when its records die, what free blocks are kept for, and
//! whether emptying a block gains anything.

use super::device::{BlockState, Device, DeviceState, Phase, RetiredBlock, STREAMS, Stream};
use super::error::AppendError;
use super::medium::PAGE_BYTES;
use crate::index::Location;
use crate::record::image::BLOCK_HEADER_BYTES;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Free blocks that only defragmentation may take: compacting one block needs at most one more.
pub(super) const RESERVE_BLOCKS: usize = 1;
/// Free blocks that records may not take, so that a full store takes the tombstones that make room in it.
const TOMBSTONE_BLOCKS: usize = 1;
/// Free blocks that records cannot have.
pub(super) const KEPT_BLOCKS: usize = RESERVE_BLOCKS + TOMBSTONE_BLOCKS;
/// Compacting a block has to gain this part of it, or blocks that are merely padded would be copied
/// forever.
const GAIN_DIVISOR: usize = 16;
/// As above while tombstones find no room, where deletes that are spread over many blocks gain little of each: a smaller
/// part, and more than a compaction pads.
const GAIN_DIVISOR_LEAST: usize = 256;
const GAIN_PAGES_LEAST: usize = 4;
/// Free blocks that defragmentation keeps for writes by itself, as a part of all and at most: each costs room that would
/// otherwise be dead bytes, and so makes copies more frequent.
const SPARE_DIVISOR: usize = 32;
const SPARE_BLOCKS_MAX: usize = 16;
/// Defragmentation takes its whole pause with this many times the free blocks at which it takes none.
const PLENTY_FACTOR: usize = 4;

impl Device {
    /// Whether the stream may open another block and leave `kept` free ones.
    pub(super) fn check_room(
        &self,
        state: &mut DeviceState,
        stream: Stream,
        kept: usize,
    ) -> Result<(), AppendError> {
        if stream == Stream::Client && state.unwritten >= self.unwritten_max {
            return Err(AppendError::Overload);
        }
        if state.next_sequence >= state.sequence_limit {
            // Half a lease ahead of being needed, the device did not get to the next.
            self.work.notify_one();
            return Err(AppendError::Overload);
        }
        if state.free.len() > kept {
            return Ok(());
        }
        state.refused |= stream == Stream::Client;
        state.tombstone_refused |= kept == RESERVE_BLOCKS;
        // Retired blocks become free after the next sync.
        self.hurry(state);
        self.signal.raise();
        let is_full = state.gainless && state.retired.is_empty() && !state.compacting;
        Err(if is_full {
            AppendError::Full
        } else {
            AppendError::Overload
        })
    }

    /// Asks for a flush of everything, if a block waits for one.
    pub(super) fn hurry(&self, state: &mut DeviceState) {
        if self.erasable(state) < state.retired.len() && !state.flush_now {
            state.flush_now = true;
            self.work.notify_one();
        }
    }

    /// Completes open blocks that writes do not fit into any more, if emptying them gains something:
    /// on a full device of few blocks that may be all the space there is.
    pub(super) fn give_up_open(&self, state: &mut DeviceState) {
        for stream in STREAMS {
            let current = &state.streams[stream as usize];
            let Some(open) = &current.open else { continue };
            // Its room is for tombstones yet to come.
            if stream == Stream::Client && open.is_reserve && !state.tombstone_refused {
                continue;
            }
            let block = open.block;
            // Copies still fit, so of their block only what died again is to be gained.
            let filled = match stream {
                Stream::Client => self.block_bytes - BLOCK_HEADER_BYTES,
                Stream::Defrag => open.position - BLOCK_HEADER_BYTES,
            };
            if filled >= self.live(block) + self.block_bytes / GAIN_DIVISOR {
                self.fill(state, stream);
                state.blocks[block as usize].filled = filled;
                state.flush_now = !self.is_volatile;
                self.work.notify_one();
                self.signal.raise();
            }
        }
    }

    /// Retires or queues a used block if its live bytes ask for it.
    pub(super) fn settle(&self, state: &mut DeviceState, block: u32) {
        if state.blocks[block as usize].phase != Phase::Used {
            return;
        }
        if self.live(block) == 0 {
            state.blocks[block as usize].phase = Phase::Retired;
            let after = [state.streams[0].appended, state.streams[1].appended];
            state.retired.push_back(RetiredBlock { block, after });
            self.reclaim(state);
        } else if self.is_sparse(state, block) && !state.blocks[block as usize].queued {
            state.blocks[block as usize].queued = true;
            state.defrag_queue.push(block);
            self.signal.raise();
        }
    }

    /// Changes the low-water mark, for blocks that are below it already too.
    pub(super) fn set_lwm_pct(&self, pct: u8) {
        if self.lwm_pct.get() == pct {
            return;
        }
        self.lwm_pct.set(pct);
        let mut state = self.state.lock();
        for block in 1..self.blocks.len() as u32 {
            self.settle(&mut state, block);
        }
    }

    /// How many of the retired blocks, from the oldest, have durable successors.
    pub(super) fn erasable(&self, state: &DeviceState) -> usize {
        let durable = |stream: Stream| state.streams[stream as usize].durable;
        let is_covered = |retired: &RetiredBlock| {
            STREAMS
                .iter()
                .all(|stream| retired.after[*stream as usize] <= durable(*stream))
        };
        // Log positions only grow, so those of the retired blocks are sorted.
        state.retired.partition_point(is_covered)
    }

    /// Has retired blocks freed that may be: at once in memory, otherwise by the flush thread.
    pub(super) fn reclaim(&self, state: &mut DeviceState) {
        let count = self.erasable(state);
        if self.is_volatile {
            self.free(state, count);
        } else if count > 0 {
            self.work.notify_one();
        }
    }

    /// Frees the oldest `count` retired blocks.
    pub(super) fn free(&self, state: &mut DeviceState, count: usize) {
        for _ in 0..count {
            let RetiredBlock { block, .. } = state.retired.pop_front().expect("counted before");
            self.drop_buffer(state, block);
            state.blocks[block as usize].phase = Phase::Free;
            self.ledger[block as usize]
                .sequence
                .store(0, Ordering::Relaxed);
            state.free.push(block);
        }
        let blocks = &state.blocks;
        state
            .cache
            .retain(|cached| blocks[*cached as usize].phase != Phase::Free);
        self.tell_progress(state);
    }

    pub(super) fn release(&self, location: Location) {
        let (block, _) = self.place(location);
        let bytes = location.bytes();
        let before = self.ledger[block as usize]
            .live
            .fetch_sub(bytes as u32, Ordering::AcqRel);
        let before = before as usize;
        assert!(before >= bytes, "{location:?} was released twice");
        self.used_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        let lwm = self.lwm_bytes();
        if before == bytes || (before >= lwm && before - bytes < lwm) {
            let mut state = self.state.lock();
            self.settle(&mut state, block);
        }
    }

    /// Something became written, durable or free.
    pub(super) fn tell_progress(&self, state: &mut DeviceState) {
        self.progress.notify_all();
        if std::mem::take(&mut state.defrag_waits) {
            self.signal.raise();
        }
    }

    pub(super) fn live(&self, block: u32) -> usize {
        self.ledger[block as usize].live.load(Ordering::Acquire) as usize
    }

    fn lwm_bytes(&self) -> usize {
        self.block_bytes * usize::from(self.lwm_pct.get()) / 100
    }

    /// Below the low-water mark, with something to gain.
    pub(super) fn is_sparse(&self, state: &DeviceState, block: u32) -> bool {
        self.live(block) < self.lwm_bytes() && self.is_gainful(state, block)
    }

    /// Worth emptying, if space is needed.
    pub(super) fn is_gainful(&self, state: &DeviceState, block: u32) -> bool {
        self.gains(state, block, self.block_bytes / GAIN_DIVISOR)
    }

    /// Worth emptying, if tombstones need space.
    pub(super) fn is_gainful_at_all(&self, state: &DeviceState, block: u32) -> bool {
        let least = self.block_bytes / GAIN_DIVISOR_LEAST;
        let least = least.max(GAIN_PAGES_LEAST * PAGE_BYTES);
        self.gains(state, block, least.min(self.block_bytes / GAIN_DIVISOR))
    }

    fn gains(&self, state: &DeviceState, block: u32, bytes: usize) -> bool {
        let BlockState {
            phase,
            filled,
            shunned,
            ..
        } = state.blocks[block as usize];
        phase == Phase::Used && !shunned && filled >= self.live(block) + bytes
    }

    /// Whether a crash would leave the block as it is. Copies of records that may vanish from it
    /// could otherwise outlive them, and occupy the last free block together with it.
    pub(super) fn is_durable(&self, state: &DeviceState, block: u32) -> bool {
        let (stream, log_end) = state.blocks[block as usize].log_end;
        state.streams[stream as usize].durable >= log_end
    }

    /// So few free blocks that writes are about to be refused.
    pub(super) fn is_pressed(&self, state: &DeviceState) -> bool {
        state.free.len() + state.retired.len() <= KEPT_BLOCKS + 1
    }

    /// So few free blocks that those above the low-water mark have to be compacted too: before writes find none, since
    /// gaining one takes several compactions on a device that is nearly full.
    pub(super) fn is_short(&self, state: &DeviceState) -> bool {
        state.free.len() + state.retired.len() <= self.short_level()
    }

    fn short_level(&self) -> usize {
        let spare = (self.blocks.len() / SPARE_DIVISOR).min(SPARE_BLOCKS_MAX);
        KEPT_BLOCKS + 1 + spare
    }

    /// The pause after a compaction: the configured one while free blocks are plenty, less as they run out.
    pub(super) fn defrag_pause(&self, state: &DeviceState) -> Duration {
        let level = self.short_level();
        let above = (state.free.len() + state.retired.len()).saturating_sub(level);
        let plenty = PLENTY_FACTOR * level;
        self.config.defrag_sleep.get() * above.min(plenty) as u32 / plenty as u32
    }

    /// Whether so many filled blocks wait for the device that copies should wait too.
    pub(super) fn is_behind(&self, state: &DeviceState) -> bool {
        state.unwritten > self.unwritten_max / 2
    }
}
