//! How records are spread over times to live and stored sizes, counted by a walk over the index when somebody asks.

use serde::Serialize;

use crate::index::Entry;
use crate::namespace::Namespace;

const TTL_BUCKETS: usize = 100;
const SIZE_BUCKETS: u32 = 1024;
/// Of [`Histograms::object_size`]: one a power of two.
const LOG_BUCKETS: usize = 32;

/// Counts in a fixed number of buckets of one width, which doubles until the greatest value fits: one pass is enough, and
/// memory is bounded.
pub(crate) struct ScalingHistogram {
    width: u32,
    buckets: Vec<u64>,
}

impl ScalingHistogram {
    pub(crate) fn new(buckets: usize) -> Self {
        ScalingHistogram {
            width: 1,
            buckets: vec![0; buckets.max(2)],
        }
    }

    pub(crate) fn add(&mut self, value: u32) {
        while (value / self.width) as usize >= self.buckets.len() {
            let half = self.buckets.len().div_ceil(2);
            for i in 0..half {
                let right = self.buckets.get(2 * i + 1).copied().unwrap_or(0);
                self.buckets[i] = self.buckets[2 * i] + right;
            }
            self.buckets[half..].fill(0);
            self.width = self.width.saturating_mul(2);
        }
        self.buckets[(value / self.width) as usize] += 1;
    }

    pub(crate) fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// The least value of a bucket.
    pub(crate) fn edge(&self, bucket: usize) -> u64 {
        (bucket as u64).saturating_mul(u64::from(self.width))
    }
}

/// Bucket i counts values from `i * bucket_width` on; the last one takes what is greater, too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinearHistogram {
    pub bucket_width: u32,
    pub buckets: Vec<u64>,
}

/// Of records that a client can see.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Histograms {
    /// Seconds to live, of records that expire.
    pub ttl: LinearHistogram,
    /// Stored bytes.
    pub object_size_linear: LinearHistogram,
    /// Stored bytes: bucket i counts sizes from `2^i` to below `2^(i+1)`.
    pub object_size: Vec<u64>,
}

impl Namespace {
    /// Counts the records of the namespace or of a set (by its id). Locks a partition for one short step at a time; `None`
    /// if `stop` ended it between two.
    pub fn histograms(&self, set: Option<u16>, stop: &dyn Fn() -> bool) -> Option<Histograms> {
        let now = self.clock.wall_seconds();
        let size_max = self.config.storage_engine.common().write_block_size;
        let mut ttl = ScalingHistogram::new(TTL_BUCKETS);
        let mut linear = LinearHistogram {
            bucket_width: size_max / SIZE_BUCKETS,
            buckets: vec![0; SIZE_BUCKETS as usize],
        };
        let mut object_size = vec![0; LOG_BUCKETS];
        let (_, completed) = self.sweep(stop, &mut |_, entry: &Entry| {
            if set.is_some_and(|set| set != entry.set_id) || !self.is_live(entry, now) {
                return false;
            }
            if entry.void_time != 0 {
                ttl.add(entry.void_time - now);
            }
            let bytes = entry.location.bytes() as u32;
            let bucket = (bytes / linear.bucket_width).min(SIZE_BUCKETS - 1);
            linear.buckets[bucket as usize] += 1;
            object_size[bytes.ilog2() as usize] += 1;
            false
        });
        completed.then_some(Histograms {
            ttl: LinearHistogram {
                bucket_width: ttl.width,
                buckets: ttl.buckets,
            },
            object_size_linear: linear,
            object_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use perigee_wire::{RequestHeader, op, particle_type as particle, ttl};

    use super::*;
    use crate::clock::HybridClock;
    use crate::testing::{
        delete, namespace_config, open_at, put_int, put_with_ttl, request, run_frame, write,
    };

    #[test]
    fn buckets_double_in_width_until_the_greatest_value_fits() {
        let mut histogram = ScalingHistogram::new(4);
        for value in [0, 3, 4, 17] {
            histogram.add(value);
        }
        assert_eq!(histogram.buckets(), [3, 0, 1, 0]);
        assert_eq!((histogram.edge(2), histogram.total()), (16, 4));
        histogram.add(u32::MAX);
        assert_eq!(histogram.buckets(), [4, 0, 0, 1]);
    }

    #[test]
    fn visible_records_are_counted_by_time_to_live_and_size() {
        let time = Arc::new(AtomicU64::new(500_000_000_000));
        let namespace = open_at(namespace_config(), vec![], HybridClock::given(time.clone()));
        for (key, ttl) in [("gone", 5), ("soon", 50), ("late", 5000)] {
            put_with_ttl(&namespace, key, ttl);
        }
        put_int(&namespace, "deleted", "a", 1);
        delete(&namespace, "deleted");
        let never = RequestHeader {
            record_ttl: ttl::NEVER,
            ..write(0, 0)
        };
        let large = request("large", never, |w| {
            w.op(op::WRITE, particle::STRING, b"s", &[b'x'; 5000]);
        });
        run_frame(&namespace, &large);
        time.fetch_add(10_000, Ordering::Relaxed);
        let counted = namespace.histograms(None, &|| false).unwrap();
        assert_eq!(counted.ttl.bucket_width, 64);
        let at = |buckets: &[u64]| -> Vec<(usize, u64)> {
            let filled = buckets.iter().copied().enumerate();
            filled.filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(at(&counted.ttl.buckets), [(0, 1), (4990 / 64, 1)]);
        assert_eq!(at(&counted.object_size), [(6, 2), (12, 1)]);
        let width = counted.object_size_linear.bucket_width;
        let linear = at(&counted.object_size_linear.buckets);
        assert_eq!(linear.iter().map(|(_, count)| count).sum::<u64>(), 3);
        let largest = linear.last().unwrap().0 as u32 * width;
        assert!((4900..5200).contains(&largest), "{linear:?}");
        let set = namespace.sets.find(b"demo");
        assert!(set.is_some());
        let of_set = namespace.histograms(set, &|| false).unwrap();
        assert_eq!(of_set.object_size.iter().sum::<u64>(), 3);
        let none = namespace.histograms(Some(u16::MAX), &|| false).unwrap();
        assert_eq!(none.object_size.iter().sum::<u64>(), 0);
        assert!(namespace.histograms(None, &|| true).is_none());
    }
}
