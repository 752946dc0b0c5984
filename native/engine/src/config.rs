//! What the control plane has decided, as it arrives: the validated configuration in kebab-case JSON. The schema, its
//! defaults and its messages are TypeScript's; values that make no sense here are refused, not repaired.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::record::compression::{Compression, CompressionKind};
use crate::storage::{Algorithm, DefragPace, Encryption, MediumConfig, OpenError, StoreConfig};
use crate::tunable::Tunable;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NamespaceConfig {
    pub name: String,
    pub replication_factor: u8,
    /// Seconds; 0 never expires.
    pub default_ttl: Tunable<u32>,
    /// Seconds between passes of the expiry thread; 0 turns it off.
    pub nsup_period: Tunable<u32>,
    pub allow_ttl_without_nsup: Tunable<bool>,
    /// Bytes of a stored record, header included.
    pub max_record_size: Tunable<u32>,
    pub default_read_touch_ttl_pct: Tunable<u8>,
    /// Percentages of 0 are no threshold, here and below.
    pub stop_writes_used_pct: Tunable<u8>,
    pub stop_writes_avail_pct: Tunable<u8>,
    pub stop_writes_sys_memory_pct: Tunable<u8>,
    /// Bytes of memory that indexes may take; 0 is no limit.
    pub indexes_memory_budget: Tunable<u64>,
    pub evict_used_pct: Tunable<u8>,
    /// Of `indexes_memory_budget`.
    pub evict_indexes_memory_pct: Tunable<u8>,
    /// Tenths of a percent of the records that can expire.
    pub evict_tenths_pct: Tunable<u32>,
    pub evict_hist_buckets: Tunable<u32>,
    /// Seconds after which a tombstone may be reclaimed.
    pub tomb_raider_eligible_age: Tunable<u32>,
    /// Seconds between passes of the tomb raider; 0 turns it off.
    pub tomb_raider_period: Tunable<u32>,
    /// Records a second that one background query may change.
    #[serde(default = "default_background_rps")]
    pub background_query_max_rps: Tunable<u32>,
    pub sets: Vec<SetConfig>,
    /// Truncations that are in force.
    #[serde(default)]
    pub truncations: Vec<TruncationConfig>,
    #[serde(default)]
    pub index_type: IndexType,
    /// Of the service: where files of shared memory are kept. An index of type `shmem` needs it.
    #[serde(skip)]
    pub shmem_directory: Option<PathBuf>,
    pub storage_engine: StorageConfig,
}

fn default_background_rps() -> Tunable<u32> {
    10_000.into()
}

/// Records of a set, or of the namespace, that were last updated before `lut` are gone.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TruncationConfig {
    pub set: Option<String>,
    /// Milliseconds since 2010-01-01.
    pub lut: u64,
}

/// Where the index lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexType {
    /// On the heap: every start is cold.
    #[default]
    Memory,
    /// In shared memory, where the next process finds it.
    Shmem,
}

/// What a set has of its own. A set that is not named has the defaults.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SetConfig {
    pub name: String,
    /// Seconds; 0 takes the namespace's.
    pub default_ttl: Tunable<u32>,
    /// 0 takes the namespace's, -1 never touches.
    pub default_read_touch_ttl_pct: Tunable<i8>,
    pub disable_eviction: Tunable<bool>,
    /// Records, and bytes of them, from which on writes are refused; 0 is no limit.
    pub stop_writes_count: Tunable<u64>,
    pub stop_writes_size: Tunable<u64>,
}

impl NamespaceConfig {
    /// Takes over every value that may change while the namespace is open. The others are left as they are.
    pub fn retune(&self, changed: &NamespaceConfig) {
        // Named one by one, so that a key that is added later has to be put on one side or the other.
        let NamespaceConfig {
            name: _,
            replication_factor: _,
            default_ttl,
            nsup_period,
            allow_ttl_without_nsup,
            max_record_size,
            default_read_touch_ttl_pct,
            stop_writes_used_pct,
            stop_writes_avail_pct,
            stop_writes_sys_memory_pct,
            indexes_memory_budget,
            evict_used_pct,
            evict_indexes_memory_pct,
            evict_tenths_pct,
            evict_hist_buckets,
            tomb_raider_eligible_age,
            tomb_raider_period,
            background_query_max_rps,
            sets: _,
            truncations: _,
            index_type: _,
            shmem_directory: _,
            storage_engine,
        } = changed;
        self.storage_engine.common().retune(storage_engine.common());
        self.default_ttl.set(default_ttl.get());
        self.nsup_period.set(nsup_period.get());
        self.allow_ttl_without_nsup
            .set(allow_ttl_without_nsup.get());
        self.max_record_size.set(max_record_size.get());
        self.default_read_touch_ttl_pct
            .set(default_read_touch_ttl_pct.get());
        self.stop_writes_used_pct.set(stop_writes_used_pct.get());
        self.stop_writes_avail_pct.set(stop_writes_avail_pct.get());
        self.stop_writes_sys_memory_pct
            .set(stop_writes_sys_memory_pct.get());
        self.indexes_memory_budget.set(indexes_memory_budget.get());
        self.evict_used_pct.set(evict_used_pct.get());
        self.evict_indexes_memory_pct
            .set(evict_indexes_memory_pct.get());
        self.evict_tenths_pct.set(evict_tenths_pct.get());
        self.evict_hist_buckets.set(evict_hist_buckets.get());
        self.tomb_raider_eligible_age
            .set(tomb_raider_eligible_age.get());
        self.tomb_raider_period.set(tomb_raider_period.get());
        self.background_query_max_rps
            .set(background_query_max_rps.get());
    }
}

impl CommonStorageConfig {
    /// As [`NamespaceConfig::retune`]. What the store works with is told to it apart from this.
    fn retune(&self, changed: &CommonStorageConfig) {
        let CommonStorageConfig {
            files: _,
            filesize: _,
            devices: _,
            commit_to_device: _,
            encryption: _,
            encryption_key_file: _,
            write_block_size: _,
            flush_size: _,
            flush_max_ms: _,
            max_write_cache: _,
            post_write_cache: _,
            defrag_lwm_pct,
            defrag_sleep,
            defrag_queue_min,
            tomb_raider_sleep,
            compression,
            compression_level,
        } = changed;
        self.defrag_lwm_pct.set(defrag_lwm_pct.get());
        self.defrag_sleep.set(defrag_sleep.get());
        self.defrag_queue_min.set(defrag_queue_min.get());
        self.tomb_raider_sleep.set(tomb_raider_sleep.get());
        self.compression.set(compression.get());
        self.compression_level.set(compression_level.get());
    }

    pub(crate) fn defrag_pace(&self) -> DefragPace {
        DefragPace {
            lwm_pct: self.defrag_lwm_pct.get(),
            sleep: micros(&self.defrag_sleep),
            queue_min: self.defrag_queue_min.get() as usize,
        }
    }
}

impl SetConfig {
    /// As [`NamespaceConfig::retune`].
    pub fn retune(&self, changed: &SetConfig) {
        let SetConfig {
            name: _,
            default_ttl,
            default_read_touch_ttl_pct,
            disable_eviction,
            stop_writes_count,
            stop_writes_size,
        } = changed;
        self.default_ttl.set(default_ttl.get());
        self.default_read_touch_ttl_pct
            .set(default_read_touch_ttl_pct.get());
        self.disable_eviction.set(disable_eviction.get());
        self.stop_writes_count.set(stop_writes_count.get());
        self.stop_writes_size.set(stop_writes_size.get());
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum StorageConfig {
    /// Records are read from memory. Where there are files or devices, every write goes there too.
    #[serde(rename_all = "kebab-case")]
    Memory {
        /// For memory alone.
        data_size: Option<u64>,
        #[serde(flatten)]
        common: CommonStorageConfig,
    },
    #[serde(rename_all = "kebab-case")]
    Device {
        #[serde(flatten)]
        common: CommonStorageConfig,
    },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CommonStorageConfig {
    pub files: Vec<PathBuf>,
    /// Bytes of each file.
    pub filesize: Option<u64>,
    pub devices: Vec<PathBuf>,
    pub commit_to_device: bool,
    pub encryption: EncryptionConfig,
    pub encryption_key_file: Option<PathBuf>,
    pub write_block_size: u32,
    pub flush_size: u32,
    pub flush_max_ms: u32,
    pub max_write_cache: u64,
    pub post_write_cache: u64,
    pub defrag_lwm_pct: Tunable<u8>,
    /// Microseconds.
    pub defrag_sleep: Tunable<u32>,
    pub defrag_queue_min: Tunable<u32>,
    /// Microseconds between two blocks that the tomb raider reads.
    pub tomb_raider_sleep: Tunable<u32>,
    /// Of new versions.
    pub compression: Tunable<CompressionKind>,
    pub compression_level: Tunable<u8>,
}

impl Default for CommonStorageConfig {
    fn default() -> Self {
        CommonStorageConfig {
            files: Vec::new(),
            filesize: None,
            devices: Vec::new(),
            commit_to_device: false,
            encryption: EncryptionConfig::None,
            encryption_key_file: None,
            write_block_size: 8 << 20,
            flush_size: 1 << 20,
            flush_max_ms: 1000,
            max_write_cache: 64 << 20,
            post_write_cache: 256 << 20,
            defrag_lwm_pct: 50.into(),
            defrag_sleep: 1000.into(),
            defrag_queue_min: 0.into(),
            tomb_raider_sleep: 1000.into(),
            compression: CompressionKind::None.into(),
            compression_level: 3.into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum EncryptionConfig {
    #[serde(rename = "none")]
    None,
    #[serde(rename = "aes-128")]
    Aes128,
    #[serde(rename = "aes-256")]
    Aes256,
}

impl StorageConfig {
    pub fn common(&self) -> &CommonStorageConfig {
        match self {
            StorageConfig::Memory { common, .. } | StorageConfig::Device { common } => common,
        }
    }
}

impl NamespaceConfig {
    /// Of the files or devices that records lie on.
    pub(crate) fn device_paths(&self) -> Vec<PathBuf> {
        let common = self.storage_engine.common();
        [common.files.as_slice(), common.devices.as_slice()].concat()
    }

    pub(crate) fn tomb_raider_sleep(&self) -> Duration {
        micros(&self.storage_engine.common().tomb_raider_sleep)
    }

    pub(crate) fn compression(&self) -> Compression {
        let common = self.storage_engine.common();
        Compression {
            algorithm: common.compression.get(),
            level: common.compression_level.get(),
        }
    }

    /// What the store of the namespace is opened with.
    pub(crate) fn store(&self) -> Result<StoreConfig, OpenError> {
        let wrong = |what: &str| OpenError::Config {
            namespace: self.name.clone(),
            what: what.into(),
        };
        let (data_size, in_memory) = match &self.storage_engine {
            StorageConfig::Memory { data_size, .. } => (*data_size, true),
            StorageConfig::Device { .. } => (None, false),
        };
        let common = self.storage_engine.common();
        let CommonStorageConfig {
            files,
            filesize,
            devices,
            commit_to_device,
            encryption,
            encryption_key_file,
            write_block_size,
            flush_size,
            flush_max_ms,
            max_write_cache,
            post_write_cache,
            defrag_lwm_pct,
            defrag_sleep,
            defrag_queue_min,
            tomb_raider_sleep: _,
            compression: _,
            compression_level: _,
        } = common.clone();
        let medium = match (data_size, files.is_empty(), filesize, devices.is_empty()) {
            (Some(data_size), true, None, true) => MediumConfig::Memory { data_size },
            (None, false, Some(file_size), true) => MediumConfig::File {
                paths: files,
                file_size,
            },
            (None, true, None, false) => MediumConfig::Device { paths: devices },
            _ => {
                return Err(wrong(
                    "exactly one of data-size (memory only), files with filesize, and devices is to be given",
                ));
            }
        };
        let shared_directory = match (self.index_type, &self.shmem_directory) {
            (IndexType::Memory, _) => None,
            (IndexType::Shmem, _) if in_memory => {
                return Err(wrong("index-type shmem needs storage-engine device"));
            }
            (IndexType::Shmem, None) => {
                return Err(wrong("index-type shmem needs shmem-directory"));
            }
            (IndexType::Shmem, Some(directory)) => Some(directory.clone()),
        };
        if commit_to_device && matches!(medium, MediumConfig::Memory { .. }) {
            return Err(wrong("commit-to-device needs files or devices"));
        }
        let algorithm = match encryption {
            EncryptionConfig::None => None,
            EncryptionConfig::Aes128 => Some(Algorithm::Aes128),
            EncryptionConfig::Aes256 => Some(Algorithm::Aes256),
        };
        let encryption = match (algorithm, encryption_key_file) {
            (None, None) => None,
            (Some(algorithm), Some(key_file)) => Some(Encryption {
                algorithm,
                key_file,
            }),
            _ => return Err(wrong("encryption and encryption-key-file go together")),
        };
        if encryption.is_some() && matches!(medium, MediumConfig::Memory { .. }) {
            return Err(wrong("encryption needs files or devices"));
        }
        Ok(StoreConfig {
            namespace: self.name.clone(),
            medium,
            shared_directory,
            in_memory,
            encryption,
            write_block_bytes: write_block_size,
            flush_size_bytes: flush_size,
            flush_max: Duration::from_millis(u64::from(flush_max_ms)),
            commit_to_device,
            write_cache_bytes_max: max_write_cache,
            post_write_cache_bytes: post_write_cache,
            defrag_lwm_pct: defrag_lwm_pct.get(),
            defrag_sleep: micros(&defrag_sleep).into(),
            defrag_queue_min: (defrag_queue_min.get() as usize).into(),
        })
    }
}

fn micros(configured: &Tunable<u32>) -> Duration {
    Duration::from_micros(u64::from(configured.get()))
}

/// A datacenter as far as the engine is concerned: what to queue and how to name it. Where and how it is shipped is the
/// control plane's.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatacenterConfig {
    pub name: String,
    pub namespaces: Vec<DatacenterNamespaceConfig>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatacenterNamespaceConfig {
    pub name: String,
    pub remote_namespace: Option<String>,
    /// Entries a partition's queue may hold before it falls back to recovery.
    pub transaction_queue_limit: usize,
    /// One record is handed out at most once in this time.
    pub hot_key_ms: u64,
}
