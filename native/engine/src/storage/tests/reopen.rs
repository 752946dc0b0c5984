//! What a store finds when it opens again.

use super::*;

#[test]
fn reopen_restores_every_durable_record_and_the_newest_version_only() {
    let file = TempFile::new("reopen");
    let mut expected = BTreeMap::new();
    for round in 0..4 {
        let (node, report) = Node::started(Store::open(file.config(24)).unwrap());
        assert_eq!(report.damaged, 0);
        assert_eq!(node.versions(), expected);
        node.check_used_bytes();
        node.read_all();
        for i in 0..200 {
            let (key, version) = (i * 7 % 60, (round * 1000 + i) as u64);
            node.put_patiently(key, version, 100 + i as usize * 3)
                .unwrap();
            expected.insert(key, version);
        }
        node.store.close();
        node.store.close();
        assert_eq!(node.put(1, 1, 1), Err(AppendError::DeviceFailed));
    }
}

#[test]
fn drained_records_survive_without_a_close() {
    let disk = disk(16, 1);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    for key in 0..50 {
        node.put(key, 1, 300).unwrap();
    }
    node.store.drain().unwrap();
    disk.cut_power();
    disk.restart();
    let (reopened, report) = Node::open(config(), vec![disk]);
    assert_eq!(reopened.versions(), node.versions());
    assert_eq!(report.damaged, 0);
}

#[test]
fn sequences_are_never_used_twice() {
    let disk = disk(12, 4);
    let mut used = 0;
    for life in 0..5 {
        let (node, _) = Node::open(config(), vec![disk.clone()]);
        let next = || node.store.devices[0].state.lock().next_sequence;
        assert!(next() > used, "life {life}");
        // As if a lease were nearly used up: the next one is taken in time.
        node.store.devices[0].state.lock().next_sequence += flush::SEQUENCE_LEASE - 2;
        let limit = || node.store.devices[0].state.lock().sequence_limit;
        let leased = limit();
        while limit() == leased {
            node.put_patiently(1, 1, 3000).unwrap();
        }
        // Power fails while blocks are being written whose headers were never synced.
        disk.inject(Fault::PowerCut { nth: 4 + life });
        while node.put_patiently(1, 1, 3000).is_some() {}
        used = next();
        node.end();
        disk.restart();
    }
}

#[test]
fn records_of_many_devices_stay_on_their_device() {
    let disks: Vec<Arc<dyn Medium>> = (0..3).map(|seed| disk(16, seed) as _).collect();
    let (node, _) = Node::open(config(), disks.clone());
    for version in 0..3 {
        for key in 0..100 {
            let before = node.map.lock().get(&key).map(|held| held.location.device());
            node.put_patiently(key, version, 200).unwrap();
            let after = node.map.lock()[&key].location.device();
            assert!(before.is_none_or(|before| before == after));
        }
    }
    node.store.close();
    let (reopened, _) = Node::open(config(), disks.clone());
    assert_eq!(reopened.versions(), node.versions());
    reopened.store.close();

    let swapped = vec![disks[1].clone(), disks[0].clone(), disks[2].clone()];
    let refused = Store::open_on(config(), swapped).err().unwrap();
    assert!(
        matches!(
            refused,
            OpenError::Mismatch {
                what: "device index",
                ..
            }
        ),
        "{refused}"
    );
    let refused = Store::open_on(config(), disks[..2].to_vec()).err().unwrap();
    assert!(
        matches!(
            refused,
            OpenError::Mismatch {
                what: "device count",
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn stale_bytes_of_a_former_life_are_not_data() {
    let disk = disk(6, 2);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    // Fill two blocks with many small records, replace them, and let one large record be all that
    // the same blocks hold in their next life.
    for version in 0..40 {
        for key in 0..60 {
            node.put_patiently(key, version, 100).unwrap();
        }
    }
    for key in 0..60 {
        node.remove(key);
    }
    node.store.drain().unwrap();
    for version in 100..110 {
        node.put_patiently(200, version, 9000).unwrap();
        node.store.drain().unwrap();
    }
    node.store.close();

    let (reopened, report) = Node::scanned(Store::open_on(config(), vec![disk]).unwrap());
    assert_eq!(report.damaged, 0);
    assert_eq!(reopened.version(200), Some(109));
    // Each of the four blocks holds the images of one life: of small records there are either none
    // or what a whole block of them has, and no block has both kinds.
    let seen: Vec<(Key, u32)> = {
        let blocks = reopened.map.lock();
        blocks
            .iter()
            .map(|(key, held)| (*key, (held.location.offset() / BLOCK_BYTES as u64) as u32))
            .collect()
    };
    let large = seen.iter().find(|(key, _)| *key == 200).unwrap().1;
    assert!(
        seen.iter()
            .all(|(key, block)| *key == 200 || *block != large),
        "{seen:?}"
    );
}

#[test]
fn bit_flip_is_counted_and_skipped_and_the_neighbours_survive() {
    let disk = disk(8, 3);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    for key in 0..100 {
        node.put(key, 1, 200).unwrap();
    }
    node.store.drain().unwrap();
    let victim = node.map.lock()[&41].location;
    node.store.close();

    disk.inject(Fault::FlipBit {
        offset: victim.offset() + 60,
        bit: 3,
    });
    let (reopened, report) = Node::open(config(), vec![disk]);
    assert_eq!(report.damaged, 1);
    assert_eq!(reopened.store.stats().damaged, 1);
    let mut expected = node.versions();
    expected.remove(&41);
    assert_eq!(reopened.versions(), expected);
    reopened.read_all();
}

#[test]
fn flipped_bit_in_a_size_does_not_hide_the_neighbours() {
    let disk = disk(8, 3);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    for key in 0..100 {
        node.put(key, 1, 200).unwrap();
    }
    node.store.drain().unwrap();
    let victim = node.map.lock()[&10].location;
    node.store.close();

    disk.inject(Fault::FlipBit {
        offset: victim.offset() + 4,
        bit: 5,
    });
    let (reopened, report) = Node::open(config(), vec![disk]);
    assert_eq!(report.damaged, 1);
    assert_eq!(reopened.versions().len(), 99);
}

#[test]
fn block_with_a_damaged_header_keeps_its_records() {
    let disk = disk(8, 4);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    for key in 0..100 {
        node.put(key, 1, 200).unwrap();
    }
    let block = node.map.lock()[&0].location.offset() / BLOCK_BYTES as u64;
    node.store.close();

    disk.inject(Fault::FlipBit {
        offset: block * BLOCK_BYTES as u64 + 9,
        bit: 0,
    });
    let (reopened, report) = Node::open(config(), vec![disk]);
    assert_eq!(report.damaged, 1);
    assert_eq!(reopened.versions(), node.versions());
}

#[test]
fn unreadable_page_is_counted_and_costs_only_its_records() {
    let disk = disk(8, 5);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    for key in 0..100 {
        node.put(key, 1, 200).unwrap();
    }
    node.store.drain().unwrap();
    let victim = node.map.lock()[&30].location;
    node.store.close();

    disk.inject(Fault::FailRead {
        offset: victim.offset(),
    });
    let (reopened, report) = Node::open(config(), vec![disk]);
    assert_eq!(report.read_errors, 1);
    assert_eq!(report.damaged, 1);
    assert_eq!(reopened.version(30), None);
    let lost = 100 - reopened.versions().len();
    let most = medium::PAGE_BYTES / victim.bytes() + 2;
    assert!((1..=most).contains(&lost), "{lost} of at most {most}");
}

#[test]
fn foreign_file_is_refused_and_untouched() {
    let file = TempFile::new("foreign");
    for bytes in [b"precious".repeat(10_000), b"short".to_vec()] {
        std::fs::write(&file.0, &bytes).unwrap();
        let refused = Store::open(file.config(8)).err().unwrap();
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
        assert_eq!(std::fs::read(&file.0).unwrap(), bytes);
    }
    std::fs::write(&file.0, vec![0; 9 * BLOCK_BYTES]).unwrap();
    let refused = Store::open(file.config(8)).err().unwrap();
    assert!(
        refused.to_string().contains("the configured size is"),
        "{refused}"
    );
    assert_eq!(
        std::fs::metadata(&file.0).unwrap().len(),
        9 * BLOCK_BYTES as u64
    );
}

/// The header page with other bytes at `at`, and a checksum that fits.
fn with_header(device: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = device.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    let checksum = crc32c::crc32c(&changed[12..512]);
    changed[8..12].copy_from_slice(&checksum.to_le_bytes());
    changed
}

#[test]
fn device_of_another_store_is_refused_and_untouched() {
    let files = [TempFile::new("other-0"), TempFile::new("other-1")];
    let on = |paths: &[&TempFile], file_size: usize| StoreConfig {
        medium: MediumConfig::File {
            paths: paths.iter().map(|file| file.0.clone()).collect(),
            file_size: file_size as u64,
        },
        ..config()
    };
    let [first, second] = &files;
    let both = || on(&[first, second], 8 * BLOCK_BYTES);
    let (node, _) = Node::started(Store::open(both()).unwrap());
    node.put(1, 1, 100).unwrap();
    node.store.close();
    let written = files.each_ref().map(|file| std::fs::read(&file.0).unwrap());
    let refuses = |config: StoreConfig, expected: &str| {
        let before = files.each_ref().map(|file| std::fs::read(&file.0).unwrap());
        let refused = Store::open(config).err().expect(expected).to_string();
        assert!(refused.contains(expected), "{refused}");
        let after = files.each_ref().map(|file| std::fs::read(&file.0).unwrap());
        assert!(before == after, "untouched after: {refused}");
    };

    let other_name = StoreConfig {
        namespace: "other".into(),
        ..both()
    };
    refuses(
        other_name,
        "was written with namespace test, and the configuration says other",
    );
    let other_block = StoreConfig {
        write_block_bytes: 32 << 10,
        ..on(&[first, second], 16 * BLOCK_BYTES)
    };
    refuses(
        other_block,
        "was written with a write block size of 16384, and the configuration says 32768",
    );
    refuses(
        on(&[second, first], 8 * BLOCK_BYTES),
        "was written with device index 1, and the configuration says 0",
    );
    refuses(
        on(&[first], 8 * BLOCK_BYTES),
        "was written with device count 2, and the configuration says 1",
    );
    // A fault in the last device keeps the first from being written to.
    for (at, bytes, expected) in [
        (12, 4_u32.to_le_bytes(), "was written with format version 4"),
        (12, 0_u32.to_le_bytes(), "was written with format version 0"),
        (16, 9_u32.to_le_bytes(), "was written with store id"),
        (
            312,
            7_u32.to_le_bytes(),
            "was written with encryption algorithm 7",
        ),
    ] {
        std::fs::write(&second.0, with_header(&written[1], at, &bytes)).unwrap();
        // Which the first would be, since it is of an older version.
        let older = with_header(&written[0], 12, &1_u32.to_le_bytes());
        std::fs::write(&first.0, older).unwrap();
        refuses(both(), expected);
    }
    let mut damaged = written[1].clone();
    damaged[100] ^= 1;
    std::fs::write(&second.0, &damaged).unwrap();
    refuses(both(), "the device header is damaged");
}

#[test]
fn shortened_device_is_refused_and_a_lengthened_one_is_not() {
    // A raw device is of any length, whatever part of it is configured.
    let memory = Arc::new(MemoryMedium::new(16 * BLOCK_BYTES as u64).unwrap());
    let part = |blocks: usize| {
        let bytes = (blocks * BLOCK_BYTES) as u64;
        Arc::new(FaultyMedium::new(Arc::new(Part(memory.clone(), bytes)), 1))
    };
    for (blocks, opens) in [(8, true), (6, false), (16, true), (8, false), (16, true)] {
        match Store::open_on(config(), vec![part(blocks)]) {
            Ok(store) => assert!(opens, "{blocks} blocks: {:?}", store.stats()),
            Err(refused) => {
                assert!(!opens, "{refused}");
                let what = "was written with a device length of";
                assert!(refused.to_string().contains(what), "{refused}");
            }
        }
    }
}

/// The first bytes of a medium.
struct Part(Arc<MemoryMedium>, u64);

impl Medium for Part {
    fn len(&self) -> u64 {
        self.1
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, buffer)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn close(&self) {}
}

#[test]
fn file_is_open_in_one_store_only() {
    let file = TempFile::new("locked");
    let store = Store::open(file.config(8)).unwrap();
    assert!(matches!(
        Store::open(file.config(8)),
        Err(OpenError::InUse { .. })
    ));
    store.close();
    assert!(Store::open(file.config(8)).is_ok());
}

/// Wiping one device of several brought its old contents back at the second restart: the store id
/// was kept by the others, and the blocks carried nothing else to know them by.
#[test]
fn wiped_device_of_several_stays_wiped_at_every_restart() {
    let disks: Vec<Arc<dyn Medium>> = (0..2).map(|seed| disk(16, seed) as _).collect();
    let (node, _) = Node::open(config(), disks.clone());
    for key in 0..100 {
        node.put_patiently(key, 1, 200).unwrap();
    }
    let kept: BTreeMap<Key, u64> = {
        let map = node.map.lock();
        let kept = map.iter().filter(|(_, held)| held.location.device() == 0);
        kept.map(|(key, held)| (*key, held.version)).collect()
    };
    assert!((1..100).contains(&kept.len()));
    node.store.close();
    disks[1]
        .write_at(0, &AlignedBuf::new(medium::PAGE_BYTES))
        .unwrap();
    for restart in 0..3 {
        let (reopened, report) = Node::open(config(), disks.clone());
        assert_eq!(reopened.versions(), kept, "restart {restart}");
        assert_eq!(report.damaged, 0);
        let next = reopened.store.devices[1].state.lock().next_sequence;
        let first = reopened.store.headers[1].first_sequence;
        let leased = restart * flush::SEQUENCE_LEASE;
        assert_eq!(next, first + leased, "old leases do not count");
        reopened.store.close();
    }
}

#[test]
fn wiped_device_forgets_what_its_blocks_still_hold() {
    let file = TempFile::new("wiped");
    let (node, _) = Node::started(Store::open(file.config(8)).unwrap());
    for key in 0..50 {
        node.put(key, 1, 300).unwrap();
    }
    node.store.close();
    let mut bytes = std::fs::read(&file.0).unwrap();
    bytes[..medium::PAGE_BYTES].fill(0);
    std::fs::write(&file.0, &bytes).unwrap();

    let (node, _) = Node::started(Store::open(file.config(8)).unwrap());
    node.put(1, 7, 300).unwrap();
    node.store.close();
    let (reopened, report) = Node::started(Store::open(file.config(8)).unwrap());
    assert_eq!(reopened.versions(), BTreeMap::from([(1, 7)]));
    assert_eq!((report.images, report.damaged), (1, 0));
}

/// Expects that there is nothing to rebuild.
pub(super) struct Nothing;

impl Rebuild for Nothing {
    fn adopt(&self, _: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {
        panic!("nothing is visited");
    }

    fn tell_live(&self, _: usize, _: usize, _: &mut dyn FnMut(Location)) {}
}

#[test]
fn cancelled_scan_ends_with_an_error_and_changes_nothing() {
    let disk = disk(8, 6);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    for key in 0..100 {
        node.put(key, 1, 200).unwrap();
    }
    node.store.close();
    let store = Store::open_on(config(), vec![disk.clone()]).unwrap();
    let progress = OpenProgress::default();
    progress.cancel();
    let refused = store.scan(&Nothing, &progress);
    assert!(matches!(refused, Err(ScanError::Cancelled)), "{refused:?}");
    drop(store);
    let (reopened, _) = Node::open(config(), vec![disk]);
    assert_eq!(reopened.versions(), node.versions());
}
