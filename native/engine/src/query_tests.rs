use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use perigee_wire::{
    Digest, Message, PartitionId, RequestHeader, RequestWriter, ResultCode, field, info1, info2,
    op, particle_type as particle, partition_of,
};
use proptest::prelude::*;

use crate::index::Entry;
use crate::namespace::Namespace;
use crate::query::{AskedRead, PartitionCursor, PieceEnd, QueryBudget, ReadAhead, RecordQuery};
use crate::storage::AlignedBuf;
use crate::testing::*;

pub(crate) const ALL: QueryBudget = QueryBudget {
    visits: usize::MAX,
    records: u64::MAX,
    bytes: usize::MAX,
};

fn query_frame(info1: u8, set: &str, bins: &[&str]) -> Vec<u8> {
    let mut frame = Vec::new();
    let header = RequestHeader {
        info1: info1::READ | info1,
        ..RequestHeader::default()
    };
    let mut writer = RequestWriter::begin(&mut frame, header);
    writer.field(field::NAMESPACE, b"test");
    writer.field(field::SET, set.as_bytes());
    for bin in bins {
        writer.op(op::READ, particle::NULL, bin.as_bytes(), &[]);
    }
    writer.finish();
    frame
}

pub(crate) fn query(namespace: &Namespace, frame: &[u8]) -> Result<RecordQuery, ResultCode> {
    let message = Message::parse(&frame[perigee_wire::PROTO_HEADER_BYTES..]).expect("a message");
    RecordQuery::of(namespace, &message)
}

/// A record as it was sent, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) digest: Digest,
    pub(crate) set: Option<Vec<u8>>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) generation: u32,
    pub(crate) void_time: u32,
    pub(crate) bins: Vec<(String, u8, Vec<u8>)>,
}

pub(crate) fn records_of(mut bytes: &[u8]) -> Vec<Sent> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (message, rest) = Message::parse_prefix(bytes).expect("a valid record");
        assert_eq!(message.namespace, Some(&b"test"[..]));
        let name = |name: &[u8]| String::from_utf8(name.to_vec()).expect("a name");
        records.push(Sent {
            digest: *message.digest.expect("a digest"),
            set: message.set.map(<[u8]>::to_vec),
            key: message.key.map(<[u8]>::to_vec),
            generation: message.header.generation,
            void_time: message.header.record_ttl,
            bins: message
                .ops
                .into_iter()
                .map(|op| (name(op.name), op.particle, op.value.to_vec()))
                .collect(),
        });
        bytes = rest;
    }
    records
}

/// Runs a query over a partition, piece by piece, reading what the device holds.
pub(crate) fn run_partition(
    namespace: &Namespace,
    query: &RecordQuery,
    cursor: &mut PartitionCursor,
    piece: impl Fn() -> QueryBudget,
) -> Vec<Sent> {
    let (mut out, mut reads) = (Vec::new(), ReadAhead::default());
    loop {
        match namespace.query_piece(query, cursor, &mut piece(), &mut reads, &mut out) {
            PieceEnd::Done => return records_of(&out),
            PieceEnd::Budget => {}
            PieceEnd::NoIndex => panic!("the index was dropped"),
            PieceEnd::NeedsDevice(locations) => {
                assert!(!locations.is_empty(), "every read before was delivered");
                for asked in locations {
                    deliver(namespace, &mut reads, asked);
                }
            }
        }
    }
}

/// Reads what was asked for.
fn deliver(namespace: &Namespace, reads: &mut ReadAhead, asked: AskedRead) {
    let mut buffer = AlignedBuf::default();
    reads.deliver(asked, namespace.read_device(asked.location, &mut buffer));
}

pub(crate) fn run(namespace: &Namespace, frame: &[u8]) -> Vec<Sent> {
    let query = query(namespace, frame).expect("a query");
    PartitionId::all()
        .flat_map(|partition| {
            let mut cursor = PartitionCursor::new(partition, None);
            run_partition(namespace, &query, &mut cursor, || ALL)
        })
        .collect()
}

/// Keys of the set `demo` that fall into one partition.
pub(crate) fn keys_of_one_partition(count: usize) -> (PartitionId, Vec<String>) {
    let partition = partition_of(&digest("0"));
    let keys = (0..)
        .map(|number: u64| number.to_string())
        .filter(|key| partition_of(&digest(key)) == partition)
        .take(count)
        .collect();
    (partition, keys)
}

#[test]
fn records_come_once_in_digest_order_with_what_belongs_to_them() {
    let namespace = open(namespace_config(), Vec::new());
    for number in 0..500 {
        put_int(&namespace, &number.to_string(), "i", number);
    }
    let found = run(&namespace, &query_frame(0, "", &[]));
    assert_eq!(found.len(), 500);
    for partition in found.chunk_by(|a, b| partition_of(&a.digest) == partition_of(&b.digest)) {
        assert!(partition.is_sorted_by(|a, b| a.digest < b.digest));
    }
    let by_digest: BTreeMap<Digest, Sent> =
        found.into_iter().map(|sent| (sent.digest, sent)).collect();
    for number in 0..500 {
        let expected = Sent {
            digest: digest(&number.to_string()),
            set: Some(b"demo".to_vec()),
            key: None,
            generation: 1,
            void_time: 0,
            bins: vec![int_bin("i", number)],
        };
        assert_eq!(by_digest[&expected.digest], expected);
    }
}

#[test]
fn expired_records_tombstones_and_other_sets_are_left_out() {
    let mut config = namespace_config();
    config.allow_ttl_without_nsup = true.into();
    let namespace = open(config, Vec::new());
    put_int(&namespace, "kept", "i", 1);
    put_int(&namespace, "gone", "i", 2);
    run_frame(
        &namespace,
        &request(
            "gone",
            write(info2::DELETE | info2::DURABLE_DELETE, 0),
            |_| {},
        ),
    );
    put_int(&namespace, "expired", "i", 3);
    let mut state = namespace.partition(&digest("expired")).lock();
    let mut entry = state.table.get(&digest("expired")).expect("it was put");
    entry.void_time = namespace.clock.wall_seconds();
    state.table.upsert(entry);
    drop(state);
    let digests = |frame: &[u8]| -> Vec<Digest> {
        run(&namespace, frame)
            .iter()
            .map(|sent| sent.digest)
            .collect()
    };
    assert_eq!(digests(&query_frame(0, "", &[])), [digest("kept")]);
    assert_eq!(digests(&query_frame(0, "demo", &[])), [digest("kept")]);
    assert!(digests(&query_frame(0, "other", &[])).is_empty());
    assert_eq!(namespace.sets.find(b"other"), None, "asking makes no set");
}

#[test]
fn bins_and_keys_are_sent_as_asked_for() {
    let namespace = open(namespace_config(), Vec::new());
    let key = [&[particle::STRING][..], b"k"].concat();
    run_frame(
        &namespace,
        &request("k", write(0, 0), |w| {
            w.field(field::KEY, &key);
            for (name, value) in [(b"b", 2_i64), (b"a", 1), (b"c", 3)] {
                w.op(op::WRITE, particle::INTEGER, name, &value.to_be_bytes());
            }
        }),
    );
    let only = |frame: &[u8]| run(&namespace, frame).pop().expect("one record");
    let all = only(&query_frame(0, "demo", &[]));
    assert_eq!(all.bins.len(), 3);
    assert_eq!(all.key.as_ref(), Some(&key));
    let some = only(&query_frame(0, "demo", &["c", "missing", "b", "c"]));
    assert_eq!(some.bins, [int_bin("b", 2), int_bin("c", 3)]);
    // A record with none of the bins that are asked for is left out.
    assert_eq!(run(&namespace, &query_frame(0, "demo", &["missing"])), []);
    let none = only(&query_frame(info1::GET_NO_BINS, "demo", &["a"]));
    assert_eq!((none.bins.len(), none.key), (0, Some(key)));
    assert_eq!(none.set.as_deref(), Some(&b"demo"[..]));
}

#[test]
fn what_a_query_cannot_do_is_refused_by_name() {
    let namespace = open(namespace_config(), Vec::new());
    let refused = |frame: &[u8]| query(&namespace, frame).err();
    let with = |code: u8, name: &[u8]| {
        let mut frame = Vec::new();
        let header = RequestHeader {
            info1: info1::READ,
            ..RequestHeader::default()
        };
        let mut writer = RequestWriter::begin(&mut frame, header);
        writer.op(code, particle::BLOB, name, &[0x91, 0x10]);
        writer.finish();
        frame
    };
    assert_eq!(
        refused(&with(op::STRING_READ, b"l")),
        Some(ResultCode::UnsupportedFeature)
    );
    assert_eq!(refused(&with(op::WRITE, b"i")), Some(ResultCode::Parameter));
    assert_eq!(refused(&with(op::READ, b"")), Some(ResultCode::Parameter));
    let mut filtered = Vec::new();
    let mut writer = RequestWriter::begin(
        &mut filtered,
        RequestHeader {
            info1: info1::READ,
            ..RequestHeader::default()
        },
    );
    // A filter that is an integer.
    writer.field(field::FILTER, &[0x05]);
    writer.finish();
    assert_eq!(refused(&filtered), Some(ResultCode::Parameter));
}

/// A namespace whose records are on its device and nowhere else; each has its place in `keys` as its value.
pub(crate) fn on_the_device(directory: &TempDirectory, keys: &[String]) -> Arc<Namespace> {
    let mut config = file_config(directory);
    let crate::config::StorageConfig::Device { common } = &mut config.storage_engine else {
        unreachable!("a namespace on a file")
    };
    common.post_write_cache = 0;
    // Nothing is moved into memory by defragmentation.
    common.defrag_lwm_pct = 1.into();
    let namespace = open(config.clone(), Vec::new());
    for (value, key) in (0..).zip(keys) {
        put_int(&namespace, key, "i", value);
    }
    namespace.store.drain().expect("drained");
    namespace.store.close();
    open(config, Vec::new())
}

/// A query waited for its peer while the block that its next record lay in was used again: by a record that the query came to
/// later, at the same place. What had been read for the first one was of no use for the second, and was not read again either:
/// the query waited for ever.
#[test]
fn a_place_that_another_record_has_taken_since_it_was_read_is_read_again() {
    let directory = TempDirectory::new("query-place");
    let (partition, keys) = keys_of_one_partition(30);
    let namespace = on_the_device(&directory, &keys);
    let query = query(&namespace, &query_frame(0, "demo", &[])).expect("a query");
    let mut cursor = PartitionCursor::new(partition, None);
    let (mut reads, mut out) = (ReadAhead::default(), Vec::new());
    let mut piece = |reads: &mut _| {
        namespace.query_piece(
            &query,
            &mut cursor,
            &mut QueryBudget { ..ALL },
            reads,
            &mut out,
        )
    };
    let PieceEnd::NeedsDevice(asked) = piece(&mut reads) else {
        panic!("the records are on the device")
    };
    assert_eq!(asked.len(), 30);
    for asked in &asked {
        deliver(&namespace, &mut reads, *asked);
    }
    {
        let mut state = namespace.partitions()[partition.index()].lock();
        let entries: Vec<Entry> = state.table.iter_after(None).collect();
        state.table.remove(&entries[0].digest);
        let moved = Entry {
            location: entries[0].location,
            ..entries[1]
        };
        state.table.upsert(moved);
    }
    let PieceEnd::NeedsDevice(again) = piece(&mut reads) else {
        panic!("what lies there is not known")
    };
    assert_eq!((again.len(), again[0].location), (1, asked[0].location));
    assert_ne!(again[0], asked[0]);
    // The first read of that place, coming late, is not taken for the second.
    deliver(&namespace, &mut reads, asked[0]);
    assert_eq!(piece(&mut reads), PieceEnd::NeedsDevice(Vec::new()));
    // Bytes of another record under a good checksum are damage, and no reason to read them once more.
    deliver(&namespace, &mut reads, again[0]);
    assert_eq!(piece(&mut reads), PieceEnd::Done);
    assert_eq!(records_of(&out).len(), 28);
    let unreadable = namespace
        .stats
        .totals()
        .into_iter()
        .find(|(name, _)| *name == "query_unreadable_records");
    assert_eq!(unreadable.map(|(_, count)| count), Some(1));
    namespace.store.close();
}

#[test]
fn records_on_the_device_are_read_a_bounded_number_at_once() {
    let directory = TempDirectory::new("query-read-ahead");
    let (partition, keys) = keys_of_one_partition(200);
    let namespace = on_the_device(&directory, &keys);
    let query = query(&namespace, &query_frame(0, "demo", &[])).expect("a query");
    let mut cursor = PartitionCursor::new(partition, None);
    let (mut reads, mut out) = (ReadAhead::default(), Vec::new());
    let piece = |query: &_, cursor: &mut _, reads: &mut _, out: &mut _| {
        namespace.query_piece(query, cursor, &mut QueryBudget { ..ALL }, reads, out)
    };
    let PieceEnd::NeedsDevice(first) = piece(&query, &mut cursor, &mut reads, &mut out) else {
        panic!("the records are on the device")
    };
    assert_eq!(first.len(), 32);
    // Nothing more is asked for while they are under way; one that is there makes room for one.
    assert_eq!(
        piece(&query, &mut cursor, &mut reads, &mut out),
        PieceEnd::NeedsDevice(Vec::new())
    );
    deliver(&namespace, &mut reads, first[0]);
    let PieceEnd::NeedsDevice(next) = piece(&query, &mut cursor, &mut reads, &mut out) else {
        panic!("the second record is not there yet")
    };
    assert_eq!((next.len(), records_of(&out).len()), (1, 1));
    // A record that changes while its old version is being read is sent as it is now.
    let second = cursor_key(&namespace, &keys, &cursor);
    put_int(&namespace, &second, "i", -1);
    for asked in first.into_iter().skip(1).chain(next) {
        deliver(&namespace, &mut reads, asked);
    }
    let rest = run_partition(&namespace, &query, &mut cursor, || QueryBudget { ..ALL });
    assert_eq!(rest.len(), 199);
    assert_eq!(rest[0].digest, digest(&second));
    assert_eq!(rest[0].bins, [int_bin("i", -1)]);
    namespace.store.close();
}

/// The key of the record that comes after the cursor.
fn cursor_key(namespace: &Namespace, keys: &[String], cursor: &PartitionCursor) -> String {
    let state = namespace.partitions()[cursor.partition.index()].lock();
    let next = state.table.iter_after(cursor.after()).next();
    let next = next.expect("a record").digest;
    keys.iter()
        .find(|key| digest(key) == next)
        .expect("its key")
        .clone()
}

#[test]
fn a_damaged_record_is_left_out_and_counted() {
    let directory = TempDirectory::new("query-damaged");
    let mut config = file_config(&directory);
    let crate::config::StorageConfig::Device { common } = &mut config.storage_engine else {
        unreachable!("a namespace on a file")
    };
    common.post_write_cache = 0;
    // Nothing is moved into memory by defragmentation.
    common.defrag_lwm_pct = 1.into();
    let path = common.files[0].clone();
    let keys: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    {
        let namespace = open(config.clone(), Vec::new());
        for key in &keys {
            put_int(&namespace, key, "i", 1);
        }
        namespace.store.drain().expect("drained");
        namespace.store.close();
    }
    let namespace = open(config, Vec::new());
    let location = namespace
        .partition(&digest("7"))
        .lock()
        .table
        .get(&digest("7"))
        .expect("it was put")
        .location;
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("the file");
    file.write_at(&[0xff], location.offset() + 60)
        .expect("written");
    file.sync_all().expect("synced");
    let found: BTreeSet<Digest> = run(&namespace, &query_frame(0, "", &[]))
        .iter()
        .map(|sent| sent.digest)
        .collect();
    let readable = keys.iter().filter(|key| *key != "7");
    assert_eq!(found, readable.map(|key| digest(key)).collect());
    let unreadable = namespace
        .stats
        .totals()
        .into_iter()
        .find(|(name, _)| *name == "query_unreadable_records");
    assert_eq!(unreadable.map(|(_, count)| count), Some(1));
    namespace.store.close();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// However small the pieces are, and whatever else changes in between, a record that is there all the time comes once.
    #[test]
    fn pieces_add_up_to_the_partition(
        visits in 1_usize..9,
        records in 1_u64..5,
        bytes in 1_usize..400,
        changes in prop::collection::vec((0_usize..60, any::<bool>()), 0..80),
    ) {
        let namespace = open(namespace_config(), Vec::new());
        let (partition, keys) = keys_of_one_partition(60);
        let (steady, moving) = keys.split_at(30);
        for key in steady {
            put_int(&namespace, key, "i", 1);
        }
        let query = query(&namespace, &query_frame(0, "demo", &[])).expect("a query");
        let mut cursor = PartitionCursor::new(partition, None);
        let (mut reads, mut out) = (ReadAhead::default(), Vec::new());
        let mut changes = changes.into_iter();
        loop {
            let mut budget = QueryBudget { visits, records, bytes };
            match namespace.query_piece(&query, &mut cursor, &mut budget, &mut reads, &mut out) {
                PieceEnd::Done => break,
                PieceEnd::Budget => prop_assert!(budget.is_spent()),
                other => prop_assert!(false, "{other:?} of a namespace in memory, without an index"),
            }
            if let Some((at, put)) = changes.next() {
                match moving.get(at) {
                    Some(key) if put => { put_int(&namespace, key, "i", 2); }
                    Some(key) => { delete(&namespace, key); }
                    None => { put_int(&namespace, &steady[at % 30], "i", 3); }
                }
            }
        }
        let sent: Vec<Digest> = records_of(&out).iter().map(|sent| sent.digest).collect();
        prop_assert!(sent.is_sorted_by(|a, b| a < b));
        for key in steady {
            prop_assert!(sent.contains(&digest(key)), "{} is missing", key);
        }
    }
}
