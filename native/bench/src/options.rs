//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use perigee_service::net::LoopKind;

use crate::act::{ActOptions, parse_bytes};
use crate::error::BenchError;
use crate::frames::FrameShape;

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 3000;
const KEYS: u64 = 100_000;
const OBJECT_BYTES: usize = 100;
const INGEST_OBJECT_BYTES: usize = 1024;
const INGEST_BYTES: u64 = 1 << 30;

#[derive(Parser)]
#[command(
    name = "perigee-bench",
    version,
    about = "Load on one host that speaks the protocol"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Write every key once
    Insert(Common),
    /// Write every key once and say how many bytes a second that was, 1 KiB a record
    ///
    /// As much as the node takes: a write that is answered DEVICE_OVERLOAD is sent again.
    Ingest(Common),
    /// Read and update random keys
    Mix {
        #[command(flatten)]
        common: Common,
        /// Percentage of reads
        #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(0..=100))]
        reads: u8,
        /// Write every key once before
        #[arg(long)]
        preload: bool,
    },
    /// Read random keys
    Read {
        #[command(flatten)]
        common: Common,
        /// Write every key once before
        #[arg(long)]
        preload: bool,
    },
    /// Update random keys
    Write {
        #[command(flatten)]
        common: Common,
        /// Write every key once before
        #[arg(long)]
        preload: bool,
    },
    /// Read random keys in batches, and count the records
    Batch {
        #[command(flatten)]
        common: Common,
        /// Keys in a batch
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rows: u32,
        /// Write every key once before
        #[arg(long)]
        preload: bool,
    },
    /// Query ranges of keys by a secondary index, and count the records
    ///
    /// The records have their key in bin `n`; the index is made if it is not there, and stays.
    Query {
        #[command(flatten)]
        common: Common,
        /// Records in a range
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
        records: u64,
        /// Write every key once before
        #[arg(long)]
        preload: bool,
    },
    /// Measure calls of Lua functions against plain writes
    ///
    /// Alternates, on the same connections, plain writes of an integer bin, calls of a function that does nothing, and calls of
    /// one that reads the bin, adds to it and updates the record. The module is put before and removed at the end.
    Udf(Box<UdfOptions>),
    /// Measure bare echo servers with the frames of a 95/5 mix, and the server against them
    ///
    /// The echo servers do nothing but read a frame's length and send a reply of the right size, on
    /// each kind of network loop: what remains above them is the cost of being a record store.
    Limit {
        #[command(flatten)]
        common: Common,
        /// Measure the server too; implied by --host and --port
        #[arg(long)]
        server: bool,
        /// Rounds of each, alternating; medians are printed
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
        rounds: u8,
    },
    /// Check a device with the storage load of this engine, before it is trusted with data
    ///
    /// Random reads of records at a rate, large writes as a rate of record writes makes them, and
    /// what defragmentation adds to both, with direct I/O. Ends with 0 when the device passes, 1
    /// when it fails, 2 when it could not be checked.
    Act(Box<ActOptions>),
    /// One echo server, for `limit`
    #[command(hide = true)]
    Echo(EchoOptions),
    /// Record reads of the engine without sockets, for `npm run bench:device`
    #[command(hide = true)]
    EngineReads(EngineReadsOptions),
}

#[derive(Args, Clone)]
pub struct Common {
    /// Host of one node [default: 127.0.0.1]
    #[arg(long)]
    pub host: Option<String>,
    /// Its service port [default: 3000]
    #[arg(long)]
    pub port: Option<u16>,
    #[arg(long, default_value = "test")]
    pub namespace: String,
    #[arg(long, default_value = "bench")]
    pub set: String,
    /// Connections of all threads together, each with one request in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Keys are the integers from 0 up to this [default: 100000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// As many keys as give so many bytes of values (such as 50G), to be larger than any cache
    #[arg(long, conflicts_with = "keys", value_parser = parse_bytes)]
    pub objects_bytes: Option<u64>,
    /// Bytes of values in a record [default: 100; 1024 with ingest]
    #[arg(long)]
    pub object_size: Option<usize>,
    /// Blob bins that share these bytes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32_767))]
    pub bins: u16,
    /// Measured seconds [default: 10]
    #[arg(long, conflicts_with = "operations", value_parser = parse_time)]
    pub duration: Option<Duration>,
    /// Measure so many operations instead
    #[arg(long)]
    pub operations: Option<u64>,
    /// Seconds before the measurement
    #[arg(long, default_value = "2", value_parser = parse_time)]
    pub warmup: Duration,
    /// Operations a second of all threads together [default: as many as come back]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Process whose processor time is the server's [default: who listens on a local port]
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Network loop of this generator
    #[arg(long = "loop", value_enum, default_value_t = LoopName::Auto)]
    pub loop_name: LoopName,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct UdfOptions {
    #[command(flatten)]
    pub common: Common,
    /// Rounds of each, alternating; medians are printed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub rounds: u8,
    /// Measure plain reads too: alone, beside half as many calls as were answered, and beside as many writes
    #[arg(long)]
    pub beside: bool,
    /// Plain reads a second, with --beside
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub read_rate: u64,
}

#[derive(Args)]
pub struct EchoOptions {
    /// Frames of this size are answered as writes, all others as reads
    #[arg(long)]
    pub write_frame_bytes: usize,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args)]
pub struct EngineReadsOptions {
    /// Where the namespace lies; made anew, and left there
    #[arg(long)]
    pub path: PathBuf,
    /// Bytes of the file
    #[arg(long, value_parser = parse_bytes)]
    pub file_size: u64,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoopName {
    Auto,
    #[value(name = "io_uring")]
    IoUring,
    Epoll,
}

impl LoopName {
    pub fn kind(self) -> LoopKind {
        match self {
            LoopName::Auto => LoopKind::Auto,
            LoopName::IoUring => LoopKind::IoUring,
            LoopName::Epoll => LoopKind::Epoll,
        }
    }

    pub fn name(self) -> &'static str {
        self.kind().name()
    }
}

/// A time in seconds, or with one of the units ms, s, m and h.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, seconds) = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
        .unwrap_or((text, 1.0));
    let number: f64 = number
        .parse()
        .map_err(|_| "a time is expected, such as 10, 500ms or 24h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

impl Common {
    pub fn names_server(&self) -> bool {
        self.host.is_some() || self.port.is_some()
    }

    /// The first address of the host.
    pub fn address(&self) -> Result<SocketAddr, BenchError> {
        let host = self.host.as_deref().unwrap_or(DEFAULT_HOST);
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let failed = |source| BenchError::Resolve {
            host: host.to_owned(),
            port,
            source,
        };
        let mut found = (host, port).to_socket_addrs().map_err(failed)?;
        found
            .next()
            .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
    }

    pub fn object_bytes(&self) -> usize {
        self.object_size.unwrap_or(OBJECT_BYTES)
    }

    pub fn keys(&self) -> u64 {
        let by_bytes = |bytes: u64| (bytes / self.object_bytes().max(1) as u64).max(1);
        self.keys
            .or(self.objects_bytes.map(by_bytes))
            .unwrap_or(KEYS)
    }

    /// With what an ingest is by default.
    pub fn for_ingest(&self) -> Common {
        let object_size = Some(self.object_size.unwrap_or(INGEST_OBJECT_BYTES));
        let by_default = self.keys.is_none() && self.objects_bytes.is_none();
        Common {
            object_size,
            objects_bytes: match by_default {
                true => Some(INGEST_BYTES),
                false => self.objects_bytes,
            },
            ..self.clone()
        }
    }

    pub fn frame_shape(&self) -> FrameShape<'_> {
        FrameShape {
            namespace: &self.namespace,
            set: &self.set,
            keys: self.keys(),
            object_bytes: self.object_bytes(),
            bins: self.bins,
            with_integer: false,
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_time("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["", "s", "-1", "1d", "nan", "inf"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_follow_from_the_bytes_of_all_objects() {
        let common = |line: &str| match Cli::parse_from(line.split(' ')).command {
            Command::Ingest(common) => common.for_ingest(),
            Command::Read { common, .. } => common,
            _ => unreachable!(),
        };
        let keys = |line| {
            let common = common(line);
            (common.keys(), common.object_bytes())
        };
        assert_eq!(keys("perigee-bench read"), (100_000, 100));
        assert_eq!(
            keys("perigee-bench read --objects-bytes 1G --object-size 1024"),
            (1 << 20, 1024)
        );
        assert_eq!(keys("perigee-bench ingest"), (1 << 20, 1024));
        assert_eq!(
            keys("perigee-bench ingest --keys 5 --object-size 0"),
            (5, 0)
        );
        let both = "perigee-bench read --keys 1 --objects-bytes 1G";
        assert!(Cli::try_parse_from(both.split(' ')).is_err());
    }

    #[test]
    fn a_server_is_named_by_host_or_port_only() {
        let named = |line: &str| match Cli::parse_from(line.split(' ')).command {
            Command::Limit { common, .. } => common.names_server(),
            _ => unreachable!(),
        };
        assert!(!named("perigee-bench limit --keys 5"));
        assert!(named("perigee-bench limit --port 3000"));
    }
}
