//! Compilation: bounds, arity and types are checked here, so that evaluation meets only what a record may bring.

use super::damaged;
use super::node::{Comparison, Location, Metadatum, Node, Part};
use super::number::{Number, Operands};
use super::posix::compile_regex;
use super::value::{Type, Value};
use crate::record::geo::Geometry;
use perigee_wire::msgpack::{self, Reader, canonical};
use perigee_wire::{BIN_NAME_BYTES_MAX, ResultCode};

/// Expressions within one another. Evaluation goes down the stack as far.
pub const DEPTH_MAX: usize = 64;
/// Expressions and literals in one expression. Each takes some fifty bytes, and one byte of the request at least.
pub const NODES_MAX: usize = 1 << 16;
/// Patterns in one expression. Each takes up to 64 KiB.
pub const REGEXES_MAX: usize = 64;

pub(super) struct Compiled {
    pub(super) root: Node,
    pub(super) kind: Option<Type>,
    pub(super) needs: Needs,
}

/// What an expression looks at beside what is stored with a record's index entry.
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    pub(super) bins: bool,
    pub(super) key: bool,
    /// The present time.
    pub(super) time: bool,
}

/// An expression with the type of its values; None where they are never known.
pub(super) struct Typed {
    pub(super) node: Node,
    pub(super) kind: Option<Type>,
}

impl Typed {
    fn new(node: Node, kind: Type) -> Typed {
        Typed {
            node,
            kind: Some(kind),
        }
    }

    /// PARAMETER if the values are of a type that is not wanted.
    pub(super) fn expect(self, is_wanted: impl FnOnce(Type) -> bool) -> Result<Node, ResultCode> {
        match self.kind {
            Some(kind) if !is_wanted(kind) => Err(ResultCode::Parameter),
            _ => Ok(self.node),
        }
    }

    pub(super) fn expect_kind(self, wanted: Type) -> Result<Node, ResultCode> {
        self.expect(|kind| kind == wanted)
    }
}

pub(super) struct Compiler<'a> {
    nodes: usize,
    regexes: usize,
    /// Variables in scope, the outermost first.
    scope: Vec<(&'a [u8], Option<Type>)>,
    pub(super) place: Place,
    pub(super) needs: Needs,
}

/// Where an expression stands, which decides what it may speak of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Outside,
    /// The filter of a path: there is an element.
    Filter,
    /// What a path makes of an element: it may be removed, too.
    Change,
}

pub(super) fn compile(bytes: &[u8]) -> Result<Compiled, ResultCode> {
    let mut compiler = Compiler::new();
    let mut reader = Reader::new(bytes);
    let Typed { node, kind } = compiler.expression(&mut reader, 0)?;
    reader.finish().map_err(damaged)?;
    Ok(Compiled {
        root: node,
        kind,
        needs: compiler.needs,
    })
}

impl<'a> Compiler<'a> {
    pub(super) fn new() -> Compiler<'a> {
        Compiler {
            nodes: 0,
            regexes: 0,
            scope: Vec::new(),
            place: Place::Outside,
            needs: Needs::default(),
        }
    }

    /// Counts a node, at a depth.
    pub(super) fn enter(&mut self, depth: usize) -> Result<(), ResultCode> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(ResultCode::Parameter);
        }
        Ok(())
    }

    pub(super) fn expression(
        &mut self,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Typed, ResultCode> {
        self.enter(depth)?;
        let mut ahead = *reader;
        let msgpack::Value::Array(items) = ahead.read().map_err(damaged)? else {
            return literal(reader.skip().map_err(damaged)?);
        };
        *reader = ahead;
        if items == 0 {
            return Err(ResultCode::Parameter);
        }
        let code = reader.read_int().map_err(damaged)?;
        self.operation(code, items as usize - 1, reader, depth + 1)
    }

    /// `depth` is that of the arguments.
    fn operation(
        &mut self,
        code: i64,
        args: usize,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Typed, ResultCode> {
        if let Some(number) = Number::of_code(code) {
            return self.number(number, args, reader, depth);
        }
        if let (Some(metadatum), 0) = (metadatum(code), args) {
            self.needs.time |= matches!(metadatum, Metadatum::SinceUpdate | Metadatum::TimeToLive);
            return Ok(Typed::new(Node::Metadata(metadatum), metadatum.kind()));
        }
        match (code, args) {
            (0, 0) => Ok(Typed {
                node: Node::Unknown,
                kind: None,
            }),
            (1..=6, 2) => {
                let comparison = match code {
                    1 => Comparison::Equal,
                    2 => Comparison::NotEqual,
                    3 => Comparison::Greater,
                    4 => Comparison::GreaterOrEqual,
                    5 => Comparison::Less,
                    _ => Comparison::LessOrEqual,
                };
                let (left, right) = self.pair(reader, depth)?;
                let kind = unify(left.kind, right.kind)?;
                if kind.is_some_and(|kind| !kind.is_comparable()) {
                    return Err(ResultCode::Parameter);
                }
                let sides = Box::new([left.node, right.node]);
                Ok(Typed::new(Node::Compare(comparison, sides), Type::Bool))
            }
            (7, 3) => self.regex(reader, depth),
            (8, 2) => {
                let (left, right) = self.pair(reader, depth)?;
                let sides = [location(left)?, location(right)?];
                Ok(Typed::new(Node::Geo(Box::new(sides)), Type::Bool))
            }
            (9, 2) => {
                let (value, list) = self.pair(reader, depth)?;
                let sides = [value.node, list.expect_kind(Type::List)?];
                Ok(Typed::new(Node::InList(Box::new(sides)), Type::Bool))
            }
            (16, 1..) => self.tests(args, reader, depth, Node::And),
            (17, 1..) => self.tests(args, reader, depth, Node::Or),
            (19, 1..) => self.tests(args, reader, depth, Node::Exclusive),
            (18, 1) => {
                let test = self.expression(reader, depth)?.expect_kind(Type::Bool)?;
                Ok(Typed::new(Node::Not(Box::new(test)), Type::Bool))
            }
            (64, 1) => {
                let modulus = reader.read_int().map_err(damaged)?;
                let modulus = u32::try_from(modulus).map_err(damaged)?;
                if modulus == 0 {
                    return Err(ResultCode::Parameter);
                }
                Ok(Typed::new(Node::DigestModulo(modulus), Type::Int))
            }
            (80, 1) => {
                let kind = type_of(reader)?;
                if !matches!(kind, Type::Int | Type::Str | Type::Blob | Type::Float) {
                    return Err(ResultCode::Parameter);
                }
                self.needs.key = true;
                Ok(Typed::new(Node::Key(kind), kind))
            }
            (81, 2) => {
                let kind = type_of(reader)?;
                if kind == Type::Nil {
                    return Err(ResultCode::Parameter);
                }
                let name = self.bin_name(reader)?;
                Ok(Typed::new(Node::Bin(kind, name), kind))
            }
            (82, 1) => Ok(Typed::new(Node::BinType(self.bin_name(reader)?), Type::Int)),
            (100, 0) if self.place == Place::Change => Ok(Typed {
                node: Node::Removed,
                kind: None,
            }),
            (101 | 102, 1) => {
                let map = self.expression(reader, depth)?.expect_kind(Type::Map)?;
                let node = match code {
                    101 => Node::MapKeys(Box::new(map)),
                    _ => Node::MapValues(Box::new(map)),
                };
                Ok(Typed::new(node, Type::List))
            }
            (122, 2) if self.place != Place::Outside => {
                let kind = type_of(reader)?;
                let part = match reader.read_int().map_err(damaged)? {
                    0 => Part::Key,
                    1 => Part::Value,
                    2 => Part::Index,
                    _ => return Err(ResultCode::Parameter),
                };
                Ok(Typed::new(Node::Element(kind, part), kind))
            }
            (123, 3..) if args % 2 == 1 => self.cond(args / 2, reader, depth),
            (124, 1) => {
                let name = reader.read_str().map_err(damaged)?;
                let place = self.scope.iter().rposition(|(known, _)| *known == name);
                let place = place.ok_or(ResultCode::Parameter)?;
                Ok(Typed {
                    node: Node::Variable(place),
                    kind: self.scope[place].1,
                })
            }
            (125, 3..) if args % 2 == 1 => self.definitions(args / 2, reader, depth),
            (126, 1) => {
                let list = reader.skip().map_err(damaged)?;
                match literal(list)? {
                    list @ Typed {
                        kind: Some(Type::List),
                        ..
                    } => Ok(list),
                    _ => Err(ResultCode::Parameter),
                }
            }
            (127, 4) => self.call(reader, depth),
            _ => Err(ResultCode::Parameter),
        }
    }

    fn pair(
        &mut self,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<(Typed, Typed), ResultCode> {
        let left = self.expression(reader, depth)?;
        Ok((left, self.expression(reader, depth)?))
    }

    fn number(
        &mut self,
        number: Number,
        args: usize,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Typed, ResultCode> {
        if args == 0 || number.arity().is_some_and(|arity| arity != args) {
            return Err(ResultCode::Parameter);
        }
        let mut operands = Vec::new();
        let mut kind = None;
        for at in 0..args {
            let operand = self.expression(reader, depth)?;
            let is_fit = |kind| match number.operands() {
                Operands::Numbers => Type::is_number(kind),
                Operands::Floats => kind == Type::Float,
                Operands::IntAndBool if at == 1 => kind == Type::Bool,
                Operands::Ints | Operands::IntAndBool => kind == Type::Int,
            };
            if number.operands() == Operands::Numbers {
                kind = unify(kind, operand.kind)?;
            }
            operands.push(operand.expect(is_fit)?);
        }
        Ok(Typed {
            node: Node::Number(number, operands.into()),
            kind: number.kind(kind),
        })
    }

    fn regex(&mut self, reader: &mut Reader<'a>, depth: usize) -> Result<Typed, ResultCode> {
        let flags = reader.read_int().map_err(damaged)?;
        let pattern = reader.read_str().map_err(damaged)?;
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            return Err(ResultCode::Parameter);
        }
        let regex = compile_regex(pattern, flags)?;
        let text = self.expression(reader, depth)?.expect_kind(Type::Str)?;
        let node = Node::Regex(Box::new(regex), Box::new(text));
        Ok(Typed::new(node, Type::Bool))
    }

    fn tests(
        &mut self,
        args: usize,
        reader: &mut Reader<'a>,
        depth: usize,
        node: impl FnOnce(Box<[Node]>) -> Node,
    ) -> Result<Typed, ResultCode> {
        let mut tests = Vec::new();
        for _ in 0..args {
            tests.push(self.expression(reader, depth)?.expect_kind(Type::Bool)?);
        }
        Ok(Typed::new(node(tests.into()), Type::Bool))
    }

    fn cond(
        &mut self,
        cases: usize,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Typed, ResultCode> {
        let mut compiled = Vec::new();
        let mut kind = None;
        for _ in 0..cases {
            let test = self.expression(reader, depth)?.expect_kind(Type::Bool)?;
            let then = self.expression(reader, depth)?;
            kind = unify(kind, then.kind)?;
            compiled.push((test, then.node));
        }
        let default = self.expression(reader, depth)?;
        Ok(Typed {
            kind: unify(kind, default.kind)?,
            node: Node::Cond(compiled.into(), Box::new(default.node)),
        })
    }

    fn definitions(
        &mut self,
        count: usize,
        reader: &mut Reader<'a>,
        depth: usize,
    ) -> Result<Typed, ResultCode> {
        let outer = self.scope.len();
        let mut definitions = Vec::new();
        for _ in 0..count {
            let name = reader.read_str().map_err(damaged)?;
            if name.is_empty() {
                return Err(ResultCode::Parameter);
            }
            let definition = self.expression(reader, depth)?;
            self.scope.push((name, definition.kind));
            definitions.push(definition.node);
        }
        let body = self.expression(reader, depth)?;
        self.scope.truncate(outer);
        Ok(Typed {
            node: Node::Let(definitions.into(), Box::new(body.node)),
            kind: body.kind,
        })
    }

    fn bin_name(&mut self, reader: &mut Reader<'a>) -> Result<Box<[u8]>, ResultCode> {
        let name = reader.read_str().map_err(damaged)?;
        if name.is_empty() || name.len() > BIN_NAME_BYTES_MAX {
            return Err(ResultCode::Parameter);
        }
        self.needs.bins = true;
        Ok(name.into())
    }
}

/// The type that values of both types have; PARAMETER if there is none.
fn unify(a: Option<Type>, b: Option<Type>) -> Result<Option<Type>, ResultCode> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err(ResultCode::Parameter),
        _ => Ok(a.or(b)),
    }
}

/// One side of a comparison of locations. GEO_INVALID of a literal that means nothing.
fn location(side: Typed) -> Result<Location, ResultCode> {
    match side.expect_kind(Type::Geo)? {
        Node::Literal(Value::Geo(text)) => {
            let geometry = Geometry::parse(&text).map_err(|error| error.result_code())?;
            Ok(Location::Known(Box::new(geometry)))
        }
        node => Ok(Location::Computed(node)),
    }
}

pub(super) fn type_of(reader: &mut Reader<'_>) -> Result<Type, ResultCode> {
    Type::of_code(reader.read_int().map_err(damaged)?).ok_or(ResultCode::Parameter)
}

fn metadatum(code: i64) -> Option<Metadatum> {
    Some(match code {
        65 => Metadatum::DeviceSize,
        66 => Metadatum::LastUpdate,
        67 => Metadatum::SinceUpdate,
        68 => Metadatum::VoidTime,
        69 => Metadatum::TimeToLive,
        70 => Metadatum::SetName,
        71 => Metadatum::KeyExists,
        72 => Metadatum::IsTombstone,
        73 => Metadatum::MemorySize,
        74 => Metadatum::RecordSize,
        _ => return None,
    })
}

/// A literal of one msgpack value; PARAMETER of a sentinel, which only operations that are called know.
pub(super) fn literal(bytes: &[u8]) -> Result<Typed, ResultCode> {
    let bytes = canonical(bytes).map_err(damaged)?;
    let value = Value::of_msgpack_owned(bytes).map_err(damaged)?;
    Ok(Typed {
        kind: value.kind(),
        node: Node::Literal(value),
    })
}
