//! The threads of one device: random reads through io_uring, large writes and their syncs, and the
//! reads of defragmentation. Each keeps its own schedule; how late it is, is part of what is measured.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use parking_lot::Mutex;
use perigee_engine::record::image::{BLOCK_HEADER_BYTES, IMAGE_UNIT_BYTES};
use perigee_engine::storage::AlignedBuf;
use perigee_engine::storage::medium::PAGE_BYTES;

use super::device::{Pattern, Target};
use super::plan::{Plan, Schedule, Stream, Transfer};
use super::verdict::Measured;
use crate::error::BenchError;
use crate::frames::Random;

/// A read that is begun later than this counts from when it was due; what is less late is our own
/// clock's doing.
const LATE: Duration = Duration::from_millis(1);

/// How soon a thread that has nothing to do sees that the check is over.
const STOP_SEEN: Duration = Duration::from_millis(100);

/// What the threads share with the one that prints.
pub struct Shared {
    pub stop: AtomicBool,
    pub measured: Mutex<Measured>,
    /// The end of a device that fell too far behind, or does not work.
    pub trouble: Mutex<Trouble>,
    pub max_lag: Duration,
}

#[derive(Default)]
pub struct Trouble {
    /// What was behind, and how far.
    pub behind: Option<(&'static str, Duration)>,
    pub first_error: Option<String>,
}

impl Shared {
    pub fn new(max_lag: Duration) -> Arc<Shared> {
        Arc::new(Shared {
            stop: AtomicBool::new(false),
            measured: Mutex::default(),
            trouble: Mutex::default(),
            max_lag,
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the check if `lag` is more than is allowed.
    fn note_lag(&self, what: &'static str, lag: Duration) {
        let mut measured = self.measured.lock();
        measured.lag_max = measured.lag_max.max(lag);
        drop(measured);
        if lag > self.max_lag {
            self.trouble.lock().behind.get_or_insert((what, lag));
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn note_error(&self, target: &Target, operation: &str, error: &io::Error) {
        self.measured.lock().errors += 1;
        let text = || format!("{}: {operation}: {error}", target.path.display());
        self.trouble.lock().first_error.get_or_insert_with(text);
    }

    /// Sleeps until `due`. False if the check is over before.
    fn sleep_until(&self, due: Instant) -> bool {
        loop {
            if self.stopped() {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(STOP_SEEN));
        }
    }

    fn record(&self, field: fn(&mut Measured) -> &mut Histogram<u64>, since: Instant) {
        let latency = since.elapsed().as_nanos() as u64;
        field(&mut self.measured.lock()).saturating_record(latency);
    }
}

type Body = Box<dyn FnOnce() + Send>;

/// Starts the threads of one device.
pub fn start(
    target: &Arc<Target>,
    plan: &Plan,
    shared: &Arc<Shared>,
    queue_depth: u16,
    seed: u64,
) -> Result<Vec<std::thread::JoinHandle<()>>, BenchError> {
    let mut bodies: Vec<(&str, Body)> = Vec::new();
    if let Some(schedule) = Schedule::new(plan.reads_per_second) {
        let mut reader = Reader::new(target, plan, shared, queue_depth, seed)?;
        bodies.push(("reads", Box::new(move || reader.run(schedule))));
    }
    if plan.client_bytes_per_second > 0.0 {
        let writer = Writer::new(target, plan, shared, seed ^ 1);
        bodies.push(("writes", Box::new(move || writer.run())));
    }
    if let Some(schedule) = Schedule::new(plan.defrag_blocks_per_second) {
        let (target, shared, block) = (target.clone(), shared.clone(), plan.write_block_bytes);
        let body = move || read_blocks(&target, &shared, block, schedule, seed ^ 2);
        bodies.push(("defrag", Box::new(body)));
    }
    let spawn = |(name, body): (&str, Body)| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(body).map_err(BenchError::from)
    };
    bodies.into_iter().map(spawn).collect()
}

/// Random reads of records, many in flight.
struct Reader {
    target: Arc<Target>,
    shared: Arc<Shared>,
    // Before the buffers: nothing is in flight any more when they go.
    ring: IoUring,
    buffers: AlignedBuf,
    slot_bytes: usize,
    slots: Vec<Slot>,
    free: Vec<u16>,
    random: Random,
    record_bytes: u64,
    block_bytes: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    since: Instant,
    bytes: u32,
}

impl Reader {
    fn new(
        target: &Arc<Target>,
        plan: &Plan,
        shared: &Arc<Shared>,
        queue_depth: u16,
        seed: u64,
    ) -> Result<Reader, BenchError> {
        let ring = IoUring::new(u32::from(queue_depth)).map_err(|source| BenchError::DeviceIo {
            path: target.path.clone(),
            operation: "set up io_uring for it",
            source,
        })?;
        let slot_bytes = plan.read_bytes_max();
        let unused = Slot {
            since: Instant::now(),
            bytes: 0,
        };
        Ok(Reader {
            target: target.clone(),
            shared: shared.clone(),
            ring,
            buffers: AlignedBuf::new(slot_bytes * usize::from(queue_depth)),
            slot_bytes,
            slots: vec![unused; usize::from(queue_depth)],
            free: (0..queue_depth).collect(),
            random: Random::new(seed),
            record_bytes: plan.record_bytes,
            block_bytes: plan.write_block_bytes,
        })
    }

    fn run(&mut self, mut schedule: Schedule) {
        let started = Instant::now();
        loop {
            let now = Instant::now();
            let mut due = started + schedule.due();
            while due <= now && !self.free.is_empty() {
                let late = now - due > LATE;
                self.push(if late { due } else { now });
                schedule.advance();
                due = started + schedule.due();
            }
            self.shared
                .note_lag("reads", now.saturating_duration_since(due));
            if self.shared.stopped() {
                break;
            }
            let wait = match self.free.is_empty() {
                true => STOP_SEEN,
                false => due.saturating_duration_since(now).min(STOP_SEEN),
            };
            self.wait(wait);
            self.reap();
        }
        // Buffers stay until the kernel is done with them.
        while self.free.len() < self.slots.len() {
            self.wait(STOP_SEEN);
            self.reap();
        }
    }

    /// Prepares the read of a random record, whose time counts from `since`.
    fn push(&mut self, since: Instant) {
        let slot = self.free.pop().expect("there is a free slot");
        let unit = IMAGE_UNIT_BYTES as u64;
        let block = 1 + self.random.below(self.target.blocks - 1);
        let header = BLOCK_HEADER_BYTES as u64;
        let places = (self.block_bytes - header - self.record_bytes) / unit + 1;
        let at = block * self.block_bytes + header + unit * self.random.below(places);
        let page = PAGE_BYTES as u64;
        let from = at / page * page;
        let bytes = ((at + self.record_bytes).next_multiple_of(page) - from) as u32;
        self.slots[usize::from(slot)] = Slot { since, bytes };
        let start = self.buffers[usize::from(slot) * self.slot_bytes..].as_mut_ptr();
        let entry = opcode::Read::new(Fd(self.target.file.as_raw_fd()), start, bytes)
            .offset(from)
            .build()
            .user_data(u64::from(slot));
        // SAFETY: the slot's buffer is long enough for any record, and neither it nor the file goes
        // before the completion is reaped, which `run` waits for.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("there are as many entries as slots");
    }

    /// Submits, and waits for a completion for at most so long.
    fn wait(&mut self, at_most: Duration) {
        let time = Timespec::from(at_most);
        let args = SubmitArgs::new().timespec(&time);
        if let Err(error) = self.ring.submitter().submit_with_args(1, &args)
            && !matches!(
                error.raw_os_error(),
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
            )
        {
            self.shared.note_error(&self.target, "io_uring", &error);
            self.shared.stop.store(true, Ordering::Relaxed);
        }
    }

    fn reap(&mut self) {
        let now = Instant::now();
        let mut measured = None;
        for completion in self.ring.completion() {
            let slot = completion.user_data() as u16;
            let Slot { since, bytes } = self.slots[usize::from(slot)];
            self.free.push(slot);
            if completion.result() != bytes as i32 {
                drop(measured.take());
                let error = match completion.result() {
                    code if code < 0 => io::Error::from_raw_os_error(-code),
                    _ => io::ErrorKind::UnexpectedEof.into(),
                };
                self.shared.note_error(&self.target, "read", &error);
                continue;
            }
            let measured = measured.get_or_insert_with(|| self.shared.measured.lock());
            measured
                .reads
                .saturating_record(now.saturating_duration_since(since).as_nanos() as u64);
            measured.read_bytes += u64::from(bytes);
        }
    }
}

/// Flush units of clients' writes and of defragmentation's, as one flush thread of the engine writes
/// them, with a sync whenever the oldest byte is `flush-max` old.
struct Writer {
    target: Arc<Target>,
    plan: Plan,
    shared: Arc<Shared>,
    random: Random,
    pattern: Pattern,
    streams: [(Stream, u64); 2],
}

impl Writer {
    fn new(target: &Arc<Target>, plan: &Plan, shared: &Arc<Shared>, seed: u64) -> Writer {
        Writer {
            target: target.clone(),
            plan: plan.clone(),
            shared: shared.clone(),
            random: Random::new(seed),
            pattern: Pattern::new(plan.flush_bytes as usize, seed),
            streams: [plan.client_bytes_per_second, plan.defrag_bytes_per_second]
                .map(|rate| (Stream::new(rate), 0)),
        }
    }

    fn run(mut self) {
        let started = Instant::now();
        let mut sync_due = self.plan.flush_max;
        loop {
            let unit = (0..self.streams.len())
                .filter_map(|i| Some((self.streams[i].0.unit_due(&self.plan)?, i)))
                .min();
            let due = unit.map_or(sync_due, |(due, _)| due.min(sync_due));
            if !self.shared.sleep_until(started + due) {
                return;
            }
            self.shared
                .note_lag("large writes", (started + due).elapsed());
            match unit {
                Some((unit_due, i)) if unit_due <= sync_due => {
                    let transfer = self.streams[i].0.take_unit(&self.plan, unit_due);
                    self.write(i, transfer);
                }
                _ => {
                    for i in 0..self.streams.len() {
                        if let Some(transfer) = self.streams[i].0.take_rest(&self.plan, sync_due) {
                            self.write(i, transfer);
                        }
                    }
                    self.sync();
                    sync_due += self.plan.flush_max;
                }
            }
        }
    }

    fn write(&mut self, stream: usize, transfer: Transfer) {
        if transfer.opens {
            self.streams[stream].1 = 1 + self.random.below(self.target.blocks - 1);
            self.erase(self.streams[stream].1);
        }
        let bytes = self.pattern.fresh(transfer.bytes as usize);
        let offset = self.streams[stream].1 * self.plan.write_block_bytes + transfer.from;
        let since = Instant::now();
        match self.target.file.write_all_at(bytes, offset) {
            Ok(()) => {
                self.shared.record(|it| &mut it.block_writes, since);
                self.shared.measured.lock().block_write_bytes += transfer.bytes;
            }
            Err(error) => self.shared.note_error(&self.target, "write", &error),
        }
    }

    /// The engine erases a block's header before the block is used again.
    fn erase(&mut self, block: u64) {
        let offset = block * self.plan.write_block_bytes;
        let page = self.pattern.fresh(PAGE_BYTES);
        if let Err(error) = self.target.file.write_all_at(page, offset) {
            self.shared.note_error(&self.target, "write", &error);
        }
    }

    fn sync(&self) {
        let since = Instant::now();
        match self.target.file.sync_data() {
            Ok(()) => self.shared.record(|it| &mut it.syncs, since),
            Err(error) => self.shared.note_error(&self.target, "sync", &error),
        }
    }
}

/// Defragmentation's reads: whole blocks, one at a time.
fn read_blocks(
    target: &Target,
    shared: &Shared,
    block_bytes: u64,
    mut schedule: Schedule,
    seed: u64,
) {
    let mut random = Random::new(seed);
    let mut buffer = AlignedBuf::new(block_bytes as usize);
    let started = Instant::now();
    loop {
        let due = started + schedule.due();
        schedule.advance();
        if !shared.sleep_until(due) {
            return;
        }
        shared.note_lag("large reads", due.elapsed());
        let block = 1 + random.below(target.blocks - 1);
        let since = Instant::now();
        match target.file.read_exact_at(&mut buffer, block * block_bytes) {
            Ok(()) => {
                shared.record(|it| &mut it.block_reads, since);
                shared.measured.lock().block_read_bytes += block_bytes;
            }
            Err(error) => shared.note_error(target, "large read", &error),
        }
    }
}
