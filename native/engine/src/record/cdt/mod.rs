//! Lists and maps: every operation on them, at any depth (section 13). One implementation, used by operations of requests,
//! by expressions and by whatever else asks for a list or map operation.
//!
//! A bin's value goes in as it is stored, canonical; what comes out is canonical again.

#[cfg(test)]
mod bounds_tests;
mod call;
mod container;
mod context;
mod index;
mod list;
mod map;
mod number;
mod selection;
#[cfg(test)]
mod tests;

pub use call::{CONTEXT_STEPS_MAX, Call, CallBytes, Step, StepKind, parse_context};
pub use container::{Container, Edited, index_of, of_items};
pub use context::{find, locate};
pub use index::INDEXED_ITEMS_MIN;

use perigee_wire::msgpack::nesting;
use perigee_wire::{MSGPACK_DEPTH_MAX, ResultCode, particle_type as particle};

/// Nils that one operation may put between a list's end and an element beyond it.
pub const PADDING_MAX: usize = 1 << 20;
const NIL: &[u8] = &[0xc0];

/// Items of one request from which on it pays to sort what they are looked for in: one after the other, many in many
/// would take minutes with the partition locked.
const MANY: usize = 16;

/// Codes up to here are of lists, those beyond of maps.
const LIST_CODE_MAX: u8 = 63;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    List,
    Map,
}

impl Shape {
    pub fn particle(self) -> u8 {
        match self {
            Shape::List => particle::LIST,
            Shape::Map => particle::MAP,
        }
    }
}

/// A list or map as it is stored, with the index that is kept beside a large one.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub bytes: &'a [u8],
    pub index: Option<&'a [u8]>,
}

impl<'a> From<&'a [u8]> for Stored<'a> {
    fn from(bytes: &'a [u8]) -> Stored<'a> {
        Stored { bytes, index: None }
    }
}

impl<'a> Stored<'a> {
    pub fn container(self) -> Result<Container<'a>, ResultCode> {
        Container::with_index(self.bytes, self.index)
    }
}

/// What an operation made of a value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// The new value; None if it is the old one.
    pub value: Option<Vec<u8>>,
    /// The index of the new value, where it follows from that of the old one; see [`index_of`] where it does not.
    pub index: Option<Vec<u8>>,
    /// One msgpack value; None where the operation has no result.
    pub result: Option<Vec<u8>>,
}

impl Changed {
    fn to(edited: Edited, result: Option<Vec<u8>>) -> Changed {
        Changed {
            value: Some(edited.bytes),
            index: edited.index,
            result,
        }
    }

    /// To a value that was put together anew.
    fn made(value: Vec<u8>) -> Changed {
        Changed {
            value: Some(value),
            ..Changed::default()
        }
    }

    /// A result without a change.
    fn only(result: Vec<u8>) -> Changed {
        Changed {
            result: Some(result),
            ..Changed::default()
        }
    }
}

impl Call<'_> {
    /// What the operation works on.
    pub fn shape(&self) -> Shape {
        if self.code <= LIST_CODE_MAX {
            Shape::List
        } else {
            Shape::Map
        }
    }

    /// PARAMETER if what is put at the end of these steps would be nested deeper there than a value may be: in the call
    /// it lies two levels deep.
    fn check_nesting(&self, steps: &[Step<'_>]) -> Result<(), ResultCode> {
        if steps.len() < 2 {
            return Ok(());
        }
        let keys = steps.iter().map(|step| nesting(step.value)).max();
        let levels = keys.unwrap_or(0).max(nesting(self.rest()));
        if levels + steps.len() < MSGPACK_DEPTH_MAX {
            Ok(())
        } else {
            Err(ResultCode::Parameter)
        }
    }

    /// What the bin itself has to be: where the way to the container begins.
    pub fn bin_shape(&self) -> Shape {
        match self.context.first() {
            Some(step) if step.kind.is_of_map() => Shape::Map,
            Some(_) => Shape::List,
            None => self.shape(),
        }
    }

    /// Whether the operation changes what it works on. PARAMETER if there is no such operation.
    pub fn is_modify(&self) -> Result<bool, ResultCode> {
        match self.code {
            0..=12 | 13 | 32..=40 | 64..=70 | 73..=79 | 81..=89 => Ok(true),
            16..=27 | 96..=100 | 102..=110 => Ok(false),
            _ => Err(ResultCode::Parameter),
        }
    }
}

/// The result of a reading operation on a bin's value: one msgpack value, or None where there is nothing to say.
/// INCOMPATIBLE_TYPE if the value, or what a context leads to, is no container of the right kind.
pub fn read<'a>(
    value: impl Into<Stored<'a>>,
    call: &mut Call<'_>,
) -> Result<Option<Vec<u8>>, ResultCode> {
    if call.is_modify()? {
        return Err(ResultCode::Parameter);
    }
    let found = find(value.into(), &call.context)?.container()?;
    check_shape(&found, call.shape())?;
    match call.shape() {
        Shape::List => list::read(&found, call),
        Shape::Map => map::read(&found, call),
    }
}

/// What a modifying operation makes of a bin's value, or of none.
pub fn modify<'a>(
    value: Option<impl Into<Stored<'a>>>,
    call: &mut Call<'_>,
) -> Result<Changed, ResultCode> {
    if !call.is_modify()? {
        return Err(ResultCode::Parameter);
    }
    let shape = call.shape();
    let steps = std::mem::take(&mut call.context);
    call.check_nesting(&steps)?;
    context::modify(value.map(Into::into), &steps, shape, &mut |value| {
        let found = value.map(Stored::container).transpose()?;
        if let Some(found) = &found {
            check_shape(found, shape)?;
        }
        match shape {
            Shape::List => list::modify(found, call),
            Shape::Map => map::modify(found, call),
        }
    })
}

/// What a nested value becomes, if it changes, and the result of the change, if it has one: both as msgpack.
pub type NestedChange = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Changes the value that a context leads to in a list or map, whatever that value is: `change` is given it as msgpack, and
/// says what it becomes, if it changes, and a result. OP_NOT_APPLICABLE if the context leads nowhere.
pub fn modify_nested(
    value: Stored<'_>,
    context: &[Step<'_>],
    change: &dyn Fn(&[u8]) -> Result<NestedChange, ResultCode>,
) -> Result<Changed, ResultCode> {
    let found: Vec<_> = context
        .iter()
        .map(|step| Step {
            create: None,
            ..*step
        })
        .collect();
    context::modify(Some(value), &found, Shape::List, &mut |element| {
        let element = element.ok_or(ResultCode::OpNotApplicable)?;
        let (value, result) = change(element.bytes)?;
        Ok(Changed {
            value,
            index: None,
            result,
        })
    })
}

fn check_shape(container: &Container<'_>, shape: Shape) -> Result<(), ResultCode> {
    if container.is_map == (shape == Shape::Map) {
        Ok(())
    } else {
        Err(ResultCode::IncompatibleType)
    }
}
