//! Reading a device from end to end when a store opens: every image that verifies is shown to the
//! visitor, which keeps the newest of each record, and what is live in each block follows from that.

use super::device::{Device, Phase};
use super::header::{BlockHeader, FoundBlock, LEASE_OFFSETS, decode_lease};
use super::medium::{AlignedBuf, PAGE_BYTES};
use super::write_block::{Piece, Walk, sequence_by_images};
use super::{ScanReport, ScanVerdict};
use crate::index::Location;
use crate::progress::OpenProgress;
use crate::record::image::{BLOCK_HEADER_BYTES, ImageView};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

/// Blocks read ahead of the visitor.
const READ_AHEAD_BLOCKS: usize = 2;

pub(super) type Visit<'v> = &'v mut dyn FnMut(ImageView<'_>, Location) -> ScanVerdict;

/// A block as it was read.
struct ReadBlock {
    block: u32,
    /// Of its header.
    found: FoundBlock,
    bytes: AlignedBuf,
    unreadable_pages: u64,
}

impl Device {
    /// Makes every block of a device that was just initialised free.
    pub(super) fn adopt_fresh(&self) {
        let mut state = self.state.lock();
        for block in (1..self.blocks.len()).rev() {
            state.blocks[block].phase = Phase::Free;
            state.free.push(block as u32);
        }
    }

    /// Visits the images of every block, blocks in the order in which they were opened: a visitor that
    /// keeps the first of two equal versions keeps originals rather than copies made by a compaction
    /// that was cut short, whose block is then free again.
    /// `first_sequence` is where this store's sequences began.
    pub(super) fn scan(
        &self,
        first_sequence: u64,
        visit: Visit<'_>,
        replaced: &mut dyn FnMut(Location),
        progress: &OpenProgress,
        report: &mut ScanReport,
    ) {
        let mut found = self.read_headers();
        let sequence_of = |found: &FoundBlock| match found {
            FoundBlock::Sealed { sequence } => Some(*sequence),
            FoundBlock::Blank | FoundBlock::Unreadable => None,
        };
        let largest = found
            .iter()
            .filter_map(|(_, found)| sequence_of(found))
            .max();
        let leased = self.read_lease();
        let next_sequence = first_sequence
            .max(leased)
            .max(largest.map_or(0, |largest| largest + 1));
        self.state.lock().next_sequence = next_sequence;
        // Damaged headers last: the others say which sequences there can be.
        found.sort_by_key(|(_, found)| sequence_of(found).unwrap_or(u64::MAX));
        let is_blank = |found: &(u32, FoundBlock)| found.1 == FoundBlock::Blank;
        let blank: HashSet<u32> = found.iter().filter(|f| is_blank(f)).map(|f| f.0).collect();
        found.retain(|found| !is_blank(found));
        progress.expect_bytes((found.len() * self.block_bytes) as u64);

        let lost = std::thread::scope(|scope| {
            let (filled, blocks) = mpsc::sync_channel(READ_AHEAD_BLOCKS);
            let (empty, empties) = mpsc::channel();
            for _ in 0..READ_AHEAD_BLOCKS {
                let _ = empty.send(AlignedBuf::new(self.block_bytes));
            }
            scope.spawn(move || {
                for (block, found) in found {
                    // Either end is gone only when the visitor panicked.
                    let Ok(mut bytes) = empties.recv() else {
                        return;
                    };
                    let unreadable_pages = self.read_block(block, &mut bytes);
                    let read = ReadBlock {
                        block,
                        found,
                        bytes,
                        unreadable_pages,
                    };
                    if filled.send(read).is_err() {
                        return;
                    }
                }
            });
            let mut lost = HashSet::new();
            for read in blocks {
                if progress.is_cancelled() {
                    break;
                }
                let images = report.images;
                if read.unreadable_pages > 0 {
                    report.read_errors += read.unreadable_pages;
                    lost.insert(read.block);
                }
                let sequence = match read.found {
                    FoundBlock::Sealed { sequence } => Some(sequence),
                    _ => self.salvage_sequence(&read, first_sequence, next_sequence, report),
                };
                if let Some(sequence) = sequence {
                    self.load(read.block, &read.bytes[..self.block_bytes]);
                    self.visit_block(&read, sequence, visit, replaced, report);
                }
                progress.add(self.block_bytes as u64, report.images - images);
                let _ = empty.send(read.bytes);
            }
            lost
        });

        if progress.is_cancelled() {
            // What was not read has no live bytes yet, and must not pass for free.
            return;
        }
        let mut state = self.state.lock();
        for block in (1..self.blocks.len() as u32).rev() {
            if self.live(block) > 0 {
                report.used_blocks += 1;
                state.blocks[block as usize].phase = Phase::Used;
                // Not appended to again, so whatever it lacks can be gained by compacting it.
                state.blocks[block as usize].filled = self.block_bytes - BLOCK_HEADER_BYTES;
            } else if lost.contains(&block) {
                state.blocks[block as usize].phase = Phase::Lost;
            } else if blank.contains(&block) {
                report.free_blocks += 1;
                state.blocks[block as usize].phase = Phase::Free;
                state.free.push(block);
            } else {
                // To be erased before it is used again.
                report.free_blocks += 1;
                state.blocks[block as usize].phase = Phase::Used;
            }
            self.settle(&mut state, block);
        }
    }

    /// The limit of the newest lease, whose place is not the next to be written.
    fn read_lease(&self) -> u64 {
        let mut page = AlignedBuf::new(PAGE_BYTES);
        let limits = LEASE_OFFSETS.map(|offset| {
            let read = self.medium.read_at(offset, &mut page);
            read.ok()
                .and_then(|()| decode_lease(&page, self.device_id))
                .unwrap_or(0)
        });
        self.state.lock().lease = usize::from(limits[1] > limits[0]);
        limits[0].max(limits[1])
    }

    fn read_headers(&self) -> Vec<(u32, FoundBlock)> {
        let mut page = AlignedBuf::new(PAGE_BYTES);
        (1..self.blocks.len() as u32)
            .map(
                |block| match self.medium.read_at(self.block_offset(block), &mut page) {
                    Ok(()) => (
                        block,
                        BlockHeader::find(&page, self.device_id, self.index, block),
                    ),
                    // Counted when the whole block is read.
                    Err(_) => (block, FoundBlock::Unreadable),
                },
            )
            .collect()
    }

    /// Reads a whole block, page by page where it does not read as a whole; returns how many pages
    /// did not.
    fn read_block(&self, block: u32, bytes: &mut AlignedBuf) -> u64 {
        let offset = self.block_offset(block);
        let length = self.block_bytes;
        if self.medium.read_at(offset, &mut bytes[..length]).is_ok() {
            return 0;
        }
        let mut unreadable = 0;
        for at in (0..length).step_by(PAGE_BYTES) {
            let page = &mut bytes[at..at + PAGE_BYTES];
            if let Err(error) = self.medium.read_at(offset + at as u64, page) {
                // Reads as damage if images follow.
                page.fill(0);
                unreadable += 1;
                self.tell_unreadable(block, at, &error);
            }
        }
        unreadable
    }

    fn tell_unreadable(&self, block: u32, offset: usize, error: &std::io::Error) {
        self.counters.read_errors.add(1);
        tracing::error!(
            namespace = %self.config.namespace,
            device = self.index,
            block,
            offset,
            %error,
            "the device does not read a page"
        );
    }

    /// The sequence of a block whose header is damaged, if its images are of this store. Blocks that
    /// hold something else altogether look the same, and are not damage.
    fn salvage_sequence(
        &self,
        read: &ReadBlock,
        first: u64,
        next: u64,
        report: &mut ScanReport,
    ) -> Option<u64> {
        let sequence = sequence_by_images(&read.bytes[..self.block_bytes], first..next)?;
        report.damaged += 1;
        self.tell_damage(read.block, &(0..BLOCK_HEADER_BYTES));
        Some(sequence)
    }

    fn visit_block(
        &self,
        read: &ReadBlock,
        sequence: u64,
        visit: &mut dyn FnMut(ImageView<'_>, Location) -> ScanVerdict,
        replaced: &mut dyn FnMut(Location),
        report: &mut ScanReport,
    ) {
        let block = read.block;
        self.state.lock().blocks[block as usize].sequence = sequence;
        for piece in Walk::new(&read.bytes[..self.block_bytes], sequence) {
            match piece {
                Piece::Image { at, image } => {
                    report.images += 1;
                    let location = self.location(block, at, image.bytes().len());
                    match visit(image, location) {
                        ScanVerdict::Stale => {}
                        ScanVerdict::Live { replaced: old } => {
                            self.adopt(location);
                            if let Some(old) = old {
                                replaced(old);
                            }
                        }
                    }
                }
                Piece::Damage(range) => {
                    report.damaged += 1;
                    self.tell_damage(block, &range);
                }
            }
        }
    }

    fn adopt(&self, location: Location) {
        let (block, _) = self.place(location);
        let bytes = location.bytes();
        self.blocks[block as usize]
            .live
            .fetch_add(bytes as u32, Ordering::AcqRel);
        self.used_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
