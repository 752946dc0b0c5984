//! Expressions in the notation of the recorded frames: JSON in which strings are `s:text`, `b:hex`, `g:json`, `raw:name`,
//! floats `["f64", 1.5]`, maps `{"MAP": [[key, value], ...]}` and extensions `["ext", "0xff", "01"]`.

mod bounds;
mod functions;
mod operations;
mod path_rules;
mod paths;
mod posix;
mod recorded;
mod table;

use super::*;
use perigee_wire::msgpack::{Writer, canonical};
use perigee_wire::{particle_of_msgpack, particle_type as particle};
use serde_json::{Value as Json, json};

/// A record for tests, all of it in sight.
pub(crate) struct Record {
    pub(crate) bins: Vec<(String, (u8, Vec<u8>))>,
    pub(crate) key: Option<(u8, Vec<u8>)>,
    pub(crate) metadata: Metadata<'static>,
}

pub(crate) const DIGEST: [u8; 20] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 0, 0, 1,
];

impl Record {
    /// With bins of values in the tests' notation.
    pub(crate) fn of(bins: Json) -> Record {
        let bin = |value| {
            let bytes = canonical(&msgpack_of(value)).expect("a value");
            let (kind, bytes) = particle_of_msgpack(&bytes).expect("a value of a bin");
            (kind, bytes.into_owned())
        };
        let bins = bins.as_object().expect("bins by name");
        Record {
            bins: bins
                .iter()
                .map(|(name, value)| (name.clone(), bin(value)))
                .collect(),
            key: None,
            metadata: Metadata {
                digest: &DIGEST,
                set: b"demo",
                last_update_time: 500_000_000_000,
                void_time: 0,
                now: 500_000_001_500,
                has_key: false,
                is_tombstone: false,
                device_bytes: 0,
                memory_bytes: 320,
                record_bytes: 320,
            },
        }
    }
}

impl RecordView for Record {
    fn metadata(&self) -> Metadata<'_> {
        self.metadata
    }

    fn key(&self) -> Lookup<(u8, &[u8])> {
        self.key
            .as_ref()
            .map(|(kind, bytes)| (*kind, &bytes[..]))
            .into()
    }

    fn bin(&self, name: &[u8]) -> Lookup<(u8, &[u8])> {
        let bin = self.bins.iter().find(|(known, _)| known.as_bytes() == name);
        bin.map(|(_, (kind, bytes))| (*kind, &bytes[..])).into()
    }
}

pub(crate) fn msgpack_of(json: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    write(json, &mut out);
    out
}

pub(crate) use perigee_fixtures::unhex;

fn write(json: &Json, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    match json {
        Json::Null => writer.nil(),
        Json::Bool(value) => writer.bool(*value),
        Json::Number(value) => match value.as_i64() {
            Some(value) => writer.int(value),
            None => writer.unsigned(value.as_u64().expect("an integer")),
        },
        Json::String(text) => {
            let (kind, content) = text.split_once(':').expect("a string with its kind");
            match kind {
                "s" => writer.particle(particle::STRING, content.as_bytes()),
                "b" => writer.particle(particle::BLOB, &unhex(content)),
                "g" => writer.particle(particle::GEOJSON, content.as_bytes()),
                "h" => writer.particle(particle::HLL, &unhex(content)),
                "raw" => writer.raw_str(content.as_bytes()),
                _ => panic!("a string of kind {kind}"),
            }
        }
        Json::Array(items) => match &items[..] {
            [Json::String(tag), value] if tag == "f64" => {
                writer.float(value.as_f64().expect("a float"));
            }
            [Json::String(tag), kind, data] if tag == "ext" => {
                let kind = kind.as_str().expect("a type").trim_start_matches("0x");
                let kind = u8::from_str_radix(kind, 16).expect("a type");
                writer.ext(kind as i8, &unhex(data.as_str().expect("data")));
            }
            items => {
                writer.array(items.len() as u32);
                items.iter().for_each(|item| write(item, out));
            }
        },
        Json::Object(map) => {
            let pairs = map["MAP"].as_array().expect("pairs");
            writer.map(pairs.len() as u32);
            for pair in pairs {
                write(&pair[0], out);
                write(&pair[1], out);
            }
        }
    }
}

/// A map whose keys are texts, in the tests' notation.
pub(crate) fn map(pairs: &[(&str, Json)]) -> Json {
    let pairs: Vec<Json> = pairs
        .iter()
        .map(|(key, value)| json!([format!("s:{key}"), value]))
        .collect();
    json!({ "MAP": pairs })
}

pub(super) fn compiled(expression: &Json) -> Result<Expression, ResultCode> {
    Expression::compile(&msgpack_of(expression))
}

/// The value of an expression as msgpack; None of what is unknown, or may not be a bin's.
pub(super) fn value_of(expression: &Json, record: &Record) -> Option<Vec<u8>> {
    let expression = compiled(expression).unwrap_or_else(|code| panic!("{expression}: {code:?}"));
    let value = expression.eval(record).ok()?;
    assert_eq!(
        value.kind(),
        expression.result_type(),
        "the type that was told"
    );
    let mut out = Vec::new();
    value.write_msgpack(&mut out).ok()?;
    Some(out)
}
