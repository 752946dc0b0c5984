//! Expressions of people who mean no good, and of no one in particular.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;

#[test]
fn depth_is_bounded_in_every_direction() {
    let nested = |depth: usize, wrap: &dyn Fn(Json) -> Json| {
        (0..depth).fold(json!(true), |inner, _| wrap(inner))
    };
    let filter = |inner: Json| {
        json!([
            1,
            [
                127,
                2,
                0,
                [16],
                [127, 4, 0, [254, [4, inner], 1], [126, [1]]]
            ],
            1
        ])
    };
    type Wrap<'w> = &'w dyn Fn(Json) -> Json;
    let wraps: [(Wrap<'_>, usize); 4] = [
        (&|inner| json!([18, inner]), 1),
        (&|inner| json!([123, true, true, inner]), 1),
        (&|inner| json!([125, "raw:v", inner, [124, "raw:v"]]), 1),
        (&filter, 4),
    ];
    for (wrap, levels) in wraps {
        let fits = nested(DEPTH_MAX / levels - 1, wrap);
        compiled(&fits).unwrap_or_else(|code| panic!("{fits}: {code:?}"));
        let deep = nested(DEPTH_MAX / levels + 1, wrap);
        assert_eq!(compiled(&deep).unwrap_err(), ResultCode::Parameter);
    }
    // The evaluation of what is just allowed returns.
    let deepest = compiled(&nested(DEPTH_MAX - 1, &|inner| json!([18, inner]))).unwrap();
    assert_ne!(deepest.filter(&Record::of(json!({}))), Trilean::Unknown);
    for byte in [0x91, 0x92, 0x93, 0x95] {
        assert!(Expression::compile(&vec![byte; 1 << 20]).is_err());
    }
}

#[test]
fn the_deepest_paths_fit_a_thread() {
    // A path of as many steps as there may be, each time through the whole depth of a bin, in the filter of the last step
    // of another one, as often as expressions nest.
    let steps = crate::record::cdt::CONTEXT_STEPS_MAX;
    let mut filter = json!(true);
    let mut deepest = None;
    loop {
        let mut context = vec![json!(4), json!(true)]
            .into_iter()
            .cycle()
            .take(2 * steps - 1)
            .collect::<Vec<_>>();
        context.push(filter);
        filter = json!([
            3,
            [
                127,
                2,
                0,
                [16],
                [127, 4, 0, [254, context, 1], [81, 4, "raw:l"]]
            ],
            0
        ]);
        match compiled(&filter) {
            Ok(fits) => deepest = Some(fits),
            Err(code) => break assert_eq!(code, ResultCode::Parameter),
        }
    }
    let list = (0..steps).fold(json!(1), |list, _| json!([list]));
    let deepest = deepest.expect("one fits");
    let record = Record::of(json!({ "l": list }));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let run = || deepest.filter(&record);
        let filtered = thread.spawn_scoped(scope, run).expect("a thread").join();
        assert_eq!(filtered.expect("no panic"), Trilean::True);
    });
}

#[test]
fn compiled_expressions_go_to_any_thread() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Expression>();
    check::<ExpressionOp>();
    check::<PathOp>();
}

#[test]
fn size_is_bounded() {
    let mut many = msgpack_of(&json!([16]));
    many[0] = 0xdd;
    many.splice(1..1, (NODES_MAX as u32 + 1).to_be_bytes());
    many.resize(many.len() + NODES_MAX, 0xc3);
    assert_eq!(
        Expression::compile(&many).unwrap_err(),
        ResultCode::Parameter
    );
    let mut most = many.clone();
    most[1..5].copy_from_slice(&(NODES_MAX as u32).to_be_bytes());
    most.pop();
    assert!(Expression::compile(&most).is_ok());

    let text = "x".repeat(perigee_wire::EXPRESSION_BYTES_MAX);
    let long = json!([1, [70], format!("s:{text}")]);
    assert_eq!(compiled(&long).unwrap_err(), ResultCode::Parameter);

    let regexes = |count| {
        let tests: Vec<Json> = (0..count).map(|_| json!([7, 0, "raw:a", [70]])).collect();
        let mut expression = vec![json!(16)];
        expression.extend(tests);
        compiled(&Json::Array(expression)).map(|_| ())
    };
    assert_eq!(regexes(REGEXES_MAX), Ok(()));
    assert_eq!(regexes(REGEXES_MAX + 1), Err(ResultCode::Parameter));
}

#[test]
fn values_do_not_grow_without_end() {
    // Each variable is a list of twice as many elements as the one before.
    let mut expression = json!([127, 2, 0, [16], [124, "raw:v"]]);
    for _ in 0..40 {
        expression = json!([
            125,
            "raw:v",
            [127, 4, 64, [2, [124, "raw:v"]], [124, "raw:v"]],
            expression
        ]);
    }
    let list = |items: usize| Json::Array(vec![json!(1); items]);
    let expression = json!([125, "raw:v", [81, 4, "raw:l"], expression]);
    let expression = compiled(&expression).unwrap();
    let record = Record::of(json!({ "l": list(100) }));
    assert_eq!(expression.eval(&record), Err(EvalError::TooMuch));
    // Nothing that follows makes good for it.
    let either = json!([17, [1, 1, 2], true]);
    assert_eq!(compiled(&either).unwrap().filter(&record), Trilean::True);
}

#[test]
fn work_is_bounded_by_a_budget() {
    // Each element compares two long texts.
    let each = json!([1, [81, 3, "raw:s"], [81, 3, "raw:t"]]);
    let expression = json!([127, 4, 0, [254, [4, each], 1], [81, 4, "raw:l"]]);
    let expression = compiled(&expression).unwrap();
    let record = |items: usize| {
        let list = Json::Array((0..items).map(|_| json!(1)).collect());
        let text = format!("s:{}", "x".repeat(1 << 20));
        Record::of(json!({ "l": list, "s": text, "t": text }))
    };
    let fits = (WORK_BYTES_MAX >> 21) as usize - 1;
    assert!(expression.eval(&record(fits)).is_ok());
    assert_eq!(expression.eval(&record(fits + 1)), Err(EvalError::TooMuch));
}

/// Any expression over a few bins, most of them well formed in their arity and none in their types.
fn any_expression() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        (-3_i64..70).prop_map(|value| json!(value)),
        any::<i32>().prop_map(|value| json!(["f64", f64::from(value) / 4.0])),
        Just(json!("s:a")),
        Just(json!("b:0102")),
        Just(json!([0])),
        Just(json!([126, [3, 1, 2]])),
        Just(map(&[("a", json!(1)), ("b", json!(2))])),
        Just(json!([124, "raw:v"])),
        (
            0..10_i64,
            prop::sample::select(vec!["i", "f", "l", "m", "s", "y", "z"])
        )
            .prop_map(|(kind, name)| json!([81, kind, format!("raw:{name}")])),
        (64..75_i64).prop_map(|code| json!([code])),
        (0..10_i64, 0..4_i64).prop_map(|(kind, part)| json!([122, kind, part])),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let args = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            3 => (prop::sample::select((1..52_i64).chain(64..130).collect::<Vec<_>>()), args.clone())
                .prop_map(|(code, args)| {
                    let mut expression = vec![json!(code)];
                    expression.extend(args);
                    Json::Array(expression)
                }),
            2 => (20..52_i64, inner.clone(), inner.clone())
                .prop_map(|(code, a, b)| json!([code, a, b])),
            1 => (inner.clone(), inner.clone())
                .prop_map(|(definition, body)| json!([125, "raw:v", definition, body])),
            2 => (0..10_i64, prop_oneof![Just(0), Just(64), 0..70_i64], 0..111_i64, args, inner.clone())
                .prop_map(|(kind, module, code, args, value)| {
                    let mut operation = vec![json!(code)];
                    operation.extend(args);
                    json!([127, kind, module, operation, value])
                }),
            1 => (inner.clone(), 0..24_i64, inner.clone(), inner)
                .prop_map(|(filter, flags, change, value)| match flags & 4 {
                    0 => json!([127, 4, 0, [254, [4, filter], flags], value]),
                    _ => json!([127, 4, 64, [254, [4, filter], flags, change], value]),
                }),
        ]
    })
}

const TYPES: [i64; 7] = [1, 2, 3, 4, 5, 6, 7];

/// Any expression of a type, by its code, whose parts are of the types that they should be.
fn any_of_type(kind: i64, depth: u32) -> BoxedStrategy<Json> {
    let literal = match kind {
        1 => any::<bool>().prop_map(|value| json!(value)).boxed(),
        2 => prop_oneof![-3..70_i64, any::<i64>()]
            .prop_map(|value| json!(value))
            .boxed(),
        3 => prop_oneof![Just(json!("s:a")), Just(json!("s:abc"))].boxed(),
        4 => prop_oneof![
            Just(json!([126, [3, 1, 2]])),
            Just(json!([126, [[1], "s:x"]]))
        ]
        .boxed(),
        5 => Just(map(&[("a", json!(1)), ("b", json!([2]))])).boxed(),
        6 => Just(json!("b:0102")).boxed(),
        _ => any::<i32>()
            .prop_map(|value| json!(["f64", f64::from(value) / 4.0]))
            .boxed(),
    };
    let names = prop::sample::select(vec!["i", "f", "l", "m", "s", "y", "z", "t"]);
    let bin = names.prop_map(move |name| json!([81, kind, format!("raw:{name}")]));
    if depth == 0 {
        return prop_oneof![4 => literal, 3 => bin, 1 => Just(json!([0]))].boxed();
    }
    let of = |kind| any_of_type(kind, depth - 1);
    let own = match kind {
        1 => prop_oneof![
            (
                1..7_i64,
                prop::sample::select(TYPES.to_vec()).prop_flat_map(move |kind| {
                    (any_of_type(kind, depth - 1), any_of_type(kind, depth - 1))
                })
            )
                .prop_map(|(code, (a, b))| json!([code, a, b])),
            (prop::sample::select(vec![16, 17, 19]), of(1), of(1), of(1))
                .prop_map(|(code, a, b, c)| json!([code, a, b, c])),
            of(1).prop_map(|test| json!([18, test])),
            of(3).prop_map(|text| json!([7, 1, "raw:^a+(b|c)*$", text])),
            (of(2), of(4)).prop_map(|(value, list)| json!([9, value, list])),
            Just(json!([71])),
        ]
        .boxed(),
        2 => prop_oneof![
            (
                prop::sample::select(
                    (20..24_i64)
                        .chain([26])
                        .chain(32..35)
                        .chain(36..39)
                        .chain(50..52)
                        .collect::<Vec<_>>()
                ),
                of(2),
                of(2)
            )
                .prop_map(|(code, a, b)| json!([code, a, b])),
            (prop::sample::select(vec![27, 35, 39]), of(2)).prop_map(|(code, a)| json!([code, a])),
            (40..42_i64, of(2), of(1)).prop_map(|(code, a, b)| json!([code, a, b])),
            of(7).prop_map(|a| json!([30, a])),
            of(4).prop_map(|list| json!([127, 2, 0, [16], list])),
            (of(2), of(4)).prop_map(|(at, list)| json!([127, 2, 0, [19, 7, at], list])),
            of(6).prop_map(|blob| json!([127, 2, 1, [51, 0, 8], blob])),
            (64..70_i64).prop_map(|code| match code {
                64 => json!([64, 7]),
                code => json!([code]),
            }),
        ]
        .boxed(),
        3 => Just(json!([70])).boxed(),
        4 => prop_oneof![
            (of(2), of(4)).prop_map(|(item, list)| json!([127, 4, 64, [1, item], list])),
            (of(4), of(4)).prop_map(|(items, list)| json!([127, 4, 64, [2, items, 1, 5], list])),
            (101..103_i64, of(5)).prop_map(|(code, map)| json!([code, map])),
            (of(1), 0..20_i64, of(4)).prop_map(|(test, flags, list)| {
                json!([
                    127,
                    4,
                    0,
                    [254, [4, [16, test, [4, [122, 2, 1], 1]]], flags & 0x13],
                    list
                ])
            }),
            (of(2), of(4)).prop_map(|(value, list)| {
                let change = json!([123, [3, [122, 2, 1], 2], [100], [20, [122, 2, 1], value]]);
                json!([127, 4, 64, [254, [4, true], 20, change], list])
            }),
        ]
        .boxed(),
        5 => prop_oneof![
            (of(2), of(5)).prop_map(|(value, map)| json!([127, 5, 64, [67, "s:k", value], map])),
            (of(2), of(5)).prop_map(|(rank, map)| json!([127, 5, 0, [106, 8, rank, 2], map])),
        ]
        .boxed(),
        6 => (of(2), of(6))
            .prop_map(|(offset, blob)| json!([127, 6, 1, [50, offset, 8], blob]))
            .boxed(),
        _ => prop_oneof![
            (
                prop::sample::select(vec![20, 21, 22, 23, 24, 25, 50, 51]),
                of(7),
                of(7)
            )
                .prop_map(|(code, a, b)| json!([code, a, b])),
            (27..30_i64, of(7)).prop_map(|(code, a)| json!([code, a])),
            of(2).prop_map(|a| json!([31, a])),
        ]
        .boxed(),
    };
    prop_oneof![
        2 => literal,
        1 => bin,
        8 => own,
        1 => (of(1), of(kind), of(kind)).prop_map(|(test, a, b)| json!([123, test, a, b])),
        1 => (of(kind), of(1)).prop_map(|(value, test)| {
            json!([125, "raw:v", value, [123, test, [124, "raw:v"], [0]]])
        }),
    ]
    .boxed()
}

fn any_record() -> Record {
    Record::of(json!({
        "i": 5, "t": true, "f": ["f64", 2.5], "l": [4, "s:x", null, [1, 2]], "s": "s:abc", "y": "b:01ff",
        "m": map(&[("a", json!(1)), ("b", json!([1])), ("c", json!("s:x"))]),
    }))
}

#[test]
fn any_expression_has_a_value_of_its_type_or_none() {
    let (compiled_count, known_count) = (Cell::new(0), Cell::new(0));
    let check = |expression: Json| {
        let record = any_record();
        let Ok(compiled) = compiled(&expression) else {
            return Ok(());
        };
        compiled_count.set(compiled_count.get() + 1);
        // Types that were checked hold for every value.
        if let Ok(value) = compiled.eval(&record) {
            known_count.set(known_count.get() + 1);
            let is_container = |kind: Option<Type>| kind.is_some_and(Type::is_container);
            prop_assert!(
                value.kind() == compiled.result_type()
                    || is_container(value.kind()) && is_container(compiled.result_type()),
                "{expression}: {value:?}"
            );
        }
        // What metadata alone says, the whole record says, too.
        let alone = MetadataOnly(record.metadata);
        match compiled.filter(&alone) {
            Trilean::Unknown => {}
            known => prop_assert_eq!(compiled.filter(&record), known, "{}", expression),
        }
        if !compiled.needs_bins() && !compiled.needs_key() {
            prop_assert_eq!(compiled.filter(&alone), compiled.filter(&record));
        }
        Ok(())
    };
    let any_typed = prop::sample::select(TYPES.to_vec())
        .prop_flat_map(|kind| any_of_type(kind, 2))
        .boxed();
    let config = ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&prop_oneof![any_expression(), any_typed], check)
        .unwrap_or_else(|failure| panic!("{failure}"));
    let counts = (compiled_count.get(), known_count.get());
    assert!(counts.0 > 1500 && counts.1 > 800, "{counts:?} of 4000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_compiled_or_refused(
        bytes in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![0x91_u8, 0x92, 0x93, 0x94, 0x95, 1, 16, 81, 123, 125, 127, 0xcc, 254, 0xa2, 3, 97]),
                any::<u8>(),
            ],
            0..40,
        ),
    ) {
        if let Ok(expression) = Expression::compile(&bytes) {
            let _ = expression.filter(&any_record());
        }
        let _ = ExpressionOp::parse_write(&bytes);
        if let Ok(path) = PathOp::parse(&bytes) {
            let _ = path.run(&[0x90], &any_record());
        }
    }

    #[test]
    fn recorded_shapes_with_one_byte_changed_do_no_harm(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), shape in 0..4_usize,
    ) {
        let shapes = [
            json!([1, [127, 2, 0, [97, 7, "s:a"], [81, 5, "raw:m"]], 1]),
            json!([127, 4, 64, [254, [4, true, 4, [3, [122, 2, 1], 1]], 20, [20, [122, 2, 1], 1]], [81, 4, "raw:l"]]),
            json!([125, "raw:v", [81, 2, "raw:i"], [123, [5, [124, "raw:v"], 9], [22, [124, "raw:v"], 2], [0]]]),
            json!([16, [7, 1, "raw:a+(b|c)*", [81, 3, "raw:s"]], [9, 4, [81, 4, "raw:l"]]]),
        ];
        let mut bytes = msgpack_of(&shapes[shape]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(expression) = Expression::compile(&bytes) {
            let _ = expression.eval(&any_record());
        }
    }

    #[test]
    fn integers_are_those_of_the_machine(a in any::<i64>(), b in prop_oneof![any::<i64>(), -70..70_i64]) {
        let record = any_record();
        let result = |code: i64| match compiled(&json!([code, a, b])).unwrap().eval(&record) {
            Ok(Value::Int(value)) => Some(value),
            Err(EvalError::Unknown) => None,
            other => panic!("{other:?}"),
        };
        let within = (0..64).contains(&b);
        let wide = |value: i128| Some(value as i64);
        let (wide_a, wide_b) = (i128::from(a), i128::from(b));
        prop_assert_eq!(result(20), wide(wide_a + wide_b));
        prop_assert_eq!(result(21), wide(wide_a - wide_b));
        prop_assert_eq!(result(22), wide(wide_a * wide_b));
        prop_assert_eq!(result(23), if b == 0 { None } else { wide(wide_a / wide_b) });
        prop_assert_eq!(result(26), if b == 0 { None } else { wide(wide_a % wide_b) });
        prop_assert_eq!(result(36), match b {
            ..0 => None,
            _ if within => wide(wide_a << b),
            _ => Some(0),
        });
        prop_assert_eq!(result(37), match b {
            ..0 => None,
            _ if within => wide(i128::from(a as u64) >> b),
            _ => Some(0),
        });
        prop_assert_eq!(result(38), match b {
            ..0 => None,
            _ => wide(wide_a >> b.min(63)),
        });
        prop_assert_eq!(result(50), Some(a.min(b)));
        prop_assert_eq!(result(51), Some(a.max(b)));
        let bits: String = format!("{:064b}", a as u64);
        for (search, digit) in [(true, '1'), (false, '0')] {
            let scan = |code: i64| match compiled(&json!([code, a, search])).unwrap().eval(&record) {
                Ok(Value::Int(value)) => usize::try_from(value).ok(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(scan(40), bits.find(digit));
            prop_assert_eq!(scan(41), bits.rfind(digit));
        }
    }
}
