//! Expressions that a client sent.

use super::*;
use perigee_fixtures::recorded_frames;
use perigee_wire::{Message, op};

#[test]
fn every_recorded_filter_is_compiled() {
    let mut seen = 0;
    for frame in recorded_frames() {
        let name = &frame.name;
        let Ok(message) = Message::parse(&frame.bytes[8..]) else {
            continue;
        };
        let Some(filter) = message.filter else {
            continue;
        };
        seen += 1;
        let compiled = Expression::compile_filter(filter);
        let refused = match name.as_str() {
            // This client sends a negation without an operand for its test for tombstones.
            "exp.meta" => Some(ResultCode::Parameter),
            // The region that was asked for is of a type that there is not.
            "exp.geo" => Some(ResultCode::GeoInvalid),
            _ => None,
        };
        if refused.is_some() {
            assert_eq!(compiled.map(|_| ()).err(), refused, "{name}");
            continue;
        }
        let compiled = compiled.unwrap_or_else(|code| panic!("{name}: {code:?}"));
        let _ = compiled.filter(&Record::of(json!({})));
    }
    assert!(seen >= 30, "only {seen} recorded filters");
}

#[test]
fn every_recorded_expression_operation_and_path_is_parsed() {
    let (mut operations, mut paths) = (0, 0);
    for frame in recorded_frames() {
        let name = &frame.name;
        let Ok(message) = Message::parse(&frame.bytes[8..]) else {
            continue;
        };
        for operation in message.ops {
            let parsed = match operation.code {
                op::EXP_READ => ExpressionOp::parse_read(operation.value).map(|_| operations += 1),
                op::EXP_MODIFY => {
                    ExpressionOp::parse_write(operation.value).map(|_| operations += 1)
                }
                op::CDT_READ | op::CDT_MODIFY if PathOp::is_path(operation.value) => {
                    paths += 1;
                    PathOp::parse(operation.value).map(|path| {
                        assert_eq!(path.is_modify(), operation.code == op::CDT_MODIFY);
                    })
                }
                _ => continue,
            };
            parsed.unwrap_or_else(|code| panic!("{name}: {code:?}"));
        }
    }
    assert!(operations >= 3 && paths >= 5, "{operations} and {paths}");
}
