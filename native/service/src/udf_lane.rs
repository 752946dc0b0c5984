//! The lane between service threads and the Lua workers. A worker takes tasks and gives back results in one blocking
//! call; results are carried out in that call, so the way back is as short as the way there.
//!
//! A task may be run twice (when its worker is stuck behind another task, or gone); only the first result counts, since
//! a function's effects exist nowhere but in its result.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use perigee_engine::namespace::Namespace;
use perigee_engine::partition::Waiter;
use perigee_engine::udf::{UdfDone, UdfResult, UdfTask};
use perigee_wire::ResultCode;

use crate::mailbox::{Mail, Mailboxes};

/// Calls that may wait for a worker. One more is refused as overload.
pub const QUEUE_TASKS_MAX: usize = 16_384;

/// Tasks that a worker takes at once when there are plenty.
const BATCH_TASKS_MAX: usize = 16;

/// After this time the tasks behind a worker's first one may be taken by an idle worker.
const STEAL_AFTER: Duration = Duration::from_millis(20);

const COUNT_BYTES: usize = 4;

pub struct UdfJob {
    pub namespace: Arc<Namespace>,
    pub task: Box<UdfTask>,
    pub waiter: Waiter,
    /// When the client gives up.
    pub deadline: Instant,
    /// Workers that were stopped while they held this call.
    pub losses: u32,
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
    ready: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(u64, UdfJob)>,
    next_task: u64,
    batches: HashMap<u32, Batch>,
    waiting: usize,
    wakes: u64,
    /// The wakes that each worker has seen: one between its last look at its messages and its wait is not lost.
    seen_wakes: HashMap<u32, u64>,
    closed: bool,
}

/// What a worker holds, in the order in which it runs it.
struct Batch {
    taken: Instant,
    jobs: VecDeque<(u64, UdfJob)>,
    /// When the worker should have come back at the latest.
    due: Instant,
}

impl UdfLane {
    pub fn new(mailboxes: Arc<Mailboxes>, time_limit: Duration, workers: usize) -> Self {
        UdfLane {
            mailboxes,
            time_limit,
            workers,
            state: Mutex::new(State::default()),
            ready: Condvar::new(),
        }
    }

    /// Queues a call, or ends it at once when there is no room.
    pub fn submit(&self, job: UdfJob) {
        let mut state = self.state.lock();
        if state.closed || self.workers == 0 || state.queue.len() >= QUEUE_TASKS_MAX {
            drop(state);
            return self.fail(job, ResultCode::DeviceOverload, "");
        }
        state.next_task += 1;
        let id = state.next_task;
        state.queue.push_back((id, job));
        if state.waiting > 0 {
            self.ready.notify_one();
        }
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
        let until = Instant::now() + wait;
        let mut state = self.state.lock();
        let seen = state.seen_wakes.get(&worker).copied().unwrap_or_default();
        loop {
            if state.closed {
                return Exchanged::Closed;
            }
            self.steal(&mut state, worker);
            if !state.queue.is_empty() {
                let (refused, exchanged) = self.hand_out(&mut state, worker, tasks);
                if !refused.is_empty() {
                    drop(state);
                    for (job, code) in refused {
                        self.fail(job, code, "");
                    }
                    state = self.state.lock();
                }
                match exchanged {
                    Some(exchanged) => return exchanged,
                    None => continue,
                }
            }
            if state.wakes != seen {
                let wakes = state.wakes;
                state.seen_wakes.insert(worker, wakes);
                return Exchanged::Nothing;
            }
            let slice = if state.batches.is_empty() {
                until
            } else {
                until.min(Instant::now() + STEAL_AFTER)
            };
            state.waiting += 1;
            self.ready.wait_until(&mut state, slice);
            state.waiting -= 1;
            if Instant::now() >= until && state.queue.is_empty() {
                return Exchanged::Nothing;
            }
        }
    }

    /// Encodes tasks for a worker. Calls that cannot be run are returned with the code that says why: the client has
    /// given up, or no worker's buffer holds the task.
    fn hand_out(
        &self,
        state: &mut State,
        worker: u32,
        tasks: &mut [u8],
    ) -> (Vec<(UdfJob, ResultCode)>, Option<Exchanged>) {
        let now = Instant::now();
        let share = state
            .queue
            .len()
            .div_ceil(self.workers.max(1))
            .clamp(1, BATCH_TASKS_MAX);
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
            let needed = out.len() + job.task.encoded_bytes(&job.namespace.name);
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
            job.task.encode(
                id,
                limit.as_millis().max(1) as u32,
                &job.namespace.name,
                &mut out,
            );
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
        state.batches.insert(
            worker,
            Batch {
                taken: now,
                jobs: batch,
                due,
            },
        );
        (refused, Some(Exchanged::Tasks(out.len())))
    }

    /// Moves tasks back to the queue that wait behind another worker's first one.
    fn steal(&self, state: &mut State, thief: u32) {
        if !state.queue.is_empty() {
            return;
        }
        let now = Instant::now();
        for (worker, batch) in &mut state.batches {
            if *worker != thief && batch.jobs.len() > 1 && now - batch.taken >= STEAL_AFTER {
                let behind = batch.jobs.split_off(1);
                state.queue.extend(behind);
                return;
            }
        }
    }

    fn carry_out(&self, worker: u32, results: &[UdfResult<'_>]) {
        let batch = self.state.lock().batches.remove(&worker);
        let Some(mut batch) = batch else { return };
        for result in results {
            // A result for a task that is another worker's by now, or was ended, has come too late.
            let Some(at) = batch.jobs.iter().position(|(id, _)| *id == result.task_id) else {
                continue;
            };
            let Some((_, job)) = batch.jobs.remove(at) else {
                continue;
            };
            let mut frame = Vec::new();
            let done = job.namespace.finish_udf(&job.task, result, &mut frame);
            self.answer(&job, frame, done);
        }
        for (_, job) in batch.jobs {
            self.fail(
                job,
                ResultCode::UdfExecution,
                "the call was lost by its worker",
            );
        }
    }

    fn fail(&self, job: UdfJob, code: ResultCode, message: &str) {
        let mut frame = Vec::new();
        let done = job.namespace.fail_udf(&job.task, code, message, &mut frame);
        self.answer(&job, frame, done);
    }

    fn answer(&self, job: &UdfJob, frame: Vec<u8>, done: UdfDone) {
        let mail = Mail::Reply {
            request: job.waiter.request,
            frame,
            ticket: done.ticket,
        };
        self.mailboxes.post(job.waiter.thread, mail);
        self.mailboxes.retry(done.woken);
    }

    /// Lets every waiting worker return once without a task.
    pub fn wake(&self) {
        self.state.lock().wakes += 1;
        self.ready.notify_all();
    }

    /// Ends the calls whose client has given up before a worker was free.
    pub fn expire(&self, now: Instant) {
        let late: Vec<UdfJob> = {
            let mut state = self.state.lock();
            if state.queue.iter().all(|(_, job)| job.deadline > now) {
                return;
            }
            let (late, waiting) = std::mem::take(&mut state.queue)
                .into_iter()
                .partition::<VecDeque<_>, _>(|(_, job)| job.deadline <= now);
            state.queue = waiting;
            late.into_iter().map(|(_, job)| job).collect()
        };
        for job in late {
            self.fail(job, ResultCode::Timeout, "");
        }
    }

    /// Workers that should have come back, and how long ago.
    pub fn overdue(&self) -> Vec<(u32, Duration)> {
        let now = Instant::now();
        let state = self.state.lock();
        let late = state.batches.iter().filter(|(_, batch)| batch.due < now);
        late.map(|(worker, batch)| (*worker, now - batch.due))
            .collect()
    }

    /// A worker is gone. The call that it was running fails, if that is known; the others go to other workers, alone
    /// each, and fail when that costs another worker.
    pub fn abandon(&self, worker: u32, running: Option<u64>) {
        let mut failed = Vec::new();
        {
            let mut state = self.state.lock();
            let Some(batch) = state.batches.remove(&worker) else {
                return;
            };
            for (id, mut job) in batch.jobs.into_iter().rev() {
                job.losses += 1;
                if running == Some(id) || job.losses > 1 {
                    failed.push(job);
                } else {
                    state.queue.push_front((id, job));
                }
            }
        }
        self.ready.notify_all();
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
                .batches
                .drain()
                .flat_map(|(_, batch)| batch.jobs)
                .collect();
            state
                .queue
                .drain(..)
                .chain(held)
                .map(|(_, job)| job)
                .collect()
        };
        self.ready.notify_all();
        for job in jobs {
            self.fail(job, ResultCode::Unavailable, "");
        }
    }

    /// Calls that wait for a worker.
    pub fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }
}
