//! What a store does under overwrites: how much it takes a second, how much more it writes than it is given, and how long
//! the longest append takes, at several degrees of fill.
//!
//! `cargo run --release -p perigee-engine --example overwrite -- --path /mnt/x/test.dat --size-mib 2048`
//!
//! First the store is filled with distinct records, which is the ingest figure (until everything is durable), and
//! then random ones are overwritten as fast as the store allows, first until as much as the device holds was written, which
//! is not measured, and then for the given time. Fixed seed. Beside the write amplification stands what theory has for the
//! fill: blocks emptied in turn, overwrites spread evenly, nothing kept free.

use clap::Parser;
use parking_lot::Mutex;
use perigee_engine::index::Location;
use perigee_engine::progress::OpenProgress;
use perigee_engine::record::image::{ImageBuilder, ImageHeader, ImageView};
use perigee_engine::storage::{
    Algorithm, AppendError, CommitSink, CommitWaiter, DeviceError, Encryption, MediumConfig,
    Rebuild, Relocate, Store, StoreConfig,
};
use perigee_wire::Digest;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Options {
    /// The file; it is made anew, and removed at the end. Several for several devices.
    #[arg(long, required = true)]
    path: Vec<PathBuf>,
    /// Size of each file.
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Shares of the store that are live, in percent.
    #[arg(long, value_delimiter = ',', default_value = "50,70,80,90")]
    fill: Vec<u64>,
    /// Seconds of overwrites that are measured; 0 for the ingest figure alone.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Appends a second over all writers; 0 for as many as the store takes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    #[arg(long, default_value_t = 1)]
    writers: u64,
    #[arg(long, default_value_t = 8192)]
    write_block_kib: u32,
    #[arg(long, default_value_t = 50)]
    defrag_lwm_pct: u8,
    /// aes-128 or aes-256.
    #[arg(long)]
    encryption: Option<String>,
    #[arg(long)]
    in_memory: bool,
}

const STRIPES: usize = 1024;

/// An index of numbers: where each record lies, under one of a thousand locks.
struct Index {
    stripes: Vec<Mutex<Vec<Option<Location>>>>,
}

impl Index {
    fn new(keys: u64) -> Index {
        let each = keys as usize / STRIPES + 1;
        let stripe = || Mutex::new(vec![None; each]);
        Index {
            stripes: (0..STRIPES).map(|_| stripe()).collect(),
        }
    }

    fn with<R>(&self, key: u64, f: impl FnOnce(&mut Option<Location>) -> R) -> R {
        let mut stripe = self.stripes[key as usize % STRIPES].lock();
        f(&mut stripe[key as usize / STRIPES])
    }
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn digest(key: u64) -> Digest {
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&key.to_le_bytes());
    digest[12..].copy_from_slice(&mix(key).to_le_bytes());
    digest
}

struct Mover {
    store: Weak<Store>,
    index: Arc<Index>,
}

impl Relocate for Mover {
    fn relocate(&self, digest: &Digest, from: Location, image: &mut Vec<u8>) -> bool {
        let Some(store) = self.store.upgrade() else {
            return false;
        };
        let key = u64::from_le_bytes(digest[..8].try_into().expect("8 bytes"));
        self.index.with(key, |place| {
            if *place != Some(from) {
                return false;
            }
            let appended = store.append_relocated(image);
            *place = appended.map_or(*place, |appended| Some(appended.location));
            appended.is_ok()
        })
    }
}

struct NobodyWaits;

impl CommitSink for NobodyWaits {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {}
}

struct Empty;

impl Rebuild for Empty {
    fn adopt(&self, _: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {}
    fn tell_live(&self, _: usize, _: usize, _: &mut dyn FnMut(Location)) {}
}

#[derive(Default)]
struct Seen {
    appends: AtomicU64,
    overloads: AtomicU64,
    fulls: AtomicU64,
    longest_ns: AtomicU64,
    /// From the first refusal to the append.
    longest_wait_ns: AtomicU64,
}

/// Without `seen` no clock is read, which would cost a tenth of an append.
fn put(
    store: &Store,
    index: &Index,
    image: &mut Vec<u8>,
    key: u64,
    bytes: usize,
    seen: Option<&Seen>,
) {
    let header = ImageHeader {
        digest: digest(key),
        last_update_time: 1,
        generation: 1,
        void_time: 0,
        flags: 0,
    };
    image.clear();
    let mut builder = ImageBuilder::begin(image, &header, b"", None);
    // Header, bin header and name are the rest.
    let value = vec![key as u8; bytes.saturating_sub(48 + 6 + 1)];
    builder.bin(b"b", 4, &value);
    builder.finish();
    let clock = || seen.map(|seen| (seen, Instant::now()));
    let began = clock();
    loop {
        let append = clock();
        let appended = index.with(key, |place| {
            let appended = store.append(image)?;
            if let Some(old) = place.replace(appended.location) {
                store.release(old);
            }
            Ok(())
        });
        let since = |from: Option<(&Seen, Instant)>, longest: fn(&Seen) -> &AtomicU64| {
            if let Some((seen, from)) = from {
                let ns = from.elapsed().as_nanos() as u64;
                longest(seen).fetch_max(ns, Ordering::Relaxed);
            }
        };
        since(append, |seen| &seen.longest_ns);
        let refusals: fn(&Seen) -> &AtomicU64 = match appended {
            Ok(()) => {
                since(began, |seen| &seen.longest_wait_ns);
                if let Some(seen) = seen {
                    seen.appends.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            Err(AppendError::Overload) => |seen| &seen.overloads,
            Err(AppendError::Full) => |seen| &seen.fulls,
            Err(error) => panic!("{error}"),
        };
        if let Some(seen) = seen {
            refusals(seen).fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// The live share of a block when its turn comes is `u` with `fill = (u - 1) / ln u`, and `1 / (1 - u)` bytes are written
/// for each that a client writes (Menon, "A performance comparison of RAID-5 and log-structured arrays", 1995).
fn ideal_amplification(fill: f64) -> f64 {
    let (mut low, mut high) = (1e-9, 1.0 - 1e-9);
    for _ in 0..60 {
        let u: f64 = (low + high) / 2.0;
        match (u - 1.0) / u.ln() < fill {
            true => low = u,
            false => high = u,
        }
    }
    1.0 / (1.0 - low)
}

fn run(options: &Options, fill: u64) {
    for path in &options.path {
        let _ = std::fs::remove_file(path);
    }
    let medium = MediumConfig::File {
        paths: options.path.clone(),
        file_size: options.size_mib << 20,
    };
    let key_file = options.path[0].with_extension("key");
    let encryption = options.encryption.as_deref().map(|name| {
        let (algorithm, bytes) = match name {
            "aes-128" => (Algorithm::Aes128, 16),
            _ => (Algorithm::Aes256, 32),
        };
        std::fs::write(&key_file, vec![7; bytes]).expect("a key file");
        let key_file = key_file.clone();
        Encryption {
            algorithm,
            key_file,
        }
    });
    let config = StoreConfig {
        write_block_bytes: options.write_block_kib << 10,
        flush_size_bytes: (options.write_block_kib << 10).min(1 << 20),
        defrag_lwm_pct: options.defrag_lwm_pct,
        in_memory: options.in_memory,
        encryption,
        ..StoreConfig::new("bench", medium)
    };
    let store = Arc::new(Store::open(config).expect("a new store"));
    store
        .scan(&Empty, &OpenProgress::default())
        .expect("first scan");
    let total = store.stats().total_bytes;
    let record_bytes = options.record_bytes.next_multiple_of(16);
    let keys = total * fill / 100 / record_bytes as u64;
    let index = Arc::new(Index::new(keys));
    let mover = Mover {
        store: Arc::downgrade(&store),
        index: Arc::clone(&index),
    };
    store.start(Arc::new(mover), Arc::new(NobodyWaits));

    let mut image = Vec::new();
    let began = Instant::now();
    for key in 0..keys {
        put(&store, &index, &mut image, key, record_bytes, None);
    }
    store.drain().expect("a working device");
    let ingest = (keys * record_bytes as u64) as f64 / began.elapsed().as_secs_f64() / 1e6;
    if options.seconds == 0 {
        println!("{fill:>4} {ingest:>9.0}");
        return;
    }

    let stop = AtomicBool::new(false);
    let (mut measured, mut before, mut began) = (Seen::default(), store.stats(), Instant::now());
    let current: Mutex<Arc<Seen>> = Mutex::new(Arc::new(Seen::default()));
    std::thread::scope(|scope| {
        for writer in 0..options.writers {
            let (store, index, current, stop) = (&store, &index, &current, &stop);
            scope.spawn(move || {
                let mut image = Vec::new();
                let mut random = writer << 32;
                let pause = match options.rate {
                    0 => Duration::ZERO,
                    rate => Duration::from_secs_f64(options.writers as f64 / rate as f64),
                };
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let seen = Arc::clone(&current.lock());
                    for _ in 0..64 {
                        random += 1;
                        let key = mix(random) % keys;
                        put(store, index, &mut image, key, record_bytes, Some(&seen));
                        due += pause;
                        if options.rate > 0 {
                            std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        }
                    }
                }
            });
        }
        let written = |stats: &perigee_engine::storage::StoreStats| stats.write_bytes;
        while written(&store.stats()) - written(&before) < total {
            std::thread::sleep(Duration::from_millis(20));
        }
        *current.lock() = Arc::new(Seen::default());
        (before, began) = (store.stats(), Instant::now());
        std::thread::sleep(Duration::from_secs(options.seconds));
        let last = std::mem::take(&mut *current.lock());
        stop.store(true, Ordering::Relaxed);
        while Arc::strong_count(&last) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        measured = Arc::into_inner(last).expect("the writers have gone on");
    });
    let seconds = began.elapsed().as_secs_f64();
    let after = store.stats();
    let client = (after.write_bytes - before.write_bytes) as f64;
    let device = (after.flush_bytes - before.flush_bytes) as f64;
    let ms = |ns: &AtomicU64| ns.load(Ordering::Relaxed) as f64 / 1e6;
    println!(
        "{fill:>4} {ingest:>9.0} {:>10.0} {:>9.0} {:>9.0} {:>6.2} {:>6.2} {:>10.2} {:>10.2} {:>10} {:>6}",
        measured.appends.load(Ordering::Relaxed) as f64 / seconds,
        client / seconds / 1e6,
        device / seconds / 1e6,
        device / client,
        ideal_amplification(fill as f64 / 100.0),
        ms(&measured.longest_ns),
        ms(&measured.longest_wait_ns),
        measured.overloads.load(Ordering::Relaxed),
        measured.fulls.load(Ordering::Relaxed),
    );
    store.close();
    let _ = std::fs::remove_file(&key_file);
}

fn main() {
    let options = Options::parse();
    println!(
        "fill    ingest  appends/s    client    device  write    in    longest    longest   overload   full"
    );
    println!(
        "   %      MB/s                 MB/s      MB/s    amp theory  append ms    wait ms    answers      "
    );
    for fill in &options.fill {
        run(&options, *fill);
    }
    for path in &options.path {
        let _ = std::fs::remove_file(path);
    }
}
