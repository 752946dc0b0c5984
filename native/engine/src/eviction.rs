//! Eviction: where use is above a high-water mark, records that can expire are removed before their time, those that are
//! nearest to it first, a bounded share of them in each pass.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::histogram::ScalingHistogram;
use crate::index::{Entry, flag};
use crate::namespace::Namespace;

/// How far eviction has come; the names are those of the statistics.
#[derive(Default)]
pub struct EvictionStats {
    /// The longest time to live that a record still had when it was evicted in the last pass that evicted, in seconds.
    pub evict_ttl: AtomicU32,
    /// The latest void time of a record that was evicted in it (s since 2010-01-01).
    pub evict_void_time: AtomicU32,
}

/// Void times of records, counted from `from` on.
struct VoidTimes {
    from: u32,
    counts: ScalingHistogram,
}

/// What is to be evicted: everything that expires before `before`, and of what expires before `until` as many as `partly`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Threshold {
    before: u32,
    until: u32,
    partly: u64,
}

impl VoidTimes {
    fn new(from: u32, buckets: usize) -> Self {
        VoidTimes {
            from,
            counts: ScalingHistogram::new(buckets),
        }
    }

    /// Counts a void time at or after `from`.
    fn add(&mut self, void_time: u32) {
        self.counts.add(void_time.saturating_sub(self.from));
    }

    fn total(&self) -> u64 {
        self.counts.total()
    }

    /// Where the first `count` void times end.
    fn threshold(&self, count: u64) -> Threshold {
        let mut below = 0;
        for (i, bucket) in self.counts.buckets().iter().enumerate() {
            if below + bucket > count {
                let before = self.edge(i);
                return Threshold {
                    before,
                    until: self.edge(i + 1),
                    partly: count - below,
                };
            }
            below += bucket;
        }
        let end = self.edge(self.counts.buckets().len());
        Threshold {
            before: end,
            until: end,
            partly: 0,
        }
    }

    fn edge(&self, bucket: usize) -> u32 {
        let edge = u64::from(self.from).saturating_add(self.counts.edge(bucket));
        u32::try_from(edge).unwrap_or(u32::MAX)
    }
}

impl Namespace {
    /// Evicts if use is above a high-water mark: of the records that can expire at most
    /// `evict-tenths-pct` tenths of a percent (and at least one), nearest expiry first. Sets with `disable-eviction` are left
    /// out, and so are records that a datacenter has not seen yet; an eviction itself is not shipped, as the record may be
    /// wanted elsewhere. Returns how many records went. `stop` as in `expire`.
    pub fn evict(&self, stop: impl Fn() -> bool) -> u64 {
        let now = self.clock.wall_seconds();
        if !self.update_high_water(&self.usage()).any() {
            return 0;
        }
        let can_go = |entry: &Entry| {
            entry.flags & flag::TOMBSTONE == 0
                && entry.void_time > now
                && self
                    .sets
                    .get(entry.set_id)
                    .is_none_or(|set| !set.config.disable_eviction.get())
        };
        let buckets = self.config.evict_hist_buckets.get() as usize;
        let mut void_times = VoidTimes::new(now, buckets);
        let (_, completed) = self.sweep(&stop, &mut |_, entry| {
            if can_go(entry) {
                void_times.add(entry.void_time);
            }
            false
        });
        let total = void_times.total();
        if !completed || total == 0 {
            return 0;
        }
        let tenths_pct = u64::from(self.config.evict_tenths_pct.get());
        let Threshold {
            before,
            until,
            mut partly,
        } = void_times.threshold((total * tenths_pct / 1000).max(1));
        let mut latest = 0;
        let (evicted, _) = self.sweep(&stop, &mut |state, entry| {
            if !can_go(entry)
                || entry.void_time >= until
                || state.updates.queues.iter().any(|queue| queue.holds(entry))
            {
                return false;
            }
            if entry.void_time >= before {
                if partly == 0 {
                    return false;
                }
                partly -= 1;
            }
            latest = latest.max(entry.void_time);
            true
        });
        if evicted > 0 {
            self.eviction
                .evict_void_time
                .store(latest, Ordering::Relaxed);
            self.eviction
                .evict_ttl
                .store(latest - now, Ordering::Relaxed);
            self.stats
                .mine()
                .evicted_objects
                .fetch_add(evicted, Ordering::Relaxed);
            tracing::warn!(
                namespace = %self.name,
                evicted,
                expirable = total,
                evict_ttl = latest - now,
                "records were evicted: use is above a high-water mark"
            );
        }
        evicted
    }

    /// Forgets how far eviction has come.
    pub fn reset_eviction(&self) {
        self.eviction.evict_ttl.store(0, Ordering::Relaxed);
        self.eviction.evict_void_time.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use perigee_wire::ResultCode;

    use super::*;
    use crate::config::{NamespaceConfig, SetConfig};
    use crate::testing::{digest, get, namespace_config, open, put_int, put_with_ttl, site_on};

    #[test]
    fn the_threshold_parts_off_the_nearest_void_times() {
        let mut void_times = VoidTimes::new(1000, 8);
        // Up to 79 seconds ahead, so buckets are 16 wide; ten in each second.
        for second in 0..80 {
            (0..10).for_each(|_| void_times.add(1000 + second));
        }
        assert_eq!((void_times.counts.edge(1), void_times.total()), (16, 800));
        let threshold = |count| void_times.threshold(count);
        let part = |before, until, partly| Threshold {
            before,
            until,
            partly,
        };
        assert_eq!(threshold(159), part(1000, 1016, 159));
        assert_eq!(threshold(160), part(1016, 1032, 0));
        assert_eq!(threshold(161), part(1016, 1032, 1));
        assert_eq!(threshold(800), part(1128, 1128, 0));
    }

    #[test]
    fn void_times_of_ten_years_fit_into_any_number_of_buckets() {
        for buckets in [2, 3, 100, 10_001] {
            let mut void_times = VoidTimes::new(500_000_000, buckets);
            for offset in [0, 1, 86_400, 315_360_000] {
                void_times.add(500_000_000 + offset);
            }
            assert_eq!(void_times.total(), 4, "{buckets} buckets");
            let all = void_times.threshold(4);
            assert!(all.before > 815_360_000, "{buckets} buckets: {all:?}");
        }
    }

    /// Any use is above this high-water mark.
    fn evicting() -> NamespaceConfig {
        let config = namespace_config();
        config.indexes_memory_budget.set(1 << 10);
        config.evict_indexes_memory_pct.set(1);
        config
    }

    #[test]
    fn the_nearest_to_expiry_go_first_and_no_more_than_the_share() {
        let config = evicting();
        config.evict_tenths_pct.set(100);
        let namespace = open(config, vec![]);
        for i in 0..100 {
            put_with_ttl(&namespace, &format!("k{i:02}"), 1000 + 10 * i);
        }
        (0..100).for_each(|i| {
            put_int(&namespace, &format!("never{i}"), "n", 1);
        });
        let mark = namespace.config.indexes_memory_budget.get();
        namespace.config.indexes_memory_budget.set(1 << 40);
        assert_eq!(namespace.evict(|| false), 0, "use is below the mark");
        namespace.config.indexes_memory_budget.set(mark);
        assert_eq!(namespace.evict(|| false), 10);
        let there = |key: &str| get(&namespace, key).code == ResultCode::Ok;
        for i in 0..100 {
            assert_eq!(there(&format!("k{i:02}")), i >= 10, "k{i:02}");
            assert!(there(&format!("never{i}")), "never{i}");
        }
        let evict_ttl = namespace.eviction.evict_ttl.load(Ordering::Relaxed);
        assert!(evict_ttl.abs_diff(1090) <= 2, "{evict_ttl}");
        assert_eq!(namespace.evict(|| false), 9, "a tenth of what is left");
    }

    #[test]
    fn records_that_expire_together_are_evicted_by_the_share_too() {
        let config = evicting();
        config.evict_tenths_pct.set(500);
        let namespace = open(config, vec![]);
        (0..64).for_each(|i| put_with_ttl(&namespace, &format!("k{i}"), 5000));
        assert_eq!(namespace.evict(|| false), 32);
        assert_eq!(namespace.evict(|| false), 16);
    }

    #[test]
    fn a_protected_set_and_what_was_not_shipped_stay() {
        let config = evicting();
        config.evict_tenths_pct.set(1000);
        let (namespace, _to_nobody) = site_on(config, 1 << 16);
        put_with_ttl(&namespace, "unshipped", 1000);
        assert_eq!(namespace.evict(|| false), 0);

        let config = evicting();
        config.evict_tenths_pct.set(1000);
        let namespace = open(config, vec![]);
        let protected = |on: bool| SetConfig {
            name: "demo".into(),
            disable_eviction: on.into(),
            ..SetConfig::default()
        };
        namespace.sets.configure(&[protected(true)]);
        put_with_ttl(&namespace, "k", 1000);
        assert_eq!(namespace.evict(|| false), 0);
        namespace.sets.configure(&[protected(false)]);
        assert_eq!(namespace.evict(|| false), 1);
        let state = namespace.partition(&digest("k")).lock();
        assert!(state.table.get(&digest("k")).is_none());
    }
}
