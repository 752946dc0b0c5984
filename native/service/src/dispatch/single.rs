//! Requests for one record on a service thread: run when they come, parked while they wait, and run again.

use std::sync::Arc;
use std::time::Instant;

use perigee_engine::device_copy::{DeviceCopy, Unread};
use perigee_engine::expression::Expression;
use perigee_engine::filter::Filter;
use perigee_engine::latency::Latency;
use perigee_engine::namespace::Namespace;
use perigee_engine::request::Request;
use perigee_engine::storage::CommitTicket;
use perigee_wire::{Digest, Message, ResultCode, write_simple_reply};

use super::ServiceThread;
use crate::contained::working_for;
use crate::net::{ConnId, Flow, Net, Reads};
use crate::parked::{Incoming, Parked, Run, State, Step, carry_out};
use crate::reply_compression::{compress_frame, wants_compressed};

impl ServiceThread {
    /// Takes up a request for the record of this digest.
    pub(super) fn on_record(
        &mut self,
        incoming: &Incoming<'_>,
        namespace: Arc<Namespace>,
        digest: Digest,
        out: &mut Vec<u8>,
        reads: &mut Reads,
    ) -> Flow {
        let message = incoming.message;
        self.next_request += 1;
        let request = self.next_request;
        let filter = match message.filter.map(Expression::compile_filter).transpose() {
            Ok(filter) => filter,
            Err(code) => {
                namespace.refuse(&Request::new(message, &digest), code, out);
                return Flow::Continue;
            }
        };
        let deadline = self.deadline(incoming);
        let run = Run {
            request,
            deadline,
            namespace: &namespace,
            message,
            digest: &digest,
            copy: None,
            filter: filter.as_ref(),
        };
        let latency = Latency::of_record(message);
        match self.run(run, out, reads) {
            Step::Answered => {
                let took = incoming.arrived.elapsed();
                namespace.stats.latencies.add(latency, took, 1);
                Flow::Continue
            }
            Step::Waits(state) => {
                let parked = Parked {
                    conn: incoming.conn,
                    namespace,
                    digest,
                    body: self.bodies.keep(incoming.body, &state),
                    filter,
                    wants_compressed: wants_compressed(&message.header),
                    state,
                    latency,
                    arrived: incoming.arrived,
                    deadline,
                };
                self.parked.insert(request, parked);
                Flow::Park
            }
        }
    }

    /// Runs a request, for the first time or after it was parked.
    fn run(&self, run: Run<'_>, out: &mut Vec<u8>, reads: &mut Reads) -> Step {
        let Run {
            request,
            deadline,
            namespace,
            message,
            digest,
            copy,
            filter,
        } = run;
        let waiter = self.waiter(request);
        let request_of = Request {
            waiter: Some(waiter),
            copy,
            filter: filter.map(Filter::of),
            ..Request::new(message, digest)
        };
        let shared = &self.shared;
        match carry_out(namespace, &request_of, waiter, deadline, out, reads, shared) {
            None => Step::Answered,
            Some(state) => Step::Waits(state),
        }
    }

    pub(super) fn is_durable(
        &self,
        namespace: &Namespace,
        ticket: CommitTicket,
        request: u64,
    ) -> bool {
        namespace.store.await_commit(ticket, self.waiter(request))
    }

    /// The write that a reply waits for is durable, or will not be.
    pub(super) fn on_committed(
        &mut self,
        request: u64,
        durable: bool,
        now: Instant,
        net: &mut dyn Net,
    ) {
        let Some(parked) = self.parked.remove(&request) else {
            return;
        };
        parked.answered(now);
        let State::Commit { mut reply } = parked.state else {
            debug_assert!(
                false,
                "a commit was announced for a request that awaits none"
            );
            return;
        };
        if !durable {
            reply.clear();
            write_simple_reply(&mut reply, ResultCode::Unknown, 0, 0);
        }
        answer(net, parked.conn, &reply);
    }

    /// Takes the reply to a request that was carried out elsewhere.
    pub(super) fn on_record_reply(
        &mut self,
        request: u64,
        mut frame: Vec<u8>,
        ticket: Option<CommitTicket>,
        now: Instant,
        net: &mut dyn Net,
    ) {
        let Some(mut parked) = self.parked.remove(&request) else {
            return;
        };
        if parked.wants_compressed {
            compress_frame(&mut frame, 0, &parked.namespace.stats.record_proto);
        }
        if let Some(ticket) = ticket
            && !self.is_durable(&parked.namespace, ticket, request)
        {
            parked.state = State::Commit { reply: frame };
            self.parked.insert(request, parked);
            return;
        }
        parked.answered(now);
        answer(net, parked.conn, &frame);
    }

    /// Runs a request that waited, with what it waited for.
    pub(super) fn run_again(
        &mut self,
        request: u64,
        mut parked: Parked,
        copy: Option<Result<DeviceCopy<'_>, Unread>>,
        net: &mut dyn Net,
    ) {
        let _work = working_for(parked.conn, &parked.body);
        let Ok(message) = Message::parse(&parked.body) else {
            debug_assert!(false, "a parked request was parsed before it was parked");
            return;
        };
        let (namespace, digest) = (&parked.namespace, &parked.digest);
        let (copy, unread) = match copy.transpose() {
            Ok(copy) => (copy, None),
            Err(unread) => (None, Some(unread)),
        };
        let plain = Request::new(&message, digest);
        let mut nobody = Vec::new();
        let (out, reads) = net.answering(parked.conn);
        let out = out.unwrap_or(&mut nobody);
        let step = if parked.deadline <= Instant::now() {
            // The client has given up and may have sent it again: carried out now, it would be carried out twice.
            namespace.answer_timeout(&plain, out);
            Step::Answered
        } else if let Some(unread) = unread.filter(|it| namespace.is_lost(digest, it)) {
            if self.unread_logged.is_due() {
                let (namespace, reason) = (&namespace.name, &unread.reason);
                tracing::error!(%namespace, %reason, "a record could not be read");
            }
            namespace.answer_unread(&plain, out);
            Step::Answered
        } else {
            let run = Run {
                request,
                deadline: parked.deadline,
                namespace,
                message: &message,
                digest,
                copy,
                filter: parked.filter.as_ref(),
            };
            self.run(run, out, reads)
        };
        match step {
            Step::Answered => {
                parked.answered(Instant::now());
                net.resume(parked.conn);
                self.bodies.give_back(parked.body);
            }
            Step::Waits(state) => {
                if !state.runs_again() {
                    self.bodies.give_back(std::mem::take(&mut parked.body));
                }
                parked.state = state;
                self.parked.insert(request, parked);
            }
        }
    }

    /// Answers the requests that have waited for too long. Only before anything has happened can one be given up:
    /// elsewhere the answer is on its way, and a write may have been made.
    pub(super) fn give_up_late(&mut self, now: Instant, net: &mut dyn Net) {
        let late: Vec<u64> = self
            .parked
            .iter()
            .filter(|(_, parked)| parked.state.runs_again() && parked.deadline <= now)
            .map(|(request, _)| *request)
            .collect();
        for request in late {
            let Some(parked) = self.parked.remove(&request) else {
                continue;
            };
            let mut out = Vec::new();
            if let Ok(message) = Message::parse(&parked.body) {
                let plain = Request::new(&message, &parked.digest);
                parked.namespace.answer_timeout(&plain, &mut out);
                let waiter = self.waiter(request);
                if matches!(parked.state, State::Record) {
                    parked.namespace.forget_waiter(&parked.digest, waiter);
                }
            }
            parked.answered(now);
            answer(net, parked.conn, &out);
        }
    }
}

fn answer(net: &mut dyn Net, conn: ConnId, frame: &[u8]) {
    if let Some(out) = net.output(conn) {
        out.extend_from_slice(frame);
        net.resume(conn);
    }
}
