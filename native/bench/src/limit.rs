//! How far the server is from what its sockets cost: bare echo on both kinds of loop, and the
//! server, alternating in one run with the same frames. Medians and ratios are what to read;
//! absolute figures belong to the machine.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::cpu;
use crate::echo::EchoProcess;
use crate::error::BenchError;
use crate::frames::Frames;
use crate::load::{self, Load, Outcome};
use crate::options::{Common, LoopName};

const READS_PERCENT: u8 = 95;

struct Target {
    name: &'static str,
    address: SocketAddr,
    pid: Option<u32>,
    outcomes: Vec<Outcome>,
    /// Lives as long as it is measured.
    _process: Option<EchoProcess>,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    operations_per_second: f64,
    server_cpu_seconds_per_million: Option<f64>,
    client_cpu_seconds_per_million: f64,
    p50_us: f64,
    p99_us: f64,
    rounds_operations_per_second: Vec<f64>,
    rounds_server_cpu_seconds_per_million: Vec<Option<f64>>,
    errors: u64,
}

/// Of the server to one echo: above 1 is more.
#[derive(Serialize)]
struct Ratio {
    to: &'static str,
    operations_per_second: f64,
    server_cpu: Option<f64>,
}

#[derive(Serialize)]
struct LimitReport {
    command: &'static str,
    connections: u32,
    threads: u32,
    object_size: usize,
    read_frame_bytes: usize,
    write_frame_bytes: usize,
    read_reply_bytes: usize,
    write_reply_bytes: usize,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
}

pub fn run(common: &Common, server: bool, rounds: u8) -> Result<bool, BenchError> {
    let frames = Arc::new(Frames::new(&common.frame_shape())?);
    let mut targets = Vec::new();
    for (name, loop_name) in [
        ("echo io_uring", LoopName::IoUring),
        ("echo epoll", LoopName::Epoll),
    ] {
        match EchoProcess::start(loop_name, common, frames.write_frame_bytes()) {
            Ok(process) => targets.push(Target {
                name,
                address: process.address,
                pid: Some(process.pid()),
                outcomes: Vec::new(),
                _process: Some(process),
            }),
            // A kernel without it; the other is still a limit.
            Err(error) if loop_name == LoopName::IoUring => eprintln!("{name}: {error}"),
            Err(error) => return Err(error),
        }
    }
    if server || common.names_server() {
        let address = common.address()?;
        let pid = common.server_pid.or_else(|| cpu::listening_pid(address));
        load::run(address, &frames, &Load::each_key_once(common), pid)?;
        let outcomes = Vec::new();
        targets.push(Target {
            name: "server",
            address,
            pid,
            outcomes,
            _process: None,
        });
    }
    let load = Load::new(common, READS_PERCENT);
    for round in 1..=rounds {
        for target in &mut targets {
            let outcome = load::run(target.address, &frames, &load, target.pid)?;
            if !common.json {
                eprintln!(
                    "round {round}, {}: {:.0}/s",
                    target.name,
                    outcome.operations_per_second()
                );
            }
            target.outcomes.push(outcome);
        }
    }
    let rows: Vec<Row> = targets.iter().map(row).collect();
    let clean = rows.iter().all(|row| row.errors == 0);
    let report = LimitReport {
        command: "limit",
        connections: common.connections,
        threads: common.threads,
        object_size: common.object_bytes(),
        read_frame_bytes: frames.read_frame_bytes(),
        write_frame_bytes: frames.write_frame_bytes(),
        read_reply_bytes: frames.read_reply.len(),
        write_reply_bytes: frames.write_reply.len(),
        ratios: ratios(&rows),
        rows,
    };
    if common.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(clean)
}

fn row(target: &Target) -> Row {
    let of = |field: fn(&Outcome) -> f64| -> f64 {
        median(target.outcomes.iter().map(field).collect()).expect("there was a round")
    };
    let cpu = Outcome::server_cpu_seconds_per_million;
    Row {
        name: target.name,
        operations_per_second: of(Outcome::operations_per_second),
        server_cpu_seconds_per_million: median(target.outcomes.iter().filter_map(cpu).collect()),
        client_cpu_seconds_per_million: of(Outcome::client_cpu_seconds_per_million),
        p50_us: of(|outcome| outcome.reads.value_at_quantile(0.5) as f64 / 1e3),
        p99_us: of(|outcome| outcome.reads.value_at_quantile(0.99) as f64 / 1e3),
        rounds_operations_per_second: target
            .outcomes
            .iter()
            .map(Outcome::operations_per_second)
            .collect(),
        rounds_server_cpu_seconds_per_million: target.outcomes.iter().map(cpu).collect(),
        errors: target
            .outcomes
            .iter()
            .map(|it| it.errors.values().sum::<u64>())
            .sum(),
    }
}

/// The middle of an odd number of values, the mean of the two middle ones otherwise.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let Some(server) = rows.iter().find(|row| row.name == "server") else {
        return Vec::new();
    };
    let echoes = rows.iter().filter(|row| row.name != "server");
    echoes
        .map(|echo| Ratio {
            to: echo.name,
            operations_per_second: server.operations_per_second / echo.operations_per_second,
            server_cpu: server
                .server_cpu_seconds_per_million
                .zip(echo.server_cpu_seconds_per_million)
                .map(|(server, echo)| server / echo),
        })
        .collect()
}

fn print(report: &LimitReport) {
    println!(
        "{} connections, {} threads; reads {} -> {} bytes, writes {} -> {} bytes",
        report.connections,
        report.threads,
        report.read_frame_bytes,
        report.read_reply_bytes,
        report.write_frame_bytes,
        report.write_reply_bytes,
    );
    println!(
        "{:<14} {:>10} {:>16} {:>16} {:>9} {:>9}",
        "", "op/s", "server CPU s/M", "client CPU s/M", "p50 us", "p99 us"
    );
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), |it| format!("{it:.2}"));
    for row in &report.rows {
        println!(
            "{:<14} {:>10.0} {:>16} {:>16.2} {:>9.0} {:>9.0}",
            row.name,
            row.operations_per_second,
            optional(row.server_cpu_seconds_per_million),
            row.client_cpu_seconds_per_million,
            row.p50_us,
            row.p99_us,
        );
        if row.errors > 0 {
            println!("{:<14} {} errors", "", row.errors);
        }
    }
    for ratio in &report.ratios {
        let cpu = optional(ratio.server_cpu);
        println!(
            "server / {}: {:.2} of its operations/s, {cpu} times its CPU",
            ratio.to, ratio.operations_per_second
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_does_not_follow_an_outlier() {
        assert_eq!(median(vec![3.0, 1.0, 1000.0]), Some(3.0));
        assert_eq!(median(vec![2.0, 1.0]), Some(1.5));
        assert_eq!(median(vec![]), None);
    }
}
