//! The value of a list or map operation (section 13): a code, its arguments, and the way to the container that it is about.
//!
//! ```text
//! call    = [code, argument...] | [0xff, [type, value, ...], [code, argument...]]
//! ```

use perigee_wire::ResultCode;
use perigee_wire::msgpack::{MsgpackError, Reader, Value, canonical};

/// Steps from a bin to the container that an operation is about.
pub const CONTEXT_STEPS_MAX: usize = 64;

const WITH_CONTEXT: i64 = 0xff;

/// The bytes of a call, in canonical form: numbers in arguments have one form each, ordered containers are ordered.
pub struct CallBytes(Vec<u8>);

impl CallBytes {
    /// PARAMETER if the value is not one well-formed msgpack value.
    pub fn of(value: &[u8]) -> Result<CallBytes, ResultCode> {
        canonical(value)
            .map(CallBytes)
            .map_err(|_| ResultCode::Parameter)
    }
}

/// One step of a context: what kind of step, and to what.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step<'a> {
    pub kind: StepKind,
    pub value: &'a [u8],
    /// The order of a container that is made where there is none, of those of the wire: 1 unordered, 2 and 3 ordered.
    pub create: Option<Create>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepKind {
    ListIndex,
    ListRank,
    ListValue,
    MapIndex,
    MapRank,
    MapKey,
    MapValue,
}

impl StepKind {
    pub fn is_of_map(self) -> bool {
        matches!(
            self,
            StepKind::MapIndex | StepKind::MapRank | StepKind::MapKey | StepKind::MapValue
        )
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Create {
    Unordered,
    /// A list unordered, with nils up to an index beyond its end; a map ordered by key.
    PaddedOrByKey,
    /// A list ordered; a map ordered by key, and to be found by value.
    OrderedOrByKeyValue,
}

pub struct Call<'a> {
    pub context: Vec<Step<'a>>,
    pub code: u8,
    args: Reader<'a>,
    args_left: u32,
}

const STEP_KINDS: [(i64, StepKind); 7] = [
    (0x10, StepKind::ListIndex),
    (0x11, StepKind::ListRank),
    (0x13, StepKind::ListValue),
    (0x20, StepKind::MapIndex),
    (0x21, StepKind::MapRank),
    (0x22, StepKind::MapKey),
    (0x23, StepKind::MapValue),
];
const STEP_KIND_MASK: i64 = 0x3f;
const CREATE_SHIFT: u32 = 6;
/// A hint that we need not be given: every large ordered container has an index.
const STEP_PERSIST_INDEX: i64 = 0x100;

impl<'a> Call<'a> {
    pub fn parse(bytes: &'a CallBytes) -> Result<Call<'a>, ResultCode> {
        parse(&bytes.0).map_err(|_| ResultCode::Parameter)?
    }

    /// An integer that must be there.
    pub fn int(&mut self) -> Result<i64, ResultCode> {
        self.next(|args| args.read_int())
    }

    pub fn int_or(&mut self, default: i64) -> Result<i64, ResultCode> {
        if self.args_left == 0 {
            return Ok(default);
        }
        self.int()
    }

    /// Flags or attributes; 0 where they are left out.
    pub fn flags(&mut self) -> Result<u64, ResultCode> {
        u64::try_from(self.int_or(0)?).map_err(|_| ResultCode::Parameter)
    }

    /// How many items are wanted; all that follow where it is left out, or negative, which clients send for it.
    pub fn count(&mut self) -> Result<u64, ResultCode> {
        if self.args_left == 0 {
            return Ok(u64::MAX);
        }
        match self.next(|args| args.read())? {
            Value::Int(count) => Ok(u64::try_from(count).unwrap_or(u64::MAX)),
            // A negative number in a client that knows none here.
            Value::Unsigned(count) => Ok(count),
            _ => Err(ResultCode::Parameter),
        }
    }

    /// Any value.
    pub fn value(&mut self) -> Result<&'a [u8], ResultCode> {
        self.next(|args| args.skip())
    }

    pub fn value_or_none(&mut self) -> Result<Option<&'a [u8]>, ResultCode> {
        if self.args_left == 0 {
            return Ok(None);
        }
        self.value().map(Some)
    }

    fn next<R>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<R, MsgpackError>,
    ) -> Result<R, ResultCode> {
        self.args_left = self.args_left.checked_sub(1).ok_or(ResultCode::Parameter)?;
        read(&mut self.args).map_err(|_| ResultCode::Parameter)
    }

    /// The bytes of the arguments that were not read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.args.rest()
    }

    /// Nothing may follow the arguments that were read.
    pub fn finish(&self) -> Result<(), ResultCode> {
        if self.args_left == 0 {
            Ok(())
        } else {
            Err(ResultCode::Parameter)
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Result<Call<'_>, ResultCode>, MsgpackError> {
    let mut reader = Reader::new(bytes);
    let mut elements = reader.read_array()?;
    if elements == 0 {
        return Ok(Err(ResultCode::Parameter));
    }
    let mut code = reader.read_int()?;
    let mut context = Vec::new();
    if code == WITH_CONTEXT {
        if elements != 3 {
            return Ok(Err(ResultCode::Parameter));
        }
        match parse_context(&mut reader)? {
            Ok(steps) => context = steps,
            Err(code) => return Ok(Err(code)),
        }
        elements = reader.read_array()?;
        if elements == 0 {
            return Ok(Err(ResultCode::Parameter));
        }
        code = reader.read_int()?;
    }
    let Ok(code) = u8::try_from(code) else {
        return Ok(Err(ResultCode::Parameter));
    };
    Ok(Ok(Call {
        context,
        code,
        args: reader,
        args_left: elements - 1,
    }))
}

/// Reads a context: an array of types and values by turns.
pub fn parse_context<'a>(
    reader: &mut Reader<'a>,
) -> Result<Result<Vec<Step<'a>>, ResultCode>, MsgpackError> {
    let values = reader.read_array()? as usize;
    if !values.is_multiple_of(2) || values / 2 > CONTEXT_STEPS_MAX {
        return Ok(Err(ResultCode::Parameter));
    }
    let mut steps = Vec::with_capacity(values / 2);
    for _ in 0..values / 2 {
        let flags = reader.read_int()? & !STEP_PERSIST_INDEX;
        let value = reader.skip()?;
        let kind = STEP_KINDS
            .iter()
            .find(|(code, _)| *code == flags & STEP_KIND_MASK);
        let create = match flags >> CREATE_SHIFT {
            0 => None,
            1 => Some(Create::Unordered),
            2 => Some(Create::PaddedOrByKey),
            3 => Some(Create::OrderedOrByKeyValue),
            _ => return Ok(Err(ResultCode::Parameter)),
        };
        let Some((_, kind)) = kind else {
            return Ok(Err(ResultCode::Parameter));
        };
        let is_number = matches!(
            kind,
            StepKind::ListIndex | StepKind::ListRank | StepKind::MapIndex | StepKind::MapRank
        );
        if is_number && !matches!(Reader::new(value).read()?, Value::Int(_)) {
            return Ok(Err(ResultCode::Parameter));
        }
        steps.push(Step {
            kind: *kind,
            value,
            create,
        });
    }
    Ok(Ok(steps))
}
