//! A table against an ordered map, its memory, and digests that clients chose to collide.

use super::{Entry, Location, PartitionTable, flag};
use crate::testing::Random;
use perigee_wire::{Digest, PartitionId};
use proptest::prelude::*;
use std::collections::BTreeMap;

const PARTITION: u16 = 0xABC;

fn table() -> PartitionTable {
    PartitionTable::new(PartitionId::new(PARTITION).unwrap())
}

fn in_partition(mut digest: Digest) -> Digest {
    digest[0] = PARTITION as u8;
    digest[1] = digest[1] & 0xF0 | (PARTITION >> 8) as u8;
    digest
}

fn entry(digest: Digest, version: u32) -> Entry {
    Entry {
        digest,
        set_id: version as u16 & Entry::SET_ID_MAX,
        generation: version as u16,
        last_update_time: version as u64,
        void_time: version,
        location: Location::new(1, version as u64, 1 + version),
        flags: flag::XDR_WRITE,
    }
}

fn random_digest(random: &mut Random) -> Digest {
    let words = [random.next(), random.next(), random.next()];
    in_partition(std::array::from_fn(|i| words[i / 8].to_le_bytes()[i % 8]))
}

#[test]
fn memory_stays_within_64_bytes_a_record() {
    let seed = 11;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut table = table();
    let mut worst = (0.0_f64, 0);
    for n in 1..=20_000_u32 {
        assert!(table.upsert(entry(random_digest(&mut random), n)).is_none());
        if n >= 200 {
            let bytes = table.memory_bytes() as f64 / n as f64;
            if bytes > worst.0 {
                worst = (bytes, n);
            }
            assert!(bytes <= 64.0, "{bytes} bytes a record at {n}");
        }
    }
    println!("at most {:.1} bytes a record, at {}", worst.0, worst.1);
}

#[test]
fn emptied_table_gives_its_memory_back() {
    let mut random = Random(5);
    let mut table = table();
    let digests: Vec<Digest> = (0..5000).map(|_| random_digest(&mut random)).collect();
    for digest in &digests {
        table.upsert(entry(*digest, 1));
    }
    let full = table.memory_bytes();
    for digest in &digests {
        assert!(table.remove(digest).is_some());
    }
    assert!(table.is_empty());
    assert!(table.memory_bytes() * 50 < full);
}

#[test]
fn digests_with_one_prefix_stay_correct() {
    for lead in [0x00, 0x80, 0xFF] {
        let mut table = table();
        let mut model = BTreeMap::new();
        for i in 0..700_u32 {
            let mut digest = in_partition([lead; 20]);
            digest[16..].copy_from_slice(&i.wrapping_mul(0x9E37_79B9).to_be_bytes());
            table.upsert(entry(digest, i));
            model.insert(digest, entry(digest, i));
        }
        assert!(table.iter().eq(model.values().copied()));
        for digest in model.keys().copied().collect::<Vec<_>>().iter().step_by(2) {
            assert_eq!(table.remove(digest), model.remove(digest));
        }
        assert!(table.iter().eq(model.values().copied()));
    }
}

/// Clients choose digests: a partition whose digests all began alike took a walk over all of them for
/// every lookup.
#[test]
fn colliding_digests_are_found_at_every_place() {
    for count in [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 1000, 2049] {
        let mut table = table();
        let digest = |i: u32| {
            let mut digest = in_partition([0x55; 20]);
            digest[16..].copy_from_slice(&(2 * i + 1).to_be_bytes());
            digest
        };
        for i in (0..count).rev() {
            assert!(table.upsert_if(entry(digest(i), i), |_| unreachable!("a new digest")));
        }
        for i in 0..count {
            assert_eq!(
                table.get(&digest(i)),
                Some(entry(digest(i), i)),
                "{i} of {count}"
            );
            let mut absent = digest(i);
            absent[19] ^= 1;
            assert_eq!(table.get(&absent), None, "before {i} of {count}");
            assert_eq!(table.iter_after(Some(&absent)).count() as u32, count - i);
            assert!(!table.upsert_if(entry(digest(i), i + 1), |old| old.generation > i as u16));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Upsert(Digest),
    Remove(Digest),
    After(Digest),
    /// Removes the first entries, which makes the table shrink.
    Trim(u8),
}

fn digest() -> impl Strategy<Value = Digest> {
    prop_oneof![
        any::<[u8; 20]>().prop_map(in_partition),
        // Few distinct digests, so that replacing and removing hit something.
        (0..64_u8).prop_map(|i| in_partition([i.wrapping_mul(37); 20])),
        // Differences only at the end, and runs that reach into the tail.
        (any::<u8>(), prop_oneof![Just(0xFF_u8), Just(0)]).prop_map(|(last, lead)| {
            let mut digest = [lead; 20];
            digest[19] = last;
            in_partition(digest)
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => digest().prop_map(Step::Upsert),
        3 => digest().prop_map(Step::Remove),
        1 => digest().prop_map(Step::After),
        1 => any::<u8>().prop_map(Step::Trim),
    ]
}

proptest! {
    #[test]
    fn table_agrees_with_an_ordered_map(steps in prop::collection::vec(step(), 1..600)) {
        let mut table = table();
        let mut model = BTreeMap::new();
        for (version, step) in steps.into_iter().enumerate() {
            match step {
                Step::Upsert(digest) => {
                    let entry = entry(digest, version as u32);
                    prop_assert_eq!(table.upsert(entry), model.insert(digest, entry));
                    prop_assert_eq!(table.get(&digest), Some(entry));
                }
                Step::Remove(digest) => {
                    prop_assert_eq!(table.remove(&digest), model.remove(&digest));
                    prop_assert_eq!(table.get(&digest), None);
                }
                Step::After(digest) => {
                    use std::ops::Bound::{Excluded, Unbounded};
                    let expected = model.range((Excluded(digest), Unbounded)).map(|(_, e)| *e);
                    prop_assert!(table.iter_after(Some(&digest)).eq(expected));
                }
                Step::Trim(count) => {
                    for _ in 0..count {
                        let Some((digest, entry)) = model.pop_first() else { break };
                        prop_assert_eq!(table.remove(&digest), Some(entry));
                    }
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        prop_assert!(table.iter().eq(model.values().copied()));
        prop_assert!(table.iter_after(None).eq(model.values().copied()));
        for (digest, entry) in &model {
            prop_assert_eq!(table.get(digest), Some(*entry));
        }
    }
}
