//! Background queries on a service thread (PROTOCOL section 10): operations, or a function, carried out on each record that a
//! query finds. The client has its answer when the query is taken up; how far it is, and how it ended, is listed.
//!
//! A record is selected by its index entry alone and changed by a request of its own, which looks at the filter and the range
//! again under the record's lock: no record is changed that does not match when it is changed, and none is made.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use perigee_engine::device_copy::{DeviceCopy, Unread};
use perigee_engine::namespace::Namespace;
use perigee_engine::partition::Waiter;
use perigee_engine::query::{PartitionCursor, PieceEnd, QueryBudget, RecordQuery};
use perigee_engine::request::{ReplyShape, Request};
use perigee_engine::stats::count;
use perigee_wire::{Digest, Message, ResultCode, info3};

use crate::contained::caught;
use crate::net::Reads;
use crate::parked::{State, carry_out, result_of_part};
use crate::query_job::Pace;
use crate::query_registry::{JobType, QueryEnd, QueryRegistry, QueryStatus};
use crate::query_request::owned_partitions;
use crate::server::Shared;
use crate::turn::Turn;

/// A query's turn ends after so many index entries or records.
const TURN_VISITS: usize = 8192;
const TURN_RECORDS: u64 = 64;
/// Index entries and partitions of a slice of it, after which the turn is over if others wait. Each record's change is one.
const SLICE_VISITS: usize = 1024;
const SLICE_PARTITIONS: usize = 32;
/// Records of one query that wait for a device, for Lua, or to be durable.
const WAITING_MAX: usize = 32;

/// The background queries of one service thread.
#[derive(Default)]
pub(crate) struct BackgroundJobs {
    jobs: HashMap<u64, Job>,
    ready: VecDeque<u64>,
    /// Changes that wait, by the number of the request that each is.
    changes: HashMap<u64, Change>,
    started: u64,
}

/// What a background query meets outside of its thread.
pub(crate) struct BackgroundContext<'a> {
    pub thread: u32,
    pub shared: &'a Arc<Shared>,
    /// The last number that was given to a request of the thread.
    pub next_request: &'a mut u64,
}

struct Job {
    /// The frame's body, from which each record's request is read.
    body: Vec<u8>,
    namespace: Arc<Namespace>,
    query: RecordQuery,
    partitions: VecDeque<PartitionCursor>,
    selected: VecDeque<Digest>,
    waiting: usize,
    pace: Pace,
    status: Arc<QueryStatus>,
    end: Option<QueryEnd>,
    is_ready: bool,
}

/// The change of one record.
struct Change {
    job: u64,
    digest: Digest,
    state: State,
    deadline: Instant,
}

impl BackgroundJobs {
    /// Takes up a background query. On an error it is refused.
    pub fn start(
        &mut self,
        namespace: &Arc<Namespace>,
        body: &[u8],
        message: &Message<'_>,
        peer: String,
        registry: &QueryRegistry,
    ) -> Result<(), ResultCode> {
        let query = RecordQuery::in_background(namespace, message)?;
        let rate_max = namespace.config.background_query_max_rps.get();
        let rate = match message.records_per_second.unwrap_or_default() {
            0 => rate_max,
            rate if rate > rate_max => return Err(ResultCode::Parameter),
            rate => rate,
        };
        if !registry.admit() {
            return Err(ResultCode::QueryQueueFull);
        }
        let partitions = owned_partitions(namespace);
        let status = QueryStatus::new(
            message.task_id.unwrap_or_default(),
            &namespace.name,
            message.set.unwrap_or_default(),
            peer,
        );
        let status = Arc::new(QueryStatus {
            job_type: match message.udf_function {
                Some(_) => JobType::UdfBackground,
                None => JobType::OpsBackground,
            },
            index: query.index_name().unwrap_or_default().to_owned(),
            partitions: partitions.len(),
            records_per_second: rate,
            ..status
        });
        registry.list(status.clone());
        self.started += 1;
        let job = Job {
            body: body.to_vec(),
            namespace: namespace.clone(),
            query,
            partitions,
            selected: VecDeque::new(),
            waiting: 0,
            pace: Pace::new(rate),
            status,
            end: None,
            is_ready: true,
        };
        self.jobs.insert(self.started, job);
        self.ready.push_back(self.started);
        Ok(())
    }

    /// Whether there is none, so that nothing waits for time to pass.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether one waits for its turn.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether a request is the change of a record that waits.
    pub fn has(&self, request: u64) -> bool {
        self.changes.contains_key(&request)
    }

    /// The change of a record that waits: its namespace, and what for.
    pub fn change(&self, request: u64) -> Option<(Arc<Namespace>, &State)> {
        let change = self.changes.get(&request)?;
        let job = self.jobs.get(&change.job)?;
        Some((job.namespace.clone(), &change.state))
    }

    /// Gives a turn to the query that has waited for longest.
    pub fn run(
        &mut self,
        reads: &mut Reads,
        turn: &mut Turn<'_>,
        context: &mut BackgroundContext<'_>,
    ) {
        let Some((number, mut job)) = self.next_ready() else {
            return;
        };
        job.is_ready = false;
        let shared = context.shared;
        contained(&mut job, shared, |job| {
            self.turn(number, job, reads, turn, context);
        });
        self.go_on(number, job, context);
    }

    fn next_ready(&mut self) -> Option<(u64, Job)> {
        while let Some(number) = self.ready.pop_front() {
            if let Some(job) = self.jobs.remove(&number) {
                return Some((number, job));
            }
        }
        None
    }

    /// Keeps a query that is not done, and gives it its next turn if it waits for nothing.
    fn go_on(&mut self, number: u64, mut job: Job, context: &BackgroundContext<'_>) {
        let is_through = job.partitions.is_empty() && job.selected.is_empty();
        if is_through && job.end.is_none() && job.waiting == 0 {
            job.end = Some(QueryEnd::Complete);
        }
        if let Some(end) = job.end
            && job.waiting == 0
        {
            job.count(end);
            context.shared.queries.end(&job.status, end);
            context.shared.queries.leave();
            return;
        }
        let goes_on = job.end.is_none() && job.waiting < WAITING_MAX && !is_through;
        if goes_on && !job.is_ready && job.pace.has_allowance() {
            job.is_ready = true;
            self.ready.push_back(number);
        }
        self.jobs.insert(number, job);
    }

    fn turn(
        &mut self,
        number: u64,
        job: &mut Job,
        reads: &mut Reads,
        turn: &mut Turn<'_>,
        context: &mut BackgroundContext<'_>,
    ) {
        let now = Instant::now();
        if context.shared.queries.is_stopping() || job.status.aborted.load(Ordering::Relaxed) {
            job.end = Some(QueryEnd::Aborted);
            return;
        }
        let allowance = job.pace.allowance(now);
        if allowance == 0 {
            return;
        }
        let records = TURN_RECORDS.min(allowance);
        if job.selected.is_empty() && !job.select(records, turn) {
            job.end = Some(QueryEnd::Failed);
            return;
        }
        for position in 0..records {
            if job.waiting >= WAITING_MAX || position > 0 && turn.is_over() {
                return;
            }
            let Some(digest) = job.selected.pop_front() else {
                return;
            };
            job.pace.take(1);
            *context.next_request += 1;
            let request = *context.next_request;
            let ms = u64::from(context.shared.transaction_max_ms);
            let change = Change {
                job: number,
                digest,
                // Until it is known what for.
                state: State::Record,
                deadline: now + Duration::from_millis(ms),
            };
            self.carry_out(request, change, job, None, reads, context);
        }
        if !job.pace.has_allowance() {
            count(&job.status.throttled);
        }
    }

    /// Runs the change of a record, for the first time or again, and keeps it if it has to wait.
    fn carry_out(
        &mut self,
        request: u64,
        mut change: Change,
        job: &mut Job,
        copy: Option<DeviceCopy<'_>>,
        reads: &mut Reads,
        context: &BackgroundContext<'_>,
    ) {
        let waiter = Waiter {
            thread: context.thread,
            request,
        };
        let mut part = Vec::new();
        let waits = job.with_request(&change.digest, |request| {
            let request = Request {
                waiter: Some(waiter),
                copy,
                ..request
            };
            let (namespace, deadline) = (&job.namespace, change.deadline);
            let shared = context.shared;
            carry_out(
                namespace, &request, waiter, deadline, &mut part, reads, shared,
            )
        });
        match waits {
            Some(state) => {
                change.state = state;
                job.waiting += 1;
                self.changes.insert(request, change);
            }
            None => job.look_at(&part),
        }
    }

    /// Runs a change again that waited, with what it waited for.
    pub fn run_again(
        &mut self,
        request: u64,
        copy: Option<Result<DeviceCopy<'_>, Unread>>,
        reads: &mut Reads,
        context: &mut BackgroundContext<'_>,
    ) {
        let Some((change, mut job)) = self.take(request) else {
            return;
        };
        let number = change.job;
        let (copy, unread) = match copy.transpose() {
            Ok(copy) => (copy, None),
            Err(unread) => (None, Some(unread)),
        };
        let is_lost = |unread: &Unread| job.namespace.is_lost(&change.digest, unread);
        let mut part = Vec::new();
        if change.deadline <= Instant::now() {
            job.with_request(&change.digest, |plain| {
                job.namespace.answer_timeout(&plain, &mut part);
            });
            job.look_at(&part);
        } else if unread.as_ref().is_some_and(is_lost) {
            job.with_request(&change.digest, |plain| {
                job.namespace.answer_unread(&plain, &mut part);
            });
            job.look_at(&part);
        } else {
            contained(&mut job, context.shared, |job| {
                self.carry_out(request, change, job, copy, reads, context);
            });
        }
        self.go_on(number, job, context);
    }

    /// Takes the reply of a change that was carried out elsewhere (`part`), or that waited to be durable.
    pub fn answered(&mut self, request: u64, part: Option<&[u8]>, context: &BackgroundContext<'_>) {
        let Some((change, job)) = self.take(request) else {
            return;
        };
        match (part, &change.state) {
            (Some(part), _) => job.look_at(part),
            (None, State::Commit { reply }) => job.look_at(reply),
            (None, _) => count(&job.status.failed),
        }
        self.go_on(change.job, job, context);
    }

    /// The change of a record is not durable and will not be.
    pub fn not_durable(&mut self, request: u64, context: &BackgroundContext<'_>) {
        self.answered(request, Some(&[]), context);
    }

    /// Keeps a change's reply until it is durable.
    pub fn await_commit(&mut self, request: u64, reply: Vec<u8>) {
        if let Some(change) = self.changes.get_mut(&request) {
            change.state = State::Commit { reply };
        }
    }

    fn take(&mut self, request: u64) -> Option<(Change, Job)> {
        let change = self.changes.remove(&request)?;
        let mut job = self.jobs.remove(&change.job)?;
        job.waiting -= 1;
        Some((change, job))
    }

    /// Wakes the queries that wait for time, or that somebody has ended; gives up changes that have waited for too long.
    pub fn tick(&mut self, now: Instant, reads: &mut Reads, context: &mut BackgroundContext<'_>) {
        for (number, job) in &mut self.jobs {
            if !job.is_ready {
                job.is_ready = true;
                self.ready.push_back(*number);
            }
        }
        let late = self
            .changes
            .iter()
            .filter(|(_, change)| change.state.runs_again() && change.deadline <= now);
        for request in late.map(|(request, _)| *request).collect::<Vec<_>>() {
            if let Some(change) = self.changes.get(&request)
                && let Some(job) = self.jobs.get(&change.job)
                && matches!(change.state, State::Record)
            {
                let waiter = Waiter {
                    thread: context.thread,
                    request,
                };
                job.namespace.forget_waiter(&change.digest, waiter);
            }
            self.run_again(request, None, reads, context);
        }
    }
}

/// Does what a query asked for; should that panic, the query has failed.
fn contained(job: &mut Job, shared: &Shared, f: impl FnOnce(&mut Job)) {
    if let Err(panic) = caught(|| f(job)) {
        job.end = Some(QueryEnd::Failed);
        count(&shared.stats.requests_panicked);
        let (task, peer) = (job.status.task, &job.status.peer);
        tracing::error!(task, %peer, panic, "a background query met a fault of this program: it has failed");
    }
}

impl Job {
    /// Looks for the next records; false if the index is gone.
    fn select(&mut self, records: u64, turn: &mut Turn<'_>) -> bool {
        let mut budget = QueryBudget {
            visits: TURN_VISITS,
            records,
            bytes: usize::MAX,
        };
        let most = QueryBudget {
            visits: SLICE_VISITS,
            ..budget
        };
        let mut selected = Vec::new();
        let mut slice = budget.take(&most);
        let mut begun = 0;
        while let Some(cursor) = self.partitions.front_mut() {
            let end = match self.namespace.owns_partition(cursor.partition) {
                true => self
                    .namespace
                    .select_piece(&self.query, cursor, &mut slice, &mut selected),
                // Whoever has it now has got the query too.
                false => PieceEnd::Done,
            };
            match end {
                PieceEnd::Done => {
                    self.partitions.pop_front();
                    self.status.partitions_done.fetch_add(1, Ordering::Relaxed);
                }
                PieceEnd::NoIndex => return false,
                PieceEnd::Budget | PieceEnd::NeedsDevice(_) => {}
            }
            begun += 1;
            if slice.is_spent() || begun == SLICE_PARTITIONS {
                budget.give_back(&slice);
                if budget.is_spent() || turn.is_over() {
                    break;
                }
                (slice, begun) = (budget.take(&most), 0);
            }
        }
        self.selected = selected.into();
        true
    }

    /// Calls `f` with the request that changes one record.
    fn with_request<R>(&self, digest: &Digest, f: impl FnOnce(Request<'_>) -> R) -> R {
        let mut message = Message::parse(&self.body).expect("it was parsed before it was kept");
        if message.udf_function.is_none() {
            // What was deleted meanwhile is not made again; a call sees to that itself.
            message.header.info3 |= info3::UPDATE_ONLY;
        }
        f(Request {
            message: &message,
            digest,
            waiter: None,
            copy: None,
            filter: self.query.filter(),
            shape: ReplyShape::Nobody,
        })
    }

    /// Counts what became of a record.
    fn look_at(&self, part: &[u8]) {
        count(match result_of_part(part) {
            Some(ResultCode::Ok) => &self.status.records,
            Some(ResultCode::FilteredOut) => &self.status.filtered,
            // It is gone, as if it had been before the query came.
            Some(ResultCode::NotFound) => return,
            _ => &self.status.failed,
        });
    }

    fn count(&self, end: QueryEnd) {
        let stats = self.namespace.stats.mine();
        let by_index = self.query.index_name().is_some();
        let udf = self.status.job_type == JobType::UdfBackground;
        let counters: [&AtomicU64; 3] = match (by_index, udf) {
            (false, false) => [
                &stats.pi_query_ops_bg_complete,
                &stats.pi_query_ops_bg_abort,
                &stats.pi_query_ops_bg_error,
            ],
            (false, true) => [
                &stats.pi_query_udf_bg_complete,
                &stats.pi_query_udf_bg_abort,
                &stats.pi_query_udf_bg_error,
            ],
            (true, false) => [
                &stats.si_query_ops_bg_complete,
                &stats.si_query_ops_bg_abort,
                &stats.si_query_ops_bg_error,
            ],
            (true, true) => [
                &stats.si_query_udf_bg_complete,
                &stats.si_query_udf_bg_abort,
                &stats.si_query_udf_bg_error,
            ],
        };
        count(match end {
            QueryEnd::Complete => counters[0],
            QueryEnd::Aborted => counters[1],
            QueryEnd::Abandoned | QueryEnd::Failed => counters[2],
        });
    }
}
