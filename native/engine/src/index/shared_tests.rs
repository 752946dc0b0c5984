//! Tables in shared memory: stopped at every store of every change, full memory, and descriptors that are damaged.

use super::journal::tests::stopped_after;
use super::{Entry, Location, PartitionTable, flag};
use crate::shared::{Arena, Identity, SharedStore};
use crate::testing::{Random, TempDirectory};
use perigee_wire::{Digest, PartitionId};
use std::collections::BTreeMap;
use std::sync::Arc;

const PARTITION: u16 = 0x123;
/// Of the arena, more than any table here reaches.
const WINDOW_BYTES: usize = 64 << 10;

fn id() -> PartitionId {
    PartitionId::new(PARTITION).unwrap()
}

fn shared(directory: &TempDirectory) -> SharedStore {
    let identity = Identity {
        namespace: "test".into(),
        store_id: 1,
        paths: vec![],
        block_bytes: 64 << 10,
        devices: vec![(1, 8)],
        buffers_max: 1,
    };
    SharedStore::open(&directory.0, identity).unwrap().0
}

/// One of a few hundred, many of which collide.
fn random_digest(random: &mut Random) -> Digest {
    let lead = [0x00, 0x10, 0x77, 0xF0, 0xFF][random.below(5) as usize];
    let mut digest = [lead; 20];
    digest[0] = PARTITION as u8;
    digest[1] = digest[1] & 0xF0 | (PARTITION >> 8) as u8;
    if random.below(2) == 0 {
        digest[2] = random.below(16) as u8 * 16;
    }
    digest[19] = random.below(8) as u8;
    digest
}

fn entry(digest: Digest, version: u32) -> Entry {
    Entry {
        digest,
        set_id: version as u16 & Entry::SET_ID_MAX,
        generation: version as u16,
        last_update_time: u64::from(version),
        void_time: version,
        location: Location::new(0, u64::from(version), 1 + version),
        flags: flag::XDR_WRITE,
    }
}

type Model = BTreeMap<Digest, Entry>;

/// What another process makes of the memory that is left.
fn attached(shared: &SharedStore) -> Option<PartitionTable> {
    let (from, to) = shared.arena().range();
    let arena = Arc::new(Arena::new(Arc::clone(shared.arena().map()), from, to));
    // SAFETY: in a mapping that `shared` holds; all its fields are atomics.
    let array = PartitionTable::array_bytes(unsafe { shared.descriptor(id()).as_ref() });
    arena
        .adopt(array.into_iter().collect())
        .then(|| PartitionTable::attach(id(), &arena, shared.descriptor(id())))
        .flatten()
}

fn entries(table: &PartitionTable) -> Model {
    table.iter().map(|entry| (entry.digest, entry)).collect()
}

struct Snapshot(Vec<u8>);

/// The descriptor, and the part of the arena that is in use.
fn memory(shared: &SharedStore) -> [(*mut u8, usize); 2] {
    let arena = shared.arena();
    arena
        .map()
        .reserve(arena.range().0, WINDOW_BYTES as u64)
        .unwrap();
    [
        (shared.descriptor(id()).cast().as_ptr(), 128),
        (arena.map().at(arena.range().0).as_ptr(), WINDOW_BYTES),
    ]
}

impl Snapshot {
    fn take(shared: &SharedStore) -> Snapshot {
        let mut bytes = Vec::new();
        for (start, length) in memory(shared) {
            // SAFETY: within the mapping and reserved; nobody changes it meanwhile.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(start, length) });
        }
        Snapshot(bytes)
    }

    fn restore(&self, shared: &SharedStore) {
        let mut from = 0;
        for (start, length) in memory(shared) {
            // SAFETY: as above.
            unsafe { start.copy_from_nonoverlapping(self.0[from..].as_ptr(), length) };
            from += length;
        }
    }
}

/// One change of a random history, as the commit point makes it.
fn change(table: &mut PartitionTable, model: &mut Model, random: &mut Random, version: u32) {
    let digest = random_digest(random);
    if random.below(3) == 0 {
        assert_eq!(table.remove(&digest), model.remove(&digest));
    } else {
        let entry = entry(digest, version);
        let announced = Entry {
            location: Location::new(0, 0, 1),
            ..entry
        };
        table.intend(&announced);
        table.upsert(entry);
        model.insert(digest, entry);
    }
}

/// The process ends after each store of each change in turn: the next one finds the table as it was before the change,
/// perhaps with the intent of it, or after it.
#[test]
fn a_table_is_whole_after_every_single_store() {
    let directory = TempDirectory::in_memory("index-steps");
    let seed = 5;
    println!("seed {seed}");
    let (mut random, mut model) = (Random(seed), Model::new());
    let shared = shared(&directory);
    let mut table = PartitionTable::shared(id(), shared.arena(), shared.descriptor(id()));
    table.settle();
    let mut stops = 0;
    for version in 1..140 {
        let (before, at) = (Snapshot::take(&shared), random.0);
        let mut after = model.clone();
        for steps in 0.. {
            before.restore(&shared);
            let mut table = attached(&shared).expect("the state before");
            let (mut scratch, mut replay) = (model.clone(), Random(at));
            let done = stopped_after(steps, || {
                change(&mut table, &mut scratch, &mut replay, version)
            });
            drop(table);
            let found =
                attached(&shared).unwrap_or_else(|| panic!("version {version} step {steps}"));
            if done.is_some() {
                after = scratch;
                assert_eq!(entries(&found), after, "version {version}");
                assert_eq!(found.intent(), None);
                break;
            }
            stops += 1;
            let now = entries(&found);
            if now == model {
                if let Some(intent) = found.intent() {
                    assert_eq!(intent.last_update_time, u64::from(version));
                }
                continue;
            }
            let (mut done, mut replay) = (model.clone(), Random(at));
            let mut plain = PartitionTable::new(id());
            for entry in model.values() {
                plain.upsert(*entry);
            }
            change(&mut plain, &mut done, &mut replay, version);
            assert_eq!(now, done, "version {version} step {steps}");
            assert_eq!(
                found.intent(),
                None,
                "a change that is complete is no intent"
            );
        }
        before.restore(&shared);
        table = attached(&shared).expect("the state before");
        let mut expected = model.clone();
        change(&mut table, &mut expected, &mut random, version);
        assert_eq!(expected, after);
        model = after;
    }
    assert!(stops > 5_000, "{stops}");
    assert!(model.len() > 30);
}

#[test]
fn damaged_descriptors_and_arrays_are_refused_and_never_believed() {
    let directory = TempDirectory::in_memory("index-damage");
    let seed = 9;
    println!("seed {seed}");
    let (mut random, mut model) = (Random(seed), Model::new());
    let shared = shared(&directory);
    let mut table = PartitionTable::shared(id(), shared.arena(), shared.descriptor(id()));
    table.settle();
    (1..60).for_each(|version| change(&mut table, &mut model, &mut random, version));
    drop(table);
    let good = Snapshot::take(&shared);
    let mut refused = 0;
    for round in 0..1000 {
        let mut bad = Snapshot(good.0.clone());
        // Mostly the descriptor, then the array that is in use.
        let reach = [32, 128, 6000][random.below(3) as usize];
        for _ in 0..1 + random.below(3) {
            let at = random.below(reach) as usize;
            bad.0[at] =
                [0, 1, 4, 0x40, 0x80, 0xFF, random.below(256) as u8][random.below(7) as usize];
        }
        bad.restore(&shared);
        match attached(&shared) {
            None => refused += 1,
            // What cannot be told from a table is still one: sorted, and found again.
            Some(table) => {
                for entry in table.iter() {
                    assert_eq!(table.get(&entry.digest), Some(entry), "round {round}");
                }
            }
        }
    }
    assert!(refused > 200, "{refused}");
    good.restore(&shared);
    assert_eq!(entries(&attached(&shared).unwrap()), model);
}

/// A process that was just killed holds its files a little longer than its devices, and one that starts waits for them.
#[test]
fn files_that_are_in_use_are_waited_for() {
    let directory = TempDirectory::in_memory("index-held");
    let held = shared(&directory);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| shared(&directory));
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!second.is_finished(), "two have the same files");
        drop(held);
        second.join().expect("it has them now");
    });
}

/// Inserts random records up to each of some numbers in turn, and removes them all again. `memory_bytes` is what the tables take
/// of the system.
fn check_memory(mut tables: Vec<PartitionTable>, memory_bytes: impl Fn() -> u64) {
    let seed = 3;
    println!("seed {seed}");
    let before = memory_bytes();
    let mut random = Random(seed);
    let (mut count, mut wanted, mut worst) = (0_u64, 600_000, 0.0_f64);
    while wanted < 1_100_000 {
        while count < wanted {
            let words = [random.next(), random.next(), random.next()];
            let digest: Digest = std::array::from_fn(|i| words[i / 8].to_le_bytes()[i % 8]);
            let at = perigee_wire::partition_of(&digest).index();
            count += u64::from(tables[at].upsert(entry(digest, 1)).is_none());
        }
        let bytes = memory_bytes() - before;
        worst = worst.max(bytes as f64 / count as f64);
        assert!(bytes <= 64 * count, "{bytes} bytes for {count} records");
        wanted += wanted / 50;
    }
    println!("at most {worst:.1} bytes a record");
    let full = memory_bytes();
    for table in &mut tables {
        let digests: Vec<Digest> = table.iter().map(|entry| entry.digest).collect();
        for digest in &digests {
            table.remove(digest);
        }
    }
    let left = memory_bytes() - before;
    assert!(left * 4 < full, "{left} of {full} bytes stay");
}

/// Tables grow together, as digests are uniform, so it is looked at while they do.
#[test]
fn an_index_in_shared_memory_takes_at_most_64_bytes_a_record() {
    let directory = TempDirectory::in_memory("index-bytes");
    let shared = shared(&directory);
    let mut tables: Vec<PartitionTable> = PartitionId::all()
        .map(|id| PartitionTable::shared(id, shared.arena(), shared.descriptor(id)))
        .collect();
    tables.iter_mut().for_each(PartitionTable::settle);
    check_memory(tables, || shared.arena().map().memory_bytes());
}

#[test]
fn an_index_of_one_process_takes_at_most_64_bytes_a_record() {
    let arena = Arc::new(Arena::anonymous(1 << 30).expect("address space"));
    let mut tables = PartitionTable::all_in(Some(Arc::clone(&arena)));
    tables.iter_mut().for_each(PartitionTable::settle);
    check_memory(tables, || arena.map().memory_bytes());
}

#[test]
fn address_space_that_is_not_to_be_had_is_an_error() {
    assert!(Arena::anonymous(1 << 60).is_err());
}

/// An arena without room for all arrays: those that grow are on the heap then, others stay, and all is found.
#[test]
fn a_full_arena_leaves_tables_whole() {
    let seed = 8;
    println!("seed {seed}");
    let arena = Arc::new(Arena::anonymous(64 << 10).expect("address space"));
    let mut tables = PartitionTable::all_in(Some(Arc::clone(&arena)));
    let mut tables = tables.split_off(tables.len() - 4);
    let (mut random, mut model) = (Random(seed), Model::new());
    for version in 0..2400 {
        if version == 200 {
            tables.iter_mut().for_each(PartitionTable::settle);
        }
        let at = random.below(4) as usize;
        let mut digest: Digest = std::array::from_fn(|_| random.below(256) as u8);
        digest[..2].copy_from_slice(&tables[at].id().get().to_le_bytes());
        if version % 7 == 0
            && let Some(digest) = model.keys().next().copied()
        {
            let table = &mut tables[perigee_wire::partition_of(&digest).index() - 4092];
            assert_eq!(table.remove(&digest), model.remove(&digest));
        }
        tables[at].upsert(entry(digest, version));
        model.insert(digest, entry(digest, version));
    }
    assert!(
        tables.iter().any(|table| !table.is_whole()),
        "it was large enough"
    );
    let mut found = Model::new();
    tables.iter().for_each(|table| found.extend(entries(table)));
    assert_eq!(found, model);
    assert!(arena.map().memory_bytes() <= 64 << 10);
}
