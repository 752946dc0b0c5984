//! Compressing record images and messages, and inflating them again: `cargo bench -p perigee-engine --bench compression`. Before it begins it
//! prints what each kind of record takes in each form.
//!
//! Records as applications write them, from a fixed seed: a user's profile in short bins, a document in JSON, and lines of a log.

mod common;

use common::{digest, mix};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use perigee_engine::record::compression::{Compression, CompressionKind, compress, inflate};
use perigee_engine::record::image::{ImageBuilder, ImageHeader, ImageView};
use perigee_wire::{PROTO_HEADER_BYTES, ReplyWriter, ResultCode, deflate_frame, inflate_message};
use std::hint::black_box;

const STRING: u8 = 3;
const INTEGER: u8 = 1;
const WORDS: [&str; 24] = [
    "amber", "harbour", "copper", "meadow", "signal", "winter", "paper", "engine", "river",
    "window", "garden", "market", "silver", "thunder", "letter", "bridge", "candle", "orchard",
    "station", "velvet", "mountain", "lantern", "compass", "island",
];
const WITH: [(&str, CompressionKind, u8); 5] = [
    ("lz4", CompressionKind::Lz4, 1),
    ("zstd-1", CompressionKind::Zstd, 1),
    ("zstd-3", CompressionKind::Zstd, 3),
    ("zstd-6", CompressionKind::Zstd, 6),
    ("zstd-9", CompressionKind::Zstd, 9),
];

struct Words(u64);

impl Words {
    fn number(&mut self, below: u64) -> u64 {
        self.0 += 1;
        mix(self.0) % below
    }

    fn some(&mut self, count: usize) -> String {
        let words: Vec<&str> = (0..count)
            .map(|_| WORDS[self.number(WORDS.len() as u64) as usize])
            .collect();
        words.join(" ")
    }

    fn log_line(&mut self) -> String {
        let (second, status, took) = (self.number(60), self.number(5), self.number(9000));
        format!(
            "2026-03-01T10:00:{second:02}Z GET /{} 20{status} {took}us",
            self.some(2).replace(' ', "/")
        )
    }
}

fn image(bins: &[(&str, u8, Vec<u8>)]) -> Vec<u8> {
    let header = ImageHeader {
        digest: digest(1),
        last_update_time: 1,
        generation: 1,
        void_time: 0,
        flags: 0,
    };
    let mut image = Vec::new();
    let mut builder = ImageBuilder::begin(&mut image, &header, b"set", None);
    for (name, particle, value) in bins {
        builder.bin(name.as_bytes(), *particle, value);
    }
    builder.finish();
    image
}

fn records() -> [(&'static str, Vec<u8>); 3] {
    let mut words = Words(1);
    let text = |value: String| value.into_bytes();
    let profile = image(&[
        ("name", STRING, text(words.some(2))),
        (
            "mail",
            STRING,
            text(format!("{}@example.org", words.some(1))),
        ),
        (
            "street",
            STRING,
            text(format!("{} {}", words.some(2), words.number(200))),
        ),
        ("visits", INTEGER, words.number(1000).to_be_bytes().to_vec()),
        (
            "last",
            INTEGER,
            words.number(1 << 31).to_be_bytes().to_vec(),
        ),
        ("notes", STRING, text(words.some(12))),
    ]);
    let items: Vec<String> = (0..16)
        .map(|i| {
            let (price, count) = (words.number(100_000), words.number(9));
            format!(
                r#"{{"id":{i},"title":"{}","price":{price},"count":{count},"tags":["{}","{}"]}}"#,
                words.some(3),
                words.some(1),
                words.some(1)
            )
        })
        .collect();
    let document = image(&[("order", STRING, text(format!("[{}]", items.join(","))))]);
    let lines: Vec<String> = (0..160).map(|_| words.log_line()).collect();
    let log = image(&[("log", STRING, text(lines.join("\n")))]);
    [("profile", profile), ("document", document), ("log", log)]
}

fn compression(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compression");
    for (record, plain) in records() {
        group.throughput(Throughput::Bytes(plain.len() as u64));
        for (name, algorithm, level) in WITH {
            let with = Compression { algorithm, level };
            let mut stored = Vec::new();
            let is_smaller = compress(&plain, with, &mut stored);
            let bytes = if is_smaller {
                stored.len()
            } else {
                plain.len()
            };
            println!("{record} {name}: {} -> {bytes} bytes", plain.len());
            let id = |direction: &str| BenchmarkId::new(format!("{direction}-{name}"), record);
            group.bench_function(id("compress"), |bencher| {
                bencher.iter(|| compress(black_box(&plain), with, &mut stored));
            });
            if is_smaller {
                let view = ImageView::trusted(&stored);
                let mut again = Vec::new();
                group.bench_function(id("inflate"), |bencher| {
                    bencher.iter(|| inflate(black_box(&view), &mut again).is_ok());
                });
            }
        }
    }
    group.finish();
}

/// Replies with a log of so many bytes, as they are compressed on their way to a client.
fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("messages");
    let (mut words, mut log) = (Words(2), String::new());
    for bytes in [256, 2 << 10, 16 << 10, 128 << 10, 1 << 20, 8 << 20] {
        while log.len() < bytes {
            log += &words.log_line();
            log.push('\n');
        }
        let mut frame = Vec::new();
        let mut reply = ReplyWriter::begin(&mut frame);
        reply.op(b"log", STRING, &log.as_bytes()[..bytes]);
        reply.finish(ResultCode::Ok, 1, 0);
        let mut compressed = Vec::new();
        assert!(deflate_frame(&frame, &mut compressed));
        println!("message: {} -> {} bytes", frame.len(), compressed.len());
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(BenchmarkId::new("deflate", bytes), |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| deflate_frame(black_box(&frame), &mut out));
        });
        group.bench_function(BenchmarkId::new("inflate", bytes), |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                inflate_message(black_box(&compressed[PROTO_HEADER_BYTES..]), &mut out).is_ok()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1)).warm_up_time(std::time::Duration::from_millis(300));
    targets = compression, messages
}
criterion_main!(benches);
