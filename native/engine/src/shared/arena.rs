//! The part of the index file that the tables' arrays lie in, or memory of this process alone for them: an allocator whose
//! own state is in the process. After a restart it follows from the arrays that are in use.

use super::map::{PAGE_BYTES, SharedMap};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arrays start at, and are rounded up to, multiples of this.
pub(crate) const GRANULE_BYTES: u64 = 64;
/// Memory is taken from the file system in steps, which grow with what is in use.
const STEP_DIVISOR: u64 = 64;
const STEP_BYTES_MIN: u64 = 64 << 10;
const STEP_BYTES_MAX: u64 = 16 << 20;

pub(crate) struct Arena {
    map: Arc<SharedMap>,
    from: u64,
    to: u64,
    /// An array did not find room here.
    distrusted: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// Free runs below `bump`, none next to another. Whole pages of them have no memory.
    by_offset: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    /// Nothing is in use from here on.
    bump: u64,
    /// Memory was taken up to here.
    reserved: u64,
    used: u64,
}

impl Arena {
    /// All of the range is free.
    pub(crate) fn new(map: Arc<SharedMap>, from: u64, to: u64) -> Arena {
        assert!(from.is_multiple_of(PAGE_BYTES) && from <= to);
        Arena {
            map,
            from,
            to,
            distrusted: AtomicBool::new(false),
            state: Mutex::new(State::new(from)),
        }
    }

    /// So many bytes of address space that end with the process.
    pub(crate) fn anonymous(bytes: u64) -> io::Result<Arena> {
        let map = SharedMap::anonymous(bytes)?;
        Ok(Arena::new(Arc::new(map), 0, bytes))
    }

    pub(crate) fn map(&self) -> &Arc<SharedMap> {
        &self.map
    }

    pub(crate) fn range(&self) -> (u64, u64) {
        (self.from, self.to)
    }

    pub(super) fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Acquire)
    }

    /// All of the range is free again.
    pub(super) fn reset(&self) {
        *self.state.lock() = State::new(self.from);
        self.distrusted.store(false, Ordering::Release);
    }

    /// An array of a table that nobody attaches to found no room. Told once.
    pub(crate) fn tell_full(&self) {
        if !self.set_distrusted() {
            tracing::warn!(
                "the system has no memory for the index: arrays that grow go to the heap"
            );
        }
    }

    /// Returns what it was before.
    pub(super) fn set_distrusted(&self) -> bool {
        self.distrusted.swap(true, Ordering::AcqRel)
    }

    /// The offset in the file of so many bytes of memory, whose contents are unspecified. `None` if there is none to
    /// be had.
    pub(crate) fn allocate(&self, bytes: u64) -> Option<u64> {
        let bytes = bytes.next_multiple_of(GRANULE_BYTES);
        let mut state = self.state.lock();
        let run = state.by_size.range((bytes, 0)..).next().copied();
        if let Some((size, offset)) = run {
            self.map.reserve(offset, bytes).ok()?;
            state.remove(offset, size);
            if size > bytes {
                state.insert(offset + bytes, size - bytes);
            }
            state.used += bytes;
            return Some(offset);
        }
        let offset = state.bump;
        let end = offset.checked_add(bytes).filter(|end| *end <= self.to)?;
        if end > state.reserved {
            let step = (state.used / STEP_DIVISOR).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
            let wanted = end.max(state.reserved + step).min(self.to);
            // Where there is not enough for a step there may be for this.
            let reserved = [wanted, end]
                .into_iter()
                .find(|to| self.map.reserve(offset, to - offset).is_ok())?;
            state.reserved = reserved;
        }
        state.bump = end;
        state.used += bytes;
        Some(offset)
    }

    /// Gives back what `allocate` gave.
    pub(crate) fn free(&self, offset: u64, bytes: u64) {
        let bytes = bytes.next_multiple_of(GRANULE_BYTES);
        let mut state = self.state.lock();
        state.used -= bytes;
        let (mut from, mut to) = (offset, offset + bytes);
        if let Some((before, size)) = state.by_offset.range(..offset).next_back()
            && before + size == from
        {
            let (before, size) = (*before, *size);
            state.remove(before, size);
            from = before;
        }
        if let Some(size) = state.by_offset.get(&to).copied() {
            state.remove(to, size);
            to += size;
        }
        if to == state.bump {
            state.bump = from;
            self.map.punch(from, state.reserved - from);
            state.reserved = from.next_multiple_of(PAGE_BYTES);
            return;
        }
        state.insert(from, to - from);
        // Of the runs that were joined, all but the pages at their ends was punched before.
        let first = from.max(offset / PAGE_BYTES * PAGE_BYTES);
        let end = to.min((offset + bytes).next_multiple_of(PAGE_BYTES));
        self.map.punch(first, end - first);
    }

    /// Takes up arrays that lie in the file from before, as offsets and bytes. False if they cannot be: they overlap,
    /// or are not within the arena, or there is no memory behind them.
    pub(crate) fn adopt(&self, mut arrays: Vec<(u64, u64)>) -> bool {
        arrays.sort_unstable();
        // All of it was reserved when it was allocated: what says otherwise must not take the memory of the machine.
        let total: u64 = arrays.iter().map(|(_, bytes)| bytes).sum();
        if total > self.map.memory_bytes() {
            return false;
        }
        let mut state = self.state.lock();
        debug_assert_eq!(state.bump, self.from, "nothing was allocated before");
        for (offset, bytes) in arrays {
            let bytes = bytes.next_multiple_of(GRANULE_BYTES);
            let end = offset.checked_add(bytes).filter(|end| *end <= self.to);
            let Some(end) =
                end.filter(|_| offset >= state.bump && offset.is_multiple_of(GRANULE_BYTES))
            else {
                return false;
            };
            if offset > state.bump {
                let from = state.bump;
                state.insert(from, offset - from);
                // Of an array that was being replaced when the process ended.
                self.map.punch(from, offset - from);
            }
            if self.map.reserve(offset, bytes).is_err() {
                return false;
            }
            state.bump = end;
            state.used += bytes;
        }
        // Free runs are reserved again when they are used.
        state.reserved = state.bump.next_multiple_of(PAGE_BYTES).min(self.to);
        self.map.clear_from(state.reserved);
        true
    }
}

impl State {
    fn new(from: u64) -> State {
        State {
            by_offset: BTreeMap::new(),
            by_size: BTreeSet::new(),
            bump: from,
            reserved: from,
            used: 0,
        }
    }

    fn insert(&mut self, offset: u64, size: u64) {
        self.by_offset.insert(offset, size);
        self.by_size.insert((size, offset));
    }

    fn remove(&mut self, offset: u64, size: u64) {
        self.by_offset.remove(&offset);
        self.by_size.remove(&(size, offset));
    }
}
