//! Queries on a service thread (PROTOCOL section 10), by the primary index and by secondary ones. A query takes its turns among the thread's other work:
//! each turn sends a piece, then the query waits for its next turn, for records from the device, for the peer to take what
//! was sent, or for time to pass. One query a connection.
//!
//! Records come in digest order within a partition, each partition ends with a PARTITION_DONE message, the reply with LAST.
//! A partition that is not this node's, or not to its end, is done with UNAVAILABLE: the client asks elsewhere.

mod job;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use perigee_engine::namespace::Namespace;
use perigee_engine::partition::Waiter;
use perigee_engine::query::{AskedRead, PartitionCursor, QueryBudget, ReadAhead, RecordQuery};
use perigee_engine::stream::{StreamCall, StreamOutcome};
use perigee_wire::{Message, ResultCode, info1};

use crate::contained::working_for;
use crate::net::{ConnId, Net};
use crate::query_registry::{JobType, QueryEnd, QueryRegistry, QueryStatus};
use crate::query_request::{check_short, owned_partitions, partitions_of};
use crate::reply_compression::wants_compressed;
use crate::turn::Turn;
use crate::udf_lane::{LaneTask, UdfJob, UdfLane};
use stream::{Share, Stream};

/// A query's turn ends after so many index entries, records or bytes: some hundred microseconds.
const TURN: QueryBudget = QueryBudget {
    visits: 8192,
    records: 512,
    bytes: FRAME_BYTES,
};
/// A slice of it, after which the turn is over if others wait: some ten microseconds.
const SLICE: QueryBudget = QueryBudget {
    visits: 1024,
    records: 32,
    bytes: 16 << 10,
};
/// A slice's entries where each is asked for more than its set.
const FILTERED_SLICE_VISITS: usize = 64;
/// Partitions begun in one slice: an empty one costs next to nothing but not nothing, one that an index is asked for more.
const SLICE_PARTITIONS: usize = 32;

/// A frame is sent when it has grown to this, or is this old. Larger ones gain nothing, and nobody is answered while one is
/// copied to its socket.
const FRAME_BYTES: usize = 64 << 10;
const FRAME_AGE: Duration = Duration::from_millis(100);
/// Output that the peer has not taken, above which the query waits.
const UNSENT_BYTES_MAX: usize = 2 << 20;
/// How long a peer may take nothing, when its request does not say.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a task of a stream may wait for a worker, when the query has no time limit.
const TASK_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// The queries of one service thread.
#[derive(Default)]
pub(crate) struct QueryJobs {
    jobs: HashMap<ConnId, Job>,
    ready: VecDeque<ConnId>,
    /// Reads under way, by the number that they were submitted under, and who asked: the next query of a connection has
    /// another number.
    reads: HashMap<u64, (ConnId, u64, AskedRead)>,
    /// Tasks of streams, by the number of the request that each is, and whose.
    shares: HashMap<u64, (ConnId, u64, Share)>,
    started: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ready,
    Device,
    /// A Lua worker is to be done with its share of the stream.
    Lua,
    /// The peer has this much to take, and has taken nothing since then.
    Output {
        unsent: usize,
        since: Instant,
    },
    /// Its records of this second are sent.
    Time,
}

struct Job {
    number: u64,
    conn: ConnId,
    namespace: Arc<Namespace>,
    query: RecordQuery,
    partitions: VecDeque<PartitionCursor>,
    reads: ReadAhead,
    /// Where the records go if not to the client.
    stream: Option<Box<Stream>>,
    /// The frame under construction; empty, or with room for its header in front.
    frame: Vec<u8>,
    frame_since: Instant,
    state: State,
    records_left: u64,
    pace: Option<Pace>,
    socket_timeout: Duration,
    /// The client takes compressed frames.
    wants_compressed: bool,
    began: Instant,
    kind: Kind,
}

/// What a message asks for.
struct Asked {
    query: RecordQuery,
    partitions: VecDeque<PartitionCursor>,
    stream: Option<Box<Stream>>,
    job_type: JobType,
}

enum Kind {
    Long(Arc<QueryStatus>),
    /// Not listed, and answered TIMEOUT when it takes longer than this.
    Short {
        deadline: Instant,
    },
}

/// Records per second, as an allowance that grows with time.
pub(crate) struct Pace {
    per_second: f64,
    allowance: f64,
    since: Instant,
}

impl Pace {
    /// What may be sent at once after a wait.
    const BURST_SECONDS: f64 = 0.1;

    pub fn new(per_second: u32) -> Pace {
        Pace {
            per_second: f64::from(per_second),
            allowance: 1.0,
            since: Instant::now(),
        }
    }

    /// How many records may be taken now.
    pub fn allowance(&mut self, now: Instant) -> u64 {
        let seconds = now.duration_since(self.since).as_secs_f64();
        self.since = now;
        let most = (self.per_second * Self::BURST_SECONDS).max(1.0);
        self.allowance = (self.allowance + seconds * self.per_second).min(most);
        self.allowance as u64
    }

    /// Whether there was more than was taken.
    pub fn has_allowance(&self) -> bool {
        self.allowance >= 1.0
    }

    pub fn take(&mut self, records: u64) {
        self.allowance -= records as f64;
    }
}

/// The secondary index that a query is answered from is gone.
struct IndexDropped;

enum Next {
    Again,
    /// Read these; others may be on their way.
    Read(Vec<AskedRead>),
    Wait(State),
    Done,
}

/// What a query meets outside of its thread.
pub(crate) struct QueryContext<'a> {
    pub registry: &'a QueryRegistry,
    pub udf: &'a UdfLane,
    pub thread: u32,
    /// The last number that was given to a request of the thread; reads and tasks are submitted under numbers of their own.
    pub next_request: &'a mut u64,
}

impl QueryJobs {
    /// Takes up a query whose connection is parked from now on. On an error it is refused.
    pub fn start(
        &mut self,
        conn: ConnId,
        namespace: &Arc<Namespace>,
        message: &Message<'_>,
        peer: String,
        deadline: Instant,
        registry: &QueryRegistry,
    ) -> Result<(), ResultCode> {
        check_short(message)?;
        let query = RecordQuery::of(namespace, message)?;
        let asked = Asked {
            query,
            partitions: partitions_of(message)?,
            stream: None,
            job_type: JobType::Basic,
        };
        self.begin(conn, namespace, message, asked, peer, deadline, registry)
    }

    /// The same for an aggregation. The client's time limit is the query's; without one it has none.
    pub fn start_stream(
        &mut self,
        conn: ConnId,
        namespace: &Arc<Namespace>,
        message: &Message<'_>,
        peer: String,
        deadline: Instant,
        context: &QueryContext<'_>,
    ) -> Result<(), ResultCode> {
        if message.header.info1 & info1::SHORT_QUERY != 0 {
            return Err(ResultCode::Parameter);
        }
        let limit = (message.header.transaction_ttl > 0).then_some(deadline);
        let call = StreamCall::of(namespace, message)?;
        let asked = Asked {
            query: RecordQuery::of_stream(namespace, message)?,
            partitions: match message.partitions.is_some() || message.digests_after.is_some() {
                true => partitions_of(message)?,
                false => owned_partitions(namespace),
            },
            stream: Some(Box::new(Stream::new(call, limit, context.udf.workers()))),
            job_type: JobType::Aggregation,
        };
        let registry = context.registry;
        self.begin(conn, namespace, message, asked, peer, deadline, registry)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the two ways to start a query end here"
    )]
    fn begin(
        &mut self,
        conn: ConnId,
        namespace: &Arc<Namespace>,
        message: &Message<'_>,
        asked: Asked,
        peer: String,
        deadline: Instant,
        registry: &QueryRegistry,
    ) -> Result<(), ResultCode> {
        let Asked {
            query,
            partitions,
            stream,
            job_type,
        } = asked;
        let rate = message.records_per_second.unwrap_or_default();
        let timeout_ms = message.socket_timeout.unwrap_or_default();
        if !registry.admit() {
            return Err(ResultCode::QueryQueueFull);
        }
        let kind = if message.header.info1 & info1::SHORT_QUERY != 0 {
            Kind::Short { deadline }
        } else {
            let set = message.set.unwrap_or_default();
            let status = QueryStatus::new(
                message.task_id.unwrap_or_default(),
                &namespace.name,
                set,
                peer,
            );
            let status = Arc::new(QueryStatus {
                job_type,
                index: query.index_name().unwrap_or_default().to_owned(),
                partitions: partitions.len(),
                records_per_second: rate,
                socket_timeout_ms: timeout_ms,
                ..status
            });
            registry.list(status.clone());
            Kind::Long(status)
        };
        self.started += 1;
        let job = Job {
            number: self.started,
            conn,
            namespace: namespace.clone(),
            query,
            partitions,
            reads: ReadAhead::default(),
            stream,
            frame: Vec::new(),
            frame_since: Instant::now(),
            state: State::Ready,
            records_left: match message.sample_max {
                None | Some(0) => u64::MAX,
                Some(most) => most,
            },
            pace: (rate > 0).then(|| Pace::new(rate)),
            socket_timeout: match timeout_ms {
                0 => SOCKET_TIMEOUT,
                ms => Duration::from_millis(u64::from(ms)),
            },
            wants_compressed: wants_compressed(&message.header),
            began: Instant::now(),
            kind,
        };
        self.jobs.insert(conn, job);
        self.ready.push_back(conn);
        Ok(())
    }

    /// Whether a query waits for its turn.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Gives a turn to the query that has waited for longest: what it sends leaves before the next one's.
    pub fn run(&mut self, net: &mut dyn Net, turn: &mut Turn<'_>, context: &mut QueryContext<'_>) {
        while let Some(conn) = self.ready.pop_front() {
            let Some(job) = self.jobs.get_mut(&conn) else {
                continue;
            };
            let _work = working_for(conn, &[]);
            let next = job.turn(net, turn, context.registry);
            for task in job.take_tasks() {
                *context.next_request += 1;
                let request = *context.next_request;
                let share = (conn, job.number, Share::of(&task));
                self.shares.insert(request, share);
                context.udf.submit(UdfJob {
                    namespace: job.namespace.clone(),
                    task: LaneTask::Stream(Arc::new(task)),
                    waiter: Waiter {
                        thread: context.thread,
                        request,
                    },
                    deadline: job.deadline(),
                    losses: 0,
                });
            }
            match next {
                Next::Again => self.ready.push_back(conn),
                Next::Wait(state) => job.state = state,
                Next::Read(asked) => {
                    job.state = State::Device;
                    for asked in asked {
                        *context.next_request += 1;
                        let number = *context.next_request;
                        let read = job.namespace.store.record_read(asked.location);
                        net.reads().submit_for_query(read, number);
                        self.reads.insert(number, (conn, job.number, asked));
                    }
                }
                Next::Done => {
                    self.jobs.remove(&conn);
                    context.registry.leave();
                    net.resume(conn);
                }
            }
            return;
        }
    }

    /// Takes the pages of a read that was submitted for a query; gives the outcome back when it is none of theirs.
    pub fn deliver(
        &mut self,
        number: u64,
        pages: &[u8],
        outcome: io::Result<()>,
    ) -> Option<io::Result<()>> {
        let Some((conn, by, asked)) = self.reads.remove(&number) else {
            return Some(outcome);
        };
        if let Some(job) = self.jobs.get_mut(&conn).filter(|job| job.number == by) {
            let _work = working_for(conn, &[]);
            let read = job.namespace.finish_read(asked.location, pages, outcome);
            job.reads.deliver(asked, read);
            if job.state == State::Device {
                self.wake(conn);
            }
        }
        None
    }

    /// Takes what became of a task of a stream.
    pub fn deliver_share(&mut self, number: u64, outcome: StreamOutcome) {
        let Some((conn, by, share)) = self.shares.remove(&number) else {
            return;
        };
        let job = self.jobs.get_mut(&conn).filter(|job| job.number == by);
        if let Some(job) = job {
            let _work = working_for(conn, &[]);
            job.take_share(&share, outcome);
            if job.state == State::Lua {
                self.wake(conn);
            }
        }
    }

    /// The peer has taken all that was sent.
    pub fn drained(&mut self, conn: ConnId) {
        let waits = |job: &Job| matches!(job.state, State::Output { .. });
        if self.jobs.get(&conn).is_some_and(waits) {
            self.wake(conn);
        }
    }

    /// The connection is gone, and its query with it.
    pub fn closed(&mut self, conn: ConnId, registry: &QueryRegistry) {
        if let Some(job) = self.jobs.remove(&conn) {
            job.give_up();
            job.count(QueryEnd::Abandoned, registry);
            registry.leave();
        }
    }

    /// Wakes the queries that wait for time, or that somebody has ended; ends those whose peer takes nothing.
    pub fn tick(&mut self, now: Instant, net: &mut dyn Net, registry: &QueryRegistry) {
        let mut due = Vec::new();
        for (conn, job) in &mut self.jobs {
            let ended = registry.is_stopping() || job.is_aborted() || job.is_late(now);
            match &mut job.state {
                State::Ready => {}
                State::Time => due.push(*conn),
                State::Device | State::Lua if ended => due.push(*conn),
                // Nothing is sent for long: who ends its side is taken to be gone.
                State::Lua if net.has_ended(*conn) => net.close(*conn),
                State::Device | State::Lua => {}
                State::Output { .. } if ended => due.push(*conn),
                State::Output { unsent, since } => {
                    let left = net.unsent(*conn);
                    if left < *unsent {
                        (*unsent, *since) = (left, now);
                    } else if now.duration_since(*since) >= job.socket_timeout {
                        // The rest of the frame cannot be sent, so no other answer can be.
                        net.close(*conn);
                    }
                }
            }
        }
        due.into_iter().for_each(|conn| self.wake(conn));
    }

    fn wake(&mut self, conn: ConnId) {
        if let Some(job) = self.jobs.get_mut(&conn)
            && job.state != State::Ready
        {
            job.state = State::Ready;
            self.ready.push_back(conn);
        }
    }
}
