//! Codecs of the client protocol: frames, fields, operations, particles, result codes, digests.
//!
//! Nothing here opens a socket, stores a record or reads a clock. Decoders borrow from the bytes
//! they are given and allocate nothing; encoders append to a buffer that the caller owns.
//! Section numbers in the comments are those of the protocol fact sheet.

pub mod batch;
pub mod compressed;
pub mod digest;
pub mod flags;
pub mod info;
pub mod message;
pub mod msgpack;
pub mod ops;
pub mod particle;
pub mod proto;
pub mod reply;
pub mod request;
pub mod result_code;
pub mod typescript;
mod writer;

#[cfg(test)]
mod fixtures;

pub use batch::{BatchError, BatchPosition, BatchRow, BatchRows};
pub use compressed::{COMPRESS_FRAME_BYTES_MIN, CompressedError, deflate_frame, inflate_message};
pub use digest::{Digest, PartitionId, compute_digest, partition_of};
pub use flags::limits::{
    BIN_NAME_BYTES_MAX, BINS_MAX, EXPRESSION_BYTES_MAX, INDEX_VALUE_BYTES_MAX, INDEXES_MAX,
    INFO_BODY_BYTES_MAX, MSGPACK_DEPTH_MAX, NAMESPACE_BYTES_MAX, OPS_MAX, PARTITIONS,
    PROTO_BODY_BYTES_MAX, RECORD_BYTES_MAX, SET_BYTES_MAX, SETS_MAX, UDF_NAME_BYTES_MAX,
};
/// The type codes alone, for code that has a `particle` of its own.
pub use flags::particle as particle_type;
pub use flags::ttl::TTL_SECONDS_MAX;
pub use flags::{
    EPOCH_UNIX_SECONDS, batch_flag, batch_row, field, index_type, info1, info2, info3, info4, op,
    ttl, udf_op,
};
pub use info::{InfoError, info_commands, write_info_reply};
pub use message::{MESSAGE_HEADER_BYTES, Message, MessageError, MessageHeader};
pub use ops::{Op, Ops, OpsIter};
pub use particle::{ParticleError, particle_of_msgpack, validate_particle, write_msgpack};
pub use proto::{
    PROTO_HEADER_BYTES, PROTO_VERSION, ProtoError, ProtoHeader, ProtoType, parse_proto_header,
    patch_proto_header, reserve_proto_header, write_proto_header,
};
pub use reply::{ReplyHeader, ReplyWriter, write_simple_reply};
pub use request::{RequestHeader, RequestWriter};
pub use result_code::ResultCode;
pub use typescript::typescript_constants;
