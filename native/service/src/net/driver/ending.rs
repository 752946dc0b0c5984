//! How connections end: by their handler, by the clock, by a stop.

use std::io;
use std::time::{Duration, Instant};

use super::{Driver, SWEEP_INTERVAL_MAX};
use crate::net::connection::{Phase, SlowPeer};
use crate::net::mechanism::Mechanism;
use crate::net::{ConnId, Handler};

impl<M: Mechanism, H: Handler> Driver<'_, M, H> {
    /// Until the next thing with a time; `None` when only an event can bring work.
    pub(super) fn timeout(&self) -> Option<Duration> {
        if !self.links.drained.is_empty() {
            return Some(Duration::ZERO);
        }
        let sweep = self.wants_sweep().then_some(self.sweep_at);
        let next = [self.tick_at, sweep, self.accept_again_at, self.stop_at]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.saturating_duration_since(self.now))
    }

    fn wants_tick(&self) -> bool {
        self.links.parked > 0 || self.handler.wants_tick()
    }

    fn wants_sweep(&self) -> bool {
        self.links.slow > 0
            || self.links.handshaking > 0
            || self.idle_timeout.is_some() && self.links.open > 0
    }

    pub(super) fn keep_time(&mut self) -> io::Result<()> {
        if self.tick_at.is_some_and(|at| self.now >= at) {
            self.tick_at = None;
            self.handler.on_tick(&mut self.links);
            self.attend()?;
        }
        match (self.wants_tick(), self.tick_at) {
            (true, None) => self.tick_at = Some(self.now + self.tick),
            (false, Some(_)) => self.tick_at = None,
            _ => {}
        }
        if self.now >= self.sweep_at && self.wants_sweep() {
            self.sweep_at = self.now + self.sweep_interval;
            self.sweep();
        }
        if self.accept_again_at.is_some_and(|at| self.now >= at) {
            self.accept_again_at = None;
            if self.stop_at.is_none() {
                self.mechanism.accept(true)?;
            }
        }
        if self.stop_at.is_some_and(|at| self.now >= at) {
            self.drop_all();
            // What is left waits for the kernel only; its answers come as events.
            self.stop_at = Some(self.now + SWEEP_INTERVAL_MAX);
        }
        Ok(())
    }

    /// The handler's close: it is told at once, the output still leaves.
    pub(super) fn begin_close(&mut self, id: ConnId) {
        let connection = self.links.table.get(id).expect("the caller has found it");
        assert_eq!(connection.phase, Phase::Open);
        connection.phase = Phase::Closing;
        connection.offer_due = false;
        if std::mem::take(&mut connection.parked) {
            self.links.parked -= 1;
        }
        self.links.open -= 1;
        self.handler.on_close(id);
    }

    /// Ends a connection with what it still held. Its buffers live on until the kernel has let go
    /// of them.
    pub(super) fn drop_connection(&mut self, id: ConnId) {
        let Some(connection) = self.links.table.get(id) else {
            return;
        };
        if connection.phase == Phase::Gone {
            return;
        }
        if connection.phase == Phase::Open {
            self.begin_close(id);
        }
        let connection = self.links.table.get(id).expect("begin_close frees nothing");
        connection.phase = Phase::Gone;
        if let Some(session) = &mut connection.tls
            && session.abandon()
        {
            self.links.handshaking -= 1;
        }
        if connection.slow.take().is_some() {
            self.links.slow -= 1;
        }
        if self.mechanism.detach(connection) {
            self.links.table.free(id);
        }
    }

    pub(super) fn drop_all(&mut self) {
        for position in 0..self.links.table.positions() {
            if let Some(id) = self.links.table.id_at(position) {
                self.drop_connection(id);
            }
        }
    }

    /// Closes who has been too slow or idle for too long.
    fn sweep(&mut self) {
        for position in 0..self.links.table.positions() {
            let Some(id) = self.links.table.id_at(position) else {
                continue;
            };
            let connection = self.links.table.get(id).expect("it was there");
            let mut expired = None;
            if let Some(slow) = &mut connection.slow
                && self.now.duration_since(slow.since) >= self.slow_peer_timeout
            {
                let taken = connection.outbox.taken_total - slow.taken_before;
                if taken >= self.output_bytes_max as u64 / 2 {
                    *slow = SlowPeer {
                        since: self.now,
                        taken_before: connection.outbox.taken_total,
                    };
                } else {
                    expired = Some("does not read its replies");
                }
            }
            if let Some(idle_timeout) = self.idle_timeout
                && connection.phase == Phase::Open
                && !connection.parked
                && self.now.duration_since(connection.active_at) >= idle_timeout
            {
                expired = Some("idle");
            }
            if connection.is_late_with_handshake(self.now) {
                self.give_up_handshake(id);
            } else if let Some(reason) = expired {
                tracing::info!(peer = %connection.peer, reason, "connection closed");
                self.drop_connection(id);
            }
        }
    }

    /// From here on nothing is accepted or received; every connection ends when it has nothing
    /// parked and nothing unsent.
    pub(super) fn begin_stop(&mut self, deadline: Instant) -> io::Result<()> {
        self.stop_at = Some(deadline);
        self.mechanism.accept(false)?;
        for position in 0..self.links.table.positions() {
            if let Some(id) = self.links.table.id_at(position) {
                self.pump(id)?;
            }
        }
        Ok(())
    }
}
