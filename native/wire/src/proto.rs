//! The header that opens every frame, and the frame kinds (section 2).
//!
//! ```text
//! 0 u8 version = 2   1 u8 type   2 u48 bytes of the body, big endian, without these 8
//! ```

pub use crate::flags::limits::PROTO_BODY_BYTES_MAX;

pub const PROTO_HEADER_BYTES: usize = 8;
pub const PROTO_VERSION: u8 = 2;

/// What a frame carries.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtoType {
    /// Newline-separated text (section 11).
    Info = 1,
    /// Administration and authentication (section 17).
    Security = 2,
    /// A record command or its reply (section 3).
    Message = 3,
    /// A message frame behind a length and a zlib stream (section 2.1).
    Compressed = 4,
    /// Batches between servers of other makes; recognised so that it can be refused by name.
    Xdr = 5,
}

impl ProtoType {
    pub const fn from_u8(code: u8) -> Option<ProtoType> {
        match code {
            1 => Some(ProtoType::Info),
            2 => Some(ProtoType::Security),
            3 => Some(ProtoType::Message),
            4 => Some(ProtoType::Compressed),
            5 => Some(ProtoType::Xdr),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProtoHeader {
    pub kind: ProtoType,
    /// At most [`PROTO_BODY_BYTES_MAX`].
    pub body_bytes: usize,
}

/// The stream cannot be trusted any further: the connection has to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtoError {
    #[error("protocol version is {found}, expected {PROTO_VERSION}")]
    Version { found: u8 },
    #[error("protocol type {found} is unknown")]
    Type { found: u8 },
    #[error("frame body of {found} bytes is larger than {max}")]
    BodyTooLarge { found: u64, max: u64 },
}

/// Reads the header at the start of `bytes`; `None` while fewer than 8 bytes are there.
pub fn parse_proto_header(bytes: &[u8]) -> Result<Option<ProtoHeader>, ProtoError> {
    let Some(header) = bytes.first_chunk::<PROTO_HEADER_BYTES>() else {
        return Ok(None);
    };
    let word = u64::from_be_bytes(*header);
    let [version, kind, ..] = *header;
    if version != PROTO_VERSION {
        return Err(ProtoError::Version { found: version });
    }
    let Some(kind) = ProtoType::from_u8(kind) else {
        return Err(ProtoError::Type { found: kind });
    };
    let found = word & 0xFFFF_FFFF_FFFF;
    let max = PROTO_BODY_BYTES_MAX as u64;
    if found > max {
        return Err(ProtoError::BodyTooLarge { found, max });
    }
    Ok(Some(ProtoHeader {
        kind,
        body_bytes: found as usize,
    }))
}

/// Appends a header that announces `body_bytes`, which must not exceed [`PROTO_BODY_BYTES_MAX`].
pub fn write_proto_header(out: &mut Vec<u8>, kind: ProtoType, body_bytes: usize) {
    out.extend_from_slice(&proto_header(kind, body_bytes));
}

/// Appends room for a header and returns where it is, for a body whose length is not known yet.
pub fn reserve_proto_header(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; PROTO_HEADER_BYTES]);
    start
}

/// Fills the room reserved at `start`: everything appended since is the body.
pub fn patch_proto_header(out: &mut [u8], start: usize, kind: ProtoType) {
    let body = start + PROTO_HEADER_BYTES;
    let header = proto_header(kind, out.len() - body);
    out[start..body].copy_from_slice(&header);
}

pub(crate) fn proto_header(kind: ProtoType, body_bytes: usize) -> [u8; PROTO_HEADER_BYTES] {
    debug_assert!(body_bytes <= PROTO_BODY_BYTES_MAX);
    let word = u64::from(PROTO_VERSION) << 56 | (kind as u64) << 48 | body_bytes as u64;
    word.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_a_round_trip_for_every_type_and_size_limit() {
        for code in 1..=5 {
            let kind = ProtoType::from_u8(code).unwrap();
            for body_bytes in [0, 1, 0x0102_0304, PROTO_BODY_BYTES_MAX] {
                let mut out = Vec::new();
                write_proto_header(&mut out, kind, body_bytes);
                assert_eq!(out.len(), PROTO_HEADER_BYTES);
                assert_eq!(
                    parse_proto_header(&out),
                    Ok(Some(ProtoHeader { kind, body_bytes }))
                );
            }
        }
    }

    #[test]
    fn length_is_48_bits_big_endian() {
        let mut out = Vec::new();
        write_proto_header(&mut out, ProtoType::Message, 0x0102_0304);
        assert_eq!(out, [2, 3, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn recorded_frames_of_every_type_announce_their_own_length() {
        for frame in crate::fixtures::recorded_frames() {
            let header = parse_proto_header(&frame.bytes).unwrap().unwrap();
            assert_eq!(header.kind as u64, frame.kind, "{}", frame.name);
            let frame_bytes = PROTO_HEADER_BYTES + header.body_bytes;
            assert_eq!(frame_bytes, frame.bytes.len(), "{}", frame.name);
        }
    }

    #[test]
    fn a_partial_header_is_not_an_error() {
        for bytes in 0..PROTO_HEADER_BYTES {
            assert_eq!(
                parse_proto_header(&[9; PROTO_HEADER_BYTES][..bytes]),
                Ok(None)
            );
        }
    }

    #[test]
    fn errors_carry_what_was_seen() {
        let version = parse_proto_header(&[3, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(version, Err(ProtoError::Version { found: 3 }));
        let kind = parse_proto_header(&[2, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(kind, Err(ProtoError::Type { found: 6 }));
        let max = 128 << 20;
        let large = parse_proto_header(&[2, 3, 0, 0, 8, 0, 0, 1]);
        assert_eq!(
            large,
            Err(ProtoError::BodyTooLarge {
                found: max + 1,
                max
            })
        );
        let huge = parse_proto_header(&[2, 3, 255, 255, 255, 255, 255, 255]);
        assert_eq!(
            huge,
            Err(ProtoError::BodyTooLarge {
                found: (1 << 48) - 1,
                max
            })
        );
    }
}
