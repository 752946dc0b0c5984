//! Record images and the write path on one thread: `cargo bench -p perigee-engine --bench storage`.
//!
//! Stores in files lie in the directory for temporary files (TMPDIR chooses another file system).

mod common;

use common::digest;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use perigee_engine::index::Location;
use perigee_engine::progress::OpenProgress;
use perigee_engine::record::image::{ImageBuilder, ImageHeader, ImageView, seal};
use perigee_engine::storage::{
    AppendError, CommitSink, CommitWaiter, DeviceError, MediumConfig, Rebuild, Relocate, Store,
    StoreConfig,
};
use perigee_wire::Digest;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VALUE_BYTES: [usize; 3] = [100, 1024, 10_240];
const BLOB: u8 = 4;
const SEQUENCE: u64 = 7;
/// What a store of the benchmark holds. It is filled, and begun anew when it is full.
const STORE_BYTES: u64 = 512 << 20;

fn build(image: &mut Vec<u8>, digest: Digest, value: &[u8]) {
    image.clear();
    let header = ImageHeader {
        digest,
        last_update_time: 1,
        generation: 1,
        void_time: 0,
        flags: 0,
    };
    let mut builder = ImageBuilder::begin(image, &header, b"set", None);
    builder.bin(b"bin", BLOB, value);
    builder.finish();
}

fn images(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("image");
    for bytes in VALUE_BYTES {
        let value = vec![7; bytes];
        let mut image = Vec::new();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("build", bytes), |bencher| {
            bencher.iter(|| build(black_box(&mut image), digest(1), black_box(&value)));
        });
        build(&mut image, digest(1), &value);
        group.bench_function(BenchmarkId::new("seal", bytes), |bencher| {
            bencher.iter(|| seal(black_box(&mut image), SEQUENCE));
        });
        group.bench_function(BenchmarkId::new("verify", bytes), |bencher| {
            bencher.iter(|| ImageView::verify(black_box(&image), Some(SEQUENCE)).is_ok());
        });
        group.bench_function(BenchmarkId::new("decode", bytes), |bencher| {
            bencher.iter(|| {
                let view = ImageView::trusted(black_box(&image));
                view.bins()
                    .map(|bin| black_box(bin.value).len())
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

/// A store that is new, that nothing is ever deleted from, and no commit awaited in.
struct Idle;

impl Rebuild for Idle {
    fn adopt(&self, _: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {
        unreachable!("a new store is empty");
    }

    fn tell_live(&self, _: usize, _: usize, _: &mut dyn FnMut(Location)) {}
}

impl Relocate for Idle {
    fn relocate(&self, _: &Digest, _: Location, _: &mut Vec<u8>) -> bool {
        false
    }
}

impl CommitSink for Idle {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {}
}

struct Scratch {
    store: Arc<Store>,
    file: Option<PathBuf>,
}

impl Scratch {
    fn open(file: Option<PathBuf>) -> Scratch {
        let medium = match &file {
            None => MediumConfig::Memory {
                data_size: STORE_BYTES,
            },
            Some(path) => MediumConfig::File {
                paths: vec![path.clone()],
                file_size: STORE_BYTES,
            },
        };
        let store = Store::open(StoreConfig::new("bench", medium)).expect("a new store opens");
        store
            .scan(&Idle, &OpenProgress::default())
            .expect("the first scan");
        let store = Arc::new(store);
        store.start(Arc::new(Idle), Arc::new(Idle));
        Scratch { store, file }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.store.close();
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Appends `count` images, opening and closing stores outside the measured time. When the device is
/// behind, the waiting for it counts: the figure of a file is what its device takes in the long run.
fn append(file: Option<PathBuf>, value: &[u8], count: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut done = 0;
    let mut image = Vec::new();
    while done < count {
        let scratch = Scratch::open(file.clone());
        let start = Instant::now();
        while done < count {
            build(&mut image, digest(done), value);
            match scratch.store.append(&mut image) {
                Ok(appended) => {
                    black_box(appended);
                    done += 1;
                }
                Err(AppendError::Overload) => std::thread::sleep(Duration::from_millis(1)),
                Err(AppendError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        scratch.store.drain().expect("the device works");
        elapsed += start.elapsed();
    }
    elapsed
}

fn stores(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    let file = std::env::temp_dir().join(format!("perigee-bench-{}", std::process::id()));
    for bytes in VALUE_BYTES {
        let value = vec![7; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        for (name, file) in [("memory", None), ("file", Some(file.clone()))] {
            group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
                bencher.iter_custom(|count| append(file.clone(), &value, count));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2));
    targets = images, stores
}
criterion_main!(benches);
