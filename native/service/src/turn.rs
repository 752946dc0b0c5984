//! How long requests for many records (queries, batches, background queries) share their thread with requests for one.
//!
//! Long work is done in slices of some ten microseconds, and between two of them the thread looks whether anything has
//! arrived. If so the turn is over: what has arrived is handled, its replies leave, and only then the next slice has its turn.
//! So a request waits for one slice, however much long work there is. In return long work keeps its share where requests never
//! cease to come.

use std::time::{Duration, Instant};

/// A turn lasts so long at most, also while nobody else waits: work of other kinds, and what goes by the clock, does.
const TURN_MAX: Duration = Duration::from_millis(1);

/// Of the time since its last turn, long work has this part at least, up to `LEAST_MAX`: a fifth of the thread.
const SHARE: u32 = 4;
const LEAST_MAX: Duration = Duration::from_micros(100);

/// A turn of long work of one kind.
pub(crate) struct Turn<'a> {
    has_arrived: &'a mut dyn FnMut() -> bool,
    began: Instant,
    least: Duration,
}

impl<'a> Turn<'a> {
    /// `has_arrived` tells whether others wait.
    pub fn begin(has_arrived: &'a mut dyn FnMut() -> bool, share: &TurnShare) -> Turn<'a> {
        Turn {
            has_arrived,
            began: Instant::now(),
            least: share.least,
        }
    }

    /// Whether others go first now. To be asked after every slice, so that each turn has one.
    pub fn is_over(&mut self) -> bool {
        let least = match (self.has_arrived)() {
            true => self.least,
            false => TURN_MAX,
        };
        self.began.elapsed() >= least
    }
}

/// What long work of a thread has of its time at least.
#[derive(Default)]
pub(crate) struct TurnShare {
    /// Since when there is long work that waits.
    waits_since: Option<Instant>,
    least: Duration,
}

impl TurnShare {
    /// A round of turns begins.
    pub fn begin(&mut self) {
        let waited = self.waits_since.map_or(Duration::ZERO, |it| it.elapsed());
        self.least = (waited / SHARE).min(LEAST_MAX);
    }

    /// The round is over; `goes_on` if long work is left.
    pub fn end(&mut self, goes_on: bool) {
        self.waits_since = goes_on.then(Instant::now);
    }
}
