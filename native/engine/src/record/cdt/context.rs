//! The way from a bin's value to the container within it that an operation is about, and the way back with the change.

use super::call::{Create, Step, StepKind};
use super::container::{Container, Edit, Edited, Order};
use super::selection::{int_of, place};
use super::{Changed, Shape, Stored};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{Writer, compare, has_sentinel, order};

/// The container at the end of the steps. OP_NOT_APPLICABLE if one of them leads nowhere.
pub fn find<'a>(value: Stored<'a>, steps: &[Step<'_>]) -> Result<Stored<'a>, ResultCode> {
    let mut found = value;
    for step in steps {
        let container = container_for(found, step.kind)?;
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
    let [step, rest @ ..] = steps else {
        return change(value);
    };
    let container = match value {
        Some(value) => container_for(value, step.kind)?,
        None if step.create.is_some() => Container::empty(step.kind.is_of_map(), order::UNORDERED),
        None => return Err(ResultCode::OpNotApplicable),
    };
    let found = locate(&container, step)?;
    let Some(at) = found else {
        return create(&container, step, rest, shape, change);
    };
    let changed = modify(Some(container.value(at).into()), rest, shape, change)?;
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
        StepKind::ListIndex if !container.is_ordered() => {
            let beyond = usize::try_from(int_of(step.value)?)
                .ok()
                .and_then(|index| index.checked_sub(container.len()))
                .ok_or(ResultCode::OpNotApplicable)?;
            if beyond > 0 && create != Create::PaddedOrByKey {
                return Err(ResultCode::OpNotApplicable);
            }
            let value = insert_padded(container, beyond, child)?;
            return Ok(Changed::to(value, changed.result));
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

fn container_for(value: Stored<'_>, kind: StepKind) -> Result<Container<'_>, ResultCode> {
    let container = value.container()?;
    if container.is_map != kind.is_of_map() {
        return Err(ResultCode::IncompatibleType);
    }
    Ok(container)
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
