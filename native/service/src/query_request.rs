//! What makes a message a query, and which partitions it asks for (PROTOCOL section 10).

use std::collections::VecDeque;

use perigee_engine::namespace::Namespace;
use perigee_engine::query::{PLACE_BY_DIGEST, PartitionCursor};
use perigee_wire::{
    Digest, Message, PARTITIONS, PartitionId, ResultCode, info1, info2, info3, partition_of, udf_op,
};

/// Whether a message is a query, a scan or a background job, rather than a request for one record or a batch.
pub(crate) fn is_query(message: &Message<'_>) -> bool {
    message.batch.is_none()
        && (message.partitions.is_some()
            || message.digests_after.is_some()
            || message.udf_op.is_some_and(|op| op != 0)
            || message.task_id.is_some())
}

/// What becomes of the records that a query finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueryKind {
    /// They are sent.
    Records,
    /// A function makes values of them, which are sent.
    Stream,
    /// They are changed.
    Background,
}

/// What a query does with its records, or the code to refuse it with.
pub(crate) fn kind_of(message: &Message<'_>) -> Result<QueryKind, ResultCode> {
    match message.udf_op {
        Some(udf_op::BACKGROUND) => return Ok(QueryKind::Background),
        Some(udf_op::AGGREGATE | udf_op::COMPLETE) => return Ok(QueryKind::Stream),
        None | Some(0) if message.header.info2 & info2::WRITE != 0 => {
            return Ok(QueryKind::Background);
        }
        None | Some(0) => {}
        Some(_) => return Err(ResultCode::UnsupportedFeature),
    }
    let by_partition = message.header.info3 & info3::PARTITION_DONE != 0
        && (message.partitions.is_some() || message.digests_after.is_some());
    if message.udf_function.is_some() || !by_partition {
        return Err(ResultCode::UnsupportedFeature);
    }
    Ok(QueryKind::Records)
}

/// A short query has no pace of its own.
pub(crate) fn check_short(message: &Message<'_>) -> Result<(), ResultCode> {
    let short = message.header.info1 & info1::SHORT_QUERY != 0;
    let paced = message.records_per_second.is_some_and(|rate| rate > 0);
    match short && paced {
        true => Err(ResultCode::Parameter),
        false => Ok(()),
    }
}

/// All partitions of this node, from their start.
pub(crate) fn owned_partitions(namespace: &Namespace) -> VecDeque<PartitionCursor> {
    let owned = PartitionId::all().filter(|partition| namespace.owns_partition(*partition));
    owned.map(|it| PartitionCursor::new(it, None)).collect()
}

/// The partitions that a message names, each at most once, in ascending order.
pub(crate) fn partitions_of(
    message: &Message<'_>,
) -> Result<VecDeque<PartitionCursor>, ResultCode> {
    let mut wanted: Vec<Option<PartitionCursor>> = (0..PARTITIONS).map(|_| None).collect();
    let mut want = |partition: PartitionId, after: Option<Digest>| {
        let slot = &mut wanted[partition.index()];
        match slot.replace(PartitionCursor::new(partition, after)) {
            None => Ok(()),
            Some(_) => Err(ResultCode::Parameter),
        }
    };
    for id in message.partitions.unwrap_or_default().chunks_exact(2) {
        let id = u16::from_le_bytes([id[0], id[1]]);
        want(PartitionId::new(id).ok_or(ResultCode::Parameter)?, None)?;
    }
    let digests = message.digests_after.unwrap_or_default();
    // A place in an index is a value and a digest. One that no reply has given, of a key for example, is before all that the
    // index finds.
    let values = message.index_range.and(message.bin_values_after);
    let mut values = values.unwrap_or_default().as_chunks().0.iter();
    for digest in digests.as_chunks::<{ size_of::<Digest>() }>().0 {
        let is_place = values
            .next()
            .is_none_or(|value| u64::from_le_bytes(*value) == PLACE_BY_DIGEST);
        want(partition_of(digest), is_place.then_some(*digest))?;
    }
    Ok(wanted.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use perigee_wire::{PROTO_HEADER_BYTES, RequestHeader, RequestWriter, field};

    /// The digest after which a query goes on in its only partition.
    fn goes_on_after(by_index: bool, value: Option<u64>) -> Option<Digest> {
        let mut frame = Vec::new();
        let mut writer = RequestWriter::begin(&mut frame, RequestHeader::default());
        writer.field(field::NAMESPACE, b"test");
        if by_index {
            writer.field(field::INDEX_RANGE, b"range");
        }
        writer.field(field::DIGESTS_AFTER, &[7; 20]);
        if let Some(value) = value {
            writer.field(field::BIN_VALUES_AFTER, &value.to_le_bytes());
        }
        writer.finish();
        let message = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a valid message");
        let cursors = partitions_of(&message).expect("one partition");
        assert_eq!(cursors.len(), 1);
        cursors[0].after().copied()
    }

    #[test]
    fn a_query_by_index_goes_on_from_places_that_a_reply_gave() {
        let there = Some([7; 20]);
        assert_eq!(goes_on_after(true, Some(PLACE_BY_DIGEST)), there);
        assert_eq!(goes_on_after(true, None), there);
        assert_eq!(goes_on_after(true, Some(0)), None, "of a key, say");
        assert_eq!(goes_on_after(false, Some(0)), there);
    }
}
