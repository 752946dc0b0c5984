//! Definitions that are taken, and those that are refused.

use super::*;
use crate::expression::tests::msgpack_of;
use serde_json::{Value as Json, json};

fn definition(config: Json) -> Result<IndexDefinition, IndexError> {
    IndexDefinition::of(&IndexConfig::of_json(&config.to_string())?)
}

fn refused(config: Json) -> IndexError {
    match definition(config.clone()) {
        Ok(_) => panic!("taken: {config}"),
        Err(error) => error,
    }
}

fn base64(json: Json) -> String {
    BASE64.encode(&msgpack_of(&json))
}

/// An index of an expression's values.
fn of_expression(expression: Json, index_type: &str, key_type: &str) -> Json {
    json!({
        "name": "i",
        "expression": base64(expression),
        "index-type": index_type,
        "key-type": key_type,
    })
}

fn with(mut config: Json, key: &str, value: impl Into<Json>) -> Json {
    config[key] = value.into();
    config
}

fn plain() -> Json {
    json!({"name": "i", "set": "demo", "bin": "a", "index-type": "default", "key-type": "numeric"})
}

#[test]
fn what_a_client_sent_is_taken() {
    let found = definition(plain()).unwrap();
    assert_eq!(found.name, "i");
    assert_eq!(found.set.as_deref(), Some(&b"demo"[..]));
    assert_eq!(
        (found.collection, found.key_type),
        (Collection::None, KeyType::Integer)
    );
    assert!(matches!(&found.source, Source::Bin { name, context: None } if **name == *b"a"));
    assert!(found.has_one_key_each());

    let context = definition(with(plain(), "context", "kiKiA24=")).unwrap();
    let bytes = msgpack_of(&json!([0x22, "s:n"]));
    assert_eq!(context.context_bytes.as_deref(), Some(&bytes[..]));

    let expression = with(plain(), "expression", "kxSTUQKhYQE=");
    let found = definition(with(expression, "bin", Json::Null)).unwrap();
    let bytes = msgpack_of(&json!([20, [81, 2, "raw:a"], 1]));
    assert_eq!(found.expression_bytes.as_deref(), Some(&bytes[..]));

    for (index_type, collection) in [
        ("list", Collection::List),
        ("mapkeys", Collection::MapKeys),
        ("mapvalues", Collection::MapValues),
    ] {
        for (word, key_type) in [
            ("numeric", KeyType::Integer),
            ("integer", KeyType::Integer),
            ("string", KeyType::String),
            ("blob", KeyType::Blob),
        ] {
            let config = with(with(plain(), "index-type", index_type), "key-type", word);
            let found = definition(config).unwrap();
            assert_eq!((found.collection, found.key_type), (collection, key_type));
            assert!(!found.has_one_key_each());
        }
    }
    let geo = definition(with(plain(), "key-type", "geo2dsphere")).unwrap();
    assert!(!geo.has_one_key_each(), "a region has a key a cell");
}

#[test]
fn an_index_of_a_set_has_a_set_and_no_more() {
    let config = json!({"name": "i", "set": "demo", "index-type": "set"});
    let found = definition(config.clone()).unwrap();
    assert!(matches!(found.source, Source::Set) && found.has_one_key_each());
    assert!(found.covers_set(b"demo") && !found.covers_set(b"") && !found.covers_set(b"demo2"));
    definition(with(config.clone(), "key-type", "string")).expect("it is not looked at");
    for source in ["bin", "context", "expression"] {
        let error = refused(with(config.clone(), source, "a"));
        assert_eq!(error, IndexError::SetWithSource { found: source });
    }
    for none in [Json::Null, json!("")] {
        assert_eq!(
            refused(with(config.clone(), "set", none)),
            IndexError::SetWithoutName
        );
    }
}

#[test]
fn without_a_set_records_of_all_sets_are_indexed() {
    for none in [Json::Null, json!("")] {
        let found = definition(with(plain(), "set", none)).unwrap();
        assert_eq!(found.set, None);
        assert!(found.covers_set(b"") && found.covers_set(b"demo"));
    }
}

#[test]
fn names_have_their_bounds_and_characters() {
    let name = |name: &str| with(plain(), "name", name);
    definition(name(&"x".repeat(63))).unwrap();
    definition(name("Größe-1_ä")).unwrap();
    assert_eq!(refused(name("")), IndexError::NameLength { bytes: 0 });
    assert_eq!(
        refused(name(&"x".repeat(64))),
        IndexError::NameLength { bytes: 64 }
    );
    for character in [':', ';', '=', '\n', '\t', '\0'] {
        let text = format!("a{character}b");
        let found = character;
        assert_eq!(
            refused(name(&text)),
            IndexError::NameCharacter { name: text, found }
        );
    }
    definition(with(plain(), "bin", "x".repeat(15))).unwrap();
    for bytes in [0, 16] {
        let error = refused(with(plain(), "bin", "x".repeat(bytes)));
        assert_eq!(error, IndexError::BinLength { bytes });
    }
    definition(with(plain(), "set", "x".repeat(63))).unwrap();
    assert_eq!(
        refused(with(plain(), "set", "x".repeat(64))),
        IndexError::SetLength { bytes: 64 }
    );
}

#[test]
fn a_source_is_one_and_has_a_type() {
    let without = |key| with(plain(), key, Json::Null);
    assert_eq!(refused(without("bin")), IndexError::NoSource);
    assert_eq!(refused(without("key-type")), IndexError::NoKeyType);
    assert_eq!(
        refused(with(plain(), "expression", "kxSTUQKhYQE=")),
        IndexError::BinAndExpression
    );
    let both = with(
        of_expression(json!(1), "default", "numeric"),
        "context",
        "kiKiA24=",
    );
    assert_eq!(refused(both), IndexError::ContextWithoutBin);
    let keys = with(
        with(plain(), "index-type", "mapkeys"),
        "key-type",
        "geo2dsphere",
    );
    assert_eq!(refused(keys), IndexError::GeoMapKeys);
    for wrong in [
        with(plain(), "index-type", "map"),
        with(plain(), "index-type", "LIST"),
        with(plain(), "key-type", "float"),
        with(plain(), "colour", "red"),
        with(plain(), "bin", 5),
        without("name"),
        json!([]),
    ] {
        assert!(
            matches!(refused(wrong.clone()), IndexError::Json(_)),
            "{wrong}"
        );
    }
    assert_eq!(refused(json!([])).result_code(), ResultCode::Parameter);
}

#[test]
fn contexts_lead_and_make_nothing() {
    let context = |json: Json| with(plain(), "context", base64(json));
    for steps in [
        json!([0x10, -1]),
        json!([0x22, "s:a", 0x20, 0, 0x11, 3, 0x21, -2]),
        json!([0x13, 5, 0x23, "s:x"]),
    ] {
        definition(context(steps.clone())).unwrap_or_else(|error| panic!("{steps}: {error}"));
    }
    assert_eq!(refused(context(json!([]))), IndexError::ContextEmpty);
    for damaged in [
        json!([0x22]),
        json!([0x14, 1]),
        json!([0x10, "s:a"]),
        json!(["s:a", 1]),
        json!(5),
        json!({"MAP": [[1, 2]]}),
    ] {
        assert_eq!(
            refused(context(damaged.clone())),
            IndexError::Context,
            "{damaged}"
        );
    }
    for create in [0x40, 0x80, 0xc0] {
        let steps = json!([0x22 | create, "s:a"]);
        assert_eq!(refused(context(steps)), IndexError::ContextCreates);
    }
    let steps: Vec<i64> = [0x10, 0].repeat(65);
    assert_eq!(refused(context(json!(steps))), IndexError::Context);
    for (text, is_base64) in [("kiKiA24", false), ("ki KiA24=", false), ("kiKi", true)] {
        let error = refused(with(plain(), "context", text));
        assert_eq!(error == IndexError::Context, is_base64, "{text}: {error}");
        assert!(
            is_base64 || matches!(error, IndexError::Base64 { .. }),
            "{text}: {error}"
        );
    }
    let long = format!("s:{}", "x".repeat(CONTEXT_BYTES_MAX));
    let error = refused(context(json!([0x22, long])));
    assert!(
        matches!(
            error,
            IndexError::TooLong {
                what: "context",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_context_written_in_another_way_is_the_same() {
    // The step's kind and key with longer headers.
    let bytes = [0x92, 0xcc, 0x22, 0xd9, 0x02, 0x03, b'n'];
    let one = definition(with(plain(), "context", BASE64.encode(&bytes))).unwrap();
    let other = definition(with(plain(), "context", "kiKiA24=")).unwrap();
    assert!(one.is_same(&other));
    assert_eq!(
        Some(&*canonical_name(&bytes)),
        other.context_bytes.as_deref()
    );
    assert_eq!(
        &*canonical_name(b"\xa0"),
        b"\xa0",
        "without a canonical form it is as it was sent"
    );
}

#[test]
fn expressions_have_the_type_that_is_indexed_and_no_clock() {
    let bin = |kind: i64| json!([81, kind, "raw:a"]);
    for (index_type, key_type, kind) in [
        ("default", "numeric", 2),
        ("default", "string", 3),
        ("default", "blob", 6),
        ("default", "geo2dsphere", 8),
        ("list", "numeric", 4),
        ("list", "geo2dsphere", 4),
        ("mapkeys", "string", 5),
        ("mapvalues", "blob", 5),
    ] {
        definition(of_expression(bin(kind), index_type, key_type)).unwrap();
        let error = refused(of_expression(bin(7), index_type, key_type));
        assert!(
            matches!(
                error,
                IndexError::ExpressionType {
                    found: Some(Type::Float),
                    ..
                }
            ),
            "{error}"
        );
    }
    // Its value is never known.
    let error = refused(of_expression(json!([0]), "default", "numeric"));
    assert!(
        matches!(error, IndexError::ExpressionType { found: None, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("no value"), "{error}");

    let error = refused(of_expression(json!([20, bin(2)]), "default", "string"));
    let told = error.to_string();
    assert!(told.contains("Int") && told.contains("Str"), "{told}");

    for clock in [67, 69] {
        let error = refused(of_expression(
            json!([20, bin(2), [clock]]),
            "default",
            "numeric",
        ));
        assert_eq!(error, IndexError::ExpressionOfTime, "{clock}");
    }
    for of_the_version in [json!([66]), json!([68]), json!([65]), json!([64, 7])] {
        definition(of_expression(of_the_version, "default", "numeric")).unwrap();
    }
    let error = refused(of_expression(json!([999, 1]), "default", "numeric"));
    let code = ResultCode::Parameter;
    assert_eq!(error, IndexError::Expression { code });
    assert!(error.to_string().contains("PARAMETER"), "{error}");
}

#[test]
fn definitions_are_the_same_but_for_their_names() {
    let expression = |json: Json| of_expression(json, "default", "numeric");
    let different = [
        plain(),
        with(plain(), "set", "other"),
        with(plain(), "set", Json::Null),
        with(plain(), "bin", "b"),
        with(plain(), "key-type", "string"),
        with(plain(), "index-type", "list"),
        with(plain(), "context", "kiKiA24="),
        with(plain(), "context", base64(json!([0x22, "s:m"]))),
        expression(json!([81, 2, "raw:a"])),
        expression(json!([81, 2, "raw:b"])),
        json!({"name": "i", "set": "demo", "index-type": "set"}),
    ];
    for (i, one) in different.iter().enumerate() {
        for (j, other) in different.iter().enumerate() {
            let other = definition(with(other.clone(), "name", "another")).unwrap();
            assert_eq!(
                definition(one.clone()).unwrap().is_same(&other),
                i == j,
                "{one}"
            );
        }
    }
}

#[test]
fn wire_codes_name_collections() {
    let named: Vec<_> = (0..=255).filter_map(Collection::of_wire).collect();
    let all = [
        Collection::None,
        Collection::List,
        Collection::MapKeys,
        Collection::MapValues,
    ];
    assert_eq!(named, all);
}
