//! The way from a bin's value to the container within it that an operation is about, and the way back with the change.

use super::call::{Create, Step, StepKind};
use super::container::{Container, Edit, Edited, Order};
use super::selection::{int_of, place};
use super::{Changed, Shape, Stored};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{Writer, compare, has_sentinel, order};

/// The container at the end of the steps. OP_NOT_APPLICABLE if one of them leads nowhere; INCOMPATIBLE_TYPE
/// if the first is none into such a value.
pub fn find<'a>(value: Stored<'a>, steps: &[Step<'_>]) -> Result<Stored<'a>, ResultCode> {
    let mut found = value;
    let mut otherwise = ResultCode::IncompatibleType;
    for step in steps {
        let container = container_for(found, step.kind, otherwise)?;
        otherwise = ResultCode::OpNotApplicable;
        let at = locate(&container, step)?.ok_or(ResultCode::OpNotApplicable)?;
        found = container.value(at).into();
    }
    Ok(found)
}

/// Changes the container at the end of the steps with `change`, which is given one of the wanted shape that is empty where
/// a step makes it. Without a value there is none to start from.
pub fn modify(
    value: Option<Stored<'_>>,
    steps: &[Step<'_>],
    shape: Shape,
    change: &mut dyn FnMut(Option<Stored<'_>>) -> Result<Changed, ResultCode>,
) -> Result<Changed, ResultCode> {
    modify_or(value, steps, shape, change, ResultCode::IncompatibleType)
}

/// As `modify`; `otherwise` is the error if the first step is none into such a value.
fn modify_or(
    value: Option<Stored<'_>>,
    steps: &[Step<'_>],
    shape: Shape,
    change: &mut dyn FnMut(Option<Stored<'_>>) -> Result<Changed, ResultCode>,
    otherwise: ResultCode,
) -> Result<Changed, ResultCode> {
    let [step, rest @ ..] = steps else {
        return change(value);
    };
    let container = match value {
        Some(value) => container_for(value, step.kind, otherwise)?,
        None if step.create.is_some() => Container::empty(step.kind.is_of_map(), order::UNORDERED),
        None => return Err(ResultCode::OpNotApplicable),
    };
    let found = locate(&container, step)?;
    let Some(at) = found else {
        return create(&container, step, rest, shape, change);
    };
    let child = Some(container.value(at).into());
    let changed = modify_or(child, rest, shape, change, ResultCode::OpNotApplicable)?;
    let Some(child) = changed.value else {
        return Ok(changed);
    };
    Ok(Changed::to(
        with_child(&container, at, &child),
        changed.result,
    ))
}

/// Makes the container that a step leads to, if it says so, and changes it.
fn create(
    container: &Container<'_>,
    step: &Step<'_>,
    rest: &[Step<'_>],
    shape: Shape,
    change: &mut dyn FnMut(Option<Stored<'_>>) -> Result<Changed, ResultCode>,
) -> Result<Changed, ResultCode> {
    let create = step.create.ok_or(ResultCode::OpNotApplicable)?;
    let is_map = rest
        .first()
        .map_or(shape == Shape::Map, |next| next.kind.is_of_map());
    let mut empty = Vec::new();
    Writer::new(&mut empty).container(is_map, child_order(is_map, create), 0);
    let changed = modify(Some(empty[..].into()), rest, shape, change)?;
    let child = changed.value.as_deref().unwrap_or(&empty);
    let (at, item) = match step.kind {
        StepKind::MapKey if has_sentinel(step.value) => return Err(ResultCode::Parameter),
        StepKind::MapKey => {
            let at = container
                .find_key(step.value)
                .err()
                .ok_or(ResultCode::Unknown)?;
            (at, [step.value, child].concat())
        }
        StepKind::ListIndex => {
            let beyond = usize::try_from(int_of(step.value)?)
                .ok()
                .and_then(|index| index.checked_sub(container.len()))
                .ok_or(ResultCode::OpNotApplicable)?;
            if container.is_ordered() && beyond == 0 {
                // What is made goes where it belongs.
                (container.equal_range(child).end, child.to_vec())
            } else if container.is_ordered() || beyond > 0 && create != Create::PaddedOrByKey {
                return Err(ResultCode::OpNotApplicable);
            } else {
                let value = insert_padded(container, beyond, child)?;
                return Ok(Changed::to(value, changed.result));
            }
        }
        _ => return Err(ResultCode::OpNotApplicable),
    };
    let edit = Edit {
        at,
        removed: 0,
        inserted: vec![item.into()],
    };
    Ok(Changed::to(container.edited(&[edit]), changed.result))
}

/// A list with nils and then an item behind its last one.
pub fn insert_padded(list: &Container<'_>, nils: usize, item: &[u8]) -> Result<Edited, ResultCode> {
    if nils > super::PADDING_MAX {
        return Err(ResultCode::RecordTooBig);
    }
    let mut inserted = vec![super::NIL.into(); nils];
    inserted.push(item.into());
    Ok(list.edited(&[Edit {
        at: list.len(),
        removed: 0,
        inserted,
    }]))
}

/// The order of a container that a step makes.
fn child_order(is_map: bool, create: Create) -> u8 {
    match (is_map, create) {
        (true, Create::PaddedOrByKey) | (false, Create::OrderedOrByKeyValue) => order::ORDERED,
        (true, Create::OrderedOrByKeyValue) => order::KEY_VALUE,
        _ => order::UNORDERED,
    }
}

/// The container after the item at `at` got another value.
pub fn with_child(container: &Container<'_>, at: usize, child: &[u8]) -> Edited {
    if container.is_map || !container.is_ordered() {
        let item = match container.is_map {
            true => [container.key(at), child].concat(),
            false => child.to_vec(),
        };
        return container.edited(&[Edit {
            at,
            removed: 1,
            inserted: vec![item.into()],
        }]);
    }
    // In an ordered list the element may belong elsewhere now.
    let to = container.equal_range(child).end;
    let removal = Edit {
        at,
        removed: 1,
        inserted: Vec::new(),
    };
    let insertion = Edit {
        at: to,
        removed: 0,
        inserted: vec![child.into()],
    };
    if to <= at {
        container.edited(&[insertion, removal])
    } else {
        container.edited(&[removal, insertion])
    }
}

/// The container that a step of this kind leads into. A bin that is none is of another type; a value within one is a place
/// that the way does not lead through, which callers say with `otherwise`.
fn container_for(
    value: Stored<'_>,
    kind: StepKind,
    otherwise: ResultCode,
) -> Result<Container<'_>, ResultCode> {
    match value.container() {
        Ok(container) if container.is_map == kind.is_of_map() => Ok(container),
        Ok(_) | Err(ResultCode::IncompatibleType) => Err(otherwise),
        Err(code) => Err(code),
    }
}

/// Where the item lies that a step leads to.
pub fn locate(container: &Container<'_>, step: &Step<'_>) -> Result<Option<usize>, ResultCode> {
    let at_place = |order: Order<'_>, place: Option<usize>| place.map(|place| order.at(place));
    let len = container.len();
    Ok(match step.kind {
        StepKind::ListIndex | StepKind::MapIndex => {
            at_place(container.by_index(), place(len, int_of(step.value)?))
        }
        StepKind::ListRank | StepKind::MapRank => {
            at_place(container.by_rank(), place(len, int_of(step.value)?))
        }
        StepKind::MapKey => container.find_key(step.value).ok(),
        StepKind::ListValue if container.is_ordered() => {
            Some(container.equal_range(step.value).start)
                .filter(|at| *at < len && compare(container.value(*at), step.value).is_eq())
        }
        StepKind::ListValue | StepKind::MapValue => {
            let by_index = container.by_index();
            (0..len)
                .map(|place| by_index.at(place))
                .find(|at| compare(container.value(*at), step.value).is_eq())
        }
    })
}
