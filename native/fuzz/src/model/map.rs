//! Maps as vectors of pairs.

use super::Changed;
use super::call::{Args, Call, delta, element, key, selection, sum};
use super::select::Select;
use super::value::Item;
use arbitrary::Unstructured;
use perigee_wire::ResultCode;

const CREATE_ONLY: i64 = 1;
const UPDATE_ONLY: i64 = 2;
const NO_FAIL: i64 = 4;
const PARTIAL: i64 = 8;

type Pairs = Vec<(Item, Item)>;

fn select_of(code: u8) -> Option<Select> {
    Some(match code {
        97 | 76 => Select::Key,
        98 | 77 => Select::Index,
        99 | 78 => Select::OneValue,
        100 | 79 => Select::Rank,
        107 | 81 => Select::Keys,
        102 | 82 => Select::Value,
        108 | 83 => Select::Values,
        103 | 84 => Select::KeyInterval,
        104 | 85 => Select::IndexRange,
        105 | 86 => Select::Interval,
        106 | 87 => Select::RankRange,
        109 | 88 => Select::RelativeIndexes,
        110 | 89 => Select::RelativeRanks,
        _ => return None,
    })
}

pub(super) fn apply(map: Option<&Item>, call: &Call) -> Result<Changed, ResultCode> {
    let mut args = Args(&call.args);
    match (call.code, map) {
        (64, _) => Ok(set_type(map, args.flags() as u8 & 3)),
        (65..=70, _) => put(map, call.code, &mut args),
        (73 | 74, _) => increment(map, call.code, &mut args),
        (75, Some(Item::Map(order, _))) => Ok(Changed {
            value: Some(Item::Map(*order, Vec::new())),
            result: None,
        }),
        (96, Some(Item::Map(_, pairs))) => Ok(Changed {
            value: None,
            result: Some(Item::Int(pairs.len() as i64)),
        }),
        (code, Some(map)) => call.selected(map, select_of(code).expect("a selection")),
        (_, None) => Ok(Changed::default()),
    }
}

fn parts(map: Option<&Item>, order: u8) -> (u8, Pairs) {
    match map {
        Some(Item::Map(order, pairs)) => (*order, pairs.clone()),
        _ => (order, Vec::new()),
    }
}

fn made(order: u8, mut pairs: Pairs) -> Item {
    if order != 0 {
        pairs.sort_by(|a, b| a.0.compare(&b.0));
    }
    Item::Map(order, pairs)
}

fn set_type(map: Option<&Item>, order: u8) -> Changed {
    let value = match map {
        Some(Item::Map(known, _)) if *known == order => None,
        map => Some(made(order, parts(map, order).1)),
    };
    Changed {
        value,
        result: None,
    }
}

/// What is there gives way with its key.
fn write(pairs: &mut Pairs, key: &Item, value: &Item) {
    let pair = (key.clone(), value.clone());
    match pairs.iter_mut().find(|(known, _)| known.equals(key)) {
        Some(known) => *known = pair,
        None => pairs.push(pair),
    }
}

fn put(map: Option<&Item>, code: u8, args: &mut Args<'_>) -> Result<Changed, ResultCode> {
    let added: Pairs = match (code, args.value()) {
        (66 | 68 | 70, Item::Map(_, pairs)) => pairs.clone(),
        (_, key) => vec![(key.clone(), args.value().clone())],
    };
    let order = if code < 69 { args.flags() as u8 & 3 } else { 0 };
    let flags = match code {
        65 | 66 => CREATE_ONLY,
        69 | 70 => UPDATE_ONLY,
        _ => args.flags(),
    };
    let (order, pairs) = parts(map, order);
    let mut new = pairs.clone();
    for (key, value) in &added {
        let refusal = match pairs.iter().any(|(known, _)| known.equals(key)) {
            true if flags & CREATE_ONLY != 0 => Some(ResultCode::ElementExists),
            false if flags & UPDATE_ONLY != 0 => Some(ResultCode::ElementNotFound),
            _ => None,
        };
        match refusal {
            Some(code) if flags & NO_FAIL == 0 => return Err(code),
            Some(_) if flags & PARTIAL == 0 => {
                return Ok(Changed {
                    value: None,
                    result: Some(Item::Int(pairs.len() as i64)),
                });
            }
            Some(_) => {}
            None => write(&mut new, key, value),
        }
    }
    Ok(Changed {
        result: Some(Item::Int(new.len() as i64)),
        value: Some(made(order, new)),
    })
}

fn increment(map: Option<&Item>, code: u8, args: &mut Args<'_>) -> Result<Changed, ResultCode> {
    let key = args.value();
    let delta = args.value_or_none().cloned().unwrap_or(Item::Int(1));
    let (order, mut pairs) = parts(map, args.flags() as u8 & 3);
    let old = pairs.iter().find(|(known, _)| known.equals(key));
    let sign = if code == 73 { 1 } else { -1 };
    let sum = sum(old.map(|(_, value)| value), &delta, sign)?;
    write(&mut pairs, key, &sum);
    Ok(Changed {
        value: Some(made(order, pairs)),
        result: Some(sum),
    })
}

/// A code and its arguments, of an operation on this map.
pub(super) fn arbitrary(
    at: Option<&Item>,
    input: &mut Unstructured<'_>,
) -> arbitrary::Result<(u8, Vec<Item>)> {
    const CODES: [u8; 41] = [
        64, 65, 66, 67, 67, 67, 68, 68, 68, 69, 70, 73, 74, 75, 76, 77, 78, 79, 81, 82, 83, 84, 85,
        86, 87, 88, 89, 96, 97, 98, 99, 100, 102, 103, 104, 105, 106, 107, 108, 109, 110,
    ];
    let code = *input.choose(&CODES)?;
    if let Some(select) = select_of(code) {
        return Ok((code, selection(select, at, input)?));
    }
    let mut args = Vec::new();
    let order = [0, 1, 3, 17];
    match code {
        64 => args.push(Item::Int(*input.choose(&order)?)),
        65..=70 => {
            if code % 2 == 0 {
                let mut pairs = Vec::new();
                for _ in 0..input.int_in_range(0..=5)? {
                    let (key, value) = (key(at, input)?, element(at, input)?);
                    write(&mut pairs, &key, &value);
                }
                args.push(Item::Map(0, pairs));
            } else {
                args.push(key(at, input)?);
                args.push(element(at, input)?);
            }
            if code < 69 && input.ratio(3, 4)? {
                args.push(Item::Int(*input.choose(&order)?));
                if code >= 67 && input.ratio(3, 4)? {
                    // Both policies at once exclude each other.
                    let flags = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14];
                    args.push(Item::Int(*input.choose(&flags)?));
                }
            }
        }
        73 | 74 => {
            args.push(key(at, input)?);
            if input.ratio(3, 4)? {
                args.push(delta(input)?);
                if input.arbitrary()? {
                    args.push(Item::Int(*input.choose(&order)?));
                }
            }
        }
        _ => {}
    }
    Ok((code, args))
}
