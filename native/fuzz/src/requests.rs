//! Requests on records of a namespace in memory, one after the other, as a service thread carries them out.

use crate::part::{assert_stored, split};
use perigee_engine::clock::HybridClock;
use perigee_engine::expression::Expression;
use perigee_engine::filter::Filter;
use perigee_engine::namespace::Namespace;
use perigee_engine::progress::OpenProgress;
use perigee_engine::request::{Outcome, ReplyShape, Request};
use perigee_engine::storage::{CommitSink, CommitWaiter, DeviceError};
use perigee_engine::udf::UdfResult;
use perigee_wire::{
    Digest, Message, PARTITIONS, PROTO_HEADER_BYTES, RequestHeader, RequestWriter, ResultCode,
    info1, info2, particle_type as particle, validate_particle,
};
use std::sync::{Arc, OnceLock};

const RECORD_BYTES_MAX: usize = 32 << 10;
const REQUESTS_MAX: usize = 8;
/// Changes that are dated further ahead are refused.
const AHEAD_MS_MAX: u64 = 120_000;

struct Nobody;

impl CommitSink for Nobody {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {}
}

fn namespace() -> &'static Arc<Namespace> {
    static NAMESPACE: OnceLock<Arc<Namespace>> = OnceLock::new();
    NAMESPACE.get_or_init(|| {
        let config = serde_json::from_str(
            r#"{"name":"test","replication-factor":1,"default-ttl":0,"nsup-period":120,
            "allow-ttl-without-nsup":false,"max-record-size":32768,"default-read-touch-ttl-pct":0,
            "stop-writes-used-pct":0,"stop-writes-avail-pct":0,"stop-writes-sys-memory-pct":0,
            "indexes-memory-budget":0,"evict-used-pct":0,"evict-indexes-memory-pct":0,"evict-tenths-pct":5,
            "evict-hist-buckets":10000,"tomb-raider-eligible-age":86400,"tomb-raider-period":86400,"sets":[],
            "storage-engine":{"type":"memory","data-size":16777216,"write-block-size":65536,"flush-size":16384}}"#,
        )
        .expect("a valid configuration");
        let clock = Arc::new(HybridClock::new());
        let opened = Namespace::open(config, clock, vec![], 20, &OpenProgress::default());
        let (namespace, _) = opened.expect("a namespace in memory opens");
        namespace.set_ownership(1, &[0xff; PARTITIONS / 8]);
        namespace.start(Arc::new(Nobody));
        namespace
    })
}

/// One of two records, whatever the message says, so that requests meet what others left.
fn digest(body: &[u8]) -> Digest {
    [1 + body.last().copied().unwrap_or_default() % 2; 20]
}

pub(crate) fn run(data: &[u8]) {
    let mut rest = data;
    for _ in 0..REQUESTS_MAX {
        let Some((body, after)) = split(rest) else {
            break;
        };
        rest = after;
        let Ok(mut message) = Message::parse(body) else {
            continue;
        };
        // What is dated ahead would outlast this input: nothing local may follow it for the moment.
        let now = namespace().clock.now();
        message.lut = message.lut.map(|time| match time.checked_sub(now) {
            Some(0..AHEAD_MS_MAX) => now,
            _ => time,
        });
        rest = carried_out(&message, &digest(body), rest);
    }
    for body in [&[0][..], &[1]] {
        remove(&digest(body));
    }
}

/// Runs a request. A call of a function takes its result from the input, of which the rest is returned.
fn carried_out<'d>(message: &Message<'_>, digest: &Digest, rest: &'d [u8]) -> &'d [u8] {
    let namespace = namespace();
    let filter = match message.filter.map(Expression::compile_filter).transpose() {
        Ok(filter) => filter,
        Err(_) => return rest,
    };
    let before = bins(digest);
    let request = Request {
        message,
        digest,
        waiter: None,
        copy: None,
        filter: filter.as_ref().map(Filter::of),
        shape: ReplyShape::Frame,
    };
    let mut out = Vec::new();
    match namespace.execute(&request, &mut out) {
        Outcome::RunUdf(task) => {
            let mut tasks = Vec::new();
            task.encode(1, 1000, namespace, &mut tasks);
            assert_eq!(tasks.len(), task.encoded_bytes("test"));
            let (results, after) = split(rest).unwrap_or_default();
            let result = UdfResult::parse_batch(results).ok();
            let done = match result.iter().flatten().next() {
                Some(result) => namespace.finish_udf(&task, result, &mut out),
                None => namespace.fail_udf(&task, ResultCode::UdfExecution, "none", &mut out),
            };
            assert!(done.woken.is_empty());
            check(message, digest, &before, &out);
            return after;
        }
        Outcome::Answered | Outcome::AwaitCommit(_) => check(message, digest, &before, &out),
        Outcome::ReadDevice(_) | Outcome::AwaitRecord => {
            panic!("nothing to wait for in memory, of {message:02x?}")
        }
    }
    rest
}

/// Void time and bins of a record.
type Bins = Option<(u32, Vec<(Vec<u8>, u8, Vec<u8>)>)>;

/// What is promised of any answer, and of the record after it.
fn check(message: &Message<'_>, digest: &Digest, before: &Bins, out: &[u8]) {
    let reply = Message::parse(&out[PROTO_HEADER_BYTES..]).expect("a reply reads as a message");
    let code = ResultCode::from_u8(reply.header.result_code).expect("a known code");
    let after = bins(digest);
    if code != ResultCode::Ok {
        let has_expired = after.is_none() && before.as_ref().is_some_and(|it| it.0 != 0);
        assert!(
            &after == before || has_expired,
            "{after:02x?} of {before:02x?}, {code:?}, of {message:02x?}"
        );
        return;
    }
    let Some((_, after)) = &after else { return };
    assert!(!after.is_empty(), "a record without bins");
    for (name, kind, value) in after {
        assert_eq!(validate_particle(*kind, value), Ok(()), "{name:02x?}");
        assert!(value.len() <= RECORD_BYTES_MAX);
        if matches!(*kind, particle::LIST | particle::MAP) {
            assert_stored(value, message);
        }
    }
}

/// What a record holds; None of one that there is not.
fn bins(digest: &Digest) -> Bins {
    let header = RequestHeader {
        info1: info1::READ | info1::GET_ALL,
        ..RequestHeader::default()
    };
    let reply = send(digest, header);
    let reply = Message::parse(&reply[PROTO_HEADER_BYTES..]).expect("a reply");
    match ResultCode::from_u8(reply.header.result_code) {
        Some(ResultCode::Ok) => {
            let bin = |op: perigee_wire::Op<'_>| (op.name.to_vec(), op.particle, op.value.to_vec());
            Some((reply.header.record_ttl, reply.ops.iter().map(bin).collect()))
        }
        Some(ResultCode::NotFound) => None,
        other => panic!("{other:?} of a plain read"),
    }
}

fn remove(digest: &Digest) {
    let header = RequestHeader {
        info2: info2::WRITE | info2::DELETE,
        ..RequestHeader::default()
    };
    send(digest, header);
}

fn send(digest: &Digest, header: RequestHeader) -> Vec<u8> {
    let mut frame = Vec::new();
    RequestWriter::begin(&mut frame, header).finish();
    let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a message");
    let request = Request {
        message: &message,
        digest,
        waiter: None,
        copy: None,
        filter: None,
        shape: ReplyShape::Frame,
    };
    let mut out = Vec::new();
    namespace().execute(&request, &mut out);
    out
}
