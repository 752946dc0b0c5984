//! Counters of a store, and the snapshot that is read from them.

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
    /// Blocks read, and records copied, by defragmentation.
    pub defrag_reads: u64,
    pub defrag_writes: u64,
    /// Records read from a device.
    pub device_reads: u64,
    /// Places where stored bytes were damaged.
    pub damaged: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub failed_devices: u64,
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
