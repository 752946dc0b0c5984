//! Operations that look into what one bin holds: lists and maps at any depth, bits, sketches, expressions. Each takes a
//! bin's value, or none, and gives a new one, a result, or both.

use super::bits::BitCall;
use super::cdt::{self, Call, CallBytes, Step, Stored};
use super::geo::{CoveringLimits, stored as stored_location};
use super::hll::HllCall;
use super::image::Bin;
use crate::expression::{ExpressionOp, PathOp, RecordView, Write};
use perigee_wire::{Op, ResultCode, op, particle_of_msgpack, particle_type as particle};
use std::borrow::Cow;

/// A particle type and a value of that type.
pub type BinValue<'a> = (u8, Cow<'a, [u8]>);

/// What becomes of a bin.
#[derive(Debug)]
pub enum Change {
    Nothing,
    Removed,
    /// To a value of a particle type, with the index of a list or map where that follows from the old one's.
    To(u8, Vec<u8>, Option<Vec<u8>>),
}

pub fn is_read(code: u8) -> bool {
    matches!(
        code,
        op::CDT_READ | op::BITS_READ | op::HLL_READ | op::EXP_READ
    )
}

pub fn is_modify(code: u8) -> bool {
    matches!(
        code,
        op::CDT_MODIFY | op::BITS_MODIFY | op::HLL_MODIFY | op::EXP_MODIFY
    )
}

/// The result of a reading operation; None where there is nothing to say. `record` is what expressions see.
pub fn read(
    operation: &Op<'_>,
    bin: Option<Bin<'_>>,
    record: &dyn RecordView,
) -> Result<Option<BinValue<'static>>, ResultCode> {
    match operation.code {
        op::EXP_READ => {
            let expression = ExpressionOp::parse_read(operation.value)?;
            let result = expression.read(record)?;
            Ok(result.map(|(kind, value)| (kind, Cow::Owned(value.into_owned()))))
        }
        op::CDT_READ if PathOp::is_path(operation.value) => {
            let path = PathOp::parse(operation.value)?;
            if path.is_modify() {
                return Err(ResultCode::Parameter);
            }
            let Some(value) = container_of(bin)? else {
                return Ok(None);
            };
            path.run(value.bytes, record).and_then(result_of).map(Some)
        }
        op::CDT_READ => {
            let bytes = CallBytes::of(operation.value)?;
            let mut call = Call::parse(&bytes)?;
            let Some(bin) = bin else {
                return Ok(None);
            };
            check_kind(bin.particle, &call)?;
            let result = cdt::read(stored(&bin), &mut call)?;
            result.map(result_of).transpose()
        }
        op::BITS_READ => {
            let bytes = CallBytes::of(operation.value)?;
            let call = BitCall::parse(&bytes)?;
            let found = scalar_at(bin, call.context(), particle::BLOB)?;
            let result = found.map(|blob| call.read(&blob)).transpose()?;
            result.map(result_of).transpose()
        }
        op::HLL_READ => {
            let bytes = CallBytes::of(operation.value)?;
            let call = HllCall::parse(&bytes)?;
            let found = scalar_at(bin, call.context(), particle::HLL)?;
            let result = found.map(|sketch| call.read(&sketch)).transpose()?;
            result.map(result_of).transpose()
        }
        _ => Err(ResultCode::Parameter),
    }
}

/// What a modifying operation makes of a bin, and its result. No value grows beyond `bytes_max`.
pub fn modify(
    operation: &Op<'_>,
    bin: Option<Bin<'_>>,
    record: &dyn RecordView,
    bytes_max: usize,
) -> Result<(Change, Option<BinValue<'static>>), ResultCode> {
    match operation.code {
        op::EXP_MODIFY => {
            let expression = ExpressionOp::parse_write(operation.value)?;
            let change = match expression.write(bin.is_some(), record)? {
                Write::Nothing => Change::Nothing,
                Write::Delete => Change::Removed,
                Write::Set(particle::GEOJSON, value) => Change::To(
                    particle::GEOJSON,
                    stored_location(&value, &CoveringLimits::default())?,
                    None,
                ),
                Write::Set(kind, value) => Change::To(kind, value.into_owned(), None),
            };
            Ok((change, None))
        }
        op::CDT_MODIFY if PathOp::is_path(operation.value) => {
            let path = PathOp::parse(operation.value)?;
            if !path.is_modify() {
                return Err(ResultCode::Parameter);
            }
            let Some(Bin { particle, .. }) = bin else {
                return Ok((Change::Nothing, None));
            };
            match container_of(bin)? {
                Some(value) => {
                    let value = path.run(value.bytes, record)?;
                    Ok((Change::To(particle, value, None), None))
                }
                None => Ok((Change::Nothing, None)),
            }
        }
        op::CDT_MODIFY => {
            let bytes = CallBytes::of(operation.value)?;
            let mut call = Call::parse(&bytes)?;
            if let Some(bin) = bin {
                check_kind(bin.particle, &call)?;
            }
            let kind = call.bin_shape().particle();
            let changed = cdt::modify(bin.as_ref().map(stored), &mut call)?;
            let change = match changed.value {
                Some(value) => Change::To(kind, value, changed.index),
                None => Change::Nothing,
            };
            Ok((change, changed.result.map(result_of).transpose()?))
        }
        op::BITS_MODIFY => {
            let bytes = CallBytes::of(operation.value)?;
            let call = BitCall::parse(&bytes)?;
            modify_scalar(bin, call.context(), particle::BLOB, |blob| {
                Ok((call.modify(blob, bytes_max)?, None))
            })
        }
        op::HLL_MODIFY => {
            let bytes = CallBytes::of(operation.value)?;
            let call = HllCall::parse(&bytes)?;
            modify_scalar(bin, call.context(), particle::HLL, |sketch| {
                let changed = call.modify(sketch, bytes_max)?;
                Ok((changed.value, changed.result))
            })
        }
        _ => Err(ResultCode::Parameter),
    }
}

fn stored<'a>(bin: &Bin<'a>) -> Stored<'a> {
    Stored {
        bytes: bin.value,
        index: bin.index,
    }
}

/// A list or map. INCOMPATIBLE_TYPE of another bin.
fn container_of(bin: Option<Bin<'_>>) -> Result<Option<Stored<'_>>, ResultCode> {
    match bin {
        None => Ok(None),
        Some(bin) if matches!(bin.particle, particle::LIST | particle::MAP) => {
            Ok(Some(stored(&bin)))
        }
        Some(_) => Err(ResultCode::IncompatibleType),
    }
}

/// INCOMPATIBLE_TYPE unless a bin is of the kind that a call begins at.
fn check_kind(kind: u8, call: &Call<'_>) -> Result<(), ResultCode> {
    if kind == call.bin_shape().particle() {
        Ok(())
    } else {
        Err(ResultCode::IncompatibleType)
    }
}

/// The value of one kind that a bin is, or that a context leads to in it.
fn scalar_at<'a>(
    bin: Option<Bin<'a>>,
    context: &[Step<'_>],
    wanted: u8,
) -> Result<Option<Cow<'a, [u8]>>, ResultCode> {
    if context.is_empty() {
        return match bin {
            None => Ok(None),
            Some(bin) if bin.particle == wanted => Ok(Some(Cow::Borrowed(bin.value))),
            Some(_) => Err(ResultCode::IncompatibleType),
        };
    }
    let Some(value) = container_of(bin)? else {
        return Ok(None);
    };
    let found = cdt::find(value, context)?;
    nested(found.bytes, wanted).map(Some)
}

/// A value within a list or map, if it is of this kind.
fn nested(msgpack: &[u8], wanted: u8) -> Result<Cow<'_, [u8]>, ResultCode> {
    match particle_of_msgpack(msgpack) {
        Ok((kind, value)) if kind == wanted => Ok(value),
        _ => Err(ResultCode::IncompatibleType),
    }
}

/// The new value, if there is one, and the result as msgpack.
type ScalarChange = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Changes the value of one kind that a bin is, or that a context leads to in it.
fn modify_scalar(
    bin: Option<Bin<'_>>,
    context: &[Step<'_>],
    wanted: u8,
    change: impl Fn(Option<&[u8]>) -> Result<ScalarChange, ResultCode>,
) -> Result<(Change, Option<BinValue<'static>>), ResultCode> {
    let (kind, (value, result), index) = if context.is_empty() {
        let old = scalar_at(bin, context, wanted)?;
        (wanted, change(old.as_deref())?, None)
    } else {
        let kind = bin.map_or(particle::NULL, |bin| bin.particle);
        let value = container_of(bin)?.ok_or(ResultCode::BinNotFound)?;
        let changed = cdt::modify_nested(value, context, &|element| {
            let old = nested(element, wanted)?;
            let (value, result) = change(Some(&old))?;
            let mut out = Vec::new();
            let new = value.map(|value| {
                perigee_wire::msgpack::Writer::new(&mut out).particle(wanted, &value);
                out
            });
            Ok((new, result))
        })?;
        (kind, (changed.value, changed.result), changed.index)
    };
    let change = match value {
        Some(value) => Change::To(kind, value, index),
        None => Change::Nothing,
    };
    Ok((change, result.map(result_of).transpose()?))
}

/// A result as it is sent.
fn result_of(msgpack: Vec<u8>) -> Result<BinValue<'static>, ResultCode> {
    let (kind, value) = particle_of_msgpack(&msgpack).map_err(|error| error.result_code())?;
    Ok((kind, Cow::Owned(value.into_owned())))
}
