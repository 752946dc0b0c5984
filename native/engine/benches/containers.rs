//! Requests on one record with a large list or map, on one thread, in memory: `cargo bench -p perigee-engine --bench containers`.
//!
//! Everything that a request costs but the network: parsing, the operation, the new version's way into a write block and
//! the index, the reply.

mod common;

use common::{digest, mix};
use criterion::{Criterion, criterion_group, criterion_main};
use perigee_engine::clock::HybridClock;
use perigee_engine::config::NamespaceConfig;
use perigee_engine::expression::Expression;
use perigee_engine::filter::Filter;
use perigee_engine::namespace::Namespace;
use perigee_engine::progress::OpenProgress;
use perigee_engine::request::{Outcome, Request};
use perigee_engine::storage::{CommitSink, CommitWaiter, DeviceError};
use perigee_wire::msgpack::{Writer, order};
use perigee_wire::{
    Message, PARTITIONS, PROTO_HEADER_BYTES, RequestHeader, RequestWriter, ResultCode, field,
    info1, info2, op, particle_type as particle,
};
use serde_json::{Value as Json, json};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the list or map that each benchmark begins at, and begins at again after so many changes.
const ITEMS: u32 = 10_000;
const CHANGES: u64 = 1000;
const BIN: &[u8] = b"bin";

/// A name, the kind and value of the bin, and the requests.
type Case<'a> = (&'a str, u8, &'a [u8], Vec<Vec<u8>>);

struct NobodyWaits;

impl CommitSink for NobodyWaits {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {
        unreachable!("a namespace in memory commits at once")
    }
}

fn open() -> Arc<Namespace> {
    let config: NamespaceConfig = serde_json::from_value(json!({
        "name": "test", "replication-factor": 1, "default-ttl": 0, "nsup-period": 0,
        "allow-ttl-without-nsup": true, "max-record-size": 1 << 20, "default-read-touch-ttl-pct": 0,
        "stop-writes-used-pct": 0, "stop-writes-avail-pct": 0, "stop-writes-sys-memory-pct": 0,
        "indexes-memory-budget": 0, "evict-used-pct": 0, "evict-indexes-memory-pct": 0, "evict-tenths-pct": 5,
        "evict-hist-buckets": 10000, "tomb-raider-eligible-age": 86400, "tomb-raider-period": 0, "sets": [],
        "storage-engine": { "type": "memory", "data-size": 1 << 30 },
    }))
    .expect("a configuration");
    let clock = Arc::new(HybridClock::new());
    let opened = Namespace::open(config, clock, Vec::new(), 20, &OpenProgress::default());
    let (namespace, _) = opened.expect("a namespace in memory opens");
    namespace.set_ownership(1, &[0xff; PARTITIONS / 8]);
    namespace.start(Arc::new(NobodyWaits));
    namespace
}

fn write_json(json: &Json, writer: &mut Writer<'_>) {
    match json {
        Json::Null => writer.nil(),
        Json::Number(value) => writer.int(value.as_i64().expect("an integer")),
        Json::String(name) => writer.raw_str(name.as_bytes()),
        Json::Array(items) => {
            writer.array(items.len() as u32);
            items.iter().for_each(|item| write_json(item, writer));
        }
        _ => panic!("no {json} in a request of the benchmark"),
    }
}

fn packed(json: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    write_json(json, &mut Writer::new(&mut out));
    out
}

fn frame(header: RequestHeader, code: u8, particle: u8, value: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut writer = RequestWriter::begin(&mut frame, header);
    writer.field(field::NAMESPACE, b"test");
    writer.field(field::DIGEST, &digest(1));
    writer.op(code, particle, BIN, value);
    writer.finish();
    frame
}

fn change(call: &Json) -> Vec<u8> {
    let header = RequestHeader {
        info2: info2::WRITE,
        ..RequestHeader::default()
    };
    frame(header, op::CDT_MODIFY, particle::BLOB, &packed(call))
}

fn read(call: &Json) -> Vec<u8> {
    let header = RequestHeader {
        info1: info1::READ,
        ..RequestHeader::default()
    };
    frame(header, op::CDT_READ, particle::BLOB, &packed(call))
}

/// A list of even numbers.
fn list(order: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.container(false, order, ITEMS);
    (0..ITEMS).for_each(|i| writer.int(i64::from(2 * i)));
    out
}

/// A map of even numbers to others.
fn map(order: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.container(true, order, ITEMS);
    for i in 0..ITEMS {
        writer.int(i64::from(2 * i));
        writer.int((mix(i.into()) % 60_000) as i64);
    }
    out
}

/// A map with a list in it.
fn nested() -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.container(true, order::ORDERED, 1);
    writer.int(1);
    out.extend_from_slice(&list(order::ORDERED));
    out
}

fn run(namespace: &Namespace, frame: &[u8], filter: Option<&Expression>, out: &mut Vec<u8>) {
    let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a frame of our own");
    let request = Request {
        filter: filter.map(Filter::of),
        ..Request::new(&message, message.digest.expect("a digest"))
    };
    out.clear();
    let outcome = namespace.execute(&request, out);
    assert!(matches!(
        outcome,
        Outcome::Answered | Outcome::AwaitCommit(_)
    ));
    let reply = Message::parse(&out[PROTO_HEADER_BYTES..]).expect("a reply");
    assert_eq!(reply.header.result_code, ResultCode::Ok as u8);
}

/// What `count` requests take, of which each `CHANGES` begin at `value`.
fn measure(
    namespace: &Namespace,
    kind: u8,
    value: &[u8],
    frames: &[Vec<u8>],
    filter: Option<&Expression>,
    count: u64,
) -> Duration {
    let header = RequestHeader {
        info2: info2::WRITE,
        ..RequestHeader::default()
    };
    let load = frame(header, op::WRITE, kind, value);
    let mut elapsed = Duration::ZERO;
    let mut out = Vec::new();
    let mut done = 0;
    while done < count {
        run(namespace, &load, None, &mut out);
        let batch = CHANGES.min(count - done);
        let start = Instant::now();
        for frame in frames.iter().cycle().take(batch as usize) {
            run(namespace, black_box(frame), filter, &mut out);
        }
        elapsed += start.elapsed();
        done += batch;
    }
    elapsed
}

fn containers(criterion: &mut Criterion) {
    let namespace = open();
    let mut group = criterion.benchmark_group("containers");
    // Where each change of a round is: all over the items, none twice.
    let place = |i: u64| (i * 7919 % u64::from(ITEMS)) as i64;
    let of =
        |make: &dyn Fn(i64) -> Vec<u8>| (0..CHANGES).map(|i| make(place(i))).collect::<Vec<_>>();
    let ordered = list(order::ORDERED);
    let unordered = list(order::UNORDERED);
    let by_key = map(order::ORDERED);
    let by_value = map(order::KEY_VALUE);
    let nested = nested();
    let in_map = |call: Json| json!([0xff, [0x22, 1], call]);
    let cases: Vec<Case<'_>> = vec![
        (
            "ordered list/read by rank",
            particle::LIST,
            &ordered,
            of(&|at| read(&json!([21, 7, at]))),
        ),
        (
            "ordered list/append",
            particle::LIST,
            &ordered,
            of(&|at| change(&json!([1, 2 * at + 1]))),
        ),
        (
            "ordered list/remove by index",
            particle::LIST,
            &ordered,
            of(&|at| change(&json!([32, 0, at * 4 / 5]))),
        ),
        (
            "list/append",
            particle::LIST,
            &unordered,
            of(&|at| change(&json!([1, at]))),
        ),
        (
            "list/insert",
            particle::LIST,
            &unordered,
            of(&|at| change(&json!([3, at, at]))),
        ),
        (
            "list/set",
            particle::LIST,
            &unordered,
            of(&|at| change(&json!([9, at, 7]))),
        ),
        (
            "map/read by key",
            particle::MAP,
            &by_key,
            of(&|at| read(&json!([97, 7, 2 * at]))),
        ),
        (
            "map/put new",
            particle::MAP,
            &by_key,
            of(&|at| change(&json!([67, 2 * at + 1, 7]))),
        ),
        (
            "map/put again",
            particle::MAP,
            &by_key,
            of(&|at| change(&json!([67, 2 * at, 7]))),
        ),
        (
            "map/increment",
            particle::MAP,
            &by_key,
            of(&|at| change(&json!([73, 2 * at, 1]))),
        ),
        (
            "map by value/put new",
            particle::MAP,
            &by_value,
            of(&|at| change(&json!([67, 2 * at + 1, 7, 3]))),
        ),
        (
            "map by value/increment",
            particle::MAP,
            &by_value,
            of(&|at| change(&json!([73, 2 * at, 1]))),
        ),
        (
            "list in a map/read by rank",
            particle::MAP,
            &nested,
            of(&|at| read(&in_map(json!([21, 7, at])))),
        ),
        (
            "list in a map/append",
            particle::MAP,
            &nested,
            of(&|at| change(&in_map(json!([1, 2 * at + 1])))),
        ),
    ];
    for (name, kind, value, frames) in &cases {
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|count| measure(&namespace, *kind, value, frames, None, count));
        });
    }
    // Equal: the value of key 4242 in the map, an integer, is not -1.
    let text = packed(&json!([2, [127, 2, 0, [97, 7, 4242], [81, 5, "bin"]], -1]));
    let filter = Expression::compile_filter(&text).expect("a filter");
    let size = vec![read(&json!([96]))];
    group.bench_function("map/filter by key", |bencher| {
        bencher.iter_custom(|count| {
            measure(
                &namespace,
                particle::MAP,
                &by_key,
                &size,
                Some(&filter),
                count,
            )
        });
    });
    group.finish();
    namespace.store.close();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = containers
}
criterion_main!(benches);
