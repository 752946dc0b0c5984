//! Free blocks: where they come from, and what happens without them.

use super::*;

fn fill(node: &Node, bytes: usize) -> Key {
    fill_from(node, 0, bytes)
}

/// Puts records from `key` on until the store is full, and says which was refused.
fn fill_from(node: &Node, mut key: Key, bytes: usize) -> Key {
    loop {
        match node.put(key, 1, bytes) {
            Ok(_) => key += 1,
            Err(AppendError::Overload) => std::thread::sleep(Duration::from_micros(100)),
            Err(AppendError::Full) => return key,
            Err(error) => panic!("{error}"),
        }
    }
}

fn every_medium(blocks: usize) -> Vec<Node> {
    every_medium_of(blocks, BLOCK_BYTES)
}

/// Memory first.
fn every_medium_of(blocks: usize, block_bytes: usize) -> Vec<Node> {
    let data_size = (blocks * block_bytes) as u64;
    let sized = |config: StoreConfig| StoreConfig {
        write_block_bytes: block_bytes as u32,
        write_cache_bytes_max: 4 * block_bytes as u64,
        ..config
    };
    let memory = StoreConfig {
        medium: MediumConfig::Memory { data_size },
        ..sized(config())
    };
    let both = StoreConfig {
        in_memory: true,
        ..sized(committing())
    };
    let disk = || disk(blocks * block_bytes / BLOCK_BYTES, 1);
    vec![
        Node::started(Store::open(memory).unwrap()).0,
        Node::open(sized(config()), vec![disk()]).0,
        Node::open(sized(committing()), vec![disk()]).0,
        Node::open(both, vec![disk()]).0,
    ]
}

#[test]
fn full_store_refuses_and_recovers_after_releases() {
    for node in every_medium(12) {
        let keys = fill(&node, 500);
        assert!(keys > 200, "{keys}");
        assert_eq!(node.store.stats().avail_pct, 0);
        node.read_all();
        for key in 0..keys / 2 {
            node.remove(key);
        }
        for key in 0..keys / 3 {
            node.put_patiently(key, 2, 500).unwrap();
        }
        node.read_all();
        node.check_used_bytes();
    }
}

#[test]
fn full_store_of_blocks_above_the_low_water_mark_is_compacted() {
    for node in every_medium(12) {
        let keys = fill(&node, 500);
        // A third of every block: none falls below half.
        for key in (0..keys).step_by(3) {
            node.remove(key);
        }
        for key in (0..keys).step_by(4) {
            node.put_patiently(key, 2, 500).unwrap();
        }
        node.read_all();
        node.check_used_bytes();
        assert!(node.store.stats().defrag_writes > 0);
    }
}

/// Flushes everything after each copy, as if `flush-max` passed there.
struct Flushing(Mover);

impl Relocate for Flushing {
    fn relocate(&self, digest: &Digest, from: Location, image: &mut Vec<u8>) -> bool {
        let moved = self.0.relocate(digest, from, image);
        if let Some(store) = self.0.store.upgrade() {
            store.devices[0].flush(flush::Group::All);
        }
        moved
    }
}

/// Copies that were padded in the middle of a compaction took more room than their block had given: the last free block
/// was full before it was empty, and then nothing could ever be compacted again.
#[test]
fn flushes_between_the_copies_of_a_block_do_not_use_up_the_last_free_block() {
    let (node, _) = Node::scanned(Store::open_on(config(), vec![disk(12, 1)]).unwrap());
    let mover = Mover {
        store: Arc::downgrade(&node.store),
        map: Arc::clone(&node.map),
    };
    let sink = Arc::clone(&node.acks);
    node.store.start(Arc::new(Flushing(mover)), sink);
    let keys = fill(&node, 500);
    for key in (0..keys).step_by(3) {
        node.remove(key);
    }
    for key in (0..keys).step_by(4) {
        node.put_patiently(key, 2, 500).unwrap();
    }
    node.read_all();
    node.check_used_bytes();
    node.end();
}

/// Copies are padded when they are flushed. A full store compacted them for that padding, and padded them again.
#[test]
fn full_store_that_nobody_writes_to_is_not_compacted_for_ever() {
    const BLOCKS: usize = 12;
    for node in every_medium(BLOCKS) {
        let keys = fill(&node, 500);
        for key in (0..keys).step_by(3) {
            node.remove(key);
        }
        let taken = fill_from(&node, keys, 500);
        assert!(taken > keys, "{keys}: {:?}", node.store.stats());
        let (mut before, mut calm) = (u64::MAX, 0);
        while calm < 50 {
            std::thread::sleep(Duration::from_millis(1));
            let reads = node.store.stats().defrag_reads;
            calm = if reads == before { calm + 1 } else { 0 };
            before = reads;
            // 256 blocks for their padding, as often as a write took what that gained.
            assert!(reads < 5000, "{:?}", node.store.stats());
        }
    }
}

/// Blocks were gained in bursts when writes had none left, and those that were empty waited for a flush to come.
#[test]
fn overwrites_of_a_store_that_is_four_fifths_full_are_not_refused() {
    const BLOCKS: usize = 65;
    // As with the blocks in use, little of one is padding.
    const BLOCK_BYTES: usize = 256 << 10;
    const RECORD_BYTES: usize = 1000;
    let rarely = StoreConfig {
        write_block_bytes: BLOCK_BYTES as u32,
        write_cache_bytes_max: 8 * BLOCK_BYTES as u64,
        flush_max: Duration::from_secs(3600),
        ..config()
    };
    let memory = StoreConfig {
        medium: MediumConfig::Memory {
            data_size: (BLOCKS * BLOCK_BYTES) as u64,
        },
        ..rarely.clone()
    };
    let on_disk = Node::open(rarely, vec![disk(BLOCKS * 16, 1)]).0;
    for node in [Node::started(Store::open(memory).unwrap()).0, on_disk] {
        let total = node.store.stats().total_bytes;
        let image_bytes = image_of(0, 1, RECORD_BYTES).len() as u64;
        let keys = total * 4 / 5 / image_bytes;
        let device = &node.store.devices[0];
        let unit = device.config.flush_size_bytes as usize;
        // The writer leaves the store the time that it needs: no more room than it keeps is taken, nor blocks that are
        // about to be free.
        let wait = || {
            for _ in 0..10_000 {
                let state = device.state.lock();
                let frees = device.is_low(&state) && !state.retired.is_empty();
                // Defragmentation is woken with every flush unit that is written.
                let short = device.room(&state) + unit < device.room_kept();
                if !frees && !short && state.unwritten < 4 {
                    return;
                }
                drop(state);
                std::thread::sleep(Duration::from_micros(100));
            }
            panic!("no room: {:?}", node.store.stats());
        };
        let mut refused = 0;
        let mut put = |key: u64, version: u64| {
            wait();
            while let Err(error) = node.put(key as Key, version, RECORD_BYTES) {
                assert_eq!(error, AppendError::Overload);
                refused += 1;
                std::thread::yield_now();
            }
        };
        (0..keys).for_each(|key| put(key, 1));
        let mut random = Random(4);
        let mut version = 1;
        let mut overwrite = |bytes: u64| {
            for _ in 0..bytes / image_bytes {
                version += 1;
                put(random.below(keys), version);
            }
            node.store.stats()
        };
        let before = overwrite(total);
        let after = overwrite(3 * total);
        let copied = after.defrag_write_bytes - before.defrag_write_bytes;
        let written = after.write_bytes - before.write_bytes;
        let amplification = 1.0 + copied as f64 / written as f64;
        assert_eq!(refused, 0, "{after:?}");
        // Of 64 blocks, five are kept free: the rest is 0.87 full, which costs 3.9 where blocks are emptied in turn. On
        // the disk, padding and blocks that wait for a flush take some more room.
        assert!(amplification < 5.0, "{amplification}: {after:?}");
        node.check_used_bytes();
        node.end();
    }
}

#[test]
fn updates_outlast_the_device_many_times_over() {
    for node in every_medium(10) {
        let mut random = Random(6);
        for version in 0..6000 {
            node.put_patiently(random.below(60) as Key, version, 700)
                .unwrap();
        }
        node.read_all();
        node.check_used_bytes();
        let stats = node.store.stats();
        assert!(stats.write_bytes > 20 * stats.total_bytes, "{stats:?}");
    }
}

/// Between two compactions a write could be told that there is no room at all.
#[test]
fn store_with_dead_bytes_to_gain_is_never_full() {
    for node in every_medium(40) {
        let mut random = Random(8);
        for key in 0..600 {
            node.put_patiently(key, 1, 700).unwrap();
        }
        for version in 2..6000 {
            let key = random.below(600) as Key;
            loop {
                match node.put(key, version, 700) {
                    Ok(_) => break,
                    Err(AppendError::Overload) => std::thread::yield_now(),
                    Err(error) => panic!("version {version}: {error}, {:?}", node.store.stats()),
                }
            }
        }
        node.check_used_bytes();
    }
}

#[test]
fn few_sparse_blocks_wait_until_they_are_more() {
    let patient = StoreConfig {
        defrag_queue_min: 4.into(),
        ..config()
    };
    let (node, _) = Node::open(patient, vec![disk(40, 1)]);
    for key in 0..120 {
        node.put_patiently(key, 1, 900).unwrap();
    }
    node.store.drain().unwrap();
    // Blocks hold sixteen records: three become sparse, then a fourth.
    let empty = |range: std::ops::Range<Key>| {
        range
            .filter(|key| key % 16 > 3)
            .for_each(|key| node.remove(key));
    };
    empty(0..48);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(node.store.stats().defrag_reads, 0);
    empty(48..100);
    node.wait_until("compaction", |stats| stats.defrag_reads > 0);
}

#[test]
fn sparse_blocks_are_compacted_without_being_asked() {
    for node in every_medium(32) {
        for key in 0..200 {
            node.put_patiently(key, 1, 900).unwrap();
        }
        for key in (0..200).filter(|key| key % 5 > 0) {
            node.remove(key);
        }
        // Of twelve blocks and an open one, the 40 records left need three.
        let stats = node.wait_until("compaction", |stats| stats.free_blocks >= 31 - 6);
        assert!(stats.defrag_writes > 0);
        node.read_all();
        node.check_used_bytes();
    }
}

#[test]
fn a_raised_low_water_mark_reaches_blocks_that_were_below_it_before() {
    let never = StoreConfig {
        defrag_lwm_pct: 0,
        ..config()
    };
    let (node, _) = Node::open(never, vec![disk(32, 1)]);
    for key in 0..200 {
        node.put_patiently(key, 1, 900).unwrap();
    }
    for key in (0..200).filter(|key| key % 5 > 0) {
        node.remove(key);
    }
    node.store.drain().unwrap();
    assert_eq!(node.store.stats().defrag_queue_blocks, 0);
    node.store.set_defrag_pace(DefragPace {
        lwm_pct: 50,
        sleep: Duration::ZERO,
        queue_min: 0,
    });
    let stats = node.wait_until("compaction", |stats| stats.free_blocks >= 31 - 6);
    assert!(stats.defrag_writes > 0);
    node.read_all();
}

#[test]
fn block_is_not_reused_before_what_replaced_its_records_is_durable() {
    let disk = disk(16, 1);
    let lazy = StoreConfig {
        flush_max: Duration::from_secs(3600),
        // A block is not retired while it is being compacted.
        defrag_lwm_pct: 0,
        ..config()
    };
    let (node, _) = Node::open(lazy, vec![disk.clone()]);
    for key in 0..15 {
        node.put(key, 1, 1000).unwrap();
    }
    node.put(100, 1, 1000).unwrap();
    node.store.drain().unwrap();
    node.wait_until("first block written", |stats| stats.write_queue_blocks == 0);
    let free = node.store.stats().free_blocks;
    for key in 0..5 {
        node.put(key, 2, 1000).unwrap();
    }
    for key in 5..15 {
        node.put(key, 2, 200).unwrap();
    }
    let stats = node.store.stats();
    assert_eq!((stats.retired_blocks, stats.free_blocks), (1, free));
    node.store.drain().unwrap();
    let stats = node.wait_until("freeing", |stats| stats.retired_blocks == 0);
    assert_eq!(stats.free_blocks, free + 1);
}

#[test]
fn block_is_not_compacted_before_it_is_durable() {
    let lazy = StoreConfig {
        flush_max: Duration::from_secs(3600),
        ..config()
    };
    let (node, _) = Node::open(lazy, vec![disk(16, 1)]);
    let syncs = node.store.stats().syncs;
    for key in 0..16 {
        node.put(key, 1, 1000).unwrap();
    }
    node.wait_until("first block written", |stats| {
        stats.flush_bytes == BLOCK_BYTES as u64
    });
    (0..12).for_each(|key| node.remove(key));
    std::thread::sleep(Duration::from_millis(20));
    let stats = node.store.stats();
    assert_eq!(
        (stats.syncs, stats.defrag_queue_blocks, stats.defrag_reads),
        (syncs, 1, 0)
    );
    node.store.drain().unwrap();
    node.wait_until("compaction", |stats| stats.defrag_writes == 3);
}

#[test]
fn store_whose_blocks_are_about_to_be_free_is_overloaded_and_not_full() {
    let disk = disk(8, 1);
    let wide = StoreConfig {
        write_cache_bytes_max: 16 * BLOCK_BYTES as u64,
        defrag_lwm_pct: 0,
        ..config()
    };
    let (node, _) = Node::open(wide, vec![disk.clone()]);
    let keys = fill(&node, 1000);
    node.store.drain().unwrap();
    assert_eq!(node.put(keys, 1, 1000), Err(AppendError::Full));
    disk.hold();
    (0..15).for_each(|key| node.remove(key));
    node.wait_until("retired block", |stats| stats.retired_blocks == 1);
    assert_eq!(node.put(keys, 1, 1000), Err(AppendError::Overload));
    disk.let_go();
    node.put_patiently(keys, 1, 1000).unwrap();
}

/// Compaction stood back for a device that was behind, which writers that never pause keep it.
#[test]
fn compaction_goes_on_when_blocks_run_out_though_the_device_is_behind() {
    let disk = disk(12, 1);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    let keys = fill(&node, 1000);
    node.store.drain().unwrap();
    node.wait_until("calm", |stats| stats.write_queue_blocks == 0);
    let device = &node.store.devices[0];
    // As if the write queue were kept above its half by writers.
    let queued = 3;
    device.state.lock().unwritten += queued;
    (0..keys)
        .filter(|key| key % 3 > 0)
        .for_each(|key| node.remove(key));
    node.wait_until("compaction", |stats| stats.free_blocks >= 3);
    device.state.lock().unwritten -= queued;
    node.check_used_bytes();
}

#[test]
fn device_that_is_behind_does_not_keep_another_from_being_compacted() {
    let disks: Vec<Arc<FaultyMedium>> = (0..2).map(|seed| disk(16, seed)).collect();
    let media = disks.iter().map(|disk| disk.clone() as _).collect();
    let (node, _) = Node::open(config(), media);
    for key in 0..200 {
        node.put_patiently(key, 1, 900).unwrap();
    }
    node.store.drain().unwrap();
    let behind = &node.store.devices[0];
    behind.state.lock().unwritten += 3;
    let device_of = |key: &Key| node.map.lock()[key].location.device();
    let removed: Vec<Key> = (0..200).filter(|key| key % 5 > 0).collect();
    // First those of the device that is behind, which has its turn first.
    for device in 0..2 {
        let of_device: Vec<Key> = removed
            .iter()
            .copied()
            .filter(|key| node.version(*key).is_some() && device_of(key) == device)
            .collect();
        of_device.into_iter().for_each(|key| node.remove(key));
    }
    let free = |device: usize| node.store.devices[device].state.lock().free.len();
    node.wait_until("compaction of the other", |_| free(1) >= 15 - 3);
    behind.state.lock().unwritten -= 3;
    node.store.drain().unwrap();
    node.put_patiently(0, 2, 900).unwrap();
    node.store.drain().unwrap();
    node.wait_until("compaction of the first", |_| free(0) >= 15 - 4);
    node.check_used_bytes();
}

const REFUSED_KEY: Key = 13;

/// Refuses the first copy of a record for want of blocks, which there are again before it says so.
struct RefusedOnce {
    mover: Mover,
    refused: AtomicBool,
}

impl Relocate for RefusedOnce {
    fn relocate(&self, digest: &Digest, from: Location, image: &mut Vec<u8>) -> bool {
        let is_chosen = key_of(digest) == REFUSED_KEY;
        if !is_chosen || self.refused.swap(true, Ordering::Relaxed) {
            return self.mover.relocate(digest, from, image);
        }
        let store = self.mover.store.upgrade().unwrap();
        let device = &store.devices[0];
        let mut state = device.state.lock();
        let free = std::mem::take(&mut state.free);
        let open = state.streams[device::Stream::Defrag as usize].open.take();
        drop(state);
        assert!(store.append_relocated(image).is_err());
        let mut state = device.state.lock();
        state.free = free;
        state.streams[device::Stream::Defrag as usize].open = open;
        false
    }
}

/// A refused copy was told from a dead record by looking for room afterwards: where a block became
/// free meanwhile, the record's block was never compacted again.
#[test]
fn block_of_a_refused_copy_is_compacted_later_though_there_is_room_by_then() {
    // As long as defragmentation pauses when a copy found no room.
    let rarely = StoreConfig {
        flush_max: Duration::from_secs(1),
        ..config()
    };
    let (node, _) = Node::scanned(Store::open_on(rarely, vec![disk(16, 1)]).unwrap());
    let mover = Mover {
        store: Arc::downgrade(&node.store),
        map: Arc::clone(&node.map),
    };
    let relocator = RefusedOnce {
        mover,
        refused: AtomicBool::new(false),
    };
    let sink = Arc::clone(&node.acks);
    node.store.start(Arc::new(relocator), sink);
    for key in 0..20 {
        node.put(key, 1, 1000).unwrap();
    }
    node.store.drain().unwrap();
    let location = || node.map.lock()[&REFUSED_KEY].location;
    let before = location();
    (0..12).for_each(|key| node.remove(key));
    node.wait_until("compaction", |_| location() != before);
    node.read_all();
    node.check_used_bytes();
}

#[test]
fn blocks_with_nothing_to_gain_are_left_alone() {
    // Two large records never share a block, so each block is below the low-water mark for ever.
    let lwm = StoreConfig {
        defrag_lwm_pct: 90,
        ..config()
    };
    let (node, _) = Node::open(lwm, vec![disk(16, 1)]);
    for key in 0..8 {
        node.put_patiently(key, 1, 9000).unwrap();
        node.store.drain().unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(node.store.stats().defrag_reads, 0);
}

#[test]
fn damaged_record_does_not_occupy_the_defragmentation() {
    let disk = disk(16, 1);
    let plain = StoreConfig {
        post_write_cache_bytes: 0,
        ..unhurried()
    };
    let (node, _) = Node::open(plain, vec![disk.clone()]);
    for key in 0..15 {
        node.put(key, 1, 1000).unwrap();
    }
    for key in 20..35 {
        node.put(key, 1, 1000).unwrap();
    }
    node.store.drain().unwrap();
    let damaged = node.map.lock()[&4].location;
    disk.inject(Fault::FlipBit {
        offset: damaged.offset() + 70,
        bit: 1,
    });
    node.remove_all((0..15).filter(|key| ![4, 7, 9].contains(key)));
    node.wait_until("compaction", |stats| stats.defrag_writes >= 2);
    std::thread::sleep(Duration::from_millis(30));
    let stats = node.store.stats();
    assert_eq!(
        (stats.damaged, stats.defrag_writes, stats.defrag_reads),
        (1, 2, 1)
    );
    assert_eq!((node.read(7), node.read(9)), (Some(1), Some(1)));
    // Its block is free once the damaged record is replaced.
    let open = node.map.lock()[&34].location.offset() / BLOCK_BYTES as u64;
    node.put(4, 2, 100).unwrap();
    let now = node.map.lock()[&4].location.offset() / BLOCK_BYTES as u64;
    node.store.drain().unwrap();
    let expected = stats.free_blocks + 1 - u64::from(now != open);
    node.wait_until("freeing", |stats| stats.free_blocks == expected);
}

#[test]
fn record_larger_than_a_block_is_refused() {
    let (node, _) = Node::open(config(), vec![disk(8, 1)]);
    let most = node.store.record_bytes_max();
    assert_eq!(most, BLOCK_BYTES - 32);
    assert!(node.put(1, 1, most - OVERHEAD_BYTES).is_ok());
    assert_eq!(
        node.put(2, 1, most - OVERHEAD_BYTES + 1),
        Err(AppendError::TooBig)
    );
    node.store.drain().unwrap();
    assert_eq!(node.read(1), Some(1));
}

#[test]
fn readers_and_writers_and_defragmentation_agree() {
    for node in every_medium(12) {
        std::thread::scope(|scope| {
            let node = &node;
            for thread in 0..2_u64 {
                scope.spawn(move || {
                    let mut random = Random(thread);
                    for version in 0..3000 {
                        // Each thread has keys of its own, so that versions only grow.
                        let key = random.below(30) as Key * 2 + thread as Key;
                        node.put_patiently(key, version, 400 + version as usize % 500)
                            .unwrap();
                    }
                });
                scope.spawn(move || {
                    let mut random = Random(thread + 9);
                    for _ in 0..20_000 {
                        node.read(random.below(60) as Key);
                    }
                });
            }
        });
        node.check_used_bytes();
        node.store.drain().unwrap();
        node.read_all();
    }
}

/// Every durable delete needs room for its tombstone, and a store without any refused them all.
#[test]
fn completely_full_store_takes_a_tombstone_for_every_record_and_recovers() {
    // Blocks of which a compaction pads little, unlike the others here.
    for (blocks, bytes) in [(12, 500), (12, 90), (24, 900)] {
        for (medium, node) in every_medium_of(blocks, 256 << 10).iter().enumerate() {
            let keys = fill(node, bytes);
            assert!(node.put(keys, 1, bytes).is_err());
            // One of every block, and the next of every block, is what gains least of each.
            let stride = keys / blocks as Key + 1;
            let order = (0..stride).flat_map(|from| (from..keys).step_by(stride as usize));
            for (taken, key) in order.enumerate() {
                let mut tries = 0;
                while let Err(error) = node.entomb(key, 2) {
                    // Of the others, the last block may be in use by a compaction.
                    assert!(medium > 0 || taken > 0, "the first finds room: {error}");
                    tries += 1;
                    assert!(tries < 5000, "after {taken}: {:?}", node.store.stats());
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            for key in 0..keys / 4 {
                node.put_patiently(key, 3, bytes).unwrap();
            }
            node.read_all();
            node.check_used_bytes();
        }
    }
}

#[test]
fn records_stay_out_of_the_block_that_is_kept_for_tombstones() {
    // In memory, where no padding is to be gained by compacting.
    let node = every_medium(12).swap_remove(0);
    let keys = fill(&node, 500);
    node.entomb(0, 2).unwrap();
    // There is room in its block, but too little died to free another.
    for key in keys..keys + 30 {
        assert_eq!(node.put(key, 1, 300), Err(AppendError::Full));
    }
    for key in 1..keys {
        assert!(node.entomb(key, 2).is_ok(), "{key} of {keys}");
    }
    node.put_patiently(keys, 1, 300).unwrap();
    node.check_used_bytes();
}
