//! Arithmetic, and the bits of integers.

use super::EvalError;
use super::eval::{Frame, eval};
use super::node::Node;
use super::value::{Type, Value};

/// An operation on numbers. Integers are 64 bits wide and wrap; floats follow IEEE 754. What has no result, such as an
/// integer divided by zero, is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Number {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Logarithm,
    Modulo,
    Absolute,
    Floor,
    Ceiling,
    ToInt,
    ToFloat,
    And,
    Or,
    Xor,
    Not,
    ShiftLeft,
    ShiftRight,
    ShiftRightArithmetic,
    Count,
    ScanLeft,
    ScanRight,
    Minimum,
    Maximum,
}

/// What an operation takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operands {
    /// Integers, or floats.
    Numbers,
    Ints,
    Floats,
    IntAndBool,
}

impl Number {
    pub(super) fn of_code(code: i64) -> Option<Number> {
        Some(match code {
            20 => Number::Add,
            21 => Number::Subtract,
            22 => Number::Multiply,
            23 => Number::Divide,
            24 => Number::Power,
            25 => Number::Logarithm,
            26 => Number::Modulo,
            27 => Number::Absolute,
            28 => Number::Floor,
            29 => Number::Ceiling,
            30 => Number::ToInt,
            31 => Number::ToFloat,
            32 => Number::And,
            33 => Number::Or,
            34 => Number::Xor,
            35 => Number::Not,
            36 => Number::ShiftLeft,
            37 => Number::ShiftRight,
            38 => Number::ShiftRightArithmetic,
            39 => Number::Count,
            40 => Number::ScanLeft,
            41 => Number::ScanRight,
            50 => Number::Minimum,
            51 => Number::Maximum,
            _ => return None,
        })
    }

    /// How many operands there are; None where there may be any number, from one on.
    pub(super) fn arity(self) -> Option<usize> {
        use Number::*;
        match self {
            Add | Subtract | Multiply | Divide | And | Or | Xor | Minimum | Maximum => None,
            Absolute | Floor | Ceiling | ToInt | ToFloat | Not | Count => Some(1),
            _ => Some(2),
        }
    }

    pub(super) fn operands(self) -> Operands {
        use Number::*;
        match self {
            Add | Subtract | Multiply | Divide | Absolute | Minimum | Maximum => Operands::Numbers,
            Power | Logarithm | Floor | Ceiling | ToInt => Operands::Floats,
            ScanLeft | ScanRight => Operands::IntAndBool,
            _ => Operands::Ints,
        }
    }

    /// The type of the result, of operands of one type.
    pub(super) fn kind(self, operand: Option<Type>) -> Option<Type> {
        match (self, self.operands()) {
            (Number::ToInt, _) => Some(Type::Int),
            (Number::ToFloat, _) => Some(Type::Float),
            (_, Operands::Numbers) => operand,
            (_, Operands::Floats) => Some(Type::Float),
            _ => Some(Type::Int),
        }
    }

    pub(super) fn eval<'v>(
        self,
        operands: &'v [Node],
        frame: &mut Frame<'_, 'v>,
    ) -> Result<Value<'v>, EvalError> {
        let [first, rest @ ..] = operands else {
            return Err(EvalError::Unknown);
        };
        let first = eval(first, frame)?;
        if rest.is_empty() {
            return self.of_one(first);
        }
        let mut result = first;
        for operand in rest {
            result = self.of_two(result, eval(operand, frame)?)?;
        }
        Ok(result)
    }

    fn of_one<'v>(self, value: Value<'v>) -> Result<Value<'v>, EvalError> {
        use Number::*;
        Ok(match (self, value) {
            // An operation on any number of operands is what it is of one more, its neutral one.
            (Subtract, Value::Int(value)) => Value::Int(value.wrapping_neg()),
            (Subtract, Value::Float(value)) => Value::Float(-value),
            (Divide, Value::Int(value)) => Value::Int(divide(1, value)?),
            (Divide, Value::Float(value)) => Value::Float(1.0 / value),
            (Add | Multiply | Minimum | Maximum, value @ (Value::Int(_) | Value::Float(_))) => {
                value
            }
            (And | Or | Xor, value @ Value::Int(_)) => value,
            (Absolute, Value::Int(value)) => Value::Int(value.wrapping_abs()),
            (Absolute, Value::Float(value)) => Value::Float(value.abs()),
            (Floor, Value::Float(value)) => Value::Float(value.floor()),
            (Ceiling, Value::Float(value)) => Value::Float(value.ceil()),
            (ToInt, Value::Float(value)) => Value::Int(to_int(value)?),
            (ToFloat, Value::Int(value)) => Value::Float(value as f64),
            (Not, Value::Int(value)) => Value::Int(!value),
            (Count, Value::Int(value)) => Value::Int(i64::from(value.count_ones())),
            _ => return Err(EvalError::Unknown),
        })
    }

    fn of_two<'v>(self, left: Value<'v>, right: Value<'v>) -> Result<Value<'v>, EvalError> {
        match (left, right) {
            (Value::Int(a), Value::Int(b)) => self.of_ints(a, b).map(Value::Int),
            (Value::Float(a), Value::Float(b)) => self.of_floats(a, b).map(Value::Float),
            (Value::Int(value), Value::Bool(wanted)) => {
                // The bits that are looked for, as ones.
                let bits = if wanted { value } else { !value };
                match self {
                    _ if bits == 0 => Ok(Value::Int(NOT_FOUND)),
                    Number::ScanLeft => Ok(Value::Int(i64::from(bits.leading_zeros()))),
                    Number::ScanRight => Ok(Value::Int(63 - i64::from(bits.trailing_zeros()))),
                    _ => Err(EvalError::Unknown),
                }
            }
            _ => Err(EvalError::Unknown),
        }
    }

    fn of_ints(self, a: i64, b: i64) -> Result<i64, EvalError> {
        use Number::*;
        Ok(match self {
            Add => a.wrapping_add(b),
            Subtract => a.wrapping_sub(b),
            Multiply => a.wrapping_mul(b),
            Divide => divide(a, b)?,
            Modulo if b != 0 => a.wrapping_rem(b),
            And => a & b,
            Or => a | b,
            Xor => a ^ b,
            ShiftLeft => shift(b)?.map_or(0, |by| a << by),
            ShiftRight => shift(b)?.map_or(0, |by| (a as u64 >> by) as i64),
            ShiftRightArithmetic => a >> shift(b)?.unwrap_or(63),
            Minimum => a.min(b),
            Maximum => a.max(b),
            _ => return Err(EvalError::Unknown),
        })
    }

    fn of_floats(self, a: f64, b: f64) -> Result<f64, EvalError> {
        use Number::*;
        Ok(match self {
            Add => a + b,
            Subtract => a - b,
            Multiply => a * b,
            Divide => a / b,
            Power => a.powf(b),
            Logarithm => a.ln() / b.ln(),
            Minimum => a.min(b),
            Maximum => a.max(b),
            _ => return Err(EvalError::Unknown),
        })
    }
}

/// Where a bit is that there is not.
const NOT_FOUND: i64 = -1;

fn divide(a: i64, b: i64) -> Result<i64, EvalError> {
    if b == 0 {
        Err(EvalError::Unknown)
    } else {
        Ok(a.wrapping_div(b))
    }
}

/// The integer that is left without the fraction; unknown where no integer is that large.
fn to_int(value: f64) -> Result<i64, EvalError> {
    // 2^63 is a float, and the first beyond.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if (-END..END).contains(&value) {
        Ok(value as i64)
    } else {
        Err(EvalError::Unknown)
    }
}

/// By how many bits to shift; None is past the last of them.
fn shift(by: i64) -> Result<Option<u32>, EvalError> {
    let by = u64::try_from(by).map_err(|_| EvalError::Unknown)?;
    Ok(u32::try_from(by).ok().filter(|by| *by < i64::BITS))
}
