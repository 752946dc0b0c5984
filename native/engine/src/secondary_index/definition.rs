//! What an index is of: which records, which of their values, and of which type those are.

use data_encoding::BASE64;
use perigee_wire::msgpack::{Reader, canonical};
use perigee_wire::{
    BIN_NAME_BYTES_MAX, EXPRESSION_BYTES_MAX, ResultCode, SET_BYTES_MAX, index_type,
};
use serde::Deserialize;
use std::borrow::Cow;
use thiserror::Error;

use crate::expression::{Expression, Type};
use crate::record::cdt::{Step, find, parse_context};

/// Bytes of an index's name.
pub const INDEX_NAME_BYTES_MAX: usize = 63;
/// Of a context: a name or number a step, most often.
pub const CONTEXT_BYTES_MAX: usize = 64 << 10;

/// Of the values that are indexed; others are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum KeyType {
    #[serde(rename = "numeric", alias = "integer")]
    Integer,
    #[serde(rename = "string")]
    String,
    #[serde(rename = "blob")]
    Blob,
    #[serde(rename = "geo2dsphere")]
    Geo,
}

/// What of a value is indexed: itself, or each of the values in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Collection {
    None,
    List,
    MapKeys,
    MapValues,
}

impl Collection {
    /// Of an INDEX_TYPE field; None of a number that means nothing.
    pub fn of_wire(code: u8) -> Option<Collection> {
        Some(match code {
            index_type::DEFAULT => Collection::None,
            index_type::LIST => Collection::List,
            index_type::MAP_KEYS => Collection::MapKeys,
            index_type::MAP_VALUES => Collection::MapValues,
            _ => return None,
        })
    }
}

/// Where the value comes from.
#[derive(Debug)]
pub enum Source {
    Bin {
        name: Box<[u8]>,
        context: Option<ParsedContext>,
    },
    Expression(Expression),
    /// There is none: the index is of all records of a set.
    Set,
}

/// The way from a bin to a value within it. Each step leads to what is there; none makes anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParsedContext {
    /// Canonical, and checked.
    bytes: Box<[u8]>,
}

/// What an index is of.
#[derive(Debug)]
pub struct IndexDefinition {
    pub name: String,
    /// None for records of all sets, and of none.
    pub set: Option<Box<[u8]>>,
    pub source: Source,
    pub collection: Collection,
    /// Integer for an index of a set, the entries of which have the key 0.
    pub key_type: KeyType,
    /// See [`canonical_name`].
    pub context_bytes: Option<Box<[u8]>>,
    pub expression_bytes: Option<Box<[u8]>>,
}

/// An index as the control plane describes it. Context and expression are msgpack in base64.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IndexConfig {
    pub name: String,
    /// Empty or absent: no set.
    pub set: Option<String>,
    pub bin: Option<String>,
    pub context: Option<String>,
    pub expression: Option<String>,
    #[serde(default)]
    pub index_type: IndexType,
    /// Not looked at for an index of a set, needed for others.
    pub key_type: Option<KeyType>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexType {
    #[default]
    Default,
    List,
    MapKeys,
    MapValues,
    Set,
}

/// Why there is no such index.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum IndexError {
    #[error("index definition: {0}")]
    Json(String),
    #[error("index name of {bytes} bytes, 1 to {INDEX_NAME_BYTES_MAX} are allowed")]
    NameLength { bytes: usize },
    #[error("index name {name:?} has the character {found:?}, which names cannot have")]
    NameCharacter { name: String, found: char },
    #[error("set name of {bytes} bytes, at most {SET_BYTES_MAX} are allowed")]
    SetLength { bytes: usize },
    #[error("bin name of {bytes} bytes, 1 to {BIN_NAME_BYTES_MAX} are allowed")]
    BinLength { bytes: usize },
    #[error("an index is of a bin or of an expression, not of both")]
    BinAndExpression,
    #[error("an index needs a bin or an expression")]
    NoSource,
    #[error("a context leads to a value in a bin, and there is no bin")]
    ContextWithoutBin,
    #[error("an index of a set has no {found}")]
    SetWithSource { found: &'static str },
    #[error("an index of a set needs a set")]
    SetWithoutName,
    #[error("an index needs a key type: numeric, string, blob or geo2dsphere")]
    NoKeyType,
    #[error("keys of maps are numeric, string or blob, not geo2dsphere")]
    GeoMapKeys,
    #[error("{what} is no base64: {reason}")]
    Base64 { what: &'static str, reason: String },
    #[error("{what} of {bytes} bytes, at most {max} are allowed")]
    TooLong {
        what: &'static str,
        bytes: usize,
        max: usize,
    },
    #[error("context is not a list of steps and where they lead")]
    Context,
    #[error("context has no steps")]
    ContextEmpty,
    #[error("context has a step that makes what it does not find")]
    ContextCreates,
    #[error("expression is refused: {}", .code.name())]
    Expression { code: ResultCode },
    #[error("expression depends on the present time, so the index of a record would not stay true")]
    ExpressionOfTime,
    #[error("expression has {}, the index needs {expected:?}", kind_name(.found))]
    ExpressionType { found: Option<Type>, expected: Type },
}

fn kind_name(kind: &Option<Type>) -> String {
    kind.map_or("no value".into(), |kind| {
        format!("values of the type {kind:?}")
    })
}

impl IndexError {
    /// What a client is told.
    pub fn result_code(&self) -> ResultCode {
        ResultCode::Parameter
    }
}

impl IndexConfig {
    pub fn of_json(json: &str) -> Result<IndexConfig, IndexError> {
        serde_json::from_str(json).map_err(|error| IndexError::Json(error.to_string()))
    }
}

impl IndexDefinition {
    pub fn of(config: &IndexConfig) -> Result<IndexDefinition, IndexError> {
        check_name(&config.name)?;
        let set = config.set.as_deref().filter(|set| !set.is_empty());
        if let Some(set) = set
            && set.len() > SET_BYTES_MAX
        {
            return Err(IndexError::SetLength { bytes: set.len() });
        }
        let mut definition = IndexDefinition {
            name: config.name.clone(),
            set: set.map(|set| set.as_bytes().into()),
            source: Source::Set,
            collection: Collection::None,
            key_type: KeyType::Integer,
            context_bytes: None,
            expression_bytes: None,
        };
        definition.collection = match config.index_type {
            IndexType::Set => {
                check_set(config, set)?;
                return Ok(definition);
            }
            IndexType::Default => Collection::None,
            IndexType::List => Collection::List,
            IndexType::MapKeys => Collection::MapKeys,
            IndexType::MapValues => Collection::MapValues,
        };
        definition.key_type = config.key_type.ok_or(IndexError::NoKeyType)?;
        if (definition.collection, definition.key_type) == (Collection::MapKeys, KeyType::Geo) {
            return Err(IndexError::GeoMapKeys);
        }
        match (&config.bin, &config.expression) {
            (Some(_), Some(_)) => Err(IndexError::BinAndExpression),
            (None, None) => Err(IndexError::NoSource),
            (Some(bin), None) => definition.with_bin(bin, config.context.as_deref()),
            (None, Some(_)) if config.context.is_some() => Err(IndexError::ContextWithoutBin),
            (None, Some(expression)) => definition.with_expression(expression),
        }
    }

    fn with_bin(self, bin: &str, context: Option<&str>) -> Result<IndexDefinition, IndexError> {
        if !(1..=BIN_NAME_BYTES_MAX).contains(&bin.len()) {
            return Err(IndexError::BinLength { bytes: bin.len() });
        }
        let context = context
            .map(|context| ParsedContext::parse(&decode("context", context, CONTEXT_BYTES_MAX)?))
            .transpose()?;
        Ok(IndexDefinition {
            context_bytes: context.as_ref().map(|context| context.bytes.clone()),
            source: Source::Bin {
                name: bin.as_bytes().into(),
                context,
            },
            ..self
        })
    }

    fn with_expression(self, expression: &str) -> Result<IndexDefinition, IndexError> {
        let bytes = decode("expression", expression, EXPRESSION_BYTES_MAX)?;
        let expression =
            Expression::compile(&bytes).map_err(|code| IndexError::Expression { code })?;
        if expression.needs_time() {
            return Err(IndexError::ExpressionOfTime);
        }
        let expected = match (self.collection, self.key_type) {
            (Collection::List, _) => Type::List,
            (Collection::MapKeys | Collection::MapValues, _) => Type::Map,
            (Collection::None, KeyType::Integer) => Type::Int,
            (Collection::None, KeyType::String) => Type::Str,
            (Collection::None, KeyType::Blob) => Type::Blob,
            (Collection::None, KeyType::Geo) => Type::Geo,
        };
        let found = expression.result_type();
        if found != Some(expected) {
            return Err(IndexError::ExpressionType { found, expected });
        }
        Ok(IndexDefinition {
            expression_bytes: Some(canonical_name(&bytes).into()),
            source: Source::Expression(expression),
            ..self
        })
    }

    /// Whether two are of the same, whatever their names are.
    pub fn is_same(&self, other: &IndexDefinition) -> bool {
        let is_same_source = match (&self.source, &other.source) {
            (Source::Bin { name, .. }, Source::Bin { name: other, .. }) => name == other,
            (Source::Expression(_), Source::Expression(_)) | (Source::Set, Source::Set) => true,
            _ => false,
        };
        is_same_source
            && self.set == other.set
            && self.collection == other.collection
            && self.key_type == other.key_type
            && self.context_bytes == other.context_bytes
            && self.expression_bytes == other.expression_bytes
    }

    /// Whether no record has more than one key.
    pub fn has_one_key_each(&self) -> bool {
        self.collection == Collection::None && self.key_type != KeyType::Geo
    }

    /// Whether records of a set are indexed; the set is empty of those in none.
    pub fn covers_set(&self, set: &[u8]) -> bool {
        self.set.as_deref().is_none_or(|of| of == set)
    }
}

impl ParsedContext {
    /// An array of kinds of steps and where they lead, by turns.
    pub fn parse(bytes: &[u8]) -> Result<ParsedContext, IndexError> {
        let bytes = canonical(bytes).map_err(|_| IndexError::Context)?;
        let steps = steps_of(&bytes).ok_or(IndexError::Context)?;
        if steps.is_empty() {
            return Err(IndexError::ContextEmpty);
        }
        if steps.iter().any(|step| step.create.is_some()) {
            return Err(IndexError::ContextCreates);
        }
        Ok(ParsedContext {
            bytes: bytes.into(),
        })
    }

    /// What the steps lead to in a list or map, as msgpack. None if one of them leads nowhere.
    pub(super) fn find<'v>(&self, value: &'v [u8]) -> Option<&'v [u8]> {
        let found = find(value.into(), &steps_of(&self.bytes)?).ok()?;
        Some(found.bytes)
    }
}

fn steps_of(bytes: &[u8]) -> Option<Vec<Step<'_>>> {
    parse_context(&mut Reader::new(bytes)).ok()?.ok()
}

/// What a context or expression is known by, however a client writes it: its canonical form, if it has one. An index that
/// a query names by one is that of which [`IndexDefinition::context_bytes`] or `expression_bytes` is the same.
pub fn canonical_name(bytes: &[u8]) -> Cow<'_, [u8]> {
    canonical(bytes).map_or(Cow::Borrowed(bytes), Cow::Owned)
}

fn check_name(name: &str) -> Result<(), IndexError> {
    if !(1..=INDEX_NAME_BYTES_MAX).contains(&name.len()) {
        return Err(IndexError::NameLength { bytes: name.len() });
    }
    // Info commands and their replies are made of these.
    let is_refused = |c: &char| matches!(c, ':' | ';' | '=') || c.is_control();
    match name.chars().find(is_refused) {
        Some(found) => Err(IndexError::NameCharacter {
            name: name.into(),
            found,
        }),
        None => Ok(()),
    }
}

fn check_set(config: &IndexConfig, set: Option<&str>) -> Result<(), IndexError> {
    let sources = [
        ("bin", &config.bin),
        ("context", &config.context),
        ("expression", &config.expression),
    ];
    if let Some((found, _)) = sources.into_iter().find(|(_, source)| source.is_some()) {
        return Err(IndexError::SetWithSource { found });
    }
    set.map(|_| ()).ok_or(IndexError::SetWithoutName)
}

fn decode(what: &'static str, base64: &str, bytes_max: usize) -> Result<Vec<u8>, IndexError> {
    let bytes = BASE64
        .decode(base64.as_bytes())
        .map_err(|error| IndexError::Base64 {
            what,
            reason: error.to_string(),
        })?;
    if bytes.len() > bytes_max {
        return Err(IndexError::TooLong {
            what,
            bytes: bytes.len(),
            max: bytes_max,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
