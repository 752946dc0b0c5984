//! Plain models that operations are compared with: vectors and sorted vectors, one value an element, nothing kept beside.

mod bits;
mod call;
mod expression;
mod list;
mod map;
mod select;
mod value;

pub(crate) use bits::run as bits;
pub(crate) use expression::run as expressions;

use crate::part::assert_stored;
use arbitrary::{Result, Unstructured};
use call::{Call, Step};
use perigee_engine::record::cdt;
use perigee_wire::ResultCode;
use value::{Item, Shape};

/// Operations that follow one another on a value.
const CALLS_MAX: usize = 12;

/// What an operation made of a value, if it changed, and its result.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub value: Option<Item>,
    pub result: Option<Item>,
}

/// Lists and maps, nested and not, by themselves and through contexts.
pub(crate) fn containers(data: &[u8]) {
    // An input that ends ends the sequence.
    let _ = sequence(&mut Unstructured::new(data));
}

fn sequence(input: &mut Unstructured<'_>) -> Result<()> {
    let shape = *input.choose(&[Shape::List, Shape::Map])?;
    let mut value = if input.ratio(3, 4)? {
        Some(Item::container(shape, input)?)
    } else {
        None
    };
    for _ in 0..CALLS_MAX {
        let call = Call::arbitrary(shape, value.as_ref(), input)?;
        value = compared(value, &call);
    }
    Ok(())
}

/// Carries out an operation here and there, and compares. Returns the value after it.
fn compared(value: Option<Item>, call: &Call) -> Option<Item> {
    let expected = modelled(value.as_ref(), &call.steps, call);
    let bytes = value.as_ref().map(Item::bytes);
    let found = carried_out(bytes.as_deref(), call);
    let of = || format!("{call:?}\non {value:?}");
    let (expected, (new, result)) = match (expected, found) {
        (Ok(expected), Ok(found)) => (expected, found),
        (Err(expected), Err(found)) => {
            assert_eq!(found, expected, "{}", of());
            return value;
        }
        (expected, found) => panic!("{found:02x?}, expected {expected:?}\n{}", of()),
    };
    let expected_result = expected.result.as_ref().map(Item::bytes);
    assert_eq!(
        result,
        expected_result,
        "the result, expected {:?}\n{}",
        expected.result,
        of()
    );
    let after = expected.value.or(value.clone());
    let expected_bytes = after.as_ref().map(Item::bytes);
    let new = new.or(bytes);
    assert_eq!(
        new,
        expected_bytes,
        "the value, expected {after:?}\n{}",
        of()
    );
    if let Some(new) = &new {
        assert_stored(new, call);
    }
    after
}

type Found = std::result::Result<(Option<Vec<u8>>, Option<Vec<u8>>), ResultCode>;

fn carried_out(value: Option<&[u8]>, call: &Call) -> Found {
    let bytes = cdt::CallBytes::of(&call.bytes())?;
    let parse = || cdt::Call::parse(&bytes);
    if parse()?.is_modify()? {
        let changed = cdt::modify(value, &mut parse()?)?;
        // A large value has an index beside it, which changes nothing but the way.
        if let Some(value) = value
            && let Some(index) = cdt::index_of(value)
        {
            let stored = cdt::Stored {
                bytes: value,
                index: Some(&index),
            };
            let by_index = cdt::modify(Some(stored), &mut parse()?)?;
            assert_eq!(
                (&by_index.value, &by_index.result),
                (&changed.value, &changed.result)
            );
        }
        return Ok((changed.value, changed.result));
    }
    match value {
        Some(value) => Ok((None, cdt::read(value, &mut parse()?)?)),
        None => Ok((None, None)),
    }
}

/// What the model makes of it: down the context, then the operation, then up again with the change.
fn modelled(
    value: Option<&Item>,
    steps: &[Step],
    call: &Call,
) -> std::result::Result<Changed, ResultCode> {
    let Some((step, rest)) = steps.split_first() else {
        return call.apply(value);
    };
    let Some(value) = value else {
        if !call.is_modify() {
            return Ok(Changed::default());
        }
        if step.create.is_none() {
            return Err(ResultCode::OpNotApplicable);
        }
        return modelled(Some(&Item::empty(step.kind.shape(), 0)), steps, call);
    };
    if value.shape() != Some(step.kind.shape()) {
        return Err(match steps.len() == call.steps.len() {
            true => ResultCode::IncompatibleType,
            false => ResultCode::OpNotApplicable,
        });
    }
    let Some(at) = step.place(value) else {
        if !call.is_modify() {
            return Err(ResultCode::OpNotApplicable);
        }
        let shape = rest.first().map_or(call.shape(), |next| next.kind.shape());
        let child = step.created(shape).ok_or(ResultCode::OpNotApplicable)?;
        let changed = modelled(Some(&child), rest, call)?;
        let child = changed.value.unwrap_or(child);
        return Ok(Changed {
            value: Some(step.with_created(value, child)?),
            result: changed.result,
        });
    };
    let changed = modelled(Some(value.child(at)), rest, call)?;
    Ok(Changed {
        value: changed.value.map(|child| value.with_child(at, child)),
        result: changed.result,
    })
}
