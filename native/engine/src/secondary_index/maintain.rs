//! Keeping the indexes of a partition along with its records: at each commit, and when a record leaves.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use perigee_wire::Digest;

use super::keys::keys_of;
use super::{KeyTree, SecondaryIndex};
use crate::changing::is_changing;
use crate::device_copy::DeviceCopy;
use crate::filter::StoredRecord;
use crate::index::{Entry, Location, PartitionTable, prefix_of};
use crate::namespace::Namespace;
use crate::partition::PartitionState;
use crate::record::hll::{Shape, Sketch};
use crate::record::image::ImageView;

/// Records of a partition that left with their entries still there, before those are swept out at once; as many more as
/// an eighth of the entries, so that a sweep costs each of them little.
const ORPHANS_MIN: usize = 256;
const ORPHANS_SHARE: usize = 8;

/// Keys of one record that room is kept for.
const SCRATCH_KEYS_MAX: usize = 4096;

/// How keys are counted: off by two percent, in 3 KiB.
const KEYS_SHAPE: Shape = Shape {
    index_bits: 12,
    minhash_bits: 0,
};
/// They are counted anew when as large a share of the entries as this has come or gone.
const SPREAD_CHANGE_SHARE: u64 = 10;

/// The indexes of one partition.
#[derive(Default)]
pub(crate) struct PartitionIndexes {
    list: Vec<PartitionIndex>,
    /// Prefixes of records that left and whose entries may still be there.
    orphans: HashSet<u64>,
}

struct PartitionIndex {
    index: Arc<SecondaryIndex>,
    tree: KeyTree,
}

impl PartitionIndex {
    fn insert(&mut self, key: u64, prefix: u64) {
        if self.tree.insert(key, prefix) {
            self.index.entries.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the indexes have, or are to have, of a version of a record. It holds as long as the partition is locked.
#[derive(Default)]
pub(crate) struct Indexed {
    /// By place in the partition's list, then ascending.
    keys: Vec<(usize, u64)>,
    /// The version could not be looked at: its entries have to be searched for.
    is_unknown: bool,
}

impl Indexed {
    /// Of a version that has not been looked at, to be replaced by nothing.
    pub(crate) fn unknown() -> Indexed {
        Indexed {
            keys: Vec::new(),
            is_unknown: true,
        }
    }
}

impl PartitionIndexes {
    pub(super) fn add(&mut self, index: Arc<SecondaryIndex>) {
        let tree = KeyTree::default();
        self.list.push(PartitionIndex { index, tree });
    }

    /// What is returned is the memory of its entries.
    pub(super) fn remove(&mut self, index: &Arc<SecondaryIndex>) -> Option<KeyTree> {
        let is_it = |one: &PartitionIndex| Arc::ptr_eq(&one.index, index);
        let at = self.list.iter().position(is_it)?;
        let tree = self.list.remove(at).tree;
        if self.list.is_empty() {
            self.orphans = HashSet::new();
        }
        Some(tree)
    }

    /// The entries of an index, unless it was dropped.
    pub(super) fn tree(&self, index: &Arc<SecondaryIndex>) -> Option<&KeyTree> {
        let mut list = self.list.iter();
        let found = list.find(|one| Arc::ptr_eq(&one.index, index))?;
        Some(&found.tree)
    }

    /// Whether records of the set are in any index.
    fn cover(&self, set_id: u16) -> bool {
        self.list.iter().any(|one| one.index.covers(set_id))
    }

    pub(crate) fn is_building(&self) -> bool {
        self.list.iter().any(|one| !one.index.is_ready())
    }

    fn entries(&self) -> usize {
        self.list.iter().map(|one| one.tree.len()).sum()
    }
}

impl Namespace {
    /// What the indexes have of the version `old`, which is about to be replaced. `Err` names what has to be read first.
    pub(crate) fn indexed(
        &self,
        state: &PartitionState,
        old: Option<&Entry>,
        copy: Option<&DeviceCopy<'_>>,
    ) -> Result<Indexed, Location> {
        let covered =
            |entry: &&Entry| !entry.is_tombstone() && state.updates.indexes.cover(entry.set_id);
        match old.filter(covered) {
            Some(entry) => {
                self.with_image(entry, copy, |view| self.keys_of_version(state, entry, view))
            }
            None => Ok(Indexed::default()),
        }
    }

    /// As `indexed`, of a version that the caller has.
    pub(crate) fn keys_of_version(
        &self,
        state: &PartitionState,
        entry: &Entry,
        view: &ImageView<'_>,
    ) -> Indexed {
        let mut indexed = Indexed::default();
        if entry.is_tombstone() || state.updates.indexes.list.is_empty() {
            return indexed;
        }
        let metadata = self.metadata(entry);
        let record = StoredRecord { view, metadata };
        for (at, one) in state.updates.indexes.list.iter().enumerate() {
            if one.index.covers(entry.set_id) {
                with_keys(&one.index, &record, |keys| {
                    indexed.keys.extend(keys.iter().map(|key| (at, *key)));
                });
            }
        }
        indexed
    }

    /// Puts a new version in an old one's place in the indexes: `entry` is in the table already. `old` is what the indexes
    /// have of the one, `new` what they are to have of the other.
    pub(crate) fn reindex(
        &self,
        state: &mut PartitionState,
        old: Indexed,
        new: Indexed,
        entry: &Entry,
    ) {
        if state.updates.indexes.list.is_empty() {
            return;
        }
        let prefix = prefix_of(&entry.digest);
        if old.is_unknown && state.updates.indexes.cover(entry.set_id) {
            state.updates.indexes.orphans.insert(prefix);
        }
        if entry.is_tombstone() {
            self.sweep_many_orphans(state);
        } else if state.updates.indexes.orphans.contains(&prefix) {
            // The prefix is about to be used again: what is left under it would be taken for the new record's.
            self.sweep_orphans(state, Some(&entry.digest));
        }
        let PartitionState { table, updates } = state;
        let list = &mut updates.indexes.list;
        // Of the old version there may be nothing yet in an index that is being built, so what stays the same would never
        // come.
        for (at, key) in &new.keys {
            let one = &mut list[*at];
            if !one.index.is_ready() {
                one.insert(*key, prefix);
            }
        }
        if new.keys == old.keys {
            return;
        }
        // Entries that another record of the same prefix may share stay. They do no harm.
        let is_alone = table.with_prefix(prefix).nth(1).is_none();
        for (at, key) in without(&old.keys, &new.keys).filter(|_| is_alone) {
            let PartitionIndex { index, tree } = &mut list[at];
            if tree.remove(key, prefix) {
                index.entries.fetch_sub(1, Ordering::Relaxed);
            }
        }
        for (at, key) in without(&new.keys, &old.keys) {
            list[at].insert(key, prefix);
        }
    }

    /// A record has left the table without having been looked at.
    pub(crate) fn orphan(&self, state: &mut PartitionState, entry: &Entry) {
        let indexes = &mut state.updates.indexes;
        if entry.is_tombstone() || !indexes.cover(entry.set_id) {
            return;
        }
        indexes.orphans.insert(prefix_of(&entry.digest));
        self.sweep_many_orphans(state);
    }

    fn sweep_many_orphans(&self, state: &mut PartitionState) {
        let indexes = &state.updates.indexes;
        let orphans = indexes.orphans.len();
        if orphans >= ORPHANS_MIN && orphans >= indexes.entries() / ORPHANS_SHARE {
            self.sweep_orphans(state, None);
        }
    }

    /// Removes the entries of records that have left. `reused` is a record in the table that has none yet.
    fn sweep_orphans(&self, state: &mut PartitionState, reused: Option<&Digest>) {
        let PartitionState { table, updates } = state;
        let mut orphans = std::mem::take(&mut updates.indexes.orphans);
        orphans.retain(|prefix| !is_shared(table, *prefix, reused));
        if orphans.is_empty() {
            return;
        }
        let mut removed = 0;
        for PartitionIndex { index, tree } in &mut updates.indexes.list {
            let gone = tree.retain_prefixes(|prefix| !orphans.contains(&prefix));
            index.entries.fetch_sub(gone as i64, Ordering::Relaxed);
            index.gc_entries.fetch_add(gone as u64, Ordering::Relaxed);
            removed += gone as u64;
        }
        let stats = self.stats.mine();
        stats
            .sindex_gc_cleaned
            .fetch_add(removed, Ordering::Relaxed);
    }

    /// Adds a record to the indexes that are being built. It is in the table, at the version of `view`.
    pub(crate) fn build_version(
        &self,
        state: &mut PartitionState,
        entry: &Entry,
        view: &ImageView<'_>,
    ) {
        if entry.is_tombstone() {
            return;
        }
        let metadata = self.metadata(entry);
        let record = StoredRecord { view, metadata };
        let prefix = prefix_of(&entry.digest);
        for PartitionIndex { index, tree } in &mut state.updates.indexes.list {
            if index.is_ready() || !index.covers(entry.set_id) {
                continue;
            }
            let mut added = 0;
            with_keys(index, &record, |keys| {
                added = keys.iter().filter(|key| tree.insert(**key, prefix)).count();
            });
            index.entries.fetch_add(added as i64, Ordering::Relaxed);
        }
    }

    /// Sweeps what has left, and measures the indexes, partition by partition, unless `stop` ends it.
    pub fn collect_index_garbage(&self, stop: impl Fn() -> bool) {
        let indexes = self.secondary_indexes();
        if indexes.is_empty() {
            return;
        }
        let mut measured: Vec<Measured> = indexes.iter().map(|index| Measured::of(index)).collect();
        for partition in self.partitions() {
            if stop() {
                return;
            }
            let mut state = partition.lock();
            self.sweep_orphans(&mut state, None);
            for (index, measured) in indexes.iter().zip(&mut measured) {
                if let Some(tree) = state.updates.indexes.tree(index) {
                    measured.add(tree);
                }
            }
        }
        for (index, measured) in indexes.iter().zip(measured) {
            index.used_bytes.store(measured.bytes, Ordering::Relaxed);
            if let Some(spread) = measured.spread {
                let keys = spread.keys.fresh_estimate();
                index.different_keys.store(keys, Ordering::Relaxed);
                index.records.store(spread.records, Ordering::Relaxed);
                index.spread_of.store(spread.entries, Ordering::Relaxed);
            }
        }
    }
}

/// Calls `f` with the keys of a record in an index, ascending and each once.
fn with_keys(index: &SecondaryIndex, record: &StoredRecord<'_>, f: impl FnOnce(&[u64])) {
    thread_local! {
        static KEYS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    debug_assert!(
        !is_changing(),
        "what users have written runs before a change"
    );
    let mut keys = KEYS.take();
    keys.clear();
    keys_of(&index.definition, record, &mut keys);
    f(&keys);
    if keys.capacity() <= SCRATCH_KEYS_MAX {
        KEYS.set(keys);
    }
}

/// What is in `these` and not in `those`; both ascend.
fn without<'k>(
    these: &'k [(usize, u64)],
    those: &'k [(usize, u64)],
) -> impl Iterator<Item = (usize, u64)> + 'k {
    let mut those = those.iter().peekable();
    these.iter().copied().filter(move |one| {
        while those.next_if(|other| *other < one).is_some() {}
        those.peek() != Some(&one)
    })
}

/// Whether a record other than `reused` has the prefix.
fn is_shared(table: &PartitionTable, prefix: u64, reused: Option<&Digest>) -> bool {
    let mut entries = table.with_prefix(prefix);
    entries.any(|entry| !entry.is_tombstone() && Some(&entry.digest) != reused)
}

/// What is measured of one index, over all partitions.
struct Measured {
    bytes: u64,
    /// Where the index has changed enough since it was known.
    spread: Option<Spread>,
    has_one_each: bool,
}

struct Spread {
    entries: u64,
    records: u64,
    keys: Sketch<Vec<u8>>,
}

impl Measured {
    fn of(index: &SecondaryIndex) -> Measured {
        let entries = index.stats().entries;
        let known = index.spread_of.load(Ordering::Relaxed);
        Measured {
            bytes: 0,
            spread: (entries.abs_diff(known) > known / SPREAD_CHANGE_SHARE).then(|| Spread {
                entries: 0,
                records: 0,
                keys: Sketch::empty(KEYS_SHAPE, usize::MAX).expect("there is no limit"),
            }),
            has_one_each: index.definition.has_one_key_each(),
        }
    }

    fn add(&mut self, tree: &KeyTree) {
        self.bytes += (size_of::<PartitionIndex>() + tree.memory_bytes()) as u64;
        let Some(spread) = &mut self.spread else {
            return;
        };
        spread.entries += tree.len() as u64;
        let mut last = None;
        for (key, _) in tree.iter() {
            if last.replace(key) != Some(key) {
                spread.keys.add(&key.to_ne_bytes());
            }
        }
        spread.records += match self.has_one_each {
            true => tree.len() as u64,
            false => tree
                .iter()
                .map(|(_, prefix)| prefix)
                .collect::<HashSet<_>>()
                .len() as u64,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_both_is_left_out() {
        let these = [(0, 1), (0, 3), (1, 1), (1, 9)];
        let those = [(0, 2), (0, 3), (1, 0), (1, 9), (2, 1)];
        assert_eq!(
            without(&these, &those).collect::<Vec<_>>(),
            [(0, 1), (1, 1)]
        );
        assert_eq!(
            without(&those, &these).collect::<Vec<_>>(),
            [(0, 2), (1, 0), (2, 1)]
        );
        assert_eq!(without(&these, &[]).count(), 4);
        assert_eq!(without(&[], &those).count(), 0);
    }
}
