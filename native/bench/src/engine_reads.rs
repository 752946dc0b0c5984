//! The engine's part of a record read: a namespace in a file, read through a network loop that has
//! no connections. A request is parsed, looked up, read from the device by the loop's own ring,
//! checked and answered as a service thread does it; only the sockets are missing.
//!
//! Fills the namespace and says so in a line. Each line on standard input, a queue depth and
//! seconds, is then a measurement, and is answered by a line of JSON: so it can take turns with
//! others in one run.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use perigee_engine::clock::HybridClock;
use perigee_engine::config::NamespaceConfig;
use perigee_engine::index::Location;
use perigee_engine::namespace::Namespace;
use perigee_engine::progress::OpenProgress;
use perigee_engine::request::{Outcome, Request};
use perigee_engine::storage::{CommitSink, CommitWaiter, DeviceError};
use perigee_service::net::{self, ConnId, Consumed, Handler, LoopConfig, LoopControl, Net, Reads};
use perigee_wire::{Message, PARTITIONS, PROTO_HEADER_BYTES, ResultCode};
use serde::Serialize;

use crate::cpu;
use crate::error::BenchError;
use crate::frames::{Frames, RESULT_AT, Random, Verb};
use crate::load::histogram;
use crate::options::EngineReadsOptions;
use crate::report::Latency;

/// How long a write that the device was not ready for waits.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(1);

/// Keys in a row that may be found in memory: those in the write block that is being filled are.
const TRIES_MAX: usize = 1000;

#[derive(Serialize)]
struct Filled {
    keys: u64,
}

#[derive(Serialize)]
struct Measured {
    depth: usize,
    operations_per_second: f64,
    read_latency_us: Option<Latency>,
    cpu_seconds_per_million: f64,
}

pub fn run(options: &EngineReadsOptions) -> Result<(), BenchError> {
    let failed = |what: String| BenchError::Device {
        path: options.path.clone(),
        what,
    };
    let frames = Frames::new(&options.common.frame_shape())?;
    let namespace = open(options)?;
    fill(&namespace, &frames).map_err(failed)?;
    let mut stdout = io::stdout().lock();
    let keys = frames.keys;
    writeln!(stdout, "{}", serde_json::to_string(&Filled { keys })?)?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let Some((depth, seconds)) = parse(&line) else {
            let what = format!("a queue depth and seconds are expected, not {line:?}");
            return Err(BenchError::Option(what));
        };
        let measured = measure(&namespace, &frames, &options.common, depth, seconds)?;
        let measured = measured.map_err(failed)?;
        writeln!(stdout, "{}", serde_json::to_string(&measured)?)?;
    }
    namespace.store.close();
    Ok(())
}

fn parse(line: &str) -> Option<(usize, Duration)> {
    let (depth, seconds) = line.split_once(' ')?;
    let seconds = Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
    Some((depth.parse().ok()?, seconds)).filter(|(depth, _)| *depth > 0)
}

struct NobodyWaits;

impl CommitSink for NobodyWaits {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {
        unreachable!("no write asked for a commit")
    }
}

/// A new namespace without caches.
fn open(options: &EngineReadsOptions) -> Result<Arc<Namespace>, BenchError> {
    let failed = |what: String| BenchError::Device {
        path: options.path.clone(),
        what,
    };
    if options.path.exists() {
        return Err(failed("it exists already".to_owned()));
    }
    let config: NamespaceConfig = serde_json::from_value(serde_json::json!({
        "name": options.common.namespace, "replication-factor": 1, "default-ttl": 0, "nsup-period": 0,
        "allow-ttl-without-nsup": true, "max-record-size": 1 << 20, "default-read-touch-ttl-pct": 0,
        "stop-writes-used-pct": 0, "stop-writes-avail-pct": 0, "stop-writes-sys-memory-pct": 0,
        "indexes-memory-budget": 0, "evict-used-pct": 0, "evict-indexes-memory-pct": 0, "evict-tenths-pct": 5,
        "evict-hist-buckets": 10000, "tomb-raider-eligible-age": 86400, "tomb-raider-period": 0, "sets": [],
        "storage-engine": {
            "type": "device", "files": [options.path], "filesize": options.file_size, "post-write-cache": 0,
        },
    }))?;
    let clock = Arc::new(HybridClock::new());
    let opened = Namespace::open(config, clock, Vec::new(), 20, &OpenProgress::default());
    let (namespace, _) = opened.map_err(|error| failed(error.to_string()))?;
    namespace.set_ownership(1, &[0xff; PARTITIONS / 8]);
    namespace.start(Arc::new(NobodyWaits));
    Ok(namespace)
}

/// Runs the request in `frame` and appends its reply to `out`.
fn execute(
    namespace: &Namespace,
    frame: &[u8],
    copy: Option<perigee_engine::device_copy::DeviceCopy<'_>>,
    out: &mut Vec<u8>,
) -> Outcome {
    let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a frame of our own");
    let digest = message.digest.expect("frames name records by digest");
    let request = Request {
        copy,
        ..Request::new(&message, digest)
    };
    namespace.execute(&request, out)
}

/// Writes every key once.
fn fill(namespace: &Namespace, frames: &Frames) -> Result<(), String> {
    let (mut frame, mut out) = (Vec::new(), Vec::new());
    for key in 0..frames.keys {
        frame.clear();
        frames.append(Verb::Write, key, &mut frame);
        loop {
            out.clear();
            execute(namespace, &frame, None, &mut out);
            match ResultCode::from_u8(out[RESULT_AT]) {
                Some(ResultCode::Ok) => break,
                Some(ResultCode::DeviceOverload) => std::thread::sleep(OVERLOAD_PAUSE),
                code => return Err(format!("a write was answered {code:?}")),
            }
        }
    }
    namespace.store.drain().map_err(|error| error.to_string())
}

fn measure(
    namespace: &Namespace,
    frames: &Frames,
    common: &crate::options::Common,
    depth: usize,
    time: Duration,
) -> Result<Result<Measured, String>, BenchError> {
    let control = LoopControl::new()?;
    let from = Instant::now() + common.warmup;
    let mut reader = Reader {
        namespace,
        frames,
        control: &control,
        random: Random::new(common.seed),
        slots: (0..depth).map(|_| Slot::default()).collect(),
        begin: Mark::at(from),
        end: Mark::at(from + time),
        reads: histogram(),
        failure: None,
    };
    let config = LoopConfig {
        kind: common.loop_name.kind(),
        ..LoopConfig::default()
    };
    control.waker().wake();
    net::run(config, &control, &mut reader)?;
    if let Some(failure) = reader.failure {
        return Ok(Err(failure));
    }
    let operations = reader.reads.len() as f64;
    let cpu_seconds = reader.end.cpu_seconds - reader.begin.cpu_seconds;
    Ok(Ok(Measured {
        depth,
        operations_per_second: operations / (reader.end.at - reader.begin.at).as_secs_f64(),
        read_latency_us: Latency::new(&reader.reads),
        cpu_seconds_per_million: cpu_seconds * 1e6 / operations,
    }))
}

/// An end of the measured interval: when it is due, and then when it was.
struct Mark {
    at: Instant,
    passed: bool,
    cpu_seconds: f64,
}

impl Mark {
    fn at(at: Instant) -> Mark {
        Mark {
            at,
            passed: false,
            cpu_seconds: 0.0,
        }
    }

    /// True from the first call on that comes when it is due.
    fn passes(&mut self, now: Instant) -> bool {
        if !self.passed && now >= self.at {
            (self.at, self.passed, self.cpu_seconds) = (now, true, cpu::own_seconds());
        }
        self.passed
    }
}

/// A request that is under way, as a parked one is kept.
#[derive(Default)]
struct Slot {
    frame: Vec<u8>,
    out: Vec<u8>,
    asked: Option<(Location, Instant)>,
}

/// Keeps one read for each slot under way. A read's token is its slot's number.
struct Reader<'a> {
    namespace: &'a Namespace,
    frames: &'a Frames,
    control: &'a LoopControl,
    random: Random,
    slots: Vec<Slot>,
    begin: Mark,
    end: Mark,
    reads: Histogram<u64>,
    failure: Option<String>,
}

impl Reader<'_> {
    fn fail(&mut self, failure: String) {
        self.failure = Some(failure);
        self.control.stop(Duration::ZERO);
    }

    fn ask(&mut self, token: usize, now: Instant, reads: &mut Reads) {
        let slot = &mut self.slots[token];
        for _ in 0..TRIES_MAX {
            slot.frame.clear();
            slot.out.clear();
            let key = self.random.below(self.frames.keys);
            self.frames.append(Verb::Read, key, &mut slot.frame);
            let outcome = execute(self.namespace, &slot.frame, None, &mut slot.out);
            if let Outcome::ReadDevice(location) = outcome {
                reads.submit(self.namespace.store.record_read(location), token as u64);
                slot.asked = Some((location, now));
                return;
            }
        }
        self.fail("the records are not read from the device".to_owned());
    }
}

impl Handler for Reader<'_> {
    fn on_input(
        &mut self,
        _conn: ConnId,
        _input: &[u8],
        _output: &mut Vec<u8>,
        _reads: &mut Reads,
    ) -> Consumed {
        unreachable!("a loop without a listener has no connections")
    }

    fn on_wake(&mut self, net: &mut dyn Net) {
        let now = Instant::now();
        for token in 0..self.slots.len() {
            if self.slots[token].asked.is_none() {
                self.ask(token, now, net.reads());
            }
        }
    }

    fn on_read(&mut self, token: u64, pages: &[u8], outcome: io::Result<()>, net: &mut dyn Net) {
        let token = token as usize;
        let slot = &mut self.slots[token];
        let (location, asked) = slot.asked.take().expect("a read that was asked for");
        let copy = match self.namespace.finish_read(location, pages, outcome) {
            Ok(copy) => copy,
            Err(unread) => return self.fail(unread.reason),
        };
        execute(self.namespace, &slot.frame, Some(copy), &mut slot.out);
        let code = slot.out.get(RESULT_AT).copied();
        if code != Some(ResultCode::Ok as u8) {
            return self.fail(format!("a read was answered {code:?}"));
        }
        let now = Instant::now();
        if self.end.passes(now) {
            return self.control.stop(Duration::ZERO);
        }
        if self.begin.passes(now) {
            self.reads
                .saturating_record((now - asked).as_nanos() as u64);
        }
        self.ask(token, now, net.reads());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_a_depth_and_seconds() {
        assert_eq!(parse("16 0.5"), Some((16, Duration::from_millis(500))));
        for wrong in ["", "16", "0 1", "-1 1", "1 -1", "1 nan", "1 2 3"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
