//! The sets of a namespace: each name has a small id that index entries carry, counters, and settings of its own.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;
use perigee_wire::SETS_MAX;

use crate::config::SetConfig;
use crate::shared::SetNames;
use crate::truncate::TruncateError;

/// Sets by id and by name. A set is made when its first record comes, and stays.
pub struct SetRegistry {
    /// By id less one. Filled in order, so the first empty place is the end. Read without a lock.
    sets: Box<[OnceLock<Box<SetInfo>>]>,
    names: RwLock<Names>,
}

#[derive(Default)]
struct Names {
    ids: HashMap<Box<[u8]>, u16>,
    /// Of sets that have settings, whether there is such a set yet or not.
    settings: HashMap<Box<[u8]>, SetConfig>,
    /// Truncation marks, likewise.
    marks: HashMap<Box<[u8]>, u64>,
    /// Where the names outlive the process.
    kept: Option<SetNames>,
}

/// A set's name, its live counts and its settings.
pub struct SetInfo {
    pub name: Box<[u8]>,
    pub objects: AtomicI64,
    pub tombstones: AtomicI64,
    pub data_used_bytes: AtomicI64,
    pub config: SetConfig,
    truncate_lut: AtomicU64,
}

impl SetInfo {
    /// Records last updated before this are truncated (ms since 2010-01-01); 0 for none.
    pub fn mark(&self) -> u64 {
        self.truncate_lut.load(Ordering::Relaxed)
    }

    /// Whether the set has as many records, or bytes of them, as it may have.
    pub fn stop_writes(&self) -> bool {
        let reached = |limit: u64, used: &AtomicI64| {
            limit > 0 && used.load(Ordering::Relaxed).max(0) as u64 >= limit
        };
        reached(self.config.stop_writes_count.get(), &self.objects)
            || reached(self.config.stop_writes_size.get(), &self.data_used_bytes)
    }
}

impl Default for SetRegistry {
    fn default() -> Self {
        SetRegistry::new(&[])
    }
}

impl SetRegistry {
    pub fn new(configured: &[SetConfig]) -> Self {
        let registry = SetRegistry {
            sets: (0..SETS_MAX).map(|_| OnceLock::new()).collect(),
            names: RwLock::default(),
        };
        registry.configure(configured);
        registry
    }

    /// Has the names kept in shared memory too, from now on. Before the first set is made, or after those were that are
    /// kept there, in their order.
    pub(crate) fn keep_in(&self, kept: SetNames) {
        self.names.write().kept = Some(kept);
    }

    /// Puts settings into force, for sets that are there and for those to come. Sets that are not named keep theirs.
    pub fn configure(&self, configured: &[SetConfig]) {
        let mut names = self.names.write();
        for config in configured {
            let name = config.name.as_bytes();
            if let Some(set) = names.ids.get(name).and_then(|id| self.get(*id)) {
                set.config.retune(config);
            }
            names.settings.insert(name.into(), config.clone());
        }
    }

    /// Sets the truncation mark of a set, whether there is such a set yet or not; 0 takes it away.
    pub fn set_mark(&self, name: &[u8], mark: u64) -> Result<(), TruncateError> {
        let mut names = self.names.write();
        if mark == 0 {
            names.marks.remove(name);
        } else if names.marks.len() == SETS_MAX && !names.marks.contains_key(name) {
            return Err(TruncateError::TooManySets);
        } else {
            names.marks.insert(name.into(), mark);
        }
        if let Some(set) = names.ids.get(name).and_then(|id| self.get(*id)) {
            set.truncate_lut.store(mark, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The truncation mark of a set; 0 for none.
    pub fn mark_named(&self, name: &[u8]) -> u64 {
        self.names.read().marks.get(name).copied().unwrap_or(0)
    }

    /// The latest truncation mark of any set; 0 for none.
    pub fn latest_mark(&self) -> u64 {
        self.names.read().marks.values().copied().max().unwrap_or(0)
    }

    /// The id of a set, which is made if it is new; 0 for the empty name. `None` when the namespace has all the sets
    /// that it may have.
    pub fn id_of(&self, name: &[u8]) -> Option<u16> {
        if let Some(id) = self.find(name) {
            return Some(id);
        }
        let mut names = self.names.write();
        if let Some(id) = names.ids.get(name) {
            return Some(*id);
        }
        let at = names.ids.len();
        if at < self.sets.len()
            && let Some(kept) = &names.kept
        {
            kept.keep(at as u16 + 1, name);
        }
        let config = names.settings.get(name).cloned().unwrap_or_default();
        let made = self.sets.get(at)?.set(Box::new(SetInfo {
            name: name.into(),
            objects: AtomicI64::new(0),
            tombstones: AtomicI64::new(0),
            data_used_bytes: AtomicI64::new(0),
            config,
            truncate_lut: AtomicU64::new(names.marks.get(name).copied().unwrap_or(0)),
        }));
        debug_assert!(made.is_ok(), "places are filled in order, under the lock");
        let id = at as u16 + 1;
        names.ids.insert(name.into(), id);
        Some(id)
    }

    /// The id of a set that is there; 0 for the empty name.
    pub fn find(&self, name: &[u8]) -> Option<u16> {
        if name.is_empty() {
            return Some(0);
        }
        self.names.read().ids.get(name).copied()
    }

    /// The set of an id that `id_of` gave; `None` for 0.
    pub fn get(&self, id: u16) -> Option<&SetInfo> {
        let at = usize::from(id).checked_sub(1)?;
        self.sets.get(at)?.get().map(Box::as_ref)
    }

    /// All sets, in the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = &SetInfo> {
        self.sets.iter().map_while(|set| set.get().map(Box::as_ref))
    }

    /// Adds to a set's counts; without effect for id 0.
    pub fn add(&self, id: u16, objects: i64, tombstones: i64, bytes: i64) {
        if let Some(set) = self.get(id) {
            set.objects.fetch_add(objects, Ordering::Relaxed);
            set.tombstones.fetch_add(tombstones, Ordering::Relaxed);
            set.data_used_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_id_and_the_count_is_bounded() {
        let sets = SetRegistry::default();
        assert_eq!(sets.id_of(b""), Some(0));
        let demo = sets.id_of(b"demo");
        assert_eq!(demo, Some(1));
        assert_eq!(sets.id_of(b"demo"), demo);
        for i in 1..SETS_MAX {
            assert!(sets.id_of(format!("s{i}").as_bytes()).is_some());
        }
        assert_eq!(sets.id_of(b"one too many"), None);
        assert_eq!(sets.id_of(b"demo"), demo);
        assert_eq!(sets.all().count(), SETS_MAX);
    }

    #[test]
    fn settings_reach_a_set_whether_it_came_before_them_or_after() {
        let configured = |name: &str, count: u64| SetConfig {
            name: name.into(),
            stop_writes_count: count.into(),
            ..SetConfig::default()
        };
        let sets = SetRegistry::new(&[configured("later", 2)]);
        let stops = |name: &[u8]| {
            let id = sets.id_of(name).expect("room for a set");
            sets.get(id).expect("a set").stop_writes()
        };
        let id = sets.id_of(b"later").expect("room for a set");
        sets.add(id, 1, 0, 64);
        assert!(!stops(b"later"));
        sets.add(id, 1, 5, 64);
        assert!(stops(b"later"), "as many records as it may have");
        sets.configure(&[configured("later", 3), configured("other", 1)]);
        assert!(!stops(b"later"));
        let other = sets.id_of(b"other").expect("room for a set");
        sets.add(other, 1, 0, 64);
        assert!(stops(b"other"));
        let sized = SetConfig {
            stop_writes_size: 128.into(),
            ..configured("later", 0)
        };
        sets.configure(&[sized]);
        assert!(stops(b"later"), "as many bytes as it may have");
    }
}
