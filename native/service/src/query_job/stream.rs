//! Aggregations: the records that a query finds go to the Lua workers in chunks instead of to the client, and what comes back is
//! sent, or kept and combined.
//!
//! A chunk has as many records as a worker does in some milliseconds, so calls on records and an abort wait no longer than that.
//! Each worker can have one chunk while another waits for it; the query reads on only then. Values that are to be reduced
//! are combined by the workers too, a few dozen at a time, so the client gets two values however many records there are. Two and
//! not one, so that it always does the last step itself: the numbers of some clients' Lua are of another type than ours.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use perigee_engine::query::QueryBudget;
use perigee_engine::stats::count;
use perigee_engine::stream::{
    StreamCall, StreamFailure, StreamOutcome, StreamStep, StreamTask, StreamValues,
};
use perigee_wire::ResultCode;

use super::{Job, Next, QueryEnd, State, TURN};
use crate::net::Net;
use crate::query_registry::QueryRegistry;
use crate::turn::Turn;

/// What a worker is to take for a chunk.
const CHUNK_TIME: Duration = Duration::from_millis(3);
/// Of the first chunk. Another one has at most twice, and at least half, of the one before.
const FIRST_CHUNK_RECORDS: u64 = 32;
const CHUNK_RECORDS_MAX: u64 = 16_384;
/// A chunk has one record more than that at most.
const CHUNK_BYTES_MAX: usize = 2 << 20;

/// Results of so many tasks are combined by one but for the last of them, or as soon as they have `REDUCE_BYTES`.
const REDUCE_RESULTS: usize = 32;
const REDUCE_BYTES: usize = 4 << 20;
/// Of one task; two results fit in any case.
const REDUCE_BYTES_MAX: usize = 16 << 20;
const REDUCE_VALUES_MAX: usize = u16::MAX as usize;
/// Results that wait to be combined, above which no further records are read.
const KEPT_BYTES_MAX: usize = 32 << 20;

pub(super) struct Stream {
    call: Arc<StreamCall>,
    /// Shared with the tasks: nobody waits for them any more.
    given_up: Arc<AtomicBool>,
    pub deadline: Option<Instant>,
    /// The chunk under construction.
    pub chunk: Vec<u8>,
    chunk_records: u64,
    chunk_records_max: u64,
    /// Tasks that wait for a worker or are worked on.
    under_way: usize,
    under_way_max: usize,
    /// What is to be reduced yet.
    kept: VecDeque<StreamValues>,
    kept_bytes: usize,
    /// The function's stream has a reduce, as far as is known: nothing is until the first result.
    is_reduced: Option<bool>,
    is_final: bool,
    failure: Option<StreamFailure>,
    /// To be submitted when the turn is over.
    outbox: Vec<StreamTask>,
}

/// A task that was submitted.
pub(super) struct Share {
    step: StreamStep,
    records: u16,
}

impl Share {
    pub fn of(task: &StreamTask) -> Share {
        Share {
            step: task.step,
            records: task.count,
        }
    }
}

impl Stream {
    pub fn new(call: StreamCall, deadline: Option<Instant>, workers: usize) -> Stream {
        Stream {
            call: Arc::new(call),
            given_up: Arc::default(),
            deadline,
            chunk: Vec::new(),
            chunk_records: 0,
            chunk_records_max: FIRST_CHUNK_RECORDS,
            under_way: 0,
            under_way_max: workers + 1,
            kept: VecDeque::new(),
            kept_bytes: 0,
            is_reduced: None,
            is_final: false,
            failure: None,
            outbox: Vec::new(),
        }
    }

    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub fn take_outbox(&mut self) -> Vec<StreamTask> {
        std::mem::take(&mut self.outbox)
    }

    pub fn fail(&mut self, failure: StreamFailure) {
        self.failure.get_or_insert(failure);
    }

    /// Takes what became of a task; values that are sent as they are are returned.
    pub fn take(&mut self, share: &Share, outcome: StreamOutcome) -> Option<StreamValues> {
        self.under_way -= 1;
        let values = match outcome {
            Ok(values) => values,
            Err(failure) => {
                self.fail(failure);
                return None;
            }
        };
        if share.step == StreamStep::Chunk {
            self.adapt(u64::from(share.records), values.took);
            self.is_reduced = Some(values.is_reduced);
        }
        if !values.is_reduced {
            return Some(values);
        }
        if values.count > 0 {
            self.kept_bytes += values.bytes.len();
            self.kept.push_back(values);
        }
        None
    }

    fn adapt(&mut self, records: u64, took: Duration) {
        let took_us = took.as_micros().max(1) as u64;
        let wanted = records.max(1) * CHUNK_TIME.as_micros() as u64 / took_us;
        let (least, most) = (self.chunk_records_max / 2, self.chunk_records_max * 2);
        self.chunk_records_max = wanted.clamp(least, most).clamp(1, CHUNK_RECORDS_MAX);
    }

    fn submit(&mut self, step: StreamStep, count: usize, body: Vec<u8>) {
        self.under_way += 1;
        self.outbox.push(StreamTask {
            call: self.call.clone(),
            step,
            count: count as u16,
            body,
            given_up: self.given_up.clone(),
        });
    }

    /// Has the chunk worked on as it is.
    pub fn close_chunk(&mut self) {
        if self.chunk_records > 0 {
            let room = Vec::with_capacity(self.chunk.len());
            let body = std::mem::replace(&mut self.chunk, room);
            let records = std::mem::take(&mut self.chunk_records) as usize;
            self.submit(StreamStep::Chunk, records, body);
        }
    }

    /// Has results combined, as many as one task takes; one is left out, but for the final step.
    fn reduce(&mut self, step: StreamStep) {
        let left_out = usize::from(step != StreamStep::Final);
        let (mut body, mut count) = (Vec::new(), 0);
        for taken in 0.. {
            let next = self.kept.front().filter(|_| self.kept.len() > left_out);
            let Some(next) = next else {
                break;
            };
            let fits = body.len() + next.bytes.len() <= REDUCE_BYTES_MAX
                && count + next.count <= REDUCE_VALUES_MAX;
            if taken >= 2 && !fits {
                break;
            }
            body.extend_from_slice(&next.bytes);
            count += next.count;
            self.kept_bytes -= next.bytes.len();
            self.kept.pop_front();
        }
        let step = match self.kept.is_empty() {
            true => step,
            false => StreamStep::Reduce,
        };
        self.is_final |= step == StreamStep::Final;
        self.submit(step, count, body);
    }

    fn reduce_if_due(&mut self) {
        let enough = self.kept.len() >= REDUCE_RESULTS
            || self.kept.len() > 2 && self.kept_bytes >= REDUCE_BYTES;
        if enough && self.under_way < self.under_way_max {
            self.reduce(StreamStep::Reduce);
        }
    }

    /// Whether the query is to wait for a worker before it reads on.
    fn is_busy(&self) -> bool {
        self.under_way >= self.under_way_max || self.kept_bytes > KEPT_BYTES_MAX
    }

    /// What a turn may put into the chunk.
    fn room(&self) -> QueryBudget {
        QueryBudget {
            records: TURN
                .records
                .min(self.chunk_records_max.saturating_sub(self.chunk_records)),
            bytes: CHUNK_BYTES_MAX
                .saturating_sub(self.chunk.len())
                .min(TURN.bytes),
            ..TURN
        }
    }

    fn is_chunk_full(&self) -> bool {
        self.chunk_records >= self.chunk_records_max || self.chunk.len() >= CHUNK_BYTES_MAX
    }

    /// All records have been given to workers: what remains to be done; nothing if the query is done.
    fn conclude(&mut self) -> Option<Next> {
        self.close_chunk();
        if self.under_way == 0 {
            let last = self.call.is_complete && !self.is_final && self.is_reduced != Some(false);
            match last {
                true => self.reduce(StreamStep::Final),
                false if self.kept.len() > 2 => self.reduce(StreamStep::Reduce),
                false => return None,
            }
        }
        Some(Next::Wait(State::Lua))
    }
}

impl Job {
    /// A turn of a query whose records go to the workers; `allowance` is how many of them may.
    pub(super) fn stream_turn(
        &mut self,
        net: &mut dyn Net,
        turn: &mut Turn<'_>,
        registry: &QueryRegistry,
        allowance: u64,
    ) -> Next {
        let now = Instant::now();
        let stream = self.stream.as_mut();
        let Some(stream) = stream.filter(|_| !registry.is_stopping()) else {
            return self.finish(ResultCode::Unavailable, QueryEnd::Failed, net, registry);
        };
        if let Some(failure) = stream.failure.take() {
            return self.finish_stream(&failure, net, registry);
        }
        stream.reduce_if_due();
        if self.partitions.is_empty() || self.records_left == 0 {
            let next = stream.conclude();
            if let Some(next) = next {
                self.send_if_due(net, now);
                return next;
            }
            for values in std::mem::take(&mut stream.kept) {
                self.append_values(&values);
            }
            return self.finish(ResultCode::Ok, QueryEnd::Complete, net, registry);
        }
        if stream.is_busy() {
            self.send_if_due(net, now);
            return Next::Wait(State::Lua);
        }
        let mut budget = stream.room();
        budget.records = budget.records.min(self.records_left).min(allowance);
        let records = budget.records;
        let Ok(wanted) = self.slices(&mut budget, turn, registry) else {
            let code = ResultCode::SindexNotFound;
            return self.finish(code, QueryEnd::Failed, net, registry);
        };
        let found = records - budget.records;
        self.count_records(found);
        if let Some(stream) = &mut self.stream {
            stream.chunk_records += found;
            if stream.is_chunk_full() {
                stream.close_chunk();
            }
        }
        self.send_if_due(net, now);
        wanted.map_or(Next::Again, Next::Read)
    }

    pub(super) fn append_values(&mut self, values: &StreamValues) {
        self.begin_frame();
        values.write_replies(&mut self.frame);
    }

    fn finish_stream(
        &mut self,
        failure: &StreamFailure,
        net: &mut dyn Net,
        registry: &QueryRegistry,
    ) -> Next {
        if !failure.message.is_empty() {
            self.begin_frame();
            failure.write_reply(&mut self.frame);
        }
        self.finish(failure.code, QueryEnd::Failed, net, registry)
    }

    /// Counts how an aggregation ended.
    pub(super) fn count_stream(&self, end: QueryEnd) {
        use QueryEnd::{Abandoned, Aborted, Complete, Failed};
        let stats = self.namespace.stats.mine();
        count(match (self.query.index_name().is_some(), end) {
            (false, Complete) => &stats.pi_query_aggr_complete,
            (false, Aborted) => &stats.pi_query_aggr_abort,
            (false, Abandoned | Failed) => &stats.pi_query_aggr_error,
            (true, Complete) => &stats.si_query_aggr_complete,
            (true, Aborted) => &stats.si_query_aggr_abort,
            (true, Abandoned | Failed) => &stats.si_query_aggr_error,
        });
    }
}

#[cfg(test)]
mod tests {
    use perigee_wire::{Message, PROTO_HEADER_BYTES, RequestHeader, RequestWriter, field, udf_op};

    use super::*;
    use crate::testing::namespace_in_memory;

    fn stream(operation: u8) -> Stream {
        let mut frame = Vec::new();
        let mut writer = RequestWriter::begin(&mut frame, RequestHeader::default());
        writer.field(field::UDF_OP, &[operation]);
        writer.field(field::UDF_MODULE, b"m");
        writer.field(field::UDF_FUNCTION, b"f");
        writer.finish();
        let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a valid message");
        let call = StreamCall::of(&namespace_in_memory().0, &message).expect("a function");
        Stream::new(call, None, 2)
    }

    fn values(is_reduced: bool, count: usize, bytes: usize, took_us: u64) -> StreamOutcome {
        Ok(StreamValues {
            is_reduced,
            count,
            bytes: vec![0; bytes],
            took: Duration::from_micros(took_us),
        })
    }

    /// Gives a chunk of so many records to a worker, which is done with it.
    fn work(stream: &mut Stream, records: u64, outcome: StreamOutcome) -> Option<StreamValues> {
        stream.chunk_records = records;
        stream.chunk.push(0);
        stream.close_chunk();
        let tasks = stream.take_outbox();
        assert_eq!(tasks.len(), 1);
        stream.take(&Share::of(&tasks[0]), outcome)
    }

    #[test]
    fn chunks_grow_until_one_takes_as_long_as_it_should_and_shrink_again() {
        let mut stream = stream(udf_op::AGGREGATE);
        let chunk_us = CHUNK_TIME.as_micros() as u64;
        let mut sizes = Vec::new();
        for _ in 0..12 {
            let records = stream.chunk_records_max;
            // Two microseconds a record.
            work(&mut stream, records, values(true, 1, 8, records * 2));
            sizes.push(stream.chunk_records_max);
        }
        assert_eq!(
            sizes[..2],
            [FIRST_CHUNK_RECORDS * 2, FIRST_CHUNK_RECORDS * 4]
        );
        assert_eq!(*sizes.last().expect("twelve"), chunk_us / 2);
        let before = stream.chunk_records_max;
        work(&mut stream, before, values(true, 1, 8, 100 * chunk_us));
        assert_eq!(stream.chunk_records_max, before / 2, "by half at most");
    }

    #[test]
    fn results_are_combined_a_few_dozen_at_a_time_and_at_the_end_to_two() {
        let mut stream = stream(udf_op::AGGREGATE);
        for _ in 0..REDUCE_RESULTS {
            assert!(stream.take_outbox().is_empty());
            assert!(work(&mut stream, 1, values(true, 1, 8, 1)).is_none());
        }
        stream.reduce_if_due();
        let tasks = stream.take_outbox();
        assert_eq!(tasks[0].step, StreamStep::Reduce);
        assert_eq!(usize::from(tasks[0].count), REDUCE_RESULTS - 1);
        assert!(matches!(stream.conclude(), Some(Next::Wait(State::Lua))));
        stream.take(&Share::of(&tasks[0]), values(true, 1, 8, 1));
        work(&mut stream, 1, values(true, 1, 8, 1));
        assert!(stream.conclude().is_some(), "three are left");
        let tasks = stream.take_outbox();
        assert_eq!(tasks[0].count, 2);
        stream.take(&Share::of(&tasks[0]), values(true, 1, 8, 1));
        assert!(stream.conclude().is_none());
        assert_eq!((stream.kept.len(), stream.kept_bytes), (2, 16));
    }

    #[test]
    fn a_reduce_takes_what_fits_into_one_task_and_two_results_in_any_case() {
        let mut stream = stream(udf_op::AGGREGATE);
        for _ in 0..3 {
            work(&mut stream, 1, values(true, 1, REDUCE_BYTES_MAX / 2 + 1, 1));
        }
        stream.reduce_if_due();
        assert_eq!(stream.take_outbox()[0].count, 2);
        assert_eq!(stream.kept.len(), 1);
        assert!(!stream.is_busy());
        stream.kept_bytes = KEPT_BYTES_MAX + 1;
        assert!(stream.is_busy(), "nothing is read on until they are fewer");
    }

    #[test]
    fn what_is_complete_ends_with_a_final_task_unless_nothing_is_reduced() {
        let mut complete = stream(udf_op::COMPLETE);
        work(&mut complete, 1, values(true, 1, 8, 1));
        assert!(complete.conclude().is_some());
        let tasks = complete.take_outbox();
        assert_eq!(tasks[0].step, StreamStep::Final);
        let last = complete.take(&Share::of(&tasks[0]), values(false, 1, 8, 1));
        assert_eq!(last.map(|values| values.count), Some(1), "is sent");
        assert!(complete.conclude().is_none());

        let mut plain = stream(udf_op::COMPLETE);
        assert!(work(&mut plain, 1, values(false, 3, 8, 1)).is_some());
        assert!(plain.conclude().is_none());
    }

    #[test]
    fn the_first_failure_counts() {
        let mut stream = stream(udf_op::AGGREGATE);
        let failure = |text: &str| Err(StreamFailure::of(ResultCode::UdfExecution, text));
        work(&mut stream, 1, failure("one"));
        work(&mut stream, 1, failure("two"));
        assert_eq!(stream.failure.map(|it| it.message).as_deref(), Some("one"));
    }
}
