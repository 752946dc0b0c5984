//! One connection's state and the table of them. No system calls here.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::ConnId;
use super::tls::{Opened, TlsSession};

/// Capacity that an emptied buffer may keep. Larger ones go back to the allocator, so that one
/// large record does not pin its size on every connection that ever saw it.
const RETAINED_BYTES_MAX: usize = 64 << 10;

/// Received and not consumed.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn append(&mut self, more: &[u8]) {
        let no_room = self.bytes.capacity() - self.bytes.len() < more.len();
        // Moving down only when at least half is consumed keeps the copying linear in the bytes
        // received.
        if no_room && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    pub(super) fn consume(&mut self, count: usize) {
        assert!(
            count <= self.len(),
            "consumed {count} of {} bytes",
            self.len()
        );
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            empty(&mut self.bytes);
        }
    }
}

/// Replies on their way out. What the kernel is sending stays untouched while the handler appends
/// behind it.
#[derive(Default)]
pub(super) struct Outbox {
    /// The handler appends here.
    pub(super) filling: Vec<u8>,
    sending: Vec<u8>,
    sent: usize,
    /// All bytes the kernel ever took from here, to tell a slow peer from a stuck one.
    pub(super) taken_total: u64,
    /// Bytes that a TLS session holds between `filling` and `sending`.
    held: usize,
}

impl Outbox {
    pub(super) fn unsent(&self) -> usize {
        self.sending.len() - self.sent + self.filling.len() + self.held
    }

    /// The bytes to send next; they stay where they are until [`Outbox::advance`] has passed their
    /// end.
    pub(super) fn next(&mut self) -> &[u8] {
        if self.sent == self.sending.len() {
            self.sent = 0;
            empty(&mut self.sending);
            std::mem::swap(&mut self.sending, &mut self.filling);
        }
        &self.sending[self.sent..]
    }

    /// As `next`, encrypted. False when the session has ended and nothing can be encrypted any
    /// more: what was left is thrown away.
    #[inline(never)]
    fn refill(&mut self, session: &mut TlsSession) -> bool {
        if self.sent < self.sending.len() {
            return true;
        }
        self.sent = 0;
        empty(&mut self.sending);
        let sealed = session.seal(&mut self.filling, &mut self.sending);
        self.held = session.held();
        sealed
    }

    /// The kernel took `count` of them.
    pub(super) fn advance(&mut self, count: usize) {
        assert!(
            count <= self.sending.len() - self.sent,
            "the kernel took more than it was given"
        );
        self.sent += count;
        self.taken_total += count as u64;
        if self.sent == self.sending.len() {
            self.sent = 0;
            empty(&mut self.sending);
        }
    }
}

/// Clears a buffer, and lets go of its memory if that is large.
pub(super) fn empty(bytes: &mut Vec<u8>) {
    if bytes.capacity() > RETAINED_BYTES_MAX {
        *bytes = Vec::new();
    } else {
        bytes.clear();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// `on_close` was called; the last output leaves, input is thrown away.
    Closing,
    /// Waits for the kernel to let go of its buffers and socket.
    Gone,
}

/// What the kernel does for a connection at the moment. Owned by the mechanism; the driver reads
/// `sending`.
#[derive(Default)]
pub(super) struct KernelState {
    /// A send is queued or in flight (io_uring), or the socket is full (epoll).
    pub(super) sending: bool,
    /// io_uring: the send is in the kernel's hands, not only queued.
    pub(super) send_submitted: bool,
    pub(super) receive_wanted: bool,
    /// io_uring: a receive operation exists, and reads into provided buffers.
    pub(super) receive_armed: bool,
    pub(super) receive_cancelling: bool,
    /// epoll: the events asked for.
    pub(super) interest: u32,
}

/// A peer that has output to take: since when, and how much it had taken then.
#[derive(Clone, Copy)]
pub(super) struct SlowPeer {
    pub(super) since: Instant,
    pub(super) taken_before: u64,
}

pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) socket: OwnedFd,
    pub(super) peer: SocketAddr,
    pub(super) phase: Phase,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) parked: bool,
    /// Output above its bound: no input is offered until half of it has left.
    pub(super) blocked: bool,
    /// The inbox holds bytes that the handler has not been offered in this state.
    pub(super) offer_due: bool,
    /// The peer has sent its last byte.
    pub(super) input_ended: bool,
    /// Listed for the driver's attention.
    pub(super) listed: bool,
    pub(super) close_asked: bool,
    pub(super) slow: Option<SlowPeer>,
    pub(super) active_at: Instant,
    pub(super) kernel: KernelState,
    /// What stands between the socket's bytes and the boxes of a connection that speaks TLS.
    pub(super) tls: Option<Box<TlsSession>>,
}

impl Connection {
    /// The bytes to send next; they stay where they are until [`Outbox::advance`] has passed their
    /// end. Empty only when a TLS session has broken, which ends the input too.
    pub(super) fn next_output(&mut self) -> &[u8] {
        let Some(session) = &mut self.tls else {
            return self.outbox.next();
        };
        if !self.outbox.refill(session) {
            self.input_ended = true;
        }
        &self.outbox.sending[self.outbox.sent..]
    }

    /// Decrypts what came into the inbox, and puts out what TLS itself has to say. Only for
    /// connections with TLS.
    pub(super) fn open_records(&mut self, records: &[u8]) -> Opened {
        let session = self.tls.as_mut().expect("it speaks TLS");
        let opened = session.open(records, &mut self.inbox);
        self.outbox.held = session.held();
        self.offer_due |= opened.plaintext_bytes > 0;
        self.input_ended |= opened.ended;
        opened
    }

    /// The peer was given its time to complete a TLS handshake, and has not.
    pub(super) fn is_late_with_handshake(&self, now: Instant) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|session| session.is_late(now))
    }

    /// When everything was sent: whether there is one thing more, which tells the peer that nothing
    /// was cut off.
    pub(super) fn end_output(&mut self) -> bool {
        let Some(session) = &mut self.tls else {
            return false;
        };
        let ends = session.end();
        self.outbox.held = session.held();
        ends
    }

    pub(super) fn may_offer(&self) -> bool {
        self.phase == Phase::Open && !self.parked && !self.blocked
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// Connections by index. A freed slot's next user has another generation, so old ids match nothing.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Table {
    pub(super) fn insert(&mut self, socket: OwnedFd, peer: SocketAddr, now: Instant) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        let id = ConnId {
            index,
            generation: slot.generation,
        };
        slot.connection = Some(Connection {
            id,
            socket,
            peer,
            phase: Phase::Open,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            parked: false,
            blocked: false,
            offer_due: false,
            input_ended: false,
            listed: false,
            close_asked: false,
            slow: None,
            active_at: now,
            kernel: KernelState::default(),
            tls: None,
        });
        id
    }

    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.connection
            .as_mut()
            .filter(|connection| connection.id == id)
    }

    pub(super) fn peek(&self, id: ConnId) -> Option<&Connection> {
        let slot = self.slots.get(id.index as usize)?;
        slot.connection
            .as_ref()
            .filter(|connection| connection.id == id)
    }

    /// Drops the connection and with it closes its socket. The kernel must be done with its
    /// buffers.
    pub(super) fn free(&mut self, id: ConnId) {
        assert!(self.get(id).is_some(), "a connection is freed once");
        let slot = &mut self.slots[id.index as usize];
        slot.connection = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
    }

    /// Slots in use, whatever their phase.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The id at `position`, for walks during which connections may go.
    pub(super) fn id_at(&self, position: usize) -> Option<ConnId> {
        self.slots[position]
            .connection
            .as_ref()
            .map(|connection| connection.id)
    }

    pub(super) fn positions(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn an_inbox_gives_back_what_was_not_consumed_in_order() {
        let mut inbox = Inbox::default();
        let mut expected = Vec::new();
        for round in 0..1000u32 {
            let piece: Vec<u8> = (0..round % 97).map(|byte| (byte + round) as u8).collect();
            inbox.append(&piece);
            expected.extend_from_slice(&piece);
            let count = (round as usize * 31) % (inbox.len() + 1);
            assert_eq!(inbox.unread()[..count], expected[..count]);
            inbox.consume(count);
            expected.drain(..count);
        }
        assert_eq!(inbox.unread(), expected);
    }

    #[test]
    fn an_emptied_inbox_gives_large_memory_back() {
        let mut inbox = Inbox::default();
        inbox.append(&vec![1; 1 << 20]);
        inbox.consume(1 << 20);
        assert!(inbox.bytes.capacity() <= RETAINED_BYTES_MAX);
    }

    #[test]
    fn bytes_being_sent_do_not_move_when_output_grows() {
        let mut outbox = Outbox::default();
        outbox.filling.extend_from_slice(b"first");
        let before = outbox.next().as_ptr();
        outbox.filling.extend_from_slice(&[7; 100_000]);
        assert_eq!(outbox.next().as_ptr(), before);
        outbox.advance(2);
        assert_eq!(outbox.next(), b"rst");
        outbox.advance(3);
        assert_eq!(outbox.next().len(), 100_000);
        assert_eq!(outbox.unsent(), 100_000);
    }
}
