//! What a store is told when it is opened.

use super::encryption::Encryption;
use super::error::OpenError;
use super::medium::PAGE_BYTES;
use crate::index::Location;
use crate::record::image::WRITE_BLOCK_BYTES_MAX;
use crate::tunable::Tunable;
use std::path::PathBuf;
use std::time::Duration;

/// Where the blocks lie.
#[derive(Clone, Debug)]
pub enum MediumConfig {
    /// Nowhere but in memory.
    Memory { data_size: u64 },
    /// One device a path, each of `file_size` bytes.
    File { paths: Vec<PathBuf>, file_size: u64 },
    /// Raw block devices, each as a whole.
    Device { paths: Vec<PathBuf> },
}

#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub namespace: String,
    pub medium: MediumConfig,
    /// Where files of shared memory are kept, in which the index outlives the process; `None` for the heap.
    pub shared_directory: Option<PathBuf>,
    /// Whether all that is on the devices is kept in memory too, and read from there.
    pub in_memory: bool,
    /// What lies on the devices is encrypted.
    pub encryption: Option<Encryption>,
    /// A power of two, at most 8 MiB and at least 16 KiB (64 KiB outside tests).
    pub write_block_bytes: u32,
    /// Unwritten bytes at which a block is written on, whatever its age. Divides the write block.
    pub flush_size_bytes: u32,
    /// The age at which unwritten bytes are written, whatever their number.
    pub flush_max: Duration,
    /// Whether a write is acknowledged only when it is durable.
    pub commit_to_device: bool,
    /// Bound of filled but unwritten blocks, a store. Beyond it, appends get `Overload`.
    pub write_cache_bytes_max: u64,
    /// Written blocks that are kept in memory for reads, a store.
    pub post_write_cache_bytes: u64,
    /// Blocks whose live share is below this are compacted.
    pub defrag_lwm_pct: u8,
    /// Pause after each compacted block, less as free blocks run out.
    pub defrag_sleep: Tunable<Duration>,
    /// Sparse blocks below this number wait to be compacted until blocks run out.
    pub defrag_queue_min: Tunable<usize>,
}

/// What defragmentation is told while the store is open; the fields are those of [`StoreConfig`].
#[derive(Clone, Copy, Debug)]
pub struct DefragPace {
    pub lwm_pct: u8,
    pub sleep: Duration,
    pub queue_min: usize,
}

impl StoreConfig {
    /// The defaults of everything but the name and the place.
    pub fn new(namespace: impl Into<String>, medium: MediumConfig) -> StoreConfig {
        StoreConfig {
            namespace: namespace.into(),
            medium,
            shared_directory: None,
            in_memory: false,
            encryption: None,
            write_block_bytes: WRITE_BLOCK_BYTES_MAX as u32,
            flush_size_bytes: 1 << 20,
            flush_max: Duration::from_secs(1),
            commit_to_device: false,
            write_cache_bytes_max: 64 << 20,
            post_write_cache_bytes: 256 << 20,
            defrag_lwm_pct: 50,
            defrag_sleep: Duration::from_millis(1).into(),
            defrag_queue_min: 0.into(),
        }
    }

    /// Header block, one block for each of the two streams, one in reserve for copies and one for tombstones, and one to
    /// spare.
    pub const BLOCKS_MIN: u64 = 6;

    pub(super) fn validate(&self, devices: usize, device_bytes: u64) -> Result<(), OpenError> {
        let wrong = |what: String| {
            Err(OpenError::Config {
                namespace: self.namespace.clone(),
                what,
            })
        };
        let block = self.write_block_bytes as usize;
        if !block.is_power_of_two() || !(4 * PAGE_BYTES..=WRITE_BLOCK_BYTES_MAX).contains(&block) {
            return wrong(format!(
                "a write block of {block} bytes is not a power of two up to 8 MiB"
            ));
        }
        let flush = self.flush_size_bytes as usize;
        if !flush.is_power_of_two() || !(PAGE_BYTES..=block).contains(&flush) {
            return wrong(format!(
                "a flush size of {flush} bytes is not a power of two between {PAGE_BYTES} and the write block"
            ));
        }
        if devices == 0 || devices > Location::DEVICES_MAX {
            return wrong(format!(
                "{devices} devices, allowed are 1 to {}",
                Location::DEVICES_MAX
            ));
        }
        if device_bytes > Location::DEVICE_BYTES_MAX {
            return wrong(format!(
                "a device of {device_bytes} bytes, allowed are 2 TiB: a larger one is to be partitioned"
            ));
        }
        if device_bytes / (block as u64) < Self::BLOCKS_MIN {
            return wrong(format!(
                "a device of {device_bytes} bytes holds fewer than {} write blocks of {block} bytes",
                Self::BLOCKS_MIN
            ));
        }
        if self.namespace.len() > u8::MAX as usize {
            return wrong("a name of more than 255 bytes".into());
        }
        if self.defrag_lwm_pct > 99 {
            return wrong(format!(
                "defrag-lwm-pct {}, allowed are 0 to 99",
                self.defrag_lwm_pct
            ));
        }
        Ok(())
    }
}
