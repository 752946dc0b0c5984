//! Indexes as queries and changes of records meet them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use perigee_wire::{
    Digest, RequestHeader, RequestWriter, ResultCode, field, info1, info2, info3, op,
    particle_type as particle,
};

use super::{CreateIndexError, INDEXES_MAX, IndexConfig, IndexDefinition, SecondaryIndex};
use crate::config::StorageConfig;
use crate::index::prefix_of;
use crate::namespace::Namespace;
use crate::query::{PartitionCursor, PieceEnd, QueryBudget, ReadAhead};
use crate::query_tests::{ALL, keys_of_one_partition, on_the_device, query, records_of, run};
use crate::request::Outcome;
use crate::testing::*;

const READY_WITHIN: Duration = Duration::from_secs(30);

fn definition(json: &str) -> IndexDefinition {
    let config: IndexConfig = serde_json::from_str(json).expect("a configuration");
    IndexDefinition::of(&config).expect("a definition")
}

/// Of the integers in bin `i` of set `demo`.
fn of_integers(name: &str) -> IndexDefinition {
    definition(&format!(
        r#"{{"name":"{name}","set":"demo","bin":"i","index-type":"default","key-type":"numeric"}}"#
    ))
}

fn create(namespace: &Arc<Namespace>, definition: IndexDefinition) -> Arc<SecondaryIndex> {
    let index = namespace.create_index(definition).expect("an index");
    let began = Instant::now();
    while !index.is_ready() {
        assert!(began.elapsed() < READY_WITHIN, "it is not built");
        std::thread::yield_now();
    }
    index
}

/// A query for the integers of bin `i` from `low` to `high`.
fn range_frame(low: i64, high: i64, bins: &[&str]) -> Vec<u8> {
    let mut range = vec![1, 1, b'i', particle::INTEGER];
    for end in [low, high] {
        range.extend(8u32.to_be_bytes());
        range.extend(end.to_be_bytes());
    }
    let mut frame = Vec::new();
    let header = RequestHeader {
        info1: info1::READ,
        ..RequestHeader::default()
    };
    let mut writer = RequestWriter::begin(&mut frame, header);
    writer.field(field::NAMESPACE, b"test");
    writer.field(field::SET, b"demo");
    writer.field(field::INDEX_RANGE, &range);
    for bin in bins {
        writer.op(op::READ, particle::NULL, bin.as_bytes(), &[]);
    }
    writer.finish();
    frame
}

fn found(namespace: &Namespace, low: i64, high: i64) -> BTreeSet<Digest> {
    let sent = run(namespace, &range_frame(low, high, &[]));
    let digests: BTreeSet<Digest> = sent.iter().map(|sent| sent.digest).collect();
    assert_eq!(digests.len(), sent.len(), "a record came twice");
    digests
}

fn replace_frame(key: &str, bin: &str, value: i64) -> Vec<u8> {
    request(key, write(0, info3::CREATE_OR_REPLACE), |w| {
        w.op(
            op::WRITE,
            particle::INTEGER,
            bin.as_bytes(),
            &value.to_be_bytes(),
        );
    })
}

/// Makes a record expired, as the passing of time would.
fn let_expire(namespace: &Namespace, key: &str) {
    let mut state = namespace.partition(&digest(key)).lock();
    if let Some(mut entry) = state.table.get(&digest(key)).filter(|e| !e.is_tombstone()) {
        entry.void_time = namespace.clock.wall_seconds();
        state.table.upsert(entry);
    }
}

#[test]
fn an_index_finds_what_was_there_and_what_comes() {
    let namespace = open(namespace_config(), vec![]);
    for value in 0..50 {
        put_int(&namespace, &value.to_string(), "i", value);
    }
    let index = create(&namespace, of_integers("first"));
    assert_eq!(index.stats().entries, 50);
    assert_eq!(index.stats().load_pct, 100);
    for value in 50..100 {
        put_int(&namespace, &value.to_string(), "i", value);
    }
    let expected = |values: std::ops::RangeInclusive<i64>| -> BTreeSet<Digest> {
        values.map(|value| digest(&value.to_string())).collect()
    };
    assert_eq!(found(&namespace, 10, 60), expected(10..=60));
    assert_eq!(found(&namespace, i64::MIN, i64::MAX), expected(0..=99));
    assert!(found(&namespace, 100, i64::MAX).is_empty());
    let sent = run(&namespace, &range_frame(7, 7, &["i"]));
    assert_eq!(sent[0].bins, [int_bin("i", 7)]);
    assert_eq!(index.stats().entries, 100);
}

/// Whatever becomes of records, a query finds those that have a value in its range and no others, and nothing is left in
/// the index of those that have gone.
fn changes_are_followed(namespace: &Arc<Namespace>, seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut model: BTreeMap<String, Option<i64>> = BTreeMap::new();
    let mut index = None;
    for round in 0..1500 {
        let key = random.below(80).to_string();
        let value = random.below(30) as i64 - 15;
        match random.below(16) {
            0..8 => {
                put_int(namespace, &key, "i", value);
                model.insert(key, Some(value));
            }
            8..10 => {
                run_frame(namespace, &replace_frame(&key, "i", value));
                model.insert(key, Some(value));
            }
            10 => {
                run_frame(namespace, &replace_frame(&key, "other", value));
                model.insert(key, None);
            }
            11 | 12 => {
                delete(namespace, &key);
                model.remove(&key);
            }
            13 => {
                let durable = write(info2::DELETE | info2::DURABLE_DELETE, 0);
                run_frame(namespace, &request(&key, durable, |_| {}));
                model.remove(&key);
            }
            14 => {
                let_expire(namespace, &key);
                model.remove(&key);
                if random.below(2) == 0 {
                    namespace.expire(|| false);
                }
            }
            _ if random.below(20) == 0 => {
                let mark = namespace.truncation_time();
                namespace.set_truncation(Some(b"demo"), mark).expect("room");
                model.clear();
                if random.below(2) == 0 {
                    namespace.sweep_truncated(|| false);
                }
            }
            _ => {}
        }
        if round == 200 {
            index = Some(create(namespace, of_integers("late")));
        }
        if round > 200 && round % 20 == 0 {
            let (a, b) = (random.below(40) as i64 - 20, random.below(40) as i64 - 20);
            let (low, high) = (a.min(b), a.max(b));
            let matching = model
                .iter()
                .filter(|(_, value)| value.is_some_and(|value| (low..=high).contains(&value)));
            let expected: BTreeSet<Digest> = matching.map(|(key, _)| digest(key)).collect();
            assert_eq!(found(namespace, low, high), expected, "round {round}");
        }
    }
    namespace.expire(|| false);
    namespace.sweep_truncated(|| false);
    namespace.collect_index_garbage(|| false);
    let values = model.values().flatten();
    let entries = index.expect("it was made").stats().entries;
    assert_eq!(entries, values.count() as u64);
}

#[test]
fn changes_are_followed_in_memory() {
    for seed in 1..=4 {
        let mut config = namespace_config();
        config.allow_ttl_without_nsup = true.into();
        changes_are_followed(&open(config, vec![]), seed);
    }
}

#[test]
fn changes_are_followed_on_a_device() {
    for seed in 11..=12 {
        let directory = TempDirectory::new(&format!("sindex-changes-{seed}"));
        let mut config = file_config(&directory);
        config.allow_ttl_without_nsup = true.into();
        if let StorageConfig::Device { common } = &mut config.storage_engine {
            // Records leave the memory soon.
            common.post_write_cache = 0;
        }
        let namespace = open(config, vec![]);
        changes_are_followed(&namespace, seed);
        namespace.store.close();
    }
}

#[test]
fn a_record_that_moves_within_the_range_comes_once() {
    let namespace = open(namespace_config(), vec![]);
    let (partition, keys) = keys_of_one_partition(40);
    for (value, key) in (0..).zip(&keys) {
        put_int(&namespace, key, "i", value);
    }
    create(&namespace, of_integers("moving"));
    let query = query(&namespace, &range_frame(0, 1000, &["i"])).expect("a query");
    for seed in 1..=20 {
        let mut random = Random(seed);
        let mut cursor = PartitionCursor::new(partition, None);
        let (mut reads, mut out) = (ReadAhead::default(), Vec::new());
        let mut outside = BTreeSet::new();
        loop {
            let mut budget = QueryBudget { records: 1, ..ALL };
            match namespace.query_piece(&query, &mut cursor, &mut budget, &mut reads, &mut out) {
                PieceEnd::Done => break,
                end => assert_eq!(end, PieceEnd::Budget),
            }
            for _ in 0..3 {
                let key = &keys[random.below(40) as usize];
                let value = random.below(1200) as i64;
                put_int(&namespace, key, "i", value);
                if value > 1000 {
                    outside.insert(digest(key));
                }
            }
            if random.below(4) == 0 {
                // A client that comes again names the last record it had.
                cursor = PartitionCursor::new(partition, cursor.after().copied());
            }
        }
        let sent = records_of(&out);
        let digests: Vec<Digest> = sent.iter().map(|sent| sent.digest).collect();
        assert!(
            digests.is_sorted_by(|a, b| a < b),
            "seed {seed}: twice, or out of order"
        );
        for sent in &sent {
            let value = i64::from_be_bytes(sent.bins[0].2.as_slice().try_into().expect("8 bytes"));
            assert!(
                (0..=1000).contains(&value),
                "seed {seed}: {value} is outside"
            );
        }
        for key in &keys {
            let digest = digest(key);
            // One that was outside for a while may have come or not.
            assert!(
                digests.contains(&digest) || outside.contains(&digest),
                "seed {seed}: {key}"
            );
        }
        for key in &keys {
            put_int(&namespace, key, "i", 500);
        }
    }
}

#[test]
fn digests_that_share_a_prefix_do_not_take_each_others_entries() {
    let namespace = open(namespace_config(), vec![]);
    let index = create(&namespace, of_integers("alike"));
    let twin = |last: u8| {
        let mut digest = digest("0");
        digest[19] = last;
        digest
    };
    assert_eq!(prefix_of(&twin(1)), prefix_of(&twin(2)));
    let send = |last: u8, header: RequestHeader, value: Option<i64>| {
        let mut frame = Vec::new();
        let mut writer = RequestWriter::begin(&mut frame, header);
        writer.field(field::NAMESPACE, b"test");
        writer.field(field::SET, b"demo");
        writer.field(field::DIGEST, &twin(last));
        if let Some(value) = value {
            writer.op(op::WRITE, particle::INTEGER, b"i", &value.to_be_bytes());
        }
        writer.finish();
        assert_eq!(run_frame(&namespace, &frame).code, ResultCode::Ok);
    };
    let put = |last, value| send(last, write(0, 0), Some(value));
    put(1, 5);
    put(2, 5);
    assert_eq!(found(&namespace, 5, 5), [twin(1), twin(2)].into());
    put(1, 6);
    assert_eq!(found(&namespace, 5, 5), [twin(2)].into());
    assert_eq!(found(&namespace, 6, 6), [twin(1)].into());
    send(1, write(info2::DELETE, 0), None);
    namespace.collect_index_garbage(|| false);
    assert_eq!(found(&namespace, 0, 9), [twin(2)].into());
    send(2, write(info2::DELETE, 0), None);
    namespace.collect_index_garbage(|| false);
    assert_eq!(index.stats().entries, 0, "nothing is left of either");
    put(1, 7);
    assert_eq!(found(&namespace, 0, 9), [twin(1)].into());
}

#[test]
fn an_index_is_built_while_records_change() {
    let directory = TempDirectory::new("sindex-build");
    let mut config = file_config(&directory);
    if let StorageConfig::Device { common } = &mut config.storage_engine {
        common.post_write_cache = 0;
        // What changes is compacted at once, so records move under the walk.
        common.defrag_lwm_pct = 90.into();
        common.defrag_sleep = 0.into();
    }
    let namespace = open(config, vec![]);
    for value in 0..4000 {
        put_int(&namespace, &value.to_string(), "i", value);
    }
    for round in 0..6 {
        let stop = AtomicBool::new(false);
        let name = format!("round{round}");
        std::thread::scope(|scope| {
            let stop = &stop;
            let namespace = &namespace;
            scope.spawn(move || {
                let mut random = Random(round);
                while !stop.load(Ordering::Relaxed) {
                    let key = random.below(4000);
                    put_int(
                        namespace,
                        &key.to_string(),
                        "i",
                        key as i64 + 10_000 * (random.below(3) as i64),
                    );
                }
            });
            create(namespace, of_integers(&name));
            stop.store(true, Ordering::Relaxed);
        });
        let (mut low, mut all) = (0, BTreeSet::new());
        while low < 30_000 {
            let part = found(&namespace, low, low + 9_999);
            assert!(all.is_disjoint(&part), "round {round}");
            all.extend(part);
            low += 10_000;
        }
        assert_eq!(all.len(), 4000, "round {round}");
        assert!(namespace.drop_index(&name));
    }
    namespace.store.close();
}

#[test]
fn a_replace_reads_what_an_index_has_of_the_record() {
    let directory = TempDirectory::new("sindex-replace");
    let (_, keys) = keys_of_one_partition(10);
    let namespace = on_the_device(&directory, &keys);
    let replace = replace_frame(&keys[3], "i", 99);
    let outcome = |frame: &[u8]| try_frame(&namespace, frame, None, &mut Vec::new());
    assert!(
        !matches!(outcome(&replace), Outcome::ReadDevice(_)),
        "nobody needs the old one"
    );
    let index = create(&namespace, of_integers("replaced"));
    assert!(matches!(
        outcome(&replace_frame(&keys[4], "i", 99)),
        Outcome::ReadDevice(_)
    ));
    run_frame(&namespace, &replace_frame(&keys[4], "i", 99));
    assert_eq!(found(&namespace, 0, 9).len(), 8);
    assert_eq!(index.stats().entries, 10);
    namespace.store.close();
}

#[test]
fn an_index_of_a_set_finds_its_records_without_a_look_at_others() {
    let namespace = open(namespace_config(), vec![]);
    for value in 0..30 {
        put_int(&namespace, &value.to_string(), "i", value);
    }
    let json = r#"{"name":"all of demo","set":"demo","index-type":"set","key-type":"numeric"}"#;
    let index = create(&namespace, definition(json));
    assert_eq!(index.stats().entries, 30);
    delete(&namespace, "7");
    put_int(&namespace, "30", "i", 30);
    let header = RequestHeader {
        info1: info1::READ,
        ..RequestHeader::default()
    };
    let mut frame = Vec::new();
    let mut writer = RequestWriter::begin(&mut frame, header);
    writer.field(field::NAMESPACE, b"test");
    writer.field(field::SET, b"demo");
    writer.finish();
    let digests = || -> BTreeSet<Digest> {
        run(&namespace, &frame)
            .iter()
            .map(|sent| sent.digest)
            .collect()
    };
    let expected: BTreeSet<Digest> = (0..=30)
        .filter(|value| *value != 7)
        .map(|value: i64| digest(&value.to_string()))
        .collect();
    assert_eq!(digests(), expected);
    // A query that has begun goes on without the index.
    let begun = query(&namespace, &frame).expect("a query");
    assert!(namespace.drop_index("all of demo"));
    assert_eq!(digests(), expected);
    let partition = perigee_wire::partition_of(&digest("3"));
    let mut cursor = PartitionCursor::new(partition, None);
    let (mut reads, mut out) = (ReadAhead::default(), Vec::new());
    let end = namespace.query_piece(
        &begun,
        &mut cursor,
        &mut QueryBudget { ..ALL },
        &mut reads,
        &mut out,
    );
    assert_eq!(end, PieceEnd::Done);
    assert!(
        records_of(&out)
            .iter()
            .any(|sent| sent.digest == digest("3"))
    );
}

#[test]
fn what_cannot_be_asked_of_an_index_is_refused_by_name() {
    let namespace = open(namespace_config(), vec![]);
    let refused = || query(&namespace, &range_frame(1, 2, &[])).err();
    // Nothing is found in a set that nobody has heard of, and clients rely on getting that.
    assert_eq!(refused(), None);
    put_int(&namespace, "k", "a", 1);
    assert_eq!(refused(), Some(ResultCode::SindexNotFound));
    let index = create(&namespace, of_integers("one"));
    assert_eq!(refused(), None);
    index.ready.store(false, Ordering::Release);
    assert_eq!(refused(), Some(ResultCode::SindexNotReadable));
    index.ready.store(true, Ordering::Release);
    let begun = query(&namespace, &range_frame(1, 2, &[])).expect("a query");
    assert!(namespace.drop_index("one"));
    assert!(!namespace.drop_index("one"));
    let partition = perigee_wire::partition_of(&digest("3"));
    let mut cursor = PartitionCursor::new(partition, None);
    let end = namespace.query_piece(
        &begun,
        &mut cursor,
        &mut QueryBudget { ..ALL },
        &mut ReadAhead::default(),
        &mut Vec::new(),
    );
    assert_eq!(end, PieceEnd::NoIndex);
}

#[test]
fn the_same_index_is_made_once_and_their_number_is_bounded() {
    let namespace = open(namespace_config(), vec![]);
    let first = create(&namespace, of_integers("a"));
    let again = namespace.create_index(of_integers("a")).expect("the same");
    assert!(Arc::ptr_eq(&first, &again));
    let json = r#"{"name":"a","set":"demo","bin":"j","index-type":"default","key-type":"numeric"}"#;
    let other = namespace.create_index(definition(json)).err();
    assert!(matches!(other, Some(CreateIndexError::Exists)));
    for number in 1..INDEXES_MAX {
        namespace
            .create_index(of_integers(&format!("n{number}")))
            .expect("room for an index");
    }
    let beyond = namespace.create_index(of_integers("beyond")).err();
    assert!(matches!(beyond, Some(CreateIndexError::TooMany)));
    namespace.stop_index_builds();
}
