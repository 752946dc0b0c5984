//! What a single-record request meets in the engine: reads, writes, deletes, and the way into Lua. A request runs from
//! the top until it is answered; when it has to wait, it says for what, and is run again afterwards.

mod conflict;
mod read;
mod version;
mod write;

use std::cell::RefCell;

use perigee_wire::{
    Digest, Message, ReplyWriter, ResultCode, info1, info2, info3, write_simple_reply,
};

use crate::device_copy::DeviceCopy;
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
        let header = &request.message.header;
        let Some(kind) = Kind::of(request.message) else {
            write_simple_reply(out, ResultCode::Parameter, 0, 0);
            count(&self.stats.mine().client_tsvc_error);
            return Outcome::Answered;
        };
        if let Some(code) = self.refusal(request, kind) {
            write_simple_reply(out, code, 0, 0);
            count(&self.stats.mine().client_tsvc_error);
            return Outcome::Answered;
        }
        if kind == Kind::Udf {
            return match self.begin_udf(request) {
                Ok(task) => Outcome::RunUdf(Box::new(task)),
                Err(stop) => self.stopped(stop, kind, false, out),
            };
        }
        let xdr = header.info1 & info1::XDR != 0;
        let start = out.len();
        let mut reply = ReplyWriter::begin(out);
        let result = match kind {
            Kind::Read => self.read(request, &mut reply),
            Kind::Delete => self.delete(request),
            Kind::Write | Kind::Udf => self.write(request, &mut reply),
        };
        match result {
            Ok(done) => {
                reply.finish(ResultCode::Ok, u32::from(done.generation), done.void_time);
                self.count_outcome(kind, xdr, ResultCode::Ok);
                match done.ticket {
                    Some(ticket) => Outcome::AwaitCommit(ticket),
                    None => Outcome::Answered,
                }
            }
            Err(stop) => {
                reply.abandon();
                debug_assert_eq!(out.len(), start);
                self.stopped(stop, kind, xdr, out)
            }
        }
    }

    fn stopped(&self, stop: Stop, kind: Kind, xdr: bool, out: &mut Vec<u8>) -> Outcome {
        match stop {
            Stop::Refused(code) => {
                write_simple_reply(out, code, 0, 0);
                self.count_outcome(kind, xdr, code);
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
        if message.filter.is_some() || message.mrt_id.is_some() {
            return Some(ResultCode::UnsupportedFeature);
        }
        if kind != Kind::Read && message.lut.is_some() != (message.header.info1 & info1::XDR != 0) {
            return Some(ResultCode::Parameter);
        }
        None
    }

    fn count_outcome(&self, kind: Kind, xdr: bool, code: ResultCode) {
        let stats = self.stats.mine();
        count(match (kind, code) {
            (Kind::Read, ResultCode::Ok) => &stats.client_read_success,
            (Kind::Read, ResultCode::NotFound) => &stats.client_read_not_found,
            (Kind::Read, ResultCode::Timeout) => &stats.client_read_timeout,
            (Kind::Read, _) => &stats.client_read_error,
            (Kind::Delete, ResultCode::Ok) if xdr => &stats.xdr_client_delete_success,
            (Kind::Delete, ResultCode::NotFound) if xdr => &stats.xdr_client_delete_not_found,
            (Kind::Delete, _) if xdr => &stats.xdr_client_delete_error,
            (Kind::Delete, ResultCode::Ok) => &stats.client_delete_success,
            (Kind::Delete, ResultCode::NotFound) => &stats.client_delete_not_found,
            (Kind::Delete, ResultCode::Timeout) => &stats.client_delete_timeout,
            (Kind::Delete, _) => &stats.client_delete_error,
            (Kind::Write, ResultCode::Ok) if xdr => &stats.xdr_client_write_success,
            (Kind::Write, _) if xdr => &stats.xdr_client_write_error,
            (Kind::Write, ResultCode::Ok) => &stats.client_write_success,
            (Kind::Write, ResultCode::Timeout) => &stats.client_write_timeout,
            (Kind::Write, _) => &stats.client_write_error,
            (Kind::Udf, ResultCode::Ok) => &stats.client_udf_complete,
            (Kind::Udf, ResultCode::Timeout) => &stats.client_udf_timeout,
            (Kind::Udf, _) => &stats.client_udf_error,
        });
        match code {
            ResultCode::Generation => count(&stats.fail_generation),
            ResultCode::KeyBusy => count(&stats.fail_key_busy),
            ResultCode::LostConflict => count(&stats.fail_xdr_lost_conflict),
            _ => {}
        }
    }

    /// Counts a request that the service gave up on while it was parked.
    pub fn count_timeout(&self, message: &Message<'_>) {
        if let Some(kind) = Kind::of(message) {
            self.count_outcome(kind, false, ResultCode::Timeout);
        }
    }

    /// Counts a request whose record the device did not give.
    pub(crate) fn count_unread(&self, message: &Message<'_>) {
        if let Some(kind) = Kind::of(message) {
            let xdr = message.header.info1 & info1::XDR != 0;
            self.count_outcome(kind, xdr, ResultCode::Unknown);
        }
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
