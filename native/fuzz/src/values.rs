//! Msgpack values, their canonical form, their order, and values of bins.

use crate::part::{choice, split, stored};
use perigee_wire::msgpack::{Reader, Value, canonical, compare, has_sentinel, validate};
use perigee_wire::{
    particle_of_msgpack, particle_type as particle, validate_particle, write_msgpack,
};
use std::cmp::Ordering;

pub(crate) fn run(data: &[u8]) {
    match choice(data, 3) {
        Some((0, data)) => value(data),
        Some((1, data)) => order(data),
        Some((_, data)) => {
            let Some((kind, value)) = data.split_first() else {
                return;
            };
            particle_of(*kind, value);
        }
        None => {}
    }
}

fn value(bytes: &[u8]) {
    let is_valid = validate(bytes).is_ok();
    let mut reader = Reader::new(bytes);
    let skipped = reader.skip().map(<[u8]>::len);
    if is_valid {
        assert_eq!(skipped, Ok(bytes.len()));
    }
    let Ok(form) = canonical(bytes) else { return };
    assert!(is_valid, "canonical, and not valid: {bytes:02x?}");
    assert!(validate(&form).is_ok());
    assert_eq!(canonical(&form).as_ref(), Ok(&form), "of {bytes:02x?}");
    assert_eq!(has_sentinel(&form), has_sentinel(bytes));
    assert_eq!(compare(&form, &form), Ordering::Equal);

    // What a bin would hold of it is the same value.
    let Ok((kind, held)) = particle_of_msgpack(&form) else {
        return;
    };
    let is_wrapped = matches!(Reader::new(&form).read(), Ok(Value::Unsigned(_)));
    let mut again = Vec::new();
    match write_msgpack(kind, &held, &mut again) {
        Ok(()) if !is_wrapped => assert_eq!(again, form),
        Ok(()) => {}
        // A location without text is none.
        Err(error) => assert_eq!(kind, particle::GEOJSON, "{error:?}"),
    }
}

fn particle_of(kind: u8, value: &[u8]) {
    if validate_particle(kind, value).is_err() {
        return;
    }
    let mut nested = Vec::new();
    write_msgpack(kind, value, &mut nested).expect("a valid value");
    assert!(validate(&nested).is_ok(), "{nested:02x?}");
    let (kind_again, again) = particle_of_msgpack(&nested).expect("what was written");
    assert_eq!(kind_again, kind);
    // Cells of a location stay behind.
    if kind != particle::GEOJSON {
        assert_eq!(again, value);
    }
}

/// The order of values is total, whatever they are.
fn order(data: &[u8]) {
    let mut values = Vec::new();
    let mut rest = data;
    while values.len() < 4
        && let Some((first, others)) = split(rest)
    {
        values.extend(stored(first));
        rest = others;
    }
    for a in &values {
        for b in &values {
            let ab = compare(a, b);
            assert_eq!(compare(b, a), ab.reverse(), "{a:02x?} and {b:02x?}");
            for c in &values {
                let (bc, ac) = (compare(b, c), compare(a, c));
                if ab == bc || bc == Ordering::Equal {
                    assert_eq!(ac, ab, "{a:02x?}, {b:02x?} and {c:02x?}");
                }
            }
        }
    }
}
