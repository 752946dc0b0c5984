//! The order of values (section 12): by type first, then within a type.
//!
//! ```text
//! nil < false < true < integer < string < list < map < blob < double < location < HLL < extension < infinity
//! ```
//!
//! Lists compare element by element, then by length; maps by size, then pair by pair in the order of their keys. The
//! wildcard equals anything, and as an element of a list it equals everything that follows in the other one, too.

use super::{Reader, Value, read_order};
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
    compare_next(&mut Reader::new(left), &mut Reader::new(right))
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
fn compare_next<'a>(left: &mut Reader<'a>, right: &mut Reader<'a>) -> Ordering {
    let (before_left, before_right) = (*left, *right);
    let (a, b) = (next(left), next(right));
    if is_wildcard(a) || is_wildcard(b) {
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
        (Value::Array(a), Value::Array(b)) => compare_lists(a, left, b, right),
        (Value::Map(a), Value::Map(b)) => compare_maps(a, left, b, right),
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

fn compare_lists<'a>(a: u32, left: &mut Reader<'a>, b: u32, right: &mut Reader<'a>) -> Ordering {
    let (a, _) = read_order(left, a, false).unwrap_or_default();
    let (b, _) = read_order(right, b, false).unwrap_or_default();
    for at in 0..a.min(b) {
        if is_wildcard_next(left) || is_wildcard_next(right) {
            skip_values(left, a - at);
            skip_values(right, b - at);
            return Ordering::Equal;
        }
        match compare_next(left, right) {
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

fn compare_maps<'a>(a: u32, left: &mut Reader<'a>, b: u32, right: &mut Reader<'a>) -> Ordering {
    let (a, order_a) = read_order(left, a, true).unwrap_or_default();
    let (b, order_b) = read_order(right, b, true).unwrap_or_default();
    if a != b {
        return a.cmp(&b);
    }
    if order_a != 0 && order_b != 0 {
        for _ in 0..2 * u64::from(a) {
            match compare_next(left, right) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        return Ordering::Equal;
    }
    let (pairs_a, pairs_b) = (sorted_pairs(left, a), sorted_pairs(right, b));
    pairs_a
        .iter()
        .zip(&pairs_b)
        .map(|(a, b)| compare(a.0, b.0).then_with(|| compare(a.1, b.1)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn sorted_pairs<'a>(reader: &mut Reader<'a>, pairs: u32) -> Vec<(&'a [u8], &'a [u8])> {
    let mut sorted: Vec<_> = (0..pairs)
        .map(|_| {
            (
                reader.skip().unwrap_or_default(),
                reader.skip().unwrap_or_default(),
            )
        })
        .collect();
    sorted.sort_by(|a, b| compare(a.0, b.0));
    sorted
}

fn is_wildcard_next(reader: &Reader<'_>) -> bool {
    reader.clone().read().is_ok_and(is_wildcard)
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
    use crate::msgpack::Writer;

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
    fn damaged_values_do_not_panic() {
        for bytes in ["", "92", "dc", "9201", "82c7", "d9ff03"] {
            let value = unhex(bytes);
            let _ = compare(&value, &unhex("920102"));
            let _ = compare(&unhex("8201020304"), &value);
            let _ = compare(&value, &value);
        }
    }
}
