//! Record commands and their replies (sections 3 and 4); `ops.rs` has the operations.
//!
//! ```text
//! message   = header field* operation*
//! header    = 0 u8 bytes = 22   1 u8 info1   2 u8 info2   3 u8 info3   4 u8 info4
//!             5 u8 result code  6 u32 generation  10 u32 record ttl  14 u32 transaction ttl
//!             18 u16 fields     20 u16 operations
//! field     = u32 bytes after this word, u8 id, data
//! ```
//!
//! Integers are big endian unless a field says otherwise. Parsing checks every length once; what
//! it returns borrows the frame and can be walked without further errors.

use crate::digest::{DIGEST_BYTES, Digest};
use crate::flags::limits::{
    BIN_NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, OPS_MAX, SET_BYTES_MAX, UDF_NAME_BYTES_MAX,
};
use crate::flags::{field, particle};
use crate::ops::Ops;
use crate::result_code::ResultCode;

const GENERATION_AT: usize = 6;
const RECORD_TTL_AT: usize = GENERATION_AT + 4;
const TRANSACTION_TTL_AT: usize = RECORD_TTL_AT + 4;
const N_FIELDS_AT: usize = TRANSACTION_TTL_AT + 4;
const N_OPS_AT: usize = N_FIELDS_AT + 2;
pub const MESSAGE_HEADER_BYTES: usize = N_OPS_AT + 2;

const RECORD_VERSION_BYTES: usize = 7;

/// The fixed part of a message. In a reply `record_ttl` is the void time (seconds since
/// 2010-01-01, 0 for never) and, in a batch, `transaction_ttl` the index of the row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageHeader {
    pub info1: u8,
    pub info2: u8,
    pub info3: u8,
    pub info4: u8,
    pub result_code: u8,
    pub generation: u32,
    pub record_ttl: u32,
    pub transaction_ttl: u32,
    pub n_fields: u16,
    pub n_ops: u16,
}

impl MessageHeader {
    /// Refuses a header that announces another length than its own.
    pub fn from_bytes(bytes: &[u8; MESSAGE_HEADER_BYTES]) -> Result<MessageHeader, MessageError> {
        let [size, info1, info2, info3, info4, result_code, ..] = *bytes;
        if usize::from(size) != MESSAGE_HEADER_BYTES {
            return Err(MessageError::HeaderSize { found: size });
        }
        Ok(MessageHeader {
            info1,
            info2,
            info3,
            info4,
            result_code,
            generation: u32::from_be_bytes(chunk_at(bytes, GENERATION_AT)),
            record_ttl: u32::from_be_bytes(chunk_at(bytes, RECORD_TTL_AT)),
            transaction_ttl: u32::from_be_bytes(chunk_at(bytes, TRANSACTION_TTL_AT)),
            n_fields: u16::from_be_bytes(chunk_at(bytes, N_FIELDS_AT)),
            n_ops: u16::from_be_bytes(chunk_at(bytes, N_OPS_AT)),
        })
    }

    #[inline]
    pub fn to_bytes(&self) -> [u8; MESSAGE_HEADER_BYTES] {
        let mut bytes = [0; MESSAGE_HEADER_BYTES];
        bytes[..GENERATION_AT].copy_from_slice(&[
            MESSAGE_HEADER_BYTES as u8,
            self.info1,
            self.info2,
            self.info3,
            self.info4,
            self.result_code,
        ]);
        bytes[GENERATION_AT..RECORD_TTL_AT].copy_from_slice(&self.generation.to_be_bytes());
        bytes[RECORD_TTL_AT..TRANSACTION_TTL_AT].copy_from_slice(&self.record_ttl.to_be_bytes());
        bytes[TRANSACTION_TTL_AT..N_FIELDS_AT].copy_from_slice(&self.transaction_ttl.to_be_bytes());
        bytes[N_FIELDS_AT..N_OPS_AT].copy_from_slice(&self.n_fields.to_be_bytes());
        bytes[N_OPS_AT..].copy_from_slice(&self.n_ops.to_be_bytes());
        bytes
    }
}

#[inline]
fn chunk_at<const N: usize>(bytes: &[u8; MESSAGE_HEADER_BYTES], start: usize) -> [u8; N] {
    let mut chunk = [0; N];
    chunk.copy_from_slice(&bytes[start..start + N]);
    chunk
}

/// Why a well-framed message is refused. The frame's end is known, so the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    #[error("message of {found} bytes is shorter than its header of {MESSAGE_HEADER_BYTES}")]
    Truncated { found: usize },
    #[error("message header announces {found} bytes, expected {MESSAGE_HEADER_BYTES}")]
    HeaderSize { found: u8 },
    #[error("field number {index} needs {needed} bytes, {left} are left")]
    FieldBounds {
        index: u16,
        needed: usize,
        left: usize,
    },
    #[error("field {id} has {found} bytes, expected {expected}")]
    FieldLength {
        id: u8,
        found: usize,
        expected: usize,
    },
    #[error("field {id} has {found} bytes, which is no multiple of {unit}")]
    FieldUnit { id: u8, found: usize, unit: usize },
    #[error("field {id} has {found} bytes, at most {max} are allowed")]
    FieldTooLong { id: u8, found: usize, max: usize },
    #[error("field {id} occurs twice")]
    FieldDuplicate { id: u8 },
    #[error("key has particle type {found}, which cannot be a key")]
    KeyType { found: u8 },
    #[error("{found} operations, at most {OPS_MAX} are allowed")]
    OpsTooMany { found: usize },
    #[error("operation number {index} needs {needed} bytes, {left} are left")]
    OpBounds {
        index: u16,
        needed: usize,
        left: usize,
    },
    #[error("bin name has {found} bytes, at most {BIN_NAME_BYTES_MAX} are allowed")]
    BinNameTooLong { found: usize },
    #[error("{found} bytes follow the last operation")]
    TrailingBytes { found: usize },
}

impl MessageError {
    /// What the client is told.
    pub fn result_code(&self) -> ResultCode {
        match self {
            MessageError::BinNameTooLong { .. } => ResultCode::BinName,
            // No namespace can have such a name, so the answer is that of an unknown one.
            MessageError::FieldTooLong {
                id: field::NAMESPACE,
                ..
            } => ResultCode::Namespace,
            _ => ResultCode::Parameter,
        }
    }
}

/// A message whose structure has been checked. Fields that were not sent are `None`; so is an
/// empty set, which means the same as none. Whether the combination makes sense, and whether values
/// are well formed, is for whoever executes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    pub header: MessageHeader,
    /// At most 31 bytes.
    pub namespace: Option<&'a [u8]>,
    /// 1 to 63 bytes.
    pub set: Option<&'a [u8]>,
    /// Particle type byte and value. Integers and doubles have 8 bytes of value.
    pub key: Option<&'a [u8]>,
    pub digest: Option<&'a Digest>,
    /// 7 bytes, little endian.
    pub record_version: Option<&'a [u8]>,
    pub mrt_id: Option<u64>,
    /// Seconds of the server's clock.
    pub mrt_deadline: Option<u32>,
    pub task_id: Option<u64>,
    /// Milliseconds, 0 for none.
    pub socket_timeout: Option<u32>,
    pub records_per_second: Option<u32>,
    /// Partition ids, u16 little endian each.
    pub partitions: Option<&'a [u8]>,
    /// Digests to resume after, 20 bytes each.
    pub digests_after: Option<&'a [u8]>,
    /// Bin values to resume after, u64 little endian each.
    pub bin_values_after: Option<&'a [u8]>,
    pub sample_max: Option<u64>,
    /// Last-update time of a shipped write, milliseconds since 2010-01-01.
    pub lut: Option<u64>,
    pub index_name: Option<&'a [u8]>,
    pub index_range: Option<&'a [u8]>,
    /// Msgpack.
    pub index_context: Option<&'a [u8]>,
    /// Msgpack.
    pub index_expression: Option<&'a [u8]>,
    pub index_type: Option<u8>,
    /// At most 127 bytes, without the suffix.
    pub udf_module: Option<&'a [u8]>,
    /// At most 127 bytes.
    pub udf_function: Option<&'a [u8]>,
    /// A msgpack list.
    pub udf_args: Option<&'a [u8]>,
    pub udf_op: Option<u8>,
    /// Bin names of an old query: u8 count, then u8 length and name each.
    pub query_bins: Option<&'a [u8]>,
    /// The rows of a batch (section 9), from either of its two field ids.
    pub batch: Option<&'a [u8]>,
    /// A msgpack expression.
    pub filter: Option<&'a [u8]>,
    /// A msgpack map, in replies.
    pub error_details: Option<&'a [u8]>,
    pub ops: Ops<'a>,
}

impl<'a> Message<'a> {
    /// Parses a frame's body, without the proto header. The whole of it must be one message.
    pub fn parse(body: &'a [u8]) -> Result<Message<'a>, MessageError> {
        match Message::parse_prefix(body)? {
            (message, []) => Ok(message),
            (_, trailing) => Err(MessageError::TrailingBytes {
                found: trailing.len(),
            }),
        }
    }

    /// Parses the message at the start of `bytes` and returns what follows it: frames of batch and
    /// query replies hold several.
    pub fn parse_prefix(bytes: &'a [u8]) -> Result<(Message<'a>, &'a [u8]), MessageError> {
        let Some((header, rest)) = bytes.split_first_chunk::<MESSAGE_HEADER_BYTES>() else {
            return Err(MessageError::Truncated { found: bytes.len() });
        };
        Message::parse_after_header(MessageHeader::from_bytes(header)?, rest)
    }

    /// Parses the fields and operations that `header` counts from the start of `bytes` and returns
    /// what follows them. Batch rows have a shorter header of their own.
    pub fn parse_after_header(
        header: MessageHeader,
        bytes: &'a [u8],
    ) -> Result<(Message<'a>, &'a [u8]), MessageError> {
        let mut message = Message {
            header,
            ..Message::default()
        };
        let mut rest = bytes;
        // A field id is set here when it has been seen; every known id is below 64.
        let mut seen = 0_u64;
        for index in 0..header.n_fields {
            let bounds = |needed| MessageError::FieldBounds {
                index,
                needed,
                left: rest.len(),
            };
            let Some((size, tail)) = rest.split_first_chunk::<4>() else {
                return Err(bounds(size_of::<u32>() + 1));
            };
            let mut size = u32::from_be_bytes(*size) as usize;
            // The Go client counts the fields before a batch in the batch's size. What it means is certain where the batch
            // is the last field and too long by just that.
            let before = bytes.len() - rest.len();
            let is_batch = matches!(tail.first(), Some(&(field::BATCH | field::BATCH_WITH_SET)));
            if is_batch && index + 1 == header.n_fields && size == tail.len() + before {
                size = tail.len();
            }
            let Some((data, tail)) = tail.split_at_checked(size) else {
                return Err(bounds(size_of::<u32>() + size));
            };
            let Some((&id, data)) = data.split_first() else {
                return Err(bounds(size_of::<u32>() + 1));
            };
            message.set_field(id, data, &mut seen)?;
            rest = tail;
        }
        let (ops, rest) = Ops::parse(header.n_ops, rest)?;
        message.ops = ops;
        Ok((message, rest))
    }

    #[inline]
    fn set_field(&mut self, id: u8, data: &'a [u8], seen: &mut u64) -> Result<(), MessageError> {
        match id {
            field::NAMESPACE => self.namespace = Some(at_most(id, data, NAMESPACE_BYTES_MAX)?),
            field::SET => {
                self.set = Some(at_most(id, data, SET_BYTES_MAX)?).filter(|set| !set.is_empty());
            }
            field::KEY => self.key = Some(checked_key(data)?),
            field::RECORD_VERSION => {
                self.record_version = Some(exactly::<RECORD_VERSION_BYTES>(id, data)?);
            }
            field::DIGEST => self.digest = Some(exactly(id, data)?),
            field::MRT_ID => self.mrt_id = Some(u64::from_le_bytes(*exactly(id, data)?)),
            field::MRT_DEADLINE => {
                self.mrt_deadline = Some(u32::from_le_bytes(*exactly(id, data)?));
            }
            field::TASK_ID => self.task_id = Some(u64::from_be_bytes(*exactly(id, data)?)),
            field::SOCKET_TIMEOUT => {
                self.socket_timeout = Some(u32::from_be_bytes(*exactly(id, data)?));
            }
            field::RECORDS_PER_SECOND => {
                self.records_per_second = Some(u32::from_be_bytes(*exactly(id, data)?));
            }
            field::PARTITIONS => self.partitions = Some(units_of(id, data, size_of::<u16>())?),
            field::DIGESTS_AFTER => self.digests_after = Some(units_of(id, data, DIGEST_BYTES)?),
            field::BIN_VALUES_AFTER => {
                self.bin_values_after = Some(units_of(id, data, size_of::<u64>())?);
            }
            field::SAMPLE_MAX => self.sample_max = Some(u64::from_be_bytes(*exactly(id, data)?)),
            field::LUT => self.lut = Some(u64::from_be_bytes(*exactly(id, data)?)),
            field::INDEX_NAME => self.index_name = Some(data),
            field::INDEX_RANGE => self.index_range = Some(data),
            field::INDEX_CONTEXT => self.index_context = Some(data),
            field::INDEX_EXPRESSION => self.index_expression = Some(data),
            field::INDEX_TYPE => self.index_type = Some(exactly::<1>(id, data)?[0]),
            field::UDF_MODULE => self.udf_module = Some(at_most(id, data, UDF_NAME_BYTES_MAX)?),
            field::UDF_FUNCTION => self.udf_function = Some(at_most(id, data, UDF_NAME_BYTES_MAX)?),
            field::UDF_ARGS => self.udf_args = Some(data),
            field::UDF_OP => self.udf_op = Some(exactly::<1>(id, data)?[0]),
            field::QUERY_BINS => self.query_bins = Some(data),
            field::BATCH | field::BATCH_WITH_SET => {
                if self.batch.is_some() {
                    return Err(MessageError::FieldDuplicate { id });
                }
                self.batch = Some(data);
            }
            field::FILTER => self.filter = Some(data),
            field::ERROR_DETAILS => self.error_details = Some(data),
            // Newer clients may send what an older server does not know.
            _ => return Ok(()),
        }
        // Two values of one field would let two readers of the frame disagree about the command.
        if *seen & 1 << id != 0 {
            return Err(MessageError::FieldDuplicate { id });
        }
        *seen |= 1 << id;
        Ok(())
    }
}

fn exactly<const N: usize>(id: u8, data: &[u8]) -> Result<&[u8; N], MessageError> {
    data.try_into().map_err(|_| MessageError::FieldLength {
        id,
        found: data.len(),
        expected: N,
    })
}

fn at_most(id: u8, data: &[u8], max: usize) -> Result<&[u8], MessageError> {
    if data.len() > max {
        return Err(MessageError::FieldTooLong {
            id,
            found: data.len(),
            max,
        });
    }
    Ok(data)
}

fn units_of(id: u8, data: &[u8], unit: usize) -> Result<&[u8], MessageError> {
    if !data.len().is_multiple_of(unit) {
        return Err(MessageError::FieldUnit {
            id,
            found: data.len(),
            unit,
        });
    }
    Ok(data)
}

/// Lists, maps, booleans and locations cannot be keys (section 6).
fn checked_key(data: &[u8]) -> Result<&[u8], MessageError> {
    const NUMBER_BYTES: usize = 9;
    let found = data.len();
    match data.first() {
        None => Err(MessageError::FieldLength {
            id: field::KEY,
            found,
            expected: 1,
        }),
        Some(&(particle::INTEGER | particle::FLOAT)) if found != NUMBER_BYTES => {
            Err(MessageError::FieldLength {
                id: field::KEY,
                found,
                expected: NUMBER_BYTES,
            })
        }
        Some(
            &(particle::INTEGER
            | particle::FLOAT
            | particle::STRING
            | particle::BLOB
            | particle::JAVA_BLOB..=particle::ERLANG_BLOB),
        ) => Ok(data),
        Some(&found) => Err(MessageError::KeyType { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchRows;
    use crate::fixtures::{RecordedFrame, field_json, field_of, hex, op_json, recorded_frames};
    use crate::flags::op;
    use crate::particle::validate_particle;
    use crate::proto::{PROTO_HEADER_BYTES, ProtoType, parse_proto_header};
    use crate::request::{RequestHeader, RequestWriter};
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    const NAMESPACE_FIELD: &[u8] = &[0, 0, 0, 2, field::NAMESPACE, b'n'];

    fn message_frames() -> Vec<RecordedFrame> {
        let mut frames = recorded_frames();
        frames.retain(|frame| frame.kind == ProtoType::Message as u64);
        assert!(frames.len() > 200, "only {} messages", frames.len());
        frames
    }

    fn body_of(frame: &RecordedFrame) -> &[u8] {
        let header = parse_proto_header(&frame.bytes).unwrap().unwrap();
        assert_eq!(header.body_bytes, frame.bytes.len() - PROTO_HEADER_BYTES);
        &frame.bytes[PROTO_HEADER_BYTES..]
    }

    fn body(n_fields: u16, n_ops: u16, rest: &[&[u8]]) -> Vec<u8> {
        let header = MessageHeader {
            n_fields,
            n_ops,
            ..MessageHeader::default()
        };
        [&header.to_bytes()[..], &rest.concat()].concat()
    }

    #[test]
    fn recorded_messages_decode_to_what_the_recorder_saw() {
        for frame in message_frames() {
            let name = &frame.name;
            let message = Message::parse(body_of(&frame)).unwrap();
            let header = message.header;
            let rendered = format!(
                "i1={:02x} i2={:02x} i3={:02x} i4={:02x} gen={} ttl={} tt={}",
                header.info1,
                header.info2,
                header.info3,
                header.info4,
                header.generation,
                header.record_ttl as i32,
                header.transaction_ttl
            );
            assert_eq!(frame.decoded["hdr"], rendered, "{name}");
            for field in frame.decoded["fields"].as_array().unwrap() {
                let label = field[0].as_str().unwrap();
                let (_, data) = field_of(&message, label);
                if label != "BATCH" {
                    assert_eq!(field[1], field_json(label, &data), "{name}, {label}");
                }
            }
            let ops: Vec<Json> = message.ops.iter().map(|op| op_json(&op)).collect();
            assert_eq!(frame.decoded["ops"], json!(ops), "{name}");
        }
    }

    #[test]
    fn a_batch_that_counts_the_fields_before_it_ends_with_its_message() {
        let filter = [0, 0, 0, 2, field::FILTER, 0xc3];
        let rows = [0, 0, 0, 0, 4];
        let batch = |announced: u8| [&[0, 0, 0, announced, field::BATCH][..], &rows].concat();
        let exact = 1 + rows.len() as u8;
        // The Go client announces as much more as the filter before it takes.
        for announced in [exact, exact + filter.len() as u8] {
            let body = body(2, 0, &[&filter, &batch(announced)]);
            let message = Message::parse(&body).unwrap();
            assert_eq!(message.batch, Some(&rows[..]), "{announced}");
        }
        let parse = |fields, ops, rest: &[&[u8]]| Message::parse(&body(fields, ops, rest)).err();
        let followed = parse(2, 0, &[&batch(exact + 7), &filter]);
        let longer = parse(2, 0, &[&filter, &batch(exact + filter.len() as u8 + 1)]);
        for refused in [followed, longer] {
            assert!(
                matches!(refused, Some(MessageError::FieldBounds { .. })),
                "{refused:?}"
            );
        }
        let shorter = parse(1, 0, &[&batch(exact - 1)]);
        assert_eq!(shorter, Some(MessageError::TrailingBytes { found: 1 }));
    }

    #[test]
    fn recorded_messages_are_written_again_byte_for_byte() {
        let mut out = Vec::new();
        for frame in message_frames() {
            let message = Message::parse(body_of(&frame)).unwrap();
            let header = message.header;
            out.clear();
            let mut request = RequestWriter::begin(
                &mut out,
                RequestHeader {
                    info1: header.info1,
                    info2: header.info2,
                    info3: header.info3,
                    info4: header.info4,
                    generation: header.generation,
                    record_ttl: header.record_ttl,
                    transaction_ttl: header.transaction_ttl,
                },
            );
            for field in frame.decoded["fields"].as_array().unwrap() {
                let (id, data) = field_of(&message, field[0].as_str().unwrap());
                request.field(id, &data);
            }
            for op in message.ops {
                request.op(op.code, op.particle, op.name, op.value);
            }
            request.finish();
            assert_eq!(hex(&out), hex(&frame.bytes), "{}", frame.name);
        }
    }

    #[test]
    fn every_value_that_a_client_wrote_is_acceptable() {
        let mut written = 0;
        for frame in message_frames() {
            for op in Message::parse(body_of(&frame)).unwrap().ops {
                if op.code == op::WRITE {
                    written += 1;
                    assert_eq!(
                        validate_particle(op.particle, op.value),
                        Ok(()),
                        "{}",
                        frame.name
                    );
                }
            }
        }
        assert!(written >= 20, "{written} values");
    }

    #[test]
    fn a_recorded_message_cut_anywhere_is_refused() {
        for frame in message_frames() {
            let body = body_of(&frame);
            let step = 1 + body.len() / 200;
            for end in (0..body.len()).step_by(step) {
                // A batch may be cut where it seems to count the fields before it: then its rows tell.
                let is_whole = Message::parse(&body[..end]).is_ok_and(|message| {
                    let rows = message
                        .batch
                        .map(|rows| BatchRows::parse(message.header, rows));
                    rows.is_none_or(|rows| rows.is_ok_and(|mut rows| rows.all(|row| row.is_ok())))
                });
                assert!(!is_whole, "{} cut at {end}", frame.name);
            }
            let longer = [body, &[0]].concat();
            let error = MessageError::TrailingBytes { found: 1 };
            assert_eq!(Message::parse(&longer).unwrap_err(), error);
        }
    }

    #[test]
    fn an_empty_set_is_no_set() {
        let bytes = body(2, 0, &[NAMESPACE_FIELD, &[0, 0, 0, 1, field::SET]]);
        assert_eq!(Message::parse(&bytes).unwrap().set, None);
    }

    #[test]
    fn unknown_fields_are_skipped() {
        for id in [8, 27, 44, 64, 255] {
            let unknown = [0, 0, 0, 3, id, 1, 2];
            let bytes = body(3, 0, &[&unknown, NAMESPACE_FIELD, &unknown]);
            assert_eq!(
                Message::parse(&bytes).unwrap().namespace,
                Some(&b"n"[..]),
                "{id}"
            );
        }
    }

    #[test]
    fn duplicate_fields_are_refused() {
        let bytes = body(2, 0, &[NAMESPACE_FIELD, NAMESPACE_FIELD]);
        let error = MessageError::FieldDuplicate {
            id: field::NAMESPACE,
        };
        assert_eq!(Message::parse(&bytes).unwrap_err(), error);
        // An empty set is remembered too, although it reads as none.
        let set = [0, 0, 0, 1, field::SET];
        let error = MessageError::FieldDuplicate { id: field::SET };
        assert_eq!(
            Message::parse(&body(2, 0, &[&set, &set])).unwrap_err(),
            error
        );
        let batch = [0, 0, 0, 1, field::BATCH];
        let with_set = [0, 0, 0, 1, field::BATCH_WITH_SET];
        let error = MessageError::FieldDuplicate {
            id: field::BATCH_WITH_SET,
        };
        assert_eq!(
            Message::parse(&body(2, 0, &[&batch, &with_set])).unwrap_err(),
            error
        );
    }

    #[test]
    fn fields_of_a_wrong_size_are_refused_with_what_was_seen() {
        let refused = |id: u8, bytes: usize| {
            let mut field = (bytes as u32 + 1).to_be_bytes().to_vec();
            field.push(id);
            field.resize(field.len() + bytes, 1);
            Message::parse(&body(1, 0, &[&field])).unwrap_err()
        };
        for (id, expected) in [
            (field::RECORD_VERSION, 7),
            (field::DIGEST, 20),
            (field::MRT_ID, 8),
            (field::MRT_DEADLINE, 4),
            (field::TASK_ID, 8),
            (field::SOCKET_TIMEOUT, 4),
            (field::RECORDS_PER_SECOND, 4),
            (field::SAMPLE_MAX, 8),
            (field::LUT, 8),
            (field::INDEX_TYPE, 1),
            (field::UDF_OP, 1),
        ] {
            for found in [0, expected - 1, expected + 1] {
                if found != expected {
                    let error = MessageError::FieldLength {
                        id,
                        found,
                        expected,
                    };
                    assert_eq!(refused(id, found), error);
                    assert_eq!(error.result_code(), ResultCode::Parameter);
                }
            }
        }
        for (id, unit) in [
            (field::PARTITIONS, 2),
            (field::DIGESTS_AFTER, 20),
            (field::BIN_VALUES_AFTER, 8),
        ] {
            let found = 2 * unit - 1;
            assert_eq!(
                refused(id, found),
                MessageError::FieldUnit { id, found, unit }
            );
        }
        for (id, max, result) in [
            (field::NAMESPACE, 31, ResultCode::Namespace),
            (field::SET, 63, ResultCode::Parameter),
            (field::UDF_MODULE, 127, ResultCode::Parameter),
            (field::UDF_FUNCTION, 127, ResultCode::Parameter),
        ] {
            let error = MessageError::FieldTooLong {
                id,
                found: max + 1,
                max,
            };
            assert_eq!(refused(id, max + 1), error);
            assert_eq!(error.result_code(), result);
        }
    }

    #[test]
    fn keys_are_of_types_that_can_be_hashed() {
        let parse = |key: &[u8]| {
            let mut field = (key.len() as u32 + 1).to_be_bytes().to_vec();
            field.push(field::KEY);
            field.extend_from_slice(key);
            Message::parse(&body(1, 0, &[&field])).map(|_| ())
        };
        assert_eq!(parse(&[particle::INTEGER, 0, 0, 0, 0, 0, 0, 0, 1]), Ok(()));
        assert_eq!(parse(&[particle::STRING]), Ok(()));
        assert_eq!(parse(&[particle::BLOB, 1]), Ok(()));
        let id = field::KEY;
        let error = MessageError::FieldLength {
            id,
            found: 5,
            expected: 9,
        };
        assert_eq!(parse(&[particle::INTEGER, 0, 0, 0, 1]), Err(error));
        assert_eq!(
            parse(&[]),
            Err(MessageError::FieldLength {
                id,
                found: 0,
                expected: 1
            })
        );
        for found in [
            particle::NULL,
            particle::BOOL,
            particle::LIST,
            particle::GEOJSON,
            99,
        ] {
            assert_eq!(parse(&[found, 1]), Err(MessageError::KeyType { found }));
        }
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        let parse =
            |fields, ops, rest: &[u8]| Message::parse(&body(fields, ops, &[rest])).map(|_| ());
        let field = |needed, left| {
            Err(MessageError::FieldBounds {
                index: 0,
                needed,
                left,
            })
        };
        assert_eq!(parse(1, 0, &[]), field(5, 0));
        assert_eq!(parse(1, 0, &[0, 0, 0, 0]), field(5, 4));
        assert_eq!(parse(1, 0, &[0, 0, 0, 9, 0]), field(13, 5));
        assert_eq!(
            parse(1, 0, &[255, 255, 255, 255, 0]),
            field(4 + u32::MAX as usize, 5)
        );
        let op = |needed, left| {
            Err(MessageError::OpBounds {
                index: 0,
                needed,
                left,
            })
        };
        assert_eq!(parse(0, 1, &[0, 0, 0, 3, 1, 0, 0]), op(8, 7));
        assert_eq!(parse(0, 1, &[0, 0, 0, 4, 1, 0, 0, 2]), op(10, 8));
        assert_eq!(parse(0, 1, &[0, 0, 0, 5, 1, 0, 1, 1, b'a']), op(17, 9));
        assert_eq!(
            parse(0, 32769, &[]),
            Err(MessageError::OpsTooMany { found: 32769 })
        );
        let mut header = body(0, 0, &[]);
        header[0] = 23;
        let error = MessageError::HeaderSize { found: 23 };
        assert_eq!(Message::parse(&header).unwrap_err(), error);
    }

    fn walk(body: &[u8]) {
        let Ok(message) = Message::parse(body) else {
            return;
        };
        assert_eq!(message.ops.iter().count(), message.ops.len());
        assert_eq!(message.ops.len(), usize::from(message.header.n_ops));
        for op in message.ops {
            let _ = validate_particle(op.particle, op.value);
        }
        for value in [message.filter, message.udf_args, message.index_context]
            .into_iter()
            .flatten()
        {
            let _ = crate::msgpack::validate(value);
        }
        if let Some(batch) = message.batch
            && let Ok(rows) = crate::batch::BatchRows::parse(message.header, batch)
        {
            rows.for_each(drop);
        }
    }

    proptest! {
        #[test]
        fn parsing_arbitrary_bytes_never_panics(
            fields in 0_u8..4,
            ops in 0_u8..4,
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            walk(&rest);
            walk(&body(u16::from(fields), u16::from(ops), &[&rest]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn parsing_mutated_recordings_never_panics(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            removed in 0_usize..3,
        ) {
            for frame in message_frames() {
                let mut body = body_of(&frame).to_vec();
                let at = at.index(body.len());
                body[at] = byte;
                walk(&body);
                body.drain(at..(at + removed).min(body.len()));
                walk(&body);
            }
        }

        #[test]
        fn size_words_of_recordings_may_hold_anything(
            at in any::<prop::sample::Index>(), word in any::<u32>(), small in 0_u32..64,
        ) {
            for frame in message_frames() {
                let mut body = body_of(&frame).to_vec();
                let at = at.index(body.len() - 3);
                for word in [word, small] {
                    body[at..at + 4].copy_from_slice(&word.to_be_bytes());
                    walk(&body);
                }
            }
        }
    }
}
