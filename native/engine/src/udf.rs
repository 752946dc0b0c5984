//! Lua on a record, seen from the engine: the record is locked, its bytes go out as a task, and what the function wants
//! comes back as one change. The layouts are those of "UDF lane" in docs/ARCHITECTURE.md.

use std::sync::atomic::AtomicU64;

use perigee_wire::{
    Digest, Message, ReplyHeader, ResultCode, info2, particle_type as particle, ttl,
};

use crate::filter::Unread;
use crate::index::{Entry, flag};
use crate::lane_task::{BIN_HEADER_BYTES, RecordFacts, TASK_HEADER_BYTES, TaskHeader, append_bin};
use crate::namespace::Namespace;
use crate::partition::{PartitionState, Waiter};
use crate::record::image::{ImageHeader, ImageView, image_flag};
use crate::record::operation::WorkingRecord;
use crate::request::{ReplyShape, Request, Stop, build, following_generation, has_write_policy};
use crate::secondary_index::Indexed;
use crate::stats::{Counters, count};
use crate::storage::CommitTicket;

const RESULT_HEADER_BYTES: usize = 32;

mod action {
    pub const NONE: u8 = 0;
    pub const WRITE: u8 = 1;
    pub const REMOVE: u8 = 2;
}

mod result_flag {
    pub const DROP_KEY: u8 = 1;
    pub const REDUCED: u8 = 2;
}

mod ttl_action {
    pub const DEFAULT: u8 = 0;
    pub const SET: u8 = 1;
    pub const NEVER: u8 = 2;
    pub const UNCHANGED: u8 = 3;
}

/// A call that has its record locked. It must be ended by `finish_udf`, whatever happens to it.
pub struct UdfTask {
    pub digest: Digest,
    shape: ReplyShape,
    sent: Sent,
    /// A delete by the function leaves a tombstone.
    durable_delete: bool,
    /// As in the request: for what the function writes without saying anything about it.
    ttl: u32,
    entry: Option<Entry>,
    /// The record as it was when it was locked; empty when there was none.
    image: Vec<u8>,
}

/// What the request says, in one piece of memory: set, key, module, function, arguments.
struct Sent {
    bytes: Vec<u8>,
    set_bytes: usize,
    /// `None` if it has none.
    key_bytes: Option<usize>,
    module_bytes: usize,
    function_bytes: usize,
}

impl Sent {
    fn of(message: &Message<'_>) -> Sent {
        let [set, module, function, arguments] = [
            message.set,
            message.udf_module,
            message.udf_function,
            message.udf_args,
        ]
        .map(Option::unwrap_or_default);
        let key = message.key.unwrap_or_default();
        Sent {
            bytes: [set, key, module, function, arguments].concat(),
            set_bytes: set.len(),
            key_bytes: message.key.map(<[u8]>::len),
            module_bytes: module.len(),
            function_bytes: function.len(),
        }
    }

    fn set(&self) -> &[u8] {
        &self.bytes[..self.set_bytes]
    }

    fn key(&self) -> Option<&[u8]> {
        let length = self.key_bytes?;
        Some(&self.bytes[self.set_bytes..][..length])
    }

    /// Module, function, arguments.
    fn call(&self) -> &[u8] {
        &self.bytes[self.set_bytes + self.key_bytes.unwrap_or_default()..]
    }

    fn arguments_bytes(&self) -> usize {
        self.call().len() - self.module_bytes - self.function_bytes
    }
}

/// What a call wants done, as the worker wrote it. Only `parse` makes one, so offsets in it are checked.
pub struct UdfResult<'a> {
    pub task_id: u64,
    pub(crate) success: bool,
    action: u8,
    ttl_action: u8,
    flags: u8,
    ttl: u32,
    return_particle: u8,
    pub(crate) failure_code: u8,
    pub(crate) returned: &'a [u8],
    bins: Vec<(&'a [u8], u8, &'a [u8])>,
    /// The bins as they came.
    pub(crate) bin_bytes: &'a [u8],
    pub(crate) microseconds: u32,
}

/// Where the outcome of a call is counted, which depends on who called.
struct CallCounters<'a> {
    complete: &'a AtomicU64,
    error: &'a AtomicU64,
    timeout: &'a AtomicU64,
    /// What a function that succeeded did with its record.
    read: &'a AtomicU64,
    wrote: &'a AtomicU64,
    deleted: &'a AtomicU64,
    script_error: &'a AtomicU64,
}

impl<'a> CallCounters<'a> {
    fn of(stats: &'a Counters, shape: ReplyShape) -> Self {
        match shape {
            ReplyShape::Frame => CallCounters {
                complete: &stats.client_udf_complete,
                error: &stats.client_udf_error,
                timeout: &stats.client_udf_timeout,
                read: &stats.client_lang_read_success,
                wrote: &stats.client_lang_write_success,
                deleted: &stats.client_lang_delete_success,
                script_error: &stats.client_lang_error,
            },
            ReplyShape::Row(_) => CallCounters {
                complete: &stats.batch_sub_udf_complete,
                error: &stats.batch_sub_udf_error,
                timeout: &stats.batch_sub_udf_timeout,
                read: &stats.batch_sub_lang_read_success,
                wrote: &stats.batch_sub_lang_write_success,
                deleted: &stats.batch_sub_lang_delete_success,
                script_error: &stats.batch_sub_lang_error,
            },
            ReplyShape::Nobody => CallCounters {
                complete: &stats.udf_sub_udf_complete,
                error: &stats.udf_sub_udf_error,
                timeout: &stats.udf_sub_udf_timeout,
                read: &stats.udf_sub_lang_read_success,
                wrote: &stats.udf_sub_lang_write_success,
                deleted: &stats.udf_sub_lang_delete_success,
                script_error: &stats.udf_sub_lang_error,
            },
        }
    }
}

/// The end of a call: the reply has been appended.
pub struct UdfDone {
    pub ticket: Option<CommitTicket>,
    /// Requests that waited for the record, to be run again in this order.
    pub woken: Vec<Waiter>,
}

impl Namespace {
    pub(crate) fn begin_udf(&self, request: &Request<'_>) -> Result<UdfTask, Stop> {
        let message = request.message;
        if has_write_policy(message) || !message.ops.is_empty() {
            return Err(ResultCode::Parameter.into());
        }
        let in_background = request.shape == ReplyShape::Nobody;
        // Field 33 names an aggregation or a background job: those run over many records.
        if message.udf_op.is_some_and(|op| op != 0) && !in_background {
            return Err(ResultCode::UnsupportedFeature.into());
        }
        let mut state = self.partition(request.digest).lock();
        self.admit(&mut state, request)?;
        if self.stop_writes() {
            return Err(ResultCode::OutOfSpace.into());
        }
        let entry = state
            .table
            .get(request.digest)
            .filter(|e| self.is_live(e, self.clock.wall_seconds()));
        if entry.is_none() && in_background {
            return Err(ResultCode::NotFound.into());
        }
        let mut image = Vec::new();
        if let Some(entry) = &entry {
            let depends = self.filter_unread(request.filter, entry)? == Unread::Depends;
            self.with_image(
                entry,
                request.copy.as_ref(),
                |view| -> Result<(), ResultCode> {
                    if let (Some(sent), Some(stored)) = (message.key, view.key())
                        && sent != stored
                    {
                        return Err(ResultCode::KeyMismatch);
                    }
                    if depends {
                        self.filter_read(request.filter, entry, view)?;
                    }
                    image.extend_from_slice(view.bytes());
                    Ok(())
                },
            )??;
        }
        state.updates.busy.begin(request.digest);
        Ok(UdfTask {
            digest: *request.digest,
            shape: request.shape,
            sent: Sent::of(message),
            durable_delete: message.header.info2 & info2::DURABLE_DELETE != 0,
            ttl: message.header.record_ttl,
            entry,
            image,
        })
    }

    /// Ends a call: carries out what it wants as one write, frees the record and appends the reply.
    pub fn finish_udf(&self, task: &UdfTask, result: &UdfResult<'_>, out: &mut Vec<u8>) -> UdfDone {
        let mut state = self.partition(&task.digest).lock();
        let outcome = if result.success {
            self.carry_out(&mut state, task, result)
        } else {
            Err(ResultCode::from_u8(result.failure_code).unwrap_or(ResultCode::UdfExecution))
        };
        let woken = state.updates.busy.end(&task.digest);
        drop(state);
        let counters = CallCounters::of(self.stats.mine(), task.shape);
        let ticket = match outcome {
            Ok((generation, void_time, ticket)) => {
                let mut reply = task.shape.begin(out);
                reply.op(b"SUCCESS", result.return_particle, result.returned);
                reply.finish_with(ReplyHeader {
                    generation: u32::from(generation),
                    void_time,
                    ..task.shape.header(ResultCode::Ok)
                });
                count(counters.complete);
                count(match result.action {
                    action::REMOVE => counters.deleted,
                    action::WRITE => counters.wrote,
                    _ => counters.read,
                });
                ticket
            }
            Err(ResultCode::UdfExecution) => {
                let mut reply = task.shape.begin(out);
                reply.op(b"FAILURE", particle::STRING, result.returned);
                reply.finish_with(task.shape.header(ResultCode::UdfExecution));
                count(counters.error);
                count(counters.script_error);
                None
            }
            Err(code) => {
                task.shape.answer(code, out);
                count(match code {
                    ResultCode::Timeout => counters.timeout,
                    _ => counters.error,
                });
                None
            }
        };
        UdfDone { ticket, woken }
    }

    /// Ends a call that never ran, or whose worker is gone: the record stays as it was.
    pub fn fail_udf(
        &self,
        task: &UdfTask,
        code: ResultCode,
        message: &str,
        out: &mut Vec<u8>,
    ) -> UdfDone {
        let result = UdfResult {
            task_id: 0,
            success: false,
            action: action::NONE,
            ttl_action: ttl_action::DEFAULT,
            flags: 0,
            ttl: 0,
            return_particle: particle::STRING,
            failure_code: code as u8,
            returned: message.as_bytes(),
            bins: Vec::new(),
            bin_bytes: &[],
            microseconds: 0,
        };
        self.finish_udf(task, &result, out)
    }

    fn carry_out(
        &self,
        state: &mut PartitionState,
        task: &UdfTask,
        result: &UdfResult<'_>,
    ) -> Result<(u16, u32, Option<CommitTicket>), ResultCode> {
        // Defragmentation may have moved the record meanwhile; nothing else may have touched it.
        let stored = state.table.get(&task.digest);
        let old = task.entry.as_ref();
        // The record was truncated while the function worked on it: what it wants rests on what is gone.
        if old.is_some() && stored.is_some_and(|entry| self.is_truncated(&entry)) {
            return Err(ResultCode::KeyBusy);
        }
        let generation = old.map_or(0, |entry| entry.generation);
        let void_time = old.map_or(0, |entry| entry.void_time);
        match (result.action, old) {
            (action::NONE, _) | (action::REMOVE, None) => Ok((generation, void_time, None)),
            (action::REMOVE, Some(_)) => self.remove_by_udf(state, task, stored.as_ref()),
            _ => self.write_by_udf(state, task, result, stored.as_ref()),
        }
    }

    fn write_by_udf(
        &self,
        state: &mut PartitionState,
        task: &UdfTask,
        result: &UdfResult<'_>,
        stored: Option<&Entry>,
    ) -> Result<(u16, u32, Option<CommitTicket>), ResultCode> {
        let now = self.clock.wall_seconds();
        let bytes_max = self.config.max_record_size.get() as usize;
        let old = task.entry.as_ref();
        let view = task.view();
        let set: &[u8] = view
            .as_ref()
            .map_or(task.sent.set(), |view| view.set_name());
        let set_id = match old {
            Some(entry) => entry.set_id,
            None => self.sets.id_of(set).ok_or(ResultCode::Forbidden)?,
        };
        self.check_set_limits(set_id)?;
        let record_ttl = match result.ttl_action {
            ttl_action::SET => result.ttl,
            ttl_action::NEVER => ttl::NEVER,
            ttl_action::UNCHANGED => ttl::DONT_UPDATE,
            _ => task.ttl,
        };
        let void_time = self.void_time(record_ttl, old, set_id, now)?;
        let mut record = view.as_ref().map_or_else(
            || WorkingRecord::empty(bytes_max),
            |view| WorkingRecord::of(view, bytes_max),
        );
        for (name, particle, value) in &result.bins {
            record.set(name, *particle, value)?;
        }
        if record.is_empty() {
            if old.is_none() {
                return Err(ResultCode::NotFound);
            }
            count(&self.stats.mine().deleted_last_bin);
            return self.remove_by_udf(state, task, stored);
        }
        let key = task
            .sent
            .key()
            .or(view.as_ref().and_then(|view| view.key()));
        let header = ImageHeader {
            digest: task.digest,
            last_update_time: self.next_update_time(state, stored)?,
            generation: following_generation(old),
            void_time,
            flags: 0,
        };
        let mut image = Vec::with_capacity(task.image.len() + 256);
        build(
            &mut image,
            &header,
            set,
            key.filter(|_| result.flags & result_flag::DROP_KEY == 0),
            &record,
        );
        let indexed = self.indexed_by_udf(state, task, stored);
        let ticket = self.commit(state, stored, indexed, &mut image, set_id)?;
        Ok((header.generation, void_time, Some(ticket)))
    }

    /// What the indexes have of the version that a function worked on, or of one that it did not see: expired, or a
    /// tombstone.
    fn indexed_by_udf(
        &self,
        state: &PartitionState,
        task: &UdfTask,
        stored: Option<&Entry>,
    ) -> Indexed {
        match (stored, task.view()) {
            (Some(entry), Some(view)) => self.keys_of_version(state, entry, &view),
            (stored, _) => self
                .indexed(state, stored, None)
                .unwrap_or_else(|_| Indexed::unknown()),
        }
    }

    fn remove_by_udf(
        &self,
        state: &mut PartitionState,
        task: &UdfTask,
        stored: Option<&Entry>,
    ) -> Result<(u16, u32, Option<CommitTicket>), ResultCode> {
        let Some(entry) = stored else {
            return Ok((0, 0, None));
        };
        let covers = entry.flags & flag::COVERS != 0;
        if !(task.durable_delete || self.ships() || covers) {
            self.drop_entry(state, entry);
            return Ok((0, 0, None));
        }
        let header = ImageHeader {
            digest: task.digest,
            last_update_time: self.next_update_time(state, stored)?,
            generation: following_generation(stored),
            void_time: 0,
            flags: image_flag::TOMBSTONE
                | if task.durable_delete {
                    image_flag::DURABLE
                } else {
                    0
                },
        };
        let view = task.view();
        let set: &[u8] = view
            .as_ref()
            .map_or(task.sent.set(), |view| view.set_name());
        let key = view.as_ref().and_then(|view| view.key());
        let mut image = Vec::new();
        build(&mut image, &header, set, key, &WorkingRecord::empty(0));
        let ticket = self.commit(state, stored, Indexed::unknown(), &mut image, entry.set_id)?;
        Ok((0, 0, Some(ticket)))
    }
}

impl UdfTask {
    fn view(&self) -> Option<ImageView<'_>> {
        (!self.image.is_empty()).then(|| ImageView::trusted(&self.image))
    }

    /// Bytes that `encode` will append.
    pub fn encoded_bytes(&self, namespace: &str) -> usize {
        let view = self.view();
        let bins: usize = view
            .iter()
            .flat_map(|view| view.bins())
            .map(|bin| BIN_HEADER_BYTES + bin.name.len() + bin.value.len())
            .sum();
        TASK_HEADER_BYTES
            + namespace.len()
            + self.set_name().len()
            + self.key_bytes().map_or(0, <[u8]>::len)
            + self.sent.call().len()
            + bins
    }

    fn set_name(&self) -> &[u8] {
        if self.image.is_empty() {
            self.sent.set()
        } else {
            ImageView::trusted(&self.image).set_name()
        }
    }

    fn key_bytes(&self) -> Option<&[u8]> {
        let stored = (!self.image.is_empty())
            .then(|| ImageView::trusted(&self.image).key())
            .flatten();
        self.sent.key().or(stored)
    }

    /// Appends the task for a worker. The namespace is the record's.
    pub fn encode(
        &self,
        task_id: u64,
        time_limit_ms: u32,
        namespace: &Namespace,
        out: &mut Vec<u8>,
    ) {
        let ttl_base = namespace.clock.wall_seconds();
        let namespace = namespace.name.as_str();
        let start = out.len();
        let view = self.view();
        let (set, key) = (self.set_name(), self.key_bytes());
        let entry = self.entry.as_ref();
        let stored_key = entry.is_some_and(|e| e.flags & flag::KEY_STORED != 0);
        debug_assert!(!stored_key || key.is_some());
        let header = TaskHeader {
            bytes: self.encoded_bytes(namespace) as u32,
            time_limit_ms,
            task_id,
            record: entry.map_or_else(RecordFacts::none, |entry| RecordFacts::of(entry, ttl_base)),
            has_key: key.is_some(),
            set_bytes: set.len() as u8,
            stored_bytes: self.image.len() as u32,
            count: view.as_ref().map_or(0, |view| view.n_bins()) as u16,
            module_bytes: self.sent.module_bytes as u8,
            function_bytes: self.sent.function_bytes as u8,
            argument_bytes: self.sent.arguments_bytes() as u32,
            key_bytes: key.map_or(0, <[u8]>::len) as u32,
            digest: self.digest,
            namespace_bytes: namespace.len() as u8,
            ..TaskHeader::default()
        };
        header.append(out);
        debug_assert_eq!(out.len() - start, TASK_HEADER_BYTES);
        for part in [
            namespace.as_bytes(),
            set,
            key.unwrap_or_default(),
            self.sent.call(),
        ] {
            out.extend_from_slice(part);
        }
        for bin in view.iter().flat_map(|view| view.bins()) {
            append_bin(out, bin.name, bin.particle, bin.value);
        }
        debug_assert_eq!(out.len() - start, self.encoded_bytes(namespace));
    }
}

/// A worker wrote something that is not a batch of results.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("malformed UDF results at byte {at}")]
pub struct MalformedResults {
    pub at: usize,
}

impl<'a> UdfResult<'a> {
    /// Of a stream: its values go into a reduce.
    pub(crate) fn is_reduced(&self) -> bool {
        self.flags & result_flag::REDUCED != 0
    }

    /// Values of a stream's task.
    pub(crate) fn n_values(&self) -> usize {
        self.bins.len()
    }

    /// Parses a batch of results.
    pub fn parse_batch(bytes: &'a [u8]) -> Result<Vec<UdfResult<'a>>, MalformedResults> {
        let Some((count, mut rest)) = bytes.split_first_chunk::<4>() else {
            return if bytes.is_empty() {
                Ok(Vec::new())
            } else {
                Err(MalformedResults { at: 0 })
            };
        };
        let count = u32::from_le_bytes(*count);
        // The count is not trusted to size anything: results are taken while bytes last.
        let mut results = Vec::new();
        for _ in 0..count {
            let at = bytes.len() - rest.len();
            let (result, used) = UdfResult::parse(rest).ok_or(MalformedResults { at })?;
            results.push(result);
            rest = &rest[used..];
        }
        Ok(results)
    }

    fn parse(bytes: &'a [u8]) -> Option<(UdfResult<'a>, usize)> {
        let header = bytes.get(..RESULT_HEADER_BYTES)?;
        let u32_at =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap_or_default());
        let length = u32_at(0) as usize;
        let body = bytes.get(RESULT_HEADER_BYTES..length)?;
        let (returned, mut rest) = body.split_at_checked(u32_at(24) as usize)?;
        let bin_bytes = rest;
        let n_bins = u16::from_le_bytes([header[20], header[21]]);
        let mut bins = Vec::new();
        for _ in 0..n_bins {
            let (head, after) = rest.split_first_chunk::<BIN_HEADER_BYTES>()?;
            let value_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let (name, after) = after.split_at_checked(usize::from(head[0]))?;
            let (value, after) = after.split_at_checked(value_bytes)?;
            bins.push((name, head[1], value));
            rest = after;
        }
        let result = UdfResult {
            task_id: u64::from_le_bytes(header[8..16].try_into().ok()?),
            success: header[4] == 0,
            action: header[5],
            ttl_action: header[6],
            flags: header[7],
            ttl: u32_at(16),
            return_particle: header[22],
            failure_code: if header[23] == 0 {
                ResultCode::UdfExecution as u8
            } else {
                header[23]
            },
            returned,
            bins,
            bin_bytes,
            microseconds: u32_at(28),
        };
        Some((result, length))
    }
}
