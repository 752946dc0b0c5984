//! A compiled expression: a tree that owns all it needs.

use super::call::Call;
use super::number::Number;
use super::value::{Type, Value};
use crate::record::geo::Geometry;
use regex::bytes::Regex;

pub(super) enum Node {
    Literal(Value<'static>),
    Unknown,
    Removed,
    Compare(Comparison, Box<[Node; 2]>),
    Regex(Box<Regex>, Box<Node>),
    Geo(Box<[Location; 2]>),
    /// A value and a list.
    InList(Box<[Node; 2]>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Exclusive(Box<[Node]>),
    Not(Box<Node>),
    Number(Number, Box<[Node]>),
    DigestModulo(u32),
    Metadata(Metadatum),
    Key(Type),
    Bin(Type, Box<[u8]>),
    BinType(Box<[u8]>),
    MapKeys(Box<Node>),
    MapValues(Box<Node>),
    Element(Type, Part),
    /// Tests with what each leads to, and what none of them leads to.
    Cond(Box<[(Node, Node)]>, Box<Node>),
    /// By its place among the variables in scope.
    Variable(usize),
    Let(Box<[Node]>, Box<Node>),
    Call(Box<Call>),
}

/// One side of a comparison of locations; of a literal, what it means.
pub(super) enum Location {
    Known(Box<Geometry>),
    Computed(Node),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// A piece of metadata that needs no argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Metadatum {
    DeviceSize,
    /// Nanoseconds since 1970.
    LastUpdate,
    /// Milliseconds.
    SinceUpdate,
    /// Nanoseconds since 1970; -1 of a record that does not expire.
    VoidTime,
    /// Seconds; -1 of a record that does not expire.
    TimeToLive,
    SetName,
    KeyExists,
    IsTombstone,
    MemorySize,
    RecordSize,
}

impl Metadatum {
    pub(super) fn kind(self) -> Type {
        match self {
            Metadatum::SetName => Type::Str,
            Metadatum::KeyExists | Metadatum::IsTombstone => Type::Bool,
            _ => Type::Int,
        }
    }
}

/// What of the element that a path is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Of a pair the key, of an element of a list the index.
    Key,
    Value,
    /// Of a pair the place by key.
    Index,
}
