//! Latencies in the field's way: the share of reads above 1, 2, 4, ... 64 ms; and what of them is
//! too much.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::histogram;
use crate::options::parse_time;

/// Upper bounds of the table's columns, in milliseconds.
pub const BUCKETS_MS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// At most so many percent of the reads may take longer than a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Threshold {
    #[serde(skip)]
    pub above: Duration,
    #[serde(skip)]
    pub pct_max: f64,
    /// As it was given.
    pub text: String,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is no time and share such as 1ms:5%");
        let (above, pct) = text.split_once(':').ok_or_else(expected)?;
        let above = parse_time(above).map_err(|_| expected())?;
        let pct = pct.strip_suffix('%').ok_or_else(expected)?;
        let pct_max: f64 = pct.parse().map_err(|_| expected())?;
        if above.is_zero() || !(0.0..=100.0).contains(&pct_max) {
            return Err(expected());
        }
        Ok(Threshold {
            above,
            pct_max,
            text: text.to_owned(),
        })
    }
}

/// Percentage of the values that are above a time. 0 without any.
pub fn pct_above(histogram: &Histogram<u64>, time: Duration) -> f64 {
    if histogram.is_empty() {
        return 0.0;
    }
    let within = histogram.count_between(0, time.as_nanos() as u64);
    (histogram.len() - within) as f64 * 100.0 / histogram.len() as f64
}

/// What was measured in an interval, or in the whole run.
pub struct Measured {
    pub reads: Histogram<u64>,
    pub block_reads: Histogram<u64>,
    pub block_writes: Histogram<u64>,
    pub syncs: Histogram<u64>,
    pub read_bytes: u64,
    pub block_read_bytes: u64,
    pub block_write_bytes: u64,
    pub errors: u64,
    /// How long after it was due an operation was begun, at most.
    pub lag_max: Duration,
}

impl Default for Measured {
    fn default() -> Self {
        Measured {
            reads: histogram(),
            block_reads: histogram(),
            block_writes: histogram(),
            syncs: histogram(),
            read_bytes: 0,
            block_read_bytes: 0,
            block_write_bytes: 0,
            errors: 0,
            lag_max: Duration::ZERO,
        }
    }
}

impl Measured {
    pub fn add(&mut self, other: &Measured) {
        self.reads += &other.reads;
        self.block_reads += &other.block_reads;
        self.block_writes += &other.block_writes;
        self.syncs += &other.syncs;
        self.read_bytes += other.read_bytes;
        self.block_read_bytes += other.block_read_bytes;
        self.block_write_bytes += other.block_write_bytes;
        self.errors += other.errors;
        self.lag_max = self.lag_max.max(other.lag_max);
    }
}

/// Below this share of what was asked a device did not keep the rate.
const RATE_KEPT: f64 = 0.99;

/// What was due so shortly before the end may be under way still.
const UNDER_WAY_SECONDS: f64 = 1.0;

/// What was asked of the devices, and the bytes of the operations that it comes in.
pub struct Asked {
    pub reads_per_second: f64,
    pub block_bytes_per_second: f64,
    pub block_write_grain_bytes: f64,
    pub block_read_grain_bytes: f64,
}

/// Why a device fails.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Failure {
    Latency {
        threshold: String,
        pct: f64,
    },
    /// Less was done than was due.
    Rate {
        what: &'static str,
        asked_per_second: f64,
        done_per_second: f64,
    },
    /// Reads or large writes fell behind for longer than is allowed, and the check ended.
    Behind {
        what: &'static str,
        lag_seconds: f64,
    },
    Errors {
        count: u64,
        first: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Latency { threshold, pct } => {
                write!(formatter, "{pct:.3} % of the reads are above {threshold}")
            }
            Failure::Rate {
                what,
                asked_per_second,
                done_per_second,
            } => write!(
                formatter,
                "the devices cannot keep the asked rate: {done_per_second:.0} {what}/s of {asked_per_second:.0}"
            ),
            Failure::Behind { what, lag_seconds } => write!(
                formatter,
                "the devices cannot keep the asked rate: {what} were {lag_seconds:.1} s behind"
            ),
            Failure::Errors { count, first } => {
                write!(formatter, "{count} operations failed, the first: {first}")
            }
        }
    }
}

/// Everything that is wrong with a run of so many seconds.
pub fn judge(
    total: &Measured,
    seconds: f64,
    asked: &Asked,
    thresholds: &[Threshold],
) -> Vec<Failure> {
    let mut failures = Vec::new();
    for threshold in thresholds {
        let pct = pct_above(&total.reads, threshold.above);
        if pct > threshold.pct_max {
            let threshold = threshold.text.clone();
            failures.push(Failure::Latency { threshold, pct });
        }
    }
    let reads = total.reads.len() as f64;
    let (written, read) = (
        total.block_write_bytes as f64,
        total.block_read_bytes as f64,
    );
    let blocks = asked.block_bytes_per_second;
    for (what, done, asked_per_second, grain) in [
        ("reads", reads, asked.reads_per_second, 1.0),
        (
            "bytes of large writes",
            written,
            blocks,
            asked.block_write_grain_bytes,
        ),
        (
            "bytes of large reads",
            read,
            blocks,
            asked.block_read_grain_bytes,
        ),
    ] {
        let due = asked_per_second * (seconds - UNDER_WAY_SECONDS).max(0.0);
        if done + grain < due * RATE_KEPT {
            failures.push(Failure::Rate {
                what,
                asked_per_second,
                done_per_second: done / seconds,
            });
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn thresholds_are_times_and_shares() {
        let parsed: Threshold = "8ms:0.1%".parse().unwrap();
        assert_eq!(
            (parsed.above, parsed.pct_max),
            (Duration::from_millis(8), 0.1)
        );
        for wrong in [
            "8ms", "8ms:", "8ms:5", "x:5%", "1ms:101%", "0ms:5%", "1ms:-1%",
        ] {
            assert!(wrong.parse::<Threshold>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn share_above_a_time_is_of_all() {
        let mut measured = Measured::default();
        assert_eq!(pct_above(&measured.reads, Duration::from_millis(1)), 0.0);
        for ms in [0, 2, 3, 100] {
            measured.reads.saturating_record(ms * MS + MS / 2);
        }
        let above = |ms| pct_above(&measured.reads, Duration::from_millis(ms));
        assert_eq!(
            [above(1), above(3), above(64), above(200)],
            [75.0, 50.0, 25.0, 0.0]
        );
    }

    #[test]
    fn run_fails_by_latency_and_by_rate_alone_or_together() {
        let asked = |reads_per_second| Asked {
            reads_per_second,
            block_bytes_per_second: 1000.0,
            block_write_grain_bytes: 10.0,
            block_read_grain_bytes: 100.0,
        };
        let thresholds = ["1ms:5%".parse().unwrap(), "8ms:1%".parse().unwrap()];
        let mut measured = Measured {
            block_write_bytes: 10_000,
            block_read_bytes: 9_900,
            ..Measured::default()
        };
        measured.reads.record_n(MS / 2, 96).unwrap();
        measured.reads.record_n(2 * MS, 4).unwrap();
        assert_eq!(judge(&measured, 11.0, &asked(10.0), &thresholds), []);
        let slow = judge(&measured, 11.0, &asked(20.0), &thresholds);
        assert!(matches!(slow[..], [Failure::Rate { .. }]), "{slow:?}");
        measured.reads.record_n(20 * MS, 5).unwrap();
        let both = judge(&measured, 11.0, &asked(20.0), &thresholds);
        assert_eq!(both.len(), 3, "{both:?}");
        measured.block_write_bytes = 9_000;
        let writes = judge(&measured, 11.0, &asked(10.0), &[]);
        assert!(matches!(writes[..], [Failure::Rate { .. }]), "{writes:?}");
    }
}
