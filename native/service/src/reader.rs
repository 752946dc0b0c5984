//! The pool that reads records from devices, so that a service thread never blocks on a disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use perigee_engine::index::Location;
use perigee_engine::namespace::Namespace;

use crate::mailbox::{Mail, Mailboxes};

/// Reads of the whole node that are under way at once.
const READER_THREADS: usize = 8;

pub struct DeviceRead {
    pub namespace: Arc<Namespace>,
    pub location: Location,
    pub thread: u32,
    pub request: u64,
}

#[derive(Default)]
struct Queue {
    reads: VecDeque<DeviceRead>,
    closed: bool,
}

/// Each parked request has at most one read here, so the queue is bounded by the connections.
pub struct DeviceReaders {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl DeviceReaders {
    pub fn start(mailboxes: Arc<Mailboxes>) -> std::io::Result<Self> {
        let shared: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let threads = (0..READER_THREADS)
            .map(|number| {
                let (shared, mailboxes) = (shared.clone(), mailboxes.clone());
                std::thread::Builder::new()
                    .name(format!("device-read-{number}"))
                    .spawn(move || serve(&shared, &mailboxes))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(DeviceReaders {
            shared,
            threads: Mutex::new(threads),
        })
    }

    pub fn submit(&self, read: DeviceRead) {
        let (queue, ready) = &*self.shared;
        queue.lock().reads.push_back(read);
        ready.notify_one();
    }

    /// Finishes what is queued and ends the threads.
    pub fn close(&self) {
        let (queue, ready) = &*self.shared;
        queue.lock().closed = true;
        ready.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(shared: &(Mutex<Queue>, Condvar), mailboxes: &Mailboxes) {
    let (queue, ready) = shared;
    loop {
        let read = {
            let mut queue = queue.lock();
            loop {
                match queue.reads.pop_front() {
                    Some(read) => break read,
                    None if queue.closed => return,
                    None => ready.wait(&mut queue),
                }
            }
        };
        let copy = read.namespace.read_device(read.location);
        mailboxes.post(
            read.thread,
            Mail::Retry {
                request: read.request,
                copy: Some(copy),
            },
        );
    }
}
