//! Building indexes of the records that are there: one walk over the devices, block by block, for all indexes that wait
//! for it. A record that is written meanwhile is indexed by its write, one that defragmentation moves by the move.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::SecondaryIndex;
use crate::index::{Entry, Location};
use crate::namespace::Namespace;
use crate::partition::PartitionState;
use crate::record::compression::with_plain;
use crate::record::image::ImageView;

/// Threads of a build at most, unless the configuration says otherwise.
const BUILDER_THREADS: usize = 4;

/// The thread that builds a namespace's indexes, while there are any to be built.
pub struct IndexBuilds {
    builder: Mutex<Builder>,
    stopped: AtomicBool,
    threads_max: AtomicUsize,
}

#[derive(Default)]
struct Builder {
    is_running: bool,
    thread: Option<JoinHandle<()>>,
}

impl Default for IndexBuilds {
    fn default() -> Self {
        IndexBuilds {
            builder: Mutex::default(),
            stopped: AtomicBool::new(false),
            threads_max: AtomicUsize::new(BUILDER_THREADS),
        }
    }
}

impl Namespace {
    /// Threads that the next build takes.
    pub fn set_index_builder_threads(&self, threads: usize) {
        let threads_max = &self.indexes.builds.threads_max;
        threads_max.store(threads.max(1), Ordering::Relaxed);
    }

    /// Ends the building of indexes, for good, and waits for that.
    pub fn stop_index_builds(&self) {
        self.indexes.builds.stopped.store(true, Ordering::Release);
        let thread = self.indexes.builds.builder.lock().thread.take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Has the indexes built that are not, by a thread that ends when all are.
    pub(super) fn build_indexes(self: &Arc<Self>) -> io::Result<()> {
        let mut builder = self.indexes.builds.builder.lock();
        if builder.is_running || self.index_builds_stopped() {
            return Ok(());
        }
        let namespace = self.clone();
        let thread = std::thread::Builder::new()
            .name("sindex-builder".into())
            .spawn(move || namespace.run_index_builds())?;
        *builder = Builder {
            is_running: true,
            thread: Some(thread),
        };
        Ok(())
    }

    fn index_builds_stopped(&self) -> bool {
        self.indexes.builds.stopped.load(Ordering::Acquire)
    }

    fn run_index_builds(&self) {
        loop {
            let mut builder = self.indexes.builds.builder.lock();
            let mut waiting = self.secondary_indexes();
            waiting.retain(|index| !index.is_ready());
            if waiting.is_empty() || self.index_builds_stopped() {
                builder.is_running = false;
                return;
            }
            drop(builder);
            self.build(&waiting);
        }
    }

    fn build(&self, waiting: &[Arc<SecondaryIndex>]) {
        let began = Instant::now();
        let stop = || {
            let is_dropped = |index: &Arc<SecondaryIndex>| index.dropped.load(Ordering::Acquire);
            self.index_builds_stopped() || waiting.iter().all(is_dropped)
        };
        let threads = self.indexes.builds.threads_max.load(Ordering::Relaxed);
        let (blocks, looked_at) = (self.store.blocks().max(1), AtomicU64::new(0));
        let tell = || {
            let done = looked_at.fetch_add(1, Ordering::Relaxed) + 1;
            for index in waiting {
                // All is told when queries may use it.
                let pct = (done * 100 / blocks).min(99);
                index.load_pct.store(pct, Ordering::Relaxed);
            }
            Duration::ZERO
        };
        let walk = |part: usize| {
            let visit = &mut |image: &ImageView<'_>, location| self.build_one(image, location);
            let seen = self.store.walk_part((part, threads), &tell, &stop, visit);
            !seen.contains(&false)
        };
        let walk = &walk;
        let parts: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|part| scope.spawn(move || walk(part)))
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, bool>| {
                thread.join().expect("walking over a store does not panic")
            };
            threads.into_iter().map(join).collect()
        });
        if stop() {
            return;
        }
        for index in waiting {
            let ms = began.elapsed().as_millis() as u64;
            index.load_ms.store(ms, Ordering::Relaxed);
            index.load_pct.store(100, Ordering::Relaxed);
            index.ready.store(true, Ordering::Release);
            tracing::info!(
                namespace = %self.name,
                index = %index.definition.name,
                entries = index.stats().entries,
                elapsed_ms = ms,
                "index built"
            );
        }
        if parts.contains(&false) {
            tracing::error!(namespace = %self.name, "a block did not read while indexes were built: its records are missing in them");
        }
        self.collect_index_garbage(stop);
    }

    fn build_one(&self, image: &ImageView<'_>, location: Location) {
        let mut state = self.partition(image.digest()).lock();
        let entry = state.table.get(image.digest());
        if let Some(entry) = entry.filter(|entry| entry.location == location) {
            self.build_stored(&mut state, &entry, image);
        }
    }

    /// Adds a version to the indexes that are being built, in whatever form it is stored.
    pub(crate) fn build_stored(
        &self,
        state: &mut PartitionState,
        entry: &Entry,
        stored: &ImageView<'_>,
    ) {
        // What does not inflate cannot be read by a query either.
        let _ = with_plain(stored, |view| self.build_version(state, entry, view));
    }
}
