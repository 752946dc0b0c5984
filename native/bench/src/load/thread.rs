//! One load thread: times replies, counts them, and sends each connection's next request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use perigee_service::net::{ConnId, Consumed, Handler, Net, PeerSocket, Reads, Waker};
use perigee_wire::{PROTO_HEADER_BYTES, ProtoType, ResultCode, parse_proto_header};

use super::outcome::{LATENCY_NS_MIN, Outcome, Samples};
use super::{Phase, Progress, Run, Work};
use crate::frames::{RESULT_AT, Random, Verb};
use crate::streams::look_at;

/// With a rate, requests are released this often; below that, lateness is ours and not the
/// server's.
pub(super) const RATE_TICK: Duration = Duration::from_millis(1);

pub(super) struct Slot {
    verb: Verb,
    key: u64,
    /// When it was sent.
    phase: Phase,
    sent_at: Instant,
    awaits: bool,
}

pub(super) struct Thread {
    pub(super) run: Arc<Run>,
    pub(super) progress: Arc<Progress>,
    pub(super) waker: Waker,
    pub(super) random: Random,
    pub(super) sockets: Vec<(OwnedFd, SocketAddr)>,
    pub(super) slots: Vec<Slot>,
    /// Connections that may send, in the order in which they became free.
    pub(super) free: VecDeque<ConnId>,
    /// Connections whose write the device was not ready for. It is sent again at the next tick.
    pub(super) resting: Vec<ConnId>,
    /// Of the works so far; the last is the one that is carried out.
    pub(super) samples: Vec<Samples>,
    pub(super) awaited: u64,
    pub(super) pace: Option<Pace>,
}

/// When the next request is due.
pub(super) struct Pace {
    pub(super) next: Instant,
    pub(super) interval: Duration,
}

impl Thread {
    /// Samples of what is carried out now.
    fn samples(&mut self) -> &mut Samples {
        let phase = self.run.phase();
        if phase != Phase::END {
            while self.samples.len() <= phase.work() {
                self.samples.push(Samples::new());
            }
        }
        self.samples
            .last_mut()
            .expect("there is one from the start")
    }

    /// Appends the connection's next request, unless the run is over.
    fn send(&mut self, conn: ConnId, now: Instant, output: &mut Vec<u8>) -> bool {
        let run = &*self.run;
        let phase = run.phase();
        if phase == Phase::END {
            return false;
        }
        let mut key = None;
        if phase.is_measured() && run.begun_max != u64::MAX {
            let number = run.begun.fetch_add(1, Ordering::Relaxed);
            if number >= run.begun_max {
                return false;
            }
            key = run.in_order.then_some(number);
        }
        let key = key.unwrap_or_else(|| self.random.below(run.frames.keys));
        let verb = match run.works[phase.work()] {
            Work::Mix { reads_percent } => {
                let percent = u64::from(reads_percent);
                let read = percent > 0 && self.random.below(100) < percent;
                if read { Verb::Read } else { Verb::Write }
            }
            Work::Stream(..) => Verb::Read,
            Work::Only(verb) => verb,
        };
        self.send_request(conn, verb, key, phase, now, output);
        true
    }

    fn send_request(
        &mut self,
        conn: ConnId,
        verb: Verb,
        key: u64,
        phase: Phase,
        now: Instant,
        output: &mut Vec<u8>,
    ) {
        let run = &*self.run;
        match &run.works[phase.work()] {
            Work::Stream(stream, names) => {
                stream.append(names, &run.frames, key, &mut self.random, output);
            }
            _ => run.frames.append(verb, key, output),
        }
        self.slots[conn.index()] = Slot {
            verb,
            key,
            phase,
            sent_at: now,
            awaits: true,
        };
        self.awaited += 1;
    }

    /// Sends again what was put off.
    fn send_resting(&mut self, net: &mut dyn Net) {
        let over = self.run.phase() == Phase::END;
        for conn in std::mem::take(&mut self.resting) {
            let Slot {
                verb, key, phase, ..
            } = self.slots[conn.index()];
            if let Some(output) = net.output(conn).filter(|_| !over) {
                self.send_request(conn, verb, key, phase, Instant::now(), output);
            }
        }
    }

    /// As `send`, at the pace of the rate: a request that is later than our own clock explains
    /// counts from when it was due, so that a server that stalls does not hide the requests that it
    /// kept from being sent.
    fn send_paced(&mut self, conn: ConnId, now: Instant, output: &mut Vec<u8>) -> bool {
        let Some(pace) = &mut self.pace else {
            return self.send(conn, now, output);
        };
        if pace.next > now {
            self.free.push_back(conn);
            return true;
        }
        let due = pace.next;
        pace.next += pace.interval;
        let late = now - due > 2 * RATE_TICK;
        self.send(conn, if late { due } else { now }, output)
    }

    /// Takes a frame of a reply of many; the result of the whole if it is the last.
    fn take_part(&mut self, body: &[u8]) -> Option<u16> {
        let Some(part) = look_at(body) else {
            return Some(Outcome::NOT_A_REPLY);
        };
        if self.run.phase().is_measured() {
            self.samples().records += part.records;
        }
        if let Some(code) = part.failed {
            *self.samples().errors.entry(u16::from(code)).or_default() += 1;
        }
        part.result.map(u16::from)
    }

    /// True if the connection is free for its next request.
    fn take_reply(&mut self, conn: ConnId, result: u16, now: Instant) -> bool {
        let slot = &mut self.slots[conn.index()];
        if !slot.awaits {
            *self
                .samples()
                .errors
                .entry(Outcome::NOT_A_REPLY)
                .or_default() += 1;
            return true;
        }
        slot.awaits = false;
        let Slot {
            verb,
            phase,
            sent_at,
            ..
        } = *slot;
        self.awaited -= 1;
        if self.run.in_order && result == u16::from(ResultCode::DeviceOverload as u8) {
            self.samples().overloads += 1;
            self.resting.push(conn);
            return false;
        }
        let completed = self.progress.completed.load(Ordering::Relaxed) + 1;
        self.progress.completed.store(completed, Ordering::Relaxed);
        let current = self.run.phase();
        // One that was sent for the work before belongs to none.
        if current.is_measured() && phase.work() == current.work() {
            let latency = now.saturating_duration_since(sent_at).as_nanos() as u64;
            let samples = self.samples();
            let histogram = match verb {
                Verb::Read => &mut samples.reads,
                Verb::Write | Verb::Added(_) => &mut samples.writes,
            };
            histogram.saturating_record(latency.max(LATENCY_NS_MIN));
        }
        if result != 0 {
            *self.samples().errors.entry(result).or_default() += 1;
        }
        true
    }

    fn note_idle(&self, sending: bool) {
        if !sending && self.awaited == 0 && self.resting.is_empty() {
            self.progress.idle.store(true, Ordering::Release);
        }
    }

    /// Sends on free connections as far as the pace allows.
    fn send_free(&mut self, net: &mut dyn Net) {
        let now = Instant::now();
        for _ in 0..self.free.len() {
            if self.pace.as_ref().is_some_and(|pace| pace.next > now) {
                return;
            }
            let conn = self.free.pop_front().expect("counted");
            if let Some(output) = net.output(conn) {
                let sending = self.send_paced(conn, now, output);
                self.note_idle(sending);
            }
        }
    }
}

impl Handler for Thread {
    fn on_open(&mut self, conn: ConnId, _peer: SocketAddr) {
        let now = Instant::now();
        let unused = || Slot {
            verb: Verb::Read,
            key: 0,
            phase: Phase::END,
            sent_at: now,
            awaits: false,
        };
        if self.slots.len() <= conn.index() {
            self.slots.resize_with(conn.index() + 1, unused);
        }
        self.free.push_back(conn);
        self.progress.open.fetch_add(1, Ordering::Relaxed);
        self.waker.wake();
    }

    fn on_input(
        &mut self,
        conn: ConnId,
        input: &[u8],
        output: &mut Vec<u8>,
        _reads: &mut Reads,
    ) -> Consumed {
        let header = match parse_proto_header(input) {
            Ok(Some(header)) if header.kind == ProtoType::Message => header,
            Ok(None) => return Consumed::more(0),
            Ok(Some(_)) | Err(_) => {
                self.take_reply(conn, Outcome::NOT_A_REPLY, Instant::now());
                return Consumed::close();
            }
        };
        let end = PROTO_HEADER_BYTES + header.body_bytes;
        if input.len() < end {
            return Consumed::more(0);
        }
        let now = Instant::now();
        let asked = self.slots[conn.index()].phase;
        let result = match self.run.works.get(asked.work()) {
            Some(Work::Stream(..)) => match self.take_part(&input[PROTO_HEADER_BYTES..end]) {
                Some(result) => result,
                None => return Consumed::more(end),
            },
            _ if end > RESULT_AT => u16::from(input[RESULT_AT]),
            _ => Outcome::NOT_A_REPLY,
        };
        if self.take_reply(conn, result, now) {
            let sending = self.send_paced(conn, now, output);
            self.note_idle(sending);
        }
        Consumed::more(end)
    }

    fn on_close(&mut self, conn: ConnId) {
        let none_left = self.progress.open.fetch_sub(1, Ordering::Relaxed) == 1;
        let slot = &mut self.slots[conn.index()];
        if std::mem::take(&mut slot.awaits) {
            self.awaited -= 1;
        }
        self.resting.retain(|resting| *resting != conn);
        if self.run.phase() != Phase::END {
            self.samples().lost += 1;
        }
        if none_left {
            self.progress.idle.store(true, Ordering::Release);
        }
    }

    fn on_wake(&mut self, net: &mut dyn Net) {
        for (socket, peer) in self.sockets.drain(..) {
            net.adopt(PeerSocket::plain(socket, peer));
        }
        self.send_resting(net);
        self.send_free(net);
        let over = self.run.phase() == Phase::END;
        self.note_idle(!over);
    }

    fn on_tick(&mut self, net: &mut dyn Net) {
        self.send_resting(net);
        self.send_free(net);
    }

    fn wants_tick(&self) -> bool {
        !self.resting.is_empty() || self.pace.is_some() && !self.free.is_empty()
    }
}
