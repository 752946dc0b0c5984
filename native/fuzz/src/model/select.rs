//! Which items of a container are meant, and what is told of them.

use super::call::Args;
use super::value::{Item, Shape};
use perigee_wire::ResultCode;

pub(crate) const INVERTED: i64 = 0x10000;
pub(crate) const WANTED: [i64; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 17];

/// A container's items as they lie, and the orders in which they are counted.
pub(crate) struct View<'i> {
    shape: Shape,
    is_ordered: bool,
    /// Key and value; of a list twice the element.
    items: Vec<(&'i Item, &'i Item)>,
    pub(crate) by_index: Vec<usize>,
    pub(crate) by_rank: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Select {
    Key,
    Index,
    OneValue,
    Rank,
    Keys,
    Value,
    Values,
    KeyInterval,
    IndexRange,
    Interval,
    RankRange,
    RelativeIndexes,
    RelativeRanks,
}

/// Named by where they lie, in the order in which they are told.
pub(crate) enum Picked {
    One(Option<usize>),
    Many(Vec<usize>),
}

impl Picked {
    pub(crate) fn all(&self) -> Vec<usize> {
        match self {
            Picked::One(one) => one.iter().copied().collect(),
            Picked::Many(many) => many.clone(),
        }
    }
}

/// The place that an index names, counted from the end if it is negative.
pub(crate) fn place(len: usize, index: i64) -> Option<usize> {
    let at = i128::from(index) + if index < 0 { len as i128 } else { 0 };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// What there is of so many places from an index on.
pub(crate) fn clip(len: usize, index: i64, count: Option<i64>) -> std::ops::Range<usize> {
    let start = i128::from(index) + if index < 0 { len as i128 } else { 0 };
    within(len, start, count)
}

fn within(len: usize, start: i128, count: Option<i64>) -> std::ops::Range<usize> {
    let end = match count {
        Some(count @ 0..) => start + i128::from(count),
        _ => i128::from(u64::MAX),
    };
    let clamp = |at: i128| at.clamp(0, len as i128) as usize;
    clamp(start)..clamp(end).max(clamp(start))
}

impl<'i> View<'i> {
    pub(crate) fn of(container: &'i Item) -> View<'i> {
        let (shape, is_ordered, items): (_, _, Vec<_>) = match container {
            Item::List(order, items) => {
                let items = items.iter().map(|item| (item, item)).collect();
                (Shape::List, *order != 0, items)
            }
            Item::Map(order, pairs) => {
                let pairs = pairs.iter().map(|(key, value)| (key, value)).collect();
                (Shape::Map, *order != 0, pairs)
            }
            _ => panic!("{container:?} is no container"),
        };
        let mut by_index: Vec<usize> = (0..items.len()).collect();
        if shape == Shape::Map {
            by_index.sort_by(|a, b| items[*a].0.compare(items[*b].0));
        }
        let mut by_rank = by_index.clone();
        by_rank.sort_by(|a, b| items[*a].1.compare(items[*b].1));
        View {
            shape,
            is_ordered,
            items,
            by_index,
            by_rank,
        }
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn value(&self, at: usize) -> &Item {
        self.items[at].1
    }

    /// By index those for which something holds of key and value.
    fn filtered(&self, wanted: impl Fn(&Item, &Item) -> bool) -> Picked {
        let of = |at: &usize| wanted(self.items[*at].0, self.items[*at].1);
        Picked::Many(self.by_index.iter().copied().filter(of).collect())
    }

    pub(crate) fn find_value(&self, value: &Item) -> Option<usize> {
        let is_it = |at: &usize| self.value(*at).equals(value);
        self.by_index.iter().copied().find(is_it)
    }

    pub(crate) fn find_key(&self, key: &Item) -> Option<usize> {
        self.items.iter().position(|(known, _)| known.equals(key))
    }

    /// An unordered list is told backwards where the upper end is not the nearer one.
    fn at_ranks(&self, ranks: std::ops::Range<usize>) -> Picked {
        let backwards =
            self.shape == Shape::List && !self.is_ordered && ranks.end <= self.len() - ranks.start;
        let mut picked = self.by_rank[ranks].to_vec();
        if backwards {
            picked.reverse();
        }
        Picked::Many(picked)
    }

    /// What a selection means, in the order in which it is told.
    pub(crate) fn pick(
        &self,
        select: Select,
        returns: i64,
        args: &mut Args<'_>,
    ) -> Result<Picked, ResultCode> {
        let (wants_rank, is_inverted) = (
            matches!(returns & !INVERTED, 3 | 4),
            returns & INVERTED != 0,
        );
        let wanted = match select {
            Select::Values if !is_inverted => args.peek().list(),
            _ => &[],
        };
        let picked = self.picked(select, args)?;
        let mut picked = self.turned(picked, returns);
        if let Picked::Many(picked) = &mut picked {
            let is_list_by_value = self.shape == Shape::List && self.is_ordered;
            let place = |at: &usize| wanted.iter().position(|it| it.equals(self.value(*at)));
            match select {
                Select::RankRange | Select::RelativeRanks if is_inverted => self.rank(picked),
                Select::OneValue | Select::Value | Select::Interval if wants_rank => {
                    self.rank(picked);
                }
                Select::Values if wants_rank || is_list_by_value => {
                    self.rank(picked);
                    picked.sort_by_key(place);
                }
                _ => {}
            }
        }
        Ok(picked)
    }

    fn rank(&self, picked: &mut [usize]) {
        picked.sort_by_key(|at| self.by_rank.iter().position(|other| other == at));
    }

    fn picked(&self, select: Select, args: &mut Args<'_>) -> Result<Picked, ResultCode> {
        let len = self.len();
        let is_within = |value: &Item, begin: &Item, end: Option<&Item>| {
            value.compare(begin).is_ge() && end.is_none_or(|end| value.compare(end).is_lt())
        };
        Ok(match select {
            Select::Key => Picked::One(self.find_key(args.value())),
            Select::Index | Select::Rank => {
                let at = place(len, args.int()).ok_or(ResultCode::OpNotApplicable)?;
                Picked::One(Some(match select {
                    Select::Index => self.by_index[at],
                    _ => self.by_rank[at],
                }))
            }
            Select::OneValue => Picked::One(self.find_value(args.value())),
            Select::Value => {
                let wanted = args.value();
                self.filtered(|_, value| value.equals(wanted))
            }
            Select::Values | Select::Keys => {
                let wanted = args.list();
                self.filtered(|key, value| {
                    let of = if let Select::Keys = select {
                        key
                    } else {
                        value
                    };
                    wanted.iter().any(|wanted| wanted.equals(of))
                })
            }
            Select::KeyInterval => {
                let (begin, end) = (args.value(), args.value_or_none());
                self.filtered(|key, _| is_within(key, begin, end))
            }
            Select::Interval => {
                let (begin, end) = (args.value(), args.value_or_none());
                self.filtered(|_, value| is_within(value, begin, end))
            }
            Select::IndexRange => {
                let range = clip(len, args.int(), args.count());
                Picked::Many(self.by_index[range].to_vec())
            }
            Select::RankRange => self.at_ranks(clip(len, args.int(), args.count())),
            Select::RelativeIndexes => {
                let key = args.value();
                let less = self.items.iter().filter(|it| it.0.compare(key).is_lt());
                let to = less.count() as i128 + i128::from(args.int());
                Picked::Many(self.by_index[within(len, to, args.count())].to_vec())
            }
            Select::RelativeRanks => {
                let value = args.value();
                let less = self.items.iter().filter(|it| it.1.compare(value).is_lt());
                let to = less.count() as i128 + i128::from(args.int());
                self.at_ranks(within(len, to, args.count()))
            }
        })
    }

    /// All others, if the return type says so.
    fn turned(&self, picked: Picked, returns: i64) -> Picked {
        if returns & INVERTED == 0 {
            return picked;
        }
        let all = picked.all();
        let others = self.by_index.iter().copied();
        Picked::Many(others.filter(|at| !all.contains(at)).collect())
    }

    pub(crate) fn result(&self, picked: &Picked, returns: i64) -> Result<Option<Item>, ResultCode> {
        let wanted = returns & !INVERTED;
        if self.shape == Shape::List && matches!(wanted, 6 | 8 | 16 | 17) {
            return Err(ResultCode::Parameter);
        }
        let all = picked.all();
        let each = |none: Item, of: &dyn Fn(usize) -> Item| match picked {
            Picked::One(None) => none,
            Picked::One(Some(at)) => of(*at),
            Picked::Many(many) => Item::List(0, many.iter().map(|at| of(*at)).collect()),
        };
        let place_in = |order: &[usize], at: usize| {
            order
                .iter()
                .position(|other| *other == at)
                .expect("it is there") as i64
        };
        let last = self.len() as i64 - 1;
        let nowhere = Item::Int(-1);
        let pair = |at: &usize| (self.items[*at].0.clone(), self.value(*at).clone());
        let pairs = || -> Vec<(Item, Item)> { all.iter().map(pair).collect() };
        Ok(Some(match wanted {
            0 => return Ok(None),
            1 => each(nowhere, &|at| Item::Int(place_in(&self.by_index, at))),
            2 => each(nowhere, &|at| {
                Item::Int(last - place_in(&self.by_index, at))
            }),
            3 => each(nowhere, &|at| Item::Int(place_in(&self.by_rank, at))),
            4 => each(nowhere, &|at| Item::Int(last - place_in(&self.by_rank, at))),
            5 => Item::Int(all.len() as i64),
            6 => each(Item::Nil, &|at| self.items[at].0.clone()),
            7 => each(Item::Nil, &|at| self.value(at).clone()),
            8 => Item::Map(8, pairs()),
            13 => Item::Bool(!all.is_empty()),
            16 => Item::Map(0, pairs()),
            17 => {
                let mut pairs = pairs();
                pairs.sort_by(|a, b| a.0.compare(&b.0));
                Item::Map(1, pairs)
            }
            other => panic!("return type {other}"),
        }))
    }
}
