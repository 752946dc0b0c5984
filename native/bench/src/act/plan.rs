//! The storage load that follows from a rate of reads and writes: what the engine would do to each
//! device in the steady state, and when.

use std::time::Duration;

use perigee_engine::record::image::{BLOCK_HEADER_BYTES, IMAGE_HEADER_BYTES, IMAGE_UNIT_BYTES};
use perigee_engine::storage::StoreConfig;
use perigee_engine::storage::medium::PAGE_BYTES;

use super::options::ActOptions;
use crate::error::BenchError;

/// The load on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub reads_per_second: f64,
    /// Bytes of an image, in the engine's units.
    pub record_bytes: u64,
    pub write_block_bytes: u64,
    pub flush_bytes: u64,
    pub flush_max: Duration,
    /// Record bytes that clients write, a second.
    pub client_bytes_per_second: f64,
    /// Record bytes that defragmentation copies, a second.
    pub defrag_bytes_per_second: f64,
    /// Whole blocks that defragmentation reads, a second. As many are filled by the two streams.
    pub defrag_blocks_per_second: f64,
}

impl Plan {
    /// Refuses what the engine would not do either.
    pub fn new(options: &ActOptions) -> Result<Plan, BenchError> {
        let wrong = |what: String| Err(BenchError::Option(what));
        let page = PAGE_BYTES as u64;
        let block = options.write_block_size;
        let blocks_max = perigee_engine::record::image::WRITE_BLOCK_BYTES_MAX as u64;
        if !block.is_power_of_two() || !(4 * page..=blocks_max).contains(&block) {
            return wrong(format!(
                "--write-block-size {block} is not a power of two from {} to {blocks_max}",
                4 * page
            ));
        }
        let flush = options.flush_size;
        if !flush.is_power_of_two() || !(page..=block).contains(&flush) {
            return wrong(format!(
                "--flush-size {flush} is not a power of two from {page} to the write block's {block}"
            ));
        }
        let record = options
            .record_bytes
            .next_multiple_of(IMAGE_UNIT_BYTES as u64);
        let room = block - BLOCK_HEADER_BYTES as u64;
        if !(IMAGE_HEADER_BYTES as u64..=room).contains(&record) {
            return wrong(format!(
                "--record-bytes {} is not from {IMAGE_HEADER_BYTES} to the {room} of a write block",
                options.record_bytes
            ));
        }
        if options.reads_per_second == 0 && options.writes_per_second == 0 {
            return wrong("both rates are 0: there is nothing to do".to_owned());
        }
        if options.interval.is_zero() || options.duration.is_zero() {
            return wrong("--duration and --interval are more than 0".to_owned());
        }
        let share = 1.0 / options.devices.len() as f64;
        let updates = options.writes_per_second as f64 * f64::from(options.update_pct) / 100.0;
        let client = options.writes_per_second as f64 * share * record as f64;
        // Of each emptied block the live share L is copied, and the rest is gained. In the steady
        // state as many blocks are emptied as are filled: X = client + L * X.
        let live = f64::from(options.defrag_lwm_pct) / 100.0;
        let filled = client / (1.0 - live);
        Ok(Plan {
            reads_per_second: (options.reads_per_second as f64 + updates) * share,
            record_bytes: record,
            write_block_bytes: block,
            flush_bytes: flush,
            flush_max: Duration::from_millis(options.flush_max_ms),
            client_bytes_per_second: client,
            defrag_bytes_per_second: filled - client,
            defrag_blocks_per_second: filled / block as f64,
        })
    }

    pub fn device_bytes_min(&self) -> u64 {
        self.write_block_bytes * StoreConfig::BLOCKS_MIN
    }

    /// Bytes of the longest read of a record: whole pages, at whatever unit the record starts.
    pub fn read_bytes_max(&self) -> usize {
        let unaligned = PAGE_BYTES as u64 - IMAGE_UNIT_BYTES as u64;
        (unaligned + self.record_bytes).next_multiple_of(PAGE_BYTES as u64) as usize
    }
}

/// Events at a steady rate, kept as a number so that however late they are, nothing queues.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    interval: f64,
    done: u64,
}

impl Schedule {
    /// `None` for a rate of nothing.
    pub fn new(per_second: f64) -> Option<Schedule> {
        (per_second > 0.0).then(|| Schedule {
            interval: 1.0 / per_second,
            done: 0,
        })
    }

    /// When the next event is due, since the start.
    pub fn due(&self) -> Duration {
        Duration::from_secs_f64((self.done + 1) as f64 * self.interval)
    }

    pub fn advance(&mut self) {
        self.done += 1;
    }
}

/// One large write: `bytes` (whole pages) at `from` of the stream's current block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub from: u64,
    pub bytes: u64,
    /// The block was opened by this write.
    pub opens: bool,
}

/// How one of the engine's two streams fills its blocks: in flush units, and at least every
/// `flush-max` with what there is, padded to a page.
#[derive(Clone, Debug)]
pub struct Stream {
    bytes_per_second: f64,
    /// Position in the block, and how much of it is written.
    position: f64,
    written: u64,
    /// Up to when `position` counts.
    at: Duration,
}

impl Stream {
    pub fn new(bytes_per_second: f64) -> Stream {
        Stream {
            bytes_per_second,
            position: 0.0,
            written: 0,
            at: Duration::ZERO,
        }
    }

    /// When the next flush unit is full. `None` for a stream without bytes.
    pub fn unit_due(&self, plan: &Plan) -> Option<Duration> {
        if self.bytes_per_second == 0.0 {
            return None;
        }
        let end = (self.written / plan.flush_bytes + 1) * plan.flush_bytes;
        let missing = end as f64 - self.position;
        Some(self.at + Duration::from_secs_f64(missing / self.bytes_per_second))
    }

    /// Takes the unit that is full at `due`.
    pub fn take_unit(&mut self, plan: &Plan, due: Duration) -> Transfer {
        let end = (self.written / plan.flush_bytes + 1) * plan.flush_bytes;
        self.at = due;
        self.position = end as f64;
        self.take(plan, end)
    }

    /// Takes what there is at `now`, padded to a page, if there is anything.
    pub fn take_rest(&mut self, plan: &Plan, now: Duration) -> Option<Transfer> {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        self.position += elapsed * self.bytes_per_second;
        self.at = now;
        if self.position <= self.written as f64 {
            return None;
        }
        let end = (self.position.ceil() as u64).next_multiple_of(PAGE_BYTES as u64);
        self.position = end as f64;
        Some(self.take(plan, end))
    }

    fn take(&mut self, plan: &Plan, end: u64) -> Transfer {
        let transfer = Transfer {
            from: self.written,
            bytes: end - self.written,
            opens: self.written == 0,
        };
        self.written = end;
        if end == plan.write_block_bytes {
            self.written = 0;
            self.position = 0.0;
        }
        transfer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Cli, Command};
    use clap::Parser;

    fn plan(line: &str) -> Result<Plan, BenchError> {
        let words = ["perigee-bench", "act", "--device", "x"];
        let cli = Cli::parse_from(words.into_iter().chain(line.split_whitespace()));
        match cli.command {
            Command::Act(options) => Plan::new(&options),
            _ => unreachable!(),
        }
    }

    #[test]
    fn defragmentation_at_half_doubles_what_is_written() {
        let plan = plan("--writes-per-second 1000 --record-bytes 1600 --device y").unwrap();
        assert_eq!(plan.client_bytes_per_second, 800_000.0);
        assert_eq!(plan.defrag_bytes_per_second, 800_000.0);
        let emptied = plan.defrag_blocks_per_second * plan.write_block_bytes as f64;
        assert_eq!(emptied, 1_600_000.0);
    }

    #[test]
    fn updates_read_their_records_and_records_are_rounded_to_units() {
        let plan = plan("--update-pct 50 --defrag-lwm-pct 0 --record-bytes 1500").unwrap();
        assert_eq!(plan.reads_per_second, 2500.0);
        assert_eq!(plan.record_bytes, 1504);
        assert_eq!(plan.defrag_bytes_per_second, 0.0);
        // From the last unit of a page over a page's end.
        assert_eq!(plan.read_bytes_max(), 8192);
    }

    #[test]
    fn what_no_store_would_do_is_refused() {
        for wrong in [
            "--write-block-size 3M",
            "--write-block-size 16M",
            "--flush-size 16M",
            "--flush-size 2K",
            "--record-bytes 30",
            "--record-bytes 8M",
            "--reads-per-second 0 --writes-per-second 0",
            "--duration 0",
            "--interval 0",
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn stream_writes_units_in_time_and_pads_what_waits() {
        // 64 KiB a second in units of 64 KiB, blocks of 128 KiB.
        let plan = plan("--write-block-size 128K --flush-size 64K").unwrap();
        let mut stream = Stream::new(65_536.0);
        let second = Duration::from_secs(1);
        assert_eq!(stream.unit_due(&plan), Some(second));
        let rest = stream.take_rest(&plan, second / 4).unwrap();
        assert_eq!(rest, transfer(0, 16_384, true));
        assert_eq!(stream.take_rest(&plan, second / 4), None);
        let due = stream.unit_due(&plan).unwrap();
        assert_eq!(due, second);
        assert_eq!(
            stream.take_unit(&plan, due),
            transfer(16_384, 49_152, false)
        );
        assert_eq!(
            stream.take_unit(&plan, 2 * second),
            transfer(65_536, 65_536, false)
        );
        assert_eq!(
            stream.take_rest(&plan, 2 * second + second / 128),
            Some(transfer(0, 4096, true)),
            "512 bytes in a page of their own, in a new block"
        );
        assert_eq!(Stream::new(0.0).unit_due(&plan), None);
    }

    fn transfer(from: u64, bytes: u64, opens: bool) -> Transfer {
        Transfer { from, bytes, opens }
    }

    #[test]
    fn schedule_keeps_its_rate_however_late_it_is_asked() {
        let mut schedule = Schedule::new(4.0).unwrap();
        for quarter in 1..=8 {
            assert_eq!(schedule.due(), Duration::from_millis(250 * quarter));
            schedule.advance();
        }
        assert!(Schedule::new(0.0).is_none());
    }
}
