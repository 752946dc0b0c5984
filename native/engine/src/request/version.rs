//! Generation, last-update time and void time of a next version.

use perigee_wire::{Message, ResultCode, TTL_SECONDS_MAX, ttl};

use crate::index::Entry;
use crate::namespace::Namespace;
use crate::partition::PartitionState;

impl Namespace {
    /// The generation of the next version: one more than the last (1 to 65535, then 1 again); by XDR the source's, so
    /// that the sites end equal.
    pub(super) fn next_generation(&self, message: &Message<'_>, old: Option<&Entry>) -> u16 {
        match message.header.generation as u16 {
            source @ 1.. if message.lut.is_some() => source,
            _ => following_generation(old),
        }
    }

    /// The last-update time of the next local version. Never before the version that it replaces; past it when the
    /// generation starts again, since a tie of times is decided by that: after a tombstone, an expiry, a wrap.
    pub(crate) fn next_update_time(
        &self,
        state: &mut PartitionState,
        stored: Option<&Entry>,
    ) -> Result<u64, ResultCode> {
        let least = stored.map(|entry| {
            let restarts =
                !self.is_live(entry, self.clock.wall_seconds()) || entry.generation == u16::MAX;
            entry.last_update_time + u64::from(restarts)
        });
        state
            .updates
            .times
            .next(self.clock.now(), least)
            .ok_or(ResultCode::KeyBusy)
    }

    pub(crate) fn void_time(
        &self,
        record_ttl: u32,
        live: Option<&Entry>,
        set_id: u16,
        now: u32,
    ) -> Result<u32, ResultCode> {
        if record_ttl == ttl::DONT_UPDATE && live.is_some() {
            return Ok(live.map_or(0, |entry| entry.void_time));
        }
        self.void_time_of(record_ttl, set_id, now)
    }

    /// The void time for a ttl as the protocol states it (seconds, or one of its special values).
    pub(crate) fn void_time_of(
        &self,
        record_ttl: u32,
        set_id: u16,
        now: u32,
    ) -> Result<u32, ResultCode> {
        let seconds = match record_ttl {
            ttl::NEVER => 0,
            ttl::DEFAULT | ttl::DONT_UPDATE => self.default_ttl(set_id),
            seconds if seconds > TTL_SECONDS_MAX => return Err(ResultCode::Parameter),
            seconds => seconds,
        };
        let removed = self.config.nsup_period.get() > 0 || self.config.allow_ttl_without_nsup.get();
        if seconds != 0 && !removed {
            return Err(ResultCode::Forbidden);
        }
        Ok(if seconds == 0 { 0 } else { now + seconds })
    }

    /// Seconds; 0 never expires.
    fn default_ttl(&self, set_id: u16) -> u32 {
        let of_set = self
            .sets
            .get(set_id)
            .map(|set| set.config.default_ttl.get());
        match of_set {
            None | Some(0) => self.config.default_ttl.get(),
            Some(seconds) => seconds,
        }
    }
}

pub(crate) fn following_generation(old: Option<&Entry>) -> u16 {
    match old.map_or(0, |entry| entry.generation) {
        u16::MAX => 1,
        generation => generation + 1,
    }
}
