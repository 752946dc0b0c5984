//! What can go wrong with a store, one enum for each family of operations.

use crate::record::image::ImageError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a store does not open. Nothing was written to the media.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("storage of namespace {namespace}: {what}")]
    Config { namespace: String, what: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is in use by another process, or mounted")]
    InUse { path: PathBuf },
    #[error("{path} is not a Perigee device: its first bytes are {found:02x?}. It was not touched")]
    Foreign { path: PathBuf, found: [u8; 8] },
    #[error(
        "{path} has no Perigee header, and is not blank: there are other bytes at {offset}. It was not touched"
    )]
    NotBlank { path: PathBuf, offset: u64 },
    #[error("{path} holds a key of {found} bytes, {algorithm} takes {expected}")]
    KeyFile {
        path: PathBuf,
        algorithm: &'static str,
        expected: usize,
        found: usize,
    },
    #[error("{path} was encrypted with another key than that in {key_file}. It was not touched")]
    Key { path: PathBuf, key_file: PathBuf },
    #[error(
        "{path}: the device header is damaged (checksum {found:#010x}, the bytes give {expected:#010x}). It was not touched"
    )]
    Header {
        path: PathBuf,
        expected: u32,
        found: u32,
    },
    #[error(
        "{path} was written with format version {found}, and this program reads {oldest} to {newest}. It was not touched"
    )]
    Version {
        path: PathBuf,
        found: u32,
        oldest: u32,
        newest: u32,
    },
    #[error(
        "{path} was written with {what} {found}, and the configuration says {expected}. It was not touched"
    )]
    Mismatch {
        path: PathBuf,
        what: &'static str,
        expected: String,
        found: String,
    },
}

/// Why a device failed. The first failure of a write latches the device.
#[derive(Clone, Debug, thiserror::Error)]
#[error("device {device}: {operation} failed: {source}")]
pub struct DeviceError {
    pub device: u8,
    pub operation: &'static str,
    pub source: Arc<io::Error>,
}

/// Why a record was not appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no block left, and none about to become free.
    #[error("no free write block")]
    Full,
    /// To be tried again: filled but unwritten blocks reached `write_cache_bytes_max`, or there is no
    /// free block before those are erased that are to be reused.
    #[error("too many write blocks wait for the device")]
    Overload,
    #[error("the device has failed, or is closed")]
    DeviceFailed,
    #[error("the record is larger than a write block holds")]
    TooBig,
}

/// Why a record's bytes could not be fetched from its device.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("device {device}: reading {bytes} bytes at {offset}: {source}")]
    Io {
        device: u8,
        offset: u64,
        bytes: usize,
        source: io::Error,
    },
    /// The bytes are no image. Damage, if the index still points there; if not, the block was reused
    /// meanwhile and the record is to be looked up again.
    #[error("device {device}: the {bytes} bytes at {offset}: {source}")]
    Corrupt {
        device: u8,
        offset: u64,
        bytes: usize,
        source: ImageError,
    },
}

/// Why a scan did not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("the store was scanned before")]
    AlreadyScanned,
    #[error("opening was stopped")]
    Cancelled,
    /// The device takes no writes.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
