//! Changing many records without a request: index entries are looked at in short steps, and those that are not wanted as
//! they are are dropped or replaced under the same hold of their partition's lock.

use perigee_wire::Digest;

use crate::index::Entry;
use crate::namespace::Namespace;
use crate::partition::{Partition, PartitionState};

/// Entries looked at, and entries dropped or replaced, under one hold of a partition's lock.
const STEP_ENTRIES: usize = 1024;
const STEP_CHANGES: usize = 128;

/// Where a sweep of one partition goes on.
#[derive(Default)]
pub(crate) struct SweepCursor {
    after: Option<Digest>,
    ended: bool,
}

impl SweepCursor {
    /// Looks at the entries of one step, and returns what `choose` makes of some of them.
    fn look(
        &mut self,
        state: &PartitionState,
        choose: &mut dyn FnMut(&PartitionState, &Entry) -> Option<Entry>,
    ) -> Vec<Entry> {
        let mut chosen = Vec::new();
        self.ended = true;
        for (looked_at, entry) in state.table.iter_after(self.after.as_ref()).enumerate() {
            if looked_at == STEP_ENTRIES || chosen.len() == STEP_CHANGES {
                self.ended = false;
                break;
            }
            self.after = Some(entry.digest);
            chosen.extend(choose(state, &entry));
        }
        chosen
    }
}

impl Namespace {
    /// Goes over all partitions by `step`, as often as it takes to come to the end of each. False if `stop` ended it between
    /// two steps.
    pub(crate) fn in_steps(
        &self,
        stop: &dyn Fn() -> bool,
        step: &mut dyn FnMut(&Partition, &mut SweepCursor),
    ) -> bool {
        for partition in self.partitions() {
            let mut cursor = SweepCursor::default();
            while !cursor.ended {
                if stop() {
                    return false;
                }
                step(partition, &mut cursor);
            }
        }
        true
    }

    /// Looks at the entries of one step and drops those that `unwanted` names. Returns how many went, and how many stayed
    /// for now: records that Lua works on, and such as need a tombstone that there was no room for.
    pub(crate) fn drop_step(
        &self,
        partition: &Partition,
        cursor: &mut SweepCursor,
        unwanted: &mut dyn FnMut(&PartitionState, &Entry) -> bool,
    ) -> (u64, u64) {
        let mut state = partition.lock();
        let mut due = cursor.look(&state, &mut |state, entry| {
            unwanted(state, entry).then_some(*entry)
        });
        let found = due.len();
        due.retain(|entry| {
            !state.updates.busy.contains(&entry.digest) && self.drop_entry(&mut state, entry)
        });
        (due.len() as u64, (found - due.len()) as u64)
    }

    /// Sweeps every partition, unless `stop` ends it between two steps. Returns how many entries were dropped, and whether
    /// the end was reached.
    pub(crate) fn sweep(
        &self,
        stop: &dyn Fn() -> bool,
        unwanted: &mut dyn FnMut(&PartitionState, &Entry) -> bool,
    ) -> (u64, bool) {
        let mut dropped = 0;
        let completed = self.in_steps(stop, &mut |partition, cursor| {
            dropped += self.drop_step(partition, cursor, unwanted).0;
        });
        (dropped, completed)
    }

    /// Puts what `changed` makes of entries in their places, in the index alone: of the same version, at the same location.
    /// Unless `stop` ends it between two steps.
    pub(crate) fn change_entries(
        &self,
        stop: &dyn Fn() -> bool,
        changed: &mut dyn FnMut(&PartitionState, &Entry) -> Option<Entry>,
    ) {
        self.in_steps(stop, &mut |partition, cursor| {
            let mut state = partition.lock();
            for entry in cursor.look(&state, changed) {
                state.table.upsert(entry);
            }
        });
    }
}
