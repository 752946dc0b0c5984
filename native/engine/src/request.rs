//! What a single-record request meets in the engine: reads, writes, deletes, and the way into Lua. A request runs from
//! the top until it is answered; when it has to wait, it says for what, and is run again afterwards.

use std::cell::RefCell;

use perigee_wire::{
    Digest, Message, ReplyWriter, ResultCode, TTL_SECONDS_MAX, info1, info2, info3, ttl,
    write_simple_reply,
};

use crate::device_copy::DeviceCopy;
use crate::index::{Entry, Location, flag};
use crate::namespace::Namespace;
use crate::partition::{Admission, PartitionState, Waiter};
use crate::record::image::{ImageBuilder, ImageHeader, ImageView, image_flag};
use crate::record::operation::{WorkingRecord, WriteRules, apply, check_read, reply_bins};
use crate::sets::SetInfo;
use crate::stats::count;
use crate::storage::CommitTicket;
use crate::udf::UdfTask;

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

/// How an accepted version stands to the one that is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Newer,
    /// Equal in time and generation, and of greater content than the stored one, which won so many ties itself.
    TieWon {
        before: u8,
    },
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

    fn read(&self, request: &Request<'_>, reply: &mut ReplyWriter<'_>) -> Result<Done, Stop> {
        let message = request.message;
        check_read(message)?;
        let bytes_max = self.config.max_record_size.get() as usize;
        let now = self.clock.wall_seconds();
        let mut state = self.partition(request.digest).lock();
        let entry = state
            .table
            .get(request.digest)
            .filter(|entry| self.is_live(entry, now))
            .ok_or(ResultCode::NotFound)?;
        let checks_key = message.key.is_some() && entry.flags & flag::KEY_STORED != 0;
        // A touch keeps the generation, so its time alone tells it from the version that it replaces.
        let touch = self.touch_due(message, &entry, now)?.and_then(|void_time| {
            let time = state
                .updates
                .times
                .next(self.clock.now(), Some(entry.last_update_time + 1))?;
            Some((void_time, time))
        });
        let header_only = message.header.info1 & info1::GET_NO_BINS != 0;
        if header_only && !checks_key && touch.is_none() {
            return Ok(Done::of(entry.generation, entry.void_time, None));
        }
        let touched = IMAGE.with_borrow_mut(|next| {
            self.with_image(
                &entry,
                request.copy.as_ref(),
                |view| -> Result<bool, ResultCode> {
                    check_key(message, view)?;
                    reply_bins(view, message, reply)?;
                    let Some((void_time, time)) = touch else {
                        return Ok(false);
                    };
                    let header = ImageHeader {
                        digest: entry.digest,
                        last_update_time: time,
                        generation: entry.generation,
                        void_time,
                        flags: 0,
                    };
                    build(
                        next,
                        &header,
                        view.set_name(),
                        view.key(),
                        &WorkingRecord::of(view, bytes_max),
                    );
                    Ok(true)
                },
            )
        })??;
        if touched {
            self.store_touch(&mut state, &entry);
        }
        Ok(Done::of(entry.generation, entry.void_time, None))
    }

    /// The new void time, when a read is to prolong the record's life: less than the asked share of it remains.
    fn touch_due(
        &self,
        message: &Message<'_>,
        entry: &Entry,
        now: u32,
    ) -> Result<Option<u32>, ResultCode> {
        let percent = match message.header.record_ttl as i32 {
            0 => self.default_read_touch_ttl_pct(entry.set_id),
            -1 => 0,
            percent @ 1..=100 => percent as u32,
            _ => return Err(ResultCode::Parameter),
        };
        if percent == 0 || entry.void_time == 0 {
            return Ok(None);
        }
        let written = (entry.last_update_time / 1000) as u32;
        let life = entry.void_time.saturating_sub(written);
        let remaining = entry.void_time.saturating_sub(now);
        let due = u64::from(remaining) * 100 < u64::from(life) * u64::from(percent);
        Ok(due.then_some(now + life))
    }

    fn store_touch(&self, state: &mut PartitionState, entry: &Entry) {
        let stats = self.stats.mine();
        let set_is_full = self
            .sets
            .get(entry.set_id)
            .is_some_and(SetInfo::stop_writes);
        if state.updates.busy.contains(&entry.digest) || self.stop_writes() || set_is_full {
            count(&stats.read_touch_skip);
            return;
        }
        let stored =
            IMAGE.with_borrow_mut(|image| self.commit(state, Some(entry), image, entry.set_id));
        count(if stored.is_ok() {
            &stats.read_touch_success
        } else {
            &stats.read_touch_error
        });
    }

    fn write(&self, request: &Request<'_>, reply: &mut ReplyWriter<'_>) -> Result<Done, Stop> {
        let message = request.message;
        let rules = WriteRules::of(message)?;
        let bytes_max = self.config.max_record_size.get() as usize;
        let now = self.clock.wall_seconds();
        let mut state = self.partition(request.digest).lock();
        self.admit(&mut state, request)?;
        if self.stop_writes() {
            return Err(ResultCode::OutOfSpace.into());
        }
        let stored = state.table.get(request.digest);
        let live = stored.filter(|entry| self.is_live(entry, now));
        let standing = match message.lut {
            Some(time) => {
                self.check_truncation(message.set.unwrap_or_default(), time)?;
                self.check_conflict(request, time, stored.as_ref())?
            }
            None => Standing::Newer,
        };
        match live {
            Some(_) if rules.create_only => return Err(ResultCode::RecordExists.into()),
            None if rules.update_only || rules.replace_only || rules.must_exist => {
                return Err(ResultCode::NotFound.into());
            }
            _ => {}
        }
        check_generation(message, live.as_ref())?;
        let set = message.set.unwrap_or_default();
        let set_id = match &live {
            Some(entry) => entry.set_id,
            None => self.sets.id_of(set).ok_or(ResultCode::Forbidden)?,
        };
        self.check_set_limits(set_id)?;
        let void_time = self.void_time(message, live.as_ref(), set_id, now)?;
        let time = match message.lut {
            Some(time) => time,
            None => self.next_update_time(&mut state, stored.as_ref())?,
        };
        let header = self.next_header(request, time, live.as_ref(), void_time, standing);
        let mut make = |view: Option<&ImageView<'_>>| -> Result<bool, ResultCode> {
            if let Some(view) = view {
                check_key(message, view)?;
            }
            let mut record = match view {
                Some(view) if !rules.replaces => WorkingRecord::of(view, bytes_max),
                _ => WorkingRecord::empty(bytes_max),
            };
            apply(&mut record, message, &rules, reply)?;
            if record.is_empty() {
                return Ok(false);
            }
            let key = message.key.or(view.and_then(|view| view.key()));
            let set = view.map_or(set, |view| view.set_name());
            IMAGE.with_borrow_mut(|image| build(image, &header, set, key, &record));
            Ok(true)
        };
        // A replaced record is not read, unless it has a key to be checked and kept, or a set name to be kept.
        let reads_old = |entry: &Entry| {
            !rules.replaces
                || entry.flags & flag::KEY_STORED != 0
                || (entry.set_id != 0 && message.set.is_none())
        };
        let filled = match live.filter(reads_old) {
            Some(entry) => {
                self.with_image(&entry, request.copy.as_ref(), |view| make(Some(view)))?
            }
            None => make(None),
        }?;
        if !filled {
            let Some(entry) = live else {
                return Err(ResultCode::NotFound.into());
            };
            count(&self.stats.mine().deleted_last_bin);
            let ticket = self.remove(&mut state, request, Some(&entry), header.last_update_time)?;
            return Ok(Done::of(header.generation, 0, ticket));
        }
        let ticket = IMAGE
            .with_borrow_mut(|image| self.commit(&mut state, stored.as_ref(), image, set_id))?;
        Ok(Done::of(header.generation, void_time, Some(ticket)))
    }

    fn delete(&self, request: &Request<'_>) -> Result<Done, Stop> {
        let message = request.message;
        let now = self.clock.wall_seconds();
        let mut state = self.partition(request.digest).lock();
        self.admit(&mut state, request)?;
        let stored = state.table.get(request.digest);
        let live = stored.filter(|entry| self.is_live(entry, now));
        if let Some(time) = message.lut {
            self.check_conflict(request, time, stored.as_ref())?;
        } else if live.is_none() {
            return Err(ResultCode::NotFound.into());
        }
        check_generation(message, live.as_ref())?;
        if let Some(entry) =
            live.filter(|e| message.key.is_some() && e.flags & flag::KEY_STORED != 0)
        {
            self.with_image(&entry, request.copy.as_ref(), |view| {
                check_key(message, view)
            })??;
        }
        let time = match message.lut {
            Some(time) => time,
            None => self.next_update_time(&mut state, stored.as_ref())?,
        };
        let ticket = self.remove(&mut state, request, stored.as_ref(), time)?;
        Ok(Done::of(0, 0, ticket))
    }

    /// Removes a record: with a tombstone where someone has to learn of the delete later (a durable delete, a datacenter,
    /// a write by XDR that may come late) or an older version would come back, else from the index alone.
    fn remove(
        &self,
        state: &mut PartitionState,
        request: &Request<'_>,
        stored: Option<&Entry>,
        last_update_time: u64,
    ) -> Result<Option<CommitTicket>, Stop> {
        let message = request.message;
        let by_xdr = message.lut.is_some();
        let durable = message.header.info2 & info2::DURABLE_DELETE != 0;
        let covers = stored.is_some_and(|entry| entry.flags & flag::COVERS != 0);
        if !(durable || by_xdr || self.ships() || covers) {
            if let Some(entry) = stored {
                self.drop_entry(state, entry);
            }
            return Ok(None);
        }
        let set = message.set.unwrap_or_default();
        let set_id = match stored {
            Some(entry) => entry.set_id,
            None => self.sets.id_of(set).ok_or(ResultCode::Forbidden)?,
        };
        let header = ImageHeader {
            digest: *request.digest,
            last_update_time,
            generation: self.next_generation(message, stored),
            void_time: 0,
            flags: image_flag::TOMBSTONE
                | if by_xdr { image_flag::XDR_WRITE } else { 0 }
                | if durable { image_flag::DURABLE } else { 0 },
        };
        let make = |set: &[u8], key: Option<&[u8]>| {
            IMAGE
                .with_borrow_mut(|image| build(image, &header, set, key, &WorkingRecord::empty(0)));
        };
        // The key, once stored, stays with the tombstone: consumers of deletes name records by it.
        match stored.filter(|e| e.flags & flag::KEY_STORED != 0 || message.set.is_none()) {
            Some(entry) => {
                self.with_image(entry, request.copy.as_ref(), |view| {
                    make(view.set_name(), view.key())
                })?;
            }
            None => make(set, None),
        }
        let ticket = IMAGE.with_borrow_mut(|image| self.commit(state, stored, image, set_id))?;
        Ok(Some(ticket))
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

    /// Whether a change that came by XDR is newer than what is stored. The order is total, so that all sites agree:
    /// last-update time, then generation, then content.
    fn check_conflict(
        &self,
        request: &Request<'_>,
        time: u64,
        stored: Option<&Entry>,
    ) -> Result<Standing, Stop> {
        let message = request.message;
        if !self.clock.accepts(time) {
            count(&self.stats.mine().fail_xdr_forbidden);
            return Err(ResultCode::Forbidden.into());
        }
        self.clock.observe(time);
        let Some(stored) = stored else {
            return Ok(Standing::Newer);
        };
        let generation = self.next_generation(message, Some(stored));
        match (time, generation).cmp(&(stored.last_update_time, stored.generation)) {
            std::cmp::Ordering::Greater => Ok(Standing::Newer),
            std::cmp::Ordering::Less => Err(ResultCode::LostConflict.into()),
            std::cmp::Ordering::Equal => {
                let wins = self.with_image(stored, request.copy.as_ref(), |view| {
                    content_of_message(message) > content_of_image(view)
                })?;
                if wins {
                    let before = stored.version().ties;
                    Ok(Standing::TieWon { before })
                } else {
                    Err(ResultCode::LostConflict.into())
                }
            }
        }
    }

    fn next_header(
        &self,
        request: &Request<'_>,
        last_update_time: u64,
        live: Option<&Entry>,
        void_time: u32,
        standing: Standing,
    ) -> ImageHeader {
        let message = request.message;
        ImageHeader {
            digest: *request.digest,
            last_update_time,
            generation: self.next_generation(message, live),
            void_time,
            flags: match (message.lut, standing) {
                (None, _) => 0,
                (Some(_), Standing::Newer) => image_flag::XDR_WRITE,
                (Some(_), Standing::TieWon { before }) => {
                    image_flag::XDR_WRITE | image_flag::ties(before + 1)
                }
            },
        }
    }

    /// The generation of the next version: one more than the last (1 to 65535, then 1 again); by XDR the source's, so
    /// that the sites end equal.
    fn next_generation(&self, message: &Message<'_>, old: Option<&Entry>) -> u16 {
        match message.header.generation as u16 {
            source @ 1.. if message.lut.is_some() => source,
            _ => following_generation(old),
        }
    }

    /// The last-update time of the next local version. Never before the version that it replaces; past it when the
    /// generation starts again, since a tie of times is decided by that: after a tombstone, an expiry, a wrap.
    pub(crate) fn next_update_time(
        &self,
        state: &mut PartitionState,
        stored: Option<&Entry>,
    ) -> Result<u64, ResultCode> {
        let least = stored.map(|entry| {
            let restarts =
                !self.is_live(entry, self.clock.wall_seconds()) || entry.generation == u16::MAX;
            entry.last_update_time + u64::from(restarts)
        });
        state
            .updates
            .times
            .next(self.clock.now(), least)
            .ok_or(ResultCode::KeyBusy)
    }

    fn void_time(
        &self,
        message: &Message<'_>,
        live: Option<&Entry>,
        set_id: u16,
        now: u32,
    ) -> Result<u32, ResultCode> {
        if message.header.record_ttl == ttl::DONT_UPDATE && live.is_some() {
            return Ok(live.map_or(0, |entry| entry.void_time));
        }
        self.void_time_of(message.header.record_ttl, set_id, now)
    }

    /// The void time for a ttl as the protocol states it (seconds, or one of its special values).
    pub(crate) fn void_time_of(
        &self,
        record_ttl: u32,
        set_id: u16,
        now: u32,
    ) -> Result<u32, ResultCode> {
        let seconds = match record_ttl {
            ttl::NEVER => 0,
            ttl::DEFAULT | ttl::DONT_UPDATE => self.default_ttl(set_id),
            seconds if seconds > TTL_SECONDS_MAX => return Err(ResultCode::Parameter),
            seconds => seconds,
        };
        let removed = self.config.nsup_period.get() > 0 || self.config.allow_ttl_without_nsup.get();
        if seconds != 0 && !removed {
            return Err(ResultCode::Forbidden);
        }
        Ok(if seconds == 0 { 0 } else { now + seconds })
    }

    /// Seconds; 0 never expires.
    fn default_ttl(&self, set_id: u16) -> u32 {
        let of_set = self
            .sets
            .get(set_id)
            .map(|set| set.config.default_ttl.get());
        match of_set {
            None | Some(0) => self.config.default_ttl.get(),
            Some(seconds) => seconds,
        }
    }

    fn default_read_touch_ttl_pct(&self, set_id: u16) -> u32 {
        let of_set = self.sets.get(set_id);
        match of_set.map(|set| set.config.default_read_touch_ttl_pct.get()) {
            None | Some(0) => u32::from(self.config.default_read_touch_ttl_pct.get()),
            Some(percent) => u32::try_from(percent).unwrap_or(0),
        }
    }

    /// A set that has reached its limits takes no writes, not even such as would make records smaller; deletes go on.
    pub(crate) fn check_set_limits(&self, set_id: u16) -> Result<(), ResultCode> {
        match self.sets.get(set_id) {
            Some(set) if set.stop_writes() => {
                count(&self.stats.mine().fail_set_stop_writes);
                Err(ResultCode::Forbidden)
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn following_generation(old: Option<&Entry>) -> u16 {
    match old.map_or(0, |entry| entry.generation) {
        u16::MAX => 1,
        generation => generation + 1,
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

fn check_generation(message: &Message<'_>, live: Option<&Entry>) -> Result<(), ResultCode> {
    let flags = message.header.info2;
    let sent = message.header.generation;
    let stored = live.map_or(0, |entry| u32::from(entry.generation));
    let refused = (flags & info2::GENERATION != 0 && sent != stored)
        || (flags & info2::GENERATION_GT != 0 && sent <= stored);
    if refused {
        Err(ResultCode::Generation)
    } else {
        Ok(())
    }
}

/// What two versions of equal time and generation are compared by: a tombstone is less than any record, then bins in
/// name order. Both sides of a conflict compute the same from what they hold.
type Content<'a> = (bool, Vec<(&'a [u8], u8, &'a [u8])>);

fn content_of_message<'a>(message: &Message<'a>) -> Content<'a> {
    let record = message.header.info2 & info2::DELETE == 0;
    let mut bins: Vec<_> = message
        .ops
        .into_iter()
        .map(|op| (op.name, op.particle, op.value))
        .collect();
    bins.sort_unstable();
    (record, bins)
}

fn content_of_image<'a>(view: &ImageView<'a>) -> Content<'a> {
    let record = view.flags() & image_flag::TOMBSTONE == 0;
    let mut bins: Vec<_> = view
        .bins()
        .map(|bin| (bin.name, bin.particle, bin.value))
        .collect();
    bins.sort_unstable();
    (record, bins)
}

/// Policies that a UDF call may not carry (PROTOCOL section 8).
pub(crate) fn has_write_policy(message: &Message<'_>) -> bool {
    let header = &message.header;
    header.info2 & (info2::GENERATION | info2::GENERATION_GT | info2::CREATE_ONLY) != 0
        || header.info3 & (info3::UPDATE_ONLY | info3::CREATE_OR_REPLACE | info3::REPLACE_ONLY) != 0
}
