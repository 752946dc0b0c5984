//! The table of one partition: an array of entries kept in digest order.
//!
//! An entry's home slot is its leading digest bits scaled to the table's size, a monotone function;
//! collisions shift to the right (ordered linear probing) and may run into some tail slots past the
//! last home, so nothing wraps around and the array as a whole is sorted. Invariant: every slot
//! from an entry's home up to the entry is occupied. A probe therefore starts next to its home and
//! reads forward until it meets a larger digest or an empty slot. "Occupied, with a smaller digest" holds from
//! there up to the key's place and nowhere after it, so where clients choose digests that collide, the
//! place is found by galloping.

use super::entry::{Entry, SLOT_BYTES, Slot, SlotKey};
use super::journal::{ArrayPlace, Descriptor};
use super::slots::Slots;
use crate::shared::{Arena, GRANULE_BYTES, INDEX_BYTES_MAX};
use perigee_wire::{Digest, PartitionId, partition_of};
use std::cmp::Ordering::{Equal, Greater, Less};
use std::ptr::NonNull;
use std::sync::Arc;

const LOAD_PCT_MAX: usize = 80;
/// What a shrunken table is filled to: where growing by an eighth leaves one.
const LOAD_PCT_SHRUNK: usize = 71;
const LOAD_PCT_MIN: usize = 40;
const GROWTH_DIVISOR: usize = 8;
const GROWTH_SLOTS_MIN: usize = 16;
/// Room past the last home. Digests are uniform, so longer runs there are rare; one that does not
/// fit is given a longer tail.
const TAIL_SLOTS: usize = 8;

/// Slots that a probe reads one by one: with uniform digests it hardly ever needs more.
const LINEAR_SLOTS: usize = 16;

/// The entries of one partition, ordered by digest (memcmp).
///
/// The array lies in an arena. Where that is of shared memory, a descriptor lets another process go on with the table after
/// this one has ended: see [`journal`](super::journal).
// Small, so that the tables of all partitions stay in a processor's cache, with their locks.
pub struct PartitionTable {
    slots: Slots,
    arena: Option<Arc<Arena>>,
    /// Within the mapping that the arena holds.
    descriptor: Option<NonNull<Descriptor>>,
    homes: u32,
    len: u32,
    id: PartitionId,
    /// Arrays come from the arena, and changes are journalled where there is a descriptor. Not while the index is built,
    /// which nobody attaches to.
    is_settled: bool,
}

const _: () = assert!(size_of::<PartitionTable>() <= 48);

// SAFETY: the descriptor consists of atomics, in a mapping that lives as long as the arena.
unsafe impl Send for PartitionTable {}
// SAFETY: as above.
unsafe impl Sync for PartitionTable {}

enum Probe {
    Found(usize),
    /// The slot that the key belongs into, past the end when the array is full to its end.
    Vacant(usize),
}

impl PartitionTable {
    /// An empty table, which owns no memory yet and takes it from the heap.
    pub fn new(id: PartitionId) -> PartitionTable {
        PartitionTable {
            slots: Slots::heap(0),
            arena: None,
            descriptor: None,
            homes: 0,
            len: 0,
            id,
            is_settled: false,
        }
    }

    /// Empty tables of all partitions, with an arena of their own: the heap keeps arrays that tables grew out of. They are
    /// on the heap until they are settled, and for good where the system gives no address space for an arena.
    pub fn all() -> Vec<PartitionTable> {
        let arena = Arena::anonymous(INDEX_BYTES_MAX).map(Arc::new);
        if let Err(error) = &arena {
            tracing::warn!(
                %error,
                bytes = INDEX_BYTES_MAX,
                "no address space for the index (see ulimit -v), of which only what is used takes memory: it lies on the heap"
            );
        }
        Self::all_in(arena.ok())
    }

    pub(super) fn all_in(arena: Option<Arc<Arena>>) -> Vec<PartitionTable> {
        let table = |id| PartitionTable {
            arena: arena.clone(),
            ..PartitionTable::new(id)
        };
        PartitionId::all().map(table).collect()
    }

    /// An empty table in shared memory, which is not journalled before it is settled. The descriptor is all zero,
    /// lies in the arena's mapping, and is nobody else's.
    pub(crate) fn shared(
        id: PartitionId,
        arena: &Arc<Arena>,
        descriptor: NonNull<Descriptor>,
    ) -> PartitionTable {
        PartitionTable {
            arena: Some(Arc::clone(arena)),
            descriptor: Some(descriptor),
            ..PartitionTable::new(id)
        }
    }

    /// Where the array of a descriptor lies in the file, and its length in bytes.
    pub(crate) fn array_bytes(descriptor: &Descriptor) -> Option<(u64, u64)> {
        let place = descriptor.array();
        (place.slots > 0).then_some((place.offset, (place.slots * SLOT_BYTES) as u64))
    }

    /// The table that a process before left in shared memory; a change that it did not complete is completed. The
    /// array was adopted by the arena. `None` if it cannot be such a table: all of it is checked.
    pub(crate) fn attach(
        id: PartitionId,
        arena: &Arc<Arena>,
        descriptor: NonNull<Descriptor>,
    ) -> Option<PartitionTable> {
        let mut table = PartitionTable::shared(id, arena, descriptor);
        // SAFETY: in a mapping that `arena` holds; all its fields are atomics.
        let descriptor = unsafe { descriptor.as_ref() };
        let place = descriptor.array();
        if place.slots > 0 {
            table.slots = Slots::at(arena, place.offset, place.slots);
        }
        // SAFETY: the array is the one in use, and nobody else has it.
        if !unsafe { descriptor.recover(&mut table.slots) } || !descriptor.has_possible_times() {
            return None;
        }
        table.is_settled = true;
        table.len = descriptor.len() as u32;
        table.homes = place.homes as u32;
        table.is_sound().then_some(table)
    }

    /// Moves the array into the arena, where all later ones will lie. From now on every change is journalled, if others
    /// can attach to it.
    pub fn settle(&mut self) {
        let Some(arena) = &self.arena else { return };
        // While it grew it was on the heap, where that takes no system calls.
        if !self.slots.is_empty()
            && let Some(mut slots) = Slots::allocate(arena, self.slots.len())
        {
            slots.copy_from_slice(&self.slots);
            self.slots = slots;
        }
        if let Some(descriptor) = self.descriptor() {
            descriptor.set_len(self.len());
            if let Some(place) = self.place() {
                descriptor.publish(place);
            }
        }
        self.is_settled = true;
    }

    /// False if the array should lie in the arena, and there was no memory to be had.
    pub(crate) fn is_whole(&self) -> bool {
        self.arena.is_none() || self.slots.is_empty() || self.slots.is_in_arena()
    }

    fn place(&self) -> Option<ArrayPlace> {
        Some(ArrayPlace {
            offset: self.slots.offset(self.arena.as_deref()?)?,
            slots: self.slots.len(),
            homes: self.homes as usize,
        })
    }

    /// Says that this version, whose location is not known yet, is about to be stored. Until it is in the table, or
    /// `forget_intent` is called, a restart has to look for it.
    #[inline]
    pub(crate) fn intend(&self, entry: &Entry) {
        if let Some(journal) = self.journal() {
            journal.intend(&Slot::pack(entry));
        }
    }

    pub(crate) fn forget_intent(&self) {
        if let Some(journal) = self.journal() {
            journal.forget_intent();
        }
    }

    /// The version that the process before was about to store.
    pub(crate) fn intent(&self) -> Option<Entry> {
        self.journal().and_then(|journal| journal.intent(self.id))
    }

    #[inline]
    fn descriptor(&self) -> Option<&Descriptor> {
        // SAFETY: in a mapping that `arena` holds; all its fields are atomics.
        self.descriptor
            .map(|descriptor| unsafe { descriptor.as_ref() })
    }

    #[inline]
    fn journal(&self) -> Option<&Descriptor> {
        self.descriptor().filter(|_| self.is_settled)
    }

    /// Whether the array is one that changes to a table lead to.
    fn is_sound(&self) -> bool {
        if self.homes as usize > self.slots.len() || (self.homes == 0) != self.slots.is_empty() {
            return false;
        }
        let (mut len, mut run, mut last) = (0, 0, None);
        for (at, slot) in self.slots.iter().enumerate() {
            if slot.is_empty() {
                run = at + 1;
                continue;
            }
            let key = slot.key();
            let home = self.home(key.prefix);
            let in_order = last.is_none_or(|last| last < key);
            if !slot.is_possible() || !in_order || home < run || home > at {
                return false;
            }
            last = Some(key);
            len += 1;
        }
        len == self.len()
    }

    pub fn id(&self) -> PartitionId {
        self.id
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, digest: &Digest) -> Option<Entry> {
        match self.probe(self.key_of(digest)) {
            Probe::Found(at) => Some(self.slots[at].unpack(self.id)),
            Probe::Vacant(_) => None,
        }
    }

    /// Brings the memory that a lookup of `digest` starts at into the processor's cache. For who knows
    /// several digests in advance.
    #[inline]
    pub fn prefetch(&self, digest: &Digest) {
        if let Some(slot) = self.slots.get(self.home(self.key_of(digest).prefix) + 1) {
            prefetch(slot);
        }
    }

    /// Inserts or replaces, and returns what was replaced.
    pub fn upsert(&mut self, entry: Entry) -> Option<Entry> {
        let key = self.key_of(&entry.digest);
        match self.probe(key) {
            Probe::Found(at) => {
                let replaced = self.slots[at].unpack(self.id);
                self.replace_at(at, &Slot::pack(&entry));
                Some(replaced)
            }
            Probe::Vacant(at) => {
                self.insert(at, key, Slot::pack(&entry));
                None
            }
        }
    }

    /// Inserts, or replaces an entry that `yields`. True if the table now holds `entry`.
    pub fn upsert_if(&mut self, entry: Entry, yields: impl FnOnce(&Entry) -> bool) -> bool {
        let key = self.key_of(&entry.digest);
        match self.probe(key) {
            Probe::Found(at) => {
                let replaces = yields(&self.slots[at].unpack(self.id));
                if replaces {
                    self.replace_at(at, &Slot::pack(&entry));
                }
                replaces
            }
            Probe::Vacant(at) => {
                self.insert(at, key, Slot::pack(&entry));
                true
            }
        }
    }

    /// Puts a new slot into its place `at`, which moves if the table has to grow.
    fn insert(&mut self, mut at: usize, key: SlotKey, slot: Slot) {
        let homes = self.homes as usize;
        if (self.len() + 1) * 100 > homes * LOAD_PCT_MAX {
            let growth = (homes / GROWTH_DIVISOR).max(GROWTH_SLOTS_MIN);
            self.rebuild(homes + growth, TAIL_SLOTS);
            at = self.vacancy(key);
        }
        let mut end = self.run_end(at);
        if end == self.slots.len() {
            // Only digests with a common prefix come here often: let the tail grow with them.
            let tail = TAIL_SLOTS.max(self.len() / GROWTH_DIVISOR);
            self.rebuild(self.homes as usize, tail);
            at = self.vacancy(key);
            end = self.run_end(at);
        }
        self.insert_at(at, end, &slot);
        self.len += 1;
    }

    /// The journal, if changes are written down, and the array.
    #[inline]
    fn journalled(&mut self) -> (Option<&Descriptor>, &mut Slots) {
        // SAFETY: in a mapping that `arena` holds; all its fields are atomics.
        let descriptor = self
            .descriptor
            .filter(|_| self.is_settled)
            .map(|descriptor| unsafe { descriptor.as_ref() });
        (descriptor, &mut self.slots)
    }

    #[inline]
    fn replace_at(&mut self, at: usize, slot: &Slot) {
        match self.journalled() {
            // SAFETY: the array is the one in use, and the table is borrowed exclusively.
            (Some(journal), slots) => unsafe { journal.replace(slots, at, slot) },
            (None, slots) => slots[at] = *slot,
        }
    }

    #[inline]
    fn insert_at(&mut self, at: usize, end: usize, slot: &Slot) {
        match self.journalled() {
            // SAFETY: as above, and the slot at `end` is empty.
            (Some(journal), slots) => unsafe { journal.insert(slots, at, end, slot) },
            (None, slots) => {
                slots.copy_within(at..end, at + 1);
                slots[at] = *slot;
            }
        }
    }

    #[inline]
    fn remove_at(&mut self, at: usize, end: usize) {
        match self.journalled() {
            // SAFETY: as above.
            (Some(journal), slots) => unsafe { journal.remove(slots, at, end) },
            (None, slots) => {
                slots.copy_within(at + 1..end + 1, at);
                slots[end] = Slot::EMPTY;
            }
        }
    }

    pub fn remove(&mut self, digest: &Digest) -> Option<Entry> {
        let Probe::Found(at) = self.probe(self.key_of(digest)) else {
            return None;
        };
        let removed = self.slots[at].unpack(self.id);
        // Whatever follows and is not at home moves back by one, so that no probe meets a hole.
        let after = at + 1;
        let shifted = self.slots[after..]
            .iter()
            .enumerate()
            .take_while(|(i, slot)| !slot.is_empty() && self.home(slot.prefix()) < after + i)
            .count();
        self.remove_at(at, at + shifted);
        self.len -= 1;
        let (len, homes) = (self.len(), self.homes as usize);
        if homes > 2 * GROWTH_SLOTS_MIN && len * 100 < homes * LOAD_PCT_MIN {
            self.rebuild(
                (len * 100 / LOAD_PCT_SHRUNK).max(GROWTH_SLOTS_MIN),
                TAIL_SLOTS,
            );
        }
        Some(removed)
    }

    /// All entries in digest order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            slots: self.slots.iter(),
            id: self.id,
        }
    }

    /// The entries whose digest is greater than `after`, in digest order.
    pub fn iter_after(&self, after: Option<&Digest>) -> Iter<'_> {
        let from = after.map_or(0, |digest| {
            let key = self.key_of(digest);
            match self.probe(key) {
                Probe::Found(at) => at + 1,
                Probe::Vacant(at) => at,
            }
        });
        Iter {
            slots: self.slots[from..].iter(),
            id: self.id,
        }
    }

    /// The entries whose digests have this prefix, in digest order: one, unless somebody chose digests that agree in it.
    pub fn with_prefix(&self, prefix: u64) -> WithPrefix<'_> {
        let least = SlotKey::least(prefix);
        let (Probe::Found(from) | Probe::Vacant(from)) = self.probe(least);
        let slots = self.slots.get(from..).unwrap_or_default().iter();
        WithPrefix {
            entries: Iter { slots, id: self.id },
            prefix,
        }
    }

    /// The table and its array, with what the allocator rounds up.
    pub fn memory_bytes(&self) -> usize {
        let array = self.slots.len() * SLOT_BYTES;
        let descriptor = self.descriptor.map_or(0, |_| size_of::<Descriptor>());
        let array = match self.slots.is_in_arena() {
            true => array.next_multiple_of(GRANULE_BYTES as usize),
            false => allocated_bytes(array),
        };
        size_of::<Self>() + descriptor + array
    }

    /// Memory that the system gave for the arrays of all tables in the arena of this one.
    pub fn arena_bytes(&self) -> u64 {
        self.arena
            .as_ref()
            .map_or(0, |arena| arena.map().memory_bytes())
    }

    #[inline]
    fn key_of(&self, digest: &Digest) -> SlotKey {
        debug_assert_eq!(partition_of(digest), self.id, "digest of another partition");
        SlotKey::new(digest)
    }

    #[inline]
    fn home(&self, prefix: u64) -> usize {
        home(prefix, self.homes as usize)
    }

    /// Most entries are moved from home by other entries, at these loads by one place on average: so a probe begins at the
    /// place after the home slot, which takes fewer cache lines than from the home slot on.
    #[inline]
    fn probe(&self, key: SlotKey) -> Probe {
        let from = self.home(key.prefix);
        let Some([home, first]) = self.slots.get(from..from + 2) else {
            return Probe::Vacant(0);
        };
        if let Some(order) = first.order(&key) {
            match order {
                Less => return self.probe_after(from + 2, key),
                Equal => return Probe::Found(from + 1),
                Greater => {}
            }
        }
        match home.order(&key) {
            Some(Less) => Probe::Vacant(from + 1),
            Some(Equal) => Probe::Found(from),
            Some(Greater) | None => Probe::Vacant(from),
        }
    }

    /// The rest of a probe that found only smaller digests before `from`.
    #[inline]
    fn probe_after(&self, from: usize, key: SlotKey) -> Probe {
        let linear = self.slots.len().min(from + LINEAR_SLOTS);
        for (i, slot) in self.slots[from..linear].iter().enumerate() {
            match slot.order(&key) {
                Some(Less) => continue,
                Some(Equal) => return Probe::Found(from + i),
                Some(Greater) | None => return Probe::Vacant(from + i),
            }
        }
        self.gallop(linear, key)
    }

    /// What is left where `probe_after` came to no end: steps that double, then a
    /// binary search within the last of them.
    #[cold]
    fn gallop(&self, from: usize, key: SlotKey) -> Probe {
        let is_before = |slot: &Slot| !slot.is_empty() && slot.key() < key;
        let mut step = LINEAR_SLOTS;
        let mut low = from;
        while low + step < self.slots.len() && is_before(&self.slots[low + step]) {
            low += step;
            step *= 2;
        }
        let high = self.slots.len().min(low + step);
        let at = low + self.slots[low..high].partition_point(is_before);
        match self.slots.get(at) {
            Some(slot) if !slot.is_empty() && slot.key() == key => Probe::Found(at),
            _ => Probe::Vacant(at),
        }
    }

    fn vacancy(&self, key: SlotKey) -> usize {
        match self.probe(key) {
            Probe::Vacant(at) => at,
            Probe::Found(_) => unreachable!("the key was absent before the table grew"),
        }
    }

    /// The first empty slot at or after `at`, or the end of the array.
    fn run_end(&self, at: usize) -> usize {
        at + self.slots[at..]
            .iter()
            .take_while(|slot| !slot.is_empty())
            .count()
    }

    /// Moves every entry into a new array of `homes` home slots: one sequential merge.
    fn rebuild(&mut self, homes: usize, tail_free: usize) {
        let occupied = || self.slots.iter().filter(|slot| !slot.is_empty());
        let place = |next: usize, slot: &Slot| home(slot.prefix(), homes).max(next);
        let end = occupied().fold(0, |next, slot| place(next, slot) + 1);
        let count = (homes + TAIL_SLOTS).max(end + tail_free);
        let arena = self.arena.as_deref().filter(|_| self.is_settled);
        let mut slots = arena
            .and_then(|arena| Slots::allocate(arena, count))
            .unwrap_or_else(|| Slots::heap(count));
        let mut next = 0;
        for slot in occupied() {
            let at = place(next, slot);
            slots[at] = *slot;
            next = at + 1;
        }
        let before = std::mem::replace(&mut self.slots, slots);
        self.homes = homes as u32;
        // Without room in the arena the table goes on on the heap; where others could attach to it, they start cold.
        match (self.journal(), self.place(), self.arena.as_deref()) {
            (Some(journal), Some(place), _) => journal.publish(place),
            (Some(_), None, Some(arena)) => arena.distrust(),
            (None, None, Some(arena)) if self.is_settled => arena.tell_full(),
            _ => {}
        }
        before.free(self.arena.as_deref());
    }
}

#[inline]
fn home(prefix: u64, homes: usize) -> usize {
    ((prefix as u128 * homes as u128) >> u64::BITS) as usize
}

#[inline]
fn prefetch(slot: &Slot) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(slot).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slot;
}

/// What an allocation costs with a malloc of the usual kind: a header word and rounding to 16, or
/// whole pages of its own above 128 KiB.
fn allocated_bytes(bytes: usize) -> usize {
    const PAGE_BYTES: usize = 4096;
    const MAPPED_FROM_BYTES: usize = 128 * 1024;
    match bytes {
        0 => 0,
        1..MAPPED_FROM_BYTES => (bytes + 8).next_multiple_of(16),
        _ => (bytes + 16).next_multiple_of(PAGE_BYTES),
    }
}

/// Entries of a [`PartitionTable`] in digest order.
#[derive(Clone)]
pub struct Iter<'a> {
    slots: std::slice::Iter<'a, Slot>,
    id: PartitionId,
}

impl Iterator for Iter<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let id = self.id;
        self.slots
            .find(|slot| !slot.is_empty())
            .map(|slot| slot.unpack(id))
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

/// The part of a digest that comes first in the order of a partition: 64 bits of it, so that the order of prefixes is that of
/// digests. Digests that nobody chose differ in it.
#[inline]
pub fn prefix_of(digest: &Digest) -> u64 {
    SlotKey::new(digest).prefix
}

/// Entries of a [`PartitionTable`] that share a prefix, in digest order.
#[derive(Clone)]
pub struct WithPrefix<'a> {
    entries: Iter<'a>,
    prefix: u64,
}

impl Iterator for WithPrefix<'_> {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        let entry = self.entries.next();
        let found = entry.filter(|entry| prefix_of(&entry.digest) == self.prefix);
        if found.is_none() {
            self.entries.slots = [].iter();
        }
        found
    }
}
