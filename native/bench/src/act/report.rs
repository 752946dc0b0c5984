//! Lines and tables, as text and as JSON.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::options::ActOptions;
use super::plan::Plan;
use super::verdict::{BUCKETS_MS, Failure, Measured, Threshold, pct_above};
use crate::report::Latency;

fn shares(histogram: &Histogram<u64>) -> [f64; BUCKETS_MS.len()] {
    BUCKETS_MS.map(|ms| pct_above(histogram, Duration::from_millis(ms)))
}

#[derive(Serialize)]
pub struct Interval {
    /// Since the measurement began, to the interval's end.
    seconds: f64,
    reads_per_second: f64,
    /// Percent of the reads above 1, 2, 4, ... 64 ms.
    pct_above_ms: [f64; BUCKETS_MS.len()],
    read_latency_us: Option<Latency>,
    block_read_bytes_per_second: f64,
    block_write_bytes_per_second: f64,
    lag_ms: f64,
    errors: u64,
}

impl Interval {
    /// Of an interval that began `from` after the measurement.
    pub fn new(measured: &Measured, from: Duration, length: Duration) -> Interval {
        let a_second = |count: u64| count as f64 / length.as_secs_f64();
        Interval {
            seconds: (from + length).as_secs_f64(),
            reads_per_second: a_second(measured.reads.len()),
            pct_above_ms: shares(&measured.reads),
            read_latency_us: Latency::new(&measured.reads),
            block_read_bytes_per_second: a_second(measured.block_read_bytes),
            block_write_bytes_per_second: a_second(measured.block_write_bytes),
            lag_ms: measured.lag_max.as_secs_f64() * 1e3,
            errors: measured.errors,
        }
    }

    pub fn print(&self) {
        print!("{:>8.1} {:>8.0}", self.seconds, self.reads_per_second);
        for pct in self.pct_above_ms {
            print!(" {pct:>7.3}");
        }
        let [p99, max] = self
            .read_latency_us
            .as_ref()
            .map_or([0.0; 2], |it| [it.p99, it.max]);
        println!(
            " {p99:>8.0} {max:>9.0} {:>8.1} {:>8.1} {:>7.0}",
            self.block_read_bytes_per_second / 1e6,
            self.block_write_bytes_per_second / 1e6,
            self.lag_ms,
        );
        if self.errors > 0 {
            println!("         {} operations failed", self.errors);
        }
    }
}

/// Says what load follows, and heads the lines of intervals.
pub fn print_head(options: &ActOptions, plan: &Plan) {
    let devices = options.devices.len() as f64;
    println!(
        "{} devices: {:.0} reads/s of {} bytes; writes of {:.2} MB/s and {:.2} MB/s more by defragmentation, \
         in units of {} KiB; {:.3} blocks of {} KiB read a second",
        options.devices.len(),
        plan.reads_per_second * devices,
        plan.record_bytes,
        plan.client_bytes_per_second * devices / 1e6,
        plan.defrag_bytes_per_second * devices / 1e6,
        plan.flush_bytes >> 10,
        plan.defrag_blocks_per_second * devices,
        plan.write_block_bytes >> 10,
    );
    print!("{:>8} {:>8}", "s", "reads/s");
    for ms in BUCKETS_MS {
        print!(" {:>7}", format!("%>{ms}ms"));
    }
    println!(
        " {:>8} {:>9} {:>8} {:>8} {:>7}",
        "p99 us", "max us", "rd MB/s", "wr MB/s", "lag ms"
    );
}

#[derive(Serialize)]
pub struct Report {
    command: &'static str,
    devices: Vec<String>,
    seed: u64,
    record_bytes: u64,
    write_block_bytes: u64,
    flush_bytes: u64,
    defrag_lwm_pct: u8,
    asked_reads_per_second: f64,
    asked_block_write_bytes_per_second: f64,
    asked_block_read_bytes_per_second: f64,
    seconds: f64,
    interrupted: bool,
    reads: u64,
    reads_per_second: f64,
    read_latency_us: Option<Latency>,
    /// Percent of the reads above 1, 2, 4, ... 64 ms.
    pct_above_ms: [f64; BUCKETS_MS.len()],
    /// The same of the interval in which it was highest, each column for itself.
    worst_pct_above_ms: [f64; BUCKETS_MS.len()],
    block_read_latency_us: Option<Latency>,
    block_write_latency_us: Option<Latency>,
    sync_latency_us: Option<Latency>,
    block_read_bytes_per_second: f64,
    block_write_bytes_per_second: f64,
    lag_ms: f64,
    errors: u64,
    thresholds: Vec<Threshold>,
    failures: Vec<Failure>,
    pub passed: bool,
    intervals: Vec<Interval>,
}

impl Report {
    pub fn new(
        options: &ActOptions,
        plan: &Plan,
        total: &Measured,
        intervals: Vec<Interval>,
        seconds: f64,
        interrupted: bool,
        failures: Vec<Failure>,
    ) -> Report {
        let devices = options.devices.len() as f64;
        let written = plan.client_bytes_per_second + plan.defrag_bytes_per_second;
        let worst = |column: usize| {
            let shares = intervals.iter().map(|it| it.pct_above_ms[column]);
            shares.fold(0.0, f64::max)
        };
        Report {
            command: "act",
            devices: options
                .devices
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            seed: options.seed,
            record_bytes: plan.record_bytes,
            write_block_bytes: plan.write_block_bytes,
            flush_bytes: plan.flush_bytes,
            defrag_lwm_pct: options.defrag_lwm_pct,
            asked_reads_per_second: plan.reads_per_second * devices,
            asked_block_write_bytes_per_second: written * devices,
            asked_block_read_bytes_per_second: written * devices,
            seconds,
            interrupted,
            reads: total.reads.len(),
            reads_per_second: total.reads.len() as f64 / seconds,
            read_latency_us: Latency::new(&total.reads),
            pct_above_ms: shares(&total.reads),
            worst_pct_above_ms: std::array::from_fn(worst),
            block_read_latency_us: Latency::new(&total.block_reads),
            block_write_latency_us: Latency::new(&total.block_writes),
            sync_latency_us: Latency::new(&total.syncs),
            block_read_bytes_per_second: total.block_read_bytes as f64 / seconds,
            block_write_bytes_per_second: total.block_write_bytes as f64 / seconds,
            lag_ms: total.lag_max.as_secs_f64() * 1e3,
            errors: total.errors,
            thresholds: options.thresholds.clone(),
            passed: failures.is_empty(),
            failures,
            intervals,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "\n{} reads in {:.1} s{}, {:.0}/s of {:.0}/s asked for, at most {:.0} ms behind",
            self.reads,
            self.seconds,
            if self.interrupted {
                " (interrupted)"
            } else {
                ""
            },
            self.reads_per_second,
            self.asked_reads_per_second,
            self.lag_ms,
        )?;
        write!(formatter, "  reads, % above     ")?;
        for (ms, pct) in BUCKETS_MS.iter().zip(self.pct_above_ms) {
            write!(formatter, "  {ms} ms {pct:.3}")?;
        }
        write!(formatter, "\n  worst interval     ")?;
        for (ms, pct) in BUCKETS_MS.iter().zip(self.worst_pct_above_ms) {
            write!(formatter, "  {ms} ms {pct:.3}")?;
        }
        writeln!(formatter)?;
        for (name, latency) in [
            ("reads", &self.read_latency_us),
            ("large reads", &self.block_read_latency_us),
            ("large writes", &self.block_write_latency_us),
            ("syncs", &self.sync_latency_us),
        ] {
            if let Some(latency) = latency {
                writeln!(formatter, "  {name:<14}{latency}")?;
            }
        }
        writeln!(
            formatter,
            "  large reads {:.1} MB/s, large writes {:.1} MB/s; {:.1} MB/s of each asked for",
            self.block_read_bytes_per_second / 1e6,
            self.block_write_bytes_per_second / 1e6,
            self.asked_block_write_bytes_per_second / 1e6,
        )?;
        for failure in &self.failures {
            writeln!(formatter, "  failed: {failure}")?;
        }
        let thresholds: Vec<&str> = self.thresholds.iter().map(|it| it.text.as_str()).collect();
        let verdict = if self.passed { "passed" } else { "FAILED" };
        writeln!(formatter, "{verdict} ({})", thresholds.join(", "))
    }
}
