//! The space of one device: what becomes of a block when its records die, what free blocks are kept for, and
//! whether emptying a block gains anything.

use super::device::{
    BlockState, Device, DeviceState, Phase, RetiredBlock, STREAMS, Stream, StreamState,
};
use super::error::AppendError;
use super::medium::PAGE_BYTES;
use super::ranks::{DENSE_RANKS, MEAGRE_RANK, PADDED_RANK, SPARSE_RANKS};
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
/// Compacting a block has to gain this part of it.
const GAIN_DIVISOR: usize = 16;
/// As above while tombstones find no room, where deletes that are spread over many blocks gain little of each: a smaller
/// part, and more than a compaction pads.
const GAIN_DIVISOR_LEAST: usize = 256;
const GAIN_PAGES_LEAST: usize = 4;
/// Free blocks that defragmentation keeps for writes by itself, as a part of all, and in bytes at most: what is written
/// until an emptied block is free. Each costs room that would otherwise be dead bytes, and so makes copies more frequent.
const SPARE_DIVISOR: usize = 32;
const SPARE_BYTES_MAX: usize = 64 << 20;
/// Defragmentation takes its whole pause with this many times the room at which it takes none.
const PLENTY_FACTOR: usize = 4;
/// Blocks settled at a time under the device's lock.
const SETTLE_BLOCKS: usize = 1024;

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
            let (filled, repadded) = match stream {
                Stream::Client => (self.block_bytes - BLOCK_HEADER_BYTES, 0),
                Stream::Defrag => {
                    let repadded = open.padded.min(PAGE_BYTES);
                    (open.position - BLOCK_HEADER_BYTES, repadded)
                }
            };
            if filled >= self.live(block) + repadded + self.least_gain() {
                self.fill(state, stream);
                state.blocks[block as usize].filled = filled;
                self.settle(state, block);
                state.flush_now = !self.is_volatile;
                self.work.notify_one();
                self.signal.raise();
            }
        }
    }

    /// Retires a used block, or ranks it by what there is to gain, as its live bytes ask for.
    pub(super) fn settle(&self, state: &mut DeviceState, block: u32) {
        let at = block as usize;
        if state.blocks[at].phase != Phase::Used {
            return;
        }
        let (mut live, mut rank) = (self.live(block), None);
        while live > 0 {
            let look_at;
            (rank, look_at) = self.rank(&state.blocks[at], live);
            self.blocks[at]
                .look_at
                .store(look_at as u32, Ordering::SeqCst);
            // Either a release sees that it is to look, or what it took away is seen here.
            live = self.live(block);
            if live > look_at {
                break;
            }
        }
        if live == 0 {
            state.ranks.set(block, None);
            state.blocks[at].phase = Phase::Retired;
            let after = [state.streams[0].appended, state.streams[1].appended];
            state.retired.push_back(RetiredBlock { block, after });
            self.reclaim(state);
            return;
        }
        state.ranks.set(block, rank);
        let is_sparse = rank.is_some_and(|rank| rank < SPARSE_RANKS);
        // What was found to gain nothing of may do so now.
        if is_sparse || rank.is_some() && std::mem::take(&mut state.gainless) {
            self.signal.raise();
        }
    }

    /// The rank of a used block with so many live bytes, if emptying it gains anything, and the live bytes at which it
    /// gets another.
    fn rank(&self, block: &BlockState, live: usize) -> (Option<usize>, usize) {
        let (filled, lwm) = (block.filled, self.lwm_bytes());
        let records = filled.saturating_sub(block.repadded);
        let (gainful, meagre) = (self.least_gain(), self.least_gain_for_tombstones());
        if block.shunned {
            (None, 0)
        } else if records < live + gainful {
            let next = filled.saturating_sub(gainful);
            if live <= next {
                (Some(PADDED_RANK), records.saturating_sub(gainful))
            } else if live + meagre <= records {
                (Some(MEAGRE_RANK), next)
            } else {
                (None, next.max(records.saturating_sub(meagre)))
            }
        } else if live < lwm {
            let rank = live * SPARSE_RANKS / lwm;
            let next = (rank * lwm).div_ceil(SPARSE_RANKS);
            (Some(rank), next.saturating_sub(1))
        } else {
            let dense = self.block_bytes - lwm;
            let rank = (live - lwm) * DENSE_RANKS / dense;
            let next = lwm + (rank * dense).div_ceil(DENSE_RANKS);
            (Some(SPARSE_RANKS + rank), next.saturating_sub(1))
        }
    }

    /// Changes the low-water mark, for blocks that are below it already too.
    pub(super) fn set_lwm_pct(&self, pct: u8) {
        if self.lwm_pct.get() == pct {
            return;
        }
        self.lwm_pct.set(pct);
        for first in (1..self.blocks.len()).step_by(SETTLE_BLOCKS) {
            let mut state = self.state.lock();
            let end = self.blocks.len().min(first + SETTLE_BLOCKS);
            (first..end).for_each(|block| self.settle(&mut state, block as u32));
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
            .fetch_sub(bytes as u32, Ordering::SeqCst);
        let before = before as usize;
        assert!(before >= bytes, "{location:?} was released twice");
        self.used_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        let look_at = self.blocks[block as usize].look_at.load(Ordering::SeqCst);
        if before - bytes <= look_at as usize {
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
        self.ledger[block as usize].live.load(Ordering::SeqCst) as usize
    }

    fn lwm_bytes(&self) -> usize {
        self.block_bytes * usize::from(self.lwm_pct.get()) / 100
    }

    /// What emptying a block has to gain, if space is needed.
    fn least_gain(&self) -> usize {
        self.block_bytes / GAIN_DIVISOR
    }

    /// What it has to gain if tombstones need space.
    fn least_gain_for_tombstones(&self) -> usize {
        let least = self.block_bytes / GAIN_DIVISOR_LEAST;
        least
            .max(GAIN_PAGES_LEAST * PAGE_BYTES)
            .min(self.least_gain())
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

    /// So little room that blocks above the low-water mark have to be compacted too. Room goes with every byte that is
    /// written, and comes with every block that is emptied, so copies keep pace with writes, whatever it takes to gain
    /// a block.
    pub(super) fn is_short(&self, state: &DeviceState) -> bool {
        let free = state.free.len();
        (state.refused && free <= KEPT_BLOCKS)
            || (state.tombstone_refused && free <= RESERVE_BLOCKS)
            || self.room(state) < self.room_kept()
    }

    /// Bytes that can be appended once everything is durable, those of the reserves included.
    pub(super) fn room(&self, state: &DeviceState) -> usize {
        let rest = |stream: &StreamState| match &stream.open {
            Some(open) if !open.is_reserve => self.block_bytes - open.position,
            _ => 0,
        };
        let blocks = state.free.len() + state.retired.len();
        blocks * self.block_bytes + state.streams.iter().map(rest).sum::<usize>()
    }

    pub(super) fn room_kept(&self) -> usize {
        (KEPT_BLOCKS + 1 + self.spare_blocks()) * self.block_bytes
    }

    fn spare_blocks(&self) -> usize {
        (self.blocks.len() / SPARE_DIVISOR).min(SPARE_BYTES_MAX / self.block_bytes)
    }

    /// So few free blocks that those which are emptied cannot wait for a flush to come.
    pub(super) fn is_low(&self, state: &DeviceState) -> bool {
        state.free.len() <= KEPT_BLOCKS + 1 + self.spare_blocks() / 2
    }

    /// The pause after a compaction: the configured one while there is room in plenty, less as it runs out.
    pub(super) fn defrag_pause(&self, state: &DeviceState) -> Duration {
        let kept = self.room_kept();
        let plenty = (PLENTY_FACTOR * kept) as u128;
        let above = self.room(state).saturating_sub(kept) as u128;
        let nanos = self.config.defrag_sleep.get().as_nanos() * above.min(plenty) / plenty;
        Duration::from_nanos(nanos as u64)
    }

    /// Whether so many filled blocks wait for the device that copies should wait too. Writes that come as fast as the
    /// device allows keep it behind for ever: when room is short, copies stand back only for copies.
    pub(super) fn is_behind(&self, state: &DeviceState) -> bool {
        let waiting = match self.is_short(state) {
            true => state.unwritten_copies,
            false => state.unwritten,
        };
        waiting > self.unwritten_max / 2
    }
}
