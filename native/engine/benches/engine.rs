//! Index lookups, index inserts and appends to memory, on one thread: `cargo bench -p perigee-engine`.
//! Fixed seed, median of three.

use perigee_engine::index::{Entry, Location, PartitionTable};
use perigee_engine::progress::OpenProgress;
use perigee_engine::record::image::{ImageBuilder, ImageHeader, ImageView};
use perigee_engine::storage::{MediumConfig, Rebuild, Store, StoreConfig};
use perigee_wire::{Digest, PartitionId, partition_of};
use std::hint::black_box;
use std::time::Instant;

const RECORDS: u64 = 2_000_000;
const IMAGES: u64 = 1_000_000;
const VALUE_BYTES: usize = 100;

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn digest(i: u64) -> Digest {
    let words = [mix(3 * i + 1), mix(3 * i + 2), mix(3 * i + 3)];
    std::array::from_fn(|at| words[at / 8].to_le_bytes()[at % 8])
}

fn entry(digest: Digest) -> Entry {
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

/// Nanoseconds for each of `count`, median of three.
fn measure(count: u64, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..3)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[1]
}

fn new_index() -> Vec<PartitionTable> {
    PartitionId::all().map(PartitionTable::new).collect()
}

struct Empty;

impl Rebuild for Empty {
    fn adopt(&self, _: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {
        unreachable!("memory is empty");
    }

    fn tell_live(&self, _: usize, _: usize, _: &mut dyn FnMut(Location)) {}
}

fn main() {
    let digests: Vec<Digest> = (0..RECORDS).map(digest).collect();
    let mut index = new_index();
    let insert = measure(RECORDS, || {
        index = new_index();
        for digest in &digests {
            index[partition_of(digest).index()].upsert(entry(*digest));
        }
    });
    let order: Vec<u32> = (0..RECORDS)
        .map(|i| (mix(i + 7) % RECORDS) as u32)
        .collect();
    let lookup = measure(RECORDS, || {
        for i in &order {
            let digest = &digests[*i as usize];
            black_box(index[partition_of(digest).index()].get(digest));
        }
    });
    let bytes: usize = index.iter().map(PartitionTable::memory_bytes).sum();

    let mut image = Vec::new();
    let build = |image: &mut Vec<u8>, digest: &Digest| {
        image.clear();
        let header = ImageHeader {
            digest: *digest,
            last_update_time: 1,
            generation: 1,
            void_time: 0,
            flags: 0,
        };
        let mut builder = ImageBuilder::begin(image, &header, b"set", None);
        builder.bin(b"bin", 4, &[7; VALUE_BYTES]);
        builder.finish();
    };
    let append = measure(IMAGES, || {
        let medium = MediumConfig::Memory { data_size: 1 << 30 };
        let store = Store::open(StoreConfig::new("bench", medium)).expect("memory opens");
        store
            .scan(&Empty, &OpenProgress::default())
            .expect("first scan");
        for digest in &digests[..IMAGES as usize] {
            build(&mut image, digest);
            store.append(&mut image).expect("there is room");
        }
    });
    let copy = measure(IMAGES, || {
        for digest in &digests[..IMAGES as usize] {
            build(&mut image, digest);
            black_box(&mut image);
        }
    });

    println!(
        "index of {RECORDS} records: {:.1} bytes a record",
        bytes as f64 / RECORDS as f64
    );
    println!("insert {insert:.0} ns, lookup {lookup:.0} ns (random order)");
    println!("append to memory {append:.0} ns, of which building the image {copy:.0} ns");
}
