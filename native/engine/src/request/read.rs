//! Reads, and the touch that prolongs a record's life with them.

use perigee_wire::{Message, ReplyWriter, ResultCode, info1};

use super::{Done, IMAGE, Request, Stop, build, check_key};
use crate::filter::Unread;
use crate::index::{Entry, flag};
use crate::namespace::Namespace;
use crate::partition::PartitionState;
use crate::record::image::ImageHeader;
use crate::record::operation::{WorkingRecord, check_read, reply_bins};
use crate::secondary_index::Indexed;
use crate::sets::SetInfo;
use crate::stats::count;

impl Namespace {
    pub(super) fn read(
        &self,
        request: &Request<'_>,
        reply: &mut ReplyWriter<'_>,
    ) -> Result<Done, Stop> {
        let message = request.message;
        check_read(message)?;
        let bytes_max = self.config.max_record_size.get() as usize;
        let now = self.clock.wall_seconds();
        let mut state = self.partition(request.digest).lock();
        let entry = state
            .table
            .get(request.digest)
            .filter(|entry| self.is_live(entry, now))
            .ok_or(ResultCode::NotFound)?;
        let depends = self.filter_unread(request.filter, &entry)? == Unread::Depends;
        let checks_key = message.key.is_some() && entry.flags & flag::KEY_STORED != 0;
        // A touch keeps the generation, so its time alone tells it from the version that it replaces.
        let touch = self.touch_due(message, &entry, now)?.and_then(|void_time| {
            let time = state
                .updates
                .times
                .next(self.clock.now(), Some(entry.last_update_time + 1))?;
            Some((void_time, time))
        });
        let header_only = message.header.info1 & info1::GET_NO_BINS != 0;
        if header_only && !checks_key && !depends && touch.is_none() {
            return Ok(Done::of(entry.generation, entry.void_time, None));
        }
        let indexed = match touch {
            Some(_) => self.indexed(&state, Some(&entry), request.copy.as_ref())?,
            None => Indexed::default(),
        };
        let touched = IMAGE.with_borrow_mut(|next| {
            self.with_image(
                &entry,
                request.copy.as_ref(),
                |view| -> Result<bool, ResultCode> {
                    check_key(message, view)?;
                    if depends {
                        self.filter_read(request.filter, &entry, view)?;
                    }
                    reply_bins(view, message, self.metadata(&entry), reply)?;
                    let Some((void_time, time)) = touch else {
                        return Ok(false);
                    };
                    let header = ImageHeader {
                        digest: entry.digest,
                        last_update_time: time,
                        generation: entry.generation,
                        void_time,
                        flags: 0,
                    };
                    build(
                        next,
                        &header,
                        view.set_name(),
                        view.key(),
                        &WorkingRecord::of(view, bytes_max),
                    );
                    Ok(true)
                },
            )
        })??;
        if touched {
            self.store_touch(&mut state, &entry, indexed);
        }
        Ok(Done::of(entry.generation, entry.void_time, None))
    }

    /// The new void time, when a read is to prolong the record's life: less than the asked share of it remains.
    fn touch_due(
        &self,
        message: &Message<'_>,
        entry: &Entry,
        now: u32,
    ) -> Result<Option<u32>, ResultCode> {
        let percent = match message.header.record_ttl as i32 {
            0 => self.default_read_touch_ttl_pct(entry.set_id),
            -1 => 0,
            percent @ 1..=100 => percent as u32,
            _ => return Err(ResultCode::Parameter),
        };
        if percent == 0 || entry.void_time == 0 {
            return Ok(None);
        }
        let written = (entry.last_update_time / 1000) as u32;
        let life = entry.void_time.saturating_sub(written);
        let remaining_ms = (u64::from(entry.void_time) * 1000).saturating_sub(self.clock.wall_ms());
        let due = remaining_ms * 100 < u64::from(life) * 1000 * u64::from(percent);
        Ok(due.then_some(now + life))
    }

    fn store_touch(&self, state: &mut PartitionState, entry: &Entry, indexed: Indexed) {
        let stats = self.stats.mine();
        let set_is_full = self
            .sets
            .get(entry.set_id)
            .is_some_and(SetInfo::stop_writes);
        if state.updates.busy.contains(&entry.digest) || self.stop_writes() || set_is_full {
            count(&stats.read_touch_skip);
            return;
        }
        let stored = IMAGE
            .with_borrow_mut(|image| self.commit(state, Some(entry), indexed, image, entry.set_id));
        count(if stored.is_ok() {
            &stats.read_touch_success
        } else {
            &stats.read_touch_error
        });
    }

    fn default_read_touch_ttl_pct(&self, set_id: u16) -> u32 {
        let of_set = self.sets.get(set_id);
        match of_set.map(|set| set.config.default_read_touch_ttl_pct.get()) {
            None | Some(0) => u32::from(self.config.default_read_touch_ttl_pct.get()),
            Some(percent) => u32::try_from(percent).unwrap_or(0),
        }
    }
}
