//! What makes a path, and paths as calls.

use super::paths::{CHANGE, VALUES, document, f};
use super::*;

#[test]
fn paths_are_checked_when_they_are_compiled() {
    let refused = [
        json!([254, [], VALUES]),
        json!([254, [4], VALUES]),
        json!([254, [4, 1], VALUES]),
        json!([254, [4, "s:x"], VALUES]),
        json!([254, [4, [99]], VALUES]),
        json!([254, [99, 1], VALUES]),
        json!([254, [16, "s:x"], VALUES]),
        // A step of a path makes nothing.
        json!([254, [34 | 0x80, "s:x"], VALUES]),
        json!([254, [42, 1], VALUES]),
        json!([254, [42, [["ext", "0xff", "00"]]], VALUES]),
        // Another test goes with one that is none itself, and once.
        json!([254, [516, true], VALUES]),
        json!([254, [4, true, 516, true], VALUES]),
        json!([
            254,
            [
                34,
                "s:x",
                516,
                [1, [122, 2, 1], 1],
                516,
                [1, [122, 2, 1], 1]
            ],
            VALUES
        ]),
        json!([254, [4, true], 8]),
        json!([254, [4, true], 32]),
        json!([254, [4, true], -1]),
        json!([254, [4, true], 5, 1]),
        json!([254, [4, true], CHANGE]),
        json!([254, [4, true], VALUES, 1]),
        json!([254, [4, true]]),
        // Only what is changed may be removed.
        json!([254, [4, [1, [100], 1]], VALUES]),
        json!([254, [4, true], CHANGE, [122, 2, 3]]),
        json!([253, [4, true], VALUES]),
        json!(1),
    ];
    for path in refused {
        let parsed = PathOp::parse(&msgpack_of(&path)).map(|_| ());
        assert_eq!(parsed, Err(ResultCode::Parameter), "{path}");
    }
    let steps = |count| {
        let context: Vec<Json> = (0..2 * count)
            .map(|at| if at % 2 == 0 { json!(4) } else { json!(true) })
            .collect();
        PathOp::parse(&msgpack_of(&json!([254, context, VALUES]))).map(|_| ())
    };
    assert_eq!((steps(64), steps(65)), (Ok(()), Err(ResultCode::Parameter)));
    let mut trailing = msgpack_of(&json!([254, [4, true], VALUES]));
    trailing.push(0);
    assert!(PathOp::parse(&trailing).is_err());
    assert!(PathOp::is_path(&msgpack_of(&json!([254, [], 0]))));
    assert!(!PathOp::is_path(&msgpack_of(&json!([16]))));
    assert!(!PathOp::is_path(&[]));
}

#[test]
fn paths_are_part_of_expressions() {
    let record = Record::of(json!({ "l": [1, 2, 3], "n": [[1, 2], [30]], "m": document() }));
    let list = json!([81, 4, "raw:l"]);
    let cases = [
        (
            json!([127, 4, 0, [254, [4, [3, [122, 2, 1], 1]], 1], list]),
            Some(json!([2, 3])),
        ),
        (
            json!([127, 4, 64, [254, [4, true], 4, [22, [122, 2, 1], 2]], list]),
            Some(json!([2, 4, 6])),
        ),
        (
            json!([
                127,
                5,
                0,
                [254, [4, true, 4, [4, [122, 7, 1], f(30.0)]], 0],
                [81, 5, "raw:m"]
            ]),
            Some(map(&[
                ("Day1", map(&[])),
                ("Day2", map(&[("food", f(34.0))])),
                ("Day3", map(&[])),
            ])),
        ),
        // Variables are seen within, and the innermost element.
        (
            json!([
                125,
                "raw:v",
                2,
                [
                    127,
                    4,
                    0,
                    [254, [4, [4, [122, 2, 1], [124, "raw:v"]]], 1],
                    list
                ]
            ]),
            Some(json!([2, 3])),
        ),
        (
            json!([
                127,
                4,
                0,
                [
                    254,
                    [
                        4,
                        [
                            3,
                            [
                                127,
                                2,
                                0,
                                [16],
                                [127, 4, 0, [254, [4, [3, [122, 2, 1], 1]], 1], [122, 4, 1]]
                            ],
                            0
                        ]
                    ],
                    1
                ],
                [81, 4, "raw:n"]
            ]),
            Some(json!([[1, 2], [30]])),
        ),
        // Of another type than was said, of a bin that is missing, of what a filter fails on.
        (json!([127, 5, 0, [254, [4, true], 1], list]), None),
        (
            json!([127, 4, 0, [254, [4, true], 1], [81, 4, "raw:z"]]),
            None,
        ),
        (
            json!([127, 4, 0, [254, [4, [1, [122, 3, 1], "s:x"]], 1], list]),
            None,
        ),
    ];
    for (expression, expected) in cases {
        let expected = expected.map(|expected| msgpack_of(&expected));
        assert_eq!(value_of(&expression, &record), expected, "{expression}");
    }
    for refused in [
        json!([127, 4, 64, [254, [4, true], 1], list]),
        json!([127, 4, 0, [254, [4, true], 4, 1], list]),
    ] {
        assert_eq!(
            compiled(&refused).unwrap_err(),
            ResultCode::Parameter,
            "{refused}"
        );
    }
}
