//! Encryption at rest.

use super::*;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};

/// A key file that is gone after the test.
fn key_file(name: &str, content: &[u8]) -> TempFile {
    let file = TempFile::new(name);
    std::fs::write(&file.0, content).unwrap();
    file
}

fn encrypted(config: StoreConfig, algorithm: Algorithm, key: &TempFile) -> StoreConfig {
    StoreConfig {
        encryption: Some(Encryption {
            algorithm,
            key_file: key.0.clone(),
        }),
        ..config
    }
}

/// Fragments of everything that a record is made of.
fn is_found(device: &[u8], needle: &[u8]) -> bool {
    device.windows(needle.len()).any(|bytes| bytes == needle)
}

fn record(key: Key, version: u64) -> Vec<u8> {
    let header = ImageHeader {
        digest: digest_of(key),
        last_update_time: version,
        generation: version as u16,
        void_time: 0,
        flags: 0,
    };
    let mut image = Vec::new();
    let user_key = format!("\x03user-key-{key}");
    let mut builder = ImageBuilder::begin(
        &mut image,
        &header,
        b"secret-set",
        Some(user_key.as_bytes()),
    );
    builder.bin(b"secret-bin", 3, b"a secret value that is long enough");
    builder.finish();
    image
}

#[test]
fn nothing_of_a_record_is_found_on_the_device() {
    for (algorithm, key_bytes) in [(Algorithm::Aes128, 16), (Algorithm::Aes256, 32)] {
        let key = key_file("grep-key", &vec![0x5A; key_bytes]);
        for in_memory in [false, true] {
            let file = TempFile::new("grep");
            let config = |encrypts: bool| {
                let plain = StoreConfig {
                    in_memory,
                    ..file.config(16)
                };
                match encrypts {
                    true => encrypted(plain, algorithm, &key),
                    false => plain,
                }
            };
            for encrypts in [true, false] {
                let _ = std::fs::remove_file(&file.0);
                let store = Store::open(config(encrypts)).unwrap();
                let progress = OpenProgress::default();
                store.scan(&reopen::Nothing, &progress).unwrap();
                for key in 0..200 {
                    store.append(&mut record(key, 1)).unwrap();
                }
                store.drain().unwrap();
                store.close();
                let device = std::fs::read(&file.0).unwrap();
                let digest = digest_of(77);
                let needles: [&[u8]; 6] = [
                    b"secret-set",
                    b"user-key-1",
                    b"secret-bin",
                    b"a secret value",
                    &digest[6..18],
                    b"PBLK",
                ];
                for needle in needles {
                    // What is looked for is there where it is not encrypted.
                    assert_eq!(is_found(&device, needle), !encrypts, "{needle:?}");
                }
            }
        }
    }
}

#[test]
fn encrypted_records_are_there_after_a_restart_compacted_or_not() {
    let hex = HEXLOWER_PERMISSIVE.encode(&[7; 32]);
    let key = key_file("restart-key", hex.as_bytes());
    let file = TempFile::new("restart");
    // The cache is off, so that blocks are compacted, and records read, from the device.
    let config = || StoreConfig {
        post_write_cache_bytes: 0,
        ..encrypted(file.config(14), Algorithm::Aes256, &key)
    };
    let mut random = Random(3);
    let mut expected = BTreeMap::new();
    for round in 0..3_u64 {
        let (node, report) = Node::started(Store::open(config()).unwrap());
        assert_eq!(node.versions(), expected, "round {round}");
        assert_eq!((report.damaged, report.read_errors), (0, 0));
        node.read_all();
        for version in round * 1000..round * 1000 + 900 {
            let key = random.below(60) as Key;
            node.put_patiently(key, version, 600).unwrap();
            expected.insert(key, version);
        }
        node.store.drain().unwrap();
        node.read_all();
        let stats = node.store.stats();
        assert!(
            stats.defrag_writes > 0 && stats.device_reads > 0,
            "{stats:?}"
        );
        // A crash: the file alone says what is there.
        let copy = std::fs::read(&file.0).unwrap();
        node.store.close();
        std::fs::write(&file.0, copy).unwrap();
    }
}

#[test]
fn wrong_key_missing_key_and_changed_setting_are_refused_and_the_device_untouched() {
    let right = key_file("right-key", BASE64.encode(&[1; 16]).as_bytes());
    let wrong = key_file("wrong-key", &[2; 16]);
    let large = key_file("large-key", &[1; 32]);
    let missing = TempFile::new("missing-key");
    let file = TempFile::new("refused");
    let with = |algorithm, key| encrypted(file.config(8), algorithm, key);
    let (node, _) = Node::started(Store::open(with(Algorithm::Aes128, &right)).unwrap());
    node.put(1, 1, 100).unwrap();
    node.store.close();
    let before = std::fs::read(&file.0).unwrap();
    for (config, expected) in [
        (
            with(Algorithm::Aes128, &wrong),
            "was encrypted with another key",
        ),
        (with(Algorithm::Aes128, &missing), "No such file"),
        (
            with(Algorithm::Aes128, &large),
            "holds a key of 32 bytes, aes-128 takes 16",
        ),
        (
            with(Algorithm::Aes256, &large),
            "was written with encryption aes-128, and the configuration says aes-256",
        ),
        (
            file.config(8),
            "was written with encryption aes-128, and the configuration says none",
        ),
    ] {
        let refused = Store::open(config).err().unwrap().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert!(std::fs::read(&file.0).unwrap() == before, "{refused}");
    }
    let (node, _) = Node::started(Store::open(with(Algorithm::Aes128, &right)).unwrap());
    assert_eq!(node.read(1), Some(1));
    node.store.close();

    let plain = TempFile::new("plain");
    Store::open(plain.config(8)).unwrap().close();
    let before = std::fs::read(&plain.0).unwrap();
    let refused = Store::open(encrypted(plain.config(8), Algorithm::Aes128, &right));
    let refused = refused.err().unwrap().to_string();
    let expected = "was written with encryption none, and the configuration says aes-128";
    assert!(refused.contains(expected), "{refused}");
    assert!(std::fs::read(&plain.0).unwrap() == before);
}

#[test]
fn wiped_encrypted_device_forgets_what_its_blocks_still_hold() {
    let key = key_file("wiped-key", &[1; 16]);
    let disk = disk(8, 1);
    let config = || encrypted(committing(), Algorithm::Aes128, &key);
    let (node, _) = Node::open(config(), vec![disk.clone()]);
    for key in 0..100 {
        node.put_patiently(key, 1, 300).unwrap();
    }
    node.store.close();
    disk.write_at(0, &AlignedBuf::new(medium::PAGE_BYTES))
        .unwrap();
    for restart in 0..3_u64 {
        let (node, report) = Node::open(config(), vec![disk.clone()]);
        let expected: BTreeMap<Key, u64> = (0..restart).map(|key| (key as Key, 9)).collect();
        assert_eq!(node.versions(), expected, "restart {restart}");
        assert_eq!(report.damaged, 0, "restart {restart}");
        node.put_patiently(restart as Key, 9, 100).unwrap();
        node.store.close();
    }
}
