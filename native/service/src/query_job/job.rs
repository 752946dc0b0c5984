//! The turns of one query: records into its frame, frames to its connection, and its end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use perigee_engine::latency::Latency;
use perigee_engine::query::{AskedRead, PieceEnd, QueryBudget};
use perigee_engine::stats::count;
use perigee_engine::stream::{StreamFailure, StreamOutcome, StreamTask};
use perigee_wire::{
    PROTO_HEADER_BYTES, PartitionId, ProtoType, ReplyHeader, ReplyWriter, ResultCode, info3,
    patch_proto_header, reserve_proto_header,
};

use super::stream::Share;
use super::{
    FILTERED_SLICE_VISITS, FRAME_AGE, FRAME_BYTES, IndexDropped, Job, Kind, Next, SLICE,
    SLICE_PARTITIONS, State, TASK_PATIENCE, TURN, UNSENT_BYTES_MAX,
};
use crate::net::Net;
use crate::query_registry::{QueryEnd, QueryRegistry};
use crate::reply_compression::compress_frame;
use crate::turn::Turn;

impl Job {
    pub(super) fn turn(
        &mut self,
        net: &mut dyn Net,
        turn: &mut Turn<'_>,
        registry: &QueryRegistry,
    ) -> Next {
        let now = Instant::now();
        if self.is_aborted() {
            return self.finish(ResultCode::QueryAborted, QueryEnd::Aborted, net, registry);
        }
        if self.is_late(now) {
            return self.finish(ResultCode::Timeout, QueryEnd::Failed, net, registry);
        }
        let unsent = net.unsent(self.conn);
        if unsent > UNSENT_BYTES_MAX && !registry.is_stopping() {
            return Next::Wait(State::Output { unsent, since: now });
        }
        let allowance = self
            .pace
            .as_mut()
            .map_or(u64::MAX, |pace| pace.allowance(now));
        if allowance == 0 && !registry.is_stopping() {
            if let Some(stream) = &mut self.stream {
                stream.close_chunk();
            }
            self.send(net);
            if let Kind::Long(status) = &self.kind {
                count(&status.throttled);
            }
            return Next::Wait(State::Time);
        }
        if self.stream.is_some() {
            return self.stream_turn(net, turn, registry, allowance);
        }
        let records = TURN.records.min(self.records_left).min(allowance);
        let mut budget = QueryBudget { records, ..TURN };
        let Ok(wanted) = self.slices(&mut budget, turn, registry) else {
            let code = ResultCode::SindexNotFound;
            return self.finish(code, QueryEnd::Failed, net, registry);
        };
        self.count_records(records - budget.records);
        if self.partitions.is_empty() || self.records_left == 0 {
            return self.finish(ResultCode::Ok, QueryEnd::Complete, net, registry);
        }
        self.send_if_due(net, now);
        wanted.map_or(Next::Again, Next::Read)
    }

    /// So many records were sent, or given to workers.
    pub(super) fn count_records(&mut self, records: u64) {
        self.records_left -= records;
        if let Some(pace) = &mut self.pace {
            pace.take(records);
        }
        if let Kind::Long(status) = &self.kind {
            status.records.fetch_add(records, Ordering::Relaxed);
        }
    }

    pub(super) fn begin_frame(&mut self) {
        if self.frame.is_empty() {
            reserve_proto_header(&mut self.frame);
            self.frame_since = Instant::now();
        }
    }

    pub(super) fn send_if_due(&mut self, net: &mut dyn Net, now: Instant) {
        if self.frame.len() >= FRAME_BYTES || now.duration_since(self.frame_since) >= FRAME_AGE {
            self.send(net);
        }
    }

    /// Appends records slice by slice until the turn is over or its budget spent, the partitions are done, or the device must be
    /// asked. `Err`: its index was dropped.
    pub(super) fn slices(
        &mut self,
        budget: &mut QueryBudget,
        turn: &mut Turn<'_>,
        registry: &QueryRegistry,
    ) -> Result<Option<Vec<AskedRead>>, IndexDropped> {
        self.begin_frame();
        let most = QueryBudget {
            visits: match self.query.has_filter() {
                true => FILTERED_SLICE_VISITS,
                false => SLICE.visits,
            },
            ..SLICE
        };
        loop {
            let mut slice = budget.take(&most);
            let end = self.slice(&mut slice, registry);
            budget.give_back(&slice);
            match end? {
                Some(wanted) => return Ok(Some(wanted)),
                None if self.partitions.is_empty() || budget.is_spent() => return Ok(None),
                None if turn.is_over() => return Ok(None),
                None => {}
            }
        }
    }

    fn slice(
        &mut self,
        slice: &mut QueryBudget,
        registry: &QueryRegistry,
    ) -> Result<Option<Vec<AskedRead>>, IndexDropped> {
        let mut begun = 0;
        while let Some(cursor) = self.partitions.front_mut() {
            let partition = cursor.partition;
            if registry.is_stopping() || !self.namespace.owns_partition(partition) {
                self.partition_done(partition, ResultCode::Unavailable);
                continue;
            }
            if slice.is_spent() || begun == SLICE_PARTITIONS {
                return Ok(None);
            }
            begun += 1;
            let (query, reads) = (&self.query, &mut self.reads);
            let end = match &mut self.stream {
                None => {
                    let out = &mut self.frame;
                    self.namespace.query_piece(query, cursor, slice, reads, out)
                }
                Some(stream) => {
                    let out = &mut stream.chunk;
                    self.namespace
                        .stream_piece(query, cursor, slice, reads, out)
                }
            };
            match end {
                PieceEnd::Done => self.partition_done(partition, ResultCode::Ok),
                PieceEnd::Budget => return Ok(None),
                PieceEnd::NeedsDevice(locations) => return Ok(Some(locations)),
                PieceEnd::NoIndex => return Err(IndexDropped),
            }
        }
        Ok(None)
    }

    fn partition_done(&mut self, partition: PartitionId, result: ResultCode) {
        self.partitions.pop_front();
        if let Kind::Long(status) = &self.kind {
            status.partitions_done.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(stream) = &mut self.stream {
            if result != ResultCode::Ok {
                // What the client gets says nothing of partitions: it has to ask for all again.
                stream.fail(StreamFailure::of(result, ""));
            }
            return;
        }
        ReplyWriter::begin_part(&mut self.frame).finish_with(ReplyHeader {
            info3: info3::PARTITION_DONE,
            generation: u32::from(partition.get()),
            ..ReplyHeader::new(result)
        });
    }

    pub(super) fn finish(
        &mut self,
        result: ResultCode,
        end: QueryEnd,
        net: &mut dyn Net,
        registry: &QueryRegistry,
    ) -> Next {
        self.give_up();
        self.begin_frame();
        ReplyWriter::begin_part(&mut self.frame).finish_with(ReplyHeader {
            info3: info3::LAST,
            ..ReplyHeader::new(result)
        });
        self.send(net);
        self.count(end, registry);
        Next::Done
    }

    /// Completes the frame and hands it to the connection, if there is anything in it.
    fn send(&mut self, net: &mut dyn Net) {
        if self.frame.len() <= PROTO_HEADER_BYTES {
            return;
        }
        patch_proto_header(&mut self.frame, 0, ProtoType::Message);
        if self.wants_compressed {
            compress_frame(&mut self.frame, 0, &self.namespace.stats.query_proto);
        }
        if let Kind::Long(status) = &self.kind {
            let bytes = self.frame.len() as u64;
            status.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if let Some(out) = net.output(self.conn) {
            if out.is_empty() {
                std::mem::swap(out, &mut self.frame);
            } else {
                out.extend_from_slice(&self.frame);
            }
        }
        self.frame.clear();
    }

    pub(super) fn is_aborted(&self) -> bool {
        matches!(&self.kind, Kind::Long(status) if status.aborted.load(Ordering::Relaxed))
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        match (&self.kind, &self.stream) {
            (Kind::Short { deadline }, _) => *deadline <= now,
            (Kind::Long(_), Some(stream)) => stream.deadline.is_some_and(|it| it <= now),
            (Kind::Long(_), None) => false,
        }
    }

    /// Until when its tasks make sense.
    pub(super) fn deadline(&self) -> Instant {
        let deadline = self.stream.as_ref().and_then(|stream| stream.deadline);
        deadline.unwrap_or_else(|| Instant::now() + TASK_PATIENCE)
    }

    pub(super) fn take_tasks(&mut self) -> Vec<StreamTask> {
        let stream = self.stream.as_mut();
        stream.map_or_else(Vec::new, |stream| stream.take_outbox())
    }

    pub(super) fn take_share(&mut self, share: &Share, outcome: StreamOutcome) {
        let stream = self.stream.as_mut();
        if let Some(values) = stream.and_then(|stream| stream.take(share, outcome)) {
            self.append_values(&values);
        }
    }

    /// Nobody waits for its tasks any more.
    pub(super) fn give_up(&self) {
        if let Some(stream) = &self.stream {
            stream.give_up();
        }
    }

    pub(super) fn count(&self, end: QueryEnd, registry: &QueryRegistry) {
        use QueryEnd::{Abandoned, Aborted, Complete, Failed};
        let stats = self.namespace.stats.mine();
        let by_index = self.query.index_name().is_some();
        let latency = match by_index {
            true => Latency::SiQuery,
            false => Latency::PiQuery,
        };
        let took = self.began.elapsed();
        self.namespace.stats.latencies.add(latency, took, 1);
        match &self.kind {
            Kind::Long(status) if self.stream.is_some() => {
                registry.end(status, end);
                self.count_stream(end);
            }
            Kind::Long(status) => {
                registry.end(status, end);
                count(match (by_index, end) {
                    (false, Complete) => &stats.pi_query_long_basic_complete,
                    (false, Aborted) => &stats.pi_query_long_basic_abort,
                    (false, Abandoned | Failed) => &stats.pi_query_long_basic_error,
                    (true, Complete) => &stats.si_query_long_basic_complete,
                    (true, Aborted) => &stats.si_query_long_basic_abort,
                    (true, Abandoned | Failed) => &stats.si_query_long_basic_error,
                });
            }
            Kind::Short { .. } => count(match (by_index, end) {
                (false, Complete) => &stats.pi_query_short_basic_complete,
                (false, Failed) => &stats.pi_query_short_basic_timeout,
                (false, Aborted | Abandoned) => &stats.pi_query_short_basic_error,
                (true, Complete) => &stats.si_query_short_basic_complete,
                (true, Failed) => &stats.si_query_short_basic_timeout,
                (true, Aborted | Abandoned) => &stats.si_query_short_basic_error,
            }),
        }
    }
}
