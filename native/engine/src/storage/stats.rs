//! Counters of a store, and the snapshot that is read from them.

use super::device::{Device, STREAMS, Stream};
use super::error::DeviceError;
use super::space::KEPT_BLOCKS;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of a store, summed over its devices.
#[derive(Clone, Default, PartialEq, Eq, Debug, serde::Serialize)]
pub struct StoreStats {
    /// Live record bytes.
    pub used_bytes: u64,
    /// Bytes that write blocks can hold, headers of blocks included.
    pub total_bytes: u64,
    pub total_blocks: u64,
    pub free_blocks: u64,
    /// Empty blocks that wait until the newer versions of their records are durable, and for erasure.
    pub retired_blocks: u64,
    /// Free blocks that writes may take, of all blocks, on the fullest device.
    pub avail_pct: u8,
    /// Filled but unwritten blocks.
    pub write_queue_blocks: u64,
    pub defrag_queue_blocks: u64,
    pub post_write_cache_blocks: u64,
    /// Records appended, copies by defragmentation not counted.
    pub writes: u64,
    /// Record bytes appended, copies by defragmentation not counted.
    pub write_bytes: u64,
    /// Device writes and the bytes in them.
    pub flushes: u64,
    pub flush_bytes: u64,
    /// Of those, bytes that only filled a page.
    pub padding_bytes: u64,
    pub syncs: u64,
    /// Blocks read, records copied, and their bytes, by defragmentation.
    pub defrag_reads: u64,
    pub defrag_writes: u64,
    pub defrag_write_bytes: u64,
    /// Records read from a device.
    pub device_reads: u64,
    /// Places where stored bytes were damaged.
    pub damaged: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub failed_devices: u64,
}

impl StoreStats {
    /// Bytes written to the devices for each record byte that was given to the store; headers of blocks that are
    /// erased, and leases, are not counted. 0 before the first write.
    pub fn write_amplification(&self) -> f64 {
        // Memory alone is never flushed.
        let written = match self.flush_bytes {
            0 => self.write_bytes + self.defrag_write_bytes,
            flushed => flushed,
        };
        ratio(written, self.write_bytes)
    }

    /// The share of copies by defragmentation in all record bytes appended.
    pub fn defrag_write_share(&self) -> f64 {
        let appended = self.write_bytes + self.defrag_write_bytes;
        ratio(self.defrag_write_bytes, appended)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}

/// A snapshot of one device. Blocks are write blocks; a partial write is one of less than a block.
#[derive(Clone, Debug)]
pub struct DeviceStats {
    /// `file`, `device` or, for memory alone, `stripe`.
    pub kind: &'static str,
    pub path: Option<PathBuf>,
    /// Live record bytes.
    pub used_bytes: u64,
    pub free_wblocks: u64,
    pub read_errors: u64,
    /// Filled but unwritten blocks.
    pub write_q: u64,
    pub writes: u64,
    pub partial_writes: u64,
    pub defrag_q: u64,
    pub defrag_reads: u64,
    pub defrag_writes: u64,
    pub defrag_partial_writes: u64,
    /// Why the device takes no more writes, if it does not.
    pub failure: Option<DeviceError>,
}

/// What one device counts, as opposed to the store.
#[derive(Default)]
pub(super) struct DeviceCounters {
    pub(super) read_errors: Counter,
    /// By stream.
    pub(super) writes: [Counter; STREAMS.len()],
    pub(super) partial_writes: [Counter; STREAMS.len()],
    pub(super) defrag_reads: Counter,
}

impl Device {
    /// What is counted and measured of this device alone.
    pub(super) fn stats(&self, kind: &'static str, path: Option<PathBuf>) -> DeviceStats {
        let of =
            |counters: &[Counter; STREAMS.len()], stream: Stream| counters[stream as usize].get();
        let state = self.state.lock();
        DeviceStats {
            kind,
            path,
            used_bytes: self.used_bytes.load(Ordering::Relaxed),
            free_wblocks: state.free.len() as u64,
            read_errors: self.own.read_errors.get(),
            write_q: state.unwritten as u64,
            writes: of(&self.own.writes, Stream::Client),
            partial_writes: of(&self.own.partial_writes, Stream::Client),
            defrag_q: state.ranks.sparse() as u64,
            defrag_reads: self.own.defrag_reads.get(),
            defrag_writes: of(&self.own.writes, Stream::Defrag),
            defrag_partial_writes: of(&self.own.partial_writes, Stream::Defrag),
            failure: state.failure.clone(),
        }
    }

    pub(super) fn add_stats(&self, stats: &mut StoreStats) {
        let state = self.state.lock();
        let blocks = self.blocks.len() as u64 - 1;
        let free = state.free.len() as u64;
        let available = (free.saturating_sub(KEPT_BLOCKS as u64) * 100 / blocks) as u8;
        stats.avail_pct = stats.avail_pct.min(available);
        stats.total_blocks += blocks;
        stats.total_bytes += blocks * self.block_bytes as u64;
        stats.used_bytes += self.used_bytes.load(Ordering::Relaxed);
        stats.free_blocks += free;
        stats.retired_blocks += state.retired.len() as u64;
        stats.write_queue_blocks += state.unwritten as u64;
        stats.defrag_queue_blocks += state.ranks.sparse() as u64;
        stats.post_write_cache_blocks += state.cache.len() as u64;
        stats.failed_devices += u64::from(state.failure.is_some());
        stats.writes += state.writes;
        stats.write_bytes += state.write_bytes;
    }
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// What [`StoreStats`] counts, as opposed to what it measures.
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> StoreStats {
                StoreStats { $($name: self.$name.get(),)* ..StoreStats::default() }
            }
        }
    };
}

counters!(
    flushes,
    flush_bytes,
    padding_bytes,
    syncs,
    defrag_reads,
    defrag_writes,
    defrag_write_bytes,
    device_reads,
    damaged,
    read_errors,
    write_errors
);

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
