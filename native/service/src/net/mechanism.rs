//! What differs between the loops: how bytes get in and out. A mechanism makes system calls and
//! decides nothing.

use std::io;
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::time::Duration;

use super::ConnId;
use super::config::{PeerSocket, Transport};
use super::connection::{Connection, Table};
use super::reads::{Reading, Reads};

/// Bytes of a connection's output that are sent at once: copying them is a part of the loop's time, and the next request waits
/// for it.
pub(super) const SEND_BYTES_MAX: usize = 128 << 10;

/// Received bytes that still lie in a buffer of the mechanism. Goes back through
/// [`Mechanism::recycle`].
pub(super) struct Received {
    pub(super) buffer: u16,
    pub(super) bytes: usize,
}

/// A port, and what is spoken there.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) transport: Transport,
}

pub(super) enum Event {
    Accepted(PeerSocket),
    /// Accepting ended, for want of descriptors perhaps; it goes on after [`Mechanism::accept`].
    AcceptFailed(io::Error),
    Received(ConnId, Received),
    /// The peer has sent its last byte.
    Ended(ConnId),
    /// Bytes have left, or can leave again.
    Sent(ConnId),
    Failed(ConnId, io::Error),
    /// The kernel has let go of a detached connection.
    Released(ConnId),
    /// A device read is over.
    Read(Reading, io::Result<()>),
}

pub(super) trait Mechanism: Sized {
    /// `wake_event` is an eventfd whose readiness ends a wait.
    fn open(listeners: Vec<Listener>, wake_event: RawFd) -> io::Result<Self>;

    /// Starts or stops accepting, on all ports.
    fn accept(&mut self, wanted: bool) -> io::Result<()>;

    /// A new connection: puts its socket into the mode this mechanism needs. Nothing is received
    /// yet.
    fn attach(&mut self, connection: &mut Connection) -> io::Result<()>;

    /// Starts or stops receiving; bytes already under way may still come after a stop.
    fn receive(&mut self, connection: &mut Connection, wanted: bool) -> io::Result<()>;

    /// Sends the outbox, now or with the next wait. While `kernel.sending` is left set, it goes on
    /// by an [`Event::Sent`], and this is not called.
    fn send(&mut self, connection: &mut Connection) -> io::Result<()>;

    /// Ends everything under way. True when the connection may be freed at once, else
    /// [`Event::Released`] will come.
    fn detach(&mut self, connection: &mut Connection) -> bool;

    /// Begins the reads that may begin and sends what is to be sent, without waiting.
    fn submit(&mut self, table: &mut Table, reads: &mut Reads) -> io::Result<()>;

    /// Whether there are events that the last wait did not find. Costs little, since it is asked between pieces of work that
    /// take some ten microseconds.
    fn has_arrived(&mut self) -> bool;

    /// As `submit`, and waits for events, for ever without a `timeout`.
    fn wait(
        &mut self,
        table: &mut Table,
        reads: &mut Reads,
        timeout: Option<Duration>,
    ) -> io::Result<()>;

    /// The next event of the last wait.
    fn next(&mut self, table: &mut Table, reads: &mut Reads) -> io::Result<Option<Event>>;

    fn bytes(&self, received: &Received) -> &[u8];

    fn recycle(&mut self, received: Received);
}

/// Whether calls on the socket may wait. `io_uring` answers EAGAIN on a non-blocking socket instead
/// of waiting itself.
pub(super) fn set_nonblocking(socket: RawFd, nonblocking: bool) -> io::Result<()> {
    let mut value = libc::c_int::from(nonblocking);
    // SAFETY: FIONBIO reads one int, which outlives the call.
    match unsafe { libc::ioctl(socket, libc::FIONBIO, &raw mut value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
