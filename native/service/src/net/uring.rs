//! The io_uring sibling: multishot accept, multishot receive into provided buffers, sends as
//! submissions.
//!
//! One `io_uring_enter` an iteration submits everything that the last one queued, device reads too,
//! and waits for what comes next, so a busy loop answers many requests per system call.
//!
//! Rule of this file: whatever the kernel may read or write lives until the operation's last
//! completion is reaped. `operations` counts them; a connection is freed only without a receive and
//! a send of its own, a read's buffer and file with its completion, and the ring is dropped only at
//! zero.

mod cancel;
mod device;
mod setup;
mod user_data;

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

use super::ConnId;
use super::buffer_ring::BufferRing;
use super::config::PeerSocket;
use super::connection::{Connection, Phase, Table};
use super::mechanism::{Event, Listener, Mechanism, Received, SEND_BYTES_MAX, set_nonblocking};
use super::reads::Reads;
use device::RingRead;
use setup::build_ring;
pub(super) use setup::probe;
use user_data::{INDEX_BITS, NOBODY, Operation, parse_user_data, port_id, user_data};

const SUBMISSIONS: u32 = 512;
/// Completions beyond these wait in the kernel.
const COMPLETIONS: u32 = 4096;
const BUFFER_GROUP: u16 = 0;

struct Completion {
    data: u64,
    result: i32,
    flags: u32,
}

struct Port {
    listener: Listener,
    /// An accept operation exists.
    armed: bool,
}

pub(super) struct Uring {
    // Before `buffers`: the ring goes first.
    ring: IoUring,
    buffers: BufferRing,
    ports: Vec<Port>,
    accept_wanted: bool,
    wake_event: RawFd,
    /// Where the eventfd's counter is read to; boxed, since the kernel writes there while `self`
    /// may move.
    wake_count: Box<u64>,
    /// Submitted or queued, and their last completion not reaped.
    operations: usize,
    reaped: Vec<Completion>,
    taken: usize,
    /// Of those that `submit` has reaped, some are news.
    has_news: bool,
    /// Connections with output for the next submission.
    send_queue: Vec<ConnId>,
    reads: Slab<RingRead>,
    /// Of `operations`, device reads.
    read_operations: usize,
}

impl Uring {
    /// Queues an operation; counts it.
    ///
    /// # Safety
    ///
    /// What `entry` points to must stay valid until its last completion is reaped.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: by the caller's promise.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        self.operations += 1;
        Ok(())
    }

    fn arm_receive(&mut self, connection: &mut Connection) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(connection.socket.as_raw_fd()), BUFFER_GROUP)
            .build()
            .user_data(user_data(Operation::Receive, connection.id));
        // SAFETY: the kernel writes to provided buffers, which live until no operation is left. The
        // socket stays open while `receive_armed`: the table frees a connection only after
        // `Released`.
        unsafe { self.push(&entry)? };
        connection.kernel.receive_armed = true;
        Ok(())
    }

    fn arm_wake_event(&mut self) -> io::Result<()> {
        let target = (&raw mut *self.wake_count).cast();
        let entry = opcode::Read::new(Fd(self.wake_event), target, 8)
            .build()
            .user_data(user_data(Operation::ReadEvent, NOBODY));
        // SAFETY: eight bytes in a box that is dropped with `self`, at no operation left; only the
        // kernel uses them.
        unsafe { self.push(&entry) }
    }

    /// Turns the queue of connections with output into submissions.
    fn submit_sends(&mut self, table: &mut Table) -> io::Result<()> {
        let mut queue = std::mem::take(&mut self.send_queue);
        for id in queue.drain(..) {
            let Some(connection) = table.get(id) else {
                continue;
            };
            if connection.phase == Phase::Gone {
                continue;
            }
            let socket = Fd(connection.socket.as_raw_fd());
            let bytes = connection.next_output();
            let length = bytes.len().min(SEND_BYTES_MAX) as u32;
            let entry = opcode::Send::new(socket, bytes.as_ptr(), length)
                .flags(libc::MSG_NOSIGNAL)
                .build()
                .user_data(user_data(Operation::Send, id));
            // SAFETY: the outbox leaves these bytes where they are until `advance` has passed them,
            // which happens at the completion; the connection, and its socket with it, is not freed
            // while `send_submitted`. So it is for encrypted output, which lies in the outbox too.
            unsafe { self.push(&entry)? };
            connection.kernel.send_submitted = true;
        }
        self.send_queue = queue;
        Ok(())
    }

    /// Moves completions out of the ring, so that its slots are free again.
    fn reap(&mut self) {
        self.reaped.drain(..self.taken);
        self.taken = 0;
        for entry in self.ring.completion() {
            let completion = Completion {
                data: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            };
            if !cqueue::more(completion.flags) {
                self.operations -= 1;
            }
            if completion.data >> 56 == Operation::Read as u64 {
                self.read_operations -= 1;
            }
            self.reaped.push(completion);
        }
    }

    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            None => self.ring.submit_and_wait(1),
            // A timer for no time at all would have the thread sleep for as long as timers may be late.
            Some(Duration::ZERO) => self.look(),
            Some(timeout) => {
                let time = Timespec::from(timeout);
                self.ring
                    .submitter()
                    .submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match result {
            Err(error) if !may_go_on(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Submits what is queued and has the kernel complete what is due, if it has said that anything is.
    fn look(&mut self) -> io::Result<usize> {
        let submission = self.ring.submission();
        let is_idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        if is_idle { Ok(0) } else { self.ring.submit() }
    }

    /// Has a port accept or not, as it is wanted.
    fn settle_accept(&mut self, position: usize) -> io::Result<()> {
        let port = &self.ports[position];
        if self.accept_wanted && !port.armed {
            let entry = opcode::AcceptMulti::new(Fd(port.listener.socket.as_raw_fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(user_data(Operation::Accept, port_id(position)));
            // SAFETY: the entry points to no memory; the listener is open as long as `self`.
            unsafe { self.push(&entry)? };
            self.ports[position].armed = true;
        } else if !self.accept_wanted && port.armed {
            self.cancel(
                Operation::Accept,
                Operation::CancelAccept,
                port_id(position),
            )?;
        }
        Ok(())
    }

    fn accepted(&mut self, position: usize, completion: &Completion) -> io::Result<Option<Event>> {
        self.ports[position].armed &= cqueue::more(completion.flags);
        if completion.result < 0 {
            return match -completion.result {
                libc::ECANCELED | libc::ECONNABORTED | libc::EINTR => {
                    self.settle_accept(position).map(|()| None)
                }
                code => Ok(Some(Event::AcceptFailed(io::Error::from_raw_os_error(
                    code,
                )))),
            };
        }
        // SAFETY: the kernel made this descriptor for us; nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(completion.result) };
        self.settle_accept(position)?;
        let stream = TcpStream::from(socket);
        match stream.peer_addr() {
            Ok(peer) => Ok(Some(Event::Accepted(PeerSocket {
                socket: stream.into(),
                peer,
                transport: self.ports[position].listener.transport,
            }))),
            // Reset between the handshake and now.
            Err(_) => Ok(None),
        }
    }

    fn received(
        &mut self,
        id: ConnId,
        completion: &Completion,
        table: &mut Table,
    ) -> io::Result<Option<Event>> {
        let connection = table.get(id).expect("a connection outlives its receive");
        let ended = !cqueue::more(completion.flags);
        if ended {
            connection.kernel.receive_armed = false;
            connection.kernel.receive_cancelling = false;
        }
        let buffer = cqueue::buffer_select(completion.flags);
        if connection.phase == Phase::Gone {
            buffer.inspect(|&buffer| self.buffers.give(buffer));
            return Ok(ended.then(|| released(connection)).flatten());
        }
        match completion.result {
            1.. => {
                if ended && connection.kernel.receive_wanted {
                    self.arm_receive(connection)?;
                }
                let buffer = buffer.expect("received bytes lie in a provided buffer");
                let bytes = completion.result as usize;
                Ok(Some(Event::Received(id, Received { buffer, bytes })))
            }
            0 => {
                buffer.inspect(|&buffer| self.buffers.give(buffer));
                Ok(Some(Event::Ended(id)))
            }
            failure => {
                debug_assert!(ended, "an error ends a multishot operation");
                match -failure {
                    // Every buffer was in use: by the next submission they are back. Or we had
                    // stopped receiving and want it again.
                    libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                        if connection.kernel.receive_wanted {
                            self.arm_receive(connection)?;
                        }
                        Ok(None)
                    }
                    code => Ok(Some(Event::Failed(id, io::Error::from_raw_os_error(code)))),
                }
            }
        }
    }

    fn sent(&mut self, id: ConnId, completion: &Completion, table: &mut Table) -> Option<Event> {
        let connection = table.get(id).expect("a connection outlives its send");
        connection.kernel.send_submitted = false;
        connection.kernel.sending = false;
        if connection.phase == Phase::Gone {
            return released(connection);
        }
        match completion.result {
            // A short count: the driver sends the rest.
            0.. => connection.outbox.advance(completion.result as usize),
            failure if matches!(-failure, libc::EINTR | libc::EAGAIN) => {}
            failure => return Some(Event::Failed(id, io::Error::from_raw_os_error(-failure))),
        }
        Some(Event::Sent(id))
    }
}

/// Whether somebody waits for what a completion leads to. Not so when all output of a connection that goes on was sent.
fn is_news(completion: &Completion, table: &Table) -> bool {
    let (operation, id) = parse_user_data(completion.data);
    let goes_on = |it: &&Connection| it.phase == Phase::Open && !it.input_ended;
    match (operation, table.peek(id).filter(goes_on)) {
        (Operation::Send, Some(connection)) => {
            usize::try_from(completion.result) != Ok(connection.outbox.unsent())
        }
        _ => true,
    }
}

/// A timeout, a signal, or completions that must be reaped before more can be submitted.
fn may_go_on(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
    )
}

/// The end of a detached connection, when the kernel has let go of both directions.
fn released(connection: &Connection) -> Option<Event> {
    let held = connection.kernel.receive_armed || connection.kernel.send_submitted;
    (!held).then_some(Event::Released(connection.id))
}

impl Mechanism for Uring {
    fn open(listeners: Vec<Listener>, wake_event: RawFd) -> io::Result<Self> {
        let ring = build_ring(SUBMISSIONS)?;
        let buffers = BufferRing::register(&ring, BUFFER_GROUP)?;
        for listener in &listeners {
            listener.socket.set_nonblocking(false)?;
        }
        set_nonblocking(wake_event, false)?;
        let ports = listeners.into_iter().map(|listener| Port {
            listener,
            armed: false,
        });
        let mut uring = Self {
            ring,
            buffers,
            ports: ports.collect(),
            accept_wanted: false,
            wake_event,
            wake_count: Box::new(0),
            operations: 0,
            reaped: Vec::with_capacity(COMPLETIONS as usize),
            taken: 0,
            has_news: false,
            send_queue: Vec::new(),
            reads: Slab::new(),
            read_operations: 0,
        };
        uring.arm_wake_event()?;
        Ok(uring)
    }

    fn accept(&mut self, wanted: bool) -> io::Result<()> {
        self.accept_wanted = wanted;
        (0..self.ports.len()).try_for_each(|position| self.settle_accept(position))
    }

    fn attach(&mut self, connection: &mut Connection) -> io::Result<()> {
        if connection.id.index >= 1 << INDEX_BITS {
            return Err(io::Error::other("too many connections for one ring"));
        }
        set_nonblocking(connection.socket.as_raw_fd(), false)
    }

    fn receive(&mut self, connection: &mut Connection, wanted: bool) -> io::Result<()> {
        let kernel = &mut connection.kernel;
        kernel.receive_wanted = wanted;
        if wanted && !kernel.receive_armed {
            return self.arm_receive(connection);
        }
        // Wanted again while its cancel is under way: armed again when that has ended.
        if !wanted && kernel.receive_armed && !kernel.receive_cancelling {
            kernel.receive_cancelling = true;
            let id = connection.id;
            return self.cancel(Operation::Receive, Operation::CancelReceive, id);
        }
        Ok(())
    }

    fn send(&mut self, connection: &mut Connection) -> io::Result<()> {
        connection.kernel.sending = true;
        self.send_queue.push(connection.id);
        Ok(())
    }

    fn detach(&mut self, connection: &mut Connection) -> bool {
        let id = connection.id;
        let kernel = &mut connection.kernel;
        kernel.receive_wanted = false;
        let mut failed = false;
        if kernel.receive_armed && !kernel.receive_cancelling {
            kernel.receive_cancelling = true;
            failed |= self
                .cancel(Operation::Receive, Operation::CancelReceive, id)
                .is_err();
        }
        if kernel.send_submitted {
            failed |= self
                .cancel(Operation::Send, Operation::CancelSend, id)
                .is_err();
        }
        if failed {
            // The queue could not be flushed. A shut socket ends both operations too.
            let _ = socket2::SockRef::from(&connection.socket).shutdown(std::net::Shutdown::Both);
        }
        released(connection).is_some()
    }

    fn submit(&mut self, table: &mut Table, reads: &mut Reads) -> io::Result<()> {
        self.submit_reads(reads)?;
        self.submit_sends(table)?;
        self.enter(Some(Duration::ZERO))?;
        self.reap();
        self.has_news = self.reaped[self.taken..]
            .iter()
            .any(|it| is_news(it, table));
        Ok(())
    }

    fn has_arrived(&mut self) -> bool {
        let is_due = self.ring.submission().taskrun();
        self.has_news || is_due || !self.ring.completion().is_empty()
    }

    fn wait(
        &mut self,
        table: &mut Table,
        reads: &mut Reads,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.submit_reads(reads)?;
        self.submit_sends(table)?;
        let is_there = self.taken < self.reaped.len();
        self.enter(if is_there {
            Some(Duration::ZERO)
        } else {
            timeout
        })?;
        self.reap();
        self.has_news = false;
        Ok(())
    }

    fn next(&mut self, table: &mut Table, reads: &mut Reads) -> io::Result<Option<Event>> {
        while let Some(&Completion {
            data,
            result,
            flags,
        }) = self.reaped.get(self.taken)
        {
            self.hand_over_reads(reads)?;
            self.taken += 1;
            let completion = Completion {
                data,
                result,
                flags,
            };
            let (operation, id) = parse_user_data(data);
            let event = match operation {
                Operation::Receive => self.received(id, &completion, table)?,
                Operation::Send => self.sent(id, &completion, table),
                Operation::Read => self.read_ended(&completion, reads),
                Operation::Accept => self.accepted(id.index(), &completion)?,
                Operation::ReadEvent => {
                    self.arm_wake_event()?;
                    None
                }
                Operation::CancelReceive | Operation::CancelSend | Operation::CancelAccept => {
                    self.cancelled(operation, id, &completion, table)?;
                    None
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn bytes(&self, received: &Received) -> &[u8] {
        self.buffers.bytes(received.buffer, received.bytes)
    }

    fn recycle(&mut self, received: Received) {
        self.buffers.give(received.buffer);
    }
}

impl Drop for Uring {
    /// Takes back every buffer: cancels what is under way and reaps until nothing is. The driver
    /// has done most of it; after a panic of the handler all of it happens here.
    fn drop(&mut self) {
        const ROUNDS_MAX: usize = 100;
        for _ in 0..ROUNDS_MAX {
            for completion in &self.reaped[self.taken..] {
                let accepted = completion.data >> 56 == Operation::Accept as u64;
                if accepted && completion.result >= 0 {
                    // SAFETY: a descriptor that the kernel made for us and that nobody took.
                    drop(unsafe { OwnedFd::from_raw_fd(completion.result) });
                }
            }
            self.reaped.clear();
            self.taken = 0;
            if self.operations == 0 {
                return;
            }
            // Fails with ENOENT when all have ended by themselves; what is only queued comes with
            // the next round.
            let _ = self.ring.submit();
            let _ = self
                .ring
                .submitter()
                .register_sync_cancel(None, CancelBuilder::any());
            let _ = self.enter(Some(Duration::from_millis(100)));
            self.reap();
        }
        // Freeing memory that the kernel writes to would corrupt whatever comes to lie there.
        tracing::error!(
            operations = self.operations,
            reads = self.read_operations,
            "the kernel does not end its operations"
        );
        if self.operations > self.read_operations {
            std::process::abort();
        }
        // A device that hangs keeps its buffers for good, and does not keep the node from closing.
        std::mem::forget(std::mem::take(&mut self.reads));
    }
}
