//! The operations of a message (section 5).
//!
//! ```text
//! operation = u32 bytes after this word, u8 code, u8 particle type, u8 flags, u8 name bytes,
//!             name, u64 last-update time if flags & 1, value
//! ```

use crate::flags::limits::{BIN_NAME_BYTES_MAX, OPS_MAX};
use crate::message::MessageError;

/// Of an operation, without its length word.
pub(crate) const OP_HEADER_BYTES: usize = 4;

const OP_FLAG_HAS_LUT: u8 = 1;
const OP_LUT_BYTES: usize = 8;

/// The operations of a message, already checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ops<'a> {
    bytes: &'a [u8],
    len: u16,
}

/// One operation: what to do with which bin, and the argument or result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Op<'a> {
    /// One of [`crate::op`], or a code that this version does not know.
    pub code: u8,
    pub particle: u8,
    /// At most 15 bytes.
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// Last-update time of the bin, milliseconds since 2010-01-01, when the sender ships it.
    pub lut: Option<u64>,
}

impl<'a> Ops<'a> {
    /// Checks `len` operations at the start of `bytes` and returns what follows them.
    pub(crate) fn parse(len: u16, bytes: &'a [u8]) -> Result<(Ops<'a>, &'a [u8]), MessageError> {
        if usize::from(len) > OPS_MAX {
            return Err(MessageError::OpsTooMany {
                found: usize::from(len),
            });
        }
        let mut rest = bytes;
        for index in 0..len {
            rest = checked_op(index, rest)?;
        }
        Ok((
            Ops {
                bytes: &bytes[..bytes.len() - rest.len()],
                len,
            },
            rest,
        ))
    }

    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> OpsIter<'a> {
        OpsIter {
            rest: self.bytes,
            left: self.len,
        }
    }
}

/// Checks the operation at the start of `bytes` and returns what follows it.
#[inline]
fn checked_op(index: u16, bytes: &[u8]) -> Result<&[u8], MessageError> {
    let bounds = |needed| MessageError::OpBounds {
        index,
        needed,
        left: bytes.len(),
    };
    let Some((size, tail)) = bytes.split_first_chunk::<4>() else {
        return Err(bounds(size_of::<u32>() + OP_HEADER_BYTES));
    };
    let size = u32::from_be_bytes(*size) as usize;
    let Some((op, tail)) = tail.split_at_checked(size) else {
        return Err(bounds(size_of::<u32>() + size));
    };
    let Some((&[_, _, flags, name_bytes], op)) = op.split_first_chunk::<OP_HEADER_BYTES>() else {
        return Err(bounds(size_of::<u32>() + OP_HEADER_BYTES));
    };
    let name_bytes = usize::from(name_bytes);
    if name_bytes > BIN_NAME_BYTES_MAX {
        return Err(MessageError::BinNameTooLong { found: name_bytes });
    }
    let lut_bytes = if flags & OP_FLAG_HAS_LUT == 0 {
        0
    } else {
        OP_LUT_BYTES
    };
    if op.len() < name_bytes + lut_bytes {
        return Err(bounds(
            size_of::<u32>() + OP_HEADER_BYTES + name_bytes + lut_bytes,
        ));
    }
    Ok(tail)
}

impl<'a> IntoIterator for Ops<'a> {
    type Item = Op<'a>;
    type IntoIter = OpsIter<'a>;

    fn into_iter(self) -> OpsIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Ops<'a> {
    type Item = Op<'a>;
    type IntoIter = OpsIter<'a>;

    fn into_iter(self) -> OpsIter<'a> {
        self.iter()
    }
}

#[derive(Clone, Debug)]
pub struct OpsIter<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for OpsIter<'a> {
    type Item = Op<'a>;

    #[inline]
    fn next(&mut self) -> Option<Op<'a>> {
        let (size, tail) = self.rest.split_first_chunk::<4>()?;
        let (op, tail) = tail.split_at(u32::from_be_bytes(*size) as usize);
        let (&[code, particle, flags, name_bytes], op) =
            op.split_first_chunk::<OP_HEADER_BYTES>()?;
        let (name, mut value) = op.split_at(usize::from(name_bytes));
        let mut lut = None;
        if flags & OP_FLAG_HAS_LUT != 0 {
            let (word, after) = value.split_first_chunk::<OP_LUT_BYTES>()?;
            lut = Some(u64::from_be_bytes(*word));
            value = after;
        }
        self.rest = tail;
        self.left -= 1;
        Some(Op {
            code,
            particle,
            name,
            value,
            lut,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for OpsIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::op;
    use crate::result_code::ResultCode;

    #[test]
    fn a_long_bin_name_has_a_result_of_its_own() {
        let mut op = vec![0, 0, 0, 20, op::READ, 0, 0, 16];
        op.extend_from_slice(&[b'a'; 16]);
        let error = Ops::parse(1, &op).unwrap_err();
        assert_eq!(error, MessageError::BinNameTooLong { found: 16 });
        assert_eq!(error.result_code(), ResultCode::BinName);
    }

    #[test]
    fn a_bin_may_carry_its_last_update_time() {
        let op = [
            0,
            0,
            0,
            14,
            op::WRITE,
            3,
            1,
            1,
            b'a',
            0,
            0,
            0,
            0,
            0,
            0,
            1,
            2,
            b'x',
        ];
        let (ops, rest) = Ops::parse(1, &op).unwrap();
        assert!(rest.is_empty());
        let op = ops.iter().next().unwrap();
        assert_eq!(
            (op.lut, op.name, op.value),
            (Some(258), &b"a"[..], &b"x"[..])
        );
    }

    #[test]
    fn what_follows_the_operations_is_not_theirs() {
        let bytes = [
            0,
            0,
            0,
            5,
            op::READ,
            0,
            0,
            1,
            b'a',
            0,
            0,
            0,
            4,
            op::READ,
            0,
            0,
            0,
            7,
        ];
        let (ops, rest) = Ops::parse(2, &bytes).unwrap();
        assert_eq!((ops.len(), rest), (2, &[7][..]));
        let names: Vec<&[u8]> = ops.iter().map(|op| op.name).collect();
        assert_eq!(names, [&b"a"[..], b""]);
        assert_eq!(ops.iter().size_hint(), (2, Some(2)));
    }
}
