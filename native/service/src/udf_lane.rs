//! The lane between service threads and the Lua workers. A worker takes tasks and gives back results in one blocking
//! call; results are carried out in that call, so the way back is as short as the way there.
//!
//! A task may be run twice (when its worker is stuck behind another task, or gone); only the first result counts, since
//! a function's effects exist nowhere but in its result.
//!
//! Tasks of streams take some milliseconds each and wait in a queue of their own. A worker takes one alone, and then calls on
//! records for as long as that took, if any wait: an aggregation has half of the workers' time at most while others need them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use perigee_engine::namespace::Namespace;
use perigee_engine::partition::Waiter;
use perigee_engine::stream::{StreamFailure, StreamOutcome, StreamTask};
use perigee_engine::udf::{UdfDone, UdfResult, UdfTask};
use perigee_wire::ResultCode;

use crate::mailbox::{Mail, Mailboxes, Wakes};
use crate::udf_workers::{Batch, Workers};

/// Calls that may wait for a worker. One more is refused as overload.
pub const QUEUE_TASKS_MAX: usize = 16_384;

/// Tasks that a worker takes at once when there are plenty: with more of them, the service thread has nothing to do until all are
/// done, and then the worker; with fewer, each is handed over for itself.
const BATCH_TASKS_MAX: usize = 4;

/// After this time the tasks behind a worker's first one may be taken by an idle worker.
const STEAL_AFTER: Duration = Duration::from_millis(20);

/// Room for the reply to a usual call.
const REPLY_BYTES_USUAL: usize = 96;

/// A share of a stream goes on for so long behind its query's time limit: what ends is the query, and not a call.
const SHARE_GRACE: Duration = Duration::from_millis(10);

const COUNT_BYTES: usize = 4;

pub struct UdfJob {
    pub namespace: Arc<Namespace>,
    pub task: LaneTask,
    pub waiter: Waiter,
    /// When the client gives up.
    pub deadline: Instant,
    /// Workers that were stopped while they held this call.
    pub losses: u32,
}

pub enum LaneTask {
    /// A call on a record, which is locked.
    Record(Box<UdfTask>),
    /// A share of a stream. Its waiter is told the outcome.
    Stream(Arc<StreamTask>),
}

impl LaneTask {
    fn is_stream(&self) -> bool {
        matches!(self, LaneTask::Stream(_))
    }
}

/// What a worker is given.
enum Handed {
    /// Calls on records: so many bytes of tasks were written.
    Calls(usize),
    /// A share of a stream, which is still to be written.
    Share {
        task: Arc<StreamTask>,
        id: u64,
        limit_ms: u32,
    },
}

/// Writes a batch of one task; its bytes.
fn write_share(task: &StreamTask, id: u64, limit_ms: u32, tasks: &mut [u8]) -> usize {
    let bytes = COUNT_BYTES + task.encoded_bytes();
    let mut head = Vec::with_capacity(bytes - task.body.len());
    head.extend_from_slice(&1u32.to_le_bytes());
    task.encode_head(id, limit_ms, &mut head);
    let (before, body) = tasks[..bytes].split_at_mut(head.len());
    before.copy_from_slice(&head);
    body.copy_from_slice(&task.body);
    bytes
}

/// What `exchange` brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// Bytes of tasks written.
    Tasks(usize),
    /// No task came in time.
    Nothing,
    Closed,
}

pub struct UdfLane {
    mailboxes: Arc<Mailboxes>,
    time_limit: Duration,
    workers: usize,
    state: Mutex<State>,
    /// Calls were queued since the last `hand_over`.
    has_news: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Calls on records.
    queue: VecDeque<(u64, UdfJob)>,
    /// Tasks of streams. Each stream has a few under way.
    streams: VecDeque<(u64, UdfJob)>,
    /// Until when a worker leaves tasks of streams to others, if calls wait.
    stream_pauses: HashMap<u32, Instant>,
    next_task: u64,
    workers: Workers,
    closed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.streams.is_empty()
    }

    fn queue_of(&mut self, task: &LaneTask) -> &mut VecDeque<(u64, UdfJob)> {
        match task.is_stream() {
            true => &mut self.streams,
            false => &mut self.queue,
        }
    }

    /// Has as many workers run as what waits needs, and one watch them.
    fn call_workers(&mut self) {
        let (calls, shares) = (self.queue.len(), self.streams.len());
        let ready = self.workers.call_for(calls, shares);
        let watching = self.workers.call_to_watch();
        for ready in ready.into_iter().chain(watching) {
            ready.notify_one();
        }
    }

    /// Whether a worker's turn is one for a stream.
    fn streams_are_due(&self, worker: u32, now: Instant) -> bool {
        let pauses = self.stream_pauses.get(&worker);
        !self.streams.is_empty()
            && (self.queue.is_empty() || pauses.is_none_or(|until| *until <= now))
    }
}

impl UdfLane {
    pub fn new(mailboxes: Arc<Mailboxes>, time_limit: Duration, workers: usize) -> Self {
        UdfLane {
            mailboxes,
            time_limit,
            workers,
            state: Mutex::new(State::default()),
            has_news: AtomicBool::new(false),
        }
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Queues a call, or ends it at once when there is no room. A worker takes it once somebody says `hand_over`.
    pub fn submit(&self, job: UdfJob) {
        let mut state = self.state.lock();
        let waiting = state.queue_of(&job.task).len();
        if state.closed || self.workers == 0 || waiting >= QUEUE_TASKS_MAX {
            drop(state);
            return self.fail(job, ResultCode::DeviceOverload, "");
        }
        state.next_task += 1;
        let id = state.next_task;
        state.queue_of(&job.task).push_back((id, job));
        self.has_news.store(true, Ordering::Relaxed);
    }

    /// Sees to it that what was queued is taken soon: for a thread that has queued what it had.
    pub fn hand_over(&self) {
        if !self.has_news.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        self.has_news.store(false, Ordering::Relaxed);
        state.call_workers();
    }

    /// A worker's turn: carries out `results`, then waits up to `wait` for tasks and writes them.
    pub fn exchange(
        &self,
        worker: u32,
        results: &[u8],
        tasks: &mut [u8],
        wait: Duration,
    ) -> Exchanged {
        match UdfResult::parse_batch(results) {
            Ok(results) => self.carry_out(worker, &results),
            Err(error) => {
                tracing::error!(worker, %error, "a Lua worker answered with bytes that make no sense");
                self.abandon(worker, None);
            }
        }
        let mut until = None;
        let mut watched = false;
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Exchanged::Closed;
            }
            if state.workers.was_woken(worker) {
                return self.leave(&mut state, Exchanged::Nothing);
            }
            self.steal(&mut state, worker);
            // One that only watches leaves to the others what they have done soon.
            let left = watched && state.workers.cope(state.queue.len(), state.streams.len());
            if !state.is_idle() && !left {
                let (refused, handed) = self.hand_out(&mut state, worker, tasks);
                if !refused.is_empty() {
                    MutexGuard::unlocked(&mut state, || {
                        for (job, code) in refused {
                            self.fail(job, code, "");
                        }
                    });
                }
                match handed {
                    None => continue,
                    Some(Handed::Calls(bytes)) => {
                        return self.leave(&mut state, Exchanged::Tasks(bytes));
                    }
                    Some(Handed::Share { task, id, limit_ms }) => {
                        state.call_workers();
                        drop(state);
                        // Chunks are large: others do not wait for the lane while one is copied.
                        return Exchanged::Tasks(write_share(&task, id, limit_ms, tasks));
                    }
                }
            }
            let now = Instant::now();
            let until = *until.get_or_insert(now + wait);
            if now >= until {
                return self.leave(&mut state, Exchanged::Nothing);
            }
            let sleep = state.workers.fall_asleep(worker, now, until);
            let woken = sleep.ready.wait_until(&mut state, sleep.until);
            watched = woken.timed_out();
            state.workers.wake_up(worker);
        }
    }

    /// Lets a worker go. Somebody else watches the others, if need be.
    fn leave(&self, state: &mut State, exchanged: Exchanged) -> Exchanged {
        state.call_workers();
        exchanged
    }

    /// Encodes tasks for a worker. Calls that cannot be run are returned with the code that says why: the client has
    /// given up, or no worker's buffer holds the task.
    fn hand_out(
        &self,
        state: &mut State,
        worker: u32,
        tasks: &mut [u8],
    ) -> (Vec<(UdfJob, ResultCode)>, Option<Handed>) {
        let now = Instant::now();
        if state.streams_are_due(worker, now) {
            return self.hand_share(state, worker, tasks.len(), now);
        }
        let queued = state.queue.len();
        let share = state.workers.share(queued, self.workers);
        let share = share.clamp(1, BATCH_TASKS_MAX);
        let mut refused = Vec::new();
        let mut batch = VecDeque::new();
        let mut due = now;
        let mut out = vec![0; COUNT_BYTES];
        while batch.len() < share {
            let Some((id, job)) = state.queue.pop_front() else {
                break;
            };
            // What was lost with a worker before goes alone, so that it can cost nobody else's call.
            let alone = job.losses > 0;
            if alone && !batch.is_empty() {
                state.queue.push_front((id, job));
                break;
            }
            if job.deadline <= now {
                refused.push((job, ResultCode::Timeout));
                continue;
            }
            let LaneTask::Record(task) = &job.task else {
                debug_assert!(false, "shares of streams have a queue of their own");
                continue;
            };
            let needed = out.len() + task.encoded_bytes(&job.namespace.name);
            if needed > tasks.len() {
                if batch.is_empty() {
                    refused.push((job, ResultCode::RecordTooBig));
                    continue;
                }
                state.queue.push_front((id, job));
                break;
            }
            let limit = self.time_limit.min(job.deadline - now);
            due += limit;
            let limit_ms = limit.as_millis().max(1) as u32;
            if let LaneTask::Record(task) = &job.task {
                task.encode(id, limit_ms, &job.namespace, &mut out);
            }
            batch.push_back((id, job));
            if alone {
                break;
            }
        }
        if batch.is_empty() {
            return (refused, None);
        }
        out[..COUNT_BYTES].copy_from_slice(&(batch.len() as u32).to_le_bytes());
        tasks[..out.len()].copy_from_slice(&out);
        let batch = Batch {
            taken: now,
            jobs: batch,
            due,
        };
        state.workers.hold(worker, batch);
        (refused, Some(Handed::Calls(out.len())))
    }

    /// Gives a worker a share of a stream, if one is left that somebody waits for.
    fn hand_share(
        &self,
        state: &mut State,
        worker: u32,
        bytes_max: usize,
        now: Instant,
    ) -> (Vec<(UdfJob, ResultCode)>, Option<Handed>) {
        let mut refused = Vec::new();
        while let Some((id, job)) = state.streams.pop_front() {
            let LaneTask::Stream(task) = &job.task else {
                continue;
            };
            let task = task.clone();
            if task.is_given_up() {
                continue;
            }
            if job.deadline <= now {
                refused.push((job, ResultCode::Timeout));
                continue;
            }
            if COUNT_BYTES + task.encoded_bytes() > bytes_max {
                refused.push((job, ResultCode::RecordTooBig));
                continue;
            }
            let limit = self.time_limit.min(job.deadline - now + SHARE_GRACE);
            let batch = Batch {
                taken: now,
                jobs: VecDeque::from([(id, job)]),
                due: now + limit,
            };
            state.workers.hold(worker, batch);
            let limit_ms = limit.as_millis().max(1) as u32;
            let share = Handed::Share { task, id, limit_ms };
            return (refused, Some(share));
        }
        (refused, None)
    }

    /// Moves tasks back to the queue that wait behind another worker's first one.
    fn steal(&self, state: &mut State, thief: u32) {
        if !state.queue.is_empty() {
            return;
        }
        let Some(taken_before) = Instant::now().checked_sub(STEAL_AFTER) else {
            return;
        };
        if let Some(behind) = state.workers.steal(thief, taken_before) {
            state.queue.extend(behind);
        }
    }

    fn carry_out(&self, worker: u32, results: &[UdfResult<'_>]) {
        let (mut batch, took, is_stream) = {
            let mut state = self.state.lock();
            let Some(batch) = state.workers.come_back(worker) else {
                return;
            };
            let took = batch.taken.elapsed();
            let is_stream = batch.jobs.iter().any(|(_, job)| job.task.is_stream());
            if is_stream {
                state.stream_pauses.insert(worker, Instant::now() + took);
            }
            (batch, took, is_stream)
        };
        let mut wakes = Wakes::default();
        for result in results {
            // A result for a task that is another worker's by now, or was ended, has come too late.
            let Some(at) = batch.jobs.iter().position(|(id, _)| *id == result.task_id) else {
                continue;
            };
            let Some((_, job)) = batch.jobs.remove(at) else {
                continue;
            };
            match &job.task {
                LaneTask::Record(task) => {
                    let mut frame = Vec::with_capacity(REPLY_BYTES_USUAL);
                    let done = job.namespace.finish_udf(task, result, &mut frame);
                    self.answer(&job, frame, done, &mut wakes);
                }
                LaneTask::Stream(_) => self.tell(&job, result.stream_outcome()),
            }
        }
        // Woken after the first, a thread would answer it, fall asleep, and be woken by the next again.
        self.mailboxes.wake(wakes);
        let calls = if is_stream { 0 } else { results.len() };
        self.state.lock().workers.carried(calls, took);
        for (_, job) in batch.jobs {
            self.fail(
                job,
                ResultCode::UdfExecution,
                "the call was lost by its worker",
            );
        }
    }

    fn fail(&self, job: UdfJob, code: ResultCode, message: &str) {
        match &job.task {
            LaneTask::Record(task) => {
                let mut frame = Vec::new();
                let done = job.namespace.fail_udf(task, code, message, &mut frame);
                let mut wakes = Wakes::default();
                self.answer(&job, frame, done, &mut wakes);
                self.mailboxes.wake(wakes);
            }
            LaneTask::Stream(_) => self.tell(&job, Err(StreamFailure::of(code, message))),
        }
    }

    /// Gives a query what became of a share of its stream.
    fn tell(&self, job: &UdfJob, outcome: StreamOutcome) {
        let mail = Mail::Stream {
            request: job.waiter.request,
            outcome,
        };
        self.mailboxes.post(job.waiter.thread, mail);
    }

    fn answer(&self, job: &UdfJob, frame: Vec<u8>, done: UdfDone, wakes: &mut Wakes) {
        let mail = Mail::Reply {
            request: job.waiter.request,
            frame,
            ticket: done.ticket,
        };
        self.mailboxes.put(job.waiter.thread, mail, wakes);
        self.mailboxes.put_retries(done.woken, wakes);
    }

    /// Lets every waiting worker return once without a task.
    pub fn wake(&self) {
        let mut state = self.state.lock();
        for ready in state.workers.wake_all() {
            ready.notify_one();
        }
    }

    /// Ends the calls whose client has given up before a worker was free.
    pub fn expire(&self, now: Instant) {
        let late: Vec<UdfJob> = {
            let mut state = self.state.lock();
            let State { queue, streams, .. } = &mut *state;
            let mut late = Vec::new();
            for queue in [queue, streams] {
                if queue.iter().all(|(_, job)| job.deadline > now) {
                    continue;
                }
                let (gone, waiting) = std::mem::take(queue)
                    .into_iter()
                    .partition::<VecDeque<_>, _>(|(_, job)| job.deadline <= now);
                *queue = waiting;
                late.extend(gone.into_iter().map(|(_, job)| job));
            }
            late
        };
        for job in late {
            self.fail(job, ResultCode::Timeout, "");
        }
    }

    /// Workers that should have come back, and how long ago.
    pub fn overdue(&self) -> Vec<(u32, Duration)> {
        let now = Instant::now();
        let state = self.state.lock();
        let late = state.workers.due().filter(|(_, due)| *due < now);
        late.map(|(worker, due)| (worker, now - due)).collect()
    }

    /// A worker is gone. The call that it was running fails, if that is known; the others go to other workers, alone
    /// each, and fail when that costs another worker.
    pub fn abandon(&self, worker: u32, running: Option<u64>) {
        let mut failed = Vec::new();
        {
            let mut state = self.state.lock();
            let Some(batch) = state.workers.abandon(worker) else {
                return;
            };
            for (id, mut job) in batch.jobs.into_iter().rev() {
                job.losses += 1;
                // Where a call on a record had got to nobody knows; a share of a stream has no effects.
                let is_over = running == Some(id) && !job.task.is_stream();
                if is_over || job.losses > 1 {
                    failed.push(job);
                } else {
                    state.queue_of(&job.task).push_front((id, job));
                }
            }
            state.call_workers();
        }
        for job in failed {
            self.fail(
                job,
                ResultCode::UdfExecution,
                "the call exceeded its limits and its worker was stopped",
            );
        }
    }

    /// Refuses new calls, fails the waiting ones and lets the workers go.
    pub fn close(&self) {
        let jobs: Vec<UdfJob> = {
            let mut state = self.state.lock();
            state.closed = true;
            let held: Vec<_> = state
                .workers
                .abandon_all()
                .flat_map(|batch| batch.jobs)
                .collect();
            for ready in state.workers.signal_all() {
                ready.notify_one();
            }
            let State { queue, streams, .. } = &mut *state;
            let waiting = queue.drain(..).chain(streams.drain(..));
            waiting.chain(held).map(|(_, job)| job).collect()
        };
        for job in jobs {
            self.fail(job, ResultCode::Unavailable, "");
        }
    }

    /// Calls, and tasks of streams, that wait for a worker.
    pub fn queued(&self) -> usize {
        let state = self.state.lock();
        state.queue.len() + state.streams.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use perigee_engine::request::{Outcome, Request};
    use perigee_wire::{
        Digest, Message, PROTO_HEADER_BYTES, RequestHeader, RequestWriter, field, info2,
    };

    use perigee_engine::stream::{StreamCall, StreamStep};

    use super::*;
    use crate::testing::namespace_in_memory;

    const NO_WAIT: Duration = Duration::ZERO;
    const FAR: Duration = Duration::from_secs(60);

    struct Rig {
        namespace: Arc<Namespace>,
        mailboxes: Arc<Mailboxes>,
        lane: UdfLane,
    }

    fn rig(workers: usize) -> Rig {
        let (namespace, mailboxes, _) = namespace_in_memory();
        let lane = UdfLane::new(mailboxes.clone(), Duration::from_secs(1), workers);
        Rig {
            namespace,
            mailboxes,
            lane,
        }
    }

    impl Rig {
        /// Locks a record and queues a call for it; the request has the record's number.
        fn submit(&self, record: u8, patience: Duration) {
            let digest: Digest = [record; 20];
            let mut frame = Vec::new();
            let header = RequestHeader {
                info2: info2::WRITE,
                ..RequestHeader::default()
            };
            let mut writer = RequestWriter::begin(&mut frame, header);
            writer.field(field::NAMESPACE, b"test");
            writer.field(field::DIGEST, &digest);
            writer.field(field::UDF_MODULE, b"m");
            writer.field(field::UDF_FUNCTION, b"f");
            writer.field(field::UDF_ARGS, &[0x90]);
            writer.finish();
            let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a valid message");
            let request = Request::new(&message, &digest);
            let Outcome::RunUdf(task) = self.namespace.execute(&request, &mut Vec::new()) else {
                panic!("record {record} is not free")
            };
            self.lane.submit(UdfJob {
                namespace: self.namespace.clone(),
                task: LaneTask::Record(task),
                waiter: Waiter {
                    thread: 0,
                    request: u64::from(record),
                },
                deadline: Instant::now() + patience,
                losses: 0,
            });
        }

        /// Gives back results for tasks (each returns nothing and changes nothing) and takes new ones: their ids.
        fn exchange(&self, worker: u32, done: &[u64]) -> Vec<u64> {
            let mut results = (done.len() as u32).to_le_bytes().to_vec();
            for id in done {
                let mut result = vec![0; 32];
                result[0] = 32;
                result[8..16].copy_from_slice(&id.to_le_bytes());
                results.extend_from_slice(&result);
            }
            let mut tasks = vec![0; 1 << 16];
            match self.lane.exchange(worker, &results, &mut tasks, NO_WAIT) {
                Exchanged::Tasks(bytes) => task_ids(&tasks[..bytes]),
                _ => Vec::new(),
            }
        }

        /// Requests that were answered, with their result codes.
        fn answers(&self) -> Vec<(u64, ResultCode)> {
            std::iter::from_fn(|| self.mailboxes.0[0].take())
                .map(|mail| match mail {
                    Mail::Reply { request, frame, .. } => {
                        let reply = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a reply");
                        let code = ResultCode::from_u8(reply.header.result_code);
                        (request, code.expect("a known code"))
                    }
                    _ => panic!("only replies are expected"),
                })
                .collect()
        }
    }

    fn task_ids(mut bytes: &[u8]) -> Vec<u64> {
        let mut ids = Vec::new();
        bytes = &bytes[COUNT_BYTES..];
        while !bytes.is_empty() {
            let length = u32::from_le_bytes(bytes[0..4].try_into().expect("four bytes"));
            ids.push(u64::from_le_bytes(
                bytes[8..16].try_into().expect("eight bytes"),
            ));
            bytes = &bytes[length as usize..];
        }
        ids
    }

    #[test]
    fn results_answer_their_requests_and_free_the_records() {
        let rig = rig(1);
        rig.submit(1, FAR);
        rig.submit(2, FAR);
        let ids = rig.exchange(0, &[]);
        assert_eq!(ids.len(), 2);
        rig.exchange(0, &ids);
        assert_eq!(rig.answers(), [(1, ResultCode::Ok), (2, ResultCode::Ok)]);
        rig.submit(1, FAR);
    }

    #[test]
    fn tasks_behind_a_slow_one_go_to_an_idle_worker_and_count_once() {
        let rig = rig(1);
        (1..=3).for_each(|record| rig.submit(record, FAR));
        let held = rig.exchange(0, &[]);
        assert_eq!(held.len(), 3);
        assert!(rig.exchange(1, &[]).is_empty(), "not at once");
        std::thread::sleep(STEAL_AFTER);
        let stolen = rig.exchange(1, &[]);
        assert_eq!(stolen, held[1..]);
        rig.exchange(1, &stolen);
        rig.exchange(0, &held);
        assert_eq!(rig.answers().len(), 3, "each request is answered once");
    }

    #[test]
    fn a_lost_worker_fails_the_call_that_it_ran_and_no_other() {
        let rig = rig(1);
        (1..=3).for_each(|record| rig.submit(record, FAR));
        let held = rig.exchange(0, &[]);
        rig.lane.abandon(0, Some(held[1]));
        assert_eq!(rig.answers(), [(2, ResultCode::UdfExecution)]);
        let first = rig.exchange(1, &[]);
        assert_eq!(first, held[..1], "what was lost once runs alone");
        let second = rig.exchange(1, &first);
        rig.exchange(1, &second);
        assert_eq!(rig.answers(), [(1, ResultCode::Ok), (3, ResultCode::Ok)]);
    }

    #[test]
    fn a_call_that_costs_two_workers_fails() {
        let rig = rig(1);
        rig.submit(1, FAR);
        for worker in 0..2 {
            assert_eq!(rig.exchange(worker, &[]).len(), 1);
            rig.lane.abandon(worker, None);
        }
        assert_eq!(rig.answers(), [(1, ResultCode::UdfExecution)]);
    }

    #[test]
    fn a_call_whose_client_gave_up_is_not_run() {
        let rig = rig(1);
        rig.submit(1, NO_WAIT);
        assert!(rig.exchange(0, &[]).is_empty());
        assert_eq!(rig.answers(), [(1, ResultCode::Timeout)]);
        rig.submit(1, NO_WAIT);
        rig.lane.expire(Instant::now());
        assert_eq!(rig.answers(), [(1, ResultCode::Timeout)]);
    }

    #[test]
    fn closing_answers_what_waits_and_lets_the_workers_go() {
        let rig = rig(1);
        rig.submit(1, FAR);
        rig.submit(2, FAR);
        rig.exchange(0, &[]);
        rig.lane.close();
        let codes: Vec<_> = rig.answers().into_iter().map(|(_, code)| code).collect();
        assert_eq!(codes, [ResultCode::Unavailable; 2]);
        let closed = rig.lane.exchange(0, &[], &mut [0; 64], FAR);
        assert_eq!(closed, Exchanged::Closed);
    }

    impl Rig {
        fn submit_share(&self, number: u64, patience: Duration) -> Arc<AtomicBool> {
            let given_up = Arc::new(AtomicBool::new(false));
            let mut frame = Vec::new();
            let mut writer = RequestWriter::begin(&mut frame, RequestHeader::default());
            writer.field(field::UDF_MODULE, b"m");
            writer.field(field::UDF_FUNCTION, b"f");
            writer.finish();
            let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a valid message");
            let call = StreamCall::of(&self.namespace, &message).expect("a function");
            self.lane.submit(UdfJob {
                namespace: self.namespace.clone(),
                task: LaneTask::Stream(Arc::new(StreamTask {
                    call: Arc::new(call),
                    step: StreamStep::Chunk,
                    count: 0,
                    body: Vec::new(),
                    given_up: given_up.clone(),
                })),
                waiter: Waiter {
                    thread: 0,
                    request: number,
                },
                deadline: Instant::now() + patience,
                losses: 0,
            });
            given_up
        }

        /// What was told of shares of streams: the request, and the code of what failed.
        fn told(&self) -> Vec<(u64, Option<ResultCode>)> {
            std::iter::from_fn(|| self.mailboxes.0[0].take())
                .filter_map(|mail| match mail {
                    Mail::Stream { request, outcome } => {
                        Some((request, outcome.err().map(|failure| failure.code)))
                    }
                    _ => None,
                })
                .collect()
        }
    }

    #[test]
    fn a_share_of_a_stream_runs_alone_and_calls_on_records_have_their_time_after_it() {
        let rig = rig(1);
        (1..=2).for_each(|number| drop(rig.submit_share(number, FAR)));
        (1..=2).for_each(|record| rig.submit(record, FAR));
        let first = rig.exchange(0, &[]);
        assert_eq!(first, [1], "a share, alone");
        std::thread::sleep(Duration::from_millis(500));
        let calls = rig.exchange(0, &first);
        assert_eq!(calls, [3, 4], "half a second is theirs");
        let second = rig.exchange(0, &calls);
        assert_eq!(second, [2], "nobody waits any more");
        rig.exchange(0, &second);
        assert_eq!(rig.told(), [(1, None), (2, None)]);
    }

    #[test]
    fn a_share_that_is_lost_with_its_worker_is_given_again_once() {
        let rig = rig(1);
        rig.submit_share(1, FAR);
        for worker in 0..2 {
            let held = rig.exchange(worker, &[]);
            assert_eq!(held, [1]);
            assert_eq!(rig.told(), []);
            rig.lane.abandon(worker, Some(1));
        }
        assert_eq!(rig.told(), [(1, Some(ResultCode::UdfExecution))]);
    }

    #[test]
    fn a_share_that_nobody_waits_for_is_not_run_and_one_that_is_late_fails() {
        let rig = rig(1);
        rig.submit_share(1, FAR).store(true, Ordering::Relaxed);
        rig.submit_share(2, NO_WAIT);
        assert!(rig.exchange(0, &[]).is_empty());
        assert_eq!(rig.told(), [(2, Some(ResultCode::Timeout))]);
        rig.submit_share(3, NO_WAIT);
        rig.lane.expire(Instant::now());
        rig.submit_share(4, FAR);
        rig.lane.close();
        let codes = [ResultCode::Timeout, ResultCode::Unavailable].map(Some);
        assert_eq!(rig.told(), [(3, codes[0]), (4, codes[1])]);
    }

    #[test]
    fn malformed_results_cost_the_batch_and_nothing_else() {
        let rig = rig(1);
        rig.submit(1, FAR);
        rig.exchange(0, &[]);
        rig.lane
            .exchange(0, &[9; 40], &mut vec![0; 1 << 16], NO_WAIT);
        let again = rig.exchange(0, &[]);
        rig.exchange(0, &again);
        rig.submit(1, FAR);
    }
}
