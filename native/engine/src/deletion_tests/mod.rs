//! Deletes and expiries that stay, whatever a restart finds: stories and a model, over a disk in memory whose blocks
//! are compacted and freed in the worst order and whose power fails.

mod model;
mod raider;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use perigee_wire::{RequestHeader, ResultCode, info2, op, particle_type as particle, ttl};

use crate::clock::HybridClock;
use crate::config::{CommonStorageConfig, NamespaceConfig, StorageConfig};
use crate::index::{Location, flag};
use crate::namespace::Namespace;
use crate::record::image::ImageView;
use crate::storage::medium::{FaultyMedium, MemoryMedium};
use crate::testing::{
    Random, Reply, delete, digest, get, namespace_config, open_at, open_on_disk, request,
    run_frame, write,
};

const BLOCK_BYTES: usize = 16 << 10;
/// Two of them leave room in a block for a small record, and not for another.
const HALF: usize = 7000;
const START_MS: u64 = 500_000_000_000;

/// One node over one disk and one clock, which outlive its restarts.
struct Node {
    disk: Arc<FaultyMedium>,
    time: Arc<AtomicU64>,
    config: NamespaceConfig,
    namespace: Arc<Namespace>,
}

/// Of a namespace on a device, or in memory with a device behind it.
///
/// Written by drains alone: a flush for its age pads the block that is filled, and what lies in which block is what these
/// stories are about.
fn config(in_memory: bool) -> NamespaceConfig {
    let mut config = namespace_config();
    config.max_record_size.set(15 << 10);
    config.stop_writes_used_pct.set(0);
    config.stop_writes_avail_pct.set(0);
    config.tomb_raider_eligible_age.set(5);
    let common = CommonStorageConfig {
        // The disk is given; these only satisfy the configuration.
        files: vec!["disk".into()],
        filesize: Some(0),
        write_block_size: BLOCK_BYTES as u32,
        flush_size: 8 << 10,
        flush_max_ms: 60_000,
        max_write_cache: 4 * BLOCK_BYTES as u64,
        post_write_cache: 0,
        tomb_raider_sleep: 0.into(),
        ..CommonStorageConfig::default()
    };
    config.storage_engine = if in_memory {
        let data_size = None;
        StorageConfig::Memory { data_size, common }
    } else {
        StorageConfig::Device { common }
    };
    config
}

impl Node {
    fn new(blocks: usize, seed: u64) -> Node {
        let memory = MemoryMedium::new((blocks * BLOCK_BYTES) as u64).expect("memory");
        let disk = Arc::new(FaultyMedium::new(Arc::new(memory), seed));
        let time = Arc::new(AtomicU64::new(START_MS));
        let config = config(seed % 4 == 3);
        let namespace = open_on_disk(&config, disk.clone(), HybridClock::given(time.clone()));
        Node {
            disk,
            time,
            config,
            namespace,
        }
    }

    fn reopen(&mut self) {
        self.namespace.store.close();
        self.start();
    }

    fn cut_power(&mut self) {
        self.disk.cut_power();
        self.namespace.store.close();
        self.disk.restart();
        self.start();
    }

    fn start(&mut self) {
        let clock = HybridClock::given(self.time.clone());
        self.namespace = open_on_disk(&self.config, self.disk.clone(), clock);
    }

    fn now(&self) -> u32 {
        (self.time.load(Ordering::Relaxed) / 1000) as u32
    }

    fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn drain(&self) {
        self.namespace.store.drain().expect("a disk that works");
    }

    /// Runs a write or a delete until the store has room for it.
    fn patiently(&self, frame: &[u8]) -> Reply {
        for _ in 0..5000 {
            self.time.fetch_add(1, Ordering::Relaxed);
            let reply = run_frame(&self.namespace, frame);
            if !matches!(
                reply.code,
                ResultCode::OutOfSpace | ResultCode::DeviceOverload
            ) {
                return reply;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        panic!("no room: {:?}", self.namespace.store.stats());
    }

    fn put_bytes(&self, key: &str, value: i64, ttl_seconds: u32, bytes: usize) {
        let header = RequestHeader {
            record_ttl: ttl_seconds,
            ..write(0, 0)
        };
        let frame = request(key, header, |w| {
            w.op(op::WRITE, particle::INTEGER, b"n", &value.to_be_bytes());
            w.op(op::WRITE, particle::BLOB, b"b", &vec![7; bytes]);
        });
        assert_eq!(self.patiently(&frame).code, ResultCode::Ok);
    }

    fn put(&self, key: &str, value: i64, ttl_seconds: u32) {
        self.put_bytes(key, value, ttl_seconds, 10);
    }

    fn durable_delete(&self, key: &str) -> ResultCode {
        let header = write(info2::DELETE | info2::DURABLE_DELETE, 0);
        self.patiently(&request(key, header, |_| {})).code
    }

    fn value(&self, key: &str) -> Option<i64> {
        let reply = get(&self.namespace, key);
        match reply.code {
            ResultCode::NotFound => None,
            code => {
                assert_eq!(code, ResultCode::Ok);
                let value = reply.bins[0].2.as_slice().try_into();
                Some(i64::from_be_bytes(value.expect("an integer")))
            }
        }
    }

    fn is_tombstone(&self, key: &str) -> bool {
        let digest = digest(key);
        let entry = self.namespace.partition(&digest).lock().table.get(&digest);
        entry.is_some_and(|entry| entry.is_tombstone())
    }

    /// Fills the rest of the block that is written to, and durably, with records that stay.
    fn fill_block(&self, name: &str) {
        for i in 0..2 {
            self.put_bytes(&format!("{name}{i}"), 0, ttl::NEVER, HALF);
        }
        self.drain();
    }

    /// Removes what `fill_block` left, and waits until its block is free.
    fn empty_block(&self, name: &str) {
        let free = |node: &Node| node.namespace.store.stats().free_blocks;
        // The block is full, so this opens the next.
        self.put("next", 0, ttl::NEVER);
        let before = free(self);
        for i in 0..2 {
            delete(&self.namespace, &format!("{name}{i}"));
        }
        for _ in 0..5000 {
            self.drain();
            let stats = self.namespace.store.stats();
            if free(self) > before && stats.retired_blocks + stats.defrag_queue_blocks == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{name} stays: {:?}", self.namespace.store.stats());
    }

    /// How many images of records of this key lie on the device, as a restart would find them.
    fn images(&mut self, key: &str) -> usize {
        self.namespace.store.close();
        let count = CountImages {
            digest: digest(key),
            found: AtomicUsize::new(0),
        };
        let store = crate::testing::store_on(&self.config, self.disk.clone());
        store.scan(&count, &Default::default()).expect("a scan");
        store.close();
        self.start();
        count.found.into_inner()
    }
}

/// Keeps nothing, and counts the images of records of one digest.
struct CountImages {
    digest: perigee_wire::Digest,
    found: AtomicUsize,
}

impl crate::storage::Rebuild for CountImages {
    fn adopt(&self, images: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {
        let count = images
            .filter(|(image, _)| *image.digest() == self.digest && !image.is_tombstone())
            .count();
        self.found.fetch_add(count, Ordering::Relaxed);
    }

    fn tell_live(&self, _: usize, _: usize, _: &mut dyn FnMut(Location)) {}
}

#[test]
fn a_shorter_time_to_live_does_not_bring_the_older_version_back_when_it_has_ended() {
    let mut node = Node::new(24, 1);
    node.put("k", 1, ttl::NEVER);
    node.fill_block("stays");
    node.put("k", 2, 10);
    node.put("k", 3, 20);
    node.fill_block("goes");
    node.pass(20);
    assert_eq!(node.value("k"), None);
    assert_eq!(node.namespace.expire(|| false), 1);
    node.empty_block("goes");
    assert_eq!(node.images("k"), 1, "the first version, and no other");
    assert_eq!(node.value("k"), None);
    assert!(node.is_tombstone("k"));
}

#[test]
fn an_expiry_in_its_turn_leaves_nothing_behind() {
    let mut node = Node::new(24, 1);
    node.put("k", 1, 10);
    node.put("k", 2, 10);
    node.put("k", 3, 20);
    node.pass(20);
    assert_eq!(node.namespace.expire(|| false), 1);
    assert_eq!(node.namespace.tombstones.load(Ordering::Relaxed), 0);
    node.reopen();
    assert_eq!(node.value("k"), None);
}

#[test]
fn a_record_put_again_after_a_durable_delete_and_deleted_plainly_stays_away() {
    let mut node = Node::new(24, 1);
    node.put("k", 1, ttl::NEVER);
    node.fill_block("stays");
    assert_eq!(node.durable_delete("k"), ResultCode::Ok);
    node.put("k", 2, ttl::NEVER);
    node.fill_block("goes");
    assert_eq!(delete(&node.namespace, "k").code, ResultCode::Ok);
    node.empty_block("goes");
    assert_eq!(node.images("k"), 1, "the first version");
    assert_eq!(node.value("k"), None);
    assert_eq!(delete(&node.namespace, "k").code, ResultCode::NotFound);
}

#[test]
fn an_evicted_version_that_covers_stays_away_with_all_that_it_covers() {
    let mut node = Node::new(24, 1);
    node.put("k", 1, ttl::NEVER);
    node.fill_block("stays");
    node.put("k", 2, 1000);
    node.fill_block("goes");
    let digest = digest("k");
    {
        let mut state = node.namespace.partition(&digest).lock();
        let entry = state.table.get(&digest).expect("a record");
        assert!(node.namespace.drop_entry(&mut state, &entry));
    }
    node.reopen();
    assert_eq!(node.value("k"), None, "its own image is there still");
    node.empty_block("goes");
    assert_eq!(node.images("k"), 1);
    assert_eq!(node.value("k"), None);
}

/// A plain delete leaves no trace in the index, so nothing there said that the next version covers an older one.
#[test]
fn a_record_put_again_after_a_plain_delete_and_expired_stays_away() {
    let mut node = Node::new(24, 1);
    node.put("k", 1, ttl::NEVER);
    node.fill_block("stays");
    assert_eq!(delete(&node.namespace, "k").code, ResultCode::Ok);
    node.put("k", 2, 10);
    node.fill_block("goes");
    node.pass(10);
    assert_eq!(node.namespace.expire(|| false), 1);
    node.empty_block("goes");
    assert_eq!(node.images("k"), 1);
    assert_eq!(node.value("k"), None);
}

#[test]
fn an_expired_record_that_covers_stays_hidden_where_its_tombstone_has_no_room() {
    let node = Node::new(24, 1);
    node.put("k", 1, ttl::NEVER);
    node.put("k", 2, 10);
    node.pass(10);
    node.disk.cut_power();
    // Latches the device.
    let _ = node.namespace.store.drain();
    while node.namespace.store.stats().failed_devices == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(node.namespace.expire(|| false), 0);
    assert_eq!(node.value("k"), None);
    let digest = digest("k");
    let entry = node.namespace.partition(&digest).lock().table.get(&digest);
    assert!(entry.is_some_and(|entry| entry.flags & flag::COVERS != 0));
}

#[test]
fn a_namespace_in_memory_alone_covers_nothing() {
    let time = Arc::new(AtomicU64::new(START_MS));
    let namespace = open_at(namespace_config(), vec![], HybridClock::given(time.clone()));
    for record_ttl in [ttl::NEVER, 10] {
        let header = RequestHeader {
            record_ttl,
            ..write(0, 0)
        };
        let frame = request("k", header, |w| {
            w.op(op::WRITE, particle::INTEGER, b"n", &1i64.to_be_bytes());
        });
        assert_eq!(run_frame(&namespace, &frame).code, ResultCode::Ok);
    }
    time.fetch_add(10_000, Ordering::Relaxed);
    assert_eq!(namespace.expire(|| false), 1);
    assert_eq!(namespace.tombstones.load(Ordering::Relaxed), 0);
}
