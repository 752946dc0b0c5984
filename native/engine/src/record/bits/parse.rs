//! Reads the arguments of bit operations, and refuses those that are wrong whatever the bin holds.

use super::{BLOB_BYTES_MAX, INTEGER_BITS_MAX, Operation, Place, integer, policy, resize};
use crate::record::cdt::Call;
use perigee_wire::msgpack::{Reader, Value};
use perigee_wire::{ResultCode, particle_type as particle};

fn positive(value: i64, max: u64) -> Result<u64, ResultCode> {
    u64::try_from(value)
        .ok()
        .filter(|value| (1..=max).contains(value))
        .ok_or(ResultCode::Parameter)
}

fn known(flags: u64, allowed: u64) -> Result<u64, ResultCode> {
    if flags & !allowed == 0 {
        Ok(flags)
    } else {
        Err(ResultCode::Parameter)
    }
}

pub fn read_operation<'a>(call: &mut Call<'a>) -> Result<Operation<'a>, ResultCode> {
    let code = call.code;
    Ok(match code {
        50 => Operation::Get(Place::any(call)?),
        51 => Operation::Count(Place::any(call)?),
        52 | 53 => Operation::Scan {
            place: Place::any(call)?,
            wanted: boolean(call)?,
            from_right: code == 53,
        },
        54 => Operation::GetInteger {
            place: Place::of_integer(call)?,
            signed: known(call.flags()?, integer::SIGNED)? != 0,
        },
        _ => return Err(ResultCode::Parameter),
    })
}

pub fn modify_operation<'a>(
    call: &mut Call<'a>,
    policy: &mut u64,
) -> Result<Operation<'a>, ResultCode> {
    let code = call.code;
    Ok(match code {
        0 => {
            let bytes = byte_count(call.int()?)?;
            *policy = known(call.flags()?, policy::OF_CREATORS)?;
            let flags = known(call.flags()?, resize::ALL)?;
            if flags & resize::GROW_ONLY != 0 && flags & resize::SHRINK_ONLY != 0 {
                return Err(ResultCode::Parameter);
            }
            Operation::Resize { bytes, flags }
        }
        1 => {
            let offset = byte_offset(call.int()?)?;
            let bytes = blob(call)?;
            *policy = known(call.flags()?, policy::OF_CREATORS)?;
            Operation::Insert { offset, bytes }
        }
        2 => {
            let offset = byte_offset(call.int()?)?;
            let bytes = positive(call.int()?, BLOB_BYTES_MAX as u64)?;
            *policy = known(call.flags()?, policy::OF_RANGES)?;
            Operation::Remove { offset, bytes }
        }
        3..=6 => {
            let place = Place::any(call)?;
            let bytes = blob(call)?;
            *policy = known(call.flags()?, policy::OF_RANGES)?;
            if (bytes.len() as u64) < place.bits.div_ceil(8) {
                return Err(ResultCode::Parameter);
            }
            let how: fn(bool, bool) -> bool = match code {
                3 => |_, new| new,
                4 => |old, new| old | new,
                5 => |old, new| old ^ new,
                _ => |old, new| old & new,
            };
            Operation::Combine { place, bytes, how }
        }
        7 => {
            let place = Place::any(call)?;
            *policy = known(call.flags()?, policy::OF_RANGES)?;
            Operation::Not(place)
        }
        8 | 9 => {
            let place = Place::any(call)?;
            let bits = u64::try_from(call.int()?).map_err(|_| ResultCode::Parameter)?;
            *policy = known(call.flags()?, policy::OF_RANGES)?;
            Operation::Shift {
                place,
                bits,
                to_left: code == 8,
            }
        }
        10 | 11 => {
            let place = Place::of_integer(call)?;
            let value = any_integer(call)?;
            *policy = known(call.flags()?, policy::OF_INTEGERS)?;
            let flags = known(call.flags()?, integer::ALL)?;
            if flags & integer::SATURATE != 0 && flags & integer::WRAP != 0 {
                return Err(ResultCode::Parameter);
            }
            Operation::Add {
                place,
                value,
                subtract: code == 11,
                flags,
            }
        }
        12 => {
            let place = Place::of_integer(call)?;
            let value = any_integer(call)?;
            *policy = known(call.flags()?, policy::OF_INTEGERS)?;
            Operation::SetInteger { place, value }
        }
        _ => return Err(ResultCode::Parameter),
    })
}

fn byte_count(value: i64) -> Result<usize, ResultCode> {
    usize::try_from(value)
        .ok()
        .filter(|bytes| *bytes < BLOB_BYTES_MAX)
        .ok_or(ResultCode::Parameter)
}

fn byte_offset(value: i64) -> Result<i64, ResultCode> {
    if value.unsigned_abs() < BLOB_BYTES_MAX as u64 {
        Ok(value)
    } else {
        Err(ResultCode::Parameter)
    }
}

/// A blob that is not empty.
fn blob<'a>(call: &mut Call<'a>) -> Result<&'a [u8], ResultCode> {
    let (kind, bytes) = Reader::new(call.value()?)
        .read_particle()
        .map_err(|_| ResultCode::Parameter)?;
    let is_blob = matches!(
        kind,
        particle::BLOB | particle::JAVA_BLOB..=particle::ERLANG_BLOB
    );
    if is_blob && !bytes.is_empty() {
        Ok(bytes)
    } else {
        Err(ResultCode::Parameter)
    }
}

/// Signed and unsigned integers by their 64 bits.
fn any_integer(call: &mut Call<'_>) -> Result<u64, ResultCode> {
    match Reader::new(call.value()?).read() {
        Ok(Value::Int(value)) => Ok(value as u64),
        Ok(Value::Unsigned(value)) => Ok(value),
        _ => Err(ResultCode::Parameter),
    }
}

/// Some clients write 0 and 1.
fn boolean(call: &mut Call<'_>) -> Result<bool, ResultCode> {
    match Reader::new(call.value()?).read() {
        Ok(Value::Bool(value)) => Ok(value),
        Ok(Value::Int(value @ 0..=1)) => Ok(value == 1),
        _ => Err(ResultCode::Parameter),
    }
}

impl Place {
    /// PARAMETER for no bits, or for places that no blob has.
    fn parse(call: &mut Call<'_>, bits_max: u64) -> Result<Place, ResultCode> {
        let offset = call.int()?;
        let bits = positive(call.int()?, bits_max)?;
        if offset.unsigned_abs() >= BLOB_BYTES_MAX as u64 * 8 {
            return Err(ResultCode::Parameter);
        }
        Ok(Place { offset, bits })
    }

    fn any(call: &mut Call<'_>) -> Result<Place, ResultCode> {
        Place::parse(call, BLOB_BYTES_MAX as u64 * 8)
    }

    fn of_integer(call: &mut Call<'_>) -> Result<Place, ResultCode> {
        Place::parse(call, INTEGER_BITS_MAX)
    }
}
