//! Evaluation. Unknown values spread, except where what is known decides: a conjunction with something false in it is
//! false, whatever the rest may be.

use super::EvalError;
use super::node::{Comparison, Location, Metadatum, Node, Part};
use super::record::{Lookup, Metadata, RecordView};
use super::value::{Type, Value, compare, stored_order};
use crate::record::cdt::{Container, of_items};
use crate::record::geo::{self, Geometry};
use perigee_wire::EPOCH_UNIX_SECONDS;
use perigee_wire::msgpack::{self, order};
use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

/// Bytes that one evaluation may look at and make, each step counted as [`STEP_BYTES`]. Whoever sends an expression chooses
/// how often it goes over a record, and how often what it makes becomes larger, so that the length of the expression alone
/// bounds nothing. At worst, on lists of small numbers, this much takes about a second.
pub const WORK_BYTES_MAX: u64 = 64 << 20;
const STEP_BYTES: usize = 8;

/// What an evaluation has left to spend.
pub(super) struct Budget(Cell<u64>);

impl Budget {
    pub(super) fn new() -> Budget {
        Budget(Cell::new(WORK_BYTES_MAX))
    }

    pub(super) fn spend(&self, bytes: usize) -> Result<(), EvalError> {
        let rest = self.0.get().checked_sub(bytes as u64);
        self.0.set(rest.ok_or(EvalError::TooMuch)?);
        Ok(())
    }
}

/// What an expression is evaluated over.
pub(super) struct Frame<'b, 'v> {
    pub(super) record: &'v dyn RecordView,
    /// Those in scope, the outermost first.
    pub(super) variables: Vec<Value<'v>>,
    /// Within a path.
    pub(super) element: Option<Element<'v>>,
    pub(super) budget: &'b Budget,
}

/// The element that a path is at.
#[derive(Clone, Copy)]
pub(super) struct Element<'v> {
    /// None of an element of a list.
    pub(super) key: Option<&'v [u8]>,
    pub(super) value: &'v [u8],
    pub(super) index: usize,
}

pub(super) fn eval<'v>(node: &'v Node, frame: &mut Frame<'_, 'v>) -> Result<Value<'v>, EvalError> {
    frame.budget.spend(STEP_BYTES)?;
    match node {
        Node::Literal(value) => Ok(value.borrowed()),
        Node::Unknown => Err(EvalError::Unknown),
        Node::Removed => Ok(Value::Removed),
        Node::Compare(comparison, sides) => {
            let left = eval(&sides[0], frame)?;
            let right = eval(&sides[1], frame)?;
            frame
                .budget
                .spend(left.size_bytes().saturating_add(right.size_bytes()))?;
            let order = compare(&left, &right)?;
            Ok(Value::Bool(holds(*comparison, order)))
        }
        Node::Regex(regex, text) => match eval(text, frame)? {
            Value::Str(text) => {
                frame.budget.spend(text.len())?;
                Ok(Value::Bool(regex.is_match(&text)))
            }
            _ => Err(EvalError::Unknown),
        },
        Node::Geo(sides) => {
            let (mut left, mut right) = (None, None);
            let left = locate(&sides[0], frame, &mut left)?;
            let right = locate(&sides[1], frame, &mut right)?;
            Ok(Value::Bool(geo::compare(left, right)))
        }
        Node::InList(sides) => {
            let value = eval(&sides[0], frame)?;
            let list = eval(&sides[1], frame)?;
            is_in_list(&value, &list, frame).map(Value::Bool)
        }
        Node::And(tests) => any_is(tests, false, frame).map(|any| Value::Bool(!any)),
        Node::Or(tests) => any_is(tests, true, frame).map(Value::Bool),
        Node::Exclusive(tests) => exclusive(tests, frame).map(Value::Bool),
        Node::Not(test) => eval(test, frame)?.as_bool().map(|test| Value::Bool(!test)),
        Node::Number(number, operands) => number.eval(operands, frame),
        Node::DigestModulo(modulus) => {
            let [.., a, b, c, d] = *frame.record.metadata().digest;
            Ok(Value::Int(i64::from(
                u32::from_le_bytes([a, b, c, d]) % modulus,
            )))
        }
        Node::Metadata(metadatum) => Ok(metadatum.of(frame.record.metadata())),
        Node::Key(kind) => typed(found(frame.record.key())?, *kind),
        Node::Bin(kind, name) => typed(found(frame.record.bin(name))?, *kind),
        Node::BinType(name) => match frame.record.bin(name) {
            Lookup::Found((kind, _)) => Ok(Value::Int(i64::from(kind))),
            Lookup::Absent => Ok(Value::Int(0)),
            Lookup::Unread => Err(EvalError::Unread),
        },
        Node::MapKeys(map) => list_of_map(eval(map, frame)?, frame, |map, at| map.key(at)),
        Node::MapValues(map) => list_of_map(eval(map, frame)?, frame, |map, at| map.value(at)),
        Node::Element(kind, part) => {
            let element = frame.element.ok_or(EvalError::Unknown)?;
            element.part(*kind, *part)
        }
        Node::Cond(cases, default) => {
            for (test, then) in cases {
                if eval(test, frame)?.as_bool()? {
                    return eval(then, frame);
                }
            }
            eval(default, frame)
        }
        Node::Variable(place) => {
            let value = frame.variables.get(*place).ok_or(EvalError::Unknown)?;
            if value.is_owned() {
                frame.budget.spend(value.size_bytes())?;
            }
            Ok(value.clone())
        }
        Node::Let(definitions, body) => {
            let outer = frame.variables.len();
            let result = define(definitions, body, frame);
            frame.variables.truncate(outer);
            result
        }
        Node::Call(call) => call.eval(frame),
    }
}

fn define<'v>(
    definitions: &'v [Node],
    body: &'v Node,
    frame: &mut Frame<'_, 'v>,
) -> Result<Value<'v>, EvalError> {
    for definition in definitions {
        let value = eval(definition, frame)?;
        frame.variables.push(value);
    }
    eval(body, frame)
}

fn holds(comparison: Comparison, order: Option<Ordering>) -> bool {
    let Some(order) = order else {
        return comparison == Comparison::NotEqual;
    };
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
    }
}

fn found<T>(lookup: Lookup<T>) -> Result<T, EvalError> {
    match lookup {
        Lookup::Found(found) => Ok(found),
        Lookup::Absent => Err(EvalError::Unknown),
        Lookup::Unread => Err(EvalError::Unread),
    }
}

/// The value of a bin or key, if it is of the type that the expression says.
fn typed((particle, bytes): (u8, &[u8]), kind: Type) -> Result<Value<'_>, EvalError> {
    let value = Value::of_particle(particle, bytes)?;
    if value.kind() == Some(kind) {
        Ok(value)
    } else {
        Err(EvalError::Unknown)
    }
}

/// The meaning of a location, in `computed` unless it was known beforehand.
fn locate<'g, 'v: 'g>(
    location: &'v Location,
    frame: &mut Frame<'_, 'v>,
    computed: &'g mut Option<Geometry>,
) -> Result<&'g Geometry, EvalError> {
    let node = match location {
        Location::Known(geometry) => return Ok(geometry),
        Location::Computed(node) => node,
    };
    let Value::Geo(text) = eval(node, frame)? else {
        return Err(EvalError::Unknown);
    };
    frame.budget.spend(text.len())?;
    let geometry =
        Geometry::parse(&text).map_err(|error| EvalError::Failed(error.result_code()))?;
    Ok(computed.insert(geometry))
}

/// Whether one of the tests has a result. It decides, whatever others there are that are not known.
fn any_is<'v>(
    tests: &'v [Node],
    wanted: bool,
    frame: &mut Frame<'_, 'v>,
) -> Result<bool, EvalError> {
    let mut failure = None;
    for test in tests {
        match eval(test, frame).and_then(|value| value.as_bool()) {
            Ok(result) if result == wanted => return Ok(true),
            Ok(_) => {}
            Err(error) => failure = Some(worse(failure, error)?),
        }
    }
    failure.map_or(Ok(false), Err)
}

/// Whether exactly one of the tests holds.
fn exclusive<'v>(tests: &'v [Node], frame: &mut Frame<'_, 'v>) -> Result<bool, EvalError> {
    let mut failure = None;
    let mut holding = 0;
    for test in tests {
        match eval(test, frame).and_then(|value| value.as_bool()) {
            Ok(holds) => holding += usize::from(holds),
            Err(error) => failure = Some(worse(failure, error)?),
        }
        if holding > 1 {
            return Ok(false);
        }
    }
    failure.map_or(Ok(holding == 1), Err)
}

/// Of two reasons why a value is not known, the one that a read of the record may remove. An evaluation that has spent its
/// budget ends at once.
fn worse(before: Option<EvalError>, error: EvalError) -> Result<EvalError, EvalError> {
    match (before, error) {
        (_, EvalError::TooMuch) => Err(error),
        (Some(EvalError::Unread), _) => Ok(EvalError::Unread),
        _ => Ok(error),
    }
}

fn is_in_list(
    value: &Value<'_>,
    list: &Value<'_>,
    frame: &Frame<'_, '_>,
) -> Result<bool, EvalError> {
    let Value::List(list) = list else {
        return Err(EvalError::Unknown);
    };
    frame.budget.spend(list.len())?;
    let mut wanted = Vec::new();
    value.write_msgpack(&mut wanted)?;
    let list = Container::parse(list).map_err(EvalError::Failed)?;
    if list.is_ordered() {
        return Ok(list.find_key(&wanted).is_ok());
    }
    Ok(list
        .items()
        .any(|item| msgpack::compare(item, &wanted).is_eq()))
}

/// The keys or values of a map, by key.
fn list_of_map<'v>(
    map: Value<'v>,
    frame: &Frame<'_, 'v>,
    part: impl for<'a> Fn(&Container<'a>, usize) -> &'a [u8],
) -> Result<Value<'v>, EvalError> {
    let Value::Map(map) = map else {
        return Err(EvalError::Unknown);
    };
    frame.budget.spend(map.len())?;
    let map = stored_order(&map);
    let map = Container::parse(&map).map_err(EvalError::Failed)?;
    let by_index = map.by_index();
    let parts = (0..map.len()).map(|place| part(&map, by_index.at(place)));
    let list = of_items(false, order::UNORDERED, parts);
    Ok(Value::List(Cow::Owned(list)))
}

impl<'v> Element<'v> {
    fn part(&self, kind: Type, part: Part) -> Result<Value<'v>, EvalError> {
        let value = match (part, self.key) {
            (Part::Value, _) => Value::of_msgpack(self.value)?,
            (Part::Key, Some(key)) => Value::of_msgpack(key)?,
            (Part::Key, None) | (Part::Index, _) => Value::Int(self.index as i64),
        };
        if value.kind() == Some(kind) {
            Ok(value)
        } else {
            Err(EvalError::Unknown)
        }
    }
}

const NEVER: i64 = -1;

impl Metadatum {
    fn of<'v>(self, of: Metadata<'v>) -> Value<'v> {
        let bytes = |bytes| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
        match self {
            Metadatum::DeviceSize => bytes(of.device_bytes),
            Metadatum::MemorySize => bytes(of.memory_bytes),
            Metadatum::RecordSize => bytes(of.record_bytes),
            Metadatum::LastUpdate => Value::Int(unix_nanoseconds(of.last_update_time)),
            Metadatum::SinceUpdate => bytes(of.now.saturating_sub(of.last_update_time)),
            Metadatum::VoidTime if of.void_time == 0 => Value::Int(NEVER),
            Metadatum::VoidTime => Value::Int(unix_nanoseconds(u64::from(of.void_time) * 1000)),
            Metadatum::TimeToLive if of.void_time == 0 => Value::Int(NEVER),
            Metadatum::TimeToLive => bytes(u64::from(of.void_time).saturating_sub(of.now / 1000)),
            Metadatum::SetName => Value::Str(Cow::Borrowed(of.set)),
            Metadatum::KeyExists => Value::Bool(of.has_key),
            Metadatum::IsTombstone => Value::Bool(of.is_tombstone),
        }
    }
}

/// Nanoseconds since 1970 of milliseconds since 2010; the last moment that there is, beyond that.
fn unix_nanoseconds(milliseconds: u64) -> i64 {
    milliseconds
        .checked_add(EPOCH_UNIX_SECONDS * 1000)
        .and_then(|milliseconds| milliseconds.checked_mul(1_000_000))
        .and_then(|nanoseconds| i64::try_from(nanoseconds).ok())
        .unwrap_or(i64::MAX)
}
