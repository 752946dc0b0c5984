//! Secondary indexes: which records have a value in some range, kept beside the primary index.
//!
//! An index is a sorted set of (key, prefix) in every partition, under the partition's lock: the key is of a value, the
//! prefix is what the primary index finds the record by. A change of a record changes both indexes under one hold of the
//! lock, so a query that looks at both sees no state in between.
//!
//! What an index has is a superset of what it should have, for two reasons: keys of strings are hashes, and a record that
//! leaves without being read leaves its entries for a later sweep. A query therefore looks at each record that it finds
//! before it believes the index.

mod build;
mod definition;
mod keys;
mod maintain;
mod predicate;
mod select;
#[cfg(test)]
mod tests;
mod tree;

pub use build::IndexBuilds;
pub use definition::{
    Collection, IndexConfig, IndexDefinition, IndexError, IndexType, KeyType, ParsedContext,
    Source, canonical_name,
};
pub use keys::{key_of_bytes, key_of_integer, keys_of};
pub(crate) use maintain::{Indexed, PartitionIndexes};
pub use predicate::Predicate;
pub(crate) use select::IndexQuery;
pub use tree::KeyTree;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;
use perigee_wire::ResultCode;
use thiserror::Error;

use crate::namespace::Namespace;

/// Indexes of a namespace.
pub const INDEXES_MAX: usize = 256;

/// One index of a namespace, apart from its entries, which are in the partitions.
pub struct SecondaryIndex {
    pub definition: IndexDefinition,
    /// `None` for the records of all sets and of none.
    set_id: Option<u16>,
    /// Every record has been looked at since the index was made.
    ready: AtomicBool,
    /// It was dropped: nothing is built any more.
    dropped: AtomicBool,
    entries: AtomicI64,
    /// As of the last look.
    used_bytes: AtomicU64,
    /// How many different keys there are, roughly, as of the last look.
    different_keys: AtomicU64,
    /// Likewise, records that have entries.
    records: AtomicU64,
    /// Entries that there were when the two before were measured.
    spread_of: AtomicU64,
    gc_entries: AtomicU64,
    load_pct: AtomicU64,
    load_ms: AtomicU64,
}

/// The numbers of an index as tools see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    pub entries: u64,
    /// Memory that the entries take, at most a collection period old, as are the two that follow.
    pub used_bytes: u64,
    pub entries_per_value: u64,
    pub entries_per_record: u64,
    /// Of the records there were when building began.
    pub load_pct: u64,
    pub load_ms: u64,
    /// Entries removed after their records had gone.
    pub gc_entries: u64,
}

#[derive(Debug, Error)]
pub enum CreateIndexError {
    #[error("there is another index of this name")]
    Exists,
    #[error("a namespace has at most {INDEXES_MAX} indexes")]
    TooMany,
    #[error("the namespace has all the sets that it may have")]
    TooManySets,
    #[error("no thread to build it: {0}")]
    Thread(#[source] std::io::Error),
}

impl CreateIndexError {
    pub fn code(&self) -> ResultCode {
        match self {
            CreateIndexError::Exists => ResultCode::SindexFound,
            CreateIndexError::TooMany | CreateIndexError::TooManySets => ResultCode::SindexMaxCount,
            CreateIndexError::Thread(_) => ResultCode::SindexGeneric,
        }
    }
}

/// The indexes of a namespace.
#[derive(Default)]
pub(crate) struct IndexRegistry {
    list: RwLock<Vec<Arc<SecondaryIndex>>>,
    builds: IndexBuilds,
}

impl SecondaryIndex {
    fn new(definition: IndexDefinition, set_id: Option<u16>) -> SecondaryIndex {
        SecondaryIndex {
            definition,
            set_id,
            ready: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
            entries: AtomicI64::new(0),
            used_bytes: AtomicU64::new(0),
            different_keys: AtomicU64::new(0),
            records: AtomicU64::new(0),
            spread_of: AtomicU64::new(0),
            gc_entries: AtomicU64::new(0),
            load_pct: AtomicU64::new(0),
            load_ms: AtomicU64::new(0),
        }
    }

    /// Whether it has all the records that it should have, so that queries may use it.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether it is one of a set's records, whatever they hold.
    pub fn is_of_set(&self) -> bool {
        matches!(self.definition.source, Source::Set)
    }

    fn covers(&self, set_id: u16) -> bool {
        self.set_id.is_none_or(|of| of == set_id)
    }

    pub fn stats(&self) -> IndexStats {
        let relaxed = |statistic: &AtomicU64| statistic.load(Ordering::Relaxed);
        let entries = self.entries.load(Ordering::Relaxed).max(0) as u64;
        let per = |of: &AtomicU64| entries.checked_div(relaxed(of)).unwrap_or(0);
        IndexStats {
            entries,
            used_bytes: relaxed(&self.used_bytes),
            entries_per_value: per(&self.different_keys),
            entries_per_record: per(&self.records),
            load_pct: relaxed(&self.load_pct),
            load_ms: relaxed(&self.load_ms),
            gc_entries: relaxed(&self.gc_entries),
        }
    }
}

impl Namespace {
    /// Makes an index, which is built in the background; until then queries by it are refused as not readable. An index
    /// that is there already in the same form is returned.
    pub fn create_index(
        self: &Arc<Self>,
        definition: IndexDefinition,
    ) -> Result<Arc<SecondaryIndex>, CreateIndexError> {
        let mut list = self.indexes.list.write();
        let named = |index: &&Arc<SecondaryIndex>| index.definition.name == definition.name;
        if let Some(there) = list.iter().find(named) {
            return match there.definition.is_same(&definition) {
                true => Ok(there.clone()),
                false => Err(CreateIndexError::Exists),
            };
        }
        if list.len() == INDEXES_MAX {
            return Err(CreateIndexError::TooMany);
        }
        let set_id = match &definition.set {
            None => None,
            Some(name) => Some(self.sets.id_of(name).ok_or(CreateIndexError::TooManySets)?),
        };
        let index = Arc::new(SecondaryIndex::new(definition, set_id));
        // From here on every change of a record is seen, so that what the builder has seen stays true.
        for partition in self.partitions() {
            partition.lock().updates.indexes.add(index.clone());
        }
        list.push(index.clone());
        drop(list);
        if let Err(error) = self.build_indexes() {
            self.drop_index(&index.definition.name);
            return Err(CreateIndexError::Thread(error));
        }
        Ok(index)
    }

    /// Takes an index away; queries that use it end with SINDEX_NOT_FOUND. False if there is none of this name.
    pub fn drop_index(&self, name: &str) -> bool {
        let mut list = self.indexes.list.write();
        let Some(at) = list.iter().position(|index| index.definition.name == name) else {
            return false;
        };
        let index = list.remove(at);
        index.dropped.store(true, Ordering::Release);
        for partition in self.partitions() {
            // Its memory is given back when the lock is not held any more.
            let dropped = partition.lock().updates.indexes.remove(&index);
            drop(dropped);
        }
        true
    }

    pub fn secondary_indexes(&self) -> Vec<Arc<SecondaryIndex>> {
        self.indexes.list.read().clone()
    }

    /// Memory of all secondary indexes, as of the last collection.
    pub fn secondary_index_bytes(&self) -> u64 {
        let list = self.indexes.list.read();
        list.iter().map(|index| index.stats().used_bytes).sum()
    }
}
