//! What makes a message a primary index query, and which partitions it asks for (PROTOCOL section 10).

use std::collections::VecDeque;

use perigee_engine::query::PartitionCursor;
use perigee_wire::{
    Digest, Message, PARTITIONS, PartitionId, ResultCode, info1, info2, info3, partition_of,
};

/// Whether a message is a query, a scan or a background job, rather than a request for one record or a batch.
pub(crate) fn is_query(message: &Message<'_>) -> bool {
    message.batch.is_none()
        && (message.partitions.is_some()
            || message.digests_after.is_some()
            || message.udf_op.is_some_and(|op| op != 0)
            || message.task_id.is_some())
}

/// Refuses what only looks like a primary index query.
pub(crate) fn refusal(message: &Message<'_>) -> Option<ResultCode> {
    let aggregates = message.udf_op.is_some() || message.udf_function.is_some();
    let by_index = message.index_range.is_some()
        || message.index_name.is_some()
        || message.index_expression.is_some()
        || message.index_context.is_some()
        || message.index_type.is_some()
        || message.bin_values_after.is_some();
    let in_background = message.header.info2 & info2::WRITE != 0;
    let by_partition = message.header.info3 & info3::PARTITION_DONE != 0
        && (message.partitions.is_some() || message.digests_after.is_some());
    let short = message.header.info1 & info1::SHORT_QUERY != 0;
    if aggregates || by_index || in_background || !by_partition {
        return Some(ResultCode::UnsupportedFeature);
    }
    let paced = message.records_per_second.is_some_and(|rate| rate > 0);
    (short && paced).then_some(ResultCode::Parameter)
}

/// The partitions that a message names, each at most once, in ascending order.
pub(crate) fn partitions_of(
    message: &Message<'_>,
) -> Result<VecDeque<PartitionCursor>, ResultCode> {
    let mut wanted: Vec<Option<PartitionCursor>> = (0..PARTITIONS).map(|_| None).collect();
    let mut want = |partition: PartitionId, after: Option<Digest>| {
        let slot = &mut wanted[partition.index()];
        match slot.replace(PartitionCursor { partition, after }) {
            None => Ok(()),
            Some(_) => Err(ResultCode::Parameter),
        }
    };
    for id in message.partitions.unwrap_or_default().chunks_exact(2) {
        let id = u16::from_le_bytes([id[0], id[1]]);
        want(PartitionId::new(id).ok_or(ResultCode::Parameter)?, None)?;
    }
    let digests = message.digests_after.unwrap_or_default();
    for digest in digests.as_chunks::<{ size_of::<Digest>() }>().0 {
        want(partition_of(digest), Some(*digest))?;
    }
    Ok(wanted.into_iter().flatten().collect())
}
