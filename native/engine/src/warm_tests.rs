//! Starts from shared memory: real processes that end without a word while they write, and files that are not what they
//! should be.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use perigee_wire::{
    Digest, PARTITIONS, RequestHeader, RequestWriter, ResultCode, field, info1, info2, op,
    particle_type as particle,
};

use crate::clock::HybridClock;
use crate::config::{CommonStorageConfig, IndexType, NamespaceConfig, StorageConfig};
use crate::namespace::Namespace;
use crate::progress::OpenProgress;
use crate::rebuild::StartKind;
use crate::storage::{CommitSink, CommitWaiter, DeviceError};
use crate::testing::{Random, Reply, TempDirectory, namespace_config, run_frame};

const KEYS: u16 = 600;
/// Few, so that tables are large and change much.
const TABLES: u16 = 3;
const WRITERS: u16 = 2;
const FILE_BYTES: u64 = 3 << 20;
/// Between random kills of one history.
const ROUNDS: usize = 12;

/// Tests that start processes and tests that close files and open them again stand back for each other: a process that is
/// just being started holds the locks of all files that are open here.
static SERIAL: Mutex<()> = Mutex::new(());

struct Nobody;

impl CommitSink for Nobody {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {}
}

/// A namespace on a file in a directory, with its index in shared memory beneath it.
fn config(directory: &std::path::Path) -> NamespaceConfig {
    let mut config = namespace_config();
    config.stop_writes_used_pct = Default::default();
    config.stop_writes_avail_pct = Default::default();
    config.index_type = IndexType::Shmem;
    config.shmem_directory = Some(directory.join("shared"));
    config.storage_engine = StorageConfig::Device {
        common: CommonStorageConfig {
            files: vec![directory.join("data")],
            filesize: Some(FILE_BYTES),
            write_block_size: 64 << 10,
            flush_size: 16 << 10,
            flush_max_ms: 5,
            max_write_cache: 512 << 10,
            post_write_cache: 256 << 10,
            ..CommonStorageConfig::default()
        },
    };
    config
}

fn cold(mut config: NamespaceConfig) -> NamespaceConfig {
    config.index_type = IndexType::Memory;
    config.shmem_directory = None;
    config
}

fn open(config: NamespaceConfig) -> Arc<Namespace> {
    let clock = Arc::new(HybridClock::new());
    let opened = Namespace::open(config, clock, vec![], 20, &OpenProgress::default());
    let (namespace, report) = opened.expect("the namespace opens");
    assert_eq!(report.damaged, 0);
    namespace.set_ownership(1, &[0xFF; PARTITIONS / 8]);
    namespace.start(Arc::new(Nobody));
    namespace
}

fn digest_of(key: u16) -> Digest {
    let mut random = Random(u64::from(key));
    let mut digest: Digest = std::array::from_fn(|_| random.below(256) as u8);
    digest[0] = (key % TABLES) as u8;
    digest[1] &= 0xF0;
    digest
}

fn send(namespace: &Namespace, key: u16, header: RequestHeader, value: Option<u64>) -> Reply {
    let mut frame = Vec::new();
    let mut writer = RequestWriter::begin(&mut frame, header);
    writer.field(field::NAMESPACE, b"test");
    writer.field(field::SET, format!("set{}", key % 5).as_bytes());
    writer.field(field::DIGEST, &digest_of(key));
    if let Some(value) = value {
        let bytes = Random(value).below(3000) as usize;
        writer.op(op::WRITE, particle::INTEGER, b"n", &value.to_be_bytes());
        writer.op(op::WRITE, particle::BLOB, b"b", &vec![value as u8; bytes]);
    }
    writer.finish();
    run_frame(namespace, &frame)
}

fn put(namespace: &Namespace, key: u16, value: u64) -> ResultCode {
    let header = RequestHeader {
        info2: info2::WRITE,
        ..RequestHeader::default()
    };
    send(namespace, key, header, Some(value)).code
}

fn delete(namespace: &Namespace, key: u16, durable: bool) -> ResultCode {
    let header = RequestHeader {
        info2: info2::WRITE | info2::DELETE | if durable { info2::DURABLE_DELETE } else { 0 },
        ..RequestHeader::default()
    };
    send(namespace, key, header, None).code
}

fn value(namespace: &Namespace, key: u16) -> Option<u64> {
    let header = RequestHeader {
        info1: info1::READ | info1::GET_ALL,
        ..RequestHeader::default()
    };
    let reply = send(namespace, key, header, None);
    match reply.code {
        ResultCode::Ok => {
            let value = u64::from_be_bytes(reply.bins[0].2[..].try_into().expect("8 bytes"));
            let bytes = Random(value).below(3000) as usize;
            assert_eq!(reply.bins[1].2, vec![value as u8; bytes], "key {key}");
            Some(value)
        }
        ResultCode::NotFound => None,
        code => panic!("key {key}: {code:?}"),
    }
}

type Model = BTreeMap<u16, u64>;

fn contents(namespace: &Namespace) -> Model {
    (0..KEYS)
        .filter_map(|key| Some((key, value(namespace, key)?)))
        .collect()
}

/// Counts that are kept as things change have to be what the records add up to.
fn check_counts(namespace: &Namespace) {
    let (mut objects, mut tombstones, mut bytes) = (0, 0, 0);
    for partition in namespace.partitions() {
        for entry in partition.lock().table.iter() {
            match entry.is_tombstone() {
                true => tombstones += 1,
                false => objects += 1,
            }
            bytes += entry.location.bytes() as u64;
        }
    }
    assert_eq!(namespace.objects.load(Ordering::Relaxed), objects);
    assert_eq!(namespace.tombstones.load(Ordering::Relaxed), tombstones);
    let in_sets: i64 = namespace
        .sets
        .all()
        .map(|set| set.objects.load(Ordering::Relaxed))
        .sum();
    assert_eq!(in_sets, objects);
    // A copy by defragmentation counts twice for a moment, and may have begun before the entries were added up.
    let is_sum = |_| {
        std::thread::sleep(Duration::from_millis(1));
        namespace.store.stats().used_bytes == bytes
    };
    assert!(
        (0..5000).any(is_sum),
        "{bytes} bytes: {:?}",
        namespace.store.stats()
    );
}

/// What a writer says of each change, in a file that outlives it: begun, then done or refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Note {
    key: u16,
    /// 0 for a delete.
    value: u64,
    is_done: bool,
    /// Only if it is done.
    succeeded: bool,
}

const NOTE_BYTES: usize = 16;

impl Note {
    fn write(&self, to: &mut File) {
        let mut bytes = [0; NOTE_BYTES];
        bytes[..2].copy_from_slice(&self.key.to_le_bytes());
        bytes[2] = u8::from(self.is_done) | u8::from(self.succeeded) << 1;
        bytes[8..].copy_from_slice(&self.value.to_le_bytes());
        to.write_all(&bytes).expect("the note is taken");
    }

    fn read_all(mut from: &File) -> Vec<Note> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("the notes read");
        let note = |bytes: &[u8]| Note {
            key: u16::from_le_bytes([bytes[0], bytes[1]]),
            value: u64::from_le_bytes(bytes[8..].try_into().expect("8 bytes")),
            is_done: bytes[2] & 1 != 0,
            succeeded: bytes[2] & 2 != 0,
        };
        bytes.chunks_exact(NOTE_BYTES).map(note).collect()
    }
}

/// The process that is killed: started by the tests below, it opens the namespace and writes until it is ended.
#[test]
#[ignore = "a part of other tests, in a process of its own"]
fn writer() {
    let Ok(directory) = std::env::var("PERIGEE_WARM_DIRECTORY").map(PathBuf::from) else {
        return;
    };
    let number = |name: &str| -> u64 { std::env::var(name).expect(name).parse().expect(name) };
    let (seed, durable) = (
        number("PERIGEE_WARM_SEED"),
        number("PERIGEE_WARM_DURABLE") == 1,
    );
    let changes = number("PERIGEE_WARM_CHANGES");
    let namespace = open(config(&directory));
    check_counts(&namespace);
    let found = contents(&namespace);
    let found = found
        .iter()
        .flat_map(|(key, value)| [u64::from(*key).to_le_bytes(), value.to_le_bytes()]);
    let part = directory.join("part");
    std::fs::write(&part, found.flatten().collect::<Vec<u8>>()).expect("it is told");
    std::fs::rename(part, directory.join("contents")).expect("as a whole");
    let next = AtomicU64::new(seed << 32 | 1);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (namespace, next, directory) = (&namespace, &next, &directory);
            scope.spawn(move || {
                let path = directory.join(format!("notes-{writer}"));
                let mut notes = File::options()
                    .append(true)
                    .create(true)
                    .open(path)
                    .expect("notes");
                let mut random = Random(seed ^ u64::from(writer) << 60);
                for _ in 0..changes {
                    let key = random.below(u64::from(KEYS / WRITERS)) as u16 * WRITERS + writer;
                    let is_delete = random.below(4) == 0;
                    let value = match is_delete {
                        true => 0,
                        false => next.fetch_add(1, Ordering::Relaxed),
                    };
                    let mut note = Note {
                        key,
                        value,
                        is_done: false,
                        succeeded: false,
                    };
                    note.write(&mut notes);
                    let code = match is_delete {
                        true => delete(namespace, key, durable),
                        false => put(namespace, key, value),
                    };
                    note.is_done = true;
                    note.succeeded = match code {
                        ResultCode::Ok => true,
                        ResultCode::NotFound if is_delete => true,
                        ResultCode::OutOfSpace | ResultCode::DeviceOverload => false,
                        // A thread that was held up for seconds is behind the partition's time.
                        ResultCode::KeyBusy => false,
                        code => panic!("key {key}: {code:?}"),
                    };
                    note.write(&mut notes);
                }
            });
        }
    });
    namespace.store.close();
}

struct Writer {
    child: Child,
}

impl Writer {
    fn start(directory: &TempDirectory, seed: u64, durable: bool, changes: u64) -> Writer {
        for writer in 0..WRITERS {
            let _ = std::fs::remove_file(directory.0.join(format!("notes-{writer}")));
        }
        let child = Command::new(std::env::current_exe().expect("the test's own program"))
            .args(["--exact", "warm_tests::writer", "--ignored", "--nocapture"])
            .env("PERIGEE_WARM_DIRECTORY", &directory.0)
            .env("PERIGEE_WARM_SEED", seed.to_string())
            .env("PERIGEE_WARM_DURABLE", u8::from(durable).to_string())
            .env("PERIGEE_WARM_CHANGES", changes.to_string())
            .stdout(Stdio::null())
            .spawn();
        Writer {
            child: child.expect("the program starts"),
        }
    }

    /// Waits until it wrote something, and some more, then ends it as a crash does.
    fn kill(mut self, directory: &TempDirectory, notes_min: u64, more: Duration) {
        let path = directory.0.join("notes-0");
        let length = || std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        while length() < notes_min * NOTE_BYTES as u64 {
            let ended = self.child.try_wait().expect("the program is there");
            assert!(ended.is_none(), "the program ended by itself: {ended:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(more);
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    fn wait(mut self) {
        let ended = self.child.wait().expect("it ends");
        assert!(ended.success(), "{ended}");
    }
}

/// Applies what the writers said to the model; returns what may have happened besides: the last change of each.
fn apply(directory: &TempDirectory, model: &mut Model) -> Vec<Note> {
    let mut open = Vec::new();
    for writer in 0..WRITERS {
        let path = directory.0.join(format!("notes-{writer}"));
        let Ok(file) = File::open(path) else { continue };
        let notes = Note::read_all(&file);
        for note in notes.iter().filter(|note| note.is_done && note.succeeded) {
            match note.value {
                0 => model.remove(&note.key),
                value => model.insert(note.key, value),
            };
        }
        open.extend(notes.last().filter(|note| !note.is_done).copied());
    }
    open
}

/// The model with each of the changes that were under way when the process ended, if the contents have it.
fn settle(model: &mut Model, open: &[Note], contents: &Model, when: &str) {
    for note in open {
        if contents.get(&note.key).copied().unwrap_or(0) == note.value {
            match note.value {
                0 => model.remove(&note.key),
                value => model.insert(note.key, value),
            };
        }
    }
    assert_eq!(contents, model, "{when}");
}

fn rounds() -> usize {
    let rounds = std::env::var("PERIGEE_CRASH_SEEDS").ok();
    rounds
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(ROUNDS)
}

fn crash_history(name: &str, seed: u64, durable: bool) {
    println!("seed {seed}");
    let directory = TempDirectory::in_memory(name);
    let (mut random, mut model) = (Random(seed), Model::new());
    let mut done = 0;
    for round in 0..rounds() {
        let when = format!("seed {seed} round {round}");
        let writer = Writer::start(&directory, seed << 8 | round as u64, durable, u64::MAX);
        let more = Duration::from_micros(random.below(60_000));
        writer.kill(&directory, 1 + random.below(20), more);
        let open_changes = apply(&directory, &mut model);
        done += model.len();

        let namespace = open(config(&directory.0));
        assert_eq!(namespace.start_report.kind, StartKind::Warm, "{when}");
        check_counts(&namespace);
        settle(&mut model, &open_changes, &contents(&namespace), &when);
        namespace.store.close();
        drop(namespace);
        if durable && random.below(3) == 0 {
            // Another start without the shared memory finds the same, and makes it worthless.
            let namespace = open(cold(config(&directory.0)));
            assert_eq!(contents(&namespace), model, "cold, {when}");
            check_counts(&namespace);
            namespace.store.close();
            drop(namespace);
            let namespace = open(config(&directory.0));
            assert_eq!(namespace.start_report.kind, StartKind::Cold, "{when}");
            assert_eq!(contents(&namespace), model, "cold again, {when}");
            namespace.store.close();
        }
    }
    assert!(done > 100, "hardly anything was written: {done}");
}

#[test]
fn killed_process_loses_nothing_that_was_acknowledged() {
    let _serial = SERIAL.lock();
    crash_history("warm-kill", 1, false);
}

#[test]
fn what_a_warm_start_finds_is_what_a_cold_one_finds() {
    let _serial = SERIAL.lock();
    crash_history("warm-cold", 2, true);
}

/// Starts from shared memory follow one another without a stop between them.
#[test]
fn killed_again_and_again_without_a_stop() {
    let _serial = SERIAL.lock();
    let seed = 3;
    println!("seed {seed}");
    let directory = TempDirectory::in_memory("warm-again");
    let (mut random, mut model, mut under_way) = (Random(seed), Model::new(), vec![]);
    let mut starts_cut = 0;
    for round in 0..rounds() {
        let _ = std::fs::remove_file(directory.0.join("contents"));
        let writer = Writer::start(&directory, seed << 8 | round as u64, false, u64::MAX);
        let more = Duration::from_micros(random.below(30_000));
        match random.below(2) {
            0 => writer.kill(&directory, 1 + random.below(9), more),
            // Perhaps while it starts.
            _ => writer.kill(&directory, 0, more),
        }
        // The writer began by saying what it found.
        let Ok(bytes) = std::fs::read(directory.0.join("contents")) else {
            starts_cut += 1;
            continue;
        };
        let found = bytes.chunks_exact(16).map(|pair| {
            let word =
                |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().expect("8 bytes"));
            (word(0) as u16, word(8))
        });
        let when = format!("seed {seed} round {round}");
        settle(&mut model, &under_way, &found.collect(), &when);
        under_way = apply(&directory, &mut model);
    }
    println!("{starts_cut} of {} starts were cut short", rounds());
}

#[test]
fn stopped_process_leaves_an_index_that_is_taken_over() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-stop");
    let mut model = Model::new();
    for round in 0..3 {
        Writer::start(&directory, 70 + round, false, 400).wait();
        assert!(apply(&directory, &mut model).is_empty());
        let namespace = open(config(&directory.0));
        assert_eq!(namespace.start_report.kind, StartKind::Warm);
        check_counts(&namespace);
        assert_eq!(contents(&namespace), model);
        namespace.store.close();
    }
}

/// Fills a namespace and stops it; returns what is in it.
fn filled(directory: &TempDirectory) -> Model {
    let namespace = open(config(&directory.0));
    let mut model = Model::new();
    for key in 0..KEYS {
        let value = 1000 + u64::from(key);
        while let ResultCode::DeviceOverload = put(&namespace, key, value) {
            namespace.store.drain().expect("the file takes writes");
        }
        model.insert(key, value);
    }
    namespace.store.close();
    model
}

fn shared_files(directory: &TempDirectory) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.0.join("shared")).expect("a directory");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

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
            (4096, 384),
            (4096 + 524_288 + 262_080, 800),
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
        let expected = match path.extension().is_some_and(|e| e == "index") {
            true => StartKind::Cold,
            // Without an unwritten block there is nothing in it.
            false => StartKind::Warm,
        };
        assert_eq!(kind(config(&directory.0)), expected);
    }
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
