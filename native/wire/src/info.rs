//! The text protocol's frames (section 11). What a command means is decided elsewhere.

use crate::flags::limits::INFO_BODY_BYTES_MAX;
use crate::proto::{ProtoType, write_proto_header};

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InfoError {
    #[error("info request of {found} bytes is longer than {max}")]
    TooLong { found: usize, max: usize },
    #[error("info request is not UTF-8 after byte {valid_bytes}")]
    NotUtf8 { valid_bytes: usize },
}

/// The commands of an info request body (without the proto header), in order. A last line without
/// a newline counts; empty lines do not. No command: the caller answers its summary.
pub fn info_commands(body: &[u8]) -> Result<impl Iterator<Item = &str>, InfoError> {
    if body.len() > INFO_BODY_BYTES_MAX {
        return Err(InfoError::TooLong {
            found: body.len(),
            max: INFO_BODY_BYTES_MAX,
        });
    }
    let text = std::str::from_utf8(body).map_err(|error| InfoError::NotUtf8 {
        valid_bytes: error.valid_up_to(),
    })?;
    Ok(text.split('\n').filter(|command| !command.is_empty()))
}

/// Appends a frame that carries `text` as it is: one `command\tvalue\n` for each command.
pub fn write_info_reply(out: &mut Vec<u8>, text: &str) {
    write_proto_header(out, ProtoType::Info, text.len());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(body: &[u8]) -> Result<Vec<&str>, InfoError> {
        info_commands(body).map(Iterator::collect)
    }

    #[test]
    fn commands_come_in_order_with_or_without_a_last_newline() {
        assert_eq!(commands(b"node\nbuild\n"), Ok(vec!["node", "build"]));
        assert_eq!(
            commands(b"node\n\nsets/test"),
            Ok(vec!["node", "sets/test"])
        );
        assert_eq!(commands(b""), Ok(vec![]));
        assert_eq!(commands(b"\n"), Ok(vec![]));
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_with_their_place() {
        assert_eq!(
            commands(b"node\n\xff"),
            Err(InfoError::NotUtf8 { valid_bytes: 5 })
        );
    }

    #[test]
    fn a_request_over_the_bound_is_refused_before_it_is_read() {
        let max = INFO_BODY_BYTES_MAX;
        assert_eq!(
            commands(&vec![b'a'; max]).map(|commands| commands.len()),
            Ok(1)
        );
        let error = InfoError::TooLong {
            found: max + 1,
            max,
        };
        assert_eq!(commands(&vec![0xff; max + 1]), Err(error));
    }

    #[test]
    fn reply_is_an_info_frame_with_the_text_as_it_is() {
        let mut out = Vec::new();
        write_info_reply(&mut out, "node\tA1\n");
        assert_eq!(out, b"\x02\x01\0\0\0\0\0\x08node\tA1\n");
    }
}
