//! What the main thread does while the others work: it waits, and shows how far they are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Progress, Running};
use crate::error::BenchError;

/// Without any reply for so long a run that counts operations gives up.
const STALL: Duration = Duration::from_secs(30);

/// Waits with an eye on the threads and a line of progress.
pub(super) struct Watch {
    visible: bool,
    shown: bool,
    shown_at: Instant,
    completed: u64,
    changed_at: Instant,
}

impl Watch {
    pub(super) fn new(visible: bool) -> Self {
        let now = Instant::now();
        Self {
            visible,
            shown: false,
            shown_at: now,
            completed: 0,
            changed_at: now,
        }
    }

    pub(super) fn until(
        &mut self,
        deadline: Instant,
        what: &str,
        running: &[Running],
    ) -> Result<(), BenchError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
            self.look(running, &|rate| format!("{what} {rate:.0} operations/s"))?;
        }
    }

    pub(super) fn until_idle(
        &mut self,
        completed_before: u64,
        count: u64,
        running: &[Running],
    ) -> Result<(), BenchError> {
        loop {
            let completed = self.completed;
            self.look(running, &|rate| {
                let done = completed.saturating_sub(completed_before);
                format!("{done} of {count}, {rate:.0} operations/s")
            })?;
            // A thread that lost all its connections is idle too; the outcome tells.
            if running
                .iter()
                .all(|it| it.progress.idle.load(Ordering::Acquire))
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn look(
        &mut self,
        running: &[Running],
        line: &dyn Fn(f64) -> String,
    ) -> Result<(), BenchError> {
        let now = Instant::now();
        let sum = |field: fn(&Progress) -> &AtomicU64| -> u64 {
            running
                .iter()
                .map(|it| field(&it.progress).load(Ordering::Relaxed))
                .sum()
        };
        let completed = sum(|progress| &progress.completed);
        if now - self.shown_at >= Duration::from_millis(500) {
            let rate = (completed - self.completed) as f64 / (now - self.shown_at).as_secs_f64();
            if self.visible {
                eprint!("\r\x1b[K{}", line(rate));
                self.shown = true;
            }
            if completed != self.completed {
                self.changed_at = now;
            }
            self.completed = completed;
            self.shown_at = now;
            // A load never closes its own connections: without any, the server did.
            if sum(|progress| &progress.open) == 0 {
                self.clear();
                return Err(BenchError::ConnectionsLost(String::new()));
            }
        }
        if now - self.changed_at >= STALL {
            self.clear();
            let seconds = STALL.as_secs();
            return Err(BenchError::Stalled {
                seconds,
                operations: completed,
            });
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.clear();
    }
}
