//! What comes from a socket, and from the lanes beside it.

use crate::part::choice;
use perigee_engine::udf::UdfResult;
use perigee_engine::xdr::parse_outcomes;
use perigee_wire::{
    BatchRows, Message, MessageHeader, PROTO_BODY_BYTES_MAX, PROTO_HEADER_BYTES, ProtoType,
    RequestHeader, RequestWriter, deflate_frame, field, inflate_message, info_commands,
    parse_proto_header, validate_particle, write_proto_header,
};

pub(crate) fn run(data: &[u8]) {
    let Some((kind, data)) = choice(data, 8) else {
        return;
    };
    match kind {
        0 => message(data),
        1 => batch(MessageHeader::default(), data),
        2 => stream(data),
        3 => info(data),
        4 => udf_results(data),
        5 => outcomes(data),
        6 => inflated(data),
        _ => deflated(data),
    }
}

fn stream(mut data: &[u8]) {
    while let Ok(Some(header)) = parse_proto_header(data) {
        assert!(header.body_bytes <= PROTO_BODY_BYTES_MAX);
        let mut again = Vec::new();
        write_proto_header(&mut again, header.kind, header.body_bytes);
        assert_eq!(again, &data[..PROTO_HEADER_BYTES]);
        let end = PROTO_HEADER_BYTES + header.body_bytes;
        let Some(body) = data.get(PROTO_HEADER_BYTES..end) else {
            return;
        };
        message(body);
        data = &data[end..];
    }
}

fn info(body: &[u8]) {
    let Ok(commands) = info_commands(body) else {
        return;
    };
    let commands: Vec<&str> = commands.collect();
    assert!(
        commands
            .iter()
            .all(|it| !it.is_empty() && !it.contains('\n'))
    );
    let text = commands.join("\n");
    let again: Vec<&str> = info_commands(text.as_bytes())
        .expect("text still")
        .collect();
    assert_eq!(again, commands);
}

fn message(body: &[u8]) {
    let Ok(message) = Message::parse(body) else {
        return;
    };
    let header = message.header;
    let written = MessageHeader::from_bytes(&header.to_bytes());
    assert_eq!(written, Ok(header));
    assert_eq!(message.ops.iter().count(), usize::from(header.n_ops));
    for op in message.ops {
        let _ = validate_particle(op.particle, op.value);
    }
    if let Some(rows) = message.batch {
        batch(header, rows);
    }

    // What was understood reads the same when it is written again.
    let mut frame = Vec::new();
    let mut request = RequestWriter::begin(
        &mut frame,
        RequestHeader {
            info1: header.info1,
            info2: header.info2,
            info3: header.info3,
            info4: header.info4,
            generation: header.generation,
            record_ttl: header.record_ttl,
            transaction_ttl: header.transaction_ttl,
        },
    );
    let fields = fields_of(&message);
    for (id, data) in &fields {
        request.field(*id, data);
    }
    for op in message.ops {
        request.op(op.code, op.particle, op.name, op.value);
    }
    request.finish();
    let again = Message::parse(&frame[PROTO_HEADER_BYTES..]).expect("a message that was written");
    assert_eq!(fields_of(&again), fields);
    assert_eq!(again.header.generation, header.generation);
    let ops = |message: &Message<'_>| -> Vec<_> {
        let op =
            |op: perigee_wire::Op<'_>| (op.code, op.particle, op.name.to_vec(), op.value.to_vec());
        message.ops.iter().map(op).collect()
    };
    assert_eq!(ops(&again), ops(&message));
}

fn fields_of(message: &Message<'_>) -> Vec<(u8, Vec<u8>)> {
    let be64 = |value: Option<u64>| value.map(|value| value.to_be_bytes().to_vec());
    let be32 = |value: Option<u32>| value.map(|value| value.to_be_bytes().to_vec());
    let bytes = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
    let byte = |value: Option<u8>| value.map(|value| vec![value]);
    let all = [
        (field::NAMESPACE, bytes(message.namespace)),
        (field::SET, bytes(message.set)),
        (field::KEY, bytes(message.key)),
        (field::DIGEST, message.digest.map(|digest| digest.to_vec())),
        (field::RECORD_VERSION, bytes(message.record_version)),
        (
            field::MRT_ID,
            message.mrt_id.map(|id| id.to_le_bytes().to_vec()),
        ),
        (
            field::MRT_DEADLINE,
            message.mrt_deadline.map(|it| it.to_le_bytes().to_vec()),
        ),
        (field::TASK_ID, be64(message.task_id)),
        (field::SOCKET_TIMEOUT, be32(message.socket_timeout)),
        (field::RECORDS_PER_SECOND, be32(message.records_per_second)),
        (field::PARTITIONS, bytes(message.partitions)),
        (field::DIGESTS_AFTER, bytes(message.digests_after)),
        (field::BIN_VALUES_AFTER, bytes(message.bin_values_after)),
        (field::SAMPLE_MAX, be64(message.sample_max)),
        (field::LUT, be64(message.lut)),
        (field::INDEX_NAME, bytes(message.index_name)),
        (field::INDEX_RANGE, bytes(message.index_range)),
        (field::INDEX_CONTEXT, bytes(message.index_context)),
        (field::INDEX_EXPRESSION, bytes(message.index_expression)),
        (field::INDEX_TYPE, byte(message.index_type)),
        (field::UDF_MODULE, bytes(message.udf_module)),
        (field::UDF_FUNCTION, bytes(message.udf_function)),
        (field::UDF_ARGS, bytes(message.udf_args)),
        (field::UDF_OP, byte(message.udf_op)),
        (field::QUERY_BINS, bytes(message.query_bins)),
        (field::BATCH, bytes(message.batch)),
        (field::FILTER, bytes(message.filter)),
        (field::ERROR_DETAILS, bytes(message.error_details)),
    ];
    all.into_iter()
        .filter_map(|(id, data)| Some((id, data?)))
        .collect()
}

fn batch(parent: MessageHeader, data: &[u8]) {
    let Ok(mut rows) = BatchRows::parse(parent, data) else {
        return;
    };
    let mut seen = 0;
    loop {
        let place = rows.position();
        let Some(row) = rows.next() else { break };
        let Ok(row) = row else {
            assert!(rows.next().is_none(), "a row after an error");
            return;
        };
        seen += 1;
        assert!(row.message.namespace.is_some());
        assert_eq!(row.message.digest, Some(row.digest));
        assert_eq!(row.message.header.transaction_ttl, parent.transaction_ttl);
        let mut again = BatchRows::parse(parent, data).expect("parsed before");
        again.go_to(place).expect("a place that was stood at");
        let same = again.next().expect("a row").expect("read before");
        assert_eq!((same.index, same.digest), (row.index, row.digest));
        assert_eq!(fields_of(&same.message), fields_of(&row.message));
        assert_eq!(again.position(), rows.position());
    }
    assert_eq!(seen, rows.rows());
}

fn inflated(body: &[u8]) {
    let mut frame = Vec::new();
    if let Ok(within) = inflate_message(body, &mut frame) {
        message(within);
    }
    assert!(
        frame.len() <= 2048 * body.len(),
        "{} bytes made of {}",
        frame.len(),
        body.len()
    );
}

/// What is compressed is a message again, and the same.
fn deflated(body: &[u8]) {
    let mut frame = Vec::new();
    write_proto_header(&mut frame, ProtoType::Message, body.len());
    frame.extend_from_slice(body);
    let mut compressed = Vec::new();
    if !deflate_frame(&frame, &mut compressed) {
        return;
    }
    assert!(compressed.len() < frame.len());
    let header = parse_proto_header(&compressed)
        .expect("a header")
        .expect("a whole one");
    assert_eq!(header.kind, ProtoType::Compressed);
    let inner = &compressed[PROTO_HEADER_BYTES..];
    assert_eq!(header.body_bytes, inner.len());
    let mut again = Vec::new();
    assert_eq!(inflate_message(inner, &mut again), Ok(body));
}

fn udf_results(data: &[u8]) {
    if let Ok(results) = UdfResult::parse_batch(data) {
        assert!(results.len() * 32 <= data.len());
    }
}

fn outcomes(data: &[u8]) {
    if let Ok(outcomes) = parse_outcomes(data) {
        assert_eq!(outcomes.len() * 16, data.len());
    }
}
