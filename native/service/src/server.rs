//! A running data plane: service threads, the lanes, the read pool and the housekeeping thread over one engine.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use thiserror::Error;

use perigee_engine::clock::HybridClock;
use perigee_engine::config::{DatacenterConfig, NamespaceConfig};
use perigee_engine::latency::{LatencyCounts, LatencyHistogram};
use perigee_engine::namespace::{Namespace, NamespaceError};
use perigee_engine::progress::{OpenProgress, ProgressSnapshot};
use perigee_engine::stats::ReplyCompression;
use perigee_engine::storage::DeviceError;
use perigee_engine::xdr::{Datacenter, NamespaceShipping};

use crate::contained::Contained;
use crate::dispatch::{ServiceThread, relaxed};
use crate::housekeeping::Housekeeping;
use crate::info_lane::InfoLane;
use crate::mailbox::{Mail, Mailbox, Mailboxes};
use crate::net::{
    self, LoopConfig, LoopControl, LoopKind, PeerSocket, ReadPool, TlsConfig, TlsError, TlsPort,
    TlsStats,
};
use crate::query_registry::QueryRegistry;
use crate::udf_lane::UdfLane;

/// How long requests under way may take when the node stops.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
const LISTEN_BACKLOG: i32 = 1024;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServerConfig {
    pub service: ServiceConfig,
    pub namespaces: Vec<NamespaceConfig>,
    pub datacenters: Vec<DatacenterConfig>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceConfig {
    pub address: String,
    pub port: u16,
    /// The port for TLS, beside the plain one.
    #[serde(default)]
    pub tls: Option<TlsServiceConfig>,
    pub service_threads: usize,
    pub proto_fd_max: usize,
    pub proto_fd_idle_ms: u64,
    pub transaction_max_ms: u32,
    pub transaction_pending_limit: usize,
    pub network_loop: NetworkLoop,
    /// Holds indexes of type `shmem`.
    #[serde(default)]
    pub shmem_directory: Option<PathBuf>,
    pub udf_workers: usize,
    pub udf_time_limit_ms: u64,
    /// Threads that build secondary indexes, in each namespace.
    pub sindex_builder_threads: usize,
    /// Seconds between two sweeps of what records that are gone left in secondary indexes.
    pub sindex_gc_period: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TlsServiceConfig {
    pub port: u16,
    /// Seconds between looks at whether a file has changed; 0 for none.
    pub refresh_period: u64,
    pub identity: TlsConfig,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkLoop {
    Auto,
    IoUring,
    Epoll,
}

/// An info request for TypeScript.
pub struct InfoRequest {
    pub id: u64,
    pub text: String,
    pub peer: String,
}

pub type OnInfo = Box<dyn Fn(InfoRequest) + Send + Sync>;

#[derive(Debug, Error)]
pub enum ServerError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("datacenter {datacenter} ships namespace {namespace}, which is not configured")]
    UnknownNamespace {
        datacenter: String,
        namespace: String,
    },
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// The records: namespaces and datacenters, opened and indexed.
pub struct Engine {
    pub namespaces: Vec<Arc<Namespace>>,
    pub datacenters: Vec<Arc<Datacenter>>,
    pub(crate) index_gc_period: Duration,
}

impl Engine {
    /// Opens every namespace, one after the other. Blocks while indexes are rebuilt; `opening` is watched meanwhile.
    pub fn open(config: &ServerConfig, opening: &Opening) -> Result<Engine, ServerError> {
        let clock = Arc::new(HybridClock::new());
        let mut namespaces = Vec::new();
        let mut routes: Vec<Vec<_>> = config.datacenters.iter().map(|_| Vec::new()).collect();
        for (namespace_config, progress) in config.namespaces.iter().zip(&opening.namespaces) {
            let mut shipping = Vec::new();
            let mut users = Vec::new();
            for (index, datacenter) in config.datacenters.iter().enumerate() {
                let route = datacenter
                    .namespaces
                    .iter()
                    .find(|n| n.name == namespace_config.name);
                if let Some(route) = route {
                    let state = Arc::new(NamespaceShipping::new(route));
                    users.push((index, shipping.len(), state.clone()));
                    shipping.push(state);
                }
            }
            let started = Instant::now();
            let pending = config.service.transaction_pending_limit;
            let (namespace, report) = Namespace::open(
                NamespaceConfig {
                    shmem_directory: config.service.shmem_directory.clone(),
                    ..namespace_config.clone()
                },
                clock.clone(),
                shipping,
                pending,
                &progress.1,
            )?;
            tracing::info!(
                namespace = %namespace.name,
                objects = namespace.objects.load(Ordering::Relaxed),
                tombstones = namespace.tombstones.load(Ordering::Relaxed),
                damaged = report.damaged,
                start = namespace.start_report.kind.name(),
                elapsed_ms = started.elapsed().as_millis() as u64,
                "namespace opened"
            );
            for (index, slot, state) in users {
                routes[index].push((namespace.clone(), slot, state));
            }
            namespace.set_index_builder_threads(config.service.sindex_builder_threads);
            namespaces.push(namespace);
        }
        let mut datacenters = Vec::new();
        for (datacenter, mut routes) in config.datacenters.iter().zip(routes) {
            for wanted in &datacenter.namespaces {
                if !routes
                    .iter()
                    .any(|(namespace, _, _)| namespace.name == wanted.name)
                {
                    return Err(ServerError::UnknownNamespace {
                        datacenter: datacenter.name.clone(),
                        namespace: wanted.name.clone(),
                    });
                }
            }
            // Entries name a namespace by its place in the datacenter's configuration.
            routes.sort_by_key(|(namespace, _, _)| {
                datacenter
                    .namespaces
                    .iter()
                    .position(|wanted| wanted.name == namespace.name)
            });
            datacenters.push(Arc::new(Datacenter::new(datacenter, routes)));
        }
        Ok(Engine {
            namespaces,
            datacenters,
            index_gc_period: Duration::from_secs(config.service.sindex_gc_period),
        })
    }

    pub fn namespace(&self, name: &[u8]) -> Option<&Arc<Namespace>> {
        self.namespaces
            .iter()
            .find(|namespace| namespace.name.as_bytes() == name)
    }

    pub fn datacenter(&self, name: &str) -> Option<&Arc<Datacenter>> {
        self.datacenters
            .iter()
            .find(|datacenter| datacenter.name == name)
    }
}

/// How far opening the namespaces has come, and the way to end it early.
#[derive(Default)]
pub struct Opening {
    /// Namespaces by name, in the order of the configuration.
    namespaces: Vec<(String, OpenProgress)>,
}

impl Opening {
    pub fn new(config: &ServerConfig) -> Opening {
        let names = config.namespaces.iter();
        Opening {
            namespaces: names
                .map(|namespace| (namespace.name.clone(), OpenProgress::default()))
                .collect(),
        }
    }

    /// Makes opening fail soon.
    pub fn cancel(&self) {
        self.namespaces
            .iter()
            .for_each(|(_, progress)| progress.cancel());
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, ProgressSnapshot)> {
        self.namespaces
            .iter()
            .map(|(name, progress)| (name.as_str(), progress.snapshot()))
    }

    pub(crate) fn has(&self, namespace: &[u8]) -> bool {
        self.namespaces
            .iter()
            .any(|(name, _)| name.as_bytes() == namespace)
    }
}

/// Counters of the service as a whole, by their public names.
#[derive(Default)]
pub struct ServiceStats {
    pub client_connections_opened: AtomicU64,
    pub client_connections_closed: AtomicU64,
    pub demarshal_error: AtomicU64,
    pub early_tsvc_client_error: AtomicU64,
    /// Requests whose connection was closed because this program panicked over them.
    pub requests_panicked: AtomicU64,
    pub info_complete: AtomicU64,
    pub batch_index_initiate: AtomicU64,
    pub batch_index_complete: AtomicU64,
    pub batch_index_error: AtomicU64,
    pub batch_index_timeout: AtomicU64,
    pub tls: Arc<TlsStats>,
    /// Of frames of batches.
    pub batch_index_proto: ReplyCompression,
    pub batch_index_latency: LatencyHistogram,
}

impl ServiceStats {
    pub fn totals(&self) -> Vec<(&'static str, u64)> {
        let opened = relaxed(&self.client_connections_opened);
        let closed = relaxed(&self.client_connections_closed);
        let mut totals = vec![
            ("client_connections", opened.saturating_sub(closed)),
            ("client_connections_opened", opened),
            ("client_connections_closed", closed),
            ("demarshal_error", relaxed(&self.demarshal_error)),
            (
                "early_tsvc_client_error",
                relaxed(&self.early_tsvc_client_error),
            ),
            ("requests_panicked", relaxed(&self.requests_panicked)),
            ("info_complete", relaxed(&self.info_complete)),
            ("batch_index_initiate", relaxed(&self.batch_index_initiate)),
            ("batch_index_complete", relaxed(&self.batch_index_complete)),
            ("batch_index_error", relaxed(&self.batch_index_error)),
            ("batch_index_timeout", relaxed(&self.batch_index_timeout)),
        ];
        totals.extend(self.tls.totals());
        totals
    }
}

pub(crate) struct Shared {
    /// Absent until the namespaces are open: requests for records are refused with UNAVAILABLE.
    pub engine: OnceLock<Arc<Engine>>,
    pub opening: Arc<Opening>,
    pub mailboxes: Arc<Mailboxes>,
    pub info: Arc<InfoLane>,
    pub on_info: OnInfo,
    pub udf: Arc<UdfLane>,
    pub queries: Arc<QueryRegistry>,
    pub stats: Arc<ServiceStats>,
    pub transaction_max_ms: u32,
}

/// A data plane: `start` answers info requests, `serve` requests for records too.
pub struct Server {
    pub udf: Arc<UdfLane>,
    pub stats: Arc<ServiceStats>,
    pub queries: Arc<QueryRegistry>,
    pub local_address: SocketAddr,
    /// Of the port for TLS, if there is one.
    pub tls_address: Option<SocketAddr>,
    pub loop_kind: LoopKind,
    info: Arc<InfoLane>,
    shared: Arc<Shared>,
    mailboxes: Arc<Mailboxes>,
    read_pool: Arc<ReadPool>,
    /// With the time between refreshes; absent where there are none.
    refreshed: Option<(Arc<TlsPort>, Duration)>,
    controls: Vec<LoopControl>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    housekeeping: Mutex<Option<Housekeeping>>,
    /// Held over a whole drain or close; set once drained.
    drained: Mutex<bool>,
}

impl Server {
    /// Binds the port and starts the service threads, which answer info requests from now on.
    pub fn start(
        config: &ServiceConfig,
        opening: Arc<Opening>,
        on_info: OnInfo,
    ) -> Result<Server, ServerError> {
        let stats = Arc::new(ServiceStats::default());
        let tls_port = config.tls.as_ref().map(|tls| {
            let port = TlsPort::open(tls.identity.clone(), stats.tls.clone())?;
            Ok::<_, TlsError>(Arc::new(port))
        });
        let tls_port = tls_port.transpose()?;
        let (listener, local_address) = listen(&config.address, config.port)?;
        let tls_listener = config.tls.as_ref();
        let tls_listener = tls_listener.map(|tls| listen(&config.address, tls.port));
        let (mut tls_listener, tls_address) = tls_listener.transpose()?.unzip();
        let loop_kind = match config.network_loop {
            NetworkLoop::Auto => LoopKind::Auto,
            NetworkLoop::IoUring => LoopKind::IoUring,
            NetworkLoop::Epoll => LoopKind::Epoll,
        }
        .resolve();
        let thread_count = config.service_threads.max(1);
        let controls = (0..thread_count)
            .map(|_| LoopControl::new())
            .collect::<Result<Vec<_>, _>>()
            .map_err(ServerError::Thread)?;
        let boxes = controls
            .iter()
            .map(|control| Mailbox::new(control.waker()))
            .collect();
        let mailboxes = Arc::new(Mailboxes(boxes));
        let udf = Arc::new(UdfLane::new(
            mailboxes.clone(),
            Duration::from_millis(config.udf_time_limit_ms),
            config.udf_workers,
        ));
        let info = Arc::new(InfoLane::default());
        let queries = Arc::new(QueryRegistry::default());
        let shared = Arc::new(Shared {
            engine: OnceLock::new(),
            opening,
            mailboxes: mailboxes.clone(),
            info: info.clone(),
            on_info,
            udf: udf.clone(),
            queries: queries.clone(),
            stats: stats.clone(),
            transaction_max_ms: config.transaction_max_ms,
        });
        let read_pool = Arc::new(ReadPool::default());
        let mut listener = Some(listener);
        let mut threads = Vec::new();
        for (number, control) in controls.iter().enumerate() {
            let listener = listener.take();
            let loop_config = LoopConfig {
                on_accept: listener
                    .as_ref()
                    .map(|_| distribute(mailboxes.clone(), thread_count)),
                listener,
                tls_listener: tls_listener.take(),
                tls: tls_port.clone(),
                connections_max: config.proto_fd_max.div_ceil(thread_count),
                idle_timeout: (config.proto_fd_idle_ms > 0)
                    .then(|| Duration::from_millis(config.proto_fd_idle_ms)),
                read_pool: read_pool.clone(),
                kind: loop_kind,
                ..LoopConfig::default()
            };
            let mut handler = Contained(ServiceThread::new(number as u32, shared.clone()));
            let control = control.clone();
            let thread = std::thread::Builder::new()
                .name(format!("service-{number}"))
                .spawn(move || {
                    let run = AssertUnwindSafe(|| net::run(loop_config, &control, &mut handler));
                    match std::panic::catch_unwind(run) {
                        Ok(Ok(())) => {}
                        // Its share of the connections, and every reply on its way to it, would hang for ever: a node
                        // that is gone is better served by its peers, and by whoever restarts it.
                        Ok(Err(error)) => die(number, &error),
                        Err(_) => die(number, &"it panicked"),
                    }
                })
                .map_err(ServerError::Thread)?;
            threads.push(thread);
        }
        let refresh_period = config.tls.as_ref().map_or(0, |tls| tls.refresh_period);
        let refreshed = tls_port
            .filter(|_| refresh_period > 0)
            .map(|port| (port, Duration::from_secs(refresh_period)));
        Ok(Server {
            udf,
            stats,
            queries,
            local_address,
            tls_address,
            loop_kind,
            info,
            shared,
            mailboxes,
            read_pool,
            refreshed,
            controls,
            threads: Mutex::new(threads),
            housekeeping: Mutex::new(None),
            drained: Mutex::new(false),
        })
    }

    /// Serves the records of an engine that is open. Once; not after a drain.
    pub fn serve(&self, engine: Arc<Engine>) -> Result<(), ServerError> {
        let drained = self.drained.lock();
        assert!(!*drained, "a server serves before it is drained");
        for namespace in &engine.namespaces {
            namespace.start(self.mailboxes.clone());
        }
        for datacenter in &engine.datacenters {
            datacenter.start();
        }
        let housekeeping = Housekeeping::start(engine.clone(), self.refreshed.clone())
            .map_err(ServerError::Thread)?;
        *self.housekeeping.lock() = Some(housekeeping);
        let served = self.shared.engine.set(engine);
        assert!(served.is_ok(), "a server serves one engine");
        Ok(())
    }

    /// False before `serve` and from the beginning of a drain on: what takes long and only reads is to end then.
    pub fn is_serving(&self) -> bool {
        self.housekeeping.lock().is_some()
    }

    /// The engine that is served, if there is one yet.
    pub fn engine(&self) -> Option<&Arc<Engine>> {
        self.shared.engine.get()
    }

    /// How long requests took that belong to no namespace, by the names of their histograms.
    pub fn latencies(&self) -> [(&'static str, LatencyCounts); 2] {
        [
            ("batch-index", self.stats.batch_index_latency.counts()),
            ("info", self.info.latency.counts()),
        ]
    }

    /// Answers an info request. Answers to requests that are gone are dropped.
    pub fn answer_info(&self, id: u64, reply: String) {
        self.stats.info_complete.fetch_add(1, Ordering::Relaxed);
        if let Some(thread) = self.info.answer(id, reply)
            && let Some(control) = self.controls.get(thread as usize)
        {
            control.waker().wake();
        }
    }

    /// Stops accepting, finishes the requests under way and makes everything durable. Blocks.
    pub fn drain(&self) -> Result<(), DeviceError> {
        let mut drained = self.drained.lock();
        if std::mem::replace(&mut *drained, true) {
            return Ok(());
        }
        if let Some(housekeeping) = self.housekeeping.lock().take() {
            housekeeping.stop();
        }
        let engine = self.engine();
        for namespace in engine.iter().flat_map(|engine| &engine.namespaces) {
            namespace.stop_index_builds();
        }
        for datacenter in engine.iter().flat_map(|engine| &engine.datacenters) {
            datacenter.stop();
        }
        self.queries.stop();
        for control in &self.controls {
            control.stop(DRAIN_GRACE);
        }
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        self.udf.close();
        self.read_pool.close();
        // Every store is drained, whichever of them fails.
        let drains = engine
            .iter()
            .flat_map(|engine| &engine.namespaces)
            .map(|namespace| namespace.store.drain());
        let results: Vec<_> = drains.collect();
        results.into_iter().collect()
    }

    /// Lets go of everything. Blocks; a second call does nothing.
    pub fn close(&self) -> Result<(), DeviceError> {
        let drained = self.drain();
        for namespace in self.engine().iter().flat_map(|engine| &engine.namespaces) {
            namespace.store.close();
        }
        drained
    }
}

/// Ends the process: a service thread is gone.
fn die(thread: usize, reason: &dyn std::fmt::Display) -> ! {
    tracing::error!(thread, %reason, "a service thread has ended");
    eprintln!("perigee: service thread {thread} has ended: {reason}");
    std::process::abort();
}

/// Gives accepted sockets to the threads in turn; thread 0, which accepts, keeps its share.
fn distribute(mailboxes: Arc<Mailboxes>, threads: usize) -> net::AcceptHook {
    let next = AtomicUsize::new(0);
    Box::new(move |socket: PeerSocket| {
        let thread = next.fetch_add(1, Ordering::Relaxed) % threads;
        if thread == 0 {
            return Some(socket);
        }
        mailboxes.post(thread as u32, Mail::Adopt(socket));
        None
    })
}

/// A listener, and where it came to be if the port is 0.
fn listen(address: &str, port: u16) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen {
        address: format!("{address}:{port}"),
        source,
    };
    let address = (address, port)
        .to_socket_addrs()
        .map_err(failed)?
        .next()
        .ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).map_err(failed)?;
    socket.set_reuse_address(true).map_err(failed)?;
    socket.bind(&address.into()).map_err(failed)?;
    socket.listen(LISTEN_BACKLOG).map_err(failed)?;
    let listener = TcpListener::from(socket);
    let local_address = listener.local_addr().map_err(failed)?;
    Ok((listener, local_address))
}
