//! Operations that are to end before they are done.

use std::io;

use io_uring::opcode;

use super::{Completion, Operation, Uring, user_data};
use crate::net::ConnId;
use crate::net::connection::{Phase, Table};

impl Uring {
    /// Asks the kernel to end an operation; it answers by the operation's own last completion.
    pub(super) fn cancel(
        &mut self,
        target: Operation,
        cancel: Operation,
        id: ConnId,
    ) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(user_data(target, id))
            .build()
            .user_data(user_data(cancel, id));
        // SAFETY: the entry points to nothing.
        unsafe { self.push(&entry) }
    }

    /// A cancel that came while the operation was being worked on has done nothing: it is repeated.
    pub(super) fn cancelled(
        &mut self,
        operation: Operation,
        id: ConnId,
        completion: &Completion,
        table: &mut Table,
    ) -> io::Result<()> {
        if completion.result != -libc::EALREADY {
            return Ok(());
        }
        if operation == Operation::CancelAccept {
            if self.ports[id.index()].armed && !self.accept_wanted {
                self.cancel(Operation::Accept, Operation::CancelAccept, id)?;
            }
            return Ok(());
        }
        let Some(connection) = table.get(id) else {
            return Ok(());
        };
        let gone = connection.phase == Phase::Gone;
        match operation {
            Operation::CancelReceive if connection.kernel.receive_armed => {
                connection.kernel.receive_cancelling = false;
                if gone || !connection.kernel.receive_wanted {
                    connection.kernel.receive_cancelling = true;
                    self.cancel(Operation::Receive, Operation::CancelReceive, id)?;
                }
            }
            Operation::CancelSend if connection.kernel.send_submitted && gone => {
                self.cancel(Operation::Send, Operation::CancelSend, id)?;
            }
            _ => {}
        }
        Ok(())
    }
}
