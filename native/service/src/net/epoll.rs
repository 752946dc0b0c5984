//! The epoll sibling, for kernels that refuse io_uring: non-blocking sockets, level-triggered
//! readiness.
//!
//! A ready connection is received from once, handled, and sent to once; what is left makes it ready
//! again. So a request costs two system calls and its share of a wait.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::ConnId;
use super::config::PeerSocket;
use super::connection::{Connection, Phase, Table};
use super::mechanism::{Event, Listener, Mechanism, Received, SEND_BYTES_MAX, set_nonblocking};
use super::reads::Reads;

const EVENTS_MAX: usize = 256;
const SCRATCH_BYTES: usize = 64 << 10;

/// Accepted in a row from one port before others have their turn; a listener that has more stays
/// ready.
const ACCEPTS_MAX: u32 = 64;

/// The low half of tokens that belong to no connection: its index would have to be the last of
/// 2^32.
const NO_CONNECTION: u32 = u32::MAX;
const WAKE_EVENT: u64 = u64::MAX;

/// Names a listener by its position.
fn listener_token(position: usize) -> u64 {
    (position as u64) << 32 | u64::from(NO_CONNECTION)
}

struct Port {
    listener: Listener,
    /// Of `ACCEPTS_MAX`, in this turn.
    accepts_left: u32,
}

const READABLE: u32 = libc::EPOLLIN as u32;
const WRITABLE: u32 = libc::EPOLLOUT as u32;
/// Reported whether asked for or not.
const BROKEN: u32 = (libc::EPOLLHUP | libc::EPOLLERR) as u32;

pub(super) struct Epoll {
    epoll: OwnedFd,
    ports: Vec<Port>,
    wake_event: RawFd,
    events: Vec<libc::epoll_event>,
    taken: usize,
    /// Where all connections receive; its content is handled before the next receive.
    scratch: Box<[u8]>,
}

impl Epoll {
    fn control(&self, action: i32, socket: RawFd, token: u64, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: token,
        };
        // SAFETY: both descriptors are open and the event outlives the call.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), action, socket, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set_interest(&self, connection: &mut Connection, interest: u32) -> io::Result<()> {
        if connection.kernel.interest != interest {
            let socket = connection.socket.as_raw_fd();
            self.control(
                libc::EPOLL_CTL_MOD,
                socket,
                connection.id.to_bits(),
                interest,
            )?;
            connection.kernel.interest = interest;
        }
        Ok(())
    }

    /// Has the rest of the output sent when the socket takes more.
    fn send_later(&self, connection: &mut Connection) -> io::Result<()> {
        connection.kernel.sending = true;
        self.set_interest(connection, connection.kernel.interest | WRITABLE)
    }

    /// `None` when nobody is waiting any more, or for this turn.
    fn accept_one(&mut self, position: usize) -> Option<Event> {
        let port = &mut self.ports[position];
        port.accepts_left = port.accepts_left.checked_sub(1)?;
        loop {
            match port.listener.socket.accept() {
                Ok((stream, peer)) => {
                    return Some(Event::Accepted(PeerSocket {
                        socket: stream.into(),
                        peer,
                        transport: port.listener.transport,
                    }));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return None,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => continue,
                    _ => return Some(Event::AcceptFailed(error)),
                },
            }
        }
    }

    fn receive_once(&mut self, connection: &Connection) -> Option<Event> {
        let socket = connection.socket.as_raw_fd();
        let target = self.scratch.as_mut_ptr().cast();
        // SAFETY: the scratch buffer is writable for its length, and the socket is open.
        let count = unsafe { libc::recv(socket, target, self.scratch.len(), 0) };
        match count {
            1.. => Some(Event::Received(
                connection.id,
                Received {
                    buffer: 0,
                    bytes: count as usize,
                },
            )),
            0 => Some(Event::Ended(connection.id)),
            _ => {
                let error = io::Error::last_os_error();
                match error.kind() {
                    // Level-triggered: it comes again.
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => None,
                    _ => Some(Event::Failed(connection.id, error)),
                }
            }
        }
    }
}

impl Mechanism for Epoll {
    fn open(listeners: Vec<Listener>, wake_event: RawFd) -> io::Result<Self> {
        // SAFETY: plain system call; the result is checked.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let ports = listeners.into_iter().map(|listener| Port {
            listener,
            accepts_left: 0,
        });
        let this = Self {
            epoll,
            ports: ports.collect(),
            wake_event,
            events: Vec::with_capacity(EVENTS_MAX),
            taken: 0,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
        };
        for (position, port) in this.ports.iter().enumerate() {
            let socket = &port.listener.socket;
            socket.set_nonblocking(true)?;
            let token = listener_token(position);
            this.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), token, 0)?;
        }
        set_nonblocking(wake_event, true)?;
        this.control(libc::EPOLL_CTL_ADD, wake_event, WAKE_EVENT, READABLE)?;
        Ok(this)
    }

    fn accept(&mut self, wanted: bool) -> io::Result<()> {
        let interest = if wanted { READABLE } else { 0 };
        for (position, port) in self.ports.iter().enumerate() {
            let socket = port.listener.socket.as_raw_fd();
            let token = listener_token(position);
            self.control(libc::EPOLL_CTL_MOD, socket, token, interest)?;
        }
        Ok(())
    }

    fn attach(&mut self, connection: &mut Connection) -> io::Result<()> {
        let socket = connection.socket.as_raw_fd();
        set_nonblocking(socket, true)?;
        self.control(libc::EPOLL_CTL_ADD, socket, connection.id.to_bits(), 0)
    }

    fn receive(&mut self, connection: &mut Connection, wanted: bool) -> io::Result<()> {
        connection.kernel.receive_wanted = wanted;
        let others = connection.kernel.interest & !READABLE;
        self.set_interest(connection, if wanted { others | READABLE } else { others })
    }

    fn send(&mut self, connection: &mut Connection) -> io::Result<()> {
        let socket = connection.socket.as_raw_fd();
        let interest = connection.kernel.interest;
        let mut left = SEND_BYTES_MAX;
        while connection.outbox.unsent() > 0 && left > 0 {
            let bytes = connection.next_output();
            let bytes = &bytes[..bytes.len().min(left)];
            let source = bytes.as_ptr().cast();
            // SAFETY: the slice is readable for its length and the socket is open.
            let count = unsafe { libc::send(socket, source, bytes.len(), libc::MSG_NOSIGNAL) };
            if count >= 0 {
                let short = (count as usize) < bytes.len();
                connection.outbox.advance(count as usize);
                left -= count as usize;
                if !short {
                    continue;
                }
            } else {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock => {}
                    _ => return Err(error),
                }
            }
            return self.send_later(connection);
        }
        match connection.outbox.unsent() {
            0 => self.set_interest(connection, interest & !WRITABLE),
            _ => self.send_later(connection),
        }
    }

    fn detach(&mut self, _connection: &mut Connection) -> bool {
        // Closing the socket takes it out of the set; nothing is in flight between system calls.
        true
    }

    fn submit(&mut self, _table: &mut Table, reads: &mut Reads) -> io::Result<()> {
        while let Some(reading) = reads.begin() {
            reads.delegate(reading);
        }
        Ok(())
    }

    fn has_arrived(&mut self) -> bool {
        let mut epoll = libc::pollfd {
            fd: self.epoll.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, which outlives the call; it does not wait.
        unsafe { libc::poll(&raw mut epoll, 1, 0) > 0 }
    }

    fn wait(
        &mut self,
        table: &mut Table,
        reads: &mut Reads,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.submit(table, reads)?;
        // Rounded up: a wait that ends before its time would only be repeated.
        let timeout_ms = timeout.map_or(-1, |timeout| {
            timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32
        });
        self.taken = 0;
        for port in &mut self.ports {
            port.accepts_left = ACCEPTS_MAX;
        }
        self.events.clear();
        // SAFETY: the vector has room for EVENTS_MAX events; the kernel writes at most so many.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as i32,
                timeout_ms,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        }
        // SAFETY: the kernel has initialised so many, within the capacity.
        unsafe { self.events.set_len(count as usize) };
        Ok(())
    }

    fn next(&mut self, table: &mut Table, _reads: &mut Reads) -> io::Result<Option<Event>> {
        while let Some(&libc::epoll_event {
            events: ready,
            u64: token,
        }) = self.events.get(self.taken)
        {
            match token {
                WAKE_EVENT => {
                    let mut count = 0u64;
                    // SAFETY: eight writable bytes; the driver keeps the eventfd open. Its count
                    // tells nothing.
                    unsafe { libc::read(self.wake_event, (&raw mut count).cast(), 8) };
                }
                _ if token as u32 == NO_CONNECTION => {
                    if let Some(event) = self.accept_one((token >> 32) as usize) {
                        if matches!(event, Event::AcceptFailed(_)) {
                            self.taken += 1;
                        }
                        return Ok(Some(event));
                    }
                }
                _ => {
                    // A connection closed earlier in this batch is gone, or another has its slot.
                    let connection = table.get(ConnId::from_bits(token));
                    if let Some(connection) = connection.filter(|it| it.phase != Phase::Gone) {
                        if ready & WRITABLE != 0 && connection.kernel.sending {
                            // First what can leave; this event's other half has its turn at the
                            // next call.
                            self.events[self.taken].events = ready & !WRITABLE;
                            connection.kernel.sending = false;
                            return Ok(Some(Event::Sent(connection.id)));
                        }
                        if ready & (READABLE | BROKEN) != 0 {
                            self.taken += 1;
                            let event = if connection.kernel.receive_wanted {
                                self.receive_once(connection)
                            } else if ready & BROKEN != 0 {
                                let error = io::ErrorKind::ConnectionReset.into();
                                Some(Event::Failed(connection.id, error))
                            } else {
                                None
                            };
                            if event.is_some() {
                                return Ok(event);
                            }
                            continue;
                        }
                    }
                }
            }
            self.taken += 1;
        }
        Ok(None)
    }

    fn bytes(&self, received: &Received) -> &[u8] {
        &self.scratch[..received.bytes]
    }

    fn recycle(&mut self, _received: Received) {}
}
