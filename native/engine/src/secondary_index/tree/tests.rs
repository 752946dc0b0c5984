//! The tree against a plain set, with every rule about its leaves looked at on the way.

use super::*;
use crate::testing::Random;
use std::collections::BTreeSet;

/// Bytes an entry that a tree of a hundred entries or more may take, everything counted.
const ENTRY_BYTES_MAX: f64 = 24.0;
/// The same when others have gone.
const LEFT_ENTRY_BYTES_MAX: f64 = 36.0;

fn bytes_an_entry(tree: &KeyTree) -> f64 {
    (tree.memory_bytes() + size_of::<KeyTree>()) as f64 / tree.len() as f64
}

/// What holds whatever was done before.
fn check(tree: &KeyTree, told: &str) {
    let sizes: Vec<usize> = tree.leaves.iter().map(|leaf| leaf.entries.len()).collect();
    assert_eq!(tree.len(), sizes.iter().sum::<usize>(), "{told}");
    let capacity: usize = tree.leaves.iter().map(|leaf| leaf.entries.capacity()).sum();
    assert_eq!(tree.capacity as usize, capacity, "{told}");
    for leaf in &tree.leaves {
        let (len, capacity) = (leaf.entries.len(), leaf.entries.capacity());
        assert!((1..=LEAF_ENTRIES_MAX).contains(&len), "{told}: {len}");
        assert!(
            capacity <= len + 2 * step(len),
            "{told}: {len} of {capacity}"
        );
        assert!(capacity <= LEAF_ENTRIES_MAX, "{told}: {capacity}");
        assert_eq!(leaf.first, leaf.entries[0], "{told}");
    }
    let is_sparse = |pair: &[usize]| pair[0] + pair[1] <= MERGE_ENTRIES_MAX;
    assert!(!sizes.windows(2).any(is_sparse), "{told}: {sizes:?}");
    let room = 2 * (sizes.len() / LEAVES_GROWTH_SHARE) + 2;
    assert!(tree.leaves.capacity() <= sizes.len() + room, "{told}");
    if sizes.is_empty() {
        assert_eq!(tree.memory_bytes(), 0, "{told}: an empty tree has no heap");
    }
    if tree.len() >= 100 {
        let bytes = bytes_an_entry(tree);
        assert!(bytes <= LEFT_ENTRY_BYTES_MAX, "{told}: {bytes}");
    }
    assert!(tree.iter().is_sorted_by(|a, b| a < b), "{told}");
}

/// What the next entries of a run are like.
#[derive(Clone, Copy, Debug)]
enum Order {
    Random,
    Ascending,
    Descending,
    /// In turns around one place.
    Inwards,
}

struct Run {
    random: Random,
    keys: u64,
    order: Order,
    next: u64,
}

impl Run {
    fn entry(&mut self) -> (u64, u64) {
        let prefix = match self.order {
            Order::Random => return (self.random.below(self.keys), self.random.below(64)),
            Order::Ascending => self.next,
            Order::Descending => u64::MAX - self.next,
            Order::Inwards if self.next.is_multiple_of(2) => self.next,
            Order::Inwards => u64::MAX - self.next,
        };
        self.next += 1;
        (self.keys / 2, prefix)
    }
}

fn runs_as_a_set_does(seed: u64) {
    let mut random = Random(seed);
    let mut model = BTreeSet::new();
    let mut tree = KeyTree::default();
    let keys = [1, 5, 400, u64::MAX][random.below(4) as usize];
    let mut run = Run {
        random: Random(random.next()),
        keys,
        order: Order::Random,
        next: 0,
    };
    for phase in 0..24 {
        let told = format!("seed {seed}, phase {phase}, {:?}", run.order);
        let inserted_pct = [100, 90, 50, 10, 0][random.below(5) as usize];
        for _ in 0..random.below(600) {
            if random.below(100) < inserted_pct {
                let entry = run.entry();
                assert_eq!(tree.insert(entry.0, entry.1), model.insert(entry), "{told}");
                continue;
            }
            let near = run.entry();
            let some = model.range(near..).next().or(model.first()).copied();
            let entry = some.filter(|_| random.below(10) > 0).unwrap_or(near);
            assert_eq!(
                tree.remove(entry.0, entry.1),
                model.remove(&entry),
                "{told}"
            );
        }
        check(&tree, &told);
        assert!(tree.iter().eq(model.iter().copied()), "{told}");
        for _ in 0..8 {
            let (low, high) = (run.entry().0, run.entry().0);
            let mut found = vec![7];
            tree.collect(low, high, &mut found);
            let mut expected = vec![7];
            if low <= high {
                let range = model.range((low, 0)..=(high, u64::MAX));
                expected.extend(range.map(|(_, prefix)| *prefix));
            }
            assert_eq!(found, expected, "{told}: {low} to {high}");
        }
        if random.below(3) == 0 {
            let share = 1 + random.below(5);
            let keep = |prefix: u64| !prefix.is_multiple_of(share);
            let before = model.len();
            model.retain(|(_, prefix)| keep(*prefix));
            assert_eq!(tree.retain_prefixes(keep), before - model.len(), "{told}");
            check(&tree, &told);
            assert!(tree.iter().eq(model.iter().copied()), "{told}");
        }
        run.order = [
            Order::Random,
            Order::Ascending,
            Order::Descending,
            Order::Inwards,
        ][random.below(4) as usize];
    }
    for (key, prefix) in std::mem::take(&mut model) {
        assert!(tree.remove(key, prefix), "seed {seed}");
    }
    check(&tree, &format!("seed {seed}, at the end"));
    assert!(tree.is_empty());
}

#[test]
fn a_tree_is_a_set() {
    (0..200).for_each(runs_as_a_set_does);
}

#[test]
fn the_ends_of_both_numbers_are_keys_like_others() {
    let mut tree = KeyTree::default();
    let ends = [0, 1, u64::MAX - 1, u64::MAX];
    for key in ends {
        for prefix in ends {
            assert!(tree.insert(key, prefix));
            assert!(!tree.insert(key, prefix));
        }
    }
    for key in ends {
        let mut found = Vec::new();
        tree.collect(key, key, &mut found);
        assert_eq!(found, ends);
    }
    let mut all = Vec::new();
    tree.collect(0, u64::MAX, &mut all);
    assert_eq!(all.len(), 16);
    assert_eq!(tree.retain_prefixes(|prefix| prefix == 0), 12);
    assert_eq!(tree.retain_prefixes(|_| false), 4);
    check(&tree, "emptied");
}

/// Entries of a size, as an index of random values has them, or one of values that only grow.
fn tree_of(entries: u64, is_ascending: bool) -> KeyTree {
    let mut random = Random(entries);
    let mut tree = KeyTree::default();
    for i in 0..entries {
        let key = if is_ascending { i } else { random.next() };
        assert!(tree.insert(key, random.next()));
    }
    tree
}

#[test]
fn an_entry_takes_little_more_than_its_numbers() {
    for entries in [100, 1_000, 10_000, 1_000_000] {
        for is_ascending in [true, false] {
            let tree = tree_of(entries, is_ascending);
            let bytes = bytes_an_entry(&tree);
            println!("{entries} entries, ascending {is_ascending}: {bytes:.1} bytes an entry");
            assert!(
                bytes <= ENTRY_BYTES_MAX,
                "{entries}, {is_ascending}: {bytes}"
            );
        }
    }
}

#[test]
fn no_size_from_a_hundred_on_takes_more() {
    for is_ascending in [true, false] {
        let (mut random, mut tree) = (Random(5), tree_of(100, is_ascending));
        for i in 100..5_000 {
            let key = if is_ascending { i } else { random.next() };
            tree.insert(key, random.next());
            let bytes = bytes_an_entry(&tree);
            assert!(bytes <= ENTRY_BYTES_MAX, "{i}, {is_ascending}: {bytes}");
        }
    }
}

#[test]
fn entries_in_order_fill_their_leaves() {
    let full = |tree: &KeyTree| {
        let full = |leaf: &&Leaf| leaf.entries.len() == LEAF_ENTRIES_MAX;
        tree.leaves.iter().filter(full).count()
    };
    let mut tree = KeyTree::default();
    (0..12_800).for_each(|i| assert!(tree.insert(i, 0)));
    assert_eq!((tree.leaves.len(), full(&tree)), (100, 100));
    let mut tree = KeyTree::default();
    (0..12_800).for_each(|i| assert!(tree.insert(12_800 - i, 0)));
    assert_eq!((tree.leaves.len(), full(&tree)), (100, 100));
}

#[test]
fn entries_that_go_take_their_memory_along() {
    let mut tree = tree_of(100_000, false);
    let entries: Vec<_> = tree.iter().collect();
    let mut random = Random(9);
    for (key, prefix) in &entries {
        if random.below(20) > 0 {
            assert!(tree.remove(*key, *prefix));
        }
    }
    check(&tree, "a twentieth is left");
    let mut tree = tree_of(100_000, false);
    tree.retain_prefixes(|prefix| prefix.is_multiple_of(20));
    check(&tree, "a twentieth was kept");
}
