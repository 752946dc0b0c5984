//! Keys of records.

use super::*;
use crate::expression::tests::{Record, map, msgpack_of};
use crate::record::geo::stored;
use crate::secondary_index::IndexConfig;
use crate::testing::Random;
use data_encoding::BASE64;
use serde_json::{Value as Json, json};

/// An index of the bin `a`.
fn index(index_type: &str, key_type: &str, context: Option<Json>) -> IndexDefinition {
    let context = context.map(|context| BASE64.encode(&msgpack_of(&context)));
    definition(json!({
        "name": "i", "bin": "a", "context": context, "index-type": index_type, "key-type": key_type,
    }))
}

fn index_of_expression(index_type: &str, key_type: &str, expression: Json) -> IndexDefinition {
    let expression = BASE64.encode(&msgpack_of(&expression));
    definition(json!({
        "name": "i", "expression": expression, "index-type": index_type, "key-type": key_type,
    }))
}

fn definition(config: Json) -> IndexDefinition {
    let config = IndexConfig::of_json(&config.to_string()).expect("a definition");
    IndexDefinition::of(&config).expect("a definition")
}

/// A record with a bin `a`.
fn record(value: Json) -> Record {
    Record::of(json!({ "a": value }))
}

fn keys(definition: &IndexDefinition, record: &Record) -> Vec<u64> {
    // What was there before goes.
    let mut keys = vec![3, 2, 1];
    keys_of(definition, record, &mut keys);
    assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    keys
}

fn sorted(mut keys: Vec<u64>) -> Vec<u64> {
    keys.sort_unstable();
    keys
}

fn integers(values: &[i64]) -> Vec<u64> {
    sorted(values.iter().copied().map(key_of_integer).collect())
}

fn texts(values: &[&str]) -> Vec<u64> {
    sorted(
        values
            .iter()
            .map(|text| key_of_bytes(text.as_bytes()))
            .collect(),
    )
}

const NONE: [u64; 0] = [];

#[test]
fn keys_of_integers_order_as_they_do() {
    let seed = 11;
    let mut random = Random(seed);
    let mut values = vec![i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    values.extend((0..1000).map(|_| random.next() as i64 >> random.below(64)));
    values.sort_unstable();
    let keys: Vec<u64> = values.iter().copied().map(key_of_integer).collect();
    assert!(keys.is_sorted(), "seed {seed}");
    assert_eq!((keys[0], keys[keys.len() - 1]), (0, u64::MAX));
}

#[test]
fn equal_bytes_have_equal_keys() {
    assert_eq!(key_of_bytes(b"abc"), key_of_bytes(&[97, 98, 99]));
    assert_ne!(key_of_bytes(b""), key_of_bytes(b"\0"));
    assert_ne!(key_of_bytes(b"a"), key_of_bytes(b"b"));
}

#[test]
fn a_bin_has_one_key_if_it_is_of_the_type() {
    let values = [
        json!(-7),
        json!("s:x"),
        json!("b:78"),
        json!(r#"g:{"type":"Point","coordinates":[1,2]}"#),
        json!(["f64", 1.0]),
        json!(true),
        json!([1, "s:x", "b:78"]),
        map(&[("x", json!(1))]),
    ];
    let found = |key_type| -> Vec<Vec<u64>> {
        let index = index("default", key_type, None);
        values
            .iter()
            .map(|value| keys(&index, &record(value.clone())))
            .collect()
    };
    let only = |at: usize, key: u64| -> Vec<Vec<u64>> {
        let key = |i| if i == at { vec![key] } else { vec![] };
        (0..values.len()).map(key).collect()
    };
    assert_eq!(found("numeric"), only(0, key_of_integer(-7)));
    assert_eq!(found("string"), only(1, key_of_bytes(b"x")));
    assert_eq!(found("blob"), only(2, key_of_bytes(b"x")));
    let cell = point_cell(br#"{"type":"Point","coordinates":[1,2]}"#)
        .unwrap()
        .unwrap();
    assert_eq!(found("geo2dsphere"), only(3, cell));
    let missing = Record::of(json!({"b": 1}));
    assert_eq!(keys(&index("default", "numeric", None), &missing), NONE);
}

#[test]
fn blobs_of_a_language_are_not_blobs() {
    let mut record = record(json!("b:01"));
    let index = index("default", "blob", None);
    assert_eq!(keys(&index, &record).len(), 1);
    record.bins[0].1.0 = particle::JAVA_BLOB;
    assert_eq!(keys(&index, &record), NONE);
}

#[test]
fn strings_and_blobs_that_are_too_long_have_no_keys() {
    for (key_type, kind, pair) in [("string", "s", "aa"), ("blob", "b", "00")] {
        let value = |bytes: usize| match kind {
            "s" => json!(format!("s:{}", "a".repeat(bytes))),
            _ => json!(format!("b:{}", pair.repeat(bytes))),
        };
        let alone = index("default", key_type, None);
        assert_eq!(keys(&alone, &record(value(0))).len(), 1);
        assert_eq!(keys(&alone, &record(value(2047))).len(), 1);
        assert_eq!(keys(&alone, &record(value(2048))), NONE);
        let listed = index("list", key_type, None);
        let list = record(json!([value(2048), value(5), value(2047)]));
        assert_eq!(keys(&listed, &list).len(), 2);
    }
}

#[test]
fn a_list_has_a_key_an_element_of_the_type_each_once() {
    let list = json!([
        5,
        "s:x",
        -5,
        5,
        "b:78",
        "s:x",
        ["f64", 5.0],
        [9],
        null,
        true,
        "s:y"
    ]);
    let list = record(list);
    assert_eq!(
        keys(&index("list", "numeric", None), &list),
        integers(&[-5, 5])
    );
    assert_eq!(
        keys(&index("list", "string", None), &list),
        texts(&["x", "y"])
    );
    assert_eq!(keys(&index("list", "blob", None), &list), texts(&["x"]));
    assert_eq!(keys(&index("list", "geo2dsphere", None), &list), NONE);
    assert_eq!(keys(&index("mapvalues", "numeric", None), &list), NONE);
    assert_eq!(
        keys(&index("list", "numeric", None), &record(json!([]))),
        NONE
    );
    assert_eq!(
        keys(&index("list", "numeric", None), &record(json!(5))),
        NONE
    );
    // One that is ordered begins with a mark, which is no element.
    let ordered = record(json!([["ext", "0x01", ""], 1, 2]));
    assert_eq!(ordered.bins[0].1.1, [0x93, 0xc7, 0, 1, 1, 2]);
    assert_eq!(
        keys(&index("list", "numeric", None), &ordered),
        integers(&[1, 2])
    );
    // Beyond what a bin holds, it is the integer that a bin would hold.
    let unsigned = record(json!([u64::MAX]));
    assert_eq!(
        keys(&index("list", "numeric", None), &unsigned),
        integers(&[-1])
    );
}

#[test]
fn a_map_has_a_key_for_its_keys_or_for_its_values() {
    let map = json!({"MAP": [[1, "s:one"], ["s:two", 2], ["b:03", 1], [4, [5]], [7, 2]]});
    let ordered = {
        let mut pairs = map["MAP"].as_array().unwrap().clone();
        pairs.insert(0, json!([["ext", "0x01", ""], null]));
        json!({ "MAP": pairs })
    };
    for map in [map, ordered] {
        let map = record(map);
        assert_eq!(
            keys(&index("mapkeys", "numeric", None), &map),
            integers(&[1, 4, 7])
        );
        assert_eq!(
            keys(&index("mapkeys", "string", None), &map),
            texts(&["two"])
        );
        assert_eq!(
            keys(&index("mapkeys", "blob", None), &map),
            texts(&["\u{3}"])
        );
        assert_eq!(
            keys(&index("mapvalues", "numeric", None), &map),
            integers(&[1, 2])
        );
        assert_eq!(
            keys(&index("mapvalues", "string", None), &map),
            texts(&["one"])
        );
        assert_eq!(keys(&index("list", "numeric", None), &map), NONE);
        assert_eq!(keys(&index("default", "numeric", None), &map), NONE);
    }
}

#[test]
fn a_context_leads_to_the_value() {
    let nested = record(map(&[
        ("n", json!([10, [20, 21], map(&[("k", json!("s:v"))])])),
        ("o", json!(5)),
    ]));
    let at =
        |index_type, key_type, context| keys(&index(index_type, key_type, Some(context)), &nested);
    assert_eq!(
        at("default", "numeric", json!([0x22, "s:o"])),
        integers(&[5])
    );
    assert_eq!(
        at("default", "numeric", json!([0x22, "s:n", 0x10, 0])),
        integers(&[10])
    );
    assert_eq!(
        at("list", "numeric", json!([0x22, "s:n", 0x10, 1])),
        integers(&[20, 21])
    );
    assert_eq!(at("list", "numeric", json!([0x22, "s:n"])), integers(&[10]));
    let map = json!([0x22, "s:n", 0x10, -1]);
    assert_eq!(at("mapkeys", "string", map.clone()), texts(&["k"]));
    assert_eq!(at("mapvalues", "string", map), texts(&["v"]));
    // A way that ends, and values of other types.
    for context in [
        json!([0x22, "s:x"]),
        json!([0x22, "s:n", 0x10, 9]),
        json!([0x22, "s:o", 0x10, 0]),
        json!([0x10, 0]),
        json!([0x22, "s:n"]),
    ] {
        assert_eq!(at("default", "numeric", context.clone()), NONE, "{context}");
    }
    let context = Some(json!([0x10, 0]));
    assert_eq!(
        keys(
            &index("default", "numeric", context.clone()),
            &record(json!(5))
        ),
        NONE
    );
    assert_eq!(
        keys(
            &index("default", "numeric", context),
            &record(json!("s:\u{1}"))
        ),
        NONE
    );
}

#[test]
fn an_expression_gives_the_value() {
    let sum = json!([20, [81, 2, "raw:a"], 1]);
    let sum = index_of_expression("default", "numeric", sum);
    assert_eq!(keys(&sum, &record(json!(41))), integers(&[42]));
    // Unknown of a bin that is missing or of another type.
    assert_eq!(keys(&sum, &record(json!("s:x"))), NONE);
    assert_eq!(keys(&sum, &Record::of(json!({}))), NONE);

    let list = |kind| index_of_expression("list", kind, json!([81, 4, "raw:a"]));
    let record_of_list = record(json!([3, "s:x", 3]));
    assert_eq!(keys(&list("numeric"), &record_of_list), integers(&[3]));
    assert_eq!(keys(&list("string"), &record_of_list), texts(&["x"]));
    // The list of a map's keys, made on the way.
    let made = index_of_expression("list", "string", json!([101, [81, 5, "raw:a"]]));
    let of_map = record(map(&[("x", json!(1)), ("y", json!(2))]));
    assert_eq!(keys(&made, &of_map), texts(&["x", "y"]));
    let keys_of_map = index_of_expression("mapkeys", "string", json!([81, 5, "raw:a"]));
    assert_eq!(keys(&keys_of_map, &of_map), texts(&["x", "y"]));
    let set = index_of_expression("default", "string", json!([70]));
    assert_eq!(keys(&set, &of_map), texts(&["demo"]));
    let geo = index_of_expression("default", "geo2dsphere", json!([81, 8, "raw:a"]));
    let place = record(json!(r#"g:{"type":"Point","coordinates":[1,2]}"#));
    assert_eq!(keys(&geo, &place).len(), 1);
}

#[test]
fn a_tombstone_and_a_record_of_another_set_have_no_keys() {
    let of_set = |key: &str, set: &str| {
        let mut config = json!({"name": "i", "set": set, "index-type": key});
        if key != "set" {
            config["bin"] = json!("a");
            config["key-type"] = json!("numeric");
        }
        definition(config)
    };
    let mut one = record(json!(5));
    assert_eq!(keys(&of_set("default", "demo"), &one), integers(&[5]));
    assert_eq!(keys(&of_set("default", "other"), &one), NONE);
    assert_eq!(keys(&of_set("set", "demo"), &one), [0]);
    assert_eq!(keys(&of_set("set", "other"), &one), NONE);
    one.metadata.is_tombstone = true;
    assert_eq!(keys(&of_set("default", "demo"), &one), NONE);
    assert_eq!(keys(&of_set("set", "demo"), &one), NONE);
    let of_metadata = index_of_expression("default", "string", json!([70]));
    assert_eq!(keys(&of_metadata, &one), NONE);
}

fn circle(longitude: f64, latitude: f64, meters: f64) -> String {
    format!(r#"{{"type":"AeroCircle","coordinates":[[{longitude},{latitude}],{meters}]}}"#)
}

#[test]
fn locations_have_the_keys_of_their_cells_wherever_they_lie() {
    let point = r#"{"type":"Point","coordinates":[103.913,1.308]}"#;
    let region = circle(-122.25, 37.87, 3000.0);
    for text in [point, &region] {
        let cells = sorted(
            Geometry::parse(text.as_bytes())
                .unwrap()
                .cells(&CoveringLimits::default()),
        );
        assert!((1..=12).contains(&cells.len()));
        let value = json!(format!("g:{text}"));
        let mut one = record(value.clone());
        assert_eq!(keys(&index("default", "geo2dsphere", None), &one), cells);
        // As it is stored, with its cells.
        one.bins[0].1.1 = stored(&one.bins[0].1.1, &CoveringLimits::default()).unwrap();
        assert_eq!(keys(&index("default", "geo2dsphere", None), &one), cells);
        let listed = record(json!([1, value, value, "g:{}"]));
        assert_eq!(keys(&index("list", "geo2dsphere", None), &listed), cells);
        let mapped = record(map(&[("k", value.clone()), ("l", value)]));
        assert_eq!(
            keys(&index("mapvalues", "geo2dsphere", None), &mapped),
            cells
        );
        let context = Some(json!([0x22, "s:k"]));
        assert_eq!(
            keys(&index("default", "geo2dsphere", context), &mapped),
            cells
        );
    }
    let nowhere = record(json!([
        "g:{}",
        "g:x",
        r#"g:{"type":"Point","coordinates":[999,0]}"#
    ]));
    assert_eq!(keys(&index("list", "geo2dsphere", None), &nowhere), NONE);
}

#[test]
fn regions_of_a_record_are_bounded_and_points_are_not() {
    let index = index("list", "geo2dsphere", None);
    let text = |i: usize| format!("g:{}", circle(i as f64 / 100.0, 1.0, 0.001));
    let regions: Vec<String> = (0..REGIONS_MAX + 5).map(text).collect();
    let all = keys(&index, &record(json!(regions)));
    assert_eq!(all, keys(&index, &record(json!(regions[..REGIONS_MAX]))));
    assert_ne!(
        all,
        keys(&index, &record(json!(regions[..REGIONS_MAX - 1])))
    );

    let padded = |bytes: usize| format!("{}{}", text(7), " ".repeat(bytes));
    let long = record(json!([padded(REGIONS_BYTES_MAX)]));
    assert!(
        !keys(&index, &long).is_empty(),
        "the first is indexed, however long it is"
    );
    let after = record(json!([padded(REGIONS_BYTES_MAX), text(500)]));
    assert_eq!(keys(&index, &after), keys(&index, &long));

    let point = |i: usize| {
        format!(
            r#"g:{{"type":"Point","coordinates":[{},1]}}"#,
            i as f64 / 100.0
        )
    };
    let points: Vec<String> = (0..3000).map(point).collect();
    assert_eq!(keys(&index, &record(json!(points))).len(), 3000);
}

#[test]
fn a_damaged_container_has_no_more_keys_than_can_be_read() {
    let mut one = record(json!([1, 2, 3]));
    let index = index("list", "numeric", None);
    one.bins[0].1.1.truncate(3);
    // The count is of more elements than there are bytes: it is not believed.
    assert_eq!(keys(&index, &one), NONE);
    one.bins[0].1.1 = vec![0x92, 1, 0xd3];
    assert_eq!(keys(&index, &one), integers(&[1]));
}
