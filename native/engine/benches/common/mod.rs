//! Records for benchmarks and examples: digests that are spread as real ones are, without a table of
//! them in memory, which would cost cache lines of its own.

// Each of the programs that share this uses a part of it.
#![allow(dead_code)]

use perigee_engine::index::{Entry, Location, PartitionTable};
use perigee_wire::{Digest, partition_of};

/// The finalizer of SplitMix64: a bijection, so that different records have different digests.
pub fn mix(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The digest of the `i`th record.
pub fn digest(i: u64) -> Digest {
    let words = [mix(3 * i + 1), mix(3 * i + 2), mix(3 * i + 3)];
    std::array::from_fn(|at| words[at / 8].to_le_bytes()[at % 8])
}

pub fn entry(digest: Digest) -> Entry {
    Entry {
        digest,
        set_id: 1,
        generation: 1,
        last_update_time: 1,
        void_time: 0,
        location: Location::new(0, 1, 8),
        flags: 0,
    }
}

/// All partitions of one namespace, with records 0 to `records`.
pub struct Index(Vec<PartitionTable>);

impl Index {
    pub fn with(records: u64) -> Index {
        let mut index = Index(PartitionTable::all());
        index.0.iter_mut().for_each(PartitionTable::settle);
        for i in 0..records {
            index.insert(digest(i));
        }
        index
    }

    pub fn insert(&mut self, digest: Digest) {
        self.0[partition_of(&digest).index()].upsert(entry(digest));
    }

    pub fn remove(&mut self, digest: &Digest) {
        self.0[partition_of(digest).index()].remove(digest);
    }

    pub fn get(&self, digest: &Digest) -> Option<Entry> {
        self.0[partition_of(digest).index()].get(digest)
    }

    pub fn arena_bytes(&self) -> u64 {
        self.0[0].arena_bytes()
    }

    pub fn memory_bytes(&self) -> u64 {
        self.0.iter().map(|table| table.memory_bytes() as u64).sum()
    }
}

/// Digests of random records among `records` that are there, or of others that are not.
pub fn random_digests(count: usize, records: u64, present: bool, seed: u64) -> Vec<Digest> {
    let base = if present { 0 } else { records };
    (0..count as u64)
        .map(|i| digest(base + mix(seed.wrapping_add(i)) % records))
        .collect()
}

/// Memory of the process but for the arena, of which the index itself tells all that it has, touched or not.
pub struct Resident {
    pub heap_bytes: u64,
}

impl Resident {
    pub fn now() -> Resident {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells of memory");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.expect(name).parse().expect(name)
        };
        Resident {
            heap_bytes: (kib("RssAnon:") + kib("RssFile:")) * 1024,
        }
    }
}
