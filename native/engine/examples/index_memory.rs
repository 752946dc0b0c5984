//! Memory that the primary index takes of the system, a record, while it grows to 20 million records: growth of the
//! process since there was none, everything counted, looked at whenever there are a hundredth more.
//! `cargo run --release --example index_memory [MILLIONS]` ends with status 1 where it is above 64 bytes.

#[path = "../benches/common/mod.rs"]
mod common;

use common::{Index, Resident, digest};
use std::process::ExitCode;

const BYTES_MAX: f64 = 64.0;
const RECORDS_MIN: u64 = 1_000_000;
const MILLIONS: u64 = 20;
/// Tables of uniform digests grow together, by an eighth at a time.
const LOOKS_A_ROW: u32 = 10;

fn main() -> ExitCode {
    let millions = match std::env::args().nth(1).map(|argument| argument.parse()) {
        None => MILLIONS,
        Some(Ok(millions)) => millions,
        Some(Err(_)) => {
            eprintln!("index_memory: the argument is a number of millions");
            return ExitCode::from(2);
        }
    };
    let before = Resident::now();
    let mut index = Index::with(0);
    println!(
        "{:>22} {:>20} {:>22}",
        "records", "tables, bytes", "system, bytes"
    );
    let (mut records, mut wanted, mut worst) = (0, RECORDS_MIN, 0.0_f64);
    while wanted <= millions * 1_000_000 {
        let (mut tables, mut system) = (Span::default(), Span::default());
        let from = wanted;
        for _ in 0..LOOKS_A_ROW {
            (records..wanted).for_each(|i| index.insert(digest(i)));
            records = wanted;
            let a_record = |bytes: u64| bytes as f64 / records as f64;
            tables.add(a_record(index.memory_bytes()));
            let resident = Resident::now().heap_bytes.saturating_sub(before.heap_bytes);
            system.add(a_record(resident + index.arena_bytes()));
            wanted += records / 100;
        }
        println!("{from:>10} to {records:>8} {tables:>20} {system:>22}");
        worst = worst.max(tables.to).max(system.to);
    }
    println!("at most {worst:.1}");
    ExitCode::from(u8::from(worst > BYTES_MAX))
}

/// The lowest and the highest of some figures.
struct Span {
    from: f64,
    to: f64,
}

impl Default for Span {
    fn default() -> Span {
        Span {
            from: f64::MAX,
            to: 0.0,
        }
    }
}

impl Span {
    fn add(&mut self, value: f64) {
        self.from = self.from.min(value);
        self.to = self.to.max(value);
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(&format!("{:.1} to {:.1}", self.from, self.to))
    }
}
