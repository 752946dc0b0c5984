//! Log-structured storage: records are appended to write blocks, an update writes a new version and
//! marks the old one dead, defragmentation frees blocks by copying what is still live.

mod append;
mod attach;
mod config;
mod defrag;
mod device;
mod encryption;
mod error;
mod flush;
mod header;
pub mod medium;
mod open;
mod ranks;
mod read;
mod scan;
mod space;
mod stats;
#[cfg(test)]
mod tests;
mod walk;
mod write_block;

pub(crate) use attach::{Doubt, Resume};
pub use config::{DefragPace, MediumConfig, StoreConfig};
pub use encryption::{Algorithm, Encryption};
pub use error::{AppendError, DeviceError, OpenError, ReadError, ScanError};
pub use medium::{AlignedBuf, Medium};
pub(crate) use open::random;
pub use read::RecordRead;
pub use stats::{DeviceStats, StoreStats};

use crate::index::Location;
use crate::record::image::{BLOCK_HEADER_BYTES, ImageView};
use crate::shared::{Attached, SharedStore};
use defrag::{DefragSignal, run_defrag};
use device::{Device, Stream};
use header::DeviceHeader;

use parking_lot::Mutex;
use perigee_wire::Digest;
use stats::Counters;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

/// The namespace's part in defragmentation.
pub trait Relocate: Send + Sync {
    /// Moves one record out of a block: under the record's partition lock, if the index entry
    /// still points at `from`, appends `image` with [`Store::append_relocated`] and swaps the
    /// entry. True if it did; the store then accounts for `from` itself. Never called with a lock
    /// of the store held.
    fn relocate(&self, digest: &Digest, from: Location, image: &mut Vec<u8>) -> bool;
}

/// Told when a write is durable, or will never be, with no lock of the store held: on a thread of the
/// store, or, when that has ended, on the thread that asks, within [`Store::await_commit`].
pub trait CommitSink: Send + Sync {
    fn committed(&self, waiter: CommitWaiter, outcome: Result<(), DeviceError>);

    /// As `committed`, for all who waited for one group, so that whoever is woken is woken once.
    fn group_committed(&self, waiters: &[CommitWaiter], outcome: Result<(), DeviceError>) {
        for waiter in waiters {
            self.committed(*waiter, outcome.clone());
        }
    }
}

/// Who waits for a commit: a request of a service thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommitWaiter {
    pub thread: u32,
    pub request: u64,
}

/// A place in a device's log that is durable or not yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitTicket {
    device: u8,
    position: u64,
}

/// Where a record was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    pub location: Location,
    pub ticket: CommitTicket,
}

/// A read that needed no device, or one that does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadNow<R> {
    InMemory(R),
    NeedsDevice,
}

/// The namespace's part in rebuilding an index from its devices.
pub trait Rebuild: Sync {
    /// Keeps the newest version of each record. The images are those of one block; blocks come in any
    /// order, several at a time. Of two images of one version the original is to be kept: see
    /// [`Store::is_original`].
    fn adopt(&self, images: &mut dyn Iterator<Item = (ImageView<'_>, Location)>);

    /// Tells `live` where every record lies that was kept, of one of `shares` parts that make up the
    /// whole. After the last `adopt`, from as many threads.
    fn tell_live(&self, share: usize, shares: usize, live: &mut dyn FnMut(Location));
}

/// What a scan found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ScanReport {
    /// Images that verified, all versions counted.
    pub images: u64,
    /// Blocks with at least one image, and blocks without.
    pub used_blocks: u64,
    pub free_blocks: u64,
    /// Places where bytes that had been written no longer verify.
    pub damaged: u64,
    /// Pages that the device did not read.
    pub read_errors: u64,
}

/// The store of one namespace: `open`, `scan`, `start`, then reads and writes, `drain`, `close`.
///
/// Records are bound to devices by their digests, so all versions of one lie on one device.
pub struct Store {
    config: Arc<StoreConfig>,
    devices: Vec<Arc<Device>>,
    headers: Vec<DeviceHeader>,
    /// Devices that were initialised just now and need no scan.
    fresh: Vec<bool>,
    counters: Arc<Counters>,
    signal: Arc<DefragSignal>,
    scanned: AtomicBool,
    threads: Mutex<Threads>,
    /// For commits that are awaited after the threads have ended. Whoever is to be told may own the
    /// store.
    sink: OnceLock<Weak<dyn CommitSink>>,
    /// Where the index and unwritten blocks outlive the process, and whether there was something before.
    shared: Option<(Arc<SharedStore>, Attached)>,
}

#[derive(Default)]
struct Threads {
    flush: Vec<JoinHandle<()>>,
    defrag: Option<JoinHandle<()>>,
    closed: bool,
}

impl Store {
    /// Starts flushing and defragmentation. After the scan; only once.
    pub fn start(self: &Arc<Self>, relocator: Arc<dyn Relocate>, sink: Arc<dyn CommitSink>) {
        assert!(
            self.scanned.load(Ordering::Acquire),
            "a store is scanned before it is started"
        );
        let mut threads = self.threads.lock();
        assert!(
            threads.defrag.is_none() && !threads.closed,
            "a store is started once, before closing"
        );
        let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name)
                .spawn(body)
                .expect("a thread can be started")
        };
        let _ = self.sink.set(Arc::downgrade(&sink));
        // Memory is never flushed.
        for device in self.devices.iter().filter(|device| !device.is_volatile) {
            let (device, sink) = (Arc::clone(device), Arc::clone(&sink));
            let name = format!("flush-{}", device.index);
            threads
                .flush
                .push(spawn(name, Box::new(move || device.run_flush(&*sink))));
        }
        let (devices, signal) = (self.devices.clone(), Arc::clone(&self.signal));
        threads.defrag = Some(spawn(
            "defrag".into(),
            Box::new(move || run_defrag(&devices, &signal, &*relocator)),
        ));
    }

    /// Seals `image` and copies it into the current write block.
    pub fn append(&self, image: &mut [u8]) -> Result<Appended, AppendError> {
        self.device_of(image).append(Stream::Client, image)
    }

    /// As `append`, for copies made by defragmentation, which may use the reserved blocks.
    pub fn append_relocated(&self, image: &mut [u8]) -> Result<Appended, AppendError> {
        let device = self.device_of(image);
        let appended = device.append(Stream::Defrag, image);
        if appended.is_err() {
            device.copy_refused.store(true, Ordering::Relaxed);
        }
        appended
    }

    /// Says that the image at `location` is no longer live. After whatever replaces it was appended
    /// and the index entry swapped.
    pub fn release(&self, location: Location) {
        self.device(location.device()).release(location);
    }

    /// True if the ticket's write is durable, or need not be. Otherwise the sink will be told, or has
    /// been: a closed store tells of the failure at once.
    pub fn await_commit(&self, ticket: CommitTicket, waiter: CommitWaiter) -> bool {
        let device = self.device(ticket.device);
        device
            .await_commit(ticket.position, waiter)
            .unwrap_or_else(|failure| {
                if let Some(sink) = self.sink.get().and_then(Weak::upgrade) {
                    sink.committed(waiter, Err(failure));
                }
                false
            })
    }

    /// Changes which blocks are compacted, and how fast.
    pub fn set_defrag_pace(&self, pace: DefragPace) {
        self.config.defrag_sleep.set(pace.sleep);
        self.config.defrag_queue_min.set(pace.queue_min);
        for device in &self.devices {
            device.set_lwm_pct(pace.lwm_pct);
        }
        // Blocks that waited for others to join them may be due now.
        self.signal.raise();
    }

    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats {
            avail_pct: 100,
            ..self.counters.snapshot()
        };
        for device in &self.devices {
            device.add_stats(&mut stats);
        }
        stats
    }

    /// Whether nothing in the store outlives the process, so that no older version ever comes back.
    pub fn is_volatile(&self) -> bool {
        self.devices.iter().all(|device| device.is_volatile)
    }

    /// Each device by itself, in the order of the configuration.
    pub fn device_stats(&self) -> Vec<DeviceStats> {
        let (kind, paths): (_, &[PathBuf]) = match &self.config.medium {
            MediumConfig::Memory { .. } => ("stripe", &[]),
            MediumConfig::File { paths, .. } => ("file", paths),
            MediumConfig::Device { paths } => ("device", paths),
        };
        let stats = |(i, device): (usize, &Arc<Device>)| device.stats(kind, paths.get(i).cloned());
        self.devices.iter().enumerate().map(stats).collect()
    }

    /// The largest image that can be appended.
    pub fn record_bytes_max(&self) -> usize {
        self.config.write_block_bytes as usize - BLOCK_HEADER_BYTES
    }

    /// Makes everything appended so far durable. Blocks. The first failure of a device is returned
    /// after the others are drained.
    pub fn drain(&self) -> Result<(), DeviceError> {
        let threads = !self.threads.lock().flush.is_empty();
        let drained: Vec<_> = self
            .devices
            .iter()
            .map(|device| device.drain(threads))
            .collect();
        drained.into_iter().collect()
    }

    /// Refuses appends, drains, joins the threads, lets go of the media. Closing twice is harmless.
    pub fn close(&self) {
        let (flush, defrag) = {
            let mut threads = self.threads.lock();
            if std::mem::replace(&mut threads.closed, true) {
                return;
            }
            (std::mem::take(&mut threads.flush), threads.defrag.take())
        };
        self.signal.stop();
        join(defrag);
        for device in &self.devices {
            device.refuse();
        }
        for device in &self.devices {
            if let Err(error) = device.drain(!flush.is_empty()) {
                tracing::error!(namespace = %self.config.namespace, %error, "closed without a flush");
            }
            device.stopping.store(true, Ordering::Release);
            let _state = device.state.lock();
            device.work.notify_all();
        }
        flush.into_iter().for_each(|thread| join(Some(thread)));
        let is_written = |device: &Arc<Device>| device.state.lock().failure.is_none();
        if let Some((shared, _)) = &self.shared
            && self.devices.iter().all(is_written)
        {
            shared.go_clean();
        }
        for device in &self.devices {
            device.medium.close();
        }
    }

    pub(crate) fn shared(&self) -> Option<&(Arc<SharedStore>, Attached)> {
        self.shared.as_ref()
    }

    fn device(&self, device: u8) -> &Device {
        &self.devices[device as usize]
    }

    fn device_of(&self, image: &[u8]) -> &Device {
        if self.devices.len() == 1 {
            return &self.devices[0];
        }
        let digest = ImageView::trusted(image);
        let [.., a, b, c, d] = *digest.digest();
        &self.devices[u32::from_le_bytes([a, b, c, d]) as usize % self.devices.len()]
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Joins, unless the thread is the current one, which then ends by itself: the last reference to a
/// store may be dropped by a callback.
fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.thread().id() != std::thread::current().id()
        && thread.join().is_err()
    {
        tracing::error!("a thread of the store panicked");
    }
}
