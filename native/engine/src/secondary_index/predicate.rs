//! What a query by index asks for: the INDEX_RANGE field (section 10).
//!
//! ```text
//! range = u8 1, u8 length + bin name, u8 particle type, u32 length + begin, u32 length + end
//! ```
//!
//! Integers lie from begin to end, both included. Strings and blobs are equal to begin; end is not looked at. A location
//! that is a region asks for points in it, a point for regions around it.

use perigee_wire::{
    BIN_NAME_BYTES_MAX, INDEX_VALUE_BYTES_MAX, ResultCode, particle_type as particle,
};
use std::ops::{ControlFlow, RangeInclusive};

use super::definition::{Collection, IndexDefinition, KeyType};
use super::keys::{Regions, key_of_bytes, key_of_integer, visit_values};
use crate::expression::{RecordView, Value};
use crate::record::geo::{CoveringLimits, Geometry, cells_around, point_cell, ranges_within};

/// Text of a location in a query: enough for a polygon of as many vertices as are handled.
const LOCATION_BYTES_MAX: usize = 1 << 20;

/// What a query by index asks of a value.
#[derive(Debug)]
pub struct Predicate {
    wanted: Wanted,
    ranges: Vec<(u64, u64)>,
}

#[derive(Debug)]
enum Wanted {
    Integers(RangeInclusive<i64>),
    String(Box<[u8]>),
    Blob(Box<[u8]>),
    PointsIn(Geometry),
    RegionsAround(Geometry),
}

impl Predicate {
    /// Reads an INDEX_RANGE field, and returns the name of the bin with it, which is empty where the index is named by
    /// something else. PARAMETER for a field that is malformed, of an unknown type, an empty range, a string or blob that is
    /// too long to be indexed, or locations as keys of maps; GEO_INVALID for a location that means nothing.
    pub fn parse(range: &[u8], collection: Collection) -> Result<(Predicate, &[u8]), ResultCode> {
        let mut rest = range;
        let [count, name_bytes] = *take::<2>(&mut rest)?;
        if count != 1 || usize::from(name_bytes) > BIN_NAME_BYTES_MAX {
            return Err(ResultCode::Parameter);
        }
        let bin = split(&mut rest, name_bytes.into())?;
        let [kind] = *take::<1>(&mut rest)?;
        let begin = counted(&mut rest)?;
        let end = counted(&mut rest)?;
        if !rest.is_empty() {
            return Err(ResultCode::Parameter);
        }
        let wanted = match kind {
            particle::INTEGER => Wanted::Integers(integers(begin, end)?),
            particle::STRING => Wanted::String(indexed(begin)?.into()),
            particle::BLOB => Wanted::Blob(indexed(begin)?.into()),
            particle::GEOJSON if collection != Collection::MapKeys => location(begin)?,
            _ => return Err(ResultCode::Parameter),
        };
        let ranges = wanted.ranges();
        Ok((Predicate { wanted, ranges }, bin))
    }

    /// Of the indexes that can answer.
    pub fn key_type(&self) -> KeyType {
        match self.wanted {
            Wanted::Integers(_) => KeyType::Integer,
            Wanted::String(_) => KeyType::String,
            Wanted::Blob(_) => KeyType::Blob,
            Wanted::PointsIn(_) | Wanted::RegionsAround(_) => KeyType::Geo,
        }
    }

    /// From which key to which, both included, the keys of all values that are asked for lie, and of some others.
    /// Ascending, without overlap.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Whether a record has a value that is asked for, of those that the index is of. False for an index with keys of
    /// another type.
    pub fn matches(&self, definition: &IndexDefinition, record: &dyn RecordView) -> bool {
        let mut regions = Regions::default();
        definition.key_type == self.key_type()
            && visit_values(definition, record, &mut |value| match self
                .is_met_by(value, &mut regions)
            {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
            .is_break()
    }

    fn is_met_by(&self, value: &Value<'_>, regions: &mut Regions) -> bool {
        match (&self.wanted, value) {
            (Wanted::Integers(range), Value::Int(value)) => range.contains(value),
            (Wanted::String(wanted), Value::Str(bytes))
            | (Wanted::Blob(wanted), Value::Blob(particle::BLOB, bytes)) => **wanted == **bytes,
            (Wanted::PointsIn(region), Value::Geo(text)) => match point_cell(text) {
                Ok(Some(cell)) if self.holds(cell) => is_location(text, |it| region.contains(it)),
                _ => false,
            },
            (Wanted::RegionsAround(point), Value::Geo(text)) => match point_cell(text) {
                Ok(None) if regions.admit(text) => is_location(text, |it| it.contains(point)),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether a key lies in the ranges.
    fn holds(&self, key: u64) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < key);
        self.ranges.get(at).is_some_and(|(first, _)| *first <= key)
    }
}

impl Wanted {
    fn ranges(&self) -> Vec<(u64, u64)> {
        match self {
            Wanted::Integers(range) => {
                vec![(key_of_integer(*range.start()), key_of_integer(*range.end()))]
            }
            Wanted::String(bytes) | Wanted::Blob(bytes) => {
                let key = key_of_bytes(bytes);
                vec![(key, key)]
            }
            Wanted::PointsIn(region) => {
                let cells = region.cells(&CoveringLimits::default());
                let ranges = ranges_within(&cells);
                ranges
                    .iter()
                    .map(|range| (range.first, range.last))
                    .collect()
            }
            Wanted::RegionsAround(point) => {
                let leaves = point.cells(&CoveringLimits::default());
                let cells = leaves.into_iter().flat_map(cells_around);
                let mut ranges: Vec<_> = cells.map(|cell| (cell, cell)).collect();
                ranges.sort_unstable();
                ranges
            }
        }
    }
}

fn is_location(text: &[u8], is_wanted: impl FnOnce(&Geometry) -> bool) -> bool {
    Geometry::parse(text).is_ok_and(|location| is_wanted(&location))
}

fn integers(begin: &[u8], end: &[u8]) -> Result<RangeInclusive<i64>, ResultCode> {
    let integer = |bytes: &[u8]| {
        let bytes = bytes.try_into().map_err(|_| ResultCode::Parameter)?;
        Ok(i64::from_be_bytes(bytes))
    };
    let range = integer(begin)?..=integer(end)?;
    if range.is_empty() {
        return Err(ResultCode::Parameter);
    }
    Ok(range)
}

/// A string or blob that may be in an index.
fn indexed(bytes: &[u8]) -> Result<&[u8], ResultCode> {
    if bytes.len() > INDEX_VALUE_BYTES_MAX {
        return Err(ResultCode::Parameter);
    }
    Ok(bytes)
}

fn location(text: &[u8]) -> Result<Wanted, ResultCode> {
    if text.len() > LOCATION_BYTES_MAX {
        return Err(ResultCode::Parameter);
    }
    let location = Geometry::parse(text).map_err(|error| error.result_code())?;
    Ok(match location.is_region() {
        true => Wanted::PointsIn(location),
        false => Wanted::RegionsAround(location),
    })
}

fn counted<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ResultCode> {
    let bytes = u32::from_be_bytes(*take(rest)?);
    split(rest, bytes as usize)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], ResultCode> {
    let (taken, left) = rest.split_first_chunk().ok_or(ResultCode::Parameter)?;
    *rest = left;
    Ok(taken)
}

fn split<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], ResultCode> {
    let (taken, left) = rest.split_at_checked(bytes).ok_or(ResultCode::Parameter)?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests;
