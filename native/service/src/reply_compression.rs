//! Replies compressed for clients that ask for it (PROTOCOL section 2.1), frame by frame.

use std::cell::RefCell;

use perigee_engine::stats::ReplyCompression;
use perigee_wire::{MessageHeader, deflate_frame, info1};

/// Memory for compressed frames that a thread keeps.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Whether the client of a request takes a compressed reply.
pub(crate) fn wants_compressed(header: &MessageHeader) -> bool {
    header.info1 & info1::COMPRESS_RESPONSE != 0
}

/// Compresses the frame from `start` to the end of `out`, if it becomes smaller by that, and counts what became of it.
pub(crate) fn compress_frame(out: &mut Vec<u8>, start: usize, replies: &ReplyCompression) {
    thread_local! {
        static COMPRESSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    COMPRESSED.with_borrow_mut(|compressed| {
        if deflate_frame(&out[start..], compressed) {
            replies.count_compressed(out.len() - start, compressed.len());
            out.truncate(start);
            out.extend_from_slice(compressed);
        } else {
            replies.count_uncompressed();
        }
        if compressed.capacity() > KEPT_BYTES_MAX {
            *compressed = Vec::new();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use perigee_wire::{
        Message, PROTO_HEADER_BYTES, ReplyWriter, ResultCode, inflate_message, particle_type,
        write_simple_reply,
    };

    #[test]
    fn only_the_last_frame_of_the_output_is_compressed_and_only_where_it_gains() {
        let replies = ReplyCompression::default();
        let mut out = Vec::new();
        write_simple_reply(&mut out, ResultCode::Ok, 1, 0);
        compress_frame(&mut out, 0, &replies);
        assert_eq!(replies.uncompressed_pct(), 100.0);
        let (before, start) = (out.clone(), out.len());
        let mut reply = ReplyWriter::begin(&mut out);
        reply.op(b"b", particle_type::STRING, &b"abcd".repeat(1000));
        reply.finish(ResultCode::Ok, 7, 0);
        let plain = out.clone();
        compress_frame(&mut out, start, &replies);
        assert!(out.len() < plain.len() / 4);
        assert_eq!(out[..start], before);
        let mut inflated = Vec::new();
        let body = inflate_message(&out[start + PROTO_HEADER_BYTES..], &mut inflated);
        let body = body.expect("a compressed message");
        assert_eq!(body, &plain[start + PROTO_HEADER_BYTES..]);
        let header = Message::parse(body).expect("a message").header;
        assert_eq!(header.generation, 7);
        assert_eq!(replies.uncompressed_pct(), 50.0);
        let ratio = (out.len() - start) as f64 / (plain.len() - start) as f64;
        assert_eq!(replies.ratio(), ratio);
    }
}
