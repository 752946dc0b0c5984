//! Which items of a container an operation is about, and what is said of them.

use super::container::{Container, Order};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{Reader, Writer, compare, has_sentinel, order};
use std::ops::Range;

/// What is returned of the selected items (section 13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    Nothing,
    Index,
    ReverseIndex,
    Rank,
    ReverseRank,
    Count,
    Key,
    Value,
    KeyValue,
    Exists,
    UnorderedMap,
    OrderedMap,
}

/// The return type of a request: what, and whether of the items that were not selected.
#[derive(Clone, Copy, Debug)]
pub struct ReturnType {
    pub wanted: Wanted,
    pub inverted: bool,
}

const INVERTED: i64 = 0x10000;

impl ReturnType {
    pub fn parse(value: i64) -> Result<ReturnType, ResultCode> {
        let wanted = match value & !INVERTED {
            0 => Wanted::Nothing,
            1 => Wanted::Index,
            2 => Wanted::ReverseIndex,
            3 => Wanted::Rank,
            4 => Wanted::ReverseRank,
            5 => Wanted::Count,
            6 => Wanted::Key,
            7 => Wanted::Value,
            8 => Wanted::KeyValue,
            13 => Wanted::Exists,
            16 => Wanted::UnorderedMap,
            17 => Wanted::OrderedMap,
            _ => return Err(ResultCode::OpNotApplicable),
        };
        Ok(ReturnType {
            wanted,
            inverted: value & INVERTED != 0,
        })
    }

    pub fn wants_rank(self) -> bool {
        matches!(self.wanted, Wanted::Rank | Wanted::ReverseRank)
    }
}

/// Items, in the order in which they are returned, named by where they lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Picked {
    /// One, and the result is about it alone; or none where one was looked for.
    One(Option<usize>),
    Range(Range<usize>),
    Some(Vec<u32>),
}

impl Picked {
    pub fn len(&self) -> usize {
        match self {
            Picked::One(one) => usize::from(one.is_some()),
            Picked::Range(range) => range.len(),
            Picked::Some(items) => items.len(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let (range, items): (_, &[u32]) = match self {
            Picked::One(Some(one)) => (*one..one + 1, &[]),
            Picked::One(None) => (0..0, &[]),
            Picked::Range(range) => (range.clone(), &[]),
            Picked::Some(items) => (0..0, items),
        };
        range.chain(items.iter().map(|at| *at as usize))
    }

    /// In the order in which the items lie.
    pub fn sorted(&self) -> Vec<usize> {
        let mut sorted: Vec<_> = self.iter().collect();
        sorted.sort_unstable();
        sorted
    }

    /// What was not picked, by index.
    fn inverted(&self, of: &Container<'_>) -> Picked {
        let mut is_picked = vec![false; of.len()];
        self.iter().for_each(|at| is_picked[at] = true);
        let by_index = of.by_index();
        let at = (0..of.len()).map(|place| by_index.at(place));
        Picked::Some(
            at.filter(|at| !is_picked[*at])
                .map(|at| at as u32)
                .collect(),
        )
    }

    /// As the request's return type asks.
    pub fn turned(self, of: &Container<'_>, returns: ReturnType) -> Picked {
        if returns.inverted {
            self.inverted(of)
        } else {
            self
        }
    }

    /// As the request's return type asks, of items that are selected by their values: ranks are told in order.
    pub fn turned_by_value(self, of: &Container<'_>, returns: ReturnType) -> Picked {
        match self.turned(of, returns) {
            picked if returns.wants_rank() => picked.ranked(of),
            picked => picked,
        }
    }

    /// As the request's return type asks, of items that are selected by their ranks: the others come by rank, too.
    pub fn turned_by_rank(self, of: &Container<'_>, returns: ReturnType) -> Picked {
        match self.turned(of, returns) {
            picked if returns.inverted => picked.ranked(of),
            picked => picked,
        }
    }

    /// Items that come by index, by rank.
    fn ranked(self, of: &Container<'_>) -> Picked {
        match self {
            Picked::Some(mut items) => {
                items.sort_by(|a, b| compare(of.value(*a as usize), of.value(*b as usize)));
                Picked::Some(items)
            }
            picked => picked,
        }
    }
}

/// The part of `len` items from `index` on, which counts from the end where it is negative: what of it there is.
pub fn clip(len: usize, index: i64, count: u64) -> Range<usize> {
    let len = len as i128;
    let start = if index < 0 {
        len + i128::from(index)
    } else {
        i128::from(index)
    };
    let end = start + i128::from(count);
    start.clamp(0, len) as usize..end.clamp(0, len) as usize
}

/// The place that an index or rank names, if there is one.
pub fn place(len: usize, index: i64) -> Option<usize> {
    let at = if index < 0 {
        index.checked_add(len as i64)?
    } else {
        index
    };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// The items at a range of places in an order.
pub fn at_places(order: Order<'_>, places: Range<usize>) -> Picked {
    if order.is_lying() {
        return Picked::Range(places);
    }
    Picked::Some(places.map(|place| order.at(place) as u32).collect())
}

/// The items at a range of ranks. The nearer end decides the direction in an unordered list, as clients of this protocol
/// are used to: away from the lowest ranks, or as far from both, they come highest first.
pub fn at_ranks(of: &Container<'_>, ranks: Range<usize>) -> Picked {
    let is_near_lowest = ranks.end <= of.len() - ranks.start;
    match at_places(of.by_rank(), ranks) {
        Picked::Some(mut items) if !of.is_map && is_near_lowest => {
            items.reverse();
            Picked::Some(items)
        }
        picked => picked,
    }
}

/// The rank of the first item whose value is not less than `value`.
pub fn rank_of(of: &Container<'_>, value: &[u8]) -> usize {
    of.partition_point(of.by_rank(), |item| {
        compare(of.value_of(item), value).is_lt()
    })
}

/// The index of the first item whose key is not less than `key`.
pub fn index_of_key(of: &Container<'_>, key: &[u8]) -> usize {
    of.partition_point(of.by_index(), |item| compare(of.key_of(item), key).is_lt())
}

/// Places relative to one, which may lie before the first.
pub fn relative(len: usize, to: usize, offset: i64, count: u64) -> Range<usize> {
    let len = len as i128;
    let start = to as i128 + i128::from(offset);
    let end = start + i128::from(count);
    start.clamp(0, len) as usize..end.clamp(0, len) as usize
}

/// Whether a value is in the interval from `begin` on and before `end`. Nil begins before all but itself.
pub fn is_within(value: &[u8], begin: &[u8], end: Option<&[u8]>) -> bool {
    compare(value, begin).is_ge() && end.is_none_or(|end| compare(value, end).is_lt())
}

/// Comparisons with wildcards that one operation may take, which are made one by one.
const WILDCARD_WORK_MAX: usize = 1 << 24;

/// The values to look for, of an argument that is a list of them, and how a value is looked for among them.
pub struct Wants<'a> {
    /// Each with its place in the argument; of equal ones the first comes first.
    sorted: Vec<(&'a [u8], usize)>,
    /// Those that have a sentinel in them, as they come in the argument.
    with_wildcards: Vec<(&'a [u8], usize)>,
}

impl<'a> Wants<'a> {
    /// What is looked for among so many items. PARAMETER if that would be too much to be looked for one by one.
    pub fn parse(list: &'a [u8], among: usize) -> Result<Wants<'a>, ResultCode> {
        let list = Container::parse(list).map_err(|_| ResultCode::Parameter)?;
        if list.is_map {
            return Err(ResultCode::Parameter);
        }
        let places = list.items().zip(0..);
        let (with_wildcards, mut sorted): (Vec<_>, Vec<_>) =
            places.partition(|(item, _)| has_sentinel(item));
        if with_wildcards.len().saturating_mul(among) > WILDCARD_WORK_MAX {
            return Err(ResultCode::Parameter);
        }
        sorted.sort_by(|(a, _), (b, _)| compare(a, b));
        Ok(Wants {
            sorted,
            with_wildcards,
        })
    }

    pub fn has(&self, value: &[u8]) -> bool {
        self.sorted
            .binary_search_by(|(want, _)| compare(want, value))
            .is_ok()
            || self
                .with_wildcards
                .iter()
                .any(|(want, _)| compare(want, value).is_eq())
    }

    /// The place in the argument of the first that a value equals.
    fn place_of(&self, value: &[u8]) -> Option<usize> {
        let is_it = |want: &&(&[u8], usize)| compare(want.0, value).is_eq();
        let first = (self.sorted).partition_point(|(want, _)| compare(want, value).is_lt());
        let plain = self.sorted.get(first).filter(is_it);
        let wildcard = self.with_wildcards.iter().find(is_it);
        plain.into_iter().chain(wildcard).map(|want| want.1).min()
    }

    pub fn has_wildcard(&self) -> bool {
        !self.with_wildcards.is_empty()
    }

    /// Those without a wildcard, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.sorted.iter().map(|(want, _)| *want)
    }
}

/// The items that have one of the wanted values. An ordered list gives them in the order of the argument, and so does any
/// container when it is asked for ranks; otherwise they come by index.
pub fn with_values(of: &Container<'_>, wants: &Wants<'_>, returns: ReturnType) -> Picked {
    let is_list_by_value = !of.is_map && of.is_ordered();
    if returns.inverted || !(is_list_by_value || returns.wants_rank()) {
        return filtered(of, |item| wants.has(of.value_of(item)));
    }
    let by_rank = of.by_rank();
    let at = (0..of.len()).map(|rank| by_rank.at(rank));
    let mut placed: Vec<(usize, u32)> = at
        .filter_map(|at| Some((wants.place_of(of.value(at))?, at as u32)))
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    Picked::Some(placed.into_iter().map(|(_, at)| at).collect())
}

/// The items for which `is_wanted` holds, by index.
pub fn filtered<'a>(of: &Container<'a>, is_wanted: impl Fn(&'a [u8]) -> bool) -> Picked {
    let by_index = of.by_index();
    if by_index.is_lying() {
        let items = of.items().enumerate();
        let wanted = items.filter(|(_, item)| is_wanted(item));
        return Picked::Some(wanted.map(|(at, _)| at as u32).collect());
    }
    let at = (0..of.len()).map(|place| by_index.at(place));
    Picked::Some(
        at.filter(|at| is_wanted(of.item(*at)))
            .map(|at| at as u32)
            .collect(),
    )
}

/// The result of an operation, as one msgpack value; None for none.
pub fn result_of(
    of: &Container<'_>,
    picked: &Picked,
    wanted: Wanted,
) -> Result<Option<Vec<u8>>, ResultCode> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    match wanted {
        Wanted::Nothing => return Ok(None),
        Wanted::Count => writer.int(picked.len() as i64),
        Wanted::Exists => writer.bool(picked.len() > 0),
        Wanted::Key | Wanted::KeyValue | Wanted::UnorderedMap | Wanted::OrderedMap
            if !of.is_map =>
        {
            return Err(ResultCode::Parameter);
        }
        Wanted::Key => bytes_of(&mut out, picked, |at| of.key(at)),
        Wanted::Value => bytes_of(&mut out, picked, |at| of.value(at)),
        Wanted::KeyValue => pairs_of(&mut out, of, picked, order::PRESERVED),
        Wanted::UnorderedMap => pairs_of(&mut out, of, picked, order::UNORDERED),
        Wanted::OrderedMap => pairs_of(&mut out, of, picked, order::ORDERED),
        Wanted::Index => numbers_of(&mut out, picked, &Places::by_index(of, picked), false),
        Wanted::ReverseIndex => numbers_of(&mut out, picked, &Places::by_index(of, picked), true),
        Wanted::Rank => numbers_of(&mut out, picked, &Places::by_rank(of, picked), false),
        Wanted::ReverseRank => numbers_of(&mut out, picked, &Places::by_rank(of, picked), true),
    }
    Ok(Some(out))
}

fn bytes_of<'c>(out: &mut Vec<u8>, picked: &Picked, of: impl Fn(usize) -> &'c [u8]) {
    match picked {
        Picked::One(None) => Writer::new(out).nil(),
        Picked::One(Some(at)) => out.extend_from_slice(of(*at)),
        _ => {
            Writer::new(out).array(picked.len() as u32);
            picked.iter().for_each(|at| out.extend_from_slice(of(at)));
        }
    }
}

fn pairs_of(out: &mut Vec<u8>, of: &Container<'_>, picked: &Picked, order: u8) {
    Writer::new(out).container(true, order, picked.len() as u32);
    let append = |out: &mut Vec<u8>, at| out.extend_from_slice(of.item(at));
    if order == order::ORDERED {
        let mut by_key: Vec<_> = picked.iter().collect();
        by_key.sort_by(|a, b| compare(of.key(*a), of.key(*b)));
        by_key.into_iter().for_each(|at| append(out, at));
    } else {
        picked.iter().for_each(|at| append(out, at));
    }
}

/// The places that items have in an order.
enum Places {
    Lying,
    One(usize),
    /// Of each item.
    All(Vec<u32>),
}

impl Places {
    fn by_index(of: &Container<'_>, picked: &Picked) -> PlacesOf {
        let one = |at: usize| index_of_key(of, of.key(at));
        PlacesOf::new(of, of.by_index(), picked, one)
    }

    fn by_rank(of: &Container<'_>, picked: &Picked) -> PlacesOf {
        PlacesOf::new(of, of.by_rank(), picked, |at| of.rank(at))
    }
}

struct PlacesOf {
    places: Places,
    len: usize,
}

impl PlacesOf {
    fn new(
        of: &Container<'_>,
        order: Order<'_>,
        picked: &Picked,
        one: impl Fn(usize) -> usize,
    ) -> PlacesOf {
        let places = match picked {
            _ if order.is_lying() => Places::Lying,
            Picked::One(Some(at)) => Places::One(one(*at)),
            _ => {
                let mut places = vec![0; of.len()];
                (0..of.len()).for_each(|place| places[order.at(place)] = place as u32);
                Places::All(places)
            }
        };
        PlacesOf {
            places,
            len: of.len(),
        }
    }

    fn of(&self, at: usize, reversed: bool) -> i64 {
        let place = match &self.places {
            Places::Lying => at,
            Places::One(place) => *place,
            Places::All(places) => places[at] as usize,
        };
        if reversed {
            (self.len - 1 - place) as i64
        } else {
            place as i64
        }
    }
}

/// What stands for the place of an item that there is not.
const NOWHERE: i64 = -1;

fn numbers_of(out: &mut Vec<u8>, picked: &Picked, places: &PlacesOf, reversed: bool) {
    let mut writer = Writer::new(out);
    match picked {
        Picked::One(None) => writer.int(NOWHERE),
        Picked::One(Some(at)) => writer.int(places.of(*at, reversed)),
        _ => {
            writer.array(picked.len() as u32);
            picked
                .iter()
                .for_each(|at| writer.int(places.of(at, reversed)));
        }
    }
}

/// An integer as a result.
pub fn int(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).int(value);
    out
}

/// The integer that a step of a context or an argument holds.
pub fn int_of(value: &[u8]) -> Result<i64, ResultCode> {
    Reader::new(value)
        .read_int()
        .map_err(|_| ResultCode::Parameter)
}
