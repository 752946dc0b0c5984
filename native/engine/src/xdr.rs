//! Shipping changes to datacenters, as far as records are concerned: which changed, and their newest version as a frame
//! ready for the socket. Where frames go and what answers mean is the control plane's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use perigee_wire::{
    Digest, PARTITIONS, RequestHeader, RequestWriter, field, info1, info2, info3, op, partition_of,
    ttl,
};

use crate::change_queue::{ChangeQueue, Confirmation, ships};
use crate::config::{DatacenterConfig, DatacenterNamespaceConfig};
use crate::device_copy::DeviceCopy;
use crate::expiry::is_expired;
use crate::index::Entry;
use crate::namespace::Namespace;
use crate::record::image::ImageView;
use crate::storage::AlignedBuf;

/// Changes of one datacenter that are handed out and not confirmed. Bounds what a slow destination can hold.
pub const IN_FLIGHT_MAX: usize = 65_536;

/// Records that a recovery step may queue before it lets go of the partition.
const RECOVERY_ROOM: usize = 512;

const ENTRY_HEADER_BYTES: usize = 24;
const KIND_WRITE: u8 = 1;
const KIND_DELETE: u8 = 2;

/// One namespace's changes on their way to one datacenter: the list of partitions with work, and counters.
pub struct NamespaceShipping {
    pub remote_namespace: String,
    pub queue_limit: usize,
    hot_key_ms: u64,
    listed: Mutex<VecDeque<u16>>,
    pub in_queue: AtomicI64,
    pub in_progress: AtomicI64,
    pub not_found: AtomicU64,
    /// Shipments saved because a record changed again before its last change was taken.
    pub hot_keys: AtomicU64,
    pub recoveries: AtomicU64,
    pub recoveries_pending: AtomicI64,
}

impl NamespaceShipping {
    pub fn new(config: &DatacenterNamespaceConfig) -> Self {
        NamespaceShipping {
            remote_namespace: config
                .remote_namespace
                .clone()
                .unwrap_or(config.name.clone()),
            queue_limit: config.transaction_queue_limit,
            hot_key_ms: config.hot_key_ms,
            listed: Mutex::new(VecDeque::new()),
            in_queue: AtomicI64::new(0),
            in_progress: AtomicI64::new(0),
            not_found: AtomicU64::new(0),
            hot_keys: AtomicU64::new(0),
            recoveries: AtomicU64::new(0),
            recoveries_pending: AtomicI64::new(0),
        }
    }

    pub(crate) fn note_queued(&self, count: i64) {
        self.in_queue.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn note_folded(&self) {
        self.hot_keys.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_overflow(&self, dropped: usize, recovery_began: bool) {
        self.in_queue.fetch_sub(dropped as i64, Ordering::Relaxed);
        self.recoveries_pending
            .fetch_add(i64::from(recovery_began), Ordering::Relaxed);
    }

    /// Puts a partition on the list of those with work, once. The caller holds the partition's lock.
    pub(crate) fn list(&self, digest: &Digest, queue: &mut ChangeQueue) {
        self.list_partition(partition_of(digest).get(), queue);
    }

    fn list_partition(&self, partition: u16, queue: &mut ChangeQueue) {
        if !std::mem::replace(&mut queue.listed, true) {
            self.listed.lock().push_back(partition);
        }
    }
}

/// A datacenter's namespaces, and what is in flight to it.
pub struct Datacenter {
    pub name: String,
    routes: Vec<Route>,
    in_flight: Mutex<InFlight>,
    stopped: AtomicBool,
    started: Instant,
    /// Which namespace a batch begins with, so that a backlog of one does not hold up the others.
    turn: AtomicUsize,
}

struct Route {
    namespace: Arc<Namespace>,
    /// Which of the namespace's change queues is this datacenter's.
    slot: usize,
    shipping: Arc<NamespaceShipping>,
}

#[derive(Default)]
struct InFlight {
    next_token: u64,
    by_token: HashMap<u64, Shipped>,
}

struct Shipped {
    route: usize,
    digest: Digest,
    last_update_time: u64,
}

/// Bytes of an answer for an entry of a batch: token, outcome, zeros.
const OUTCOME_BYTES: usize = 16;

/// Answers that make no sense; none of them is taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MalformedOutcomes {
    #[error("outcomes are {OUTCOME_BYTES} bytes each")]
    Length,
    #[error("unknown outcome {0}")]
    Unknown(u8),
}

/// Reads the answers for entries of a batch, as "XDR batches" in docs/ARCHITECTURE.md lays them out.
pub fn parse_outcomes(bytes: &[u8]) -> Result<Vec<(u64, Confirmation)>, MalformedOutcomes> {
    let (outcomes, []) = bytes.as_chunks::<OUTCOME_BYTES>() else {
        return Err(MalformedOutcomes::Length);
    };
    let parse = |[a, b, c, d, e, f, g, h, outcome, ..]: &[u8; OUTCOME_BYTES]| {
        let confirmation = match outcome {
            0 => Confirmation::Shipped,
            1 => Confirmation::Retry,
            2 => Confirmation::Abandoned,
            other => return Err(MalformedOutcomes::Unknown(*other)),
        };
        Ok((
            u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            confirmation,
        ))
    };
    outcomes.iter().map(parse).collect()
}

/// Counters of one namespace of a datacenter.
#[derive(Debug, serde::Serialize)]
pub struct ShippingStats {
    pub in_queue: i64,
    pub in_progress: i64,
    pub not_found: u64,
    pub hot_keys: u64,
    pub recoveries: u64,
    pub recoveries_pending: i64,
    pub lag_ms: u64,
}

impl Datacenter {
    /// `namespaces` pairs each configured namespace with the slot of its queues and their shared state.
    pub fn new(
        config: &DatacenterConfig,
        namespaces: Vec<(Arc<Namespace>, usize, Arc<NamespaceShipping>)>,
    ) -> Self {
        let routes = namespaces
            .into_iter()
            .map(|(namespace, slot, shipping)| Route {
                namespace,
                slot,
                shipping,
            })
            .collect();
        Datacenter {
            name: config.name.clone(),
            routes,
            in_flight: Mutex::new(InFlight::default()),
            stopped: AtomicBool::new(false),
            started: Instant::now(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Starts a recovery of every partition from its last-ship time: what was queued when the node stopped is not known.
    pub fn start(&self) {
        for route in &self.routes {
            for partition in route.namespace.partitions() {
                let mut state = partition.lock();
                // Taken under the lock: every later change of the partition is at this time or after it, and queued.
                let now = route.namespace.clock.now();
                let id = state.table.id();
                let queue = &mut state.updates.queues[route.slot];
                let from = queue.last_ship_time();
                let began = queue.start_recovery(from, now);
                route
                    .shipping
                    .recoveries_pending
                    .fetch_add(i64::from(began), Ordering::Relaxed);
                route.shipping.list_partition(id.get(), queue);
            }
        }
    }

    /// Nothing is handed out any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Appends a batch of at most `records_max` entries and about `bytes_max` bytes (one entry may pass it). Reads what is
    /// not in memory from the device, so it blocks; never called on a service thread. Returns how many entries.
    pub fn take(&self, out: &mut Vec<u8>, bytes_max: usize, records_max: usize) -> usize {
        let start = out.len();
        out.extend_from_slice(&0u32.to_le_bytes());
        let mut taken = 0;
        if !self.stopped.load(Ordering::Acquire) {
            let first = self.turn.fetch_add(1, Ordering::Relaxed);
            for turn in 0..self.routes.len() {
                let index = (first + turn) % self.routes.len();
                let route = &self.routes[index];
                let mut rounds = route.shipping.listed.lock().len();
                while rounds > 0 && taken < records_max && out.len() - start < bytes_max {
                    let Some(partition) = route.shipping.listed.lock().pop_front() else {
                        break;
                    };
                    rounds -= 1;
                    let room = self.room().min(records_max - taken);
                    taken +=
                        self.take_partition(index, route, partition, room, start + bytes_max, out);
                }
            }
        }
        out[start..start + 4].copy_from_slice(&(taken as u32).to_le_bytes());
        taken
    }

    fn room(&self) -> usize {
        IN_FLIGHT_MAX.saturating_sub(self.in_flight.lock().by_token.len())
    }

    fn take_partition(
        &self,
        index: usize,
        route: &Route,
        partition_id: u16,
        room: usize,
        bytes_end: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let partition = &route.namespace.partitions()[usize::from(partition_id)];
        let mut taken = 0;
        let mut buffer = AlignedBuf::default();
        let mut copy: Option<DeviceCopy<'_>> = None;
        let mut pending: Option<Digest> = None;
        let now_ms = self.started.elapsed().as_millis() as u64;
        let mut state = partition.lock();
        state.updates.queues[route.slot].listed = false;
        loop {
            if pending.is_none() && (taken == room || out.len() >= bytes_end) {
                break;
            }
            let state_ref = &mut *state;
            let queue = &mut state_ref.updates.queues[route.slot];
            let digest = match pending
                .take()
                .or_else(|| queue.next(now_ms, route.shipping.hot_key_ms))
            {
                Some(digest) => digest,
                None if queue.recovering() => {
                    let before = queue.queued_len() as i64;
                    let room = RECOVERY_ROOM.min(route.shipping.queue_limit / 2).max(1);
                    let ended = queue.recover(&state_ref.table, room);
                    route
                        .shipping
                        .note_queued(queue.queued_len() as i64 - before);
                    if ended {
                        route.shipping.recoveries.fetch_add(1, Ordering::Relaxed);
                        route
                            .shipping
                            .recoveries_pending
                            .fetch_sub(1, Ordering::Relaxed);
                    }
                    if ended && queue.queued_len() == 0 {
                        break;
                    }
                    // Each step is short; requests for the partition come in between.
                    drop(state);
                    state = partition.lock();
                    continue;
                }
                None => break,
            };
            let entry = state_ref.table.get(&digest);
            // What was truncated is gone here, and truncation does not ship.
            let entry = entry.filter(|entry| !route.namespace.is_truncated(entry));
            let shippable = entry.filter(ships);
            let Some(entry) = shippable else {
                if entry.is_none() {
                    route.shipping.not_found.fetch_add(1, Ordering::Relaxed);
                }
                let time = entry.map_or(0, |entry| entry.last_update_time);
                queue.confirm(&digest, time, Confirmation::Abandoned);
                route.shipping.note_queued(-1);
                continue;
            };
            let encoded = route.namespace.with_image(&entry, copy.as_ref(), |view| {
                self.append_entry(index, route, partition_id, &entry, view, out);
            });
            match encoded {
                Ok(()) => {
                    taken += 1;
                    route.shipping.note_queued(-1);
                    route.shipping.in_progress.fetch_add(1, Ordering::Relaxed);
                }
                Err(location) => {
                    drop(state);
                    // Before the buffer is used again.
                    drop(copy);
                    let read = route.namespace.read_device(location, &mut buffer);
                    state = partition.lock();
                    let moved = state
                        .table
                        .get(&digest)
                        .is_none_or(|e| e.location != location);
                    match read {
                        Ok(read) => {
                            copy = Some(read);
                            pending = Some(digest);
                        }
                        Err(_) if moved => {
                            copy = None;
                            pending = Some(digest);
                        }
                        Err(unread) => {
                            copy = None;
                            // Damage cannot be shipped, ever; a device that failed to read may do better later.
                            let outcome = if unread.damaged {
                                Confirmation::Abandoned
                            } else {
                                Confirmation::Retry
                            };
                            tracing::error!(namespace = %route.namespace.name, reason = %unread.reason,
                                "a changed record could not be read to be shipped");
                            let queue = &mut state.updates.queues[route.slot];
                            queue.confirm(&digest, entry.last_update_time, outcome);
                            if unread.damaged {
                                route.shipping.note_queued(-1);
                            } else {
                                break;
                            }
                        }
                    }
                }
            }
        }
        let queue = &mut state.updates.queues[route.slot];
        if queue.has_work() {
            route.shipping.list_partition(partition_id, queue);
        }
        taken
    }

    fn append_entry(
        &self,
        index: usize,
        route: &Route,
        partition: u16,
        entry: &Entry,
        view: &ImageView<'_>,
        out: &mut Vec<u8>,
    ) {
        let token = {
            let mut in_flight = self.in_flight.lock();
            in_flight.next_token += 1;
            let token = in_flight.next_token;
            let shipped = Shipped {
                route: index,
                digest: entry.digest,
                last_update_time: entry.last_update_time,
            };
            in_flight.by_token.insert(token, shipped);
            token
        };
        let start = out.len();
        let now = route.namespace.clock.wall_seconds();
        let gone = is_gone(entry, now);
        out.resize(start + ENTRY_HEADER_BYTES, 0);
        append_frame(&route.shipping.remote_namespace, entry, view, now, out);
        let bytes = (out.len() - start) as u32;
        let header = &mut out[start..start + ENTRY_HEADER_BYTES];
        header[0..4].copy_from_slice(&bytes.to_le_bytes());
        header[4..8].copy_from_slice(&(bytes - ENTRY_HEADER_BYTES as u32).to_le_bytes());
        header[8..16].copy_from_slice(&token.to_le_bytes());
        header[16..18].copy_from_slice(&partition.to_le_bytes());
        header[18] = if gone { KIND_DELETE } else { KIND_WRITE };
        header[19] = index as u8;
        header[20..24].copy_from_slice(&entry.void_time.to_le_bytes());
    }

    /// Takes the answer for an entry. Tokens that are not in flight are ignored.
    pub fn confirm(&self, token: u64, outcome: Confirmation) {
        let Some(shipped) = self.in_flight.lock().by_token.remove(&token) else {
            return;
        };
        let route = &self.routes[shipped.route];
        route.shipping.in_progress.fetch_sub(1, Ordering::Relaxed);
        let mut state = route.namespace.partition(&shipped.digest).lock();
        let queue = &mut state.updates.queues[route.slot];
        let before = queue.queued_len() as i64;
        queue.confirm(&shipped.digest, shipped.last_update_time, outcome);
        route
            .shipping
            .note_queued(queue.queued_len() as i64 - before);
        if queue.has_work() {
            route.shipping.list(&shipped.digest, queue);
        }
    }

    /// Counters by namespace.
    pub fn stats(&self) -> HashMap<String, ShippingStats> {
        self.routes
            .iter()
            .map(|route| {
                let now = route.namespace.clock.now();
                let lag = route
                    .namespace
                    .partitions()
                    .iter()
                    .map(|partition| partition.lock().updates.queues[route.slot].lag_ms(now));
                let shipping = &route.shipping;
                let stats = ShippingStats {
                    in_queue: shipping.in_queue.load(Ordering::Relaxed),
                    in_progress: shipping.in_progress.load(Ordering::Relaxed),
                    not_found: shipping.not_found.load(Ordering::Relaxed),
                    hot_keys: shipping.hot_keys.load(Ordering::Relaxed),
                    recoveries: shipping.recoveries.load(Ordering::Relaxed),
                    recoveries_pending: shipping.recoveries_pending.load(Ordering::Relaxed),
                    lag_ms: lag.max().unwrap_or(0),
                };
                (route.namespace.name.clone(), stats)
            })
            .collect()
    }

    /// Last-ship times of a namespace's partitions; `None` for a namespace that this datacenter does not ship.
    pub fn ship_times(&self, namespace: &str) -> Option<Vec<u64>> {
        let route = self.route(namespace)?;
        let times = route
            .namespace
            .partitions()
            .iter()
            .map(|partition| partition.lock().updates.queues[route.slot].last_ship_time());
        Some(times.collect())
    }

    /// Takes up last-ship times that were kept over a restart; before `start`. Returns whether there is such a namespace.
    pub fn set_ship_times(&self, namespace: &str, times: &[u64; PARTITIONS]) -> bool {
        let Some(route) = self.route(namespace) else {
            return false;
        };
        let clock = &route.namespace.clock;
        for (partition, time) in route.namespace.partitions().iter().zip(times) {
            // Changes to come must not seem older than what was shipped before the restart.
            if clock.accepts(*time) {
                clock.observe(*time);
            }
            partition.lock().updates.queues[route.slot].set_last_ship_time(*time);
        }
        true
    }

    fn route(&self, namespace: &str) -> Option<&Route> {
        self.routes
            .iter()
            .find(|route| route.namespace.name == namespace)
    }
}

/// A version that ships as a delete. An expired one does, since an older version without a time to live may be over there.
fn is_gone(entry: &Entry, now: u32) -> bool {
    entry.is_tombstone() || is_expired(entry, now)
}

/// The newest version of a record as a remote write or delete (PROTOCOL section 18).
fn append_frame(
    remote_namespace: &str,
    entry: &Entry,
    view: &ImageView<'_>,
    now: u32,
    out: &mut Vec<u8>,
) {
    let gone = is_gone(entry, now);
    let record_ttl = match entry.void_time {
        0 => ttl::NEVER,
        time => time.saturating_sub(now).max(1),
    };
    let header = RequestHeader {
        info1: info1::XDR,
        info2: if gone {
            info2::WRITE | info2::DELETE
        } else {
            info2::WRITE
        },
        info3: if gone { 0 } else { info3::CREATE_OR_REPLACE },
        generation: u32::from(entry.generation),
        record_ttl: if gone { 0 } else { record_ttl },
        ..RequestHeader::default()
    };
    let mut frame = RequestWriter::begin(out, header);
    frame.field(field::NAMESPACE, remote_namespace.as_bytes());
    if !view.set_name().is_empty() {
        frame.field(field::SET, view.set_name());
    }
    frame.field(field::DIGEST, &entry.digest);
    if let Some(key) = view.key() {
        frame.field(field::KEY, key);
    }
    frame.field(field::LUT, &entry.last_update_time.to_be_bytes());
    for bin in view.bins().filter(|_| !gone) {
        frame.op(op::WRITE, bin.particle, bin.name, bin.value);
    }
    frame.finish();
}
