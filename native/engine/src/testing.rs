//! A namespace in memory, driven by real frames.

use std::sync::Arc;

use perigee_wire::{
    Digest, Message, PARTITIONS, PROTO_HEADER_BYTES, RequestHeader, RequestWriter, ResultCode,
    compute_digest, field, info1, info2, op, particle_type as particle,
};

use crate::clock::HybridClock;
use crate::config::{
    CommonStorageConfig, DatacenterConfig, DatacenterNamespaceConfig, IndexType, NamespaceConfig,
    StorageConfig,
};
use crate::device_copy::DeviceCopy;
use crate::namespace::Namespace;
use crate::partition::Waiter;
use crate::progress::OpenProgress;
use crate::request::{Outcome, Request};
use crate::storage::{AlignedBuf, CommitSink, CommitWaiter, DeviceError, Medium, Store};
use crate::xdr::{Datacenter, NamespaceShipping};

struct NobodyWaits;

impl CommitSink for NobodyWaits {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {
        unreachable!("a namespace in memory commits at once")
    }
}

pub fn namespace_config() -> NamespaceConfig {
    let common = CommonStorageConfig {
        write_block_size: 64 << 10,
        flush_size: 16 << 10,
        ..CommonStorageConfig::default()
    };
    NamespaceConfig {
        name: "test".into(),
        replication_factor: 1,
        default_ttl: 0.into(),
        nsup_period: 120.into(),
        allow_ttl_without_nsup: false.into(),
        max_record_size: (32 << 10).into(),
        default_read_touch_ttl_pct: 0.into(),
        stop_writes_used_pct: 70.into(),
        stop_writes_avail_pct: 5.into(),
        stop_writes_sys_memory_pct: 0.into(),
        indexes_memory_budget: 0.into(),
        evict_used_pct: 0.into(),
        evict_indexes_memory_pct: 0.into(),
        evict_tenths_pct: 5.into(),
        evict_hist_buckets: 10_000.into(),
        tomb_raider_eligible_age: 86_400.into(),
        tomb_raider_period: 86_400.into(),
        background_query_max_rps: 10_000.into(),
        sets: Vec::new(),
        truncations: Vec::new(),
        index_type: IndexType::Memory,
        shmem_directory: None,
        storage_engine: StorageConfig::Memory {
            data_size: Some(16 << 20),
            common,
        },
    }
}

/// A namespace of this configuration that ships to as many datacenters as there are states.
pub fn open(config: NamespaceConfig, shipping: Vec<Arc<NamespaceShipping>>) -> Arc<Namespace> {
    open_at(config, shipping, HybridClock::new())
}

/// As `open`, with a clock of the test's own.
pub fn open_at(
    config: NamespaceConfig,
    shipping: Vec<Arc<NamespaceShipping>>,
    clock: HybridClock,
) -> Arc<Namespace> {
    let opened = Namespace::open(
        config,
        Arc::new(clock),
        shipping,
        20,
        &OpenProgress::default(),
    );
    let (namespace, _) = opened.expect("a namespace in memory opens");
    namespace.set_ownership(1, &[0xff; PARTITIONS / 8]);
    namespace.start(Arc::new(NobodyWaits));
    namespace
}

/// A store on a disk that is open already; the configuration only sizes it.
pub fn store_on(config: &NamespaceConfig, disk: Arc<dyn Medium>) -> Store {
    let config = config.store().expect("a configuration that holds");
    Store::open_on(config, vec![disk]).expect("a store on the disk")
}

/// A namespace on such a disk, with a clock of the test's own.
pub fn open_on_disk(
    config: &NamespaceConfig,
    disk: Arc<dyn Medium>,
    clock: HybridClock,
) -> Arc<Namespace> {
    let (namespace, _) = Namespace::open_on(
        store_on(config, disk),
        config.clone(),
        Arc::new(clock),
        vec![],
        20,
        &OpenProgress::default(),
    )
    .expect("a namespace on the disk");
    namespace.set_ownership(1, &[0xff; PARTITIONS / 8]);
    namespace.start(Arc::new(NobodyWaits));
    namespace
}

/// A namespace in memory and the datacenter that it ships to.
pub fn site(queue_limit: usize) -> (Arc<Namespace>, Datacenter) {
    site_on(namespace_config(), queue_limit)
}

/// A namespace and the datacenter that it ships to.
pub fn site_on(namespace: NamespaceConfig, queue_limit: usize) -> (Arc<Namespace>, Datacenter) {
    site_at(namespace, queue_limit, HybridClock::new())
}

/// As `site_on`, with a clock of the test's own.
pub fn site_at(
    namespace: NamespaceConfig,
    queue_limit: usize,
    clock: HybridClock,
) -> (Arc<Namespace>, Datacenter) {
    let route = DatacenterNamespaceConfig {
        name: "test".into(),
        remote_namespace: None,
        transaction_queue_limit: queue_limit,
        hot_key_ms: 0,
    };
    let config = DatacenterConfig {
        name: "other".into(),
        namespaces: vec![route.clone()],
    };
    let state = Arc::new(NamespaceShipping::new(&route));
    let namespace = open_at(namespace, vec![state.clone()], clock);
    let datacenter = Datacenter::new(&config, vec![(namespace.clone(), 0, state)]);
    (namespace, datacenter)
}

/// A path of a file that is removed when the test ends.
pub struct TempFile(pub std::path::PathBuf);

impl TempFile {
    pub fn new(name: &str) -> TempFile {
        let name = format!("perigee-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A directory that is removed when the test ends.
pub struct TempDirectory(pub std::path::PathBuf);

impl TempDirectory {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("perigee-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        TempDirectory(path)
    }
}

impl TempDirectory {
    /// One in memory, if there is a file system there, that only this user can enter.
    pub fn in_memory(name: &str) -> Self {
        use std::os::unix::fs::DirBuilderExt;
        let parent = Some(std::path::PathBuf::from("/dev/shm")).filter(|path| path.is_dir());
        let path = parent
            .unwrap_or_else(std::env::temp_dir)
            .join(format!("perigee-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.expect("a temporary directory");
        TempDirectory(path)
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The configuration of a namespace on a file in a directory, without commit.
pub fn file_config(directory: &TempDirectory) -> NamespaceConfig {
    let mut config = namespace_config();
    let StorageConfig::Memory { common, .. } = config.storage_engine else {
        unreachable!("a namespace in memory")
    };
    config.storage_engine = StorageConfig::Device {
        common: CommonStorageConfig {
            files: vec![directory.0.join("test.dat")],
            filesize: Some(16 << 20),
            ..common
        },
    };
    config
}

/// A reply, owned.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: ResultCode,
    pub generation: u32,
    pub void_time: u32,
    pub bins: Vec<(String, u8, Vec<u8>)>,
}

/// Runs a whole frame against a namespace, reading from the device where that is asked for.
pub fn run_frame(namespace: &Namespace, frame: &[u8]) -> Reply {
    let mut out = Vec::new();
    let mut buffer = AlignedBuf::default();
    let mut copy = None;
    loop {
        match try_frame_with(namespace, frame, None, copy, &mut out) {
            Outcome::Answered | Outcome::AwaitCommit(_) => return parse(&out),
            Outcome::ReadDevice(location) => match namespace.read_device(location, &mut buffer) {
                Ok(read) => copy = Some(read),
                Err(unread) => {
                    let message = Message::parse(&frame[PROTO_HEADER_BYTES..]);
                    let digest = message.expect("a valid message").digest.expect("a digest");
                    assert!(!namespace.is_lost(digest, &unread), "{unread:?}");
                    copy = None;
                }
            },
            _ => panic!("the request was not answered at once"),
        }
    }
}

/// A statistic of the namespace, by its public name.
pub fn counter(namespace: &Namespace, name: &str) -> u64 {
    let totals = namespace.stats.totals();
    let found = totals.into_iter().find(|(counter, _)| *counter == name);
    found.expect("a counter").1
}

pub fn try_frame(
    namespace: &Namespace,
    frame: &[u8],
    waiter: Option<Waiter>,
    out: &mut Vec<u8>,
) -> Outcome {
    try_frame_with(namespace, frame, waiter, None, out)
}

fn try_frame_with(
    namespace: &Namespace,
    frame: &[u8],
    waiter: Option<Waiter>,
    copy: Option<DeviceCopy<'_>>,
    out: &mut Vec<u8>,
) -> Outcome {
    let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a valid message");
    let digest = *message.digest.expect("a digest");
    namespace.execute(
        &Request {
            waiter,
            copy,
            ..Request::new(&message, &digest)
        },
        out,
    )
}

pub fn parse(reply: &[u8]) -> Reply {
    let message = Message::parse(&reply[PROTO_HEADER_BYTES..]).expect("a valid reply");
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).expect("a name");
    Reply {
        code: ResultCode::from_u8(message.header.result_code).expect("a known code"),
        generation: message.header.generation,
        void_time: message.header.record_ttl,
        bins: message
            .ops
            .into_iter()
            .map(|op| (text(op.name), op.particle, op.value.to_vec()))
            .collect(),
    }
}

pub fn digest(key: &str) -> Digest {
    compute_digest(b"demo", particle::STRING, key.as_bytes())
}

/// A request for `key` in set `demo`.
pub fn request(
    key: &str,
    header: RequestHeader,
    extra: impl FnOnce(&mut RequestWriter<'_>),
) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut writer = RequestWriter::begin(&mut frame, header);
    writer.field(field::NAMESPACE, b"test");
    writer.field(field::SET, b"demo");
    writer.field(field::DIGEST, &digest(key));
    extra(&mut writer);
    writer.finish();
    frame
}

pub fn write(info2_more: u8, info3: u8) -> RequestHeader {
    RequestHeader {
        info2: info2::WRITE | info2_more,
        info3,
        ..RequestHeader::default()
    }
}

pub fn put_int(namespace: &Namespace, key: &str, bin: &str, value: i64) -> Reply {
    run_frame(namespace, &put_frame(key, bin, value))
}

pub fn put_frame(key: &str, bin: &str, value: i64) -> Vec<u8> {
    request(key, write(0, 0), |w| {
        w.op(
            op::WRITE,
            particle::INTEGER,
            bin.as_bytes(),
            &value.to_be_bytes(),
        );
    })
}

/// Writes a record with a time to live in seconds, which must be accepted.
pub fn put_with_ttl(namespace: &Namespace, key: &str, record_ttl: u32) {
    let header = RequestHeader {
        record_ttl,
        ..write(0, 0)
    };
    let frame = request(key, header, |w| {
        w.op(op::WRITE, particle::INTEGER, b"n", &1i64.to_be_bytes());
    });
    assert_eq!(run_frame(namespace, &frame).code, ResultCode::Ok);
}

pub fn delete(namespace: &Namespace, key: &str) -> Reply {
    run_frame(namespace, &request(key, write(info2::DELETE, 0), |_| {}))
}

pub fn get(namespace: &Namespace, key: &str) -> Reply {
    let header = RequestHeader {
        info1: info1::READ | info1::GET_ALL,
        ..RequestHeader::default()
    };
    run_frame(namespace, &request(key, header, |_| {}))
}

pub fn int_bin(bin: &str, value: i64) -> (String, u8, Vec<u8>) {
    (bin.into(), particle::INTEGER, value.to_be_bytes().to_vec())
}

/// A small generator (splitmix64), so that a failure replays from the printed seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
