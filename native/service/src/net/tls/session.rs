//! One connection's TLS: records in, plaintext out, and the other way round.
//!
//! The session stands between the bytes of the socket and the boxes that the driver knows, inbox and
//! outbox, so that every bound of plain connections holds for plaintext. Records are opened as they
//! arrive, and what is not a whole record yet stays with rustls (at most one record, or 64 KiB of
//! handshake). Output is encrypted a piece at a time, when the one before has left: what a peer does
//! not take waits as plaintext, once.
//!
//! Order of what is sent: records are numbered as they are encrypted, so what TLS itself has to say
//! (`sealed`) goes before the output that is encrypted after it.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use perigee_wire::PROTO_VERSION;
use rustls::{HandshakeKind, ServerConnection};
use thiserror::Error;

use super::TlsPort;
use crate::net::connection::{Inbox, empty};

/// Plaintext encrypted for one send: three whole records. With their headers the buffer stays below
/// what an emptied one may keep.
const SEAL_BYTES_MAX: usize = 3 << 14;
/// More than headers, tags and padding of so many records come to.
const SEAL_OVERHEAD_BYTES: usize = 256;

/// Why a TLS connection is ended by this side.
#[derive(Debug, Error)]
pub(in crate::net) enum TlsFault {
    #[error("it sent a request of this protocol without TLS")]
    Plain,
    #[error("{0}")]
    Protocol(#[from] rustls::Error),
    #[error("a record that does not fit: {0}")]
    Buffer(std::io::Error),
    #[error("it did not complete its handshake in time")]
    Late,
}

/// What opening records came to.
#[derive(Default)]
pub(in crate::net) struct Opened {
    /// Put into the inbox.
    pub(in crate::net) plaintext_bytes: usize,
    /// The peer has said that it sends nothing more.
    pub(in crate::net) ended: bool,
    /// The handshake was completed by these records, or failed.
    pub(in crate::net) handshake_over: bool,
    pub(in crate::net) fault: Option<TlsFault>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake {
        deadline: Instant,
        /// Something was received. A peer that only connects, to see whether the port is there, is no error.
        heard: bool,
    },
    Open,
    /// Nothing is opened or encrypted any more; what is sealed still leaves.
    Over,
}

pub(in crate::net) struct TlsSession {
    port: Arc<TlsPort>,
    tls: ServerConnection,
    stage: Stage,
    /// Whether `opened` has counted it.
    established: bool,
    /// Output of the handler, encrypted up to `encrypted`.
    plain: Vec<u8>,
    encrypted: usize,
    /// Records of TLS itself: handshake, tickets, alerts.
    sealed: Vec<u8>,
}

impl TlsSession {
    /// Of a connection that was opened `now`.
    pub(in crate::net) fn begin(port: &Arc<TlsPort>, now: Instant) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(port.settings())?;
        // What is written is taken out at once, so the bound is the size of a piece.
        tls.set_buffer_limit(None);
        Ok(Self {
            port: port.clone(),
            tls,
            stage: Stage::Handshake {
                deadline: now + port.handshake_timeout,
                heard: false,
            },
            established: false,
            plain: Vec::new(),
            encrypted: 0,
            sealed: Vec::new(),
        })
    }

    /// Bytes on their way out that are not in the outbox.
    pub(in crate::net) fn held(&self) -> usize {
        self.sealed.len() + self.plain.len() - self.encrypted
    }

    pub(in crate::net) fn is_late(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Handshake { deadline, .. } if now >= deadline)
    }

    /// Takes what the socket brought, and appends what it says to the inbox.
    pub(in crate::net) fn open(&mut self, records: &[u8], inbox: &mut Inbox) -> Opened {
        let mut opened = Opened::default();
        if self.stage == Stage::Over {
            return opened;
        }
        let fault = self.read(records, inbox, &mut opened).err();
        if let Stage::Handshake { heard, .. } = &mut self.stage {
            let is_plain = !*heard && records.first() == Some(&PROTO_VERSION);
            *heard = true;
            match fault {
                Some(fault) => {
                    opened.fault = Some(if is_plain { TlsFault::Plain } else { fault });
                    opened.handshake_over = true;
                    self.port
                        .stats
                        .handshake_errors
                        .fetch_add(1, Ordering::Relaxed);
                }
                None if !self.tls.is_handshaking() => {
                    opened.handshake_over = true;
                    self.establish();
                }
                None => {}
            }
        } else if let Some(fault) = fault {
            self.port.stats.errors.fetch_add(1, Ordering::Relaxed);
            opened.fault = Some(fault);
        }
        if opened.fault.is_some() {
            self.stage = Stage::Over;
            self.discard();
        }
        flush(&mut self.tls, &mut self.sealed);
        opened
    }

    fn read(
        &mut self,
        mut records: &[u8],
        inbox: &mut Inbox,
        opened: &mut Opened,
    ) -> Result<(), TlsFault> {
        while !records.is_empty() {
            // At most some kilobytes at a time, and nothing behind the peer's close_notify.
            if self.tls.read_tls(&mut records).map_err(TlsFault::Buffer)? == 0 {
                return Ok(());
            }
            let state = self.tls.process_new_packets()?;
            opened.ended |= state.peer_has_closed();
            let mut left = state.plaintext_bytes_to_read();
            opened.plaintext_bytes += left;
            let mut reader = self.tls.reader();
            while left > 0 {
                let piece = reader.fill_buf().map_err(TlsFault::Buffer)?;
                let bytes = piece.len();
                inbox.append(piece);
                reader.consume(bytes);
                left -= bytes;
            }
        }
        Ok(())
    }

    fn establish(&mut self) {
        self.stage = Stage::Open;
        self.established = true;
        let stats = &self.port.stats;
        stats.opened.fetch_add(1, Ordering::Relaxed);
        if self.tls.handshake_kind() == Some(HandshakeKind::Resumed) {
            stats.resumed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts into `sending`, which is empty, what is to be sent next: what TLS has to say, and a piece
    /// of `filling`, encrypted. False when nothing can be encrypted; `filling` is thrown away then.
    pub(in crate::net) fn seal(&mut self, filling: &mut Vec<u8>, sending: &mut Vec<u8>) -> bool {
        debug_assert!(sending.is_empty());
        sending.append(&mut self.sealed);
        if self.encrypted == self.plain.len() {
            self.encrypted = 0;
            empty(&mut self.plain);
            std::mem::swap(&mut self.plain, filling);
        }
        let rest = &self.plain[self.encrypted..];
        let piece = &rest[..rest.len().min(SEAL_BYTES_MAX)];
        if piece.is_empty() {
            return true;
        }
        let bytes = piece.len();
        let before = sending.len();
        sending.reserve_exact(bytes + SEAL_OVERHEAD_BYTES);
        let written = self.stage == Stage::Open && self.tls.writer().write_all(piece).is_ok();
        flush(&mut self.tls, sending);
        // TLS 1.2 has no way to change keys that have encrypted as much as they safely can: from then
        // on it drops what is written. That loses a reply as a connection that breaks does.
        if written && sending.len() - before >= bytes {
            self.encrypted += bytes;
            return true;
        }
        self.stage = Stage::Over;
        self.discard();
        empty(filling);
        false
    }

    /// Everything was sent. True once: then there is a close_notify to send.
    pub(in crate::net) fn end(&mut self) -> bool {
        if self.stage != Stage::Open {
            return false;
        }
        self.stage = Stage::Over;
        self.tls.send_close_notify();
        flush(&mut self.tls, &mut self.sealed);
        true
    }

    /// The connection is dropped as it is. True when it was still shaking hands.
    pub(in crate::net) fn abandon(&mut self) -> bool {
        let Stage::Handshake { heard, .. } = self.stage else {
            self.stage = Stage::Over;
            return false;
        };
        self.stage = Stage::Over;
        if heard {
            self.port
                .stats
                .handshake_errors
                .fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    fn discard(&mut self) {
        self.encrypted = 0;
        empty(&mut self.plain);
    }
}

impl Drop for TlsSession {
    fn drop(&mut self) {
        if self.established {
            self.port.stats.closed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Moves the records that wait in a session behind `records`.
fn flush(tls: &mut ServerConnection, records: &mut Vec<u8>) {
    while tls.wants_write() {
        tls.write_tls(records).expect("a vector takes every write");
    }
}
