//! The entries of secondary indexes on one thread: `cargo bench -p perigee-engine --bench secondary_index`. Fixed seed.
//!
//! Trees are as large as those of a partition are in an index of a million entries, and of a hundred million. There are so
//! many that they do not stay in the caches, as in a server; each step is in another one.

mod common;

use common::mix;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use perigee_engine::secondary_index::KeyTree;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Entries a tree, and trees.
const SIZES: [(u64, u64); 2] = [(250, 4096), (25_000, 256)];
const COLLECTED: [u64; 2] = [100, 10_000];
const BATCH: u64 = 4096;

/// Keys are spread over all numbers, so that a share of them is a share of the entries.
fn entry(i: u64) -> (u64, u64) {
    (mix(2 * i), mix(2 * i + 1))
}

fn trees((entries, count): (u64, u64)) -> Vec<KeyTree> {
    let tree = |at: u64| {
        let mut tree = KeyTree::default();
        for i in 0..entries {
            let (key, prefix) = entry(at * entries + i);
            assert!(tree.insert(key, prefix));
        }
        tree
    };
    (0..count).map(tree).collect()
}

/// Inserts and removes entries beyond those that are there, and measures one of both.
fn change(trees: &mut [KeyTree], there: u64, count: u64, measures_insertion: bool) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut done = 0;
    while done < count {
        let batch = BATCH.min(count - done);
        let steps = || {
            (0..batch).map(|i| {
                let (key, prefix) = entry(there + done + i);
                (key, prefix, mix(done + i) as usize)
            })
        };
        let start = Instant::now();
        for (key, prefix, at) in steps() {
            let at = at % trees.len();
            assert!(trees[at].insert(key, prefix));
        }
        let inserted = Instant::now();
        for (key, prefix, at) in steps() {
            let at = at % trees.len();
            assert!(trees[at].remove(key, prefix));
        }
        elapsed += match measures_insertion {
            true => inserted - start,
            false => inserted.elapsed(),
        };
        done += batch;
    }
    elapsed
}

/// Copies about `wanted` entries at a time, from anywhere.
fn collect(trees: &[KeyTree], entries: u64, wanted: u64, count: u64) -> Duration {
    let width = u64::MAX / entries * wanted;
    let mut prefixes = Vec::with_capacity(2 * wanted as usize);
    let start = Instant::now();
    for i in 0..count {
        let low = mix(i) % (u64::MAX - width);
        prefixes.clear();
        let tree = &trees[i as usize % trees.len()];
        tree.collect(black_box(low), black_box(low + width), &mut prefixes);
        black_box(&prefixes);
    }
    start.elapsed()
}

fn secondary_index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("secondary_index");
    for size in SIZES {
        let (entries, count) = size;
        // Built when the first benchmark that was asked for needs it.
        let mut built: Option<Vec<KeyTree>> = None;
        for (name, measures_insertion) in [("insert", true), ("remove", false)] {
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                let trees = built.get_or_insert_with(|| trees(size));
                bencher
                    .iter_custom(|steps| change(trees, entries * count, steps, measures_insertion));
            });
        }
        for wanted in COLLECTED.into_iter().filter(|wanted| *wanted < entries) {
            group.throughput(Throughput::Elements(wanted));
            let name = format!("collect {wanted}");
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                let trees = built.get_or_insert_with(|| trees(size));
                bencher.iter_custom(|steps| collect(trees, entries, wanted, steps));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = secondary_index
}
criterion_main!(benches);
