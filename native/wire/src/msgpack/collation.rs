//! The order of values (section 12): by type first, then within a type.
//!
//! ```text
//! nil < false < true < integer < string < list < map < blob < double < location < HLL < extension < infinity
//! ```
//!
//! Lists compare element by element, then by length; maps by size, then pair by pair in the order of their keys. The
//! wildcard equals anything, and as an element of a list it equals everything that follows in the other one, too. So
//! nothing is sorted by an order that has a wildcard in it: it would be none.

use super::{Reader, Value, Writer, order, read_order};
use crate::flags::particle;
use std::cmp::Ordering;

/// Extension type of the two values that only comparisons know: its data tells which.
const SENTINEL: i8 = -1;
const WILDCARD: &[u8] = &[0];
const INFINITY: &[u8] = &[1];

/// Compares two values, each complete and valid. What is missing or damaged counts as nil.
pub fn compare(left: &[u8], right: &[u8]) -> Ordering {
    // Small integers are one byte each, and the most frequent elements.
    if let ([left @ 0..0x80], [right @ 0..0x80]) = (left, right) {
        return left.cmp(right);
    }
    compare_next::<true>(&mut Reader::new(left), &mut Reader::new(right))
}

/// As `compare`, but a wildcard is a value like others: for sorting what may have one in it. Of more than one value the
/// first is compared.
pub(super) fn compare_exactly(left: &[u8], right: &[u8]) -> Ordering {
    compare_next::<false>(&mut Reader::new(left), &mut Reader::new(right))
}

/// Whether a value is, or holds, one that stands for others and is no value to be stored.
pub fn has_sentinel(value: &[u8]) -> bool {
    let mut reader = Reader::new(value);
    while !reader.is_empty() {
        match reader.read() {
            Ok(value) if is_sentinel(value) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

fn is_sentinel(value: Value<'_>) -> bool {
    matches!(value, Value::Ext(SENTINEL, WILDCARD | INFINITY))
}

fn is_wildcard(value: Value<'_>) -> bool {
    value == Value::Ext(SENTINEL, WILDCARD)
}

fn next<'a>(reader: &mut Reader<'a>) -> Value<'a> {
    reader.read().unwrap_or(Value::Nil)
}

/// Compares the next value of each reader, and leaves the readers behind them if they are equal.
fn compare_next<'a, const WILDCARDS: bool>(
    left: &mut Reader<'a>,
    right: &mut Reader<'a>,
) -> Ordering {
    let (before_left, before_right) = (*left, *right);
    let (a, b) = (next(left), next(right));
    if WILDCARDS && (is_wildcard(a) || is_wildcard(b)) {
        (*left, *right) = (before_left, before_right);
        // Both were valid; a failure would leave the reader where it is, and ends the comparison all the same.
        let (_, _) = (left.skip(), right.skip());
        return Ordering::Equal;
    }
    class(a).cmp(&class(b)).then_with(|| match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(&b),
        (Value::Int(a), Value::Int(b)) => a.cmp(&b),
        (Value::Unsigned(a), Value::Unsigned(b)) => a.cmp(&b),
        (Value::Int(_), Value::Unsigned(_)) => Ordering::Less,
        (Value::Unsigned(_), Value::Int(_)) => Ordering::Greater,
        (Value::Float(a), Value::Float(b)) => compare_floats(a, b),
        (Value::Str(a) | Value::Bin(a), Value::Str(b) | Value::Bin(b)) => {
            content(a).cmp(content(b))
        }
        (Value::Array(a), Value::Array(b)) => compare_lists::<WILDCARDS>(a, left, b, right),
        (Value::Map(a), Value::Map(b)) => compare_maps::<WILDCARDS>(a, left, b, right),
        (Value::Ext(kind_a, a), Value::Ext(kind_b, b)) => (kind_a, a).cmp(&(kind_b, b)),
        _ => Ordering::Equal,
    })
}

/// NaN is less than any number, so that the order is total; the zeros are equal.
fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// The place of a type in the order.
fn class(value: Value<'_>) -> u8 {
    match value {
        Value::Nil => 0,
        Value::Bool(_) => 1,
        Value::Int(_) | Value::Unsigned(_) => 2,
        Value::Str([particle::STRING, ..]) | Value::Bin([particle::STRING, ..]) => 3,
        Value::Array(_) => 4,
        Value::Map(_) => 5,
        Value::Str([particle::GEOJSON, ..]) | Value::Bin([particle::GEOJSON, ..]) => 8,
        Value::Str([particle::HLL, ..]) | Value::Bin([particle::HLL, ..]) => 9,
        Value::Str(_) | Value::Bin(_) => 6,
        Value::Float(_) => 7,
        Value::Ext(SENTINEL, INFINITY) => 11,
        Value::Ext(..) => 10,
    }
}

/// Behind the particle type. Blobs of different languages are told apart by their content alone.
fn content(bytes: &[u8]) -> &[u8] {
    bytes.get(1..).unwrap_or_default()
}

fn compare_lists<'a, const WILDCARDS: bool>(
    a: u32,
    left: &mut Reader<'a>,
    b: u32,
    right: &mut Reader<'a>,
) -> Ordering {
    let (a, _) = read_order(left, a, false).unwrap_or_default();
    let (b, _) = read_order(right, b, false).unwrap_or_default();
    let is_wildcard_next =
        |reader: &Reader<'_>| WILDCARDS && reader.clone().read().is_ok_and(is_wildcard);
    for at in 0..a.min(b) {
        if is_wildcard_next(left) || is_wildcard_next(right) {
            skip_values(left, a - at);
            skip_values(right, b - at);
            return Ordering::Equal;
        }
        match compare_next::<WILDCARDS>(left, right) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    let (longer, more) = if a > b { (left, a - b) } else { (right, b - a) };
    if more > 0 && is_wildcard_next(longer) {
        skip_values(longer, more);
        return Ordering::Equal;
    }
    a.cmp(&b)
}

fn compare_maps<'a, const WILDCARDS: bool>(
    a: u32,
    left: &mut Reader<'a>,
    b: u32,
    right: &mut Reader<'a>,
) -> Ordering {
    let (a, order_a) = read_order(left, a, true).unwrap_or_default();
    let (b, order_b) = read_order(right, b, true).unwrap_or_default();
    if a != b {
        return a.cmp(&b);
    }
    if order_a & order_b & order::ORDERED != 0 {
        return compare_values::<WILDCARDS>(2 * u64::from(a), left, right);
    }
    // Sorted once, with every map within: maps are keys of maps, too, and would be sorted again for each comparison that
    // sorting those takes.
    let (mut sorted_a, mut sorted_b) = (Vec::new(), Vec::new());
    copy_sorted(left, a, &mut sorted_a);
    copy_sorted(right, b, &mut sorted_b);
    let (left, right) = (&mut Reader::new(&sorted_a), &mut Reader::new(&sorted_b));
    compare_values::<WILDCARDS>(2 * u64::from(a), left, right)
}

fn compare_values<'a, const WILDCARDS: bool>(
    count: u64,
    left: &mut Reader<'a>,
    right: &mut Reader<'a>,
) -> Ordering {
    for _ in 0..count {
        match compare_next::<WILDCARDS>(left, right) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

/// Appends so many pairs in the order of their keys.
fn copy_sorted(reader: &mut Reader<'_>, pairs: u32, out: &mut Vec<u8>) {
    let start = out.len();
    // Where each pair begins, and at last where the last one ends.
    let mut starts = Vec::with_capacity(pairs as usize + 1);
    for _ in 0..pairs {
        starts.push(out.len());
        copy_with_sorted_maps(reader, out);
        copy_with_sorted_maps(reader, out);
    }
    starts.push(out.len());
    let pair = |at: usize| &out[starts[at]..starts[at + 1]];
    let by_key = |a: &usize, b: &usize| compare_exactly(pair(*a), pair(*b));
    let mut sorted: Vec<usize> = (0..pairs as usize).collect();
    if sorted.is_sorted_by(|a, b| by_key(a, b).is_le()) {
        return;
    }
    sorted.sort_by(by_key);
    let sorted: Vec<u8> = sorted.iter().flat_map(|at| pair(*at)).copied().collect();
    out.truncate(start);
    out.extend_from_slice(&sorted);
}

/// Appends a value in which every map is sorted, and says so.
fn copy_with_sorted_maps(reader: &mut Reader<'_>, out: &mut Vec<u8>) {
    let before = reader.rest();
    match next(reader) {
        Value::Array(counted) => {
            let (items, _) = read_order(reader, counted, false).unwrap_or_default();
            Writer::new(out).array(items);
            for _ in 0..items {
                copy_with_sorted_maps(reader, out);
            }
        }
        Value::Map(counted) => {
            let (pairs, _) = read_order(reader, counted, true).unwrap_or_default();
            Writer::new(out).container(true, order::ORDERED, pairs);
            copy_sorted(reader, pairs, out);
        }
        _ => out.extend_from_slice(&before[..before.len() - reader.rest().len()]),
    }
}

fn skip_values(reader: &mut Reader<'_>, count: u32) {
    for _ in 0..count {
        if reader.skip().is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::unhex;

    fn of(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        out
    }

    #[test]
    fn types_come_in_the_order_of_the_protocol() {
        let ordered = [
            unhex("c0"),
            unhex("c2"),
            unhex("c3"),
            of(|w| w.int(i64::MIN)),
            of(|w| w.int(-1)),
            of(|w| w.int(0)),
            of(|w| w.int(200)),
            of(|w| w.int(i64::MAX)),
            of(|w| w.unsigned(u64::MAX)),
            of(|w| w.particle(particle::STRING, b"")),
            of(|w| w.particle(particle::STRING, b"a")),
            of(|w| w.particle(particle::STRING, b"aa")),
            of(|w| w.particle(particle::STRING, b"b")),
            unhex("90"),
            unhex("9101"),
            unhex("920100"),
            unhex("9102"),
            unhex("80"),
            unhex("810102"),
            unhex("810103"),
            unhex("810201"),
            unhex("8201020304"),
            of(|w| w.particle(particle::BLOB, b"a")),
            of(|w| w.float(f64::NAN)),
            of(|w| w.float(f64::NEG_INFINITY)),
            of(|w| w.float(1.5)),
            of(|w| w.particle(particle::GEOJSON, b"{}")),
            unhex("d4ff01"),
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a:02x?} and {b:02x?}");
            }
        }
    }

    #[test]
    fn a_wildcard_equals_anything_and_the_rest_of_a_list() {
        let wildcard = unhex("d4ff00");
        for other in ["c0", "05", "9101", "8101a203aa", "d4ff01"] {
            assert_eq!(compare(&wildcard, &unhex(other)), Ordering::Equal);
            assert_eq!(compare(&unhex(other), &wildcard), Ordering::Equal);
        }
        let tail = unhex("9201d4ff00");
        for equal in ["9101", "920105", "93010203"] {
            assert_eq!(compare(&unhex(equal), &tail), Ordering::Equal, "{equal}");
            assert_eq!(compare(&tail, &unhex(equal)), Ordering::Equal, "{equal}");
        }
        assert_eq!(compare(&unhex("920205"), &tail), Ordering::Greater);
        // What follows the list in which it stands still counts.
        let with = unhex("929201d4ff0007");
        assert_eq!(compare(&with, &unhex("929301020907")), Ordering::Equal);
        assert_eq!(compare(&with, &unhex("929301020908")), Ordering::Less);
        assert!(has_sentinel(&tail) && !has_sentinel(&unhex("920105")));
    }

    #[test]
    fn order_marks_are_not_elements() {
        // [1, 2] ordered and not, {1: 2} in all its orders.
        assert_eq!(
            compare(&unhex("93c700010102"), &unhex("920102")),
            Ordering::Equal
        );
        assert_eq!(
            compare(&unhex("82c70001c00102"), &unhex("810102")),
            Ordering::Equal
        );
        assert_eq!(
            compare(&unhex("8203040102"), &unhex("8201020304")),
            Ordering::Equal
        );
        assert_eq!(compare(&unhex("91c70001"), &unhex("90")), Ordering::Equal);
    }

    #[test]
    fn a_map_in_the_order_of_its_selection_equals_the_one_it_is_of() {
        let selected = unhex("83c70008c002030102");
        assert_eq!(compare(&selected, &unhex("8201020203")), Ordering::Equal);
        let sorted = unhex("83c70001c001020203");
        assert_eq!(compare(&selected, &sorted), Ordering::Equal);
    }

    /// With a sort for every comparison, keys in keys took the square of their bytes: minutes for a value of a megabyte,
    /// while its partition was locked.
    #[test]
    fn maps_that_are_keys_of_maps_are_compared_in_time() {
        // Each level has the one below twice as a key, which differ in the last place alone.
        fn map(levels: u32, last: u8, out: &mut Vec<u8>) {
            if levels == 0 {
                return out.push(last);
            }
            out.push(0x82);
            map(levels - 1, 1, out);
            out.push(0);
            map(levels - 1, 1 + last, out);
            out.push(0);
        }
        let (mut small, mut large) = (Vec::new(), Vec::new());
        map(15, 1, &mut small);
        map(15, 2, &mut large);
        assert_eq!(compare(&small, &large), Ordering::Less);
        assert!(crate::msgpack::canonical(&small).is_ok());
    }

    #[test]
    fn damaged_values_do_not_panic() {
        for bytes in ["", "92", "dc", "9201", "82c7", "d9ff03"] {
            let value = unhex(bytes);
            let _ = compare(&value, &unhex("920102"));
            let _ = compare(&unhex("8201020304"), &value);
            let _ = compare(&value, &value);
        }
    }
}
