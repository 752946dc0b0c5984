//! Which index a query is answered from, and the records that it finds there.

use std::sync::Arc;

use perigee_wire::{Message, ResultCode};

use super::definition::{Source, canonical_name};
use super::{Collection, Predicate, SecondaryIndex};
use crate::expression::RecordView;
use crate::namespace::Namespace;
use crate::partition::PartitionState;

/// A query's way to its records.
pub(crate) struct IndexQuery {
    index: Arc<SecondaryIndex>,
    /// `None` for all records of the index: it is one of a set.
    predicate: Option<Predicate>,
}

impl IndexQuery {
    /// The index and the range that a message names; `None` for one that names neither.
    pub(crate) fn of(
        namespace: &Namespace,
        message: &Message<'_>,
    ) -> Result<Option<IndexQuery>, ResultCode> {
        let Some(range) = message.index_range else {
            let names_one = message.index_name.is_some()
                || message.index_expression.is_some()
                || message.index_context.is_some()
                || message.index_type.is_some();
            return match names_one {
                true => Err(ResultCode::Parameter),
                false => Ok(None),
            };
        };
        let kind = message.index_type.unwrap_or_default();
        let collection = Collection::of_wire(kind).ok_or(ResultCode::Parameter)?;
        let (predicate, bin) = Predicate::parse(range, collection)?;
        let context = message.index_context.map(canonical_name);
        let expression = message.index_expression.map(canonical_name);
        let is_asked_for = |index: &SecondaryIndex| {
            let definition = &index.definition;
            if let Some(name) = message.index_name {
                return definition.name.as_bytes() == name;
            }
            definition.collection == collection
                && definition.key_type == predicate.key_type()
                && match (&definition.source, &expression) {
                    (Source::Expression(_), Some(_)) => {
                        definition.expression_bytes.as_deref() == expression.as_deref()
                    }
                    (Source::Bin { name, .. }, None) => {
                        **name == *bin && definition.context_bytes.as_deref() == context.as_deref()
                    }
                    _ => false,
                }
        };
        let of_set = |index: &&Arc<SecondaryIndex>| index.definition.set.as_deref() == message.set;
        let of_all = |index: &&Arc<SecondaryIndex>| index.definition.set.is_none();
        let mut indexes = namespace.secondary_indexes();
        indexes.retain(|index| is_asked_for(index));
        let index = indexes
            .iter()
            .find(of_set)
            .or_else(|| indexes.iter().find(of_all))
            .ok_or(ResultCode::SindexNotFound)?;
        let definition = &index.definition;
        if definition.key_type != predicate.key_type() || definition.collection != collection {
            return Err(ResultCode::Parameter);
        }
        if !index.is_ready() {
            return Err(ResultCode::SindexNotReadable);
        }
        Ok(Some(IndexQuery {
            index: index.clone(),
            predicate: Some(predicate),
        }))
    }

    /// The index of all records of a set, if there is one.
    pub(crate) fn of_set(namespace: &Namespace, set_id: u16) -> Option<IndexQuery> {
        let indexes = namespace.indexes.list.read();
        let serves = |index: &&Arc<SecondaryIndex>| {
            index.is_of_set() && index.set_id == Some(set_id) && index.is_ready()
        };
        let index = indexes.iter().find(serves)?.clone();
        Some(IndexQuery {
            index,
            predicate: None,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.index.definition.name
    }

    /// Whether records have to be looked at, since the index alone does not tell which they are.
    pub(crate) fn has_predicate(&self) -> bool {
        self.predicate.is_some()
    }

    /// Prefixes of the records of a partition that the index has in the range, in any order, some of them more than once.
    /// `None` where the index was dropped.
    pub(crate) fn find(&self, state: &PartitionState) -> Option<Vec<u64>> {
        let tree = state.updates.indexes.tree(&self.index)?;
        let mut prefixes = Vec::new();
        match &self.predicate {
            None => tree.collect(0, u64::MAX, &mut prefixes),
            Some(predicate) => {
                for (low, high) in predicate.ranges() {
                    tree.collect(*low, *high, &mut prefixes);
                }
            }
        }
        Some(prefixes)
    }

    /// Whether a record really has a value in the range.
    pub(crate) fn matches(&self, record: &dyn RecordView) -> bool {
        let predicate = self.predicate.as_ref();
        predicate.is_none_or(|predicate| predicate.matches(&self.index.definition, record))
    }
}
