//! How far opening a namespace has come: moved by the threads that read its devices, watched by who waits for it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

/// Time between two lines of the log.
const LOG_PERIOD: Duration = Duration::from_secs(5);

/// Where opening a namespace is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenPhase {
    /// Not begun, or looking at what there is.
    Waiting,
    /// The index is rebuilt from the devices.
    Cold,
    /// The index is taken over from shared memory.
    Warm,
    /// The namespace is open.
    Ready,
}

impl OpenPhase {
    const ALL: [OpenPhase; 4] = [
        OpenPhase::Waiting,
        OpenPhase::Cold,
        OpenPhase::Warm,
        OpenPhase::Ready,
    ];

    /// As info commands and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            OpenPhase::Waiting => "waiting",
            OpenPhase::Cold => "cold",
            OpenPhase::Warm => "warm",
            OpenPhase::Ready => "ready",
        }
    }
}

/// The progress of one namespace. Any thread may read it at any time.
#[derive(Default)]
pub struct OpenProgress {
    /// An index of [`OpenPhase::ALL`].
    phase: AtomicU8,
    bytes_total: AtomicU64,
    bytes_read: AtomicU64,
    records: AtomicU64,
    began: OnceLock<Instant>,
    cancelled: AtomicBool,
}

/// What [`OpenProgress`] said at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgressSnapshot {
    pub phase: OpenPhase,
    /// Bytes of blocks that have to be read; grows until every device was looked at.
    pub bytes_total: u64,
    pub bytes_read: u64,
    /// Versions of records seen so far; in a warm start, entries taken over.
    pub records: u64,
    /// Since the first byte was looked for.
    pub elapsed: Duration,
}

impl OpenProgress {
    pub fn begin(&self, phase: OpenPhase) {
        self.began.get_or_init(Instant::now);
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub fn phase(&self) -> OpenPhase {
        OpenPhase::ALL[self.phase.load(Ordering::Acquire) as usize]
    }

    /// More bytes are to be read.
    pub fn expect_bytes(&self, bytes: u64) {
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes were read and what is in them was taken in.
    pub fn add(&self, bytes: u64, records: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Makes opening end early, with an error. For a node that is stopped while it opens.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn snapshot(&self) -> ProgressSnapshot {
        ProgressSnapshot {
            phase: self.phase(),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            elapsed: self.began.get().map_or(Duration::ZERO, Instant::elapsed),
        }
    }

    /// Runs `open` and logs the progress every few seconds meanwhile.
    pub fn logged<R>(&self, namespace: &str, open: impl FnOnce() -> R) -> R {
        std::thread::scope(|scope| {
            // Dropped when `open` returns or panics, which ends the wait.
            let (done, ended) = mpsc::channel::<()>();
            scope.spawn(move || {
                while ended.recv_timeout(LOG_PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
                    self.snapshot().log(namespace);
                }
            });
            let result = open();
            drop(done);
            result
        })
    }
}

impl ProgressSnapshot {
    /// Percentage of the bytes that were read, 0 to 100.
    pub fn pct(&self) -> u8 {
        match self.phase {
            OpenPhase::Ready => 100,
            _ => (self.bytes_read.min(self.bytes_total) * 100)
                .checked_div(self.bytes_total)
                .unwrap_or(0) as u8,
        }
    }

    pub fn records_per_second(&self) -> u64 {
        (self.records as f64 / self.elapsed.as_secs_f64().max(1e-3)) as u64
    }

    /// Seconds left if it goes on as it did; `None` while nothing was read.
    pub fn remaining_seconds(&self) -> Option<u64> {
        let left = self.bytes_total.saturating_sub(self.bytes_read);
        if self.bytes_read == 0 {
            return None;
        }
        Some((self.elapsed.as_secs_f64() * left as f64 / self.bytes_read as f64).ceil() as u64)
    }

    fn log(&self, namespace: &str) {
        tracing::info!(
            namespace,
            start = self.phase.name(),
            pct = self.pct(),
            records = self.records,
            records_per_second = self.records_per_second(),
            remaining_seconds = self.remaining_seconds(),
            "namespace is opening"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_says_how_far_and_how_long() {
        let progress = OpenProgress::default();
        assert_eq!(progress.phase(), OpenPhase::Waiting);
        assert_eq!(progress.snapshot().remaining_seconds(), None);
        assert_eq!(progress.snapshot().pct(), 0);
        progress.begin(OpenPhase::Cold);
        progress.expect_bytes(4000);
        progress.add(1000, 30);
        let snapshot = ProgressSnapshot {
            elapsed: Duration::from_secs(10),
            ..progress.snapshot()
        };
        assert_eq!(snapshot.phase, OpenPhase::Cold);
        assert_eq!((snapshot.pct(), snapshot.records_per_second()), (25, 3));
        assert_eq!(snapshot.remaining_seconds(), Some(30));
        progress.begin(OpenPhase::Ready);
        assert_eq!(progress.snapshot().pct(), 100);
    }

    #[test]
    fn logging_ends_with_what_it_watches() {
        let progress = OpenProgress::default();
        assert_eq!(progress.logged("test", || 7), 7);
    }
}
