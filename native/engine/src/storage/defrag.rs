//! Defragmentation: one thread a store copies what is still live out of blocks that hold little of
//! it. Blocks are chosen by live bytes, not by age; an emptied block is freed once the copies are
//! durable.
//!
//! When free blocks run out, blocks above the low-water mark are chosen too, as long as emptying
//! one gains something: a store that is full of dead bytes can always be compacted.

use super::Relocate;
use super::device::{Device, DeviceState, Phase, Stream};
use super::medium::{AlignedBuf, PAGE_BYTES};
use super::ranks::{MEAGRE_RANK, PADDED_RANK, SPARSE_RANKS};
use super::space::RESERVE_BLOCKS;
use super::write_block::{Piece, Walk};
use crate::record::image::BLOCK_HEADER_BYTES;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Blocks looked at for one that can be compacted: those that are better may not be durable yet.
const CANDIDATES_MAX: usize = 1024;

/// How often all blocks may be emptied for their padding without a write that takes what is gained.
const PADDED_ROUNDS: usize = 2;
/// And how many may be on a device of few blocks, where it takes luck for copies to fit.
const PADDED_BLOCKS_LEAST: usize = 256;

/// Wakes the defragmentation thread.
#[derive(Default)]
pub(super) struct DefragSignal {
    raised: Mutex<bool>,
    wake: Condvar,
    stopping: AtomicBool,
}

impl DefragSignal {
    /// There may be something to do.
    pub(super) fn raise(&self) {
        *self.raised.lock() = true;
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.raise();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn wait(&self) {
        let mut raised = self.raised.lock();
        while !*raised {
            self.wake.wait(&mut raised);
        }
        *raised = false;
    }

    /// Pauses, unless the thread is to stop.
    fn pause(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        let until = Instant::now() + duration;
        let mut raised = self.raised.lock();
        while !self.is_stopping() && !self.wake.wait_until(&mut raised, until).timed_out() {}
    }
}

/// What became of a block that was to be emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Every record was moved, or is not wanted.
    Emptied,
    /// There was no room for the copies.
    NoRoom,
    Unreadable,
    Stopped,
}

struct Victim {
    block: u32,
    sequence: u64,
    end: usize,
}

/// The thread. `devices` are those of one store, which share the signal.
pub(super) fn run_defrag(devices: &[Arc<Device>], signal: &DefragSignal, relocator: &dyn Relocate) {
    let mut buffer = AlignedBuf::default();
    let mut image = Vec::new();
    while !signal.is_stopping() {
        let mut worked = false;
        for device in devices {
            let Some(victim) = device.choose_victim(signal) else {
                continue;
            };
            worked = true;
            let outcome = device.empty(&victim, relocator, signal, &mut buffer, &mut image);
            let pause = device.conclude(&victim, outcome);
            signal.pause(match outcome {
                Outcome::NoRoom => device
                    .config
                    .flush_max
                    .max(device.config.defrag_sleep.get()),
                _ => pause,
            });
            if signal.is_stopping() {
                return;
            }
        }
        if !worked {
            signal.wait();
        }
    }
}

impl Device {
    /// The block with the fewest live bytes, of those below the low-water mark, or of all if room is short.
    fn choose_victim(&self, signal: &DefragSignal) -> Option<Victim> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if signal.is_stopping() || !self.has_room_for_copies(state) {
            return None;
        }
        let (pressed, short) = (self.is_pressed(state), self.is_short(state));
        let last_rank = match state.tombstone_refused {
            true => MEAGRE_RANK,
            false => PADDED_RANK,
        };
        let end = match short {
            true => last_rank + 1,
            false if state.ranks.sparse() < self.config.defrag_queue_min.get() => 0,
            false => SPARSE_RANKS,
        };
        let padded_max = PADDED_BLOCKS_LEAST.max(PADDED_ROUNDS * self.blocks.len());
        let skips_padded = state.padded_emptied > padded_max;
        let is_padded = |block: u32| state.ranks.get(block) == Some(PADDED_RANK);
        let may_empty =
            |block: &u32| self.copies_fit(state, *block) && !(skips_padded && is_padded(*block));
        let candidates = |end: usize| {
            state
                .ranks
                .below(end)
                .take(CANDIDATES_MAX)
                .filter(may_empty)
        };
        let block = candidates(end).find(|block| self.is_durable(state, *block));
        let gains = block.is_some() || candidates(last_rank + 1).next().is_some();
        let padded = block.is_some_and(is_padded);
        state.padded_emptied += usize::from(padded);
        state.gainless = pressed && !gains;
        let Some(block) = block else {
            if pressed && std::mem::take(&mut state.refused) {
                self.give_up_open(state);
            }
            // The next sync makes those durable that are not, and raises the signal.
            let waits_for_sync = pressed || (short && gains);
            if waits_for_sync && !state.flush_now && state.unsynced_since.is_some() {
                state.flush_now = true;
                self.work.notify_one();
            }
            return None;
        };
        state.ranks.set(block, None);
        self.blocks[block as usize]
            .look_at
            .store(0, Ordering::SeqCst);
        let chosen = &mut state.blocks[block as usize];
        chosen.phase = Phase::Compacting;
        state.compacting = true;
        Some(Victim {
            block,
            sequence: chosen.sequence,
            end: BLOCK_HEADER_BYTES + chosen.filled,
        })
    }

    /// False while a flush would free a block of the last that there are, and while the device is behind: then the signal
    /// is raised at its next progress, and other devices have their turn until then. False for good if the device takes
    /// no copies any more.
    fn has_room_for_copies(&self, state: &mut DeviceState) -> bool {
        if state.failure.is_some() {
            return false;
        }
        let starved = state.free.len() <= RESERVE_BLOCKS && !state.retired.is_empty();
        if !starved && !self.is_behind(state) {
            return true;
        }
        self.hurry(state);
        state.defrag_waits = true;
        false
    }

    /// Whether all that is live in the block can be copied. What fits into a block fits into a free one; without any, it
    /// has to fit into the rest of the open one, or its copies would take the last room and free nothing.
    fn copies_fit(&self, state: &DeviceState, block: u32) -> bool {
        let open = state.streams[Stream::Defrag as usize].open.as_ref();
        let rest = open.map_or(0, |open| self.block_bytes - open.position);
        !state.free.is_empty() || self.live(block) <= rest
    }

    /// Moves what is live in a block.
    fn empty(
        &self,
        victim: &Victim,
        relocator: &dyn Relocate,
        signal: &DefragSignal,
        buffer: &mut AlignedBuf,
        image: &mut Vec<u8>,
    ) -> Outcome {
        self.counters.defrag_reads.add(1);
        self.own.defrag_reads.add(1);
        let cached = self.blocks[victim.block as usize].buffer.read().clone();
        let bytes: &[u8] = if let Some(mapping) = &self.mapping {
            let offset = self.block_offset(victim.block) as usize;
            // SAFETY: within the mapping, since the block is; the block is being compacted, so it
            // is neither appended to nor freed before `conclude`.
            unsafe { std::slice::from_raw_parts(mapping.start().as_ptr().add(offset), victim.end) }
        } else if let Some(cached) = &cached {
            // SAFETY: a used block is complete, and the reference is held.
            unsafe { cached.slice(0..victim.end) }
        } else {
            buffer.reserve(self.block_bytes);
            let pages = victim.end.next_multiple_of(PAGE_BYTES);
            let offset = self.block_offset(victim.block);
            if let Err(error) = self.medium.read_at(offset, &mut buffer[..pages]) {
                self.count_read_error();
                tracing::error!(
                    namespace = %self.config.namespace,
                    device = self.index,
                    block = victim.block,
                    %error,
                    "a block cannot be compacted, since it cannot be read"
                );
                return Outcome::Unreadable;
            }
            &buffer[..victim.end]
        };
        let mut outcome = Outcome::Emptied;
        self.copy_refused.store(false, Ordering::Relaxed);
        for piece in Walk::new(bytes, victim.sequence) {
            if self.live(victim.block) == 0 {
                break;
            }
            if signal.is_stopping() {
                return Outcome::Stopped;
            }
            match piece {
                Piece::Image { at, image: view } => {
                    let from = self.location(victim.block, at, view.bytes().len());
                    image.clear();
                    image.extend_from_slice(view.bytes());
                    if relocator.relocate(view.digest(), from, image) {
                        self.counters.defrag_writes.add(1);
                        self.release(from);
                    } else if self.copy_refused.swap(false, Ordering::Relaxed) {
                        // It was left behind for want of room, and not because it is dead; there may
                        // be room by now, so what happened counts. Smaller ones may fit yet.
                        outcome = Outcome::NoRoom;
                    }
                }
                Piece::Damage(range) => self.tell_damage(victim.block, &range),
            }
        }
        outcome
    }

    /// Ends a compaction, and says how long to pause.
    fn conclude(&self, victim: &Victim, outcome: Outcome) -> Duration {
        let mut state = self.state.lock();
        state.compacting = false;
        let block = &mut state.blocks[victim.block as usize];
        block.phase = Phase::Used;
        // What is live still is damaged, or just being replaced: not to be met again.
        block.shunned = matches!(outcome, Outcome::Emptied | Outcome::Unreadable);
        self.settle(&mut state, victim.block);
        if self.is_low(&state) {
            self.hurry(&mut state);
        }
        self.defrag_pause(&state)
    }

    /// Counts and logs damaged bytes, once for each block.
    pub(super) fn tell_damage(&self, block: u32, range: &std::ops::Range<usize>) {
        let mut state = self.state.lock();
        let told = std::mem::replace(&mut state.blocks[block as usize].damage_told, true);
        drop(state);
        if told {
            return;
        }
        self.counters.damaged.add(1);
        tracing::error!(
            namespace = %self.config.namespace,
            device = self.index,
            block,
            offset = range.start,
            bytes = range.len(),
            "stored bytes are damaged; the records in them are skipped"
        );
    }
}
