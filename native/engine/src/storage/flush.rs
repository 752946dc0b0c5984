//! Writing: one thread a device takes what was appended, writes it, syncs, and tells who waits.
//!
//! Group commit: everything that was appended when the thread takes over goes out together and is
//! synced once; what is appended meanwhile forms the next group. A group ends at a page boundary,
//! padded with a filler, so that an acknowledged page is never written again and no torn page can
//! take an acknowledged record with it.
//!
//! The same thread erases the headers of blocks that are to be freed, and leases sequences.

use super::device::{Device, DeviceState, STREAMS, Stream};
use super::error::DeviceError;
use super::header::{LEASE_OFFSETS, Lease, encode_lease};
use super::medium::{AlignedBuf, PAGE_BYTES};
use super::write_block::BlockBuf;
use super::{CommitSink, CommitWaiter};
use crate::record::image::BLOCK_HEADER_BYTES;
use parking_lot::MutexGuard;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Sequences leased at a time, half of them in advance: more blocks than can be unsynced.
pub(super) const SEQUENCE_LEASE: u64 = 1 << 14;

/// Blocks erased at a time: what a commit waits for at most besides another commit.
pub(super) const ERASE_BLOCKS_MAX: usize = 64;

/// How much a flush takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Group {
    /// Whole flush units. Not synced: nobody waits for them.
    Units,
    /// Whole flush units, and all client writes, synced: somebody waits for those.
    Commit,
    /// Everything, synced.
    All,
}

/// A piece of a block on its way to the device.
struct Transfer {
    stream: Stream,
    block: u32,
    buffer: Arc<BlockBuf>,
    from: usize,
    to: usize,
    /// Log position up to which the stream is written once this is.
    log_end: u64,
    completes_block: bool,
}

/// Ends the flush thread, also if it panics: who waits is told, and nobody is let wait any more.
struct Ending<'a> {
    device: &'a Device,
    sink: &'a dyn CommitSink,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.device.state.lock();
        state.flush_ended = true;
        if std::thread::panicking() && state.failure.is_none() {
            let error = io::Error::other("the flush thread panicked");
            self.device.latch(&mut state, "flush", error);
        }
        let waiters = std::mem::take(&mut state.waiters);
        let failure = self.device.failure_of_ended(&state);
        drop(state);
        for (_, waiter) in waiters {
            self.sink.committed(waiter, Err(failure.clone()));
        }
    }
}

impl Device {
    /// The flush thread. Ends when the device is stopping and nothing is left that can be written.
    pub(super) fn run_flush(&self, sink: &dyn CommitSink) {
        let _ending = Ending { device: self, sink };
        // Commits and erasures take turns while there is work for both.
        let mut committed = false;
        loop {
            let mut state = self.state.lock();
            if let Some(failure) = state.failure.clone() {
                let waiters = std::mem::take(&mut state.waiters);
                if waiters.is_empty() {
                    if self.stopping.load(Ordering::Acquire) {
                        return;
                    }
                    self.work.wait(&mut state);
                }
                drop(state);
                for (_, waiter) in waiters {
                    sink.committed(waiter, Err(failure.clone()));
                }
                continue;
            }
            if state.next_sequence.saturating_add(SEQUENCE_LEASE / 2) > state.sequence_limit {
                drop(state);
                let _ = self.lease();
                continue;
            }
            if self.erasable(&state) > 0 && (committed || state.waiters.is_empty()) {
                drop(state);
                self.erase();
                committed = false;
                continue;
            }
            let group = match self.due_group(&state) {
                Some(group) => group,
                None if self.stopping.load(Ordering::Acquire) => return,
                None => {
                    match state.unsynced_since {
                        Some(since) => {
                            self.work
                                .wait_until(&mut state, since + self.config.flush_max);
                        }
                        None => self.work.wait(&mut state),
                    }
                    continue;
                }
            };
            drop(state);
            committed = true;
            let told = self.flush(group);
            if !told.is_empty() {
                sink.group_committed(&told, Ok(()));
            }
        }
    }

    fn due_group(&self, state: &DeviceState) -> Option<Group> {
        let expired = |since: Instant| since.elapsed() >= self.config.flush_max;
        if state.flush_now || state.unsynced_since.is_some_and(expired) {
            Some(Group::All)
        } else if !state.waiters.is_empty() {
            Some(Group::Commit)
        } else if STREAMS.iter().any(|stream| self.has_unit(state, *stream)) {
            Some(Group::Units)
        } else {
            None
        }
    }

    fn has_unit(&self, state: &DeviceState, stream: Stream) -> bool {
        let stream = &state.streams[stream as usize];
        !stream.filled.is_empty()
            || stream
                .open
                .as_ref()
                .is_some_and(|open| self.units_end(open.position) > open.taken)
    }

    fn units_end(&self, position: usize) -> usize {
        let unit = self.config.flush_size_bytes as usize;
        position / unit * unit
    }

    /// Writes a group and returns who waited for it. A failure latches the device.
    pub(super) fn flush(&self, group: Group) -> Vec<CommitWaiter> {
        let _one_at_a_time = self.flushing.lock();
        let mut state = self.state.lock();
        if state.failure.is_some() {
            return Vec::new();
        }
        let transfers = self.take(&mut state, group);
        drop(state);

        let written = self.write(&transfers);
        // The order matters: who waits for a block may be told before it leaves the queue, but a
        // block must not leave the queue before it is written.
        let synced = match (&written, group) {
            (Err(_), _) | (_, Group::Units) => None,
            (Ok(()), _) => Some(self.sync()),
        };
        let mut state = self.state.lock();
        if let Err(error) = written {
            self.latch(&mut state, "write", error);
            return Vec::new();
        }
        if let Some(Err(error)) = synced {
            self.latch(&mut state, "sync", error);
            return Vec::new();
        }
        self.complete(state, transfers, synced.is_some())
    }

    fn sync(&self) -> io::Result<()> {
        self.counters.syncs.add(1);
        self.medium.sync()
    }

    /// Leases the next sequences. A failure latches the device.
    pub(super) fn lease(&self) -> Result<(), DeviceError> {
        let _one_at_a_time = self.flushing.lock();
        let mut state = self.state.lock();
        let Some(limit) = state.next_sequence.checked_add(SEQUENCE_LEASE) else {
            // No use of a device comes near; a lease that was written over by somebody may.
            let error = io::Error::other("no sequences are left");
            return Err(self.latch(&mut state, "lease of sequences", error));
        };
        let lease = 1 - state.lease;
        drop(state);

        let mut page = AlignedBuf::new(PAGE_BYTES);
        let run = self.run.load(Ordering::Relaxed);
        encode_lease(&mut page, self.device_id, Lease { limit, run });
        let leased = self
            .medium
            .write_at(LEASE_OFFSETS[lease], &page)
            .and_then(|()| self.sync());

        let mut state = self.state.lock();
        match leased {
            Ok(()) => {
                state.lease = lease;
                state.sequence_limit = limit;
                Ok(())
            }
            Err(error) => Err(self.latch(&mut state, "lease of sequences", error)),
        }
    }

    /// Erases the headers of retired blocks that may be freed, up to [`ERASE_BLOCKS_MAX`], and frees
    /// them. A failure latches the device.
    pub(super) fn erase(&self) {
        let _one_at_a_time = self.flushing.lock();
        let state = self.state.lock();
        let count = self.erasable(&state).min(ERASE_BLOCKS_MAX);
        if state.failure.is_some() || count == 0 {
            return;
        }
        let blocks: Vec<u32> = state.retired.iter().take(count).map(|r| r.block).collect();
        drop(state);

        let mut pages = AlignedBuf::new(blocks.len() * PAGE_BYTES);
        for (page, block) in pages.chunks_mut(PAGE_BYTES).zip(&blocks) {
            // The rest of the page stays as it is: if power fails meanwhile, the block is either
            // erased or whole, and not a mixture with records missing.
            if self
                .medium
                .read_at(self.block_offset(*block), page)
                .is_err()
            {
                page.fill(0);
            }
            page[..BLOCK_HEADER_BYTES].fill(0);
        }
        let offsets = blocks.iter().map(|block| self.block_offset(*block));
        let writes: Vec<(u64, &[u8])> = offsets.zip(pages.chunks(PAGE_BYTES)).collect();
        let erased = self.medium.write_all(&writes).and_then(|()| self.sync());

        let mut state = self.state.lock();
        match erased {
            // Only this thread takes blocks from the front.
            Ok(()) => self.free(&mut state, count),
            Err(error) => {
                self.latch(&mut state, "erasure of a block", error);
            }
        }
    }

    /// Takes what the group consists of out of the streams.
    fn take(&self, state: &mut DeviceState, group: Group) -> Vec<Transfer> {
        let mut transfers = Vec::new();
        for stream in STREAMS {
            let pads = match (group, stream) {
                (Group::Units, _) | (Group::Commit, Stream::Defrag) => false,
                // The copies of a block need no more room than they had in it, of which there may be no more.
                (Group::All, Stream::Defrag) => !state.compacting,
                (_, Stream::Client) => true,
            };
            if pads {
                self.pad(state, stream);
            }
            let current = &mut state.streams[stream as usize];
            transfers.extend(current.filled.drain(..).map(|filled| Transfer {
                stream,
                block: filled.block,
                buffer: filled.buffer,
                from: filled.taken,
                to: filled.end,
                log_end: filled.log_end,
                completes_block: true,
            }));
            if let Some(open) = &mut current.open {
                let whole = match group {
                    Group::All => open.position / PAGE_BYTES * PAGE_BYTES,
                    _ => self.units_end(open.position),
                };
                // Unless it is still without a record.
                let padded = pads && open.position.is_multiple_of(PAGE_BYTES);
                let to = if padded { open.position } else { whole };
                let to = to.max(open.taken);
                if to > open.taken {
                    transfers.push(Transfer {
                        stream,
                        block: open.block,
                        buffer: Arc::clone(&open.buffer),
                        from: open.taken,
                        to,
                        log_end: current.log_start + to as u64,
                        completes_block: false,
                    });
                    open.taken = to;
                }
            }
        }
        if group == Group::All {
            state.flush_now = false;
        }
        let rest = STREAMS.iter().any(|stream| {
            let open = state.streams[*stream as usize].open.as_ref();
            open.is_some_and(|open| open.taken < open.position)
        });
        match group {
            Group::All if rest && state.compacting => state.unsynced_since = Some(Instant::now()),
            Group::All => state.unsynced_since = None,
            Group::Commit if !rest => state.unsynced_since = None,
            Group::Commit | Group::Units => {}
        }
        transfers
    }

    fn write(&self, transfers: &[Transfer]) -> io::Result<()> {
        let writes: Vec<(u64, &[u8])> = transfers
            .iter()
            .filter(|transfer| transfer.from < transfer.to)
            .map(|transfer| {
                // SAFETY: what was taken lies below the append position, and the reference is held.
                let bytes = unsafe { transfer.buffer.slice(transfer.from..transfer.to) };
                let offset = self.block_offset(transfer.block) + transfer.from as u64;
                (offset, bytes)
            })
            .collect();
        self.medium.write_all(&writes)?;
        let bytes: usize = writes.iter().map(|(_, bytes)| bytes.len()).sum();
        self.counters.flushes.add(writes.len() as u64);
        self.counters.flush_bytes.add(bytes as u64);
        Ok(())
    }

    fn complete(
        &self,
        mut guard: MutexGuard<'_, DeviceState>,
        transfers: Vec<Transfer>,
        synced: bool,
    ) -> Vec<CommitWaiter> {
        let state = &mut *guard;
        for Transfer {
            stream,
            block,
            buffer,
            to,
            log_end,
            completes_block,
            ..
        } in transfers
        {
            match completes_block {
                true => buffer.end(),
                false => buffer.note_written(to),
            }
            // Before the block is finished, which keeps the buffer for reuse if nobody has it.
            drop(buffer);
            let current = &mut state.streams[stream as usize];
            current.written = current.written.max(log_end);
            let kind = if completes_block {
                &self.own.writes
            } else {
                &self.own.partial_writes
            };
            kind[stream as usize].add(1);
            if completes_block {
                state.unwritten -= 1;
                state.unwritten_copies -= usize::from(stream == Stream::Defrag);
                self.finish(state, stream, block);
            }
        }
        let mut told = Vec::new();
        if synced {
            for stream in &mut state.streams {
                stream.durable = stream.written;
            }
            self.reclaim(state);
            if state.ranks.sparse() > 0 || self.is_short(state) {
                // Blocks are compacted once they are durable.
                self.signal.raise();
            }
            let durable = state.streams[Stream::Client as usize].durable;
            state.waiters.retain(|(position, waiter)| {
                let waits = *position > durable;
                if !waits {
                    told.push(*waiter);
                }
                waits
            });
        }
        self.tell_progress(state);
        told
    }

    fn latch(
        &self,
        state: &mut DeviceState,
        operation: &'static str,
        error: io::Error,
    ) -> DeviceError {
        self.counters.write_errors.add(1);
        let failure = DeviceError {
            device: self.index,
            operation,
            source: Arc::new(error),
        };
        tracing::error!(namespace = %self.config.namespace, %failure, "the device takes no more writes");
        state.failure = Some(failure.clone());
        self.progress.notify_all();
        self.work.notify_all();
        failure
    }

    /// Why nothing becomes durable any more.
    pub(super) fn failure_of_ended(&self, state: &DeviceState) -> DeviceError {
        state.failure.clone().unwrap_or_else(|| DeviceError {
            device: self.index,
            operation: "flush",
            source: Arc::new(io::Error::other("the device is closed")),
        })
    }

    /// Makes everything appended so far durable, by the flush thread if there is one.
    pub(super) fn drain(&self, threads: bool) -> Result<(), DeviceError> {
        if self.is_volatile {
            return Ok(());
        }
        let mut state = self.state.lock();
        let target = [state.streams[0].appended, state.streams[1].appended];
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if (0..STREAMS.len()).all(|i| state.streams[i].durable >= target[i]) {
                return Ok(());
            }
            if threads {
                state.flush_now = true;
                self.work.notify_one();
                self.progress.wait(&mut state);
            } else {
                drop(state);
                self.flush(Group::All);
                self.erase();
                state = self.state.lock();
            }
        }
    }
}
