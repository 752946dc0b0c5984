//! Tests of the store as a whole, against a plain map and media that fail.

mod devices;
mod encrypted;
mod fault;
mod full_disk;
mod images;
mod power;
mod reopen;
mod scan;
mod shadow;
mod space;
mod statistics;

use super::*;
use crate::progress::OpenProgress;
use crate::record::image::{IMAGE_HEADER_BYTES, ImageBuilder, ImageHeader, image_flag};
use crate::testing::{Random, TempFile};
use device::Phase;
use medium::{Fault, FaultyMedium, MemoryMedium};
use parking_lot::Condvar;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BLOCK_BYTES: usize = 16 << 10;
/// Attempts at a write: a minute and more, since the system may be busy writing for others.
const PATIENCE: usize = 300_000;
/// What every image here takes besides its value: header, bin header, bin name.
const OVERHEAD_BYTES: usize = IMAGE_HEADER_BYTES + 6 + 1;

/// A store with 16 KiB blocks, two flush units a block and hardly any cache.
fn config() -> StoreConfig {
    StoreConfig {
        write_block_bytes: BLOCK_BYTES as u32,
        flush_size_bytes: 8 << 10,
        flush_max: Duration::from_millis(2),
        write_cache_bytes_max: 4 * BLOCK_BYTES as u64,
        post_write_cache_bytes: 2 * BLOCK_BYTES as u64,
        defrag_sleep: Duration::ZERO.into(),
        ..StoreConfig::new("test", MediumConfig::Memory { data_size: 0 })
    }
}

/// Flushed by drains alone, for tests that know what lies in which block: a flush for its age pads the block.
fn unhurried() -> StoreConfig {
    StoreConfig {
        flush_max: Duration::from_secs(60),
        ..config()
    }
}

fn committing() -> StoreConfig {
    StoreConfig {
        commit_to_device: true,
        ..config()
    }
}

/// A device in memory that the store takes for a disk.
fn disk(blocks: usize, seed: u64) -> Arc<FaultyMedium> {
    let memory = MemoryMedium::new((blocks * BLOCK_BYTES) as u64).unwrap();
    Arc::new(FaultyMedium::new(Arc::new(memory), seed))
}

impl TempFile {
    fn config(&self, blocks: usize) -> StoreConfig {
        let file_size = (blocks * BLOCK_BYTES) as u64;
        StoreConfig {
            medium: MediumConfig::File {
                paths: vec![self.0.clone()],
                file_size,
            },
            ..config()
        }
    }
}

type Key = u16;

/// What the map holds of a record; the value follows from key, version and size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    location: Location,
    version: u64,
}

/// A namespace reduced to one map under one lock, which is every record's partition lock.
struct Node {
    store: Arc<Store>,
    map: Arc<Mutex<BTreeMap<Key, Held>>>,
    acks: Arc<Acks>,
}

/// Outcomes of commits, by request.
#[derive(Default)]
struct Acks {
    told: Mutex<HashMap<u64, bool>>,
    changed: Condvar,
}

impl CommitSink for Acks {
    fn committed(&self, waiter: CommitWaiter, outcome: Result<(), DeviceError>) {
        let before = self.told.lock().insert(waiter.request, outcome.is_ok());
        assert_eq!(before, None, "a waiter is told once");
        self.changed.notify_all();
    }
}

impl Acks {
    fn wait(&self, request: u64) -> bool {
        let mut told = self.told.lock();
        loop {
            match told.get(&request) {
                Some(outcome) => return *outcome,
                None => self.changed.wait(&mut told),
            }
        }
    }
}

struct Mover {
    store: std::sync::Weak<Store>,
    map: Arc<Mutex<BTreeMap<Key, Held>>>,
}

impl Relocate for Mover {
    fn relocate(&self, digest: &Digest, from: Location, image: &mut Vec<u8>) -> bool {
        let Some(store) = self.store.upgrade() else {
            return false;
        };
        let mut map = self.map.lock();
        let Some(held) = map
            .get_mut(&key_of(digest))
            .filter(|held| held.location == from)
        else {
            return false;
        };
        match store.append_relocated(image) {
            Ok(appended) => {
                held.location = appended.location;
                true
            }
            Err(_) => false,
        }
    }
}

fn digest_of(key: Key) -> Digest {
    let mut digest = [key as u8; 20];
    digest[4..6].copy_from_slice(&key.to_le_bytes());
    digest
}

fn key_of(digest: &Digest) -> Key {
    Key::from_le_bytes([digest[4], digest[5]])
}

fn value_of(key: Key, version: u64, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| (i as u64 ^ version.wrapping_mul(31) ^ key as u64) as u8)
        .collect()
}

fn image_of(key: Key, version: u64, bytes: usize) -> Vec<u8> {
    let mut image = Vec::new();
    let mut builder = ImageBuilder::begin(&mut image, &header_of(key, version, 0), b"", None);
    builder.bin(b"b", 4, &value_of(key, version, bytes));
    builder.finish();
    image
}

fn tombstone_of(key: Key, version: u64) -> Vec<u8> {
    let header = header_of(key, version, image_flag::TOMBSTONE);
    let mut image = Vec::new();
    ImageBuilder::begin(&mut image, &header, b"", None).finish();
    image
}

fn header_of(key: Key, version: u64, flags: u16) -> ImageHeader {
    ImageHeader {
        digest: digest_of(key),
        last_update_time: version,
        generation: version as u16,
        void_time: 0,
        flags,
    }
}

/// Panics unless the image is one that a test wrote.
fn check_image(view: &ImageView<'_>) -> (Key, u64) {
    let (key, version) = (key_of(view.digest()), view.last_update_time());
    assert_eq!(*view.digest(), digest_of(key));
    assert_eq!(view.flags() & image_flag::FILLER, 0);
    if view.is_tombstone() {
        return (key, version);
    }
    let bin = view.bins().next().expect("one bin");
    assert_eq!(
        bin.value,
        value_of(key, version, bin.value.len()),
        "key {key} version {version}"
    );
    (key, version)
}

/// Invariants of a device's lists of blocks.
fn check_blocks(device: &Device) {
    let state = device.state.lock();
    let has_buffer = |block: u32| device.blocks[block as usize].buffer.read().is_some();
    let phase = |block: u32| state.blocks[block as usize].phase;
    let of_phase = |wanted: Phase| state.blocks.iter().filter(|b| b.phase == wanted).count();
    assert_eq!(of_phase(Phase::Free), state.free.len());
    for block in &state.free {
        assert_eq!(phase(*block), Phase::Free);
        assert_eq!(device.live(*block), 0);
        assert!(!has_buffer(*block));
    }
    let cached: BTreeSet<u32> = state.cache.iter().copied().collect();
    assert_eq!(cached.len(), state.cache.len());
    for block in &state.cache {
        assert!(has_buffer(*block));
        assert!(matches!(
            phase(*block),
            Phase::Used | Phase::Compacting | Phase::Retired
        ));
    }
}

impl Rebuild for Node {
    fn adopt(&self, images: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {
        for (view, location) in images {
            let (key, version) = check_image(&view);
            let mut map = self.map.lock();
            let keeps = |held: &Held| match held.version.cmp(&version) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => self.store.is_original(held.location, location),
                std::cmp::Ordering::Greater => true,
            };
            if !map.get(&key).is_some_and(keeps) {
                map.insert(key, Held { location, version });
            }
        }
    }

    fn tell_live(&self, share: usize, shares: usize, live: &mut dyn FnMut(Location)) {
        let map = self.map.lock();
        let held = map.values().skip(share).step_by(shares);
        held.for_each(|held| live(held.location));
    }
}

impl Node {
    /// Opens, rebuilds the map and starts.
    fn open(config: StoreConfig, media: Vec<Arc<dyn Medium>>) -> (Node, ScanReport) {
        Self::started(Store::open_on(config, media).unwrap())
    }

    fn started(store: Store) -> (Node, ScanReport) {
        let (node, report) = Self::scanned(store);
        node.start();
        (node, report)
    }

    fn scanned(store: Store) -> (Node, ScanReport) {
        let node = Node {
            store: Arc::new(store),
            map: Arc::default(),
            acks: Arc::default(),
        };
        let report = node.store.scan(&node, &OpenProgress::default()).unwrap();
        (node, report)
    }

    /// Ends its threads. Dropping it may leave that to one of them, which would go on after the test did.
    fn end(self) {
        self.store.close();
    }

    fn start(&self) {
        let store = Arc::downgrade(&self.store);
        let mover = Mover {
            store,
            map: Arc::clone(&self.map),
        };
        self.store
            .start(Arc::new(mover), Arc::clone(&self.acks) as _);
    }

    fn put(&self, key: Key, version: u64, bytes: usize) -> Result<CommitTicket, AppendError> {
        self.append(key, version, image_of(key, version, bytes))
    }

    /// Puts a tombstone in a record's place.
    fn entomb(&self, key: Key, version: u64) -> Result<CommitTicket, AppendError> {
        self.append(key, version, tombstone_of(key, version))
    }

    fn append(
        &self,
        key: Key,
        version: u64,
        mut image: Vec<u8>,
    ) -> Result<CommitTicket, AppendError> {
        let mut map = self.map.lock();
        let Appended { location, ticket } = self.store.append(&mut image)?;
        let old = map.insert(key, Held { location, version });
        if let Some(old) = old {
            self.store.release(old.location);
        }
        Ok(ticket)
    }

    /// As `put`, retried while the store is behind or being compacted.
    fn put_patiently(&self, key: Key, version: u64, bytes: usize) -> Option<CommitTicket> {
        self.patiently(|| self.put(key, version, bytes))
    }

    /// Retries while the store is behind or being compacted. `None`: the device takes no more writes.
    fn patiently(
        &self,
        append: impl Fn() -> Result<CommitTicket, AppendError>,
    ) -> Option<CommitTicket> {
        for _ in 0..PATIENCE {
            match append() {
                Ok(ticket) => return Some(ticket),
                Err(AppendError::Full | AppendError::Overload) => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(_) => return None,
            }
        }
        panic!("no room for a minute: {:?}", self.store.stats());
    }

    /// Takes a record away without a trace on the device.
    fn remove(&self, key: Key) {
        self.remove_all([key]);
    }

    /// As `remove`, before defragmentation can move any of them.
    fn remove_all(&self, keys: impl IntoIterator<Item = Key>) {
        let mut map = self.map.lock();
        for key in keys {
            if let Some(held) = map.remove(&key) {
                self.store.release(held.location);
            }
        }
    }

    fn version(&self, key: Key) -> Option<u64> {
        self.map.lock().get(&key).map(|held| held.version)
    }

    /// Reads a record as a request does, checking that it is the one the map names.
    fn read(&self, key: Key) -> Option<u64> {
        let mut buffer = AlignedBuf::default();
        loop {
            let map = self.map.lock();
            let held = *map.get(&key)?;
            let now = self.store.read(held.location, |bytes| {
                check_image(&ImageView::trusted(bytes))
            });
            drop(map);
            let found = match now {
                ReadNow::InMemory(found) => found,
                ReadNow::NeedsDevice => {
                    let read = self.store.read_device(held.location, &mut buffer);
                    // If the record moved meanwhile, its block may hold anything.
                    if self.map.lock().get(&key) != Some(&held) {
                        continue;
                    }
                    match read {
                        Ok(image) => check_image(&image),
                        Err(error) => panic!("key {key}: {error}"),
                    }
                }
            };
            if self.map.lock().get(&key) == Some(&held) {
                assert_eq!(found, (key, held.version));
                return Some(held.version);
            }
        }
    }

    fn read_all(&self) {
        let keys: Vec<Key> = self.map.lock().keys().copied().collect();
        for key in keys {
            self.read(key);
        }
    }

    fn versions(&self) -> BTreeMap<Key, u64> {
        self.map
            .lock()
            .iter()
            .map(|(key, held)| (*key, held.version))
            .collect()
    }

    /// Live bytes by the map, which the store has to agree with, a copy in progress aside.
    fn check_used_bytes(&self) {
        let by_map = || {
            let map = self.map.lock();
            map.values()
                .map(|held| held.location.bytes() as u64)
                .sum::<u64>()
        };
        self.wait_until("used bytes", |stats| stats.used_bytes == by_map());
        self.store
            .devices
            .iter()
            .for_each(|device| check_blocks(device));
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&StoreStats) -> bool) -> StoreStats {
        for _ in 0..20_000 {
            let stats = self.store.stats();
            if condition(&stats) {
                return stats;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{what}: {:?}", self.store.stats());
    }
}
