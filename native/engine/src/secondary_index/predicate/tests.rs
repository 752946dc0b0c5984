//! What is asked for, and which records it is found in.

use super::*;
use crate::expression::tests::{Record, map, msgpack_of, unhex};
use crate::secondary_index::{IndexConfig, keys_of};
use crate::testing::Random;
use data_encoding::BASE64;
use perigee_fixtures::recorded_lines;
use serde_json::{Value as Json, json};

fn range_field(bin: &str, kind: u8, begin: &[u8], end: &[u8]) -> Vec<u8> {
    let mut field = vec![1, bin.len() as u8];
    field.extend_from_slice(bin.as_bytes());
    field.push(kind);
    for bytes in [begin, end] {
        field.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        field.extend_from_slice(bytes);
    }
    field
}

fn parsed(kind: u8, begin: &[u8], end: &[u8]) -> Result<Predicate, ResultCode> {
    let field = range_field("a", kind, begin, end);
    Predicate::parse(&field, Collection::None).map(|(predicate, _)| predicate)
}

fn integers(begin: i64, end: i64) -> Predicate {
    let (begin, end) = (begin.to_be_bytes(), end.to_be_bytes());
    parsed(particle::INTEGER, &begin, &end).expect("a range")
}

fn equal(kind: u8, value: &[u8]) -> Predicate {
    parsed(kind, value, value).expect("a value")
}

fn located(text: &str) -> Predicate {
    equal(particle::GEOJSON, text.as_bytes())
}

fn index(index_type: &str, key_type: &str) -> IndexDefinition {
    let config = json!({"name": "i", "bin": "a", "index-type": index_type, "key-type": key_type});
    IndexDefinition::of(&IndexConfig::of_json(&config.to_string()).unwrap()).unwrap()
}

fn record(value: Json) -> Record {
    Record::of(json!({ "a": value }))
}

/// Whether the index, asked for candidates, has the record among them.
fn is_candidate(predicate: &Predicate, index: &IndexDefinition, record: &Record) -> bool {
    let mut keys = Vec::new();
    keys_of(index, record, &mut keys);
    keys.iter().any(|key| predicate.holds(*key))
}

/// Whether a record is found: among the candidates, and one that is asked for.
fn is_found(predicate: &Predicate, index: &IndexDefinition, record: &Record) -> bool {
    let matches = predicate.matches(index, record);
    assert!(
        !matches || is_candidate(predicate, index, record),
        "{predicate:?} matches a record that the index does not have"
    );
    matches
}

#[test]
fn what_a_client_sent_is_understood() {
    let mut seen = Vec::new();
    for line in recorded_lines() {
        for frame in line["frames"].as_array().expect("frames") {
            let Some(fields) = frame["decoded"]["fields"].as_array() else {
                continue;
            };
            let field = |label: &str| {
                let found = fields.iter().find(|field| field[0] == label);
                found.map(|field| unhex(field[1].as_str().expect("hex digits")))
            };
            let Some(range) = field("IRANGE") else {
                continue;
            };
            let collection = field("ITYPE").map_or(0, |kind| kind[0]);
            let collection = Collection::of_wire(collection).expect("a collection");
            let (predicate, bin) = Predicate::parse(&range, collection).expect("a range");
            let told = match &predicate.wanted {
                Wanted::Integers(range) => format!("{range:?}"),
                Wanted::String(text) => format!("{:?}", String::from_utf8_lossy(text)),
                Wanted::PointsIn(_) => "points".into(),
                other => format!("{other:?}"),
            };
            let name = line["name"].as_str().expect("a name");
            let bin = std::str::from_utf8(bin).unwrap();
            seen.push(format!("{name}: {bin} {collection:?} {told}"));
        }
    }
    seen.sort();
    seen.dedup();
    let expected = [
        "query aggregate: a None 1..=9",
        "query contains list: l List \"x\"",
        "query eq str: b None \"x\"",
        "query exp filter:  None 1..=2",
        "query geo within: g None points",
        "query index name:  None 1..=2",
        "query range int: a None 1..=9",
        "query range mapkeys ctx: m MapKeys 1..=5",
        "query short: a None 1..=9",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn ranges_that_mean_nothing_are_refused() {
    let refused = |field: &[u8], collection| {
        let parsed = Predicate::parse(field, collection);
        parsed.map(|_| ()).expect_err(&format!("{field:02x?}"))
    };
    let good = range_field("a", particle::INTEGER, &[0; 8], &[0; 8]);
    Predicate::parse(&good, Collection::None).unwrap();
    for cut in 0..good.len() {
        assert_eq!(
            refused(&good[..cut], Collection::None),
            ResultCode::Parameter,
            "{cut}"
        );
    }
    let longer = [&good[..], &[0]].concat();
    assert_eq!(refused(&longer, Collection::None), ResultCode::Parameter);
    for count in [0, 2, 255] {
        let mut several = good.clone();
        several[0] = count;
        assert_eq!(
            refused(&several, Collection::None),
            ResultCode::Parameter,
            "{count}"
        );
    }
    // Lengths that lead out of the field.
    for at in [4, 16] {
        for length in [[0xff; 4], [0, 0, 0, 200], [0x80, 0, 0, 0]] {
            let mut beyond = good.clone();
            beyond[at..at + 4].copy_from_slice(&length);
            assert_eq!(refused(&beyond, Collection::None), ResultCode::Parameter);
        }
    }
    let one = 1_i64.to_be_bytes();
    let two = 2_i64.to_be_bytes();
    let cases: [(u8, &[u8], &[u8]); 12] = [
        (particle::INTEGER, &two, &one),
        (particle::INTEGER, &one[1..], &two),
        (particle::INTEGER, &one, &two[1..]),
        (particle::INTEGER, &[], &[]),
        (particle::STRING, &[b'x'; 2048], b"x"),
        (particle::BLOB, &[0; 2048], b"x"),
        (particle::FLOAT, &[0; 8], &[0; 8]),
        (particle::BOOL, &[1], &[1]),
        (particle::NULL, &[], &[]),
        (particle::LIST, &[0x90], &[0x90]),
        (particle::JAVA_BLOB, b"x", b"x"),
        (99, b"x", b"x"),
    ];
    for (kind, begin, end) in cases {
        let code = parsed(kind, begin, end).unwrap_err();
        assert_eq!(code, ResultCode::Parameter, "{kind}: {begin:02x?}");
    }
    let name = range_field("sixteen bytes it", particle::INTEGER, &[0; 8], &[0; 8]);
    assert_eq!(refused(&name, Collection::None), ResultCode::Parameter);
    for text in [
        "",
        "{}",
        r#"{"type":"Point","coordinates":[181,0]}"#,
        r#"{"type":"Line"}"#,
    ] {
        let code = parsed(particle::GEOJSON, text.as_bytes(), b"").unwrap_err();
        assert_eq!(code, ResultCode::GeoInvalid, "{text}");
    }
    let point = br#"{"type":"Point","coordinates":[1,2]}"#;
    let long = [&point[..], &vec![b' '; LOCATION_BYTES_MAX][..]].concat();
    assert_eq!(
        parsed(particle::GEOJSON, &long, b"").unwrap_err(),
        ResultCode::Parameter
    );
    let field = range_field("a", particle::GEOJSON, point, point);
    assert_eq!(refused(&field, Collection::MapKeys), ResultCode::Parameter);
    Predicate::parse(&field, Collection::MapValues).unwrap();
}

#[test]
fn a_predicate_tells_its_type_and_bin() {
    let point = br#"{"type":"Point","coordinates":[1,2]}"#;
    let cases: [(u8, &[u8], KeyType); 5] = [
        (particle::INTEGER, &[0; 8], KeyType::Integer),
        (particle::STRING, &[b'x'; 2047], KeyType::String),
        (particle::STRING, b"", KeyType::String),
        (particle::BLOB, b"\0", KeyType::Blob),
        (particle::GEOJSON, point, KeyType::Geo),
    ];
    for (kind, value, key_type) in cases {
        for bin in ["", "a", "fifteen bytes..", "\u{fe}"] {
            let field = range_field(bin, kind, value, value);
            let (predicate, found) = Predicate::parse(&field, Collection::None).unwrap();
            assert_eq!((predicate.key_type(), found), (key_type, bin.as_bytes()));
        }
    }
}

#[test]
fn ranges_ascend_and_do_not_overlap() {
    let texts = [
        r#"{"type":"Point","coordinates":[1,2]}"#,
        r#"{"type":"Point","coordinates":[-180,-90]}"#,
        r#"{"type":"AeroCircle","coordinates":[[1,2],1000]}"#,
        r#"{"type":"AeroCircle","coordinates":[[1,2],0]}"#,
        r#"{"type":"AeroCircle","coordinates":[[0,0],30000000]}"#,
        r#"{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,0]]]}"#,
    ];
    for text in texts {
        let predicate = located(text);
        let ranges = predicate.ranges();
        assert!(
            !ranges.is_empty() && ranges.len() <= 64,
            "{text}: {}",
            ranges.len()
        );
        assert!(ranges.iter().all(|(first, last)| first <= last), "{text}");
        assert!(
            ranges.windows(2).all(|pair| pair[0].1 < pair[1].0),
            "{text}: {ranges:?}"
        );
    }
    assert_eq!(integers(i64::MIN, i64::MAX).ranges(), [(0, u64::MAX)]);
    assert_eq!(integers(-1, 0).ranges(), [(u64::MAX / 2, u64::MAX / 2 + 1)]);
}

#[test]
fn integers_lie_between_both_ends() {
    let index = index("default", "numeric");
    for (begin, end) in [
        (1, 9),
        (5, 5),
        (i64::MIN, -1),
        (i64::MIN, i64::MAX),
        (-3, 3),
    ] {
        let predicate = integers(begin, end);
        for value in [i64::MIN, -4, -3, -1, 0, 1, 3, 4, 5, 6, 9, 10, i64::MAX] {
            let found = is_found(&predicate, &index, &record(json!(value)));
            assert_eq!(
                found,
                (begin..=end).contains(&value),
                "{value} in {begin}..={end}"
            );
        }
        for other in [json!("s:5"), json!(["f64", 5.0]), json!([5]), json!(true)] {
            assert!(!is_found(&predicate, &index, &record(other)));
        }
    }
}

#[test]
fn strings_and_blobs_are_equal_or_not() {
    for (key_type, kind, own, other) in [
        ("string", particle::STRING, "s:x", "b:78"),
        ("blob", particle::BLOB, "b:78", "s:x"),
    ] {
        let index = index("default", key_type);
        let predicate = equal(kind, b"x");
        assert!(is_found(&predicate, &index, &record(json!(own))));
        assert!(!is_found(&predicate, &index, &record(json!(other))));
        assert!(!is_found(&predicate, &index, &record(json!("s:xx"))));
        assert!(!is_found(&predicate, &index, &record(json!(5))));
    }
    // What has the same key and is another value is not what was asked for.
    let mut predicate = equal(particle::STRING, b"x");
    predicate.ranges = vec![(0, u64::MAX)];
    let index = index("default", "string");
    assert!(is_candidate(&predicate, &index, &record(json!("s:y"))));
    assert!(!is_found(&predicate, &index, &record(json!("s:y"))));
}

#[test]
fn any_element_of_a_collection_will_do() {
    let list = record(json!([1, 5, "s:x", [7]]));
    let mapped = record(json!({"MAP": [[1, 50], ["s:x", "s:y"]]}));
    assert!(is_found(&integers(4, 6), &index("list", "numeric"), &list));
    assert!(!is_found(&integers(2, 4), &index("list", "numeric"), &list));
    assert!(!is_found(&integers(7, 7), &index("list", "numeric"), &list));
    assert!(is_found(
        &integers(1, 1),
        &index("mapkeys", "numeric"),
        &mapped
    ));
    assert!(!is_found(
        &integers(50, 50),
        &index("mapkeys", "numeric"),
        &mapped
    ));
    assert!(is_found(
        &integers(50, 50),
        &index("mapvalues", "numeric"),
        &mapped
    ));
    let (x, y) = (equal(particle::STRING, b"x"), equal(particle::STRING, b"y"));
    assert!(is_found(&x, &index("list", "string"), &list));
    assert!(is_found(&x, &index("mapkeys", "string"), &mapped));
    assert!(!is_found(&y, &index("mapkeys", "string"), &mapped));
    assert!(is_found(&y, &index("mapvalues", "string"), &mapped));
    assert!(!is_found(
        &integers(1, 1),
        &index("default", "numeric"),
        &list
    ));
    // Of another type than the index.
    assert!(!is_found(&integers(1, 1), &index("list", "string"), &list));
}

#[test]
fn values_are_found_where_the_index_looks() {
    let of = |config: Json| {
        IndexDefinition::of(&IndexConfig::of_json(&config.to_string()).unwrap()).unwrap()
    };
    let base64 = |json: Json| BASE64.encode(&msgpack_of(&json));
    let nested = of(json!({
        "name": "i", "bin": "a", "context": base64(json!([0x22, "s:n", 0x10, -1])),
        "key-type": "numeric",
    }));
    let value = |last: i64| record(map(&[("n", json!([1, last]))]));
    assert!(is_found(&integers(5, 5), &nested, &value(5)));
    assert!(!is_found(&integers(5, 5), &nested, &value(6)));
    assert!(!is_found(&integers(1, 1), &nested, &value(6)));
    let computed = of(json!({
        "name": "i", "expression": base64(json!([22, [81, 2, "raw:a"], 2])),
        "key-type": "numeric", "set": "demo",
    }));
    assert!(is_found(&integers(10, 10), &computed, &record(json!(5))));
    assert!(!is_found(&integers(5, 5), &computed, &record(json!(5))));
    let mut gone = record(json!(5));
    gone.metadata.is_tombstone = true;
    assert!(!is_found(&integers(10, 10), &computed, &gone));
    let mut elsewhere = record(json!(5));
    elsewhere.metadata.set = b"other";
    assert!(!is_found(&integers(10, 10), &computed, &elsewhere));
    let set = of(json!({"name": "i", "set": "demo", "index-type": "set"}));
    assert!(!set_matches_anything(&set));
}

fn set_matches_anything(set: &IndexDefinition) -> bool {
    integers(i64::MIN, i64::MAX).matches(set, &record(json!(0)))
}

fn point(longitude: f64, latitude: f64) -> String {
    format!(r#"{{"type":"Point","coordinates":[{longitude},{latitude}]}}"#)
}

fn circle(longitude: f64, latitude: f64, meters: f64) -> String {
    format!(r#"{{"type":"AeroCircle","coordinates":[[{longitude},{latitude}],{meters}]}}"#)
}

#[test]
fn points_are_found_in_regions_and_regions_around_points() {
    let seed = 23;
    let mut random = Random(seed);
    let mut number =
        |from: f64, to: f64| from + (to - from) * (random.next() as f64 / u64::MAX as f64);
    let (alone, listed) = (
        index("default", "geo2dsphere"),
        index("list", "geo2dsphere"),
    );
    let elsewhere = format!("g:{}", circle(0.0, 89.9, 1.0));
    let (mut inside, mut outside) = (0, 0);
    for _ in 0..400 {
        let (longitude, latitude) = (number(-180.0, 180.0), number(-85.0, 85.0));
        let meters = 10_f64.powf(number(0.0, 6.5));
        // One and a half times as far as the outline is, at most.
        let reach = (meters * 1.5 / 111_000.0).min(60.0);
        let near = (
            (longitude + number(-reach, reach)).clamp(-180.0, 180.0),
            (latitude + number(-reach, reach)).clamp(-90.0, 90.0),
        );
        let (point, circle) = (point(near.0, near.1), circle(longitude, latitude, meters));
        let expected = {
            let located = |text: &str| Geometry::parse(text.as_bytes()).unwrap();
            located(&circle).contains(&located(&point))
        };
        inside += usize::from(expected);
        outside += usize::from(!expected);
        for (asked, stored) in [(&circle, &point), (&point, &circle)] {
            let (predicate, value) = (located(asked), json!(format!("g:{stored}")));
            let told = format!("seed {seed}: {asked} in {stored}");
            let one = record(value.clone());
            assert_eq!(is_found(&predicate, &alone, &one), expected, "{told}");
            let several = record(json!([1, elsewhere, value, "g:{}"]));
            assert_eq!(is_found(&predicate, &listed, &several), expected, "{told}");
        }
        for same in [&circle, &point] {
            let value = record(json!(format!("g:{same}")));
            assert!(
                !is_found(&located(same), &alone, &value),
                "a point in a point: {same}"
            );
        }
    }
    assert!(inside > 50 && outside > 50, "{inside} and {outside}");
}

#[test]
fn regions_beyond_the_bound_are_not_found() {
    use crate::secondary_index::keys::REGIONS_MAX;
    let listed = index("list", "geo2dsphere");
    let regions: Vec<String> = (0..REGIONS_MAX + 2)
        .map(|i| format!("g:{}", circle(i as f64 / 100.0, 1.0, 10.0)))
        .collect();
    let all = record(json!(regions));
    let at = |i: usize| located(&point(i as f64 / 100.0, 1.0));
    assert!(is_found(&at(0), &listed, &all));
    assert!(is_found(&at(REGIONS_MAX - 1), &listed, &all));
    assert!(!is_found(&at(REGIONS_MAX), &listed, &all));
    let mut with_point = regions;
    with_point.push(format!("g:{}", point(-5.0, 1.0)));
    let region = located(&circle(-5.0, 1.0, 10.0));
    let found = is_found(&region, &listed, &record(json!(with_point)));
    assert!(found, "points are not counted");
}
