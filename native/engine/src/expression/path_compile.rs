//! Compilation of paths.

use super::compile::{Compiler, Place};
use super::damaged;
use super::node::Node;
use super::path::{Mode, Path, PathStep, Select};
use super::value::{Type, Value};
use crate::record::cdt::{CONTEXT_STEPS_MAX, parse_context};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{self, Reader, Writer, canonical, compare, has_sentinel};

const CHILDREN: i64 = 0x04;
const KEYS: i64 = 0x2a;
/// With [`CHILDREN`]: another test of what the step before chose.
const AND: i64 = 0x200;

const CHANGE: i64 = 0x04;
const NO_FAIL: i64 = 0x10;

impl<'a> Compiler<'a> {
    /// `[0xfe, context, flags]` or `[0xfe, context, flags, expression]`, behind the code.
    pub(super) fn path(
        &mut self,
        items: u32,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Path, ResultCode> {
        let parts = reader.read_array().map_err(damaged)? as usize;
        if parts == 0 || !parts.is_multiple_of(2) || parts / 2 > CONTEXT_STEPS_MAX {
            return Err(ResultCode::Parameter);
        }
        let mut steps: Vec<PathStep> = Vec::with_capacity(parts / 2);
        for _ in 0..parts / 2 {
            self.enter(depth)?;
            match reader.read_int().map_err(damaged)? {
                CHILDREN => steps.push(PathStep {
                    select: Select::All,
                    filter: self.filter(reader, depth)?,
                }),
                kind if kind == CHILDREN | AND => {
                    let filter = self.filter(reader, depth)?;
                    match steps.last_mut() {
                        Some(PathStep {
                            select: Select::One(..) | Select::Keys(_),
                            filter: free @ None,
                        }) => *free = filter,
                        _ => return Err(ResultCode::Parameter),
                    }
                }
                KEYS => steps.push(PathStep {
                    select: Select::Keys(keys(reader)?),
                    filter: None,
                }),
                kind => steps.push(PathStep {
                    select: one(kind, reader)?,
                    filter: None,
                }),
            }
        }
        let flags = reader.read_int().map_err(damaged)?;
        let mode = match (flags & !NO_FAIL, items) {
            (0, 3) => Mode::Tree,
            (1, 3) => Mode::Values,
            (2, 3) => Mode::Keys,
            (3, 3) => Mode::KeyValues,
            (CHANGE, 4) => {
                let change = self.within(Place::Change, reader, depth)?;
                Mode::Change(change.node)
            }
            _ => return Err(ResultCode::Parameter),
        };
        Ok(Path {
            steps,
            mode,
            no_fail: flags & NO_FAIL != 0,
        })
    }

    /// The test of an element; None if all pass.
    fn filter(
        &mut self,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Option<Node>, ResultCode> {
        let filter = self.within(Place::Filter, reader, depth)?;
        match filter.expect_kind(Type::Bool)? {
            Node::Literal(Value::Bool(true)) => Ok(None),
            filter => Ok(Some(filter)),
        }
    }

    fn within(
        &mut self,
        place: Place,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<super::compile::Typed, ResultCode> {
        let outer = std::mem::replace(&mut self.place, place);
        let compiled = self.expression(reader, depth + 1);
        self.place = outer;
        compiled
    }
}

/// The keys of a list of them, sorted.
fn keys(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, ResultCode> {
    let list = canonical(reader.skip().map_err(damaged)?).map_err(damaged)?;
    if has_sentinel(&list) {
        return Err(ResultCode::Parameter);
    }
    let mut items = Reader::new(&list);
    let counted = items.read_array().map_err(damaged)?;
    let (count, _) = msgpack::read_order(&mut items, counted, false).map_err(damaged)?;
    let mut keys = Vec::with_capacity(count as usize);
    for _ in 0..count {
        keys.push(items.skip().map_err(damaged)?.to_vec());
    }
    keys.sort_by(|a, b| compare(a, b));
    keys.dedup_by(|a, b| compare(a, b).is_eq());
    Ok(keys)
}

/// A step that contexts of other operations have, too. It makes nothing.
fn one(kind: i64, reader: &mut Reader<'_>) -> Result<Select, ResultCode> {
    let mut context = Vec::new();
    Writer::new(&mut context).array(2);
    Writer::new(&mut context).int(kind);
    let value = canonical(reader.skip().map_err(damaged)?).map_err(damaged)?;
    context.extend_from_slice(&value);
    let steps = parse_context(&mut Reader::new(&context)).map_err(damaged)??;
    match steps[..] {
        [step] if step.create.is_none() => Ok(Select::One(step.kind, value)),
        _ => Err(ResultCode::Parameter),
    }
}
