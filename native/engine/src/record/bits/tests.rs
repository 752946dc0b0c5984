//! Bit operations, compared with what the protocol's documentation and official clients expect, and with a list of bits.

use super::*;
use perigee_wire::msgpack::{Reader, Value};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const LIMIT: usize = 1 << 20;

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As msgpack; strings are blobs in hex.
fn pack(json: &Json, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    match json {
        Json::Bool(value) => writer.bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => writer.int(value),
            (None, Some(value)) => writer.unsigned(value),
            _ => writer.float(number.as_f64().unwrap()),
        },
        Json::String(digits) => writer.particle(particle::BLOB, &unhex(digits)),
        Json::Array(items) => {
            writer.array(items.len() as u32);
            items.iter().for_each(|item| pack(item, out));
        }
        _ => writer.nil(),
    }
}

fn call_bytes(call: &Json) -> CallBytes {
    let mut packed = Vec::new();
    pack(call, &mut packed);
    CallBytes::of(&packed).expect("well formed")
}

fn modify(blob: Option<&[u8]>, call: &Json) -> Result<Option<Vec<u8>>, ResultCode> {
    BitCall::parse(&call_bytes(call))?.modify(blob, LIMIT)
}

fn read(blob: &[u8], call: &Json) -> Result<Json, ResultCode> {
    let result = BitCall::parse(&call_bytes(call))?.read(blob)?;
    Ok(match Reader::new(&result).read().unwrap() {
        Value::Int(value) => json!(value),
        Value::Str([particle::BLOB, bytes @ ..]) => json!(hex(bytes)),
        other => panic!("{other:?}"),
    })
}

/// Applies calls one after the other.
#[track_caller]
fn becomes(old: &str, calls: Json, new: &str) {
    let mut blob = unhex(old);
    for call in calls.as_array().unwrap() {
        if let Some(changed) =
            modify(Some(&blob), call).unwrap_or_else(|code| panic!("{call} {code:?}"))
        {
            blob = changed;
        }
    }
    assert_eq!(hex(&blob), new, "{calls} on {old}");
}

#[track_caller]
fn reads(blob: &str, cases: &[(Json, Json)]) {
    for (call, expected) in cases {
        assert_eq!(
            read(&unhex(blob), call).as_ref(),
            Ok(expected),
            "{call} on {blob}"
        );
    }
}

#[track_caller]
fn fails(blob: &str, calls: Json, code: ResultCode) {
    for call in calls.as_array().unwrap() {
        let blob = unhex(blob);
        let found = match call[0].as_i64() {
            Some(50..) => read(&blob, call).map(|_| ()),
            _ => modify(Some(&blob), call).map(|_| ()),
        };
        assert_eq!(found, Err(code), "{call} on {blob:x?}");
    }
}

#[test]
fn blobs_are_resized() {
    becomes("0102", json!([[0, 4, 0]]), "01020000");
    becomes("010203", json!([[0, 2, 0, 0]]), "0102");
    becomes("0102", json!([[0, 4, 0, 1]]), "00000102");
    becomes("000102", json!([[0, 1, 0, 1]]), "02");
    becomes("0102", json!([[0, 3, 2, 2], [0, 0, 0, 4]]), "");
    becomes(
        "0102",
        json!([[0, 1, 4, 2], [0, 9, 4, 4], [0, 2, 0, 2]]),
        "0102",
    );
    fails(
        "0102",
        json!([
            [0, 1, 0, 2],
            [0, 3, 0, 4],
            [0, 3, 0, 6],
            [0, 3, 0, 8],
            [0, -1, 0],
            [0, 1, 8]
        ]),
        ResultCode::Parameter,
    );
    fails("0102", json!([[0, 134_217_728, 0]]), ResultCode::Parameter);
    fails(
        "0102",
        json!([[0, 134_217_727, 0], [0, LIMIT + 1, 0]]),
        ResultCode::RecordTooBig,
    );
}

#[test]
fn bytes_are_inserted_and_removed() {
    becomes("0102", json!([[1, 1, "0304", 0]]), "01030402");
    becomes("0102", json!([[1, 2, "03", 0]]), "010203");
    becomes("0102", json!([[1, -1, "03", 0]]), "010302");
    becomes(
        "ffffffffff",
        json!([[1, 9, "03", 0]]),
        "ffffffffff0000000003",
    );
    becomes("", json!([[1, 0, "03", 0]]), "03");
    becomes("0102030405", json!([[2, 1, 3, 0]]), "0105");
    becomes("0102030405", json!([[2, -2, 2, 0]]), "010203");
    becomes("0102030405", json!([[2, 3, 9, 8]]), "010203");
    fails(
        "0000000000",
        json!([
            [2, 6, 1, 0],
            [2, 0, 6, 0],
            [2, 3, 3, 0],
            [2, 5, 1, 8],
            [2, -6, 1, 0],
            [2, 0, 0, 0],
            [2, 0, -1, 0]
        ]),
        ResultCode::Parameter,
    );
    fails(
        "",
        json!([
            [2, 0, 1, 0],
            [1, -1, "01", 0],
            [1, 0, "", 0],
            [1, 0, 1, 0],
            [1, 0, "01", 8]
        ]),
        ResultCode::Parameter,
    );
    fails("", json!([[1, LIMIT, "01", 0]]), ResultCode::RecordTooBig);
}

#[test]
fn bits_are_set_and_combined() {
    becomes("0142030405", json!([[3, 13, 3, "e0", 0]]), "0147030405");
    becomes(
        "0112020304050607 08090a0b0c0d0e0f101141"
            .replace(' ', "")
            .as_str(),
        json!([
            [3, 1, 1, "80", 0],
            [3, 15, 1, "80", 0],
            [3, 16, 24, "112233", 0],
            [3, 40, 22, "112233", 0],
            [3, 73, 21, "112233", 0],
            [3, 100, 20, "112233", 0],
            [3, 120, 17, "112233", 0],
            [3, 144, 1, "80", 0],
        ]),
        "4113112233112233 0808911b011223112211c1"
            .replace(' ', "")
            .as_str(),
    );
    let calls = |code: i64| {
        json!([
            [code, 0, 5, "112233", 0],
            [code, 9, 7, "112233", 0],
            [code, 23, 6, "112233", 0],
            [code, 32, 8, "112233", 0],
            [code, 40, 24, "112233", 0],
        ])
    };
    becomes("8040010000010203", calls(4), "9048012011112233");
    becomes("8040010000010203", calls(5), "9048012011102030");
    becomes("8040010000010203", calls(6), "0000000000010203");
    becomes(
        "8040010000010203",
        json!([
            [7, 0, 5, 0],
            [7, 9, 7, 0],
            [7, 23, 6, 0],
            [7, 32, 8, 0],
            [7, 40, 24, 0]
        ]),
        "783f00f8fffefdfc",
    );
    becomes("0142030405", json!([[4, 17, 6, "a8", 0]]), "0142570405");
    becomes("0142030405", json!([[6, 23, 9, "3c80", 0]]), "0142020005");
    becomes("00", json!([[3, 4, 8, "aa", 6]]), "00");
    becomes("00", json!([[3, 4, 8, "aa", 14]]), "0a");
    fails(
        "0000000000",
        json!([
            [3, 41, 8, "ff", 0],
            [3, 0, 48, "ffffffffffff", 0],
            [3, 40, 1, "ff", 8],
            [7, 0, 41, 0]
        ]),
        ResultCode::OpNotApplicable,
    );
    fails(
        "0000000000",
        json!([
            [3, 0, 16, "ff", 0],
            [4, 0, 9, "ff", 0],
            [3, 0, 0, "ff", 0],
            [3, -41, 1, "ff", 0],
            [3, 0, 1, "ff", 1]
        ]),
        ResultCode::Parameter,
    );
}

#[test]
fn bits_are_shifted() {
    becomes(
        "01010080ff01011801",
        json!([
            [8, 0, 8, 1, 0],
            [8, 9, 7, 6, 0],
            [8, 23, 2, 1, 0],
            [8, 37, 18, 3, 0],
            [8, 58, 2, 1, 0],
            [8, 64, 4, 7, 0]
        ]),
        "02400100f808012801",
    );
    becomes("ffffff", json!([[8, 0, 20, 15, 0]]), "f8000f");
    becomes(
        "80400100ff01011880",
        json!([
            [9, 0, 8, 1, 0],
            [9, 9, 7, 6, 0],
            [9, 23, 2, 1, 0],
            [9, 37, 18, 3, 0],
            [9, 60, 2, 1, 0],
            [9, 68, 4, 7, 0]
        ]),
        "40010080f8e0211480",
    );
    becomes("0142030405", json!([[9, 0, 9, 1, 0]]), "00c2030405");
    fails(
        "00",
        json!([[8, 0, 8, -1, 0], [9, 0, 0, 1, 0]]),
        ResultCode::Parameter,
    );
}

#[test]
fn integers_are_added_with_an_action_on_overflow() {
    becomes(
        "381f00e87f 000000 010101 010101 020202 030303"
            .replace(' ', "")
            .as_str(),
        json!([
            [10, 0, 5, 1, 0, 0],
            [10, 9, 7, 1, 0, 0],
            [10, 23, 6, 0x21, 0, 0],
            [10, 32, 8, 1, 0, 0],
            [10, 40, 24, 0x7f7f7f, 0, 0],
            [10, 64, 20, 0x01010, 0, 0],
            [10, 92, 20, 0x10101, 0, 0],
            [10, 113, 22, 0x8082, 0, 0],
            [10, 136, 23, 0x20202, 0],
        ]),
        "402001f080 7f7f7f 020201 020202 030306 070707"
            .replace(' ', "")
            .as_str(),
    );
    becomes(
        "000000000000",
        json!([
            [10, 0, 8, 0xff, 0, 4],
            [10, 0, 8, 0xff, 0, 4],
            [10, 8, 8, 0x7f, 0, 5],
            [10, 8, 8, 0x7f, 0, 5],
            [10, 16, 8, 0x80, 0, 5],
            [10, 16, 8, 0xff, 0, 5],
            [10, 24, 8, 0x80, 0, 2],
            [10, 24, 8, 0x80, 0, 2],
            [10, 32, 8, 0x77, 0, 3],
            [10, 32, 8, 0x77, 0, 3],
            [10, 40, 8, 0x8f, 0, 3],
            [10, 40, 8, 0x8f, 0, 3],
        ]),
        "fefe7fff7f80",
    );
    becomes(
        "000000000000",
        json!([
            [11, 0, 8, 1, 0, 4],
            [11, 8, 8, 0x80, 0, 5],
            [11, 8, 8, 0x8a, 0, 5],
            [11, 16, 8, 0x7f, 0, 5],
            [11, 16, 8, 2, 0, 5],
            [11, 24, 8, 0xaa, 0, 2],
            [11, 32, 8, 0x77, 0, 3],
            [11, 32, 8, 0x77, 0, 3],
            [11, 40, 8, 0x81, 0, 3],
            [11, 40, 8, 0x8f, 0, 3],
        ]),
        "fff67f00807f",
    );
    becomes("ff", json!([[11, 0, 8, 156, 0, 1]]), "63");
    becomes(
        "ffffffffffffffff",
        json!([[10, 0, 64, 1, 0, 4]]),
        "0000000000000000",
    );
    becomes(
        "0000000000000000",
        json!([[10, 0, 64, u64::MAX, 0, 0]]),
        "ffffffffffffffff",
    );
    becomes("ff", json!([[10, 0, 8, 1, 4, 0]]), "ff");
    fails(
        "ff",
        json!([
            [10, 0, 8, 1, 0, 0],
            [10, 0, 8, 0x80, 0, 1],
            [10, 0, 9, 1, 0, 0],
            [10, 1, 8, 1, 0]
        ]),
        ResultCode::OpNotApplicable,
    );
    fails(
        "00",
        json!([[11, 0, 8, 1, 0, 0], [11, 0, 8, 0x80, 0, 1]]),
        ResultCode::OpNotApplicable,
    );
    fails(
        "ff",
        json!([
            [10, 0, 65, 1, 0, 0],
            [10, 0, 8, 1, 0, 6],
            [10, 0, 8, 1, 0, 8],
            [10, 0, 8, 1, 8, 0],
            [10, 0, 8, 1.5, 0, 0]
        ]),
        ResultCode::Parameter,
    );
}

#[test]
fn integers_are_set() {
    becomes(
        "381f00e87f808080010101010101020202030303",
        json!([
            [12, 0, 5, 1, 0],
            [12, 9, 7, 1, 0],
            [12, 23, 6, 3, 0],
            [12, 32, 8, 1, 0],
            [12, 40, 24, 0x10101, 0],
            [12, 64, 20, 0x101, 0],
            [12, 92, 20, 0x10101, 0],
            [12, 113, 21, 0x101, 0],
            [12, 136, 23, 0x11111, 0],
        ]),
        "0801001801010101001011010101000406022223",
    );
    becomes("0142030405", json!([[12, 1, 8, 127, 0]]), "3fc2030405");
    becomes(
        "0000000000000000",
        json!([[12, 0, 64, -1, 0], [12, 4, 8, 0x1_00, 0]]),
        "f00fffffffffffff",
    );
}

#[test]
fn bits_are_read() {
    reads(
        "c1aaaa",
        &[
            (json!([50, 0, 1]), json!("80")),
            (json!([50, 1, 1]), json!("80")),
            (json!([50, 7, 1]), json!("80")),
            (json!([50, 0, 8]), json!("c1")),
            (json!([50, 8, 16]), json!("aaaa")),
            (json!([50, 9, 15]), json!("5554")),
            (json!([50, 9, 14]), json!("5554")),
            (json!([50, -2, 2]), json!("80")),
        ],
    );
    reads(
        "c1aaab",
        &[
            (json!([51, 0, 1]), json!(1)),
            (json!([51, 0, 8]), json!(3)),
            (json!([51, 8, 16]), json!(9)),
            (json!([51, 9, 15]), json!(8)),
            (json!([51, 9, 14]), json!(7)),
        ],
    );
    reads(
        "ffffffff0000000001",
        &[
            (json!([52, 0, 32, true]), json!(0)),
            (json!([52, 0, 32, false]), json!(-1)),
            (json!([52, 1, 30, false]), json!(-1)),
            (json!([52, 32, 40, true]), json!(39)),
            (json!([52, 33, 38, 1]), json!(-1)),
            (json!([52, 33, 38, 0]), json!(0)),
            (json!([52, 0, 72, false]), json!(32)),
            (json!([52, -1, 1, true]), json!(0)),
            (json!([52, -1, 1, false]), json!(-1)),
            (json!([53, 0, 9, true]), json!(8)),
            (json!([53, 0, 32, true]), json!(31)),
            (json!([53, 1, 30, false]), json!(-1)),
            (json!([53, 32, 40, true]), json!(39)),
            (json!([53, 33, 38, true]), json!(-1)),
            (json!([53, 32, 40, false]), json!(38)),
            (json!([53, 33, 38, false]), json!(37)),
            (json!([53, 0, 72, true]), json!(71)),
            (json!([53, 0, 72, false]), json!(70)),
        ],
    );
    reads(
        "0f0f00",
        &[
            (json!([54, 4, 4, 0]), json!(15)),
            (json!([54, 4, 4, 1]), json!(-1)),
            (json!([54, 7, 4]), json!(8)),
            (json!([54, 7, 4, 1]), json!(-8)),
            (json!([54, 8, 16, 1]), json!(3840)),
            (json!([54, 9, 14, 0]), json!(1920)),
            (json!([54, 5, 17, 0]), json!(115_648)),
            (json!([54, 5, 17, 1]), json!(-15424)),
            (json!([54, -12, 4, 1]), json!(-1)),
        ],
    );
    reads(
        "ffffffffffffffffff",
        &[
            (json!([54, 3, 64]), json!(-1)),
            (json!([54, 3, 63]), json!(i64::MAX)),
        ],
    );
    fails(
        "0101010101",
        json!([[50, 41, 1], [50, 0, 41], [51, 40, 1], [53, 41, 8, true]]),
        ResultCode::OpNotApplicable,
    );
    fails(
        "",
        json!([[50, 0, 1], [54, 0, 1], [52, 0, 1, true]]),
        ResultCode::OpNotApplicable,
    );
    fails(
        "aabbccdd",
        json!([
            [50, 0, 0],
            [50, 2_000_000_000, 8],
            [50, -33, 1],
            [50, 0, -1],
            [50, i64::MIN, 8],
            [50, 0, 1_073_741_825],
            [54, 0, 65],
            [54, 0, 8, 2],
            [52, 0, 8],
            [52, 0, 8, 2],
            [50, 0],
            [50, 0, 8, 0],
            [55, 0, 8],
            [50],
        ]),
        ResultCode::Parameter,
    );
}

#[test]
fn missing_blobs_are_made_by_some_operations() {
    assert_eq!(modify(None, &json!([0, 4, 1])), Ok(Some(vec![0; 4])));
    assert_eq!(modify(None, &json!([0, 4, 0])), Ok(Some(vec![0; 4])));
    assert_eq!(modify(None, &json!([1, 1, "0a", 1])), Ok(Some(vec![0, 10])));
    assert_eq!(
        modify(None, &json!([0, 4, 2])),
        Err(ResultCode::BinNotFound)
    );
    assert_eq!(modify(None, &json!([0, 4, 6])), Ok(None));
    assert_eq!(
        modify(Some(&[1]), &json!([0, 4, 1])),
        Err(ResultCode::BinExists)
    );
    assert_eq!(modify(Some(&[1]), &json!([0, 4, 5])), Ok(None));
    for call in [
        json!([2, 0, 1, 0]),
        json!([3, 0, 8, "ff", 0]),
        json!([7, 0, 8, 0]),
        json!([8, 0, 8, 1, 0]),
        json!([10, 0, 8, 1, 0, 0]),
    ] {
        assert_eq!(modify(None, &call), Err(ResultCode::BinNotFound), "{call}");
    }
    assert_eq!(modify(None, &json!([7, 0, 8, 4])), Ok(None));
}

#[test]
fn calls_say_what_they_are_and_where() {
    let bytes = call_bytes(&json!([255, [0x10, 1, 0x11, -1], [7, 0, 8, 0]]));
    let call = BitCall::parse(&bytes).unwrap();
    assert!(call.is_modify());
    assert_eq!(call.context().len(), 2);
    assert_eq!(call.read(&[0]), Err(ResultCode::Parameter));
    let bytes = call_bytes(&json!([50, 0, 8]));
    let call = BitCall::parse(&bytes).unwrap();
    assert!(!call.is_modify() && call.context().is_empty());
    assert_eq!(call.modify(Some(&[0]), LIMIT), Err(ResultCode::Parameter));
    // What a change leaves as it was is no change.
    assert_eq!(modify(Some(&[0xff]), &json!([4, 0, 8, "ff", 0])), Ok(None));
}

#[test]
fn calls_of_a_recorded_client_are_understood() {
    let modifies = [
        "9400080001",
        "940101a204aa00",
        "9402000100",
        "95030008a204aa00",
        "95040008a204aa00",
        "9407000800",
        "950800080100",
        "950900080100",
        "960a0008050000",
        "960b0008050001",
    ];
    for digits in modifies {
        let bytes = CallBytes::of(&unhex(digits)).unwrap();
        let call = BitCall::parse(&bytes).unwrap();
        assert!(
            call.modify(Some(&[5, 0]), LIMIT).unwrap().is_some(),
            "{digits}"
        );
    }
    for (digits, result) in [
        ("93320008", "a20405"),
        ("93330008", "02"),
        ("94350008c3", "07"),
        ("9436000801", "05"),
    ] {
        let bytes = CallBytes::of(&unhex(digits)).unwrap();
        let result = unhex(result);
        assert_eq!(
            BitCall::parse(&bytes).unwrap().read(&[5, 0]),
            Ok(result),
            "{digits}"
        );
    }
}

fn bits_of(bytes: &[u8]) -> Vec<bool> {
    bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> (7 - bit) & 1 == 1))
        .collect()
}

fn bytes_of(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8)
        .map(|eight| {
            eight
                .iter()
                .enumerate()
                .fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at))
        })
        .collect()
}

fn integer_of(bits: &[bool]) -> u64 {
    bits.iter()
        .fold(0, |value, bit| value << 1 | u64::from(*bit))
}

proptest! {
    #[test]
    fn operations_do_what_a_list_of_bits_does(
        blob in prop::collection::vec(any::<u8>(), 1..24),
        other in prop::collection::vec(any::<u8>(), 24),
        at in any::<prop::sample::Index>(),
        size in any::<prop::sample::Index>(),
        code in 3_i64..13,
        shift in 0_usize..200,
        value in any::<i64>(),
    ) {
        let all = bits_of(&blob);
        let start = at.index(all.len());
        let mut len = 1 + size.index(all.len() - start);
        if code >= 10 {
            len = len.min(64);
        }
        let old = all[start..start + len].to_vec();
        let given = bits_of(&other);
        let value_bits = &bits_of(&value.to_be_bytes())[64 - len.min(64)..];
        let number = |sum: u64| bits_of(&sum.to_be_bytes())[64 - len.min(64)..].to_vec();
        let pairs = old.iter().zip(&given);
        let (call, new): (Json, Vec<bool>) = match code {
            3 => (json!([3, start, len, hex(&other), 0]), given[..len].to_vec()),
            4 => (json!([4, start, len, hex(&other), 0]), pairs.map(|(a, b)| a | b).collect()),
            5 => (json!([5, start, len, hex(&other), 0]), pairs.map(|(a, b)| a ^ b).collect()),
            6 => (json!([6, start, len, hex(&other), 0]), pairs.map(|(a, b)| a & b).collect()),
            7 => (json!([7, start, len, 0]), old.iter().map(|bit| !bit).collect()),
            8 => (json!([8, start, len, shift, 0]), (0..len).map(|bit| *old.get(bit + shift).unwrap_or(&false)).collect()),
            9 => (json!([9, start, len, shift, 0]), (0..len).map(|bit| bit >= shift && old[bit - shift]).collect()),
            10 => (json!([10, start, len, value, 0, 4]), number(integer_of(&old).wrapping_add(integer_of(value_bits)))),
            11 => (json!([11, start, len, value, 0, 5]), number(integer_of(&old).wrapping_sub(integer_of(value_bits)))),
            _ => (json!([12, start, len, value, 0]), value_bits.to_vec()),
        };
        let mut expected = all.clone();
        expected.splice(start..start + len, new);
        let expected = bytes_of(&expected);
        let found = modify(Some(&blob), &call).unwrap().unwrap_or_else(|| blob.clone());
        prop_assert_eq!(hex(&found), hex(&expected), "{} on {}", call, hex(&blob));

        let backwards = start as i64 - all.len() as i64;
        prop_assert_eq!(read(&blob, &json!([50, backwards, len])), Ok(json!(hex(&bytes_of(&old)))));
        prop_assert_eq!(read(&blob, &json!([51, start, len])), Ok(json!(old.iter().filter(|bit| **bit).count())));
        for wanted in [true, false] {
            let first = old.iter().position(|bit| *bit == wanted).map_or(-1, |bit| bit as i64);
            let last = old.iter().rposition(|bit| *bit == wanted).map_or(-1, |bit| bit as i64);
            prop_assert_eq!(read(&blob, &json!([52, start, len, wanted])), Ok(json!(first)));
            prop_assert_eq!(read(&blob, &json!([53, start, len, wanted])), Ok(json!(last)));
        }
        if len <= 64 {
            prop_assert_eq!(read(&blob, &json!([54, start, len])), Ok(json!(integer_of(&old) as i64)));
        }
    }

    #[test]
    fn arbitrary_calls_never_panic(
        code in 0_i64..60,
        args in prop::collection::vec(prop_oneof![
            (-70_i64..70).prop_map(|value| json!(value)), any::<i64>().prop_map(|value| json!(value)),
            Just(json!("0102030405060708")), Just(json!(true)), Just(json!(null)), Just(json!(0)), Just(json!([])),
        ], 0..6),
        blob in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let call = Json::Array([json!(code)].into_iter().chain(args).collect());
        let bytes = call_bytes(&call);
        if let Ok(call) = BitCall::parse(&bytes) {
            let _ = call.read(&blob);
            let _ = call.modify(None, 64);
            if let Ok(Some(new)) = call.modify(Some(&blob), 64) {
                prop_assert!(new.len() <= 64);
            }
        }
    }
}
