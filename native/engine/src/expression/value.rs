//! What expressions compute: typed values, borrowed from the expression or the record wherever they can be.

use super::EvalError;
use perigee_wire::msgpack::{self, Reader, Writer, canonical, has_sentinel, order, read_order};
use perigee_wire::particle::{geojson_text, validate_particle};
use perigee_wire::particle_type as particle;
use std::borrow::Cow;
use std::cmp::Ordering;

/// Types as expressions name them (section 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    Nil,
    Bool,
    Int,
    Str,
    List,
    Map,
    Blob,
    Float,
    Geo,
    Hll,
}

impl Type {
    const ALL: [Type; 10] = [
        Type::Nil,
        Type::Bool,
        Type::Int,
        Type::Str,
        Type::List,
        Type::Map,
        Type::Blob,
        Type::Float,
        Type::Geo,
        Type::Hll,
    ];

    pub fn of_code(code: i64) -> Option<Type> {
        usize::try_from(code)
            .ok()
            .and_then(|code| Type::ALL.get(code).copied())
    }

    pub fn is_container(self) -> bool {
        matches!(self, Type::List | Type::Map)
    }

    pub fn is_number(self) -> bool {
        matches!(self, Type::Int | Type::Float)
    }

    /// Locations are compared by containment and sketches not at all.
    pub fn is_comparable(self) -> bool {
        !matches!(self, Type::Geo | Type::Hll)
    }
}

/// A bin's value: particle type and bytes.
pub type Particle<'v> = (u8, Cow<'v, [u8]>);

/// A value; text and blobs without their particle type byte, lists and maps as msgpack.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'v> {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Cow<'v, [u8]>),
    /// With the particle type, which tells the language of the blob.
    Blob(u8, Cow<'v, [u8]>),
    /// The JSON text.
    Geo(Cow<'v, [u8]>),
    Hll(Cow<'v, [u8]>),
    List(Cow<'v, [u8]>),
    Map(Cow<'v, [u8]>),
    /// What a path operation takes for the removal of an element.
    Removed,
}

impl<'v> Value<'v> {
    /// None of what has no type.
    pub fn kind(&self) -> Option<Type> {
        Some(match self {
            Value::Nil => Type::Nil,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Float(_) => Type::Float,
            Value::Str(_) => Type::Str,
            Value::Blob(..) => Type::Blob,
            Value::Geo(_) => Type::Geo,
            Value::Hll(_) => Type::Hll,
            Value::List(_) => Type::List,
            Value::Map(_) => Type::Map,
            Value::Removed => return None,
        })
    }

    /// The value that a bin or key holds. Unknown if it is damaged, or of a type that expressions do not know.
    pub fn of_particle(kind: u8, bytes: &'v [u8]) -> Result<Value<'v>, EvalError> {
        let eight = || <[u8; 8]>::try_from(bytes).map_err(|_| EvalError::Unknown);
        Ok(match kind {
            particle::NULL => Value::Nil,
            particle::INTEGER => Value::Int(i64::from_be_bytes(eight()?)),
            particle::FLOAT => Value::Float(f64::from_be_bytes(eight()?)),
            particle::BOOL => Value::Bool(bytes == [1]),
            particle::STRING => Value::Str(bytes.into()),
            particle::BLOB | particle::JAVA_BLOB..=particle::ERLANG_BLOB => {
                Value::Blob(kind, bytes.into())
            }
            particle::LIST => Value::List(bytes.into()),
            particle::MAP => Value::Map(bytes.into()),
            particle::HLL => Value::Hll(bytes.into()),
            particle::GEOJSON => {
                Value::Geo(geojson_text(bytes).map_err(|_| EvalError::Unknown)?.into())
            }
            _ => return Err(EvalError::Unknown),
        })
    }

    /// The value that one msgpack value is, which is canonical. Unknown of a sentinel, and of what no bin may hold.
    pub fn of_msgpack(bytes: &'v [u8]) -> Result<Value<'v>, EvalError> {
        let unknown = |_| EvalError::Unknown;
        Ok(match Reader::new(bytes).read().map_err(unknown)? {
            msgpack::Value::Nil => Value::Nil,
            msgpack::Value::Bool(value) => Value::Bool(value),
            msgpack::Value::Int(value) => Value::Int(value),
            // As the integer that a bin would hold.
            msgpack::Value::Unsigned(value) => Value::Int(value as i64),
            msgpack::Value::Float(value) => Value::Float(value),
            msgpack::Value::Array(_) => Value::List(bytes.into()),
            msgpack::Value::Map(_) => Value::Map(bytes.into()),
            msgpack::Value::Str([kind, content @ ..])
            | msgpack::Value::Bin([kind, content @ ..]) => match *kind {
                particle::STRING => Value::Str(content.into()),
                particle::GEOJSON => Value::Geo(content.into()),
                particle::HLL => {
                    validate_particle(*kind, content).map_err(|_| EvalError::Unknown)?;
                    Value::Hll(content.into())
                }
                particle::BLOB | particle::JAVA_BLOB..=particle::ERLANG_BLOB => {
                    Value::Blob(*kind, content.into())
                }
                _ => return Err(EvalError::Unknown),
            },
            _ => return Err(EvalError::Unknown),
        })
    }

    /// As `of_msgpack`, of bytes that nobody else keeps.
    pub fn of_msgpack_owned(bytes: Vec<u8>) -> Result<Value<'static>, EvalError> {
        Ok(match Value::of_msgpack(&bytes)?.kind() {
            Some(Type::List) => Value::List(bytes.into()),
            Some(Type::Map) => Value::Map(bytes.into()),
            _ => Value::of_msgpack(&bytes)?.into_owned(),
        })
    }

    pub fn into_owned(self) -> Value<'static> {
        let owned = |bytes: Cow<'v, [u8]>| Cow::Owned(bytes.into_owned());
        match self {
            Value::Nil => Value::Nil,
            Value::Bool(value) => Value::Bool(value),
            Value::Int(value) => Value::Int(value),
            Value::Float(value) => Value::Float(value),
            Value::Str(bytes) => Value::Str(owned(bytes)),
            Value::Blob(kind, bytes) => Value::Blob(kind, owned(bytes)),
            Value::Geo(bytes) => Value::Geo(owned(bytes)),
            Value::Hll(bytes) => Value::Hll(owned(bytes)),
            Value::List(bytes) => Value::List(owned(bytes)),
            Value::Map(bytes) => Value::Map(owned(bytes)),
            Value::Removed => Value::Removed,
        }
    }

    /// The same value, without a copy.
    pub fn borrowed(&self) -> Value<'_> {
        match self {
            Value::Nil => Value::Nil,
            Value::Bool(value) => Value::Bool(*value),
            Value::Int(value) => Value::Int(*value),
            Value::Float(value) => Value::Float(*value),
            Value::Str(bytes) => Value::Str(Cow::Borrowed(bytes)),
            Value::Blob(kind, bytes) => Value::Blob(*kind, Cow::Borrowed(bytes)),
            Value::Geo(bytes) => Value::Geo(Cow::Borrowed(bytes)),
            Value::Hll(bytes) => Value::Hll(Cow::Borrowed(bytes)),
            Value::List(bytes) => Value::List(Cow::Borrowed(bytes)),
            Value::Map(bytes) => Value::Map(Cow::Borrowed(bytes)),
            Value::Removed => Value::Removed,
        }
    }

    /// Bytes that whoever looks through the value reads.
    pub fn size_bytes(&self) -> usize {
        match self {
            Value::Str(bytes)
            | Value::Blob(_, bytes)
            | Value::Geo(bytes)
            | Value::Hll(bytes)
            | Value::List(bytes)
            | Value::Map(bytes) => bytes.len(),
            _ => 8,
        }
    }

    /// Whether a copy of the value copies its bytes.
    pub fn is_owned(&self) -> bool {
        matches!(
            self,
            Value::Str(Cow::Owned(_))
                | Value::Blob(_, Cow::Owned(_))
                | Value::Geo(Cow::Owned(_))
                | Value::Hll(Cow::Owned(_))
                | Value::List(Cow::Owned(_))
                | Value::Map(Cow::Owned(_))
        )
    }

    pub fn as_bool(&self) -> Result<bool, EvalError> {
        match self {
            Value::Bool(value) => Ok(*value),
            _ => Err(EvalError::Unknown),
        }
    }

    /// Appends the value as it is nested in lists and maps. Unknown of a removal, which is no value.
    pub fn write_msgpack(&self, out: &mut Vec<u8>) -> Result<(), EvalError> {
        let mut writer = Writer::new(out);
        match self {
            Value::Nil => writer.nil(),
            Value::Bool(value) => writer.bool(*value),
            Value::Int(value) => writer.int(*value),
            Value::Float(value) => writer.float(*value),
            Value::Str(bytes) => writer.particle(particle::STRING, bytes),
            Value::Blob(kind, bytes) => writer.particle(*kind, bytes),
            Value::Geo(bytes) => writer.particle(particle::GEOJSON, bytes),
            Value::Hll(bytes) => writer.particle(particle::HLL, bytes),
            Value::List(bytes) | Value::Map(bytes) => out.extend_from_slice(bytes),
            Value::Removed => return Err(EvalError::Unknown),
        }
        Ok(())
    }

    /// The value as a bin holds it: particle type and bytes. A location comes without cells. Unknown of what is no value
    /// of a bin: a removal, or a list or map with a sentinel in it.
    pub fn into_particle(self) -> Result<Particle<'v>, EvalError> {
        Ok(match self {
            Value::Nil => (particle::NULL, Cow::Borrowed(&[])),
            Value::Bool(value) => (particle::BOOL, Cow::Owned(vec![u8::from(value)])),
            Value::Int(value) => (particle::INTEGER, Cow::Owned(value.to_be_bytes().to_vec())),
            Value::Float(value) => (particle::FLOAT, Cow::Owned(value.to_be_bytes().to_vec())),
            Value::Str(bytes) => (particle::STRING, bytes),
            Value::Blob(kind, bytes) => (kind, bytes),
            Value::Hll(bytes) => (particle::HLL, bytes),
            Value::Geo(text) => {
                let mut bytes = vec![0; GEO_HEADER_BYTES];
                bytes.extend_from_slice(&text);
                (particle::GEOJSON, Cow::Owned(bytes))
            }
            Value::List(bytes) if !has_sentinel(&bytes) => (particle::LIST, bytes),
            Value::Map(bytes) if !has_sentinel(&bytes) => (particle::MAP, bytes),
            _ => return Err(EvalError::Unknown),
        })
    }
}

/// Flags and a count of cells, both 0 until the location is stored.
const GEO_HEADER_BYTES: usize = 3;

/// How two values of one comparable type are ordered. None of numbers that have no order; unknown of values of different
/// types.
pub fn compare(left: &Value<'_>, right: &Value<'_>) -> Result<Option<Ordering>, EvalError> {
    Ok(Some(match (left, right) {
        (Value::Nil, Value::Nil) => Ordering::Equal,
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => return Ok(a.partial_cmp(b)),
        (Value::Str(a), Value::Str(b)) | (Value::Blob(_, a), Value::Blob(_, b)) => a.cmp(b),
        (Value::List(a), Value::List(b)) => msgpack::compare(a, b),
        (Value::Map(a), Value::Map(b)) => msgpack::compare(&stored_order(a), &stored_order(b)),
        _ => return Err(EvalError::Unknown),
    }))
}

/// A map in an order that it may be stored in. Pairs of a result may come in the order of their selection, which is no
/// order that anything but a reply may rely on.
pub fn stored_order(map: &[u8]) -> Cow<'_, [u8]> {
    let mut reader = Reader::new(map);
    let is_preserved = match reader.read() {
        Ok(msgpack::Value::Map(counted)) => read_order(&mut reader, counted, true)
            .is_ok_and(|(_, flags)| flags & order::PRESERVED != 0),
        _ => false,
    };
    if is_preserved && let Ok(canonical) = canonical(map) {
        return Cow::Owned(canonical);
    }
    Cow::Borrowed(map)
}
