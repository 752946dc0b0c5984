//! Paths into lists and maps.

use super::*;

pub(super) fn document() -> Json {
    map(&[
        ("Day1", map(&[("book", f(14.99)), ("ferry", f(5.0))])),
        ("Day2", map(&[("food", f(34.0)), ("game", f(12.99))])),
        ("Day3", map(&[("plants", f(19.99)), ("stickers", f(2.0))])),
    ])
}

pub(super) fn f(value: f64) -> Json {
    json!(["f64", value])
}

fn run(path: &Json, value: &Json) -> Result<Vec<u8>, ResultCode> {
    let path = PathOp::parse(&msgpack_of(path))?;
    let value = canonical(&msgpack_of(value)).expect("a value");
    path.run(&value, &Record::of(json!({ "limit": 3 })))
}

fn check(cases: Vec<(Json, Json, Result<Json, ResultCode>)>) {
    for (path, value, expected) in cases {
        let found = run(&path, &value);
        let expected = expected.map(|expected| canonical(&msgpack_of(&expected)).unwrap());
        assert_eq!(found, expected, "{path} of {value}");
    }
}

const TREE: i64 = 0;
pub(super) const VALUES: i64 = 1;
const KEYS: i64 = 2;
const KEY_VALUES: i64 = 3;
pub(super) const CHANGE: i64 = 4;
const NO_FAIL: i64 = 16;

#[test]
fn children_of_children_are_selected() {
    let over_twenty = json!([4, [122, 7, 1], f(20.0)]);
    let floats = map(&[("a", f(1.5)), ("b", f(3.0)), ("c", f(4.5))]);
    let book = map(&[(
        "book",
        json!([
            map(&[("title", json!("s:abc")), ("price", f(1.48))]),
            map(&[("title", json!("s:def")), ("price", f(2.78))]),
        ]),
    )]);
    check(vec![
        (
            json!([254, [4, true], VALUES]),
            json!([1, 2]),
            Ok(json!([1, 2])),
        ),
        (
            json!([254, [4, true], VALUES]),
            floats.clone(),
            Ok(json!([f(1.5), f(3.0), f(4.5)])),
        ),
        (
            json!([254, [4, true], KEYS]),
            floats.clone(),
            Ok(json!(["s:a", "s:b", "s:c"])),
        ),
        (
            json!([254, [4, true], KEY_VALUES]),
            floats.clone(),
            Ok(json!(["s:a", f(1.5), "s:b", f(3.0), "s:c", f(4.5)])),
        ),
        (
            json!([254, [4, true], TREE]),
            floats.clone(),
            Ok(floats.clone()),
        ),
        (
            json!([254, [4, true, 4, true], VALUES]),
            json!([[1, 2], [3]]),
            Ok(json!([1, 2, 3])),
        ),
        (
            json!([254, [16, 0, 4, true], VALUES]),
            json!([[[1, 2]], [3]]),
            Ok(json!([[1, 2]])),
        ),
        (
            json!([254, [16, 0, 4, [1, true, false]], VALUES]),
            json!([[1], 2]),
            Ok(json!([])),
        ),
        (
            json!([254, [34, "s:book", 4, true, 34, "s:price"], VALUES]),
            book,
            Ok(json!([f(1.48), f(2.78)])),
        ),
        (
            json!([254, [4, true, 4, over_twenty], VALUES]),
            document(),
            Ok(json!([f(34.0)])),
        ),
        // What nothing was found in stays, empty.
        (
            json!([254, [4, true, 4, over_twenty], TREE]),
            document(),
            Ok(map(&[
                ("Day1", map(&[])),
                ("Day2", map(&[("food", f(34.0))])),
                ("Day3", map(&[])),
            ])),
        ),
        (
            json!([254, [4, [1, [122, 3, 0], "s:Day3"], 4, true], TREE]),
            document(),
            Ok(map(&[(
                "Day3",
                map(&[("plants", f(19.99)), ("stickers", f(2.0))]),
            )])),
        ),
        (
            json!([254, [4, true, 4, true], KEYS]),
            document(),
            Ok(json!([
                "s:book",
                "s:ferry",
                "s:food",
                "s:game",
                "s:plants",
                "s:stickers"
            ])),
        ),
        // Elements of a list have no keys.
        (
            json!([254, [4, true, 4, true], KEYS]),
            json!([[1], map(&[("a", json!(1))])]),
            Ok(json!(["s:a"])),
        ),
        // Some keys, and another test of what they lead to.
        (
            json!([254, [42, ["s:c", "s:a", "s:x"]], VALUES]),
            floats.clone(),
            Ok(json!([f(1.5), f(4.5)])),
        ),
        (
            json!([
                254,
                [42, ["s:a", "s:c"], 516, [3, [122, 7, 1], f(3.0)]],
                TREE
            ]),
            floats.clone(),
            Ok(map(&[("c", f(4.5))])),
        ),
        // What is not there is not selected.
        (
            json!([254, [34, "s:x"], VALUES]),
            floats.clone(),
            Ok(json!([])),
        ),
        (
            json!([254, [4, true, 34, "s:a"], VALUES]),
            json!([map(&[("a", json!(1))]), map(&[])]),
            Ok(json!([1])),
        ),
        (
            json!([254, [16, -1], TREE]),
            json!([1, 2, 3]),
            Ok(json!([3])),
        ),
        (
            json!([254, [17, -1, 4, true], VALUES]),
            json!([[1, 2], [9], [3]]),
            Ok(json!([9])),
        ),
        (json!([254, [33, 0], KEYS]), floats, Ok(json!(["s:a"]))),
        // Bins of the record may be looked at.
        (
            json!([254, [4, [3, [122, 2, 1], [81, 2, "raw:limit"]]], VALUES]),
            json!([2, 3, 4]),
            Ok(json!([4])),
        ),
    ]);
}

#[test]
fn loop_variables_are_keys_values_and_places() {
    let unordered = json!({ "MAP": [["s:c", 10], ["s:a", 20], ["s:b", 30]] });
    let ordered =
        json!({ "MAP": [[["ext", "0x01", ""], null], ["s:a", 20], ["s:b", 30], ["s:c", 10]] });
    for map in [unordered, ordered] {
        check(vec![
            // By key, however the pairs lie.
            (
                json!([254, [4, [1, [122, 2, 2], 0]], KEYS]),
                map.clone(),
                Ok(json!(["s:a"])),
            ),
            (
                json!([254, [4, [4, [122, 3, 0], "s:b"]], VALUES]),
                map.clone(),
                Ok(json!([30, 10])),
            ),
            (
                json!([254, [32, 2, 516, [1, [122, 2, 2], 2]], KEYS]),
                map.clone(),
                Ok(json!(["s:c"])),
            ),
            (
                json!([254, [42, ["s:b"], 516, [1, [122, 2, 2], 1]], KEYS]),
                map,
                Ok(json!(["s:b"])),
            ),
        ]);
    }
    check(vec![
        (
            json!([254, [4, [1, [122, 2, 0], 1]], VALUES]),
            json!([7, 8, 9]),
            Ok(json!([8])),
        ),
        (
            json!([254, [4, [1, [122, 2, 2], 2]], VALUES]),
            json!([7, 8, 9]),
            Ok(json!([9])),
        ),
        (
            json!([254, [4, [1, [122, 0, 1], null]], VALUES]),
            json!([null, null]),
            Ok(json!([null, null])),
        ),
        (
            json!([254, [4, [1, [122, 4, 1], [126, [1]]]], VALUES]),
            json!([[1], [2]]),
            Ok(json!([[1]])),
        ),
        (
            json!([254, [4, [4, [127, 2, 0, [16], [122, 4, 1]], 2]], VALUES]),
            json!([[1, 2, 3], [4, 5], [6]]),
            Ok(json!([[1, 2, 3], [4, 5]])),
        ),
    ]);
}

#[test]
fn what_has_another_type_fails_or_is_let_be() {
    let mixed = || {
        map(&[
            ("a", json!(1)),
            ("ab", map(&[("bb", json!(12))])),
            ("c", json!(true)),
        ])
    };
    let text = json!([1, [122, 3, 1], "s:a"]);
    let big = json!([4, [127, 2, 0, [97, 7, "s:bb"], [122, 5, 1]], 10]);
    check(vec![
        (
            json!([254, [4, true, 4, text], VALUES]),
            mixed(),
            Err(ResultCode::IncompatibleType),
        ),
        (
            json!([254, [4, true, 4, text], VALUES | NO_FAIL]),
            mixed(),
            Ok(json!([])),
        ),
        (
            json!([254, [4, text], VALUES]),
            mixed(),
            Err(ResultCode::OpNotApplicable),
        ),
        (
            json!([254, [4, big], VALUES | NO_FAIL]),
            mixed(),
            Ok(json!([map(&[("bb", json!(12))])])),
        ),
        (
            json!([254, [4, true, 4, true], TREE | NO_FAIL]),
            mixed(),
            Ok(map(&[("ab", map(&[("bb", json!(12))]))])),
        ),
        (
            json!([254, [16, 0], VALUES]),
            mixed(),
            Err(ResultCode::IncompatibleType),
        ),
        (
            json!([254, [42, ["s:a"]], VALUES]),
            json!([1]),
            Err(ResultCode::IncompatibleType),
        ),
        (
            json!([254, [42, ["s:a"]], VALUES | NO_FAIL]),
            json!([1]),
            Ok(json!([])),
        ),
        // An element is changed if it can be.
        (
            json!([254, [4, true], CHANGE | NO_FAIL, [20, [122, 2, 1], 1]]),
            json!([1, "s:x", 2]),
            Ok(json!([2, "s:x", 3])),
        ),
        (
            json!([254, [4, true], CHANGE, [20, [122, 2, 1], 1]]),
            json!([1, "s:x"]),
            Err(ResultCode::OpNotApplicable),
        ),
        (
            json!([
                254,
                [4, true, 4, true],
                CHANGE | NO_FAIL,
                [20, [122, 2, 1], 1]
            ]),
            json!([[1], 5]),
            Ok(json!([[2], 5])),
        ),
    ]);
}

#[test]
fn elements_are_changed_and_removed() {
    let ordered = |items: &[i64]| {
        let mut list = vec![json!(["ext", "0x01", ""])];
        list.extend(items.iter().map(|item| json!(item)));
        Json::Array(list)
    };
    let floats = map(&[("a", f(1.5)), ("b", f(3.0))]);
    let half = json!([22, [122, 7, 1], f(0.5)]);
    check(vec![
        (
            json!([254, [4, true], CHANGE, f(14.0)]),
            floats.clone(),
            Ok(map(&[("a", f(14.0)), ("b", f(14.0))])),
        ),
        (
            json!([254, [4, true], CHANGE, half]),
            floats,
            Ok(map(&[("a", f(0.75)), ("b", f(1.5))])),
        ),
        (
            json!([254, [4, true], CHANGE, [100]]),
            json!([1, 2]),
            Ok(json!([])),
        ),
        (
            json!([
                254,
                [4, true],
                CHANGE,
                [123, [3, [122, 2, 1], 1], [100], [122, 2, 1]]
            ]),
            json!([1, 2, 1, 3]),
            Ok(json!([1, 1])),
        ),
        (
            json!([254, [4, true, 4, true], CHANGE, [20, [122, 2, 1], 1]]),
            json!([[1, 2], [3]]),
            Ok(json!([[2, 3], [4]])),
        ),
        // What was not chosen stays as it is.
        (
            json!([254, [16, 0, 4, [3, [122, 2, 1], 1]], CHANGE, 0]),
            json!([[1, 2, 3], [4]]),
            Ok(json!([[1, 0, 0], [4]])),
        ),
        (
            json!([254, [34, "s:x"], CHANGE, [100]]),
            map(&[("a", json!(1))]),
            Ok(map(&[("a", json!(1))])),
        ),
        // An ordered list stays ordered, a value may become another type.
        (
            json!([254, [4, true], CHANGE, [21, [122, 2, 1]]]),
            ordered(&[1, 2, 3]),
            Ok(ordered(&[-3, -2, -1])),
        ),
        (
            json!([254, [4, [1, [122, 2, 1], 2]], CHANGE, "s:two"]),
            json!([1, 2]),
            Ok(json!([1, "s:two"])),
        ),
        (
            json!([254, [4, true], CHANGE, null]),
            json!([1]),
            Ok(json!([null])),
        ),
        (
            json!([254, [4, true], CHANGE, [126, [["ext", "0xff", "01"]]]]),
            json!([1]),
            Err(ResultCode::OpNotApplicable),
        ),
    ]);
}
