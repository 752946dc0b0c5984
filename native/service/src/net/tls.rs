//! The TLS port: a certificate and the connections that are served with it.
//!
//! One [`TlsPort`] is shared by all loops. Its settings are replaced as a whole when a file of
//! theirs has changed; connections that are open keep what they began with. A connection's own half
//! is its [`session`]. TLS comes from rustls with ring, so there are no versions before 1.2, no
//! renegotiation, no compression and no weak ciphers to configure away.

mod identity;
mod session;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use serde::Deserialize;
use thiserror::Error;

use crate::parked::LogPace;
use identity::{FileStamp, load, stamps};
pub(super) use session::{Opened, TlsFault, TlsSession};

/// How long a peer may take from connecting to the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a TLS port is opened with: the files of a `network.tls` section, and how clients prove who
/// they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TlsConfig {
    /// Of the section; clients expect the certificate to carry it.
    pub name: String,
    /// The certificate, and those between it and its authority, in PEM.
    pub cert_file: PathBuf,
    /// Its private key, in PEM, not encrypted.
    pub key_file: PathBuf,
    /// Authorities that clients' certificates are checked against: a file in PEM,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// or a directory of such files. Both may be given.
    #[serde(default)]
    pub ca_path: Option<PathBuf>,
    pub protocols: Vec<TlsProtocol>,
    /// Whether a client without a certificate of these authorities is refused.
    pub authenticate_client: bool,
    /// Of which its certificate must carry one, as its common name or as a DNS name; any, if empty.
    #[serde(default)]
    pub client_names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TlsProtocol {
    #[serde(rename = "TLSv1.2")]
    V12,
    #[serde(rename = "TLSv1.3")]
    V13,
}

/// Why a TLS port does not open. Every message names the section, and the file if it is about one.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("network.tls {name}: {} cannot be read: {source}", .file.display())]
    Unreadable {
        name: String,
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("network.tls {name}: {} {problem}", .file.display())]
    Unusable {
        name: String,
        file: PathBuf,
        problem: String,
    },
    #[error("network.tls {name}: the key in {} is not that of the certificate in {}", .key_file.display(), .cert_file.display())]
    KeyMismatch {
        name: String,
        cert_file: PathBuf,
        key_file: PathBuf,
    },
    #[error("network.tls {name}: no certificate to check those of clients against")]
    NoAuthority { name: String },
    #[error("network.tls {name}: {source}")]
    Refused { name: String, source: rustls::Error },
}

/// Counters of TLS connections, by their public names.
#[derive(Default)]
pub struct TlsStats {
    /// Handshakes that were completed.
    pub opened: AtomicU64,
    /// Of those, connections that are closed.
    pub closed: AtomicU64,
    /// Of those, sessions that were resumed rather than begun anew.
    pub resumed: AtomicU64,
    /// Connections that sent something, and no whole handshake that is accepted here.
    pub handshake_errors: AtomicU64,
    /// Connections that broke TLS after their handshake.
    pub errors: AtomicU64,
}

impl TlsStats {
    pub fn totals(&self) -> [(&'static str, u64); 6] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let closed = read(&self.closed);
        let opened = read(&self.opened);
        [
            ("client_tls_connections", opened.saturating_sub(closed)),
            ("client_tls_connections_opened", opened),
            ("client_tls_connections_closed", closed),
            ("client_tls_sessions_resumed", read(&self.resumed)),
            ("client_tls_handshake_errors", read(&self.handshake_errors)),
            ("client_tls_errors", read(&self.errors)),
        ]
    }
}

/// What connections that speak TLS are served with.
pub struct TlsPort {
    config: TlsConfig,
    /// Held only to copy or to replace the pointer.
    settings: RwLock<Arc<ServerConfig>>,
    /// The files as they were when they were last read.
    seen: Mutex<Vec<FileStamp>>,
    /// A connection whose handshake takes longer is closed.
    pub(super) handshake_timeout: Duration,
    stats: Arc<TlsStats>,
    fault_logged: Mutex<LogPace>,
}

impl TlsPort {
    /// Reads the files and checks that they work together. A certificate that has expired, or soon
    /// will, is only warned about.
    pub fn open(config: TlsConfig, stats: Arc<TlsStats>) -> Result<TlsPort, TlsError> {
        // Before they are read: what changes in between is read again.
        let seen = stamps(&config);
        let settings = load(&config)?;
        Ok(TlsPort {
            config,
            settings: RwLock::new(Arc::new(settings)),
            seen: Mutex::new(seen),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            stats,
            fault_logged: Mutex::default(),
        })
    }

    /// Reads the files again if one has changed since they were read last. When they cannot be used
    /// the port goes on with what it has; sessions that clients kept are forgotten otherwise.
    pub fn refresh(&self) {
        let now = stamps(&self.config);
        if std::mem::replace(&mut *self.seen.lock(), now.clone()) == now {
            return;
        }
        let name = &self.config.name;
        match load(&self.config) {
            Ok(settings) => {
                *self.settings.write() = Arc::new(settings);
                tracing::info!(name, "the certificate was read again");
            }
            Err(error) => {
                tracing::error!(%error, "goes on with the certificate that it has");
            }
        }
    }

    fn settings(&self) -> Arc<ServerConfig> {
        self.settings.read().clone()
    }

    /// A line a second at most: whoever can connect can cause them.
    pub(super) fn log_fault(&self, peer: SocketAddr, fault: &TlsFault) {
        if self.fault_logged.lock().is_due() {
            tracing::warn!(%peer, %fault, "TLS connection closed");
        } else {
            tracing::debug!(%peer, %fault, "TLS connection closed");
        }
    }
}
