//! The primary index on one thread: `cargo bench -p perigee-engine --bench index`. Fixed seed.
//!
//! Twenty million records take 1.2 GB; `-- /1M` measures the smallest size alone. A lookup that finds
//! its record is waited for before the next begins, as in a server, where a request's work lies
//! between two: no overlap of cache misses hides what one costs. Of a miss nothing is left to wait for.

mod common;

use common::{Index, mix, random_digests};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};

const SIZES_MILLIONS: [u64; 3] = [1, 5, 20];
/// Digests prepared at a time: few enough to stay in the second-level cache.
const BATCH: usize = 4096;

fn probe(index: &Index, records: u64, present: bool, count: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut done = 0;
    while done < count {
        let batch = BATCH.min((count - done) as usize);
        let digests = random_digests(batch, records, present, mix(done));
        let start = Instant::now();
        let mut next = 0;
        while next < batch {
            let found = index.get(black_box(&digests[next]));
            assert_eq!(found.is_some(), present);
            // No generation is zero, which the processor learns only from the entry.
            next += 1 + usize::from(found.is_some_and(|entry| entry.generation == 0));
        }
        elapsed += start.elapsed();
        done += batch as u64;
    }
    elapsed
}

/// Inserts records beyond those that are there, and removes them again outside the measured time.
fn insert(index: &mut Index, records: u64, count: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut done = 0;
    while done < count {
        let batch = BATCH.min((count - done) as usize);
        let digests = random_digests(batch, records, false, mix(done));
        let start = Instant::now();
        for digest in &digests {
            index.insert(*digest);
        }
        elapsed += start.elapsed();
        for digest in &digests {
            index.remove(digest);
        }
        done += batch as u64;
    }
    elapsed
}

fn index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    for millions in SIZES_MILLIONS {
        let records = millions * 1_000_000;
        let size = format!("{millions}M");
        // Built when the first benchmark that was asked for needs it.
        let mut built: Option<Index> = None;
        for (name, present) in [("hit", true), ("miss", false)] {
            group.bench_function(BenchmarkId::new(name, &size), |bencher| {
                let index = built.get_or_insert_with(|| Index::with(records));
                bencher.iter_custom(|count| probe(index, records, present, count));
            });
        }
        group.bench_function(BenchmarkId::new("insert", &size), |bencher| {
            let index = built.get_or_insert_with(|| Index::with(records));
            bencher.iter_custom(|count| insert(index, records, count));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = index
}
criterion_main!(benches);
