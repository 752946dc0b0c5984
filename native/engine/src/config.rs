//! What the control plane has decided, as it arrives: the validated configuration in kebab-case JSON. The schema, its
//! defaults and its messages are TypeScript's; values that make no sense here are refused, not repaired.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NamespaceConfig {
    pub name: String,
    pub replication_factor: u8,
    /// Seconds; 0 never expires.
    pub default_ttl: u32,
    /// Seconds between passes of the expiry thread; 0 turns it off.
    pub nsup_period: u32,
    pub allow_ttl_without_nsup: bool,
    /// Bytes of a stored record, header included.
    pub max_record_size: u32,
    pub default_read_touch_ttl_pct: u8,
    pub stop_writes_used_pct: u8,
    pub stop_writes_avail_pct: u8,
    pub storage_engine: StorageConfig,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum StorageConfig {
    #[serde(rename_all = "kebab-case")]
    Memory {
        data_size: u64,
        #[serde(flatten)]
        common: CommonStorageConfig,
    },
    #[serde(rename_all = "kebab-case")]
    Device {
        files: Vec<PathBuf>,
        filesize: u64,
        commit_to_device: bool,
        #[serde(flatten)]
        common: CommonStorageConfig,
    },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CommonStorageConfig {
    pub write_block_size: u32,
    pub flush_size: u32,
    pub flush_max_ms: u32,
    pub max_write_cache: u64,
    pub post_write_cache: u64,
    pub defrag_lwm_pct: u8,
}

impl Default for CommonStorageConfig {
    fn default() -> Self {
        CommonStorageConfig {
            write_block_size: 8 << 20,
            flush_size: 1 << 20,
            flush_max_ms: 1000,
            max_write_cache: 64 << 20,
            post_write_cache: 256 << 20,
            defrag_lwm_pct: 50,
        }
    }
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
