//! Sends requests over many connections and times the replies.
//!
//! A thread is a [`Handler`](perigee_service::net::Handler) on a network loop: each reply is timed,
//! counted, and followed by the connection's next request. The main thread only marks the phases
//! and reads the counters, so that the measured interval has sharp ends on all threads.

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use perigee_service::net::{
    self, ConnId, Consumed, Handler, LoopConfig, LoopControl, LoopKind, Net, Reads, Waker,
};
use perigee_wire::{PROTO_HEADER_BYTES, ProtoType, ResultCode, parse_proto_header};

use crate::cpu;
use crate::error::BenchError;
use crate::frames::{Frames, Random, Verb};
use crate::options::Common;

const LATENCY_NS_MIN: u64 = 1_000;
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Without any reply for so long a run that counts operations gives up.
const STALL: Duration = Duration::from_secs(30);

/// How long the last replies are waited for.
const LAST_REPLIES: Duration = Duration::from_secs(2);

/// With a rate, requests are released this often; below that, lateness is ours and not the
/// server's.
const RATE_TICK: Duration = Duration::from_millis(1);

/// Offset of the result code in a reply: after the protocol header, header size, info1 to info4.
const RESULT_AT: usize = PROTO_HEADER_BYTES + 5;

const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// When a run has enough.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    Time(Duration),
    Operations(u64),
    /// Keys in order instead of random ones.
    EachKeyOnce,
}

#[derive(Clone, Debug)]
pub struct Load {
    pub reads_percent: u8,
    pub extent: Extent,
    pub warmup: Duration,
    pub connections: u32,
    pub threads: u32,
    pub rate: Option<u64>,
    pub seed: u64,
    pub loop_kind: LoopKind,
    /// Progress on standard error, when somebody looks at it.
    pub progress: bool,
}

impl Load {
    pub fn new(common: &Common, reads_percent: u8) -> Self {
        let time = common.duration.unwrap_or(DEFAULT_DURATION);
        Self {
            reads_percent,
            extent: common
                .operations
                .map_or(Extent::Time(time), Extent::Operations),
            warmup: common.warmup,
            connections: common.connections,
            threads: common.threads.min(common.connections),
            rate: common.rate,
            seed: common.seed,
            loop_kind: common.loop_name.kind().resolve(),
            progress: !common.json && std::io::stderr().is_terminal(),
        }
    }
}

pub struct Outcome {
    pub operations: u64,
    pub elapsed: Duration,
    pub reads: Histogram<u64>,
    pub writes: Histogram<u64>,
    /// By result code, the warm-up included; [`Outcome::NOT_A_REPLY`] for bytes that are none.
    pub errors: BTreeMap<u16, u64>,
    pub connections_lost: u64,
    pub server_cpu_seconds: Option<f64>,
    pub client_cpu_seconds: f64,
    pub loop_kind: LoopKind,
}

impl Outcome {
    pub const NOT_A_REPLY: u16 = 256;

    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.connections_lost == 0
    }

    pub fn operations_per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    pub fn server_cpu_seconds_per_million(&self) -> Option<f64> {
        self.server_cpu_seconds
            .map(|seconds| seconds * 1e6 / self.operations as f64)
    }

    pub fn client_cpu_seconds_per_million(&self) -> f64 {
        self.client_cpu_seconds * 1e6 / self.operations as f64
    }

    pub fn error_name(code: u16) -> String {
        let known = u8::try_from(code).ok().and_then(ResultCode::from_u8);
        match known {
            Some(code) => code.name().to_owned(),
            None if code == Self::NOT_A_REPLY => "NOT_A_REPLY".to_owned(),
            None => format!("CODE_{code}"),
        }
    }
}

const WARMUP: u8 = 0;
const MEASURE: u8 = 1;
const END: u8 = 2;

/// What all threads see.
struct Run {
    frames: Arc<Frames>,
    phase: AtomicU8,
    /// Requests begun while their number counts.
    begun: AtomicU64,
    begun_max: u64,
    in_order: bool,
    reads_percent: u64,
}

/// What the main thread sees of one thread. Written by that thread only.
#[derive(Default)]
struct Progress {
    completed: AtomicU64,
    /// Nothing is awaited and nothing will be sent.
    idle: AtomicBool,
    open: AtomicU64,
}

struct Slot {
    verb: Verb,
    sent_at: Instant,
    awaits: bool,
}

struct Thread {
    run: Arc<Run>,
    progress: Arc<Progress>,
    waker: Waker,
    random: Random,
    sockets: Vec<(OwnedFd, SocketAddr)>,
    slots: Vec<Slot>,
    /// Connections that may send, in the order in which they became free.
    free: VecDeque<ConnId>,
    awaited: u64,
    pace: Option<Pace>,
    reads: Histogram<u64>,
    writes: Histogram<u64>,
    errors: BTreeMap<u16, u64>,
    lost: u64,
}

/// When the next request is due.
struct Pace {
    next: Instant,
    interval: Duration,
}

/// Latencies in nanoseconds, from a microsecond to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 3).expect("valid bounds")
}

impl Thread {
    /// Appends the connection's next request, unless the run is over.
    fn send(&mut self, conn: ConnId, now: Instant, output: &mut Vec<u8>) -> bool {
        let run = &*self.run;
        let phase = run.phase.load(Ordering::Relaxed);
        if phase == END {
            return false;
        }
        let mut key = None;
        if phase == MEASURE && run.begun_max != u64::MAX {
            let number = run.begun.fetch_add(1, Ordering::Relaxed);
            if number >= run.begun_max {
                return false;
            }
            key = run.in_order.then_some(number);
        }
        let key = key.unwrap_or_else(|| self.random.below(run.frames.keys));
        let read = run.reads_percent > 0 && self.random.below(100) < run.reads_percent;
        let verb = if read { Verb::Read } else { Verb::Write };
        run.frames.append(verb, key, output);
        let slot = &mut self.slots[conn.index()];
        *slot = Slot {
            verb,
            sent_at: now,
            awaits: true,
        };
        self.awaited += 1;
        true
    }

    /// As `send`, at the pace of the rate: a request that is later than our own clock explains
    /// counts from when it was due, so that a server that stalls does not hide the requests that it
    /// kept from being sent.
    fn send_paced(&mut self, conn: ConnId, now: Instant, output: &mut Vec<u8>) -> bool {
        let Some(pace) = &mut self.pace else {
            return self.send(conn, now, output);
        };
        if pace.next > now {
            self.free.push_back(conn);
            return true;
        }
        let due = pace.next;
        pace.next += pace.interval;
        let late = now - due > 2 * RATE_TICK;
        self.send(conn, if late { due } else { now }, output)
    }

    fn take_reply(&mut self, conn: ConnId, result: u16, now: Instant) {
        let slot = &mut self.slots[conn.index()];
        if !slot.awaits {
            *self.errors.entry(Outcome::NOT_A_REPLY).or_default() += 1;
            return;
        }
        slot.awaits = false;
        self.awaited -= 1;
        let completed = self.progress.completed.load(Ordering::Relaxed) + 1;
        self.progress.completed.store(completed, Ordering::Relaxed);
        if self.run.phase.load(Ordering::Relaxed) == MEASURE {
            let latency = now.saturating_duration_since(slot.sent_at).as_nanos() as u64;
            let histogram = match slot.verb {
                Verb::Read => &mut self.reads,
                Verb::Write => &mut self.writes,
            };
            histogram.saturating_record(latency.max(LATENCY_NS_MIN));
        }
        if result != 0 {
            *self.errors.entry(result).or_default() += 1;
        }
    }

    fn note_idle(&self, sending: bool) {
        if !sending && self.awaited == 0 {
            self.progress.idle.store(true, Ordering::Release);
        }
    }

    /// Sends on free connections as far as the pace allows.
    fn send_free(&mut self, net: &mut dyn Net) {
        let now = Instant::now();
        for _ in 0..self.free.len() {
            if self.pace.as_ref().is_some_and(|pace| pace.next > now) {
                return;
            }
            let conn = self.free.pop_front().expect("counted");
            if let Some(output) = net.output(conn) {
                let sending = self.send_paced(conn, now, output);
                self.note_idle(sending);
            }
        }
    }
}

impl Handler for Thread {
    fn on_open(&mut self, conn: ConnId, _peer: SocketAddr) {
        let now = Instant::now();
        let unused = || Slot {
            verb: Verb::Read,
            sent_at: now,
            awaits: false,
        };
        if self.slots.len() <= conn.index() {
            self.slots.resize_with(conn.index() + 1, unused);
        }
        self.free.push_back(conn);
        self.progress.open.fetch_add(1, Ordering::Relaxed);
        self.waker.wake();
    }

    fn on_input(
        &mut self,
        conn: ConnId,
        input: &[u8],
        output: &mut Vec<u8>,
        _reads: &mut Reads,
    ) -> Consumed {
        let header = match parse_proto_header(input) {
            Ok(Some(header)) if header.kind == ProtoType::Message => header,
            Ok(None) => return Consumed::more(0),
            Ok(Some(_)) | Err(_) => {
                self.take_reply(conn, Outcome::NOT_A_REPLY, Instant::now());
                return Consumed::close();
            }
        };
        let end = PROTO_HEADER_BYTES + header.body_bytes;
        if input.len() < end {
            return Consumed::more(0);
        }
        let now = Instant::now();
        let result = match end > RESULT_AT {
            true => u16::from(input[RESULT_AT]),
            false => Outcome::NOT_A_REPLY,
        };
        self.take_reply(conn, result, now);
        let sending = self.send_paced(conn, now, output);
        self.note_idle(sending);
        Consumed::more(end)
    }

    fn on_close(&mut self, conn: ConnId) {
        let none_left = self.progress.open.fetch_sub(1, Ordering::Relaxed) == 1;
        let slot = &mut self.slots[conn.index()];
        if std::mem::take(&mut slot.awaits) {
            self.awaited -= 1;
        }
        if self.run.phase.load(Ordering::Relaxed) != END {
            self.lost += 1;
        }
        if none_left {
            self.progress.idle.store(true, Ordering::Release);
        }
    }

    fn on_wake(&mut self, net: &mut dyn Net) {
        for (socket, peer) in self.sockets.drain(..) {
            net.adopt(socket, peer);
        }
        self.send_free(net);
        let over = self.run.phase.load(Ordering::Relaxed) == END;
        self.note_idle(!over);
    }

    fn on_tick(&mut self, net: &mut dyn Net) {
        self.send_free(net);
    }

    fn wants_tick(&self) -> bool {
        self.pace.is_some() && !self.free.is_empty()
    }
}

struct Running {
    control: LoopControl,
    progress: Arc<Progress>,
    thread: std::thread::JoinHandle<(std::io::Result<()>, Thread)>,
}

/// Counters and clocks at one moment.
struct Mark {
    at: Instant,
    completed: u64,
    server_cpu: Option<f64>,
    client_cpu: f64,
}

/// Runs a load against `address`: warm-up, measurement, last replies.
pub fn run(
    address: SocketAddr,
    frames: &Arc<Frames>,
    load: &Load,
    server_pid: Option<u32>,
) -> Result<Outcome, BenchError> {
    let (begun_max, in_order) = match load.extent {
        Extent::Time(_) => (u64::MAX, false),
        Extent::Operations(count) => (count, false),
        Extent::EachKeyOnce => (frames.keys, true),
    };
    let warmup = if in_order {
        Duration::ZERO
    } else {
        load.warmup
    };
    let shared = Arc::new(Run {
        frames: frames.clone(),
        phase: AtomicU8::new(if warmup.is_zero() { MEASURE } else { WARMUP }),
        begun: AtomicU64::new(0),
        begun_max,
        in_order,
        reads_percent: u64::from(load.reads_percent),
    });
    let running = start(address, load, &shared)?;
    let mark = || Mark {
        at: Instant::now(),
        completed: running
            .iter()
            .map(|it| it.progress.completed.load(Ordering::Relaxed))
            .sum(),
        server_cpu: server_pid.and_then(cpu::process_seconds),
        client_cpu: cpu::own_seconds(),
    };
    // From here on the threads must be ended, whatever happens.
    let measured = measure(load, &shared, &running, warmup, &mark);
    shared.phase.store(END, Ordering::Relaxed);
    for it in &running {
        it.control.waker().wake();
    }
    let deadline = Instant::now() + LAST_REPLIES;
    let idle = |it: &Running| it.progress.idle.load(Ordering::Acquire);
    while !running.iter().all(idle) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut outcome = Outcome {
        operations: 0,
        elapsed: Duration::ZERO,
        reads: histogram(),
        writes: histogram(),
        errors: BTreeMap::new(),
        connections_lost: 0,
        server_cpu_seconds: None,
        client_cpu_seconds: 0.0,
        loop_kind: load.loop_kind,
    };
    for it in running {
        it.control.stop(Duration::ZERO);
        let (result, thread) = it.thread.join().expect("a load thread does not panic");
        result?;
        outcome.reads += &thread.reads;
        outcome.writes += &thread.writes;
        outcome.connections_lost += thread.lost;
        for (code, count) in thread.errors {
            *outcome.errors.entry(code).or_default() += count;
        }
    }
    let (begin, end) = measured.map_err(|error| match error {
        BenchError::ConnectionsLost(_) => {
            let seen: Vec<String> = outcome
                .errors
                .keys()
                .copied()
                .map(Outcome::error_name)
                .collect();
            let seen = if seen.is_empty() {
                "none".to_owned()
            } else {
                seen.join(", ")
            };
            BenchError::ConnectionsLost(seen)
        }
        error => error,
    })?;
    outcome.operations = end.completed - begin.completed;
    outcome.elapsed = end.at - begin.at;
    outcome.client_cpu_seconds = end.client_cpu - begin.client_cpu;
    outcome.server_cpu_seconds = end
        .server_cpu
        .zip(begin.server_cpu)
        .map(|(end, begin)| end - begin);
    Ok(outcome)
}

/// Connects everything, then starts the threads.
fn start(address: SocketAddr, load: &Load, shared: &Arc<Run>) -> Result<Vec<Running>, BenchError> {
    let mut sockets: Vec<Vec<(OwnedFd, SocketAddr)>> = Vec::new();
    sockets.resize_with(load.threads as usize, Vec::new);
    for number in 0..load.connections as usize {
        let stream = TcpStream::connect(address)
            .map_err(|source| BenchError::Connect { address, source })?;
        sockets[number % load.threads as usize].push((stream.into(), address));
    }
    let mut running = Vec::new();
    for (number, sockets) in sockets.into_iter().enumerate() {
        let control = LoopControl::new()?;
        let progress = Arc::new(Progress::default());
        let config = LoopConfig {
            kind: load.loop_kind,
            connections_max: load.connections as usize,
            tick: RATE_TICK,
            ..LoopConfig::default()
        };
        let mut handler = Thread {
            run: shared.clone(),
            progress: progress.clone(),
            waker: control.waker(),
            random: Random::new(load.seed.wrapping_add(number as u64 * 0x1000_0001)),
            awaited: 0,
            pace: load.rate.map(|rate| Pace {
                next: Instant::now(),
                interval: Duration::from_secs_f64(f64::from(load.threads) / rate as f64),
            }),
            slots: Vec::with_capacity(sockets.len()),
            free: VecDeque::with_capacity(sockets.len()),
            sockets,
            reads: histogram(),
            writes: histogram(),
            errors: BTreeMap::new(),
            lost: 0,
        };
        let inside = control.clone();
        let thread = std::thread::Builder::new()
            .name(format!("load-{number}"))
            .spawn(move || {
                let result = net::run(config, &inside, &mut handler);
                (result, handler)
            })?;
        control.waker().wake();
        running.push(Running {
            control,
            progress,
            thread,
        });
    }
    Ok(running)
}

fn measure(
    load: &Load,
    shared: &Run,
    running: &[Running],
    warmup: Duration,
    mark: &dyn Fn() -> Mark,
) -> Result<(Mark, Mark), BenchError> {
    let mut watch = Watch::new(load.progress);
    let opened = Instant::now();
    let mut begin = mark();
    if !warmup.is_zero() {
        watch.until(opened + warmup, "warm-up", running)?;
        begin = mark();
        shared.phase.store(MEASURE, Ordering::Relaxed);
    } else {
        // Every operation counts, also those that were done while the threads started.
        begin.completed = 0;
    }
    match load.extent {
        Extent::Time(duration) => watch.until(begin.at + duration, "measuring", running)?,
        Extent::Operations(_) | Extent::EachKeyOnce => {
            watch.until_idle(begin.completed, shared.begun_max, running)?;
        }
    }
    let end = mark();
    watch.clear();
    Ok((begin, end))
}

/// Waits with an eye on the threads and a line of progress.
struct Watch {
    visible: bool,
    shown: bool,
    shown_at: Instant,
    completed: u64,
    changed_at: Instant,
}

impl Watch {
    fn new(visible: bool) -> Self {
        let now = Instant::now();
        Self {
            visible,
            shown: false,
            shown_at: now,
            completed: 0,
            changed_at: now,
        }
    }

    fn until(
        &mut self,
        deadline: Instant,
        what: &str,
        running: &[Running],
    ) -> Result<(), BenchError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
            self.look(running, &|rate| format!("{what} {rate:.0} operations/s"))?;
        }
    }

    fn until_idle(
        &mut self,
        completed_before: u64,
        count: u64,
        running: &[Running],
    ) -> Result<(), BenchError> {
        loop {
            let completed = self.completed;
            self.look(running, &|rate| {
                let done = completed.saturating_sub(completed_before);
                format!("{done} of {count}, {rate:.0} operations/s")
            })?;
            // A thread that lost all its connections is idle too; the outcome tells.
            if running
                .iter()
                .all(|it| it.progress.idle.load(Ordering::Acquire))
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn look(
        &mut self,
        running: &[Running],
        line: &dyn Fn(f64) -> String,
    ) -> Result<(), BenchError> {
        let now = Instant::now();
        let sum = |field: fn(&Progress) -> &AtomicU64| -> u64 {
            running
                .iter()
                .map(|it| field(&it.progress).load(Ordering::Relaxed))
                .sum()
        };
        let completed = sum(|progress| &progress.completed);
        if now - self.shown_at >= Duration::from_millis(500) {
            let rate = (completed - self.completed) as f64 / (now - self.shown_at).as_secs_f64();
            if self.visible {
                eprint!("\r\x1b[K{}", line(rate));
                self.shown = true;
            }
            if completed != self.completed {
                self.changed_at = now;
            }
            self.completed = completed;
            self.shown_at = now;
            // A load never closes its own connections: without any, the server did.
            if sum(|progress| &progress.open) == 0 {
                self.clear();
                return Err(BenchError::ConnectionsLost(String::new()));
            }
        }
        if now - self.changed_at >= STALL {
            self.clear();
            let seconds = STALL.as_secs();
            return Err(BenchError::Stalled {
                seconds,
                operations: completed,
            });
        }
        Ok(())
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.clear();
    }
}
