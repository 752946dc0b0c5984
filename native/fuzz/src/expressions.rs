//! Expressions, as filters and as operations, and paths: compiled from what came, evaluated on a record.

use crate::part::{assert_result, assert_stored, choice, split, stored};
use perigee_engine::expression::{
    EvalError, Expression, ExpressionOp, Lookup, Metadata, MetadataOnly, PathOp, RecordView,
    Trilean, Value, Write,
};
use perigee_engine::record::geo;
use perigee_wire::msgpack::Writer;
use perigee_wire::{
    RECORD_BYTES_MAX, ResultCode, particle_of_msgpack, particle_type as particle, validate_particle,
};
use std::sync::OnceLock;

const DIGEST: [u8; 20] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
];
/// A result is at most what one evaluation may make.
const RESULT_BYTES_MAX: usize = 8 * RECORD_BYTES_MAX;

type Bins = Vec<(&'static [u8], (u8, Vec<u8>))>;

/// Bins of every type, and `x`, which comes with the input.
pub(crate) struct Record {
    bins: &'static Bins,
    x: Option<(u8, Vec<u8>)>,
}

impl Record {
    /// With this value as `x`, if it may be stored.
    pub(crate) fn of(value: &[u8]) -> Option<Record> {
        let value = stored(value)?;
        let (kind, bytes) = particle_of_msgpack(&value).ok()?;
        validate_particle(kind, &bytes).ok()?;
        let bytes = match kind {
            particle::GEOJSON => geo::stored(&bytes, &geo::CoveringLimits::default()).ok()?,
            _ => bytes.into_owned(),
        };
        Some(Record {
            bins: bins(),
            x: Some((kind, bytes)),
        })
    }

    /// Without `x`.
    pub(crate) fn plain() -> Record {
        Record {
            bins: bins(),
            x: None,
        }
    }
}

impl RecordView for Record {
    fn metadata(&self) -> Metadata<'_> {
        Metadata {
            digest: &DIGEST,
            set: b"set",
            last_update_time: 500_000_000_000,
            void_time: 500_000_100,
            now: 500_000_001_500,
            has_key: true,
            is_tombstone: false,
            device_bytes: 160,
            memory_bytes: 0,
            record_bytes: 160,
        }
    }

    fn key(&self) -> Lookup<(u8, &[u8])> {
        Lookup::Found((particle::STRING, b"key"))
    }

    fn bin(&self, name: &[u8]) -> Lookup<(u8, &[u8])> {
        if name == b"x" {
            return self
                .x
                .as_ref()
                .map(|(kind, bytes)| (*kind, &bytes[..]))
                .into();
        }
        let found = self.bins.iter().find(|(known, _)| *known == name);
        found.map(|(_, (kind, bytes))| (*kind, &bytes[..])).into()
    }
}

fn packed(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

fn bins() -> &'static Bins {
    static BINS: OnceLock<Bins> = OnceLock::new();
    BINS.get_or_init(|| {
        let list = packed(|w| {
            w.array(4);
            w.int(3);
            w.int(1);
            w.particle(particle::STRING, b"two");
            w.array(2);
            w.int(5);
            w.int(-7);
        });
        let map = packed(|w| {
            w.map(4);
            w.map_order(1);
            w.int(1);
            w.float(1.5);
            w.particle(particle::STRING, b"a");
            w.array(2);
            w.int(1);
            w.int(2);
            w.particle(particle::STRING, b"b");
            w.map(1);
            w.particle(particle::STRING, b"c");
            w.int(9);
        });
        let mut hll = vec![0; 11 + 12];
        hll[1] = 4;
        let place = br#"{"type":"Point","coordinates":[10.5,50.25]}"#;
        vec![
            (b"i", (particle::INTEGER, 42_i64.to_be_bytes().to_vec())),
            (b"f", (particle::FLOAT, 2.5_f64.to_be_bytes().to_vec())),
            (b"s", (particle::STRING, b"some text".to_vec())),
            (b"b", (particle::BLOB, vec![0x5a, 0xff, 0x00, 0x81])),
            (b"o", (particle::BOOL, vec![1])),
            (b"g", (particle::GEOJSON, [&[0, 0, 0], &place[..]].concat())),
            (b"h", (particle::HLL, hll)),
            (b"l", (particle::LIST, list)),
            (b"m", (particle::MAP, map)),
        ]
    })
}

pub(crate) fn run(data: &[u8]) {
    let Some((kind, data)) = choice(data, 4) else {
        return;
    };
    let Some((x, code)) = split(data) else {
        return;
    };
    let record = Record::of(x).unwrap_or_else(Record::plain);
    match kind {
        0 => evaluated(code, &record),
        1 => filtered(code, &record),
        2 => operated(code, &record),
        _ => followed(code, &record),
    }
}

fn evaluated(code: &[u8], record: &Record) {
    let Ok(expression) = Expression::compile(code) else {
        return;
    };
    let value = expression.eval(record);
    assert!(same(&value, &expression.eval(record)), "another value");
    let Ok(value) = value else { return };
    match (value.kind(), expression.result_type()) {
        // A changed list in a map is told as the map.
        (Some(found), Some(told)) if found.is_container() && told.is_container() => {}
        (found, told) => assert_eq!(found, told, "of {code:02x?}"),
    }
    let mut out = Vec::new();
    if value.write_msgpack(&mut out).is_ok() {
        assert_result(&out, RESULT_BYTES_MAX, &code);
    }
    if let Ok((kind, bytes)) = value.into_particle()
        && kind != particle::GEOJSON
    {
        assert_eq!(validate_particle(kind, &bytes), Ok(()), "of {code:02x?}");
    }
}

/// NaN is the same as NaN here.
fn same(a: &Result<Value<'_>, EvalError>, b: &Result<Value<'_>, EvalError>) -> bool {
    match (a, b) {
        (Ok(Value::Float(a)), Ok(Value::Float(b))) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

fn filtered(code: &[u8], record: &Record) {
    let Ok(filter) = Expression::compile_filter(code) else {
        return;
    };
    let unread = filter.filter(&MetadataOnly(record.metadata()));
    let read = filter.filter(record);
    let needs_record = filter.needs_bins() || filter.needs_key();
    if !needs_record {
        assert_eq!(unread, read, "of {code:02x?}");
    }
    // What is known without the record is not known otherwise with it.
    if unread != Trilean::Unknown && read != Trilean::Unknown {
        assert_eq!(unread, read, "of {code:02x?}");
    }
}

fn operated(code: &[u8], record: &Record) {
    if let Ok(operation) = ExpressionOp::parse_read(code)
        && let Ok(Some((kind, bytes))) = operation.read(record)
        && kind != particle::GEOJSON
    {
        assert_eq!(validate_particle(kind, &bytes), Ok(()), "of {code:02x?}");
    }
    let Ok(operation) = ExpressionOp::parse_write(code) else {
        return;
    };
    for exists in [false, true] {
        let Ok(Write::Set(kind, bytes)) = operation.write(exists, record) else {
            continue;
        };
        match kind {
            particle::LIST | particle::MAP => assert_stored(&bytes, &code),
            // It is put into its stored form, or refused, by who stores it.
            particle::GEOJSON => {}
            _ => assert_eq!(validate_particle(kind, &bytes), Ok(()), "of {code:02x?}"),
        }
    }
}

fn followed(code: &[u8], record: &Record) {
    let Ok(path) = PathOp::parse(code) else {
        return;
    };
    assert!(PathOp::is_path(code));
    for name in [&b"l"[..], b"m", b"x"] {
        let Lookup::Found((particle::LIST | particle::MAP, value)) = record.bin(name) else {
            continue;
        };
        match path.run(value, record) {
            Ok(value) if path.is_modify() => assert_stored(&value, &code),
            Ok(result) => assert_result(&result, RESULT_BYTES_MAX, &code),
            Err(code) => assert!(
                matches!(
                    code,
                    ResultCode::IncompatibleType
                        | ResultCode::OpNotApplicable
                        | ResultCode::Parameter
                        | ResultCode::GeoInvalid
                        | ResultCode::RecordTooBig
                        | ResultCode::ElementExists
                        | ResultCode::ElementNotFound
                        | ResultCode::BinExists
                        | ResultCode::BinNotFound
                ),
                "{code:?}"
            ),
        }
    }
}
