//! Writes and deletes.

use perigee_wire::{Message, ReplyWriter, ResultCode, info2};

use super::conflict::Standing;
use super::{Done, IMAGE, Request, Stop, build, check_key};
use crate::expression::Metadata;
use crate::filter::Unread;
use crate::index::{Entry, flag};
use crate::namespace::Namespace;
use crate::partition::PartitionState;
use crate::record::compression::CompressionKind;
use crate::record::image::{ImageHeader, ImageView, image_flag};
use crate::record::operation::{OperationContext, WorkingRecord, WriteRules, apply};
use crate::secondary_index::Indexed;
use crate::stats::count;
use crate::storage::CommitTicket;

impl Namespace {
    pub(super) fn write(
        &self,
        request: &Request<'_>,
        reply: &mut ReplyWriter<'_>,
    ) -> Result<Done, Stop> {
        let message = request.message;
        let rules = WriteRules::of(message)?;
        if self.config.compression().algorithm != CompressionKind::None {
            self.compress_write_ahead(request, &rules);
        }
        let now = self.clock.wall_seconds();
        let mut state = self.partition(request.digest).lock();
        self.admit(&mut state, request)?;
        if self.stop_writes() {
            return Err(ResultCode::OutOfSpace.into());
        }
        let stored = state.table.get(request.digest);
        let live = stored.filter(|entry| self.is_live(entry, now));
        let standing = match message.lut {
            Some(time) => {
                self.check_truncation(message.set.unwrap_or_default(), time)?;
                self.check_conflict(request, time, stored.as_ref())?
            }
            None => Standing::Newer,
        };
        check_write(message, &rules, live.as_ref())?;
        let depends = match &live {
            Some(entry) => self.filter_unread(request.filter, entry)? == Unread::Depends,
            None => false,
        };
        let set = message.set.unwrap_or_default();
        let set_id = match &live {
            Some(entry) => entry.set_id,
            None => self.sets.id_of(set).ok_or(ResultCode::Forbidden)?,
        };
        self.check_set_limits(set_id)?;
        let void_time = self.void_time(message.header.record_ttl, live.as_ref(), set_id, now)?;
        let time = match message.lut {
            Some(time) => time,
            None => self.next_update_time(&mut state, stored.as_ref())?,
        };
        let header = self.next_header(request, time, live.as_ref(), void_time, standing);
        let indexed = self.indexed(&state, stored.as_ref(), request.copy.as_ref())?;
        let filled = IMAGE.with_borrow_mut(|image| {
            self.make(request, &rules, live, depends, &header, reply, image)
        })?;
        if !filled {
            let Some(entry) = live else {
                return Err(ResultCode::NotFound.into());
            };
            count(&self.stats.mine().deleted_last_bin);
            let ticket = self.remove(&mut state, request, Some(&entry), header.last_update_time)?;
            return Ok(Done::of(header.generation, 0, ticket));
        }
        let ticket = IMAGE.with_borrow_mut(|image| {
            self.commit(&mut state, stored.as_ref(), indexed, image, set_id)
        })?;
        Ok(Done::of(header.generation, void_time, Some(ticket)))
    }

    /// Compresses the version that a write is about to make, before it has the record for itself.
    fn compress_write_ahead(&self, request: &Request<'_>, rules: &WriteRules) {
        self.compress_ahead(|image| {
            let now = self.clock.wall_seconds();
            let state = self.partition(request.digest).lock();
            let stored = state.table.get(request.digest);
            let live = stored.filter(|entry| self.is_live(entry, now));
            let is_late = |entry: Entry| {
                let time = request.message.lut;
                time.is_some_and(|time| time < entry.last_update_time)
            };
            if self.stop_writes()
                || state.updates.busy.contains(request.digest)
                || stored.is_some_and(is_late)
                || check_write(request.message, rules, live.as_ref()).is_err()
            {
                return false;
            }
            let header = ImageHeader {
                digest: *request.digest,
                last_update_time: 0,
                generation: 0,
                void_time: 0,
                flags: 0,
            };
            let mut unsent = Vec::new();
            let mut reply = ReplyWriter::begin(&mut unsent);
            let depends = live.is_some() && request.filter.is_some();
            let made = self.make(request, rules, live, depends, &header, &mut reply, image);
            reply.abandon();
            // What is refused is refused again, and what has to be read first comes here again.
            made.unwrap_or(false)
        });
    }

    /// Puts the next version of a record together. False if no bins are left in it. `depends`: the filter has to see the
    /// record. The caller holds the partition's lock.
    #[expect(clippy::too_many_arguments, reason = "what a version is made of")]
    fn make(
        &self,
        request: &Request<'_>,
        rules: &WriteRules,
        live: Option<Entry>,
        depends: bool,
        header: &ImageHeader,
        reply: &mut ReplyWriter<'_>,
        image: &mut Vec<u8>,
    ) -> Result<bool, Stop> {
        let message = request.message;
        let bytes_max = self.config.max_record_size.get() as usize;
        let set = message.set.unwrap_or_default();
        let mut make = |view: Option<&ImageView<'_>>| -> Result<bool, ResultCode> {
            if let Some(view) = view {
                check_key(message, view)?;
                if depends && let Some(entry) = &live {
                    self.filter_read(request.filter, entry, view)?;
                }
            }
            let context = OperationContext {
                metadata: match &live {
                    Some(entry) => self.metadata(entry),
                    None => Metadata {
                        digest: request.digest,
                        set,
                        last_update_time: header.last_update_time,
                        void_time: header.void_time,
                        now: self.clock.wall_ms(),
                        has_key: message.key.is_some(),
                        is_tombstone: false,
                        device_bytes: 0,
                        memory_bytes: 0,
                        record_bytes: 0,
                    },
                },
                key: view.and_then(|view| view.key()).or(message.key),
            };
            let mut record = match view {
                Some(view) if !rules.replaces => WorkingRecord::of(view, bytes_max),
                _ => WorkingRecord::empty(bytes_max),
            };
            apply(&mut record, message, rules, &context, reply)?;
            if record.is_empty() {
                return Ok(false);
            }
            let key = message.key.or(view.and_then(|view| view.key()));
            let set = view.map_or(set, |view| view.set_name());
            build(image, header, set, key, &record);
            Ok(true)
        };
        // A replaced record is not read, unless it has a key to be checked and kept, or a set name to be kept.
        let reads_old = |entry: &Entry| {
            !rules.replaces
                || depends
                || entry.flags & flag::KEY_STORED != 0
                || (entry.set_id != 0 && message.set.is_none())
        };
        let made = match live.filter(reads_old) {
            Some(entry) => {
                self.with_image(&entry, request.copy.as_ref(), |view| make(Some(view)))?
            }
            None => make(None),
        };
        Ok(made?)
    }

    pub(super) fn delete(&self, request: &Request<'_>) -> Result<Done, Stop> {
        let message = request.message;
        let now = self.clock.wall_seconds();
        let mut state = self.partition(request.digest).lock();
        self.admit(&mut state, request)?;
        let stored = state.table.get(request.digest);
        let live = stored.filter(|entry| self.is_live(entry, now));
        if let Some(time) = message.lut {
            self.check_conflict(request, time, stored.as_ref())?;
        } else if live.is_none() {
            return Err(ResultCode::NotFound.into());
        }
        check_generation(message, live.as_ref())?;
        let depends = match &live {
            Some(entry) => self.filter_unread(request.filter, entry)? == Unread::Depends,
            None => false,
        };
        let checks_key =
            |entry: &Entry| message.key.is_some() && entry.flags & flag::KEY_STORED != 0;
        if let Some(entry) = live.filter(|entry| depends || checks_key(entry)) {
            self.with_image(
                &entry,
                request.copy.as_ref(),
                |view| -> Result<(), ResultCode> {
                    check_key(message, view)?;
                    if depends {
                        self.filter_read(request.filter, &entry, view)?;
                    }
                    Ok(())
                },
            )??;
        }
        let time = match message.lut {
            Some(time) => time,
            None => self.next_update_time(&mut state, stored.as_ref())?,
        };
        let ticket = self.remove(&mut state, request, stored.as_ref(), time)?;
        Ok(Done::of(0, 0, ticket))
    }

    /// Removes a record: with a tombstone where someone has to learn of the delete later (a durable delete, a datacenter,
    /// a write by XDR that may come late) or an older version would come back, else from the index alone.
    fn remove(
        &self,
        state: &mut PartitionState,
        request: &Request<'_>,
        stored: Option<&Entry>,
        last_update_time: u64,
    ) -> Result<Option<CommitTicket>, Stop> {
        let message = request.message;
        let by_xdr = message.lut.is_some();
        let durable = message.header.info2 & info2::DURABLE_DELETE != 0;
        let covers = stored.is_some_and(|entry| entry.flags & flag::COVERS != 0);
        if !(durable || by_xdr || self.ships() || covers) {
            if let Some(entry) = stored {
                self.drop_entry(state, entry);
            }
            return Ok(None);
        }
        let set = message.set.unwrap_or_default();
        let set_id = match stored {
            Some(entry) => entry.set_id,
            None => self.sets.id_of(set).ok_or(ResultCode::Forbidden)?,
        };
        let header = ImageHeader {
            digest: *request.digest,
            last_update_time,
            generation: self.next_generation(message, stored),
            void_time: 0,
            flags: image_flag::TOMBSTONE
                | if by_xdr { image_flag::XDR_WRITE } else { 0 }
                | if durable { image_flag::DURABLE } else { 0 },
        };
        let make = |set: &[u8], key: Option<&[u8]>| {
            IMAGE
                .with_borrow_mut(|image| build(image, &header, set, key, &WorkingRecord::empty(0)));
        };
        // The key, once stored, stays with the tombstone: consumers of deletes name records by it.
        match stored.filter(|e| e.flags & flag::KEY_STORED != 0 || message.set.is_none()) {
            Some(entry) => {
                self.with_image(entry, request.copy.as_ref(), |view| {
                    make(view.set_name(), view.key())
                })?;
            }
            None => make(set, None),
        }
        // Nothing takes the old entries' place, so they need not be known.
        let ticket = IMAGE.with_borrow_mut(|image| {
            self.commit(state, stored, Indexed::unknown(), image, set_id)
        })?;
        Ok(Some(ticket))
    }

    fn next_header(
        &self,
        request: &Request<'_>,
        last_update_time: u64,
        live: Option<&Entry>,
        void_time: u32,
        standing: Standing,
    ) -> ImageHeader {
        let message = request.message;
        ImageHeader {
            digest: *request.digest,
            last_update_time,
            generation: self.next_generation(message, live),
            void_time,
            flags: match (message.lut, standing) {
                (None, _) => 0,
                (Some(_), Standing::Newer) => image_flag::XDR_WRITE,
                (Some(_), Standing::TieWon { before }) => {
                    image_flag::XDR_WRITE | image_flag::ties(before + 1)
                }
            },
        }
    }

    /// A set that has reached its limits takes no writes, not even such as would make records smaller; deletes go on.
    pub(crate) fn check_set_limits(&self, set_id: u16) -> Result<(), ResultCode> {
        match self.sets.get(set_id) {
            Some(set) if set.stop_writes() => {
                count(&self.stats.mine().fail_set_stop_writes);
                Err(ResultCode::Forbidden)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a write may meet the record that is there, or none.
fn check_write(
    message: &Message<'_>,
    rules: &WriteRules,
    live: Option<&Entry>,
) -> Result<(), ResultCode> {
    match live {
        Some(_) if rules.create_only => return Err(ResultCode::RecordExists),
        None if rules.update_only || rules.replace_only || rules.must_exist => {
            return Err(ResultCode::NotFound);
        }
        _ => {}
    }
    check_generation(message, live)
}

fn check_generation(message: &Message<'_>, live: Option<&Entry>) -> Result<(), ResultCode> {
    let flags = message.header.info2;
    let sent = message.header.generation;
    let stored = live.map_or(0, |entry| u32::from(entry.generation));
    let refused = (flags & info2::GENERATION != 0 && sent != stored)
        || (flags & info2::GENERATION_GT != 0 && sent <= stored);
    if refused {
        Err(ResultCode::Generation)
    } else {
        Ok(())
    }
}
