//! What a completion belongs to, as its submission said.

use crate::net::ConnId;

/// What a completion belongs to: the top byte of its user data. Below it 24 bits of index, 32 bits
/// of generation; of a read, its key.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Accept = 1,
    ReadEvent = 2,
    Receive = 3,
    Send = 4,
    CancelReceive = 5,
    CancelSend = 6,
    CancelAccept = 7,
    Read = 8,
}

pub(super) const INDEX_BITS: u32 = 24;

pub(super) fn user_data(operation: Operation, id: ConnId) -> u64 {
    debug_assert!(id.index < 1 << INDEX_BITS);
    (operation as u64) << 56 | u64::from(id.index) << 32 | u64::from(id.generation)
}

pub(super) fn parse_user_data(data: u64) -> (Operation, ConnId) {
    let operation = match data >> 56 {
        1 => Operation::Accept,
        2 => Operation::ReadEvent,
        3 => Operation::Receive,
        4 => Operation::Send,
        5 => Operation::CancelReceive,
        6 => Operation::CancelSend,
        7 => Operation::CancelAccept,
        8 => Operation::Read,
        other => unreachable!("no submission carries operation {other}"),
    };
    let index = (data >> 32) as u32 & ((1 << INDEX_BITS) - 1);
    (
        operation,
        ConnId {
            index,
            generation: data as u32,
        },
    )
}

/// For accepts, which belong to a port.
pub(super) fn port_id(position: usize) -> ConnId {
    ConnId {
        index: position as u32,
        generation: 0,
    }
}

/// For operations that belong to no connection.
pub(super) const NOBODY: ConnId = ConnId {
    index: 0,
    generation: 0,
};
