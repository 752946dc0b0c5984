//! The namespace's part in a start: which versions the index keeps, and the counts that follow from the index.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use perigee_wire::{PARTITIONS, PartitionId, partition_of};

use crate::index::{Entry, Location, PartitionTable};
use crate::namespace::{Namespace, entry_of};
use crate::progress::OpenProgress;
use crate::record::image::ImageView;
use crate::shared::{Attached, SharedStore, remove_of};
use crate::storage::{Doubt, Rebuild, Resume, ScanError, ScanReport};

/// Tables that are in memory twice while an index moves to where it is kept.
const PARTITIONS_BETWEEN_TRIMS: usize = 64;

/// How an index came about.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum StartKind {
    /// From the images on the devices.
    #[default]
    Cold,
    /// From shared memory.
    Warm,
}

impl StartKind {
    /// As info commands show it.
    pub const fn name(self) -> &'static str {
        match self {
            StartKind::Cold => "cold",
            StartKind::Warm => "warm",
        }
    }
}

/// The last start of a namespace, and how long it took.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct StartReport {
    pub kind: StartKind,
    pub ms: u64,
}

impl Namespace {
    /// Shared memory that the namespace takes: the index, and write blocks.
    pub fn shared_memory_bytes(&self) -> u64 {
        self.store
            .shared()
            .map_or(0, |(shared, _)| shared.memory_bytes())
    }

    /// Takes the index over from shared memory if there is one that can be believed, or rebuilds it.
    pub(crate) fn load(
        &self,
        progress: &OpenProgress,
    ) -> Result<(ScanReport, StartKind), ScanError> {
        let Some((shared, attached)) = self.store.shared() else {
            if let Some(directory) = &self.config.shmem_directory {
                remove_of(directory, &self.name, &self.config.device_paths());
            }
            for (partition, table) in self.partitions().iter().zip(PartitionTable::all()) {
                partition.lock().table = table;
            }
            let report = self.store.scan(self, progress)?;
            self.settle_tables();
            return Ok((report, StartKind::Cold));
        };
        let doubt = match attached {
            Attached::Found { is_clean } => {
                tracing::info!(namespace = %self.name, is_clean, "an index is found in shared memory");
                match self.take_over(shared, progress)? {
                    Ok(report) => return Ok((report, StartKind::Warm)),
                    Err(doubt) => {
                        shared.reset();
                        doubt
                    }
                }
            }
            Attached::New(reason) => reason,
        };
        tracing::info!(
            namespace = %self.name,
            path = %shared.path().display(),
            reason = doubt,
            "no index is taken over from shared memory: it is rebuilt from the devices"
        );
        for (partition, id) in self.partitions().iter().zip(PartitionId::all()) {
            let table = PartitionTable::shared(id, shared.arena(), shared.descriptor(id));
            partition.keep_in(shared, table);
        }
        self.sets.keep_in(shared.set_names());
        let report = self.store.scan(self, progress)?;
        if !self.settle_tables() {
            shared.distrust();
        }
        self.store.go_live(shared);
        Ok((report, StartKind::Cold))
    }

    /// Moves the tables that were built on the heap to where they are kept. False if there was no room for one.
    fn settle_tables(&self) -> bool {
        let mut are_whole = true;
        for (moved, partition) in self.partitions().iter().enumerate() {
            let table = &mut partition.lock().table;
            table.settle();
            are_whole &= table.is_whole();
            if moved % PARTITIONS_BETWEEN_TRIMS == 0 {
                trim_heap();
            }
        }
        trim_heap();
        are_whole
    }

    fn take_over(
        &self,
        shared: &Arc<SharedStore>,
        progress: &OpenProgress,
    ) -> Result<Result<ScanReport, Doubt>, ScanError> {
        let Some(found) = FoundIndex::attach(shared) else {
            return Ok(Err("a table is not as it should be"));
        };
        let report = match self.store.attach(shared, &found, progress)? {
            Ok(report) => report,
            Err(doubt) => return Ok(Err(doubt)),
        };
        for (at, name) in found.set_names.iter().enumerate() {
            let id = self.sets.id_of(name);
            assert_eq!(
                id,
                Some(at as u16 + 1),
                "no set is made before, and each name is there once"
            );
        }
        self.sets.keep_in(shared.set_names());
        let mut latest = 0;
        for counts in found.counts.into_inner() {
            counts.add_to(self);
            latest = latest.max(counts.latest);
        }
        for (partition, table) in self.partitions().iter().zip(found.tables) {
            partition.keep_in(shared, table.into_inner());
            latest = latest.max(partition.lock().updates.times.latest());
        }
        self.clock.observe(latest);
        self.store.go_live(shared);
        Ok(Ok(report))
    }
}

/// The index that lies in shared memory, while it is looked at.
struct FoundIndex {
    tables: Vec<Mutex<PartitionTable>>,
    set_names: Vec<Vec<u8>>,
    counts: Mutex<Vec<Counts>>,
}

impl FoundIndex {
    /// Completes what was being changed, and checks every table. `None` if one is not right.
    fn attach(shared: &Arc<SharedStore>) -> Option<FoundIndex> {
        let ids: Vec<PartitionId> = PartitionId::all().collect();
        let array = |id: &PartitionId| {
            // SAFETY: in a mapping that `shared` holds; all its fields are atomics.
            PartitionTable::array_bytes(unsafe { shared.descriptor(*id).as_ref() })
        };
        if !shared.arena().adopt(ids.iter().filter_map(array).collect()) {
            return None;
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let attach = |id: &PartitionId| {
            PartitionTable::attach(*id, shared.arena(), shared.descriptor(*id)).map(Mutex::new)
        };
        let share = |ids: &[PartitionId]| ids.iter().map(attach).collect::<Option<Vec<_>>>();
        let share = &share;
        let tables = std::thread::scope(|scope| {
            let running: Vec<_> = ids
                .chunks(PARTITIONS.div_ceil(threads))
                .map(|ids| scope.spawn(move || share(ids)))
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            running
                .into_iter()
                .map(join)
                .collect::<Option<Vec<Vec<_>>>>()
        });
        let set_names = shared.set_names().all();
        let mut different = set_names.clone();
        different.sort_unstable();
        different.dedup();
        if different.len() < set_names.len() {
            return None;
        }
        let found = FoundIndex {
            tables: tables?.into_iter().flatten().collect(),
            set_names,
            counts: Mutex::default(),
        };
        // A set is named before its first record is.
        let is_named = |intent: &Entry| usize::from(intent.set_id) <= found.set_names.len();
        found.intents().iter().all(is_named).then_some(found)
    }
}

impl Resume for FoundIndex {
    fn tell_live(&self, share: usize, shares: usize, live: &mut dyn FnMut(Location)) -> bool {
        let mut counts = Counts::default();
        for table in self.tables.iter().skip(share).step_by(shares) {
            for entry in table.lock().iter() {
                counts.add(&entry, 1);
                live(entry.location);
            }
        }
        let is_named = counts.sets.len() <= self.set_names.len() + 1;
        self.counts.lock().push(counts);
        is_named
    }

    fn intents(&self) -> Vec<Entry> {
        self.tables
            .iter()
            .filter_map(|table| table.lock().intent())
            .collect()
    }

    fn settle(&self, intent: &Entry, found: Option<Location>) -> Option<Location> {
        let mut table = self.tables[partition_of(&intent.digest).index()].lock();
        let Some(location) = found else {
            table.forget_intent();
            return None;
        };
        let entry = Entry {
            location,
            ..*intent
        };
        let replaced = table.upsert(entry);
        let counts = &mut self.counts.lock()[0];
        counts.add(&entry, 1);
        if let Some(replaced) = &replaced {
            counts.add(replaced, -1);
        }
        replaced.map(|replaced| replaced.location)
    }
}

impl Rebuild for Namespace {
    /// The newest version of each digest stays. An expired or deleted newest version is kept too, since an older one may
    /// lie on the device still.
    fn adopt(&self, images: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {
        let mut entries = Vec::new();
        let mut set = (&b""[..], Some(0));
        for (image, location) in images {
            // Most neighbours are of one set.
            if image.set_name() != set.0 {
                set = (image.set_name(), self.sets.id_of(image.set_name()));
            }
            let Some(set_id) = set.1 else {
                let set = String::from_utf8_lossy(image.set_name());
                tracing::error!(namespace = %self.name, %set, "a record is left out: there are too many sets");
                continue;
            };
            let entry = entry_of(&image, set_id, location);
            // Older versions of it are truncated too.
            if !self.is_truncated(&entry) {
                entries.push(entry);
            }
        }
        if let Some(latest) = entries.iter().map(|entry| entry.last_update_time).max() {
            self.clock.observe(latest);
        }
        for_each_partition(&entries, |partition, found| {
            let table = &mut self.partitions()[partition].lock().table;
            // A lookup waits for memory, and those of one batch can wait together.
            found
                .iter()
                .for_each(|i| table.prefetch(&entries[*i as usize].digest));
            for entry in found.iter().map(|i| entries[*i as usize]) {
                table.upsert_if(entry, |old| match old.version().cmp(&entry.version()) {
                    Less => true,
                    Equal => self.store.is_original(entry.location, old.location),
                    Greater => false,
                });
            }
        });
    }

    fn tell_live(&self, share: usize, shares: usize, live: &mut dyn FnMut(Location)) {
        let mut counts = Counts::default();
        for partition in self.partitions().iter().skip(share).step_by(shares) {
            for entry in partition.lock().table.iter() {
                counts.add(&entry, 1);
                live(entry.location);
            }
        }
        counts.add_to(self);
    }
}

/// Returns memory of the heap that is free to the system: of tables that were moved, which nothing as large will use again.
fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no memory of ours, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Calls `f` with each partition that has entries, and their indices.
fn for_each_partition(entries: &[Entry], mut f: impl FnMut(usize, &[u32])) {
    let mut ends = vec![0_u32; PARTITIONS + 1];
    for entry in entries {
        ends[partition_of(&entry.digest).index() + 1] += 1;
    }
    for partition in 0..PARTITIONS {
        ends[partition + 1] += ends[partition];
    }
    let starts = ends.clone();
    let mut order = vec![0_u32; entries.len()];
    for (i, entry) in entries.iter().enumerate() {
        let place = &mut ends[partition_of(&entry.digest).index()];
        order[*place as usize] = i as u32;
        *place += 1;
    }
    for partition in 0..PARTITIONS {
        let found = &order[starts[partition] as usize..starts[partition + 1] as usize];
        if !found.is_empty() {
            f(partition, found);
        }
    }
}

/// Records counted by one thread.
#[derive(Default)]
struct Counts {
    /// By set id.
    sets: Vec<SetCounts>,
    /// The latest last-update time.
    latest: u64,
}

#[derive(Clone, Copy, Default)]
struct SetCounts {
    objects: i64,
    tombstones: i64,
    bytes: i64,
}

impl Counts {
    /// Counts an entry in, or out again with a sign of -1.
    fn add(&mut self, entry: &Entry, sign: i64) {
        let at = usize::from(entry.set_id);
        if at >= self.sets.len() {
            self.sets.resize(at + 1, SetCounts::default());
        }
        let counts = &mut self.sets[at];
        if entry.is_tombstone() {
            counts.tombstones += sign;
        } else {
            counts.objects += sign;
        }
        counts.bytes += sign * entry.location.bytes() as i64;
        self.latest = self.latest.max(entry.last_update_time);
    }

    fn add_to(&self, namespace: &Namespace) {
        for (set_id, counts) in self.sets.iter().enumerate() {
            let SetCounts {
                objects,
                tombstones,
                bytes,
            } = *counts;
            namespace.objects.fetch_add(objects, Ordering::Relaxed);
            namespace
                .tombstones
                .fetch_add(tombstones, Ordering::Relaxed);
            let set_id = set_id as u16;
            namespace.sets.add(set_id, objects, tombstones, bytes);
        }
    }
}
