//! What requests and replies share: a message whose counts and lengths are patched at the end.

use crate::flags::limits::BIN_NAME_BYTES_MAX;
use crate::message::{MESSAGE_HEADER_BYTES, MessageHeader};
use crate::ops::OP_HEADER_BYTES;
use crate::proto::{PROTO_HEADER_BYTES, ProtoType, patch_proto_header};

/// Whether a message has a proto header of its own or follows another one in the same frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Framed,
    Bare,
}

/// Appends one message to `out`. Dropped unfinished, it leaves `out` as it was, so that an early
/// return cannot put half a message on the wire.
pub(crate) struct MessageWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    framing: Framing,
    n_fields: u16,
    n_ops: u16,
}

impl<'a> MessageWriter<'a> {
    #[inline]
    pub(crate) fn begin(out: &'a mut Vec<u8>, framing: Framing) -> MessageWriter<'a> {
        let start = out.len();
        match framing {
            Framing::Framed => {
                out.extend_from_slice(&[0; PROTO_HEADER_BYTES + MESSAGE_HEADER_BYTES]);
            }
            Framing::Bare => out.extend_from_slice(&[0; MESSAGE_HEADER_BYTES]),
        }
        MessageWriter {
            out,
            start,
            framing,
            n_fields: 0,
            n_ops: 0,
        }
    }

    #[inline]
    pub(crate) fn field(&mut self, id: u8, data: &[u8]) {
        debug_assert!(self.n_ops == 0, "fields precede operations");
        self.n_fields += 1;
        self.out
            .extend_from_slice(&(data.len() as u32 + 1).to_be_bytes());
        self.out.push(id);
        self.out.extend_from_slice(data);
    }

    #[inline]
    pub(crate) fn op(&mut self, code: u8, particle: u8, name: &[u8], value: &[u8]) {
        let op_bytes = OP_HEADER_BYTES + name.len() + value.len();
        self.out.reserve(size_of::<u32>() + op_bytes);
        self.op_head(op_bytes as u32, code, particle, name);
        self.out.extend_from_slice(value);
    }

    #[inline]
    pub(crate) fn op_with(
        &mut self,
        code: u8,
        particle: u8,
        name: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.out.len();
        self.op_head(0, code, particle, name);
        write(self.out);
        let body = start + size_of::<u32>();
        let op_bytes = (self.out.len() - body) as u32;
        self.out[start..body].copy_from_slice(&op_bytes.to_be_bytes());
    }

    #[inline]
    fn op_head(&mut self, op_bytes: u32, code: u8, particle: u8, name: &[u8]) {
        debug_assert!(name.len() <= BIN_NAME_BYTES_MAX);
        self.n_ops += 1;
        self.out.extend_from_slice(&op_bytes.to_be_bytes());
        self.out
            .extend_from_slice(&[code, particle, 0, name.len() as u8]);
        self.out.extend_from_slice(name);
    }

    /// Bytes of this message so far, its headers included.
    pub(crate) fn bytes(&self) -> usize {
        self.out.len() - self.start
    }

    /// Writes the headers. The counts are the writer's own, whatever `header` says.
    #[inline]
    pub(crate) fn finish(self, header: MessageHeader) {
        let mut writer = std::mem::ManuallyDrop::new(self);
        let header = MessageHeader {
            n_fields: writer.n_fields,
            n_ops: writer.n_ops,
            ..header
        };
        let mut start = writer.start;
        if writer.framing == Framing::Framed {
            patch_proto_header(writer.out, start, ProtoType::Message);
            start += PROTO_HEADER_BYTES;
        }
        writer.out[start..start + MESSAGE_HEADER_BYTES].copy_from_slice(&header.to_bytes());
    }
}

impl Drop for MessageWriter<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.start);
    }
}
