//! Threads that look after the namespaces by the clock: limits and truncations every second, the removal of what has
//! expired, and eviction, every `nsup-period`, the tomb raider every `tomb-raider-period`, what records left in secondary
//! indexes every `sindex-gc-period`, a look at the files of the certificate every `tls-refresh-period`. Each has a thread
//! of its own, so that a long pass over an index never holds up the watch over limits.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use perigee_engine::limits::memory::SystemMemory;

use crate::net::TlsPort;
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
    /// `refreshed` is the certificate to look after, and how often.
    pub(crate) fn start(
        engine: Arc<Engine>,
        refreshed: Option<(Arc<TlsPort>, Duration)>,
    ) -> std::io::Result<Self> {
        let mut housekeeping = Housekeeping {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let started = housekeeping.start_all(&engine, refreshed);
        match started {
            Ok(()) => Ok(housekeeping),
            Err(error) => {
                housekeeping.stop();
                Err(error)
            }
        }
    }

    fn start_all(
        &mut self,
        engine: &Arc<Engine>,
        refreshed: Option<(Arc<TlsPort>, Duration)>,
    ) -> std::io::Result<()> {
        for (name, run) in [
            ("limits", watch_limits as fn(&Engine, &StopSignal)),
            ("nsup", supervise),
            ("truncate", remove_truncated),
            ("tomb-raider", raid_tombstones),
            ("sindex-gc", collect_index_garbage),
        ] {
            let engine = engine.clone();
            self.spawn(name, move |signal| run(&engine, signal))?;
        }
        if let Some((port, period)) = refreshed {
            self.spawn("tls-refresh", move |signal| {
                refresh_certificate(&port, period, signal)
            })?;
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce(&StopSignal) + Send + 'static,
    ) -> std::io::Result<()> {
        let signal = self.stop.clone();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&signal))?;
        self.threads.push(thread);
        Ok(())
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

fn collect_index_garbage(engine: &Engine, signal: &StopSignal) {
    let mut last = Instant::now();
    while signal.tick() {
        if last.elapsed() >= engine.index_gc_period {
            for namespace in &engine.namespaces {
                namespace.collect_index_garbage(|| signal.stopped());
            }
            last = Instant::now();
        }
    }
}

fn refresh_certificate(port: &TlsPort, period: Duration, signal: &StopSignal) {
    let mut last = Instant::now();
    while signal.tick() {
        if last.elapsed() >= period {
            port.refresh();
            last = Instant::now();
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
