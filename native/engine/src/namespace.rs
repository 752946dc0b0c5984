//! A namespace: 4096 partitions over one store, and what belongs to all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use perigee_wire::{Digest, PARTITIONS, PartitionId, partition_of};
use thiserror::Error;

use crate::clock::HybridClock;
use crate::config::NamespaceConfig;
use crate::device_copy::DeviceCopy;
use crate::eviction::EvictionStats;
use crate::expiry::{ExpiryStats, is_expired};
use crate::index::{Entry, Location, flag};
use crate::limits::Limits;
use crate::partition::{Partition, Waiter};
use crate::progress::{OpenPhase, OpenProgress};
use crate::rebuild::StartReport;
use crate::record::compression::with_plain;
use crate::record::image::{ImageView, image_flag};
use crate::secondary_index::IndexRegistry;
use crate::sets::SetRegistry;
use crate::stats::NamespaceStats;
use crate::storage::{CommitSink, OpenError, ReadNow, Relocate, ScanError, ScanReport, Store};

use crate::tomb_raider::TombRaider;
use crate::truncate::{TruncateError, Truncation};
use crate::xdr::NamespaceShipping;

#[derive(Debug, Error)]
pub enum NamespaceError {
    #[error("namespace {namespace}: {source}")]
    Open {
        namespace: String,
        source: OpenError,
    },
    #[error("namespace {namespace}: {source}")]
    Scan {
        namespace: String,
        source: ScanError,
    },
    #[error("namespace {namespace}: {source}")]
    Truncation {
        namespace: String,
        source: TruncateError,
    },
}

pub struct Namespace {
    pub name: String,
    pub config: NamespaceConfig,
    pub store: Arc<Store>,
    pub sets: SetRegistry,
    pub stats: NamespaceStats,
    pub expiry: ExpiryStats,
    pub eviction: EvictionStats,
    pub limits: Limits,
    pub truncation: Truncation,
    pub tomb_raider: TombRaider,
    pub clock: Arc<HybridClock>,
    /// Requests that may wait for one busy record.
    pub pending_limit: usize,
    pub objects: AtomicI64,
    pub tombstones: AtomicI64,
    /// How the index came about.
    pub start_report: StartReport,
    pub(crate) indexes: IndexRegistry,
    pub(crate) shipping: Vec<Arc<NamespaceShipping>>,
    partitions: Box<[Partition]>,
    /// One bit a partition: this node is its master.
    owned: Box<[AtomicU64]>,
    owned_epoch: AtomicU64,
}

impl Namespace {
    /// Opens the store and rebuilds the index from it. Blocks; nothing is served before it returns. `progress` says how
    /// far it is, and may end it early.
    pub fn open(
        config: NamespaceConfig,
        clock: Arc<HybridClock>,
        shipping: Vec<Arc<NamespaceShipping>>,
        pending_limit: usize,
        progress: &OpenProgress,
    ) -> Result<(Arc<Namespace>, ScanReport), NamespaceError> {
        let store =
            config
                .store()
                .and_then(Store::open)
                .map_err(|source| NamespaceError::Open {
                    namespace: config.name.clone(),
                    source,
                })?;
        Self::open_on(store, config, clock, shipping, pending_limit, progress)
    }

    /// As `open`, on a store that is open already.
    pub(crate) fn open_on(
        store: Store,
        config: NamespaceConfig,
        clock: Arc<HybridClock>,
        shipping: Vec<Arc<NamespaceShipping>>,
        pending_limit: usize,
        progress: &OpenProgress,
    ) -> Result<(Arc<Namespace>, ScanReport), NamespaceError> {
        let mut namespace = Namespace {
            partitions: PartitionId::all()
                .map(|id| Partition::new(id, shipping.len()))
                .collect(),
            owned: (0..PARTITIONS / 64).map(|_| AtomicU64::new(0)).collect(),
            owned_epoch: AtomicU64::new(0),
            sets: SetRegistry::new(&config.sets),
            stats: NamespaceStats::new(),
            expiry: ExpiryStats::default(),
            eviction: EvictionStats::default(),
            limits: Limits::default(),
            truncation: Truncation::default(),
            tomb_raider: TombRaider::default(),
            indexes: IndexRegistry::default(),
            objects: AtomicI64::new(0),
            tombstones: AtomicI64::new(0),
            store: Arc::new(store),
            clock,
            shipping,
            pending_limit,
            start_report: StartReport::default(),
            name: config.name.clone(),
            config,
        };
        for truncation in &namespace.config.truncations {
            let set = truncation.set.as_deref().map(str::as_bytes);
            namespace
                .set_truncation(set, truncation.lut)
                .map_err(|source| NamespaceError::Truncation {
                    namespace: namespace.name.clone(),
                    source,
                })?;
        }
        let began = Instant::now();
        let (report, kind) = progress
            .logged(&namespace.name, || namespace.load(progress))
            .map_err(|source| NamespaceError::Scan {
                namespace: namespace.name.clone(),
                source,
            })?;
        progress.begin(OpenPhase::Ready);
        namespace.start_report = StartReport {
            kind,
            ms: began.elapsed().as_millis() as u64,
        };
        Ok((Arc::new(namespace), report))
    }

    /// Puts the values of a changed configuration into force that may change at run time; the others have no effect.
    pub fn reconfigure(&self, changed: &NamespaceConfig) {
        self.config.retune(changed);
        self.sets.configure(&changed.sets);
        let pace = changed.storage_engine.common().defrag_pace();
        self.store.set_defrag_pace(pace);
    }

    /// Starts flushing and defragmentation. `sink` is told of writes that became durable.
    pub fn start(self: &Arc<Self>, sink: Arc<dyn CommitSink>) {
        let relocator: Arc<dyn Relocate> = Arc::new(Relocator {
            namespace: Arc::downgrade(self),
        });
        self.store.start(relocator, sink);
    }

    pub fn partition(&self, digest: &Digest) -> &Partition {
        &self.partitions[partition_of(digest).index()]
    }

    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Makes this node master of the partitions whose bits are set (bit for partition p: byte p/8, mask 0x80 >> p%8, as
    /// in the `replicas` info command). A decision older than the one in force is dropped.
    pub fn set_ownership(&self, epoch: u64, masters: &[u8; PARTITIONS / 8]) {
        if self.owned_epoch.fetch_max(epoch, Ordering::AcqRel) > epoch {
            return;
        }
        for (word, bytes) in self.owned.iter().zip(masters.chunks_exact(8)) {
            let bits = bytes
                .iter()
                .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            word.store(bits.reverse_bits(), Ordering::Release);
        }
    }

    pub fn owns(&self, digest: &Digest) -> bool {
        self.owns_partition(partition_of(digest))
    }

    pub fn owns_partition(&self, partition: PartitionId) -> bool {
        let partition = partition.index();
        self.owned[partition / 64].load(Ordering::Acquire) >> (partition % 64) & 1 == 1
    }

    /// A record that a client can see.
    pub(crate) fn is_live(&self, entry: &Entry, now: u32) -> bool {
        !entry.is_tombstone() && !is_expired(entry, now) && !self.is_truncated(entry)
    }

    /// Whether deletes leave a tombstone without being asked to: a datacenter has to hear of them.
    pub fn ships(&self) -> bool {
        !self.shipping.is_empty()
    }

    /// Gives `f` the image of an entry, in its plain form: from memory, or from a copy that was read from the device before.
    /// The caller holds the partition's lock. `Err` names what has to be read first; damage is told there.
    pub(crate) fn with_image<R>(
        &self,
        entry: &Entry,
        copy: Option<&DeviceCopy<'_>>,
        f: impl FnOnce(&ImageView<'_>) -> R,
    ) -> Result<R, Location> {
        if let Some(image) = copy.and_then(|copy| copy.image_of(entry)) {
            return Ok(f(&image));
        }
        let read = |bytes: &[u8]| with_plain(&ImageView::trusted(bytes), f);
        match self.store.read(entry.location, read) {
            ReadNow::InMemory(Ok(result)) => Ok(result),
            ReadNow::InMemory(Err(_)) | ReadNow::NeedsDevice => Err(entry.location),
        }
    }

    /// A request that waited for a record has given up.
    pub fn forget_waiter(&self, digest: &Digest, waiter: Waiter) {
        self.partition(digest)
            .lock()
            .updates
            .busy
            .forget(digest, waiter);
    }

    /// Keeps object, tombstone and set counts when an index entry takes another's place.
    pub(crate) fn count_swap(&self, old: Option<&Entry>, new: Option<&Entry>) {
        for (entry, sign) in old
            .iter()
            .map(|e| (*e, -1))
            .chain(new.iter().map(|e| (*e, 1)))
        {
            let tombstone = entry.flags & flag::TOMBSTONE != 0;
            let (objects, tombstones) = if tombstone { (0, sign) } else { (sign, 0) };
            if tombstone {
                self.tombstones.fetch_add(sign, Ordering::Relaxed);
            } else {
                self.objects.fetch_add(sign, Ordering::Relaxed);
            }
            self.sets.add(
                entry.set_id,
                objects,
                tombstones,
                sign * entry.location.bytes() as i64,
            );
        }
    }

    /// Bytes of memory that the index takes.
    pub fn index_bytes(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.lock().table.memory_bytes() as u64)
            .sum()
    }
}

/// The index entry of a version, whose image lies at `location`.
pub(crate) fn entry_of(image: &ImageView<'_>, set_id: u16, location: Location) -> Entry {
    Entry {
        digest: *image.digest(),
        set_id,
        generation: image.generation(),
        last_update_time: image.last_update_time(),
        void_time: image.void_time(),
        location,
        flags: entry_flags(image),
    }
}

fn entry_flags(image: &ImageView<'_>) -> u8 {
    let pairs = [
        (image_flag::TOMBSTONE, flag::TOMBSTONE),
        (image_flag::HAS_KEY, flag::KEY_STORED),
        (image_flag::XDR_WRITE, flag::XDR_WRITE),
        (image_flag::DURABLE, flag::DURABLE),
        (image_flag::COVERS, flag::COVERS),
    ];
    pairs
        .iter()
        .filter(|(bit, _)| image.flags() & bit != 0)
        .fold(flag::ties(image.version().ties), |flags, (_, bit)| {
            flags | bit
        })
}

struct Relocator {
    namespace: std::sync::Weak<Namespace>,
}

impl Relocate for Relocator {
    fn relocate(&self, digest: &Digest, from: Location, image: &mut Vec<u8>) -> bool {
        let Some(namespace) = self.namespace.upgrade() else {
            return false;
        };
        let mut state = namespace.partition(digest).lock();
        let Some(mut entry) = state.table.get(digest).filter(|e| e.location == from) else {
            return false;
        };
        match namespace.store.append_relocated(image) {
            Ok(appended) => {
                entry.location = appended.location;
                state.table.upsert(entry);
                // The walk over the devices may have passed the new place already, and never see the old one.
                if state.updates.indexes.is_building() {
                    namespace.build_stored(&mut state, &entry, &ImageView::trusted(image));
                }
                true
            }
            Err(_) => false,
        }
    }
}
