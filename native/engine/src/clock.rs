//! The node's hybrid logical clock: last-update times in milliseconds since 2010-01-01 (40 bits on the wire), never
//! backwards, and never behind a time that this node has accepted from another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use perigee_wire::EPOCH_UNIX_SECONDS;

/// A last-update time further ahead of this node's clock than this is refused: accepting it would drag the clock of
/// every node that it reaches, and lock out the records' later writers.
pub const CLOCK_SKEW_MS_MAX: u64 = 60_000;

pub struct HybridClock {
    wall: WallClock,
    last: AtomicU64,
}

/// Where the time of day comes from.
enum WallClock {
    System,
    Given(Arc<AtomicU64>),
}

impl HybridClock {
    /// A clock over the system's.
    pub fn new() -> Self {
        HybridClock {
            wall: WallClock::System,
            last: AtomicU64::new(0),
        }
    }

    /// A clock whose wall time is what `wall_ms` holds, in milliseconds since 2010-01-01.
    pub fn given(wall_ms: Arc<AtomicU64>) -> Self {
        HybridClock {
            wall: WallClock::Given(wall_ms),
            last: AtomicU64::new(0),
        }
    }

    /// Wall clock in milliseconds since 2010-01-01; 0 on a clock set before that.
    pub fn wall_ms(&self) -> u64 {
        match &self.wall {
            WallClock::System => system_ms(),
            WallClock::Given(wall_ms) => wall_ms.load(Ordering::Acquire),
        }
    }

    /// Wall clock in seconds since 2010-01-01, the unit of void times.
    pub fn wall_seconds(&self) -> u32 {
        (self.wall_ms() / 1000) as u32
    }

    /// The present as a last-update time: the wall clock, or the latest time known when that is ahead.
    pub fn now(&self) -> u64 {
        let wall = self.wall_ms();
        let seen = self.last.fetch_max(wall, Ordering::AcqRel);
        seen.max(wall)
    }

    /// Takes note of a time from elsewhere, so that the next local update is not older.
    pub fn observe(&self, last_update_time: u64) {
        self.last.fetch_max(last_update_time, Ordering::AcqRel);
    }

    /// Whether a time from elsewhere is close enough to this node's to be accepted.
    pub fn accepts(&self, last_update_time: u64) -> bool {
        last_update_time <= self.wall_ms() + CLOCK_SKEW_MS_MAX
    }
}

impl Default for HybridClock {
    fn default() -> Self {
        Self::new()
    }
}

fn system_ms() -> u64 {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (unix.as_millis() as u64).saturating_sub(EPOCH_UNIX_SECONDS * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_behind_what_was_observed() {
        let clock = HybridClock::new();
        let ahead = clock.now() + 5_000;
        clock.observe(ahead);
        assert!(clock.now() >= ahead);
        clock.observe(1);
        assert!(clock.now() >= ahead);
    }

    #[test]
    fn a_time_far_ahead_is_not_accepted() {
        let clock = HybridClock::new();
        assert!(clock.accepts(clock.wall_ms() + 1_000));
        assert!(!clock.accepts(clock.wall_ms() + CLOCK_SKEW_MS_MAX + 10_000));
    }
}
