//! Starts from shared memory: real processes that end without a word while they write, and files that are not what they
//! should be.

mod full;
mod kill;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use perigee_wire::{
    Digest, PARTITIONS, RequestHeader, RequestWriter, ResultCode, field, info1, info2, op,
    particle_type as particle,
};

use crate::clock::HybridClock;
use crate::config::{CommonStorageConfig, IndexType, NamespaceConfig, StorageConfig};
use crate::namespace::Namespace;
use crate::progress::OpenProgress;
use crate::storage::{CommitSink, CommitWaiter, DeviceError};
use crate::testing::{Random, Reply, TempDirectory, namespace_config, run_frame};

const KEYS: u16 = 600;
/// Few, so that tables are large and change much.
const TABLES: u16 = 3;
const FILE_BYTES: u64 = 3 << 20;

/// Tests that start processes and tests that close files and open them again stand back for each other: a process that is
/// just being started holds the locks of all files that are open here.
static SERIAL: Mutex<()> = Mutex::new(());

struct Nobody;

impl CommitSink for Nobody {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {}
}

/// A namespace on a file in a directory, with its index in shared memory beneath it.
fn config(directory: &std::path::Path) -> NamespaceConfig {
    let mut config = namespace_config();
    config.stop_writes_used_pct = Default::default();
    config.stop_writes_avail_pct = Default::default();
    config.index_type = IndexType::Shmem;
    config.shmem_directory = Some(directory.join("shared"));
    config.storage_engine = StorageConfig::Device {
        common: CommonStorageConfig {
            files: vec![directory.join("data")],
            filesize: Some(FILE_BYTES),
            write_block_size: 64 << 10,
            flush_size: 16 << 10,
            flush_max_ms: 5,
            max_write_cache: 512 << 10,
            post_write_cache: 256 << 10,
            ..CommonStorageConfig::default()
        },
    };
    config
}

fn cold(mut config: NamespaceConfig) -> NamespaceConfig {
    config.index_type = IndexType::Memory;
    config.shmem_directory = None;
    config
}

/// Opens at the first attempt, also when a process was just killed.
fn open(config: NamespaceConfig) -> Arc<Namespace> {
    let clock = Arc::new(HybridClock::new());
    let progress = OpenProgress::default();
    let (namespace, report) =
        Namespace::open(config, clock, vec![], 20, &progress).expect("the namespace opens");
    assert_eq!(report.damaged, 0);
    namespace.set_ownership(1, &[0xFF; PARTITIONS / 8]);
    namespace.start(Arc::new(Nobody));
    namespace
}

fn digest_of(key: u16) -> Digest {
    let mut random = Random(u64::from(key));
    let mut digest: Digest = std::array::from_fn(|_| random.below(256) as u8);
    digest[0] = (key % TABLES) as u8;
    digest[1] &= 0xF0;
    digest
}

fn send(namespace: &Namespace, key: u16, header: RequestHeader, value: Option<u64>) -> Reply {
    let mut frame = Vec::new();
    let mut writer = RequestWriter::begin(&mut frame, header);
    writer.field(field::NAMESPACE, b"test");
    writer.field(field::SET, format!("set{}", key % 5).as_bytes());
    writer.field(field::DIGEST, &digest_of(key));
    if let Some(value) = value {
        let bytes = Random(value).below(3000) as usize;
        writer.op(op::WRITE, particle::INTEGER, b"n", &value.to_be_bytes());
        writer.op(op::WRITE, particle::BLOB, b"b", &vec![value as u8; bytes]);
    }
    writer.finish();
    run_frame(namespace, &frame)
}

fn put(namespace: &Namespace, key: u16, value: u64) -> ResultCode {
    let header = RequestHeader {
        info2: info2::WRITE,
        ..RequestHeader::default()
    };
    send(namespace, key, header, Some(value)).code
}

fn delete(namespace: &Namespace, key: u16, durable: bool) -> ResultCode {
    let header = RequestHeader {
        info2: info2::WRITE | info2::DELETE | if durable { info2::DURABLE_DELETE } else { 0 },
        ..RequestHeader::default()
    };
    send(namespace, key, header, None).code
}

fn value(namespace: &Namespace, key: u16) -> Option<u64> {
    let header = RequestHeader {
        info1: info1::READ | info1::GET_ALL,
        ..RequestHeader::default()
    };
    let reply = send(namespace, key, header, None);
    match reply.code {
        ResultCode::Ok => {
            let value = u64::from_be_bytes(reply.bins[0].2[..].try_into().expect("8 bytes"));
            let bytes = Random(value).below(3000) as usize;
            assert_eq!(reply.bins[1].2, vec![value as u8; bytes], "key {key}");
            Some(value)
        }
        ResultCode::NotFound => None,
        code => panic!("key {key}: {code:?}"),
    }
}

type Model = BTreeMap<u16, u64>;

fn contents(namespace: &Namespace) -> Model {
    (0..KEYS)
        .filter_map(|key| Some((key, value(namespace, key)?)))
        .collect()
}

/// Counts that are kept as things change have to be what the records add up to.
fn check_counts(namespace: &Namespace) {
    let (mut objects, mut tombstones, mut bytes) = (0, 0, 0);
    for partition in namespace.partitions() {
        for entry in partition.lock().table.iter() {
            match entry.is_tombstone() {
                true => tombstones += 1,
                false => objects += 1,
            }
            bytes += entry.location.bytes() as u64;
        }
    }
    assert_eq!(namespace.objects.load(Ordering::Relaxed), objects);
    assert_eq!(namespace.tombstones.load(Ordering::Relaxed), tombstones);
    let in_sets: i64 = namespace
        .sets
        .all()
        .map(|set| set.objects.load(Ordering::Relaxed))
        .sum();
    assert_eq!(in_sets, objects);
    // A copy by defragmentation counts twice for a moment, and may have begun before the entries were added up.
    let is_sum = |_| {
        std::thread::sleep(Duration::from_millis(1));
        namespace.store.stats().used_bytes == bytes
    };
    assert!(
        (0..5000).any(is_sum),
        "{bytes} bytes: {:?}",
        namespace.store.stats()
    );
}

/// Fills a namespace and stops it; returns what is in it.
fn filled(directory: &TempDirectory) -> Model {
    let namespace = open(config(&directory.0));
    let mut model = Model::new();
    for key in 0..KEYS {
        let value = 1000 + u64::from(key);
        while let ResultCode::DeviceOverload = put(&namespace, key, value) {
            namespace.store.drain().expect("the file takes writes");
        }
        model.insert(key, value);
    }
    namespace.store.close();
    model
}

fn shared_files(directory: &TempDirectory) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.0.join("shared")).expect("a directory");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}
