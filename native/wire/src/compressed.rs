//! Compressed messages (section 2.1): a frame within a frame.
//!
//! ```text
//! body         = u64 bytes of the frame within, zlib stream
//! frame within = version 2, type 3, u48 length, message
//! ```
//!
//! A stream is taken for what it makes, not for what it says: the frame within has exactly the announced bytes and nothing
//! follows it. Each thread keeps the state of its streams, some 300 KiB once it has compressed.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::message::MESSAGE_HEADER_BYTES;
use crate::proto::{
    PROTO_BODY_BYTES_MAX, PROTO_HEADER_BYTES, ProtoError, ProtoType, parse_proto_header,
    proto_header,
};

/// Frames of so many bytes or fewer are sent as they are: both sides agree that they do not gain.
pub const COMPRESS_FRAME_BYTES_MIN: usize = 128;

/// A compressed frame is worth having when it is so many bytes shorter.
const GAIN_BYTES_MIN: usize = 32;

const SIZE_BYTES: usize = size_of::<u64>();
/// The least message within, with its header.
const FRAME_BYTES_MIN: usize = PROTO_HEADER_BYTES + MESSAGE_HEADER_BYTES;
const FRAME_BYTES_MAX: usize = PROTO_HEADER_BYTES + PROTO_BODY_BYTES_MAX;
/// Deflate makes at most so many bytes of one (a match of 258 bytes takes two bits).
const EXPANSION_MAX: u64 = 1032;
/// Room for the frame within grows from here by doubling, with what the stream really makes.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// Why a compressed message is refused. The outer frame's end is known, so the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompressedError {
    #[error("compressed message of {found} bytes is shorter than its size word")]
    Truncated { found: usize },
    #[error("{found} bytes are announced, {FRAME_BYTES_MIN} to {max} are possible")]
    Size { found: u64, max: u64 },
    #[error("the zlib stream is damaged or cut short after {made} bytes")]
    Stream { made: usize },
    #[error("{expected} bytes were announced, the stream makes {found} or more")]
    Length { expected: usize, found: usize },
    #[error("{found} bytes follow the zlib stream")]
    TrailingBytes { found: usize },
    #[error("the frame within: {0}")]
    Within(#[from] ProtoError),
    #[error("the frame within has type {found:?}, only messages can be compressed")]
    Type { found: ProtoType },
    #[error("the frame within has a body of {found} bytes by its header, {expected} are there")]
    WithinLength { found: usize, expected: usize },
}

/// Takes a compressed message out of the body of its frame. `out`, emptied first, holds the frame within; the body of that
/// one is returned. Memory is taken as the stream fills it.
pub fn inflate_message<'a>(body: &[u8], out: &'a mut Vec<u8>) -> Result<&'a [u8], CompressedError> {
    let Some((size, stream)) = body.split_first_chunk::<SIZE_BYTES>() else {
        return Err(CompressedError::Truncated { found: body.len() });
    };
    let found = u64::from_be_bytes(*size);
    let max = (FRAME_BYTES_MAX as u64).min(stream.len() as u64 * EXPANSION_MAX);
    if found < FRAME_BYTES_MIN as u64 || found > max {
        return Err(CompressedError::Size { found, max });
    }
    let size = found as usize;
    inflate(stream, size, out)?;
    match parse_proto_header(out)? {
        Some(header) if header.kind != ProtoType::Message => {
            Err(CompressedError::Type { found: header.kind })
        }
        Some(header) if header.body_bytes == size - PROTO_HEADER_BYTES => {
            Ok(&out[PROTO_HEADER_BYTES..])
        }
        header => Err(CompressedError::WithinLength {
            found: header.map_or(0, |header| header.body_bytes),
            expected: size - PROTO_HEADER_BYTES,
        }),
    }
}

fn inflate(stream: &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), CompressedError> {
    thread_local! {
        static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(true));
    }
    out.clear();
    INFLATER.with_borrow_mut(|zlib| {
        zlib.reset(true);
        loop {
            let (read, made) = (zlib.total_in() as usize, zlib.total_out() as usize);
            if made == out.len() {
                if made > size {
                    return Err(CompressedError::Length {
                        expected: size,
                        found: made,
                    });
                }
                // One byte more than announced, into which only a stream that lies gets.
                out.resize((2 * made).max(ROOM_BYTES_MIN).min(size + 1), 0);
            }
            let status = zlib
                .decompress(&stream[read..], &mut out[made..], FlushDecompress::None)
                .map_err(|_| CompressedError::Stream { made })?;
            if status == Status::StreamEnd {
                break;
            }
            if (zlib.total_in() as usize, zlib.total_out() as usize) == (read, made) {
                return Err(CompressedError::Stream { made });
            }
        }
        let (read, made) = (zlib.total_in() as usize, zlib.total_out() as usize);
        if made != size {
            return Err(CompressedError::Length {
                expected: size,
                found: made,
            });
        }
        out.truncate(size);
        match stream.len() - read {
            0 => Ok(()),
            found => Err(CompressedError::TrailingBytes { found }),
        }
    })
}

/// Puts the compressed form of a whole frame into `out`, which is emptied first. False if that would gain less than 32
/// bytes: then the frame is to be sent as it is. Level 1: whoever compresses here serves others afterwards.
pub fn deflate_frame(frame: &[u8], out: &mut Vec<u8>) -> bool {
    thread_local! {
        static DEFLATER: RefCell<Compress> =
            RefCell::new(Compress::new(Compression::fast(), true));
    }
    const STREAM_AT: usize = PROTO_HEADER_BYTES + SIZE_BYTES;
    out.clear();
    if frame.len() <= COMPRESS_FRAME_BYTES_MIN {
        return false;
    }
    // No room for more: the attempt ends where it has failed.
    out.resize(frame.len() - GAIN_BYTES_MIN, 0);
    let stream_bytes = DEFLATER.with_borrow_mut(|zlib| {
        zlib.reset();
        let room = &mut out[STREAM_AT..];
        match zlib.compress(frame, room, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => Some(zlib.total_out() as usize),
            Ok(Status::Ok | Status::BufError) | Err(_) => None,
        }
    });
    let Some(stream_bytes) = stream_bytes else {
        out.clear();
        return false;
    };
    out.truncate(STREAM_AT + stream_bytes);
    let header = proto_header(ProtoType::Compressed, SIZE_BYTES + stream_bytes);
    out[..PROTO_HEADER_BYTES].copy_from_slice(&header);
    out[PROTO_HEADER_BYTES..STREAM_AT].copy_from_slice(&(frame.len() as u64).to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{op, particle};
    use crate::message::Message;
    use crate::proto::write_proto_header;
    use crate::reply::ReplyWriter;
    use crate::result_code::ResultCode;
    use proptest::prelude::*;

    /// A whole frame with a bin of this value.
    fn plain_frame(value: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut reply = ReplyWriter::begin(&mut frame);
        reply.op(b"b", particle::BLOB, value);
        reply.finish(ResultCode::Ok, 1, 0);
        frame
    }

    /// The body of a compressed message that announces `size` bytes and makes `within`.
    fn body_of(size: u64, within: &[u8]) -> Vec<u8> {
        let mut zlib = Compress::new(Compression::fast(), true);
        let mut stream = vec![0; within.len() + 1024];
        let status = zlib.compress(within, &mut stream, FlushCompress::Finish);
        assert_eq!(status.unwrap(), Status::StreamEnd);
        stream.truncate(zlib.total_out() as usize);
        [&size.to_be_bytes()[..], &stream].concat()
    }

    fn refusal(body: &[u8]) -> CompressedError {
        inflate_message(body, &mut Vec::new()).unwrap_err()
    }

    fn noise(bytes: u32) -> Vec<u8> {
        let mut state = 0x2545_f491_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn what_a_client_has_compressed_is_the_put_that_it_meant() {
        // Section 20.
        let frame = crate::fixtures::unhex(concat!(
            "020400000000005c00000000000001e2780163626660606060bc25c6c00862c001f30b0666b0102b43496a",
            "71090303032b634a6a6e3e03038328cb9b8992badef53d8f63632b2e7b9f4a3dbd6ad5c9040606c6a94ccc",
            "0c8c8955a360508500000f73cfd0"
        ));
        let header = parse_proto_header(&frame).unwrap().unwrap();
        assert_eq!(header.kind, ProtoType::Compressed);
        let mut out = Vec::new();
        let within = inflate_message(&frame[PROTO_HEADER_BYTES..], &mut out).unwrap();
        assert_eq!(within.len() + PROTO_HEADER_BYTES, 482);
        let message = Message::parse(within).unwrap();
        assert_eq!(message.namespace, Some(&b"test"[..]));
        assert_eq!(message.set, Some(&b"demo"[..]));
        let ops: Vec<u8> = message.ops.iter().map(|it| it.code).collect();
        assert!(!ops.is_empty() && ops.iter().all(|code| *code == op::WRITE));
    }

    #[test]
    fn a_frame_that_gains_comes_back_and_one_that_does_not_is_left_alone() {
        let mut out = vec![1, 2, 3];
        for bytes in [200, 5000, 1 << 20] {
            let frame = plain_frame(&b"abcdefgh".repeat(bytes / 8));
            assert!(deflate_frame(&frame, &mut out));
            assert!(out.len() < frame.len(), "{bytes}");
            let header = parse_proto_header(&out).unwrap().unwrap();
            assert_eq!(header.kind, ProtoType::Compressed);
            assert_eq!(header.body_bytes, out.len() - PROTO_HEADER_BYTES);
            let mut again = Vec::new();
            let within = inflate_message(&out[PROTO_HEADER_BYTES..], &mut again).unwrap();
            assert_eq!(within, &frame[PROTO_HEADER_BYTES..]);
        }
        for frame in [plain_frame(&noise(5000)), plain_frame(&[0; 80])] {
            assert!(!deflate_frame(&frame, &mut out));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn a_size_that_is_not_the_streams_is_told_before_it_sizes_anything() {
        let frame = plain_frame(&b"abcdefgh".repeat(1000));
        let bytes = frame.len() as u64;
        let stream_bytes = body_of(bytes, &frame).len() as u64 - 8;
        let max = stream_bytes * EXPANSION_MAX;
        for found in [0, 29, max + 1, u64::MAX] {
            let error = refusal(&body_of(found, &frame));
            assert_eq!(error, CompressedError::Size { found, max });
        }
        assert_eq!(
            refusal(&body_of(bytes + 1, &frame)),
            CompressedError::Length {
                expected: frame.len() + 1,
                found: frame.len()
            }
        );
        assert_eq!(
            refusal(&body_of(bytes - 1, &frame)),
            CompressedError::Length {
                expected: frame.len() - 1,
                found: frame.len()
            }
        );
        for bytes in 0..8 {
            let error = CompressedError::Truncated { found: bytes };
            assert_eq!(refusal(&vec![0; bytes]), error);
        }
    }

    #[test]
    fn a_bomb_is_left_when_it_has_made_what_it_announced() {
        let zeros = vec![0; 4 << 20];
        let mut out = Vec::new();
        let body = body_of(100_000, &zeros);
        assert!(body.len() < zeros.len() / 64);
        assert_eq!(
            inflate_message(&body, &mut out).unwrap_err(),
            CompressedError::Length {
                expected: 100_000,
                found: 100_001
            }
        );
        assert!(out.capacity() < 300_000, "{}", out.capacity());
    }

    #[test]
    fn a_stream_that_is_cut_damaged_or_followed_is_refused() {
        let frame = plain_frame(&noise(300));
        let body = body_of(frame.len() as u64, &frame);
        for end in 9..body.len() {
            let error = refusal(&body[..end]);
            let is_cut = matches!(
                error,
                CompressedError::Stream { .. } | CompressedError::Size { .. }
            );
            assert!(is_cut, "{end}: {error}");
        }
        let mut padding = 0;
        for at in 8..body.len() {
            let mut damaged = body.clone();
            damaged[at] ^= 0x10;
            if let Ok(within) = inflate_message(&damaged, &mut Vec::new()) {
                // Bits between two blocks mean nothing.
                assert_eq!(within, &frame[PROTO_HEADER_BYTES..]);
                padding += 1;
            }
        }
        assert!(padding <= 2, "{padding}");
        let followed = [&body[..], b"x"].concat();
        let error = CompressedError::TrailingBytes { found: 1 };
        assert_eq!(refusal(&followed), error);
        // The next message of this thread begins anew.
        inflate_message(&body, &mut Vec::new()).expect("a whole stream");
    }

    #[test]
    fn only_a_whole_message_may_be_within() {
        let inner = |kind, body_bytes: usize, there: usize| {
            let mut frame = Vec::new();
            write_proto_header(&mut frame, kind, body_bytes);
            frame.resize(frame.len() + there, 7);
            refusal(&body_of(frame.len() as u64, &frame))
        };
        for found in [ProtoType::Info, ProtoType::Compressed] {
            assert_eq!(inner(found, 40, 40), CompressedError::Type { found });
        }
        for found in [39, 41] {
            let expected = 40;
            assert_eq!(
                inner(ProtoType::Message, found, 40),
                CompressedError::WithinLength { found, expected }
            );
        }
        let nothing = body_of(40, &[0; 40]);
        let error = ProtoError::Version { found: 0 };
        assert_eq!(refusal(&nothing), CompressedError::Within(error));
    }

    proptest! {
        #[test]
        fn every_frame_comes_back(
            value in prop::collection::vec(0..6_u8, 0..3000),
            dirt in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let frame = plain_frame(&value);
            let mut out = dirt;
            if deflate_frame(&frame, &mut out) {
                prop_assert!(out.len() + GAIN_BYTES_MIN <= frame.len());
                let mut again = vec![9; 7];
                let within = inflate_message(&out[PROTO_HEADER_BYTES..], &mut again).unwrap();
                prop_assert_eq!(within, &frame[PROTO_HEADER_BYTES..]);
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(
            size in prop_oneof![0..3000_u64, any::<u64>()],
            stream in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let body = [&size.to_be_bytes()[..], &stream].concat();
            let mut out = Vec::new();
            prop_assert!(inflate_message(&body, &mut out).is_err());
            prop_assert!(out.capacity() <= 2 * ROOM_BYTES_MIN.max(stream.len() * 1032));
        }
    }
}
