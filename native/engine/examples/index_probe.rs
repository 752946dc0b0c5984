//! Lookups in the primary index and nothing else, for counters of the processor or a simulation of
//! its caches: `npm run bench:index-counters` runs this with and without lookups and subtracts.

#[path = "../benches/common/mod.rs"]
mod common;

use common::{Index, mix, random_digests};
use std::hint::black_box;

const BATCH: usize = 4096;
const USAGE: &str = "index_probe RECORDS LOOKUPS hit|miss|none";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [records, lookups, kind] = &args[..] else {
        panic!("{USAGE}");
    };
    let records: u64 = records.parse().expect(USAGE);
    let lookups: u64 = lookups.parse().expect(USAGE);
    assert!(["hit", "miss", "none"].contains(&kind.as_str()), "{USAGE}");
    let index = Index::with(records);
    let mut found = 0;
    for batch in 0..lookups / BATCH as u64 {
        let digests = random_digests(BATCH, records, kind != "miss", mix(batch));
        for digest in black_box(&digests) {
            let digest = black_box(*digest);
            if kind != "none" {
                found += u64::from(index.get(&digest).is_some());
            }
        }
    }
    println!("{found} found");
}
