//! Calls: operations on lists, maps, blobs and sketches, as requests have them, with arguments that may be expressions.

use super::EvalError;
use super::eval::{Frame, eval};
use super::node::Node;
use super::path::{Path, Walk};
use super::record::RecordView;
use super::value::{Type, Value, stored_order};
use crate::record::bits::BitCall;
use crate::record::cdt::{self, CallBytes, INDEXED_ITEMS_MIN, Stored};
use crate::record::hll::HllCall;
use perigee_wire::particle_type as particle;
use std::borrow::Cow;

/// What a value may grow to between two steps: no bin holds more.
pub(super) const VALUE_BYTES_MAX: usize = perigee_wire::RECORD_BYTES_MAX;

pub(super) struct Call {
    pub(super) module: Module,
    pub(super) is_modify: bool,
    /// Of the result, as the expression says.
    pub(super) returns: Type,
    pub(super) operation: Operation,
    pub(super) value: Node,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Module {
    /// Lists and maps.
    Cdt,
    Bits,
    Hll,
}

pub(super) enum Operation {
    /// All of it is known beforehand.
    Fixed(CallBytes),
    Made(Box<[Piece]>),
    Path(Path),
}

/// A part of an operation that is put together for each evaluation.
pub(super) enum Piece {
    Bytes(Vec<u8>),
    Argument(Node),
}

impl Call {
    pub(super) fn eval<'v>(&'v self, frame: &mut Frame<'_, 'v>) -> Result<Value<'v>, EvalError> {
        let value = eval(&self.value, frame)?;
        frame.budget.spend(value.size_bytes())?;
        if value == Value::Nil && !self.is_modify {
            return Err(EvalError::Unknown);
        }
        let result = match &self.operation {
            Operation::Path(path) => {
                let (Value::List(bytes) | Value::Map(bytes)) = value else {
                    return Err(EvalError::Unknown);
                };
                let bytes = stored_order(&bytes);
                let result = Walk::within(path, frame).run(&bytes)?;
                Value::of_msgpack_owned(result)?
            }
            Operation::Fixed(call) => self.run(call, value, frame.record)?,
            Operation::Made(pieces) => {
                let mut bytes = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Bytes(piece) => bytes.extend_from_slice(piece),
                        Piece::Argument(argument) => {
                            let argument = eval(argument, frame)?;
                            frame.budget.spend(argument.size_bytes())?;
                            argument.write_msgpack(&mut bytes)?;
                        }
                    }
                }
                let call = CallBytes::of(&bytes).map_err(EvalError::Failed)?;
                self.run(&call, value, frame.record)?
            }
        };
        if result.size_bytes() > VALUE_BYTES_MAX {
            return Err(EvalError::TooMuch);
        }
        frame.budget.spend(result.size_bytes())?;
        if self.is_of_type(&result) {
            Ok(result)
        } else {
            Err(EvalError::Unknown)
        }
    }

    /// A modifying operation on a list or map gives what the operation began at, which clients may take for what its
    /// context leads to.
    fn is_of_type(&self, result: &Value<'_>) -> bool {
        let kind = result.kind();
        kind == Some(self.returns)
            || self.is_modify && self.returns.is_container() && kind.is_some_and(Type::is_container)
    }

    fn run<'v>(
        &self,
        call: &CallBytes,
        value: Value<'v>,
        record: &dyn RecordView,
    ) -> Result<Value<'v>, EvalError> {
        match self.module {
            Module::Cdt => self.run_cdt(call, value, record),
            Module::Bits => run_bits(call, value),
            Module::Hll => run_hll(call, value),
        }
    }

    fn run_cdt<'v>(
        &self,
        call: &CallBytes,
        value: Value<'v>,
        record: &dyn RecordView,
    ) -> Result<Value<'v>, EvalError> {
        let mut call = cdt::Call::parse(call).map_err(EvalError::Failed)?;
        // Of a bin as it is stored, and of nothing that was made of one. Every item has a byte, so what has fewer has no index.
        let index = match (&self.value, &value) {
            (Node::Bin(_, name), Value::List(bytes) | Value::Map(bytes))
                if bytes.len() >= INDEXED_ITEMS_MIN =>
            {
                record.bin_index(name)
            }
            _ => None,
        };
        let stored = |bytes| Stored { bytes, index };
        let bytes = match value {
            Value::List(bytes) => Some(bytes),
            // Whoever keeps an index keeps the order that it is of.
            Value::Map(bytes) if index.is_some() => Some(bytes),
            Value::Map(bytes) => match stored_order(&bytes) {
                Cow::Owned(stored) => Some(Cow::Owned(stored)),
                Cow::Borrowed(_) => Some(bytes),
            },
            Value::Nil => None,
            _ => return Err(EvalError::Unknown),
        };
        if !self.is_modify {
            let bytes = bytes.ok_or(EvalError::Unknown)?;
            return match cdt::read(stored(&bytes), &mut call).map_err(EvalError::Failed)? {
                Some(result) => Value::of_msgpack_owned(result),
                None => Ok(Value::Nil),
            };
        }
        let changed = cdt::modify(bytes.as_deref().map(stored), &mut call);
        let changed = changed.map_err(EvalError::Failed)?;
        match (changed.value, bytes) {
            (Some(value), _) => Value::of_msgpack_owned(value),
            (None, Some(Cow::Borrowed(unchanged))) => Value::of_msgpack(unchanged),
            (None, Some(Cow::Owned(unchanged))) => Value::of_msgpack_owned(unchanged),
            (None, None) => Ok(Value::Nil),
        }
    }
}

fn run_bits<'v>(call: &CallBytes, value: Value<'v>) -> Result<Value<'v>, EvalError> {
    let call = BitCall::parse(call).map_err(EvalError::Failed)?;
    let blob = match &value {
        Value::Blob(_, bytes) => Some(&bytes[..]),
        Value::Nil => None,
        _ => return Err(EvalError::Unknown),
    };
    if !call.is_modify() {
        let result = call.read(blob.ok_or(EvalError::Unknown)?);
        return Value::of_msgpack_owned(result.map_err(EvalError::Failed)?);
    }
    let changed = call
        .modify(blob, VALUE_BYTES_MAX)
        .map_err(EvalError::Failed)?;
    let kind = match &value {
        Value::Blob(kind, _) => *kind,
        _ => particle::BLOB,
    };
    Ok(changed.map_or(value, |changed| Value::Blob(kind, changed.into())))
}

fn run_hll<'v>(call: &CallBytes, value: Value<'v>) -> Result<Value<'v>, EvalError> {
    let call = HllCall::parse(call).map_err(EvalError::Failed)?;
    let sketch = match &value {
        Value::Hll(bytes) => Some(&bytes[..]),
        Value::Nil => None,
        _ => return Err(EvalError::Unknown),
    };
    if !call.is_modify() {
        let result = call.read(sketch.ok_or(EvalError::Unknown)?);
        return Value::of_msgpack_owned(result.map_err(EvalError::Failed)?);
    }
    let changed = call
        .modify(sketch, VALUE_BYTES_MAX)
        .map_err(EvalError::Failed)?;
    Ok(changed
        .value
        .map_or(value, |changed| Value::Hll(changed.into())))
}
