//! Requests as a client sends them: the load generator, XDR and tests speak through this.

use crate::message::MessageHeader;
use crate::writer::{Framing, MessageWriter};

/// What the header of a request says (section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestHeader {
    pub info1: u8,
    pub info2: u8,
    pub info3: u8,
    pub info4: u8,
    pub generation: u32,
    /// Seconds, or one of the values in [`crate::ttl`].
    pub record_ttl: u32,
    /// Total timeout in milliseconds; 0 leaves it to the server.
    pub transaction_ttl: u32,
}

impl From<RequestHeader> for MessageHeader {
    fn from(request: RequestHeader) -> MessageHeader {
        MessageHeader {
            info1: request.info1,
            info2: request.info2,
            info3: request.info3,
            info4: request.info4,
            generation: request.generation,
            record_ttl: request.record_ttl,
            transaction_ttl: request.transaction_ttl,
            ..MessageHeader::default()
        }
    }
}

/// One request under construction at the end of a buffer. Until `finish`, dropping it restores
/// the buffer to what it was.
#[must_use = "a request that is not finished is taken back"]
pub struct RequestWriter<'a> {
    writer: MessageWriter<'a>,
    header: RequestHeader,
}

impl<'a> RequestWriter<'a> {
    #[inline]
    pub fn begin(out: &'a mut Vec<u8>, header: RequestHeader) -> RequestWriter<'a> {
        RequestWriter {
            writer: MessageWriter::begin(out, Framing::Framed),
            header,
        }
    }

    /// Appends a field. Fields precede operations.
    #[inline]
    pub fn field(&mut self, id: u8, data: &[u8]) {
        self.writer.field(id, data);
    }

    /// Appends an operation on the bin `name`, of at most 15 bytes.
    #[inline]
    pub fn op(&mut self, code: u8, particle: u8, name: &[u8], value: &[u8]) {
        self.writer.op(code, particle, name, value);
    }

    /// As [`RequestWriter::op`], with a value that `write` appends. It must only append.
    #[inline]
    pub fn op_with(
        &mut self,
        code: u8,
        particle: u8,
        name: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.writer.op_with(code, particle, name, write);
    }

    #[inline]
    pub fn finish(self) {
        self.writer.finish(self.header.into());
    }

    /// Takes back everything since `begin`.
    pub fn abandon(self) {
        drop(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::hex;
    use crate::flags::{field, info2, op, particle};

    #[test]
    fn a_put_is_written_as_the_c_client_writes_it() {
        // Section 20: ttl 100, the generation must be 3.
        let header = RequestHeader {
            info2: info2::WRITE | info2::GENERATION,
            generation: 3,
            record_ttl: 100,
            transaction_ttl: 1000,
            ..RequestHeader::default()
        };
        let digest = crate::compute_digest(b"demo", particle::STRING, b"key1");
        let mut out = Vec::new();
        let mut request = RequestWriter::begin(&mut out, header);
        request.field(field::NAMESPACE, b"test");
        request.field(field::SET, b"demo");
        request.field(field::DIGEST, &digest);
        request.op_with(op::WRITE, particle::INTEGER, b"a", |out| {
            out.extend_from_slice(&1_i64.to_be_bytes());
        });
        request.finish();
        let expected = [
            "0203000000000052",
            "16000500000000000003000000640000",
            "03e800030001",
            "000000050074657374",
            "000000050164656d6f",
            "0000001504ec91192d4b7f8ce35d5d78d34bca65cbaaaac960",
            "0000000d02010001610000000000000001",
        ];
        assert_eq!(hex(&out), expected.concat());
    }

    #[test]
    fn an_abandoned_request_leaves_no_bytes() {
        let mut out = b"before".to_vec();
        let mut request = RequestWriter::begin(&mut out, RequestHeader::default());
        request.op(op::TOUCH, particle::NULL, b"", b"");
        request.abandon();
        assert_eq!(out, b"before");
    }
}
