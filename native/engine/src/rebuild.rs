//! The namespace's part in a start: which versions the index keeps, and the counts that follow from the index.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::atomic::Ordering;

use perigee_wire::{PARTITIONS, partition_of};

use crate::index::{Entry, Location};
use crate::namespace::{Namespace, entry_flags};
use crate::record::image::ImageView;
use crate::storage::Rebuild;

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
            let entry = Entry {
                digest: *image.digest(),
                set_id,
                generation: image.generation(),
                last_update_time: image.last_update_time(),
                void_time: image.void_time(),
                location,
                flags: entry_flags(&image),
            };
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
                counts.add(&entry);
                live(entry.location);
            }
        }
        counts.add_to(self);
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

/// Records counted by one thread, by set id.
#[derive(Default)]
struct Counts(Vec<SetCounts>);

#[derive(Clone, Copy, Default)]
struct SetCounts {
    objects: i64,
    tombstones: i64,
    bytes: i64,
}

impl Counts {
    fn add(&mut self, entry: &Entry) {
        let at = usize::from(entry.set_id);
        if at >= self.0.len() {
            self.0.resize(at + 1, SetCounts::default());
        }
        let counts = &mut self.0[at];
        if entry.is_tombstone() {
            counts.tombstones += 1;
        } else {
            counts.objects += 1;
        }
        counts.bytes += entry.location.bytes() as i64;
    }

    fn add_to(&self, namespace: &Namespace) {
        for (set_id, counts) in self.0.iter().enumerate() {
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
