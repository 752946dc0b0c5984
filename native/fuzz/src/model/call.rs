//! Operations as data: made from what a fuzzer gives, written as a client would, and taken apart by the model.

use super::select::{INVERTED, Picked, Select, View, WANTED, place};
use super::value::{Item, Shape, insert_ordered};
use super::{Changed, list, map};
use arbitrary::{Result, Unstructured};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::Writer;

const STEPS_MAX: usize = 3;
const PADDING_MAX: usize = 1 << 20;

/// A list or map operation with its context.
#[derive(Debug)]
pub(crate) struct Call {
    pub steps: Vec<Step>,
    pub code: u8,
    pub args: Vec<Item>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub kind: StepKind,
    pub value: Item,
    /// 1 to 3 where it makes what is missing.
    pub create: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StepKind {
    ListIndex = 0x10,
    ListRank = 0x11,
    ListValue = 0x13,
    MapIndex = 0x20,
    MapRank = 0x21,
    MapKey = 0x22,
    MapValue = 0x23,
}

impl StepKind {
    pub(crate) fn shape(self) -> Shape {
        match self {
            StepKind::ListIndex | StepKind::ListRank | StepKind::ListValue => Shape::List,
            _ => Shape::Map,
        }
    }
}

impl Step {
    /// Where it leads to.
    pub(crate) fn place(&self, container: &Item) -> Option<usize> {
        let view = View::of(container);
        let at = |order: &[usize]| match self.value {
            Item::Int(index) => place(order.len(), index).map(|at| order[at]),
            _ => None,
        };
        match self.kind {
            StepKind::ListIndex | StepKind::MapIndex => at(&view.by_index),
            StepKind::ListRank | StepKind::MapRank => at(&view.by_rank),
            StepKind::ListValue | StepKind::MapValue => view.find_value(&self.value),
            StepKind::MapKey => view.find_key(&self.value),
        }
    }

    /// What it makes, empty, where it makes something.
    pub(crate) fn created(&self, shape: Shape) -> Option<Item> {
        let order = match (self.create?, shape) {
            (2, Shape::Map) | (3, Shape::List) => 1,
            (3, Shape::Map) => 3,
            _ => 0,
        };
        Some(Item::empty(shape, order))
    }

    /// The container with what was made in it.
    pub(crate) fn with_created(
        &self,
        container: &Item,
        child: Item,
    ) -> std::result::Result<Item, ResultCode> {
        let mut new = container.clone();
        match (&mut new, self.kind, &self.value) {
            (Item::Map(order, pairs), StepKind::MapKey, key) => {
                pairs.push((key.clone(), child));
                if *order != 0 {
                    pairs.sort_by(|a, b| a.0.compare(&b.0));
                }
            }
            (Item::List(1, items), StepKind::ListIndex, Item::Int(index))
                if usize::try_from(*index) == Ok(items.len()) =>
            {
                items.push(child);
                items.sort_by(Item::compare);
            }
            (Item::List(0, items), StepKind::ListIndex, Item::Int(index)) => {
                let beyond = usize::try_from(*index)
                    .ok()
                    .and_then(|index| index.checked_sub(items.len()))
                    .filter(|beyond| *beyond == 0 || self.create == Some(2))
                    .ok_or(ResultCode::OpNotApplicable)?;
                if beyond > PADDING_MAX {
                    return Err(ResultCode::RecordTooBig);
                }
                items.extend(std::iter::repeat_n(Item::Nil, beyond));
                items.push(child);
            }
            _ => return Err(ResultCode::OpNotApplicable),
        }
        Ok(new)
    }

    fn arbitrary(at: Option<&Item>, input: &mut Unstructured<'_>) -> Result<Step> {
        let kinds = match at.and_then(Item::shape) {
            Some(Shape::Map) => &[
                StepKind::MapKey,
                StepKind::MapKey,
                StepKind::MapIndex,
                StepKind::MapRank,
                StepKind::MapValue,
            ][..],
            _ => &[
                StepKind::ListIndex,
                StepKind::ListIndex,
                StepKind::ListRank,
                StepKind::ListValue,
            ],
        };
        let kind = *input.choose(kinds)?;
        let value = match kind {
            StepKind::MapKey | StepKind::MapValue | StepKind::ListValue => {
                similar(at, kind == StepKind::MapKey, input)?
            }
            _ => Item::Int(index(input)?),
        };
        let create = match input.int_in_range(0..=5)? {
            create @ 1..=3 => Some(create),
            _ => None,
        };
        Ok(Step {
            kind,
            value,
            create,
        })
    }
}

/// A key or value of a container most often, so that it is found.
fn similar(at: Option<&Item>, is_key: bool, input: &mut Unstructured<'_>) -> Result<Item> {
    match at {
        Some(Item::List(_, items)) if !items.is_empty() && input.ratio(2, 3)? => {
            Ok(input.choose(items)?.clone())
        }
        Some(Item::Map(_, pairs)) if !pairs.is_empty() && input.ratio(2, 3)? => {
            let (key, value) = input.choose(pairs)?;
            Ok(if is_key { key.clone() } else { value.clone() })
        }
        _ if is_key => Item::scalar(input),
        _ => Item::arbitrary(1, input),
    }
}

fn index(input: &mut Unstructured<'_>) -> Result<i64> {
    Ok(match input.int_in_range(0..=31)? {
        0 => *input.choose(&[i64::MIN, i64::MAX, 1 << 40])?,
        1 => input.int_in_range(-200..=200)?,
        _ => input.int_in_range(-6..=7)?,
    })
}

impl Call {
    pub(crate) fn shape(&self) -> Shape {
        if self.code < 64 {
            Shape::List
        } else {
            Shape::Map
        }
    }

    pub(crate) fn is_modify(&self) -> bool {
        matches!(self.code, 0..=13 | 32..=40 | 64..=89)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.steps.is_empty() {
            Writer::new(&mut out).array(3);
            Writer::new(&mut out).int(0xff);
            Writer::new(&mut out).array(2 * self.steps.len() as u32);
            for step in &self.steps {
                let create = i64::from(step.create.unwrap_or(0)) << 6;
                Writer::new(&mut out).int(step.kind as i64 | create);
                step.value.write(&mut out);
            }
        }
        Writer::new(&mut out).array(1 + self.args.len() as u32);
        Writer::new(&mut out).int(i64::from(self.code));
        self.args.iter().for_each(|arg| arg.write(&mut out));
        out
    }

    pub(crate) fn apply(&self, value: Option<&Item>) -> std::result::Result<Changed, ResultCode> {
        if let Some(value) = value
            && value.shape() != Some(self.shape())
        {
            return Err(ResultCode::IncompatibleType);
        }
        match (value, self.shape()) {
            (None, _) if !self.is_modify() => Ok(Changed::default()),
            (_, Shape::List) => list::apply(value, self),
            (_, Shape::Map) => map::apply(value, self),
        }
    }

    /// Of an operation that selects: what is read, and what is left if it removes that.
    pub(crate) fn selected(
        &self,
        container: &Item,
        select: Select,
    ) -> std::result::Result<Changed, ResultCode> {
        let mut args = Args(&self.args);
        let returns = args.int();
        let view = View::of(container);
        let picked = view.pick(select, returns, &mut args)?;
        Ok(Changed {
            result: view.result(&picked, returns)?,
            value: self.is_modify().then(|| without(container, &picked)),
        })
    }

    pub(crate) fn arbitrary(
        shape: Shape,
        value: Option<&Item>,
        input: &mut Unstructured<'_>,
    ) -> Result<Call> {
        let mut steps = Vec::new();
        let mut at = value;
        let empty = Item::empty(shape, 0);
        if input.ratio(1, 3)? {
            for _ in 0..input.int_in_range(1..=STEPS_MAX)? {
                let from = at.or(steps.is_empty().then_some(&empty));
                let step = Step::arbitrary(from, input)?;
                at = at
                    .filter(|at| at.shape() == Some(step.kind.shape()))
                    .and_then(|at| Some(at.child(step.place(at)?)));
                steps.push(step);
            }
        }
        // Now and then of the other kind.
        let wanted = match at.and_then(Item::shape) {
            Some(shape) if !input.ratio(1, 40)? => shape,
            _ if steps.is_empty() => shape,
            _ => *input.choose(&[Shape::List, Shape::Map])?,
        };
        let at = at.filter(|at| at.shape() == Some(wanted));
        let (code, args) = match wanted {
            Shape::List => list::arbitrary(at, input)?,
            Shape::Map => map::arbitrary(at, input)?,
        };
        Ok(Call { steps, code, args })
    }
}

fn without(container: &Item, picked: &Picked) -> Item {
    let removed = picked.all();
    let mut new = container.clone();
    let mut at = 0;
    let mut stays = || {
        at += 1;
        !removed.contains(&(at - 1))
    };
    match &mut new {
        Item::List(_, items) => items.retain(|_| stays()),
        Item::Map(_, pairs) => pairs.retain(|_| stays()),
        _ => panic!("{container:?} is no container"),
    }
    new
}

/// Arguments as they are taken one after the other; the model is only given right ones.
pub(crate) struct Args<'a>(pub &'a [Item]);

impl<'a> Args<'a> {
    pub(crate) fn value_or_none(&mut self) -> Option<&'a Item> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    pub(crate) fn value(&mut self) -> &'a Item {
        self.value_or_none().expect("an argument")
    }

    pub(crate) fn int(&mut self) -> i64 {
        self.int_or(None)
    }

    pub(crate) fn flags(&mut self) -> i64 {
        self.int_or(Some(0))
    }

    pub(crate) fn count(&mut self) -> Option<i64> {
        (!self.0.is_empty()).then(|| self.int())
    }

    fn int_or(&mut self, default: Option<i64>) -> i64 {
        match (self.value_or_none(), default) {
            (Some(Item::Int(value)), _) => *value,
            (None, Some(default)) => default,
            (found, _) => panic!("{found:?} where a number is expected"),
        }
    }

    /// The same arguments, to be read once more.
    pub(crate) fn peek(&self) -> Args<'a> {
        Args(self.0)
    }

    pub(crate) fn list(&mut self) -> &'a [Item] {
        match self.value() {
            Item::List(_, items) => items,
            other => panic!("{other:?} where a list is expected"),
        }
    }
}

/// Arguments of an operation that selects.
pub(crate) fn selection(
    select: Select,
    at: Option<&Item>,
    input: &mut Unstructured<'_>,
) -> Result<Vec<Item>> {
    let inverted = if input.ratio(1, 4)? { INVERTED } else { 0 };
    let returns = Item::Int(*input.choose(&WANTED)? | inverted);
    let mut args = vec![returns];
    let is_key = matches!(
        select,
        Select::Key | Select::Keys | Select::KeyInterval | Select::RelativeIndexes
    );
    match select {
        Select::Index | Select::Rank => args.push(Item::Int(index(input)?)),
        Select::Key | Select::OneValue | Select::Value => args.push(similar(at, is_key, input)?),
        Select::Keys | Select::Values => {
            let mut wanted = Vec::new();
            for _ in 0..input.int_in_range(0..=5)? {
                wanted.push(similar(at, is_key, input)?);
            }
            args.push(Item::List(0, wanted));
        }
        Select::Interval | Select::KeyInterval => {
            args.push(similar(at, is_key, input)?);
            if input.arbitrary()? {
                args.push(similar(at, is_key, input)?);
            }
        }
        Select::IndexRange | Select::RankRange => counted(&mut args, input)?,
        Select::RelativeIndexes | Select::RelativeRanks => {
            args.push(similar(at, is_key, input)?);
            counted(&mut args, input)?;
        }
    }
    Ok(args)
}

/// An index, and most often a number of items.
pub(crate) fn counted(args: &mut Vec<Item>, input: &mut Unstructured<'_>) -> Result<()> {
    args.push(Item::Int(index(input)?));
    if input.ratio(3, 4)? {
        args.push(Item::Int(input.int_in_range(-1..=6)?));
    }
    Ok(())
}

pub(crate) fn indexed(input: &mut Unstructured<'_>) -> Result<Item> {
    index(input).map(Item::Int)
}

/// Something to be stored.
pub(crate) fn element(at: Option<&Item>, input: &mut Unstructured<'_>) -> Result<Item> {
    if input.ratio(1, 3)? {
        similar(at, false, input)
    } else {
        Item::arbitrary(2, input)
    }
}

pub(crate) fn key(at: Option<&Item>, input: &mut Unstructured<'_>) -> Result<Item> {
    similar(at, true, input)
}

/// The sum that an element becomes, or the difference.
pub(crate) fn sum(
    old: Option<&Item>,
    delta: &Item,
    sign: i64,
) -> std::result::Result<Item, ResultCode> {
    let old = match (old, delta) {
        (Some(old), _) => old.clone(),
        (None, Item::Float(_)) => Item::Float(0.0),
        (None, _) => Item::Int(0),
    };
    match (old, delta) {
        (Item::Int(old), Item::Int(delta)) => {
            Ok(Item::Int(old.wrapping_add(delta.wrapping_mul(sign))))
        }
        (Item::Float(old), Item::Float(delta)) => Ok(Item::Float(old + delta * sign as f64)),
        (Item::Float(old), Item::Int(delta)) => Ok(Item::Float(old + *delta as f64 * sign as f64)),
        _ => Err(ResultCode::Parameter),
    }
}

pub(crate) fn delta(input: &mut Unstructured<'_>) -> Result<Item> {
    Ok(match input.int_in_range(0..=7)? {
        0 => Item::Float(0.5),
        1 => Item::Int(input.arbitrary()?),
        2 => Item::Str(b"a".to_vec()),
        _ => Item::Int(input.int_in_range(-3..=3)?),
    })
}

pub(crate) fn put_in_order(items: &mut Vec<Item>, item: Item, order: u8, at: usize) {
    if order != 0 {
        insert_ordered(items, item);
    } else {
        items.insert(at, item);
    }
}
