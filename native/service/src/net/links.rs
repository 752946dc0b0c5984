//! Connections and what the handler asked for them.

use super::config::PeerSocket;
use super::connection::{Connection, Phase, Table};
use super::reads::Reads;
use super::{ConnId, Net};

/// The handler's [`Net`].
pub(super) struct Links {
    pub(super) table: Table,
    /// Connections in [`Phase::Open`].
    pub(super) open: usize,
    pub(super) parked: usize,
    /// Connections with a [`SlowPeer`] clock.
    pub(super) slow: usize,
    /// TLS connections whose handshake is not complete.
    pub(super) handshaking: usize,
    /// Touched through `Net`, to be pumped.
    pub(super) attention: Vec<ConnId>,
    pub(super) adopted: Vec<PeerSocket>,
    /// Parked connections whose output has left.
    pub(super) drained: Vec<ConnId>,
    pub(super) reads: Reads,
}

impl Links {
    pub(super) fn open_connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.table
            .get(id)
            .filter(|connection| connection.phase == Phase::Open)
    }

    /// As `open_connection`, and lists it for the driver.
    fn attend(&mut self, id: ConnId) -> Option<&mut Connection> {
        let connection = self.table.get(id).filter(|it| it.phase == Phase::Open)?;
        if !connection.listed {
            connection.listed = true;
            self.attention.push(id);
        }
        Some(connection)
    }
}

impl Net for Links {
    fn output(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        self.attend(conn)
            .map(|connection| &mut connection.outbox.filling)
    }

    fn answering(&mut self, conn: ConnId) -> (Option<&mut Vec<u8>>, &mut Reads) {
        if self.attend(conn).is_none() {
            return (None, &mut self.reads);
        }
        let connection = self.table.get(conn);
        let output = connection.map(|connection| &mut connection.outbox.filling);
        (output, &mut self.reads)
    }

    fn reads(&mut self) -> &mut Reads {
        &mut self.reads
    }

    fn unsent(&self, conn: ConnId) -> usize {
        self.table
            .peek(conn)
            .map_or(0, |connection| connection.outbox.unsent())
    }

    fn has_ended(&self, conn: ConnId) -> bool {
        let connection = self.table.peek(conn);
        connection.is_none_or(|connection| connection.input_ended)
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(connection) = self.attend(conn) else {
            return;
        };
        if connection.parked {
            connection.parked = false;
            connection.offer_due = !connection.inbox.is_empty();
            self.parked -= 1;
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(connection) = self.attend(conn) {
            connection.close_asked = true;
        }
    }

    fn adopt(&mut self, socket: PeerSocket) {
        self.adopted.push(socket);
    }

    fn connections(&self) -> usize {
        self.open
    }
}
