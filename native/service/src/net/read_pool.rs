//! Reads that no ring carries out: of media without a file, on kernels without io_uring, and the rest of
//! what a ring read in part. A few threads that block so that no loop does; they start when they are
//! needed.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::reads::{Done, Reading};

/// Reads of the whole pool that are under way at once.
const THREADS_MAX: usize = 8;

#[derive(Default)]
struct State {
    /// Bounded by the loops, each of which has a bounded number of reads under way.
    queue: VecDeque<(Reading, Arc<Done>)>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

/// One pool serves all loops of a node.
#[derive(Default)]
pub struct ReadPool {
    shared: Arc<Shared>,
}

impl ReadPool {
    /// Carries a read out and says so at `done`, with an error if there is no thread for it.
    pub(super) fn submit(&self, reading: Reading, done: &Arc<Done>) {
        let mut state = self.shared.state.lock();
        if state.closed {
            drop(state);
            return done.post(reading, Err(io::Error::other("the node is closing")));
        }
        if state.idle <= state.queue.len() && state.threads.len() < THREADS_MAX {
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new()
                .name(format!("device-read-{}", state.threads.len()))
                .spawn(move || serve(&shared));
            match started {
                Ok(thread) => state.threads.push(thread),
                Err(error) if state.threads.is_empty() => {
                    drop(state);
                    return done.post(reading, Err(error));
                }
                Err(error) => tracing::warn!(%error, "no further thread for device reads"),
            }
        }
        state.queue.push_back((reading, Arc::clone(done)));
        drop(state);
        self.shared.ready.notify_one();
    }

    /// Finishes what is queued and ends the threads; reads that come later fail.
    pub fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.shared.ready.notify_all();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for ReadPool {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        let Some((mut reading, done)) = state.queue.pop_front() else {
            if state.closed {
                return;
            }
            state.idle += 1;
            shared.ready.wait(&mut state);
            state.idle -= 1;
            continue;
        };
        drop(state);
        let outcome = reading.carry_out();
        done.post(reading, outcome);
        state = shared.state.lock();
    }
}
