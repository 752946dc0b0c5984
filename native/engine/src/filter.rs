//! Filters of requests: what an expression sees of a stored record, first without reading it.

use perigee_wire::ResultCode;

use crate::expression::{Expression, Lookup, Metadata, MetadataOnly, RecordView, Trilean};
use crate::index::{Entry, flag};
use crate::namespace::Namespace;
use crate::record::image::{ImageView, image_flag};
use crate::secondary_index::IndexQuery;

/// A record that was read.
pub struct StoredRecord<'a> {
    pub view: &'a ImageView<'a>,
    pub metadata: Metadata<'a>,
}

impl RecordView for StoredRecord<'_> {
    fn metadata(&self) -> Metadata<'_> {
        self.metadata
    }

    fn key(&self) -> Lookup<(u8, &[u8])> {
        let key = self.view.key().and_then(<[u8]>::split_first);
        key.map(|(kind, bytes)| (*kind, bytes)).into()
    }

    fn bin(&self, name: &[u8]) -> Lookup<(u8, &[u8])> {
        let found = self.view.bins().find(|bin| bin.name == name);
        found.map(|bin| (bin.particle, bin.value)).into()
    }

    fn bin_index(&self, name: &[u8]) -> Option<&[u8]> {
        self.view.bins().find(|bin| bin.name == name)?.index
    }
}

/// What a record has to be for a request to be carried out on it.
#[derive(Clone, Copy)]
pub struct Filter<'a> {
    expression: Option<&'a Expression>,
    /// It has a value in the range that a query asks for.
    index: Option<&'a IndexQuery>,
}

impl<'a> Filter<'a> {
    pub fn of(expression: &'a Expression) -> Filter<'a> {
        Filter {
            expression: Some(expression),
            index: None,
        }
    }

    /// `None` if every record will do.
    pub(crate) fn of_query(
        expression: Option<&'a Expression>,
        index: Option<&'a IndexQuery>,
    ) -> Option<Filter<'a>> {
        let index = index.filter(|index| index.has_predicate());
        let is_one = expression.is_some() || index.is_some();
        is_one.then_some(Filter { expression, index })
    }
}

/// What a filter says before a record is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unread {
    Passes,
    /// Only the record itself can tell.
    Depends,
}

impl Namespace {
    /// What is known of a record by its index entry alone.
    pub(crate) fn metadata<'e>(&'e self, entry: &'e Entry) -> Metadata<'e> {
        let bytes = entry.location.bytes() as u64;
        let in_memory = self.store.is_volatile();
        Metadata {
            digest: &entry.digest,
            set: self.sets.get(entry.set_id).map_or(b"", |set| &set.name),
            last_update_time: entry.last_update_time,
            void_time: entry.void_time,
            now: self.clock.wall_ms(),
            has_key: entry.flags & flag::KEY_STORED != 0,
            is_tombstone: entry.flags & flag::TOMBSTONE != 0,
            device_bytes: if in_memory { 0 } else { bytes },
            memory_bytes: if in_memory { bytes } else { 0 },
            record_bytes: bytes,
        }
    }

    /// Whether a record passes, as far as its index entry tells. FILTERED_OUT if it does not.
    pub(crate) fn filter_unread(
        &self,
        filter: Option<Filter<'_>>,
        entry: &Entry,
    ) -> Result<Unread, ResultCode> {
        let passes = match filter.and_then(|filter| filter.index) {
            None => Unread::Passes,
            Some(_) => Unread::Depends,
        };
        let Some(filter) = filter.and_then(|filter| filter.expression) else {
            return Ok(passes);
        };
        match filter.filter(&MetadataOnly(self.metadata(entry))) {
            Trilean::True => Ok(passes),
            Trilean::False => Err(ResultCode::FilteredOut),
            Trilean::Unknown if filter.needs_bins() || filter.needs_key() => Ok(Unread::Depends),
            Trilean::Unknown => Err(ResultCode::FilteredOut),
        }
    }

    /// Whether a record passes that was read. FILTERED_OUT if it does not.
    pub(crate) fn filter_read(
        &self,
        filter: Option<Filter<'_>>,
        entry: &Entry,
        view: &ImageView<'_>,
    ) -> Result<(), ResultCode> {
        let Some(Filter { expression, index }) = filter else {
            return Ok(());
        };
        let metadata = self.metadata(entry);
        debug_assert_eq!(
            metadata.is_tombstone,
            view.flags() & image_flag::TOMBSTONE != 0
        );
        let record = StoredRecord { view, metadata };
        let passes = index.is_none_or(|index| index.matches(&record))
            && expression.is_none_or(|filter| filter.filter(&record) == Trilean::True);
        if passes {
            Ok(())
        } else {
            Err(ResultCode::FilteredOut)
        }
    }
}
