//! How fast an index is rebuilt from a file of small records, in records a second and as a share of what the device gives
//! to as many threads that only read. `cargo run --release --example cold_start -- [records] [directory]`

use perigee_engine::clock::HybridClock;
use perigee_engine::config::{IndexType, NamespaceConfig};
use perigee_engine::index::Location;
use perigee_engine::namespace::Namespace;
use perigee_engine::progress::OpenProgress;
use perigee_engine::record::image::{ImageBuilder, ImageHeader, ImageView};
use perigee_engine::storage::medium::FileMedium;
use perigee_engine::storage::{
    AlignedBuf, AppendError, Medium, MediumConfig, Rebuild, Store, StoreConfig,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const BLOCK_BYTES: u64 = 8 << 20;
const IMAGE_BYTES: u64 = 112;
const READERS: usize = 8;
const ROUNDS: usize = 3;

struct Empty;

impl Rebuild for Empty {
    fn adopt(&self, _: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {
        unreachable!("the file is new");
    }

    fn tell_live(&self, _: usize, _: usize, _: &mut dyn FnMut(Location)) {}
}

fn file_bytes(records: u64) -> u64 {
    (records * IMAGE_BYTES).div_ceil(BLOCK_BYTES - 4096) * BLOCK_BYTES + 8 * BLOCK_BYTES
}

fn digest(record: u64) -> [u8; 20] {
    let mut state = record;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31).to_le_bytes()
    };
    let words = [next(), next(), next()].concat();
    words[..20].try_into().expect("20 bytes")
}

fn fill(path: &Path, records: u64) {
    let medium = MediumConfig::File {
        paths: vec![path.to_path_buf()],
        file_size: file_bytes(records),
    };
    let store = Store::open(StoreConfig::new("bench", medium)).expect("the file opens");
    store
        .scan(&Empty, &OpenProgress::default())
        .expect("a first scan");
    let mut image = Vec::new();
    for record in 0..records {
        image.clear();
        let header = ImageHeader {
            digest: digest(record),
            last_update_time: 1 + record,
            generation: 1,
            void_time: 0,
            flags: 0,
        };
        let mut builder = ImageBuilder::begin(&mut image, &header, b"demo", None);
        builder.bin(b"bin", 4, &[7; 48]);
        assert_eq!(builder.finish().len() as u64, IMAGE_BYTES);
        while let Err(error) = store.append(&mut image) {
            assert_eq!(error, AppendError::Overload);
            store.drain().expect("the file takes writes");
        }
    }
    store.close();
}

/// Seconds to read the whole file and to do nothing with it.
fn read(path: &Path, bytes: u64) -> f64 {
    let medium = FileMedium::open(path, bytes).expect("the file opens");
    let next = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut buffer = AlignedBuf::new(BLOCK_BYTES as usize);
                loop {
                    let at = next.fetch_add(BLOCK_BYTES, Ordering::Relaxed);
                    if at >= bytes {
                        return;
                    }
                    medium.read_at(at, &mut buffer).expect("the file reads");
                }
            });
        }
    });
    began.elapsed().as_secs_f64()
}

fn open(path: &Path, records: u64, shared: Option<&Path>) -> (f64, u64) {
    let mut config: NamespaceConfig = serde_json::from_value(serde_json::json!({
        "name": "bench", "replication-factor": 1, "default-ttl": 0, "nsup-period": 0,
        "allow-ttl-without-nsup": true, "max-record-size": 1 << 20, "default-read-touch-ttl-pct": 0,
        "stop-writes-used-pct": 0, "stop-writes-avail-pct": 0, "stop-writes-sys-memory-pct": 0,
        "indexes-memory-budget": 0, "evict-used-pct": 0, "evict-indexes-memory-pct": 0, "evict-tenths-pct": 5,
        "evict-hist-buckets": 10000, "tomb-raider-eligible-age": 86400, "tomb-raider-period": 86400, "sets": [],
        "storage-engine": {
            "type": "device", "files": [path], "filesize": file_bytes(records), "commit-to-device": false,
        },
    }))
    .expect("a valid configuration");
    if let Some(directory) = shared {
        config.index_type = IndexType::Shmem;
        config.shmem_directory = Some(directory.to_path_buf());
    }
    let began = Instant::now();
    let clock = Arc::new(HybridClock::new());
    let opened = Namespace::open(config, clock, Vec::new(), 20, &OpenProgress::default());
    let (namespace, report) = opened.expect("the namespace opens");
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(namespace.objects.load(Ordering::Relaxed) as u64, records);
    assert_eq!(report.damaged, 0);
    let bytes = namespace.shared_memory_bytes();
    namespace.store.close();
    (seconds, bytes)
}

/// Seconds of processor time that this process has used. On a machine that is shared, they tell more than a clock.
fn cpu_seconds() -> f64 {
    // SAFETY: all zeroes are a valid value of the structure, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let records = arguments
        .next()
        .map_or(5_000_000, |count| count.parse().expect("a number"));
    let directory = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let path = directory.join(format!("perigee-cold-start-{}", std::process::id()));
    fill(&path, records);
    let bytes = file_bytes(records);
    let reading = median((0..ROUNDS).map(|_| read(&path, bytes)).collect());
    let before = cpu_seconds();
    let opening = median((0..ROUNDS).map(|_| open(&path, records, None).0).collect());
    let cpu = (cpu_seconds() - before) / ROUNDS as f64;
    let shared = PathBuf::from("/dev/shm").join(path.file_name().expect("a name"));
    let (filling, shared_bytes) = open(&path, records, Some(&shared));
    let warm = median(
        (0..ROUNDS)
            .map(|_| open(&path, records, Some(&shared)).0)
            .collect(),
    );
    let _ = std::fs::remove_dir_all(&shared);
    let _ = std::fs::remove_file(&path);
    println!(
        "in shared memory: cold {filling:.2} s, warm {warm:.2} s, {:.1} bytes a record",
        shared_bytes as f64 / records as f64
    );
    println!(
        "{records} records of {IMAGE_BYTES} bytes: {opening:.2} s, {:.2} million records/s, {:.0} MB/s; \
         {:.0} ns of CPU a record; reading alone {reading:.2} s, {:.0} MB/s; {:.0}% of the device",
        records as f64 / opening / 1e6,
        bytes as f64 / opening / 1e6,
        cpu * 1e9 / records as f64,
        bytes as f64 / reading / 1e6,
        reading / opening * 100.0,
    );
}
