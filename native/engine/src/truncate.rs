//! Truncation: all records of a namespace, or of a set, that were last updated before a mark are gone at once, however many
//! they are. Each record is compared with the marks where it is looked at; a sweep in the background takes them out of the
//! index afterwards. Marks are kept and handed over by the control plane, so they hold over restarts.
//!
//! A mark is a last-update time: a record at or after it is not touched, and the clock has passed it before it is in force,
//! so nothing that is written later is. Tombstones are not records: what was deleted before stays so, and ships.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use perigee_wire::ResultCode;
use thiserror::Error;

use crate::index::Entry;
use crate::namespace::Namespace;
use crate::sets::SetInfo;

/// The marks of a namespace that are not those of its sets, and how far the sweep is.
#[derive(Default)]
pub struct Truncation {
    /// Milliseconds since 2010-01-01; 0 for none.
    namespace_mark: AtomicU64,
    /// The latest of all marks, those of sets included: what is as late needs no closer look.
    latest: AtomicU64,
    /// How often marks were set, and how often when the last complete sweep began.
    wanted: AtomicU64,
    swept: AtomicU64,
    /// Held while marks change, and over each step of the sweep: when an undo has returned, nothing is removed any more by
    /// the mark that it took away.
    step: Mutex<()>,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum TruncateError {
    #[error("as many sets as a namespace may have are truncated already")]
    TooManySets,
}

impl Truncation {
    pub fn mark(&self) -> u64 {
        self.namespace_mark.load(Ordering::Relaxed)
    }

    /// Whether records wait to be removed, as far as is known.
    pub fn truncating(&self) -> bool {
        self.swept.load(Ordering::Relaxed) != self.wanted.load(Ordering::Relaxed)
    }
}

impl Namespace {
    /// A mark before which every change lies that was acknowledged so far, and no later one.
    pub fn truncation_time(&self) -> u64 {
        let latest = self
            .partitions()
            .iter()
            .map(|partition| partition.lock().updates.times.latest());
        let mark = latest.max().unwrap_or(0).max(self.clock.now()) + 1;
        self.clock.observe(mark);
        mark
    }

    /// Puts a mark in force for a set, or for the namespace; 0 takes it away, and shows again what was not removed yet.
    pub fn set_truncation(&self, set: Option<&[u8]>, mark: u64) -> Result<(), TruncateError> {
        let _no_sweep = self.truncation.step.lock();
        // Whatever is written from now on is later.
        self.clock.observe(mark);
        match set {
            None => self
                .truncation
                .namespace_mark
                .store(mark, Ordering::Relaxed),
            Some(set) => self.sets.set_mark(set, mark)?,
        }
        let latest = self.sets.latest_mark().max(self.truncation.mark());
        self.truncation.latest.store(latest, Ordering::Release);
        if mark > 0 {
            self.truncation.wanted.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Whether a record is gone by truncation.
    #[inline]
    pub(crate) fn is_truncated(&self, entry: &Entry) -> bool {
        entry.last_update_time < self.truncation.latest.load(Ordering::Acquire)
            && !entry.is_tombstone()
            && entry.last_update_time < self.mark_of(entry.set_id)
    }

    fn mark_of(&self, set_id: u16) -> u64 {
        let of_set = self.sets.get(set_id).map_or(0, SetInfo::mark);
        of_set.max(self.truncation.mark())
    }

    /// Refuses a change from elsewhere that is older than a mark. The sender takes that for a conflict that it lost.
    pub(crate) fn check_truncation(&self, set: &[u8], time: u64) -> Result<(), ResultCode> {
        if time >= self.truncation.latest.load(Ordering::Acquire) {
            return Ok(());
        }
        let of_set = self.sets.mark_named(set);
        if time < of_set.max(self.truncation.mark()) {
            return Err(ResultCode::LostConflict);
        }
        Ok(())
    }

    /// Removes what was truncated, if marks were set since the last sweep; every partition is locked for one short step at
    /// a time, and `stop` may end the sweep between two. Returns how many records went.
    pub fn sweep_truncated(&self, stop: impl Fn() -> bool) -> u64 {
        if !self.truncation.truncating() {
            return 0;
        }
        let wanted = self.truncation.wanted.load(Ordering::Acquire);
        let (mut removed, mut left) = (0, 0);
        let completed = self.in_steps(&stop, &mut |partition, cursor| {
            let _marks_stay = self.truncation.step.lock();
            let unwanted = &mut |_: &_, entry: &Entry| self.is_truncated(entry);
            let (gone, kept) = self.drop_step(partition, cursor, unwanted);
            removed += gone;
            left += kept;
            self.stats
                .mine()
                .truncated_objects
                .fetch_add(gone, Ordering::Relaxed);
        });
        if !completed {
            return removed;
        }
        if removed > 0 {
            tracing::info!(namespace = %self.name, removed, left, "truncated records were removed");
        }
        // What Lua works on, or what there was no room to leave a tombstone for, is come back to.
        if left == 0 {
            self.truncation.swept.store(wanted, Ordering::Release);
        }
        removed
    }
}
