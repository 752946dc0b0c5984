//! What makes a table that lies in shared memory survive the end of its process at any instruction.
//!
//! Each partition has a descriptor of 128 bytes in the shared file. A change is written down there first, whole, then
//! carried out slot by slot with a cursor that says how far it is, then struck out. Who attaches to the file completes
//! what is written down; each step may be done twice. An array that was rebuilt is published by filling the one of two
//! array records that is not in use, and then changing the selector.
//!
//! A process that ends leaves its stores complete up to some instruction: a store that was executed reaches the memory
//! that is shared, and no later one does. So it is only the compiler that must keep the order, and compiler fences do.

use super::entry::{Entry, SLOT_BYTES, Slot};
use perigee_wire::PartitionId;
use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, compiler_fence,
};

const SLOT_WORDS: usize = SLOT_BYTES / 8;

/// What is written down.
mod operation {
    pub(super) const NONE: u32 = 0;
    /// `slots[at] = slot`.
    pub(super) const REPLACE: u32 = 1;
    /// Slots from `at` up to the empty one at `end` move up by one, `slots[at] = slot`.
    pub(super) const INSERT: u32 = 2;
    /// Slots above `at` up to `end` move down by one, `slots[end]` becomes empty.
    pub(super) const REMOVE: u32 = 3;
    /// A version is about to be stored whose slot, but for its location, is `slot`.
    pub(super) const INTENT: u32 = 4;
}

/// A partition's part of the shared file. All zero: an empty table.
#[repr(C, align(128))]
pub(crate) struct Descriptor {
    operation: AtomicU32,
    /// Which of the two arrays is in use.
    selector: AtomicU32,
    at: AtomicU32,
    end: AtomicU32,
    cursor: AtomicU32,
    len: AtomicU32,
    len_after: AtomicU32,
    /// Of the records that were dropped without a trace, the lifetime of the longest-lived.
    pub(crate) dropped_lifetime: AtomicU32,
    slot: [AtomicU64; SLOT_WORDS],
    arrays: [Array; 2],
    /// Last-update times: the latest of a local version, the latest that left the index without a trace.
    pub(crate) latest: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

#[repr(C)]
struct Array {
    /// In the file.
    offset: AtomicU64,
    slots: AtomicU32,
    homes: AtomicU32,
}

const _: () = assert!(size_of::<Descriptor>() == 128);

/// Where a published array lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ArrayPlace {
    pub(crate) offset: u64,
    pub(crate) slots: usize,
    pub(crate) homes: usize,
}

/// Ends a step: nothing of it is ordered after what follows. Tests stop here.
#[inline(always)]
pub(crate) fn step() {
    compiler_fence(SeqCst);
    #[cfg(test)]
    tests::stop_here();
}

#[inline(always)]
fn store(to: &AtomicU32, value: u32) {
    to.store(value, Relaxed);
    step();
}

/// A slot as words that are stored one by one.
///
/// # Safety
///
/// `slot` points to a slot that nobody else uses meanwhile.
#[inline(always)]
unsafe fn words<'a>(slot: *mut Slot) -> &'a [AtomicU64; SLOT_WORDS] {
    // SAFETY: a slot is as large, and aligned to 8 bytes; not used by others, by contract.
    unsafe { &*slot.cast() }
}

#[inline(always)]
fn copy(from: &[AtomicU64; SLOT_WORDS], to: &[AtomicU64; SLOT_WORDS]) {
    for (from, to) in from.iter().zip(to) {
        to.store(from.load(Relaxed), Relaxed);
        #[cfg(test)]
        step();
    }
    step();
}

impl Descriptor {
    pub(super) fn len(&self) -> usize {
        self.len.load(Relaxed) as usize
    }

    /// The array in use.
    pub(super) fn array(&self) -> ArrayPlace {
        let array = &self.arrays[(self.selector.load(Relaxed) & 1) as usize];
        ArrayPlace {
            offset: array.offset.load(Relaxed),
            slots: array.slots.load(Relaxed) as usize,
            homes: array.homes.load(Relaxed) as usize,
        }
    }

    /// Makes an array with the same entries the one in use.
    pub(super) fn publish(&self, place: ArrayPlace) {
        let other = 1 - (self.selector.load(Relaxed) & 1);
        let array = &self.arrays[other as usize];
        step();
        array.offset.store(place.offset, Relaxed);
        step();
        store(&array.slots, place.slots as u32);
        store(&array.homes, place.homes as u32);
        store(&self.selector, other);
    }

    /// Sets the length of a table that was filled without a journal.
    pub(super) fn set_len(&self, len: usize) {
        self.len.store(len as u32, Relaxed);
    }

    fn note(&self, slot: &Slot) {
        for (word, to) in slot.words().into_iter().zip(&self.slot) {
            to.store(word, Relaxed);
            #[cfg(test)]
            step();
        }
    }

    fn begin(&self, operation: u32, at: usize, end: usize, cursor: usize, len_after: usize) {
        store(&self.at, at as u32);
        store(&self.end, end as u32);
        store(&self.cursor, cursor as u32);
        store(&self.len_after, len_after as u32);
        store(&self.operation, operation);
    }

    /// Says which version is about to be stored. Until it is in the index, or `forget_intent` is called.
    pub(super) fn intend(&self, slot: &Slot) {
        self.note(slot);
        step();
        store(&self.operation, operation::INTENT);
    }

    pub(super) fn forget_intent(&self) {
        store(&self.operation, operation::NONE);
    }

    /// # Safety
    ///
    /// `slots` is the array in use, and the caller has it for itself.
    pub(super) unsafe fn replace(&self, slots: &mut [Slot], at: usize, slot: &Slot) {
        self.note(slot);
        self.begin(operation::REPLACE, at, at, at, self.len());
        // SAFETY: passed on to the caller.
        unsafe { self.complete(slots) }
    }

    /// # Safety
    ///
    /// As for `replace`; `at <= end`, and the slot at `end` is empty.
    pub(super) unsafe fn insert(&self, slots: &mut [Slot], at: usize, end: usize, slot: &Slot) {
        self.note(slot);
        self.begin(operation::INSERT, at, end, end, self.len() + 1);
        // SAFETY: passed on to the caller.
        unsafe { self.complete(slots) }
    }

    /// # Safety
    ///
    /// As for `replace`; `at <= end`.
    pub(super) unsafe fn remove(&self, slots: &mut [Slot], at: usize, end: usize) {
        self.begin(operation::REMOVE, at, end, at, self.len() - 1);
        // SAFETY: passed on to the caller.
        unsafe { self.complete(slots) }
    }

    /// Carries out what is written down, from the cursor on, and strikes it out. An intent stays.
    ///
    /// # Safety
    ///
    /// `slots` is the array in use, and the caller has it for itself.
    unsafe fn complete(&self, slots: &mut [Slot]) {
        let operation = self.operation.load(Relaxed);
        let (at, end) = (
            self.at.load(Relaxed) as usize,
            self.end.load(Relaxed) as usize,
        );
        let mut cursor = self.cursor.load(Relaxed) as usize;
        assert!(at <= cursor && cursor <= end && end < slots.len());
        let start = slots.as_mut_ptr();
        // SAFETY: `at` to `end` are within the array, as asserted, and the caller has it for itself.
        let place = |i: usize| unsafe { words(start.add(i)) };
        match operation {
            operation::REPLACE => copy(&self.slot, place(at)),
            operation::INSERT => {
                while cursor > at {
                    copy(place(cursor - 1), place(cursor));
                    cursor -= 1;
                    store(&self.cursor, cursor as u32);
                }
                copy(&self.slot, place(at));
            }
            operation::REMOVE => {
                while cursor < end {
                    copy(place(cursor + 1), place(cursor));
                    cursor += 1;
                    store(&self.cursor, cursor as u32);
                }
                for word in place(end) {
                    word.store(0, Relaxed);
                    #[cfg(test)]
                    step();
                }
                step();
            }
            _ => unreachable!("only changes are carried out"),
        }
        store(&self.len, self.len_after.load(Relaxed));
        store(&self.operation, operation::NONE);
    }

    /// Completes what the process before did not, if that can be. False: the descriptor cannot be right.
    ///
    /// # Safety
    ///
    /// As for `replace`.
    pub(super) unsafe fn recover(&self, slots: &mut [Slot]) -> bool {
        let [at, end, cursor] =
            [&self.at, &self.end, &self.cursor].map(|field| field.load(Relaxed) as usize);
        match self.operation.load(Relaxed) {
            operation::NONE | operation::INTENT => true,
            operation::REPLACE | operation::INSERT | operation::REMOVE => {
                let possible = at <= cursor && cursor <= end && end < slots.len();
                if possible {
                    // SAFETY: passed on to the caller.
                    unsafe { self.complete(slots) };
                }
                possible
            }
            _ => false,
        }
    }

    /// Whether the update times are such as versions can have.
    pub(super) fn has_possible_times(&self) -> bool {
        [&self.latest, &self.dropped]
            .iter()
            .all(|time| time.load(Relaxed) <= Entry::LAST_UPDATE_TIME_MAX)
    }

    /// The version that was about to be stored, without its location.
    pub(super) fn intent(&self, partition: PartitionId) -> Option<Entry> {
        let is_intent = self.operation.load(Relaxed) == operation::INTENT;
        is_intent.then(|| {
            Slot::of_words(std::array::from_fn(|i| self.slot[i].load(Relaxed))).unpack(partition)
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        static STEPS_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
        static KILLS: Cell<bool> = const { Cell::new(false) };
    }

    /// What a stopped thread panics with.
    pub(crate) struct Stopped;

    pub(super) fn stop_here() {
        STEPS_LEFT.with(|left| match left.get() {
            u64::MAX => {}
            0 if KILLS.get() => {
                // SAFETY: takes no memory of ours.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            }
            0 => {
                left.set(u64::MAX);
                std::panic::resume_unwind(Box::new(Stopped));
            }
            steps => left.set(steps - 1),
        });
    }

    /// Has the process killed when this thread has done so many steps of changes in shared memory.
    pub(crate) fn kill_after(steps: u64) {
        KILLS.set(true);
        STEPS_LEFT.set(steps);
    }

    /// Runs `f`, but not beyond so many steps of changes in shared memory. `None` if it was stopped.
    pub(crate) fn stopped_after<R>(steps: u64, f: impl FnOnce() -> R) -> Option<R> {
        STEPS_LEFT.with(|left| left.set(steps));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        STEPS_LEFT.with(|left| left.set(u64::MAX));
        match result {
            Ok(result) => Some(result),
            Err(panic) if panic.is::<Stopped>() => None,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
