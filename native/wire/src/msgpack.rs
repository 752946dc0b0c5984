//! The dialect of msgpack that lists, maps, CDT arguments and expressions are written in
//! (section 12).
//!
//! Strings and blobs inside values are msgpack strings that begin with a particle type byte. An
//! ordered list or map begins with an extension whose type byte holds the order.

mod canonical;
mod collation;

pub use canonical::{canonical, order};
pub use collation::{compare, has_sentinel};

use crate::flags::limits::MSGPACK_DEPTH_MAX;

/// One value, or for an array or map the header that announces its content.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    /// Single precision is widened.
    Float(f64),
    /// The leading particle type byte included, where there is one.
    Str(&'a [u8]),
    /// As `Str`; some clients write blobs under these headers.
    Bin(&'a [u8]),
    /// Elements that follow.
    Array(u32),
    /// Pairs that follow.
    Map(u32),
    Ext(i8, &'a [u8]),
}

/// Offsets are from the start of the reader's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MsgpackError {
    #[error("msgpack ends within the value at byte {offset}")]
    Truncated { offset: usize },
    #[error("msgpack header {found:#04x} at byte {offset} is reserved")]
    Reserved { offset: usize, found: u8 },
    #[error("msgpack header {found:#04x} at byte {offset} where {expected} is expected")]
    Unexpected {
        offset: usize,
        found: u8,
        expected: &'static str,
    },
    #[error("msgpack container at byte {offset} is nested deeper than {MSGPACK_DEPTH_MAX}")]
    TooDeep { offset: usize },
    #[error("msgpack string at byte {offset} has no particle type")]
    NoParticleType { offset: usize },
    #[error("bytes follow the msgpack value at byte {offset}")]
    Trailing { offset: usize },
    #[error("container at byte {offset} is of the unknown order {found:#x}")]
    Order { offset: usize, found: u8 },
    #[error("the mark of an order at byte {offset} is not followed by nil")]
    Mark { offset: usize },
    #[error(
        "extension of type {found} at byte {offset}, which is no value but the mark of an order"
    )]
    Extension { offset: usize, found: i8 },
    #[error("map at byte {offset} has a key twice")]
    KeyTwice { offset: usize },
}

/// Reads values one after the other. A failed read leaves the reader where it was.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, offset: 0 }
    }

    pub const fn offset(&self) -> usize {
        self.offset
    }

    pub fn is_empty(&self) -> bool {
        self.offset == self.bytes.len()
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// The next header byte, which tells the type of the next value.
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.offset).copied()
    }

    /// Reads a scalar, or the header of an array or map. The count of a container never exceeds the
    /// bytes left, so it may size a loop or a buffer.
    pub fn read(&mut self) -> Result<Value<'a>, MsgpackError> {
        let mut cursor = Cursor {
            rest: self.rest(),
            offset: self.offset,
        };
        let value = cursor.value()?;
        self.offset = self.bytes.len() - cursor.rest.len();
        Ok(value)
    }

    /// Reads one value with everything in it and returns its bytes.
    #[inline]
    pub fn skip(&mut self) -> Result<&'a [u8], MsgpackError> {
        let from = self.offset;
        let bytes = self.peek().map_or(0, |head| FIXED_BYTES[head as usize]);
        if bytes != 0 && usize::from(bytes) <= self.bytes.len() - from {
            self.offset += usize::from(bytes);
        } else {
            let mut ahead = *self;
            ahead.skip_values(1, 0)?;
            self.offset = ahead.offset;
        }
        Ok(&self.bytes[from..self.offset])
    }

    fn skip_values(&mut self, count: u64, depth: usize) -> Result<(), MsgpackError> {
        let mut left = count;
        while left > 0 {
            left -= self.skip_alike(left);
            if left == 0 {
                break;
            }
            let offset = self.offset;
            left -= 1;
            let nested = match self.read()? {
                Value::Array(elements) => u64::from(elements),
                Value::Map(pairs) => 2 * u64::from(pairs),
                _ => continue,
            };
            if depth == MSGPACK_DEPTH_MAX {
                return Err(MsgpackError::TooDeep { offset });
            }
            self.skip_values(nested, depth + 1)?;
        }
        Ok(())
    }

    /// Steps over values whose headers tell their lengths and are the same, `count` at most, and returns how many.
    // Most lists hold values of one kind. That they do is predicted, so the next header need not have arrived before the one
    // behind it is looked for.
    fn skip_alike(&mut self, count: u64) -> u64 {
        let Some(head) = self.peek() else {
            return 0;
        };
        let bytes = usize::from(FIXED_BYTES[head as usize]);
        if bytes == 0 {
            return 0;
        }
        let mut skipped = 0;
        while skipped < count
            && self.bytes.len() - self.offset >= bytes
            && self.bytes[self.offset] == head
        {
            self.offset += bytes;
            skipped += 1;
        }
        skipped
    }

    /// Fails unless everything has been read.
    pub fn finish(&self) -> Result<(), MsgpackError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(MsgpackError::Trailing {
                offset: self.offset,
            })
        }
    }

    pub fn read_nil(&mut self) -> Result<(), MsgpackError> {
        self.expect("nil", |value| matches!(value, Value::Nil).then_some(()))
    }

    pub fn read_bool(&mut self) -> Result<bool, MsgpackError> {
        self.expect("a boolean", |value| match value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// Refuses integers above `i64::MAX`.
    pub fn read_int(&mut self) -> Result<i64, MsgpackError> {
        self.expect("an integer", |value| match value {
            Value::Int(value) => Some(value),
            _ => None,
        })
    }

    pub fn read_float(&mut self) -> Result<f64, MsgpackError> {
        self.expect("a float", |value| match value {
            Value::Float(value) => Some(value),
            _ => None,
        })
    }

    /// The whole string, its particle type byte included if it has one.
    pub fn read_str(&mut self) -> Result<&'a [u8], MsgpackError> {
        self.expect("a string", |value| match value {
            Value::Str(value) => Some(value),
            _ => None,
        })
    }

    pub fn read_bin(&mut self) -> Result<&'a [u8], MsgpackError> {
        self.expect("a blob", |value| match value {
            Value::Bin(value) => Some(value),
            _ => None,
        })
    }

    /// A string or blob split into its particle type and its content.
    pub fn read_particle(&mut self) -> Result<(u8, &'a [u8]), MsgpackError> {
        let offset = self.offset;
        let particle = self.expect("a string or blob", |value| match value {
            Value::Str(value) | Value::Bin(value) => Some(value.split_first()),
            _ => None,
        })?;
        let Some((&kind, content)) = particle else {
            self.offset = offset;
            return Err(MsgpackError::NoParticleType { offset });
        };
        Ok((kind, content))
    }

    /// The number of elements that follow.
    pub fn read_array(&mut self) -> Result<u32, MsgpackError> {
        self.expect("an array", |value| match value {
            Value::Array(elements) => Some(elements),
            _ => None,
        })
    }

    /// The number of pairs that follow.
    pub fn read_map(&mut self) -> Result<u32, MsgpackError> {
        self.expect("a map", |value| match value {
            Value::Map(pairs) => Some(pairs),
            _ => None,
        })
    }

    pub fn read_ext(&mut self) -> Result<(i8, &'a [u8]), MsgpackError> {
        self.expect("an extension", |value| match value {
            Value::Ext(kind, data) => Some((kind, data)),
            _ => None,
        })
    }

    fn expect<T>(
        &mut self,
        expected: &'static str,
        pick: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<T, MsgpackError> {
        let offset = self.offset;
        let mut ahead = *self;
        let value = ahead.read()?;
        let Some(picked) = pick(value) else {
            let found = self.bytes[offset];
            return Err(MsgpackError::Unexpected {
                offset,
                found,
                expected,
            });
        };
        *self = ahead;
        Ok(picked)
    }
}

/// Checks that `bytes` are exactly one value, with every length in it in bounds and every string
/// carrying a particle type, and returns its first header.
pub fn validate(bytes: &[u8]) -> Result<Value<'_>, MsgpackError> {
    let mut reader = Reader::new(bytes);
    validate_values(&mut reader, 1, 0)?;
    reader.finish()?;
    Reader::new(bytes).read()
}

fn validate_values(reader: &mut Reader<'_>, count: u64, depth: usize) -> Result<(), MsgpackError> {
    for _ in 0..count {
        let offset = reader.offset();
        let nested = match reader.read()? {
            Value::Array(elements) => u64::from(elements),
            Value::Map(pairs) => 2 * u64::from(pairs),
            Value::Str([]) | Value::Bin([]) => {
                return Err(MsgpackError::NoParticleType { offset });
            }
            _ => continue,
        };
        if depth == MSGPACK_DEPTH_MAX {
            return Err(MsgpackError::TooDeep { offset });
        }
        validate_values(reader, nested, depth + 1)?;
    }
    Ok(())
}

/// How many lists and maps lie within one another in values that follow one another, as far as they are well formed.
pub fn nesting(values: &[u8]) -> usize {
    let mut reader = Reader::new(values);
    // Values that are left in each container that is open.
    let mut open: Vec<u64> = Vec::new();
    let mut deepest = 0;
    loop {
        while open.last() == Some(&0) {
            open.pop();
        }
        let nested = match reader.read() {
            Ok(Value::Array(elements)) => Some(u64::from(elements)),
            Ok(Value::Map(pairs)) => Some(2 * u64::from(pairs)),
            Ok(_) => None,
            Err(_) => return deepest,
        };
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if let Some(nested) = nested {
            open.push(nested);
            deepest = deepest.max(open.len());
        }
    }
}

/// Takes the extension that says how a list or map is ordered from its first item, where there is one, and returns how
/// many items follow and the order's flags. `counted` is what the header announced. In a map nil goes with it; anything
/// else there would be a value that nobody looks at.
pub fn read_order(
    reader: &mut Reader<'_>,
    counted: u32,
    is_map: bool,
) -> Result<(u32, u8), MsgpackError> {
    let mut ahead = *reader;
    let offset = reader.offset();
    if counted == 0 {
        return Ok((0, 0));
    }
    match ahead.read()? {
        // Negative types are values that comparisons know.
        Value::Ext(flags @ 0.., _) => {
            if is_map && !matches!(ahead.read()?, Value::Nil) {
                return Err(MsgpackError::Mark { offset });
            }
            *reader = ahead;
            Ok((counted - 1, flags as u8))
        }
        _ => Ok((counted, 0)),
    }
}

/// What a value takes, header included, by its header where that alone tells it; else 0.
const FIXED_BYTES: [u8; 256] = fixed_bytes();

const fn fixed_bytes() -> [u8; 256] {
    let mut bytes = [0; 256];
    let mut head = 0;
    while head < bytes.len() {
        bytes[head] = match head as u8 {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 1,
            short @ 0xa0..=0xbf => 1 + (short & 0x1f),
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 => 3,
            0xca | 0xce | 0xd2 => 5,
            0xcb | 0xcf | 0xd3 => 9,
            sized @ 0xd4..=0xd8 => 2 + (1 << (sized - 0xd4)),
            _ => 0,
        };
        head += 1;
    }
    bytes
}

struct Cursor<'a> {
    rest: &'a [u8],
    /// Of the value being read, for errors.
    offset: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn value(&mut self) -> Result<Value<'a>, MsgpackError> {
        let [head] = self.chunk::<1>()?;
        Ok(match head {
            0x00..=0x7f => Value::Int(i64::from(head)),
            0x80..=0x8f => self.map(u32::from(head & 0x0f))?,
            0x90..=0x9f => self.array(u32::from(head & 0x0f))?,
            0xa0..=0xbf => Value::Str(self.take(u32::from(head & 0x1f))?),
            0xc0 => Value::Nil,
            0xc1 => {
                return Err(MsgpackError::Reserved {
                    offset: self.offset,
                    found: head,
                });
            }
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4 => Value::Bin(self.counted::<1>()?),
            0xc5 => Value::Bin(self.counted::<2>()?),
            0xc6 => Value::Bin(self.counted::<4>()?),
            0xc7 => {
                let bytes = self.count::<1>()?;
                self.ext(bytes)?
            }
            0xc8 => {
                let bytes = self.count::<2>()?;
                self.ext(bytes)?
            }
            0xc9 => {
                let bytes = self.count::<4>()?;
                self.ext(bytes)?
            }
            0xca => Value::Float(f64::from(f32::from_be_bytes(self.chunk()?))),
            0xcb => Value::Float(f64::from_be_bytes(self.chunk()?)),
            0xcc => Value::Int(i64::from(u8::from_be_bytes(self.chunk()?))),
            0xcd => Value::Int(i64::from(u16::from_be_bytes(self.chunk()?))),
            0xce => Value::Int(i64::from(u32::from_be_bytes(self.chunk()?))),
            0xcf => {
                let value = u64::from_be_bytes(self.chunk()?);
                i64::try_from(value).map_or(Value::Unsigned(value), Value::Int)
            }
            0xd0 => Value::Int(i64::from(i8::from_be_bytes(self.chunk()?))),
            0xd1 => Value::Int(i64::from(i16::from_be_bytes(self.chunk()?))),
            0xd2 => Value::Int(i64::from(i32::from_be_bytes(self.chunk()?))),
            0xd3 => Value::Int(i64::from_be_bytes(self.chunk()?)),
            0xd4..=0xd8 => self.ext(1 << (head - 0xd4))?,
            0xd9 => Value::Str(self.counted::<1>()?),
            0xda => Value::Str(self.counted::<2>()?),
            0xdb => Value::Str(self.counted::<4>()?),
            0xdc => {
                let elements = self.count::<2>()?;
                self.array(elements)?
            }
            0xdd => {
                let elements = self.count::<4>()?;
                self.array(elements)?
            }
            0xde => {
                let pairs = self.count::<2>()?;
                self.map(pairs)?
            }
            0xdf => {
                let pairs = self.count::<4>()?;
                self.map(pairs)?
            }
            0xe0..=0xff => Value::Int(i64::from(head as i8)),
        })
    }

    fn truncated(&self) -> MsgpackError {
        MsgpackError::Truncated {
            offset: self.offset,
        }
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let (chunk, rest) = self.rest.split_first_chunk::<N>().ok_or(self.truncated())?;
        self.rest = rest;
        Ok(*chunk)
    }

    #[inline]
    fn count<const N: usize>(&mut self) -> Result<u32, MsgpackError> {
        let digits = self.chunk::<N>()?;
        Ok(digits
            .iter()
            .fold(0, |count, digit| count << 8 | u32::from(*digit)))
    }

    fn counted<const N: usize>(&mut self) -> Result<&'a [u8], MsgpackError> {
        let bytes = self.count::<N>()?;
        self.take(bytes)
    }

    fn take(&mut self, bytes: u32) -> Result<&'a [u8], MsgpackError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes as usize)
            .ok_or(self.truncated())?;
        self.rest = rest;
        Ok(taken)
    }

    fn ext(&mut self, bytes: u32) -> Result<Value<'a>, MsgpackError> {
        let [kind] = self.chunk::<1>()?;
        Ok(Value::Ext(kind as i8, self.take(bytes)?))
    }

    // Every element takes a byte at least, so a greater count cannot be true.
    fn array(&self, elements: u32) -> Result<Value<'a>, MsgpackError> {
        if elements as usize > self.rest.len() {
            return Err(self.truncated());
        }
        Ok(Value::Array(elements))
    }

    fn map(&self, pairs: u32) -> Result<Value<'a>, MsgpackError> {
        if pairs as usize > self.rest.len() / 2 {
            return Err(self.truncated());
        }
        Ok(Value::Map(pairs))
    }
}

/// Appends values in their shortest form. Containers are headers: the caller appends what they
/// announce. Lengths and counts must fit 32 bits.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    pub fn nil(&mut self) {
        self.out.push(0xc0);
    }

    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }

    pub fn int(&mut self, value: i64) {
        match value {
            0.. => self.unsigned(value as u64),
            -32..0 => self.out.push(value as u8),
            _ => {
                if let Ok(value) = i8::try_from(value) {
                    self.head(0xd0, value.to_be_bytes());
                } else if let Ok(value) = i16::try_from(value) {
                    self.head(0xd1, value.to_be_bytes());
                } else if let Ok(value) = i32::try_from(value) {
                    self.head(0xd2, value.to_be_bytes());
                } else {
                    self.head(0xd3, value.to_be_bytes());
                }
            }
        }
    }

    pub fn unsigned(&mut self, value: u64) {
        if value < 0x80 {
            self.out.push(value as u8);
        } else if let Ok(value) = u8::try_from(value) {
            self.head(0xcc, value.to_be_bytes());
        } else if let Ok(value) = u16::try_from(value) {
            self.head(0xcd, value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.head(0xce, value.to_be_bytes());
        } else {
            self.head(0xcf, value.to_be_bytes());
        }
    }

    /// Always double precision.
    pub fn float(&mut self, value: f64) {
        self.head(0xcb, value.to_be_bytes());
    }

    /// A string, blob, location or HLL: its particle type, then its bytes.
    pub fn particle(&mut self, kind: u8, bytes: &[u8]) {
        self.str_head(bytes.len() + 1);
        self.out.push(kind);
        self.out.extend_from_slice(bytes);
    }

    /// A string without a particle type, as names in expressions and contexts are written.
    pub fn raw_str(&mut self, bytes: &[u8]) {
        self.str_head(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    pub fn array(&mut self, elements: u32) {
        if elements < 0x10 {
            self.out.push(0x90 | elements as u8);
        } else if let Ok(elements) = u16::try_from(elements) {
            self.head(0xdc, elements.to_be_bytes());
        } else {
            self.head(0xdd, elements.to_be_bytes());
        }
    }

    pub fn map(&mut self, pairs: u32) {
        if pairs < 0x10 {
            self.out.push(0x80 | pairs as u8);
        } else if let Ok(pairs) = u16::try_from(pairs) {
            self.head(0xde, pairs.to_be_bytes());
        } else {
            self.head(0xdf, pairs.to_be_bytes());
        }
    }

    pub fn ext(&mut self, kind: i8, data: &[u8]) {
        match data.len() {
            bytes @ (1 | 2 | 4 | 8 | 16) => self.out.push(0xd4 + bytes.trailing_zeros() as u8),
            bytes @ 0..0x100 => self.head(0xc7, (bytes as u8).to_be_bytes()),
            bytes @ 0x100..0x1_0000 => self.head(0xc8, (bytes as u16).to_be_bytes()),
            bytes => self.head(0xc9, (bytes as u32).to_be_bytes()),
        }
        self.out.push(kind as u8);
        self.out.extend_from_slice(data);
    }

    /// The header of a list or map of so many items, with its order where that is not 0.
    pub fn container(&mut self, is_map: bool, order: u8, items: u32) {
        let counted = items + u32::from(order != 0);
        match (is_map, order) {
            (false, 0) => self.array(counted),
            (true, 0) => self.map(counted),
            (false, _) => {
                self.array(counted);
                self.list_order(order);
            }
            (true, _) => {
                self.map(counted);
                self.map_order(order);
            }
        }
    }

    /// The first element of an ordered list. It counts in the list's header.
    pub fn list_order(&mut self, flags: u8) {
        self.ext(flags as i8, &[]);
    }

    /// The first pair of an ordered map. It counts in the map's header.
    pub fn map_order(&mut self, flags: u8) {
        self.ext(flags as i8, &[]);
        self.nil();
    }

    fn str_head(&mut self, bytes: usize) {
        match bytes {
            0..0x20 => self.out.push(0xa0 | bytes as u8),
            0x20..0x100 => self.head(0xd9, (bytes as u8).to_be_bytes()),
            0x100..0x1_0000 => self.head(0xda, (bytes as u16).to_be_bytes()),
            _ => self.head(0xdb, (bytes as u32).to_be_bytes()),
        }
    }

    fn head<const N: usize>(&mut self, head: u8, digits: [u8; N]) {
        self.out.push(head);
        self.out.extend_from_slice(&digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{hex, unhex};
    use crate::particle::{BLOB, GEOJSON, STRING};
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        out
    }

    #[test]
    fn nesting_is_that_of_the_deepest_container() {
        for (digits, levels) in [
            ("", 0),
            ("05", 0),
            ("90", 1),
            ("929091c0", 2),
            ("0590810192919001", 4),
            ("91", 0),
        ] {
            assert_eq!(nesting(&unhex(digits)), levels, "{digits}");
        }
    }

    #[test]
    fn integers_take_the_widths_that_clients_take() {
        let widths = [
            (0, "00"),
            (127, "7f"),
            (128, "cc80"),
            (-1, "ff"),
            (-32, "e0"),
            (-33, "d0df"),
            (-128, "d080"),
            (-129, "d1ff7f"),
            (255, "ccff"),
            (256, "cd0100"),
            (65535, "cdffff"),
            (65536, "ce00010000"),
            (1 << 32, "cf0000000100000000"),
            (i64::from(u32::MAX), "ceffffffff"),
            (i64::from(i16::MIN), "d18000"),
            (i64::from(i16::MIN) - 1, "d2ffff7fff"),
            (i64::from(i32::MIN), "d280000000"),
            (i64::from(i32::MIN) - 1, "d3ffffffff7fffffff"),
            (i64::MAX, "cf7fffffffffffffff"),
            (i64::MIN, "d38000000000000000"),
        ];
        for (value, expected) in widths {
            let bytes = written(|writer| writer.int(value));
            assert_eq!(hex(&bytes), expected, "{value}");
            assert_eq!(Reader::new(&bytes).read_int(), Ok(value));
        }
        let above = unhex("cfffffffffffffffff");
        assert_eq!(Reader::new(&above).read(), Ok(Value::Unsigned(u64::MAX)));
        assert!(Reader::new(&above).read_int().is_err());
    }

    #[test]
    fn string_lengths_count_the_particle_type() {
        let heads = [
            (STRING, 0, "a103"),
            (STRING, 30, "bf03"),
            (STRING, 31, "d92003"),
            (STRING, 254, "d9ff03"),
            (STRING, 255, "da010003"),
            (STRING, 65535, "db0001000003"),
            (BLOB, 31, "d92004"),
            (BLOB, 0, "a104"),
            (GEOJSON, 37, "d92617"),
        ];
        for (kind, length, expected) in heads {
            let content = vec![b'a'; length];
            let bytes = written(|writer| writer.particle(kind, &content));
            assert_eq!(
                hex(&bytes[..bytes.len() - length]),
                expected,
                "{kind} {length}"
            );
            assert_eq!(
                Reader::new(&bytes).read_particle(),
                Ok((kind, &content[..]))
            );
        }
    }

    #[test]
    fn container_and_extension_headers_take_their_shortest_form() {
        type Write = fn(&mut Writer<'_>);
        let heads: [(Write, &str); 12] = [
            (|writer| writer.array(15), "9f"),
            (|writer| writer.array(16), "dc0010"),
            (|writer| writer.array(65536), "dd00010000"),
            (|writer| writer.map(15), "8f"),
            (|writer| writer.map(16), "de0010"),
            (|writer| writer.map(65536), "df00010000"),
            (|writer| writer.list_order(1), "c70001"),
            (|writer| writer.map_order(1), "c70001c0"),
            (|writer| writer.ext(-1, &[0]), "d4ff00"),
            (|writer| writer.ext(-1, &[1]), "d4ff01"),
            (|writer| writer.ext(2, &[0; 16][..3]), "c70302000000"),
            (|writer| writer.ext(2, &[0; 16][..4]), "d60200000000"),
        ];
        for (write, expected) in heads {
            assert_eq!(hex(&written(write)), expected);
        }
    }

    #[test]
    fn every_header_form_is_read() {
        let forms = [
            ("c0", Value::Nil),
            ("c2", Value::Bool(false)),
            ("c3", Value::Bool(true)),
            ("ca3fc00000", Value::Float(1.5)),
            ("cb3ff8000000000000", Value::Float(1.5)),
            ("cd0001", Value::Int(1)),
            ("cf0000000000000001", Value::Int(1)),
            ("d0ff", Value::Int(-1)),
            ("d3ffffffffffffffff", Value::Int(-1)),
            ("c40104", Value::Bin(&[4])),
            ("c5000104", Value::Bin(&[4])),
            ("c60000000104", Value::Bin(&[4])),
            ("da000103", Value::Str(&[3])),
            ("db0000000103", Value::Str(&[3])),
            ("c70001", Value::Ext(1, &[])),
            ("c80001ff07", Value::Ext(-1, &[7])),
            ("c900000001ff07", Value::Ext(-1, &[7])),
            ("d5010203", Value::Ext(1, &[2, 3])),
            ("91c0", Value::Array(1)),
            ("dc0001c0", Value::Array(1)),
            ("dd00000001c0", Value::Array(1)),
            ("81c0c0", Value::Map(1)),
            ("de0001c0c0", Value::Map(1)),
            ("df00000001c0c0", Value::Map(1)),
        ];
        for (digits, expected) in forms {
            let bytes = unhex(digits);
            assert_eq!(Reader::new(&bytes).read(), Ok(expected), "{digits}");
            assert_eq!(Reader::new(&bytes).skip(), Ok(&bytes[..]), "{digits}");
            for end in 0..bytes.len() {
                assert!(
                    Reader::new(&bytes[..end]).skip().is_err(),
                    "{digits} cut at {end}"
                );
            }
        }
    }

    #[test]
    fn counts_that_the_bytes_cannot_hold_are_refused() {
        for digits in [
            "ddffffffff",
            "dfffffffff00",
            "dbffffffff",
            "c9ffffffff",
            "92c0",
            "81c0",
        ] {
            let bytes = unhex(digits);
            assert_eq!(
                Reader::new(&bytes).read(),
                Err(MsgpackError::Truncated { offset: 0 }),
                "{digits}"
            );
        }
    }

    #[test]
    fn a_failed_read_leaves_the_reader_in_place() {
        let bytes = unhex("01a0c1");
        let mut reader = Reader::new(&bytes);
        let expected = "a string";
        let error = MsgpackError::Unexpected {
            offset: 0,
            found: 1,
            expected,
        };
        assert_eq!(reader.read_str(), Err(error));
        assert_eq!(reader.read_int(), Ok(1));
        assert_eq!(
            reader.read_particle(),
            Err(MsgpackError::NoParticleType { offset: 1 })
        );
        assert_eq!(reader.read_str(), Ok(&[][..]));
        assert_eq!(
            reader.read(),
            Err(MsgpackError::Reserved {
                offset: 2,
                found: 0xc1
            })
        );
        assert_eq!(reader.offset(), 2);
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = vec![0x91; MSGPACK_DEPTH_MAX - 1];
        bytes.push(0x90);
        assert!(validate(&bytes).is_ok());
        assert!(Reader::new(&bytes).skip().is_ok());
        bytes.insert(0, 0x91);
        let error = MsgpackError::TooDeep {
            offset: MSGPACK_DEPTH_MAX,
        };
        assert_eq!(validate(&bytes), Err(error));
        assert_eq!(Reader::new(&bytes).skip(), Err(error));
    }

    #[test]
    fn validation_wants_one_value_with_typed_strings() {
        assert_eq!(validate(&unhex("9101")), Ok(Value::Array(1)));
        assert_eq!(
            validate(&unhex("910102")),
            Err(MsgpackError::Trailing { offset: 2 })
        );
        assert_eq!(
            validate(&unhex("91a0")),
            Err(MsgpackError::NoParticleType { offset: 1 })
        );
        assert_eq!(validate(&[]), Err(MsgpackError::Truncated { offset: 0 }));
    }

    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            Just(written(|writer| writer.nil())),
            any::<bool>().prop_map(|value| written(|writer| writer.bool(value))),
            any::<i64>().prop_map(|value| written(|writer| writer.int(value))),
            any::<f64>().prop_map(|value| written(|writer| writer.float(value))),
            prop::collection::vec(any::<u8>(), 0..300)
                .prop_map(|bytes| written(|writer| writer.particle(BLOB, &bytes))),
            (any::<i8>(), prop::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(kind, bytes)| written(|writer| writer.ext(kind, &bytes))),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..20).prop_map(|elements| {
                let mut bytes = written(|writer| writer.array(elements.len() as u32));
                bytes.extend(elements.concat());
                bytes
            });
            let map = prop::collection::vec((inner.clone(), inner), 0..20).prop_map(|pairs| {
                let mut bytes = written(|writer| writer.map(pairs.len() as u32));
                bytes.extend(
                    pairs
                        .into_iter()
                        .flat_map(|(key, value)| [key, value].concat()),
                );
                bytes
            });
            prop_oneof![list, map]
        })
    }

    /// Values of a few kinds in a row, as lists have them, and damage.
    fn nearly_value() -> impl Strategy<Value = Vec<u8>> {
        let items = prop_oneof![
            any_value(),
            (0_i64..100_000, 0..40_usize)
                .prop_map(|(value, count)| written(|writer| writer.int(value)).repeat(count)),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        (prop::collection::vec(items, 0..6), 0..60_u32, any::<bool>()).prop_map(
            |(items, count, is_map)| {
                let mut bytes = written(|writer| match is_map {
                    true => writer.map(count),
                    false => writer.array(count),
                });
                bytes.extend(items.concat());
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn what_the_writer_writes_validates_and_is_skipped_whole(bytes in any_value()) {
            prop_assert!(validate(&bytes).is_ok());
            prop_assert_eq!(Reader::new(&bytes).skip(), Ok(&bytes[..]));
            for end in 0..bytes.len() {
                prop_assert!(validate(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn what_is_skipped_is_what_is_read(bytes in nearly_value()) {
            // The plain way over a value, header by header.
            fn walk(reader: &mut Reader<'_>, depth: usize) -> Result<(), MsgpackError> {
                let offset = reader.offset();
                let nested = match reader.read()? {
                    Value::Array(elements) => elements,
                    Value::Map(pairs) => 2 * pairs,
                    _ => return Ok(()),
                };
                if depth == MSGPACK_DEPTH_MAX {
                    return Err(MsgpackError::TooDeep { offset });
                }
                (0..nested).try_for_each(|_| walk(reader, depth + 1))
            }
            let (mut reader, mut skipping) = (Reader::new(&bytes), Reader::new(&bytes));
            let walked = walk(&mut reader, 0);
            let skipped = skipping.skip();
            prop_assert_eq!(skipped.map(<[u8]>::len), walked.map(|()| reader.offset()));
            prop_assert_eq!(skipping.offset(), walked.map_or(0, |()| reader.offset()));
        }

        #[test]
        fn integers_survive_a_round_trip(value in any::<i64>(), unsigned in any::<u64>()) {
            let bytes = written(|writer| writer.int(value));
            prop_assert_eq!(Reader::new(&bytes).read_int(), Ok(value));
            let bytes = written(|writer| writer.unsigned(unsigned));
            let expected = i64::try_from(unsigned).map_or(Value::Unsigned(unsigned), Value::Int);
            prop_assert_eq!(Reader::new(&bytes).read(), Ok(expected));
        }

        #[test]
        fn reading_arbitrary_bytes_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = validate(&bytes);
            let mut reader = Reader::new(&bytes);
            while reader.skip().is_ok() {}
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() {
                let before = reader.offset();
                if reader.read().is_err() {
                    break;
                }
                prop_assert!(reader.offset() > before);
            }
        }
    }
}
