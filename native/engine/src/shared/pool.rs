//! The second shared file: memory of write blocks, and for each one that holds bytes which are not on the device yet,
//! which block it is and how far it was written.
//!
//! ```text
//! 0           u64: the number of the index file that this one belongs to
//! 4096        records of 32 bytes, one a place
//! then        the places, of a block each
//! ```

use super::map::{PAGE_BYTES, SharedMap};
use crate::index::step;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, compiler_fence,
};

/// Blocks without a use that keep their memory for the next.
const KEPT_BLOCKS_MAX: usize = 8;

/// What is known of a place. Its fields hold for as long as the sequence is not 0, which is stored last and cleared
/// first; only the compiler has to keep that order, see `index/journal.rs`.
#[repr(C)]
struct Record {
    sequence: AtomicU64,
    block: AtomicU32,
    device: AtomicU32,
    /// Where the next record goes: bytes below are complete.
    position: AtomicU32,
    /// Bytes below are on the device.
    written: AtomicU32,
    reserved: u64,
}

const _: () = assert!(size_of::<Record>() == 32);

const RECORDS: u64 = PAGE_BYTES;

pub(crate) struct BlockPool {
    map: SharedMap,
    block_bytes: u64,
    places: u32,
    /// Where the blocks begin, after the records.
    from: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Vec<u32>,
    punched: Vec<u32>,
    /// Places from here on were never used.
    next: u32,
}

/// A block that was not written as a whole when the process before ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unwritten {
    pub(crate) place: u32,
    pub(crate) sequence: u64,
    pub(crate) device: u32,
    pub(crate) block: u32,
    pub(crate) position: u32,
    pub(crate) written: u32,
}

impl BlockPool {
    /// Maps the file with so many places. Also says whether it was that long before.
    pub(super) fn open(
        path: &Path,
        block_bytes: u64,
        places: u32,
    ) -> io::Result<(BlockPool, bool)> {
        let records = u64::from(places) * size_of::<Record>() as u64;
        let from = (RECORDS + records).next_multiple_of(PAGE_BYTES);
        let (map, was_whole) = SharedMap::open(path, from + u64::from(places) * block_bytes)?;
        map.reserve(0, from)?;
        let pool = BlockPool {
            map,
            block_bytes,
            places,
            from,
            state: Mutex::default(),
        };
        Ok((pool, was_whole))
    }

    /// Forgets all blocks. Only while none is in use.
    pub(crate) fn clear(&self) {
        // SAFETY: reserved by `open`; records are only used for blocks in use.
        unsafe { self.map.zero(RECORDS, self.from - RECORDS) };
        compiler_fence(SeqCst);
        self.map.clear_from(self.from);
        *self.state.lock() = State::default();
    }

    /// The number of the index file that the blocks are of; 0 for none.
    pub(super) fn number(&self) -> &AtomicU64 {
        // SAFETY: within the mapping, which lives as long as `self`; an atomic.
        unsafe { self.map.at::<AtomicU64>(0).as_ref() }
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.map.memory_bytes()
    }

    /// Memory for a block, with unspecified contents, if there is any to be had.
    pub(crate) fn take(self: &Arc<Self>) -> Option<PooledBlock> {
        let mut state = self.state.lock();
        let place = match state.kept.pop() {
            Some(place) => place,
            None => {
                let place = state.punched.last().copied().unwrap_or(state.next);
                if place == self.places {
                    return None;
                }
                self.map
                    .reserve(self.offset(place), self.block_bytes)
                    .ok()?;
                if state.punched.pop().is_none() {
                    state.next += 1;
                }
                place
            }
        };
        Some(PooledBlock {
            pool: Arc::clone(self),
            place,
        })
    }

    /// What the process before left. Nothing of it is checked.
    pub(crate) fn unwritten(&self) -> Vec<Unwritten> {
        let found = (0..self.places).map(|place| {
            let record = self.record(place);
            Unwritten {
                place,
                sequence: record.sequence.load(Relaxed),
                device: record.device.load(Relaxed),
                block: record.block.load(Relaxed),
                position: record.position.load(Relaxed),
                written: record.written.load(Relaxed),
            }
        });
        found.filter(|found| found.sequence != 0).collect()
    }

    /// The bytes of a place that the process before left. Before any is taken.
    ///
    /// # Safety
    ///
    /// The slice is the only one of that place while it lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "of memory that the pool only hands out"
    )]
    pub(crate) unsafe fn left(&self, place: u32) -> io::Result<&mut [u8]> {
        self.map.reserve(self.offset(place), self.block_bytes)?;
        let start = self.start(place);
        // SAFETY: within the mapping, and reserved; the only one, by contract.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.block_bytes as usize) })
    }

    fn offset(&self, place: u32) -> u64 {
        self.from + u64::from(place) * self.block_bytes
    }

    fn start(&self, place: u32) -> NonNull<u8> {
        assert!(place < self.places);
        self.map.at(self.offset(place))
    }

    fn record(&self, place: u32) -> &Record {
        assert!(place < self.places);
        let at = RECORDS + u64::from(place) * size_of::<Record>() as u64;
        // SAFETY: within the mapping, which lives as long as `self`; all its fields are atomics or unused.
        unsafe { self.map.at::<Record>(at).as_ref() }
    }

    fn give_back(&self, place: u32) {
        if self.record(place).sequence.load(Relaxed) != 0 {
            // Never written, for the device failed: left to the next start.
            return;
        }
        let mut state = self.state.lock();
        if state.kept.len() < KEPT_BLOCKS_MAX {
            state.kept.push(place);
        } else {
            self.map.punch(self.offset(place), self.block_bytes);
            state.punched.push(place);
        }
    }

    /// Gives back the memory of blocks without a use.
    pub(super) fn trim(&self) {
        let mut state = self.state.lock();
        while let Some(place) = state.kept.pop() {
            self.map.punch(self.offset(place), self.block_bytes);
            state.punched.push(place);
        }
    }
}

/// Memory of one block in the shared file.
pub(crate) struct PooledBlock {
    pool: Arc<BlockPool>,
    place: u32,
}

impl PooledBlock {
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.pool.start(self.place)
    }

    /// The memory holds a block from now on whose bytes up to `position` are complete, and none of them written.
    pub(crate) fn begin(&self, device: u8, block: u32, sequence: u64, position: usize) {
        let record = self.pool.record(self.place);
        record.device.store(u32::from(device), Relaxed);
        record.block.store(block, Relaxed);
        record.position.store(position as u32, Relaxed);
        record.written.store(0, Relaxed);
        step();
        record.sequence.store(sequence, Relaxed);
        step();
    }

    #[inline]
    pub(crate) fn note_position(&self, position: usize) {
        step();
        self.pool
            .record(self.place)
            .position
            .store(position as u32, Relaxed);
        step();
    }

    pub(crate) fn note_written(&self, written: usize) {
        step();
        self.pool
            .record(self.place)
            .written
            .store(written as u32, Relaxed);
    }

    /// All of the block is on the device: the memory is a copy.
    pub(crate) fn end(&self) {
        step();
        self.pool.record(self.place).sequence.store(0, Relaxed);
        step();
    }
}

impl Drop for PooledBlock {
    fn drop(&mut self) {
        self.pool.give_back(self.place);
    }
}
