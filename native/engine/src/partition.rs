//! One partition of a namespace: its index table, the records that are being worked on, and its change queues, all under
//! one lock that is never held over I/O.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, MutexGuard};
use perigee_wire::{Digest, PartitionId};

use crate::change_queue::ChangeQueue;
use crate::index::{Descriptor, PartitionTable};
use crate::secondary_index::PartitionIndexes;
use crate::shared::SharedStore;

/// A request that waits for a record; the same that may wait for a commit.
pub use crate::storage::CommitWaiter as Waiter;

// What a lookup needs, lock included, is one cache line, and those of all partitions are 256 KiB.
#[repr(align(64))]
pub struct Partition {
    state: Mutex<PartitionState>,
}

const _: () = assert!(size_of::<Partition>() == 64);

pub struct PartitionState {
    pub table: PartitionTable,
    pub updates: Box<Updates>,
}

/// What changes of records need besides the index.
pub struct Updates {
    pub busy: BusyRecords,
    /// By the namespace's datacenter slots.
    pub queues: Box<[ChangeQueue]>,
    pub times: UpdateTimes,
    pub dropped: DroppedRecords,
    pub(crate) indexes: PartitionIndexes,
}

/// How far a partition's local versions may be dated ahead of the clock. Beyond, writes are refused for the moment:
/// other sites refuse what is dated too far ahead.
const LEAD_MS_MAX: u64 = 10_000;

/// Last-update times of a partition's local versions: they never go back, and a record that was taken out of the index
/// without a tombstone does not come again with a time that ties with a version that may still lie on the device.
#[derive(Default)]
pub struct UpdateTimes {
    latest: u64,
    /// The latest time of a version that left the index without a trace.
    dropped: u64,
    kept: Option<Kept>,
}

/// A partition's descriptor in shared memory, where what is kept here outlives the process.
pub struct Kept {
    shared: Arc<SharedStore>,
    partition: PartitionId,
}

impl Kept {
    fn descriptor(&self) -> &Descriptor {
        // SAFETY: in a mapping that `shared` holds; all its fields are atomics.
        unsafe { self.shared.descriptor(self.partition).as_ref() }
    }
}

/// Records that were taken out of the index before they expired and without a tombstone. As their versions may lie on
/// the device still, a later version of one of them that expires first must not leave without a trace.
///
/// Kept in constant room, so it may name records that were never dropped, but misses none.
#[derive(Default)]
pub struct DroppedRecords {
    /// How long the longest-lived of them lives: see [`lifetime`].
    lifetime_max: u32,
    /// One bit for all digests that agree in [`DroppedRecords::bit`].
    named: Option<Box<[u64; DROPPED_WORDS]>>,
    kept: Option<Kept>,
}

const DROPPED_WORDS: usize = 64;

/// Void times in the order in which they come: 0, which is never, after all others.
pub fn lifetime(void_time: u32) -> u32 {
    void_time.wrapping_sub(1)
}

impl DroppedRecords {
    pub fn note(&mut self, digest: &Digest, void_time: u32) {
        self.lifetime_max = self.lifetime_max.max(lifetime(void_time));
        if let Some(kept) = &self.kept {
            let lifetime = &kept.descriptor().dropped_lifetime;
            lifetime.store(self.lifetime_max, Ordering::Relaxed);
        }
        let (word, bit) = Self::bit(digest);
        let named = self.named.get_or_insert_with(|| [0; DROPPED_WORDS].into());
        named[word] |= bit;
    }

    /// Whether a version of the record that was dropped may outlive one with this void time.
    pub fn may_outlive(&self, digest: &Digest, void_time: u32) -> bool {
        let (word, bit) = Self::bit(digest);
        self.lifetime_max > lifetime(void_time)
            && self
                .named
                .as_ref()
                .is_some_and(|named| named[word] & bit != 0)
    }

    /// A word of `named` and the bit in it. Not of the digest's first bytes, which the partition shares.
    fn bit(digest: &Digest) -> (usize, u64) {
        let hash = usize::from(u16::from_le_bytes([digest[8], digest[9]]));
        (hash / 64 % DROPPED_WORDS, 1 << (hash % 64))
    }
}

impl UpdateTimes {
    /// The time of the next version: `now`, or later where that is needed (`least` is what the version that it replaces
    /// asks for). `None` when that is too far ahead.
    pub fn next(&mut self, now: u64, least: Option<u64>) -> Option<u64> {
        let least = least.unwrap_or(if self.dropped == 0 {
            0
        } else {
            self.dropped + 1
        });
        let time = now.max(self.latest).max(least);
        if time > now + LEAD_MS_MAX {
            return None;
        }
        self.latest = time;
        if let Some(kept) = &self.kept {
            kept.descriptor().latest.store(time, Ordering::Relaxed);
        }
        Some(time)
    }

    /// The latest time that was given to a version.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    pub fn note_dropped(&mut self, last_update_time: u64) {
        self.dropped = self.dropped.max(last_update_time);
        if let Some(kept) = &self.kept {
            let dropped = &kept.descriptor().dropped;
            dropped.store(self.dropped, Ordering::Relaxed);
        }
    }
}

impl Partition {
    pub fn new(id: PartitionId, datacenters: usize) -> Self {
        let state = PartitionState {
            table: PartitionTable::new(id),
            updates: Box::new(Updates {
                busy: BusyRecords::default(),
                queues: (0..datacenters).map(|_| ChangeQueue::default()).collect(),
                times: UpdateTimes::default(),
                dropped: DroppedRecords::default(),
                indexes: PartitionIndexes::default(),
            }),
        };
        Partition {
            state: Mutex::new(state),
        }
    }

    /// Has what is known of the partition kept in shared memory too, from what is there on.
    pub(crate) fn keep_in(&self, shared: &Arc<SharedStore>, table: PartitionTable) {
        let partition = table.id();
        let kept = || Kept {
            shared: Arc::clone(shared),
            partition,
        };
        let descriptor = kept();
        let descriptor = descriptor.descriptor();
        let lifetime_max = descriptor.dropped_lifetime.load(Ordering::Relaxed);
        let mut state = self.lock();
        state.table = table;
        state.updates.times = UpdateTimes {
            latest: descriptor.latest.load(Ordering::Relaxed),
            dropped: descriptor.dropped.load(Ordering::Relaxed),
            kept: Some(kept()),
        };
        state.updates.dropped = DroppedRecords {
            lifetime_max,
            // Which records they were is not kept: it may have been any.
            named: (lifetime_max > 0).then(|| [u64::MAX; DROPPED_WORDS].into()),
            kept: Some(kept()),
        };
    }

    pub fn lock(&self) -> MutexGuard<'_, PartitionState> {
        self.state.lock()
    }
}

/// Records that a Lua function works on, and the writes that wait for each. Nearly always empty, so a plain list.
#[derive(Default)]
pub struct BusyRecords {
    records: Vec<BusyRecord>,
}

struct BusyRecord {
    digest: Digest,
    waiters: Vec<Waiter>,
}

/// The answer to a request that met a busy record.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    Free,
    /// The waiter will be woken when the record is free.
    Queued,
    /// As many requests as allowed wait for the record already.
    Refused,
}

impl BusyRecords {
    pub fn contains(&self, digest: &Digest) -> bool {
        !self.records.is_empty() && self.records.iter().any(|record| record.digest == *digest)
    }

    /// Marks a record as being worked on. It must be free.
    pub fn begin(&mut self, digest: &Digest) {
        debug_assert!(!self.contains(digest));
        self.records.push(BusyRecord {
            digest: *digest,
            waiters: Vec::new(),
        });
    }

    /// Lets a request through, or queues it behind the one that works on its record. A limit of 0 is no limit.
    pub fn admit(&mut self, digest: &Digest, waiter: Option<Waiter>, limit: usize) -> Admission {
        if self.records.is_empty() {
            return Admission::Free;
        }
        let Some(record) = self
            .records
            .iter_mut()
            .find(|record| record.digest == *digest)
        else {
            return Admission::Free;
        };
        match waiter {
            Some(waiter) if limit == 0 || record.waiters.len() < limit => {
                record.waiters.push(waiter);
                Admission::Queued
            }
            _ => Admission::Refused,
        }
    }

    /// Takes a waiter off the list who has given up.
    pub fn forget(&mut self, digest: &Digest, waiter: Waiter) {
        if let Some(record) = self
            .records
            .iter_mut()
            .find(|record| record.digest == *digest)
        {
            record.waiters.retain(|other| *other != waiter);
        }
    }

    /// Frees a record and returns who waited for it, in order of arrival.
    pub fn end(&mut self, digest: &Digest) -> Vec<Waiter> {
        match self
            .records
            .iter()
            .position(|record| record.digest == *digest)
        {
            Some(at) => self.records.swap_remove(at).waiters,
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_on_after_a_dropped_version_and_not_without_bound() {
        let mut times = UpdateTimes::default();
        assert_eq!(times.next(100, None), Some(100));
        times.note_dropped(100);
        assert_eq!(
            times.next(100, None),
            Some(101),
            "no tie with what was dropped"
        );
        assert_eq!(times.next(100, Some(100)), Some(101), "never back");
        assert_eq!(times.next(100, Some(100 + LEAD_MS_MAX + 1)), None);
        assert_eq!(times.next(5_000, None), Some(5_000));
    }

    #[test]
    fn a_dropped_record_outlives_what_expires_before_it() {
        let mut dropped = DroppedRecords::default();
        assert!(!dropped.may_outlive(&[1; 20], 10));
        dropped.note(&[1; 20], 100);
        assert!(dropped.may_outlive(&[1; 20], 99));
        assert!(!dropped.may_outlive(&[1; 20], 100));
        assert!(!dropped.may_outlive(&[1; 20], 0), "never expires");
        assert!(!dropped.may_outlive(&[2; 20], 99), "another record");
        dropped.note(&[2; 20], 0);
        assert!(dropped.may_outlive(&[2; 20], u32::MAX));
        assert!(!dropped.may_outlive(&[2; 20], 0));
    }

    #[test]
    fn a_busy_record_queues_up_to_its_limit_and_wakes_in_order() {
        let mut busy = BusyRecords::default();
        let (one, other) = ([1; 20], [2; 20]);
        let waiter = |request| Some(Waiter { thread: 0, request });
        busy.begin(&one);
        assert_eq!(busy.admit(&other, waiter(1), 2), Admission::Free);
        assert_eq!(busy.admit(&one, waiter(2), 2), Admission::Queued);
        assert_eq!(busy.admit(&one, waiter(3), 2), Admission::Queued);
        assert_eq!(busy.admit(&one, waiter(4), 2), Admission::Refused);
        assert_eq!(busy.admit(&one, None, 9), Admission::Refused);
        let woken: Vec<u64> = busy.end(&one).iter().map(|w| w.request).collect();
        assert_eq!(woken, [2, 3]);
        assert_eq!(busy.admit(&one, waiter(5), 2), Admission::Free);
    }
}
