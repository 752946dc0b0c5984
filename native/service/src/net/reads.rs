//! Device reads of one loop: what its handler asked for, and the buffers that are read into.
//!
//! The mechanism carries reads out as they come to their turn: io_uring with the system call that
//! serves the sockets too, the rest through the [`ReadPool`]. A read under way owns its buffer until
//! its completion is reaped.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crossbeam_queue::SegQueue;
use perigee_engine::storage::RecordRead;
use perigee_engine::storage::medium::{AlignedBuf, PAGE_BYTES};

use super::Waker;
use super::read_pool::ReadPool;

/// Reads under way; more wait for their turn, at most one for each parked connection. Deeper queues
/// gain a device nothing.
const READS_MAX: usize = 512;
/// Of these, reads for queries; one is always allowed, so that queries go on however many single records are read.
const QUERY_READS_MAX: usize = 64;
/// Bytes of reads under way; one read is always allowed.
const READ_BYTES_MAX: usize = 32 << 20;

/// Buffers up to so many pages are kept for the next read, in classes of doubling size.
const KEPT_PAGES_MAX: usize = 16;
const CLASSES: usize = KEPT_PAGES_MAX.ilog2() as usize + 1;
/// Bytes of kept buffers.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// A read and the name by which its handler knows it.
struct Asked {
    read: RecordRead,
    token: u64,
    purpose: Purpose,
}

/// Who waits. A single record does not queue behind what queries read ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Record,
    Query,
}

/// A read under way, with the buffer that the bytes come into.
pub(super) struct Reading {
    pub(super) read: RecordRead,
    pub(super) token: u64,
    purpose: Purpose,
    buffer: AlignedBuf,
}

impl Reading {
    /// Where the bytes go: as many as the read asks for.
    pub(super) fn target(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.read.bytes]
    }

    /// Reads, blocking.
    pub(super) fn carry_out(&mut self) -> io::Result<()> {
        let bytes = self.read.bytes;
        self.read
            .medium
            .read_at(self.read.offset, &mut self.buffer[..bytes])
    }

    /// Turns the file's bytes into what was written to the medium.
    pub(super) fn decode(&mut self) {
        let bytes = self.read.bytes;
        self.read
            .medium
            .decode(self.read.offset, &mut self.buffer[..bytes]);
    }
}

/// Reads that the pool has finished for one loop.
pub(super) struct Done {
    finished: SegQueue<(Reading, io::Result<()>)>,
    waker: Waker,
}

impl Done {
    pub(super) fn post(&self, reading: Reading, outcome: io::Result<()>) {
        self.finished.push((reading, outcome));
        self.waker.wake();
    }
}

/// Buffers that wait for their next read.
#[derive(Default)]
struct Buffers {
    kept: [Vec<AlignedBuf>; CLASSES],
    kept_bytes: usize,
}

impl Buffers {
    fn take(&mut self, bytes: usize) -> AlignedBuf {
        let pages = bytes.div_ceil(PAGE_BYTES).max(1);
        if pages > KEPT_PAGES_MAX {
            return AlignedBuf::new(bytes);
        }
        let pages = pages.next_power_of_two();
        match self.kept[pages.ilog2() as usize].pop() {
            Some(buffer) => {
                self.kept_bytes -= buffer.len();
                buffer
            }
            None => AlignedBuf::new(pages * PAGE_BYTES),
        }
    }

    fn give_back(&mut self, buffer: AlignedBuf) {
        let bytes = buffer.len();
        let pages = bytes / PAGE_BYTES;
        if pages <= KEPT_PAGES_MAX && self.kept_bytes + bytes <= KEPT_BYTES_MAX {
            self.kept_bytes += bytes;
            self.kept[pages.ilog2() as usize].push(buffer);
        }
    }
}

/// A loop's device reads. The handler asks for them, from whatever it is called with.
pub struct Reads {
    waiting: VecDeque<Asked>,
    waiting_for_queries: VecDeque<Asked>,
    under_way: usize,
    under_way_for_queries: usize,
    under_way_bytes: usize,
    buffers: Buffers,
    pool: Arc<ReadPool>,
    done: Arc<Done>,
}

impl Reads {
    pub(crate) fn new(pool: Arc<ReadPool>, waker: Waker) -> Self {
        let done = Done {
            finished: SegQueue::new(),
            waker,
        };
        Self {
            waiting: VecDeque::new(),
            waiting_for_queries: VecDeque::new(),
            under_way: 0,
            under_way_for_queries: 0,
            under_way_bytes: 0,
            buffers: Buffers::default(),
            pool,
            done: Arc::new(done),
        }
    }

    /// Asks for a read. [`Handler::on_read`](super::Handler::on_read) comes once, with `token`,
    /// unless the loop ends before.
    pub fn submit(&mut self, read: RecordRead, token: u64) {
        self.waiting.push_back(Asked {
            read,
            token,
            purpose: Purpose::Record,
        });
    }

    /// As `submit`, for a query: begins when no single record waits to be read.
    pub fn submit_for_query(&mut self, read: RecordRead, token: u64) {
        self.waiting_for_queries.push_back(Asked {
            read,
            token,
            purpose: Purpose::Query,
        });
    }

    /// Where the next read is taken from.
    fn next_queue(&mut self) -> &mut VecDeque<Asked> {
        let for_queries = self.under_way_for_queries;
        let query_is_due = match self.waiting.is_empty() {
            true => for_queries < QUERY_READS_MAX,
            false => for_queries == 0,
        };
        match query_is_due && !self.waiting_for_queries.is_empty() {
            true => &mut self.waiting_for_queries,
            false => &mut self.waiting,
        }
    }

    /// The next read that may begin; whoever takes it carries it out.
    pub(super) fn begin(&mut self) -> Option<Reading> {
        let bytes = self.next_queue().front()?.read.bytes;
        let full = self.under_way >= READS_MAX || self.under_way_bytes + bytes > READ_BYTES_MAX;
        if self.under_way > 0 && full {
            return None;
        }
        let asked = self.next_queue().pop_front()?;
        self.under_way += 1;
        self.under_way_for_queries += usize::from(asked.purpose == Purpose::Query);
        self.under_way_bytes += bytes;
        let buffer = self.buffers.take(bytes);
        Some(Reading {
            read: asked.read,
            token: asked.token,
            purpose: asked.purpose,
            buffer,
        })
    }

    /// Has a read that was begun carried out by the pool.
    pub(super) fn delegate(&self, reading: Reading) {
        self.pool.submit(reading, &self.done);
    }

    /// What the pool has finished.
    pub(super) fn delegated(&self) -> Option<(Reading, io::Result<()>)> {
        self.done.finished.pop()
    }

    /// A read that was begun is over, and its handler has seen the bytes.
    pub(super) fn end(&mut self, reading: Reading) {
        self.under_way -= 1;
        self.under_way_for_queries -= usize::from(reading.purpose == Purpose::Query);
        self.under_way_bytes -= reading.read.bytes;
        self.buffers.give_back(reading.buffer);
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::net::LoopControl;
    use perigee_engine::storage::medium::MemoryMedium;

    fn read() -> RecordRead {
        RecordRead {
            medium: Arc::new(MemoryMedium::new(PAGE_BYTES as u64).unwrap()),
            offset: 0,
            bytes: PAGE_BYTES,
        }
    }

    #[test]
    fn a_single_record_does_not_queue_behind_queries_and_queries_go_on() {
        let control = LoopControl::new().unwrap();
        let mut reads = Reads::new(Arc::default(), control.waker());
        for token in 0..1000 {
            reads.submit_for_query(read(), token);
        }
        let mut begun = Vec::new();
        begun.extend(std::iter::from_fn(|| reads.begin()));
        assert_eq!(begun.len(), QUERY_READS_MAX);
        reads.submit(read(), 5000);
        begun.extend(std::iter::from_fn(|| reads.begin()));
        assert_eq!(begun.last().map(|reading| reading.token), Some(5000));
        assert_eq!(begun.len(), QUERY_READS_MAX + 1);

        // However many single records wait, one read for queries is always under way.
        for token in 0..2 * READS_MAX as u64 {
            reads.submit(read(), 6000 + token);
        }
        begun.into_iter().for_each(|reading| reads.end(reading));
        let begun: Vec<_> = std::iter::from_fn(|| reads.begin()).collect();
        let for_queries: Vec<_> = begun.iter().map(|it| it.purpose).collect();
        assert_eq!(begun.len(), READS_MAX);
        assert!(for_queries[0] == Purpose::Query);
        assert!(for_queries[1..].iter().all(|it| *it == Purpose::Record));
        begun.into_iter().for_each(|reading| reads.end(reading));
        assert_eq!((reads.under_way, reads.under_way_for_queries), (0, 0));
    }
}
