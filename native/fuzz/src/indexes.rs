//! Secondary indexes: what a query asks for, the keys of a record, and the tree that keys are kept in.

use crate::expressions::Record;
use crate::part::{choice, split};
use arbitrary::Unstructured;
use perigee_engine::secondary_index::{
    Collection, IndexConfig, IndexDefinition, KeyTree, KeyType, Predicate, keys_of,
};
use serde_json::json;
use std::collections::BTreeSet;

const CHANGES_MAX: usize = 400;

pub(crate) fn run(data: &[u8]) {
    match choice(data, 5) {
        Some((4, data)) => {
            // An input that ends ends the sequence.
            let _ = tree(&mut Unstructured::new(data));
        }
        Some((collection, data)) => asked(collection, data),
        None => {}
    }
}

/// Who looks for what a query asks for among the keys must not miss a record that has it.
fn asked(collection: u8, data: &[u8]) {
    let Some((range, value)) = split(data) else {
        return;
    };
    let collection = Collection::of_wire(collection).expect("one of four");
    let Ok((predicate, bin)) = Predicate::parse(range, collection) else {
        return;
    };
    assert!(bin.len() <= 15);
    let ranges = predicate.ranges();
    assert!(ranges.iter().all(|(first, last)| first <= last));
    assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
    let Some(record) = Record::of(value) else {
        return;
    };
    let index_type = match collection {
        Collection::None => "default",
        Collection::List => "list",
        Collection::MapKeys => "mapkeys",
        Collection::MapValues => "mapvalues",
    };
    let key_type = match predicate.key_type() {
        KeyType::Integer => "numeric",
        KeyType::String => "string",
        KeyType::Blob => "blob",
        KeyType::Geo => "geo2dsphere",
    };
    let config = json!({"name": "i", "bin": "x", "index-type": index_type, "key-type": key_type});
    let config = IndexConfig::of_json(&config.to_string()).expect("a configuration");
    let definition = IndexDefinition::of(&config).expect("a definition");
    let mut keys = Vec::new();
    keys_of(&definition, &record, &mut keys);
    assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]));
    if predicate.matches(&definition, &record) {
        let is_found = |key: &u64| {
            ranges
                .iter()
                .any(|(first, last)| (first..=last).contains(&key))
        };
        assert!(
            keys.iter().any(is_found),
            "{keys:?} have none of {ranges:?}, of {data:02x?}"
        );
    }
}

fn tree(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (mut tree, mut model) = (KeyTree::default(), BTreeSet::new());
    let most = *input.choose(&[7, 63, 4095, u64::MAX])?;
    let mut run = 0;
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        let key = input.int_in_range(0..=most)?;
        match input.int_in_range(0..=9)? {
            0..=4 => {
                let prefix = input.int_in_range(0..=15)?;
                assert_eq!(tree.insert(key, prefix), model.insert((key, prefix)));
            }
            5 => {
                // Enough for several leaves.
                for prefix in 0..100_u64 {
                    run += 1;
                    let prefix = prefix << 32 | run;
                    assert_eq!(tree.insert(key, prefix), model.insert((key, prefix)));
                }
            }
            6 | 7 => {
                let known = model.range((key, 0)..).next().copied();
                let (key, prefix) = known.unwrap_or((key, 3));
                assert_eq!(tree.remove(key, prefix), model.remove(&(key, prefix)));
            }
            8 => {
                let high = input.int_in_range(0..=most)?;
                let mut found = Vec::new();
                tree.collect(key, high, &mut found);
                let expected: Vec<u64> = match key <= high {
                    true => model
                        .range((key, 0)..=(high, u64::MAX))
                        .map(|it| it.1)
                        .collect(),
                    false => Vec::new(),
                };
                found.sort_unstable();
                let mut expected = expected;
                expected.sort_unstable();
                assert_eq!(found, expected);
            }
            _ => {
                let gone = input.int_in_range(0..=15_u64)?;
                let before = model.len();
                model.retain(|(_, prefix)| prefix % 16 != gone);
                let removed = tree.retain_prefixes(|prefix| prefix % 16 != gone);
                assert_eq!(removed, before - model.len());
            }
        }
        assert_eq!(tree.len(), model.len());
    }
    assert!(tree.iter().eq(model.into_iter()));
    Ok(())
}
