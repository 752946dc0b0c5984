//! The expression language (section 15): what filters, expression operations, indexes and paths into lists and maps are
//! written in. An expression is compiled once, checked for its types as far as they can be told, and evaluated on many
//! records.
//!
//! ```text
//! expression = [opcode, argument...] | literal
//! literal    = nil | boolean | integer | float | string with its particle type | map | [126, list]
//! ```
//!
//! A value that cannot be had is *unknown*: of a bin that is missing or of another type, of a division by zero, of an
//! operation that failed. A filter that is unknown lets nothing pass; an expression operation fails.

mod call;
mod call_compile;
mod compile;
mod eval;
mod node;
mod number;
mod operation;
mod path;
mod path_compile;
mod posix;
mod record;
#[cfg(test)]
pub(crate) mod tests;
mod value;

pub use compile::{DEPTH_MAX, NODES_MAX, REGEXES_MAX};
pub use eval::WORK_BYTES_MAX;
pub use operation::{ExpressionOp, Write};
pub use path::PathOp;
pub use record::{Lookup, Metadata, MetadataOnly, RecordView};
pub use value::{Particle, Type, Value};

use compile::{Compiled, compile};
use eval::{Budget, Frame, eval};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::Reader;

/// A compiled expression. It borrows nothing and does not change, so that any thread may evaluate it.
pub struct Expression(Compiled);

/// What a filter says of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trilean {
    True,
    False,
    Unknown,
}

/// Why there is no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvalError {
    Unknown,
    /// Unknown as long as the record has not been read.
    Unread,
    /// Unknown, because an operation that the expression calls failed.
    Failed(ResultCode),
    /// The evaluation went beyond what one may take.
    TooMuch,
}

impl Expression {
    /// PARAMETER for what is no expression, is too large, or has operands of the wrong type; GEO_INVALID for a location
    /// that is compared and means nothing; UNSUPPORTED_FEATURE for the operations on text.
    pub fn compile(bytes: &[u8]) -> Result<Expression, ResultCode> {
        if bytes.len() > perigee_wire::EXPRESSION_BYTES_MAX {
            return Err(ResultCode::Parameter);
        }
        compile(bytes).map(Expression)
    }

    /// As `compile`; PARAMETER for what has no boolean result, too.
    pub fn compile_filter(bytes: &[u8]) -> Result<Expression, ResultCode> {
        let filter = Expression::compile(bytes)?;
        match filter.result_type() {
            None | Some(Type::Bool) => Ok(filter),
            Some(_) => Err(ResultCode::Parameter),
        }
    }

    /// The type of every value that the expression has; None if there is none or it is never known.
    pub fn result_type(&self) -> Option<Type> {
        self.0.kind
    }

    /// Whether the result may depend on bins, so that the record has to be read.
    pub fn needs_bins(&self) -> bool {
        self.0.needs.bins
    }

    /// Whether the result may depend on the stored key.
    pub fn needs_key(&self) -> bool {
        self.0.needs.key
    }

    /// Whether the result may depend on the present time, so that it may change while the record does not.
    pub fn needs_time(&self) -> bool {
        self.0.needs.time
    }

    pub fn eval<'v>(&'v self, record: &'v dyn RecordView) -> Result<Value<'v>, EvalError> {
        let budget = Budget::new();
        let mut frame = Frame {
            record,
            variables: Vec::new(),
            element: None,
            budget: &budget,
        };
        eval(&self.0.root, &mut frame)
    }

    /// Whether a record passes. On [`MetadataOnly`] an unknown result may become known by reading the record; on a record
    /// that was read it stays unknown, and the record does not pass.
    pub fn filter(&self, record: &dyn RecordView) -> Trilean {
        match self.eval(record) {
            Ok(Value::Bool(true)) => Trilean::True,
            Ok(Value::Bool(false)) => Trilean::False,
            _ => Trilean::Unknown,
        }
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expression")
            .field("result_type", &self.result_type())
            .finish_non_exhaustive()
    }
}

/// For what is not well-formed.
fn damaged<E>(_: E) -> ResultCode {
    ResultCode::Parameter
}

/// The two parts of an expression operation's value: an expression's bytes and flags.
fn split_operation(value: &[u8]) -> Result<(&[u8], i64), ResultCode> {
    let mut reader = Reader::new(value);
    if reader.read_array().map_err(damaged)? != 2 {
        return Err(ResultCode::Parameter);
    }
    let expression = reader.skip().map_err(damaged)?;
    let flags = reader.read_int().map_err(damaged)?;
    reader.finish().map_err(damaged)?;
    Ok((expression, flags))
}
