//! Several writes at a time through io_uring: the kernel is handed all of them at once and is waited for once.

use super::PAGE_BYTES;
use io_uring::{IoUring, opcode, types::Fd};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Writes in flight.
const DEPTH: usize = 16;
/// The longest single write: large enough for a device's full bandwidth, small enough that several share it.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Pause before the kernel is asked again that refused to be.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// A ring for the writes of one device.
pub(super) struct WriteRing {
    ring: IoUring,
}

/// What is left of one write.
#[derive(Clone, Copy)]
struct Piece<'a> {
    offset: u64,
    bytes: &'a [u8],
}

impl WriteRing {
    /// An error where the kernel has no io_uring, or keeps it from this process.
    pub(super) fn new() -> io::Result<WriteRing> {
        let ring = IoUring::new(DEPTH as u32)?;
        Ok(WriteRing { ring })
    }

    /// Writes all of it, in any order. A write that ends early is continued. The first error is returned, once
    /// nothing is in flight any more; what of the rest is written is not known then.
    pub(super) fn write_all(&mut self, file: &File, writes: &[(u64, &[u8])]) -> io::Result<()> {
        let mut waiting: VecDeque<Piece<'_>> = writes
            .iter()
            .flat_map(|(offset, bytes)| {
                let pieces = bytes.chunks(PIECE_BYTES).enumerate();
                pieces.map(move |(i, bytes)| Piece {
                    offset: offset + (i * PIECE_BYTES) as u64,
                    bytes,
                })
            })
            .collect();
        let mut in_flight: [Option<Piece<'_>>; DEPTH] = [None; DEPTH];
        let mut failure = None;
        loop {
            if failure.is_some() {
                waiting.clear();
            }
            for (slot, place) in in_flight.iter_mut().enumerate() {
                if place.is_none()
                    && let Some(piece) = waiting.pop_front()
                {
                    self.push(file, slot, piece);
                    *place = Some(piece);
                }
            }
            if in_flight.iter().all(Option::is_none) {
                return failure.map_or(Ok(()), Err);
            }
            self.enter();
            for completion in self.ring.completion() {
                let place = &mut in_flight[completion.user_data() as usize];
                let piece = place.take().expect("a completion of a write in flight");
                match rest_of(piece, completion.result()) {
                    Ok(None) => {}
                    Ok(Some(rest)) => waiting.push_back(rest),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
    }

    fn push(&mut self, file: &File, slot: usize, piece: Piece<'_>) {
        let length = u32::try_from(piece.bytes.len()).expect("a piece is small");
        let write = opcode::Write::new(Fd(file.as_raw_fd()), piece.bytes.as_ptr(), length)
            .offset(piece.offset)
            .build()
            .user_data(slot as u64);
        // SAFETY: the bytes are borrowed, and the file is held, by `write_all`, which returns only when every
        // completion was seen.
        unsafe { self.ring.submission().push(&write) }.expect("there are as many entries as slots");
    }

    /// Submits, and waits for a completion. A write in flight cannot be given up, since the kernel would read its bytes
    /// when they are something else: where the kernel refuses to be entered, it is asked again.
    fn enter(&mut self) {
        let mut told = false;
        while let Err(error) = self.ring.submit_and_wait(1) {
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if !std::mem::replace(&mut told, true) {
                tracing::error!(%error, "the kernel does not take or complete writes");
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }
}

/// What a completed write leaves to be written.
fn rest_of(piece: Piece<'_>, result: i32) -> io::Result<Option<Piece<'_>>> {
    let length = piece.bytes.len();
    let Ok(written) = usize::try_from(result) else {
        let error = io::Error::from_raw_os_error(-result);
        return match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(Some(piece)),
            _ => Err(error),
        };
    };
    if written >= length {
        return Ok(None);
    }
    // Direct I/O goes on at a page only.
    let done = written / PAGE_BYTES * PAGE_BYTES;
    if done == 0 {
        let what = format!("{written} of {length} bytes were written");
        return Err(io::Error::new(io::ErrorKind::WriteZero, what));
    }
    Ok(Some(Piece {
        offset: piece.offset + done as u64,
        bytes: &piece.bytes[done..],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_write_is_continued_at_a_page_and_one_without_progress_is_an_error() {
        let bytes = [0; 4 * PAGE_BYTES];
        let piece = Piece {
            offset: 8192,
            bytes: &bytes,
        };
        let rest = |result: i32| {
            let rest = rest_of(piece, result);
            rest.map(|rest| rest.map(|rest| (rest.offset, rest.bytes.len())))
        };
        assert_eq!(rest(4 * 4096).unwrap(), None);
        assert_eq!(rest(4096).unwrap(), Some((12288, 3 * 4096)));
        assert_eq!(rest(4096 + 512).unwrap(), Some((12288, 3 * 4096)));
        assert_eq!(rest(-libc::EINTR).unwrap(), Some((8192, 4 * 4096)));
        assert_eq!(rest(-libc::EAGAIN).unwrap(), Some((8192, 4 * 4096)));
        for result in [0, 512] {
            assert_eq!(rest(result).unwrap_err().kind(), io::ErrorKind::WriteZero);
        }
        assert_eq!(
            rest(-libc::ENOSPC).unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
    }
}
