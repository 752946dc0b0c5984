//! Keys: the numbers that a record is found by in an index.
//!
//! - Of an integer, one that orders as the integer does.
//! - Of a string or blob, a hash: equal values have equal keys, and a few others may, too.
//! - Of a point, the id of its smallest cell; of a region, the ids of cells that cover it.

use perigee_wire::msgpack::{self, Reader, read_order};
use perigee_wire::{INDEX_VALUE_BYTES_MAX, particle_type as particle};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::LazyLock;

use super::definition::{Collection, IndexDefinition, KeyType, Source};
use crate::expression::{Lookup, RecordView, Value};
use crate::record::geo::{CoveringLimits, Geometry, point_cell, stored_cells};

/// Regions in the list or map of one record that are indexed, and bytes of their texts. Others are neither indexed nor
/// found. What takes longest, lines that cross many others and are no polygon after all, takes a second then.
pub const REGIONS_MAX: usize = 1024;
pub const REGIONS_BYTES_MAX: usize = 512 << 10;

/// Of every record that an index of a set has.
const KEY_OF_SET: u64 = 0;

/// Keys are ordered as their values are.
pub fn key_of_integer(value: i64) -> u64 {
    value as u64 ^ 1 << (u64::BITS - 1)
}

/// The same for equal strings or blobs as long as the process lives.
pub fn key_of_bytes(bytes: &[u8]) -> u64 {
    // Who does not know what is drawn here cannot choose values whose keys are the same, to have queries look at them all.
    static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHES.hash_one(bytes)
}

/// Puts a record's keys into `keys`, in place of what is there: ascending, each once. They follow from the definition and
/// from the version of the record alone, whenever they are asked for. A tombstone has none, nor has a record of another
/// set, or one whose value is missing, or of another type, or a string or blob of more than
/// [`INDEX_VALUE_BYTES_MAX`] bytes.
pub fn keys_of(definition: &IndexDefinition, record: &dyn RecordView, keys: &mut Vec<u64>) {
    keys.clear();
    if !is_covered(definition, record) {
        return;
    }
    if matches!(definition.source, Source::Set) {
        keys.push(KEY_OF_SET);
        return;
    }
    if let Some(cells) = stored_location(definition, record) {
        keys.extend(cells);
    }
    if keys.is_empty() {
        let mut regions = Regions::default();
        let _ = visit_values(definition, record, &mut |value| {
            add_keys(definition.key_type, value, &mut regions, keys);
            ControlFlow::Continue(())
        });
    }
    keys.sort_unstable();
    keys.dedup();
}

fn add_keys(key_type: KeyType, value: &Value<'_>, regions: &mut Regions, keys: &mut Vec<u64>) {
    match (key_type, value) {
        (KeyType::Integer, Value::Int(value)) => keys.push(key_of_integer(*value)),
        (KeyType::String, Value::Str(bytes))
        | (KeyType::Blob, Value::Blob(particle::BLOB, bytes))
            if bytes.len() <= INDEX_VALUE_BYTES_MAX =>
        {
            keys.push(key_of_bytes(bytes));
        }
        (KeyType::Geo, Value::Geo(text)) => match point_cell(text) {
            Ok(Some(cell)) => keys.push(cell),
            Ok(None) if regions.admit(text) => {
                if let Ok(region) = Geometry::parse(text) {
                    keys.extend(region.cells(&CoveringLimits::default()));
                }
            }
            _ => {}
        },
        _ => {}
    }
}

/// Of a bin that is a location itself, the cells that are stored with it, so that they are not computed again.
fn stored_location(
    definition: &IndexDefinition,
    record: &dyn RecordView,
) -> Option<impl Iterator<Item = u64>> {
    let Source::Bin {
        name,
        context: None,
    } = &definition.source
    else {
        return None;
    };
    if (definition.collection, definition.key_type) != (Collection::None, KeyType::Geo) {
        return None;
    }
    match record.bin(name) {
        Lookup::Found((particle::GEOJSON, value)) => stored_cells(value).map(|(_, cells)| cells),
        _ => None,
    }
}

/// Counts the regions of a record as they are met, so that the same are indexed as are found.
#[derive(Default)]
pub(super) struct Regions {
    count: usize,
    bytes: usize,
}

impl Regions {
    /// Whether the next region is one that is indexed. The first one is, whatever its length.
    pub(super) fn admit(&mut self, text: &[u8]) -> bool {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(text.len());
        self.count == 1 || self.count <= REGIONS_MAX && self.bytes <= REGIONS_BYTES_MAX
    }
}

fn is_covered(definition: &IndexDefinition, record: &dyn RecordView) -> bool {
    let metadata = record.metadata();
    !metadata.is_tombstone && definition.covers_set(metadata.set)
}

/// Shows `visit` every value of a record that its keys are of, whatever its type is, until it breaks.
pub(super) fn visit_values(
    definition: &IndexDefinition,
    record: &dyn RecordView,
    visit: &mut dyn FnMut(&Value<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if !is_covered(definition, record) {
        return ControlFlow::Continue(());
    }
    match (definition.collection, value_of(definition, record)) {
        (Collection::None, Some(value)) => visit(&value),
        (Collection::List, Some(Value::List(bytes)))
        | (Collection::MapKeys | Collection::MapValues, Some(Value::Map(bytes))) => {
            visit_elements(&bytes, definition.collection, visit)
        }
        _ => ControlFlow::Continue(()),
    }
}

/// The value that the definition speaks of. None of one that is not there, or not known.
fn value_of<'v>(definition: &'v IndexDefinition, record: &'v dyn RecordView) -> Option<Value<'v>> {
    match &definition.source {
        Source::Bin { name, context } => {
            let Lookup::Found((kind, bytes)) = record.bin(name) else {
                return None;
            };
            match context {
                None => Value::of_particle(kind, bytes).ok(),
                Some(context) if matches!(kind, particle::LIST | particle::MAP) => {
                    Value::of_msgpack(context.find(bytes)?).ok()
                }
                Some(_) => None,
            }
        }
        Source::Expression(expression) => expression.eval(record).ok(),
        Source::Set => None,
    }
}

/// Values in a list or map, but not those within them.
fn visit_elements(
    container: &[u8],
    collection: Collection,
    visit: &mut dyn FnMut(&Value<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut reader = Reader::new(container);
    let items = match reader.read() {
        Ok(msgpack::Value::Array(counted)) => read_order(&mut reader, counted, false),
        Ok(msgpack::Value::Map(counted)) => read_order(&mut reader, counted, true),
        _ => return ControlFlow::Continue(()),
    };
    // What is stored is valid; what is not has no more values than were read.
    let (items, _) = items.unwrap_or_default();
    for _ in 0..items {
        let element = match collection {
            Collection::None | Collection::List => reader.skip(),
            Collection::MapKeys => reader.skip().and_then(|key| reader.skip().map(|_| key)),
            Collection::MapValues => reader.skip().and_then(|_| reader.skip()),
        };
        let Ok(element) = element else {
            break;
        };
        if let Ok(value) = Value::of_msgpack(element) {
            visit(&value)?;
        }
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests;
