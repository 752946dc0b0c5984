//! Connections that speak TLS: their sessions begin, shake hands in time, and fail alone.

use std::net::SocketAddr;

use super::Driver;
use crate::net::connection::Phase;
use crate::net::mechanism::Mechanism;
use crate::net::tls::{Opened, TlsFault, TlsSession};
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

    /// Records were opened. One that cannot be ends the connection; the alert that says why still
    /// leaves.
    pub(super) fn opened(&mut self, id: ConnId, opened: Opened) {
        self.links.handshaking -= usize::from(opened.handshake_over);
        let Some(fault) = opened.fault else {
            return;
        };
        self.note_fault(id, &fault);
        let connection = self.links.table.get(id).expect("records came for it");
        if connection.phase == Phase::Open {
            self.begin_close(id);
        }
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
