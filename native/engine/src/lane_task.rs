//! The header of a task on the UDF lane, and its bins: the layouts of "UDF lane" in docs/ARCHITECTURE.md.

use perigee_wire::Digest;

use crate::index::Entry;

pub(crate) const TASK_HEADER_BYTES: usize = 76;
pub(crate) const BIN_HEADER_BYTES: usize = 8;

mod task_flag {
    pub const RECORD_EXISTS: u8 = 1;
    pub const HAS_KEY: u8 = 2;
}

pub(crate) mod task_kind {
    pub const RECORD: u8 = 0;
    pub const CHUNK: u8 = 1;
    pub const REDUCE: u8 = 2;
}

/// What an index entry tells of a record.
#[derive(Clone, Copy)]
pub(crate) struct RecordFacts {
    exists: bool,
    last_update_time: u64,
    void_time: u32,
    ttl_seconds: u32,
    generation: u16,
}

impl RecordFacts {
    pub fn of(entry: &Entry, now: u32) -> RecordFacts {
        RecordFacts {
            exists: true,
            last_update_time: entry.last_update_time,
            void_time: entry.void_time,
            ttl_seconds: match entry.void_time {
                0 => u32::MAX,
                time => time.saturating_sub(now),
            },
            generation: entry.generation,
        }
    }

    pub fn none() -> RecordFacts {
        RecordFacts {
            exists: false,
            last_update_time: 0,
            void_time: 0,
            ttl_seconds: u32::MAX,
            generation: 0,
        }
    }
}

/// The header; lengths are of what follows it, in this order: namespace, set, key, module, function, arguments, and then
/// `count` bins, records or values.
pub(crate) struct TaskHeader {
    /// Of the whole task.
    pub bytes: u32,
    pub time_limit_ms: u32,
    pub task_id: u64,
    pub record: RecordFacts,
    pub has_key: bool,
    pub set_bytes: u8,
    pub stored_bytes: u32,
    pub count: u16,
    pub module_bytes: u8,
    pub function_bytes: u8,
    pub argument_bytes: u32,
    pub key_bytes: u32,
    pub digest: Digest,
    pub namespace_bytes: u8,
    pub kind: u8,
    /// Of a stream: what follows the first reduce is to be done too.
    pub is_final: bool,
}

impl Default for TaskHeader {
    fn default() -> Self {
        TaskHeader {
            bytes: TASK_HEADER_BYTES as u32,
            time_limit_ms: 0,
            task_id: 0,
            record: RecordFacts::none(),
            has_key: false,
            set_bytes: 0,
            stored_bytes: 0,
            count: 0,
            module_bytes: 0,
            function_bytes: 0,
            argument_bytes: 0,
            key_bytes: 0,
            digest: Digest::default(),
            namespace_bytes: 0,
            kind: task_kind::RECORD,
            is_final: false,
        }
    }
}

impl TaskHeader {
    pub fn append(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; TASK_HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        let exists = match self.record.exists {
            true => task_flag::RECORD_EXISTS,
            false => 0,
        };
        let has_key = match self.has_key {
            true => task_flag::HAS_KEY,
            false => 0,
        };
        put(&self.bytes.to_le_bytes());
        put(&self.time_limit_ms.to_le_bytes());
        put(&self.task_id.to_le_bytes());
        put(&self.record.last_update_time.to_le_bytes());
        put(&self.record.void_time.to_le_bytes());
        put(&self.record.ttl_seconds.to_le_bytes());
        put(&self.record.generation.to_le_bytes());
        put(&[exists | has_key, self.set_bytes]);
        put(&self.stored_bytes.to_le_bytes());
        put(&self.count.to_le_bytes());
        put(&[self.module_bytes, self.function_bytes]);
        put(&self.argument_bytes.to_le_bytes());
        put(&self.key_bytes.to_le_bytes());
        put(&self.digest);
        put(&[self.namespace_bytes, self.kind, u8::from(self.is_final), 0]);
        debug_assert_eq!(at, TASK_HEADER_BYTES);
        out.extend_from_slice(&bytes);
    }
}

pub(crate) fn append_bin(out: &mut Vec<u8>, name: &[u8], particle: u8, value: &[u8]) {
    out.extend_from_slice(&[name.len() as u8, particle, 0, 0]);
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// The values of a stream: bins without names, as `parse` of results has checked them.
pub(crate) fn values(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<BIN_HEADER_BYTES>()?;
        let value_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let rest = rest.get(usize::from(head[0])..)?;
        let (value, rest) = rest.split_at_checked(value_bytes)?;
        bytes = rest;
        Some((head[1], value))
    })
}
