//! Expressions that a client sent.

use super::*;
use perigee_wire::{Message, op};
use std::path::PathBuf;

/// Every recorded line, as JSON.
pub(crate) fn recorded_lines() -> Vec<Json> {
    let path = std::env::var_os("PERIGEE_FIXTURES").map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../../shared/reference/wire-fixtures.jsonl")
        },
        PathBuf::from,
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "recorded frames, {}: {error}; PERIGEE_FIXTURES names the file",
            path.display()
        )
    });
    text.lines()
        .skip(1)
        .map(|line| serde_json::from_str(line).expect("a recorded line is JSON"))
        .collect()
}

/// Every recorded message, with its name.
fn recorded() -> Vec<(String, Vec<u8>)> {
    let mut frames = Vec::new();
    for row in recorded_lines() {
        for frame in row["frames"].as_array().expect("frames") {
            if let Some(digits) = frame["hex"].as_str() {
                let name = row["name"].as_str().expect("a name").to_owned();
                frames.push((name, unhex(digits)));
            }
        }
    }
    frames
}

#[test]
fn every_recorded_filter_is_compiled() {
    let mut seen = 0;
    for (name, frame) in recorded() {
        let Ok(message) = Message::parse(&frame[8..]) else {
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
    for (name, frame) in recorded() {
        let Ok(message) = Message::parse(&frame[8..]) else {
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
