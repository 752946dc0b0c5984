//! Numbers in lists and maps that are counted up.

use perigee_wire::ResultCode;
use perigee_wire::msgpack::{Reader, Value, Writer};

/// The sum of an element, or of none, and a number. Integers wrap. PARAMETER if one of them is no number, or one an integer
/// and the other not.
pub fn add(old: Option<&[u8]>, delta: &[u8]) -> Result<Vec<u8>, ResultCode> {
    combine(old, delta, i64::wrapping_add, |a, b| a + b)
}

pub fn subtract(old: Option<&[u8]>, delta: &[u8]) -> Result<Vec<u8>, ResultCode> {
    combine(old, delta, i64::wrapping_sub, |a, b| a - b)
}

fn combine(
    old: Option<&[u8]>,
    delta: &[u8],
    integers: impl Fn(i64, i64) -> i64,
    floats: impl Fn(f64, f64) -> f64,
) -> Result<Vec<u8>, ResultCode> {
    let delta = read(delta)?;
    let old = match (old, delta) {
        (Some(old), _) => read(old)?,
        (None, Value::Float(_)) => Value::Float(0.0),
        (None, _) => Value::Int(0),
    };
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    match (old, delta) {
        (Value::Int(old), Value::Int(delta)) => writer.int(integers(old, delta)),
        (Value::Float(old), Value::Float(delta)) => writer.float(floats(old, delta)),
        (Value::Float(old), Value::Int(delta)) => writer.float(floats(old, delta as f64)),
        _ => return Err(ResultCode::Parameter),
    }
    Ok(out)
}

fn read(bytes: &[u8]) -> Result<Value<'_>, ResultCode> {
    Reader::new(bytes).read().map_err(|_| ResultCode::Parameter)
}
