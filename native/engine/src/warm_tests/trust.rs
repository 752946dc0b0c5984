//! Shared memory that is not what it should be.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{SERIAL, cold, config, contents, filled, open, shared_files};
use crate::config::{IndexType, NamespaceConfig, StorageConfig};
use crate::rebuild::StartKind;
use crate::testing::{Random, TempDirectory};

/// Where things lie in the index file.
const DESCRIPTORS: u64 = 4096;
const BLOCK_RECORDS: u64 = DESCRIPTORS + 524_288 + 262_080;

/// Whatever is in the files, the namespace opens with the right contents, and without a crash.
#[test]
fn damaged_shared_memory_is_not_believed() {
    let _serial = SERIAL.lock();
    let seed = 4;
    println!("seed {seed}");
    let directory = TempDirectory::in_memory("warm-damage");
    let model = filled(&directory);
    let mut random = Random(seed);
    let (mut cold, mut warm) = (0, 0);
    for round in 0..40 {
        let paths = shared_files(&directory);
        let index = paths
            .iter()
            .find(|path| path.extension().is_some_and(|e| e == "index"));
        let file = File::options()
            .write(true)
            .open(index.expect("an index"))
            .expect("it opens");
        // Header, descriptors of the tables in use, block records, arrays.
        let (from, reach) = [
            (0, 200),
            (DESCRIPTORS, 384),
            (BLOCK_RECORDS, 800),
            (790_528, 24_000),
        ][random.below(4) as usize];
        for _ in 0..1 + random.below(3) {
            let byte = [0, 1, 0x40, 0xFF, random.below(256) as u8][random.below(5) as usize];
            file.write_all_at(&[byte], from + random.below(reach))
                .expect("it is written");
        }
        drop(file);
        let namespace = open(config(&directory.0));
        match namespace.start_report.kind {
            StartKind::Cold => {
                cold += 1;
                assert_eq!(contents(&namespace), model, "round {round}");
            }
            // Values that could be right: generations, times, flags. No memory is safe from that.
            StartKind::Warm => warm += 1,
        }
        namespace.store.close();
        drop(namespace);
        for path in shared_files(&directory) {
            std::fs::remove_file(path).expect("it is removed");
        }
        let namespace = open(config(&directory.0));
        namespace.store.close();
    }
    println!("{cold} cold, {warm} warm");
    assert!(cold >= 5 && warm >= 5, "{cold} cold, {warm} warm");
}

#[test]
fn what_is_not_of_this_store_and_its_last_run_is_not_taken_over() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-stale");
    let model = filled(&directory);
    let kind = |config: NamespaceConfig| {
        let namespace = open(config);
        assert_eq!(contents(&namespace), model);
        namespace.store.close();
        namespace.start_report.kind
    };
    assert_eq!(kind(config(&directory.0)), StartKind::Warm);
    // A start without it.
    assert_eq!(kind(cold(config(&directory.0))), StartKind::Cold);
    assert_eq!(kind(config(&directory.0)), StartKind::Cold);
    assert_eq!(kind(config(&directory.0)), StartKind::Warm);
    // The file of the data as it was some starts ago.
    let data = directory.0.join("data");
    let before = std::fs::read(&data).expect("the data");
    assert_eq!(kind(config(&directory.0)), StartKind::Warm);
    std::fs::write(&data, before).expect("the data goes back");
    assert_eq!(kind(config(&directory.0)), StartKind::Cold);
    // Other settings: as many blocks, but more of them in memory.
    let mut other = config(&directory.0);
    if let StorageConfig::Device { common } = &mut other.storage_engine {
        common.post_write_cache = 512 << 10;
    }
    assert_eq!(kind(other), StartKind::Cold);
    assert_eq!(kind(config(&directory.0)), StartKind::Cold);
    // One of the two files is gone, or empty.
    for path in shared_files(&directory) {
        std::fs::remove_file(&path).expect("it is removed");
        assert_eq!(kind(config(&directory.0)), StartKind::Cold);
        assert_eq!(kind(config(&directory.0)), StartKind::Warm);
    }
    for path in shared_files(&directory) {
        let length = std::fs::metadata(&path).expect("a file").len();
        File::create(&path)
            .and_then(|file| file.set_len(length))
            .expect("it is emptied");
        // Without an unwritten block there is nothing in the second, but that cannot be told from it.
        assert_eq!(kind(config(&directory.0)), StartKind::Cold);
    }
}

/// Values that would lead far away: a clock that goes no further, sequences that end.
#[test]
fn values_that_no_process_can_have_written_are_not_believed() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-values");
    let model = filled(&directory);
    let start = || {
        let namespace = open(config(&directory.0));
        assert_eq!(contents(&namespace), model);
        namespace.store.close();
        namespace.start_report.kind
    };
    assert_eq!(start(), StartKind::Warm);
    let last_update_time = DESCRIPTORS + 104;
    let dropped = last_update_time + 8;
    let of_another_partition = 999 * 128;
    for (offset, value) in [
        (last_update_time, 1 << 40),
        (last_update_time + of_another_partition, u64::MAX),
        (dropped, 1 << 40),
        (BLOCK_RECORDS + 16, u64::MAX - 1),
        (BLOCK_RECORDS + 2 * 16, 1 << 40),
    ] {
        let paths = shared_files(&directory);
        let index = paths
            .iter()
            .find(|path| path.extension().is_some_and(|e| e == "index"));
        let file = File::options()
            .write(true)
            .open(index.expect("an index"))
            .expect("it opens");
        file.write_all_at(&value.to_le_bytes(), offset)
            .expect("it is written");
        assert_eq!(start(), StartKind::Cold, "{value:#x} at {offset}");
        assert_eq!(start(), StartKind::Warm);
    }
}

/// The blocks that a process did not write are half of what it left.
#[test]
fn blocks_of_another_time_are_not_taken_with_an_index() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-pair");
    let model = filled(&directory);
    let blocks = || {
        let mut paths = shared_files(&directory);
        paths.retain(|path| path.extension().is_some_and(|e| e == "blocks"));
        paths.remove(0)
    };
    let before = directory.0.join("before");
    std::fs::copy(blocks(), &before).expect("a copy");
    for path in shared_files(&directory) {
        std::fs::remove_file(path).expect("it is removed");
    }
    let start = || {
        let namespace = open(config(&directory.0));
        assert_eq!(contents(&namespace), model);
        namespace.store.close();
        namespace.start_report.kind
    };
    assert_eq!(start(), StartKind::Cold);
    assert_eq!(start(), StartKind::Warm);
    std::fs::copy(before, blocks()).expect("a copy");
    assert_eq!(start(), StartKind::Cold);
}

#[test]
fn wiped_device_is_empty_and_its_former_index_goes() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-wiped");
    filled(&directory);
    let before = shared_files(&directory);
    let data = File::options()
        .write(true)
        .open(directory.0.join("data"))
        .expect("the data");
    data.write_all_at(&[0; 4096], 0).expect("it is wiped");
    let namespace = open(config(&directory.0));
    assert_eq!(namespace.start_report.kind, StartKind::Cold);
    assert!(contents(&namespace).is_empty());
    let after = shared_files(&directory);
    assert_eq!(after.len(), 2);
    assert!(
        before.iter().all(|path| !after.contains(path)),
        "{before:?} {after:?}"
    );
}

#[test]
fn index_on_the_heap_removes_what_was_in_shared_memory() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-heap");
    let model = filled(&directory);
    assert_eq!(shared_files(&directory).len(), 2);
    let mut heap = config(&directory.0);
    heap.index_type = IndexType::Memory;
    let namespace = open(heap);
    assert_eq!(contents(&namespace), model);
    assert!(shared_files(&directory).is_empty());
}

/// A shared memory that others could have written to is not used at all.
#[test]
fn directory_that_others_can_enter_is_refused_and_the_heap_is_used() {
    let _serial = SERIAL.lock();
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDirectory::in_memory("warm-open");
    let shared = directory.0.join("shared");
    std::fs::create_dir(&shared).expect("a directory");
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    for _ in 0..2 {
        let model = filled(&directory);
        let namespace = open(config(&directory.0));
        assert_eq!(namespace.start_report.kind, StartKind::Cold);
        assert_eq!(contents(&namespace), model);
        namespace.store.close();
    }
    assert!(shared_files(&directory).is_empty());
}
