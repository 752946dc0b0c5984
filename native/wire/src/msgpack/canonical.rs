//! Values as they are stored: every header in its shortest form, every container that says that it is ordered in that
//! order, no map with a key twice. So whoever reads a stored value may rely on it.

use super::collation::compare_exactly;
use super::{MsgpackError, Reader, Value, Writer, read_order};
use crate::flags::limits::MSGPACK_DEPTH_MAX;
use std::cmp::Ordering;

/// How a list or map is ordered: the type of its leading extension (section 12).
pub mod order {
    pub const UNORDERED: u8 = 0;
    /// A list by value, a map by key.
    pub const ORDERED: u8 = 1;
    /// A map by key, and to be found by value.
    pub const KEY_VALUE: u8 = 3;
    /// A map in a result whose pairs come in the order of the selection.
    pub const PRESERVED: u8 = 8;
    /// The index is kept with the value; a hint in requests, never stored.
    pub const PERSIST_INDEX: u8 = 16;
}

/// The canonical form of the value that `bytes` are. Fails as [`validate`](super::validate), where an order is unknown or
/// stands elsewhere than before the items of a container, and where a map has a key twice.
pub fn canonical(bytes: &[u8]) -> Result<Vec<u8>, MsgpackError> {
    let mut reader = Reader::new(bytes);
    let mut out = Vec::with_capacity(bytes.len());
    copy(&mut reader, &mut out, 0)?;
    reader.finish()?;
    Ok(out)
}

fn copy(reader: &mut Reader<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), MsgpackError> {
    let offset = reader.offset();
    let value = reader.read()?;
    let mut writer = Writer::new(out);
    match value {
        Value::Nil => writer.nil(),
        Value::Bool(value) => writer.bool(value),
        Value::Int(value) => writer.int(value),
        Value::Unsigned(value) => writer.unsigned(value),
        Value::Float(value) => writer.float(value),
        Value::Str([]) | Value::Bin([]) => return Err(MsgpackError::NoParticleType { offset }),
        Value::Str(bytes) | Value::Bin(bytes) => writer.raw_str(bytes),
        // As the first item of a container it would be taken for its order, and any item may become the first.
        Value::Ext(found @ 0.., _) => return Err(MsgpackError::Extension { offset, found }),
        Value::Ext(kind, data) => writer.ext(kind, data),
        Value::Array(_) | Value::Map(_) if depth == MSGPACK_DEPTH_MAX => {
            return Err(MsgpackError::TooDeep { offset });
        }
        Value::Array(elements) => copy_items(reader, out, depth, offset, elements, 1)?,
        Value::Map(pairs) => copy_items(reader, out, depth, offset, pairs, 2)?,
    }
    Ok(())
}

/// Copies a list, of items of one value, or a map, of items of two.
fn copy_items(
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
    depth: usize,
    offset: usize,
    counted: u32,
    values: usize,
) -> Result<(), MsgpackError> {
    let is_map = values == 2;
    let (items, flags) = read_order(reader, counted, is_map)?;
    let order = match (flags & !(order::PERSIST_INDEX | order::PRESERVED), is_map) {
        (order::UNORDERED, _) => order::UNORDERED,
        (order::ORDERED, _) => order::ORDERED,
        (order::KEY_VALUE, true) => order::KEY_VALUE,
        _ => {
            return Err(MsgpackError::Order {
                offset,
                found: flags,
            });
        }
    };
    Writer::new(out).container(is_map, order, items);
    let start = out.len();
    // Where each item begins, and at last where the last one ends.
    let mut starts = Vec::with_capacity(items as usize + 1);
    for _ in 0..items {
        starts.push(out.len());
        for _ in 0..values {
            copy(reader, out, depth + 1)?;
        }
    }
    starts.push(out.len());
    if order == order::UNORDERED && !is_map {
        return Ok(());
    }
    let item = |at: usize| &out[starts[at]..starts[at + 1]];
    // By the first value of each: a list's element, a map's key.
    let is_sorted = (1..items as usize).all(|at| match compare_exactly(item(at - 1), item(at)) {
        Ordering::Less => true,
        Ordering::Equal => !is_map,
        Ordering::Greater => false,
    });
    if is_sorted {
        return Ok(());
    }
    let mut by_key: Vec<usize> = (0..items as usize).collect();
    by_key.sort_by(|a, b| compare_exactly(item(*a), item(*b)));
    let is_twice = |pair: &[usize]| compare_exactly(item(pair[0]), item(pair[1])).is_eq();
    if is_map && by_key.windows(2).any(is_twice) {
        return Err(MsgpackError::KeyTwice { offset });
    }
    if order != order::UNORDERED {
        let sorted: Vec<u8> = by_key.iter().flat_map(|at| item(*at)).copied().collect();
        out.truncate(start);
        out.extend_from_slice(&sorted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{hex, unhex};

    fn canonical_hex(digits: &str) -> String {
        hex(&canonical(&unhex(digits)).expect("a valid value"))
    }

    #[test]
    fn values_take_their_shortest_form() {
        let cases = [
            ("d305", "cd0005", "05"),
            ("", "d9020361", "a20361"),
            ("", "c4020401", "a20401"),
            ("", "ca3fc00000", "cb3ff8000000000000"),
            ("", "dc000101", "9101"),
            ("", "df000000010102", "810102"),
        ];
        for (_, from, to) in cases {
            assert_eq!(canonical_hex(from), to);
            assert_eq!(canonical_hex(to), to);
        }
    }

    #[test]
    fn containers_are_in_the_order_that_they_name() {
        // The list [3, 1, 2] that says that it is ordered, and the map {2: 0, 1: 0}; the index hint is not kept.
        assert_eq!(canonical_hex("94c70001030102"), "94c70001010203");
        assert_eq!(canonical_hex("94c70011030102"), "94c70001010203");
        assert_eq!(canonical_hex("83c70001c002000100"), "83c70001c001000200");
        assert_eq!(canonical_hex("83c70003c002000100"), "83c70003c001000200");
        // What is not ordered stays as it is, and has no mark.
        assert_eq!(canonical_hex("93030102"), "93030102");
        assert_eq!(canonical_hex("94c70000030102"), "93030102");
        assert_eq!(canonical_hex("8202000100"), "8202000100");
        // Within one another.
        assert_eq!(canonical_hex("9294c7000103010205"), "9294c7000101020305");
    }

    #[test]
    fn maps_have_each_key_once() {
        for twice in [
            "8201020103",
            "83c70001c001020103",
            "82a20361010aa0",
            "8201020103",
        ] {
            let refused = canonical(&unhex(twice));
            assert!(refused.is_err(), "{twice} gave {refused:02x?}");
        }
        assert!(
            canonical(&unhex("91c70002")).is_err(),
            "a list has no such order"
        );
        assert!(canonical(&unhex("81c70002c0")).is_err());
    }

    /// An element of such a type was stored, and read as the order of its list once it was the first.
    #[test]
    fn a_mark_of_an_order_is_no_element() {
        for value in [
            "c70001",
            "9205d40b76",
            "9201c70001",
            "8201c7000102c0",
            "9191d40b76",
        ] {
            assert!(canonical(&unhex(value)).is_err(), "{value}");
        }
        assert!(canonical(&unhex("9205d4ff01")).is_ok());
    }

    /// What stood there was looked at by nobody, and so could be what no value may be.
    #[test]
    fn nil_goes_with_the_mark_of_a_map() {
        assert_eq!(canonical_hex("82c70001c00102"), "82c70001c00102");
        for with in ["a0", "01", "d4ff00", "c70001", "9191d40b76"] {
            let map = format!("82c70001{with}0102");
            assert!(canonical(&unhex(&map)).is_err(), "{map}");
        }
    }

    /// By an order in which a wildcard equals everything nothing is sorted, and a sort may panic.
    #[test]
    fn wildcards_among_what_is_sorted_do_no_harm() {
        let mut state = 1_u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut list = vec![0xdc, 0, 81, 0xc7, 0, 1];
            for _ in 0..80 {
                match next(4) {
                    0 => list.extend_from_slice(&[0xd4, 0xff, 0]),
                    1 => list.extend_from_slice(&[0x92, next(100) as u8, 0xd4, 0xff, 0]),
                    _ => list.extend_from_slice(&[0x91, next(100) as u8]),
                }
            }
            let sorted = canonical(&list).expect("a list");
            assert_eq!(canonical(&sorted), Ok(sorted));
        }
    }

    #[test]
    fn every_recorded_container_is_canonical_already() {
        let mut seen = 0;
        for frame in crate::fixtures::recorded_frames() {
            let Ok(message) = crate::Message::parse(&frame.bytes[8..]) else {
                continue;
            };
            for op in message.ops {
                use crate::flags::{op as code, particle};
                if op.code == code::WRITE && matches!(op.particle, particle::LIST | particle::MAP) {
                    assert_eq!(
                        hex(&canonical(op.value).unwrap()),
                        hex(op.value),
                        "{}",
                        frame.name
                    );
                    seen += 1;
                }
            }
        }
        assert!(seen > 0);
    }
}
