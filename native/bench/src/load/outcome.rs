//! What came of a load.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use perigee_service::net::LoopKind;
use perigee_wire::ResultCode;

pub(super) const LATENCY_NS_MIN: u64 = 1_000;
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Of one work.
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

    pub(super) fn empty(loop_kind: LoopKind) -> Outcome {
        Outcome {
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
            loop_kind,
        }
    }

    pub(super) fn add(&mut self, samples: Samples) {
        self.reads += &samples.reads;
        self.writes += &samples.writes;
        self.overloads += samples.overloads;
        self.records += samples.records;
        self.connections_lost += samples.lost;
        for (code, count) in samples.errors {
            *self.errors.entry(code).or_default() += count;
        }
    }

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

/// What a thread sees of one work.
pub(super) struct Samples {
    pub(super) reads: Histogram<u64>,
    pub(super) writes: Histogram<u64>,
    pub(super) records: u64,
    pub(super) overloads: u64,
    pub(super) errors: BTreeMap<u16, u64>,
    pub(super) lost: u64,
}

impl Samples {
    pub(super) fn new() -> Samples {
        Samples {
            reads: histogram(),
            writes: histogram(),
            records: 0,
            overloads: 0,
            errors: BTreeMap::new(),
            lost: 0,
        }
    }
}

/// Latencies in nanoseconds, from a microsecond to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 3).expect("valid bounds")
}
