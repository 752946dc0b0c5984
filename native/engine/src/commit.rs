//! The one commit point. Every way of changing a record ends here: storage, index, set counts and change queues move
//! together, under the partition's lock.
//!
//! What a restart finds is the newest version of a record that lies on the device, so a version must not leave the index
//! without a trace while an older one may lie there that would be live. Invariant: if a record's version does not *cover*
//! (flag COVERS), every older version on the device is expired when it is, or was taken out by a plain delete after it
//! was written. A tombstone always covers; a version covers if it took the place of one that does, or of one that lives
//! longer.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use perigee_wire::ResultCode;

use crate::change_queue::{Pushed, ships};
use crate::changing::changing;
use crate::expiry::is_expired;
use crate::index::{Entry, Location, flag};
use crate::namespace::{Namespace, entry_of};
use crate::partition::{PartitionState, lifetime};
use crate::record::compression::{CompressedAhead, CompressionKind, compress};
use crate::record::image::{ImageBuilder, ImageHeader, ImageView, add_flags, image_flag};
use crate::secondary_index::Indexed;
use crate::stats::count;
use crate::storage::{AppendError, CommitTicket};

thread_local! {
    static AHEAD: RefCell<CompressedAhead> = RefCell::default();
    static COMPRESSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Namespace {
    /// Stores a new version (a record or a tombstone) in place of `old`, of which `indexed` is what the secondary indexes
    /// have. The image is complete but for its seal.
    /// On an error nothing has changed.
    pub(crate) fn commit(
        &self,
        state: &mut PartitionState,
        old: Option<&Entry>,
        indexed: Indexed,
        image: &mut [u8],
        set_id: u16,
    ) -> Result<CommitTicket, ResultCode> {
        if image.len() > self.config.max_record_size.get() as usize {
            count(&self.stats.mine().fail_record_too_big);
            return Err(ResultCode::RecordTooBig);
        }
        if self.covers(state, old, &ImageView::trusted(image)) {
            add_flags(image, image_flag::COVERS);
        }
        COMPRESSED.with_borrow_mut(|compressed| {
            let plain_bytes = image.len();
            let is_smaller = self.compress(image, compressed);
            let stored_bytes = match is_smaller {
                true => compressed.len(),
                false => plain_bytes,
            };
            // What the users' expressions come to is known before the first step of the change is taken.
            let view = ImageView::trusted(image);
            let entry = new_entry(&view, set_id, stored_bytes);
            let keys = self.keys_of_version(state, &entry, &view);
            let stored = match is_smaller {
                true => compressed.as_mut_slice(),
                false => image,
            };
            let _changing = changing();
            let (entry, ticket) = self
                .replace(state, old, entry, stored)
                .map_err(append_code)?;
            self.count_compression(plain_bytes, stored_bytes);
            self.reindex(state, indexed, keys, &entry);
            if ships(&entry) {
                self.queue_change(state, &entry);
            }
            Ok(ticket)
        })
    }

    /// Takes a record, or a tombstone, out of the index: expiry, and deletes that nobody has to hear of. Where it covers
    /// an older version, a tombstone takes its place. Whether it is gone: where there is no room for the tombstone, the
    /// entry stays, to be tried again.
    pub(crate) fn drop_entry(&self, state: &mut PartitionState, entry: &Entry) -> bool {
        let _changing = changing();
        if entry.flags & flag::COVERS != 0 {
            return self.entomb(state, entry);
        }
        if !entry.is_tombstone() && !is_expired(entry, self.clock.wall_seconds()) {
            state.updates.dropped.note(&entry.digest, entry.void_time);
        }
        // Before the entry goes: a process that ends in between leaves one time too many, and not one too few.
        state.updates.times.note_dropped(entry.last_update_time);
        state.table.remove(&entry.digest);
        self.store.release(entry.location);
        self.count_swap(Some(entry), None);
        self.orphan(state, entry);
        true
    }

    /// Leaves a tombstone in a record's place that hides older versions from a restart and says nothing to anybody else:
    /// it keeps the record's time and generation, so that it neither ships as a new change nor wins over a version of
    /// another site that the record would not have won over.
    fn entomb(&self, state: &mut PartitionState, entry: &Entry) -> bool {
        let by_xdr = entry.flags & flag::XDR_WRITE != 0;
        let header = ImageHeader {
            digest: entry.digest,
            last_update_time: entry.last_update_time,
            generation: entry.generation,
            void_time: 0,
            flags: image_flag::TOMBSTONE
                | image_flag::ties(entry.version().ties + 1)
                | if by_xdr { image_flag::XDR_WRITE } else { 0 },
        };
        let set = self.sets.get(entry.set_id);
        let set = set.as_ref().map_or(&[][..], |set| &set.name);
        let mut image = Vec::with_capacity(128);
        ImageBuilder::begin(&mut image, &header, set, None).finish();
        let tombstone = new_entry(&ImageView::trusted(&image), entry.set_id, image.len());
        let replaced = self.replace(state, Some(entry), tombstone, &mut image);
        if replaced.is_ok() {
            self.orphan(state, entry);
        }
        replaced.is_ok()
    }

    /// Whether an older version may lie on the device that must not come back when the new one goes.
    fn covers(&self, state: &PartitionState, old: Option<&Entry>, new: &ImageView<'_>) -> bool {
        if new.is_tombstone() || self.store.is_volatile() {
            return false;
        }
        match old {
            Some(old) => {
                old.flags & (flag::TOMBSTONE | flag::COVERS) != 0
                    || lifetime(old.void_time) > lifetime(new.void_time())
            }
            None => state
                .updates
                .dropped
                .may_outlive(new.digest(), new.void_time()),
        }
    }

    /// Compresses the version that `build` makes, which is likely to be committed next by this thread. To be called with no
    /// lock held: compressing a large record takes milliseconds.
    pub(crate) fn compress_ahead(&self, build: impl FnOnce(&mut Vec<u8>) -> bool) {
        AHEAD.with_borrow_mut(|ahead| {
            ahead.prepare(self.config.compression(), build);
        });
    }

    /// Puts the form that the namespace stores a version in into `compressed`, if it is smaller; whether it is.
    fn compress(&self, image: &[u8], compressed: &mut Vec<u8>) -> bool {
        let compression = self.config.compression();
        if compression.algorithm == CompressionKind::None {
            return false;
        }
        AHEAD
            .with_borrow_mut(|ahead| {
                let is_smaller = ahead.take(image, compression, compressed);
                ahead.trim();
                is_smaller
            })
            .unwrap_or_else(|| compress(image, compression, compressed))
    }

    fn count_compression(&self, plain_bytes: usize, stored_bytes: usize) {
        if self.config.compression().algorithm == CompressionKind::None {
            return;
        }
        let stats = self.stats.mine();
        let add = |counter: &AtomicU64, bytes: usize| {
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
        };
        add(&stats.compression_input_bytes, plain_bytes);
        add(&stats.compression_output_bytes, stored_bytes);
    }

    /// Appends a version and swaps the index entry for the version's, which is returned with its location. On an error
    /// nothing has changed.
    fn replace(
        &self,
        state: &mut PartitionState,
        old: Option<&Entry>,
        mut entry: Entry,
        image: &mut [u8],
    ) -> Result<(Entry, CommitTicket), AppendError> {
        // Should the process end between the two, the next one knows what to look for.
        state.table.intend(&entry);
        let appended = match self.store.append(image) {
            Ok(appended) => appended,
            Err(error) => {
                state.table.forget_intent();
                return Err(error);
            }
        };
        entry.location = appended.location;
        state.table.upsert(entry);
        if let Some(old) = old {
            self.store.release(old.location);
        }
        self.count_swap(old, Some(&entry));
        Ok((entry, appended.ticket))
    }

    fn queue_change(&self, state: &mut PartitionState, entry: &Entry) {
        for (queue, shipping) in state.updates.queues.iter_mut().zip(&self.shipping) {
            match queue.push(&entry.digest, entry.last_update_time, shipping.queue_limit) {
                Pushed::Queued => shipping.note_queued(1),
                Pushed::Folded => shipping.note_folded(),
                Pushed::Overflowed {
                    dropped,
                    recovery_began,
                } => {
                    shipping.note_overflow(dropped, recovery_began);
                }
            }
            shipping.list(&entry.digest, queue);
        }
    }
}

/// The entry of a version of which it is not known yet where it will lie.
fn new_entry(version: &ImageView<'_>, set_id: u16, stored_bytes: usize) -> Entry {
    let units = stored_bytes as u64 / Location::UNIT_BYTES;
    entry_of(version, set_id, Location::new(0, 0, units as u32))
}

fn append_code(error: AppendError) -> ResultCode {
    match error {
        AppendError::Full => ResultCode::OutOfSpace,
        AppendError::Overload => ResultCode::DeviceOverload,
        AppendError::TooBig => ResultCode::RecordTooBig,
        AppendError::DeviceFailed => ResultCode::Unknown,
    }
}
