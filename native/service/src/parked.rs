//! Requests of a service thread that wait, and what is kept of them meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use perigee_engine::device_copy::DeviceCopy;
use perigee_engine::expression::Expression;
use perigee_engine::index::Location;
use perigee_engine::latency::Latency;
use perigee_engine::namespace::Namespace;
use perigee_engine::partition::Waiter;
use perigee_engine::request::{Outcome, ReplyShape, Request};
use perigee_wire::{Digest, Message, ResultCode};

use crate::net::{ConnId, Reads};
use crate::reply_compression::{compress_frame, wants_compressed};
use crate::server::Shared;
use crate::udf_lane::{LaneTask, UdfJob};

/// What is logged of malformed frames, and of records that a device does not give, by one thread: one in this time. The
/// counters have them all.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Bodies of answered requests whose memory the next one that waits may use, and the largest of them.
const SPARE_BODIES_MAX: usize = 64;
const SPARE_BODY_BYTES_MAX: usize = 64 << 10;

/// A request as it came.
pub(crate) struct Incoming<'a> {
    pub conn: ConnId,
    /// The frame's body.
    pub body: &'a [u8],
    pub message: &'a Message<'a>,
    pub arrived: Instant,
}

/// A request that waits, with what is needed to run it again or to answer it.
pub(crate) struct Parked {
    pub conn: ConnId,
    pub namespace: Arc<Namespace>,
    pub digest: Digest,
    /// The frame's body; empty when the request will not be run again.
    pub body: Vec<u8>,
    pub filter: Option<Expression>,
    /// The client takes a compressed reply.
    pub wants_compressed: bool,
    pub state: State,
    pub latency: Latency,
    pub arrived: Instant,
    /// When the client gives up, counted from the request's arrival however often it waits.
    pub deadline: Instant,
}

impl Parked {
    /// Counts how long it took until now, when it is answered.
    pub fn answered(&self, now: Instant) {
        let took = now.saturating_duration_since(self.arrived);
        self.namespace.stats.latencies.add(self.latency, took, 1);
    }
}

/// What a request waits for.
pub(crate) enum State {
    Device { location: Location },
    Record,
    Lua,
    Commit { reply: Vec<u8> },
}

impl State {
    /// Whether the request is run again, from its frame.
    pub fn runs_again(&self) -> bool {
        matches!(self, State::Device { .. } | State::Record)
    }
}

/// One run of a request.
pub(crate) struct Run<'a> {
    pub request: u64,
    pub deadline: Instant,
    pub namespace: &'a Arc<Namespace>,
    pub message: &'a Message<'a>,
    pub digest: &'a Digest,
    pub copy: Option<DeviceCopy<'a>>,
    pub filter: Option<&'a Expression>,
}

/// Runs a request, for the first time or after it waited, and sets going what it has to wait for. `None`: the reply has
/// been appended. `waiter` is the request's.
pub(crate) fn carry_out(
    namespace: &Arc<Namespace>,
    request: &Request<'_>,
    waiter: Waiter,
    deadline: Instant,
    out: &mut Vec<u8>,
    reads: &mut Reads,
    shared: &Shared,
) -> Option<State> {
    let start = out.len();
    let outcome = namespace.execute(request, out);
    let is_there = matches!(outcome, Outcome::Answered | Outcome::AwaitCommit(_));
    // Of replies of several parts, the whole frame is.
    if is_there && request.shape == ReplyShape::Frame && wants_compressed(&request.message.header) {
        compress_frame(out, start, &namespace.stats.record_proto);
    }
    match outcome {
        Outcome::Answered => None,
        Outcome::AwaitCommit(ticket) => {
            if namespace.store.await_commit(ticket, waiter) {
                return None;
            }
            Some(State::Commit {
                reply: out.split_off(start),
            })
        }
        Outcome::ReadDevice(location) => {
            reads.submit(namespace.store.record_read(location), waiter.request);
            Some(State::Device { location })
        }
        Outcome::AwaitRecord => Some(State::Record),
        Outcome::RunUdf(task) => {
            shared.udf.submit(UdfJob {
                namespace: namespace.clone(),
                task: LaneTask::Record(task),
                waiter,
                deadline,
                losses: 0,
            });
            Some(State::Lua)
        }
    }
}

/// Where a part has its result code.
const RESULT_AT: usize = 5;

/// The result of a request that was answered by a part; `None` if there is no whole one.
pub(crate) fn result_of_part(part: &[u8]) -> Option<ResultCode> {
    let code = part.get(RESULT_AT)?;
    ResultCode::from_u8(*code)
}

/// What a run came to.
pub(crate) enum Step {
    Answered,
    Waits(State),
}

/// Frames of requests that will be run again, in memory that is used again.
#[derive(Default)]
pub(crate) struct Bodies {
    spare: Vec<Vec<u8>>,
}

impl Bodies {
    /// A copy of a frame's body, if what the request waits for asks for one.
    pub fn keep(&mut self, body: &[u8], state: &State) -> Vec<u8> {
        if !state.runs_again() {
            return Vec::new();
        }
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.extend_from_slice(body);
        kept
    }

    pub fn give_back(&mut self, mut body: Vec<u8>) {
        let fits = (1..=SPARE_BODY_BYTES_MAX).contains(&body.capacity());
        if fits && self.spare.len() < SPARE_BODIES_MAX {
            body.clear();
            self.spare.push(body);
        }
    }
}

/// When one kind of event was logged last.
#[derive(Default)]
pub(crate) struct LogPace(Option<Instant>);

impl LogPace {
    /// Whether to log this one.
    pub fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}
