//! Sends requests over many connections and times the replies.
//!
//! A thread is a [`Handler`](perigee_service::net::Handler) on a network loop: each reply is timed,
//! counted, and followed by the connection's next request. The main thread only marks the phases
//! and reads the counters, so that the measured interval has sharp ends on all threads.

mod outcome;
mod thread;
mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use perigee_service::net::{self, LoopConfig, LoopControl, LoopKind};

use crate::cpu;
use crate::error::BenchError;
use crate::frames::{Frames, Random, Verb};
use crate::options::Common;
use crate::streams::{Stream, StreamNames};
use outcome::Samples;
pub use outcome::{Outcome, histogram};
use thread::{Pace, RATE_TICK, Thread};
use watch::Watch;

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

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Work {
    /// Reads and writes of records.
    Mix { reads_percent: u8 },
    /// Requests that are answered with many records.
    Stream(Stream, StreamNames),
    /// The same on every key.
    Only(Verb),
}

#[derive(Clone, Debug)]
pub struct Load {
    /// Each is warmed up and measured, one after the other on the same connections. At least one.
    pub works: Vec<Work>,
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
            works: vec![Work::Mix { reads_percent }],
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

/// Where a run is: which of its works is carried out, and whether it is measured. One word, which threads look at before
/// each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase(u32);

impl Phase {
    const END: Phase = Phase(u32::MAX);

    fn warmup(work: usize) -> Phase {
        Phase((work as u32) << 1)
    }

    fn measure(work: usize) -> Phase {
        Phase((work as u32) << 1 | 1)
    }

    fn is_measured(self) -> bool {
        self.0 & 1 != 0 && self != Phase::END
    }

    fn work(self) -> usize {
        (self.0 >> 1) as usize
    }
}

/// What all threads see.
struct Run {
    frames: Arc<Frames>,
    phase: AtomicU32,
    /// Requests begun while their number counts.
    begun: AtomicU64,
    begun_max: u64,
    in_order: bool,
    works: Vec<Work>,
}

impl Run {
    fn phase(&self) -> Phase {
        Phase(self.phase.load(Ordering::Relaxed))
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase.0, Ordering::Relaxed);
    }
}

/// What the main thread sees of one thread. Written by that thread only.
#[derive(Default)]
struct Progress {
    completed: AtomicU64,
    /// Nothing is awaited and nothing will be sent.
    idle: AtomicBool,
    open: AtomicU64,
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

/// Runs a load with one work against `address`: warm-up, measurement, last replies.
pub fn run(
    address: SocketAddr,
    frames: &Arc<Frames>,
    load: &Load,
    server_pid: Option<u32>,
) -> Result<Outcome, BenchError> {
    let outcomes = run_each(address, frames, load, server_pid, &|_, _| ())?;
    Ok(outcomes.into_iter().next().expect("a load has a work"))
}

/// Runs the works of a load one after the other on the same connections; an outcome each. `done` is told of each how many
/// operations a second there were.
pub fn run_each(
    address: SocketAddr,
    frames: &Arc<Frames>,
    load: &Load,
    server_pid: Option<u32>,
    done: &dyn Fn(usize, f64),
) -> Result<Vec<Outcome>, BenchError> {
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
        phase: AtomicU32::new(first_phase(warmup).0),
        begun: AtomicU64::new(0),
        begun_max,
        in_order,
        works: load.works.clone(),
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
    let measured = measure(load, &shared, &running, warmup, &mark, done);
    shared.enter(Phase::END);
    for it in &running {
        it.control.waker().wake();
    }
    let deadline = Instant::now() + LAST_REPLIES;
    let idle = |it: &Running| it.progress.idle.load(Ordering::Acquire);
    while !running.iter().all(idle) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    outcomes.resize_with(load.works.len(), || Outcome::empty(load.loop_kind));
    for it in running {
        it.control.stop(Duration::ZERO);
        let (result, thread) = it.thread.join().expect("a load thread does not panic");
        result?;
        for (outcome, samples) in outcomes.iter_mut().zip(thread.samples) {
            outcome.add(samples);
        }
    }
    let marks = measured.map_err(|error| match error {
        BenchError::ConnectionsLost(_) => {
            let codes = outcomes.iter().flat_map(|outcome| outcome.errors.keys());
            let seen: BTreeSet<String> = codes.copied().map(Outcome::error_name).collect();
            let seen = if seen.is_empty() {
                "none".to_owned()
            } else {
                seen.into_iter().collect::<Vec<_>>().join(", ")
            };
            BenchError::ConnectionsLost(seen)
        }
        error => error,
    })?;
    for (outcome, (begin, end)) in outcomes.iter_mut().zip(marks) {
        outcome.operations = end.completed - begin.completed;
        outcome.elapsed = end.at - begin.at;
        outcome.client_cpu_seconds = end.client_cpu - begin.client_cpu;
        outcome.server_cpu_seconds = end
            .server_cpu
            .zip(begin.server_cpu)
            .map(|(end, begin)| end - begin);
    }
    Ok(outcomes)
}

fn first_phase(warmup: Duration) -> Phase {
    match warmup.is_zero() {
        true => Phase::measure(0),
        false => Phase::warmup(0),
    }
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
            samples: vec![Samples::new()],
            awaited: 0,
            pace: load.rate.map(|rate| Pace {
                next: Instant::now(),
                interval: Duration::from_secs_f64(f64::from(load.threads) / rate as f64),
            }),
            slots: Vec::with_capacity(sockets.len()),
            free: VecDeque::with_capacity(sockets.len()),
            sockets,
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
    done: &dyn Fn(usize, f64),
) -> Result<Vec<(Mark, Mark)>, BenchError> {
    let mut watch = Watch::new(load.progress);
    let mut marks = Vec::new();
    for work in 0..load.works.len() {
        let opened = Instant::now();
        let mut begin = mark();
        if !warmup.is_zero() {
            shared.enter(Phase::warmup(work));
            watch.until(opened + warmup, "warm-up", running)?;
            begin = mark();
        } else if work == 0 {
            // Every operation counts, also those that were done while the threads started.
            begin.completed = 0;
        }
        shared.enter(Phase::measure(work));
        match load.extent {
            Extent::Time(duration) => watch.until(begin.at + duration, "measuring", running)?,
            Extent::Operations(_) | Extent::EachKeyOnce => {
                watch.until_idle(begin.completed, shared.begun_max, running)?;
            }
        }
        let end = mark();
        watch.clear();
        let seconds = (end.at - begin.at).as_secs_f64();
        done(work, (end.completed - begin.completed) as f64 / seconds);
        marks.push((begin, end));
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::FrameShape;
    use perigee_service::net::{ConnId, Consumed, Handler, Net, Reads};
    use perigee_wire::{PROTO_HEADER_BYTES, ReplyWriter, ResultCode, parse_proto_header};
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

    fn shape() -> FrameShape<'static> {
        FrameShape {
            namespace: "test",
            set: "bench",
            keys: 300,
            object_bytes: 10,
            bins: 1,
            with_integer: false,
            seed: 1,
        }
    }

    fn load() -> Load {
        Load {
            works: vec![Work::Mix { reads_percent: 0 }],
            extent: Extent::EachKeyOnce,
            warmup: Duration::ZERO,
            connections: 4,
            threads: 2,
            rate: None,
            seed: 1,
            loop_kind: LoopKind::Auto.resolve(),
            progress: false,
        }
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
        let frames = Arc::new(Frames::new(&shape()).unwrap());
        let outcome = run(address, &frames, &load(), None).unwrap();
        assert!(outcome.is_clean(), "{:?}", outcome.errors);
        assert_eq!((outcome.operations, outcome.overloads), (300, 300));
        control.stop(Duration::ZERO);
        assert_eq!(server.join().unwrap(), 300, "no key was left out");
    }

    /// Answers everything with OK, and counts the connections.
    #[derive(Default)]
    struct Content {
        opened: usize,
    }

    impl Handler for Content {
        fn on_open(&mut self, _conn: ConnId, _peer: SocketAddr) {
            self.opened += 1;
        }

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
            ReplyWriter::begin(output).finish(ResultCode::Ok, 1, 0);
            Consumed::more(end)
        }

        fn on_wake(&mut self, _net: &mut dyn Net) {}
    }

    #[test]
    fn works_follow_one_another_on_the_same_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let control = LoopControl::new().unwrap();
        let inside = control.clone();
        let server = std::thread::spawn(move || {
            let config = LoopConfig {
                listener: Some(listener),
                ..LoopConfig::default()
            };
            let mut content = Content::default();
            net::run(config, &inside, &mut content).unwrap();
            content.opened
        });
        let frames = Arc::new(Frames::new(&shape()).unwrap());
        let reads_percent = [0, 100, 0];
        let load = Load {
            works: reads_percent
                .map(|reads_percent| Work::Mix { reads_percent })
                .into(),
            extent: Extent::Time(Duration::from_millis(30)),
            warmup: Duration::from_millis(10),
            ..load()
        };
        let outcomes = run_each(address, &frames, &load, None, &|_, _| ()).unwrap();
        control.stop(Duration::ZERO);
        assert_eq!(server.join().unwrap(), 4);
        assert_eq!(outcomes.len(), 3);
        for (outcome, reads_percent) in outcomes.iter().zip(reads_percent) {
            assert!(outcome.is_clean() && outcome.operations > 0);
            let (counted, others) = match reads_percent {
                0 => (&outcome.writes, &outcome.reads),
                _ => (&outcome.reads, &outcome.writes),
            };
            assert!(!counted.is_empty());
            assert!(others.is_empty(), "each work has its own samples");
        }
    }
}
