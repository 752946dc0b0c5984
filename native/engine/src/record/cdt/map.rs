//! Operations on maps. Codes and arguments are in section 13.

use super::call::Call;
use super::container::{Container, Edit, Order, of_items, split_pair};
use super::number::{add, subtract};
use super::selection::{
    Picked, ReturnType, Wants, at_places, at_ranks, clip, filtered, index_of_key, int, is_within,
    place, rank_of, relative, result_of, with_values,
};
use super::{Changed, MANY};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{compare, has_sentinel, order};

mod code {
    pub const SET_TYPE: u8 = 64;
    pub const ADD: u8 = 65;
    pub const ADD_ITEMS: u8 = 66;
    pub const PUT: u8 = 67;
    pub const PUT_ITEMS: u8 = 68;
    pub const REPLACE: u8 = 69;
    pub const REPLACE_ITEMS: u8 = 70;
    pub const INCREMENT: u8 = 73;
    pub const DECREMENT: u8 = 74;
    pub const CLEAR: u8 = 75;
    pub const SIZE: u8 = 96;
}

mod flag {
    pub const CREATE_ONLY: u64 = 1;
    pub const UPDATE_ONLY: u64 = 2;
    pub const NO_FAIL: u64 = 4;
    pub const PARTIAL: u64 = 8;
}

#[derive(Clone, Copy)]
enum Select {
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

pub fn read(map: &Container<'_>, call: &mut Call<'_>) -> Result<Option<Vec<u8>>, ResultCode> {
    let select = match call.code {
        code::SIZE => {
            call.finish()?;
            return Ok(Some(int(map.len() as i64)));
        }
        97 => Select::Key,
        98 => Select::Index,
        99 => Select::OneValue,
        100 => Select::Rank,
        102 => Select::Value,
        103 => Select::KeyInterval,
        104 => Select::IndexRange,
        105 => Select::Interval,
        106 => Select::RankRange,
        107 => Select::Keys,
        108 => Select::Values,
        109 => Select::RelativeIndexes,
        110 => Select::RelativeRanks,
        _ => return Err(ResultCode::Parameter),
    };
    let (picked, returns) = pick(map, select, call)?;
    result_of(map, &picked, returns.wanted)
}

fn pick(
    map: &Container<'_>,
    select: Select,
    call: &mut Call<'_>,
) -> Result<(Picked, ReturnType), ResultCode> {
    let returns = ReturnType::parse(call.int()?)?;
    let len = map.len();
    let one_at = |order: Order<'_>, index: i64| {
        let place = place(len, index).ok_or(ResultCode::OpNotApplicable)?;
        Ok(Picked::One(Some(order.at(place))))
    };
    let picked = match select {
        Select::Key => {
            let key = call.value()?;
            Picked::One(map.find_key(key).ok())
        }
        Select::Index => one_at(map.by_index(), call.int()?)?,
        Select::Rank => one_at(map.by_rank(), call.int()?)?,
        Select::OneValue => {
            let value = call.value()?;
            Picked::One(equal(map, value).iter().next())
        }
        Select::Value => equal(map, call.value()?),
        Select::Keys => keys(map, &Wants::parse(call.value()?, len)?),
        Select::Values => {
            let wants = Wants::parse(call.value()?, len)?;
            with_values(map, &wants, returns)
        }
        Select::KeyInterval => {
            let begin = call.value()?;
            let end = call.value_or_none()?;
            let start = index_of_key(map, begin);
            let end = end.map_or(len, |end| index_of_key(map, end));
            at_places(map.by_index(), start..end.max(start))
        }
        Select::Interval => {
            let begin = call.value()?;
            let end = call.value_or_none()?;
            filtered(map, |pair| is_within(map.value_of(pair), begin, end))
        }
        Select::IndexRange => at_places(map.by_index(), clip(len, call.int()?, call.count()?)),
        Select::RankRange => at_ranks(map, clip(len, call.int()?, call.count()?)),
        Select::RelativeIndexes => {
            let to = index_of_key(map, call.value()?);
            let places = relative(len, to, call.int()?, call.count()?);
            at_places(map.by_index(), places)
        }
        Select::RelativeRanks => {
            let to = rank_of(map, call.value()?);
            at_ranks(map, relative(len, to, call.int()?, call.count()?))
        }
    };
    call.finish()?;
    let picked = match select {
        Select::OneValue | Select::Value | Select::Interval => picked.turned_by_value(map, returns),
        Select::Values if returns.inverted => picked.turned_by_value(map, returns),
        Select::RankRange | Select::RelativeRanks => picked.turned_by_rank(map, returns),
        _ => picked.turned(map, returns),
    };
    Ok((picked, returns))
}

fn equal(map: &Container<'_>, value: &[u8]) -> Picked {
    filtered(map, |pair| compare(map.value_of(pair), value).is_eq())
}

/// The pairs that have one of the wanted keys, by index.
fn keys(map: &Container<'_>, wants: &Wants<'_>) -> Picked {
    if !map.is_ordered() || wants.has_wildcard() {
        return filtered(map, |pair| wants.has(map.key_of(pair)));
    }
    let mut found: Vec<u32> = wants
        .iter()
        .filter_map(|key| map.find_key(key).ok())
        .map(|at| at as u32)
        .collect();
    // The wanted keys are sorted, as the map is.
    found.dedup();
    Picked::Some(found)
}

/// What a map is changed to. `map` is None where there is none yet.
pub fn modify(map: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    match call.code {
        code::SET_TYPE => return set_type(map, call),
        code::ADD..=code::REPLACE_ITEMS => return put(map, call),
        code::INCREMENT | code::DECREMENT => return increment(map, call),
        _ => {}
    }
    let Some(map) = map else {
        return Ok(Changed::default());
    };
    let select = match call.code {
        code::CLEAR => {
            call.finish()?;
            return Ok(Changed::to(map.without(0..map.len()), None));
        }
        76 => Select::Key,
        77 => Select::Index,
        78 => Select::OneValue,
        79 => Select::Rank,
        81 => Select::Keys,
        82 => Select::Value,
        83 => Select::Values,
        84 => Select::KeyInterval,
        85 => Select::IndexRange,
        86 => Select::Interval,
        87 => Select::RankRange,
        88 => Select::RelativeIndexes,
        89 => Select::RelativeRanks,
        _ => return Err(ResultCode::Parameter),
    };
    let (picked, returns) = pick(&map, select, call)?;
    let result = result_of(&map, &picked, returns.wanted)?;
    Ok(Changed::to(
        map.without(picked.sorted().into_iter()),
        result,
    ))
}

/// The order that an attribute names.
fn order_of(attribute: u64) -> Result<u8, ResultCode> {
    match attribute & !u64::from(order::PERSIST_INDEX) {
        0 => Ok(order::UNORDERED),
        1 => Ok(order::ORDERED),
        3 => Ok(order::KEY_VALUE),
        _ => Err(ResultCode::Parameter),
    }
}

fn set_type(map: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let order = order_of(call.flags()?)?;
    call.finish()?;
    let value = match map {
        None => of_items(true, order, std::iter::empty()),
        Some(map) if map.order == order => return Ok(Changed::default()),
        Some(map) if order != order::UNORDERED => {
            of_items(true, order, map.in_order(map.by_index()))
        }
        Some(map) => of_items(true, order, map.items()),
    };
    Ok(Changed::made(value))
}

/// The ways of writing pairs that older clients have codes for are flags of the one that newer clients use.
fn put(map: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let of_code = match call.code {
        code::ADD | code::ADD_ITEMS => flag::CREATE_ONLY,
        code::REPLACE | code::REPLACE_ITEMS => flag::UPDATE_ONLY,
        _ => 0,
    };
    let are_items = matches!(
        call.code,
        code::ADD_ITEMS | code::PUT_ITEMS | code::REPLACE_ITEMS
    );
    let key_or_items = call.value()?;
    let pair;
    let source = if are_items {
        let items = Container::parse(key_or_items).map_err(|_| ResultCode::Parameter)?;
        if !items.is_map {
            return Err(ResultCode::Parameter);
        }
        items
    } else {
        pair = [&[0x81], key_or_items, call.value()?].concat();
        Container::parse(&pair)?
    };
    let order = match call.code {
        code::REPLACE | code::REPLACE_ITEMS => order::UNORDERED,
        _ => order_of(call.flags()?)?,
    };
    let flags = match call.code {
        code::PUT | code::PUT_ITEMS => call.flags()?,
        _ => of_code,
    };
    call.finish()?;
    if source.items().any(has_sentinel_in_pair) {
        return Err(ResultCode::Parameter);
    }
    let map = map.unwrap_or(Container::empty(true, order));
    put_pairs(&map, &source, flags)
}

fn has_sentinel_in_pair(pair: &[u8]) -> bool {
    let (key, value) = split_pair(pair);
    has_sentinel(key) || has_sentinel(value)
}

/// Writes pairs into a map. The result is the map's size.
fn put_pairs(
    map: &Container<'_>,
    source: &Container<'_>,
    flags: u64,
) -> Result<Changed, ResultCode> {
    let unchanged = || Changed::only(int(map.len() as i64));
    let mut edits: Vec<Edit<'_>> = Vec::new();
    // Unordered maps take new pairs behind their last one, in the order in which they come; so do maps by key when the
    // pairs are sorted by it.
    let sources: Vec<&[u8]> = if map.is_ordered() {
        source.in_order(source.by_index()).collect()
    } else {
        source.items().collect()
    };
    let mut added = 0;
    let are_many = sources.len() >= MANY;
    for pair in sources {
        let key = split_pair(pair).0;
        let found = match are_many {
            true => map.find_key_of_many(key),
            false => map.find_key(key),
        };
        let refusal = match found {
            Ok(_) if flags & flag::CREATE_ONLY != 0 => Some(ResultCode::ElementExists),
            Err(_) if flags & flag::UPDATE_ONLY != 0 => Some(ResultCode::ElementNotFound),
            _ => None,
        };
        match refusal {
            Some(code) if flags & flag::NO_FAIL == 0 => return Err(code),
            Some(_) if flags & flag::PARTIAL == 0 => return Ok(unchanged()),
            Some(_) => continue,
            None => {}
        }
        let item = pair.into();
        added += usize::from(found.is_err());
        match (found, edits.last_mut()) {
            (Err(to), Some(last)) if last.at == to && last.removed == 0 => last.inserted.push(item),
            (Ok(to), _) => edits.push(Edit {
                at: to,
                removed: 1,
                inserted: vec![item],
            }),
            (Err(to), _) => edits.push(Edit {
                at: to,
                removed: 0,
                inserted: vec![item],
            }),
        }
    }
    // Of an unordered map the replaced pairs come in any order, those that are added in theirs.
    edits.sort_by_key(|edit| edit.at);
    Ok(Changed::to(
        map.edited(&edits),
        Some(int((map.len() + added) as i64)),
    ))
}

fn increment(map: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let key = call.value()?;
    let delta = call.value_or_none()?.unwrap_or(&[1]);
    let order = order_of(call.flags()?)?;
    call.finish()?;
    if has_sentinel(key) {
        return Err(ResultCode::Parameter);
    }
    let map = map.unwrap_or(Container::empty(true, order));
    let found = map.find_key(key);
    let old = found.ok().map(|at| map.value(at));
    let sum = match call.code {
        code::INCREMENT => add(old, delta)?,
        _ => subtract(old, delta)?,
    };
    let (at, removed) = match found {
        Ok(at) => (at, 1),
        Err(at) => (at, 0),
    };
    let edit = Edit {
        at,
        removed,
        inserted: vec![[key, &sum].concat().into()],
    };
    Ok(Changed::to(map.edited(&[edit]), Some(sum)))
}
