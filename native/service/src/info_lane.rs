//! Info requests on their way to TypeScript and back. The service thread parks the connection; an answer is found by
//! its id. Bounded by the connections: each has at most one request under way.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;
use perigee_engine::latency::LatencyHistogram;

use crate::net::ConnId;

#[derive(Default)]
pub struct InfoLane {
    state: Mutex<State>,
    /// From a request's arrival to its answer.
    pub latency: LatencyHistogram,
}

#[derive(Default)]
struct State {
    /// Ids stay below 2^53, so that they are exact as a JavaScript number.
    next_id: u64,
    open: HashMap<u64, Open>,
    answered: HashMap<u32, Vec<(ConnId, String)>>,
}

struct Open {
    thread: u32,
    conn: ConnId,
    arrived: Instant,
}

impl InfoLane {
    /// Takes note of a request of a thread's connection and names it.
    pub fn open(&self, thread: u32, conn: ConnId) -> u64 {
        let open = Open {
            thread,
            conn,
            arrived: Instant::now(),
        };
        let mut state = self.state.lock();
        state.next_id += 1;
        let id = state.next_id;
        state.open.insert(id, open);
        id
    }

    /// Takes an answer and returns the thread to be woken; `None` for an id that is not open.
    pub fn answer(&self, id: u64, reply: String) -> Option<u32> {
        let mut state = self.state.lock();
        let Open {
            thread,
            conn,
            arrived,
        } = state.open.remove(&id)?;
        self.latency.add(arrived.elapsed(), 1);
        state
            .answered
            .entry(thread)
            .or_default()
            .push((conn, reply));
        Some(thread)
    }

    /// Answers for a thread's connections, in the order in which they came.
    pub fn answered(&self, thread: u32) -> Vec<(ConnId, String)> {
        self.state
            .lock()
            .answered
            .get_mut(&thread)
            .map(std::mem::take)
            .unwrap_or_default()
    }
}
