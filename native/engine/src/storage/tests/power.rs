//! Power cut at every point of random histories: what was acknowledged is there afterwards.
//!
//! The fault model is the faulty medium's: unsynced sectors survive in any mixture. A history is
//! replayed from its seed up to the timing of threads. `PERIGEE_CRASH_SEEDS=1000 cargo test --release
//! -p perigee-engine storage::tests::power` runs a thousand seeds of each test in place of a few.

use super::*;

const KEYS: u64 = 40;

/// The seeds of a test: as many as the environment says, otherwise `few`.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("PERIGEE_CRASH_SEEDS");
    let count = asked.map_or(few, |text| {
        text.parse().expect("PERIGEE_CRASH_SEEDS is a number")
    });
    0..count
}

/// What a history promises about a key: at least `durable`, at most `issued`.
#[derive(Clone, Copy, Default, Debug)]
struct Promise {
    durable: u64,
    issued: u64,
}

struct History {
    seed: u64,
    nth: u64,
    promises: BTreeMap<Key, Promise>,
}

impl History {
    /// What is found after a power cut is on the device for good.
    fn check(&mut self, node: &Node) {
        for (key, promise) in &mut self.promises {
            let found = node.version(*key).unwrap_or(0);
            assert!(
                (promise.durable..=promise.issued).contains(&found),
                "seed {} cut {}: key {key} is at {found}, promised {promise:?}",
                self.seed,
                self.nth
            );
            promise.durable = found;
        }
        node.check_used_bytes();
        node.read_all();
    }

    /// Writes and deletes until power fails, a few operations between commits; true if it failed.
    fn write(&mut self, node: &Node, random: &mut Random, version: &mut u64, writes: u64) -> bool {
        let mut waiting = Vec::new();
        for _ in 0..writes {
            *version += 1;
            let key = random.below(KEYS) as Key;
            let bytes = match random.below(20) {
                0 => 5000,
                _ => random.below(700) as usize,
            };
            let promise = self.promises.entry(key).or_default();
            let what = random.below(12);
            if what == 0 {
                // Leaves nothing behind, so what was there may come back.
                node.remove(key);
                promise.durable = 0;
                waiting.retain(|(waits, _)| *waits != key);
                continue;
            }
            promise.issued = *version;
            let appended = match what {
                1 => node.patiently(|| node.entomb(key, *version)),
                _ => node.put_patiently(key, *version, bytes),
            };
            let Some(ticket) = appended else {
                return true;
            };
            let waiter = CommitWaiter {
                thread: 0,
                request: *version,
            };
            if node.store.await_commit(ticket, waiter) {
                promise.durable = *version;
            } else {
                waiting.push((key, *version));
            }
            if random.below(4) == 0 {
                for (key, version) in waiting.drain(..) {
                    if !node.acks.wait(version) {
                        return true;
                    }
                    let promise = self.promises.get_mut(&key).unwrap();
                    promise.durable = promise.durable.max(version);
                }
            }
        }
        false
    }
}

/// Several lives of one store on one disk, each ended by a power cut `nth` operations after it
/// opened.
fn lives(seed: u64, nth: u64, blocks: usize) {
    let disk = disk(blocks, seed);
    let mut random = Random(seed);
    let mut random_places = Random(!seed);
    let mut history = History {
        seed,
        nth,
        promises: BTreeMap::new(),
    };
    let mut version = 0;
    let key = TempFile::new(&format!("power-key-{seed}-{blocks}"));
    std::fs::write(&key.0, [7; 16]).unwrap();
    let encryption = (seed % 2 == 1).then(|| Encryption {
        algorithm: Algorithm::Aes128,
        key_file: key.0.clone(),
    });
    // Whether it is kept in memory too may change from one life to the next.
    let mut config = || StoreConfig {
        in_memory: random_places.below(2) == 0,
        encryption: encryption.clone(),
        ..committing()
    };
    for _ in 0..3 {
        let (node, _) = Node::open(config(), vec![disk.clone()]);
        history.check(&node);
        disk.inject(Fault::PowerCut { nth });
        history.write(&node, &mut random, &mut version, 4 * nth);
        disk.cut_power();
        node.end();
        disk.restart();
    }
    let (node, _) = Node::open(config(), vec![disk]);
    history.check(&node);
}

#[test]
fn power_cut_keeps_every_acknowledged_write() {
    for seed in seeds(4) {
        for nth in (1..40).chain((40..200).step_by(23)) {
            lives(seed * 1000 + nth, nth, 16);
        }
    }
}

#[test]
fn power_cut_on_a_nearly_full_device_keeps_every_acknowledged_write() {
    // 40 keys of about 600 bytes fill two to three of eight blocks.
    for seed in seeds(4) {
        for nth in (10..300).step_by(19) {
            lives(seed * 1000 + nth, nth, 8);
        }
    }
}

#[test]
fn crash_during_defrag_keeps_every_durable_record() {
    for seed in seeds(60) {
        let nth = 1 + seed % 30;
        let disk = disk(12, seed);
        let mut random = Random(seed);
        // No commits: what was drained is durable, what came later may be lost but not the drained
        // version with it. The cache is off, so that blocks are compacted from the device.
        let config = StoreConfig {
            post_write_cache_bytes: 0,
            defrag_lwm_pct: 70,
            flush_max: Duration::from_millis(1),
            ..config()
        };
        let (node, _) = Node::open(config.clone(), vec![disk.clone()]);
        let mut history = History {
            seed,
            nth,
            promises: BTreeMap::new(),
        };
        for key in 0..120 {
            node.put_patiently(key, 1, 600).unwrap();
            history.promises.insert(
                key,
                Promise {
                    durable: 1,
                    issued: 1,
                },
            );
        }
        node.store.drain().unwrap();
        disk.inject(Fault::PowerCut { nth });
        for version in 2..4000 {
            let key = random.below(120) as Key;
            history.promises.get_mut(&key).unwrap().issued = version;
            if node.put_patiently(key, version, 600).is_none() {
                break;
            }
        }
        assert!(
            disk.is_cut(),
            "seed {seed}: the writes were to outlast the power"
        );
        node.end();
        disk.restart();
        let (reopened, _) = Node::open(config, vec![disk]);
        history.check(&reopened);
    }
}

#[test]
fn crashes_in_a_row_on_a_full_device_leave_room_to_compact() {
    for seed in seeds(10) {
        let disk = disk(9, seed);
        let mut random = Random(seed);
        let mut version = 0;
        for _ in 0..12 {
            let (node, _) = Node::open(config(), vec![disk.clone()]);
            disk.inject(Fault::PowerCut {
                nth: 5 + random.below(60),
            });
            while !disk.is_cut() {
                version += 1;
                if node
                    .put_patiently(random.below(90) as Key, version, 600)
                    .is_none()
                {
                    break;
                }
            }
            node.end();
            disk.restart();
        }
        let (node, _) = Node::open(config(), vec![disk]);
        for key in 0..90 {
            version += 1;
            node.put_patiently(key, version, 600).unwrap();
        }
        node.read_all();
    }
}
