//! The files of seeds: `seeds/<target>.hex`, a name and bytes in hexadecimal a line.
#![allow(dead_code, reason = "each test program takes what it needs of this")]

pub use perigee_fixtures::{hex, unhex};
use std::path::PathBuf;

pub fn path(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("seeds/{target}.hex"))
}

pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let path = path(target);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(|line| {
            let (name, digits) = line.split_once(' ').expect("a name and bytes");
            (name.to_owned(), unhex(digits))
        })
        .collect()
}

/// A small generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
