//! Taking a store over from a process that ended, with what it left in shared memory: the index, what is known of each
//! block, and the blocks that it had not written. Nothing is read from the devices but their leases.
//!
//! The index has every change that was acknowledged, so it is believed, and images are not looked at. One thing is
//! missing in it: a version that was appended, but whose thread did not get to the index. Before it appends, a thread
//! writes its intent down; an append counts live bytes before its block's position moves beyond it. So such a version
//! lies in a block whose live bytes are more than the index adds up to, and only an intent is looked for there. It is
//! taken in, since a later cold start would find it too.

use super::device::{Device, Phase};
use super::header::{BlockHeader, FoundBlock};
use super::medium::{AlignedBuf, PAGE_BYTES};
use super::scan::{SEQUENCE_UNKNOWN, on_threads};
use super::write_block::{Piece, Walk};
use super::{DeviceError, ScanError, ScanReport, Store};
use crate::index::{Entry, Location};
use crate::progress::{OpenPhase, OpenProgress};
use crate::record::image::{
    BLOCK_HEADER_BYTES, FILLER_BYTES, IMAGE_UNIT_BYTES, ImageView, write_filler,
};
use crate::shared::{BlockRecord, SharedStore, Unwritten};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The namespace's part in taking an index over.
pub(crate) trait Resume: Sync {
    /// Tells `live` where every record lies, of one of `shares` parts that make up the whole. False if an entry
    /// cannot be right.
    fn tell_live(&self, share: usize, shares: usize, live: &mut dyn FnMut(Location)) -> bool;

    /// Versions that were about to be stored, without their locations.
    fn intents(&self) -> Vec<Entry>;

    /// Says where such a version was found, if it was, and returns the location of the one that it takes the place of.
    fn settle(&self, intent: &Entry, found: Option<Location>) -> Option<Location>;
}

/// Why an index is not taken over.
pub(crate) type Doubt = &'static str;

/// Live bytes by device and block.
type Live = Vec<Vec<u64>>;
/// Of each block that is not written, by device and block.
type Open = HashMap<(u32, u32), Unwritten>;

impl Store {
    /// Takes over what lies in shared memory: in place of `scan`. The inner error: it is not to be believed, nothing
    /// was changed, and the store is to be scanned.
    pub(crate) fn attach(
        &self,
        shared: &SharedStore,
        resume: &dyn Resume,
        progress: &OpenProgress,
    ) -> Result<Result<ScanReport, Doubt>, ScanError> {
        progress.begin(OpenPhase::Warm);
        let open = match self
            .check_runs(shared)
            .and_then(|()| self.find_open(shared))
        {
            Ok(open) => open,
            Err(doubt) => return Ok(Err(doubt)),
        };
        let Some(mut live) = self.live_by_index(resume, &open, progress) else {
            return Ok(Err("an entry leads to no record"));
        };
        self.settle_intents(shared, resume, &open, &mut live);
        if self.scanned.swap(true, Ordering::AcqRel) {
            return Err(ScanError::AlreadyScanned);
        }
        for unwritten in open.values() {
            self.write_out(shared, unwritten)?;
        }
        let mut report = ScanReport::default();
        for (device, live) in self.devices.iter().zip(&live) {
            device
                .medium
                .sync()
                .map_err(|error| failed(device, "sync", error))?;
            device.take_blocks(live, &mut report);
            let largest = device
                .ledger
                .iter()
                .map(|record| record.sequence.load(Ordering::Relaxed));
            let largest = largest
                .filter(|sequence| *sequence != SEQUENCE_UNKNOWN)
                .max();
            let header = &self.headers[device.index as usize];
            let found = largest.map(|sequence| (device.index, 0, FoundBlock::Sealed { sequence }));
            device.set_next_sequence(header, found.as_slice());
        }
        shared.pool().clear();
        self.begin_run(Some(shared))?;
        Ok(Ok(report))
    }

    /// Writes a new run to every device, with a lease of sequences. The shared memory is of it once `go_live` is called.
    pub(super) fn begin_run(&self, shared: Option<&SharedStore>) -> Result<(), ScanError> {
        let run = super::open::random().max(1);
        if let Some(shared) = shared {
            shared.announce_run(run);
        }
        for device in self.devices.iter().filter(|device| !device.is_volatile) {
            device.run.store(run, Ordering::Relaxed);
            device.lease()?;
        }
        Ok(())
    }

    /// The shared memory is complete, and of the run that the devices are in.
    pub(crate) fn go_live(&self, shared: &SharedStore) {
        shared.go_live(self.devices[0].run.load(Ordering::Relaxed));
    }

    /// Every device has to be of the last run that the shared memory knows of, and its blocks of sequences that it leased.
    fn check_runs(&self, shared: &SharedStore) -> Result<(), Doubt> {
        let runs = shared.runs();
        for device in &self.devices {
            let lease = device.read_lease();
            if lease.run == 0 || !runs.contains(&lease.run) {
                return Err("a device was opened without it since");
            }
            let is_leased = |record: &BlockRecord| {
                let sequence = record.sequence.load(Ordering::Relaxed);
                sequence < lease.limit || sequence == SEQUENCE_UNKNOWN
            };
            if !device.ledger.iter().skip(1).all(is_leased) {
                return Err("a block cannot have the sequence that it has");
            }
        }
        Ok(())
    }

    /// The blocks that are not written, all of whose images are whole.
    fn find_open(&self, shared: &SharedStore) -> Result<Open, Doubt> {
        let mut open = Open::new();
        for unwritten in shared.pool().unwritten() {
            let Unwritten {
                place,
                sequence,
                device: index,
                block,
                position,
                written,
            } = unwritten;
            let device = self.devices.get(index as usize);
            let device = device.ok_or("an unwritten block is of no device")?;
            let (at, end) = (position as usize, device.block_bytes);
            let is_possible = (1..device.blocks.len()).contains(&(block as usize))
                && device.ledger[block as usize]
                    .sequence
                    .load(Ordering::Relaxed)
                    == sequence
                && (BLOCK_HEADER_BYTES..=end).contains(&at)
                && at.is_multiple_of(IMAGE_UNIT_BYTES)
                && (written as usize).is_multiple_of(PAGE_BYTES)
                && written as usize <= at.next_multiple_of(PAGE_BYTES);
            if !is_possible {
                return Err("an unwritten block cannot be where it says");
            }
            // SAFETY: of this place alone, and for as long as this looks at it.
            let bytes = unsafe { shared.pool().left(place) };
            let bytes = bytes.map_err(|_| "an unwritten block has no memory")?;
            let header = BlockHeader::find(bytes, device.device_id, device.index, block);
            if header != (FoundBlock::Sealed { sequence }) || !is_whole(&bytes[..at], sequence) {
                return Err("an unwritten block is damaged");
            }
            if open.insert((index, block), unwritten).is_some() {
                return Err("an unwritten block is there twice");
            }
        }
        Ok(open)
    }

    /// Live bytes as the index has them. `None` if an entry leads to where no record can be.
    fn live_by_index(
        &self,
        resume: &dyn Resume,
        open: &Open,
        progress: &OpenProgress,
    ) -> Option<Live> {
        let zero = || -> Live {
            let blocks = |device: &Arc<Device>| vec![0; device.blocks.len()];
            self.devices.iter().map(blocks).collect()
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let counts = on_threads(threads, |share| {
            let (mut live, mut sound, mut records) = (zero(), true, 0);
            let told = resume.tell_live(share, threads, &mut |location| {
                records += 1;
                match self.block_of(location, open) {
                    Some((device, block)) => live[device][block] += location.bytes() as u64,
                    None => sound = false,
                }
            });
            progress.add(0, records);
            (told && sound).then_some(live)
        });
        let mut sum = zero();
        for live in counts {
            for (sum, live) in sum.iter_mut().flatten().zip(live?.into_iter().flatten()) {
                *sum += live;
            }
        }
        let room = u64::from(self.config.write_block_bytes) - BLOCK_HEADER_BYTES as u64;
        sum.iter()
            .flatten()
            .all(|live| *live <= room)
            .then_some(sum)
    }

    /// Device and block of a location, if a record can lie there.
    fn block_of(&self, location: Location, open: &Open) -> Option<(usize, usize)> {
        let index = location.device() as usize;
        let device = self.devices.get(index)?;
        let bytes = device.block_bytes as u64;
        let (block, at) = (location.offset() / bytes, location.offset() % bytes);
        let end = at + location.bytes() as u64;
        let is_used = (1..device.blocks.len() as u64).contains(&block)
            && device.ledger[block as usize]
                .sequence
                .load(Ordering::Relaxed)
                != 0
            && at >= BLOCK_HEADER_BYTES as u64
            && end <= bytes;
        let is_below = |unwritten: &Unwritten| end <= u64::from(unwritten.position);
        let key = (index as u32, block as u32);
        (is_used && open.get(&key).is_none_or(is_below)).then_some((index, block as usize))
    }

    /// Looks for the versions that were about to be stored.
    fn settle_intents(
        &self,
        shared: &SharedStore,
        resume: &dyn Resume,
        open: &Open,
        live: &mut Live,
    ) {
        let intents = resume.intents();
        let mut found: Vec<Option<Location>> = vec![None; intents.len()];
        if !intents.is_empty() {
            for device in &self.devices {
                for (block, record) in device.ledger.iter().enumerate().skip(1) {
                    let by_index = live[device.index as usize][block];
                    if u64::from(record.live.load(Ordering::Relaxed)) != by_index {
                        let unwritten = open.get(&(u32::from(device.index), block as u32));
                        device.look_for(block as u32, shared, unwritten, &intents, &mut found);
                    }
                }
            }
        }
        for (intent, found) in intents.iter().zip(found) {
            let replaced = resume.settle(intent, found);
            for (location, adds) in [(found, true), (replaced, false)] {
                let Some((location, (device, block))) =
                    location.and_then(|location| Some((location, self.block_of(location, open)?)))
                else {
                    continue;
                };
                let sum = &mut live[device][block];
                *sum = match adds {
                    true => *sum + location.bytes() as u64,
                    false => *sum - location.bytes() as u64,
                };
            }
        }
    }

    /// Writes what is left of a block to its device.
    fn write_out(&self, shared: &SharedStore, unwritten: &Unwritten) -> Result<(), ScanError> {
        let device = &self.devices[unwritten.device as usize];
        let (position, from) = (unwritten.position as usize, unwritten.written as usize);
        // SAFETY: of this place alone, and for as long as this looks at it.
        let bytes = unsafe { shared.pool().left(unwritten.place) };
        let bytes = bytes.map_err(|error| failed(device, "shared memory", error))?;
        let to = position.next_multiple_of(PAGE_BYTES);
        if position < to {
            // As when a block is filled: it stands for the rest of the block, of which only a page is written.
            write_filler(
                &mut bytes[position..],
                device.block_bytes - position,
                unwritten.sequence,
            );
            bytes[position + FILLER_BYTES..to].fill(0);
        }
        if from < to {
            let offset = device.block_offset(unwritten.block) + from as u64;
            device
                .medium
                .write_at(offset, &bytes[from..to])
                .map_err(|error| failed(device, "write", error))?;
        }
        Ok(())
    }
}

/// Whether images follow one another up to the end.
fn is_whole(bytes: &[u8], sequence: u64) -> bool {
    let mut at = BLOCK_HEADER_BYTES;
    while at < bytes.len() {
        match ImageView::verify(&bytes[at..], Some(sequence)) {
            Ok(image) => at += image.bytes().len(),
            Err(_) => return false,
        }
    }
    true
}

fn failed(device: &Device, operation: &'static str, error: io::Error) -> ScanError {
    ScanError::Device(DeviceError {
        device: device.index,
        operation,
        source: Arc::new(error),
    })
}

impl Device {
    /// Looks for versions in one block, in memory or on the device.
    fn look_for(
        &self,
        block: u32,
        shared: &SharedStore,
        unwritten: Option<&Unwritten>,
        intents: &[Entry],
        found: &mut [Option<Location>],
    ) {
        let mut buffer = AlignedBuf::default();
        let bytes: &[u8] = match unwritten {
            // SAFETY: of this place alone, and for as long as this looks at it.
            Some(unwritten) => match unsafe { shared.pool().left(unwritten.place) } {
                Ok(bytes) => &bytes[..unwritten.position as usize],
                Err(_) => return,
            },
            None => {
                buffer.reserve(self.block_bytes);
                self.read_block(block, &mut buffer);
                &buffer[..self.block_bytes]
            }
        };
        let sequence = self.ledger[block as usize].sequence.load(Ordering::Relaxed);
        for piece in Walk::new(bytes, sequence) {
            let Piece::Image { at, image } = piece else {
                continue;
            };
            for (intent, found) in intents.iter().zip(found.iter_mut()) {
                let is_it = *image.digest() == intent.digest && image.version() == intent.version();
                if is_it && found.is_none() {
                    *found = Some(self.location(block, at, image.bytes().len()));
                }
            }
        }
    }

    /// Says what each block is good for.
    fn take_blocks(&self, live: &[u64], report: &mut ScanReport) {
        let mut state = self.state.lock();
        self.used_bytes.store(live.iter().sum(), Ordering::Relaxed);
        for block in (1..self.blocks.len() as u32).rev() {
            let at = block as usize;
            let record = &self.ledger[at];
            let sequence = record.sequence.load(Ordering::Relaxed);
            record.live.store(live[at] as u32, Ordering::Release);
            state.blocks[at].sequence = sequence;
            if live[at] > 0 {
                report.used_blocks += 1;
                state.blocks[at].phase = Phase::Used;
                // Not appended to again, so whatever it lacks can be gained by compacting it.
                state.blocks[at].filled = self.block_bytes - BLOCK_HEADER_BYTES;
            } else if record.lost.load(Ordering::Relaxed) != 0 {
                state.blocks[at].phase = Phase::Lost;
            } else {
                report.free_blocks += 1;
                // What is not erased yet is to be erased before it is used again.
                state.blocks[at].phase = match sequence {
                    0 => Phase::Free,
                    _ => Phase::Used,
                };
                if sequence == 0 {
                    state.free.push(block);
                }
            }
            self.settle(&mut state, block);
        }
    }
}
