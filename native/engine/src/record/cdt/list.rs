//! Operations on lists. Codes and arguments are in section 13.

use super::call::Call;
use super::container::{Container, Edit, Edited, of_items};
use super::context::insert_padded;
use super::number::add;
use super::selection::{
    Picked, ReturnType, Wants, at_ranks, clip, filtered, int, is_within, place, rank_of, relative,
    result_of, with_values,
};
use super::{Changed, MANY, NIL, PADDING_MAX};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{compare, has_sentinel, order};
use std::borrow::Cow;

mod code {
    pub const SET_TYPE: u8 = 0;
    pub const APPEND: u8 = 1;
    pub const APPEND_ITEMS: u8 = 2;
    pub const INSERT: u8 = 3;
    pub const INSERT_ITEMS: u8 = 4;
    pub const POP: u8 = 5;
    pub const POP_RANGE: u8 = 6;
    pub const REMOVE: u8 = 7;
    pub const REMOVE_RANGE: u8 = 8;
    pub const SET: u8 = 9;
    pub const TRIM: u8 = 10;
    pub const CLEAR: u8 = 11;
    pub const INCREMENT: u8 = 12;
    pub const SORT: u8 = 13;
    pub const SIZE: u8 = 16;
    pub const GET: u8 = 17;
    pub const GET_RANGE: u8 = 18;
    /// From here on, each reading operation and the one that removes what it reads are this far apart.
    pub const GET_BY_INDEX: u8 = 19;
    pub const REMOVE_BY_INDEX: u8 = 32;
}

mod flag {
    pub const UNIQUE: u64 = 1;
    pub const BOUNDED: u64 = 2;
    pub const NO_FAIL: u64 = 4;
    pub const PARTIAL: u64 = 8;

    pub const SORT_DESCENDING: u64 = 1;
    pub const SORT_DROP_DUPLICATES: u64 = 2;
}

/// How operations select; removing ones in another numbering than reading ones.
#[derive(Clone, Copy)]
enum Select {
    Index,
    OneValue,
    Rank,
    Value,
    Values,
    IndexRange,
    Interval,
    RankRange,
    RelativeRanks,
}

pub fn read(list: &Container<'_>, call: &mut Call<'_>) -> Result<Option<Vec<u8>>, ResultCode> {
    let (picked, wanted) = match call.code {
        code::SIZE => {
            call.finish()?;
            return Ok(Some(int(list.len() as i64)));
        }
        code::GET => {
            let at = place(list.len(), call.int()?).ok_or(ResultCode::OpNotApplicable)?;
            call.finish()?;
            return Ok(Some(list.item(at).to_vec()));
        }
        code::GET_RANGE => {
            let range = clip(list.len(), call.int()?, call.count()?);
            call.finish()?;
            return Ok(Some(elements(list, range)));
        }
        code => {
            let select = match code {
                code::GET_BY_INDEX => Select::Index,
                20 => Select::OneValue,
                21 => Select::Rank,
                22 => Select::Value,
                23 => Select::Values,
                24 => Select::IndexRange,
                25 => Select::Interval,
                26 => Select::RankRange,
                27 => Select::RelativeRanks,
                _ => return Err(ResultCode::Parameter),
            };
            pick(list, select, call)?
        }
    };
    result_of(list, &picked, wanted.wanted)
}

fn elements(list: &Container<'_>, range: std::ops::Range<usize>) -> Vec<u8> {
    of_items(false, order::UNORDERED, list.range(range))
}

fn pick(
    list: &Container<'_>,
    select: Select,
    call: &mut Call<'_>,
) -> Result<(Picked, ReturnType), ResultCode> {
    let returns = ReturnType::parse(call.int()?)?;
    let len = list.len();
    let picked = match select {
        Select::Index => {
            let at = place(len, call.int()?).ok_or(ResultCode::OpNotApplicable)?;
            Picked::One(Some(at))
        }
        Select::Rank => {
            let rank = place(len, call.int()?).ok_or(ResultCode::OpNotApplicable)?;
            Picked::One(Some(list.by_rank().at(rank)))
        }
        Select::OneValue => {
            let value = call.value()?;
            Picked::One(equal(list, value).iter().next())
        }
        Select::Value => equal(list, call.value()?),
        Select::Values => {
            let wants = Wants::parse(call.value()?, len)?;
            with_values(list, &wants, returns)
        }
        Select::IndexRange => Picked::Range(clip(len, call.int()?, call.count()?)),
        Select::RankRange => at_ranks(list, clip(len, call.int()?, call.count()?)),
        Select::Interval => {
            let begin = call.value()?;
            let end = call.value_or_none()?;
            if list.is_ordered() {
                let start = list.lower_bound(begin);
                let end = end.map_or(len, |end| list.lower_bound(end));
                Picked::Range(start..end.max(start))
            } else {
                filtered(list, |item| is_within(item, begin, end))
            }
        }
        Select::RelativeRanks => {
            let to = rank_of(list, call.value()?);
            at_ranks(list, relative(len, to, call.int()?, call.count()?))
        }
    };
    call.finish()?;
    let picked = match select {
        Select::OneValue | Select::Value | Select::Interval => {
            picked.turned_by_value(list, returns)
        }
        Select::Values if returns.inverted => picked.turned_by_value(list, returns),
        Select::RankRange | Select::RelativeRanks => picked.turned_by_rank(list, returns),
        _ => picked.turned(list, returns),
    };
    Ok((picked, returns))
}

fn equal(list: &Container<'_>, value: &[u8]) -> Picked {
    if list.is_ordered() {
        Picked::Range(list.equal_range(value))
    } else {
        filtered(list, |item| compare(item, value).is_eq())
    }
}

/// What a list is changed to. `list` is None where there is none yet.
pub fn modify(list: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    match call.code {
        code::SET_TYPE => return set_type(list, call),
        code::APPEND | code::APPEND_ITEMS => return append(list, call),
        code::INSERT | code::INSERT_ITEMS => return insert(list, call),
        code::SET => return set(list, call),
        code::INCREMENT => return increment(list, call),
        _ => {}
    }
    // What follows takes something away, and there is nothing.
    let Some(list) = list else {
        return Ok(Changed::default());
    };
    let len = list.len();
    match call.code {
        code::POP | code::REMOVE => {
            let at = place(len, call.int()?).ok_or(ResultCode::OpNotApplicable)?;
            call.finish()?;
            let result = match call.code {
                code::POP => list.item(at).to_vec(),
                _ => int(1),
            };
            Ok(Changed::to(list.without(at..at + 1), Some(result)))
        }
        code::POP_RANGE | code::REMOVE_RANGE => {
            let range = clip(len, call.int()?, call.count()?);
            call.finish()?;
            let result = match call.code {
                code::POP_RANGE => elements(&list, range.clone()),
                _ => int(range.len() as i64),
            };
            Ok(Changed::to(list.without(range), Some(result)))
        }
        code::TRIM => {
            let kept = clip(len, call.int()?, call.count()?);
            call.finish()?;
            let removed = (0..kept.start).chain(kept.end..len);
            let result = int((len - kept.len()) as i64);
            Ok(Changed::to(list.without(removed), Some(result)))
        }
        code::CLEAR => {
            call.finish()?;
            Ok(Changed::to(list.without(0..len), None))
        }
        code::SORT => sort(&list, call),
        code => {
            let select = match code {
                code::REMOVE_BY_INDEX => Select::Index,
                33 => Select::OneValue,
                34 => Select::Rank,
                35 => Select::Value,
                36 => Select::Values,
                37 => Select::IndexRange,
                38 => Select::Interval,
                39 => Select::RankRange,
                40 => Select::RelativeRanks,
                _ => return Err(ResultCode::Parameter),
            };
            let (picked, returns) = pick(&list, select, call)?;
            let result = result_of(&list, &picked, returns.wanted)?;
            let value = list.without(picked.sorted().into_iter());
            Ok(Changed::to(value, result))
        }
    }
}

fn set_type(list: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let order = order_of(call.flags()?)?;
    call.finish()?;
    let value = match list {
        None => of_items(false, order, std::iter::empty()),
        Some(list) if list.order == order => return Ok(Changed::default()),
        Some(list) if order == order::ORDERED => {
            of_items(false, order, list.in_order(list.by_rank()))
        }
        Some(list) => of_items(false, order, list.items()),
    };
    Ok(Changed::made(value))
}

/// The order that an attribute names.
fn order_of(attribute: u64) -> Result<u8, ResultCode> {
    match attribute & !u64::from(order::PERSIST_INDEX) {
        0 => Ok(order::UNORDERED),
        1 => Ok(order::ORDERED),
        _ => Err(ResultCode::Parameter),
    }
}

/// An element, or several where `are_items`, that are to be stored.
fn new_items<'c>(call: &mut Call<'c>, are_items: bool) -> Result<Vec<&'c [u8]>, ResultCode> {
    let value = call.value()?;
    if has_sentinel(value) {
        return Err(ResultCode::Parameter);
    }
    if !are_items {
        return Ok(vec![value]);
    }
    let items = Container::parse(value).map_err(|_| ResultCode::Parameter)?;
    if items.is_map {
        return Err(ResultCode::Parameter);
    }
    Ok(items.items().collect())
}

fn append(list: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let items = new_items(call, call.code == code::APPEND_ITEMS)?;
    let order = order_of(call.flags()?)?;
    let flags = call.flags()?;
    call.finish()?;
    let list = list.unwrap_or(Container::empty(false, order));
    let len = list.len();
    add_items(&list, len, items, flags)
}

fn insert(list: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let index = call.int()?;
    let items = new_items(call, call.code == code::INSERT_ITEMS)?;
    let flags = call.flags()?;
    call.finish()?;
    let list = list.unwrap_or(Container::empty(false, order::UNORDERED));
    if list.is_ordered() && index != 0 {
        return Err(ResultCode::OpNotApplicable);
    }
    let Some(at) = place_to_write(&list, index, flags)? else {
        return Ok(unchanged(&list));
    };
    add_items(&list, at, items, flags)
}

/// Where an element goes that is written at an index, which may be beyond the end; None if it is to be let be.
fn place_to_write(
    list: &Container<'_>,
    index: i64,
    flags: u64,
) -> Result<Option<usize>, ResultCode> {
    let len = list.len();
    let at = if index < 0 { index + len as i64 } else { index };
    let at = usize::try_from(at).map_err(|_| ResultCode::OpNotApplicable)?;
    if at > len && flags & flag::BOUNDED != 0 {
        return if flags & flag::NO_FAIL != 0 {
            Ok(None)
        } else {
            Err(ResultCode::OpNotApplicable)
        };
    }
    if at.saturating_sub(len) > PADDING_MAX {
        return Err(ResultCode::RecordTooBig);
    }
    Ok(Some(at))
}

/// Adds items at a place of an unordered list, or where they belong in an ordered one. The result is the list's length.
fn add_items(
    list: &Container<'_>,
    at: usize,
    mut items: Vec<&[u8]>,
    flags: u64,
) -> Result<Changed, ResultCode> {
    let len = list.len();
    if flags & flag::UNIQUE != 0 {
        let wanted = items.len();
        let added = new_ones(list, &items);
        if added.len() < wanted {
            if flags & flag::NO_FAIL == 0 {
                return Err(ResultCode::ElementExists);
            }
            if flags & flag::PARTIAL == 0 {
                return Ok(unchanged(list));
            }
        }
        items = added;
    }
    let count = items.len();
    let value = if list.is_ordered() {
        items.sort_by(|a, b| compare(a, b));
        let mut edits: Vec<Edit<'_>> = Vec::new();
        for item in items {
            let at = list.equal_range(item).end;
            match edits.last_mut() {
                Some(last) if last.at == at => last.inserted.push(item.into()),
                _ => edits.push(Edit {
                    at,
                    removed: 0,
                    inserted: vec![item.into()],
                }),
            }
        }
        list.edited(&edits)
    } else {
        let mut inserted: Vec<Cow<'_, [u8]>> = vec![NIL.into(); at.saturating_sub(len)];
        inserted.extend(items.into_iter().map(Cow::Borrowed));
        list.edited(&[Edit {
            at: at.min(len),
            removed: 0,
            inserted,
        }])
    };
    let padded = if list.is_ordered() { len } else { len.max(at) };
    Ok(Changed::to(value, Some(int((padded + count) as i64))))
}

/// The items that are not in the list, each once, in their order.
fn new_ones<'i>(list: &Container<'_>, items: &[&'i [u8]]) -> Vec<&'i [u8]> {
    let mut by_value: Vec<usize> = (0..items.len()).collect();
    by_value.sort_by(|a, b| compare(items[*a], items[*b]));
    let mut is_new = vec![true; items.len()];
    for pair in by_value.windows(2) {
        is_new[pair[1]] = compare(items[pair[0]], items[pair[1]]).is_ne();
    }
    let are_many = items.len() >= MANY;
    let is_there = |item: &[u8]| match are_many {
        true => list.has_value_of_many(item),
        false => equal(list, item).len() > 0,
    };
    let items = items.iter().copied().zip(is_new);
    items
        .filter(|(item, is_new)| *is_new && !is_there(item))
        .map(|(item, _)| item)
        .collect()
}

fn set(list: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let index = call.int()?;
    let item = new_items(call, false)?[0];
    let flags = call.flags()?;
    call.finish()?;
    let list = list.unwrap_or(Container::empty(false, order::UNORDERED));
    if list.is_ordered() && index != 0 {
        return Err(ResultCode::OpNotApplicable);
    }
    let Some(at) = place_to_write(&list, index, flags)? else {
        return Ok(Changed::default());
    };
    if flags & flag::UNIQUE != 0 && equal(&list, item).iter().any(|other| other != at) {
        return if flags & flag::NO_FAIL != 0 {
            Ok(Changed::default())
        } else {
            Err(ResultCode::ElementExists)
        };
    }
    Ok(Changed::to(replace(&list, at, item)?, None))
}

/// The list with another element at a place, which may be beyond its end. In an ordered list it moves to where it belongs.
fn replace(list: &Container<'_>, at: usize, item: &[u8]) -> Result<Edited, ResultCode> {
    match at.checked_sub(list.len()) {
        Some(_) if list.is_ordered() => {
            let at = list.equal_range(item).end;
            Ok(list.edited(&[Edit {
                at,
                removed: 0,
                inserted: vec![item.into()],
            }]))
        }
        Some(beyond) => insert_padded(list, beyond, item),
        None => Ok(super::context::with_child(list, at, item)),
    }
}

fn increment(list: Option<Container<'_>>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let index = call.int()?;
    let delta = call.value_or_none()?.unwrap_or(&[1]);
    let order = order_of(call.flags()?)?;
    let flags = call.flags()?;
    call.finish()?;
    let list = list.unwrap_or(Container::empty(false, order));
    let Some(at) = place_to_write(&list, index, flags)? else {
        return Ok(Changed::default());
    };
    let old = (at < list.len()).then(|| list.item(at));
    let sum = add(old, delta)?;
    if flags & flag::UNIQUE != 0 && equal(&list, &sum).iter().any(|other| other != at) {
        // The sum that was refused is the result all the same.
        return if flags & flag::NO_FAIL != 0 {
            Ok(Changed::only(sum))
        } else {
            Err(ResultCode::ElementExists)
        };
    }
    let value = replace(&list, at, &sum)?;
    Ok(Changed::to(value, Some(sum)))
}

fn sort(list: &Container<'_>, call: &mut Call<'_>) -> Result<Changed, ResultCode> {
    let flags = call.flags()?;
    call.finish()?;
    let mut items: Vec<&[u8]> = list.in_order(list.by_rank()).collect();
    if flags & flag::SORT_DROP_DUPLICATES != 0 {
        items.dedup_by(|a, b| compare(a, b).is_eq());
    }
    // An ordered list stays in its order.
    if flags & flag::SORT_DESCENDING != 0 && !list.is_ordered() {
        items.reverse();
    }
    Ok(Changed::made(of_items(
        false,
        list.order,
        items.into_iter(),
    )))
}

fn unchanged(list: &Container<'_>) -> Changed {
    Changed::only(int(list.len() as i64))
}
