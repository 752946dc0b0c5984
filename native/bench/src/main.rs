//! `perigee-bench`: load on one host that speaks the protocol, and how far that host is from what
//! the loopback and the network loops allow.
//!
//! A connection has one request in flight. Requests are prepared frames in which only the digest
//! changes, and all connections of a thread share one network loop, so that the generator leaves
//! the processors to the server. `act` is for storage what the rest is for a host: it puts the
//! engine's load on a device without an engine.

mod act;
mod cpu;
mod echo;
mod engine_reads;
mod error;
mod frames;
mod limit;
mod load;
mod options;
mod report;
mod streams;
mod udf;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::error::BenchError;
use crate::frames::{FrameShape, Frames};
use crate::load::{Load, Outcome, Work};
use crate::options::{Cli, Command, Common};
use crate::report::Report;
use crate::streams::{Stream, StreamNames, make_index};

/// Whoever starts the program may name itself here; the program ends when that process does.
const PARENT: &str = "PERIGEE_PARENT";

/// Has the kernel send SIGTERM when the parent ends. False if it is gone already.
fn end_with_parent() -> bool {
    let named = std::env::var(PARENT).ok().and_then(|pid| pid.parse().ok());
    let Some(parent): Option<u32> = named else {
        return true;
    };
    // SAFETY: it takes numbers only, and concerns this process alone.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) };
    std::os::unix::process::parent_id() == parent
}

fn main() -> ExitCode {
    if !end_with_parent() {
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Insert(common) => insert(common),
        Command::Ingest(common) => ingest(common),
        Command::Mix {
            common,
            reads,
            preload,
        } => timed("mix", common, *reads, *preload),
        Command::Read { common, preload } => timed("read", common, 100, *preload),
        Command::Write { common, preload } => timed("write", common, 0, *preload),
        Command::Batch {
            common,
            rows,
            preload,
        } => stream("batch", common, &Stream::Batch { rows: *rows }, *preload),
        Command::Query {
            common,
            records,
            preload,
        } => {
            let records = (*records).min(common.keys());
            stream("query", common, &Stream::Query { records }, *preload)
        }
        Command::Udf(options) => udf::run(options),
        Command::Limit {
            common,
            server,
            rounds,
        } => limit::run(common, *server, *rounds),
        Command::Act(options) => act::run(options),
        Command::Echo(echo) => echo::serve(echo).map(|()| true),
        Command::EngineReads(options) => engine_reads::run(options).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        // Results were printed, with the errors in them.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("perigee-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn insert(common: &Common) -> Result<bool, BenchError> {
    let frames = Arc::new(Frames::new(&common.frame_shape())?);
    print("insert", common, &frames, &Load::each_key_once(common))
}

fn ingest(common: &Common) -> Result<bool, BenchError> {
    let common = common.for_ingest();
    let frames = Arc::new(Frames::new(&common.frame_shape())?);
    print("ingest", &common, &frames, &Load::each_key_once(&common))
}

fn timed(
    name: &'static str,
    common: &Common,
    reads_percent: u8,
    preload: bool,
) -> Result<bool, BenchError> {
    let frames = Arc::new(Frames::new(&common.frame_shape())?);
    if preload {
        write_all(common, &frames)?;
    }
    print(name, common, &frames, &Load::new(common, reads_percent))
}

/// Requests that are answered with many records.
fn stream(
    name: &'static str,
    common: &Common,
    stream: &Stream,
    preload: bool,
) -> Result<bool, BenchError> {
    let by_index = matches!(stream, Stream::Query { .. });
    let shape = FrameShape {
        with_integer: by_index,
        ..common.frame_shape()
    };
    let frames = Arc::new(Frames::new(&shape)?);
    if preload {
        write_all(common, &frames)?;
    }
    let names = StreamNames::of(common);
    if by_index {
        make_index(common.address()?, &names)?;
    }
    let load = Load {
        works: vec![Work::Stream(stream.clone(), names)],
        ..Load::new(common, 100)
    };
    print(name, common, &frames, &load)
}

/// Writes every key once.
pub(crate) fn write_all(common: &Common, frames: &Arc<Frames>) -> Result<(), BenchError> {
    let load = Load::each_key_once(common);
    let outcome = load::run(common.address()?, frames, &load, None)?;
    if !outcome.is_clean() {
        let codes = outcome.errors.keys().copied().map(Outcome::error_name);
        return Err(BenchError::Preload(codes.collect::<Vec<_>>().join(", ")));
    }
    if !common.json {
        let (keys, seconds) = (common.keys(), outcome.elapsed.as_secs_f64());
        eprintln!("{keys} keys written in {seconds:.1} s");
    }
    Ok(())
}

/// Runs and prints; false when some requests failed.
fn print(
    name: &'static str,
    common: &Common,
    frames: &Arc<Frames>,
    load: &Load,
) -> Result<bool, BenchError> {
    let address = common.address()?;
    let server_pid = common.server_pid.or_else(|| cpu::listening_pid(address));
    let outcome = load::run(address, frames, load, server_pid)?;
    let report = Report::new(name, address, common, server_pid, &outcome);
    if common.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(outcome.is_clean())
}
