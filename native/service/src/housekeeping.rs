//! Threads that look after the namespaces by the clock: limits and truncations every second, the removal of what has
//! expired, and eviction, every `nsup-period`, the tomb raider every `tomb-raider-period`. Each has a thread of its own,
//! so that a long pass over an index never holds up the watch over limits.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use perigee_engine::limits::memory::SystemMemory;

use crate::server::Engine;

const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Housekeeping {
    stop: Arc<StopSignal>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct StopSignal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    fn stopped(&self) -> bool {
        *self.stopped.lock()
    }

    /// Waits for the next tick; false when the node stops.
    fn tick(&self) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.changed.wait_for(&mut stopped, TICK);
        }
        !*stopped
    }

    fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }
}

impl Housekeeping {
    pub(crate) fn start(engine: Arc<Engine>) -> std::io::Result<Self> {
        let mut housekeeping = Housekeeping {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for (name, run) in [
            ("limits", watch_limits as fn(&Engine, &StopSignal)),
            ("nsup", supervise),
            ("truncate", remove_truncated),
            ("tomb-raider", raid_tombstones),
        ] {
            let (engine, signal) = (engine.clone(), housekeeping.stop.clone());
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(move || run(&engine, &signal));
            match thread {
                Ok(thread) => housekeeping.threads.push(thread),
                Err(error) => {
                    housekeeping.stop();
                    return Err(error);
                }
            }
        }
        Ok(housekeeping)
    }

    /// Ends the threads between two of their steps.
    pub(crate) fn stop(self) {
        self.stop.stop();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn watch_limits(engine: &Engine, signal: &StopSignal) {
    while signal.tick() {
        let memory = SystemMemory::read();
        for namespace in &engine.namespaces {
            namespace.update_limits(memory);
        }
    }
}

fn remove_truncated(engine: &Engine, signal: &StopSignal) {
    while signal.tick() {
        for namespace in &engine.namespaces {
            namespace.sweep_truncated(|| signal.stopped());
        }
    }
}

fn supervise(engine: &Engine, signal: &StopSignal) {
    let mut last = vec![Instant::now(); engine.namespaces.len()];
    while signal.tick() {
        for (namespace, last) in engine.namespaces.iter().zip(&mut last) {
            let period = u64::from(namespace.config.nsup_period.get());
            if period == 0 || last.elapsed() < Duration::from_secs(period) {
                continue;
            }
            let expired = namespace.expire(|| signal.stopped());
            let evicted = namespace.evict(|| signal.stopped());
            *last = Instant::now();
            tracing::debug!(namespace = %namespace.name, expired, evicted, "pass over the index done");
        }
    }
}

/// Namespaces in turn, so that no more than one is read from end to end at a time.
fn raid_tombstones(engine: &Engine, signal: &StopSignal) {
    let mut last = vec![Instant::now(); engine.namespaces.len()];
    while signal.tick() {
        for (namespace, last) in engine.namespaces.iter().zip(&mut last) {
            let period = u64::from(namespace.config.tomb_raider_period.get());
            let is_due = period > 0 && last.elapsed() >= Duration::from_secs(period);
            if namespace.tomb_raider.take_request() || is_due {
                namespace.raid_tombstones(&|| signal.stopped());
                *last = Instant::now();
            }
        }
    }
}
