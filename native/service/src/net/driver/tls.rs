//! Connections that speak TLS: their sessions begin, shake hands in time, and fail alone.

use std::io;
use std::net::SocketAddr;

use super::Driver;
use crate::net::mechanism::{Mechanism, Received};
use crate::net::tls::{TlsFault, TlsSession};
use crate::net::{ConnId, Handler};

impl<M: Mechanism, H: Handler> Driver<'_, M, H> {
    /// A session for a peer that came to the TLS port; `None` when it cannot be served.
    pub(super) fn begin_session(&self, peer: SocketAddr) -> Option<Box<TlsSession>> {
        let Some(port) = &self.tls else {
            tracing::warn!(%peer, "connection refused: this loop has no certificate");
            return None;
        };
        match TlsSession::begin(port, self.now) {
            Ok(session) => Some(Box::new(session)),
            Err(error) => {
                tracing::warn!(%peer, %error, "connection refused");
                None
            }
        }
    }

    /// As `received`, for an open connection with TLS. A record that cannot be opened ends it; the
    /// alert that says why still leaves.
    // Apart from `received`, so that plain connections pay a test of a pointer and no more.
    #[inline(never)]
    pub(super) fn received_records(&mut self, id: ConnId, received: Received) -> io::Result<()> {
        let connection = self.links.table.get(id).expect("records came for it");
        let opened = connection.open_records(self.mechanism.bytes(&received));
        self.mechanism.recycle(received);
        self.links.handshaking -= usize::from(opened.handshake_over);
        if let Some(fault) = opened.fault {
            self.note_fault(id, &fault);
            self.begin_close(id);
        }
        self.pump(id)
    }

    pub(super) fn give_up_handshake(&mut self, id: ConnId) {
        self.note_fault(id, &TlsFault::Late);
        self.drop_connection(id);
    }

    fn note_fault(&mut self, id: ConnId, fault: &TlsFault) {
        if let (Some(port), Some(connection)) = (&self.tls, self.links.table.peek(id)) {
            port.log_fault(connection.peer, fault);
        }
    }
}
