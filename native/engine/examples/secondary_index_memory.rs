//! Memory that the entries of secondary indexes take of the system, an entry: growth of the process since there were none,
//! everything counted, for trees of several sizes, with keys in any order and with keys that only grow.
//! `cargo run --release --example secondary_index_memory` ends with status 1 where it is above 40 bytes.

#[path = "../benches/common/mod.rs"]
mod common;

use common::{Resident, mix};
use perigee_engine::secondary_index::KeyTree;
use std::process::ExitCode;

const BYTES_MAX: f64 = 40.0;
const SIZES: [u64; 4] = [100, 1_000, 10_000, 1_000_000];
/// Of all trees of a size.
const ENTRIES: u64 = 4_000_000;

fn main() -> ExitCode {
    // Each in a process of its own, as what was given back to the allocator would count for the next.
    let mut arguments = std::env::args().skip(1);
    if let (Some(size), Some(keys)) = (arguments.next(), arguments.next()) {
        let size = size.parse().expect("a size");
        println!("{:.1}", measured(size, keys == "ascending"));
        return ExitCode::SUCCESS;
    }
    println!("{:>10} {:>10} {:>10}", "entries", "keys", "bytes");
    let mut worst = 0.0_f64;
    for size in SIZES {
        for keys in ["random", "ascending"] {
            let this = std::env::current_exe().expect("the program's own path");
            let run = std::process::Command::new(this)
                .args([&size.to_string(), keys])
                .output()
                .expect("a measurement");
            let told = String::from_utf8_lossy(&run.stdout);
            let bytes: f64 = told.trim().parse().expect("a number");
            println!("{size:>10} {keys:>10} {bytes:>10.1}");
            worst = worst.max(bytes);
        }
    }
    ExitCode::from(u8::from(worst > BYTES_MAX))
}

/// Bytes an entry of trees that grow together, as those of partitions do.
fn measured(size: u64, is_ascending: bool) -> f64 {
    let before = Resident::now();
    let mut trees: Vec<KeyTree> = Vec::new();
    trees.resize_with((ENTRIES / size) as usize, KeyTree::default);
    for i in 0..size {
        for (at, tree) in trees.iter_mut().enumerate() {
            let number = 2 * (at as u64 * size + i);
            let key = if is_ascending { i } else { mix(number) };
            assert!(tree.insert(key, mix(number + 1)));
        }
    }
    let grown = Resident::now().heap_bytes - before.heap_bytes;
    grown as f64 / (trees.len() as u64 * size) as f64
}
