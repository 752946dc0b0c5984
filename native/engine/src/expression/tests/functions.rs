//! What functions of expressions are worth: numbers, metadata, lists and maps, locations, calls.

use super::table::{bin, check, quote, record};
use super::*;

#[test]
fn numbers_follow_the_rules_of_the_machine() {
    let (max, min) = (i64::MAX, i64::MIN);
    let f = |value: f64| json!(["f64", value]);
    check(vec![
        (json!([20, 1, 2, 3]), Some(json!(6))),
        (json!([20, max, 1]), Some(json!(min))),
        (json!([20, 7]), Some(json!(7))),
        (json!([20, f(1.5), f(2.0)]), Some(f(3.5))),
        (json!([21, 1, 2, 3]), Some(json!(-4))),
        (json!([21, 5]), Some(json!(-5))),
        (json!([21, f(5.0)]), Some(f(-5.0))),
        (json!([21, min, 1]), Some(json!(max))),
        (json!([22, 2, 3, 4]), Some(json!(24))),
        (json!([22, max, 2]), Some(json!(-2))),
        (json!([23, 8, 2, 2]), Some(json!(2))),
        (json!([23, -7, 2]), Some(json!(-3))),
        (json!([23, f(5.0), f(3.0)]), Some(f(1.6666666666666667))),
        (json!([23, f(4.0)]), Some(f(0.25))),
        (json!([23, 4]), Some(json!(0))),
        (json!([23, 1, 0]), None),
        (json!([23, 0]), None),
        (json!([23, min, -1]), Some(json!(min))),
        (
            json!([5, [23, f(1.0), f(0.0)], f(1e300)]),
            Some(json!(false)),
        ),
        (json!([24, f(5.0), f(5.0)]), Some(f(3125.0))),
        (json!([25, [24, f(5.0), f(4.0)], f(5.0)]), Some(f(4.0))),
        (json!([26, 5, 2]), Some(json!(1))),
        (json!([26, -5, 3]), Some(json!(-2))),
        (json!([26, 5, 0]), None),
        (json!([26, min, -1]), Some(json!(0))),
        (json!([27, -5]), Some(json!(5))),
        (json!([27, f(-5.0)]), Some(f(5.0))),
        (json!([28, f(8.953)]), Some(f(8.0))),
        (json!([29, f(8.953)]), Some(f(9.0))),
        (json!([30, f(2.9)]), Some(json!(2))),
        (json!([30, f(-2.9)]), Some(json!(-2))),
        (json!([30, f(1e19)]), None),
        (json!([30, [23, f(0.0), f(0.0)]]), None),
        (json!([31, 8]), Some(f(8.0))),
        (json!([32, 0xaaaa, 0xff00]), Some(json!(0xaa00))),
        (json!([33, 0xaaaa, 0xff00]), Some(json!(0xffaa))),
        (json!([34, 0xaaaa, 0xff00]), Some(json!(0x55aa))),
        (json!([35, 0xaaaa]), Some(json!(!0xaaaa))),
        (json!([36, 1, 2]), Some(json!(4))),
        (json!([36, 1, 64]), Some(json!(0))),
        (json!([36, 1, -1]), None),
        (json!([37, -2, 62]), Some(json!(3))),
        (json!([37, -2, 64]), Some(json!(0))),
        (json!([38, -2, 62]), Some(json!(-1))),
        (json!([38, -2, 1000]), Some(json!(-1))),
        (json!([39, -1]), Some(json!(64))),
        (json!([40, 1, true]), Some(json!(63))),
        (json!([40, -1, false]), Some(json!(-1))),
        (json!([40, 0, true]), Some(json!(-1))),
        (json!([40, -1, true]), Some(json!(0))),
        (json!([41, 1, true]), Some(json!(63))),
        (json!([41, 8, true]), Some(json!(60))),
        (json!([41, 1, false]), Some(json!(62))),
        (json!([50, 5, 25, 1]), Some(json!(1))),
        (json!([51, f(5.0), f(20.0)]), Some(f(20.0))),
    ]);
}

#[test]
fn metadata_keys_and_types_of_bins() {
    let unix_ns = |ms: i64| (ms + 1_262_304_000_000) * 1_000_000;
    check(vec![
        (json!([64, 7]), Some(json!(0x0100_0011 % 7))),
        (json!([65]), Some(json!(0))),
        (json!([66]), Some(json!(unix_ns(500_000_000_000)))),
        (json!([67]), Some(json!(1500))),
        (json!([68]), Some(json!(unix_ns(500_000_100_000)))),
        (json!([69]), Some(json!(99))),
        (json!([70]), Some(json!("s:demo"))),
        (json!([71]), Some(json!(false))),
        (json!([72]), Some(json!(false))),
        (json!([73]), Some(json!(320))),
        (json!([74]), Some(json!(320))),
        (json!([80, 3]), None),
        (json!([82, "raw:a"]), Some(json!(1))),
        (json!([82, "raw:o"]), Some(json!(19))),
        (json!([82, "raw:z"]), Some(json!(0))),
        (json!([2, [82, "raw:z"], 0]), Some(json!(false))),
    ]);
    let mut record = record();
    record.metadata.void_time = 0;
    record.key = Some((particle::STRING, b"k".to_vec()));
    for (expression, expected) in [
        (json!([68]), json!(-1)),
        (json!([69]), json!(-1)),
        (json!([1, [80, 3], "s:k"]), json!(true)),
    ] {
        assert_eq!(
            value_of(&expression, &record),
            Some(msgpack_of(&expected)),
            "{expression}"
        );
    }
    assert_eq!(value_of(&json!([80, 2]), &record), None);
}

/// The expectations of two clients' tests, which sample records by their digest.
#[test]
fn digests_are_taken_modulo_as_clients_expect() {
    let sample = |set: &str, keys: Vec<Vec<u8>>, modulus: i64, rest: i64| {
        let expression = compiled(&json!([1, [64, modulus], rest])).unwrap();
        let mut record = record();
        keys.iter()
            .filter(|key| {
                let digest = perigee_wire::compute_digest(set.as_bytes(), key[0], &key[1..]);
                let digest: &'static [u8; 20] = Box::leak(Box::new(digest));
                record.metadata.digest = digest;
                expression.filter(&record) == Trilean::True
            })
            .count()
    };
    let ints = (0..8_i64)
        .map(|key| [&[1][..], &key.to_be_bytes()].concat())
        .collect();
    assert_eq!(sample("demo", ints, 2, 0), 5);
    let texts = (1..=10)
        .map(|key| format!("\x03flt{key}").into_bytes())
        .collect();
    assert_eq!(sample("testflt", texts, 3, 1), 4);
}

#[test]
fn lists_are_searched_and_maps_taken_apart() {
    check(vec![
        (
            json!([9, bin(2, "a"), quote(json!([1, 5]))]),
            Some(json!(true)),
        ),
        (
            json!([9, bin(2, "a"), quote(json!(["s:5"]))]),
            Some(json!(false)),
        ),
        (json!([9, 2, bin(4, "l")]), Some(json!(true))),
        (
            json!([9, 7, quote(json!([["ext", "0x01", ""], 5, 6, 7]))]),
            Some(json!(true)),
        ),
        (
            json!([9, quote(json!([1, 2])), bin(4, "n")]),
            Some(json!(true)),
        ),
        (json!([9, null, quote(json!([null]))]), Some(json!(true))),
        (json!([9, 2, bin(4, "z")]), None),
        (
            json!([101, bin(5, "m")]),
            Some(json!(["s:a", "s:b", "s:c"])),
        ),
        (json!([102, bin(5, "m")]), Some(json!([3, 2, 1]))),
        (json!([102, bin(5, "o")]), Some(json!([3, 2, 1]))),
        (json!([7, 2, "raw:^sTaR", bin(3, "b")]), Some(json!(true))),
        (json!([7, 0, "raw:Treck$", bin(3, "b")]), Some(json!(false))),
        (json!([7, 0, "raw:x", bin(3, "z")]), None),
    ]);
}

#[test]
fn locations_are_compared_with_regions() {
    let circle = |longitude: f64, latitude: f64, meters: u32| {
        let json = format!(
            "{{\"type\":\"AeroCircle\",\"coordinates\":[[{longitude},{latitude}],{meters}]}}"
        );
        json!(format!("g:{json}"))
    };
    let point = json!("g:{\"type\":\"Point\",\"coordinates\":[103.913,1.308]}");
    let mut record = Record::of(json!({ "p": point, "s": "s:x" }));
    let at = [81, 8].map(|code| json!(code));
    let at = json!([at[0], at[1], "raw:p"]);
    let (near, far) = (circle(103.875, 1.297, 10_000), circle(9.78, 53.55, 50_000));
    let cases = [
        (json!([8, at, near]), Some(true)),
        (json!([8, near, at]), Some(true)),
        (json!([8, at, far]), Some(false)),
        (json!([8, at, at]), Some(false)),
        (json!([8, near, near]), Some(false)),
        (json!([8, [81, 8, "raw:z"], near]), None),
        (json!([8, [81, 8, "raw:s"], near]), None),
    ];
    for (expression, expected) in cases {
        let expected = expected.map(|expected| msgpack_of(&json!(expected)));
        assert_eq!(value_of(&expression, &record), expected, "{expression}");
    }
    let invalid = json!([8, at, "g:{\"type\":\"Circle\"}"]);
    assert_eq!(compiled(&invalid).unwrap_err(), ResultCode::GeoInvalid);
    // What was stored before it was checked.
    record.bins[0].1 = (particle::GEOJSON, b"\0\0\0{}".to_vec());
    let damaged = compiled(&json!([8, at, near])).unwrap();
    assert_eq!(
        damaged.eval(&record),
        Err(EvalError::Failed(ResultCode::GeoInvalid))
    );
}

#[test]
fn calls_read_and_change_copies() {
    check(vec![
        (json!([127, 2, 0, [16], bin(4, "l")]), Some(json!(3))),
        (json!([127, 2, 0, [19, 7, 0], bin(4, "l")]), Some(json!(4))),
        (json!([127, 2, 0, [19, 7, 9], bin(4, "l")]), None),
        (json!([127, 3, 0, [19, 7, 0], bin(4, "l")]), None),
        (
            json!([127, 4, 64, [1, 3], bin(4, "l")]),
            Some(json!([4, 2, 0, 3])),
        ),
        (
            json!([127, 2, 0, [16], [127, 4, 64, [1, 3], bin(4, "l")]]),
            Some(json!(4)),
        ),
        (
            json!([127, 2, 0, [97, 7, "s:b"], bin(5, "m")]),
            Some(json!(2)),
        ),
        (json!([127, 2, 0, [97, 7, "s:z"], bin(5, "m")]), None),
        (
            json!([127, 1, 0, [97, 13, "s:b"], bin(5, "m")]),
            Some(json!(true)),
        ),
        (
            json!([127, 2, 0, [255, [16, 0], [16]], bin(4, "n")]),
            Some(json!(2)),
        ),
        (
            json!([
                127,
                2,
                0,
                [255, [16, 1, 34, "s:x"], [19, 7, 0]],
                bin(4, "n")
            ]),
            Some(json!(7)),
        ),
        // Arguments that are expressions, and lists that have to be quoted not to be.
        (
            json!([127, 2, 0, [19, 7, [21, bin(2, "a"), 3]], bin(4, "l")]),
            Some(json!(0)),
        ),
        (
            json!([127, 2, 0, [23, 5, [126, [4, 0, 9]]], bin(4, "l")]),
            Some(json!(2)),
        ),
        (
            json!([127, 2, 0, [23, 5, bin(4, "l3")], bin(4, "l")]),
            Some(json!(2)),
        ),
        (json!([127, 2, 0, [19, 7, bin(2, "z")], bin(4, "l")]), None),
        (
            json!([127, 2, 0, [25, 5, ["ext", "0xff", "01"], 1], bin(4, "l")]),
            Some(json!(0)),
        ),
        (
            json!([127, 2, 0, [105, 5, 2, null], bin(5, "m")]),
            Some(json!(0)),
        ),
        // A map in the order of its selection is a map like others as soon as it is used.
        (
            json!([1, [127, 5, 0, [106, 8, 0, 3], bin(5, "m")], bin(5, "o")]),
            Some(json!(true)),
        ),
        // Nil is what is not there yet.
        (json!([127, 4, 64, [1, 3], null]), Some(json!([3]))),
        (json!([127, 2, 1, [51, 0, 16], bin(6, "y")]), Some(json!(5))),
        (
            json!([127, 6, 1, [50, 0, 8], bin(6, "y")]),
            Some(json!("b:01")),
        ),
        (
            json!([127, 6, 65, [3, 0, 8, "b:ff", 0], bin(6, "y")]),
            Some(json!("b:fff0")),
        ),
        (
            json!([127, 6, 65, [0, 2, 0, 0], null]),
            Some(json!("b:0000")),
        ),
        (
            json!([
                127,
                2,
                2,
                [50],
                [127, 9, 66, [1, quote(json!(["s:a", "s:b"])), 8, 0, 0], null]
            ]),
            Some(json!(2)),
        ),
        (
            json!([
                127,
                2,
                2,
                [56, quote(json!(["s:a"]))],
                [127, 9, 66, [1, quote(json!(["s:a"])), 8, 0, 0], null]
            ]),
            Some(json!(1)),
        ),
    ]);
}
