//! Replies to record commands: the same layout as requests, written in one pass into the
//! connection's buffer, with no allocation but the growth of that buffer.

use crate::flags::op;
use crate::message::MessageHeader;
use crate::result_code::ResultCode;
use crate::writer::{Framing, MessageWriter};

/// What the header of a reply says (sections 3, 9 and 10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyHeader {
    pub result: ResultCode,
    /// LAST or PARTITION_DONE in replies of several messages, else 0.
    pub info3: u8,
    /// With PARTITION_DONE, the id of the partition.
    pub generation: u32,
    /// Seconds since 2010-01-01, 0 for a record that never expires.
    pub void_time: u32,
    /// Index of a batch row as the client numbered it, else 0.
    pub batch_index: u32,
}

impl ReplyHeader {
    pub const fn new(result: ResultCode) -> ReplyHeader {
        ReplyHeader {
            result,
            info3: 0,
            generation: 0,
            void_time: 0,
            batch_index: 0,
        }
    }
}

impl From<ReplyHeader> for MessageHeader {
    fn from(reply: ReplyHeader) -> MessageHeader {
        MessageHeader {
            info3: reply.info3,
            result_code: reply.result as u8,
            generation: reply.generation,
            record_ttl: reply.void_time,
            transaction_ttl: reply.batch_index,
            ..MessageHeader::default()
        }
    }
}

/// One reply under construction at the end of a buffer. Until `finish`, dropping it restores the
/// buffer to what it was.
#[must_use = "a reply that is not finished is taken back"]
pub struct ReplyWriter<'a>(MessageWriter<'a>);

impl<'a> ReplyWriter<'a> {
    /// Begins a reply that is a frame of its own.
    #[inline]
    pub fn begin(out: &'a mut Vec<u8>) -> ReplyWriter<'a> {
        ReplyWriter(MessageWriter::begin(out, Framing::Framed))
    }

    /// Begins one message of a frame that holds several (batch rows, query records). The caller
    /// owns the proto header, see [`crate::reserve_proto_header`].
    #[inline]
    pub fn begin_part(out: &'a mut Vec<u8>) -> ReplyWriter<'a> {
        ReplyWriter(MessageWriter::begin(out, Framing::Bare))
    }

    /// Appends a field. Fields precede operations.
    #[inline]
    pub fn field(&mut self, id: u8, data: &[u8]) {
        self.0.field(id, data);
    }

    /// Appends a result: a bin name of at most 15 bytes and its value.
    #[inline]
    pub fn op(&mut self, name: &[u8], particle: u8, value: &[u8]) {
        self.0.op(op::READ, particle, name, value);
    }

    /// As [`ReplyWriter::op`], with a value that `write` appends. It must only append.
    #[inline]
    pub fn op_with(&mut self, name: &[u8], particle: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.op_with(op::READ, particle, name, write);
    }

    /// Bytes of this reply so far, its headers included.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Completes the reply. `void_time` is in seconds since 2010-01-01, 0 for never.
    #[inline]
    pub fn finish(self, result: ResultCode, generation: u32, void_time: u32) {
        self.finish_with(ReplyHeader {
            generation,
            void_time,
            ..ReplyHeader::new(result)
        });
    }

    /// Completes the reply with a header of more than one record's result.
    #[inline]
    pub fn finish_with(self, header: ReplyHeader) {
        self.0.finish(header.into());
    }

    /// Takes back everything since `begin`.
    pub fn abandon(self) {
        drop(self);
    }
}

/// Appends a reply without fields and operations.
#[inline]
pub fn write_simple_reply(out: &mut Vec<u8>, result: ResultCode, generation: u32, void_time: u32) {
    ReplyWriter::begin(out).finish(result, generation, void_time);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::hex;
    use crate::flags::{field, info3, particle};
    use crate::message::Message;
    use crate::proto::{
        PROTO_HEADER_BYTES, ProtoType, parse_proto_header, patch_proto_header, reserve_proto_header,
    };
    use proptest::prelude::*;

    /// Bytes of a framed message before its first field.
    const PREFIX_BYTES: usize = PROTO_HEADER_BYTES + crate::MESSAGE_HEADER_BYTES;

    fn body(frame: &[u8]) -> &[u8] {
        let header = parse_proto_header(frame).unwrap().unwrap();
        assert_eq!(header.kind, ProtoType::Message);
        assert_eq!(header.body_bytes, frame.len() - PROTO_HEADER_BYTES);
        &frame[PROTO_HEADER_BYTES..]
    }

    #[test]
    fn a_simple_reply_is_30_bytes() {
        let mut out = Vec::new();
        write_simple_reply(&mut out, ResultCode::NotFound, 3, 7);
        assert_eq!(out.len(), PREFIX_BYTES);
        let expected = "020300000000001616000000000200000003000000070000000000000000";
        assert_eq!(hex(&out), expected);
    }

    #[test]
    fn operations_in_a_reply_are_reads() {
        let mut out = Vec::new();
        let mut reply = ReplyWriter::begin(&mut out);
        reply.op(b"a", particle::INTEGER, &1_i64.to_be_bytes());
        reply.op_with(b"s", particle::STRING, |out| out.extend_from_slice(b"xy"));
        reply.finish(ResultCode::Ok, 1, 0);
        let ops = "0000000d010100016100000000000000010000000701030001737879";
        assert_eq!(hex(&out[PREFIX_BYTES..]), ops);
    }

    #[test]
    fn an_abandoned_reply_leaves_no_bytes() {
        let mut out = b"before".to_vec();
        let mut reply = ReplyWriter::begin(&mut out);
        reply.op(b"a", particle::STRING, b"x");
        reply.abandon();
        assert_eq!(out, b"before");
        let mut reply = ReplyWriter::begin_part(&mut out);
        reply.field(field::NAMESPACE, b"test");
        drop(reply);
        assert_eq!(out, b"before");
    }

    #[test]
    fn parts_of_one_frame_are_told_apart() {
        let mut out = b"before".to_vec();
        let start = reserve_proto_header(&mut out);
        let mut row = ReplyWriter::begin_part(&mut out);
        row.op(b"a", particle::BOOL, &[1]);
        row.finish_with(ReplyHeader {
            batch_index: 5,
            ..ReplyHeader::new(ResultCode::Ok)
        });
        ReplyWriter::begin_part(&mut out).finish_with(ReplyHeader {
            info3: info3::LAST,
            ..ReplyHeader::new(ResultCode::Ok)
        });
        patch_proto_header(&mut out, start, ProtoType::Message);

        let (row, rest) = Message::parse_prefix(body(&out[start..])).unwrap();
        assert_eq!((row.header.transaction_ttl, row.ops.len()), (5, 1));
        let (last, rest) = Message::parse_prefix(rest).unwrap();
        assert_eq!((last.header.info3, last.ops.len()), (info3::LAST, 0));
        assert!(rest.is_empty());
    }

    fn any_op() -> impl Strategy<Value = (Vec<u8>, u8, Vec<u8>)> {
        let name = prop::collection::vec(any::<u8>(), 0..=crate::BIN_NAME_BYTES_MAX);
        (name, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
    }

    proptest! {
        #[test]
        fn a_reply_parses_back_to_what_was_written(
            before in prop::collection::vec(any::<u8>(), 0..9),
            result in prop::sample::select(ResultCode::ALL),
            generation in any::<u32>(),
            void_time in any::<u32>(),
            set in prop::option::of(prop::collection::vec(any::<u8>(), 1..=63)),
            digest in prop::option::of(any::<[u8; 20]>()),
            ops in prop::collection::vec(any_op(), 0..20),
        ) {
            let mut out = before.clone();
            let mut reply = ReplyWriter::begin(&mut out);
            if let Some(set) = &set {
                reply.field(field::SET, set);
            }
            if let Some(digest) = &digest {
                reply.field(field::DIGEST, digest);
            }
            for (name, particle, value) in &ops {
                reply.op_with(name, *particle, |out| out.extend_from_slice(value));
            }
            reply.finish(result, generation, void_time);

            prop_assert_eq!(&out[..before.len()], &before[..]);
            let message = Message::parse(body(&out[before.len()..])).unwrap();
            let header = message.header;
            prop_assert_eq!(ResultCode::from_u8(header.result_code), Some(result));
            prop_assert_eq!((header.generation, header.record_ttl), (generation, void_time));
            prop_assert_eq!(message.set, set.as_deref());
            prop_assert_eq!(message.digest, digest.as_ref());
            prop_assert_eq!(message.ops.len(), ops.len());
            for (found, (name, particle, value)) in message.ops.iter().zip(&ops) {
                prop_assert_eq!((found.code, found.particle), (op::READ, *particle));
                prop_assert_eq!((found.name, found.value), (&name[..], &value[..]));
            }
        }
    }
}
