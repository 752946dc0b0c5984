//! Operations on lists and maps, compared with what the protocol says and with a plain model.

use super::*;
use perigee_wire::msgpack::{Reader, Value, Writer, canonical, order, read_order};
use serde_json::{Value as Json, json};

const ORDERED: i64 = 1;
const VALUE: i64 = 7;
const KEY: i64 = 6;
const INDEX: i64 = 1;
const RANK: i64 = 3;
const COUNT: i64 = 5;
const KEY_VALUE: i64 = 8;
const EXISTS: i64 = 13;
const INVERTED: i64 = 0x10000;

/// As msgpack. Strings are strings, `{"$ordered": [...]}` and `{"$by_key": {...}}` are ordered, `"$any"` and `"$end"` the
/// wildcard and infinity.
fn pack(json: &Json, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    match json {
        Json::Null => writer.nil(),
        Json::Bool(value) => writer.bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => writer.int(value),
            None => match number.as_u64() {
                Some(value) => writer.unsigned(value),
                None => writer.float(number.as_f64().unwrap()),
            },
        },
        Json::String(text) if text == "$any" => writer.ext(-1, &[0]),
        Json::String(text) if text == "$end" => writer.ext(-1, &[1]),
        Json::String(text) => writer.particle(particle::STRING, text.as_bytes()),
        Json::Array(items) => {
            writer.array(items.len() as u32);
            items.iter().for_each(|item| pack(item, out));
        }
        Json::Object(pairs) => {
            if let Some(Json::Array(items)) = pairs.get("$ordered") {
                writer.container(false, order::ORDERED, items.len() as u32);
                return items.iter().for_each(|item| pack(item, out));
            }
            let (pairs, order) = match pairs.get("$by_key") {
                Some(Json::Object(pairs)) => (pairs, order::ORDERED),
                _ => (pairs, order::UNORDERED),
            };
            writer.container(true, order, pairs.len() as u32);
            for (key, value) in pairs {
                // Numbers as keys, since JSON has none.
                match key.parse::<i64>() {
                    Ok(number) => Writer::new(out).int(number),
                    Err(_) => pack(&json!(key), out),
                }
                pack(value, out);
            }
        }
    }
}

fn packed(json: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    pack(json, &mut out);
    canonical(&out).expect("a valid value")
}

fn unpack(reader: &mut Reader<'_>) -> Json {
    match reader.read().expect("well formed") {
        Value::Nil => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::Str(bytes) => json!(String::from_utf8_lossy(&bytes[1..])),
        Value::Array(counted) => {
            let (items, order) = read_order(reader, counted, false).unwrap();
            let items: Vec<_> = (0..items).map(|_| unpack(reader)).collect();
            if order == 0 {
                json!(items)
            } else {
                json!({ "$ordered": items })
            }
        }
        Value::Map(counted) => {
            let (pairs, order) = read_order(reader, counted, true).unwrap();
            let pairs: Vec<_> = (0..pairs)
                .map(|_| (unpack(reader), unpack(reader)))
                .collect();
            if order == order::PRESERVED {
                return json!(pairs);
            }
            let object = Json::Object(
                pairs
                    .into_iter()
                    .map(|(key, value)| match key {
                        Json::String(text) => (text, value),
                        other => (other.to_string(), value),
                    })
                    .collect(),
            );
            if order == 0 {
                object
            } else {
                json!({ "$by_key": object })
            }
        }
        other => panic!("{other:?}"),
    }
}

fn unpacked(bytes: &[u8]) -> Json {
    let mut reader = Reader::new(bytes);
    let json = unpack(&mut reader);
    reader.finish().expect("one value");
    assert_eq!(canonical_or_result(bytes), bytes, "not canonical: {json}");
    json
}

/// Results may carry an order that no stored value has.
fn canonical_or_result(bytes: &[u8]) -> Vec<u8> {
    canonical(bytes)
        .ok()
        .filter(|canonical| canonical.len() == bytes.len())
        .unwrap_or_else(|| bytes.to_vec())
}

/// Runs an operation: `[code, argument...]`, or `[255, context, [code, argument...]]`.
fn run(value: &Json, call: Json) -> Result<(Json, Json), ResultCode> {
    let bytes = (!value.is_null()).then(|| packed(value));
    let mut packed_call = Vec::new();
    pack(&call, &mut packed_call);
    let call_bytes = CallBytes::of(&packed_call)?;
    let mut call = Call::parse(&call_bytes)?;
    let result = |result: Option<Vec<u8>>| result.map_or(Json::Null, |bytes| unpacked(&bytes));
    if call.is_modify()? {
        let changed = modify(bytes.as_deref(), &mut call)?;
        let value = changed.value.as_deref().or(bytes.as_deref());
        Ok((value.map_or(Json::Null, unpacked), result(changed.result)))
    } else {
        let found = read(&bytes.expect("a value to read")[..], &mut call)?;
        Ok((value.clone(), result(found)))
    }
}

#[track_caller]
fn check(value: Json, call: Json, new: Json, result: Json) {
    assert_eq!(
        run(&value, call.clone()),
        Ok((new, result)),
        "{call} on {value}"
    );
}

#[track_caller]
fn reads(value: Json, call: Json, result: Json) {
    check(value.clone(), call, value, result);
}

#[track_caller]
fn fails(value: Json, call: Json, code: ResultCode) {
    assert_eq!(run(&value, call.clone()), Err(code), "{call} on {value}");
}

#[test]
fn lists_grow() {
    check(json!([1, 2]), json!([1, 9]), json!([1, 2, 9]), json!(3));
    check(json!(null), json!([1, 9]), json!([9]), json!(1));
    check(
        json!(null),
        json!([1, 9, ORDERED, 0]),
        json!({"$ordered": [9]}),
        json!(1),
    );
    check(
        json!({"$ordered": [1, 5]}),
        json!([1, 3]),
        json!({"$ordered": [1, 3, 5]}),
        json!(3),
    );
    check(json!([1]), json!([2, [7, 8]]), json!([1, 7, 8]), json!(3));
    check(
        json!({"$ordered": [2, 4]}),
        json!([2, [5, 1, 3, 3]]),
        json!({"$ordered": [1, 2, 3, 3, 4, 5]}),
        json!(6),
    );
    check(
        json!([1, 2, 3]),
        json!([3, -1, 9]),
        json!([1, 2, 9, 3]),
        json!(4),
    );
    check(
        json!([1]),
        json!([3, 3, 9]),
        json!([1, null, null, 9]),
        json!(4),
    );
    check(
        json!([1, 2]),
        json!([4, 1, [8, 9]]),
        json!([1, 8, 9, 2]),
        json!(4),
    );
    check(
        json!({"$ordered": [3]}),
        json!([3, 0, 9]),
        json!({"$ordered": [3, 9]}),
        json!(2),
    );
    fails(
        json!({"$ordered": [3]}),
        json!([3, 1, 9]),
        ResultCode::OpNotApplicable,
    );
    fails(json!([1]), json!([3, 5, 9, 2]), ResultCode::OpNotApplicable);
    check(json!([1]), json!([3, 5, 9, 2 | 4]), json!([1]), json!(1));
    fails(json!([1]), json!([3, -2, 9]), ResultCode::OpNotApplicable);
    fails(
        json!([1]),
        json!([3, 1i64 << 40, 9]),
        ResultCode::RecordTooBig,
    );
    fails(json!([1]), json!([1, "$any"]), ResultCode::Parameter);
    fails(json!([1]), json!([2, 5]), ResultCode::Parameter);
    fails(json!([1]), json!([1]), ResultCode::Parameter);
    fails(json!([1]), json!([1, 2, 0, 0, 0]), ResultCode::Parameter);
    fails(json!({"a": 1}), json!([1, 2]), ResultCode::IncompatibleType);
}

#[test]
fn unique_elements_stay_unique() {
    fails(
        json!([1, 2]),
        json!([1, 2, 0, 1]),
        ResultCode::ElementExists,
    );
    check(
        json!([1, 2]),
        json!([1, 2, 0, 1 | 4]),
        json!([1, 2]),
        json!(2),
    );
    check(
        json!([1, 2]),
        json!([2, [2, 3, 3, 4], 0, 1 | 4 | 8]),
        json!([1, 2, 3, 4]),
        json!(4),
    );
    check(
        json!([1, 2]),
        json!([2, [2, 3], 0, 1 | 4]),
        json!([1, 2]),
        json!(2),
    );
    check(
        json!({"$ordered": [1, 4]}),
        json!([2, [4, 2, 2], 1, 13]),
        json!({"$ordered": [1, 2, 4]}),
        json!(3),
    );
    fails(
        json!([1, 2, 3]),
        json!([9, 0, 3, 1]),
        ResultCode::ElementExists,
    );
    check(
        json!([1, 2, 3]),
        json!([9, 0, 1, 1]),
        json!([1, 2, 3]),
        json!(null),
    );
    check(
        json!([1, 2, 3]),
        json!([9, 0, 3, 5]),
        json!([1, 2, 3]),
        json!(null),
    );
}

#[test]
fn elements_are_set_counted_up_and_sorted() {
    check(
        json!([1, 2, 3]),
        json!([9, 1, 9]),
        json!([1, 9, 3]),
        json!(null),
    );
    check(
        json!([1]),
        json!([9, 3, 9]),
        json!([1, null, null, 9]),
        json!(null),
    );
    fails(json!([1]), json!([9, -2, 9]), ResultCode::OpNotApplicable);
    check(json!([1, 2]), json!([12, 1]), json!([1, 3]), json!(3));
    check(json!([1, 2]), json!([12, 1, 5]), json!([1, 7]), json!(7));
    check(json!([1.5]), json!([12, 0, 1]), json!([2.5]), json!(2.5));
    check(json!([]), json!([12, 1, 4]), json!([null, 4]), json!(4));
    check(
        json!({"$ordered": [1, 2, 3]}),
        json!([12, 0, 10]),
        json!({"$ordered": [2, 3, 11]}),
        json!(11),
    );
    check(
        json!([1, 2]),
        json!([12, 0, 1, 0, 1 | 4]),
        json!([1, 2]),
        json!(2),
    );
    fails(
        json!([1, 2]),
        json!([12, 0, 1, 0, 1]),
        ResultCode::ElementExists,
    );
    fails(json!([null]), json!([12, 0]), ResultCode::Parameter);
    fails(json!(["a"]), json!([12, 0]), ResultCode::Parameter);
    check(
        json!([i64::MAX]),
        json!([12, 0]),
        json!([i64::MIN]),
        json!(i64::MIN),
    );
    check(
        json!([3, 1, 2, 1]),
        json!([13]),
        json!([1, 1, 2, 3]),
        json!(null),
    );
    check(
        json!([3, 1, 2, 1]),
        json!([13, 1]),
        json!([3, 2, 1, 1]),
        json!(null),
    );
    check(
        json!([3, 1, 2, 1]),
        json!([13, 2]),
        json!([1, 2, 3]),
        json!(null),
    );
    check(
        json!([3, 1]),
        json!([0, ORDERED]),
        json!({"$ordered": [1, 3]}),
        json!(null),
    );
    check(
        json!([3, 1]),
        json!([0, ORDERED | 16]),
        json!({"$ordered": [1, 3]}),
        json!(null),
    );
    check(
        json!({"$ordered": [1, 3]}),
        json!([0, 0]),
        json!([1, 3]),
        json!(null),
    );
    check(
        json!(null),
        json!([0, ORDERED]),
        json!({"$ordered": []}),
        json!(null),
    );
}

#[test]
fn lists_shrink() {
    let list = || json!([1, 2, 3, 4, 5]);
    check(list(), json!([5, 2]), json!([1, 2, 4, 5]), json!(3));
    check(list(), json!([6, 1, 2]), json!([1, 4, 5]), json!([2, 3]));
    check(list(), json!([6, -2]), json!([1, 2, 3]), json!([4, 5]));
    check(list(), json!([7, -1]), json!([1, 2, 3, 4]), json!(1));
    check(list(), json!([8, 3, 9]), json!([1, 2, 3]), json!(2));
    check(list(), json!([8, 7]), list(), json!(0));
    check(list(), json!([10, 1, 3]), json!([2, 3, 4]), json!(2));
    // Some clients send a negative count as the large number that its bits are.
    for count in [json!(-5), json!(u64::MAX - 4)] {
        let call = json!([10, 1, count]);
        check(list(), call, json!([2, 3, 4, 5]), json!(1));
    }
    check(list(), json!([11]), json!([]), json!(null));
    fails(list(), json!([5, 5]), ResultCode::OpNotApplicable);
    fails(list(), json!([7, -6]), ResultCode::OpNotApplicable);
    check(list(), json!([32, VALUE, 2]), json!([1, 2, 4, 5]), json!(3));
    check(
        list(),
        json!([37, COUNT | INVERTED, 1, 2]),
        json!([2, 3]),
        json!(3),
    );
    check(
        list(),
        json!([38, INDEX, 2, 5]),
        json!([1, 5]),
        json!([1, 2, 3]),
    );
    check(
        json!([1, 2, 3, 1, 2, 3]),
        json!([35, INDEX, 3]),
        json!([1, 2, 1, 2]),
        json!([2, 5]),
    );
    check(
        json!([1, 2, 3, 1, 2, 3]),
        json!([36, INVERTED, [1, 3]]),
        json!([1, 3, 1, 3]),
        json!(null),
    );
    check(
        json!([3, 1, 2, 4]),
        json!([34, VALUE, 1]),
        json!([3, 1, 4]),
        json!(2),
    );
    check(
        json!([1, 2, 1]),
        json!([33, VALUE, 1]),
        json!([2, 1]),
        json!(1),
    );
    check(
        json!([1, 2, 1]),
        json!([33, INDEX, 7]),
        json!([1, 2, 1]),
        json!(-1),
    );
    check(
        json!({"$ordered": [0, 4, 5, 9, 11, 15]}),
        json!([40, VALUE, 5, 0, 2]),
        json!({"$ordered": [0, 4, 11, 15]}),
        json!([5, 9]),
    );
    check(json!(null), json!([5, 0]), json!(null), json!(null));
}

#[test]
fn lists_are_read() {
    let list = || json!([5, 3, 9, 3]);
    reads(list(), json!([16]), json!(4));
    reads(list(), json!([17, -1]), json!(3));
    fails(list(), json!([17, 4]), ResultCode::OpNotApplicable);
    reads(list(), json!([18, 1, 2]), json!([3, 9]));
    reads(list(), json!([18, -10, 7]), json!([5]));
    reads(list(), json!([19, VALUE, 0]), json!(5));
    fails(list(), json!([19, VALUE, 9]), ResultCode::OpNotApplicable);
    reads(list(), json!([20, INDEX, 3]), json!(1));
    reads(list(), json!([20, VALUE, 4]), json!(null));
    reads(list(), json!([21, VALUE, -1]), json!(9));
    reads(list(), json!([22, COUNT, 3]), json!(2));
    reads(list(), json!([22, EXISTS, 4]), json!(false));
    reads(list(), json!([22, RANK, 3]), json!([0, 1]));
    reads(list(), json!([23, INDEX, [9, 5, 7]]), json!([0, 2]));
    reads(list(), json!([23, RANK, [9, 5, 3]]), json!([3, 2, 0, 1]));
    reads(list(), json!([23, 4, [9, 5]]), json!([0, 1]));
    reads(list(), json!([23, RANK | INVERTED, [3]]), json!([2, 3]));
    reads(list(), json!([22, RANK | INVERTED, 5]), json!([0, 1, 3]));
    reads(list(), json!([25, RANK, 3, 6]), json!([0, 1, 2]));
    reads(list(), json!([24, VALUE, 1, 2]), json!([3, 9]));
    reads(list(), json!([24, VALUE, 1, -3]), json!([3, 9, 3]));
    reads(list(), json!([18, 2, -1]), json!([9, 3]));
    reads(list(), json!([24, 2, 1, 2]), json!([2, 1]));
    reads(list(), json!([25, VALUE, 3, 6]), json!([5, 3, 3]));
    reads(list(), json!([25, VALUE, null, 5]), json!([3, 3]));
    reads(list(), json!([25, VALUE, 5]), json!([5, 9]));
    reads(list(), json!([25, VALUE, 5, "$end"]), json!([5, 9]));
    reads(list(), json!([26, VALUE, 2, 2]), json!([5, 9]));
    reads(
        json!([83, 39, 49, 20, 42, 41, 98]),
        json!([26, VALUE, 2, 2]),
        json!([42, 41]),
    );
    reads(list(), json!([27, VALUE, 4, 0]), json!([5, 9]));
    reads(list(), json!([27, VALUE, 4, -1, 2]), json!([5, 3]));
    reads(
        json!([26, 27, 28, 6]),
        json!([27, VALUE, 26, 0, 2]),
        json!([27, 26]),
    );
    reads(
        json!([["a", 1], ["b", 2], ["a", 3]]),
        json!([22, VALUE, ["a", "$any"]]),
        json!([["a", 1], ["a", 3]]),
    );
    reads(
        json!({"$ordered": [1, 3, 3, 7]}),
        json!([22, RANK, 3]),
        json!([1, 2]),
    );
    reads(
        json!({"$ordered": [1, 3, 3, 7]}),
        json!([25, INDEX, 2, 7]),
        json!([1, 2]),
    );
    let ordered = || json!({"$ordered": [1, 3, 3, 7, 8]});
    reads(ordered(), json!([23, RANK, [7, 5, 3, 7]]), json!([3, 1, 2]));
    reads(ordered(), json!([23, VALUE, [7, 1]]), json!([7, 1]));
    reads(
        ordered(),
        json!([23, VALUE, ["$any", 1]]),
        json!([1, 3, 3, 7, 8]),
    );
    reads(
        ordered(),
        json!([23, VALUE | INVERTED, [7, 1]]),
        json!([3, 3, 8]),
    );
    check(
        ordered(),
        json!([36, INDEX, [7, 1]]),
        json!({"$ordered": [3, 3, 8]}),
        json!([3, 0]),
    );
    fails(list(), json!([19, KEY, 0]), ResultCode::Parameter);
    fails(list(), json!([19, 9, 0]), ResultCode::OpNotApplicable);
    fails(list(), json!([96]), ResultCode::IncompatibleType);
    fails(list(), json!([28]), ResultCode::Parameter);
}

#[test]
fn maps_are_written() {
    let map = || json!({"a": 1, "b": 2});
    check(
        map(),
        json!([67, "c", 3]),
        json!({"a": 1, "b": 2, "c": 3}),
        json!(3),
    );
    check(
        map(),
        json!([67, "a", 3]),
        json!({"a": 3, "b": 2}),
        json!(2),
    );
    check(
        json!(null),
        json!([67, "a", 3, ORDERED, 0]),
        json!({"$by_key": {"a": 3}}),
        json!(1),
    );
    check(
        json!(null),
        json!([67, "a", 3, 3, 0]),
        json!({"$by_key": {"a": 3}}),
        json!(1),
    );
    check(
        json!({"$by_key": {"b": 1, "d": 2}}),
        json!([68, {"c": 5, "a": 6, "d": 7, "e": 8}]),
        json!({"$by_key": {"a": 6, "b": 1, "c": 5, "d": 7, "e": 8}}),
        json!(5),
    );
    fails(map(), json!([67, "a", 3, 0, 1]), ResultCode::ElementExists);
    fails(map(), json!([65, "a", 3]), ResultCode::ElementExists);
    fails(
        map(),
        json!([67, "x", 3, 0, 2]),
        ResultCode::ElementNotFound,
    );
    fails(map(), json!([69, "x", 3]), ResultCode::ElementNotFound);
    check(
        map(),
        json!([69, "a", 3]),
        json!({"a": 3, "b": 2}),
        json!(2),
    );
    check(map(), json!([67, "a", 3, 0, 1 | 4]), map(), json!(2));
    check(
        map(),
        json!([68, {"a": 9, "x": 9}, 0, 1 | 4 | 8]),
        json!({"a": 1, "b": 2, "x": 9}),
        json!(3),
    );
    check(
        map(),
        json!([68, {"a": 9, "x": 9}, 0, 2 | 4 | 8]),
        json!({"a": 9, "b": 2}),
        json!(2),
    );
    check(
        map(),
        json!([68, {"a": 9, "x": 9}, 0, 2 | 4]),
        map(),
        json!(2),
    );
    check(
        map(),
        json!([73, "a", 5]),
        json!({"a": 6, "b": 2}),
        json!(6),
    );
    check(
        map(),
        json!([74, "z", 5, 0]),
        json!({"a": 1, "b": 2, "z": -5}),
        json!(-5),
    );
    check(map(), json!([75]), json!({}), json!(null));
    check(
        json!({"2": 0, "1": 9}),
        json!([64, ORDERED]),
        json!({"$by_key": {"1": 9, "2": 0}}),
        json!(null),
    );
    fails(map(), json!([64, 2]), ResultCode::Parameter);
    fails(map(), json!([68, [1, 2]]), ResultCode::Parameter);
    fails(map(), json!([67, "a", "$end"]), ResultCode::Parameter);
    fails(
        json!([1]),
        json!([67, "a", 1]),
        ResultCode::IncompatibleType,
    );
}

#[test]
fn maps_are_read_and_shrink() {
    let map = || json!({"c": 1, "a": 3, "b": 2});
    reads(map(), json!([96]), json!(3));
    reads(map(), json!([97, VALUE, "b"]), json!(2));
    reads(map(), json!([97, VALUE, "z"]), json!(null));
    reads(map(), json!([97, INDEX, "c"]), json!(2));
    reads(map(), json!([97, INDEX, "z"]), json!(-1));
    reads(map(), json!([97, EXISTS, "z"]), json!(false));
    reads(map(), json!([98, KEY, 0]), json!("a"));
    fails(map(), json!([98, KEY, 3]), ResultCode::OpNotApplicable);
    reads(map(), json!([99, KEY, 2]), json!("b"));
    reads(map(), json!([100, KEY_VALUE, -1]), json!([["a", 3]]));
    reads(map(), json!([102, KEY, 1]), json!(["c"]));
    reads(map(), json!([103, KEY, "b"]), json!(["b", "c"]));
    reads(map(), json!([103, KEY, null, "b"]), json!(["a"]));
    reads(map(), json!([104, KEY, 1, 1]), json!(["b"]));
    reads(map(), json!([104, KEY | INVERTED, 1, 1]), json!(["a", "c"]));
    reads(map(), json!([105, KEY, 2, 4]), json!(["a", "b"]));
    reads(map(), json!([106, VALUE, 0, 2]), json!([1, 2]));
    reads(
        map(),
        json!([107, KEY_VALUE, ["b", "z", "c"]]),
        json!([["b", 2], ["c", 1]]),
    );
    reads(map(), json!([107, 16, ["b", "c"]]), json!({"b": 2, "c": 1}));
    reads(
        map(),
        json!([107, 17, ["c", "b"]]),
        json!({"$by_key": {"b": 2, "c": 1}}),
    );
    reads(map(), json!([108, RANK, [3, 9, 1]]), json!([2, 0]));
    reads(map(), json!([108, KEY, [1, 3, 9]]), json!(["a", "c"]));
    reads(map(), json!([102, RANK | INVERTED, 2]), json!([0, 2]));
    reads(map(), json!([105, RANK, 0, 9]), json!([0, 1, 2]));
    reads(map(), json!([106, RANK | INVERTED, 0, 1]), json!([1, 2]));
    reads(map(), json!([105, RANK | INVERTED, 2, 3]), json!([0, 2]));
    reads(map(), json!([106, VALUE, 1, -5]), json!([2, 3]));
    reads(map(), json!([109, KEY, "b", -1, 2]), json!(["a", "b"]));
    reads(
        json!({"$by_key": {"e": 2, "j": 10, "f": 15, "a": 17}}),
        json!([110, KEY, 11, -1]),
        json!(["j", "f", "a"]),
    );
    check(
        map(),
        json!([76, VALUE, "a"]),
        json!({"c": 1, "b": 2}),
        json!(3),
    );
    check(
        map(),
        json!([81, COUNT, ["a", "x", "c"]]),
        json!({"b": 2}),
        json!(2),
    );
    check(map(), json!([85, 0, 1]), json!({"a": 3}), json!(null));
    check(
        map(),
        json!([87, VALUE | INVERTED, 0, 1]),
        json!({"c": 1}),
        json!([2, 3]),
    );
    check(
        json!({"$by_key": {"a": 1, "b": 2, "c": 3}}),
        json!([84, KEY, "b", "c"]),
        json!({"$by_key": {"a": 1, "c": 3}}),
        json!(["b"]),
    );
}

#[test]
fn contexts_lead_to_nested_containers() {
    let nested = || json!({"list": [1, [5, 3]], "map": {"x": {"y": 1}}});
    reads(
        nested(),
        json!([255, [0x22, "list", 0x10, 1], [17, 0]]),
        json!(5),
    );
    reads(nested(), json!([255, [0x20, 0, 0x10, -1], [16]]), json!(2));
    check(
        nested(),
        json!([255, [0x22, "map", 0x22, "x"], [67, "z", 2]]),
        json!({"list": [1, [5, 3]], "map": {"x": {"y": 1, "z": 2}}}),
        json!(2),
    );
    check(
        nested(),
        json!([255, [0x22, "list", 0x13, [5, 3]], [1, 4]]),
        json!({"list": [1, [5, 3, 4]], "map": {"x": {"y": 1}}}),
        json!(3),
    );
    reads(
        json!([[1, 2], [5, 6], [3, 4]]),
        json!([255, [0x11, 1], [17, 0]]),
        json!(3),
    );
    reads(
        json!({"a": [2], "b": [1]}),
        json!([255, [0x21, 0], [17, 0]]),
        json!(1),
    );
    reads(
        json!({"a": [2], "b": [1]}),
        json!([255, [0x23, [1]], [16]]),
        json!(1),
    );
    fails(
        nested(),
        json!([255, [0x22, "nothing"], [16]]),
        ResultCode::OpNotApplicable,
    );
    fails(
        nested(),
        json!([255, [0x22, "nothing"], [1, 5]]),
        ResultCode::OpNotApplicable,
    );
    fails(
        nested(),
        json!([255, [0x10, 0], [16]]),
        ResultCode::IncompatibleType,
    );
    fails(
        nested(),
        json!([255, [0x22, "list", 0x10, 0], [16]]),
        ResultCode::IncompatibleType,
    );
    // A way that goes on through what has no elements, or not such ones, leads nowhere.
    for steps in [
        json!([0x22, "list", 0x10, 0, 0x10, 0]),
        json!([0x22, "list", 0x22, "a"]),
    ] {
        for call in [json!([16]), json!([1, 4])] {
            let call = json!([255, steps, call]);
            fails(nested(), call, ResultCode::OpNotApplicable);
        }
    }
    fails(nested(), json!([255, [0x22], [16]]), ResultCode::Parameter);
    fails(
        nested(),
        json!([255, [0x30, 1], [16]]),
        ResultCode::Parameter,
    );
    fails(
        nested(),
        json!([255, [0x20, "a"], [16]]),
        ResultCode::Parameter,
    );
}

#[test]
fn contexts_make_what_is_missing_where_they_say_so() {
    check(
        json!({"a": 1}),
        json!([255, [0x22 | 0x40, "n"], [1, 5]]),
        json!({"a": 1, "n": [5]}),
        json!(1),
    );
    check(
        json!({"a": 1}),
        json!([255, [0x22 | 0x80, "n"], [67, "k", 5]]),
        json!({"a": 1, "n": {"$by_key": {"k": 5}}}),
        json!(1),
    );
    check(
        json!(null),
        json!([255, [0x22 | 0x40, "n", 0x22 | 0x40, "m"], [67, "k", 5]]),
        json!({"n": {"m": {"k": 5}}}),
        json!(1),
    );
    check(
        json!([1]),
        json!([255, [0x10 | 0xc0, 1], [1, 5]]),
        json!([1, {"$ordered": [5]}]),
        json!(1),
    );
    check(
        json!([1]),
        json!([255, [0x10 | 0x80, 3], [1, 5]]),
        json!([1, null, null, [5]]),
        json!(1),
    );
    // In an ordered list what is made goes where it belongs, and is made only behind the last element.
    check(
        json!({"$ordered": [[1, 2], [4]]}),
        json!([255, [0x10 | 0xc0, 2], [1, 3]]),
        json!({"$ordered": [[1, 2], {"$ordered": [3]}, [4]]}),
        json!(1),
    );
    fails(
        json!({"$ordered": [[1]]}),
        json!([255, [0x10 | 0x80, 2], [1, 3]]),
        ResultCode::OpNotApplicable,
    );
    fails(
        json!([1]),
        json!([255, [0x10 | 0x40, 3], [1, 5]]),
        ResultCode::OpNotApplicable,
    );
    fails(
        json!([1]),
        json!([255, [0x10 | 0xc0, 3], [1, 5]]),
        ResultCode::OpNotApplicable,
    );
    check(
        json!([1]),
        json!([255, [0x10 | 0x80, 2], [0, 0]]),
        json!([1, null, []]),
        json!(null),
    );
}

#[test]
fn an_element_of_an_ordered_list_that_changes_moves_to_its_place() {
    check(
        json!({"$ordered": [[1], [2], [3]]}),
        json!([255, [0x10, 0], [9, 0, 9]]),
        json!({"$ordered": [[2], [3], [9]]}),
        json!(null),
    );
    check(
        json!({"$ordered": [[1], [2], [3]]}),
        json!([255, [0x10, 2], [9, 0, 0]]),
        json!({"$ordered": [[0], [1], [2]]}),
        json!(null),
    );
    check(
        json!({"$ordered": [[1], [2], [3]]}),
        json!([255, [0x10, 1], [1, 7]]),
        json!({"$ordered": [[1], [2, 7], [3]]}),
        json!(2),
    );
}

/// A value with its index, as it is stored.
struct Indexed {
    bytes: Vec<u8>,
    index: Option<Vec<u8>>,
}

impl Indexed {
    fn new(json: &Json) -> Indexed {
        let bytes = packed(json);
        let index = index_of(&bytes);
        Indexed { bytes, index }
    }

    fn stored(&self) -> Stored<'_> {
        Stored {
            bytes: &self.bytes,
            index: self.index.as_deref(),
        }
    }

    /// Runs an operation with and without the index, and compares.
    fn run(&mut self, call: &Json) -> Result<Json, ResultCode> {
        let mut packed_call = Vec::new();
        pack(call, &mut packed_call);
        let call_bytes = CallBytes::of(&packed_call)?;
        let result = |result: Option<Vec<u8>>| result.map_or(Json::Null, |bytes| unpacked(&bytes));
        if !Call::parse(&call_bytes)?.is_modify()? {
            let found = read(self.stored(), &mut Call::parse(&call_bytes)?)?;
            let walked = read(&self.bytes[..], &mut Call::parse(&call_bytes)?)?;
            assert_eq!(found, walked, "{call}");
            return Ok(result(found));
        }
        let changed = modify(Some(self.stored()), &mut Call::parse(&call_bytes)?)?;
        let walked = modify(Some(&self.bytes[..]), &mut Call::parse(&call_bytes)?)?;
        assert_eq!(
            (&changed.value, &changed.result),
            (&walked.value, &walked.result),
            "{call}"
        );
        if let Some(value) = changed.value {
            self.index = changed.index.or_else(|| index_of(&value));
            self.bytes = value;
            self.check();
        }
        Ok(result(changed.result))
    }

    /// What the index says is what a walk finds.
    fn check(&self) {
        let walked = Container::parse(&self.bytes).unwrap();
        let found = self.stored().container().unwrap();
        assert_eq!(found.len(), walked.len());
        for at in 0..walked.len() {
            assert_eq!(
                found.item(at),
                walked.item(at),
                "item {at} of {}",
                walked.len()
            );
        }
        let ranks = |container: &Container<'_>| -> Vec<usize> {
            let by_rank = container.by_rank();
            (0..container.len()).map(|rank| by_rank.at(rank)).collect()
        };
        assert_eq!(ranks(&found), ranks(&walked));
        assert_eq!(
            found.items().collect::<Vec<_>>(),
            walked.items().collect::<Vec<_>>()
        );
    }
}

/// Numbers from a seed, so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Numbers of several widths, strings, small lists.
    fn value(&mut self) -> Json {
        match self.below(8) {
            0..=3 => json!(self.below(300)),
            4 => json!(self.below(1 << 31) as i64 - (1 << 30)),
            5 => json!("x".repeat(self.below(40) as usize)),
            6 => json!([self.below(9), self.below(9)]),
            _ => json!(null),
        }
    }
}

#[test]
fn an_index_says_what_a_walk_finds_whatever_is_done() {
    for seed in 1..=6_u64 {
        let mut numbers = Numbers(seed);
        let is_map = seed % 2 == 0;
        let order = if is_map { [0, 1, 3] } else { [0, 1, 1] }[(seed / 2 % 3) as usize];
        let mut value = if is_map {
            let pairs = (0..700).map(|_| (numbers.below(9000).to_string(), numbers.value()));
            Indexed::new(&Json::Object(pairs.collect()))
        } else {
            Indexed::new(&json!(
                (0..1500).map(|_| numbers.value()).collect::<Vec<_>>()
            ))
        };
        value.check();
        value
            .run(&json!([if is_map { 64 } else { 0 }, order]))
            .unwrap();
        let mut indexed = 0;
        for step in 0..300 {
            let (a, b, n) = (
                numbers.below(1200),
                numbers.below(60) as i64 - 5,
                numbers.below(12),
            );
            let element = numbers.value();
            let many: Vec<_> = (0..n).map(|_| numbers.value()).collect();
            let pairs: Json = (0..n)
                .map(|_| (numbers.below(9000).to_string(), numbers.value()))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let call = match (is_map, numbers.below(12)) {
                (false, 0 | 1) => json!([1, element]),
                (false, 2) => json!([2, many]),
                (false, 3) => json!([37, VALUE, b, n]),
                (false, 4) => json!([36, INDEX, many]),
                (false, 5) => json!([39, VALUE, b, n]),
                (false, 6) => json!([if order == 0 { 9 } else { 1 }, b.abs(), element]),
                (false, 7) => json!([24, VALUE, b, n]),
                (false, 8) => json!([22, RANK, element]),
                (false, 9) => json!([32, VALUE, b]),
                (false, 10) => json!([35, COUNT, element]),
                (false, _) => json!([27, VALUE, element, b, n]),
                (true, 0 | 1) => json!([67, a, element]),
                (true, 2 | 3) => json!([68, pairs]),
                (true, 4) => json!([85, KEY, b, n]),
                (true, 5) => json!([87, KEY, b, n]),
                (true, 6) => json!([81, COUNT, many]),
                (true, 7) => json!([106, KEY_VALUE, b, n]),
                (true, 8) => json!([99, RANK, element]),
                (true, 9) => json!([77, VALUE, b]),
                // Keys that only numbers are put at.
                (true, 10) => json!([73, 10_000 + a % 20, b]),
                (true, _) => json!([103, KEY, a, a + 50]),
            };
            let call = match call {
                Json::Array(parts) if parts[0] == json!(9) => json!([9, parts[1], parts[2]]),
                Json::Array(parts) if !is_map && parts[0] == json!(1) => {
                    json!([1, parts[parts.len() - 1]])
                }
                other => other,
            };
            let outcome = value.run(&call);
            assert!(
                outcome.is_ok(),
                "seed {seed}, step {step}: {call} gave {outcome:?}"
            );
            indexed += usize::from(value.index.is_some());
        }
        assert!(
            indexed > 100,
            "seed {seed}: an index was there {indexed} times"
        );
    }
}
