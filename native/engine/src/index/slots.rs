//! The memory of a table's array: in an arena, or on the heap where there is none.

use super::entry::Slot;
use crate::shared::Arena;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// An array of slots.
pub(super) struct Slots {
    start: NonNull<Slot>,
    count: u32,
    /// Of an arena, to which `free` gives it back. Left as it is when this is dropped: a shared file outlives the process,
    /// and any other arena ends with its last table.
    in_arena: bool,
}

// SAFETY: it owns its memory as a boxed slice does, which is what it is on the heap; an array in an arena belongs to one
// table, which holds the arena.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    pub(super) fn heap(count: usize) -> Slots {
        let slots = Box::leak(vec![Slot::EMPTY; count].into_boxed_slice());
        Slots {
            start: NonNull::from(slots).cast(),
            count: as_count(count),
            in_arena: false,
        }
    }

    /// An empty array in the arena, if there is memory to be had.
    pub(super) fn allocate(arena: &Arena, count: usize) -> Option<Slots> {
        let offset = arena.allocate((count * size_of::<Slot>()) as u64)?;
        let mut slots = Self::at(arena, offset, count);
        slots.fill(Slot::EMPTY);
        Some(slots)
    }

    /// The array at a place of the arena that has memory for it and that nobody else uses.
    pub(super) fn at(arena: &Arena, offset: u64, count: usize) -> Slots {
        let start: NonNull<Slot> = arena.map().at(offset);
        if let Some(last) = count.checked_sub(1) {
            let _: NonNull<Slot> = arena.map().at(offset + (last * size_of::<Slot>()) as u64);
        }
        Slots {
            start,
            count: as_count(count),
            in_arena: true,
        }
    }

    /// Where the array lies in its arena, if it does.
    pub(super) fn offset(&self, arena: &Arena) -> Option<u64> {
        let base: NonNull<Slot> = arena.map().at(0);
        self.in_arena
            .then(|| (self.start.addr().get() - base.addr().get()) as u64)
    }

    /// Gives the memory back, also that in the arena.
    pub(super) fn free(self, arena: Option<&Arena>) {
        if let Some(arena) = arena
            && let Some(offset) = self.offset(arena)
        {
            arena.free(offset, (self.len() * size_of::<Slot>()) as u64);
        }
    }

    pub(super) fn is_in_arena(&self) -> bool {
        self.in_arena
    }
}

fn as_count(count: usize) -> u32 {
    u32::try_from(count).expect("a partition has at most 2^32 slots")
}

impl Drop for Slots {
    fn drop(&mut self) {
        if !self.in_arena {
            let slots =
                std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.count as usize);
            // SAFETY: leaked by `heap`, with this length.
            drop(unsafe { Box::from_raw(slots) });
        }
    }
}

impl Deref for Slots {
    type Target = [Slot];

    #[inline]
    fn deref(&self) -> &[Slot] {
        // SAFETY: `count` slots that this owns, any bytes of which are valid.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count as usize) }
    }
}

impl DerefMut for Slots {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Slot] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.count as usize) }
    }
}
