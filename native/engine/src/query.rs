//! A query: the records of a partition in digest order, piece by piece: all of them, or those that a secondary index finds. A piece ends where its budget does,
//! or where the next record must be read from the device; the cursor says where the next one begins, so the partition is
//! unlocked between two.

use std::collections::hash_map::Entry::Vacant;
use std::collections::{HashMap, VecDeque};

use perigee_wire::{
    Digest, Message, Op, PartitionId, ReplyHeader, ReplyWriter, ResultCode, field, info1, op,
};

use crate::device_copy::{DeviceCopy, Unread};
use crate::expression::{Expression, Metadata};
use crate::filter::{self, Filter, StoredRecord};
use crate::index::{self, Entry, Location, PartitionTable, Version, WithPrefix, flag, prefix_of};
use crate::namespace::Namespace;
use crate::partition::PartitionState;
use crate::record::bin_operation;
use crate::record::image::ImageView;
use crate::record::operation::unsupported_operation;
use crate::secondary_index::IndexQuery;
use crate::stats::count;
use crate::storage::{ReadNow, Store};

/// The value of an index that goes with the digest of a record that was found by it, as a place to go on from: digests are
/// enough for that, since records come in their order. Not 0, which clients send that never had a place from us.
pub const PLACE_BY_DIGEST: u64 = 1;

/// Device reads of one query that are under way, or done and not yet answered, at once.
const READ_AHEAD_RECORDS_MAX: usize = 32;
/// Index entries that are looked at for them, under the partition's lock.
const READ_AHEAD_VISITS_MAX: usize = 1024;
/// Their bytes together; a single record may have more.
const READ_AHEAD_BYTES_MAX: usize = 4 << 20;

/// What a query asks for.
pub struct RecordQuery {
    set: SetChoice,
    pub(crate) bins: BinChoice,
    filter: Option<Expression>,
    index: Option<IndexQuery>,
}

enum SetChoice {
    All,
    Id(u16),
    /// A set that has no records.
    Unknown,
}

pub(crate) enum BinChoice {
    All,
    Header,
    /// Sorted, without repetitions: a bin that is asked for twice is sent once.
    Named(Box<[Box<[u8]>]>),
    /// The results of reading operations, in their order.
    Results(Box<[Projection]>),
}

impl BinChoice {
    /// Whether a bin is sent as it is.
    pub fn has(&self, name: &[u8]) -> bool {
        match self {
            BinChoice::All => true,
            BinChoice::Named(names) => names.binary_search_by(|it| (**it).cmp(name)).is_ok(),
            BinChoice::Header | BinChoice::Results(_) => false,
        }
    }
}

/// A reading operation of a query.
pub(crate) struct Projection {
    code: u8,
    particle: u8,
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Projection {
    fn operation(&self) -> Op<'_> {
        Op {
            code: self.code,
            particle: self.particle,
            name: &self.name,
            value: &self.value,
            lut: None,
        }
    }
}

/// Where a query is in a partition.
pub struct PartitionCursor {
    pub partition: PartitionId,
    /// Behind this digest, or at the start.
    after: Option<Digest>,
    /// Prefixes of the records that an index had in the range, ascending: all of them as of one moment, so that a record
    /// that changes while the query goes on is neither missed nor met twice.
    found: Option<Box<[u64]>>,
}

impl PartitionCursor {
    /// Behind `after`, or at the start.
    pub fn new(partition: PartitionId, after: Option<Digest>) -> PartitionCursor {
        PartitionCursor {
            partition,
            after,
            found: None,
        }
    }

    /// The last record that was looked at.
    pub fn after(&self) -> Option<&Digest> {
        self.after.as_ref()
    }
}

/// The entries that a query looks at, in digest order.
enum Candidates<'a> {
    All(index::Iter<'a>),
    Found {
        table: &'a PartitionTable,
        prefixes: std::slice::Iter<'a, u64>,
        here: Option<WithPrefix<'a>>,
        after: Option<Digest>,
    },
}

impl<'a> Candidates<'a> {
    fn of(state: &'a PartitionState, after: Option<Digest>, found: Option<&'a [u64]>) -> Self {
        let table = &state.table;
        let Some(found) = found else {
            return Candidates::All(table.iter_after(after.as_ref()));
        };
        let least = after.as_ref().map_or(0, prefix_of);
        let from = found.partition_point(|prefix| *prefix < least);
        Candidates::Found {
            table,
            prefixes: found[from..].iter(),
            here: None,
            after,
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        match self {
            Candidates::All(entries) => entries.next(),
            Candidates::Found {
                table,
                prefixes,
                here,
                after,
            } => loop {
                let is_due = |entry: &Entry| after.is_none_or(|after| entry.digest > after);
                if let Some(entry) = here.as_mut().and_then(|here| here.find(is_due)) {
                    return Some(entry);
                }
                *here = Some(table.with_prefix(*prefixes.next()?));
            },
        }
    }
}

/// Entries whose records are asked for from memory before the first of them is looked at.
const PREFETCH_RECORDS: usize = 8;

/// Entries in their order, while the records of the next ones are on their way from memory.
struct Prefetched<'a, I> {
    entries: I,
    store: &'a Store,
    next: VecDeque<Entry>,
}

impl<'a, I: Iterator<Item = Entry>> Prefetched<'a, I> {
    fn of(entries: I, store: &'a Store) -> Self {
        let next = VecDeque::with_capacity(PREFETCH_RECORDS);
        Prefetched {
            entries,
            store,
            next,
        }
    }
}

impl<I: Iterator<Item = Entry>> Iterator for Prefetched<'_, I> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        while self.next.len() < PREFETCH_RECORDS
            && let Some(entry) = self.entries.next()
        {
            self.store.prefetch(entry.location);
            self.next.push_back(entry);
        }
        self.next.pop_front()
    }
}

/// How much a piece may still do; each piece reduces it.
pub struct QueryBudget {
    /// Index entries that are looked at.
    pub visits: usize,
    /// Records that are sent.
    pub records: u64,
    /// Bytes of them. The last record may exceed it.
    pub bytes: usize,
}

impl QueryBudget {
    /// Takes a part out of the budget, `most` at most. What is left of it is given back.
    pub fn take(&mut self, most: &QueryBudget) -> QueryBudget {
        let part = QueryBudget {
            visits: self.visits.min(most.visits),
            records: self.records.min(most.records),
            bytes: self.bytes.min(most.bytes),
        };
        self.visits -= part.visits;
        self.records -= part.records;
        self.bytes -= part.bytes;
        part
    }

    pub fn give_back(&mut self, part: &QueryBudget) {
        self.visits += part.visits;
        self.records += part.records;
        self.bytes += part.bytes;
    }

    pub fn is_spent(&self) -> bool {
        self.visits == 0 || self.records == 0 || self.bytes == 0
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum PieceEnd {
    /// The partition has no further records.
    Done,
    /// The budget is spent.
    Budget,
    /// The next record lies on the device. The listed reads are to be made and delivered to the read-ahead; others may be
    /// on their way already.
    NeedsDevice(Vec<AskedRead>),
    /// The secondary index was dropped.
    NoIndex,
}

/// A read that a query asked for. Its number tells it from an earlier one of the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedRead {
    pub location: Location,
    number: u64,
}

/// Records of one query that are being read from the device.
#[derive(Default)]
pub struct ReadAhead {
    reads: HashMap<Location, Ahead>,
    asked: u64,
    failure_logged: bool,
}

/// The record that a read is for, and what became of it. Where that record lay another may lie by now: a query can wait
/// for its peer, or its pace, longer than a block takes to be used again.
struct Ahead {
    digest: Digest,
    version: Version,
    number: u64,
    read: Read,
}

enum Read {
    UnderWay,
    Done(DeviceCopy<'static>),
    Failed(Unread),
}

impl Ahead {
    fn is_for(&self, entry: &Entry) -> bool {
        self.digest == entry.digest && self.version == entry.version()
    }
}

impl ReadAhead {
    /// Takes what was read. What is no longer wanted is dropped.
    pub fn deliver(&mut self, asked: AskedRead, read: Result<DeviceCopy<'_>, Unread>) {
        let slot = self.reads.get_mut(&asked.location);
        if let Some(slot) = slot.filter(|slot| slot.number == asked.number) {
            slot.read = match read {
                Ok(copy) => Read::Done(copy.into_owned()),
                Err(unread) => Read::Failed(unread),
            };
        }
    }

    fn of(&self, entry: &Entry) -> Option<&Read> {
        let ahead = self.reads.get(&entry.location)?;
        ahead.is_for(entry).then_some(&ahead.read)
    }

    pub(crate) fn copy(&self, entry: &Entry) -> Option<&DeviceCopy<'static>> {
        match self.of(entry) {
            Some(Read::Done(copy)) => Some(copy),
            _ => None,
        }
    }

    /// Keeps what is wanted and nothing else, and returns what is not under way yet.
    fn want(&mut self, wanted: &[Entry]) -> Vec<AskedRead> {
        self.reads.retain(|location, ahead| {
            let mut wanted = wanted.iter();
            wanted.any(|entry| entry.location == *location && ahead.is_for(entry))
        });
        let mut new = Vec::new();
        for entry in wanted {
            let location = entry.location;
            if let Vacant(slot) = self.reads.entry(location) {
                self.asked += 1;
                let number = self.asked;
                slot.insert(Ahead {
                    digest: entry.digest,
                    version: entry.version(),
                    number,
                    read: Read::UnderWay,
                });
                new.push(AskedRead { location, number });
            }
        }
        new
    }
}

impl RecordQuery {
    /// What a message asks for (PROTOCOL section 10), or the code to refuse it with.
    pub fn of(namespace: &Namespace, message: &Message<'_>) -> Result<RecordQuery, ResultCode> {
        if message.header.info1 & info1::READ == 0 {
            return Err(ResultCode::Parameter);
        }
        let mut names = Vec::new();
        let mut projections = Vec::new();
        for operation in message.ops {
            match operation.code {
                op::READ if operation.name.is_empty() => return Err(ResultCode::Parameter),
                op::READ => names.push(operation.name.into()),
                code if bin_operation::is_read(code) => {}
                code => return Err(unsupported_operation(code)),
            }
            projections.push(Projection {
                code: operation.code,
                particle: operation.particle,
                name: operation.name.into(),
                value: operation.value.into(),
            });
        }
        let header_only = message.header.info1 & info1::GET_NO_BINS != 0;
        let bins = match names.is_empty() {
            _ if header_only => BinChoice::Header,
            _ if names.len() < projections.len() => BinChoice::Results(projections.into()),
            true => BinChoice::All,
            false => {
                names.sort_unstable();
                names.dedup();
                BinChoice::Named(names.into())
            }
        };
        Ok(RecordQuery {
            bins,
            ..Self::selecting(namespace, message)?
        })
    }

    /// What a message asks for that changes records in the background, without anything being sent of them.
    pub fn in_background(
        namespace: &Namespace,
        message: &Message<'_>,
    ) -> Result<RecordQuery, ResultCode> {
        let calls = message.udf_function.is_some();
        let reads = |code: u8| code == op::READ || bin_operation::is_read(code);
        if calls != message.ops.is_empty() || message.ops.iter().any(|op| reads(op.code)) {
            return Err(ResultCode::Parameter);
        }
        Ok(RecordQuery {
            bins: BinChoice::Header,
            ..Self::selecting(namespace, message)?
        })
    }

    /// The records that a message names, with all their bins.
    fn selecting(namespace: &Namespace, message: &Message<'_>) -> Result<RecordQuery, ResultCode> {
        if message.mrt_id.is_some() {
            return Err(ResultCode::UnsupportedFeature);
        }
        let set = match message.set {
            None => SetChoice::All,
            Some(name) => match namespace.sets.find(name) {
                Some(id) => SetChoice::Id(id),
                None => SetChoice::Unknown,
            },
        };
        let index = match set {
            // Nothing is in it, whatever would find that.
            SetChoice::Unknown => None,
            SetChoice::All => IndexQuery::of(namespace, message)?,
            SetChoice::Id(id) => match IndexQuery::of(namespace, message)? {
                None => IndexQuery::of_set(namespace, id),
                index => index,
            },
        };
        Ok(RecordQuery {
            set,
            bins: BinChoice::All,
            filter: message.filter.map(Expression::compile_filter).transpose()?,
            index,
        })
    }

    /// The secondary index of a query with a range of values.
    pub fn index_name(&self) -> Option<&str> {
        let index = self.index.as_ref().filter(|index| index.has_predicate());
        index.map(IndexQuery::name)
    }

    /// Whether records are looked into to find out which ones match.
    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// What a record has to be, apart from being in the set.
    pub fn filter(&self) -> Option<Filter<'_>> {
        Filter::of_query(self.filter.as_ref(), self.index.as_ref())
    }

    fn is_in_set(&self, entry: &Entry) -> bool {
        match self.set {
            SetChoice::All => true,
            SetChoice::Id(id) => entry.set_id == id,
            SetChoice::Unknown => false,
        }
    }

    /// False if there is nothing to be sent: the query names bins, and the record has none of them.
    fn write_bins(
        &self,
        view: &ImageView<'_>,
        metadata: Metadata<'_>,
        reply: &mut ReplyWriter<'_>,
    ) -> bool {
        match &self.bins {
            BinChoice::Results(projections) => {
                let record = StoredRecord { view, metadata };
                for projection in projections {
                    let operation = projection.operation();
                    let bin = view.bins().find(|bin| bin.name == operation.name);
                    if operation.code == op::READ {
                        if let Some(bin) = bin {
                            reply.op(operation.name, bin.particle, bin.value);
                        }
                    } else if let Ok(Some((kind, value))) =
                        bin_operation::read(&operation, bin, &record)
                    {
                        // What cannot be computed of a record is left out of it, as a missing bin is.
                        reply.op(operation.name, kind, &value);
                    }
                }
            }
            BinChoice::Header => {}
            BinChoice::All => view
                .bins()
                .for_each(|bin| reply.op(bin.name, bin.particle, bin.value)),
            BinChoice::Named(_) => {
                let mut named = view.bins().filter(|bin| self.bins.has(bin.name)).peekable();
                let has_any = named.peek().is_some();
                named.for_each(|bin| reply.op(bin.name, bin.particle, bin.value));
                return has_any;
            }
        }
        true
    }
}

impl Namespace {
    /// Appends records from the cursor on, each a message of its own for a frame that the caller owns, and moves the
    /// cursor. Expired records, tombstones and records of other sets are left out; so are records that the device does
    /// not give back, which are counted.
    pub fn query_piece(
        &self,
        query: &RecordQuery,
        cursor: &mut PartitionCursor,
        budget: &mut QueryBudget,
        reads: &mut ReadAhead,
        out: &mut Vec<u8>,
    ) -> PieceEnd {
        self.piece(
            query,
            cursor,
            budget,
            reads,
            out,
            |entry, unread, reads, out| self.write_query_record(query, entry, unread, reads, out),
        )
    }

    /// Goes over the records of a piece. `write` appends one, if it passes the query's filter, or says where it is to be read.
    pub(crate) fn piece(
        &self,
        query: &RecordQuery,
        cursor: &mut PartitionCursor,
        budget: &mut QueryBudget,
        reads: &mut ReadAhead,
        out: &mut Vec<u8>,
        write: impl Fn(&Entry, filter::Unread, &ReadAhead, &mut Vec<u8>) -> Result<bool, Location>,
    ) -> PieceEnd {
        if let Some(end) = self.find_by_index(query, cursor) {
            return end;
        }
        let now = self.clock.wall_seconds();
        let state = self.partitions()[cursor.partition.index()].lock();
        let PartitionCursor { after, found, .. } = cursor;
        let entries = Candidates::of(&state, *after, found.as_deref());
        let mut entries = Prefetched::of(entries, &self.store);
        loop {
            if budget.is_spent() {
                return PieceEnd::Budget;
            }
            let Some(entry) = entries.next() else {
                return PieceEnd::Done;
            };
            budget.visits -= 1;
            if let Some(unread) = self.may_match(query, &entry, now) {
                let start = out.len();
                match write(&entry, unread, reads, out) {
                    Ok(false) => {}
                    Ok(true) => {
                        budget.records -= 1;
                        budget.bytes = budget.bytes.saturating_sub(out.len() - start);
                    }
                    Err(location) => {
                        let (damaged, reason) = match reads.of(&entry) {
                            Some(Read::Failed(unread)) => (unread.damaged, &*unread.reason),
                            Some(Read::Done(_)) => (true, "another record's bytes lie there"),
                            Some(Read::UnderWay) | None => {
                                let from_here = Candidates::of(&state, *after, found.as_deref());
                                let wanted = self.to_be_read(query, from_here, now);
                                return PieceEnd::NeedsDevice(reads.want(&wanted));
                            }
                        };
                        count(&self.stats.mine().query_unreadable_records);
                        if damaged {
                            self.store.tell_damage(location);
                        }
                        if !reads.failure_logged {
                            tracing::error!(namespace = %self.name, reason, "a query leaves out records that cannot be read; this is the first");
                        }
                        reads.failure_logged = true;
                    }
                }
            }
            *after = Some(entry.digest);
        }
    }

    /// Digests of records from the cursor on, which moves: of those that may pass the query's filter, as far as that is known
    /// without reading them. Takes `visits` and `records` of the budget.
    pub fn select_piece(
        &self,
        query: &RecordQuery,
        cursor: &mut PartitionCursor,
        budget: &mut QueryBudget,
        selected: &mut Vec<Digest>,
    ) -> PieceEnd {
        if let Some(end) = self.find_by_index(query, cursor) {
            return end;
        }
        let now = self.clock.wall_seconds();
        let state = self.partitions()[cursor.partition.index()].lock();
        let PartitionCursor { after, found, .. } = cursor;
        for entry in Candidates::of(&state, *after, found.as_deref()) {
            if budget.is_spent() {
                return PieceEnd::Budget;
            }
            budget.visits -= 1;
            if self.may_match(query, &entry, now).is_some() {
                budget.records -= 1;
                selected.push(entry.digest);
            }
            *after = Some(entry.digest);
        }
        PieceEnd::Done
    }

    /// Has the cursor's partition searched by the query's index, if it has one and that was not done yet. Returns how the
    /// piece ends where there is nothing to go over.
    fn find_by_index(&self, query: &RecordQuery, cursor: &mut PartitionCursor) -> Option<PieceEnd> {
        if matches!(query.set, SetChoice::Unknown) {
            return Some(PieceEnd::Done);
        }
        let index = query.index.as_ref().filter(|_| cursor.found.is_none())?;
        let found = index.find(&self.partitions()[cursor.partition.index()].lock());
        let Some(mut found) = found else {
            // Without an index of the set all records of the partition will do as well.
            return index.has_predicate().then_some(PieceEnd::NoIndex);
        };
        // With no lock held any more.
        found.sort_unstable();
        found.dedup();
        cursor.found = Some(found.into());
        None
    }

    /// Whether a record is of the query, as far as its index entry tells; the filter is asked last.
    fn may_match(&self, query: &RecordQuery, entry: &Entry, now: u32) -> Option<filter::Unread> {
        if !query.is_in_set(entry) || !self.is_live(entry, now) {
            return None;
        }
        self.filter_unread(query.filter(), entry).ok()
    }

    /// The next records that are not in memory, as many as are read at once.
    fn to_be_read(
        &self,
        query: &RecordQuery,
        entries: impl Iterator<Item = Entry>,
        now: u32,
    ) -> Vec<Entry> {
        let mut bytes = 0;
        let in_memory = |entry: &Entry| {
            let read = self.store.read(entry.location, |_| ());
            matches!(read, ReadNow::InMemory(()))
        };
        entries
            .take(READ_AHEAD_VISITS_MAX)
            .filter(|entry| self.may_match(query, entry, now).is_some())
            .filter(|entry| !in_memory(entry))
            .take(READ_AHEAD_RECORDS_MAX)
            .take_while(|entry| {
                let more = entry.location.bytes();
                let fits = bytes == 0 || bytes + more <= READ_AHEAD_BYTES_MAX;
                bytes += more;
                fits
            })
            .collect()
    }

    /// False if the record does not pass the query's filter, or has none of the bins that it names.
    fn write_query_record(
        &self,
        query: &RecordQuery,
        entry: &Entry,
        unread: filter::Unread,
        reads: &ReadAhead,
        out: &mut Vec<u8>,
    ) -> Result<bool, Location> {
        let mut reply = ReplyWriter::begin_part(out);
        reply.field(field::NAMESPACE, self.name.as_bytes());
        if let Some(set) = self.sets.get(entry.set_id) {
            reply.field(field::SET, &set.name);
        }
        reply.field(field::DIGEST, &entry.digest);
        let has_key = entry.flags & flag::KEY_STORED != 0;
        let depends = unread == filter::Unread::Depends;
        if query.index_name().is_some() {
            reply.field(field::BIN_VALUES_AFTER, &PLACE_BY_DIGEST.to_le_bytes());
        }
        if has_key || depends || !matches!(query.bins, BinChoice::Header) {
            let passes = self.with_image(entry, reads.copy(entry), |view| {
                if depends && self.filter_read(query.filter(), entry, view).is_err() {
                    return false;
                }
                if let Some(key) = view.key() {
                    reply.field(field::KEY, key);
                }
                query.write_bins(view, self.metadata(entry), &mut reply)
            })?;
            if !passes {
                reply.abandon();
                return Ok(false);
            }
        }
        reply.finish_with(ReplyHeader {
            generation: u32::from(entry.generation),
            void_time: entry.void_time,
            ..ReplyHeader::new(ResultCode::Ok)
        });
        Ok(true)
    }
}
