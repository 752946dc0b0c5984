//! Values as a plain tree, with the order that the protocol gives them.

use arbitrary::{Result, Unstructured};
use perigee_wire::msgpack::Writer;
use perigee_wire::particle_type as particle;
use std::cmp::Ordering;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    List,
    Map,
}

#[derive(Clone, Debug)]
pub(crate) enum Item {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Vec<u8>),
    Blob(Vec<u8>),
    /// With its order: 0 none, 1 by value.
    List(u8, Vec<Item>),
    /// With its order: 0 none, 1 by key, 3 by key and found by value; 8 in results, as selected.
    Map(u8, Vec<(Item, Item)>),
}

impl Item {
    pub(crate) fn empty(shape: Shape, order: u8) -> Item {
        match shape {
            Shape::List => Item::List(order, Vec::new()),
            Shape::Map => Item::Map(order, Vec::new()),
        }
    }

    /// None of what is no container.
    pub(crate) fn shape(&self) -> Option<Shape> {
        match self {
            Item::List(..) => Some(Shape::List),
            Item::Map(..) => Some(Shape::Map),
            _ => None,
        }
    }

    fn class(&self) -> u8 {
        match self {
            Item::Nil => 0,
            Item::Bool(_) => 1,
            Item::Int(_) => 2,
            Item::Str(_) => 3,
            Item::List(..) => 4,
            Item::Map(..) => 5,
            Item::Blob(_) => 6,
            Item::Float(_) => 7,
        }
    }

    /// Floats are numbers here, and no zero is negative.
    pub(crate) fn compare(&self, other: &Item) -> Ordering {
        match (self, other) {
            (Item::Bool(a), Item::Bool(b)) => a.cmp(b),
            (Item::Int(a), Item::Int(b)) => a.cmp(b),
            (Item::Float(a), Item::Float(b)) => a.total_cmp(b),
            (Item::Str(a), Item::Str(b)) | (Item::Blob(a), Item::Blob(b)) => a.cmp(b),
            (Item::List(_, a), Item::List(_, b)) => {
                let unequal = a.iter().zip(b).map(|(a, b)| a.compare(b));
                let first = unequal.into_iter().find(|order| order.is_ne());
                first.unwrap_or(a.len().cmp(&b.len()))
            }
            (Item::Map(_, a), Item::Map(_, b)) => a.len().cmp(&b.len()).then_with(|| {
                let (a, b) = (by_key(a), by_key(b));
                let orders = a
                    .iter()
                    .zip(&b)
                    .map(|(a, b)| a.0.compare(&b.0).then_with(|| a.1.compare(&b.1)));
                orders
                    .into_iter()
                    .find(|order| order.is_ne())
                    .unwrap_or(Ordering::Equal)
            }),
            _ => self.class().cmp(&other.class()),
        }
    }

    pub(crate) fn equals(&self, other: &Item) -> bool {
        self.compare(other).is_eq()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        match self {
            Item::Nil => writer.nil(),
            Item::Bool(value) => writer.bool(*value),
            Item::Int(value) => writer.int(*value),
            Item::Float(value) => writer.float(*value),
            Item::Str(bytes) => writer.particle(particle::STRING, bytes),
            Item::Blob(bytes) => writer.particle(particle::BLOB, bytes),
            Item::List(order, items) => {
                writer.container(false, *order, items.len() as u32);
                items.iter().for_each(|item| item.write(out));
            }
            Item::Map(order, pairs) => {
                writer.container(true, *order, pairs.len() as u32);
                for (key, value) in pairs {
                    key.write(out);
                    value.write(out);
                }
            }
        }
    }

    /// A list of elements, or a map's value of a pair.
    pub(crate) fn child(&self, at: usize) -> &Item {
        match self {
            Item::List(_, items) => &items[at],
            Item::Map(_, pairs) => &pairs[at].1,
            _ => panic!("no child of {self:?}"),
        }
    }

    /// With another value for a child. In an ordered list it goes to where it belongs.
    pub(crate) fn with_child(&self, at: usize, child: Item) -> Item {
        let mut new = self.clone();
        match &mut new {
            Item::List(0, items) => items[at] = child,
            Item::List(_, items) => {
                items.remove(at);
                insert_ordered(items, child);
            }
            Item::Map(_, pairs) => pairs[at].1 = child,
            _ => panic!("no child of {self:?}"),
        }
        new
    }

    /// Few different ones, so that they meet.
    pub(crate) fn scalar(input: &mut Unstructured<'_>) -> Result<Item> {
        Ok(match input.int_in_range(0..=15)? {
            0 => Item::Nil,
            1 => Item::Bool(input.arbitrary()?),
            2 => Item::Int(input.arbitrary()?),
            3 => Item::Float(*input.choose(&[-2.5, 0.5, 1.0, 7.25])?),
            4 | 5 => Item::Str(
                input
                    .choose(&["", "a", "b", "ab", "abc"])?
                    .as_bytes()
                    .into(),
            ),
            6 => Item::Blob(vec![input.int_in_range(0..=2)?]),
            7 => Item::Int(i64::from(input.arbitrary::<i16>()?)),
            _ => Item::Int(input.int_in_range(0..=9)?),
        })
    }

    pub(crate) fn arbitrary(depth: usize, input: &mut Unstructured<'_>) -> Result<Item> {
        if depth == 0 || input.ratio(3, 4)? {
            return Item::scalar(input);
        }
        let shape = *input.choose(&[Shape::List, Shape::Map])?;
        let count = input.int_in_range(0..=4)?;
        Item::of(shape, count, depth - 1, input)
    }

    /// A container that operations begin with; now and then so large that it has an index.
    pub(crate) fn container(shape: Shape, input: &mut Unstructured<'_>) -> Result<Item> {
        if input.ratio(1, 12)? {
            let seed: u16 = input.arbitrary()?;
            let order = order(shape, input)?;
            return Ok(Item::large(shape, order, u64::from(seed)));
        }
        let count = input.int_in_range(0..=8)?;
        Item::of(shape, count, 2, input)
    }

    fn of(shape: Shape, count: usize, depth: usize, input: &mut Unstructured<'_>) -> Result<Item> {
        let order = order(shape, input)?;
        let mut items = Vec::new();
        for _ in 0..count {
            let key = match shape {
                Shape::List => Item::Nil,
                Shape::Map => Item::scalar(input)?,
            };
            items.push((key, Item::arbitrary(depth, input)?));
        }
        Ok(Item::made(shape, order, items))
    }

    /// In its order, each key once. A list has the values.
    fn made(shape: Shape, order: u8, items: Vec<(Item, Item)>) -> Item {
        match shape {
            Shape::List => {
                let mut items: Vec<Item> = items.into_iter().map(|(_, value)| value).collect();
                if order != 0 {
                    items.sort_by(Item::compare);
                }
                Item::List(order, items)
            }
            Shape::Map => {
                let mut pairs: Vec<(Item, Item)> = Vec::new();
                for (key, value) in items {
                    if !pairs.iter().any(|(known, _)| known.equals(&key)) {
                        pairs.push((key, value));
                    }
                }
                if order != 0 {
                    pairs.sort_by(|a, b| a.0.compare(&b.0));
                }
                Item::Map(order, pairs)
            }
        }
    }

    fn large(shape: Shape, order: u8, mut seed: u64) -> Item {
        let mut next = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let count = 120 + next(60);
        let items = (0..count).map(|_| {
            let key = Item::Int(next(1 << 20) as i64);
            let value = match next(4) {
                0 => Item::Str(vec![b'x'; next(40) as usize]),
                1 => Item::List(0, vec![Item::Int(next(9) as i64)]),
                _ => Item::Int(next(300) as i64),
            };
            (key, value)
        });
        Item::made(shape, order, items.collect())
    }
}

fn order(shape: Shape, input: &mut Unstructured<'_>) -> Result<u8> {
    match shape {
        Shape::List => Ok(*input.choose(&[0, 1])?),
        Shape::Map => Ok(*input.choose(&[0, 1, 3])?),
    }
}

fn by_key(pairs: &[(Item, Item)]) -> Vec<&(Item, Item)> {
    let mut sorted: Vec<_> = pairs.iter().collect();
    sorted.sort_by(|a, b| a.0.compare(&b.0));
    sorted
}

/// Behind those that it equals.
pub(crate) fn insert_ordered(items: &mut Vec<Item>, item: Item) {
    let at = items.partition_point(|other| other.compare(&item).is_le());
    items.insert(at, item);
}
