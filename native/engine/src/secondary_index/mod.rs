//! Secondary indexes: which records have a value in some range.

mod definition;
mod keys;
mod predicate;
mod tree;

pub use definition::{
    Collection, IndexConfig, IndexDefinition, IndexError, IndexType, KeyType, ParsedContext,
    Source, canonical_name,
};
pub use keys::{key_of_bytes, key_of_integer, keys_of};
pub use predicate::Predicate;
pub use tree::KeyTree;
