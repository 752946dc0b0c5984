//! What reaches a service thread from elsewhere: completions of parked requests, answers from TypeScript, sockets that
//! another thread accepted. Bounded by the connections: each has at most one request in flight, and a stream
//! a few tasks.

use crossbeam_queue::SegQueue;
use perigee_engine::partition::Waiter;
use perigee_engine::storage::{CommitSink, CommitTicket, CommitWaiter, DeviceError};
use perigee_engine::stream::StreamOutcome;

use crate::net::{PeerSocket, Waker};

pub enum Mail {
    Adopt(PeerSocket),
    /// The write that a reply waits for is durable, or its device has failed.
    Committed {
        request: u64,
        durable: bool,
    },
    /// The record that a request waited for is free: run it again.
    Retry {
        request: u64,
    },
    /// The reply to a request that was carried out elsewhere; with a ticket it waits for durability first.
    Reply {
        request: u64,
        frame: Vec<u8>,
        ticket: Option<CommitTicket>,
    },
    /// What became of a share of a query's stream.
    Stream {
        request: u64,
        outcome: StreamOutcome,
    },
}

pub struct Mailbox {
    mail: SegQueue<Mail>,
    waker: Waker,
}

impl Mailbox {
    pub fn new(waker: Waker) -> Self {
        Mailbox {
            mail: SegQueue::new(),
            waker,
        }
    }

    pub fn post(&self, mail: Mail) {
        self.mail.push(mail);
        self.waker.wake();
    }

    /// Lets the thread look at what it has to do, without mail.
    pub fn wake(&self) {
        self.waker.wake();
    }

    pub fn take(&self) -> Option<Mail> {
        self.mail.pop()
    }
}

/// The mailboxes of all service threads, by thread number.
pub struct Mailboxes(pub Vec<Mailbox>);

impl Mailboxes {
    pub fn post(&self, thread: u32, mail: Mail) {
        if let Some(mailbox) = self.0.get(thread as usize) {
            mailbox.post(mail);
        }
    }

    /// As `post`, but the thread is woken with others later.
    pub fn put(&self, thread: u32, mail: Mail, wakes: &mut Wakes) {
        if let Some(mailbox) = self.0.get(thread as usize) {
            mailbox.mail.push(mail);
            wakes.add(thread);
        }
    }

    /// Lets requests run again that waited for a record.
    pub fn put_retries(&self, woken: Vec<Waiter>, wakes: &mut Wakes) {
        for waiter in woken {
            let request = waiter.request;
            self.put(waiter.thread, Mail::Retry { request }, wakes);
        }
    }

    pub fn wake(&self, wakes: Wakes) {
        for thread in wakes.threads {
            self.0[thread as usize].wake();
        }
    }
}

/// Threads that have got mail, and are to be told.
#[derive(Default)]
#[must_use]
pub struct Wakes {
    threads: Vec<u32>,
}

impl Wakes {
    fn add(&mut self, thread: u32) {
        if !self.threads.contains(&thread) {
            self.threads.push(thread);
        }
    }
}

impl CommitSink for Mailboxes {
    fn committed(&self, waiter: CommitWaiter, outcome: Result<(), DeviceError>) {
        self.group_committed(&[waiter], outcome);
    }

    fn group_committed(&self, waiters: &[CommitWaiter], outcome: Result<(), DeviceError>) {
        let durable = outcome.is_ok();
        for waiter in waiters {
            if let Some(mailbox) = self.0.get(waiter.thread as usize) {
                let request = waiter.request;
                mailbox.mail.push(Mail::Committed { request, durable });
            }
        }
        // Woken after the first, a thread would answer it, fall asleep, and be woken by the next again.
        for (thread, mailbox) in self.0.iter().enumerate() {
            if waiters
                .iter()
                .any(|waiter| waiter.thread as usize == thread)
            {
                mailbox.wake();
            }
        }
    }
}
