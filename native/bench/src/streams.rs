//! Requests that are answered with many records: batches of reads, and queries by a range of a secondary index. Their replies
//! are messages one after the other, in frames, up to one that says that it is the last.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use perigee_wire::{
    Message, PARTITIONS, PROTO_HEADER_BYTES, ProtoType, RequestHeader, RequestWriter, field, info1,
    info3, parse_proto_header, particle, write_proto_header,
};

use crate::error::BenchError;
use crate::frames::{Frames, INTEGER_BIN, Random};
use crate::options::Common;

/// Flags of a row: what is asked for is with it, or as with the row before.
const ROW_WITH_INFO_AND_TTL: u8 = 0x0a;
const ROW_REPEATS: u8 = 0x01;
/// Inline, and every row is answered.
const BATCH_FLAGS: u8 = 0x01 | 0x04 | 0x08;

const INDEX_NAME: &str = "perigee-bench";
const INFO_TIMEOUT: Duration = Duration::from_secs(10);
const BUILT_WITHIN: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub enum Stream {
    /// Reads of so many random keys.
    Batch { rows: u32 },
    /// The records whose keys are so many in a row.
    Query { records: u64 },
}

/// What a frame of a reply holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub records: u64,
    /// The result of the whole, if the frame is the last.
    pub result: Option<u8>,
    /// A record's result that is none of OK.
    pub failed: Option<u8>,
}

impl Stream {
    /// Appends a request. `key` is the first key of a query's range, where there are as many behind it.
    pub fn append(
        &self,
        common: &StreamNames,
        frames: &Frames,
        key: u64,
        random: &mut Random,
        out: &mut Vec<u8>,
    ) {
        match *self {
            Stream::Batch { rows } => append_batch(common, frames, rows, random, out),
            Stream::Query { records } => {
                let first = key.min(frames.keys.saturating_sub(records));
                append_query(common, first, first + records - 1, random, out);
            }
        }
    }
}

/// Whose records are asked for.
#[derive(Clone, Debug)]
pub struct StreamNames {
    pub namespace: String,
    pub set: String,
}

impl StreamNames {
    pub fn of(common: &Common) -> StreamNames {
        StreamNames {
            namespace: common.namespace.clone(),
            set: common.set.clone(),
        }
    }
}

fn append_batch(
    names: &StreamNames,
    frames: &Frames,
    rows: u32,
    random: &mut Random,
    out: &mut Vec<u8>,
) {
    let mut data = Vec::with_capacity(64 + rows as usize * 25);
    data.extend(rows.to_be_bytes());
    data.push(BATCH_FLAGS);
    for row in 0..rows {
        data.extend(row.to_be_bytes());
        data.extend(frames.digest(random.below(frames.keys)));
        if row > 0 {
            data.push(ROW_REPEATS);
            continue;
        }
        data.extend([ROW_WITH_INFO_AND_TTL, info1::READ | info1::GET_ALL, 0, 0]);
        data.extend(0u32.to_be_bytes());
        data.extend([0, 2, 0, 0]);
        for (id, value) in [
            (field::NAMESPACE, &names.namespace),
            (field::SET, &names.set),
        ] {
            data.extend((value.len() as u32 + 1).to_be_bytes());
            data.push(id);
            data.extend(value.as_bytes());
        }
    }
    let header = RequestHeader {
        info1: info1::BATCH,
        ..RequestHeader::default()
    };
    let mut writer = RequestWriter::begin(out, header);
    writer.field(field::BATCH, &data);
    writer.finish();
}

fn append_query(names: &StreamNames, low: u64, high: u64, random: &mut Random, out: &mut Vec<u8>) {
    let header = RequestHeader {
        info1: info1::READ,
        info3: info3::PARTITION_DONE,
        record_ttl: u32::MAX,
        ..RequestHeader::default()
    };
    let mut range = vec![1, INTEGER_BIN.len() as u8];
    range.extend(INTEGER_BIN.as_bytes());
    range.push(particle::INTEGER);
    for end in [low, high] {
        range.extend(8u32.to_be_bytes());
        range.extend(end.to_be_bytes());
    }
    let partitions: Vec<u8> = (0..PARTITIONS as u16).flat_map(u16::to_le_bytes).collect();
    let mut writer = RequestWriter::begin(out, header);
    writer.field(field::NAMESPACE, names.namespace.as_bytes());
    writer.field(field::SET, names.set.as_bytes());
    writer.field(field::TASK_ID, &random.next().to_be_bytes());
    writer.field(field::INDEX_RANGE, &range);
    writer.field(field::PARTITIONS, &partitions);
    writer.finish();
}

/// Counts what a frame's body holds. `None` if it is no reply.
pub fn look_at(body: &[u8]) -> Option<Part> {
    let mut part = Part::default();
    let mut rest = body;
    while !rest.is_empty() {
        let (message, after) = Message::parse_prefix(rest).ok()?;
        let header = &message.header;
        if header.info3 & info3::LAST != 0 {
            part.result = Some(header.result_code);
        } else if header.result_code != 0 {
            part.failed = Some(header.result_code);
        } else if header.info3 & info3::PARTITION_DONE == 0 {
            part.records += 1;
        }
        rest = after;
    }
    Some(part)
}

/// Makes the index that the queries need, unless it is there, and waits until it is built.
pub fn make_index(address: SocketAddr, names: &StreamNames) -> Result<(), BenchError> {
    let StreamNames { namespace, set } = names;
    let index = format!("namespace={namespace};indexname={INDEX_NAME}");
    let create = format!(
        "sindex-create:namespace={namespace};set={set};indexname={INDEX_NAME};indextype=default;bin={INTEGER_BIN};type=numeric"
    );
    let answer = info(address, &create)?;
    if !answer.to_ascii_lowercase().starts_with("ok") {
        return Err(BenchError::Index(answer));
    }
    let began = Instant::now();
    loop {
        let stat = info(address, &format!("sindex-stat:{index}"))?;
        if stat.split(';').any(|pair| pair == "load_pct=100") {
            return Ok(());
        }
        if began.elapsed() > BUILT_WITHIN {
            return Err(BenchError::Index(stat));
        }
        std::thread::sleep(POLL);
    }
}

/// Asks one info command.
pub fn info(address: SocketAddr, command: &str) -> Result<String, BenchError> {
    let mut stream =
        TcpStream::connect(address).map_err(|source| BenchError::Connect { address, source })?;
    stream.set_read_timeout(Some(INFO_TIMEOUT))?;
    let mut frame = Vec::new();
    write_proto_header(&mut frame, ProtoType::Info, command.len() + 1);
    frame.extend(command.as_bytes());
    frame.push(b'\n');
    stream.write_all(&frame)?;
    let mut header = [0; PROTO_HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let header = parse_proto_header(&header).ok().flatten();
    let bytes = header.map_or(0, |header| header.body_bytes);
    let mut body = vec![0; bytes];
    stream.read_exact(&mut body)?;
    let text = String::from_utf8_lossy(&body);
    let answer = text.split_once('\t').map_or(&*text, |(_, answer)| answer);
    Ok(answer.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::FrameShape;
    use perigee_wire::{BatchRows, ReplyHeader, ReplyWriter, ResultCode};

    fn names() -> StreamNames {
        StreamNames {
            namespace: "test".into(),
            set: "bench".into(),
        }
    }

    #[test]
    fn a_batch_has_as_many_rows_as_were_asked_for() {
        let shape = FrameShape {
            namespace: "test",
            set: "bench",
            keys: 10,
            object_bytes: 10,
            bins: 1,
            with_integer: false,
            seed: 1,
        };
        let frames = Frames::new(&shape).unwrap();
        let mut out = Vec::new();
        let stream = Stream::Batch { rows: 25 };
        stream.append(&names(), &frames, 0, &mut Random::new(3), &mut out);
        let message = Message::parse(&out[PROTO_HEADER_BYTES..]).unwrap();
        let rows = BatchRows::parse(message.header, message.batch.unwrap()).unwrap();
        let rows: Vec<_> = rows.map(Result::unwrap).collect();
        assert_eq!(rows.len(), 25);
        for (at, row) in rows.iter().enumerate() {
            assert_eq!(row.index, at as u32);
            assert_eq!(row.message.namespace, Some(&b"test"[..]));
            assert_eq!(row.message.set, Some(&b"bench"[..]));
            assert_eq!(row.message.header.info1, info1::READ | info1::GET_ALL);
            let is_known = (0..10).any(|key| frames.digest(key) == *row.digest);
            assert!(is_known);
        }
    }

    #[test]
    fn a_reply_is_counted_up_to_its_last_message() {
        let mut body = Vec::new();
        let mut add = |code, info3| {
            let header = ReplyHeader {
                info3,
                ..ReplyHeader::new(code)
            };
            ReplyWriter::begin_part(&mut body).finish_with(header);
        };
        add(ResultCode::Ok, 0);
        add(ResultCode::Ok, 0);
        add(ResultCode::Ok, info3::PARTITION_DONE);
        add(ResultCode::NotFound, 0);
        let failed = Some(ResultCode::NotFound as u8);
        let part = Part {
            records: 2,
            result: None,
            failed,
        };
        let before = body.clone();
        assert_eq!(look_at(&before), Some(part));
        let header = ReplyHeader {
            info3: info3::LAST,
            ..ReplyHeader::new(ResultCode::Ok)
        };
        ReplyWriter::begin_part(&mut body).finish_with(header);
        let result = Some(0);
        assert_eq!(look_at(&body), Some(Part { result, ..part }));
        assert_eq!(look_at(b"no reply at all, of whatever kind"), None);
    }
}
