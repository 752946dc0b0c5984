//! Random histories against what a client was told: what a durable delete or an expiry removed is never seen again, and
//! what is durable is always there.

use std::collections::BTreeMap;

use super::*;

/// What is known of a key. Versions are numbered from 1 in the order of their writes.
#[derive(Default, Debug)]
struct Known {
    /// Void time of every version, 0 for never.
    versions: Vec<u32>,
    /// No version up to this one may ever be seen again.
    floor: usize,
    /// The version that a client sees, as far as nothing was lost.
    visible: Option<usize>,
    /// `visible` is durable, so a restart has to find it.
    is_durable: bool,
}

impl Known {
    fn expires(&self, version: usize, now: u32) -> bool {
        let void_time = self.versions[version - 1];
        void_time != 0 && void_time <= now
    }

    /// Time has passed, with everything durable: what has expired is gone for good.
    fn settle(&mut self, now: u32) {
        if let Some(version) = self.visible
            && self.expires(version, now)
        {
            self.floor = version;
            self.visible = None;
            self.is_durable = true;
        }
    }
}

const KEYS: u64 = 6;
const MODEL_BLOCKS: usize = 20;

struct Model {
    seed: u64,
    step: u64,
    node: Node,
    random: Random,
    known: BTreeMap<u64, Known>,
    raided: u64,
}

impl Model {
    fn new(seed: u64) -> Model {
        Model {
            seed,
            step: 0,
            node: Node::new(MODEL_BLOCKS, seed),
            random: Random(seed),
            known: (0..KEYS).map(|key| (key, Known::default())).collect(),
            raided: 0,
        }
    }

    fn run(&mut self, steps: u64) {
        for step in 0..steps {
            self.step = step;
            let key = self.random.below(KEYS);
            match self.random.below(16) {
                0..5 => self.put(key),
                5 => self.delete(key),
                6 => self.durable_delete(key),
                7..10 => self.pass(),
                10..13 => self.churn(),
                13 => {
                    self.raided += self.node.namespace.raid_tombstones(&|| false);
                }
                14 => self.restart(Node::reopen, true),
                _ => self.restart(Node::cut_power, false),
            }
            self.check_running();
        }
        self.restart(Node::cut_power, false);
    }

    fn put(&mut self, key: u64) {
        let seconds = [ttl::NEVER, 3, 10, 40][self.random.below(4) as usize];
        let bytes = [10, 10, 3000][self.random.below(3) as usize];
        let known = self.known.get_mut(&key).expect("a key");
        let version = known.versions.len() + 1;
        let name = format!("key {key}");
        self.node.put_bytes(&name, version as i64, seconds, bytes);
        let void_time = get(&self.node.namespace, &name).void_time;
        known.versions.push(void_time);
        (known.visible, known.is_durable) = (Some(version), false);
    }

    fn delete(&mut self, key: u64) {
        let frame = request(&format!("key {key}"), write(info2::DELETE, 0), |_| {});
        let code = self.node.patiently(&frame).code;
        let known = self.known.get_mut(&key).expect("a key");
        let expected = match known.visible.take() {
            Some(_) => ResultCode::Ok,
            None => ResultCode::NotFound,
        };
        assert_eq!(code, expected, "seed {}, key {key}", self.seed);
        // What a plain delete removed may come back, but need not.
        known.is_durable = false;
    }

    fn durable_delete(&mut self, key: u64) {
        let code = self.node.durable_delete(&format!("key {key}"));
        let known = self.known.get_mut(&key).expect("a key");
        if code == ResultCode::Ok {
            (known.visible, known.is_durable) = (None, false);
            self.drain();
            let known = self.known.get_mut(&key).expect("a key");
            known.floor = known.versions.len();
        }
    }

    fn pass(&mut self) {
        self.drain();
        self.node.pass(1 + self.random.below(8));
        let now = self.node.now();
        self.known.values_mut().for_each(|known| known.settle(now));
        if self.random.below(3) > 0 {
            self.node.namespace.expire(|| false);
        }
    }

    fn drain(&mut self) {
        self.node.drain();
        for known in self.known.values_mut() {
            known.is_durable |= known.visible.is_some();
        }
    }

    /// Writes and deletes records beside, so that blocks are compacted and freed.
    fn churn(&mut self) {
        for _ in 0..4 {
            let name = format!("churn {}", self.random.below(8));
            if self.random.below(3) == 0 {
                delete(&self.node.namespace, &name);
            } else {
                self.node.put_bytes(&name, 0, ttl::NEVER, 4000);
            }
        }
        if self.random.below(2) == 0 {
            self.drain();
            std::thread::sleep(Duration::from_millis(self.random.below(4)));
        }
    }

    fn check_running(&mut self) {
        let now = self.node.now();
        for (key, known) in &mut self.known {
            let found = self.node.value(&format!("key {key}")).map(|v| v as usize);
            let expected = known
                .visible
                .filter(|version| !known.expires(*version, now));
            assert_eq!(
                found, expected,
                "seed {} step {}: key {key} {known:?}",
                self.seed, self.step
            );
        }
    }

    fn restart(&mut self, how: fn(&mut Node), is_clean: bool) {
        if is_clean {
            self.drain();
        }
        how(&mut self.node);
        let now = self.node.now();
        for (key, known) in &mut self.known {
            let found = self.node.value(&format!("key {key}")).map(|v| v as usize);
            let about = format!(
                "seed {} step {}: key {key} is at {found:?}, {known:?}",
                self.seed, self.step
            );
            if known.visible.is_some() && known.is_durable {
                assert_eq!(found, known.visible, "{about}");
            }
            if let Some(version) = found {
                assert!(version > known.floor, "{about}");
                assert!(!known.expires(version, now), "{about}");
            }
            (known.visible, known.is_durable) = (found, true);
        }
    }
}

#[test]
fn nothing_older_than_a_durable_delete_or_an_expiry_is_ever_seen_again() {
    let seeds = std::env::var("PERIGEE_CRASH_SEEDS").map_or(60, |n| n.parse().expect("a number"));
    let mut raided = 0;
    for seed in 0..seeds {
        let mut model = Model::new(seed);
        model.run(80);
        raided += model.raided;
    }
    assert!(raided > seeds, "tombstones were reclaimed: {raided}");
}
