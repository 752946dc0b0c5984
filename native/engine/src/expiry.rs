//! The end of a record's time to live. Expired records read as absent at once; a pass over the index removes them every
//! `nsup-period`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::index::{Entry, flag};
use crate::namespace::Namespace;

/// What the last pass found; the names are those of the statistics.
#[derive(Default)]
pub struct ExpiryStats {
    /// Records without a time to live.
    pub non_expirable_objects: AtomicU64,
    /// Whole seconds that the pass took.
    pub nsup_cycle_duration: AtomicU64,
    /// Share of the records that it removed.
    pub nsup_cycle_deleted_pct: AtomicU64,
}

pub(crate) fn is_expired(entry: &Entry, now: u32) -> bool {
    entry.void_time != 0 && entry.void_time <= now
}

impl Namespace {
    /// Removes what has expired, and returns how much that was. Locks a partition for one short step at a time;
    /// `stop` may end the pass between two.
    pub fn expire(&self, stop: impl Fn() -> bool) -> u64 {
        let now = self.clock.wall_seconds();
        let started = Instant::now();
        let (mut objects, mut non_expirable) = (0u64, 0u64);
        let (expired, completed) = self.sweep(&stop, &mut |state, entry| {
            if entry.flags & flag::TOMBSTONE == 0 {
                objects += 1;
                non_expirable += u64::from(entry.void_time == 0);
            }
            // What a datacenter has not seen yet is kept until it has: an older version may live on over there.
            is_expired(entry, now) && !state.updates.queues.iter().any(|queue| queue.holds(entry))
        });
        let stats = &self.stats.mine().expired_objects;
        stats.fetch_add(expired, Ordering::Relaxed);
        if completed {
            let set = |statistic: &AtomicU64, value| statistic.store(value, Ordering::Relaxed);
            set(&self.expiry.non_expirable_objects, non_expirable);
            set(
                &self.expiry.nsup_cycle_duration,
                started.elapsed().as_secs(),
            );
            set(
                &self.expiry.nsup_cycle_deleted_pct,
                expired * 100 / objects.max(1),
            );
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use perigee_wire::ResultCode;

    use super::*;
    use crate::clock::HybridClock;
    use crate::testing::{get, namespace_config, open_at, put_int, put_with_ttl};

    const NOW_MS: u64 = 500_000_000_000;

    /// A namespace, and its time of day in milliseconds.
    fn open() -> (Arc<Namespace>, Arc<AtomicU64>) {
        let time = Arc::new(AtomicU64::new(NOW_MS));
        let clock = HybridClock::given(time.clone());
        (open_at(namespace_config(), vec![], clock), time)
    }

    #[test]
    fn a_pass_removes_what_has_expired_and_tells_what_it_found() {
        let (namespace, time) = open();
        for i in 0..500 {
            put_with_ttl(&namespace, &format!("short{i}"), 10);
            put_with_ttl(&namespace, &format!("long{i}"), 1000);
        }
        put_int(&namespace, "never", "n", 1);
        assert_eq!(namespace.expire(|| false), 0);
        time.fetch_add(10_000, Ordering::Relaxed);
        assert_eq!(namespace.expire(|| false), 500);
        assert_eq!(namespace.objects.load(Ordering::Relaxed), 501);
        assert_eq!(get(&namespace, "long1").code, ResultCode::Ok);
        let found = |statistic: &AtomicU64| statistic.load(Ordering::Relaxed);
        assert_eq!(found(&namespace.expiry.non_expirable_objects), 1);
        assert_eq!(found(&namespace.expiry.nsup_cycle_deleted_pct), 49);
    }

    #[test]
    fn a_pass_ends_between_two_steps_when_it_is_told_to() {
        let (namespace, time) = open();
        (0..200).for_each(|i| put_with_ttl(&namespace, &format!("k{i}"), 10));
        time.fetch_add(10_000, Ordering::Relaxed);
        let steps = Cell::new(0);
        let stop = || {
            steps.set(steps.get() + 1);
            steps.get() > 2000
        };
        let expired = namespace.expire(stop);
        assert!((1..200).contains(&expired), "{expired} of 200");
        let left = namespace.objects.load(Ordering::Relaxed);
        assert_eq!(left, 200 - expired as i64);
    }
}
