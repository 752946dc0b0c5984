//! Operations that are made to do harm: what they leave behind reads as any value, and what they take is bounded by what
//! was sent.

use super::*;
use perigee_wire::msgpack::{Writer, canonical, validate};

fn packed(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

fn run(value: Option<&[u8]>, call: &[u8]) -> Result<Changed, ResultCode> {
    let bytes = CallBytes::of(call)?;
    modify(value, &mut Call::parse(&bytes)?)
}

/// `[0xff, [kind, value, ...], [1, 5]]`
fn append_at(steps: &[(i64, &[u8])], element: &[u8]) -> Vec<u8> {
    let mut call = packed(|writer| {
        writer.array(3);
        writer.int(0xff);
        writer.array(2 * steps.len() as u32);
    });
    for (kind, value) in steps {
        Writer::new(&mut call).int(*kind);
        call.extend_from_slice(value);
    }
    Writer::new(&mut call).array(2);
    Writer::new(&mut call).int(1);
    call.extend_from_slice(element);
    call
}

/// A context that makes what is missing stored a wildcard or infinity as a key, which every later comparison took for
/// what it stands for.
#[test]
fn no_sentinel_becomes_a_key() {
    const MAP_KEY_CREATE: i64 = 0x22 | 0x40;
    for sentinel in [
        &[0xd4, 0xff, 0][..],
        &[0xd4, 0xff, 1],
        &[0x91, 0xd4, 0xff, 0],
    ] {
        let call = append_at(&[(MAP_KEY_CREATE, sentinel)], &[5]);
        for map in [None, Some(&[0x80][..])] {
            assert_eq!(
                run(map, &call),
                Err(ResultCode::Parameter),
                "{sentinel:02x?}"
            );
        }
    }
    let call = append_at(&[(MAP_KEY_CREATE, &[7])], &[5]);
    let made = run(None, &call).expect("a key like any other");
    assert_eq!(made.value.as_deref(), Some(&[0x81, 7, 0x91, 5][..]));
}

/// A value that was appended at the end of a context could make the bin deeper than values may be: no operation, no read
/// into it and no other site took it then.
#[test]
fn no_operation_nests_deeper_than_a_value_may_be() {
    const LIST_INDEX: i64 = 0x10;
    let nested = |levels: usize| [vec![0x91; levels - 1], vec![0x90]].concat();
    let steps = [(LIST_INDEX, &[0][..]); CONTEXT_STEPS_MAX];
    let value = nested(CONTEXT_STEPS_MAX + 1);
    let fits = MSGPACK_DEPTH_MAX - CONTEXT_STEPS_MAX - 1;
    let changed = run(Some(&value), &append_at(&steps, &nested(fits))).expect("a value that fits");
    let stored = changed.value.expect("a change");
    assert_eq!(nesting(&stored), MSGPACK_DEPTH_MAX);
    assert!(validate(&stored).is_ok());
    let refused = run(Some(&value), &append_at(&steps, &nested(fits + 1)));
    assert_eq!(refused, Err(ResultCode::Parameter));
}

#[test]
fn so_many_wildcards_among_so_many_elements_are_refused() {
    let list = |count: u32, element: &[u8]| {
        let mut list = packed(|writer| writer.array(count));
        (0..count).for_each(|_| list.extend_from_slice(element));
        list
    };
    let wanted = list(5000, &[0x92, 7, 0xd4, 0xff, 0]);
    let call = [&[0x93, 23, 5][..], &wanted].concat();
    let count = |value: &[u8]| {
        let bytes = CallBytes::of(&call)?;
        read(value, &mut Call::parse(&bytes)?)
    };
    let few = list(3000, &[0x92, 7, 7]);
    assert_eq!(count(&few), Ok(Some(packed(|writer| writer.int(3000)))));
    assert_eq!(
        count(&list(4000, &[0x92, 7, 7])),
        Err(ResultCode::Parameter)
    );
}

const MANY_ITEMS: u32 = 30_000;

/// Each pair was looked for among all pairs, each element among all elements: so many took half a minute.
#[test]
fn many_items_are_put_into_many() {
    let pairs = |from: u32| {
        packed(|writer| {
            writer.map(MANY_ITEMS);
            for key in (from..from + MANY_ITEMS).rev() {
                writer.int(i64::from(key));
                writer.int(i64::from(from));
            }
        })
    };
    let half = MANY_ITEMS / 2;
    let put = [&[0x92, 68][..], &pairs(half)].concat();
    let changed = run(Some(&pairs(0)), &put).expect("a map");
    assert_eq!(
        changed.result,
        Some(packed(|writer| writer.int(i64::from(MANY_ITEMS + half))))
    );
    let value = changed.value.expect("a change");
    assert_eq!(canonical(&value).as_ref(), Ok(&value));
    let map = Container::parse(&value).expect("a map");
    for key in [0, half - 1, half, MANY_ITEMS, MANY_ITEMS + half - 1] {
        let at = map.find_key(&packed(|writer| writer.int(i64::from(key))));
        let expected = if key < half { 0 } else { half };
        let expected = packed(|writer| writer.int(i64::from(expected)));
        assert_eq!(at.map(|at| map.value(at)), Ok(&expected[..]), "{key}");
    }

    let numbers = |from: u32| {
        packed(|writer| {
            writer.array(MANY_ITEMS);
            (from..from + MANY_ITEMS)
                .rev()
                .for_each(|it| writer.int(i64::from(it)));
        })
    };
    const UNIQUE_NO_FAIL_PARTIAL: u8 = 1 | 4 | 8;
    let append = [&[0x94, 2][..], &numbers(half), &[0, UNIQUE_NO_FAIL_PARTIAL]].concat();
    let changed = run(Some(&numbers(0)), &append).expect("a list");
    assert_eq!(
        changed.result,
        Some(packed(|writer| writer.int(i64::from(MANY_ITEMS + half))))
    );
    let value = changed.value.expect("a change");
    let list = Container::parse(&value).expect("a list");
    let first_new = packed(|writer| writer.int(i64::from(MANY_ITEMS + half - 1)));
    assert_eq!(list.item(MANY_ITEMS as usize), first_new);
}
