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
mod error;
mod frames;
mod limit;
mod load;
mod options;
mod report;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::error::BenchError;
use crate::frames::Frames;
use crate::load::{Extent, Load};
use crate::options::{Cli, Command, Common};
use crate::report::Report;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Insert(common) => insert(common),
        Command::Mix { common, reads } => timed("mix", common, *reads),
        Command::Read(common) => timed("read", common, 100),
        Command::Write(common) => timed("write", common, 0),
        Command::Limit {
            common,
            server,
            rounds,
        } => limit::run(common, *server, *rounds),
        Command::Act(options) => act::run(options),
        Command::Echo(echo) => echo::serve(echo).map(|()| true),
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
    let load = Load {
        extent: Extent::EachKeyOnce,
        ..Load::new(common, 0)
    };
    print("insert", common, &load)
}

fn timed(name: &'static str, common: &Common, reads_percent: u8) -> Result<bool, BenchError> {
    print(name, common, &Load::new(common, reads_percent))
}

/// Runs and prints; false when some requests failed.
fn print(name: &'static str, common: &Common, load: &Load) -> Result<bool, BenchError> {
    let address = common.address()?;
    let frames = Arc::new(Frames::new(&common.frame_shape())?);
    let server_pid = common.server_pid.or_else(|| cpu::listening_pid(address));
    let outcome = load::run(address, &frames, load, server_pid)?;
    let report = Report::new(name, address, common, server_pid, &outcome);
    if common.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(outcome.is_clean())
}
