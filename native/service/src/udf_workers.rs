//! The Lua workers as the lane sees them: who holds which calls, who sleeps, and who is to be woken.
//!
//! A thread that is woken costs more than a short call, so one worker takes all calls for as long as they do not pile up.
//! That it stays so is another worker's watch: while calls are under way, one of those that sleep looks every now and
//! then, so that nothing waits for long behind a call that turns out to be slow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use crate::udf_lane::UdfJob;

/// Work that waits for the workers that are awake, beyond which another is woken.
const BACKLOG_MAX: Duration = Duration::from_micros(150);

/// How often the one that watches looks, and how old a batch is whose worker is not counted on any more.
const WATCH: Duration = Duration::from_millis(2);

/// The watch goes on for so long after the last call, so that calls that come now and then do not begin it each time.
const WATCH_LINGERS: Duration = Duration::from_millis(50);

/// Taken for the length of a call until there was one.
const CALL_AT_FIRST: Duration = Duration::from_millis(1);

/// By which share of the difference a batch moves what a call is thought to take, down and up: what it took beyond what
/// others do, it waited for a processor.
const LEARN_DOWN: u32 = 4;
const LEARN_UP: u32 = 64;

/// What a worker holds, in the order in which it runs it.
pub(crate) struct Batch {
    pub taken: Instant,
    pub jobs: VecDeque<(u64, UdfJob)>,
    /// When the worker should have come back at the latest.
    pub due: Instant,
}

#[derive(Default)]
struct Worker {
    batch: Option<Batch>,
    /// Signalled for this worker alone.
    ready: Arc<Condvar>,
    /// It was signalled, and has not run since.
    is_called: bool,
    /// The wakes that it has seen: one between its last look at its messages and its wait is not lost.
    seen_wakes: u64,
}

/// How a worker sleeps.
pub(crate) struct Sleep {
    pub ready: Arc<Condvar>,
    pub until: Instant,
}

pub(crate) struct Workers {
    all: Vec<Worker>,
    /// Who sleeps; the last fell asleep last, and is woken first, since its memory is the warmest.
    asleep: Vec<u32>,
    watching: Option<u32>,
    /// Workers that carry out the results of a batch.
    carrying: usize,
    taken_last: Option<Instant>,
    /// What a call takes.
    call: Duration,
    wakes: u64,
}

impl Default for Workers {
    fn default() -> Self {
        Workers {
            all: Vec::new(),
            asleep: Vec::new(),
            watching: None,
            carrying: 0,
            taken_last: None,
            call: CALL_AT_FIRST,
            wakes: 0,
        }
    }
}

impl Workers {
    fn worker(&mut self, worker: u32) -> &mut Worker {
        let at = worker as usize;
        if self.all.len() <= at {
            self.all.resize_with(at + 1, Worker::default);
        }
        &mut self.all[at]
    }

    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.all.iter().filter_map(|worker| worker.batch.as_ref())
    }

    pub fn hold(&mut self, worker: u32, batch: Batch) {
        self.taken_last = Some(batch.taken);
        self.worker(worker).batch = Some(batch);
    }

    /// Takes what a worker holds and comes back with.
    pub fn come_back(&mut self, worker: u32) -> Option<Batch> {
        let batch = self.worker(worker).batch.take()?;
        self.carrying += 1;
        Some(batch)
    }

    /// The results of a batch are carried out; so many calls took so long, if it is known.
    pub fn carried(&mut self, calls: usize, took: Duration) {
        self.carrying -= 1;
        let Some(call) = took.checked_div(calls as u32) else {
            return;
        };
        if call < self.call {
            self.call -= (self.call - call) / LEARN_DOWN;
        } else {
            self.call += (call - self.call) / LEARN_UP;
        }
    }

    /// Takes what a worker holds that is gone.
    pub fn abandon(&mut self, worker: u32) -> Option<Batch> {
        self.wake_up(worker);
        self.worker(worker).batch.take()
    }

    pub fn abandon_all(&mut self) -> impl Iterator<Item = Batch> {
        self.all.iter_mut().filter_map(|worker| worker.batch.take())
    }

    /// Workers that should have come back, and when.
    pub fn due(&self) -> impl Iterator<Item = (u32, Instant)> {
        let numbered = (0..).zip(&self.all);
        numbered.filter_map(|(number, worker)| Some((number, worker.batch.as_ref()?.due)))
    }

    /// The calls behind the first one of a worker that has been at it since before `taken_before`.
    pub fn steal(&mut self, thief: u32, taken_before: Instant) -> Option<VecDeque<(u64, UdfJob)>> {
        let mut others = (0..).zip(&mut self.all);
        others.find_map(|(number, worker)| {
            let batch = worker.batch.as_mut()?;
            let may = number != thief && batch.jobs.len() > 1 && batch.taken <= taken_before;
            may.then(|| batch.jobs.split_off(1))
        })
    }

    /// Of `queued` calls, how many one worker takes: all, where it has them done before another would be up.
    pub fn share(&self, queued: usize, workers: usize) -> usize {
        match self.takes(queued) > BACKLOG_MAX {
            true => queued.div_ceil(workers.max(1)),
            false => queued,
        }
    }

    fn takes(&self, calls: usize) -> Duration {
        self.call
            .saturating_mul(u32::try_from(calls).unwrap_or(u32::MAX))
    }

    /// Whom to signal for what waits, if those who are awake do not have the calls done soon. The share of a stream is another
    /// matter: it is worth a worker.
    pub fn call_for(&mut self, queued: usize, shares: usize) -> Option<Arc<Condvar>> {
        if queued + shares == 0 || self.asleep.is_empty() || self.cope(queued, shares) {
            return None;
        }
        let worker = self.asleep.pop()?;
        Some(self.call(worker))
    }

    /// Whether what waits is left to those who are awake.
    pub fn cope(&self, queued: usize, shares: usize) -> bool {
        let fresh = self.batches().filter(|batch| batch.taken.elapsed() < WATCH);
        let called = self.all.iter().filter(|worker| worker.is_called);
        let awake = fresh.count() + called.count() + self.carrying;
        let soon = BACKLOG_MAX.saturating_mul(awake as u32);
        awake > 0 && shares == 0 && self.takes(queued) <= soon
    }

    fn call(&mut self, worker: u32) -> Arc<Condvar> {
        let worker = self.worker(worker);
        worker.is_called = true;
        worker.ready.clone()
    }

    /// Whom to signal so that somebody watches those who hold calls.
    pub fn call_to_watch(&mut self) -> Option<Arc<Condvar>> {
        if self.watching.is_some() || self.asleep.is_empty() || self.batches().next().is_none() {
            return None;
        }
        let worker = self.asleep.remove(0);
        Some(self.call(worker))
    }

    /// How a worker sleeps that has nothing to do, at the longest until `until`.
    pub fn fall_asleep(&mut self, worker: u32, now: Instant, until: Instant) -> Sleep {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < WATCH_LINGERS;
        let active = self.taken_last.is_some_and(is_recent) || self.batches().next().is_some();
        let watches = active && self.all.len() > 1 && self.watching.is_none();
        if watches {
            self.watching = Some(worker);
            self.asleep.insert(0, worker);
        } else {
            self.asleep.push(worker);
        }
        let ready = self.worker(worker).ready.clone();
        let until = if watches {
            until.min(now + WATCH)
        } else {
            until
        };
        Sleep { ready, until }
    }

    /// It was signalled, or its time has come.
    pub fn wake_up(&mut self, worker: u32) {
        self.asleep.retain(|asleep| *asleep != worker);
        self.watching = self.watching.filter(|watching| *watching != worker);
        self.worker(worker).is_called = false;
    }

    /// Lets every worker return once without a call. All who sleep are to be signalled.
    pub fn wake_all(&mut self) -> Vec<Arc<Condvar>> {
        self.wakes += 1;
        self.signal_all()
    }

    pub fn signal_all(&mut self) -> Vec<Arc<Condvar>> {
        let asleep = std::mem::take(&mut self.asleep);
        asleep.into_iter().map(|worker| self.call(worker)).collect()
    }

    /// Whether a worker has been woken since it last asked.
    pub fn was_woken(&mut self, worker: u32) -> bool {
        let wakes = self.wakes;
        std::mem::replace(&mut self.worker(worker).seen_wakes, wakes) != wakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(2);

    fn batch(age: Duration) -> Batch {
        let now = Instant::now();
        Batch {
            taken: now - age,
            jobs: VecDeque::new(),
            due: now,
        }
    }

    /// So many workers that sleep for long; calls have turned out to be this long.
    fn sleeping(count: u32, call: Duration) -> Workers {
        let mut workers = Workers {
            call,
            ..Workers::default()
        };
        let now = Instant::now();
        for worker in 0..count {
            workers.fall_asleep(worker, now, now + Duration::from_secs(60));
        }
        workers
    }

    fn is_of(workers: &mut Workers, ready: Option<Arc<Condvar>>, worker: u32) -> bool {
        ready.is_some_and(|ready| Arc::ptr_eq(&ready, &workers.worker(worker).ready))
    }

    #[test]
    fn the_first_call_wakes_who_fell_asleep_last_and_the_next_ones_nobody() {
        let mut workers = sleeping(3, SHORT);
        let called = workers.call_for(1, 0);
        assert!(is_of(&mut workers, called, 2));
        assert!(workers.call_for(2, 0).is_none(), "it is on its way");
        workers.wake_up(2);
        workers.hold(2, batch(Duration::ZERO));
        assert!(workers.call_for(16, 0).is_none());
        workers.come_back(2);
        assert!(
            workers.call_for(16, 0).is_none(),
            "it looks again when it has carried out"
        );
        workers.carried(1, SHORT);
        assert!(workers.call_for(0, 1).is_some());
        assert!(workers.call_for(0, 1).is_some(), "each is worth a worker");
    }

    #[test]
    fn calls_that_pile_up_wake_another_worker_each_time_until_they_cope() {
        let mut workers = sleeping(3, BACKLOG_MAX / 4);
        assert!(workers.call_for(5, 0).is_some());
        assert!(workers.call_for(5, 0).is_some());
        assert!(workers.call_for(5, 0).is_none());
        assert_eq!(workers.share(4, 3), 4);
        assert_eq!(workers.share(5, 3), 2);
    }

    #[test]
    fn a_worker_that_is_slow_with_its_calls_is_not_counted_on() {
        let mut workers = sleeping(2, SHORT);
        workers.wake_up(0);
        workers.hold(0, batch(WATCH));
        assert!(workers.call_for(1, 0).is_some());
    }

    #[test]
    fn one_that_sleeps_watches_while_another_holds_calls() {
        let mut workers = sleeping(3, SHORT);
        assert!(workers.call_to_watch().is_none(), "nobody holds any");
        workers.wake_up(2);
        workers.hold(2, batch(Duration::ZERO));
        let called = workers.call_to_watch();
        assert!(is_of(&mut workers, called, 0), "who has slept longest");
        workers.wake_up(0);
        let now = Instant::now();
        let far = now + Duration::from_secs(60);
        assert_eq!(workers.fall_asleep(0, now, far).until, now + WATCH);
        assert!(workers.call_to_watch().is_none());
        workers.come_back(2);
        assert_eq!(workers.fall_asleep(2, now, far).until, far, "one is enough");
        workers.wake_up(0);
        let later = Instant::now() + WATCH_LINGERS;
        assert_eq!(workers.fall_asleep(0, later, far).until, far);
    }

    #[test]
    fn what_a_call_takes_follows_the_fast_ones() {
        let mut workers = sleeping(1, CALL_AT_FIRST);
        for took in [3, 3000].repeat(40) {
            workers.carrying += 1;
            workers.carried(1, Duration::from_micros(took));
        }
        assert!(workers.call < CALL_AT_FIRST / 4, "{:?}", workers.call);
    }

    #[test]
    fn a_wake_reaches_each_worker_once_whenever_it_asks() {
        let mut workers = sleeping(2, SHORT);
        assert_eq!(workers.wake_all().len(), 2);
        for worker in 0..3 {
            assert!(workers.was_woken(worker));
            assert!(!workers.was_woken(worker));
        }
    }
}
