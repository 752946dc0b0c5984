//! One device of a store: its blocks, the two streams that are appended to, and what became of
//! every block. Flushing, defragmentation and scanning are siblings that work on the same state.
//!
//! A block's way: `Free -> Open -> Filled -> Used (-> Compacting -> Used) -> Retired -> Free`.
//! Invariant: a block is freed only when nothing in it is live and whatever replaced its records is
//! durable, so that losing the newest bytes never loses an older version with them. Its header is
//! erased before, durably: what a crash brings back to life never takes the last free block away
//! from defragmentation, and deleted records in free blocks stay deleted.

use super::config::StoreConfig;
use super::defrag::DefragSignal;
use super::error::{AppendError, DeviceError};
use super::header::BlockHeader;
use super::medium::{Mapping, Medium, PAGE_BYTES};
use super::stats::{Counter, Counters, DeviceCounters, DeviceStats, StoreStats};
use super::write_block::BlockBuf;
use super::{Appended, CommitTicket, CommitWaiter};
use crate::index::Location;
use crate::record::image::{
    BLOCK_HEADER_BYTES, FILLER_BYTES, ImageView, RECORD_BYTES_MAX, seal, write_filler,
};
use crate::shared::{Ledger, SharedStore};
use crate::tunable::Tunable;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Free blocks that only defragmentation may take: compacting one block needs at most one more.
const RESERVE_BLOCKS: usize = 1;
/// Free blocks that records may not take, so that a full store takes the tombstones that make room in it.
const TOMBSTONE_BLOCKS: usize = 1;
/// Free blocks that records cannot have.
const KEPT_BLOCKS: usize = RESERVE_BLOCKS + TOMBSTONE_BLOCKS;
/// Compacting a block has to gain this part of it, or blocks that are merely padded would be copied
/// forever.
const GAIN_DIVISOR: usize = 16;
/// As above while tombstones find no room, where deletes that are spread over many blocks gain little of each: a smaller
/// part, and more than a compaction pads.
const GAIN_DIVISOR_LEAST: usize = 256;
const GAIN_PAGES_LEAST: usize = 4;
/// Free blocks that defragmentation keeps for writes by itself, as a part of all and at most: each costs room that would
/// otherwise be dead bytes, and so makes copies more frequent.
const SPARE_DIVISOR: usize = 32;
const SPARE_BLOCKS_MAX: usize = 16;
/// Defragmentation takes its whole pause with this many times the free blocks at which it takes none.
const PLENTY_FACTOR: usize = 4;
/// Block buffers kept for the next block.
const SPARE_BUFFERS_MAX: usize = 4;

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
    /// In the defragmentation queue.
    pub(super) queued: bool,
    /// Defragmentation left something behind: damage, which it would meet again.
    pub(super) shunned: bool,
    /// The damage in it was counted.
    pub(super) damage_told: bool,
}

/// What is known of a block without the device's lock.
pub(super) struct Block {
    /// The block in memory: while it is appended to, until it is written, while it is cached.
    pub(super) buffer: RwLock<Option<Arc<BlockBuf>>>,
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
    /// Opened by a tombstone when records could have no block. They stay out of it until there is another.
    is_reserve: bool,
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
    after: [u64; STREAMS.len()],
}

pub(super) struct DeviceState {
    pub(super) blocks: Vec<BlockState>,
    /// Taken from the end: a block that was in use lately, whose memory is there already.
    pub(super) free: Vec<u32>,
    pub(super) streams: [StreamState; STREAMS.len()],
    /// Filled blocks not yet written, of both streams.
    pub(super) unwritten: usize,
    pub(super) retired: VecDeque<RetiredBlock>,
    pub(super) defrag_queue: Vec<u32>,
    /// Defragmentation passed the device by, and is to be woken by its progress.
    pub(super) defrag_waits: bool,
    /// A block is being emptied.
    pub(super) compacting: bool,
    /// When blocks had run out, defragmentation found none that emptying would gain something of.
    pub(super) gainless: bool,
    /// Written blocks that are kept for reads, oldest first.
    pub(super) cache: VecDeque<u32>,
    spare: Vec<Arc<BlockBuf>>,
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
    writes: u64,
    write_bytes: u64,
}

pub(super) struct Device {
    pub(super) index: u8,
    pub(super) config: Arc<StoreConfig>,
    /// Blocks whose live share is below this are compacted.
    lwm_pct: Tunable<u8>,
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
    shared: Option<Arc<SharedStore>>,
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
    closed: AtomicBool,
    pub(super) used_bytes: AtomicU64,
    pub(super) counters: Arc<Counters>,
    pub(super) own: DeviceCounters,
    pub(super) signal: Arc<DefragSignal>,
    unwritten_max: usize,
    cached_max: usize,
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
            queued: false,
            shunned: false,
            damage_told: false,
        };
        let state = DeviceState {
            blocks: vec![unknown; count],
            free: Vec::new(),
            streams: [StreamState::new(durable), StreamState::new(durable)],
            unwritten: 0,
            retired: VecDeque::new(),
            defrag_queue: Vec::new(),
            defrag_waits: false,
            compacting: false,
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

    pub(super) fn append(&self, stream: Stream, image: &mut [u8]) -> Result<Appended, AppendError> {
        if image.len() > RECORD_BYTES_MAX.min(self.block_bytes - BLOCK_HEADER_BYTES) {
            return Err(AppendError::TooBig);
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.failure.is_some() || self.closed.load(Ordering::Relaxed) {
            return Err(AppendError::DeviceFailed);
        }
        let kept = match stream {
            Stream::Defrag => 0,
            Stream::Client if ImageView::trusted(image).is_tombstone() => RESERVE_BLOCKS,
            Stream::Client => KEPT_BLOCKS,
        };
        let fits = |open: &OpenBlock| {
            open.position + image.len() <= self.block_bytes
                && !(open.is_reserve && kept == KEPT_BLOCKS && state.free.len() < KEPT_BLOCKS)
        };
        if !state.streams[stream as usize]
            .open
            .as_ref()
            .is_some_and(fits)
        {
            self.check_room(state, stream, kept)?;
            self.fill(state, stream);
            self.open(state, stream);
        }
        let current = &mut state.streams[stream as usize];
        let open = current.open.as_mut().expect("a block was just opened");
        let at = open.position;
        seal(image, open.sequence);
        // SAFETY: `at` is the append position, and the device's lock is held.
        unsafe { open.buffer.write(at, image) };
        open.position += image.len();
        current.appended = current.log_start + open.position as u64;
        // Live bytes before the position: what a start finds below it and not in the index is in a block
        // whose live bytes do not add up.
        self.ledger[open.block as usize]
            .live
            .fetch_add(image.len() as u32, Ordering::AcqRel);
        open.buffer.note_position(open.position);
        self.used_bytes
            .fetch_add(image.len() as u64, Ordering::Relaxed);
        let appended = Appended {
            location: self.location(open.block, at, image.len()),
            ticket: CommitTicket {
                device: self.index,
                position: current.appended,
            },
        };
        let unit = self.config.flush_size_bytes as usize;
        let unit_complete = at / unit != open.position / unit;
        match stream {
            Stream::Client => {
                state.writes += 1;
                state.write_bytes += image.len() as u64;
            }
            Stream::Defrag => self.counters.defrag_write_bytes.add(image.len() as u64),
        }
        if !self.is_volatile {
            let first = state.unsynced_since.is_none();
            if first {
                state.unsynced_since = Some(Instant::now());
            }
            if first || unit_complete {
                self.work.notify_one();
            }
        }
        Ok(appended)
    }

    /// Whether the stream may open another block and leave `kept` free ones.
    fn check_room(
        &self,
        state: &mut DeviceState,
        stream: Stream,
        kept: usize,
    ) -> Result<(), AppendError> {
        if stream == Stream::Client && state.unwritten >= self.unwritten_max {
            return Err(AppendError::Overload);
        }
        if state.next_sequence >= state.sequence_limit {
            // Half a lease ahead of being needed, the device did not get to the next.
            self.work.notify_one();
            return Err(AppendError::Overload);
        }
        if state.free.len() > kept {
            return Ok(());
        }
        state.refused |= stream == Stream::Client;
        state.tombstone_refused |= kept == RESERVE_BLOCKS;
        // Retired blocks become free after the next sync.
        self.hurry(state);
        self.signal.raise();
        let is_full = state.gainless && state.retired.is_empty() && !state.compacting;
        Err(if is_full {
            AppendError::Full
        } else {
            AppendError::Overload
        })
    }

    /// Asks for a flush of everything, if a block waits for one.
    pub(super) fn hurry(&self, state: &mut DeviceState) {
        if self.erasable(state) < state.retired.len() && !state.flush_now {
            state.flush_now = true;
            self.work.notify_one();
        }
    }

    /// Completes the stream's open block, if there is one.
    fn fill(&self, state: &mut DeviceState, stream: Stream) {
        let current = &mut state.streams[stream as usize];
        let Some(open) = current.open.take() else {
            return;
        };
        let OpenBlock {
            block,
            sequence,
            buffer,
            position,
            taken,
            ..
        } = open;
        let end = position.next_multiple_of(PAGE_BYTES);
        if position < end {
            // It stands for the rest of the block, though only the rest of its page is written.
            // SAFETY: from the append position on, and the device's lock is held.
            unsafe {
                put_filler(
                    &buffer,
                    position,
                    end,
                    self.block_bytes - position,
                    sequence,
                )
            };
        }
        let records_end = (current.appended - current.log_start) as usize;
        current.log_start += self.block_bytes as u64;
        let log_end = current.log_start;
        state.blocks[block as usize].filled = records_end - BLOCK_HEADER_BYTES;
        state.blocks[block as usize].log_end = (stream, log_end);
        state.blocks[block as usize].phase = Phase::Filled;
        if self.is_volatile {
            self.own.writes[stream as usize].add(1);
            self.finish(state, stream, block);
            return;
        }
        state.unwritten += 1;
        current.filled.push_back(FilledBlock {
            block,
            buffer,
            taken,
            end,
            log_end,
        });
        self.work.notify_one();
    }

    /// Opens a free block for the stream; there is one.
    fn open(&self, state: &mut DeviceState, stream: Stream) {
        let block = state.free.pop().expect("room was checked");
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let bytes = self.block_bytes;
        let buffer = match &self.mapping {
            Some(mapping) => Arc::new(BlockBuf::mapped(
                mapping,
                self.block_offset(block) as usize,
                bytes,
            )),
            None => state
                .spare
                .pop()
                .unwrap_or_else(|| Arc::new(self.new_buffer())),
        };
        self.ledger[block as usize]
            .sequence
            .store(sequence, Ordering::Relaxed);
        let header = BlockHeader {
            sequence,
            device_id: self.device_id,
            block,
            device: self.index,
        };
        // SAFETY: nothing of the block is in use, since it was free, and the device's lock is held.
        unsafe { buffer.write(0, &header.encode()) };
        buffer.begin(self.index, block, sequence, BLOCK_HEADER_BYTES);
        debug_assert_eq!(self.ledger[block as usize].live.load(Ordering::Relaxed), 0);
        if self.mapping.is_none() {
            *self.blocks[block as usize].buffer.write() = Some(Arc::clone(&buffer));
        }
        state.blocks[block as usize] = BlockState {
            phase: Phase::Open,
            sequence,
            filled: 0,
            log_end: (Stream::Client, 0),
            queued: false,
            shunned: false,
            damage_told: false,
        };
        state.streams[stream as usize].open = Some(OpenBlock {
            block,
            sequence,
            buffer,
            position: BLOCK_HEADER_BYTES,
            taken: 0,
            is_reserve: state.free.len() < KEPT_BLOCKS,
        });
        if stream == Stream::Client {
            state.refused = false;
            state.tombstone_refused = false;
        }
        if self.is_short(state) {
            self.signal.raise();
        }
    }

    fn new_buffer(&self) -> BlockBuf {
        let Some(shared) = &self.shared else {
            return BlockBuf::heap(self.block_bytes);
        };
        match shared.pool().take() {
            Some(block) => BlockBuf::shared(block, self.block_bytes),
            None => {
                // What is in it would not be found.
                shared.distrust();
                BlockBuf::heap(self.block_bytes)
            }
        }
    }

    /// Completes open blocks that writes do not fit into any more, if emptying them gains something:
    /// on a full device of few blocks that may be all the space there is.
    pub(super) fn give_up_open(&self, state: &mut DeviceState) {
        for stream in STREAMS {
            let current = &state.streams[stream as usize];
            let Some(open) = &current.open else { continue };
            // Its room is for tombstones yet to come.
            if stream == Stream::Client && open.is_reserve && !state.tombstone_refused {
                continue;
            }
            let block = open.block;
            // Copies still fit, so of their block only what died again is to be gained.
            let filled = match stream {
                Stream::Client => self.block_bytes - BLOCK_HEADER_BYTES,
                Stream::Defrag => open.position - BLOCK_HEADER_BYTES,
            };
            if filled >= self.live(block) + self.block_bytes / GAIN_DIVISOR {
                self.fill(state, stream);
                state.blocks[block as usize].filled = filled;
                state.flush_now = !self.is_volatile;
                self.work.notify_one();
                self.signal.raise();
            }
        }
    }

    /// Pads the stream's open block to a page boundary, so that the page can be written for good.
    pub(super) fn pad(&self, state: &mut DeviceState, stream: Stream) {
        let Some(open) = &mut state.streams[stream as usize].open else {
            return;
        };
        let end = open.position.next_multiple_of(PAGE_BYTES);
        if open.position == end || open.position == BLOCK_HEADER_BYTES {
            return;
        }
        let covers = end - open.position;
        // SAFETY: from the append position on, and the device's lock is held.
        unsafe { put_filler(&open.buffer, open.position, end, covers, open.sequence) };
        open.position = end;
        open.buffer.note_position(end);
        self.counters.padding_bytes.add(covers as u64);
    }

    /// A filled block is written: it may now be compacted or freed, and its memory is the cache's.
    pub(super) fn finish(&self, state: &mut DeviceState, stream: Stream, block: u32) {
        state.blocks[block as usize].phase = Phase::Used;
        if self.mapping.is_none() {
            if stream == Stream::Client && self.cached_max > 0 {
                state.cache.push_back(block);
                if state.cache.len() > self.cached_max
                    && let Some(oldest) = state.cache.pop_front()
                {
                    self.drop_buffer(state, oldest);
                }
            } else {
                self.drop_buffer(state, block);
            }
        }
        self.settle(state, block);
    }

    fn drop_buffer(&self, state: &mut DeviceState, block: u32) {
        let buffer = self.blocks[block as usize].buffer.write().take();
        // Whoever still reads it holds another reference; then it is not for reuse.
        if let Some(mut buffer) = buffer
            && state.spare.len() < SPARE_BUFFERS_MAX
            && Arc::get_mut(&mut buffer).is_some()
        {
            state.spare.push(buffer);
        }
    }

    /// Retires or queues a used block if its live bytes ask for it.
    pub(super) fn settle(&self, state: &mut DeviceState, block: u32) {
        if state.blocks[block as usize].phase != Phase::Used {
            return;
        }
        if self.live(block) == 0 {
            state.blocks[block as usize].phase = Phase::Retired;
            let after = [state.streams[0].appended, state.streams[1].appended];
            state.retired.push_back(RetiredBlock { block, after });
            self.reclaim(state);
        } else if self.is_sparse(state, block) && !state.blocks[block as usize].queued {
            state.blocks[block as usize].queued = true;
            state.defrag_queue.push(block);
            self.signal.raise();
        }
    }

    /// Changes the low-water mark, for blocks that are below it already too.
    pub(super) fn set_lwm_pct(&self, pct: u8) {
        if self.lwm_pct.get() == pct {
            return;
        }
        self.lwm_pct.set(pct);
        let mut state = self.state.lock();
        for block in 1..self.blocks.len() as u32 {
            self.settle(&mut state, block);
        }
    }

    /// How many of the retired blocks, from the oldest, have durable successors.
    pub(super) fn erasable(&self, state: &DeviceState) -> usize {
        let durable = |stream: Stream| state.streams[stream as usize].durable;
        let is_covered = |retired: &RetiredBlock| {
            STREAMS
                .iter()
                .all(|stream| retired.after[*stream as usize] <= durable(*stream))
        };
        // Log positions only grow, so those of the retired blocks are sorted.
        state.retired.partition_point(is_covered)
    }

    /// Has retired blocks freed that may be: at once in memory, otherwise by the flush thread.
    pub(super) fn reclaim(&self, state: &mut DeviceState) {
        let count = self.erasable(state);
        if self.is_volatile {
            self.free(state, count);
        } else if count > 0 {
            self.work.notify_one();
        }
    }

    /// Frees the oldest `count` retired blocks.
    pub(super) fn free(&self, state: &mut DeviceState, count: usize) {
        for _ in 0..count {
            let RetiredBlock { block, .. } = state.retired.pop_front().expect("counted before");
            self.drop_buffer(state, block);
            state.blocks[block as usize].phase = Phase::Free;
            self.ledger[block as usize]
                .sequence
                .store(0, Ordering::Relaxed);
            state.free.push(block);
        }
        let blocks = &state.blocks;
        state
            .cache
            .retain(|cached| blocks[*cached as usize].phase != Phase::Free);
        self.tell_progress(state);
    }

    /// Something became written, durable or free.
    pub(super) fn tell_progress(&self, state: &mut DeviceState) {
        self.progress.notify_all();
        if std::mem::take(&mut state.defrag_waits) {
            self.signal.raise();
        }
    }

    pub(super) fn live(&self, block: u32) -> usize {
        self.ledger[block as usize].live.load(Ordering::Acquire) as usize
    }

    fn lwm_bytes(&self) -> usize {
        self.block_bytes * usize::from(self.lwm_pct.get()) / 100
    }

    /// Below the low-water mark, with something to gain.
    pub(super) fn is_sparse(&self, state: &DeviceState, block: u32) -> bool {
        self.live(block) < self.lwm_bytes() && self.is_gainful(state, block)
    }

    /// Worth emptying, if space is needed.
    pub(super) fn is_gainful(&self, state: &DeviceState, block: u32) -> bool {
        self.gains(state, block, self.block_bytes / GAIN_DIVISOR)
    }

    /// Worth emptying, if tombstones need space.
    pub(super) fn is_gainful_at_all(&self, state: &DeviceState, block: u32) -> bool {
        let least = self.block_bytes / GAIN_DIVISOR_LEAST;
        let least = least.max(GAIN_PAGES_LEAST * PAGE_BYTES);
        self.gains(state, block, least.min(self.block_bytes / GAIN_DIVISOR))
    }

    fn gains(&self, state: &DeviceState, block: u32, bytes: usize) -> bool {
        let BlockState {
            phase,
            filled,
            shunned,
            ..
        } = state.blocks[block as usize];
        phase == Phase::Used && !shunned && filled >= self.live(block) + bytes
    }

    /// Whether a crash would leave the block as it is. Copies of records that may vanish from it
    /// could otherwise outlive them, and occupy the last free block together with it.
    pub(super) fn is_durable(&self, state: &DeviceState, block: u32) -> bool {
        let (stream, log_end) = state.blocks[block as usize].log_end;
        state.streams[stream as usize].durable >= log_end
    }

    /// So few free blocks that writes are about to be refused.
    pub(super) fn is_pressed(&self, state: &DeviceState) -> bool {
        state.free.len() + state.retired.len() <= KEPT_BLOCKS + 1
    }

    /// So few free blocks that those above the low-water mark have to be compacted too: before writes find none, since
    /// gaining one takes several compactions on a device that is nearly full.
    pub(super) fn is_short(&self, state: &DeviceState) -> bool {
        state.free.len() + state.retired.len() <= self.short_level()
    }

    fn short_level(&self) -> usize {
        let spare = (self.blocks.len() / SPARE_DIVISOR).min(SPARE_BLOCKS_MAX);
        KEPT_BLOCKS + 1 + spare
    }

    /// The pause after a compaction: the configured one while free blocks are plenty, less as they run out.
    pub(super) fn defrag_pause(&self, state: &DeviceState) -> Duration {
        let level = self.short_level();
        let above = (state.free.len() + state.retired.len()).saturating_sub(level);
        let plenty = PLENTY_FACTOR * level;
        self.config.defrag_sleep * above.min(plenty) as u32 / plenty as u32
    }

    /// Whether so many filled blocks wait for the device that copies should wait too.
    pub(super) fn is_behind(&self, state: &DeviceState) -> bool {
        state.unwritten > self.unwritten_max / 2
    }

    pub(super) fn release(&self, location: Location) {
        let (block, _) = self.place(location);
        let bytes = location.bytes();
        let before = self.ledger[block as usize]
            .live
            .fetch_sub(bytes as u32, Ordering::AcqRel);
        let before = before as usize;
        assert!(before >= bytes, "{location:?} was released twice");
        self.used_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        let lwm = self.lwm_bytes();
        if before == bytes || (before >= lwm && before - bytes < lwm) {
            let mut state = self.state.lock();
            self.settle(&mut state, block);
        }
    }

    /// True if the position is durable, or need not be. Otherwise the waiter is kept. An error if it
    /// will never be durable, and there is no thread to tell the waiter.
    pub(super) fn await_commit(
        &self,
        position: u64,
        waiter: CommitWaiter,
    ) -> Result<bool, DeviceError> {
        if !self.config.commit_to_device || self.is_volatile {
            return Ok(true);
        }
        let mut state = self.state.lock();
        if position <= state.streams[Stream::Client as usize].durable {
            return Ok(true);
        }
        if state.flush_ended {
            return Err(self.failure_of_ended(&state));
        }
        state.waiters.push((position, waiter));
        self.work.notify_one();
        Ok(false)
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

    /// What is counted and measured of this device alone.
    pub(super) fn stats(&self, kind: &'static str, path: Option<PathBuf>) -> DeviceStats {
        let of =
            |counters: &[Counter; STREAMS.len()], stream: Stream| counters[stream as usize].get();
        let state = self.state.lock();
        DeviceStats {
            kind,
            path,
            used_bytes: self.used_bytes.load(Ordering::Relaxed),
            free_wblocks: state.free.len() as u64,
            read_errors: self.own.read_errors.get(),
            write_q: state.unwritten as u64,
            writes: of(&self.own.writes, Stream::Client),
            partial_writes: of(&self.own.partial_writes, Stream::Client),
            defrag_q: state.defrag_queue.len() as u64,
            defrag_reads: self.own.defrag_reads.get(),
            defrag_writes: of(&self.own.writes, Stream::Defrag),
            defrag_partial_writes: of(&self.own.partial_writes, Stream::Defrag),
            failure: state.failure.clone(),
        }
    }

    pub(super) fn add_stats(&self, stats: &mut StoreStats) {
        let state = self.state.lock();
        let blocks = self.blocks.len() as u64 - 1;
        let free = state.free.len() as u64;
        let available = (free.saturating_sub(KEPT_BLOCKS as u64) * 100 / blocks) as u8;
        stats.avail_pct = stats.avail_pct.min(available);
        stats.total_blocks += blocks;
        stats.total_bytes += blocks * self.block_bytes as u64;
        stats.used_bytes += self.used_bytes.load(Ordering::Relaxed);
        stats.free_blocks += free;
        stats.retired_blocks += state.retired.len() as u64;
        stats.write_queue_blocks += state.unwritten as u64;
        stats.defrag_queue_blocks += state.defrag_queue.len() as u64;
        stats.post_write_cache_blocks += state.cache.len() as u64;
        stats.failed_devices += u64::from(state.failure.is_some());
        stats.writes += state.writes;
        stats.write_bytes += state.write_bytes;
    }
}

/// Puts a filler at `from` that stands for `covers` bytes, and clears the rest up to `end`.
///
/// # Safety
///
/// As for [`BlockBuf::write`], from `from` on.
unsafe fn put_filler(buffer: &BlockBuf, from: usize, end: usize, covers: usize, sequence: u64) {
    let mut filler = [0; FILLER_BYTES];
    write_filler(&mut filler, covers, sequence);
    // SAFETY: passed on to the caller.
    unsafe {
        buffer.write(from, &filler);
        buffer.zero(from + FILLER_BYTES..end);
    }
}
