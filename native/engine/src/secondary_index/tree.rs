//! The entries of one index in one partition: a sorted set of (key, prefix).
//!
//! Entries lie in *leaves*, sorted arrays of up to [`LEAF_ENTRIES_MAX`], and the leaves in one sorted array: a search takes
//! two binary searches, a range is copied leaf by leaf, and an entry costs little more than its 16 bytes.
//!
//! A leaf has room for a few entries more than it holds and gives back what it does not need, so it may be half full
//! without taking memory for a full one. Two neighbours together always have more than [`MERGE_ENTRIES_MAX`] entries.

/// 2 KiB: few enough to be moved for an insertion, many enough that the array of leaves is short.
const LEAF_ENTRIES_MAX: usize = 128;
/// Neighbours with no more entries than these become one leaf, which has room for as many again.
const MERGE_ENTRIES_MAX: usize = LEAF_ENTRIES_MAX / 2;
/// By how many entries a leaf grows at most.
const STEP_ENTRIES_MAX: usize = 16;
/// By what share of themselves the leaves of a tree grow.
const LEAVES_GROWTH_SHARE: usize = 8;
/// What the allocator takes for an allocation itself, and for rounding it up.
const ALLOCATION_BYTES: usize = 16;

/// Key and prefix as one number, which orders them as pairs.
type Entry = u128;

fn entry_of(key: u64, prefix: u64) -> Entry {
    u128::from(key) << u64::BITS | u128::from(prefix)
}

fn key_of(entry: Entry) -> u64 {
    (entry >> u64::BITS) as u64
}

fn prefix_of(entry: Entry) -> u64 {
    entry as u64
}

/// A sorted set of (key, prefix). Searches, insertions and removals take O(log n), and moving a few KiB at times. From a
/// hundred entries on, one takes at most 24 bytes, everything counted, and at most 36 when others have gone. An empty tree
/// has no memory but its own 32 bytes.
#[derive(Default)]
pub struct KeyTree {
    leaves: Vec<Leaf>,
    // 32 bits reach: as many entries would be 64 GiB in one of 4096 partitions.
    entries: u32,
    /// Of all leaves.
    capacity: u32,
}

const _: () = assert!(size_of::<KeyTree>() <= 32);

/// Never empty, never more than [`LEAF_ENTRIES_MAX`].
struct Leaf {
    /// The first of the entries, so that a search among leaves looks into none of them.
    first: Entry,
    entries: Vec<Entry>,
}

impl Leaf {
    fn of(entries: Vec<Entry>) -> Leaf {
        Leaf {
            first: entries[0],
            entries,
        }
    }
}

impl KeyTree {
    /// False if the entry was there.
    pub fn insert(&mut self, key: u64, prefix: u64) -> bool {
        let entry = entry_of(key, prefix);
        let Some(at) = self.leaf_of(entry) else {
            self.add_leaf(0, vec![entry]);
            return true;
        };
        let entries = &self.leaves[at].entries;
        let Err(place) = entries.binary_search(&entry) else {
            return false;
        };
        let is_free = |at: usize| {
            let leaf = self.leaves.get(at);
            leaf.is_some_and(|leaf| leaf.entries.len() < LEAF_ENTRIES_MAX)
        };
        // Entries that come in order fill one leaf after the other: only what falls into the middle of a full leaf splits it.
        match place {
            _ if is_free(at) => self.insert_at(at, place, entry),
            LEAF_ENTRIES_MAX if is_free(at + 1) => self.insert_at(at + 1, 0, entry),
            LEAF_ENTRIES_MAX => self.add_leaf(at + 1, vec![entry]),
            0 => self.add_leaf(at, vec![entry]),
            _ => {
                self.split(at);
                match place.checked_sub(LEAF_ENTRIES_MAX / 2) {
                    Some(place @ 1..) => self.insert_at(at + 1, place, entry),
                    _ => self.insert_at(at, place, entry),
                }
            }
        }
        true
    }

    /// False if the entry was not there.
    pub fn remove(&mut self, key: u64, prefix: u64) -> bool {
        let entry = entry_of(key, prefix);
        let Some(at) = self.leaf_of(entry) else {
            return false;
        };
        let entries = &self.leaves[at].entries;
        let Ok(place) = entries.binary_search(&entry) else {
            return false;
        };
        if entries.len() == 1 {
            self.take_leaf(at);
            return true;
        }
        self.change(at, |entries| {
            entries.remove(place);
        });
        let together = |at: usize| match self.leaves.get(at..at + 2) {
            Some([one, next]) => one.entries.len() + next.entries.len(),
            _ => usize::MAX,
        };
        let before = at.checked_sub(1);
        if let Some(at) = before.filter(|before| together(*before) <= MERGE_ENTRIES_MAX) {
            self.merge(at);
        } else if together(at) <= MERGE_ENTRIES_MAX {
            self.merge(at);
        }
        true
    }

    pub fn len(&self) -> usize {
        self.entries as usize
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Memory on the heap, whether used or room for more, with what the allocator takes for itself.
    pub fn memory_bytes(&self) -> usize {
        let leaves = self.leaves.capacity() * size_of::<Leaf>();
        let allocations = self.leaves.len() + usize::from(self.leaves.capacity() > 0);
        self.capacity as usize * size_of::<Entry>() + leaves + allocations * ALLOCATION_BYTES
    }

    /// Appends the prefixes of all entries whose keys are from `low` to `high`, both included.
    pub fn collect(&self, low: u64, high: u64, prefixes: &mut Vec<u64>) {
        let first = entry_of(low, 0);
        let Some(at) = self.leaf_of(first).filter(|_| low <= high) else {
            return;
        };
        let mut start = self.leaves[at].entries.partition_point(|one| *one < first);
        for leaf in &self.leaves[at..] {
            if key_of(leaf.first) > high {
                return;
            }
            let mut run = &leaf.entries[start..];
            start = 0;
            if run.last().is_some_and(|last| key_of(*last) > high) {
                run = &run[..run.partition_point(|one| key_of(*one) <= high)];
            }
            prefixes.extend(run.iter().map(|one| prefix_of(*one)));
        }
    }

    /// Removes the entries to whose prefixes `keep` says no, and returns how many they were. `keep` is asked once an entry.
    pub fn retain_prefixes(&mut self, mut keep: impl FnMut(u64) -> bool) -> usize {
        let before = self.len();
        let mut kept: Vec<Leaf> = Vec::new();
        for mut leaf in std::mem::take(self).leaves {
            leaf.entries.retain(|entry| keep(prefix_of(*entry)));
            match kept.last_mut() {
                _ if leaf.entries.is_empty() => {}
                Some(last) if last.entries.len() + leaf.entries.len() <= MERGE_ENTRIES_MAX => {
                    last.entries.append(&mut leaf.entries);
                }
                _ => kept.push(Leaf::of(leaf.entries)),
            }
        }
        self.leaves = kept;
        self.fit_leaves();
        for leaf in &mut self.leaves {
            fit(&mut leaf.entries);
            self.entries += leaf.entries.len() as u32;
            self.capacity += leaf.entries.capacity() as u32;
        }
        before - self.len()
    }

    /// All entries, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let entries = self.leaves.iter().flat_map(|leaf| &leaf.entries);
        entries.map(|entry| (key_of(*entry), prefix_of(*entry)))
    }

    /// The leaf that an entry lies in if it is there, and belongs to if not. None of an empty tree.
    fn leaf_of(&self, entry: Entry) -> Option<usize> {
        if self.leaves.is_empty() {
            return None;
        }
        let after = self.leaves.partition_point(|leaf| leaf.first <= entry);
        Some(after.saturating_sub(1))
    }

    fn insert_at(&mut self, at: usize, place: usize, entry: Entry) {
        self.change(at, |entries| {
            if entries.len() == entries.capacity() {
                entries.reserve_exact(capacity_for(entries.len() + 1) - entries.len());
            }
            entries.insert(place, entry);
        });
    }

    /// Changes the entries of a leaf, of which some are left, and keeps count.
    fn change(&mut self, at: usize, change: impl FnOnce(&mut Vec<Entry>)) {
        let leaf = &mut self.leaves[at];
        self.entries -= leaf.entries.len() as u32;
        self.capacity -= leaf.entries.capacity() as u32;
        change(&mut leaf.entries);
        fit(&mut leaf.entries);
        leaf.first = leaf.entries[0];
        self.entries += leaf.entries.len() as u32;
        self.capacity += leaf.entries.capacity() as u32;
    }

    fn add_leaf(&mut self, at: usize, entries: Vec<Entry>) {
        self.entries += entries.len() as u32;
        self.capacity += entries.capacity() as u32;
        if self.leaves.len() == self.leaves.capacity() {
            let more = 1 + self.leaves.len() / LEAVES_GROWTH_SHARE;
            self.leaves.reserve_exact(more);
        }
        self.leaves.insert(at, Leaf::of(entries));
    }

    fn take_leaf(&mut self, at: usize) -> Vec<Entry> {
        let entries = self.leaves.remove(at).entries;
        self.entries -= entries.len() as u32;
        self.capacity -= entries.capacity() as u32;
        self.fit_leaves();
        entries
    }

    /// Moves the upper half of a leaf's entries into a leaf of their own.
    fn split(&mut self, at: usize) {
        let mut upper = Vec::new();
        self.change(at, |entries| {
            upper.extend_from_slice(&entries[LEAF_ENTRIES_MAX / 2..]);
            entries.truncate(LEAF_ENTRIES_MAX / 2);
        });
        self.add_leaf(at + 1, upper);
    }

    /// Moves the entries of the leaf behind `at` to that at `at`.
    fn merge(&mut self, at: usize) {
        let upper = self.take_leaf(at + 1);
        self.change(at, |entries| {
            entries.reserve_exact(capacity_for(entries.len() + upper.len()) - entries.len());
            entries.extend_from_slice(&upper);
        });
    }

    /// Gives back memory for leaves that there are not any more.
    fn fit_leaves(&mut self) {
        let (len, capacity) = (self.leaves.len(), self.leaves.capacity());
        let room = len / LEAVES_GROWTH_SHARE;
        if len == 0 || capacity > len + 2 * room + 2 {
            self.leaves.shrink_to(len + room);
        }
    }
}

/// The room that a leaf of `len` entries gets: a third more at most.
fn capacity_for(len: usize) -> usize {
    len.next_multiple_of(step(len))
}

fn step(len: usize) -> usize {
    let quarter = (len / 4).max(1).next_power_of_two();
    quarter.min(STEP_ENTRIES_MAX)
}

/// Gives back what a leaf does not need. Two steps of room are kept, so that no change follows another that it undoes.
fn fit(entries: &mut Vec<Entry>) {
    if entries.capacity() > entries.len() + 2 * step(entries.len()) {
        entries.shrink_to(capacity_for(entries.len()));
    }
}

#[cfg(test)]
mod tests;
