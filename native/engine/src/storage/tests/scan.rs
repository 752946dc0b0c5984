//! What a scan finds does not depend on the order in which blocks arrive.

use super::*;

/// A store after a random history that ends in a power cut, with copies whose originals are there still.
fn cut_history(seed: u64) -> Arc<FaultyMedium> {
    let mut random = Random(seed);
    let disk = disk(24, seed);
    for _ in 0..1 + random.below(3) {
        let (node, _) = Node::open(config(), vec![disk.clone()]);
        disk.inject(Fault::PowerCut {
            nth: 5 + random.below(60),
        });
        while !disk.is_cut() {
            let (key, bytes) = (random.below(60) as Key, random.below(1500) as usize);
            let version = node.version(key).unwrap_or(0) + 1;
            if random.below(10) == 0 {
                node.remove(key);
            } else if node.put_patiently(key, version, bytes).is_none() {
                break;
            }
        }
        node.end();
        disk.restart();
    }
    disk
}

fn scanned(
    disk: &Arc<FaultyMedium>,
    threads: usize,
    arrange: impl FnOnce(&mut [super::super::scan::Found]),
) -> (BTreeMap<Key, Held>, Vec<usize>, ScanReport) {
    let node = Node {
        store: Arc::new(Store::open_on(config(), vec![disk.clone() as _]).unwrap()),
        map: Arc::default(),
        acks: Arc::default(),
    };
    let progress = OpenProgress::default();
    let scan = node.store.scan_with(&node, &progress, threads, arrange);
    let report = scan.unwrap();
    let snapshot = progress.snapshot();
    assert_eq!(snapshot.bytes_read, snapshot.bytes_total);
    assert_eq!(snapshot.records, report.images);
    let device = &node.store.devices[0];
    let live = (0..device.blocks.len() as u32).map(|block| device.live(block));
    let found = (node.map.lock().clone(), live.collect(), report);
    node.check_used_bytes();
    found
}

#[test]
fn any_order_of_blocks_and_any_number_of_threads_give_the_same_index() {
    let mut copies = 0;
    for seed in 0..40 {
        let disk = cut_history(seed);
        let expected = scanned(&disk, 1, |_| {});
        let mut random = Random(seed);
        for threads in [1, 4, 4] {
            let shuffle = |found: &mut [super::super::scan::Found]| {
                for i in (1..found.len()).rev() {
                    found.swap(i, random.below(i as u64 + 1) as usize);
                }
            };
            let found = scanned(&disk, threads, shuffle);
            assert_eq!(found, expected, "seed {seed}, {threads} threads");
        }
        copies += expected.2.images - expected.0.len() as u64;
    }
    assert!(copies > 1000, "only {copies} images to choose from");
}

/// Two images of one version: whichever comes first, the one in the block that was opened first stays.
#[test]
fn original_is_kept_and_not_its_copy() {
    let disk = disk(8, 1);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    node.put(1, 1, 3000).unwrap();
    let original = node.map.lock()[&1].location;
    node.store.drain().unwrap();
    node.store
        .append_relocated(&mut image_of(1, 1, 3000))
        .unwrap();
    node.store.drain().unwrap();
    disk.cut_power();
    node.end();
    disk.restart();
    for reverse in [false, true] {
        let arrange = |found: &mut [super::super::scan::Found]| {
            if reverse {
                found.reverse();
            }
        };
        let (map, live, report) = scanned(&disk, 1, arrange);
        assert_eq!(report.images, 2);
        assert_eq!(map[&1].location, original, "reverse {reverse}");
        assert_eq!(live.iter().filter(|live| **live > 0).count(), 1);
    }
}
