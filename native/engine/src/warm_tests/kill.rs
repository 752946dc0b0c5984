//! Processes that end without a word while they write, and what the next one finds.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use perigee_wire::ResultCode;

use super::{KEYS, Model, SERIAL, check_counts, cold, config, contents, delete, open, put};
use crate::index::kill_after;
use crate::rebuild::StartKind;
use crate::testing::{Random, TempDirectory};

const WRITERS: u16 = 2;
/// Between random kills of one history.
const ROUNDS: usize = 12;
/// Enough to begin a new block; each takes ten to a hundred stores.
const STEPPER_CHANGES: usize = 60;
const STEPPER_STORES: u64 = 2200;

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

/// A process that does some of everything and is killed at a store of its choice.
#[test]
#[ignore = "a part of other tests, in a process of its own"]
fn stepper() {
    let Ok(directory) = std::env::var("PERIGEE_WARM_DIRECTORY").map(PathBuf::from) else {
        return;
    };
    let number = |name: &str| -> u64 { std::env::var(name).expect(name).parse().expect(name) };
    let mut random = Random(number("PERIGEE_WARM_SEED"));
    let namespace = open(config(&directory));
    let mut notes = File::create(directory.join("notes-0")).expect("notes");
    kill_after(number("PERIGEE_WARM_CHANGES"));
    for change in 0..STEPPER_CHANGES {
        let key = random.below(u64::from(KEYS)) as u16;
        let value = random.below(3) * (random.next() >> 8 | 1);
        let mut note = Note {
            key,
            value,
            is_done: false,
            succeeded: false,
        };
        note.write(&mut notes);
        let code = match value {
            0 => delete(&namespace, key, change % 2 == 0),
            _ => put(&namespace, key, value),
        };
        note.is_done = true;
        note.succeeded = matches!(code, ResultCode::Ok | ResultCode::NotFound);
        note.write(&mut notes);
    }
}

struct Writer {
    child: Child,
}

impl Writer {
    fn start(directory: &TempDirectory, seed: u64, durable: bool, changes: u64) -> Writer {
        Self::run("writer", directory, seed, durable, changes)
    }

    fn run(
        program: &str,
        directory: &TempDirectory,
        seed: u64,
        durable: bool,
        changes: u64,
    ) -> Writer {
        for writer in 0..WRITERS {
            let _ = std::fs::remove_file(directory.0.join(format!("notes-{writer}")));
        }
        let child = Command::new(std::env::current_exe().expect("the test's own program"))
            .args(["--exact", &format!("warm_tests::kill::{program}")])
            .args(["--ignored", "--nocapture"])
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

/// A process is killed between two stores of a change: to the table, its descriptor, the record of the block. All changes
/// before that are there, and that one is or is not.
#[test]
fn killed_between_any_two_stores_of_a_change() {
    let _serial = SERIAL.lock();
    let seed = 6;
    println!("seed {seed}");
    let directory = TempDirectory::in_memory("warm-steps");
    let (mut random, mut model) = (Random(seed), Model::new());
    let mut killed = 0;
    for round in 0..3 * rounds() {
        let steps = random.below(STEPPER_STORES);
        let seed = seed << 8 | round as u64;
        let mut stepper = Writer::run("stepper", &directory, seed, false, steps);
        let ended = stepper.child.wait().expect("it ends");
        killed += usize::from(!ended.success());
        let under_way = apply(&directory, &mut model);
        let when = format!("seed {seed} stores {steps}");
        let namespace = open(config(&directory.0));
        assert_eq!(namespace.start_report.kind, StartKind::Warm, "{when}");
        check_counts(&namespace);
        settle(&mut model, &under_way, &contents(&namespace), &when);
        namespace.store.close();
    }
    println!("{killed} of {} were killed", 3 * rounds());
    assert!(killed > rounds(), "{killed}");
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
