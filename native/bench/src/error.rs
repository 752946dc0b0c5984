//! Everything that ends a run before it has results.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("no address for {host}:{port}: {source}")]
    Resolve {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error("cannot connect to {address}: {source}")]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the {what} {name:?} is longer than {bytes_max} bytes")]
    NameTooLong {
        what: &'static str,
        name: String,
        bytes_max: usize,
    },
    #[error("the server closed all connections; errors before that: {0}")]
    ConnectionsLost(String),
    #[error("no reply for {seconds} s, {operations} operations were done")]
    Stalled { seconds: u64, operations: u64 },
    #[error("not all keys could be written before: {0}")]
    Preload(String),
    #[error("no index for the queries: {0}")]
    Index(String),
    #[error("the module is not accepted: {0}")]
    Module(String),
    #[error("the echo process: {0}")]
    Echo(String),
    #[error("{0}")]
    Option(String),
    #[error("{path}: {what}")]
    Device { path: PathBuf, what: String },
    #[error("{path}: cannot {operation}: {source}")]
    DeviceIo {
        path: PathBuf,
        operation: &'static str,
        source: io::Error,
    },
    #[error("interrupted before anything was measured")]
    Interrupted,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}
