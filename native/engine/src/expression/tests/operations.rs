//! Expression operations of requests.

use super::table::{bin, record};
use super::*;

fn operation(expression: Json, flags: i64) -> Vec<u8> {
    msgpack_of(&json!([expression, flags]))
}

#[test]
fn reading_operations_give_a_value_or_fail() {
    let record = record();
    let read = |expression: Json, flags| {
        let operation = ExpressionOp::parse_read(&operation(expression, flags))?;
        let value = operation.read(&record)?;
        Ok(value.map(|(kind, bytes)| (kind, bytes.into_owned())))
    };
    let four = Some((particle::INTEGER, 10_i64.to_be_bytes().to_vec()));
    assert_eq!(read(json!([20, bin(2, "a"), bin(2, "a")]), 0), Ok(four));
    assert_eq!(read(json!(null), 0), Ok(None));
    assert_eq!(read(bin(2, "z"), 0), Err(ResultCode::OpNotApplicable));
    assert_eq!(read(bin(2, "z"), 16), Ok(None));
    assert_eq!(read(json!(1), 4), Err(ResultCode::Parameter));
    assert_eq!(read(json!([99]), 16), Err(ResultCode::Parameter));
    // A sentinel is no value of a bin, however deep.
    let sentinel = json!([126, [[["ext", "0xff", "01"]]]]);
    assert_eq!(read(sentinel, 0), Err(ResultCode::OpNotApplicable));
    let geo = read(json!("g:{\"type\":\"Point\",\"coordinates\":[1,2]}"), 0)
        .unwrap()
        .unwrap();
    assert_eq!(geo.0, particle::GEOJSON);
    assert!(geo.1.starts_with(b"\0\0\0{"));
    for damaged in ["", "90", "9101", "920100ff", "9201a3", "930000c0"] {
        assert!(
            ExpressionOp::parse_read(&unhex(damaged)).is_err(),
            "{damaged}"
        );
    }
}

#[test]
fn writing_operations_follow_their_policy() {
    let record = record();
    let write = |expression: Json, flags, bin_exists| {
        let operation = ExpressionOp::parse_write(&operation(expression, flags))?;
        Ok(match operation.write(bin_exists, &record)? {
            Write::Set(kind, bytes) => Write::Set(kind, bytes.into_owned().into()),
            Write::Delete => Write::Delete,
            Write::Nothing => Write::Nothing,
        })
    };
    let one = || {
        Ok(Write::Set(
            particle::INTEGER,
            1_i64.to_be_bytes().to_vec().into(),
        ))
    };
    let unknown = || bin(2, "z");
    let cases = [
        (json!(1), 0, true, one()),
        (json!(1), 0, false, one()),
        // The policy comes first: an unknown value is not even looked for.
        (unknown(), 1, true, Err(ResultCode::BinExists)),
        (unknown(), 2, false, Err(ResultCode::BinNotFound)),
        (unknown(), 1 | 8, true, Ok(Write::Nothing)),
        (json!(1), 2 | 8, false, Ok(Write::Nothing)),
        (json!(1), 1, false, one()),
        (json!(1), 2, true, one()),
        (unknown(), 0, true, Err(ResultCode::OpNotApplicable)),
        (unknown(), 8, true, Err(ResultCode::OpNotApplicable)),
        (unknown(), 16, true, Ok(Write::Nothing)),
        (json!(null), 0, true, Err(ResultCode::OpNotApplicable)),
        (json!(null), 16, true, Err(ResultCode::OpNotApplicable)),
        (json!(null), 8, true, Ok(Write::Nothing)),
        (json!(null), 4, true, Ok(Write::Delete)),
        (json!(null), 4, false, Ok(Write::Nothing)),
        (json!(1), 3, true, Err(ResultCode::Parameter)),
        (json!(1), 32, true, Err(ResultCode::Parameter)),
        (json!(1), -1, true, Err(ResultCode::Parameter)),
    ];
    for (expression, flags, bin_exists, expected) in cases {
        let written = write(expression.clone(), flags, bin_exists);
        assert_eq!(written, expected, "{expression} with {flags}, {bin_exists}");
    }
    // A map in the order of its selection is not stored in that.
    let Ok(Write::Set(_, map)) = write(json!([127, 5, 0, [106, 8, 0, 3], bin(5, "m")]), 0, true)
    else {
        panic!("a map");
    };
    assert_eq!(&map[..], canonical(&map).unwrap());
}
