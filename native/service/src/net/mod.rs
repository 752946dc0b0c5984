//! Network loops: one completion-style event loop per service thread.
//!
//! A loop owns its sockets, their buffers and their clocks, and calls a [`Handler`] with the bytes
//! that arrived. Two siblings do the input and output, [`uring`] (io_uring) and [`epoll`], behind
//! one small trait ([`mechanism::Mechanism`]); everything that is policy (who may be offered input,
//! what is bounded by what, when a connection ends) is written once, in [`driver`]. A connection may
//! have a TLS session ([`tls`]) between its socket and its handler, which does not notice.
//!
//! What a handler may rely on, whichever sibling runs:
//!
//! - Calls come from one thread, never nested. `on_open` comes first and `on_close` comes once and
//!   last for an id.
//! - Input is offered in order and again until it is consumed; after [`Flow::Park`] none is offered
//!   until [`Net::resume`].
//! - Replies leave in the order in which they were appended.
//! - A device read asked for through [`Reads`] is answered by one `on_read`, unless the loop ends before.
//! - An id of a connection that is gone is ignored by every method of [`Net`], also after its slot
//!   is used again.

mod buffer_ring;
mod config;
mod connection;
mod control;
mod driver;
mod epoll;
mod links;
mod mechanism;
mod read_pool;
#[cfg(test)]
mod read_tests;
mod reads;
#[cfg(test)]
mod tests;
mod tls;
mod uring;

use std::io;
use std::net::SocketAddr;

pub use config::{AcceptHook, LoopConfig, LoopKind, PeerSocket, Transport};
pub use control::{LoopControl, Waker};
pub use driver::run;
pub use read_pool::ReadPool;
pub use reads::Reads;
pub use tls::{TlsConfig, TlsError, TlsPort, TlsProtocol, TlsStats};

/// Name of a connection within one loop. Copyable and never reused: a slot that is taken again has
/// another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// Position in the loop's connection table: small and dense, so a handler may keep its own
    /// state in a `Vec`.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Which user of that position this is.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The id as one integer, for mailboxes that carry 64-bit tokens.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The inverse of [`ConnId::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// What happens to a connection after its handler has looked at its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Offer the rest of the input, if something was consumed; otherwise wait for more.
    Continue,
    /// Offer nothing until [`Net::resume`].
    Park,
    /// Send what was appended to the output, then close. `on_close` follows at once.
    Close,
}

/// Answer of [`Handler::on_input`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// Bytes of `input` that will not be offered again.
    pub bytes: usize,
    pub flow: Flow,
}

impl Consumed {
    /// `bytes` are done with; go on.
    pub fn more(bytes: usize) -> Self {
        Self {
            bytes,
            flow: Flow::Continue,
        }
    }

    /// `bytes` are done with; the request that they held waits.
    pub fn park(bytes: usize) -> Self {
        Self {
            bytes,
            flow: Flow::Park,
        }
    }

    /// The connection is done with.
    pub fn close() -> Self {
        Self {
            bytes: 0,
            flow: Flow::Close,
        }
    }
}

/// The requests' side of a loop.
pub trait Handler {
    /// A connection was accepted or adopted.
    fn on_open(&mut self, _conn: ConnId, _peer: SocketAddr) {}

    /// `input` is everything received and not yet consumed, never empty; replies are appended to
    /// `output`, which may still hold earlier ones. The handler consumes whole frames, one or
    /// several; when it consumes some and says [`Flow::Continue`], the rest is offered at once.
    /// When it consumes nothing, it is called again when more has arrived.
    fn on_input(
        &mut self,
        conn: ConnId,
        input: &[u8],
        output: &mut Vec<u8>,
        reads: &mut Reads,
    ) -> Consumed;

    /// The connection is closed, whoever closed it; `conn` is stale from now on.
    fn on_close(&mut self, _conn: ConnId) {}

    /// The read that was asked for under this token is over; `bytes` is what the medium holds there,
    /// if the outcome is good.
    fn on_read(
        &mut self,
        _token: u64,
        _bytes: &[u8],
        _outcome: io::Result<()>,
        _net: &mut dyn Net,
    ) {
    }

    /// Somebody called [`Waker::wake`]: drain the mailbox and answer parked connections through
    /// `net`.
    fn on_wake(&mut self, net: &mut dyn Net);

    /// Comes about every [`LoopConfig::tick`] while a connection is parked or
    /// [`Handler::wants_tick`] says so.
    fn on_tick(&mut self, _net: &mut dyn Net) {}

    /// Whether something here has a deadline besides parked connections. A loop without any blocks
    /// until input comes.
    fn wants_tick(&self) -> bool {
        false
    }

    /// Whether there is work that goes on piece by piece. The loop does not block then.
    fn wants_turn(&self) -> bool {
        false
    }

    /// Comes once an iteration while [`Handler::wants_turn`] says so, when all that had arrived before is handled and its
    /// replies are on their way. `has_arrived` tells whether there is something new meanwhile: it is handled when this returns.
    fn on_turn(&mut self, _net: &mut dyn Net, _has_arrived: &mut dyn FnMut() -> bool) {}

    /// Comes once an iteration, before the loop waits for what arrives next: who gives work to others tells them here, once for
    /// all of it.
    fn before_wait(&mut self) {}

    /// All output of a parked connection was taken by the kernel: who produces a long answer piece
    /// by piece continues here.
    fn on_drained(&mut self, _conn: ConnId, _net: &mut dyn Net) {}

    /// A call panicked while it worked for this connection, which is closed therefore. `head` is how
    /// the frame begins that it worked on, as far as that is known.
    fn panicked(&mut self, _conn: ConnId, _text: &str, _head: &[u8]) {}
}

/// What a handler may do outside `on_input`. Stale ids are ignored.
pub trait Net {
    /// Where reply bytes of `conn` are appended; sent after the handler returns. `None` when it is
    /// gone.
    fn output(&mut self, conn: ConnId) -> Option<&mut Vec<u8>>;

    /// As `output`, and where the answer may have to ask for device reads.
    fn answering(&mut self, conn: ConnId) -> (Option<&mut Vec<u8>>, &mut Reads);

    /// Where device reads are asked for.
    fn reads(&mut self) -> &mut Reads;

    /// Bytes of output that the kernel has not taken yet, for those that produce a long answer
    /// piece by piece. 0 when `conn` is gone.
    fn unsent(&self, conn: ConnId) -> usize;

    /// Whether the peer has ended its side, or the connection as a whole: which of them shows only when something is sent.
    fn has_ended(&self, conn: ConnId) -> bool;

    /// Ends the park: buffered input is offered again after the handler returns, and output is
    /// sent.
    fn resume(&mut self, conn: ConnId);

    /// Sends what is in the output, then closes. `on_close` comes after the handler returns.
    fn close(&mut self, conn: ConnId);

    /// Takes over a connection that was accepted elsewhere. `on_open` comes after the handler
    /// returns.
    fn adopt(&mut self, socket: PeerSocket);

    /// Connections that are open, without those that only wait for their last bytes to leave.
    fn connections(&self) -> usize;
}
