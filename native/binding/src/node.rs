//! One node's data plane as a JavaScript object.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use napi::bindgen_prelude::{AsyncTask, Buffer, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status, Task};
use napi_derive::napi;
use parking_lot::Mutex;
use perigee_engine::latency::{LATENCY_BUCKETS, Latency, LatencyCounts, latency_floor_us};
use perigee_engine::limits::percent;
use perigee_engine::namespace::Namespace;
use perigee_engine::secondary_index::{
    CreateIndexError, IndexConfig, IndexDefinition, SecondaryIndex,
};
use perigee_engine::stats::ReplyCompression;
use perigee_engine::storage::DeviceStats;
use perigee_engine::xdr::{Datacenter, parse_outcomes};
use perigee_service::server::{Engine, InfoRequest, Opening, Server, ServerConfig, ServerError};
use perigee_wire::PARTITIONS;

/// Running nodes by handle: worker threads load the same add-on and find their node here.
static SERVERS: LazyLock<Mutex<HashMap<u32, Arc<Server>>>> = LazyLock::new(Mutex::default);
static NEXT_HANDLE: AtomicU32 = AtomicU32::new(1);

pub fn server(handle: u32) -> Option<Arc<Server>> {
    SERVERS.lock().get(&handle).cloned()
}

#[napi(object)]
pub struct InfoRequestEvent {
    pub id: f64,
    /// The request's body: commands, each ended by a newline.
    pub text: String,
    pub peer: String,
}

#[napi(object)]
pub struct Listening {
    pub address: String,
    pub port: u16,
    /// Of the port for TLS, if there is one.
    pub tls_port: Option<u16>,
    /// `io_uring` or `epoll`.
    pub network_loop: String,
}

#[napi(object)]
pub struct OverdueWorker {
    pub worker: u32,
    pub overdue_ms: f64,
}

#[derive(Default)]
struct State {
    server: Option<Arc<Server>>,
    /// Open, and not served yet; the server has it afterwards.
    engine: Option<Arc<Engine>>,
    closed: bool,
}

#[napi]
pub struct NativeNode {
    handle: u32,
    config: Arc<ServerConfig>,
    opening: Arc<Opening>,
    state: Arc<Mutex<State>>,
}

/// An error with a stable code in front: `PERIGEE_x: message`. TypeScript takes it apart.
fn failure(code: &str, message: impl std::fmt::Display) -> napi::Error {
    napi::Error::new(Status::GenericFailure, format!("{code}: {message}"))
}

/// Opens the namespaces off the main thread.
pub struct OpenTask {
    config: Arc<ServerConfig>,
    opening: Arc<Opening>,
    state: Arc<Mutex<State>>,
}

impl Task for OpenTask {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        let engine = Engine::open(&self.config, &self.opening)
            .map_err(|error| failure("PERIGEE_OPEN", error))?;
        let mut state = self.state.lock();
        if state.closed {
            close_stores(&engine);
            return Err(failure(
                "PERIGEE_CLOSED",
                "the node was closed while it opened",
            ));
        }
        state.engine = Some(Arc::new(engine));
        Ok(())
    }

    fn resolve(&mut self, _: Env, (): ()) -> napi::Result<()> {
        Ok(())
    }
}

fn close_stores(engine: &Engine) {
    for namespace in &engine.namespaces {
        namespace.stop_index_builds();
        namespace.store.close();
    }
}

/// Runs a blocking step of the lifecycle off the main thread.
pub struct StopTask {
    handle: u32,
    state: Arc<Mutex<State>>,
    close: bool,
}

impl Task for StopTask {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        let server = self.state.lock().server.clone();
        let ended = match &server {
            Some(server) if self.close => server.close(),
            Some(server) => server.drain(),
            None => Ok(()),
        };
        if self.close {
            SERVERS.lock().remove(&self.handle);
            let mut state = self.state.lock();
            state.closed = true;
            state.server = None;
            if let Some(engine) = state.engine.take() {
                close_stores(&engine);
            }
        }
        ended.map_err(|error| failure("PERIGEE_DEVICE", error))
    }

    fn resolve(&mut self, _: Env, (): ()) -> napi::Result<()> {
        Ok(())
    }
}

/// Takes a batch of changes off the main thread, since records may have to be read from the device.
pub struct TakeTask {
    datacenter: Arc<Datacenter>,
    bytes_max: usize,
    records_max: usize,
}

impl Task for TakeTask {
    type Output = Vec<u8>;
    type JsValue = Buffer;

    fn compute(&mut self) -> napi::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.datacenter
            .take(&mut out, self.bytes_max, self.records_max);
        Ok(out)
    }

    fn resolve(&mut self, _: Env, batch: Vec<u8>) -> napi::Result<Buffer> {
        Ok(batch.into())
    }
}

pub struct HistogramTask {
    server: Arc<Server>,
    namespace: String,
    set: Option<String>,
}

impl Task for HistogramTask {
    type Output = Option<String>;
    type JsValue = Option<String>;

    fn compute(&mut self) -> napi::Result<Option<String>> {
        let engine = self.server.engine();
        let namespace = engine
            .and_then(|engine| engine.namespace(self.namespace.as_bytes()))
            .ok_or_else(|| {
                failure(
                    "PERIGEE_ARGUMENT",
                    format!("no namespace {}", self.namespace),
                )
            })?;
        let set = match &self.set {
            None => None,
            Some(name) => match namespace.sets.find(name.as_bytes()) {
                Some(id) => Some(id),
                None => return Ok(None),
            },
        };
        let counted = namespace
            .histograms(set, &|| !self.server.is_serving())
            .ok_or_else(|| failure("PERIGEE_CLOSED", "the node is stopping"))?;
        serde_json::to_string(&counted)
            .map(Some)
            .map_err(|error| failure("PERIGEE_INTERNAL", error))
    }

    fn resolve(&mut self, _: Env, json: Option<String>) -> napi::Result<Option<String>> {
        Ok(json)
    }
}

#[napi]
impl NativeNode {
    /// A node that is not open yet. The configuration is JSON in kebab-case.
    #[napi(factory)]
    pub fn create(config: String) -> napi::Result<NativeNode> {
        let config: ServerConfig =
            serde_json::from_str(&config).map_err(|error| failure("PERIGEE_CONFIG", error))?;
        Ok(NativeNode {
            handle: NEXT_HANDLE.fetch_add(1, Ordering::Relaxed),
            opening: Arc::new(Opening::new(&config)),
            config: Arc::new(config),
            state: Arc::default(),
        })
    }

    /// Opens the namespaces and rebuilds their indexes. Once, after `start`.
    #[napi]
    pub fn open(&self) -> AsyncTask<OpenTask> {
        AsyncTask::new(OpenTask {
            config: self.config.clone(),
            opening: self.opening.clone(),
            state: self.state.clone(),
        })
    }

    /// Makes an `open` that is under way fail soon.
    #[napi]
    pub fn cancel_open(&self) {
        self.opening.cancel();
    }

    /// Answers requests for records from now on. After `open`, once.
    #[napi]
    pub fn serve(&self) -> napi::Result<()> {
        let mut state = self.state.lock();
        let (Some(server), Some(engine)) = (state.server.clone(), state.engine.take()) else {
            return Err(failure(
                "PERIGEE_STATE",
                "the node is not open, or serves already",
            ));
        };
        server
            .serve(engine)
            .map_err(|error| failure("PERIGEE_INTERNAL", error))
    }

    /// The node's name in this process, for worker threads.
    #[napi(getter)]
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// Makes this node master of the partitions in a 512-byte bitmap. Decisions older than the one in force are ignored.
    #[napi]
    pub fn set_ownership(
        &self,
        epoch: f64,
        namespace: String,
        masters: Uint8Array,
    ) -> napi::Result<()> {
        let masters: &[u8; PARTITIONS / 8] = masters
            .as_ref()
            .try_into()
            .map_err(|_| failure("PERIGEE_ARGUMENT", "the ownership bitmap has 512 bytes"))?;
        self.with_namespace(&namespace, |namespace| {
            namespace.set_ownership(epoch as u64, masters);
            Ok(())
        })
    }

    /// Puts a changed configuration of a namespace into force: JSON as in `open`, of which only what may change is taken.
    #[napi]
    pub fn configure(&self, namespace: String, config: String) -> napi::Result<()> {
        let config =
            serde_json::from_str(&config).map_err(|error| failure("PERIGEE_CONFIG", error))?;
        self.with_namespace(&namespace, |namespace| {
            namespace.reconfigure(&config);
            Ok(())
        })
    }

    /// Forgets how far eviction has come.
    #[napi]
    pub fn reset_eviction(&self, namespace: String) -> napi::Result<()> {
        self.with_namespace(&namespace, |namespace| {
            namespace.reset_eviction();
            Ok(())
        })
    }

    /// Has the tomb raider begin a pass.
    #[napi]
    pub fn raid_tombstones(&self, namespace: String) -> napi::Result<()> {
        self.with_namespace(&namespace, |namespace| {
            namespace.tomb_raider.request();
            Ok(())
        })
    }

    /// JSON of how the records of a namespace, or of a set, are spread over times to live and sizes: from a walk over the
    /// index, off the main thread. Null for a set that is not known.
    #[napi]
    pub fn histograms(
        &self,
        namespace: String,
        set: Option<String>,
    ) -> napi::Result<AsyncTask<HistogramTask>> {
        let server = self.state.lock().server.clone();
        let server = server.ok_or_else(|| failure("PERIGEE_CLOSED", "the node is not running"))?;
        Ok(AsyncTask::new(HistogramTask {
            server,
            namespace,
            set,
        }))
    }

    /// A truncation mark that parts what was acknowledged so far from all that will be (ms since 2010-01-01).
    #[napi]
    pub fn truncation_time(&self, namespace: String) -> napi::Result<f64> {
        self.with_namespace(&namespace, |namespace| {
            Ok(namespace.truncation_time() as f64)
        })
    }

    /// Puts a truncation mark in force for a set, or for the namespace; 0 takes it away.
    #[napi]
    pub fn set_truncation(
        &self,
        namespace: String,
        set: Option<String>,
        lut: f64,
    ) -> napi::Result<()> {
        let set = set.as_deref().map(str::as_bytes);
        self.with_namespace(&namespace, |namespace| {
            namespace
                .set_truncation(set, lut as u64)
                .map_err(|error| failure("PERIGEE_ARGUMENT", error))
        })
    }

    /// Makes a secondary index: JSON as in `IndexConfig`. It is built in the background; without effect if it is there.
    #[napi]
    pub fn create_index(&self, namespace: String, definition: String) -> napi::Result<()> {
        let config: IndexConfig = serde_json::from_str(&definition)
            .map_err(|error| failure("PERIGEE_ARGUMENT", error))?;
        let definition =
            IndexDefinition::of(&config).map_err(|error| failure("PERIGEE_ARGUMENT", error))?;
        self.with_namespace(&namespace, |namespace| {
            let created = namespace.create_index(definition);
            created.map(|_| ()).map_err(|error| {
                let code = match error {
                    CreateIndexError::Exists => "PERIGEE_EXISTS",
                    CreateIndexError::TooMany | CreateIndexError::TooManySets => "PERIGEE_LIMIT",
                    CreateIndexError::Thread(_) => "PERIGEE_INTERNAL",
                };
                failure(code, error)
            })
        })
    }

    /// Takes a secondary index away; false if there was none of this name.
    #[napi]
    pub fn drop_index(&self, namespace: String, name: String) -> napi::Result<bool> {
        self.with_namespace(&namespace, |namespace| Ok(namespace.drop_index(&name)))
    }

    /// The secondary indexes of each namespace with their numbers, as JSON; nothing before the node is open.
    #[napi]
    pub fn indexes(&self) -> String {
        let listing = |index: &Arc<SecondaryIndex>| {
            let stats = index.stats();
            let set = index.definition.set.as_deref();
            serde_json::json!({
                "name": index.definition.name,
                "set": set.map(String::from_utf8_lossy),
                "state": if index.is_ready() { "ready" } else { "building" },
                "entries": stats.entries,
                "used-bytes": stats.used_bytes,
                "entries-per-bval": stats.entries_per_value,
                "entries-per-rec": stats.entries_per_record,
                "load-pct": stats.load_pct,
                "load-time-ms": stats.load_ms,
                "gc-records": stats.gc_entries,
            })
        };
        let engine = self.engine();
        let namespaces = engine.iter().flat_map(|engine| &engine.namespaces);
        let all: serde_json::Map<_, _> = namespaces
            .map(|namespace| {
                let indexes = namespace.secondary_indexes();
                let listed = indexes.iter().map(listing).collect();
                (namespace.name.clone(), serde_json::Value::Array(listed))
            })
            .collect();
        serde_json::Value::Object(all).to_string()
    }

    /// Binds the port. Info requests come to `on_info`, answers go to `answerInfo`; requests for records are refused
    /// until `serve`.
    #[napi]
    pub fn start(
        &self,
        on_info: ThreadsafeFunction<InfoRequestEvent, (), InfoRequestEvent, Status, false>,
    ) -> napi::Result<Listening> {
        let mut state = self.state.lock();
        if state.closed || state.server.is_some() {
            return Err(failure(
                "PERIGEE_STATE",
                "the node is closed, or started already",
            ));
        }
        let forward = move |request: InfoRequest| {
            let event = InfoRequestEvent {
                id: request.id as f64,
                text: request.text,
                peer: request.peer,
            };
            on_info.call(event, ThreadsafeFunctionCallMode::NonBlocking);
        };
        let opening = self.opening.clone();
        let server =
            Server::start(&self.config.service, opening, Box::new(forward)).map_err(|error| {
                match error {
                    ServerError::Tls(error) => failure("PERIGEE_TLS", error),
                    error => failure("PERIGEE_LISTEN", error),
                }
            })?;
        let server = Arc::new(server);
        SERVERS.lock().insert(self.handle, server.clone());
        state.server = Some(server.clone());
        Ok(Listening {
            address: server.local_address.ip().to_string(),
            port: server.local_address.port(),
            tls_port: server.tls_address.map(|address| address.port()),
            network_loop: server.loop_kind.name().to_owned(),
        })
    }

    #[napi]
    pub fn answer_info(&self, id: f64, reply: String) -> napi::Result<()> {
        self.with_server(|server| server.answer_info(id as u64, reply))
    }

    /// Statistics as JSON: `service`, `opening`, `namespaces` and `sets`; before the node is open the last two are empty.
    #[napi]
    pub fn stats(&self) -> napi::Result<String> {
        let mut service = serde_json::Map::new();
        if let Some(server) = &self.state.lock().server {
            service.extend(
                server
                    .stats
                    .totals()
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v.into())),
            );
            insert_compression(&mut service, "batch_index", &server.stats.batch_index_proto);
            service.insert("udf_queue".into(), server.udf.queued().into());
            service.insert("long_queries_active".into(), server.queries.active().into());
        }
        let (mut namespaces, mut sets) = (serde_json::Map::new(), serde_json::Map::new());
        if let Some(engine) = self.engine() {
            let first = engine.namespaces.first();
            if let Some(memory) = first.and_then(|namespace| namespace.limits.memory()) {
                service.insert(
                    "system_free_mem_kbytes".into(),
                    (memory.available_bytes / 1024).into(),
                );
                service.insert(
                    "system_free_mem_pct".into(),
                    percent(memory.available_bytes, memory.total_bytes).into(),
                );
            }
            for namespace in &engine.namespaces {
                let (stats, set_stats) = namespace_stats(namespace);
                namespaces.insert(namespace.name.clone(), stats);
                sets.insert(namespace.name.clone(), set_stats);
            }
        }
        let opening: serde_json::Map<_, _> = self
            .opening
            .all()
            .map(|(name, progress)| {
                let value = serde_json::json!({
                    "open_phase": progress.phase.name(),
                    "open_pct": progress.pct(),
                    "open_records": progress.records,
                    "open_remaining_seconds": progress.remaining_seconds(),
                });
                (name.to_owned(), value)
            })
            .collect();
        let all = serde_json::json!({
            "service": service, "opening": opening, "namespaces": namespaces, "sets": sets,
        });
        Ok(all.to_string())
    }

    /// How long requests took since the start, as JSON: `floors-us` has the microseconds from which each bucket counts,
    /// `service` and `namespaces` the buckets of each histogram. Before the node is open there are no namespaces.
    #[napi]
    pub fn latencies(&self) -> napi::Result<String> {
        let floors: Vec<u64> = (0..LATENCY_BUCKETS).map(latency_floor_us).collect();
        let service = self.with_server(|server| histograms(server.latencies()))?;
        let engine = self.engine();
        let namespaces: serde_json::Map<_, _> = engine
            .iter()
            .flat_map(|engine| &engine.namespaces)
            .map(|namespace| {
                let of = |latency: Latency| {
                    let counts = namespace.stats.latencies.counts(latency);
                    (latency.name(), counts)
                };
                (namespace.name.clone(), histograms(Latency::ALL.map(of)))
            })
            .collect();
        let all = serde_json::json!({
            "floors-us": floors, "service": service, "namespaces": namespaces,
        });
        Ok(all.to_string())
    }

    /// Stops accepting, finishes requests under way, makes everything durable.
    #[napi]
    pub fn drain(&self) -> AsyncTask<StopTask> {
        self.stop(false)
    }

    /// Lets go of everything. A second call does nothing.
    #[napi]
    pub fn close(&self) -> AsyncTask<StopTask> {
        self.stop(true)
    }

    fn stop(&self, close: bool) -> AsyncTask<StopTask> {
        AsyncTask::new(StopTask {
            handle: self.handle,
            state: self.state.clone(),
            close,
        })
    }

    /// Lets every waiting Lua worker return once.
    #[napi]
    pub fn udf_wake(&self) -> napi::Result<()> {
        self.with_server(|server| server.udf.wake())
    }

    /// Lua workers that should have come back.
    #[napi]
    pub fn udf_overdue(&self) -> napi::Result<Vec<OverdueWorker>> {
        self.with_server(|server| {
            let late = server.udf.overdue().into_iter();
            late.map(|(worker, by)| OverdueWorker {
                worker,
                overdue_ms: by.as_secs_f64() * 1000.0,
            })
            .collect()
        })
    }

    /// The worker is gone: the call that it was running fails (unless 0 or absent: not known), the others go to other workers.
    #[napi]
    pub fn udf_abandon(&self, worker: u32, running: Option<f64>) -> napi::Result<()> {
        let running = running.filter(|task| *task > 0.0).map(|task| task as u64);
        self.with_server(|server| server.udf.abandon(worker, running))
    }

    /// Long queries, under way and ended, as JSON: all, or those of a task (a decimal number).
    #[napi]
    pub fn queries(&self, task: Option<String>) -> napi::Result<String> {
        let task = task.map(|task| task_id(&task)).transpose()?;
        let listing = self.with_server(|server| server.queries.show(task))?;
        serde_json::to_string(&listing).map_err(|error| failure("PERIGEE_INTERNAL", error))
    }

    /// Ends the long queries of a task, or all, and returns how many.
    #[napi]
    pub fn abort_queries(&self, task: Option<String>) -> napi::Result<u32> {
        let task = task.map(|task| task_id(&task)).transpose()?;
        self.with_server(|server| server.queries.abort(task) as u32)
    }

    /// A batch of changes for a datacenter (layout in docs/ARCHITECTURE.md), in flight until each is confirmed.
    #[napi]
    pub fn xdr_take(
        &self,
        dc: String,
        bytes_max: u32,
        records_max: u32,
    ) -> napi::Result<AsyncTask<TakeTask>> {
        let datacenter = self.datacenter(&dc)?;
        let (bytes_max, records_max) = (bytes_max as usize, records_max as usize);
        Ok(AsyncTask::new(TakeTask {
            datacenter,
            bytes_max,
            records_max,
        }))
    }

    /// Outcomes of changes in flight: u64 token, u8 outcome (0 success, 1 retry, 2 abandon), 7 zero bytes each.
    #[napi]
    pub fn xdr_confirm(&self, dc: String, outcomes: Uint8Array) -> napi::Result<()> {
        let datacenter = self.datacenter(&dc)?;
        let outcomes = parse_outcomes(outcomes.as_ref());
        let outcomes = outcomes.map_err(|error| failure("PERIGEE_ARGUMENT", error))?;
        for (token, confirmation) in outcomes {
            datacenter.confirm(token, confirmation);
        }
        Ok(())
    }

    /// Counters of a datacenter by namespace, as JSON.
    #[napi]
    pub fn xdr_stats(&self, dc: String) -> napi::Result<String> {
        let stats = self.datacenter(&dc)?.stats();
        serde_json::to_string(&stats).map_err(|error| failure("PERIGEE_INTERNAL", error))
    }

    /// Last-ship times of the 4096 partitions, u64 little endian each.
    #[napi]
    pub fn xdr_ship_times(&self, dc: String, namespace: String) -> napi::Result<Buffer> {
        let times = self.datacenter(&dc)?.ship_times(&namespace);
        let times = times.ok_or_else(|| {
            failure(
                "PERIGEE_ARGUMENT",
                format!("{dc} does not ship {namespace}"),
            )
        })?;
        Ok(times
            .iter()
            .flat_map(|time| time.to_le_bytes())
            .collect::<Vec<u8>>()
            .into())
    }

    /// Takes up last-ship times that were kept over a restart. Before `start`.
    #[napi]
    pub fn xdr_set_ship_times(
        &self,
        dc: String,
        namespace: String,
        times: Uint8Array,
    ) -> napi::Result<()> {
        let datacenter = self.datacenter(&dc)?;
        let parsed: Vec<u64> = times
            .as_ref()
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
            .collect();
        let parsed: &[u64; PARTITIONS] = parsed
            .as_slice()
            .try_into()
            .map_err(|_| failure("PERIGEE_ARGUMENT", "ship times are 4096 u64"))?;
        if !datacenter.set_ship_times(&namespace, parsed) {
            return Err(failure(
                "PERIGEE_ARGUMENT",
                format!("{dc} does not ship {namespace}"),
            ));
        }
        Ok(())
    }

    fn datacenter(&self, name: &str) -> napi::Result<Arc<Datacenter>> {
        self.with_engine(|engine| {
            let found = engine.datacenter(name).cloned();
            found.ok_or_else(|| failure("PERIGEE_ARGUMENT", format!("no datacenter {name}")))
        })
    }

    fn with_namespace<R>(
        &self,
        name: &str,
        f: impl FnOnce(&Arc<Namespace>) -> napi::Result<R>,
    ) -> napi::Result<R> {
        self.with_engine(|engine| match engine.namespace(name.as_bytes()) {
            Some(namespace) => f(namespace),
            None => Err(failure("PERIGEE_ARGUMENT", format!("no namespace {name}"))),
        })
    }

    fn with_engine<R>(&self, f: impl FnOnce(&Engine) -> napi::Result<R>) -> napi::Result<R> {
        match self.engine() {
            Some(engine) => f(&engine),
            None => Err(failure("PERIGEE_CLOSED", "the node is not open")),
        }
    }

    fn engine(&self) -> Option<Arc<Engine>> {
        let state = self.state.lock();
        let served = state.server.as_ref().and_then(|server| server.engine());
        state.engine.as_ref().or(served).cloned()
    }

    fn with_server<R>(&self, f: impl FnOnce(&Server) -> R) -> napi::Result<R> {
        let server = self.state.lock().server.clone();
        match server {
            Some(server) => Ok(f(&server)),
            None => Err(failure("PERIGEE_CLOSED", "the node is not running")),
        }
    }
}

/// An object of the buckets of each histogram.
fn histograms<const N: usize>(all: [(&'static str, LatencyCounts); N]) -> serde_json::Value {
    let named = all.map(|(name, counts)| (name.to_owned(), counts.to_vec().into()));
    serde_json::Value::Object(named.into_iter().collect())
}

fn task_id(text: &str) -> napi::Result<u64> {
    text.parse()
        .map_err(|_| failure("PERIGEE_ARGUMENT", format!("{text:?} is not a task id")))
}

/// A device's statistics under the names that tools know: `file[0]` is its path, `file[0].free_wblocks` and the others
/// what is known of it.
fn insert_device(
    store: &mut serde_json::Map<String, serde_json::Value>,
    i: usize,
    device: &DeviceStats,
) {
    let name = format!("{}[{i}]", device.kind);
    if let Some(path) = &device.path {
        store.insert(name.clone(), path.display().to_string().into());
    }
    for (statistic, value) in [
        ("used_bytes", device.used_bytes),
        ("free_wblocks", device.free_wblocks),
        ("read_errors", device.read_errors),
        ("write_q", device.write_q),
        ("writes", device.writes),
        ("partial_writes", device.partial_writes),
        ("defrag_q", device.defrag_q),
        ("defrag_reads", device.defrag_reads),
        ("defrag_writes", device.defrag_writes),
        ("defrag_partial_writes", device.defrag_partial_writes),
    ] {
        store.insert(format!("{name}.{statistic}"), value.into());
    }
    // How much of its life a device has used: nothing here asks it.
    store.insert(format!("{name}.age"), (-1).into());
    let state = if device.failure.is_some() {
        "failed"
    } else {
        "ok"
    };
    store.insert(format!("{name}.state"), state.into());
    if let Some(failure) = &device.failure {
        // These separate statistics from one another.
        let reason = failure.to_string().replace([';', '='], " ");
        store.insert(format!("{name}.failure"), reason.into());
    }
}

/// What became of the replies of a kind that were to be compressed.
fn insert_compression(
    stats: &mut serde_json::Map<String, serde_json::Value>,
    kind: &str,
    replies: &ReplyCompression,
) {
    for (statistic, value) in [
        ("uncompressed_pct", replies.uncompressed_pct()),
        ("compression_ratio", replies.ratio()),
    ] {
        stats.insert(
            format!("{kind}_proto_{statistic}"),
            format!("{value:.3}").into(),
        );
    }
}

fn namespace_stats(namespace: &Namespace) -> (serde_json::Value, serde_json::Value) {
    let mut stats = serde_json::Map::new();
    stats.extend(
        namespace
            .stats
            .totals()
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.into())),
    );
    let storage = namespace.store.stats();
    let usage = namespace.usage();
    let indexes = namespace.secondary_indexes();
    let index_bytes = |of_sets: bool| -> u64 {
        let indexes = indexes.iter().filter(|index| index.is_of_set() == of_sets);
        indexes.map(|index| index.stats().used_bytes).sum()
    };
    let relaxed = |statistic: &AtomicU64| statistic.load(Ordering::Relaxed);
    let expiry = &namespace.expiry;
    let eviction = &namespace.eviction;
    for (name, value) in [
        (
            "index_used_bytes",
            usage
                .index_bytes
                .saturating_sub(index_bytes(false) + index_bytes(true)),
        ),
        ("sindex_used_bytes", index_bytes(false)),
        ("set_index_used_bytes", index_bytes(true)),
        ("data_used_bytes", usage.data_used_bytes),
        ("data_total_bytes", usage.data_total_bytes),
        ("data_used_pct", usage.data_used_pct()),
        ("data_avail_pct", usage.data_avail_pct),
        (
            "indexes_memory_used_pct",
            percent(
                usage.index_bytes,
                namespace.config.indexes_memory_budget.get(),
            ),
        ),
        (
            "non_expirable_objects",
            relaxed(&expiry.non_expirable_objects),
        ),
        ("nsup_cycle_duration", relaxed(&expiry.nsup_cycle_duration)),
        (
            "nsup_cycle_deleted_pct",
            relaxed(&expiry.nsup_cycle_deleted_pct),
        ),
        ("truncate_lut", namespace.truncation.mark()),
        ("shmem_used_bytes", namespace.shared_memory_bytes()),
        ("start_ms", namespace.start_report.ms),
        (
            "tomb_raider_running",
            u64::from(namespace.tomb_raider.running.load(Ordering::Relaxed)),
        ),
        ("tomb_raider_passes", relaxed(&namespace.tomb_raider.passes)),
        (
            "tomb_raider_incomplete_passes",
            relaxed(&namespace.tomb_raider.incomplete),
        ),
        (
            "tomb_raider_last_ms",
            relaxed(&namespace.tomb_raider.last_ms),
        ),
        (
            "evict_ttl",
            eviction.evict_ttl.load(Ordering::Relaxed).into(),
        ),
        (
            "evict_void_time",
            eviction.evict_void_time.load(Ordering::Relaxed).into(),
        ),
    ] {
        stats.insert(name.into(), value.into());
    }
    stats.insert(
        "objects".into(),
        namespace.objects.load(Ordering::Relaxed).into(),
    );
    stats.insert(
        "tombstones".into(),
        namespace.tombstones.load(Ordering::Relaxed).into(),
    );
    stats.insert(
        "data_compression_ratio".into(),
        format!("{:.3}", namespace.stats.compression_ratio()).into(),
    );
    insert_compression(&mut stats, "record", &namespace.stats.record_proto);
    insert_compression(&mut stats, "query", &namespace.stats.query_proto);
    stats.insert("stop_writes".into(), namespace.stop_writes().into());
    let last_start = namespace.start_report.kind.name();
    stats.insert("last_start".into(), last_start.into());
    stats.insert(
        "stop_writes_reason".into(),
        namespace.stop_writes_reason().into(),
    );
    let truncating = namespace.truncation.truncating();
    stats.insert("truncating".into(), truncating.into());
    stats.insert("hwm_breached".into(), namespace.limits.evict().any().into());
    stats.insert("current_time".into(), namespace.clock.wall_seconds().into());
    for (name, value) in [
        ("write_amplification", storage.write_amplification()),
        ("defrag_write_share", storage.defrag_write_share()),
    ] {
        stats.insert(name.into(), format!("{value:.2}").into());
    }
    let mut store = match serde_json::to_value(&storage) {
        Ok(serde_json::Value::Object(store)) => store,
        _ => serde_json::Map::new(),
    };
    for (i, device) in namespace.store.device_stats().into_iter().enumerate() {
        insert_device(&mut store, i, &device);
    }
    stats.insert("storage".into(), store.into());
    let sets: serde_json::Map<_, _> = namespace
        .sets
        .all()
        .map(|set| {
            let value = serde_json::json!({
                "objects": set.objects.load(Ordering::Relaxed),
                "tombstones": set.tombstones.load(Ordering::Relaxed),
                "data_used_bytes": set.data_used_bytes.load(Ordering::Relaxed),
                "truncate_lut": set.mark(),
                "truncating": truncating && set.mark() > 0,
            });
            (String::from_utf8_lossy(&set.name).into_owned(), value)
        })
        .collect();
    (stats.into(), sets.into())
}
