//! The memory of a table's array: on the heap, or in the shared file.

use super::entry::Slot;
use super::journal::{ArrayPlace, Descriptor};
use crate::shared::Arena;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// An array of slots.
pub(super) struct Slots {
    start: NonNull<Slot>,
    count: usize,
    owner: Owner,
}

enum Owner {
    Heap,
    /// Left as it is when this is dropped: the file outlives the process. Given back by `free`.
    Shared {
        offset: u64,
        arena: Arc<Arena>,
    },
}

// SAFETY: it owns its memory as a boxed slice does, which is what it is on the heap; an array in the shared file
// belongs to one table.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    pub(super) fn heap(count: usize) -> Slots {
        let slots = Box::leak(vec![Slot::EMPTY; count].into_boxed_slice());
        Slots {
            start: NonNull::from(slots).cast(),
            count,
            owner: Owner::Heap,
        }
    }

    /// An empty array in the shared file, if there is memory to be had.
    pub(super) fn shared(arena: &Arc<Arena>, count: usize) -> Option<Slots> {
        let offset = arena.allocate((count * size_of::<Slot>()) as u64)?;
        let mut slots = Self::at(arena, offset, count);
        slots.fill(Slot::EMPTY);
        Some(slots)
    }

    /// The array at a place of the shared file that has memory for it and that nobody else uses.
    pub(super) fn at(arena: &Arc<Arena>, offset: u64, count: usize) -> Slots {
        let start: NonNull<Slot> = arena.map().at(offset);
        if let Some(last) = count.checked_sub(1) {
            let _: NonNull<Slot> = arena.map().at(offset + (last * size_of::<Slot>()) as u64);
        }
        Slots {
            start,
            count,
            owner: Owner::Shared {
                offset,
                arena: Arc::clone(arena),
            },
        }
    }

    /// Where the array lies in the shared file, if it does.
    pub(super) fn place(&self, homes: usize) -> Option<ArrayPlace> {
        match &self.owner {
            Owner::Heap => None,
            Owner::Shared { offset, .. } => Some(ArrayPlace {
                offset: *offset,
                slots: self.count,
                homes,
            }),
        }
    }

    /// Gives the memory back, also that in the shared file.
    pub(super) fn free(self) {
        if let Owner::Shared { offset, arena } = &self.owner {
            arena.free(*offset, (self.count * size_of::<Slot>()) as u64);
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self.owner, Owner::Shared { .. })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if matches!(self.owner, Owner::Heap) {
            let slots = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.count);
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
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl DerefMut for Slots {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Slot] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.count) }
    }
}

/// A table's place in the shared file.
pub(super) struct SharedTable {
    pub(super) arena: Arc<Arena>,
    /// Within the mapping that the arena holds.
    descriptor: NonNull<Descriptor>,
    /// Changes are journalled. Not while the index is built, which nobody attaches to.
    pub(super) is_published: bool,
}

// SAFETY: the descriptor consists of atomics, in a mapping that lives as long as the arena.
unsafe impl Send for SharedTable {}
// SAFETY: as above.
unsafe impl Sync for SharedTable {}

impl SharedTable {
    pub(super) fn new(arena: &Arc<Arena>, descriptor: NonNull<Descriptor>) -> SharedTable {
        SharedTable {
            arena: Arc::clone(arena),
            descriptor,
            is_published: false,
        }
    }

    #[inline]
    pub(super) fn descriptor(&self) -> &Descriptor {
        // SAFETY: in a mapping that `arena` holds; all its fields are atomics.
        unsafe { self.descriptor.as_ref() }
    }
}
