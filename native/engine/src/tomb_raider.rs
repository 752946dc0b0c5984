//! Reclaiming tombstones. A tombstone is needed for as long as an older version of its record lies on the device, which a
//! restart would otherwise bring back, and as long as a late change from another site may have to be compared with it.
//!
//! A pass marks every tombstone that is old enough (CENOTAPH), walks all that lies on the devices, takes the mark off
//! those of which it meets a record, and removes those that keep theirs. Marks are bits of index entries, so a pass takes
//! no memory of its own, however many tombstones there are.
//!
//! Why this is right. A mark belongs to one version: whatever is committed in its place comes without it. So while an
//! entry is marked, all records of its digest are dead and were appended before the mark. What is dead is not copied, so
//! each of them lies where it lay when the walk began, until its block is erased: the walk meets it there, or the block is
//! free by then, which it is only when the erasure is durable. A block that waits for its erasure counts as one that may
//! come back. A device that was not seen as a whole keeps its tombstones; all versions of a record lie on one device.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::index::{Entry, Location, flag};
use crate::namespace::Namespace;
use crate::partition::PartitionState;
use crate::record::image::ImageView;
use crate::stats::count;

/// What is known of the passes over a namespace.
#[derive(Default)]
pub struct TombRaider {
    /// Somebody wants a pass now.
    requested: AtomicBool,
    pub running: AtomicBool,
    pub passes: AtomicU64,
    /// Passes that did not see every device as a whole.
    pub incomplete: AtomicU64,
    /// Milliseconds that the last pass took.
    pub last_ms: AtomicU64,
}

impl TombRaider {
    /// Has a pass begin soon, whatever the period.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
    }

    /// Whether a pass was requested; asked once for each request.
    pub fn take_request(&self) -> bool {
        self.requested.swap(false, Ordering::AcqRel)
    }
}

impl Namespace {
    /// One pass. Returns how many tombstones were removed. `stop` ends it early, and then nothing is removed of what was
    /// not decided. Only one pass at a time.
    pub fn raid_tombstones(&self, stop: &dyn Fn() -> bool) -> u64 {
        let started = Instant::now();
        self.tomb_raider.running.store(true, Ordering::Relaxed);
        let age_ms = u64::from(self.config.tomb_raider_eligible_age.get()) * 1000;
        // Tombstones that are dated ahead do not qualify, however short the age.
        let until = self.clock.wall_ms().saturating_sub(age_ms);
        let eligible = |state: &PartitionState, entry: &Entry| {
            entry.is_tombstone()
                && entry.last_update_time <= until
                && !state.updates.queues.iter().any(|queue| queue.holds(entry))
        };
        let marked = self.mark_cenotaphs(stop, &eligible);
        let mut removed = 0;
        if marked > 0 && !stop() {
            let seen = self.unmark_what_covers(stop);
            let unwanted = &mut |state: &PartitionState, entry: &Entry| {
                entry.flags & flag::CENOTAPH != 0
                    && seen[usize::from(entry.location.device())]
                    && eligible(state, entry)
            };
            removed = self.sweep(stop, unwanted).0;
            if seen.contains(&false) {
                count(&self.tomb_raider.incomplete);
            }
        }
        count(&self.tomb_raider.passes);
        let stats = self.stats.mine();
        stats
            .tomb_raider_removed
            .fetch_add(removed, Ordering::Relaxed);
        let elapsed_ms = started.elapsed().as_millis() as u64;
        self.tomb_raider
            .last_ms
            .store(elapsed_ms, Ordering::Relaxed);
        self.tomb_raider.running.store(false, Ordering::Relaxed);
        tracing::info!(
            namespace = %self.name,
            marked,
            removed,
            elapsed_ms,
            "tomb raider pass done"
        );
        removed
    }

    /// Marks the tombstones that are eligible, and takes old marks off the others. Returns how many are marked.
    fn mark_cenotaphs(
        &self,
        stop: &dyn Fn() -> bool,
        eligible: &dyn Fn(&PartitionState, &Entry) -> bool,
    ) -> u64 {
        let mut marked = 0;
        self.change_entries(stop, &mut |state, entry| {
            if !entry.is_tombstone() {
                return None;
            }
            let flags = if eligible(state, entry) {
                marked += 1;
                entry.flags | flag::CENOTAPH
            } else {
                entry.flags & !flag::CENOTAPH
            };
            (flags != entry.flags).then_some(Entry { flags, ..*entry })
        });
        marked
    }

    /// Takes the mark off every tombstone of which a record lies on a device. Returns for each device whether it was seen
    /// as a whole.
    fn unmark_what_covers(&self, stop: &dyn Fn() -> bool) -> Vec<bool> {
        if self.store.is_volatile() {
            // Nothing comes back after a restart; tombstones are for changes that come late.
            return vec![true; Location::DEVICES_MAX];
        }
        let visit = &mut |image: &ImageView<'_>, _: Location| {
            // An older tombstone brings nothing back.
            if image.is_tombstone() {
                return;
            }
            let mut state = self.partition(image.digest()).lock();
            let entry = state.table.get(image.digest());
            if let Some(entry) = entry.filter(|entry| entry.flags & flag::CENOTAPH != 0) {
                let flags = entry.flags & !flag::CENOTAPH;
                state.table.upsert(Entry { flags, ..entry });
            }
        };
        self.store
            .walk(&|| self.config.tomb_raider_sleep(), stop, visit)
    }
}
