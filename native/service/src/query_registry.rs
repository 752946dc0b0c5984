//! The long queries of a node as tools see them: those under way, and the last that have ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

use crate::dispatch::relaxed;

/// Queries of a node under way at once, short ones too; one more is refused. Each holds up to some megabytes of output.
const QUERIES_MAX: usize = 128;
/// Ended queries that are still listed.
const ENDED_LISTED_MAX: usize = 100;

/// What a query does with the records that it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum JobType {
    /// They are sent.
    #[default]
    #[serde(rename = "basic")]
    Basic,
    /// A function makes values of them, which are sent.
    #[serde(rename = "aggr")]
    Aggregation,
    #[serde(rename = "ops-bg")]
    OpsBackground,
    #[serde(rename = "udf-bg")]
    UdfBackground,
}

/// One long query, shared by the service thread that runs it and by who looks.
pub struct QueryStatus {
    pub task: u64,
    pub job_type: JobType,
    pub namespace: String,
    /// Empty for all sets.
    pub set: String,
    /// The secondary index that it is answered from; empty for none.
    pub index: String,
    pub peer: String,
    pub partitions: usize,
    /// 0 for no limit.
    pub records_per_second: u32,
    pub socket_timeout_ms: u32,
    pub partitions_done: AtomicUsize,
    /// Sent, given to a function, or changed.
    pub records: AtomicU64,
    /// Not changed, because they did not match when it came to that.
    pub filtered: AtomicU64,
    pub failed: AtomicU64,
    /// Times that the query waited because of its limit of records per second.
    pub throttled: AtomicU64,
    pub bytes: AtomicU64,
    pub aborted: AtomicBool,
    pub(crate) started: Instant,
    pub(crate) ended: Mutex<Option<(Instant, QueryEnd)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryEnd {
    Complete,
    /// Ended by an info command.
    Aborted,
    /// The client has gone, or does not take its records.
    Abandoned,
    Failed,
}

/// A query as `query-show` lists it. Times are in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct QueryListing {
    /// Decimal: it has 64 bits.
    task: String,
    job_type: JobType,
    namespace: String,
    set: String,
    index: String,
    peer: String,
    partitions: usize,
    partitions_done: usize,
    records_per_second: u32,
    socket_timeout_ms: u32,
    records: u64,
    filtered: u64,
    failed: u64,
    throttled: u64,
    bytes: u64,
    run_time_ms: u64,
    /// Nothing while it runs.
    done: Option<&'static str>,
    since_done_ms: u64,
}

impl QueryStatus {
    pub fn new(task: u64, namespace: &str, set: &[u8], peer: String) -> QueryStatus {
        QueryStatus {
            task,
            job_type: JobType::default(),
            namespace: namespace.to_owned(),
            set: String::from_utf8_lossy(set).into_owned(),
            index: String::new(),
            peer,
            partitions: 0,
            records_per_second: 0,
            socket_timeout_ms: 0,
            partitions_done: AtomicUsize::new(0),
            records: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            aborted: AtomicBool::new(false),
            started: Instant::now(),
            ended: Mutex::new(None),
        }
    }

    fn listing(&self) -> QueryListing {
        let ended = *self.ended.lock();
        let until = ended.map_or_else(Instant::now, |(at, _)| at);
        QueryListing {
            task: self.task.to_string(),
            job_type: self.job_type,
            namespace: self.namespace.clone(),
            set: self.set.clone(),
            index: self.index.clone(),
            peer: self.peer.clone(),
            partitions: self.partitions,
            partitions_done: self.partitions_done.load(Ordering::Relaxed),
            records_per_second: self.records_per_second,
            socket_timeout_ms: self.socket_timeout_ms,
            records: relaxed(&self.records),
            filtered: relaxed(&self.filtered),
            failed: relaxed(&self.failed),
            throttled: relaxed(&self.throttled),
            bytes: relaxed(&self.bytes),
            run_time_ms: (until - self.started).as_millis() as u64,
            done: ended.map(|(_, end)| match end {
                QueryEnd::Complete => "ok",
                QueryEnd::Aborted => "user-aborted",
                QueryEnd::Abandoned => "abandoned-response-error",
                QueryEnd::Failed => "abandoned-unknown",
            }),
            since_done_ms: ended.map_or(0, |(at, _)| at.elapsed().as_millis() as u64),
        }
    }
}

#[derive(Default)]
pub struct QueryRegistry {
    lists: Mutex<Lists>,
    running: AtomicUsize,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Lists {
    active: Vec<Arc<QueryStatus>>,
    ended: VecDeque<Arc<QueryStatus>>,
}

impl QueryRegistry {
    /// Takes a place among the queries under way; false when there is none.
    pub(crate) fn admit(&self) -> bool {
        let admitted = self
            .running
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |running| {
                (running < QUERIES_MAX).then_some(running + 1)
            });
        admitted.is_ok()
    }

    /// Gives the place back.
    pub(crate) fn leave(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn list(&self, status: Arc<QueryStatus>) {
        self.lists.lock().active.push(status);
    }

    pub(crate) fn end(&self, status: &Arc<QueryStatus>, end: QueryEnd) {
        *status.ended.lock() = Some((Instant::now(), end));
        let mut lists = self.lists.lock();
        lists.active.retain(|other| !Arc::ptr_eq(other, status));
        lists.ended.push_front(status.clone());
        lists.ended.truncate(ENDED_LISTED_MAX);
    }

    /// Every query that is listed, or those of one task.
    pub fn show(&self, task: Option<u64>) -> Vec<QueryListing> {
        let lists = self.lists.lock();
        let all = lists.active.iter().chain(&lists.ended);
        all.filter(|status| task.is_none_or(|task| status.task == task))
            .map(|status| status.listing())
            .collect()
    }

    /// Ends the queries of a task, or all; returns how many. Each stops at its next piece.
    pub fn abort(&self, task: Option<u64>) -> usize {
        let lists = self.lists.lock();
        let wanted = lists
            .active
            .iter()
            .filter(|status| task.is_none_or(|task| status.task == task));
        wanted
            .filter(|status| !status.aborted.swap(true, Ordering::Relaxed))
            .count()
    }

    pub fn active(&self) -> usize {
        self.lists.lock().active.len()
    }

    /// Lets every query answer the rest of its partitions as unavailable, so that clients ask elsewhere.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(task: u64) -> Arc<QueryStatus> {
        Arc::new(QueryStatus::new(task, "test", b"demo", "peer".into()))
    }

    #[test]
    fn queries_are_bounded_and_a_place_that_is_left_can_be_taken() {
        let registry = QueryRegistry::default();
        assert!((0..QUERIES_MAX).all(|_| registry.admit()));
        assert!(!registry.admit());
        registry.leave();
        assert!(registry.admit());
        assert!(!registry.admit());
    }

    #[test]
    fn an_ended_query_stays_listed_until_later_ones_have_taken_its_place() {
        let registry = QueryRegistry::default();
        let first = status(1);
        registry.list(first.clone());
        assert_eq!((registry.active(), registry.abort(Some(2))), (1, 0));
        assert_eq!((registry.abort(Some(1)), registry.abort(None)), (1, 0));
        assert!(first.aborted.load(Ordering::Relaxed));
        registry.end(&first, QueryEnd::Aborted);
        assert_eq!(registry.active(), 0);
        assert_eq!(registry.show(Some(1)).len(), 1);
        for task in 2..2 + ENDED_LISTED_MAX as u64 {
            let other = status(task);
            registry.list(other.clone());
            registry.end(&other, QueryEnd::Complete);
        }
        assert!(registry.show(Some(1)).is_empty());
        assert_eq!(registry.show(None).len(), ENDED_LISTED_MAX);
    }
}
