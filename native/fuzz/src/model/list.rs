//! Lists as vectors.

use super::Changed;
use super::call::{Args, Call, counted, delta, element, indexed, put_in_order, selection, sum};
use super::select::{Select, clip, place};
use super::value::Item;
use arbitrary::Unstructured;
use perigee_wire::ResultCode;

const UNIQUE: i64 = 1;
const BOUNDED: i64 = 2;
const NO_FAIL: i64 = 4;
const PARTIAL: i64 = 8;
const PADDING_MAX: usize = 1 << 20;

fn select_of(code: u8) -> Option<Select> {
    Some(match code {
        19 | 32 => Select::Index,
        20 | 33 => Select::OneValue,
        21 | 34 => Select::Rank,
        22 | 35 => Select::Value,
        23 | 36 => Select::Values,
        24 | 37 => Select::IndexRange,
        25 | 38 => Select::Interval,
        26 | 39 => Select::RankRange,
        27 | 40 => Select::RelativeRanks,
        _ => return None,
    })
}

pub(super) fn apply(list: Option<&Item>, call: &Call) -> Result<Changed, ResultCode> {
    let mut args = Args(&call.args);
    match call.code {
        0 => return Ok(set_type(list, args.flags() as u8 & 1)),
        1..=4 => return add(list, call.code, &mut args),
        9 => return set(list, &mut args),
        12 => return increment(list, &mut args),
        _ => {}
    }
    let Some(list @ Item::List(order, items)) = list else {
        return Ok(Changed::default());
    };
    if let Some(select) = select_of(call.code) {
        return call.selected(list, select);
    }
    let len = items.len();
    let with = |items: Vec<Item>, result: Option<Item>| Changed {
        value: Some(Item::List(*order, items)),
        result,
    };
    let one = |index: i64| place(len, index).ok_or(ResultCode::OpNotApplicable);
    let some = |range: std::ops::Range<usize>| Item::List(0, items[range].to_vec());
    let told = |result: Item| Changed {
        value: None,
        result: Some(result),
    };
    let less =
        |range: std::ops::Range<usize>| [&items[..range.start], &items[range.end..]].concat();
    Ok(match call.code {
        5 => {
            let at = one(args.int())?;
            with(less(at..at + 1), Some(items[at].clone()))
        }
        6 => {
            let range = clip(len, args.int(), args.count());
            with(less(range.clone()), Some(some(range)))
        }
        7 => {
            let at = one(args.int())?;
            with(less(at..at + 1), Some(Item::Int(1)))
        }
        8 => {
            let range = clip(len, args.int(), args.count());
            let removed = Item::Int(range.len() as i64);
            with(less(range), Some(removed))
        }
        10 => {
            let kept = clip(len, args.int(), args.count());
            let removed = Item::Int((len - kept.len()) as i64);
            with(items[kept].to_vec(), Some(removed))
        }
        11 => with(Vec::new(), None),
        13 => {
            let flags = args.flags();
            let mut sorted = items.clone();
            sorted.sort_by(Item::compare);
            if flags & 2 != 0 {
                sorted.dedup_by(|a, b| a.equals(b));
            }
            if flags & 1 != 0 && *order == 0 {
                sorted.reverse();
            }
            with(sorted, None)
        }
        16 => told(Item::Int(len as i64)),
        17 => told(items[one(args.int())?].clone()),
        18 => told(some(clip(len, args.int(), args.count()))),
        other => panic!("operation {other}"),
    })
}

fn parts(list: Option<&Item>, order: u8) -> (u8, Vec<Item>) {
    match list {
        Some(Item::List(order, items)) => (*order, items.clone()),
        _ => (order, Vec::new()),
    }
}

fn set_type(list: Option<&Item>, order: u8) -> Changed {
    let value = match list {
        Some(Item::List(known, _)) if *known == order => None,
        list => {
            let (_, mut items) = parts(list, order);
            if order != 0 {
                items.sort_by(Item::compare);
            }
            Some(Item::List(order, items))
        }
    };
    Changed {
        value,
        result: None,
    }
}

/// Where something is written that is to be at an index; None where it is let be.
fn place_to_write(len: usize, index: i64, flags: i64) -> Result<Option<usize>, ResultCode> {
    let at = i128::from(index) + if index < 0 { len as i128 } else { 0 };
    let at = usize::try_from(at).map_err(|_| ResultCode::OpNotApplicable)?;
    match at.saturating_sub(len) {
        1.. if flags & BOUNDED != 0 && flags & NO_FAIL != 0 => Ok(None),
        1.. if flags & BOUNDED != 0 => Err(ResultCode::OpNotApplicable),
        beyond if beyond > PADDING_MAX => Err(ResultCode::RecordTooBig),
        _ => Ok(Some(at)),
    }
}

fn add(list: Option<&Item>, code: u8, args: &mut Args<'_>) -> Result<Changed, ResultCode> {
    let index = (code >= 3).then(|| args.int());
    let added: Vec<Item> = match code {
        1 | 3 => vec![args.value().clone()],
        _ => args.list().to_vec(),
    };
    let order = if code <= 2 { args.flags() as u8 & 1 } else { 0 };
    let flags = args.flags();
    let (order, mut items) = parts(list, order);
    let len = items.len();
    let unchanged = || Changed {
        value: None,
        result: Some(Item::Int(len as i64)),
    };
    let at = match index {
        None => len,
        Some(index) if order != 0 && index != 0 => return Err(ResultCode::OpNotApplicable),
        Some(index) => match place_to_write(len, index, flags)? {
            Some(at) => at,
            None => return Ok(unchanged()),
        },
    };
    let mut new: Vec<Item> = Vec::new();
    for item in &added {
        let is_there = items.iter().chain(&new).any(|other| other.equals(item));
        if flags & UNIQUE == 0 || !is_there {
            new.push(item.clone());
        }
    }
    if new.len() < added.len() {
        if flags & NO_FAIL == 0 {
            return Err(ResultCode::ElementExists);
        }
        if flags & PARTIAL == 0 {
            return Ok(unchanged());
        }
    }
    if order == 0 {
        while items.len() < at {
            items.push(Item::Nil);
        }
    }
    for (n, item) in new.into_iter().enumerate() {
        put_in_order(&mut items, item, order, at + n);
    }
    Ok(Changed {
        result: Some(Item::Int(items.len() as i64)),
        value: Some(Item::List(order, items)),
    })
}

/// The list with another element at a place, or beyond its end.
fn replaced(order: u8, mut items: Vec<Item>, at: usize, item: Item) -> Item {
    if at < items.len() {
        return Item::List(order, items).with_child(at, item);
    }
    if order == 0 {
        while items.len() < at {
            items.push(Item::Nil);
        }
    }
    let end = items.len();
    put_in_order(&mut items, item, order, end);
    Item::List(order, items)
}

fn is_elsewhere(items: &[Item], at: usize, item: &Item) -> bool {
    let mut others = items.iter().enumerate();
    others.any(|(place, other)| place != at && other.equals(item))
}

fn set(list: Option<&Item>, args: &mut Args<'_>) -> Result<Changed, ResultCode> {
    let (index, item, flags) = (args.int(), args.value().clone(), args.flags());
    let (order, items) = parts(list, 0);
    if order != 0 && index != 0 {
        return Err(ResultCode::OpNotApplicable);
    }
    let Some(at) = place_to_write(items.len(), index, flags)? else {
        return Ok(Changed::default());
    };
    if flags & UNIQUE != 0 && is_elsewhere(&items, at, &item) {
        return match flags & NO_FAIL {
            0 => Err(ResultCode::ElementExists),
            _ => Ok(Changed::default()),
        };
    }
    Ok(Changed {
        value: Some(replaced(order, items, at, item)),
        result: None,
    })
}

fn increment(list: Option<&Item>, args: &mut Args<'_>) -> Result<Changed, ResultCode> {
    let index = args.int();
    let delta = args.value_or_none().cloned().unwrap_or(Item::Int(1));
    let order = args.flags() as u8 & 1;
    let flags = args.flags();
    let (order, items) = parts(list, order);
    let Some(at) = place_to_write(items.len(), index, flags)? else {
        return Ok(Changed::default());
    };
    let sum = sum(items.get(at), &delta, 1)?;
    let mut value = None;
    if flags & UNIQUE != 0 && is_elsewhere(&items, at, &sum) {
        if flags & NO_FAIL == 0 {
            return Err(ResultCode::ElementExists);
        }
    } else {
        value = Some(replaced(order, items, at, sum.clone()));
    }
    Ok(Changed {
        value,
        result: Some(sum),
    })
}

/// A code and its arguments, of an operation on this list.
pub(super) fn arbitrary(
    at: Option<&Item>,
    input: &mut Unstructured<'_>,
) -> arbitrary::Result<(u8, Vec<Item>)> {
    const CODES: [u8; 35] = [
        0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23,
        24, 25, 26, 27, 32, 33, 34, 35, 36,
    ];
    let code = match input.int_in_range(0..=CODES.len() + 3)? {
        more @ 35.. => 37 + (more - 35) as u8,
        at => CODES[at],
    };
    if let Some(select) = select_of(code) {
        return Ok((code, selection(select, at, input)?));
    }
    let mut args = Vec::new();
    let order = [0, 1, 16, 17];
    match code {
        0 => args.push(Item::Int(*input.choose(&order)?)),
        1..=4 => {
            if code >= 3 {
                args.push(indexed(input)?);
            }
            args.push(match code {
                1 | 3 => element(at, input)?,
                _ => {
                    let mut items = Vec::new();
                    for _ in 0..input.int_in_range(0..=5)? {
                        items.push(element(at, input)?);
                    }
                    Item::List(0, items)
                }
            });
            if code <= 2 && input.ratio(3, 4)? {
                args.push(Item::Int(*input.choose(&order)?));
            }
            if (code >= 3 || args.len() == 2) && input.ratio(3, 4)? {
                args.push(Item::Int(input.int_in_range(0..=15)?));
            }
        }
        5 | 7 | 17 => args.push(indexed(input)?),
        6 | 8 | 10 | 18 => counted(&mut args, input)?,
        9 => {
            args.push(indexed(input)?);
            args.push(element(at, input)?);
            if input.arbitrary()? {
                args.push(Item::Int(input.int_in_range(0..=15)?));
            }
        }
        12 => {
            args.push(indexed(input)?);
            if input.ratio(3, 4)? {
                args.push(delta(input)?);
                if input.arbitrary()? {
                    args.push(Item::Int(*input.choose(&order)?));
                    args.push(Item::Int(input.int_in_range(0..=15)?));
                }
            }
        }
        13 if input.arbitrary()? => args.push(Item::Int(input.int_in_range(0..=3)?)),
        _ => {}
    }
    Ok((code, args))
}
