//! One service thread: frames come in, each is answered completely here or parked until what it waits for is there. A
//! connection has one request under way, so its replies keep its requests' order.

mod single;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use perigee_engine::namespace::Namespace;
use perigee_engine::partition::Waiter;
use perigee_engine::stats::count;
use perigee_engine::storage::CommitTicket;
use perigee_wire::{
    Digest, INFO_BODY_BYTES_MAX, Message, PROTO_HEADER_BYTES, ProtoType, ReplyHeader, ReplyWriter,
    ResultCode, compute_digest, inflate_message, info3, parse_proto_header, write_info_reply,
    write_proto_header,
};

use crate::background_job::{BackgroundContext, BackgroundJobs};
use crate::batch_job::{BatchContext, BatchJobs};
use crate::contained::working_for;
use crate::mailbox::Mail;
use crate::net::{ConnId, Consumed, Flow, Handler, Net, Reads};
use crate::parked::{Bodies, Incoming, LogPace, Parked, State};
use crate::query_job::{QueryContext, QueryJobs};
use crate::query_request::{QueryKind, is_query, kind_of};
use crate::server::{InfoRequest, Shared};
use crate::turn::{Turn, TurnShare};

/// Body of a security reply, and its result's place in it (PROTOCOL section 17).
const SECURITY_BODY_BYTES: usize = 16;
const SECURITY_RESULT_AT: usize = 1;
/// What a client that speaks TLS begins with: a record of type handshake, of version 3.x.
const TLS_HANDSHAKE: [u8; 2] = [22, 3];
/// A fatal alert, protocol_version (RFC 8446, 6.2): without it such a client learns only that the connection was
/// closed, as it is by a node that ends, and tries again.
const TLS_ALERT: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];

/// Memory for inflated messages that a thread keeps.
const INFLATED_KEPT_BYTES_MAX: usize = 1 << 20;

pub(crate) struct ServiceThread {
    number: u32,
    shared: Arc<Shared>,
    peers: Vec<Option<SocketAddr>>,
    parked: HashMap<u64, Parked>,
    queries: QueryJobs,
    batches: BatchJobs,
    background: BackgroundJobs,
    share: TurnShare,
    bodies: Bodies,
    /// Where compressed messages are inflated.
    inflated: Vec<u8>,
    next_request: u64,
    malformed_logged: LogPace,
    unread_logged: LogPace,
    panics_logged: LogPace,
}

impl ServiceThread {
    pub(crate) fn new(number: u32, shared: Arc<Shared>) -> Self {
        ServiceThread {
            number,
            shared,
            peers: Vec::new(),
            parked: HashMap::new(),
            queries: QueryJobs::default(),
            batches: BatchJobs::default(),
            background: BackgroundJobs::default(),
            share: TurnShare::default(),
            bodies: Bodies::default(),
            inflated: Vec::new(),
            next_request: 0,
            malformed_logged: LogPace::default(),
            unread_logged: LogPace::default(),
            panics_logged: LogPace::default(),
        }
    }

    fn on_frame(
        &mut self,
        conn: ConnId,
        kind: ProtoType,
        body: &[u8],
        out: &mut Vec<u8>,
        reads: &mut Reads,
    ) -> Flow {
        match kind {
            ProtoType::Message => self.on_message(conn, body, Instant::now(), out, reads),
            ProtoType::Info => self.on_info(conn, body),
            ProtoType::Security => {
                // No access control is configured: clients that carry credentials go on without.
                let mut reply = [0; SECURITY_BODY_BYTES];
                reply[SECURITY_RESULT_AT] = ResultCode::SecNotConfigured as u8;
                write_proto_header(out, ProtoType::Security, reply.len());
                out.extend_from_slice(&reply);
                Flow::Continue
            }
            ProtoType::Compressed => self.on_compressed(conn, body, out, reads),
            ProtoType::Xdr => self.malformed(conn, &"frames of type 5 are not spoken here"),
        }
    }

    fn malformed(&mut self, conn: ConnId, why: &dyn std::fmt::Display) -> Flow {
        count(&self.shared.stats.demarshal_error);
        if self.malformed_logged.is_due() {
            let peer = self.peer(conn);
            tracing::warn!(%peer, reason = %why, "malformed frame: the connection is closed");
        }
        Flow::Close
    }

    fn peer(&self, conn: ConnId) -> String {
        let peer = self.peers.get(conn.index()).copied().flatten();
        peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
    }

    fn on_info(&mut self, conn: ConnId, body: &[u8]) -> Flow {
        if body.len() > INFO_BODY_BYTES_MAX {
            return self.malformed(conn, &"info text is too long");
        }
        let Ok(text) = std::str::from_utf8(body) else {
            return self.malformed(conn, &"info text is not UTF-8");
        };
        let id = self.shared.info.open(self.number, conn);
        let request = InfoRequest {
            id,
            text: text.to_owned(),
            peer: self.peer(conn),
        };
        (self.shared.on_info)(request);
        Flow::Park
    }

    /// Carries out the message within a compressed one.
    fn on_compressed(
        &mut self,
        conn: ConnId,
        body: &[u8],
        out: &mut Vec<u8>,
        reads: &mut Reads,
    ) -> Flow {
        let arrived = Instant::now();
        let mut inflated = std::mem::take(&mut self.inflated);
        let flow = match inflate_message(body, &mut inflated) {
            Ok(message) => self.on_message(conn, message, arrived, out, reads),
            Err(error) => {
                count(&self.shared.stats.early_tsvc_client_error);
                if self.malformed_logged.is_due() {
                    let peer = self.peer(conn);
                    tracing::warn!(%peer, reason = %error, "a compressed message is refused");
                }
                answer_unread(ResultCode::Parameter, out);
                Flow::Continue
            }
        };
        if inflated.capacity() <= INFLATED_KEPT_BYTES_MAX {
            self.inflated = inflated;
        }
        flow
    }

    fn on_message(
        &mut self,
        conn: ConnId,
        body: &[u8],
        arrived: Instant,
        out: &mut Vec<u8>,
        reads: &mut Reads,
    ) -> Flow {
        let message = match Message::parse(body) {
            Ok(message) => message,
            Err(error) => {
                count(&self.shared.stats.early_tsvc_client_error);
                answer_unread(error.result_code(), out);
                return Flow::Continue;
            }
        };
        let incoming = Incoming {
            conn,
            body,
            message: &message,
            arrived,
        };
        let name = message.namespace.unwrap_or_default();
        let Some(engine) = self.shared.engine.get() else {
            count(&self.shared.stats.early_tsvc_client_error);
            let code = match self.shared.opening.has(name) {
                true => ResultCode::Unavailable,
                false => ResultCode::Namespace,
            };
            answer_stream(&message, code, out);
            return Flow::Continue;
        };
        if message.batch.is_some() {
            return self.on_batch(&incoming, out, reads);
        }
        let Some(namespace) = engine.namespace(name) else {
            count(&self.shared.stats.early_tsvc_client_error);
            answer_stream(&message, ResultCode::Namespace, out);
            return Flow::Continue;
        };
        let digest = digest_of(&message);
        if digest.is_none() && is_query(&message) {
            let namespace = namespace.clone();
            return self.on_query(&incoming, &namespace, out);
        }
        let Some(digest) = digest else {
            count(&self.shared.stats.early_tsvc_client_error);
            answer_stream(&message, ResultCode::Parameter, out);
            return Flow::Continue;
        };
        let namespace = namespace.clone();
        self.on_record(&incoming, namespace, digest, out, reads)
    }

    fn on_batch(&mut self, incoming: &Incoming<'_>, out: &mut Vec<u8>, reads: &mut Reads) -> Flow {
        let answered =
            self.with_batches(|batches, context| batches.start(incoming, out, reads, context));
        match answered {
            true => Flow::Continue,
            false => Flow::Park,
        }
    }

    fn with_batches<R>(&mut self, f: impl FnOnce(&mut BatchJobs, &mut BatchContext<'_>) -> R) -> R {
        let mut context = BatchContext {
            thread: self.number,
            shared: &self.shared,
            next_request: &mut self.next_request,
        };
        f(&mut self.batches, &mut context)
    }

    /// Takes up a query. Unless it works in the background, its connection is parked until the last record is sent.
    fn on_query(
        &mut self,
        incoming: &Incoming<'_>,
        namespace: &Arc<Namespace>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let Incoming { conn, message, .. } = *incoming;
        let (peer, deadline) = (self.peer(conn), self.deadline(incoming));
        let registry = &self.shared.queries;
        let started = kind_of(message).and_then(|kind| {
            let started = match kind {
                QueryKind::Background => {
                    let body = incoming.body;
                    self.background
                        .start(namespace, body, message, peer, registry)
                }
                QueryKind::Records => {
                    let queries = &mut self.queries;
                    queries.start(conn, namespace, message, peer, deadline, registry)
                }
                QueryKind::Stream => {
                    let context = QueryContext {
                        registry,
                        udf: &self.shared.udf,
                        thread: self.number,
                        next_request: &mut self.next_request,
                    };
                    let queries = &mut self.queries;
                    queries.start_stream(conn, namespace, message, peer, deadline, &context)
                }
            };
            started.map(|()| kind)
        });
        match started {
            Ok(QueryKind::Background) => {
                answer_stream(message, ResultCode::Ok, out);
                Flow::Continue
            }
            Ok(QueryKind::Records | QueryKind::Stream) => Flow::Park,
            Err(code) => {
                count(&namespace.stats.mine().client_tsvc_error);
                answer_stream(message, code, out);
                Flow::Continue
            }
        }
    }

    fn with_background(&mut self, f: impl FnOnce(&mut BackgroundJobs, &mut BackgroundContext<'_>)) {
        let mut context = BackgroundContext {
            thread: self.number,
            shared: &self.shared,
            next_request: &mut self.next_request,
        };
        f(&mut self.background, &mut context);
    }

    fn waiter(&self, request: u64) -> Waiter {
        Waiter {
            thread: self.number,
            request,
        }
    }

    /// When the client gives up; the node's own limit for those who do not say.
    fn deadline(&self, incoming: &Incoming<'_>) -> Instant {
        let ms = match incoming.message.header.transaction_ttl {
            0 => self.shared.transaction_max_ms,
            ms => ms,
        };
        incoming.arrived + Duration::from_millis(u64::from(ms))
    }

    /// `now` is the end of all that mail answers: one look at the clock serves a group of commits.
    fn on_mail(&mut self, mail: Mail, now: Instant, net: &mut dyn Net) {
        match mail {
            Mail::Adopt(socket) => net.adopt(socket),
            Mail::Committed { request, durable } if self.batches.has(request) => {
                self.with_batches(|batches, context| match durable {
                    true => batches.answered(request, None, net, context),
                    false => batches.not_durable(request, net, context),
                });
            }
            Mail::Committed { request, durable } if self.background.has(request) => {
                self.with_background(|background, context| match durable {
                    true => background.answered(request, None, context),
                    false => background.not_durable(request, context),
                });
            }
            Mail::Committed { request, durable } => self.on_committed(request, durable, now, net),
            Mail::Reply {
                request,
                frame,
                ticket,
            } => self.on_reply(request, frame, ticket, now, net),
            Mail::Stream { request, outcome } => self.queries.deliver_share(request, outcome),
            Mail::Retry { request } if self.batches.has(request) => {
                self.with_batches(|batches, context| {
                    batches.run_again(request, None, net, context)
                });
            }
            Mail::Retry { request } if self.background.has(request) => {
                self.with_background(|background, context| {
                    background.run_again(request, None, net.reads(), context)
                });
            }
            Mail::Retry { request } => {
                if let Some(parked) = self.parked.remove(&request) {
                    self.run_again(request, parked, None, net);
                }
            }
        }
    }

    /// Takes the reply to a request that was carried out elsewhere.
    fn on_reply(
        &mut self,
        request: u64,
        frame: Vec<u8>,
        ticket: Option<CommitTicket>,
        now: Instant,
        net: &mut dyn Net,
    ) {
        if let Some((namespace, _)) = self.batches.row(request) {
            let waits = ticket.filter(|it| !self.is_durable(&namespace, *it, request));
            return match waits {
                Some(_) => self.batches.await_commit(request, frame),
                None => self.with_batches(|batches, context| {
                    batches.answered(request, Some(&frame), net, context);
                }),
            };
        }
        if let Some((namespace, _)) = self.background.change(request) {
            let waits = ticket.filter(|it| !self.is_durable(&namespace, *it, request));
            return match waits {
                Some(_) => self.background.await_commit(request, frame),
                None => self.with_background(|background, context| {
                    background.answered(request, Some(&frame), context);
                }),
            };
        }
        self.on_record_reply(request, frame, ticket, now, net);
    }
}

impl Handler for ServiceThread {
    fn on_open(&mut self, conn: ConnId, peer: SocketAddr) {
        if self.peers.len() <= conn.index() {
            self.peers.resize(conn.index() + 1, None);
        }
        self.peers[conn.index()] = Some(peer);
        count(&self.shared.stats.client_connections_opened);
    }

    fn on_close(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(conn.index()) {
            *peer = None;
        }
        self.queries.closed(conn, &self.shared.queries);
        self.batches.closed(conn, self.number, &self.shared);
        count(&self.shared.stats.client_connections_closed);
    }

    fn on_input(
        &mut self,
        conn: ConnId,
        input: &[u8],
        output: &mut Vec<u8>,
        reads: &mut Reads,
    ) -> Consumed {
        // One frame a call: between two the loop looks at how much output waits.
        let header = match parse_proto_header(input) {
            Ok(Some(header)) => header,
            Ok(None) => return Consumed::more(0),
            Err(error) => {
                let flow = if input.starts_with(&TLS_HANDSHAKE) {
                    output.extend_from_slice(&TLS_ALERT);
                    self.malformed(conn, &"it speaks TLS, and this port is without")
                } else {
                    self.malformed(conn, &error)
                };
                return Consumed { bytes: 0, flow };
            }
        };
        let end = PROTO_HEADER_BYTES + header.body_bytes;
        let Some(body) = input.get(PROTO_HEADER_BYTES..end) else {
            return Consumed::more(0);
        };
        let flow = self.on_frame(conn, header.kind, body, output, reads);
        Consumed { bytes: end, flow }
    }

    fn on_read(&mut self, request: u64, pages: &[u8], outcome: io::Result<()>, net: &mut dyn Net) {
        let Some(outcome) = self.queries.deliver(request, pages, outcome) else {
            return;
        };
        if let Some((namespace, State::Device { location })) = self.batches.row(request) {
            let copy = namespace.finish_read(*location, pages, outcome);
            return self.with_batches(|batches, context| {
                batches.run_again(request, Some(copy), net, context);
            });
        }
        if let Some((namespace, State::Device { location })) = self.background.change(request) {
            let copy = namespace.finish_read(*location, pages, outcome);
            return self.with_background(|background, context| {
                background.run_again(request, Some(copy), net.reads(), context);
            });
        }
        // Gone if its time ran out meanwhile.
        let Some(parked) = self.parked.remove(&request) else {
            return;
        };
        let State::Device { location } = parked.state else {
            debug_assert!(false, "a read came for a request that awaits none");
            return;
        };
        let namespace = parked.namespace.clone();
        let _work = working_for(parked.conn, &parked.body);
        let copy = namespace.finish_read(location, pages, outcome);
        self.run_again(request, parked, Some(copy), net);
    }

    fn on_wake(&mut self, net: &mut dyn Net) {
        let shared = self.shared.clone();
        let Some(mailbox) = shared.mailboxes.0.get(self.number as usize) else {
            return;
        };
        let now = Instant::now();
        while let Some(mail) = mailbox.take() {
            self.on_mail(mail, now, net);
        }
        for (conn, reply) in shared.info.answered(self.number) {
            if let Some(out) = net.output(conn) {
                write_info_reply(out, &reply);
                net.resume(conn);
            }
        }
    }

    fn wants_turn(&self) -> bool {
        self.queries.is_ready() || self.batches.is_ready() || self.background.is_ready()
    }

    fn on_turn(&mut self, net: &mut dyn Net, has_arrived: &mut dyn FnMut() -> bool) {
        let mut share = std::mem::take(&mut self.share);
        share.begin();
        let mut context = QueryContext {
            registry: &self.shared.queries,
            udf: &self.shared.udf,
            thread: self.number,
            next_request: &mut self.next_request,
        };
        let mut turn = Turn::begin(has_arrived, &share);
        self.queries.run(net, &mut turn, &mut context);
        let mut turn = Turn::begin(has_arrived, &share);
        self.with_batches(|batches, context| batches.run(net, &mut turn, context));
        let mut turn = Turn::begin(has_arrived, &share);
        self.with_background(|background, context| background.run(net.reads(), &mut turn, context));
        share.end(self.wants_turn());
        self.share = share;
    }

    fn before_wait(&mut self) {
        self.shared.udf.hand_over();
    }

    fn on_drained(&mut self, conn: ConnId, _net: &mut dyn Net) {
        self.queries.drained(conn);
        self.batches.drained(conn);
    }

    fn panicked(&mut self, conn: ConnId, text: &str, head: &[u8]) {
        count(&self.shared.stats.requests_panicked);
        if self.panics_logged.is_due() {
            let (peer, frame) = (self.peer(conn), hex(head));
            tracing::error!(%peer, panic = text, %frame, "a request met a fault of this program: its connection is closed");
        }
    }

    fn wants_tick(&self) -> bool {
        !self.background.is_empty()
    }

    fn on_tick(&mut self, net: &mut dyn Net) {
        let now = Instant::now();
        self.shared.udf.expire(now);
        self.queries.tick(now, net, &self.shared.queries);
        self.with_batches(|batches, context| batches.tick(now, net, context));
        self.with_background(|background, context| background.tick(now, net.reads(), context));
        self.give_up_late(now, net);
    }
}

/// The digest of the record that a message names; `None` when it names none.
fn digest_of(message: &Message<'_>) -> Option<Digest> {
    if let Some(digest) = message.digest {
        return Some(*digest);
    }
    let (kind, key) = message.key?.split_first()?;
    Some(compute_digest(message.set.unwrap_or_default(), *kind, key))
}

/// Answers a request that cannot be served. Replies of several parts end with LAST, without which clients wait on.
fn answer_stream(message: &Message<'_>, code: ResultCode, out: &mut Vec<u8>) {
    let info3 = if message.batch.is_some() || is_query(message) {
        info3::LAST
    } else {
        0
    };
    ReplyWriter::begin(out).finish_with(ReplyHeader {
        info3,
        ..ReplyHeader::new(code)
    });
}

/// Answers a message that could not be read. Whether one reply or several are awaited cannot be known: marked as the last,
/// this one is the end of both.
fn answer_unread(code: ResultCode, out: &mut Vec<u8>) {
    ReplyWriter::begin(out).finish_with(ReplyHeader {
        info3: info3::LAST,
        ..ReplyHeader::new(code)
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn relaxed(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod turn_tests;
