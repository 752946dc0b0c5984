//! Memory that the primary index takes of the system, a record: growth of the resident set of a fresh
//! process at each size, everything counted. `cargo run --release --example index_memory [MILLIONS ...]`
//! ends with status 1 where it is above 64 bytes.

#[path = "../benches/common/mod.rs"]
mod common;

use common::Index;
use std::process::{Command, ExitCode};

const BYTES_MAX: f64 = 64.0;
const SIZES_MILLIONS: [&str; 8] = ["1", "2", "3", "5", "8", "12", "16", "20"];
/// Before the number of records, in the process that holds them.
const HOLD: &str = "--hold";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [hold, records] = &args[..]
        && hold == HOLD
    {
        return hold_records(records.parse().expect("a number of records"));
    }
    let sizes = match args.is_empty() {
        true => SIZES_MILLIONS.map(str::to_owned).to_vec(),
        false => args,
    };
    println!(
        "{:>12} {:>18} {:>18}",
        "records", "tables, bytes", "resident, bytes"
    );
    let mut within = true;
    for millions in sizes {
        let Ok(millions) = millions.parse::<u64>() else {
            eprintln!("index_memory: {millions:?} is no number of millions");
            return ExitCode::from(2);
        };
        let program = std::env::current_exe().expect("this program has a path");
        let status = Command::new(program)
            .args([HOLD, &(millions * 1_000_000).to_string()])
            .status()
            .expect("this program can be started");
        within &= status.success();
    }
    ExitCode::from(u8::from(!within))
}

/// Fails when the records take more than they may.
fn hold_records(records: u64) -> ExitCode {
    let before = resident_bytes();
    let index = Index::with(records);
    let a_record = |bytes: u64| bytes as f64 / records as f64;
    let resident = a_record(resident_bytes() - before);
    let tables = a_record(index.memory_bytes());
    println!("{records:>12} {tables:>18.1} {resident:>18.1}");
    ExitCode::from(u8::from(resident.max(tables) > BYTES_MAX))
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells of memory");
    let pages = statm
        .split(' ')
        .nth(1)
        .expect("the second field is the resident set");
    // SAFETY: plain query without arguments in memory.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.parse::<u64>().expect("a number of pages") * page_bytes as u64
}
