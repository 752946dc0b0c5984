//! One device of a store: its blocks, the two streams that are appended to, and what became of
//! every block. Appending, space, flushing, defragmentation and scanning are siblings that work on the same state.
//!
//! A block's way: `Free -> Open -> Filled -> Used (-> Compacting -> Used) -> Retired -> Free`.
//! Invariant: a block is freed only when nothing in it is live and whatever replaced its records is
//! durable, so that losing the newest bytes never loses an older version with them. Its header is
//! erased before, durably: what a crash brings back to life never takes the last free block away
//! from defragmentation, and deleted records in free blocks stay deleted.

use super::CommitWaiter;
use super::config::StoreConfig;
use super::defrag::DefragSignal;
use super::error::DeviceError;
use super::medium::{Mapping, Medium};
use super::ranks::Ranks;
use super::stats::{Counters, DeviceCounters};
use super::write_block::BlockBuf;
use crate::index::Location;
use crate::shared::{Ledger, SharedStore};
use crate::tunable::Tunable;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// What is appended to separately: writes, and copies by defragmentation (which are colder, and may
/// take the reserved blocks).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Client,
    Defrag,
}

pub(super) const STREAMS: [Stream; 2] = [Stream::Client, Stream::Defrag];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Holds the device header.
    Header,
    Free,
    /// Being appended to.
    Open,
    /// Complete, but not yet written as a whole.
    Filled,
    /// Complete and written.
    Used,
    /// Used, and being emptied: not to be freed meanwhile.
    Compacting,
    /// Nothing live, waiting until what replaced its records is durable, then for its erasure.
    Retired,
    /// Left out, since the device did not read it.
    Lost,
}

/// What is known of a block under the device's lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockState {
    pub(super) phase: Phase,
    pub(super) sequence: u64,
    /// Bytes after the block header up to the last record, padding between records included.
    pub(super) filled: usize,
    /// The stream that filled it, and the log position of its end.
    pub(super) log_end: (Stream, u64),
    /// Padding in it that a copy of its records would bring back: not to be gained.
    pub(super) repadded: usize,
    /// Defragmentation left something behind: damage, which it would meet again.
    pub(super) shunned: bool,
    /// The damage in it was counted.
    pub(super) damage_told: bool,
}

/// What is known of a block without the device's lock.
pub(super) struct Block {
    /// The block in memory: while it is appended to, until it is written, while it is cached.
    pub(super) buffer: RwLock<Option<Arc<BlockBuf>>>,
    /// Live bytes at which the block is to be looked at again, as it may be empty or of another rank.
    pub(super) look_at: AtomicU32,
}

/// The block that a stream appends to.
pub(super) struct OpenBlock {
    pub(super) block: u32,
    pub(super) sequence: u64,
    pub(super) buffer: Arc<BlockBuf>,
    /// Where the next record goes.
    pub(super) position: usize,
    /// Handed to the flush thread: whole pages, never written again.
    pub(super) taken: usize,
    /// Bytes of padding in it.
    pub(super) padded: usize,
    /// Opened by a tombstone when records could have no block. They stay out of it until there is another.
    pub(super) is_reserve: bool,
}

/// A complete block that is not yet handed to the flush thread as a whole.
pub(super) struct FilledBlock {
    pub(super) block: u32,
    pub(super) buffer: Arc<BlockBuf>,
    pub(super) taken: usize,
    pub(super) end: usize,
    /// The log position of the block's end.
    pub(super) log_end: u64,
}

/// One stream. Log positions count bytes from the stream's start, a whole block for every block.
pub(super) struct StreamState {
    pub(super) open: Option<OpenBlock>,
    pub(super) filled: VecDeque<FilledBlock>,
    /// Log position of the start of the open block, or of the next one.
    pub(super) log_start: u64,
    /// End of the last record.
    pub(super) appended: u64,
    /// Written to the device, though perhaps not durable.
    pub(super) written: u64,
    pub(super) durable: u64,
}

pub(super) struct RetiredBlock {
    pub(super) block: u32,
    /// Log positions of the streams by which its records had been replaced.
    pub(super) after: [u64; STREAMS.len()],
}

pub(super) struct DeviceState {
    pub(super) blocks: Vec<BlockState>,
    /// Taken from the end: a block that was in use lately, whose memory is there already.
    pub(super) free: Vec<u32>,
    pub(super) streams: [StreamState; STREAMS.len()],
    /// Filled blocks not yet written, of both streams, and those of copies.
    pub(super) unwritten: usize,
    pub(super) unwritten_copies: usize,
    pub(super) retired: VecDeque<RetiredBlock>,
    pub(super) ranks: Ranks,
    /// Defragmentation passed the device by, and is to be woken by its progress.
    pub(super) defrag_waits: bool,
    /// A block is being emptied.
    pub(super) compacting: bool,
    /// Blocks that were emptied for their padding since a write opened a block. On a device of small blocks copies are
    /// padded as much again, so that goes on only for so long.
    pub(super) padded_emptied: usize,
    /// When blocks had run out, defragmentation found none that emptying would gain something of.
    pub(super) gainless: bool,
    /// Written blocks that are kept for reads, oldest first.
    pub(super) cache: VecDeque<u32>,
    pub(super) spare: Vec<Arc<BlockBuf>>,
    pub(super) waiters: Vec<(u64, CommitWaiter)>,
    pub(super) next_sequence: u64,
    /// Sequences below it are leased: the device remembers that they may be in use.
    pub(super) sequence_limit: u64,
    /// Which of the two leases was written last.
    pub(super) lease: usize,
    /// When the oldest byte was appended that no sync covers yet.
    pub(super) unsynced_since: Option<Instant>,
    /// Somebody wants everything durable now.
    pub(super) flush_now: bool,
    /// A write found no block since one was opened last.
    pub(super) refused: bool,
    /// So did a tombstone.
    pub(super) tombstone_refused: bool,
    pub(super) failure: Option<DeviceError>,
    /// There is no flush thread any more that would tell waiters.
    pub(super) flush_ended: bool,
    pub(super) writes: u64,
    pub(super) write_bytes: u64,
}

pub(super) struct Device {
    pub(super) index: u8,
    pub(super) config: Arc<StoreConfig>,
    /// Blocks whose live share is below this are compacted.
    pub(super) lwm_pct: Tunable<u8>,
    pub(super) medium: Arc<dyn Medium>,
    /// All of the device in memory: reads come from here, and blocks are written here first.
    pub(super) mapping: Option<Arc<Mapping>>,
    /// There is nothing but the mapping: what is appended is as durable as it gets.
    pub(super) is_volatile: bool,
    pub(super) device_id: u64,
    pub(super) block_bytes: usize,
    pub(super) blocks: Box<[Block]>,
    /// What is known of a block and outlives the process where the index does: its sequence, its live bytes.
    pub(super) ledger: Ledger,
    /// Shared memory, where buffers come from that outlive the process.
    pub(super) shared: Option<Arc<SharedStore>>,
    /// Of the start that the devices are in: see [`Lease`](super::header::Lease).
    pub(super) run: AtomicU64,
    pub(super) state: Mutex<DeviceState>,
    /// Wakes the flush thread.
    pub(super) work: Condvar,
    /// Something became durable or free, or the device failed.
    pub(super) progress: Condvar,
    /// One flush at a time.
    pub(super) flushing: Mutex<()>,
    pub(super) stopping: AtomicBool,
    /// A copy by defragmentation was refused since this was looked at last.
    pub(super) copy_refused: AtomicBool,
    /// Set by `close`, before the last flush.
    pub(super) closed: AtomicBool,
    pub(super) used_bytes: AtomicU64,
    pub(super) counters: Arc<Counters>,
    pub(super) own: DeviceCounters,
    pub(super) signal: Arc<DefragSignal>,
    pub(super) unwritten_max: usize,
    pub(super) cached_max: usize,
}

impl StreamState {
    fn new(durable: u64) -> StreamState {
        StreamState {
            open: None,
            filled: VecDeque::new(),
            log_start: 0,
            appended: 0,
            written: 0,
            durable,
        }
    }
}

impl Device {
    /// All blocks are free if the device is `fresh`; otherwise none is until the scan.
    #[expect(clippy::too_many_arguments, reason = "all of what a device is made of")]
    pub(super) fn new(
        index: u8,
        devices: usize,
        config: Arc<StoreConfig>,
        medium: Arc<dyn Medium>,
        mapping: Option<Arc<Mapping>>,
        device_id: u64,
        first_sequence: u64,
        counters: Arc<Counters>,
        signal: Arc<DefragSignal>,
        shared: Option<Arc<SharedStore>>,
    ) -> Device {
        let block_bytes = config.write_block_bytes as usize;
        let count = (medium.len() / block_bytes as u64) as usize;
        let is_volatile = medium.mapping().is_some();
        let share = |bytes: u64| (bytes / block_bytes as u64) as usize / devices;
        let durable = if is_volatile { u64::MAX } else { 0 };
        let unknown = BlockState {
            phase: Phase::Header,
            sequence: 0,
            filled: 0,
            log_end: (Stream::Client, 0),
            repadded: 0,
            shunned: false,
            damage_told: false,
        };
        let state = DeviceState {
            blocks: vec![unknown; count],
            free: Vec::new(),
            streams: [StreamState::new(durable), StreamState::new(durable)],
            unwritten: 0,
            unwritten_copies: 0,
            retired: VecDeque::new(),
            ranks: Ranks::new(count),
            defrag_waits: false,
            compacting: false,
            padded_emptied: 0,
            gainless: false,
            cache: VecDeque::new(),
            spare: Vec::new(),
            waiters: Vec::new(),
            next_sequence: first_sequence,
            sequence_limit: if is_volatile { u64::MAX } else { 0 },
            lease: 0,
            unsynced_since: None,
            flush_now: false,
            refused: false,
            tombstone_refused: false,
            failure: None,
            flush_ended: false,
            writes: 0,
            write_bytes: 0,
        };
        let block = || Block {
            buffer: RwLock::new(None),
            look_at: AtomicU32::new(0),
        };
        Device {
            lwm_pct: config.defrag_lwm_pct.into(),
            index,
            unwritten_max: share(config.write_cache_bytes_max).max(1),
            cached_max: share(config.post_write_cache_bytes),
            config,
            medium,
            mapping,
            is_volatile,
            device_id,
            block_bytes,
            blocks: (0..count).map(|_| block()).collect(),
            ledger: match &shared {
                Some(shared) => shared.ledger(index as usize),
                None => Ledger::heap(count),
            },
            shared,
            run: AtomicU64::new(0),
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            flushing: Mutex::new(()),
            stopping: AtomicBool::new(false),
            copy_refused: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            used_bytes: AtomicU64::new(0),
            counters,
            own: DeviceCounters::default(),
            signal,
        }
    }

    pub(super) fn block_offset(&self, block: u32) -> u64 {
        block as u64 * self.block_bytes as u64
    }

    /// Block, and offset within it.
    pub(super) fn place(&self, location: Location) -> (u32, usize) {
        let block = location.offset() / self.block_bytes as u64;
        let at = location.offset() % self.block_bytes as u64;
        assert!(
            (block as usize) < self.blocks.len(),
            "{location:?} is beyond the device"
        );
        assert!(
            at as usize + location.bytes() <= self.block_bytes,
            "{location:?} spans blocks"
        );
        (block as u32, at as usize)
    }

    pub(super) fn location(&self, block: u32, at: usize, bytes: usize) -> Location {
        let offset = self.block_offset(block) + at as u64;
        let units = bytes as u64 / Location::UNIT_BYTES;
        Location::new(self.index, offset / Location::UNIT_BYTES, units as u32)
    }

    /// Takes a block, as it was read while the store opens, into memory, if the device is kept there.
    pub(super) fn load(&self, block: u32, bytes: &[u8]) {
        let Some(mapping) = &self.mapping else { return };
        let offset = self.block_offset(block) as usize;
        let to = BlockBuf::mapped(mapping, offset, self.block_bytes);
        // SAFETY: nothing is appended before the scan is over, and nothing of the block was visited.
        unsafe { to.write(0, bytes) };
    }

    pub(super) fn count_read_error(&self) {
        self.counters.read_errors.add(1);
        self.own.read_errors.add(1);
    }

    /// Refuses appends from now on.
    pub(super) fn refuse(&self) {
        let _state = self.state.lock();
        self.closed.store(true, Ordering::Relaxed);
    }
}
