//! What a single-record request meets in the engine: reads, writes, deletes, and the way into Lua. A request runs from
//! the top until it is answered; when it has to wait, it says for what, and is run again afterwards.

mod conflict;
mod read;
mod version;
mod write;

use std::cell::RefCell;

use perigee_wire::{Digest, Message, ReplyHeader, ReplyWriter, ResultCode, info1, info2, info3};

use crate::device_copy::DeviceCopy;
use crate::filter::Filter;
use crate::index::Location;
use crate::namespace::Namespace;
use crate::partition::{Admission, PartitionState, Waiter};
use crate::record::image::{ImageBuilder, ImageHeader, ImageView};
use crate::record::operation::WorkingRecord;
use crate::stats::count;
use crate::storage::CommitTicket;
use crate::udf::UdfTask;
pub(crate) use version::following_generation;

/// One request for one record.
pub struct Request<'a> {
    pub message: &'a Message<'a>,
    pub digest: &'a Digest,
    /// Who is woken when the record is free; without one a busy record is refused.
    pub waiter: Option<Waiter>,
    /// The record's bytes, when an earlier run found that they had to be read from the device.
    pub copy: Option<DeviceCopy<'a>>,
    /// What the record has to be for the request to be carried out.
    pub filter: Option<Filter<'a>>,
    pub shape: ReplyShape,
}

impl<'a> Request<'a> {
    /// A request without a filter that has read nothing from the device, is refused rather than that it waits for a busy
    /// record, and is answered by a frame of its own.
    pub fn new(message: &'a Message<'a>, digest: &'a Digest) -> Request<'a> {
        Request {
            message,
            digest,
            waiter: None,
            copy: None,
            filter: None,
            shape: ReplyShape::Frame,
        }
    }
}

/// What the reply to a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReplyShape {
    /// A frame of its own.
    #[default]
    Frame,
    /// A part of a batch's frame, of the row to which the client gave this number.
    Row(u32),
    /// A part that nobody is sent: of what a background query does to one record.
    Nobody,
}

impl ReplyShape {
    pub fn begin(self, out: &mut Vec<u8>) -> ReplyWriter<'_> {
        match self {
            ReplyShape::Frame => ReplyWriter::begin(out),
            ReplyShape::Row(_) | ReplyShape::Nobody => ReplyWriter::begin_part(out),
        }
    }

    pub fn header(self, code: ResultCode) -> ReplyHeader {
        ReplyHeader {
            batch_index: match self {
                ReplyShape::Frame | ReplyShape::Nobody => 0,
                ReplyShape::Row(index) => index,
            },
            ..ReplyHeader::new(code)
        }
    }

    /// Appends a reply that is nothing but a result.
    pub fn answer(self, code: ResultCode, out: &mut Vec<u8>) {
        self.begin(out).finish_with(self.header(code));
    }
}

/// What became of a run.
pub enum Outcome {
    /// The reply has been appended.
    Answered,
    /// The reply has been appended, and may be sent once the write is durable.
    AwaitCommit(CommitTicket),
    /// Nothing has happened yet: read this and run again.
    ReadDevice(Location),
    /// Nothing has happened yet: the waiter will be told when to run again.
    AwaitRecord,
    /// The record is locked for Lua; the task's end answers.
    RunUdf(Box<UdfTask>),
}

/// Why a run ended without a reply: a code to answer with, or bytes that must be fetched.
pub(crate) enum Stop {
    Refused(ResultCode),
    ReadDevice(Location),
    AwaitRecord,
}

impl From<ResultCode> for Stop {
    fn from(code: ResultCode) -> Self {
        Stop::Refused(code)
    }
}

impl From<Location> for Stop {
    fn from(location: Location) -> Self {
        Stop::ReadDevice(location)
    }
}

/// A request that was carried out.
pub(crate) struct Done {
    pub generation: u16,
    pub void_time: u32,
    pub ticket: Option<CommitTicket>,
}

impl Done {
    fn of(entry_generation: u16, void_time: u32, ticket: Option<CommitTicket>) -> Done {
        Done {
            generation: entry_generation,
            void_time,
            ticket,
        }
    }
}

thread_local! {
    /// Where the next version is put together, so that a write allocates nothing for it.
    static IMAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Delete,
    Udf,
}

/// Where a request comes from, for the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Client,
    Batch,
    Background,
    Xdr,
}

impl Source {
    fn of(request: &Request<'_>) -> Source {
        match request.shape {
            ReplyShape::Row(_) => Source::Batch,
            ReplyShape::Nobody => Source::Background,
            ReplyShape::Frame if request.message.header.info1 & info1::XDR != 0 => Source::Xdr,
            ReplyShape::Frame => Source::Client,
        }
    }
}

impl Kind {
    /// `None` for a message that asks for neither a read nor a write.
    fn of(message: &Message<'_>) -> Option<Kind> {
        let header = &message.header;
        match () {
            () if message.udf_function.is_some() => Some(Kind::Udf),
            () if header.info2 & info2::DELETE != 0 => Some(Kind::Delete),
            () if header.info2 & info2::WRITE != 0 => Some(Kind::Write),
            () if header.info1 & info1::READ != 0 => Some(Kind::Read),
            () => None,
        }
    }
}

impl Namespace {
    /// Runs a request and appends its reply to `out`.
    pub fn execute(&self, request: &Request<'_>, out: &mut Vec<u8>) -> Outcome {
        let Some(kind) = Kind::of(request.message) else {
            self.refuse(request, ResultCode::Parameter, out);
            return Outcome::Answered;
        };
        if let Some(code) = self.refusal(request, kind) {
            self.refuse(request, code, out);
            return Outcome::Answered;
        }
        if kind == Kind::Udf {
            return match self.begin_udf(request) {
                Ok(task) => Outcome::RunUdf(Box::new(task)),
                Err(stop) => self.stopped(stop, request, kind, out),
            };
        }
        let start = out.len();
        let mut reply = request.shape.begin(out);
        let result = match kind {
            Kind::Read => self.read(request, &mut reply),
            Kind::Delete => self.delete(request),
            Kind::Write | Kind::Udf => self.write(request, &mut reply),
        };
        match result {
            Ok(done) => {
                reply.finish_with(ReplyHeader {
                    generation: u32::from(done.generation),
                    void_time: done.void_time,
                    ..request.shape.header(ResultCode::Ok)
                });
                self.count_outcome(kind, Source::of(request), ResultCode::Ok);
                match done.ticket {
                    Some(ticket) => Outcome::AwaitCommit(ticket),
                    None => Outcome::Answered,
                }
            }
            Err(stop) => {
                reply.abandon();
                debug_assert_eq!(out.len(), start);
                self.stopped(stop, request, kind, out)
            }
        }
    }

    fn stopped(&self, stop: Stop, request: &Request<'_>, kind: Kind, out: &mut Vec<u8>) -> Outcome {
        match stop {
            Stop::Refused(code) => {
                request.shape.answer(code, out);
                self.count_outcome(kind, Source::of(request), code);
                Outcome::Answered
            }
            Stop::ReadDevice(location) => Outcome::ReadDevice(location),
            Stop::AwaitRecord => Outcome::AwaitRecord,
        }
    }

    /// Features that a request may name and this engine does not have yet, and partitions that are not its own.
    fn refusal(&self, request: &Request<'_>, kind: Kind) -> Option<ResultCode> {
        let message = request.message;
        if !self.owns(request.digest) {
            return Some(ResultCode::Unavailable);
        }
        if message.mrt_id.is_some() {
            return Some(ResultCode::UnsupportedFeature);
        }
        if kind != Kind::Read && message.lut.is_some() != (message.header.info1 & info1::XDR != 0) {
            return Some(ResultCode::Parameter);
        }
        None
    }

    fn count_refusal(&self, request: &Request<'_>) {
        let stats = self.stats.mine();
        count(match request.shape {
            ReplyShape::Frame => &stats.client_tsvc_error,
            ReplyShape::Row(_) => &stats.batch_sub_tsvc_error,
            ReplyShape::Nobody if request.message.udf_function.is_some() => {
                &stats.udf_sub_tsvc_error
            }
            ReplyShape::Nobody => &stats.ops_sub_tsvc_error,
        });
    }

    fn count_outcome(&self, kind: Kind, source: Source, code: ResultCode) {
        let stats = self.stats.mine();
        use ResultCode::{FilteredOut, NotFound, Ok, Timeout};
        count(match (source, kind, code) {
            (Source::Batch, Kind::Read, Ok) => &stats.batch_sub_read_success,
            (Source::Batch, Kind::Read, NotFound) => &stats.batch_sub_read_not_found,
            (Source::Batch, Kind::Read, FilteredOut) => &stats.batch_sub_read_filtered_out,
            (Source::Batch, Kind::Read, Timeout) => &stats.batch_sub_read_timeout,
            (Source::Batch, Kind::Read, _) => &stats.batch_sub_read_error,
            (Source::Batch, Kind::Write, Ok) => &stats.batch_sub_write_success,
            (Source::Batch, Kind::Write, FilteredOut) => &stats.batch_sub_write_filtered_out,
            (Source::Batch, Kind::Write, Timeout) => &stats.batch_sub_write_timeout,
            (Source::Batch, Kind::Write, _) => &stats.batch_sub_write_error,
            (Source::Batch, Kind::Delete, Ok) => &stats.batch_sub_delete_success,
            (Source::Batch, Kind::Delete, NotFound) => &stats.batch_sub_delete_not_found,
            (Source::Batch, Kind::Delete, FilteredOut) => &stats.batch_sub_delete_filtered_out,
            (Source::Batch, Kind::Delete, Timeout) => &stats.batch_sub_delete_timeout,
            (Source::Batch, Kind::Delete, _) => &stats.batch_sub_delete_error,
            (Source::Batch, Kind::Udf, Ok) => &stats.batch_sub_udf_complete,
            (Source::Batch, Kind::Udf, FilteredOut) => &stats.batch_sub_udf_filtered_out,
            (Source::Batch, Kind::Udf, Timeout) => &stats.batch_sub_udf_timeout,
            (Source::Batch, Kind::Udf, _) => &stats.batch_sub_udf_error,
            (Source::Background, Kind::Udf, Ok) => &stats.udf_sub_udf_complete,
            (Source::Background, Kind::Udf, FilteredOut) => &stats.udf_sub_udf_filtered_out,
            (Source::Background, Kind::Udf, Timeout) => &stats.udf_sub_udf_timeout,
            (Source::Background, Kind::Udf, _) => &stats.udf_sub_udf_error,
            (Source::Background, _, Ok) => &stats.ops_sub_write_success,
            (Source::Background, _, FilteredOut) => &stats.ops_sub_write_filtered_out,
            (Source::Background, _, Timeout) => &stats.ops_sub_write_timeout,
            (Source::Background, _, _) => &stats.ops_sub_write_error,
            (Source::Xdr, Kind::Delete, Ok) => &stats.xdr_client_delete_success,
            (Source::Xdr, Kind::Delete, NotFound) => &stats.xdr_client_delete_not_found,
            (Source::Xdr, Kind::Delete, _) => &stats.xdr_client_delete_error,
            (Source::Xdr, Kind::Write, Ok) => &stats.xdr_client_write_success,
            (Source::Xdr, Kind::Write, _) => &stats.xdr_client_write_error,
            (_, Kind::Read, Ok) => &stats.client_read_success,
            (_, Kind::Read, NotFound) => &stats.client_read_not_found,
            (_, Kind::Read, FilteredOut) => &stats.client_read_filtered_out,
            (_, Kind::Read, Timeout) => &stats.client_read_timeout,
            (_, Kind::Read, _) => &stats.client_read_error,
            (_, Kind::Delete, Ok) => &stats.client_delete_success,
            (_, Kind::Delete, NotFound) => &stats.client_delete_not_found,
            (_, Kind::Delete, FilteredOut) => &stats.client_delete_filtered_out,
            (_, Kind::Delete, Timeout) => &stats.client_delete_timeout,
            (_, Kind::Delete, _) => &stats.client_delete_error,
            (_, Kind::Write, Ok) => &stats.client_write_success,
            (_, Kind::Write, FilteredOut) => &stats.client_write_filtered_out,
            (_, Kind::Write, Timeout) => &stats.client_write_timeout,
            (_, Kind::Write, _) => &stats.client_write_error,
            (_, Kind::Udf, Ok) => &stats.client_udf_complete,
            (_, Kind::Udf, FilteredOut) => &stats.client_udf_filtered_out,
            (_, Kind::Udf, Timeout) => &stats.client_udf_timeout,
            (_, Kind::Udf, _) => &stats.client_udf_error,
        });
        match code {
            ResultCode::Generation => count(&stats.fail_generation),
            ResultCode::KeyBusy => count(&stats.fail_key_busy),
            ResultCode::LostConflict => count(&stats.fail_xdr_lost_conflict),
            _ => {}
        }
    }

    /// Counts a request that is not to be carried out, and answers it.
    pub fn refuse(&self, request: &Request<'_>, code: ResultCode, out: &mut Vec<u8>) {
        request.shape.answer(code, out);
        self.count_refusal(request);
    }

    /// Counts a request that the service gave up on while it was parked, and answers it.
    pub fn answer_timeout(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        if let Some(kind) = Kind::of(request.message) {
            self.count_outcome(kind, Source::of(request), ResultCode::Timeout);
        }
        request.shape.answer(ResultCode::Timeout, out);
    }

    /// Counts a request whose record the device did not give, and answers it.
    pub fn answer_unread(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        if let Some(kind) = Kind::of(request.message) {
            self.count_outcome(kind, Source::of(request), ResultCode::Unknown);
        }
        request.shape.answer(ResultCode::Unknown, out);
    }

    pub(crate) fn admit(
        &self,
        state: &mut PartitionState,
        request: &Request<'_>,
    ) -> Result<(), Stop> {
        match state
            .updates
            .busy
            .admit(request.digest, request.waiter, self.pending_limit)
        {
            Admission::Free => Ok(()),
            Admission::Queued => Err(Stop::AwaitRecord),
            Admission::Refused => Err(ResultCode::KeyBusy.into()),
        }
    }
}

/// Puts an image together in `image`, which is emptied first.
pub(crate) fn build(
    image: &mut Vec<u8>,
    header: &ImageHeader,
    set: &[u8],
    key: Option<&[u8]>,
    record: &WorkingRecord<'_>,
) {
    image.clear();
    let mut builder = ImageBuilder::begin(image, header, set, key);
    record.build(&mut builder);
    builder.finish();
}

fn check_key(message: &Message<'_>, view: &ImageView<'_>) -> Result<(), ResultCode> {
    match (message.key, view.key()) {
        (Some(sent), Some(stored)) if sent != stored => Err(ResultCode::KeyMismatch),
        _ => Ok(()),
    }
}

/// Policies that a UDF call may not carry (PROTOCOL section 8).
pub(crate) fn has_write_policy(message: &Message<'_>) -> bool {
    let header = &message.header;
    header.info2 & (info2::GENERATION | info2::GENERATION_GT | info2::CREATE_ONLY) != 0
        || header.info3 & (info3::UPDATE_ONLY | info3::CREATE_OR_REPLACE | info3::REPLACE_ONLY) != 0
}
