//! The one commit point. Every way of changing a record ends here: storage, index, set counts and change queues move
//! together, under the partition's lock.

use perigee_wire::ResultCode;

use crate::change_queue::{Pushed, ships};
use crate::index::Entry;
use crate::namespace::{Namespace, entry_flags};
use crate::partition::PartitionState;
use crate::record::image::ImageView;
use crate::stats::count;
use crate::storage::{AppendError, CommitTicket};

impl Namespace {
    /// Stores a new version (a record or a tombstone) in place of `old`. The image is complete but for its seal.
    /// On an error nothing has changed.
    pub(crate) fn commit(
        &self,
        state: &mut PartitionState,
        old: Option<&Entry>,
        image: &mut [u8],
        set_id: u16,
    ) -> Result<CommitTicket, ResultCode> {
        if image.len() > self.config.max_record_size as usize {
            count(&self.stats.mine().fail_record_too_big);
            return Err(ResultCode::RecordTooBig);
        }
        let appended = self.store.append(image).map_err(append_code)?;
        let view = ImageView::trusted(image);
        let entry = Entry {
            digest: *view.digest(),
            set_id,
            generation: view.generation(),
            last_update_time: view.last_update_time(),
            void_time: view.void_time(),
            location: appended.location,
            flags: entry_flags(&view),
        };
        state.table.upsert(entry);
        if let Some(old) = old {
            self.store.release(old.location);
        }
        self.count_swap(old, Some(&entry));
        if ships(&entry) {
            self.queue_change(state, &entry);
        }
        Ok(appended.ticket)
    }

    /// Takes a record out of the index without leaving a tombstone: expiry, and deletes that nobody has to hear of.
    /// Whether it is gone.
    pub(crate) fn drop_entry(&self, state: &mut PartitionState, entry: &Entry) -> bool {
        state.table.remove(&entry.digest);
        state.times.note_dropped(entry.last_update_time);
        self.store.release(entry.location);
        self.count_swap(Some(entry), None);
        true
    }

    fn queue_change(&self, state: &mut PartitionState, entry: &Entry) {
        for (queue, shipping) in state.changes.iter_mut().zip(&self.shipping) {
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

fn append_code(error: AppendError) -> ResultCode {
    match error {
        AppendError::Full => ResultCode::OutOfSpace,
        AppendError::Overload => ResultCode::DeviceOverload,
        AppendError::TooBig => ResultCode::RecordTooBig,
        AppendError::DeviceFailed => ResultCode::Unknown,
    }
}
