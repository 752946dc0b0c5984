//! Batches on a service thread (PROTOCOL section 9). Rows are carried out one after the other as requests of their own; one
//! that has to wait lets the next go on, and its result comes when it is there. A batch of records in memory is answered
//! where it arrives. A long one takes turns with the thread's other work, and waits while its peer does not take what it was
//! sent.

mod row;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use perigee_engine::device_copy::{DeviceCopy, Unread};
use perigee_engine::latency::Latency;
use perigee_engine::namespace::Namespace;
use perigee_engine::partition::Waiter;
use perigee_engine::request::ReplyShape;
use perigee_engine::stats::count;
use perigee_wire::{
    BatchPosition, BatchRows, Digest, Message, PROTO_HEADER_BYTES, ProtoType, ReplyHeader,
    ReplyWriter, ResultCode, batch_flag, info3, patch_proto_header, reserve_proto_header,
};

use crate::contained::working_for;
use crate::net::{ConnId, Net, Reads};
use crate::parked::{Incoming, State, result_of_part};
use crate::reply_compression::{compress_frame, wants_compressed};
use crate::server::Shared;
use crate::turn::Turn;
use row::{RowFilter, RowRun, TurnLatencies, filter_of, row_at, run_row};

/// A batch's turn ends after so many rows or bytes of results.
const TURN_ROWS: usize = 512;
const TURN_BYTES: usize = 64 << 10;
/// Rows of a slice of it, after which the turn is over if others wait: some ten microseconds.
const SLICE_ROWS: usize = 16;
/// A batch is begun where it arrives. One that takes longer than this takes turns.
const FIRST_TURN_MAX: Duration = Duration::from_micros(100);
/// A frame is sent when it has grown to this.
const FRAME_BYTES: usize = 64 << 10;
/// Rows of one batch that wait for something.
const WAITING_ROWS_MAX: usize = 128;
/// Output that the peer has not taken, above which no further rows are begun.
const UNSENT_BYTES_MAX: usize = 2 << 20;
/// How long a batch may take whose client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The batches of one service thread.
#[derive(Default)]
pub(crate) struct BatchJobs {
    jobs: HashMap<ConnId, Job>,
    ready: VecDeque<ConnId>,
    /// Rows that wait, by the number of the request that each is.
    rows: HashMap<u64, Row>,
}

/// What a batch meets outside of its thread.
pub(crate) struct BatchContext<'a> {
    pub thread: u32,
    pub shared: &'a Arc<Shared>,
    /// The last number that was given to a request of the thread.
    pub next_request: &'a mut u64,
}

struct Job {
    body: Vec<u8>,
    progress: Progress,
    /// The frame under construction; empty, or with room for its header in front.
    frame: Vec<u8>,
    is_ready: bool,
}

/// How far a batch has come.
struct Progress {
    conn: ConnId,
    next: BatchPosition,
    /// Every row has been begun, or none further is to be.
    all_begun: bool,
    waiting: usize,
    result: ResultCode,
    arrived: Instant,
    deadline: Instant,
    filter: RowFilter,
    /// The client takes compressed frames.
    wants_compressed: bool,
}

struct Row {
    conn: ConnId,
    namespace: Arc<Namespace>,
    digest: Digest,
    index: u32,
    place: BatchPosition,
    state: State,
    latency: Latency,
    /// When the turn began in which the row did.
    began: Instant,
}

/// How a turn ended.
enum TurnEnd {
    /// There is more to do at once.
    Spent,
    /// Rows have to end before the next begins, or the last of them.
    Waits,
    Done,
}

impl BatchJobs {
    /// Takes up a batch. True if it was answered; otherwise its connection is to be parked.
    pub fn start(
        &mut self,
        incoming: &Incoming<'_>,
        out: &mut Vec<u8>,
        reads: &mut Reads,
        context: &mut BatchContext<'_>,
    ) -> bool {
        let Incoming { conn, message, .. } = *incoming;
        count(&context.shared.stats.batch_index_initiate);
        let timeout = match message.header.transaction_ttl {
            0 => DEFAULT_TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)),
        };
        let mut progress = Progress {
            conn,
            next: BatchPosition::default(),
            all_begun: false,
            waiting: 0,
            result: ResultCode::Ok,
            arrived: incoming.arrived,
            deadline: incoming.arrived + timeout,
            filter: RowFilter::default(),
            wants_compressed: wants_compressed(&message.header),
        };
        let start = reserve_proto_header(out);
        let began = Instant::now();
        let mut is_over = || began.elapsed() >= FIRST_TURN_MAX;
        let end = self.run_rows(message, &mut progress, out, &mut is_over, reads, context);
        if let TurnEnd::Done = end {
            finish(&progress, out, start, context.shared);
            return true;
        }
        // What is there is sent; the rest comes in frames of its own.
        if out.len() == start + PROTO_HEADER_BYTES {
            out.truncate(start);
        } else {
            end_frame(&progress, out, start, context.shared);
        }
        let is_ready = matches!(end, TurnEnd::Spent);
        // It belongs to the bytes as they came.
        progress.filter = RowFilter::default();
        let job = Job {
            body: incoming.body.to_vec(),
            progress,
            frame: Vec::new(),
            is_ready,
        };
        self.jobs.insert(conn, job);
        if is_ready {
            self.ready.push_back(conn);
        }
        false
    }

    /// Whether a batch waits for its turn.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Gives a turn to the batch that has waited for longest.
    pub fn run(&mut self, net: &mut dyn Net, turn: &mut Turn<'_>, context: &mut BatchContext<'_>) {
        while let Some(conn) = self.ready.pop_front() {
            let Some(mut job) = self.jobs.remove(&conn) else {
                continue;
            };
            job.is_ready = false;
            if net.unsent(conn) > UNSENT_BYTES_MAX {
                // Goes on when the peer has taken it, see `drained`.
                self.jobs.insert(conn, job);
                continue;
            }
            let _work = working_for(conn, &job.body);
            let Ok(message) = Message::parse(&job.body) else {
                debug_assert!(false, "a batch was parsed before it was kept");
                continue;
            };
            begin_frame(&mut job.frame);
            let end = self.run_rows(
                &message,
                &mut job.progress,
                &mut job.frame,
                &mut || turn.is_over(),
                net.reads(),
                context,
            );
            self.go_on(conn, job, end, net, context);
            return;
        }
    }

    /// Sends what is due, and keeps the batch unless it is done.
    fn go_on(
        &mut self,
        conn: ConnId,
        mut job: Job,
        end: TurnEnd,
        net: &mut dyn Net,
        context: &BatchContext<'_>,
    ) {
        match end {
            TurnEnd::Done => {
                begin_frame(&mut job.frame);
                finish(&job.progress, &mut job.frame, 0, context.shared);
                send(&mut job.frame, conn, net);
                net.resume(conn);
                return;
            }
            TurnEnd::Spent => {
                job.is_ready = true;
                self.ready.push_back(conn);
            }
            TurnEnd::Waits => {}
        }
        if job.frame.len() >= FRAME_BYTES {
            end_frame(&job.progress, &mut job.frame, 0, context.shared);
            send(&mut job.frame, conn, net);
        }
        self.jobs.insert(conn, job);
    }

    /// Begins rows until the turn is spent or over, too many wait, or all are begun.
    fn run_rows(
        &mut self,
        message: &Message<'_>,
        progress: &mut Progress,
        out: &mut Vec<u8>,
        is_over: &mut dyn FnMut() -> bool,
        reads: &mut Reads,
        context: &mut BatchContext<'_>,
    ) -> TurnEnd {
        let end = |progress: &mut Progress, code: ResultCode| {
            progress.result = code;
            progress.all_begun = true;
        };
        let mut latencies = TurnLatencies::begin();
        if !progress.all_begun && progress.deadline <= latencies.began {
            end(progress, ResultCode::Timeout);
        }
        // What is wrong with the filter of all rows is wrong with the batch.
        if !progress.all_begun
            && let Err(code) = progress.filter.of(message.filter)
        {
            end(progress, code);
        }
        let data = message.batch.unwrap_or_default();
        let rows = BatchRows::parse(message.header, data).and_then(|mut rows| {
            if progress.next != BatchPosition::default() {
                rows.go_to(progress.next)?;
            }
            Ok(rows)
        });
        let mut rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                end(progress, error.result_code());
                return progress.turn();
            }
        };
        let from = out.len();
        let mut begun = 0;
        let mut found: Option<Arc<Namespace>> = None;
        while !progress.all_begun {
            let is_spent = begun == TURN_ROWS || out.len() - from >= TURN_BYTES;
            let after_slice = begun > 0 && begun.is_multiple_of(SLICE_ROWS);
            if is_spent || after_slice && is_over() {
                progress.next = rows.position();
                return TurnEnd::Spent;
            }
            if progress.waiting >= WAITING_ROWS_MAX {
                progress.next = rows.position();
                return TurnEnd::Waits;
            }
            begun += 1;
            let place = rows.position();
            let mut row = match rows.next() {
                None => {
                    progress.all_begun = true;
                    break;
                }
                Some(Err(error)) => {
                    end(progress, error.result_code());
                    break;
                }
                Some(Ok(row)) => row,
            };
            row.message.filter = row.message.filter.or(message.filter);
            let before = out.len();
            let name = row.message.namespace.unwrap_or_default();
            if found.as_ref().is_none_or(|it| it.name.as_bytes() != name) {
                let engine = context.shared.engine.get();
                found = engine.and_then(|engine| engine.namespace(name)).cloned();
            }
            match &found {
                None => ReplyShape::Row(row.index).answer(ResultCode::Namespace, out),
                Some(namespace) => {
                    *context.next_request += 1;
                    let request = *context.next_request;
                    let run = RowRun {
                        namespace,
                        row: &row,
                        request,
                        deadline: progress.deadline,
                    };
                    let waits = match progress.filter.of(row.message.filter) {
                        Ok(filter) => run_row(&run, None, filter, out, reads, context),
                        Err(code) => {
                            namespace.refuse(&run.plain(), code, out);
                            None
                        }
                    };
                    let latency = Latency::of_row(&row.message);
                    if let Some(state) = waits {
                        progress.waiting += 1;
                        let row = Row {
                            conn: progress.conn,
                            namespace: namespace.clone(),
                            digest: *row.digest,
                            index: row.index,
                            place,
                            state,
                            latency,
                            began: latencies.began,
                        };
                        self.rows.insert(request, row);
                        continue;
                    }
                    latencies.answered(namespace, latency);
                }
            }
            progress.look_at(out, before, rows.flags());
        }
        progress.next = rows.position();
        progress.turn()
    }

    /// Whether a request is a row of a batch that waits.
    pub fn has(&self, request: u64) -> bool {
        self.rows.contains_key(&request)
    }

    /// A row that waits: its namespace, and what for.
    pub fn row(&self, request: u64) -> Option<(Arc<Namespace>, &State)> {
        let row = self.rows.get(&request)?;
        Some((row.namespace.clone(), &row.state))
    }

    /// Runs a row again that waited, with what it waited for.
    pub fn run_again(
        &mut self,
        request: u64,
        copy: Option<Result<DeviceCopy<'_>, Unread>>,
        net: &mut dyn Net,
        context: &mut BatchContext<'_>,
    ) {
        let Some(mut waited) = self.rows.remove(&request) else {
            return;
        };
        let conn = waited.conn;
        let Some(mut job) = self.jobs.remove(&conn) else {
            return;
        };
        let _work = working_for(conn, &job.body);
        let Some(mut row) = row_at(&job.body, waited.place) else {
            debug_assert!(false, "a row was parsed before it waited");
            return;
        };
        row.message.filter = row.message.filter.or(filter_of(&job.body));
        begin_frame(&mut job.frame);
        let before = job.frame.len();
        let (copy, unread) = match copy.transpose() {
            Ok(copy) => (copy, None),
            Err(unread) => (None, Some(unread)),
        };
        let run = RowRun {
            namespace: &waited.namespace,
            row: &row,
            request,
            deadline: job.progress.deadline,
        };
        let plain = run.plain();
        let waits = if job.progress.deadline <= Instant::now() {
            waited.namespace.answer_timeout(&plain, &mut job.frame);
            None
        } else if let Some(unread) = unread.filter(|it| waited.namespace.is_lost(row.digest, it)) {
            tracing::debug!(reason = %unread.reason, "a row's record could not be read");
            waited.namespace.answer_unread(&plain, &mut job.frame);
            None
        } else {
            match job.progress.filter.of(row.message.filter) {
                Ok(filter) => run_row(&run, copy, filter, &mut job.frame, net.reads(), context),
                Err(code) => {
                    run.namespace.refuse(&plain, code, &mut job.frame);
                    None
                }
            }
        };
        if let Some(state) = waits {
            waited.state = state;
            self.rows.insert(request, waited);
            self.jobs.insert(conn, job);
            return;
        }
        waited.count_latency();
        self.row_ended(conn, job, before, net, context);
    }

    /// Takes the reply of a row that was carried out elsewhere, or that waited to be durable.
    pub fn answered(
        &mut self,
        request: u64,
        part: Option<&[u8]>,
        net: &mut dyn Net,
        context: &mut BatchContext<'_>,
    ) {
        let Some(row) = self.rows.remove(&request) else {
            return;
        };
        let Some(mut job) = self.jobs.remove(&row.conn) else {
            return;
        };
        row.count_latency();
        begin_frame(&mut job.frame);
        let before = job.frame.len();
        match (part, row.state) {
            (Some(part), _) => job.frame.extend_from_slice(part),
            (None, State::Commit { reply }) => job.frame.extend_from_slice(&reply),
            (None, _) => ReplyShape::Row(row.index).answer(ResultCode::Unknown, &mut job.frame),
        }
        self.row_ended(row.conn, job, before, net, context);
    }

    /// The write of a row is not durable and will not be.
    pub fn not_durable(&mut self, request: u64, net: &mut dyn Net, context: &mut BatchContext<'_>) {
        let mut part = Vec::new();
        if let Some(row) = self.rows.get(&request) {
            ReplyShape::Row(row.index).answer(ResultCode::Unknown, &mut part);
        }
        self.answered(request, Some(&part), net, context);
    }

    /// Keeps a row's reply until its write is durable.
    pub fn await_commit(&mut self, request: u64, reply: Vec<u8>) {
        if let Some(row) = self.rows.get_mut(&request) {
            row.state = State::Commit { reply };
        }
    }

    fn row_ended(
        &mut self,
        conn: ConnId,
        mut job: Job,
        before: usize,
        net: &mut dyn Net,
        context: &mut BatchContext<'_>,
    ) {
        job.progress.waiting -= 1;
        let flags = flags_of(&job.body);
        job.progress.look_at(&mut job.frame, before, flags);
        if job.is_ready {
            self.jobs.insert(conn, job);
            return;
        }
        let end = if job.progress.all_begun {
            job.progress.turn()
        } else {
            TurnEnd::Spent
        };
        self.go_on(conn, job, end, net, context);
    }

    /// The peer has taken all that was sent.
    pub fn drained(&mut self, conn: ConnId) {
        if let Some(job) = self.jobs.get_mut(&conn)
            && !job.is_ready
            && !job.progress.all_begun
        {
            job.is_ready = true;
            self.ready.push_back(conn);
        }
    }

    /// The connection is gone, and its batch with it: rows that were not begun are not carried out.
    pub fn closed(&mut self, conn: ConnId, thread: u32, shared: &Shared) {
        if self.jobs.remove(&conn).is_none() {
            return;
        }
        count(&shared.stats.batch_index_error);
        self.rows.retain(|request, row| {
            if row.conn == conn && matches!(row.state, State::Record) {
                let waiter = Waiter {
                    thread,
                    request: *request,
                };
                row.namespace.forget_waiter(&row.digest, waiter);
            }
            row.conn != conn
        });
    }

    /// Answers the rows that have waited for too long.
    pub fn tick(&mut self, now: Instant, net: &mut dyn Net, context: &mut BatchContext<'_>) {
        let is_late = |row: &Row| {
            row.state.runs_again()
                && self
                    .jobs
                    .get(&row.conn)
                    .is_some_and(|job| job.progress.deadline <= now)
        };
        let late: Vec<u64> = self
            .rows
            .iter()
            .filter(|(_, row)| is_late(row))
            .map(|(request, _)| *request)
            .collect();
        for request in late {
            if let Some(row) = self.rows.get(&request)
                && matches!(row.state, State::Record)
            {
                let waiter = Waiter {
                    thread: context.thread,
                    request,
                };
                row.namespace.forget_waiter(&row.digest, waiter);
            }
            self.run_again(request, None, net, context);
        }
    }
}

impl Row {
    fn count_latency(&self) {
        let latencies = &self.namespace.stats.latencies;
        latencies.add(self.latency, self.began.elapsed(), 1);
    }
}

impl Progress {
    fn turn(&self) -> TurnEnd {
        if self.all_begun && self.waiting == 0 {
            TurnEnd::Done
        } else {
            TurnEnd::Waits
        }
    }

    /// Ends the batch if a row failed and its client does not want the others then.
    fn look_at(&mut self, out: &mut Vec<u8>, part_at: usize, flags: u8) {
        let Some(code) = out.get(part_at..).and_then(result_of_part) else {
            return;
        };
        let goes_on = matches!(
            code,
            ResultCode::Ok | ResultCode::NotFound | ResultCode::FilteredOut
        );
        if goes_on || flags & batch_flag::RESPOND_ALL_KEYS != 0 {
            return;
        }
        if flags & batch_flag::REPORT_ERROR_ROW == 0 {
            out.truncate(part_at);
        }
        if self.result == ResultCode::Ok {
            self.result = code;
        }
        self.all_begun = true;
    }
}

fn flags_of(body: &[u8]) -> u8 {
    let rows = Message::parse(body)
        .ok()
        .and_then(|message| BatchRows::parse(message.header, message.batch?).ok());
    rows.map_or(0, |rows| rows.flags())
}

fn begin_frame(frame: &mut Vec<u8>) {
    if frame.is_empty() {
        reserve_proto_header(frame);
    }
}

/// Ends a batch's last frame.
fn finish(progress: &Progress, out: &mut Vec<u8>, start: usize, shared: &Shared) {
    ReplyWriter::begin_part(out).finish_with(ReplyHeader {
        info3: info3::LAST,
        ..ReplyHeader::new(progress.result)
    });
    end_frame(progress, out, start, shared);
    let latency = &shared.stats.batch_index_latency;
    latency.add(progress.arrived.elapsed(), 1);
    count(match progress.result {
        ResultCode::Ok => &shared.stats.batch_index_complete,
        ResultCode::Timeout => &shared.stats.batch_index_timeout,
        _ => &shared.stats.batch_index_error,
    });
}

/// Completes the frame that begins at `start`.
fn end_frame(progress: &Progress, out: &mut Vec<u8>, start: usize, shared: &Shared) {
    patch_proto_header(out, start, ProtoType::Message);
    if progress.wants_compressed {
        compress_frame(out, start, &shared.stats.batch_index_proto);
    }
}

fn send(frame: &mut Vec<u8>, conn: ConnId, net: &mut dyn Net) {
    if let Some(out) = net.output(conn) {
        out.extend_from_slice(frame);
    }
    frame.clear();
}
