//! What an expression sees of a record.

/// A digest's bytes.
pub const DIGEST_BYTES: usize = 20;

/// What is known of a record without reading it.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    pub digest: &'a [u8; DIGEST_BYTES],
    /// Empty where the record is in no set.
    pub set: &'a [u8],
    /// Milliseconds since 2010-01-01.
    pub last_update_time: u64,
    /// Seconds since 2010-01-01; 0 of a record that does not expire.
    pub void_time: u32,
    /// The present, in milliseconds since 2010-01-01: one moment for a whole evaluation.
    pub now: u64,
    /// Whether the key is stored.
    pub has_key: bool,
    pub is_tombstone: bool,
    /// On devices; 0 of a namespace in memory.
    pub device_bytes: u64,
    /// In memory; 0 of a namespace on devices.
    pub memory_bytes: u64,
    pub record_bytes: u64,
}

/// The answer to a question about what is stored with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup<T> {
    Found(T),
    Absent,
    /// The record has not been read, so nobody knows.
    Unread,
}

impl<T> From<Option<T>> for Lookup<T> {
    fn from(found: Option<T>) -> Lookup<T> {
        found.map_or(Lookup::Absent, Lookup::Found)
    }
}

/// A record as an expression sees it. Keys and bins are particle types with values.
pub trait RecordView {
    fn metadata(&self) -> Metadata<'_>;
    fn key(&self) -> Lookup<(u8, &[u8])>;
    fn bin(&self, name: &[u8]) -> Lookup<(u8, &[u8])>;

    /// The index that is stored with a bin's list or map, if it is a large one; whatever is found by it is found without it.
    fn bin_index(&self, _name: &[u8]) -> Option<&[u8]> {
        None
    }
}

/// A record that has not been read: for the pass of a filter that may spare the read.
#[derive(Clone, Copy, Debug)]
pub struct MetadataOnly<'a>(pub Metadata<'a>);

impl RecordView for MetadataOnly<'_> {
    fn metadata(&self) -> Metadata<'_> {
        self.0
    }

    fn key(&self) -> Lookup<(u8, &[u8])> {
        if self.0.has_key {
            Lookup::Unread
        } else {
            Lookup::Absent
        }
    }

    fn bin(&self, _name: &[u8]) -> Lookup<(u8, &[u8])> {
        if self.0.is_tombstone {
            Lookup::Absent
        } else {
            Lookup::Unread
        }
    }
}
