//! The first shared file, and the two of a store together.
//!
//! ```text
//! 0           header: what the file is for, whether it may be believed, and which run of the store it is of
//! 4096        4096 descriptors of 128 bytes, one a partition (index/journal.rs)
//! then        set names by id: 64 bytes each, length and name
//! then        block records of 16 bytes, devices in order
//! then        the arena that the tables' arrays lie in
//! ```
//!
//! The header names the machine's boot, the store, its devices and their lengths, and the last *run* of the store: a
//! random number that every start draws and writes, with the lease of sequences, to every device before it serves. So
//! a file that is not of the devices' last run is known for what it is, whatever happened to either.

use super::arena::Arena;
use super::map::{PAGE_BYTES, SharedMap, check_directory, make_directory};
use super::pool::BlockPool;
use crate::index::{Descriptor, Location};
use crate::storage::medium::when_free;
use crate::storage::random;
use perigee_wire::{PARTITIONS, PartitionId, SET_BYTES_MAX, SETS_MAX};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, compiler_fence,
};

const MAGIC: u64 = u64::from_le_bytes(*b"PGINDEX\0");
/// Changes with every change to what lies in the files.
const LAYOUT: u64 = 2;

/// Address space of the arena, which is also the largest index: four thousand million records.
pub(crate) const INDEX_BYTES_MAX: u64 = 256 << 30;

#[repr(C)]
struct Header {
    magic: AtomicU64,
    layout: AtomicU64,
    state: AtomicU64,
    run: AtomicU64,
    /// Not 0 while a start writes its run to the devices.
    next_run: AtomicU64,
    boot: [AtomicU64; 2],
    store_id: AtomicU64,
    /// Random; the file of the blocks says the same.
    number: AtomicU64,
    /// Of the paths that are configured.
    places: AtomicU64,
    block_bytes: AtomicU64,
    devices: AtomicU64,
    device_ids: [AtomicU64; Location::DEVICES_MAX],
    device_blocks: [AtomicU64; Location::DEVICES_MAX],
}

const _: () = assert!(size_of::<Header>() <= PAGE_BYTES as usize);

/// Values of [`Header::state`].
mod state {
    /// Being built, or something is missing.
    pub(super) const DOUBTFUL: u64 = 0;
    /// Serving, or ended without a stop.
    pub(super) const LIVE: u64 = 1;
    /// Stopped, and everything is written.
    pub(super) const CLEAN: u64 = 2;
}

#[repr(C)]
struct SetName {
    bytes: [AtomicU8; SET_NAME_BYTES],
}

const SET_NAME_BYTES: usize = 64;
const _: () = assert!(SET_BYTES_MAX < SET_NAME_BYTES);

/// What is known of a write block without the device's lock.
#[repr(C)]
#[derive(Default)]
pub(crate) struct BlockRecord {
    /// 0: free and erased.
    pub(crate) sequence: AtomicU64,
    /// Bytes of live records.
    pub(crate) live: AtomicU32,
    /// Not 0: the device did not read it.
    pub(crate) lost: AtomicU32,
}

const _: () = assert!(size_of::<BlockRecord>() == 16);

const DESCRIPTORS: u64 = PAGE_BYTES;
const SET_NAMES: u64 = DESCRIPTORS + (PARTITIONS * size_of::<Descriptor>()) as u64;
const BLOCK_RECORDS: u64 = SET_NAMES + (SETS_MAX * SET_NAME_BYTES) as u64;

/// What a store is, as far as its shared files have to be of it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) namespace: String,
    pub(crate) store_id: u64,
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) block_bytes: u64,
    /// Id and number of blocks.
    pub(crate) devices: Vec<(u64, u64)>,
    /// Write blocks in memory at a time.
    pub(crate) buffers_max: u32,
}

/// Whether there is something to take over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attached {
    /// Files that say they are of this store and of one of the runs that they name.
    Found { is_clean: bool },
    /// Empty ones, for this reason.
    New(&'static str),
}

pub(crate) struct SharedStore {
    arena: Arc<Arena>,
    pool: Arc<BlockPool>,
    identity: Identity,
}

impl SharedStore {
    /// Opens the files of a store in a directory, or makes them. `ErrorKind::WouldBlock`: they are in use.
    pub(crate) fn open(
        directory: &Path,
        identity: Identity,
    ) -> io::Result<(SharedStore, Attached)> {
        make_directory(directory)?;
        remove_stale(directory, &identity);
        let blocks: u64 = identity.devices.iter().map(|(_, blocks)| blocks).sum();
        let ledger = BLOCK_RECORDS + blocks * size_of::<BlockRecord>() as u64;
        let from = ledger.next_multiple_of(PAGE_BYTES);
        let name = file_name(&identity.namespace, identity.store_id);
        // Of a process that was just killed, they may be in use a little longer than its devices.
        let path = directory.join(format!("{name}.index"));
        let (map, index_was_whole) =
            when_free(&path, || SharedMap::open(&path, from + INDEX_BYTES_MAX))?;
        let path = directory.join(format!("{name}.blocks"));
        let (pool, pool_was_whole) = when_free(&path, || {
            BlockPool::open(&path, identity.block_bytes, identity.buffers_max)
        })?;
        map.reserve(0, from)?;
        let arena = Arena::new(Arc::new(map), from, from + INDEX_BYTES_MAX);
        let shared = SharedStore {
            arena: Arc::new(arena),
            pool: Arc::new(pool),
            identity,
        };
        let found = match (index_was_whole, pool_was_whole) {
            (true, true) => shared.check(),
            _ => Err("there is none of this store and these settings"),
        };
        match found {
            Ok(is_clean) => Ok((shared, Attached::Found { is_clean })),
            Err(reason) => {
                shared.reset();
                Ok((shared, Attached::New(reason)))
            }
        }
    }

    /// Forgets everything, so that a cold start fills the files anew. Only while nothing of them is in use.
    // What was reserved stays so: there may be no memory any more for what would be given back first.
    pub(crate) fn reset(&self) {
        self.header().magic.store(0, Relaxed);
        compiler_fence(SeqCst);
        let (map, from) = (self.arena.map(), self.arena.range().0);
        // SAFETY: reserved by `open`, and not in use.
        unsafe { map.zero(0, from) };
        map.clear_from(from);
        self.pool.clear();
        self.arena.reset();
        self.initialise();
    }

    fn initialise(&self) {
        let (header, identity) = (self.header(), &self.identity);
        header.layout.store(layout(), Relaxed);
        let boot = boot_id().unwrap_or_default();
        for (to, value) in header.boot.iter().zip(boot) {
            to.store(value, Relaxed);
        }
        header.store_id.store(identity.store_id, Relaxed);
        let number = random().max(1);
        self.pool.number().store(number, Relaxed);
        header.number.store(number, Relaxed);
        header.places.store(places(&identity.paths), Relaxed);
        header.block_bytes.store(identity.block_bytes, Relaxed);
        header.devices.store(identity.devices.len() as u64, Relaxed);
        for (i, (id, blocks)) in identity.devices.iter().enumerate() {
            header.device_ids[i].store(*id, Relaxed);
            header.device_blocks[i].store(*blocks, Relaxed);
        }
        compiler_fence(SeqCst);
        header.magic.store(MAGIC, Relaxed);
    }

    /// Whether the header is as this store would have written it.
    fn check(&self) -> Result<bool, &'static str> {
        let (header, identity) = (self.header(), &self.identity);
        let is = |field: &AtomicU64, value: u64| field.load(Relaxed) == value;
        if !is(&header.magic, MAGIC) || !is(&header.layout, layout()) {
            return Err("it is of another version");
        }
        let boot = boot_id().ok_or("the machine does not say when it started")?;
        if !header
            .boot
            .iter()
            .zip(boot)
            .all(|(field, value)| is(field, value))
        {
            return Err("the machine was restarted");
        }
        let same_devices = identity
            .devices
            .iter()
            .enumerate()
            .all(|(i, (id, blocks))| {
                is(&header.device_ids[i], *id) && is(&header.device_blocks[i], *blocks)
            });
        if !is(&header.store_id, identity.store_id)
            || !is(&header.block_bytes, identity.block_bytes)
            || !is(&header.devices, identity.devices.len() as u64)
            || !same_devices
        {
            return Err("it is of other devices or settings");
        }
        let number = header.number.load(Relaxed);
        if number == 0 || !is(self.pool.number(), number) {
            return Err("the unwritten blocks are of another");
        }
        match header.state.load(Relaxed) {
            state::LIVE => Ok(false),
            state::CLEAN => Ok(true),
            _ => Err("it was not complete"),
        }
    }

    /// The runs that the devices may be of: the last, or the one that a start was about to begin.
    pub(crate) fn runs(&self) -> [u64; 2] {
        [&self.header().run, &self.header().next_run].map(|run| run.load(Relaxed))
    }

    /// A start is about to write its run to the devices.
    pub(crate) fn announce_run(&self, run: u64) {
        self.header().next_run.store(run, Relaxed);
        compiler_fence(SeqCst);
    }

    /// The devices are of this run, and the files may be believed from now on.
    pub(crate) fn go_live(&self, run: u64) {
        let header = self.header();
        compiler_fence(SeqCst);
        header.run.store(run, Relaxed);
        compiler_fence(SeqCst);
        header.next_run.store(0, Relaxed);
        if !self.arena.is_distrusted() {
            header.state.store(state::LIVE, Relaxed);
        }
        compiler_fence(SeqCst);
    }

    /// Everything is written, and nobody changes anything any more.
    pub(crate) fn go_clean(&self) {
        let live = self.header().state.load(Relaxed) == state::LIVE;
        if live && !self.arena.is_distrusted() {
            self.header().state.store(state::CLEAN, Relaxed);
        }
        self.pool.trim();
    }

    /// The files will not be taken over.
    pub(crate) fn distrust(&self) {
        self.arena.distrust();
    }

    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    pub(crate) fn pool(&self) -> &Arc<BlockPool> {
        &self.pool
    }

    /// Memory of both files.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.arena.map().memory_bytes() + self.pool.memory_bytes()
    }

    pub(crate) fn path(&self) -> &Path {
        self.arena.map().path()
    }

    pub(crate) fn descriptor(&self, partition: PartitionId) -> NonNull<Descriptor> {
        let at = (partition.index() * size_of::<Descriptor>()) as u64;
        self.arena.map().at(DESCRIPTORS + at)
    }

    /// The records of a device's blocks.
    pub(crate) fn ledger(&self, device: usize) -> Ledger {
        let before: u64 = self.identity.devices[..device].iter().map(|d| d.1).sum();
        let count = self.identity.devices[device].1;
        let at = BLOCK_RECORDS + before * size_of::<BlockRecord>() as u64;
        let map = Arc::clone(self.arena.map());
        Ledger {
            start: map.at(at),
            count: count as usize,
            _owner: LedgerOwner::Shared(map),
        }
    }

    pub(crate) fn set_names(&self) -> SetNames {
        SetNames(Arc::clone(self.arena.map()))
    }

    fn header(&self) -> &Header {
        // SAFETY: within the mapping, which lives as long as `self`; all its fields are atomics.
        unsafe { self.arena.map().at::<Header>(0).as_ref() }
    }
}

impl Arena {
    /// The files that this is part of will not be taken over. Told once.
    pub(crate) fn distrust(&self) {
        if self.set_distrusted() {
            return;
        }
        // SAFETY: within the mapping, which lives as long as `self`; all its fields are atomics.
        let header: &Header = unsafe { self.map().at::<Header>(0).as_ref() };
        header.state.store(state::DOUBTFUL, SeqCst);
        tracing::warn!(
            path = %self.map().path().display(),
            "shared memory is not complete: the next start will be cold"
        );
    }
}

/// The names of the sets, by id from 1 on, as they were made.
pub(crate) struct SetNames(Arc<SharedMap>);

impl SetNames {
    /// Keeps the name of an id, before the id is used.
    pub(crate) fn keep(&self, id: u16, name: &[u8]) {
        let bytes = &self.place(usize::from(id) - 1).bytes;
        for (to, byte) in bytes[1..].iter().zip(name) {
            to.store(*byte, Relaxed);
        }
        compiler_fence(SeqCst);
        bytes[0].store(name.len() as u8, Relaxed);
        compiler_fence(SeqCst);
    }

    /// All names in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Vec<u8>> {
        let name = |i: usize| {
            let bytes = &self.place(i).bytes;
            let length = usize::from(bytes[0].load(Relaxed)).min(SET_NAME_BYTES - 1);
            bytes[1..=length]
                .iter()
                .map(|byte| byte.load(Relaxed))
                .collect()
        };
        (0..SETS_MAX)
            .map(name)
            .take_while(|name: &Vec<u8>| !name.is_empty())
            .collect()
    }

    fn place(&self, at: usize) -> &SetName {
        assert!(at < SETS_MAX);
        // SAFETY: within the mapping, which lives as long as `self`; it consists of atomics.
        unsafe {
            self.0
                .at::<SetName>(SET_NAMES + (at * SET_NAME_BYTES) as u64)
                .as_ref()
        }
    }
}

/// The records of a device's blocks, on the heap or in the shared file.
pub(crate) struct Ledger {
    start: NonNull<BlockRecord>,
    count: usize,
    _owner: LedgerOwner,
}

#[expect(dead_code, reason = "held to keep the memory that `start` points to")]
enum LedgerOwner {
    Heap(Box<[BlockRecord]>),
    Shared(Arc<SharedMap>),
}

// SAFETY: the memory is held with it, and consists of atomics.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

impl Ledger {
    pub(crate) fn heap(count: usize) -> Ledger {
        let records: Box<[BlockRecord]> = (0..count).map(|_| BlockRecord::default()).collect();
        Ledger {
            start: NonNull::from(&*records).cast(),
            count,
            _owner: LedgerOwner::Heap(records),
        }
    }
}

impl Deref for Ledger {
    type Target = [BlockRecord];

    #[inline]
    fn deref(&self) -> &[BlockRecord] {
        // SAFETY: `count` records, held with it; they consist of atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

/// Changes with the sizes that the layout follows from, too.
fn layout() -> u64 {
    let sizes = [
        size_of::<Descriptor>(),
        size_of::<BlockRecord>(),
        SETS_MAX,
        PARTITIONS,
    ];
    sizes.iter().fold(LAYOUT, |hash, size| {
        hash.wrapping_mul(0x100_0000_01B3) ^ *size as u64
    })
}

/// Names this start of the machine.
fn boot_id() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let (high, low) = digits.split_at_checked(16)?;
    let parse = |digits| u64::from_str_radix(digits, 16).ok();
    Some([parse(high)?, parse(low)?])
}

fn places(paths: &[PathBuf]) -> u64 {
    let bytes = paths.iter().flat_map(|path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let mut bytes = path.into_os_string().into_encoded_bytes();
        bytes.push(0);
        bytes
    });
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// A namespace's name may hold what a file's may not.
fn file_name(namespace: &str, store_id: u64) -> String {
    format!("{}@{store_id:016x}", escaped(namespace))
}

fn escaped(namespace: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    namespace.bytes().map(escape).collect()
}

/// Removes the files of stores that were on the same devices before: wiped ones leave their memory behind.
fn remove_stale(directory: &Path, identity: &Identity) {
    let own = file_name(&identity.namespace, identity.store_id);
    remove_where(directory, &identity.namespace, |name, header| {
        name != own && header.places.load(Relaxed) == places(&identity.paths)
    });
}

/// Removes the files of a namespace whose index is kept elsewhere now.
pub(crate) fn remove_of(directory: &Path, namespace: &str, paths: &[PathBuf]) {
    if check_directory(directory).is_err() {
        return;
    }
    remove_where(directory, namespace, |_, header| {
        header.places.load(Relaxed) == places(paths)
    });
}

fn remove_where(directory: &Path, namespace: &str, wanted: impl Fn(&str, &Header) -> bool) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let prefix = format!("{}@", escaped(namespace));
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".index")) else {
            continue;
        };
        let length = entry.metadata().map_or(0, |metadata| metadata.len());
        if !name.starts_with(&prefix) || length < PAGE_BYTES {
            continue;
        }
        // One that is in use is locked.
        let Ok((map, true)) = SharedMap::open(&path, length) else {
            continue;
        };
        if map.reserve(0, PAGE_BYTES).is_err() {
            continue;
        }
        // SAFETY: within the mapping, which lives as long as the reference; all its fields are atomics.
        let header: &Header = unsafe { map.at::<Header>(0).as_ref() };
        if header.magic.load(Relaxed) == MAGIC && wanted(name, header) {
            map.remove();
            let _ = std::fs::remove_file(path.with_extension("blocks"));
        }
    }
}
