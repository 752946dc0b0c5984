//! Removing many records without a request: index entries are looked at in short steps, and those that are not wanted any
//! more are dropped under the same hold of their partition's lock.

use perigee_wire::Digest;

use crate::index::Entry;
use crate::namespace::Namespace;
use crate::partition::{Partition, PartitionState};

/// Entries looked at, and entries dropped, under one hold of a partition's lock.
const STEP_ENTRIES: usize = 1024;
const STEP_DROPS: usize = 128;

/// Where a sweep of one partition goes on.
#[derive(Default)]
pub(crate) struct SweepCursor {
    after: Option<Digest>,
    pub ended: bool,
}

impl Namespace {
    /// Looks at the entries of one step and drops those that `unwanted` names. Returns how many went, and how many stayed
    /// for now: records that Lua works on, and such as need a tombstone that there was no room for.
    pub(crate) fn sweep_step(
        &self,
        partition: &Partition,
        cursor: &mut SweepCursor,
        unwanted: &mut dyn FnMut(&PartitionState, &Entry) -> bool,
    ) -> (u64, u64) {
        let mut due: Vec<Entry> = Vec::new();
        let mut state = partition.lock();
        cursor.ended = true;
        for (looked_at, entry) in state.table.iter_after(cursor.after.as_ref()).enumerate() {
            if looked_at == STEP_ENTRIES || due.len() == STEP_DROPS {
                cursor.ended = false;
                break;
            }
            cursor.after = Some(entry.digest);
            if unwanted(&state, &entry) {
                due.push(entry);
            }
        }
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
        for partition in self.partitions() {
            let mut cursor = SweepCursor::default();
            while !cursor.ended {
                if stop() {
                    return (dropped, false);
                }
                dropped += self.sweep_step(partition, &mut cursor, unwanted).0;
            }
        }
        (dropped, true)
    }
}
