//! The sets of a namespace: each name has a small id that index entries carry, and counters.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::RwLock;
use perigee_wire::SETS_MAX;

#[derive(Default)]
pub struct SetRegistry {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    by_name: HashMap<Box<[u8]>, u16>,
    sets: Vec<Arc<SetInfo>>,
}

/// A set's name and its live counts.
pub struct SetInfo {
    pub name: Box<[u8]>,
    pub objects: AtomicI64,
    pub tombstones: AtomicI64,
    pub data_used_bytes: AtomicI64,
}

impl SetRegistry {
    /// The id of a set, which is made if it is new; 0 for the empty name. `None` when the namespace has all the sets
    /// that it may have.
    pub fn id_of(&self, name: &[u8]) -> Option<u16> {
        if name.is_empty() {
            return Some(0);
        }
        if let Some(id) = self.inner.read().by_name.get(name) {
            return Some(*id);
        }
        let mut inner = self.inner.write();
        if let Some(id) = inner.by_name.get(name) {
            return Some(*id);
        }
        if inner.sets.len() == SETS_MAX {
            return None;
        }
        let info = Arc::new(SetInfo {
            name: name.into(),
            objects: AtomicI64::new(0),
            tombstones: AtomicI64::new(0),
            data_used_bytes: AtomicI64::new(0),
        });
        inner.sets.push(info);
        let id = inner.sets.len() as u16;
        inner.by_name.insert(name.into(), id);
        Some(id)
    }

    /// The set of an id that `id_of` gave; `None` for 0.
    pub fn get(&self, id: u16) -> Option<Arc<SetInfo>> {
        let at = usize::from(id).checked_sub(1)?;
        self.inner.read().sets.get(at).cloned()
    }

    pub fn all(&self) -> Vec<Arc<SetInfo>> {
        self.inner.read().sets.clone()
    }

    /// Adds to a set's counts; without effect for id 0.
    pub fn add(&self, id: u16, objects: i64, tombstones: i64, bytes: i64) {
        let Some(at) = usize::from(id).checked_sub(1) else {
            return;
        };
        if let Some(set) = self.inner.read().sets.get(at) {
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
    }
}
