//! What expressions are worth.

use super::*;

pub(super) fn record() -> Record {
    let mut record = Record::of(json!({
        "a": 5, "b": "s:Star Wars", "d": ["f64", 2.5], "t": true, "y": "b:01f0",
        "l": [4, 2, 0], "l2": [4, 2, 0], "l3": [4, 2], "e": -1,
        "m": map(&[("c", json!(1)), ("b", json!(2)), ("a", json!(3))]),
        "o": {"MAP": [[["ext", "0x01", ""], null], ["s:a", 3], ["s:b", 2], ["s:c", 1]]},
        "n": [[1, 2], map(&[("x", json!([7]))])],
    }));
    record.metadata.void_time = 500_000_100;
    record
}

/// Bin readers, shorter.
pub(super) fn bin(kind: i64, name: &str) -> Json {
    json!([81, kind, format!("raw:{name}")])
}

pub(super) fn quote(list: Json) -> Json {
    json!([126, list])
}

/// Compares values of expressions with what they should be; null of JSON is nil, and None unknown.
pub(super) fn check(cases: Vec<(Json, Option<Json>)>) {
    let record = record();
    for (expression, expected) in cases {
        let value = value_of(&expression, &record);
        let expected = expected.map(|expected| msgpack_of(&expected));
        assert_eq!(value, expected, "{expression}");
    }
}

#[test]
fn values_are_compared_within_their_type() {
    let yes = Some(json!(true));
    let no = Some(json!(false));
    check(vec![
        (json!([1, bin(2, "a"), 5]), yes.clone()),
        (json!([1, bin(2, "a"), 37]), no.clone()),
        (json!([2, bin(2, "a"), 5]), no.clone()),
        (json!([3, bin(2, "a"), 4]), yes.clone()),
        (json!([4, bin(2, "a"), 5]), yes.clone()),
        (json!([5, bin(2, "a"), 5]), no.clone()),
        (json!([6, bin(2, "a"), 5]), yes.clone()),
        (json!([3, bin(7, "d"), ["f64", 1.2345]]), yes.clone()),
        (json!([1, bin(3, "b"), "s:Star Wars"]), yes.clone()),
        (json!([5, bin(3, "b"), "s:Star"]), no.clone()),
        (json!([1, bin(1, "t"), true]), yes.clone()),
        (json!([1, bin(6, "y"), "b:01f0"]), yes.clone()),
        (json!([1, null, null]), yes.clone()),
        (
            json!([1, bin(4, "l"), quote(json!([4, 2, 0]))]),
            yes.clone(),
        ),
        (json!([1, bin(4, "l"), quote(json!([0, 2, 4]))]), no.clone()),
        (json!([1, bin(4, "l"), bin(4, "l2")]), yes.clone()),
        (json!([3, bin(4, "l"), bin(4, "l3")]), yes.clone()),
        // Whatever the order in which the pairs are kept.
        (json!([1, bin(5, "m"), bin(5, "o")]), yes.clone()),
        (
            json!([
                1,
                bin(5, "o"),
                map(&[("c", json!(1)), ("b", json!(2)), ("a", json!(3))])
            ]),
            yes.clone(),
        ),
        (json!([1, bin(5, "o"), map(&[("d", json!(4))])]), no.clone()),
        // Of a bin that is missing, or of another type.
        (json!([1, bin(2, "z"), 5]), None),
        (json!([1, bin(3, "a"), "s:5"]), None),
        (json!([1, [0], [0]]), None),
        (json!([2, [0], 1]), None),
    ]);
}

#[test]
fn types_are_checked_when_an_expression_is_compiled() {
    let refused = [
        json!([1, bin(2, "a"), ["f64", 5.0]]),
        json!([1, bin(2, "a"), "s:5"]),
        json!([1, bin(8, "g"), bin(8, "g")]),
        json!([1, bin(9, "h"), bin(9, "h")]),
        json!([20, bin(2, "a"), ["f64", 5.0]]),
        json!([20, bin(3, "b"), 5]),
        json!([24, bin(2, "a"), 2]),
        json!([25, ["f64", 2.0], 2]),
        json!([26, bin(7, "d"), 5]),
        json!([27, "s:x"]),
        json!([28, 1]),
        json!([29, bin(2, "a")]),
        json!([30, 1]),
        json!([31, ["f64", 1.0]]),
        json!([32, ["f64", 1.0], 1]),
        json!([40, 1, 1]),
        json!([50, 1, ["f64", 1.0]]),
        json!([16, 1, true]),
        json!([18, 1]),
        json!([123, 1, 2, 3]),
        json!([123, true, 2, ["f64", 3.0]]),
        json!([7, 0, "raw:a", 1]),
        json!([8, "s:x", bin(8, "g")]),
        json!([9, 1, 1]),
        json!([101, bin(4, "l")]),
        json!([127, 2, 0, [16], bin(2, "a")]),
        json!([127, 2, 1, [51, 0, 8], bin(4, "l")]),
        json!([127, 2, 2, [50], bin(6, "y")]),
        json!([127, 2, 0, [16], null]),
    ];
    for expression in refused {
        let code = compiled(&expression).map(|_| ());
        assert_eq!(code, Err(ResultCode::Parameter), "{expression}");
    }
    // What is never known goes with any type.
    for accepted in [
        json!([1, [0], 5]),
        json!([16, [0], true]),
        json!([20, [0], 1]),
    ] {
        compiled(&accepted).unwrap_or_else(|code| panic!("{accepted}: {code:?}"));
    }
    let filter = |json| Expression::compile_filter(&msgpack_of(&json)).map(|_| ());
    assert_eq!(filter(json!(8)), Err(ResultCode::Parameter));
    assert_eq!(filter(bin(3, "b")), Err(ResultCode::Parameter));
    assert_eq!(filter(json!(true)), Ok(()));
    assert_eq!(filter(json!([0])), Ok(()));
    assert_eq!(filter(bin(1, "t")), Ok(()));
}

#[test]
fn expressions_have_the_arguments_that_they_need() {
    let refused = [
        json!([]),
        json!(["s:x"]),
        json!([-1]),
        json!([10, 1]),
        json!([99]),
        json!([128]),
        json!([0, 1]),
        json!([1, 1]),
        json!([1, 1, 1, 1]),
        json!([16]),
        json!([18]),
        json!([18, true, true]),
        json!([20]),
        json!([26, 1]),
        json!([36, 1, 1, 1]),
        json!([64]),
        json!([64, 0]),
        json!([64, -1]),
        json!([64, 4294967296_i64]),
        json!([65, 1]),
        json!([80, 4]),
        json!([80, 10]),
        json!([81, 2]),
        json!([81, 0, "raw:a"]),
        json!([81, 10, "raw:a"]),
        json!([81, 2, "raw:"]),
        json!([81, 2, "raw:0123456789abcdef"]),
        json!([81, 2, 5]),
        json!([82]),
        json!([100]),
        json!([122, 2, 1]),
        json!([123, true, 1]),
        json!([124, "raw:v"]),
        json!([125, 1]),
        json!([125, "raw:v", 1]),
        json!([125, "raw:v", 1, [124, "raw:w"]]),
        json!([125, "raw:", 1, 1]),
        json!([126]),
        json!([126, 1]),
        json!([127, 2, 0, [16]]),
        json!([127, 10, 0, [16], bin(4, "l")]),
        json!([127, 2, 5, [16], bin(4, "l")]),
        json!([127, 2, 0, [], bin(4, "l")]),
        json!([127, 2, 0, [], 16]),
        json!([127, 2, 0, [255, [16, 0], []], 16]),
        json!([127, 2, 0, [15], bin(4, "l")]),
        // Reading that says it modifies, and the reverse.
        json!([127, 2, 64, [16], bin(4, "l")]),
        json!([127, 4, 0, [1, 3], bin(4, "l")]),
        // Arguments that no list could be read with.
        json!([127, 2, 0, [16, 1], bin(4, "l")]),
        json!([127, 2, 0, [19, "raw:r", 0], bin(4, "l")]),
        json!([127, 2, 1, [51, 0], bin(6, "y")]),
        json!([127, 2, 0, [255, [16], [16]], bin(4, "l")]),
        json!([127, 2, 0, [255, [31, 0], [16]], bin(4, "l")]),
        // Sentinels are arguments alone.
        json!(["ext", "0xff", "01"]),
        json!([1, ["ext", "0xff", "01"], 1]),
        json!([7, 0, "raw:[", bin(3, "b")]),
        json!([7, 32, "raw:a", bin(3, "b")]),
    ];
    for expression in refused {
        let code = compiled(&expression).map(|_| ());
        assert_eq!(code, Err(ResultCode::Parameter), "{expression}");
    }
    let text = json!([127, 2, 3, [0], bin(3, "b")]);
    assert_eq!(compiled(&text).unwrap_err(), ResultCode::UnsupportedFeature);
    // What a list cannot be asked for comes to nothing, as in operations.
    check(vec![(json!([127, 2, 0, [19, 99, 0], bin(4, "l")]), None)]);
}

#[test]
fn what_is_known_decides() {
    let (unknown, yes, no) = (json!([1, bin(2, "z"), 1]), json!(true), json!(false));
    check(vec![
        (json!([16, yes, yes]), Some(json!(true))),
        (json!([16, yes, no]), Some(json!(false))),
        (json!([16, unknown, no]), Some(json!(false))),
        (json!([16, no, unknown]), Some(json!(false))),
        (json!([16, unknown, yes]), None),
        (json!([17, no, no]), Some(json!(false))),
        (json!([17, unknown, yes]), Some(json!(true))),
        (json!([17, unknown, no]), None),
        (json!([18, unknown]), None),
        (json!([18, no]), Some(json!(true))),
        (json!([19, yes, no, no]), Some(json!(true))),
        (json!([19, yes, no, yes]), Some(json!(false))),
        (json!([19, no, no]), Some(json!(false))),
        (json!([19, yes, unknown]), None),
        (json!([19, yes, unknown, yes]), Some(json!(false))),
        // A test that is not known leaves everything open.
        (json!([123, unknown, 1, 2]), None),
        (json!([123, no, 1, unknown, 2, 3]), None),
        (json!([123, yes, 1, unknown, 2, 3]), Some(json!(1))),
        (json!([123, no, 1, no, 2, 3]), Some(json!(3))),
        (json!([123, no, 1, [0]]), None),
        (json!([123, yes, 1, [0]]), Some(json!(1))),
    ]);
}

#[test]
fn variables_are_those_in_scope() {
    let var = |name: &str| json!([124, format!("raw:{name}")]);
    check(vec![
        (
            json!([125, "raw:v", bin(2, "a"), [5, var("v"), 9]]),
            Some(json!(true)),
        ),
        (
            json!([
                125,
                "raw:v",
                1,
                "raw:w",
                [20, var("v"), 1],
                [20, var("v"), var("w")]
            ]),
            Some(json!(3)),
        ),
        (
            json!([125, "raw:v", 1, [125, "raw:v", 2, [20, var("v"), 0]]]),
            Some(json!(2)),
        ),
        (
            json!([20, [125, "raw:v", 1, var("v")], [125, "raw:w", 2, var("w")]]),
            Some(json!(3)),
        ),
        (json!([125, "raw:v", [0], 1]), None),
        (
            json!([
                17,
                [125, "raw:v", [1, bin(2, "z"), 1], var("v")],
                [125, "raw:w", true, var("w")]
            ]),
            Some(json!(true)),
        ),
    ]);
}

#[test]
fn metadata_alone_decides_where_it_can() {
    let metadata = MetadataOnly(record().metadata);
    let cases = [
        (json!([16, [1, bin(2, "a"), 1], [71]]), Trilean::False),
        (json!([17, [1, bin(2, "a"), 1], [18, [71]]]), Trilean::True),
        (
            json!([16, [1, bin(2, "a"), 1], [18, [71]]]),
            Trilean::Unknown,
        ),
        (json!([1, [70], "s:demo"]), Trilean::True),
        (json!([2, [82, "raw:a"], 0]), Trilean::Unknown),
        // No key is stored, and that is known.
        (json!([17, [1, [80, 2], 1], true]), Trilean::True),
    ];
    for (expression, expected) in cases {
        assert_eq!(
            compiled(&expression).unwrap().filter(&metadata),
            expected,
            "{expression}"
        );
    }
    let needs = |json: Json| {
        let compiled = compiled(&json).unwrap();
        (compiled.needs_bins(), compiled.needs_key())
    };
    assert_eq!(needs(json!([71])), (false, false));
    assert_eq!(needs(json!([80, 2])), (false, true));
    assert_eq!(needs(json!([82, "raw:a"])), (true, false));
    assert_eq!(needs(json!([127, 2, 0, [16], bin(4, "l")])), (true, false));
    // Of the two reasons not to know, the read is the one that may help.
    let both = compiled(&json!([17, [0], bin(1, "t"), [0]])).unwrap();
    assert_eq!(both.eval(&metadata), Err(EvalError::Unread));
}
