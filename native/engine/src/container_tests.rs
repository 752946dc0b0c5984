//! Large lists and maps as they are stored: with an index, through requests, restarts and moves.

use perigee_wire::msgpack::Writer;
use perigee_wire::{RequestHeader, ResultCode, info1, info2, op, particle_type as particle};

use crate::namespace::Namespace;
use crate::record::cdt::Container;
use crate::testing::*;

const LIST_APPEND: i64 = 1;
const LIST_APPEND_ITEMS: i64 = 2;
const LIST_SET_TYPE: i64 = 0;
const LIST_GET_BY_RANK: i64 = 21;
const LIST_REMOVE_BY_INDEX_RANGE: i64 = 37;
const MAP_PUT: i64 = 67;
const MAP_PUT_ITEMS: i64 = 68;
const MAP_GET_BY_KEY: i64 = 97;
const MAP_GET_BY_RANK: i64 = 100;
const VALUE: i64 = 7;
const KEY_VALUE_ORDERED: i64 = 3;

fn packed(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

/// The value of an operation: its code, integers, and at last a value that is packed already.
fn call(code: i64, integers: &[i64], last: Option<&[u8]>) -> Vec<u8> {
    let count = 1 + integers.len() + usize::from(last.is_some());
    let mut out = packed(|writer| {
        writer.array(count as u32);
        writer.int(code);
        integers.iter().for_each(|integer| writer.int(*integer));
    });
    out.extend_from_slice(last.unwrap_or_default());
    out
}

fn modify(namespace: &Namespace, bin: &str, value: &[u8]) -> ResultCode {
    let header = RequestHeader {
        info1: info1::READ,
        ..write(info2::RESPOND_ALL_OPS, 0)
    };
    let frame = request("large", header, |w| {
        w.op(op::CDT_MODIFY, particle::BLOB, bin.as_bytes(), value);
    });
    run_frame(namespace, &frame).code
}

fn read(namespace: &Namespace, bin: &str, value: &[u8]) -> Vec<u8> {
    let header = RequestHeader {
        info1: info1::READ,
        ..RequestHeader::default()
    };
    let frame = request("large", header, |w| {
        w.op(op::CDT_READ, particle::BLOB, bin.as_bytes(), value);
    });
    let reply = run_frame(namespace, &frame);
    assert_eq!(reply.code, ResultCode::Ok);
    reply.bins.into_iter().next().expect("a result").2
}

fn integer(bytes: &[u8]) -> i64 {
    i64::from_be_bytes(bytes.try_into().expect("an integer"))
}

/// What is stored of a bin, with its index.
fn stored(namespace: &Namespace, bin: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    let state = namespace.partition(&digest("large")).lock();
    let entry = state.table.get(&digest("large")).expect("a record");
    let take = |view: &crate::record::image::ImageView<'_>| {
        let found = view.bins().find(|it| it.name == bin.as_bytes());
        let found = found.expect("the bin");
        (found.value.to_vec(), found.index.map(<[u8]>::to_vec))
    };
    match namespace.with_image(&entry, None, take) {
        Ok(found) => found,
        Err(location) => {
            drop(state);
            let mut buffer = crate::storage::AlignedBuf::default();
            let copy = namespace
                .read_device(location, &mut buffer)
                .expect("it reads");
            namespace
                .with_image(&entry, Some(&copy), take)
                .expect("the copy is of it")
        }
    }
}

/// Every item is found where a walk finds it.
fn check(namespace: &Namespace, bin: &str, items: usize) {
    let (value, index) = stored(namespace, bin);
    let index = index.expect("it is large");
    let found = Container::with_index(&value, Some(&index)).expect("a container");
    let walked = Container::parse(&value).expect("a container");
    assert_eq!((found.len(), walked.len()), (items, items));
    for at in 0..items {
        assert_eq!(found.item(at), walked.item(at), "item {at}");
        assert_eq!(found.by_rank().at(at), walked.by_rank().at(at), "rank {at}");
    }
}

fn fill(namespace: &Namespace) {
    assert_eq!(
        modify(namespace, "list", &call(LIST_SET_TYPE, &[1], None)),
        ResultCode::Ok
    );
    for part in 0..10 {
        let items = packed(|writer| {
            writer.array(100);
            (0..100).for_each(|i| writer.int(i * 10 + part));
        });
        let code = modify(
            namespace,
            "list",
            &call(LIST_APPEND_ITEMS, &[], Some(&items)),
        );
        assert_eq!(code, ResultCode::Ok);
        // Values run against the keys, so that the order by value is another.
        let pairs = packed(|writer| {
            writer.map(100);
            for i in 0..100 {
                let key = i * 10 + part;
                writer.int(key);
                writer.int(5000 - key);
            }
        });
        let mut put = call(MAP_PUT_ITEMS, &[], Some(&pairs));
        put[0] += 1;
        put.push(KEY_VALUE_ORDERED as u8);
        assert_eq!(modify(namespace, "map", &put), ResultCode::Ok);
    }
}

#[test]
fn large_containers_are_stored_with_their_index_and_keep_it() {
    let directory = TempDirectory::new("containers");
    let config = file_config(&directory);
    let namespace = open(config.clone(), vec![]);
    fill(&namespace);
    check(&namespace, "list", 1000);
    check(&namespace, "map", 1000);
    // What another operation of the record copies is copied with its index.
    put_int(&namespace, "large", "other", 1);
    check(&namespace, "map", 1000);
    let remove = call(LIST_REMOVE_BY_INDEX_RANGE, &[0, 100, 300], None);
    assert_eq!(modify(&namespace, "list", &remove), ResultCode::Ok);
    check(&namespace, "list", 700);
    namespace.store.drain().expect("a file that works");
    namespace.store.close();
    drop(namespace);

    let namespace = open(config, vec![]);
    check(&namespace, "list", 700);
    check(&namespace, "map", 1000);
    let rank = |rank| {
        integer(&read(
            &namespace,
            "list",
            &call(LIST_GET_BY_RANK, &[VALUE, rank], None),
        ))
    };
    assert_eq!((rank(0), rank(99), rank(100), rank(-1)), (0, 99, 400, 999));
    let key = |key| {
        integer(&read(
            &namespace,
            "map",
            &call(MAP_GET_BY_KEY, &[VALUE, key], None),
        ))
    };
    assert_eq!((key(0), key(537)), (5000, 4463));
    let rank = |rank| {
        integer(&read(
            &namespace,
            "map",
            &call(MAP_GET_BY_RANK, &[VALUE, rank], None),
        ))
    };
    assert_eq!((rank(0), rank(-1)), (4001, 5000));
    // Below what pays, the index goes.
    let remove = call(LIST_REMOVE_BY_INDEX_RANGE, &[0, 50, 650], None);
    assert_eq!(modify(&namespace, "list", &remove), ResultCode::Ok);
    assert_eq!(stored(&namespace, "list").1, None);
    namespace.store.close();
}

#[test]
fn a_container_that_is_written_whole_gets_an_index() {
    let namespace = open(namespace_config(), vec![]);
    let value = packed(|writer| {
        writer.array(500);
        (0..500).for_each(|i| writer.int(i));
    });
    let frame = request("large", write(0, 0), |w| {
        w.op(op::WRITE, particle::LIST, b"list", &value);
    });
    assert_eq!(run_frame(&namespace, &frame).code, ResultCode::Ok);
    check(&namespace, "list", 500);
    let whole = get(&namespace, "large");
    assert_eq!(
        whole.bins,
        [("list".into(), particle::LIST, value)],
        "clients see none of it"
    );
}

/// The value of an expression operation: a call that gives an integer, on a bin of a type that expressions have a code for.
fn computed(call: &[u8], bin: &str, kind: i64) -> Vec<u8> {
    let mut out = packed(|writer| {
        writer.array(2);
        writer.array(5);
        [127, 2, 0].into_iter().for_each(|part| writer.int(part));
    });
    out.extend_from_slice(call);
    out.extend(packed(|writer| {
        writer.array(3);
        writer.int(81);
        writer.int(kind);
        writer.raw_str(bin.as_bytes());
        writer.int(0);
    }));
    out
}

#[test]
fn expressions_find_in_large_containers_what_is_there_now() {
    let (list, map) = (4, 5);
    let namespace = open(namespace_config(), vec![]);
    fill(&namespace);
    let header = RequestHeader {
        info1: info1::READ,
        ..write(info2::RESPOND_ALL_OPS, 0)
    };
    for key in [0, 1, 17, 499, 500, 998, 999] {
        // Both before and behind a change of the same request, and in what is stored by then.
        let of_map = computed(&call(MAP_GET_BY_KEY, &[VALUE, key], None), "map", map);
        let of_list = computed(&call(LIST_GET_BY_RANK, &[VALUE, key], None), "list", list);
        let put = call(MAP_PUT, &[key, -key], None);
        let add = call(LIST_APPEND, &[-1], None);
        let frame = request("large", header, |w| {
            w.op(op::EXP_READ, particle::BLOB, b"map before", &of_map);
            w.op(op::EXP_READ, particle::BLOB, b"list before", &of_list);
            w.op(op::CDT_MODIFY, particle::BLOB, b"map", &put);
            w.op(op::CDT_MODIFY, particle::BLOB, b"list", &add);
            w.op(op::EXP_READ, particle::BLOB, b"map", &of_map);
            w.op(op::EXP_READ, particle::BLOB, b"list", &of_list);
        });
        let ranks = &call(LIST_GET_BY_RANK, &[VALUE, key], None);
        let ranked = integer(&read(&namespace, "list", ranks));
        let reply = run_frame(&namespace, &frame);
        assert_eq!(reply.code, ResultCode::Ok);
        let found: Vec<_> = [0, 1, 4, 5].map(|at| integer(&reply.bins[at].2)).to_vec();
        let next = integer(&read(&namespace, "list", ranks));
        assert_eq!(found, [5000 - key, ranked, -key, next], "key {key}");
        check(&namespace, "map", 1000);
    }
}
