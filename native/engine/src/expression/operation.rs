//! Expression operations of requests (section 15): a value that is read, or that a bin gets.

use super::value::{Particle, Value};
use super::{Expression, RecordView, damaged, split_operation};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::canonical;
use perigee_wire::particle_type as particle;
use std::borrow::Cow;

mod flag {
    pub const CREATE_ONLY: i64 = 1;
    pub const UPDATE_ONLY: i64 = 2;
    pub const ALLOW_DELETE: i64 = 4;
    pub const POLICY_NO_FAIL: i64 = 8;
    pub const EVAL_NO_FAIL: i64 = 16;

    pub const OF_READS: i64 = EVAL_NO_FAIL;
    pub const OF_WRITES: i64 =
        CREATE_ONLY | UPDATE_ONLY | ALLOW_DELETE | POLICY_NO_FAIL | EVAL_NO_FAIL;
}

/// An expression operation: `[expression, flags]`.
#[derive(Debug)]
pub struct ExpressionOp {
    expression: Expression,
    flags: i64,
}

/// What becomes of a bin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write<'v> {
    /// It stays as it is, or missing.
    Nothing,
    Delete,
    /// Particle type and bytes. A location comes without cells.
    Set(u8, Cow<'v, [u8]>),
}

impl ExpressionOp {
    /// PARAMETER for flags that a reading operation does not know, and as [`Expression::compile`].
    pub fn parse_read(value: &[u8]) -> Result<ExpressionOp, ResultCode> {
        ExpressionOp::parse(value, flag::OF_READS)
    }

    /// PARAMETER for flags that a writing operation does not know or that exclude each other, and as
    /// [`Expression::compile`].
    pub fn parse_write(value: &[u8]) -> Result<ExpressionOp, ResultCode> {
        let operation = ExpressionOp::parse(value, flag::OF_WRITES)?;
        if operation.has(flag::CREATE_ONLY) && operation.has(flag::UPDATE_ONLY) {
            return Err(ResultCode::Parameter);
        }
        Ok(operation)
    }

    fn parse(value: &[u8], known: i64) -> Result<ExpressionOp, ResultCode> {
        let (expression, flags) = split_operation(value)?;
        if flags & !known != 0 {
            return Err(ResultCode::Parameter);
        }
        Ok(ExpressionOp {
            expression: Expression::compile(expression)?,
            flags,
        })
    }

    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    fn has(&self, flag: i64) -> bool {
        self.flags & flag != 0
    }

    /// The value of a reading operation; None is nil, and of an unknown value where the flags allow it.
    /// OP_NOT_APPLICABLE of an unknown value.
    pub fn read<'v>(
        &'v self,
        record: &'v dyn RecordView,
    ) -> Result<Option<Particle<'v>>, ResultCode> {
        match self.expression.eval(record).and_then(Value::into_particle) {
            Ok((particle::NULL, _)) => Ok(None),
            Ok(result) => Ok(Some(result)),
            Err(_) => self.fail(None),
        }
    }

    /// What a writing operation does to a bin. BIN_EXISTS and BIN_NOT_FOUND as the policy says, before anything is
    /// evaluated; OP_NOT_APPLICABLE of an unknown value, and of nil without leave to delete.
    pub fn write<'v>(
        &'v self,
        bin_exists: bool,
        record: &'v dyn RecordView,
    ) -> Result<Write<'v>, ResultCode> {
        if bin_exists && self.has(flag::CREATE_ONLY) {
            return self.refuse(ResultCode::BinExists);
        }
        if !bin_exists && self.has(flag::UPDATE_ONLY) {
            return self.refuse(ResultCode::BinNotFound);
        }
        let value = match self.expression.eval(record).and_then(Value::into_particle) {
            Ok(value) => value,
            Err(_) => return self.fail(Write::Nothing),
        };
        match value {
            (particle::NULL, _) if !self.has(flag::ALLOW_DELETE) => {
                self.refuse(ResultCode::OpNotApplicable)
            }
            (particle::NULL, _) if bin_exists => Ok(Write::Delete),
            (particle::NULL, _) => Ok(Write::Nothing),
            // What was made on the way may be in an order for replies alone.
            (kind @ (particle::LIST | particle::MAP), Cow::Owned(bytes)) => {
                let bytes = canonical(&bytes).map_err(damaged)?;
                Ok(Write::Set(kind, Cow::Owned(bytes)))
            }
            (kind, bytes) => Ok(Write::Set(kind, bytes)),
        }
    }

    fn refuse<'v>(&self, code: ResultCode) -> Result<Write<'v>, ResultCode> {
        if self.has(flag::POLICY_NO_FAIL) {
            Ok(Write::Nothing)
        } else {
            Err(code)
        }
    }

    fn fail<T>(&self, otherwise: T) -> Result<T, ResultCode> {
        if self.has(flag::EVAL_NO_FAIL) {
            Ok(otherwise)
        } else {
            Err(ResultCode::OpNotApplicable)
        }
    }
}
