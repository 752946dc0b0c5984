//! Turns of long work, one by one: a service thread without a loop, whose turns the test gives it. Whether something has
//! arrived is what the test says.

use std::sync::OnceLock;

use perigee_wire::{
    PARTITIONS, RequestHeader, RequestWriter, compute_digest, field, info1, info2, op,
    particle_type,
};

use super::*;
use crate::info_lane::InfoLane;
use crate::net::{PeerSocket, ReadPool};
use crate::query_registry::QueryRegistry;
use crate::server::{Engine, Opening, ServiceStats};
use crate::testing::namespace_in_memory;
use crate::udf_lane::UdfLane;

const RECORDS: u64 = 3000;
/// Far more than any of the tests needs.
const TURNS_MAX: usize = 100_000;

const CONN: ConnId = ConnId {
    index: 0,
    generation: 0,
};

/// Takes whatever is sent.
struct Peer {
    sent: Vec<u8>,
    reads: Reads,
    resumed: bool,
}

impl Net for Peer {
    fn output(&mut self, _conn: ConnId) -> Option<&mut Vec<u8>> {
        Some(&mut self.sent)
    }

    fn answering(&mut self, _conn: ConnId) -> (Option<&mut Vec<u8>>, &mut Reads) {
        (Some(&mut self.sent), &mut self.reads)
    }

    fn reads(&mut self) -> &mut Reads {
        &mut self.reads
    }

    fn unsent(&self, _conn: ConnId) -> usize {
        0
    }

    fn has_ended(&self, _: ConnId) -> bool {
        false
    }

    fn resume(&mut self, _conn: ConnId) {
        self.resumed = true;
    }

    fn close(&mut self, _conn: ConnId) {
        panic!("nothing here ends a connection");
    }

    fn adopt(&mut self, _socket: PeerSocket) {}

    fn connections(&self) -> usize {
        1
    }
}

struct Rig {
    thread: ServiceThread,
    peer: Peer,
}

impl Rig {
    /// A thread that serves `RECORDS` records in memory.
    fn new() -> Rig {
        let (namespace, mailboxes, control) = namespace_in_memory();
        let engine = Engine {
            namespaces: vec![namespace],
            datacenters: vec![],
            index_gc_period: Duration::from_secs(10),
        };
        let shared = Shared {
            engine: OnceLock::from(Arc::new(engine)),
            opening: Arc::new(Opening::default()),
            mailboxes: mailboxes.clone(),
            info: Arc::new(InfoLane::default()),
            on_info: Box::new(|_| panic!("nothing here asks for info")),
            udf: Arc::new(UdfLane::new(mailboxes, Duration::from_secs(1), 0)),
            queries: Arc::new(QueryRegistry::default()),
            stats: Arc::new(ServiceStats::default()),
            transaction_max_ms: 60_000,
        };
        let mut rig = Rig {
            thread: ServiceThread::new(0, Arc::new(shared)),
            peer: Peer {
                sent: Vec::new(),
                reads: Reads::new(Arc::new(ReadPool::default()), control.waker()),
                resumed: false,
            },
        };
        for number in 0..RECORDS {
            let flow = rig.request(info2_write(), |writer| {
                writer.field(field::DIGEST, &digest(number));
                writer.op(op::WRITE, particle_type::STRING, b"b", b"value");
            });
            assert_eq!(flow, Flow::Continue);
        }
        rig.peer.sent.clear();
        rig
    }

    /// What becomes of a request.
    fn request(
        &mut self,
        header: RequestHeader,
        rest: impl FnOnce(&mut RequestWriter<'_>),
    ) -> Flow {
        let mut frame = Vec::new();
        let mut writer = RequestWriter::begin(&mut frame, header);
        writer.field(field::NAMESPACE, b"test");
        rest(&mut writer);
        writer.finish();
        let Peer { sent, reads, .. } = &mut self.peer;
        let consumed = self.thread.on_input(CONN, &frame, sent, reads);
        assert_eq!(consumed.bytes, frame.len());
        consumed.flow
    }

    fn turn(&mut self, others_wait: bool) {
        self.thread.on_turn(&mut self.peer, &mut || others_wait);
    }

    /// Gives turns until there is nothing left to do.
    fn finish(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.thread.wants_turn() {
                return;
            }
            self.turn(true);
        }
        panic!("no end after {TURNS_MAX} turns");
    }

    /// The messages that were sent, without the ends of partitions.
    fn messages(&self) -> usize {
        let mut rest = &self.peer.sent[..];
        let mut messages = 0;
        while let Ok(Some(header)) = parse_proto_header(rest) {
            let (mut body, after) = rest[PROTO_HEADER_BYTES..].split_at(header.body_bytes);
            while !body.is_empty() {
                let (message, after) = Message::parse_prefix(body).expect("a message");
                let end = info3::PARTITION_DONE | info3::LAST;
                messages += usize::from(message.header.info3 & end == 0);
                body = after;
            }
            rest = after;
        }
        messages
    }

    fn records_of_query(&self) -> Option<u64> {
        let listed = self.thread.shared.queries.show(None);
        let listed = serde_json::to_value(listed).expect("a list");
        listed[0]["records"].as_u64()
    }
}

fn digest(number: u64) -> Digest {
    compute_digest(b"", particle_type::INTEGER, &number.to_be_bytes())
}

fn info2_write() -> RequestHeader {
    RequestHeader {
        info2: info2::WRITE,
        ..RequestHeader::default()
    }
}

#[test]
fn a_query_stops_after_every_slice_while_others_wait_and_sends_each_record_once() {
    let mut rig = Rig::new();
    let header = RequestHeader {
        info1: info1::READ,
        info3: info3::PARTITION_DONE,
        ..RequestHeader::default()
    };
    let partitions: Vec<u8> = (0..PARTITIONS as u16).flat_map(u16::to_le_bytes).collect();
    let flow = rig.request(header, |writer| {
        writer.field(field::TASK_ID, &7u64.to_be_bytes());
        writer.field(field::PARTITIONS, &partitions);
    });
    assert_eq!(flow, Flow::Park);
    rig.turn(true);
    let first = rig.records_of_query().expect("it is listed");
    assert!(
        (1..=32).contains(&first),
        "{first} records in the first turn"
    );
    assert!(rig.thread.wants_turn());
    rig.finish();
    assert_eq!(rig.messages() as u64, RECORDS);
    assert!(rig.peer.resumed);
}

#[test]
fn a_long_batch_stops_after_every_slice_while_others_wait_and_answers_each_row_once() {
    const ROWS: u32 = 5000;
    const ROW_WITH_INFO_AND_TTL: u8 = 0x0a;
    const ROW_REPEATS: u8 = 0x01;
    let mut rig = Rig::new();
    let mut data = ROWS.to_be_bytes().to_vec();
    data.push(0x04);
    for row in 0..ROWS {
        data.extend(row.to_be_bytes());
        data.extend(digest(u64::from(row)));
        if row > 0 {
            data.push(ROW_REPEATS);
            continue;
        }
        data.extend([ROW_WITH_INFO_AND_TTL, info1::READ | info1::GET_ALL, 0, 0]);
        data.extend(0u32.to_be_bytes());
        data.extend([0, 1, 0, 0]);
        data.extend(5u32.to_be_bytes());
        data.push(field::NAMESPACE);
        data.extend(b"test");
    }
    let header = RequestHeader {
        info1: info1::BATCH,
        ..RequestHeader::default()
    };
    let before = rig.thread.next_request;
    let flow = rig.request(header, |writer| writer.field(field::BATCH, &data));
    assert_eq!(flow, Flow::Park);
    let begun = rig.thread.next_request;
    assert!(begun - before < u64::from(ROWS), "it was not done at once");
    rig.turn(true);
    assert_eq!(rig.thread.next_request - begun, 16);
    rig.finish();
    assert_eq!(rig.messages(), ROWS as usize);
    assert!(rig.peer.resumed);
}

#[test]
fn a_background_query_changes_one_record_a_turn_while_others_wait() {
    let mut rig = Rig::new();
    let flow = rig.request(info2_write(), |writer| {
        writer.field(field::TASK_ID, &7u64.to_be_bytes());
        writer.op(op::WRITE, particle_type::STRING, b"c", b"changed");
    });
    assert_eq!(flow, Flow::Continue);
    let before = rig.thread.next_request;
    rig.turn(true);
    assert_eq!(rig.thread.next_request - before, 1);
}
