//! How long requests take, counted by powers of two of a microsecond and of a millisecond at once, so that either unit
//! reads exactly. Each thread counts in a shard of its own; reading adds the shards up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use perigee_wire::{Message, info2};

use crate::stats::{SHARDS, shard_of_thread};

/// Two an octave of microseconds: the second begins at the power of two of a millisecond that lies in it. The last holds all
/// that is longer.
pub const LATENCY_BUCKETS: usize = 2 * OCTAVES;

/// The last bucket begins at 131 seconds.
const OCTAVES: usize = 27;

pub type LatencyCounts = [u64; LATENCY_BUCKETS];

/// Microseconds from which on a bucket counts.
pub fn latency_floor_us(bucket: usize) -> u64 {
    match (bucket / 2, bucket % 2) {
        (0, 0) => 0,
        (octave, 0) => 1 << octave,
        (octave, _) => (1000 << octave) >> 9,
    }
}

fn bucket_of(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let octave = (us | 1).ilog2() as usize;
    match octave < OCTAVES {
        true => 2 * octave + usize::from(us >= (1000 << octave) >> 9),
        false => LATENCY_BUCKETS - 1,
    }
}

#[repr(align(128))]
struct Shard([AtomicU64; LATENCY_BUCKETS]);

impl Default for Shard {
    fn default() -> Self {
        Shard([const { AtomicU64::new(0) }; LATENCY_BUCKETS])
    }
}

pub struct LatencyHistogram {
    shards: Box<[Shard]>,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        LatencyHistogram {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }
}

impl LatencyHistogram {
    /// Counts `requests` that took so long.
    pub fn add(&self, latency: Duration, requests: u64) {
        self.shards[shard_of_thread()].0[bucket_of(latency)].fetch_add(requests, Ordering::Relaxed);
    }

    /// Since the start.
    pub fn counts(&self) -> LatencyCounts {
        std::array::from_fn(|bucket| {
            let shards = self.shards.iter();
            shards
                .map(|shard| shard.0[bucket].load(Ordering::Relaxed))
                .sum()
        })
    }
}

/// What a namespace's latencies are of, by the names of their histograms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    Read,
    /// Deletes too.
    Write,
    Udf,
    BatchSubRead,
    BatchSubWrite,
    BatchSubUdf,
    PiQuery,
    SiQuery,
}

impl Latency {
    pub const ALL: [Latency; 8] = [
        Latency::Read,
        Latency::Write,
        Latency::Udf,
        Latency::BatchSubRead,
        Latency::BatchSubWrite,
        Latency::BatchSubUdf,
        Latency::PiQuery,
        Latency::SiQuery,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Latency::Read => "read",
            Latency::Write => "write",
            Latency::Udf => "udf",
            Latency::BatchSubRead => "batch-sub-read",
            Latency::BatchSubWrite => "batch-sub-write",
            Latency::BatchSubUdf => "batch-sub-udf",
            Latency::PiQuery => "pi-query",
            Latency::SiQuery => "si-query",
        }
    }

    /// Of a request for one record.
    pub fn of_record(message: &Message<'_>) -> Latency {
        match () {
            () if message.udf_function.is_some() => Latency::Udf,
            () if message.header.info2 & (info2::WRITE | info2::DELETE) != 0 => Latency::Write,
            () => Latency::Read,
        }
    }

    /// Of a row of a batch.
    pub fn of_row(message: &Message<'_>) -> Latency {
        match Latency::of_record(message) {
            Latency::Udf => Latency::BatchSubUdf,
            Latency::Write => Latency::BatchSubWrite,
            _ => Latency::BatchSubRead,
        }
    }
}

/// The latencies of a namespace.
#[derive(Default)]
pub struct Latencies {
    histograms: [LatencyHistogram; Latency::ALL.len()],
}

impl Latencies {
    /// Counts `requests` that took so long.
    pub fn add(&self, of: Latency, latency: Duration, requests: u64) {
        self.histograms[of as usize].add(latency, requests);
    }

    pub fn counts(&self, of: Latency) -> LatencyCounts {
        self.histograms[of as usize].counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_of(us: &[u64]) -> LatencyCounts {
        let histogram = LatencyHistogram::default();
        for us in us {
            histogram.add(Duration::from_micros(*us), 1);
        }
        histogram.counts()
    }

    #[test]
    fn every_latency_is_counted_in_the_bucket_whose_floor_it_has_reached() {
        let floors: Vec<u64> = (0..LATENCY_BUCKETS).map(latency_floor_us).collect();
        assert!(floors.is_sorted(), "{floors:?}");
        let near = floors
            .iter()
            .flat_map(|floor| [floor.saturating_sub(1), *floor, floor + 1]);
        for us in near.chain([700_000_000, u64::MAX / 1000]) {
            let counts = counts_of(&[us]);
            let bucket = counts.iter().position(|count| *count == 1).unwrap();
            assert_eq!(counts.iter().sum::<u64>(), 1);
            assert!(floors[bucket] <= us, "{us} in {bucket}");
            let next = floors.get(bucket + 1).copied().unwrap_or(u64::MAX);
            assert!(us < next, "{us} in {bucket}, not in the next from {next}");
        }
    }

    #[test]
    fn powers_of_two_of_either_unit_are_floors() {
        let floors: Vec<u64> = (0..LATENCY_BUCKETS).map(latency_floor_us).collect();
        for power in 0..17 {
            assert!(floors.contains(&(1 << power)), "{power} of microseconds");
            assert!(floors.contains(&(1000 << power)), "{power} of milliseconds");
        }
    }

    #[test]
    fn threads_count_together() {
        let latencies = Latencies::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..100)
                        .for_each(|_| latencies.add(Latency::Write, Duration::from_millis(3), 2))
                });
            }
        });
        let counts = latencies.counts(Latency::Write);
        assert_eq!(counts.iter().sum::<u64>(), 800);
        assert_eq!(counts[bucket_of(Duration::from_millis(3))], 800);
        for other in Latency::ALL.into_iter().filter(|it| *it != Latency::Write) {
            assert_eq!(latencies.counts(other).iter().sum::<u64>(), 0, "{other:?}");
        }
    }
}
