//! Limits of a namespace: at which use of its storage, its index or the machine's memory it stops taking new data, and from
//! which on records are evicted. Compared about once a second; a write only looks at the outcome.

pub mod memory;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::config::NamespaceConfig;
use crate::namespace::Namespace;
use memory::SystemMemory;

/// Points of a percentage, and percents of a budget, by which use has to fall below a threshold before writes go on: a
/// namespace at its threshold would otherwise stop and go every second.
const HYSTERESIS_PCT: u64 = 1;

/// Why writes stop, or records are evicted. Each is a bit, by its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    DataUsed,
    DataAvail,
    IndexesMemory,
    SystemMemory,
}

impl Limit {
    const ALL: [Limit; 4] = [
        Limit::DataUsed,
        Limit::DataAvail,
        Limit::IndexesMemory,
        Limit::SystemMemory,
    ];

    /// The key of the configuration that sets it for writes.
    const fn stop_writes_key(self) -> &'static str {
        match self {
            Limit::DataUsed => "stop-writes-used-pct",
            Limit::DataAvail => "stop-writes-avail-pct",
            Limit::IndexesMemory => "indexes-memory-budget",
            Limit::SystemMemory => "stop-writes-sys-memory-pct",
        }
    }
}

/// A set of limits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Reached(u8);

impl Reached {
    pub fn any(self) -> bool {
        self.0 != 0
    }

    pub fn contains(self, limit: Limit) -> bool {
        self.0 & 1 << limit as u8 != 0
    }

    fn with(self, limit: Limit, reached: bool) -> Reached {
        Reached(self.0 | u8::from(reached) << limit as u8)
    }

    /// Keys of the configuration, separated by commas; empty for none.
    fn stop_writes_keys(self) -> String {
        let reached = Limit::ALL.into_iter().filter(|limit| self.contains(*limit));
        let keys: Vec<_> = reached.map(Limit::stop_writes_key).collect();
        keys.join(",")
    }
}

/// What a namespace uses at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub data_used_bytes: u64,
    pub data_total_bytes: u64,
    pub data_avail_pct: u64,
    pub index_bytes: u64,
    /// `None` where the machine does not tell.
    pub memory: Option<SystemMemory>,
}

impl Usage {
    pub fn data_used_pct(&self) -> u64 {
        percent(self.data_used_bytes, self.data_total_bytes)
    }
}

/// Whole percents, rounded down; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 0,
        whole => (u128::from(part) * 100 / u128::from(whole)) as u64,
    }
}

/// More than `pct` of `whole`. A percentage of 0 is no threshold.
fn exceeds(part: u64, whole: u64, pct: u64) -> bool {
    pct > 0 && u128::from(part) * 100 > u128::from(whole) * u128::from(pct)
}

/// Which limits stop writes. One of `before` has to be left by more than it takes to reach it.
fn stop_writes(config: &NamespaceConfig, usage: &Usage, before: Reached) -> Reached {
    let slack = |limit| {
        if before.contains(limit) {
            HYSTERESIS_PCT
        } else {
            0
        }
    };
    // A threshold never becomes none by being lowered.
    let lowered = |pct: u64, limit| if pct > 1 { pct - slack(limit) } else { pct };
    let used_pct = lowered(
        u64::from(config.stop_writes_used_pct.get()),
        Limit::DataUsed,
    );
    let avail_pct = match u64::from(config.stop_writes_avail_pct.get()) {
        0 => 0,
        pct => pct + slack(Limit::DataAvail),
    };
    let budget = config.indexes_memory_budget.get();
    let memory_pct = u64::from(config.stop_writes_sys_memory_pct.get());
    let memory_pct = lowered(memory_pct, Limit::SystemMemory);
    Reached::default()
        .with(
            Limit::DataUsed,
            exceeds(usage.data_used_bytes, usage.data_total_bytes, used_pct),
        )
        .with(Limit::DataAvail, usage.data_avail_pct < avail_pct)
        .with(
            Limit::IndexesMemory,
            budget > 0 && exceeds(usage.index_bytes, budget, 100 - slack(Limit::IndexesMemory)),
        )
        .with(
            Limit::SystemMemory,
            usage
                .memory
                .is_some_and(|memory| exceeds(memory.used_bytes(), memory.total_bytes, memory_pct)),
        )
}

/// Which limits ask for eviction.
fn evict(config: &NamespaceConfig, usage: &Usage) -> Reached {
    let used_pct = u64::from(config.evict_used_pct.get());
    let index_pct = u64::from(config.evict_indexes_memory_pct.get());
    let budget = config.indexes_memory_budget.get();
    Reached::default()
        .with(
            Limit::DataUsed,
            exceeds(usage.data_used_bytes, usage.data_total_bytes, used_pct),
        )
        .with(
            Limit::IndexesMemory,
            budget > 0 && exceeds(usage.index_bytes, budget, index_pct),
        )
}

/// The outcome of the last comparison.
#[derive(Default)]
pub struct Limits {
    stop_writes: AtomicU8,
    evict: AtomicU8,
    memory_total: AtomicU64,
    memory_available: AtomicU64,
}

impl Limits {
    pub fn stop_writes(&self) -> Reached {
        Reached(self.stop_writes.load(Ordering::Relaxed))
    }

    pub fn evict(&self) -> Reached {
        Reached(self.evict.load(Ordering::Relaxed))
    }

    /// The machine's memory as it was last looked at.
    pub fn memory(&self) -> Option<SystemMemory> {
        let memory = SystemMemory {
            total_bytes: self.memory_total.load(Ordering::Relaxed),
            available_bytes: self.memory_available.load(Ordering::Relaxed),
        };
        (memory.total_bytes > 0).then_some(memory)
    }

    fn note_memory(&self, memory: Option<SystemMemory>) {
        let memory = memory.unwrap_or(SystemMemory {
            total_bytes: 0,
            available_bytes: 0,
        });
        self.memory_available
            .store(memory.available_bytes, Ordering::Relaxed);
        self.memory_total
            .store(memory.total_bytes, Ordering::Relaxed);
    }
}

impl Namespace {
    /// Whether the namespace takes no new data at present.
    #[inline]
    pub fn stop_writes(&self) -> bool {
        self.limits.stop_writes().any()
    }

    /// Keys of the limits that stop writes, separated by commas; empty while writes go on.
    pub fn stop_writes_reason(&self) -> String {
        self.limits.stop_writes().stop_writes_keys()
    }

    pub fn usage(&self) -> Usage {
        let store = self.store.stats();
        Usage {
            data_used_bytes: store.used_bytes,
            data_total_bytes: store.total_bytes,
            data_avail_pct: u64::from(store.avail_pct),
            index_bytes: self.index_bytes() + self.secondary_index_bytes(),
            memory: self.limits.memory(),
        }
    }

    /// Compares use with the high-water marks of eviction.
    pub(crate) fn update_high_water(&self, usage: &Usage) -> Reached {
        let reached = evict(&self.config, usage);
        self.limits.evict.store(reached.0, Ordering::Relaxed);
        reached
    }

    /// Compares use with the limits. Called about once a second, with what the machine's memory is at then.
    pub fn update_limits(&self, memory: Option<SystemMemory>) {
        self.limits.note_memory(memory);
        let usage = self.usage();
        self.update_high_water(&usage);
        let before = self.limits.stop_writes();
        let reached = stop_writes(&self.config, &usage, before);
        if reached == before {
            return;
        }
        self.limits.stop_writes.store(reached.0, Ordering::Relaxed);
        let memory_used_pct = memory.map(|memory| memory.used_pct());
        tracing::warn!(
            namespace = %self.name,
            limits = %if reached.any() { reached } else { before }.stop_writes_keys(),
            data_used_pct = usage.data_used_pct(),
            data_avail_pct = usage.data_avail_pct,
            index_bytes = usage.index_bytes,
            memory_used_pct,
            "{}",
            if reached.any() { "stop-writes: new data is refused" } else { "stop-writes ended" }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::namespace_config;

    fn config() -> NamespaceConfig {
        let config = namespace_config();
        config.stop_writes_used_pct.set(70);
        config.stop_writes_avail_pct.set(5);
        config.stop_writes_sys_memory_pct.set(90);
        config.indexes_memory_budget.set(1000);
        config
    }

    const EASY: Usage = Usage {
        data_used_bytes: 100,
        data_total_bytes: 1000,
        data_avail_pct: 80,
        index_bytes: 100,
        memory: Some(SystemMemory {
            total_bytes: 1000,
            available_bytes: 900,
        }),
    };

    fn reached(limits: &[Limit]) -> Reached {
        limits
            .iter()
            .fold(Reached::default(), |all, limit| all.with(*limit, true))
    }

    #[test]
    fn each_limit_is_reached_just_past_its_threshold_and_left_a_little_below() {
        let config = config();
        type Set = fn(&mut Usage, u64);
        let used: Set = |usage, value| usage.data_used_bytes = value;
        let avail: Set = |usage, value| usage.data_avail_pct = value;
        let index: Set = |usage, value| usage.index_bytes = value;
        let memory: Set = |usage, value| {
            usage.memory = Some(SystemMemory {
                total_bytes: 1000,
                available_bytes: 1000 - value,
            });
        };
        // At the threshold, past it, back within the slack, and out of it.
        for (limit, set, [at, past, within, below]) in [
            (Limit::DataUsed, used, [700, 701, 691, 690]),
            (Limit::DataAvail, avail, [5, 4, 5, 6]),
            (Limit::IndexesMemory, index, [1000, 1001, 991, 990]),
            (Limit::SystemMemory, memory, [900, 901, 891, 890]),
        ] {
            let mut usage = EASY;
            let mut state = Reached::default();
            for (value, expected) in [(at, false), (past, true), (within, true), (below, false)] {
                set(&mut usage, value);
                state = stop_writes(&config, &usage, state);
                let expected = Reached::default().with(limit, expected);
                assert_eq!(state, expected, "{limit:?} at {value}");
            }
        }
    }

    #[test]
    fn a_threshold_of_zero_is_none() {
        let config = config();
        config.stop_writes_used_pct.set(0);
        config.stop_writes_avail_pct.set(0);
        config.stop_writes_sys_memory_pct.set(0);
        config.indexes_memory_budget.set(0);
        let full = Usage {
            data_used_bytes: 1000,
            data_avail_pct: 0,
            index_bytes: 1 << 40,
            memory: Some(SystemMemory {
                total_bytes: 1000,
                available_bytes: 0,
            }),
            ..EASY
        };
        let all = reached(&Limit::ALL);
        assert_eq!(stop_writes(&config, &full, all), Reached::default());
        config.evict_indexes_memory_pct.set(1);
        assert_eq!(evict(&config, &full), Reached::default());
    }

    #[test]
    fn limits_are_named_by_their_keys() {
        let both = reached(&[Limit::DataAvail, Limit::SystemMemory]);
        assert_eq!(
            both.stop_writes_keys(),
            "stop-writes-avail-pct,stop-writes-sys-memory-pct"
        );
        assert_eq!(Reached::default().stop_writes_keys(), "");
    }

    #[test]
    fn eviction_has_thresholds_of_its_own() {
        let config = config();
        config.evict_used_pct.set(60);
        config.evict_indexes_memory_pct.set(50);
        assert_eq!(evict(&config, &EASY), Reached::default());
        let fuller = Usage {
            data_used_bytes: 601,
            index_bytes: 501,
            ..EASY
        };
        let expected = reached(&[Limit::DataUsed, Limit::IndexesMemory]);
        assert_eq!(evict(&config, &fuller), expected);
    }
}
