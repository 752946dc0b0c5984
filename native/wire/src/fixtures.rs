//! What recorded frames are compared with: messages of this crate, rendered as the recorder does.

use crate::flags::{field, op, particle};
use crate::message::Message;
use crate::msgpack::{Reader, Value};
use crate::ops::Op;
use serde_json::{Value as Json, json};

pub(crate) use perigee_fixtures::{RecordedFrame, hex, recorded_frames, unhex};

/// Renders one msgpack value as the recorder does.
pub(crate) fn msgpack_json(reader: &mut Reader<'_>) -> Json {
    match reader.read().expect("recorded msgpack is well formed") {
        Value::Nil => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Unsigned(value) => json!(value),
        Value::Float(value) => json!(["f64", value]),
        Value::Str(bytes) | Value::Bin(bytes) => json!(string_json(bytes)),
        Value::Array(elements) => (0..elements).map(|_| msgpack_json(reader)).collect(),
        Value::Map(pairs) => {
            let pairs: Vec<Json> = (0..pairs)
                .map(|_| {
                    let key = msgpack_json(reader);
                    json!([key, msgpack_json(reader)])
                })
                .collect();
            json!({ "MAP": pairs })
        }
        Value::Ext(kind, data) => json!(["ext", format!("{:#x}", kind as u8), hex(data)]),
    }
}

fn string_json(bytes: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("recorded text is UTF-8");
    match bytes {
        [particle::STRING, rest @ ..] => format!("s:{}", text(rest)),
        [particle::BLOB, rest @ ..] => format!("b:{}", hex(rest)),
        [particle::GEOJSON, rest @ ..] => format!("g:{}", text(rest)),
        _ => format!("raw:{}", text(bytes)),
    }
}

/// The id and bytes of a recorded field, from what was parsed.
pub(crate) fn field_of<'a>(message: &Message<'a>, label: &str) -> (u8, Vec<u8>) {
    let bytes = |data: Option<&'a [u8]>| data.map(<[u8]>::to_vec);
    let (id, data) = match label {
        "NS" => (field::NAMESPACE, bytes(message.namespace)),
        "SET" => (field::SET, Some(message.set.unwrap_or_default().to_vec())),
        "DIG" => (field::DIGEST, message.digest.map(|digest| digest.to_vec())),
        "KEY" => (field::KEY, bytes(message.key)),
        "FILTER" => (field::FILTER, bytes(message.filter)),
        "UDFPKG" => (field::UDF_MODULE, bytes(message.udf_module)),
        "UDFFN" => (field::UDF_FUNCTION, bytes(message.udf_function)),
        "UDFARGS" => (field::UDF_ARGS, bytes(message.udf_args)),
        "UDFOP" => (field::UDF_OP, message.udf_op.map(|value| vec![value])),
        "BATCH" => (field::BATCH, bytes(message.batch)),
        "SOCKTO" => (
            field::SOCKET_TIMEOUT,
            message
                .socket_timeout
                .map(|value| value.to_be_bytes().to_vec()),
        ),
        "RPS" => (
            field::RECORDS_PER_SECOND,
            message
                .records_per_second
                .map(|value| value.to_be_bytes().to_vec()),
        ),
        "TRID" => (
            field::TASK_ID,
            message.task_id.map(|value| value.to_be_bytes().to_vec()),
        ),
        "MAX" => (
            field::SAMPLE_MAX,
            message.sample_max.map(|value| value.to_be_bytes().to_vec()),
        ),
        "MRTID" => (
            field::MRT_ID,
            message.mrt_id.map(|value| value.to_le_bytes().to_vec()),
        ),
        "MRTDL" => (
            field::MRT_DEADLINE,
            message
                .mrt_deadline
                .map(|value| value.to_le_bytes().to_vec()),
        ),
        "PIDS" => (field::PARTITIONS, bytes(message.partitions)),
        "IRANGE" => (field::INDEX_RANGE, bytes(message.index_range)),
        "ITYPE" => (
            field::INDEX_TYPE,
            message.index_type.map(|value| vec![value]),
        ),
        "ICTX" => (field::INDEX_CONTEXT, bytes(message.index_context)),
        "INAME" => (field::INDEX_NAME, bytes(message.index_name)),
        "IEXP" => (field::INDEX_EXPRESSION, bytes(message.index_expression)),
        _ => panic!("field {label} is not known to this test"),
    };
    (
        id,
        data.unwrap_or_else(|| panic!("field {label} was not parsed")),
    )
}

/// A recorded field as the recorder renders it.
pub(crate) fn field_json(label: &str, data: &[u8]) -> Json {
    match label {
        "NS" | "SET" | "UDFPKG" | "UDFFN" | "INAME" => {
            json!(std::str::from_utf8(data).unwrap())
        }
        "FILTER" | "UDFARGS" | "ICTX" | "IEXP" => msgpack_json(&mut Reader::new(data)),
        "PIDS" if data.len() > 16 => {
            json!(format!("{} pids {}..", data.len() / 2, hex(&data[..8])))
        }
        _ => json!(hex(data)),
    }
}

/// A recorded operation as the recorder renders it.
pub(crate) fn op_json(op: &Op<'_>) -> Json {
    let msgpack = match op.particle {
        particle::LIST | particle::MAP => true,
        particle::BLOB => op.code != op::WRITE,
        _ => false,
    };
    let value = match msgpack {
        true => msgpack_json(&mut Reader::new(op.value)),
        false => json!(hex(op.value)),
    };
    json!([
        op.code,
        op.particle,
        0,
        std::str::from_utf8(op.name).unwrap(),
        value
    ])
}
