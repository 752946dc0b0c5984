//! What is asked of a device, on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::verdict::Threshold;
use crate::options::parse_time;

#[derive(Args, Clone)]
pub struct ActOptions {
    /// File or raw device to check; several with the option repeated. The load is shared among them
    #[arg(long = "device", value_name = "PATH", required = true)]
    pub devices: Vec<PathBuf>,
    /// Bytes of each device to use (such as 4G); needed to make a file [default: all that is there]
    #[arg(long, value_parser = parse_bytes)]
    pub size: Option<u64>,
    /// Fill the devices first. Needed once, since reading what was never written costs a device nothing
    #[arg(long)]
    pub salt: bool,
    /// Overwrite what a raw device, or a file of somebody else's, holds. Everything on it is lost
    #[arg(long)]
    pub destructive: bool,
    /// Records read a second, of all devices together
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    pub reads_per_second: u64,
    /// Records written a second, of all devices together
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    pub writes_per_second: u64,
    /// Share of the writes that read their record first, as an update of some bins does
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub update_pct: u8,
    /// Bytes of a record as it is stored, its header included
    #[arg(long, default_value = "1536", value_parser = parse_bytes)]
    pub record_bytes: u64,
    #[arg(long, default_value = "8M", value_parser = parse_bytes)]
    pub write_block_size: u64,
    #[arg(long, default_value = "1M", value_parser = parse_bytes)]
    pub flush_size: u64,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub flush_max_ms: u64,
    /// Live share of the blocks that defragmentation empties; what it reads and writes follows
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub defrag_lwm_pct: u8,
    /// Measured time: seconds, or with a unit, such as 30m or 24h
    #[arg(long, default_value = "60", value_parser = parse_time)]
    pub duration: Duration,
    /// Load before the measurement
    #[arg(long, default_value = "5", value_parser = parse_time)]
    pub warmup: Duration,
    /// Time between two lines
    #[arg(long, default_value = "1", value_parser = parse_time)]
    pub interval: Duration,
    /// Reads in flight on a device at most
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub queue_depth: u16,
    /// Share of reads that may take longer than a time; repeated for several
    #[arg(
        long = "fail-above",
        value_name = "TIME:PCT%",
        default_values = ["1ms:5%", "8ms:1%", "64ms:0.1%"]
    )]
    pub thresholds: Vec<Threshold>,
    /// The check fails at once when a device is this far behind the asked rates
    #[arg(long, default_value = "10", value_parser = parse_time)]
    pub max_lag: Duration,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A number of bytes, with a unit of K, M, G or T (of 1024) or none.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        unit => return Err(format!("{unit:?} is none of the units K, M, G and T")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a number of bytes is expected, such as 1536 or 4G".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "more bytes than there can be".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_of_1024() {
        assert_eq!(parse_bytes("1536"), Ok(1536));
        assert_eq!(parse_bytes("8M"), Ok(8 << 20));
        assert_eq!(parse_bytes("2T"), Ok(2 << 40));
        for wrong in ["", "G", "-1", "1.5G", "1X", "99999999999T"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
