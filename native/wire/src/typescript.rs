//! The constants that TypeScript shares, rendered from the tables of this crate.

use crate::flags::{
    EPOCH_UNIX_SECONDS, batch_flag, batch_row, field, index_type, info1, info2, info3, info4,
    limits, op, particle, ttl, udf_op,
};
use crate::proto::{PROTO_HEADER_BYTES, PROTO_VERSION, ProtoType};
use crate::result_code::ResultCode;
use std::fmt::Write as _;

/// The text of `src/engine/constants.ts`.
pub fn typescript_constants() -> String {
    let mut text = String::from(
        "// Generated from native/wire/src by its test `constants_file_is_current`. Do not edit:\n\
         // change the Rust tables and run `PERIGEE_REGENERATE=1 cargo test -p perigee-wire`.\n",
    );
    let mut constant = |name: &str, value: u64| {
        writeln!(text, "\nexport const {name} = {value}").expect("a string takes every write");
    };
    constant("EPOCH_UNIX_SECONDS", EPOCH_UNIX_SECONDS);
    constant("PROTO_VERSION", u64::from(PROTO_VERSION));
    constant("PROTO_HEADER_BYTES", PROTO_HEADER_BYTES as u64);
    constant(
        "MESSAGE_HEADER_BYTES",
        crate::message::MESSAGE_HEADER_BYTES as u64,
    );

    let kinds: Vec<(String, u64)> = (0..=u8::MAX)
        .filter_map(ProtoType::from_u8)
        .map(|kind| (format!("{kind:?}").to_uppercase(), kind as u64))
        .collect();
    object(
        &mut text,
        "ProtoType",
        kinds.iter().map(|(name, value)| (name.as_str(), *value)),
    );
    let tables = [
        ("Info1", info1::TABLE),
        ("Info2", info2::TABLE),
        ("Info3", info3::TABLE),
        ("Info4", info4::TABLE),
        ("FieldId", field::TABLE),
        ("OpCode", op::TABLE),
        ("ParticleType", particle::TABLE),
        ("Ttl", ttl::TABLE),
        ("UdfOp", udf_op::TABLE),
        ("IndexType", index_type::TABLE),
        ("BatchFlag", batch_flag::TABLE),
        ("BatchRow", batch_row::TABLE),
        ("Limit", limits::TABLE),
    ];
    for (name, table) in tables {
        object(&mut text, name, table.iter().copied());
    }

    object(
        &mut text,
        "ResultCode",
        ResultCode::ALL
            .iter()
            .map(|code| (code.name(), *code as u64)),
    );
    text.push_str(
        "export type ResultCode = (typeof ResultCode)[keyof typeof ResultCode]\n\n\
         export interface ResultCodeRow {\n  readonly code: ResultCode\n  \
         readonly name: keyof typeof ResultCode\n  readonly retriable: boolean\n}\n\n\
         export const RESULT_CODES: readonly ResultCodeRow[] = [\n",
    );
    for code in ResultCode::ALL {
        let (name, retriable) = (code.name(), code.retriable());
        writeln!(
            text,
            "  {{ code: {}, name: '{name}', retriable: {retriable} }},",
            *code as u8
        )
        .expect("a string takes every write");
    }
    text.push_str("]\n");
    text
}

fn object<'a>(text: &mut String, name: &str, entries: impl Iterator<Item = (&'a str, u64)>) {
    writeln!(text, "\nexport const {name} = {{").expect("a string takes every write");
    for (key, value) in entries {
        writeln!(text, "  {key}: {value},").expect("a string takes every write");
    }
    text.push_str("} as const\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn constants_file_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/engine/constants.ts");
        let expected = typescript_constants();
        if std::env::var_os("PERIGEE_REGENERATE").is_some_and(|value| value == "1") {
            std::fs::write(&path, &expected).expect("constants.ts can be written");
        }
        let found = std::fs::read_to_string(&path).expect("constants.ts can be read");
        assert!(
            found == expected,
            "{} is stale: PERIGEE_REGENERATE=1 rewrites it",
            path.display()
        );
    }

    #[test]
    fn every_number_is_exact_in_javascript() {
        let tables = [
            field::TABLE,
            op::TABLE,
            particle::TABLE,
            ttl::TABLE,
            limits::TABLE,
        ];
        for (name, value) in tables.into_iter().flatten() {
            assert!(*value < 1 << 53, "{name}");
        }
    }
}
