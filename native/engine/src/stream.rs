//! Stream functions, seen from the engine: the records that a query meets go out in chunks, values come back. Nothing of a
//! record is locked while a chunk is worked on, and nothing is changed by it. The layouts are those of "UDF lane" in
//! docs/ARCHITECTURE.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use perigee_wire::{Message, ReplyHeader, ReplyWriter, ResultCode, op, particle_type, udf_op};

use crate::filter;
use crate::index::{Entry, Location};
use crate::lane_task::{
    BIN_HEADER_BYTES, RecordFacts, TASK_HEADER_BYTES, TaskHeader, append_bin, task_kind, values,
};
use crate::namespace::Namespace;
use crate::query::{BinChoice, PartitionCursor, PieceEnd, QueryBudget, ReadAhead, RecordQuery};
use crate::record::operation::unsupported_operation;
use crate::udf::UdfResult;

/// The function that an aggregation calls.
pub struct StreamCall {
    namespace: String,
    set: Vec<u8>,
    module: Vec<u8>,
    function: Vec<u8>,
    arguments: Vec<u8>,
    /// What follows the first reduce is done here too, not by the client.
    pub is_complete: bool,
}

/// What a worker does with its share of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStep {
    /// Has records pass, up to and including the first reduce.
    Chunk,
    /// Combines values of chunks by that reduce.
    Reduce,
    /// The same, and then what follows it.
    Final,
}

/// A worker's share of a stream.
pub struct StreamTask {
    pub call: Arc<StreamCall>,
    pub step: StreamStep,
    /// Records or values in the body.
    pub count: u16,
    pub body: Vec<u8>,
    /// Nobody waits for it any more.
    pub given_up: Arc<AtomicBool>,
}

/// What became of a task.
pub type StreamOutcome = Result<StreamValues, StreamFailure>;

#[derive(Debug, PartialEq, Eq)]
pub struct StreamValues {
    /// They go into a reduce.
    pub is_reduced: bool,
    pub count: usize,
    /// As they lie in the body of a task.
    pub bytes: Vec<u8>,
    /// In the worker.
    pub took: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub struct StreamFailure {
    pub code: ResultCode,
    pub message: String,
}

impl StreamCall {
    pub fn of(namespace: &Namespace, message: &Message<'_>) -> Result<StreamCall, ResultCode> {
        let (Some(module), Some(function)) = (message.udf_module, message.udf_function) else {
            return Err(ResultCode::Parameter);
        };
        Ok(StreamCall {
            namespace: namespace.name.clone(),
            set: message.set.unwrap_or_default().to_vec(),
            module: module.to_vec(),
            function: function.to_vec(),
            arguments: message.udf_args.unwrap_or_default().to_vec(),
            is_complete: message.udf_op == Some(udf_op::COMPLETE),
        })
    }
}

impl StreamTask {
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Bytes of the task: its head, and the body behind it.
    pub fn encoded_bytes(&self) -> usize {
        let call = &self.call;
        TASK_HEADER_BYTES
            + call.namespace.len()
            + call.set.len()
            + call.module.len()
            + call.function.len()
            + call.arguments.len()
            + self.body.len()
    }

    /// Appends what is in front of the body.
    pub fn encode_head(&self, task_id: u64, time_limit_ms: u32, out: &mut Vec<u8>) {
        let call = &self.call;
        let header = TaskHeader {
            bytes: self.encoded_bytes() as u32,
            time_limit_ms,
            task_id,
            set_bytes: call.set.len() as u8,
            count: self.count,
            module_bytes: call.module.len() as u8,
            function_bytes: call.function.len() as u8,
            argument_bytes: call.arguments.len() as u32,
            namespace_bytes: call.namespace.len() as u8,
            kind: match self.step {
                StreamStep::Chunk => task_kind::CHUNK,
                StreamStep::Reduce | StreamStep::Final => task_kind::REDUCE,
            },
            is_final: self.step == StreamStep::Final,
            ..TaskHeader::default()
        };
        header.append(out);
        for part in [
            call.namespace.as_bytes(),
            &call.set,
            &call.module,
            &call.function,
            &call.arguments,
        ] {
            out.extend_from_slice(part);
        }
    }
}

impl StreamFailure {
    pub fn of(code: ResultCode, message: &str) -> StreamFailure {
        StreamFailure {
            code,
            message: message.to_owned(),
        }
    }

    /// Appends the message that tells a client what went wrong. Clients look at its bin only if its result is 0; the code
    /// comes with the last message.
    pub fn write_reply(&self, out: &mut Vec<u8>) {
        write_part(
            out,
            b"FAILURE",
            particle_type::STRING,
            self.message.as_bytes(),
        );
    }
}

impl StreamValues {
    /// Appends a message for each value.
    pub fn write_replies(&self, out: &mut Vec<u8>) {
        write_value_replies(&self.bytes, out);
    }
}

/// Appends a message for each of the values, which are as they lie in the body of a task.
pub fn write_value_replies(bytes: &[u8], out: &mut Vec<u8>) {
    for (particle, value) in values(bytes) {
        write_part(out, b"SUCCESS", particle, value);
    }
}

fn write_part(out: &mut Vec<u8>, name: &[u8], particle: u8, value: &[u8]) {
    let mut reply = ReplyWriter::begin_part(out);
    reply.op(name, particle, value);
    reply.finish_with(ReplyHeader::new(ResultCode::Ok));
}

impl UdfResult<'_> {
    /// The result of a stream's task.
    pub fn stream_outcome(&self) -> StreamOutcome {
        if !self.success {
            let code = ResultCode::from_u8(self.failure_code).unwrap_or(ResultCode::UdfExecution);
            let message = String::from_utf8_lossy(self.returned);
            return Err(StreamFailure::of(code, &message));
        }
        Ok(StreamValues {
            is_reduced: self.is_reduced(),
            count: self.n_values(),
            bytes: self.bin_bytes.to_vec(),
            took: Duration::from_micros(u64::from(self.microseconds)),
        })
    }
}

impl RecordQuery {
    /// The records of an aggregation: all their bins, or those that reading operations name.
    pub fn of_stream(
        namespace: &Namespace,
        message: &Message<'_>,
    ) -> Result<RecordQuery, ResultCode> {
        for operation in message.ops {
            match operation.code {
                op::READ if !operation.name.is_empty() => {}
                op::READ => return Err(ResultCode::Parameter),
                code => return Err(unsupported_operation(code)),
            }
        }
        RecordQuery::of(namespace, message)
    }
}

impl Namespace {
    /// Appends records from the cursor on for the body of a chunk, and moves the cursor, as `query_piece` does for replies.
    pub fn stream_piece(
        &self,
        query: &RecordQuery,
        cursor: &mut PartitionCursor,
        budget: &mut QueryBudget,
        reads: &mut ReadAhead,
        out: &mut Vec<u8>,
    ) -> PieceEnd {
        let now = self.clock.wall_seconds();
        self.piece(
            query,
            cursor,
            budget,
            reads,
            out,
            |entry, unread, reads, out| {
                self.write_stream_record(query, entry, unread, now, reads, out)
            },
        )
    }

    fn write_stream_record(
        &self,
        query: &RecordQuery,
        entry: &Entry,
        unread: filter::Unread,
        now: u32,
        reads: &ReadAhead,
        out: &mut Vec<u8>,
    ) -> Result<bool, Location> {
        self.with_image(entry, reads.copy(entry), |view| {
            if unread == filter::Unread::Depends
                && self.filter_read(query.filter(), entry, view).is_err()
            {
                return false;
            }
            let is_wanted = |name: &[u8]| query.bins.has(name);
            let bins = || view.bins().filter(|bin| is_wanted(bin.name));
            let (mut count, mut bin_bytes) = (0, 0);
            for bin in bins() {
                count += 1;
                bin_bytes += BIN_HEADER_BYTES + bin.name.len() + bin.value.len();
            }
            if count == 0 && matches!(query.bins, BinChoice::Named(_)) {
                return false;
            }
            let (set, key) = (view.set_name(), view.key().unwrap_or_default());
            let header = TaskHeader {
                bytes: (TASK_HEADER_BYTES + set.len() + key.len() + bin_bytes) as u32,
                record: RecordFacts::of(entry, now),
                has_key: !key.is_empty(),
                set_bytes: set.len() as u8,
                stored_bytes: view.bytes().len() as u32,
                count,
                key_bytes: key.len() as u32,
                digest: entry.digest,
                ..TaskHeader::default()
            };
            header.append(out);
            out.extend_from_slice(set);
            out.extend_from_slice(key);
            for bin in bins() {
                append_bin(out, bin.name, bin.particle, bin.value);
            }
            true
        })
    }
}
