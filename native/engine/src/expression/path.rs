//! Paths into lists and maps (section 13): steps that lead to any number of elements, chosen by expressions, and what is
//! returned or made of those.
//!
//! ```text
//! path = [0xfe, [step, value, ...], flags] | [0xfe, [step, value, ...], flags | 4, expression]
//! ```

use super::call::VALUE_BYTES_MAX;
use super::compile::Compiler;
use super::eval::{Budget, Element, Frame, eval};
use super::node::Node;
use super::value::Value;
use super::{EvalError, RecordView, damaged};
use crate::record::cdt::{Container, Step, StepKind, locate};
use perigee_wire::ResultCode;
use perigee_wire::msgpack::{Reader, Writer, canonical, compare, has_sentinel};

pub(super) const PATH_CODE: i64 = 0xfe;

pub(super) struct Path {
    pub(super) steps: Vec<PathStep>,
    pub(super) mode: Mode,
    /// What is not of the expected type is let be, and an unknown test does not pass.
    pub(super) no_fail: bool,
}

pub(super) struct PathStep {
    pub(super) select: Select,
    /// What else an element has to pass.
    pub(super) filter: Option<Node>,
}

pub(super) enum Select {
    /// Every child, of a list or a map.
    All,
    One(StepKind, Vec<u8>),
    /// Of a map those with one of these keys, which are sorted.
    Keys(Vec<Vec<u8>>),
}

/// What becomes of the elements that the last step chooses.
pub(super) enum Mode {
    /// A copy of what leads to them.
    Tree,
    Values,
    /// Elements of lists have none.
    Keys,
    KeyValues,
    Change(Node),
}

impl Path {
    pub(super) fn is_change(&self) -> bool {
        matches!(self.mode, Mode::Change(_))
    }
}

/// An operation of a request that is a path.
pub struct PathOp(Path);

impl PathOp {
    /// Whether the value of a list or map operation is a path.
    pub fn is_path(value: &[u8]) -> bool {
        let mut reader = Reader::new(value);
        reader.read_array().is_ok() && reader.read_int() == Ok(PATH_CODE)
    }

    /// PARAMETER for what is no path.
    pub fn parse(value: &[u8]) -> Result<PathOp, ResultCode> {
        if value.len() > perigee_wire::EXPRESSION_BYTES_MAX {
            return Err(ResultCode::Parameter);
        }
        let mut reader = Reader::new(value);
        let items = reader.read_array().map_err(damaged)?;
        if reader.read_int() != Ok(PATH_CODE) {
            return Err(ResultCode::Parameter);
        }
        let path = Compiler::new().path(items, &mut reader, 1)?;
        reader.finish().map_err(damaged)?;
        Ok(PathOp(path))
    }

    /// Whether it makes another value of a bin, and not a result.
    pub fn is_modify(&self) -> bool {
        self.0.is_change()
    }

    /// The result, one msgpack value, or what the list or map becomes that a bin holds. `record` is what the path's
    /// expressions may look at. INCOMPATIBLE_TYPE where a step meets what it cannot go into, OP_NOT_APPLICABLE where an
    /// expression is unknown, both unless the flags say otherwise.
    pub fn run(&self, value: &[u8], record: &dyn RecordView) -> Result<Vec<u8>, ResultCode> {
        let budget = Budget::new();
        let frame = Frame {
            record,
            variables: Vec::new(),
            element: None,
            budget: &budget,
        };
        match Walk::within(&self.0, &frame).run(value) {
            Ok(result) => Ok(result),
            Err(EvalError::Failed(code)) => Err(code),
            Err(_) => Err(ResultCode::OpNotApplicable),
        }
    }
}

/// One evaluation of a path.
pub(super) struct Walk<'b, 's> {
    path: &'s Path,
    frame: Frame<'b, 's>,
}

/// A child that a step chooses.
#[derive(Clone, Copy)]
struct Chosen {
    /// Where it lies.
    at: usize,
    /// Its index, in a map by key.
    place: usize,
}

impl<'b, 's> Walk<'b, 's> {
    /// The path's expressions see the variables of the frame.
    pub(super) fn within<'v>(path: &'s Path, outer: &'s Frame<'b, 'v>) -> Walk<'b, 's>
    where
        'v: 's,
    {
        Walk {
            path,
            frame: Frame {
                record: outer.record,
                variables: outer.variables.iter().map(Value::borrowed).collect(),
                element: None,
                budget: outer.budget,
            },
        }
    }

    pub(super) fn run(mut self, root: &'s [u8]) -> Result<Vec<u8>, EvalError> {
        let mut out = Vec::new();
        match self.path.mode {
            Mode::Tree | Mode::Change(_) => {
                let is_container = match self.path.mode {
                    Mode::Tree => self.tree(root, 0, &mut out)?,
                    _ => self.change(root, 0, &mut out)?,
                };
                if !is_container {
                    return Err(EvalError::Failed(ResultCode::IncompatibleType));
                }
                if out.len() > VALUE_BYTES_MAX {
                    return Err(EvalError::TooMuch);
                }
                // Elements of an ordered list may belong elsewhere after a change, or without a part of themselves.
                canonical(&out).map_err(|_| EvalError::Failed(ResultCode::OpNotApplicable))
            }
            _ => {
                let mut body = Vec::new();
                let mut count = 0;
                self.collect(root, 0, &mut body, &mut count)?;
                Writer::new(&mut out).array(count);
                out.extend_from_slice(&body);
                Ok(out)
            }
        }
    }

    fn is_last(&self, depth: usize) -> bool {
        depth + 1 == self.path.steps.len()
    }

    /// What a step chooses of a value, by index; None where the value is not what it goes into, and that is no failure.
    fn choose(
        &mut self,
        value: &'s [u8],
        depth: usize,
    ) -> Result<Option<(Container<'s>, Vec<Chosen>)>, EvalError> {
        let step = &self.path.steps[depth];
        self.frame.budget.spend(value.len())?;
        let container = match (Container::parse(value), &step.select) {
            (Ok(container), Select::All) => container,
            (Ok(container), Select::One(kind, _)) if container.is_map == kind.is_of_map() => {
                container
            }
            (Ok(container), Select::Keys(_)) if container.is_map => container,
            _ if self.path.no_fail => return Ok(None),
            _ => return Err(EvalError::Failed(ResultCode::IncompatibleType)),
        };
        let by_index = container.by_index();
        let place_of = |at: usize| match by_index.is_lying() {
            true => at,
            false => (0..container.len())
                .find(|place| by_index.at(*place) == at)
                .unwrap_or_default(),
        };
        let mut chosen: Vec<Chosen> = match &step.select {
            Select::All => every(&container).collect(),
            Select::One(kind, value) => {
                let step = Step {
                    kind: *kind,
                    value,
                    create: None,
                };
                let at = locate(&container, &step).map_err(EvalError::Failed)?;
                at.map(|at| Chosen {
                    at,
                    place: place_of(at),
                })
                .into_iter()
                .collect()
            }
            Select::Keys(keys) if container.is_ordered() => keys
                .iter()
                .filter_map(|key| container.find_key(key).ok())
                .map(|at| Chosen { at, place: at })
                .collect(),
            Select::Keys(keys) => every(&container)
                .filter(|chosen| {
                    let key = container.key(chosen.at);
                    keys.binary_search_by(|wanted| compare(wanted, key)).is_ok()
                })
                .collect(),
        };
        if let Some(filter) = &step.filter {
            let mut failure = None;
            chosen.retain(|chosen| {
                failure.is_none()
                    && self
                        .passes(filter, &container, *chosen)
                        .unwrap_or_else(|error| {
                            failure = Some(error);
                            false
                        })
            });
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        Ok(Some((container, chosen)))
    }

    fn at(&mut self, container: &Container<'s>, chosen: Chosen) {
        self.frame.element = Some(Element {
            key: container.is_map.then(|| container.key(chosen.at)),
            value: container.value(chosen.at),
            index: chosen.place,
        });
    }

    fn passes(
        &mut self,
        filter: &'s Node,
        container: &Container<'s>,
        chosen: Chosen,
    ) -> Result<bool, EvalError> {
        self.at(container, chosen);
        match eval(filter, &mut self.frame).and_then(|value| value.as_bool()) {
            Err(EvalError::Unknown | EvalError::Failed(_)) if self.path.no_fail => Ok(false),
            result => result,
        }
    }

    fn collect(
        &mut self,
        value: &'s [u8],
        depth: usize,
        out: &mut Vec<u8>,
        count: &mut u32,
    ) -> Result<(), EvalError> {
        let Some((container, chosen)) = self.choose(value, depth)? else {
            return Ok(());
        };
        for chosen in chosen {
            if !self.is_last(depth) {
                self.collect(container.value(chosen.at), depth + 1, out, count)?;
                continue;
            }
            let (key, value) = (container.key(chosen.at), container.value(chosen.at));
            let parts: &[&[u8]] = match self.path.mode {
                Mode::Values => &[value],
                _ if !container.is_map => &[],
                Mode::Keys => &[key],
                _ => &[key, value],
            };
            for part in parts {
                self.frame.budget.spend(part.len())?;
                out.extend_from_slice(part);
                *count += 1;
            }
        }
        Ok(())
    }

    /// Appends a copy of a value with only what leads to chosen elements, and whether there is one.
    fn tree(
        &mut self,
        value: &'s [u8],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, EvalError> {
        let Some((container, mut chosen)) = self.choose(value, depth)? else {
            return Ok(false);
        };
        chosen.sort_unstable_by_key(|chosen| chosen.at);
        let mut body = Vec::new();
        let mut items = 0;
        for Chosen { at, .. } in chosen {
            let before = body.len();
            let is_copied = if self.is_last(depth) {
                body.extend_from_slice(container.item(at));
                true
            } else {
                if container.is_map {
                    body.extend_from_slice(container.key(at));
                }
                self.tree(container.value(at), depth + 1, &mut body)?
            };
            if is_copied {
                items += 1;
            } else {
                body.truncate(before);
            }
        }
        self.frame.budget.spend(body.len())?;
        Writer::new(out).container(container.is_map, container.order, items);
        out.extend_from_slice(&body);
        Ok(true)
    }

    /// Appends a copy of a value with the chosen elements changed, and whether it is a container.
    fn change(
        &mut self,
        value: &'s [u8],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, EvalError> {
        let Some((container, mut chosen)) = self.choose(value, depth)? else {
            return Ok(false);
        };
        chosen.sort_unstable_by_key(|chosen| chosen.at);
        let mut chosen = chosen.into_iter().peekable();
        let mut body = Vec::new();
        let mut items = 0;
        for at in 0..container.len() {
            let old = container.value(at);
            let place = match chosen.peek() {
                Some(chosen) if chosen.at == at => chosen.place,
                _ => {
                    body.extend_from_slice(container.item(at));
                    items += 1;
                    continue;
                }
            };
            chosen.next();
            let before = body.len();
            if container.is_map {
                body.extend_from_slice(container.key(at));
            }
            if self.is_last(depth) {
                self.at(&container, Chosen { at, place });
                if !self.write_changed(old, &mut body)? {
                    body.truncate(before);
                    continue;
                }
            } else if !self.change(old, depth + 1, &mut body)? {
                body.extend_from_slice(old);
            }
            items += 1;
        }
        self.frame.budget.spend(body.len())?;
        Writer::new(out).container(container.is_map, container.order, items);
        out.extend_from_slice(&body);
        Ok(true)
    }

    /// Appends what the current element becomes; false if it is removed.
    fn write_changed(&mut self, old: &[u8], out: &mut Vec<u8>) -> Result<bool, EvalError> {
        let Mode::Change(change) = &self.path.mode else {
            return Err(EvalError::Unknown);
        };
        let before = out.len();
        let written = match eval(change, &mut self.frame) {
            Ok(Value::Removed) => return Ok(false),
            Ok(value) => {
                self.frame.budget.spend(value.size_bytes())?;
                value.write_msgpack(out)
            }
            Err(error) => Err(error),
        };
        let written = written.and_then(|()| match has_sentinel(&out[before..]) {
            true => Err(EvalError::Unknown),
            false => Ok(()),
        });
        match written {
            Ok(()) => Ok(true),
            Err(EvalError::Unknown | EvalError::Failed(_)) if self.path.no_fail => {
                out.truncate(before);
                out.extend_from_slice(old);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}

/// Every child, by index.
fn every<'c>(container: &'c Container<'_>) -> impl Iterator<Item = Chosen> + 'c {
    let by_index = container.by_index();
    (0..container.len()).map(move |place| Chosen {
        at: by_index.at(place),
        place,
    })
}
