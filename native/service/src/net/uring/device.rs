//! Device reads on the ring that serves the sockets.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::opcode;
use io_uring::types::Fd;

use super::{Completion, Operation, Uring, may_go_on};
use crate::net::mechanism::Event;
use crate::net::reads::{Reading, Reads};

/// A read in the kernel's hands.
pub(super) struct RingRead {
    reading: Reading,
    /// Open until the completion, whatever becomes of the medium.
    _file: Arc<File>,
}

impl Uring {
    /// Turns the reads that may begin into submissions.
    pub(super) fn submit_reads(&mut self, reads: &mut Reads) -> io::Result<()> {
        while let Some(mut reading) = reads.begin() {
            let Some(file) = reading.read.medium.file() else {
                reads.delegate(reading);
                continue;
            };
            let offset = reading.read.offset;
            let target = reading.target();
            let (start, bytes) = (target.as_mut_ptr(), target.len() as u32);
            let descriptor = Fd(file.as_raw_fd());
            let key = self.reads.insert(RingRead {
                reading,
                _file: file,
            });
            let entry = opcode::Read::new(descriptor, start, bytes)
                .offset(offset)
                .build()
                .user_data((Operation::Read as u64) << 56 | key as u64);
            // SAFETY: buffer and file are in `reads` until the completion is reaped; the buffer's
            // bytes do not move with it.
            unsafe { self.push(&entry)? };
            self.read_operations += 1;
        }
        Ok(())
    }

    /// Before further completions are worked on: a device that is given its reads one by one works
    /// on the first while the others are prepared. Given all of them with the next wait, it would
    /// have nothing to do until then, and then the loop.
    pub(super) fn hand_over_reads(&mut self, reads: &mut Reads) -> io::Result<()> {
        let before = self.read_operations;
        self.submit_reads(reads)?;
        if self.read_operations == before {
            return Ok(());
        }
        match self.ring.submit() {
            Err(error) if !may_go_on(&error) => Err(error),
            // What was not taken now goes with the next wait.
            _ => Ok(()),
        }
    }

    pub(super) fn read_ended(
        &mut self,
        completion: &Completion,
        reads: &mut Reads,
    ) -> Option<Event> {
        let key = completion.data as u32 as usize;
        let RingRead { mut reading, .. } = self.reads.remove(key);
        match completion.result {
            whole if whole as usize == reading.read.bytes => {
                reading.decode();
                Some(Event::Read(reading, Ok(())))
            }
            failure if failure < 0 && !matches!(-failure, libc::EINTR | libc::EAGAIN) => {
                let error = io::Error::from_raw_os_error(-failure);
                Some(Event::Read(reading, Err(error)))
            }
            // In part, or not yet: the medium knows how such a read goes on.
            _ => {
                reads.delegate(reading);
                None
            }
        }
    }
}
