//! Operations on the bits of a blob (section 14). Bit 0 is the most significant bit of byte 0; integers are big-endian.
//!
//! An operation works on a blob and nothing else, so that one in a list or map is served like a bin: the way to it is
//! [`BitCall::context`].

mod parse;
mod range;
#[cfg(test)]
mod tests;

use super::cdt::{Call, CallBytes, Step};
use parse::{modify_operation, read_operation};
use perigee_wire::msgpack::Writer;
use perigee_wire::{ResultCode, particle_type as particle};
use range::Bits;
use std::cmp::Ordering;

/// No blob reaches this size; an operation that names a place or a size beyond it is wrong whatever the bin holds.
pub const BLOB_BYTES_MAX: usize = 128 << 20;
/// The widest integer in a blob.
const INTEGER_BITS_MAX: u64 = 64;

const READ_CODES: std::ops::RangeInclusive<u8> = 50..=54;
const MODIFY_CODES: std::ops::RangeInclusive<u8> = 0..=12;

/// What an operation may do where the bin is not as it expects. Each operation takes some of them.
mod policy {
    pub const CREATE_ONLY: u64 = 1;
    pub const UPDATE_ONLY: u64 = 2;
    pub const NO_FAIL: u64 = 4;
    pub const PARTIAL: u64 = 8;

    /// Of operations that make a blob where there is none.
    pub const OF_CREATORS: u64 = CREATE_ONLY | UPDATE_ONLY | NO_FAIL;
    pub const OF_RANGES: u64 = UPDATE_ONLY | NO_FAIL | PARTIAL;
    /// Half an integer is none.
    pub const OF_INTEGERS: u64 = UPDATE_ONLY | NO_FAIL;
}

mod resize {
    pub const FROM_FRONT: u64 = 1;
    pub const GROW_ONLY: u64 = 2;
    pub const SHRINK_ONLY: u64 = 4;
    pub const ALL: u64 = FROM_FRONT | GROW_ONLY | SHRINK_ONLY;
}

mod integer {
    pub const SIGNED: u64 = 1;
    pub const SATURATE: u64 = 2;
    pub const WRAP: u64 = 4;
    pub const ALL: u64 = SIGNED | SATURATE | WRAP;
}

/// A checked bit operation.
#[derive(Debug)]
pub struct BitCall<'a> {
    context: Vec<Step<'a>>,
    operation: Operation<'a>,
    policy: u64,
}

#[derive(Debug)]
enum Operation<'a> {
    Get(Place),
    Count(Place),
    Scan {
        place: Place,
        wanted: bool,
        from_right: bool,
    },
    GetInteger {
        place: Place,
        signed: bool,
    },
    Resize {
        bytes: usize,
        flags: u64,
    },
    Insert {
        offset: i64,
        bytes: &'a [u8],
    },
    Remove {
        offset: i64,
        bytes: u64,
    },
    Combine {
        place: Place,
        bytes: &'a [u8],
        how: fn(bool, bool) -> bool,
    },
    Not(Place),
    Shift {
        place: Place,
        bits: u64,
        to_left: bool,
    },
    Add {
        place: Place,
        /// The addend in its low bits.
        value: u64,
        subtract: bool,
        flags: u64,
    },
    SetInteger {
        place: Place,
        value: u64,
    },
}

/// Where an operation begins, counted from the end if negative, and how many bits it takes, one at least.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: i64,
    bits: u64,
}

impl<'a> BitCall<'a> {
    /// PARAMETER if there is no such operation, or its arguments are wrong whatever the bin holds.
    pub fn parse(bytes: &'a CallBytes) -> Result<BitCall<'a>, ResultCode> {
        let mut call = Call::parse(bytes)?;
        let context = std::mem::take(&mut call.context);
        let mut policy = 0;
        let operation = match call.code {
            code if READ_CODES.contains(&code) => read_operation(&mut call)?,
            code if MODIFY_CODES.contains(&code) => modify_operation(&mut call, &mut policy)?,
            _ => return Err(ResultCode::Parameter),
        };
        call.finish()?;
        Ok(BitCall {
            context,
            operation,
            policy,
        })
    }

    /// The way from the bin to the blob; empty if the bin is the blob.
    pub fn context(&self) -> &[Step<'a>] {
        &self.context
    }

    pub fn is_modify(&self) -> bool {
        !matches!(
            self.operation,
            Operation::Get(_)
                | Operation::Count(_)
                | Operation::Scan { .. }
                | Operation::GetInteger { .. }
        )
    }

    /// The result of a reading operation, one msgpack value. OP_NOT_APPLICABLE if the blob ends before the bits do.
    pub fn read(&self, blob: &[u8]) -> Result<Vec<u8>, ResultCode> {
        let mut out = Vec::new();
        match self.operation {
            Operation::Get(place) => {
                let found = place.within(blob.len())?.copy(blob);
                Writer::new(&mut out).particle(particle::BLOB, &found);
            }
            Operation::Count(place) => {
                let ones = place.within(blob.len())?.count_ones(blob);
                Writer::new(&mut out).int(ones as i64);
            }
            Operation::Scan {
                place,
                wanted,
                from_right,
            } => {
                let found = place.within(blob.len())?.find(blob, wanted, from_right);
                Writer::new(&mut out).int(found.map_or(-1, |at| at as i64));
            }
            Operation::GetInteger { place, signed } => {
                let bits = place.within(blob.len())?;
                let value = bits.integer(blob);
                let value = if signed {
                    sign_extended(value, bits.len)
                } else {
                    value as i64
                };
                Writer::new(&mut out).int(value);
            }
            _ => return Err(ResultCode::Parameter),
        }
        Ok(out)
    }

    /// The blob after a modifying operation; None if it stays as it is, or stays missing. BIN_EXISTS and BIN_NOT_FOUND as
    /// the policy says and where the operation makes no blob; RECORD_TOO_BIG if it would exceed `bytes_max`;
    /// OP_NOT_APPLICABLE if the blob ends before the bits do, or an integer overflows.
    pub fn modify(
        &self,
        blob: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, ResultCode> {
        if !self.is_modify() {
            return Err(ResultCode::Parameter);
        }
        match self.modified(blob, bytes_max) {
            Err(_) if self.has(policy::NO_FAIL) => Ok(None),
            Ok(new) if new.is_some() && new.as_deref() == blob => Ok(None),
            result => result,
        }
    }

    fn has(&self, flag: u64) -> bool {
        self.policy & flag != 0
    }

    fn modified(
        &self,
        blob: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, ResultCode> {
        let creates = matches!(
            self.operation,
            Operation::Resize { .. } | Operation::Insert { .. }
        );
        let old = match blob {
            Some(_) if self.has(policy::CREATE_ONLY) => return Err(ResultCode::BinExists),
            Some(blob) => blob,
            None if creates && !self.has(policy::UPDATE_ONLY) => &[],
            None => return Err(ResultCode::BinNotFound),
        };
        let check_size = |bytes: usize| match bytes {
            BLOB_BYTES_MAX.. => Err(ResultCode::Parameter),
            _ if bytes > bytes_max => Err(ResultCode::RecordTooBig),
            _ => Ok(()),
        };
        match self.operation {
            Operation::Resize { bytes, flags } => {
                let refused = match bytes.cmp(&old.len()) {
                    Ordering::Less => flags & resize::GROW_ONLY != 0,
                    Ordering::Equal => false,
                    Ordering::Greater => flags & resize::SHRINK_ONLY != 0,
                };
                if refused {
                    return Err(ResultCode::Parameter);
                }
                check_size(bytes)?;
                return Ok(Some(resized(old, bytes, flags & resize::FROM_FRONT != 0)));
            }
            Operation::Insert { offset, bytes } => {
                let offset = from_start(offset, old.len() as u64)? as usize;
                check_size(old.len().max(offset) + bytes.len())?;
                let (before, after) = old.split_at(offset.min(old.len()));
                let mut new = before.to_vec();
                new.resize(offset, 0);
                new.extend_from_slice(bytes);
                new.extend_from_slice(after);
                return Ok(Some(new));
            }
            Operation::Remove { offset, bytes } => {
                let offset = from_start(offset, old.len() as u64)?;
                let left = (old.len() as u64)
                    .checked_sub(offset)
                    .filter(|left| *left >= bytes || (*left > 0 && self.has(policy::PARTIAL)))
                    .ok_or(ResultCode::Parameter)?;
                let mut new = old.to_vec();
                new.drain(offset as usize..(offset + bytes.min(left)) as usize);
                return Ok(Some(new));
            }
            _ => {}
        }
        let mut new = old.to_vec();
        self.change_in_place(&mut new)?;
        Ok(Some(new))
    }

    /// Of operations that leave a blob as long as it is.
    fn change_in_place(&self, blob: &mut [u8]) -> Result<(), ResultCode> {
        let find = |place: Place| {
            if self.has(policy::PARTIAL) {
                place.partly_within(blob.len())
            } else {
                place.within(blob.len())
            }
        };
        match self.operation {
            Operation::Combine { place, bytes, how } => find(place)?.combine(blob, bytes, how),
            Operation::Not(place) => find(place)?.combine(blob, &[], |old, _| !old),
            Operation::Shift {
                place,
                bits,
                to_left,
            } => find(place)?.shift(blob, bits, to_left),
            Operation::SetInteger { place, value } => find(place)?.set_integer(blob, value),
            Operation::Add {
                place,
                value,
                subtract,
                flags,
            } => {
                let bits = find(place)?;
                let sum = added(bits.integer(blob), value, subtract, bits.len, flags)?;
                bits.set_integer(blob, sum);
            }
            _ => return Err(ResultCode::Parameter),
        }
        Ok(())
    }
}

impl Place {
    fn within(self, bytes: usize) -> Result<Bits, ResultCode> {
        let bits = self.partly_within(bytes)?;
        if bits.len < self.bits {
            return Err(ResultCode::OpNotApplicable);
        }
        Ok(bits)
    }

    /// What there is of the bits, one at least.
    fn partly_within(self, bytes: usize) -> Result<Bits, ResultCode> {
        let all = bytes as u64 * 8;
        let start = from_start(self.offset, all)?;
        let len = self.bits.min(all.saturating_sub(start));
        if len == 0 {
            return Err(ResultCode::OpNotApplicable);
        }
        Ok(Bits { start, len })
    }
}

/// An offset counted from the start. PARAMETER if a negative one lies before it.
fn from_start(offset: i64, all: u64) -> Result<u64, ResultCode> {
    let backwards = offset.unsigned_abs();
    if offset >= 0 {
        Ok(backwards)
    } else {
        all.checked_sub(backwards).ok_or(ResultCode::Parameter)
    }
}

fn resized(old: &[u8], bytes: usize, from_front: bool) -> Vec<u8> {
    let kept = bytes.min(old.len());
    let mut new = vec![0; bytes];
    if from_front {
        new[bytes - kept..].copy_from_slice(&old[old.len() - kept..]);
    } else {
        new[..kept].copy_from_slice(&old[..kept]);
    }
    new
}

fn sign_extended(value: u64, bits: u64) -> i64 {
    let unused = INTEGER_BITS_MAX - bits;
    (value << unused) as i64 >> unused
}

/// The sum or difference of two integers of so many bits; the second one's bits beyond are cut off.
fn added(old: u64, value: u64, subtract: bool, bits: u64, flags: u64) -> Result<u64, ResultCode> {
    let is_signed = flags & integer::SIGNED != 0;
    let widened = |value: u64| {
        if is_signed {
            i128::from(sign_extended(value, bits))
        } else {
            i128::from(value << (INTEGER_BITS_MAX - bits) >> (INTEGER_BITS_MAX - bits))
        }
    };
    let (min, max) = if is_signed {
        (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1)
    } else {
        (0, (1_i128 << bits) - 1)
    };
    let value = widened(value);
    let exact = widened(old) + if subtract { -value } else { value };
    if (min..=max).contains(&exact) || flags & integer::WRAP != 0 {
        Ok(exact as u64)
    } else if flags & integer::SATURATE != 0 {
        Ok(exact.clamp(min, max) as u64)
    } else {
        Err(ResultCode::OpNotApplicable)
    }
}
