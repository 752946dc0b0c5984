//! What a Lua function costs beside a plain write: both by turns on the same connections, so that the ratios belong to one
//! server in one hour. And what reads of others notice of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use serde::Serialize;

use crate::cpu;
use crate::error::BenchError;
use crate::frames::{FrameShape, Frames, INTEGER_BIN, Verb};
use crate::limit::median;
use crate::load::{self, Extent, Load, Outcome, Work};
use crate::options::UdfOptions;
use crate::streams::info;
use crate::write_all;

use perigee_wire::{RequestWriter, field, op, particle};

const MODULE: &str = "perigee_bench";
const SOURCE: &str = "\
function empty(rec)
end

function add(rec, bin, n)
  rec[bin] = (rec[bin] or 0) + n
  aerospike:update(rec)
  return rec[bin]
end
";

const TITLES: [&str; 3] = ["plain write", "empty function", "read, add, update"];
const ADD: usize = 2;

/// Of the capacity that was found, beside plain reads.
const BESIDE_SHARE: f64 = 0.5;
/// The calls go on for so much longer than the reads beside them.
const BESIDE_MARGIN: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Row {
    name: &'static str,
    operations_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    server_cpu_seconds_per_million: Option<f64>,
    client_cpu_seconds_per_million: f64,
    rounds_operations_per_second: Vec<f64>,
}

/// Of a function to the plain writes of the same round; medians.
#[derive(Serialize)]
struct Ratio {
    of: &'static str,
    operations_per_second: f64,
    server_cpu: Option<f64>,
}

/// Reads, and what calls did to them; medians.
#[derive(Serialize)]
struct Beside {
    reads_per_second: u64,
    calls_per_second: f64,
    alone_p50_us: f64,
    alone_p99_us: f64,
    beside_p50_us: f64,
    beside_p99_us: f64,
    p99_ratio: f64,
    /// Beside as many plain writes: what the load costs that is no Lua.
    beside_writes_p50_us: f64,
    beside_writes_p99_us: f64,
    rounds_alone_p99_us: Vec<f64>,
    rounds_beside_p99_us: Vec<f64>,
    rounds_beside_writes_p99_us: Vec<f64>,
}

#[derive(Serialize)]
struct UdfReport {
    command: &'static str,
    address: SocketAddr,
    connections: u32,
    threads: u32,
    keys: u64,
    object_size: usize,
    rounds: u8,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    beside: Option<Beside>,
    errors: BTreeMap<String, u64>,
    connections_lost: u64,
}

/// The module is on the node for as long as this lives.
struct Module {
    address: SocketAddr,
}

impl Module {
    fn put(address: SocketAddr) -> Result<Module, BenchError> {
        let content = BASE64.encode(SOURCE.as_bytes());
        let length = content.len();
        let put = format!(
            "udf-put:filename={MODULE}.lua;content={content};content-len={length};udf-type=LUA;"
        );
        let answer = info(address, &put)?;
        match answer.eq_ignore_ascii_case("ok") {
            true => Ok(Module { address }),
            false => Err(BenchError::Module(answer)),
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let remove = format!("udf-remove:filename={MODULE}.lua;");
        let answer = info(self.address, &remove);
        if !matches!(&answer, Ok(text) if text.eq_ignore_ascii_case("ok")) {
            eprintln!("{MODULE}.lua is still there: {answer:?}");
        }
    }
}

/// Runs and prints; false when some requests failed.
pub fn run(options: &UdfOptions) -> Result<bool, BenchError> {
    let common = &options.common;
    if common.rate.is_some() || common.operations.is_some() {
        let wrong = "udf measures by time, and as many operations as come back";
        return Err(BenchError::Option(wrong.to_owned()));
    }
    let address = common.address()?;
    let server_pid = common.server_pid.or_else(|| cpu::listening_pid(address));
    let object_bytes = common.object_size.unwrap_or(0);
    let mut frames = Frames::new(&FrameShape {
        object_bytes,
        bins: if object_bytes == 0 { 0 } else { common.bins },
        with_integer: true,
        ..common.frame_shape()
    })?;
    let verbs = add_requests(&mut frames);
    let frames = Arc::new(frames);
    write_all(common, &frames)?;
    let module = Module::put(address)?;

    let rounds = usize::from(options.rounds);
    let load = Load {
        works: verbs.repeat(rounds).into_iter().map(Work::Only).collect(),
        ..Load::new(common, 0)
    };
    let done = |work: usize, rate: f64| {
        if !common.json {
            let (round, title) = (work / verbs.len() + 1, TITLES[work % verbs.len()]);
            eprintln!("round {round}, {title}: {rate:.0}/s");
        }
    };
    let mut outcomes = load::run_each(address, &frames, &load, server_pid, &done)?;
    let of = |kind: usize| -> Vec<&Outcome> {
        outcomes.iter().skip(kind).step_by(verbs.len()).collect()
    };
    let rows: Vec<Row> = (0..verbs.len())
        .map(|kind| row(TITLES[kind], &of(kind)))
        .collect();
    let ratios = (1..verbs.len())
        .map(|kind| ratio(TITLES[kind], &of(kind), &of(0)))
        .collect();
    let beside = match options.beside {
        true => {
            let rate = (rows[ADD].operations_per_second * BESIDE_SHARE) as u64;
            let run = BesideRun {
                address,
                frames: &frames,
                options,
                write: verbs[0],
                call: verbs[ADD],
                rate: rate.max(1),
            };
            let (beside, more) = run.measure()?;
            outcomes.extend(more);
            Some(beside)
        }
        false => None,
    };
    drop(module);

    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    for (code, count) in outcomes.iter().flat_map(|outcome| &outcome.errors) {
        *errors.entry(Outcome::error_name(*code)).or_default() += count;
    }
    let report = UdfReport {
        command: "udf",
        address,
        connections: common.connections,
        threads: common.threads,
        keys: common.keys(),
        object_size: object_bytes,
        rounds: options.rounds,
        rows,
        ratios,
        beside,
        errors,
        connections_lost: outcomes
            .iter()
            .map(|outcome| outcome.connections_lost)
            .sum(),
    };
    if common.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(outcomes.iter().all(Outcome::is_clean))
}

/// A plain write of the integer, a call of `empty`, one of `add`.
fn add_requests(frames: &mut Frames) -> [Verb; 3] {
    let mut call = |function: &str, arguments: &[u8]| {
        frames.add(|request: &mut RequestWriter<'_>| {
            request.field(field::UDF_MODULE, MODULE.as_bytes());
            request.field(field::UDF_FUNCTION, function.as_bytes());
            request.field(field::UDF_ARGS, arguments);
        })
    };
    let empty = call("empty", &[0x90]);
    // A list of a string, which has its particle type with it, and 1.
    let mut arguments = vec![0x92, 0xa0 | (INTEGER_BIN.len() as u8 + 1), particle::STRING];
    arguments.extend(INTEGER_BIN.as_bytes());
    arguments.push(1);
    let add = call("add", &arguments);
    let write = frames.add(|request| {
        let (name, value) = (INTEGER_BIN.as_bytes(), 1u64.to_be_bytes());
        request.op(op::WRITE, particle::INTEGER, name, &value);
    });
    [write, empty, add]
}

fn of_rounds(outcomes: &[&Outcome], field: impl Fn(&Outcome) -> f64) -> f64 {
    median(outcomes.iter().map(|outcome| field(outcome)).collect()).expect("there was a round")
}

fn row(name: &'static str, outcomes: &[&Outcome]) -> Row {
    let quantile = |quantile: f64| {
        of_rounds(outcomes, |it| {
            it.writes.value_at_quantile(quantile) as f64 / 1e3
        })
    };
    let server_cpu = outcomes
        .iter()
        .filter_map(|it| it.server_cpu_seconds_per_million());
    Row {
        name,
        operations_per_second: of_rounds(outcomes, Outcome::operations_per_second),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        server_cpu_seconds_per_million: median(server_cpu.collect()),
        client_cpu_seconds_per_million: of_rounds(
            outcomes,
            Outcome::client_cpu_seconds_per_million,
        ),
        rounds_operations_per_second: outcomes
            .iter()
            .map(|it| it.operations_per_second())
            .collect(),
    }
}

fn ratio(of: &'static str, outcomes: &[&Outcome], plain: &[&Outcome]) -> Ratio {
    let pairs = || outcomes.iter().zip(plain);
    let rates =
        pairs().map(|(it, plain)| it.operations_per_second() / plain.operations_per_second());
    let server_cpu = pairs().filter_map(|(it, plain)| {
        let plain = plain.server_cpu_seconds_per_million()?;
        Some(it.server_cpu_seconds_per_million()? / plain)
    });
    Ratio {
        of,
        operations_per_second: median(rates.collect()).expect("there was a round"),
        server_cpu: median(server_cpu.collect()),
    }
}

struct BesideRun<'a> {
    address: SocketAddr,
    frames: &'a Arc<Frames>,
    options: &'a UdfOptions,
    write: Verb,
    call: Verb,
    /// Calls, or writes, a second.
    rate: u64,
}

impl BesideRun<'_> {
    /// Reads alone, beside calls and beside writes, by turns.
    fn measure(&self) -> Result<(Beside, Vec<Outcome>), BenchError> {
        let common = &self.options.common;
        let reads = Load {
            rate: Some(self.options.read_rate),
            ..Load::new(common, 100)
        };
        let (mut alone, mut beside, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        let (mut beside_writes, mut writes) = (Vec::new(), Vec::new());
        for round in 1..=self.options.rounds {
            alone.push(load::run(self.address, self.frames, &reads, None)?);
            let (read, called) = self.reads_beside(self.call, &reads)?;
            let (read_beside_writes, written) = self.reads_beside(self.write, &reads)?;
            if !common.json {
                let p99 = |outcome: &Outcome| outcome.reads.value_at_quantile(0.99) as f64 / 1e3;
                let before = p99(&alone[alone.len() - 1]);
                let (calls, writes) = (p99(&read), p99(&read_beside_writes));
                eprintln!(
                    "round {round}, reads: p99 {before:.0} us alone, {calls:.0} us beside calls, {writes:.0} us beside writes"
                );
            }
            beside.push(read);
            calls.push(called);
            beside_writes.push(read_beside_writes);
            writes.push(written);
        }
        let p = |outcomes: &[Outcome], quantile: f64| -> Vec<f64> {
            let us = |it: &Outcome| it.reads.value_at_quantile(quantile) as f64 / 1e3;
            outcomes.iter().map(us).collect()
        };
        let middle = |values: Vec<f64>| median(values).expect("there was a round");
        let (alone_p99_us, beside_p99_us) = (middle(p(&alone, 0.99)), middle(p(&beside, 0.99)));
        let report = Beside {
            reads_per_second: self.options.read_rate,
            calls_per_second: middle(calls.iter().map(Outcome::operations_per_second).collect()),
            alone_p50_us: middle(p(&alone, 0.5)),
            alone_p99_us,
            beside_p50_us: middle(p(&beside, 0.5)),
            beside_p99_us,
            p99_ratio: beside_p99_us / alone_p99_us,
            beside_writes_p50_us: middle(p(&beside_writes, 0.5)),
            beside_writes_p99_us: middle(p(&beside_writes, 0.99)),
            rounds_alone_p99_us: p(&alone, 0.99),
            rounds_beside_p99_us: p(&beside, 0.99),
            rounds_beside_writes_p99_us: p(&beside_writes, 0.99),
        };
        let all = [alone, beside, calls, beside_writes, writes];
        Ok((report, all.into_iter().flatten().collect()))
    }

    fn reads_beside(&self, other: Verb, reads: &Load) -> Result<(Outcome, Outcome), BenchError> {
        let common = &self.options.common;
        let Extent::Time(duration) = reads.extent else {
            unreachable!("operations are refused")
        };
        // They are warm when the reads begin to be.
        let others = Load {
            works: vec![Work::Only(other)],
            extent: Extent::Time(duration + reads.warmup + BESIDE_MARGIN),
            warmup: BESIDE_MARGIN,
            rate: Some(self.rate),
            progress: false,
            ..Load::new(common, 0)
        };
        std::thread::scope(|scope| {
            let others = scope.spawn(|| load::run(self.address, self.frames, &others, None));
            std::thread::sleep(BESIDE_MARGIN);
            let read = load::run(self.address, self.frames, reads, None);
            let others = others.join().expect("a load does not panic");
            Ok((read?, others?))
        })
    }
}

fn print(report: &UdfReport) {
    println!(
        "{} connections, {} threads, {} keys, medians of {} rounds",
        report.connections, report.threads, report.keys, report.rounds
    );
    println!(
        "{:<18} {:>10} {:>9} {:>9} {:>16} {:>16}",
        "", "op/s", "p50 us", "p99 us", "server CPU s/M", "client CPU s/M"
    );
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), |it| format!("{it:.2}"));
    for row in &report.rows {
        println!(
            "{:<18} {:>10.0} {:>9.0} {:>9.0} {:>16} {:>16.2}",
            row.name,
            row.operations_per_second,
            row.p50_us,
            row.p99_us,
            optional(row.server_cpu_seconds_per_million),
            row.client_cpu_seconds_per_million,
        );
    }
    for ratio in &report.ratios {
        let cpu = optional(ratio.server_cpu);
        println!(
            "{} / {}: {:.2} of its operations/s, {cpu} times its CPU",
            ratio.of, TITLES[0], ratio.operations_per_second
        );
    }
    if let Some(beside) = &report.beside {
        println!(
            "reads, {}/s, alone: p50 {:.0} us, p99 {:.0} us",
            beside.reads_per_second, beside.alone_p50_us, beside.alone_p99_us
        );
        println!(
            "beside {:.0} calls/s: p50 {:.0} us, p99 {:.0} us, {:.2} times",
            beside.calls_per_second, beside.beside_p50_us, beside.beside_p99_us, beside.p99_ratio
        );
        println!(
            "beside as many plain writes: p50 {:.0} us, p99 {:.0} us",
            beside.beside_writes_p50_us, beside.beside_writes_p99_us
        );
    }
    for (name, count) in &report.errors {
        println!("error {name} {count}");
    }
    if report.connections_lost > 0 {
        println!("error {} connections lost", report.connections_lost);
    }
}

#[cfg(test)]
mod tests {
    use perigee_wire::{Message, PROTO_HEADER_BYTES};

    use super::*;

    #[test]
    fn a_call_names_module_function_and_arguments() {
        let shape = FrameShape {
            namespace: "test",
            set: "bench",
            keys: 10,
            object_bytes: 0,
            bins: 0,
            with_integer: true,
            seed: 1,
        };
        let mut frames = Frames::new(&shape).unwrap();
        let [write, empty, add] = add_requests(&mut frames);
        let sent = |verb| {
            let mut out = Vec::new();
            frames.append(verb, 3, &mut out);
            out
        };
        let (write, empty, add) = (sent(write), sent(empty), sent(add));
        let parse = |frame: &'static [u8]| Message::parse(&frame[PROTO_HEADER_BYTES..]).unwrap();
        let write = parse(write.leak());
        assert_eq!((write.ops.len(), write.udf_module), (1, None));
        for (frame, function, arguments) in [
            (empty.leak(), &b"empty"[..], &[0x90][..]),
            (add.leak(), b"add", b"\x92\xa2\x03n\x01"),
        ] {
            let message = parse(frame);
            assert_eq!(message.udf_module, Some(MODULE.as_bytes()));
            assert_eq!(message.udf_function, Some(function));
            assert_eq!(message.udf_args, Some(arguments));
            assert_eq!(message.digest, Some(&frames.digest(3)));
            assert!(message.ops.is_empty());
        }
    }
}
