//! Where the seeds come from: frames recorded from a real client, and values made by hand. `PERIGEE_REGENERATE=1` writes the files anew.

use perigee_fixtures::recorded_frames;
use perigee_fuzz::TARGETS;
use perigee_fuzz::part::join;
use perigee_wire::msgpack::{Writer, canonical};
use perigee_wire::{
    Message, PROTO_HEADER_BYTES, ProtoType, RequestHeader, RequestWriter, deflate_frame, field,
    info1, info2, op, particle_type as particle, write_proto_header,
};
use std::collections::{BTreeMap, BTreeSet};
use support::{hex, unhex};

mod support;

/// Of all files together.
const BYTES_MAX: usize = 300 << 10;
/// Longer recordings are not kept.
const FRAME_BYTES_MAX: usize = 600;

type Seeds = BTreeMap<&'static str, Vec<(String, Vec<u8>)>>;

/// Bodies of recorded messages, with the names of what was recorded.
fn recorded_messages() -> Vec<(String, Vec<u8>)> {
    let messages = recorded_frames().into_iter();
    messages
        .filter(|frame| frame.kind == ProtoType::Message as u64)
        .map(|mut frame| {
            (
                frame.name.replace(' ', "-"),
                frame.bytes.split_off(PROTO_HEADER_BYTES),
            )
        })
        .collect()
}

fn msgpack(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

/// `[code, number...]`
fn call(numbers: &[i64]) -> Vec<u8> {
    msgpack(|writer| {
        writer.array(numbers.len() as u32);
        numbers.iter().for_each(|number| writer.int(*number));
    })
}

/// Lists and maps of every order.
fn containers() -> Vec<Vec<u8>> {
    [
        "90",
        "93030102",
        "94c70001010203",
        "9592010203a3036162c0cb3ff8000000000000",
        "92919304050693c700010102",
        "80",
        "83a20361018a02a2036202a20363039201",
        "83a20361010203a2036292c0c3",
        "83c70001c00102a2036181a2036301",
        "83c70003c0010a020b",
        "81a2036c9393010203920405910a",
    ]
    .iter()
    .filter_map(|digits| canonical(&unhex(digits)).ok())
    .collect()
}

fn sketch() -> Vec<u8> {
    let mut sketch = vec![0; 11 + 12];
    sketch[1] = 4;
    sketch[13] = 0x51;
    sketch
}

/// A message that writes one bin, behind its length.
fn put(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    message(info2::WRITE, 0, |request| {
        request.op(op::WRITE, kind, name, value)
    })
}

fn message(info2: u8, info1: u8, write: impl FnOnce(&mut RequestWriter<'_>)) -> Vec<u8> {
    let mut frame = Vec::new();
    let header = RequestHeader {
        info1,
        info2,
        ..RequestHeader::default()
    };
    let mut request = RequestWriter::begin(&mut frame, header);
    write(&mut request);
    request.finish();
    join(&frame[PROTO_HEADER_BYTES..], &[])
}

fn made() -> Seeds {
    let mut seeds = Seeds::new();
    let mut seen = BTreeSet::new();
    let mut add = |target: &'static str, name: &str, data: Vec<u8>| {
        if seen.insert((target, data.clone())) {
            seeds
                .entry(target)
                .or_default()
                .push((name.to_owned(), data));
        }
    };
    let containers = containers();
    let mut shapes = BTreeSet::new();
    for (name, body) in recorded_messages() {
        let message = Message::parse(&body).expect("a recorded message");
        for operation in message.ops {
            let value = operation.value;
            match operation.code {
                op::CDT_READ | op::CDT_MODIFY => {
                    // On the one that it may be about, by its number.
                    let stored = &containers[value.len() % containers.len()];
                    add("containers", &name, join(stored, value));
                    add(
                        "expressions",
                        &name,
                        [&[3], &join(stored, value)[..]].concat(),
                    );
                }
                op::BITS_READ | op::BITS_MODIFY => {
                    add("bits", &name, join(&[0x5a, 0xff, 0, 0x81], value));
                }
                op::HLL_READ | op::HLL_MODIFY => add("sketches", &name, join(&sketch(), value)),
                op::EXP_READ | op::EXP_MODIFY => {
                    add(
                        "expressions",
                        &name,
                        [&[2], &join(&[0x90], value)[..]].concat(),
                    );
                }
                op::WRITE if value.len() < 200 => {
                    add("values", &name, [&[2, operation.particle], value].concat());
                    if operation.particle == particle::GEOJSON {
                        add("locations", &name, [&[0], &value[3..]].concat());
                    }
                    if matches!(operation.particle, particle::LIST | particle::MAP) {
                        add("values", &name, [&[0], value].concat());
                    }
                }
                _ => {}
            }
        }
        if let Some(filter) = message.filter {
            for kind in [0, 1] {
                let part = join(&[0x93, 1, 2, 3], filter);
                add("expressions", &name, [&[kind], &part[..]].concat());
            }
        }
        if body.len() > FRAME_BYTES_MAX {
            continue;
        }
        let header = message.header;
        let codes: Vec<u8> = message.ops.iter().map(|op| op.code).collect();
        let shape = (
            header.info1,
            header.info2,
            header.info3,
            header.n_fields,
            codes,
        );
        if !shapes.insert(shape) {
            continue;
        }
        add("frames", &name, [&[0], &body[..]].concat());
        let first = put(b"a", particle::LIST, &[0x93, 1, 2, 3]);
        add("requests", &name, [first, join(&body, &[])].concat());
        if let Some(rows) = message.batch {
            add("frames", &name, [&[1], rows].concat());
        }
    }
    for (target, name, data) in by_hand(&containers) {
        add(target, name, data);
    }
    seeds
}

fn by_hand(containers: &[Vec<u8>]) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut made = Vec::new();
    let mut add = |target: &'static str, name: &'static str, data: Vec<u8>| {
        made.push((target, name, data));
    };
    add(
        "frames",
        "info",
        b"\x03node\nsets/test\nget-config:context=namespace;id=test".to_vec(),
    );
    add(
        "frames",
        "stream",
        b"\x02\x02\x01\0\0\0\0\0\x05node\n".to_vec(),
    );
    let mut result = vec![0; 4 + 32];
    result[0] = 1;
    result[4..8].copy_from_slice(&44_u32.to_le_bytes());
    result[9] = 1;
    result[12] = 1;
    result[24] = 1;
    result.extend_from_slice(&[1, 1, 0, 0, 3, 0, 0, 0, b'b', 1, 2, 3]);
    add("frames", "udf-result", [&[4], &result[..]].concat());
    add(
        "frames",
        "xdr-outcomes",
        [&[5], &[7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..]].concat(),
    );

    let bins = [&[0, 0, 0, 204, 2, 4, 0, 0][..], &[7; 200]].concat();
    let header = [
        22, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ];
    let large = [&header[..], &bins].concat();
    let mut frame = Vec::new();
    write_proto_header(&mut frame, ProtoType::Message, large.len());
    frame.extend_from_slice(&large);
    let mut compressed = Vec::new();
    assert!(deflate_frame(&frame, &mut compressed));
    add(
        "frames",
        "compressed",
        [&[6], &compressed[PROTO_HEADER_BYTES..]].concat(),
    );
    add("frames", "to-be-compressed", [&[7], &large[..]].concat());

    // The mark of a map's order with a text where nil belongs.
    add(
        "values",
        "mark-of-map",
        vec![0, 0x82, 0xc7, 0, 1, 0xa0, 1, 2],
    );
    for value in containers {
        add("values", "container", [&[0], &value[..]].concat());
        for code in [0, 16, 17, 5, 13, 75, 96] {
            add("containers", "small-call", join(value, &call(&[code, 0])));
        }
        add(
            "containers",
            "rank-range",
            join(value, &call(&[39, 7, 0, 2])),
        );
        add("containers", "interval", join(value, &call(&[86, 8, 1, 3])));
    }
    let order: Vec<u8> = containers
        .iter()
        .take(3)
        .flat_map(|it| join(it, &[]))
        .collect();
    add("values", "order", [&[1], &order[..]].concat());

    add("bits", "resize", join(&[1, 2, 3], &call(&[0, 5, 0, 1])));
    add(
        "bits",
        "add",
        join(&[1, 2, 3], &call(&[10, 3, 17, 99, 0, 4])),
    );
    add("bits", "scan", join(&[1, 2, 3], &[0x94, 52, 0, 24, 0xc3]));
    add("sketches", "init", join(&[], &call(&[0, 8, 4])));
    add(
        "sketches",
        "add",
        join(&sketch(), &unhex("9301a20361a2036204")),
    );
    add("sketches", "describe", join(&sketch(), &call(&[55])));

    for (name, text) in [
        ("point", r#"{"type":"Point","coordinates":[10.5,50.25]}"#),
        (
            "circle",
            r#"{"type":"AeroCircle","coordinates":[[10.5,50.25],1000]}"#,
        ),
        (
            "polygon",
            r#"{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,10],[0,0]],[[2,2],[4,2],[4,4],[2,2]]]}"#,
        ),
        (
            "polygons",
            r#"{"type":"MultiPolygon","coordinates":[[[[0,0],[1,0],[1,1],[0,0]]],[[[5,5],[6,5],[6,6],[5,5]]]]}"#,
        ),
        (
            "feature",
            r#"{"type":"Feature","properties":{"a":1},"geometry":{"type":"Point","coordinates":[1,2,3]}}"#,
        ),
    ] {
        add("locations", name, [b"\0", text.as_bytes()].concat());
    }
    let places: Vec<u8> = (0..12_u16)
        .flat_map(|at| [(at * 9) as u8, 0x10, (at * 23) as u8, 0x20 + at as u8])
        .collect();
    for kind in [1, 2, 3] {
        add("locations", "places", [&[kind], &places[..]].concat());
    }

    for (name, code) in [
        ("sum", "931493510102a16905"),
        ("and", "9310c3930392510205"),
        ("keys", "9265"),
        ("call", "957f020092009251050001"),
    ] {
        add(
            "expressions",
            name,
            [&[0], &join(&[0x93, 1, 2, 3], &unhex(code))[..]].concat(),
        );
    }
    // An integer, a string, a point and a circle that are asked for, with a value that is met by each.
    let place = r#"{"type":"Point","coordinates":[10.5,50.25]}"#.as_bytes();
    let around = r#"{"type":"AeroCircle","coordinates":[[10.5,50.25],1000]}"#.as_bytes();
    let number = 7_i64.to_be_bytes();
    let text = |kind: u8, bytes: &[u8]| msgpack(|writer| writer.particle(kind, bytes));
    for (name, kind, begin, value) in [
        ("integer", particle::INTEGER, &number[..], vec![7]),
        (
            "string",
            particle::STRING,
            b"ab",
            text(particle::STRING, b"ab"),
        ),
        (
            "point",
            particle::GEOJSON,
            place,
            text(particle::GEOJSON, around),
        ),
        (
            "circle",
            particle::GEOJSON,
            around,
            text(particle::GEOJSON, place),
        ),
    ] {
        let length = (begin.len() as u32).to_be_bytes();
        let range = [&[1, 1, b'x', kind][..], &length, begin, &length, begin].concat();
        let in_list = [&[0x91], &value[..]].concat();
        let in_map = [&[0x81], &value[..], &value].concat();
        for (collection, value) in [(0, &value), (1, &in_list), (2, &in_map), (3, &in_map)] {
            add(
                "indexes",
                name,
                [&[collection], &join(&range, value)[..]].concat(),
            );
        }
    }

    let wide: Vec<u8> = (0..240_u32).map(|at| (at * 73 % 251) as u8).collect();
    add("indexes", "tree", [&[4], &wide[..]].concat());
    for target in [
        "container-model",
        "bit-model",
        "expression-model",
        "devices",
        "images",
    ] {
        for (name, from) in [("first", 0), ("second", 40), ("third", 97)] {
            add(target, name, [&wide[from..], &wide[..from]].concat());
        }
        add(target, "empty", Vec::new());
    }
    for kind in [0, 1, 2] {
        let body = [
            &[5, 7, 3][..],
            b"users",
            b"\x04\x03ann",
            &[3, 2, b'a', b'b', 0, 4, 1, 2, 3, 4],
        ];
        add("images", "record", [&[kind], &body.concat()[..]].concat());
    }
    add("devices", "header", vec![0; 24]);
    // Begins with the last sequence that there is.
    add(
        "devices",
        "last-sequence-first",
        b"\x02\x00\x00\x00\x00\x00\xff\x04\x09\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
    );
    // Leases all sequences that there are, so that the next lease has none.
    add(
        "devices",
        "no-sequences-left",
        b"\x03\x01\x04\x00\x00\x00\xff\x04\x09\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
    );
    add(
        "devices",
        "image",
        [3, 9, 1, 40, 200, 1, 2, 3, 4, 255, 9, 9].repeat(3),
    );

    let get = message(0, info1::READ | info1::GET_ALL, |_| {});
    let delete = message(info2::WRITE | info2::DELETE, 0, |_| {});
    let apply = message(info2::WRITE, 0, |request| {
        request.field(field::UDF_MODULE, b"m");
        request.field(field::UDF_FUNCTION, b"f");
        request.field(field::UDF_ARGS, &[0x90]);
    });
    let shipped = message(info2::WRITE, info1::XDR, |request| {
        request.field(field::LUT, &500_000_000_000_u64.to_be_bytes());
        request.op(
            op::WRITE,
            particle::INTEGER,
            b"n",
            &[0, 0, 0, 0, 0, 0, 0, 9],
        );
    });
    let append = message(info2::WRITE, 0, |request| {
        request.op(op::CDT_MODIFY, particle::BLOB, b"a", &[0x92, 1, 5]);
        request.op(op::APPEND, particle::STRING, b"s", b"more");
        request.op(op::INCR, particle::INTEGER, b"n", &[0, 0, 0, 0, 0, 0, 0, 9]);
    });
    let list = put(b"a", particle::LIST, &[0x93, 1, 2, 3]);
    let calls = [list.clone(), apply, join(&result, &[])].concat();
    add(
        "requests",
        "put-get-delete",
        [list.clone(), get.clone(), delete].concat(),
    );
    add("requests", "call", calls);
    add("requests", "shipped", [shipped, get.clone()].concat());
    add("requests", "operations", [list, append, get].concat());
    made
}

#[test]
fn the_files_hold_what_the_seeds_are_made_of() {
    let seeds = made();
    let mut bytes = 0;
    for target in TARGETS {
        let mut text = String::new();
        for (name, data) in seeds.get(target.name).into_iter().flatten() {
            text.push_str(&format!("{name} {}\n", hex(data)));
        }
        bytes += text.len();
        let path = support::path(target.name);
        if std::env::var_os("PERIGEE_REGENERATE").is_some() {
            std::fs::write(&path, &text).expect("the file can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "{} is not what the seeds are made of; PERIGEE_REGENERATE=1 writes it anew",
            path.display()
        );
    }
    assert!(bytes <= BYTES_MAX, "{bytes} bytes of seeds");
}
