//! Blobs as vectors of bits.

use arbitrary::{Result, Unstructured};
use perigee_engine::record::bits::BitCall;
use perigee_engine::record::cdt::CallBytes;
use perigee_wire::ResultCode;
use perigee_wire::msgpack::Writer;
use perigee_wire::particle_type as particle;

const BYTES_MAX: usize = 64;
const CALLS_MAX: usize = 16;

const CREATE_ONLY: i64 = 1;
const UPDATE_ONLY: i64 = 2;
const NO_FAIL: i64 = 4;
const PARTIAL: i64 = 8;

type Bits = Vec<bool>;

fn bits_of(bytes: &[u8]) -> Bits {
    let bit = |at: usize| bytes[at / 8] & 0x80 >> (at % 8) != 0;
    (0..8 * bytes.len()).map(bit).collect()
}

fn bytes_of(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| {
        let one = |byte: u8, (at, bit): (usize, &bool)| byte | u8::from(*bit) << (7 - at);
        bits.iter().enumerate().fold(0, one)
    };
    bits.chunks(8).map(byte).collect()
}

fn number_of(bits: &[bool]) -> u64 {
    bits.iter()
        .fold(0, |number, bit| number << 1 | u64::from(*bit))
}

fn signed(value: u64, bits: u32) -> i128 {
    let value = i128::from(value);
    if value >> (bits - 1) & 1 == 1 {
        value - (1 << bits)
    } else {
        value
    }
}

enum Arg {
    Int(i64),
    Blob(Vec<u8>),
    Bool(bool),
}

struct Call {
    code: u8,
    args: Vec<Arg>,
}

impl Call {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.array(1 + self.args.len() as u32);
        writer.int(self.code.into());
        for arg in &self.args {
            match arg {
                Arg::Int(value) => writer.int(*value),
                Arg::Blob(bytes) => writer.particle(particle::BLOB, bytes),
                Arg::Bool(value) => writer.bool(*value),
            }
        }
        out
    }

    fn int(&self, at: usize) -> i64 {
        match self.args.get(at) {
            Some(Arg::Int(value)) => *value,
            None => 0,
            _ => panic!("argument {at} of {:02x?}", self.bytes()),
        }
    }

    fn blob(&self) -> &[u8] {
        let blob = self.args.iter().find_map(|arg| match arg {
            Arg::Blob(bytes) => Some(bytes),
            _ => None,
        });
        blob.expect("a blob")
    }

    fn arbitrary(input: &mut Unstructured<'_>) -> Result<Call> {
        let code =
            *input.choose(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 50, 51, 52, 53, 54])?;
        let offset = |input: &mut Unstructured<'_>, most: i64| -> Result<Arg> {
            Ok(Arg::Int(match input.ratio(1, 16)? {
                true => input.int_in_range(-2 * most..=2 * most)?,
                false => input.int_in_range(-most / 2..=most / 2)?,
            }))
        };
        let mut args = Vec::new();
        let mut policies = vec![0, UPDATE_ONLY, NO_FAIL, UPDATE_ONLY | NO_FAIL];
        match code {
            0 => args.push(Arg::Int(input.int_in_range(0..=70)?)),
            1 => {
                args.push(offset(input, 40)?);
                args.push(Arg::Blob(vec![
                    input.arbitrary()?;
                    input.int_in_range(1..=9)?
                ]));
            }
            2 => {
                args.push(offset(input, 40)?);
                args.push(Arg::Int(input.int_in_range(1..=20)?));
            }
            10..=12 | 54 => {
                args.push(offset(input, 200)?);
                args.push(Arg::Int(input.int_in_range(1..=64)?));
            }
            _ => {
                args.push(offset(input, 200)?);
                args.push(Arg::Int(input.int_in_range(1..=100)?));
            }
        }
        match code {
            0 | 1 => policies.extend([CREATE_ONLY, CREATE_ONLY | NO_FAIL]),
            2..=9 => policies.extend([PARTIAL, PARTIAL | NO_FAIL]),
            _ => {}
        }
        match code {
            3..=6 => {
                let mut bytes = Vec::new();
                for _ in 0..13 {
                    bytes.push(input.arbitrary()?);
                }
                args.push(Arg::Blob(bytes));
            }
            8 | 9 => args.push(Arg::Int(input.int_in_range(0..=120)?)),
            10..=12 => args.push(Arg::Int(input.arbitrary()?)),
            52 | 53 => args.push(Arg::Bool(input.arbitrary()?)),
            _ => {}
        }
        match code {
            0 => {
                args.push(Arg::Int(*input.choose(&policies)?));
                args.push(Arg::Int(*input.choose(&[0, 1, 2, 3, 4, 5])?));
            }
            10 | 11 => {
                args.push(Arg::Int(*input.choose(&policies)?));
                args.push(Arg::Int(*input.choose(&[0, 1, 2, 3, 4, 5])?));
            }
            54 => args.push(Arg::Int(input.int_in_range(0..=1)?)),
            1..=12 => args.push(Arg::Int(*input.choose(&policies)?)),
            _ => {}
        }
        Ok(Call { code, args })
    }

    /// Where the bits lie that are meant.
    fn range(
        &self,
        len: usize,
        is_partial: bool,
    ) -> std::result::Result<(usize, usize), ResultCode> {
        let (offset, count) = (self.int(0), self.int(1) as usize);
        let start = from_start(offset, len)?;
        let end = (start + count).min(len);
        if start >= end || (end < start + count && !is_partial) {
            return Err(ResultCode::OpNotApplicable);
        }
        Ok((start, end))
    }

    fn policy(&self) -> i64 {
        match self.code {
            0 => self.int(1),
            1 | 2 | 7 => self.int(2),
            3..=6 | 8..=12 => self.int(3),
            _ => 0,
        }
    }

    fn modified(&self, old: Option<&Bits>) -> std::result::Result<Option<Bits>, ResultCode> {
        let result = self.change(old);
        if result.is_err() && self.policy() & NO_FAIL != 0 {
            return Ok(None);
        }
        Ok(result?.filter(|new| Some(new) != old))
    }

    fn change(&self, old: Option<&Bits>) -> std::result::Result<Option<Bits>, ResultCode> {
        let policy = self.policy();
        let mut bits = match old {
            Some(_) if policy & CREATE_ONLY != 0 => return Err(ResultCode::BinExists),
            Some(bits) => bits.clone(),
            None if self.code < 2 && policy & UPDATE_ONLY == 0 => Bits::new(),
            None => return Err(ResultCode::BinNotFound),
        };
        let bytes = bits.len() / 8;
        let check_size = |bytes: usize| match bytes > BYTES_MAX {
            true => Err(ResultCode::RecordTooBig),
            false => Ok(()),
        };
        match self.code {
            0 => {
                let (wanted, flags) = (self.int(0) as usize, self.int(2));
                let grows = wanted > bytes;
                if (grows && flags & 4 != 0) || (wanted < bytes && flags & 2 != 0) {
                    return Err(ResultCode::Parameter);
                }
                check_size(wanted)?;
                if flags & 1 != 0 {
                    bits.reverse();
                }
                bits.resize(8 * wanted, false);
                if flags & 1 != 0 {
                    bits.reverse();
                }
            }
            1 => {
                let at = from_start(self.int(0), bytes)?;
                check_size(bytes.max(at) + self.blob().len())?;
                bits.resize(bits.len().max(8 * at), false);
                bits.splice(8 * at..8 * at, bits_of(self.blob()));
            }
            2 => {
                let at = from_start(self.int(0), bytes)?;
                let count = self.int(1) as usize;
                if at + count > bytes && (at >= bytes || policy & PARTIAL == 0) {
                    return Err(ResultCode::Parameter);
                }
                bits.drain(8 * at..8 * (at + count).min(bytes));
            }
            code => {
                let (start, end) = self.range(bits.len(), policy & PARTIAL != 0)?;
                let new = self.in_place(code, &bits[start..end])?;
                bits.splice(start..end, new);
            }
        }
        Ok(Some(bits))
    }

    fn in_place(&self, code: u8, old: &[bool]) -> std::result::Result<Bits, ResultCode> {
        let len = old.len();
        let with = |how: fn(bool, bool) -> bool| {
            let given = bits_of(self.blob());
            old.iter()
                .zip(given)
                .map(|(old, new)| how(*old, new))
                .collect()
        };
        let number = |value: u64| -> Bits {
            (0..len)
                .map(|at| value >> (len - 1 - at) & 1 == 1)
                .collect()
        };
        Ok(match code {
            3 => with(|_, new| new),
            4 => with(|old, new| old | new),
            5 => with(|old, new| old ^ new),
            6 => with(|old, new| old & new),
            7 => old.iter().map(|bit| !bit).collect(),
            8 | 9 => {
                let by = (self.int(2) as usize).min(len);
                let gap = std::iter::repeat_n(false, by);
                match code {
                    8 => old[by..].iter().copied().chain(gap).collect(),
                    _ => gap.chain(old[..len - by].iter().copied()).collect(),
                }
            }
            12 => number(self.int(2) as u64),
            _ => {
                let (flags, bits) = (self.int(4), len as u32);
                let mask = u64::MAX >> (64 - bits);
                let given = self.int(2) as u64 & mask;
                let is_signed = flags & 1 != 0;
                let of = |value: u64| {
                    if is_signed {
                        signed(value, bits)
                    } else {
                        value.into()
                    }
                };
                let given = if code == 11 { -of(given) } else { of(given) };
                let sum = of(number_of(old)) + given;
                let (least, most) = match is_signed {
                    true => (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1),
                    false => (0, i128::from(mask)),
                };
                let fits = (least..=most).contains(&sum);
                match flags {
                    _ if fits || flags & 4 != 0 => number(sum as u64),
                    _ if flags & 2 != 0 => number(sum.clamp(least, most) as u64),
                    _ => return Err(ResultCode::OpNotApplicable),
                }
            }
        })
    }

    fn read(&self, bits: &Bits) -> std::result::Result<Vec<u8>, ResultCode> {
        let (start, end) = self.range(bits.len(), false)?;
        let found = &bits[start..end];
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        match self.code {
            50 => writer.particle(particle::BLOB, &bytes_of(found)),
            51 => writer.int(found.iter().filter(|bit| **bit).count() as i64),
            54 => {
                let (number, bits) = (number_of(found), found.len() as u32);
                writer.int(match self.int(2) {
                    0 => number as i64,
                    _ => signed(number, bits) as i64,
                });
            }
            code => {
                let wanted = matches!(self.args.get(2), Some(Arg::Bool(true)));
                let at = match code {
                    52 => found.iter().position(|bit| *bit == wanted),
                    _ => found.iter().rposition(|bit| *bit == wanted),
                };
                writer.int(at.map_or(-1, |at| at as i64));
            }
        }
        Ok(out)
    }
}

fn from_start(offset: i64, len: usize) -> std::result::Result<usize, ResultCode> {
    let at = if offset < 0 {
        offset + len as i64
    } else {
        offset
    };
    usize::try_from(at).map_err(|_| ResultCode::Parameter)
}

pub(crate) fn run(data: &[u8]) {
    // An input that ends ends the sequence.
    let _ = sequence(&mut Unstructured::new(data));
}

fn sequence(input: &mut Unstructured<'_>) -> Result<()> {
    let mut blob: Option<Vec<u8>> = None;
    if input.ratio(3, 4)? {
        let count = input.int_in_range(0..=24)?;
        blob = Some(input.bytes(count)?.to_vec());
    }
    for _ in 0..CALLS_MAX {
        let call = Call::arbitrary(input)?;
        let bytes = CallBytes::of(&call.bytes()).expect("msgpack");
        let operation = BitCall::parse(&bytes)
            .unwrap_or_else(|code| panic!("{code:?} of {:02x?}", call.bytes()));
        let bits = blob.as_deref().map(bits_of);
        let of = || format!("{:02x?} on {blob:02x?}", call.bytes());
        if operation.is_modify() {
            let expected = call
                .modified(bits.as_ref())
                .map(|new| new.map(|it| bytes_of(&it)));
            let found = operation.modify(blob.as_deref(), BYTES_MAX);
            assert_eq!(found, expected, "{}", of());
            if let Ok(Some(new)) = found {
                blob = Some(new);
            }
        } else if let (Some(bits), Some(blob)) = (&bits, &blob) {
            assert_eq!(operation.read(blob), call.read(bits), "{}", of());
        }
    }
    Ok(())
}
