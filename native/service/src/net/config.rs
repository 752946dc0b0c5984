//! What a loop is told before it starts.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::read_pool::ReadPool;
use super::tls::TlsPort;
use super::uring;

/// Unconsumed input that a connection may hold while it is parked or its peer does not read: beyond
/// it the loop stops receiving from that connection, so the peer is held back by TCP.
pub(super) const INPUT_HELD_BYTES_MAX: usize = 1 << 20;

/// What a peer speaks, by the port that it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Plain,
    Tls,
}

/// A connected socket that no loop has yet.
pub struct PeerSocket {
    pub socket: OwnedFd,
    pub peer: SocketAddr,
    pub transport: Transport,
}

impl PeerSocket {
    pub fn plain(socket: OwnedFd, peer: SocketAddr) -> Self {
        Self {
            socket,
            peer,
            transport: Transport::Plain,
        }
    }
}

/// Called for each accepted socket: `Some` keeps it in this loop, `None` says that another thread
/// has it now.
pub type AcceptHook = Box<dyn FnMut(PeerSocket) -> Option<PeerSocket> + Send + 'static>;

/// Which of the siblings runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoopKind {
    /// io_uring where the kernel grants all that the loop needs, else epoll with a line in the log
    /// saying why.
    #[default]
    Auto,
    IoUring,
    Epoll,
}

impl LoopKind {
    /// Turns `Auto` into what this kernel supports, trying it out; the others stay what they are.
    pub fn resolve(self) -> LoopKind {
        if self != LoopKind::Auto {
            return self;
        }
        match uring::probe() {
            Ok(()) => LoopKind::IoUring,
            Err(reason) => {
                tracing::warn!(%reason, "io_uring is not usable here, using epoll");
                LoopKind::Epoll
            }
        }
    }

    /// As in statistics and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            LoopKind::Auto => "auto",
            LoopKind::IoUring => "io_uring",
            LoopKind::Epoll => "epoll",
        }
    }
}

impl fmt::Display for LoopKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Limits and times of one loop. Every limit says what happens there.
pub struct LoopConfig {
    /// Where connections are accepted. A loop without one serves what it adopts.
    pub listener: Option<TcpListener>,
    /// Where connections that speak TLS are accepted.
    pub tls_listener: Option<TcpListener>,
    /// What connections that speak TLS are served with. Without it they are closed at once.
    pub tls: Option<Arc<TlsPort>>,
    /// Distributes accepted sockets among threads; without it this loop keeps all.
    pub on_accept: Option<AcceptHook>,
    /// Unconsumed input of one connection. Memory grows only with bytes really received; a
    /// connection whose handler wants still more is closed. By protocol a frame is at most 128 MiB
    /// and its header 8 bytes.
    pub input_bytes_max: usize,
    /// Output of one connection that the kernel has not taken: above it no further input is offered
    /// until half of it has left.
    pub output_bytes_max: usize,
    /// A peer that leaves its output above that limit, or the last output of a closing connection
    /// unread, is closed unless it takes at least half of `output_bytes_max` in this time.
    pub slow_peer_timeout: Duration,
    /// Interval of [`Handler::on_tick`](super::Handler::on_tick).
    pub tick: Duration,
    /// A connection that neither sends nor takes anything for so long, and is not parked, is
    /// closed.
    pub idle_timeout: Option<Duration>,
    /// Connections of this loop; one more is closed as soon as it is accepted or adopted.
    pub connections_max: usize,
    /// Carries out device reads that the loop cannot.
    pub read_pool: Arc<ReadPool>,
    pub kind: LoopKind,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            listener: None,
            tls_listener: None,
            tls: None,
            on_accept: None,
            input_bytes_max: (128 << 20) + 8,
            output_bytes_max: 8 << 20,
            slow_peer_timeout: Duration::from_secs(30),
            tick: Duration::from_millis(20),
            idle_timeout: None,
            connections_max: 15_000,
            read_pool: Arc::default(),
            kind: LoopKind::Auto,
        }
    }
}
