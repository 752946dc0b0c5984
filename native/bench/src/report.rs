//! Results as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::Outcome;
use crate::options::Common;

#[derive(Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    pub max: f64,
}

impl Latency {
    /// In microseconds; `None` without any value.
    pub fn new(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50: us(histogram.value_at_quantile(0.5)),
            p90: us(histogram.value_at_quantile(0.9)),
            p99: us(histogram.value_at_quantile(0.99)),
            p99_9: us(histogram.value_at_quantile(0.999)),
            max: us(histogram.max()),
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            p99_9,
            max,
        } = self;
        write!(
            formatter,
            "p50 {p50:>7.0}  p90 {p90:>7.0}  p99 {p99:>7.0}  p99.9 {p99_9:>7.0}  max {max:>7.0} us"
        )
    }
}

#[derive(Serialize)]
pub struct Report {
    command: &'static str,
    address: SocketAddr,
    #[serde(rename = "loop")]
    loop_name: &'static str,
    connections: u32,
    threads: u32,
    keys: u64,
    object_size: usize,
    bins: u16,
    seed: u64,
    seconds: f64,
    operations: u64,
    operations_per_second: f64,
    /// Of batches and queries.
    records: Option<u64>,
    records_per_second: Option<f64>,
    server_cpu_seconds_per_million_records: Option<f64>,
    /// Bytes of values, of reads and writes together.
    object_bytes_per_second: f64,
    /// Writes that were sent again because the device was behind.
    overloads: u64,
    read_latency_us: Option<Latency>,
    write_latency_us: Option<Latency>,
    /// By name of the result code, the warm-up included.
    errors: BTreeMap<String, u64>,
    connections_lost: u64,
    server_pid: Option<u32>,
    server_cpu_seconds: Option<f64>,
    server_cpu_seconds_per_million: Option<f64>,
    client_cpu_seconds: f64,
    client_cpu_seconds_per_million: f64,
}

impl Report {
    pub fn new(
        command: &'static str,
        address: SocketAddr,
        common: &Common,
        server_pid: Option<u32>,
        outcome: &Outcome,
    ) -> Self {
        let errors = outcome.errors.iter();
        let has_records = outcome.records > 0;
        Self {
            records: has_records.then_some(outcome.records),
            records_per_second: has_records.then(|| outcome.records_per_second()),
            server_cpu_seconds_per_million_records: outcome
                .server_cpu_seconds_per_million_records()
                .filter(|_| has_records),
            command,
            address,
            loop_name: outcome.loop_kind.name(),
            connections: common.connections,
            threads: common.threads,
            keys: common.keys(),
            object_size: common.object_bytes(),
            bins: common.bins,
            seed: common.seed,
            seconds: outcome.elapsed.as_secs_f64(),
            operations: outcome.operations,
            operations_per_second: outcome.operations_per_second(),
            object_bytes_per_second: outcome.operations_per_second() * common.object_bytes() as f64,
            overloads: outcome.overloads,
            read_latency_us: Latency::new(&outcome.reads),
            write_latency_us: Latency::new(&outcome.writes),
            errors: errors
                .map(|(&code, &count)| (Outcome::error_name(code), count))
                .collect(),
            connections_lost: outcome.connections_lost,
            server_pid,
            server_cpu_seconds: outcome.server_cpu_seconds,
            server_cpu_seconds_per_million: outcome.server_cpu_seconds_per_million(),
            client_cpu_seconds: outcome.client_cpu_seconds,
            client_cpu_seconds_per_million: outcome.client_cpu_seconds_per_million(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}: {} operations in {:.2} s, {:.0} operations/s ({} connections, {} threads, {})",
            self.command,
            self.operations,
            self.seconds,
            self.operations_per_second,
            self.connections,
            self.threads,
            self.loop_name,
        )?;
        writeln!(
            formatter,
            "  values  {:.1} MB/s of {} bytes each, {} keys",
            self.object_bytes_per_second / 1e6,
            self.object_size,
            self.keys,
        )?;
        if let (Some(records), Some(rate)) = (self.records, self.records_per_second) {
            write!(formatter, "  records {records}, {rate:.0} records/s")?;
            match self.server_cpu_seconds_per_million_records {
                Some(seconds) => {
                    writeln!(formatter, ", server {seconds:.2} CPU s per million records")?
                }
                None => writeln!(formatter)?,
            }
        }
        if self.overloads > 0 {
            let overloads = self.overloads;
            writeln!(
                formatter,
                "  again   {overloads} writes that the device was not ready for"
            )?;
        }
        for (name, latency) in [
            ("read ", &self.read_latency_us),
            ("write", &self.write_latency_us),
        ] {
            if let Some(latency) = latency {
                writeln!(formatter, "  {name}   {latency}")?;
            }
        }
        match self.server_cpu_seconds_per_million {
            Some(seconds) => writeln!(formatter, "  server  {seconds:.2} CPU s per million")?,
            None => writeln!(formatter, "  server  CPU unknown (remote, or --server-pid)")?,
        }
        let client = self.client_cpu_seconds_per_million;
        writeln!(formatter, "  client  {client:.2} CPU s per million")?;
        for (name, count) in &self.errors {
            writeln!(formatter, "  error   {name} {count}")?;
        }
        if self.errors.contains_key("NOT_FOUND") {
            writeln!(formatter, "          keys are missing: `insert` loads them")?;
        }
        if self.connections_lost > 0 {
            writeln!(
                formatter,
                "  error   {} connections lost",
                self.connections_lost
            )?;
        }
        Ok(())
    }
}
