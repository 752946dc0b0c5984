//! One row of a batch: a request of its own, carried out as far as it goes.

use std::sync::Arc;
use std::time::Instant;

use perigee_engine::device_copy::DeviceCopy;
use perigee_engine::expression::Expression;
use perigee_engine::filter::Filter;
use perigee_engine::latency::Latency;
use perigee_engine::namespace::Namespace;
use perigee_engine::partition::Waiter;
use perigee_engine::request::{ReplyShape, Request};
use perigee_wire::{BatchPosition, BatchRow, BatchRows, Message, ResultCode};

use super::BatchContext;
use crate::net::Reads;
use crate::parked::{State, carry_out};

/// The compiled filter of a row, kept for the next and for when a row is run again: mostly all rows have the same one, at
/// the same place of the batch. It belongs to one copy of the batch's bytes, whose addresses tell filters apart.
#[derive(Default)]
pub(super) struct RowFilter {
    of: (usize, usize),
    compiled: Option<Expression>,
}

impl RowFilter {
    pub(super) fn of(&mut self, bytes: Option<&[u8]>) -> Result<Option<&Expression>, ResultCode> {
        let Some(bytes) = bytes else { return Ok(None) };
        let place = (bytes.as_ptr() as usize, bytes.len());
        if self.compiled.is_none() || self.of != place {
            self.compiled = Some(Expression::compile_filter(bytes)?);
            self.of = place;
        }
        Ok(self.compiled.as_ref())
    }
}

/// How long the rows took that were answered in one turn: as long as the turn, which costs one look at the clock. Counted
/// when it goes.
pub(super) struct TurnLatencies {
    pub(super) began: Instant,
    of: Option<Arc<Namespace>>,
    /// Rows of that namespace, by what they are.
    rows: [u64; Latency::ALL.len()],
}

impl TurnLatencies {
    pub(super) fn begin() -> TurnLatencies {
        TurnLatencies {
            began: Instant::now(),
            of: None,
            rows: Default::default(),
        }
    }

    pub(super) fn answered(&mut self, namespace: &Arc<Namespace>, latency: Latency) {
        if self
            .of
            .as_ref()
            .is_none_or(|of| !Arc::ptr_eq(of, namespace))
        {
            self.count();
            self.of = Some(namespace.clone());
        }
        self.rows[latency as usize] += 1;
    }

    fn count(&mut self) {
        let Some(namespace) = self.of.take() else {
            return;
        };
        let took = self.began.elapsed();
        for (latency, rows) in Latency::ALL.into_iter().zip(std::mem::take(&mut self.rows)) {
            if rows > 0 {
                namespace.stats.latencies.add(latency, took, rows);
            }
        }
    }
}

impl Drop for TurnLatencies {
    fn drop(&mut self) {
        self.count();
    }
}

/// One run of a row.
pub(super) struct RowRun<'a> {
    pub(super) namespace: &'a Arc<Namespace>,
    pub(super) row: &'a BatchRow<'a>,
    pub(super) request: u64,
    pub(super) deadline: Instant,
}

impl<'a> RowRun<'a> {
    /// The row as a request that has read nothing and does not wait.
    pub(super) fn plain(&self) -> Request<'a> {
        Request {
            shape: ReplyShape::Row(self.row.index),
            ..Request::new(&self.row.message, self.row.digest)
        }
    }
}

/// Runs a row, for the first time or again. What it waits for, if it does.
pub(super) fn run_row<'a>(
    run: &RowRun<'a>,
    copy: Option<DeviceCopy<'a>>,
    filter: Option<&'a Expression>,
    out: &mut Vec<u8>,
    reads: &mut Reads,
    context: &BatchContext<'_>,
) -> Option<State> {
    let RowRun {
        namespace,
        request,
        deadline,
        ..
    } = *run;
    let waiter = Waiter {
        thread: context.thread,
        request,
    };
    let request_of = Request {
        waiter: Some(waiter),
        copy,
        filter: filter.map(Filter::of),
        ..run.plain()
    };
    let shared = context.shared;
    carry_out(namespace, &request_of, waiter, deadline, out, reads, shared)
}

/// The row that begins at a place of a batch's message.
pub(super) fn row_at(body: &[u8], place: BatchPosition) -> Option<BatchRow<'_>> {
    let message = Message::parse(body).ok()?;
    let mut rows = BatchRows::parse(message.header, message.batch?).ok()?;
    rows.go_to(place).ok()?;
    rows.next()?.ok()
}

/// The filter of the rows that have none of their own.
pub(super) fn filter_of(body: &[u8]) -> Option<&[u8]> {
    Message::parse(body).ok()?.filter
}
