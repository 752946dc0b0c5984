//! Sends requests over many connections and times the replies.
//!
//! A thread is a [`Handler`](perigee_service::net::Handler) on a network loop: each reply is timed,
//! counted, and followed by the connection's next request. The main thread only marks the phases
//! and reads the counters, so that the measured interval has sharp ends on all threads.

mod thread;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use perigee_service::net::{self, LoopConfig, LoopControl, LoopKind};
use perigee_wire::ResultCode;

use crate::cpu;
use crate::error::BenchError;
use crate::frames::{Frames, Random};
use crate::options::Common;
use crate::streams::{Stream, StreamNames};
use thread::{Pace, RATE_TICK, Thread};
use watch::Watch;

const LATENCY_NS_MIN: u64 = 1_000;
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// How long the last replies are waited for.
const LAST_REPLIES: Duration = Duration::from_secs(2);

const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// When a run has enough.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    Time(Duration),
    Operations(u64),
    /// Keys in order instead of random ones. What the device is not ready for is sent again.
    EachKeyOnce,
}

#[derive(Clone, Debug)]
pub struct Load {
    pub reads_percent: u8,
    /// Requests that are answered with many records, instead of reads and writes.
    pub stream: Option<(Stream, StreamNames)>,
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
            stream: None,
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

    /// Writes all keys, in order.
    pub fn each_key_once(common: &Common) -> Self {
        Self {
            extent: Extent::EachKeyOnce,
            ..Self::new(common, 0)
        }
    }
}

pub struct Outcome {
    pub operations: u64,
    /// Records of streams, while it was measured.
    pub records: u64,
    /// Writes that were sent again.
    pub overloads: u64,
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

    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }

    /// Processor time of the server for a million records of streams.
    pub fn server_cpu_seconds_per_million_records(&self) -> Option<f64> {
        self.server_cpu_seconds
            .map(|seconds| seconds * 1e6 / self.records as f64)
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
    stream: Option<(Stream, StreamNames)>,
}

/// What the main thread sees of one thread. Written by that thread only.
#[derive(Default)]
struct Progress {
    completed: AtomicU64,
    /// Nothing is awaited and nothing will be sent.
    idle: AtomicBool,
    open: AtomicU64,
}

/// Latencies in nanoseconds, from a microsecond to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 3).expect("valid bounds")
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
        stream: load.stream.clone(),
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
        records: 0,
        overloads: 0,
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
        outcome.overloads += thread.overloads;
        outcome.records += thread.records;
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
            resting: Vec::new(),
            overloads: 0,
            records: 0,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::FrameShape;
    use perigee_service::net::{ConnId, Consumed, Handler, Net, Reads};
    use perigee_wire::{PROTO_HEADER_BYTES, ReplyWriter, parse_proto_header};
    use std::collections::HashSet;
    use std::net::TcpListener;

    /// Is not ready for a frame when it comes for the first time.
    #[derive(Default)]
    struct Behind {
        seen: HashSet<Vec<u8>>,
    }

    impl Handler for Behind {
        fn on_input(
            &mut self,
            _conn: ConnId,
            input: &[u8],
            output: &mut Vec<u8>,
            _reads: &mut Reads,
        ) -> Consumed {
            let Ok(Some(header)) = parse_proto_header(input) else {
                return Consumed::more(0);
            };
            let end = PROTO_HEADER_BYTES + header.body_bytes;
            if input.len() < end {
                return Consumed::more(0);
            }
            let code = match self.seen.insert(input[..end].to_vec()) {
                true => ResultCode::DeviceOverload,
                false => ResultCode::Ok,
            };
            ReplyWriter::begin(output).finish(code, 1, 0);
            Consumed::more(end)
        }

        fn on_wake(&mut self, _net: &mut dyn Net) {}
    }

    #[test]
    fn key_that_the_device_was_not_ready_for_is_written_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let control = LoopControl::new().unwrap();
        let inside = control.clone();
        let server = std::thread::spawn(move || {
            let config = LoopConfig {
                listener: Some(listener),
                ..LoopConfig::default()
            };
            let mut behind = Behind::default();
            net::run(config, &inside, &mut behind).unwrap();
            behind.seen.len()
        });
        let shape = FrameShape {
            namespace: "test",
            set: "bench",
            keys: 300,
            object_bytes: 10,
            bins: 1,
            with_integer: false,
            seed: 1,
        };
        let load = Load {
            reads_percent: 0,
            stream: None,
            extent: Extent::EachKeyOnce,
            warmup: Duration::ZERO,
            connections: 4,
            threads: 2,
            rate: None,
            seed: 1,
            loop_kind: LoopKind::Auto.resolve(),
            progress: false,
        };
        let frames = Arc::new(Frames::new(&shape).unwrap());
        let outcome = run(address, &frames, &load, None).unwrap();
        assert!(outcome.is_clean(), "{:?}", outcome.errors);
        assert_eq!((outcome.operations, outcome.overloads), (300, 300));
        control.stop(Duration::ZERO);
        assert_eq!(server.join().unwrap(), 300, "no key was left out");
    }
}
