//! Bin values as they travel (section 5.1), and what makes one acceptable.

pub use crate::flags::particle::*;
use crate::msgpack::{self, MsgpackError, Reader, Value, Writer};
use crate::result_code::ResultCode;
use std::borrow::Cow;

const GEOJSON_HEADER_BYTES: usize = 3;
const GEOJSON_CELL_BYTES: usize = 8;

/// u8 flags, u8 index bits, u8 minhash bits, u64 cached estimate (section 14).
const HLL_HEADER_BYTES: usize = 11;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParticleError {
    #[error("particle type {found} is unknown")]
    Type { found: u8 },
    #[error("value of particle type {kind} has {found} bytes, expected {expected}")]
    Length {
        kind: u8,
        found: usize,
        expected: usize,
    },
    #[error("boolean holds {found}, expected 0 or 1")]
    Bool { found: u8 },
    #[error("value of particle type {kind} begins with another msgpack type")]
    Container { kind: u8 },
    #[error(transparent)]
    Msgpack(#[from] MsgpackError),
    #[error("location of {found} bytes has no text after {expected} bytes of header and cells")]
    GeoJson { found: usize, expected: usize },
    #[error("HLL of {index_bits} index bits and {minhash_bits} minhash bits does not exist")]
    HllShape { index_bits: u8, minhash_bits: u8 },
}

impl ParticleError {
    /// What the client is told.
    pub fn result_code(&self) -> ResultCode {
        match self {
            ParticleError::GeoJson { .. } => ResultCode::GeoInvalid,
            _ => ResultCode::Parameter,
        }
    }
}

/// Checks that `value` may be stored as a bin of particle type `kind`. Text need not be UTF-8, as
/// clients of this protocol never promised it; what a location's text says is not looked at.
pub fn validate_particle(kind: u8, value: &[u8]) -> Result<(), ParticleError> {
    match kind {
        NULL => exactly(kind, value, 0),
        INTEGER | FLOAT => exactly(kind, value, 8),
        BOOL => match *value {
            [0 | 1] => Ok(()),
            [found] => Err(ParticleError::Bool { found }),
            _ => exactly(kind, value, 1),
        },
        STRING | BLOB | JAVA_BLOB..=ERLANG_BLOB => Ok(()),
        LIST => match msgpack::validate(value)? {
            Value::Array(_) => Ok(()),
            _ => Err(ParticleError::Container { kind }),
        },
        MAP => match msgpack::validate(value)? {
            Value::Map(_) => Ok(()),
            _ => Err(ParticleError::Container { kind }),
        },
        HLL => validate_hll(value),
        GEOJSON => geojson_text(value).map(|_| ()),
        _ => Err(ParticleError::Type { found: kind }),
    }
}

/// The JSON text of a GEOJSON value, behind its flags and cells. Never empty.
pub fn geojson_text(value: &[u8]) -> Result<&[u8], ParticleError> {
    let mut expected = GEOJSON_HEADER_BYTES;
    if let Some(&[_, cells_high, cells_low]) = value.first_chunk::<GEOJSON_HEADER_BYTES>() {
        let cells = usize::from(u16::from_be_bytes([cells_high, cells_low]));
        expected += cells * GEOJSON_CELL_BYTES;
    }
    match value.split_at_checked(expected) {
        None | Some((_, [])) => Err(ParticleError::GeoJson {
            found: value.len(),
            expected,
        }),
        Some((_, text)) => Ok(text),
    }
}

/// The bin value that a msgpack value is: what is nested in a list or map, or the result of an operation. An integer
/// beyond what a bin holds wraps, as clients that know unsigned integers expect.
pub fn particle_of_msgpack(bytes: &[u8]) -> Result<(u8, Cow<'_, [u8]>), ParticleError> {
    let mut reader = Reader::new(bytes);
    Ok(match reader.read()? {
        Value::Nil => (NULL, Cow::Borrowed(&[])),
        Value::Bool(value) => (BOOL, Cow::Owned(vec![u8::from(value)])),
        Value::Int(value) => (INTEGER, Cow::Owned(value.to_be_bytes().to_vec())),
        Value::Unsigned(value) => (INTEGER, Cow::Owned(value.to_be_bytes().to_vec())),
        Value::Float(value) => (FLOAT, Cow::Owned(value.to_be_bytes().to_vec())),
        Value::Array(_) => (LIST, Cow::Borrowed(bytes)),
        Value::Map(_) => (MAP, Cow::Borrowed(bytes)),
        Value::Str([GEOJSON, text @ ..]) | Value::Bin([GEOJSON, text @ ..]) => (
            GEOJSON,
            Cow::Owned([&[0; GEOJSON_HEADER_BYTES], text].concat()),
        ),
        Value::Str([kind, content @ ..]) | Value::Bin([kind, content @ ..]) => {
            // Others have a form of their own in msgpack.
            if !matches!(*kind, STRING | BLOB | JAVA_BLOB..=ERLANG_BLOB | HLL) {
                return Err(ParticleError::Type { found: *kind });
            }
            validate_particle(*kind, content)?;
            (*kind, Cow::Borrowed(content))
        }
        Value::Str([]) | Value::Bin([]) => {
            return Err(MsgpackError::NoParticleType { offset: 0 }.into());
        }
        Value::Ext(..) => return Err(ParticleError::Type { found: NULL }),
    })
}

/// Appends a valid bin value as it is nested in lists and maps.
pub fn write_msgpack(kind: u8, value: &[u8], out: &mut Vec<u8>) -> Result<(), ParticleError> {
    let mut writer = Writer::new(out);
    match kind {
        NULL => writer.nil(),
        BOOL => writer.bool(value == [1]),
        INTEGER | FLOAT => {
            let bytes = <[u8; 8]>::try_from(value).map_err(|_| ParticleError::Length {
                kind,
                found: value.len(),
                expected: 8,
            })?;
            match kind {
                INTEGER => writer.int(i64::from_be_bytes(bytes)),
                _ => writer.float(f64::from_be_bytes(bytes)),
            }
        }
        LIST | MAP => out.extend_from_slice(value),
        GEOJSON => writer.particle(kind, geojson_text(value)?),
        _ => writer.particle(kind, value),
    }
    Ok(())
}

fn exactly(kind: u8, value: &[u8], expected: usize) -> Result<(), ParticleError> {
    if value.len() != expected {
        return Err(ParticleError::Length {
            kind,
            found: value.len(),
            expected,
        });
    }
    Ok(())
}

fn validate_hll(value: &[u8]) -> Result<(), ParticleError> {
    let Some(&[_, index_bits, minhash_bits, ..]) = value.first_chunk::<HLL_HEADER_BYTES>() else {
        return exactly(HLL, value, HLL_HEADER_BYTES);
    };
    let shape = matches!(index_bits, 4..=16)
        && matches!(minhash_bits, 0 | 4..=51)
        && index_bits + minhash_bits <= 64;
    if !shape {
        return Err(ParticleError::HllShape {
            index_bits,
            minhash_bits,
        });
    }
    let register_bits = (1_usize << index_bits) * (6 + usize::from(minhash_bits));
    exactly(HLL, value, HLL_HEADER_BYTES + register_bits.div_ceil(8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::unhex;
    use crate::flags::limits::MSGPACK_DEPTH_MAX;
    use proptest::prelude::*;

    fn length(kind: u8, found: usize, expected: usize) -> Result<(), ParticleError> {
        Err(ParticleError::Length {
            kind,
            found,
            expected,
        })
    }

    #[test]
    fn scalars_have_exactly_their_width() {
        for kind in [INTEGER, FLOAT] {
            assert_eq!(validate_particle(kind, &[0; 8]), Ok(()));
            for bytes in [0, 1, 2, 4, 7, 9] {
                assert_eq!(
                    validate_particle(kind, &[0; 9][..bytes]),
                    length(kind, bytes, 8)
                );
            }
        }
        assert_eq!(validate_particle(NULL, &[]), Ok(()));
        assert_eq!(validate_particle(NULL, &[0]), length(NULL, 1, 0));
        assert_eq!(validate_particle(BOOL, &[1]), Ok(()));
        assert_eq!(
            validate_particle(BOOL, &[2]),
            Err(ParticleError::Bool { found: 2 })
        );
        assert_eq!(validate_particle(BOOL, &[]), length(BOOL, 0, 1));
        assert_eq!(validate_particle(BOOL, &[0, 0]), length(BOOL, 2, 1));
    }

    #[test]
    fn text_and_blobs_may_hold_any_bytes() {
        for kind in [
            STRING,
            BLOB,
            JAVA_BLOB,
            CSHARP_BLOB,
            PYTHON_BLOB,
            RUBY_BLOB,
            PHP_BLOB,
        ] {
            assert_eq!(validate_particle(kind, &[]), Ok(()));
            assert_eq!(validate_particle(kind, &[0xff, 0, 0xc1]), Ok(()));
        }
    }

    #[test]
    fn types_without_a_meaning_are_refused() {
        let known = [
            NULL, INTEGER, FLOAT, STRING, BLOB, BOOL, HLL, MAP, LIST, GEOJSON,
        ];
        for found in 0..=u8::MAX {
            if !known.contains(&found) && !(JAVA_BLOB..=ERLANG_BLOB).contains(&found) {
                assert_eq!(
                    validate_particle(found, &[]),
                    Err(ParticleError::Type { found })
                );
            }
        }
    }

    #[test]
    fn containers_are_one_well_formed_value_of_their_own_type() {
        for (kind, digits) in [(LIST, "90"), (LIST, "93c700010102"), (MAP, "80")] {
            assert_eq!(validate_particle(kind, &unhex(digits)), Ok(()), "{digits}");
        }
        assert_eq!(
            validate_particle(MAP, &unhex("83c70001c0a20361c3a2036201")),
            Ok(())
        );
        assert_eq!(
            validate_particle(LIST, &[0x80]),
            Err(ParticleError::Container { kind: LIST })
        );
        assert_eq!(
            validate_particle(MAP, &[0x90]),
            Err(ParticleError::Container { kind: MAP })
        );
        for digits in ["", "91", "9001", "91a0", "91c1", "91a203", "ddffffffff"] {
            let error = validate_particle(LIST, &unhex(digits)).unwrap_err();
            assert!(matches!(error, ParticleError::Msgpack(_)), "{digits}");
        }
        let deep = [0x91; MSGPACK_DEPTH_MAX * 40];
        assert!(validate_particle(LIST, &deep).is_err());
    }

    #[test]
    fn locations_have_text_behind_their_cells() {
        assert_eq!(geojson_text(b"\0\0\0{}"), Ok(&b"{}"[..]));
        assert_eq!(geojson_text(b"\x01\0\x0112345678{}"), Ok(&b"{}"[..]));
        let cases: [(&[u8], usize); 4] = [
            (b"", 3),
            (b"\0\0", 3),
            (b"\0\0\0", 3),
            (b"\0\xff\xff{}", 3 + 65535 * 8),
        ];
        for (value, expected) in cases {
            let error = ParticleError::GeoJson {
                found: value.len(),
                expected,
            };
            assert_eq!(validate_particle(GEOJSON, value), Err(error));
            assert_eq!(error.result_code(), ResultCode::GeoInvalid);
        }
    }

    #[test]
    fn values_nest_and_come_out_again() {
        let values: [(u8, &[u8], &str); 9] = [
            (NULL, &[], "c0"),
            (BOOL, &[1], "c3"),
            (INTEGER, &300_i64.to_be_bytes(), "cd012c"),
            (FLOAT, &1.5_f64.to_be_bytes(), "cb3ff8000000000000"),
            (STRING, b"ab", "a3036162"),
            (BLOB, &[9], "a20409"),
            (LIST, &[0x91, 1], "9101"),
            (MAP, &[0x81, 1, 2], "810102"),
            (GEOJSON, b"\0\0\0{}", "a3177b7d"),
        ];
        for (kind, value, digits) in values {
            let mut nested = Vec::new();
            write_msgpack(kind, value, &mut nested).unwrap();
            assert_eq!(nested, unhex(digits));
            let (found, bytes) = particle_of_msgpack(&nested).unwrap();
            assert_eq!((found, &bytes[..]), (kind, value));
        }
        // The cells of a location are not nested.
        let mut nested = Vec::new();
        write_msgpack(GEOJSON, b"\x01\0\x0112345678{}", &mut nested).unwrap();
        assert_eq!(nested, unhex("a3177b7d"));
        for refused in ["", "a0", "d4ff00", "a21001", "a212ff"] {
            assert!(particle_of_msgpack(&unhex(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn hll_has_as_many_registers_as_its_header_says() {
        let hll = |index_bits: u8, minhash_bits: u8, registers: usize| {
            let mut value = vec![0, index_bits, minhash_bits];
            value.resize(HLL_HEADER_BYTES + registers, 0);
            validate_particle(HLL, &value)
        };
        assert_eq!(hll(4, 0, 12), Ok(()));
        assert_eq!(hll(8, 0, 192), Ok(()));
        assert_eq!(hll(4, 4, 20), Ok(()));
        assert_eq!(hll(16, 48, 442_368), Ok(()));
        assert_eq!(hll(4, 0, 11), length(HLL, 22, 23));
        for (index_bits, minhash_bits) in [(3, 0), (17, 0), (4, 3), (4, 52), (16, 49)] {
            let error = ParticleError::HllShape {
                index_bits,
                minhash_bits,
            };
            assert_eq!(hll(index_bits, minhash_bits, 12), Err(error));
        }
        assert_eq!(validate_particle(HLL, &[0, 4]), length(HLL, 2, 11));
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(
            kind in 0_u8..25, value in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = validate_particle(kind, &value);
        }
    }
}
