//! Changes of one partition that wait to be shipped to one datacenter. Guarded by the partition's lock.
//!
//! Invariant: a record's newest version that has to ship is queued, or in flight at that version, or ahead of the
//! recovery cursor. The last-ship time is never later than a change that is none of these and not confirmed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use perigee_wire::Digest;

use crate::index::{Entry, PartitionTable, flag};

/// Digests are uniformly distributed, so eight of their bytes are a hash already.
#[derive(Default)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(tail) = bytes.last_chunk::<8>() {
            self.0 = u64::from_le_bytes(*tail);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub type DigestMap<V> = HashMap<Digest, V, BuildHasherDefault<DigestHasher>>;

/// Index entries looked at under one hold of the partition's lock while recovering.
const RECOVERY_STEP_ENTRIES: usize = 2048;

/// Room that an idle queue keeps.
const IDLE_ENTRIES: usize = 16;

#[derive(Default)]
pub struct ChangeQueue {
    order: VecDeque<Digest>,
    /// Queued digests with the last-update time of the oldest change that they stand for.
    queued: DigestMap<u64>,
    in_flight: DigestMap<u64>,
    /// When each record that may still be hot was last handed out (monotonic milliseconds), and in which order.
    handed_out: DigestMap<u64>,
    handed_out_order: VecDeque<(u64, Digest)>,
    recovery: Option<Recovery>,
    /// The queue overflowed while a recovery was under way: where the next one has to start.
    recover_again: Option<Span>,
    last_ship_time: u64,
    /// The latest last-update time that was confirmed.
    confirmed: u64,
    /// Whether the datacenter's list of partitions with work names this one.
    pub listed: bool,
}

/// Last-update times that a recovery looks for, both included.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    until: u64,
}

impl Span {
    fn contains(self, last_update_time: u64) -> bool {
        (self.from..=self.until).contains(&last_update_time)
    }
}

struct Recovery {
    cursor: Option<Digest>,
    span: Span,
}

/// What happened to a change that was put on the queue.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Pushed {
    Queued,
    /// The record was queued already; one shipment carries both changes.
    Folded,
    /// The queue was full: the partition falls back to recovery.
    Overflowed {
        dropped: usize,
        recovery_began: bool,
    },
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Confirmation {
    Shipped,
    Retry,
    Abandoned,
}

impl ChangeQueue {
    pub fn push(&mut self, digest: &Digest, last_update_time: u64, limit: usize) -> Pushed {
        if self.queued.contains_key(digest) {
            return Pushed::Folded;
        }
        if self.order.len() >= limit {
            let dropped = self.order.len();
            let oldest = self.oldest_pending().unwrap_or(last_update_time);
            let newest = self
                .queued
                .values()
                .max()
                .copied()
                .unwrap_or(0)
                .max(last_update_time);
            self.order.clear();
            self.queued.clear();
            let recovery_began = self.start_recovery(oldest.min(last_update_time), newest);
            return Pushed::Overflowed {
                dropped,
                recovery_began,
            };
        }
        self.order.push_back(*digest);
        self.queued.insert(*digest, last_update_time);
        Pushed::Queued
    }

    /// Starts walking the partition for records changed between two times, both included; later changes are queued as they
    /// happen. False when a walk is under way already: then another one follows it.
    pub fn start_recovery(&mut self, from: u64, until: u64) -> bool {
        let span = Span { from, until };
        if self.recovery.is_some() {
            self.recover_again = Some(self.recover_again.map_or(span, |again| Span {
                from: again.from.min(from),
                until: again.until.max(until),
            }));
            return false;
        }
        self.recovery = Some(Recovery { cursor: None, span });
        true
    }

    /// Whether a record's version has still to be shipped, as far as is known.
    pub fn holds(&self, entry: &Entry) -> bool {
        ships(entry)
            && (self.queued.contains_key(&entry.digest)
                || self.in_flight.contains_key(&entry.digest)
                || self
                    .recovery
                    .as_ref()
                    .is_some_and(|r| r.span.contains(entry.last_update_time)))
    }

    pub fn recovering(&self) -> bool {
        self.recovery.is_some()
    }

    pub fn has_work(&self) -> bool {
        self.recovery.is_some() || !self.order.is_empty()
    }

    pub fn queued_len(&self) -> usize {
        self.order.len()
    }

    /// The next digest to ship, now in flight; `None` when nothing can be handed out at present. Records in flight, and
    /// those handed out less than `hot_key_ms` before `now_ms` (any monotonic clock), stay queued.
    pub fn next(&mut self, now_ms: u64, hot_key_ms: u64) -> Option<Digest> {
        self.cool(now_ms, hot_key_ms);
        for _ in 0..self.order.len() {
            let digest = self.order.pop_front()?;
            if self.in_flight.contains_key(&digest) || self.handed_out.contains_key(&digest) {
                self.order.push_back(digest);
                continue;
            }
            let since = self.queued.remove(&digest).unwrap_or(0);
            self.in_flight.insert(digest, since);
            // A recovery hands out every record once; there is nothing to be learnt about hot ones.
            if hot_key_ms > 0 && self.recovery.is_none() {
                self.handed_out.insert(digest, now_ms);
                self.handed_out_order.push_back((now_ms, digest));
            }
            return Some(digest);
        }
        None
    }

    /// Forgets what was handed out long enough ago, which bounds the list by what ships in `hot_key_ms`.
    fn cool(&mut self, now_ms: u64, hot_key_ms: u64) {
        while let Some((time, digest)) = self.handed_out_order.front()
            && now_ms.saturating_sub(*time) >= hot_key_ms
        {
            if self.handed_out.get(digest) == Some(time) {
                self.handed_out.remove(digest);
            }
            self.handed_out_order.pop_front();
        }
    }

    /// Moves the recovery on: queues records that it finds, at most `room` of them. Returns whether it ended.
    pub fn recover(&mut self, table: &PartitionTable, room: usize) -> bool {
        let Some(recovery) = &mut self.recovery else {
            return false;
        };
        let (mut looked_at, mut found) = (0, 0);
        let mut ended = true;
        for entry in table.iter_after(recovery.cursor.as_ref()) {
            if looked_at == RECOVERY_STEP_ENTRIES || found == room {
                ended = false;
                break;
            }
            looked_at += 1;
            recovery.cursor = Some(entry.digest);
            if ships(&entry)
                && recovery.span.contains(entry.last_update_time)
                && !self.queued.contains_key(&entry.digest)
            {
                self.order.push_back(entry.digest);
                self.queued.insert(entry.digest, entry.last_update_time);
                found += 1;
            }
        }
        if ended {
            self.recovery = self
                .recover_again
                .take()
                .map(|span| Recovery { cursor: None, span });
            return self.recovery.is_none();
        }
        ended
    }

    /// Takes an answer for a record in flight. `last_update_time` is that of the version that was shipped.
    pub fn confirm(&mut self, digest: &Digest, last_update_time: u64, outcome: Confirmation) {
        let Some(since) = self.in_flight.remove(digest) else {
            return;
        };
        match outcome {
            Confirmation::Retry => {
                // It did not arrive, so sending it again is no second shipment.
                self.handed_out.remove(digest);
                // A change queued meanwhile already stands for this one, but not as far back.
                if self.queued.insert(*digest, since).is_none() {
                    self.order.push_front(*digest);
                }
            }
            Confirmation::Shipped | Confirmation::Abandoned => {
                self.confirmed = self.confirmed.max(last_update_time);
            }
        }
        if self.order.is_empty() && self.in_flight.is_empty() {
            self.give_back();
        }
    }

    /// Lets go of the room that a burst took: there is one queue for each of 4096 partitions.
    fn give_back(&mut self) {
        self.order.shrink_to(IDLE_ENTRIES);
        self.queued.shrink_to(IDLE_ENTRIES);
        self.in_flight.shrink_to(IDLE_ENTRIES);
        self.handed_out.shrink_to(IDLE_ENTRIES);
        self.handed_out_order.shrink_to(IDLE_ENTRIES);
    }

    fn oldest_pending(&self) -> Option<u64> {
        self.queued
            .values()
            .chain(self.in_flight.values())
            .min()
            .copied()
    }

    /// Every change before this time is confirmed, so a restart walks the partition from here (inclusive: changes of the
    /// same millisecond may have come after the one that was confirmed last). Never goes back.
    pub fn last_ship_time(&mut self) -> u64 {
        let recovery = self.recovery.as_ref().map(|recovery| recovery.span.from);
        let again = self.recover_again.map(|span| span.from);
        let pending = [self.oldest_pending(), recovery, again];
        let unconfirmed = pending.into_iter().flatten().min();
        self.last_ship_time = self
            .last_ship_time
            .max(unconfirmed.unwrap_or(self.confirmed));
        self.last_ship_time
    }

    pub fn set_last_ship_time(&mut self, time: u64) {
        self.last_ship_time = time;
        self.confirmed = time;
    }

    /// The age of the oldest change that is not confirmed, in milliseconds.
    pub fn lag_ms(&self, now: u64) -> u64 {
        let recovering = self
            .recovery
            .as_ref()
            .map(|r| r.span.from)
            .filter(|from| *from > 0);
        let oldest = self.oldest_pending().into_iter().chain(recovering).min();
        oldest.map_or(0, |time| now.saturating_sub(time))
    }
}

/// Whether a record's present version is this site's to ship: what came by XDR is not sent on.
pub fn ships(entry: &Entry) -> bool {
    entry.flags & flag::XDR_WRITE == 0
}

#[cfg(test)]
mod tests {
    use perigee_wire::PartitionId;

    use super::*;
    use crate::index::Location;

    const LIMIT: usize = 4;

    fn digest(number: u8) -> Digest {
        let mut digest = [0; 20];
        digest[19] = number;
        digest
    }

    fn entry(number: u8, last_update_time: u64, flags: u8) -> Entry {
        Entry {
            digest: digest(number),
            set_id: 0,
            generation: 1,
            last_update_time,
            void_time: 0,
            location: Location::new(0, 1, 4),
            flags,
        }
    }

    fn next(queue: &mut ChangeQueue) -> Option<Digest> {
        queue.next(0, 0)
    }

    #[test]
    fn ten_writes_to_one_record_are_one_shipment() {
        let mut queue = ChangeQueue::default();
        assert_eq!(queue.push(&digest(1), 10, LIMIT), Pushed::Queued);
        for time in 11..20 {
            assert_eq!(queue.push(&digest(1), time, LIMIT), Pushed::Folded);
        }
        assert_eq!(next(&mut queue), Some(digest(1)));
        assert_eq!(next(&mut queue), None);
    }

    #[test]
    fn a_record_in_flight_is_not_handed_out_again_until_it_is_confirmed() {
        let mut queue = ChangeQueue::default();
        queue.push(&digest(1), 10, LIMIT);
        assert_eq!(next(&mut queue), Some(digest(1)));
        queue.push(&digest(1), 11, LIMIT);
        assert_eq!(next(&mut queue), None);
        queue.confirm(&digest(1), 10, Confirmation::Shipped);
        assert_eq!(next(&mut queue), Some(digest(1)));
    }

    #[test]
    fn a_hot_record_waits_and_a_retried_one_does_not() {
        let mut queue = ChangeQueue::default();
        queue.push(&digest(1), 10, LIMIT);
        assert_eq!(queue.next(1000, 100), Some(digest(1)));
        queue.confirm(&digest(1), 10, Confirmation::Shipped);
        queue.push(&digest(1), 11, LIMIT);
        assert_eq!(queue.next(1099, 100), None);
        assert_eq!(queue.next(1100, 100), Some(digest(1)));
        queue.confirm(&digest(1), 11, Confirmation::Retry);
        assert_eq!(queue.next(1101, 100), Some(digest(1)));
    }

    #[test]
    fn the_last_ship_time_never_passes_an_unconfirmed_change() {
        let mut queue = ChangeQueue::default();
        for (number, time) in [(1, 10), (2, 20), (3, 30)] {
            queue.push(&digest(number), time, LIMIT);
        }
        for _ in 0..3 {
            next(&mut queue);
        }
        queue.confirm(&digest(3), 30, Confirmation::Shipped);
        assert_eq!(queue.last_ship_time(), 10);
        queue.confirm(&digest(1), 10, Confirmation::Retry);
        queue.confirm(&digest(2), 20, Confirmation::Shipped);
        assert_eq!(queue.last_ship_time(), 10);
        assert_eq!(next(&mut queue), Some(digest(1)));
        queue.confirm(&digest(1), 10, Confirmation::Shipped);
        assert_eq!(queue.last_ship_time(), 30);
    }

    #[test]
    fn an_overflow_recovers_every_change_from_the_index() {
        let mut table = PartitionTable::new(PartitionId::new(0).expect("a partition"));
        let mut queue = ChangeQueue::default();
        for number in 0..=LIMIT as u8 {
            table.upsert(entry(number, 100 + u64::from(number), 0));
            let pushed = queue.push(&digest(number), 100 + u64::from(number), LIMIT);
            assert_eq!(
                matches!(pushed, Pushed::Overflowed { .. }),
                number == LIMIT as u8
            );
        }
        table.upsert(entry(77, 50, 0));
        table.upsert(entry(78, 200, flag::XDR_WRITE));
        assert!(queue.last_ship_time() <= 100);
        let mut shipped = Vec::new();
        while queue.has_work() {
            queue.recover(&table, 2);
            while let Some(digest) = next(&mut queue) {
                queue.confirm(&digest, 104, Confirmation::Shipped);
                shipped.push(digest[19]);
            }
        }
        assert_eq!(
            shipped,
            [0, 1, 2, 3, 4],
            "not what is older, nor what came by XDR"
        );
        assert_eq!(queue.last_ship_time(), 104);
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_unconfirmed_change() {
        let mut queue = ChangeQueue::default();
        assert_eq!(queue.lag_ms(1000), 0);
        queue.push(&digest(1), 400, LIMIT);
        queue.push(&digest(2), 700, LIMIT);
        assert_eq!(queue.lag_ms(1000), 600);
        next(&mut queue);
        queue.confirm(&digest(1), 400, Confirmation::Shipped);
        assert_eq!(queue.lag_ms(1000), 300);
    }
}
