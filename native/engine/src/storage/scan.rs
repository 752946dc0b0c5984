//! Reading the devices from end to end when a store opens: every image that verifies is shown to the
//! namespace, which keeps the newest of each record, and what is live in each block follows from that.
//!
//! Several threads read whole blocks, verify them and have them adopted, each with a buffer of its
//! own: while some wait for the device, others check what they have read. So blocks come in no
//! particular order, and what the namespace keeps must not depend on it.

use super::device::{Device, Phase};
use super::header::{BlockHeader, DeviceHeader, FoundBlock, LEASE_OFFSETS, Lease, decode_lease};
use super::medium::{AlignedBuf, PAGE_BYTES};
use super::write_block::{Piece, Walk, sequence_by_images};
use super::{Rebuild, ScanError, ScanReport, Store};
use crate::index::Location;
use crate::progress::{OpenPhase, OpenProgress};
use crate::record::image::BLOCK_HEADER_BYTES;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reads in flight that keep a device busy.
const THREADS_PER_DEVICE: usize = 4;
/// One reads while another checks.
const THREADS_PER_CPU: usize = 2;
/// Bound of the buffers of all threads.
const BUFFER_BYTES_MAX: usize = 512 << 20;
/// Block headers read in one go.
const HEADERS_AT_ONCE: usize = 64;

/// In the ledger, of a block that holds no image of this device.
pub(super) const SEQUENCE_UNKNOWN: u64 = u64::MAX;

/// A block by device and index, and its header as it was found.
pub(super) type Found = (u8, u32, FoundBlock);

/// What one thread, or all of them, came upon.
#[derive(Default)]
struct Findings {
    report: ScanReport,
    /// Blocks with a page that does not read.
    lost: Vec<(u8, u32)>,
}

impl Store {
    /// Shows every image that verifies to `rebuild`, then counts what is live. Once only, after
    /// opening and before anything else. `progress` may end it early.
    ///
    /// Dead images turn up as long as their block was not freed, also of records that were deleted
    /// without leaving a tombstone.
    pub fn scan(
        &self,
        rebuild: &dyn Rebuild,
        progress: &OpenProgress,
    ) -> Result<ScanReport, ScanError> {
        let threads = scan_threads(self.devices.len(), self.config.write_block_bytes as usize);
        self.scan_with(rebuild, progress, threads, |_| {})
    }

    /// As `scan`, with a number of threads, and blocks in the order that `arrange` puts them into.
    pub(super) fn scan_with(
        &self,
        rebuild: &dyn Rebuild,
        progress: &OpenProgress,
        threads: usize,
        arrange: impl FnOnce(&mut [Found]),
    ) -> Result<ScanReport, ScanError> {
        if self.scanned.swap(true, Ordering::AcqRel) {
            return Err(ScanError::AlreadyScanned);
        }
        progress.begin(OpenPhase::Cold);
        let mut found = self.find_blocks(threads, progress);
        for (device, header) in self.devices.iter().zip(&self.headers) {
            device.set_next_sequence(header, &found);
        }
        let is_blank = |found: &Found| found.2 == FoundBlock::Blank;
        let blank: Vec<(u8, u32)> = found
            .iter()
            .filter(|found| is_blank(found))
            .map(|(device, block, _)| (*device, *block))
            .collect();
        found.retain(|found| !is_blank(found));
        arrange(&mut found);
        progress.expect_bytes(found.len() as u64 * u64::from(self.config.write_block_bytes));

        let next = AtomicUsize::new(0);
        let findings = on_threads(threads.min(found.len()), |_| {
            let mut findings = Findings::default();
            let mut buffer = AlignedBuf::new(self.config.write_block_bytes as usize);
            while !progress.is_cancelled()
                && let Some(found) = found.get(next.fetch_add(1, Ordering::Relaxed))
            {
                self.scan_block(*found, &mut buffer, rebuild, progress, &mut findings);
            }
            findings
        });
        if progress.is_cancelled() {
            // What was not read has no live bytes yet, and must not pass for free.
            return Err(ScanError::Cancelled);
        }
        let mut all = Findings::default();
        for findings in findings {
            all.report.images += findings.report.images;
            all.report.damaged += findings.report.damaged;
            all.report.read_errors += findings.report.read_errors;
            all.lost.extend(findings.lost);
        }
        self.count_live(rebuild);
        for device in &self.devices {
            let of_device = |blocks: &[(u8, u32)]| -> Vec<u32> {
                let here = blocks.iter().filter(|(index, _)| *index == device.index);
                here.map(|(_, block)| *block).collect()
            };
            device.conclude_scan(&of_device(&blank), &of_device(&all.lost), &mut all.report);
        }
        self.begin_run(self.shared.as_ref().map(|(shared, _)| &**shared))?;
        Ok(all.report)
    }

    /// The headers of all blocks, devices in turn so that all of them are kept busy.
    fn find_blocks(&self, threads: usize, progress: &OpenProgress) -> Vec<Found> {
        let of_device = |device: &Device| {
            let blocks = device.blocks.len() as u32;
            let index = device.index;
            (1..blocks)
                .step_by(HEADERS_AT_ONCE)
                .map(move |from| (index, from, blocks.min(from + HEADERS_AT_ONCE as u32)))
        };
        let mut ranges: Vec<(u8, u32, u32)> =
            self.devices.iter().flat_map(|d| of_device(d)).collect();
        ranges.sort_by_key(|(device, from, _)| (*from, *device));
        let next = AtomicUsize::new(0);
        let found = on_threads(threads.min(ranges.len()), |_| {
            let mut found = Vec::new();
            let mut page = AlignedBuf::new(PAGE_BYTES);
            while !progress.is_cancelled()
                && let Some((device, from, to)) = ranges.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let (at, device) = (*device as usize, &self.devices[*device as usize]);
                for block in *from..*to {
                    let header = match self.fresh[at] {
                        true => FoundBlock::Blank,
                        false => device.find_block(block, &mut page),
                    };
                    found.push((device.index, block, header));
                }
            }
            found
        });
        let mut found = found.concat();
        found.sort_unstable_by_key(|(device, block, _)| (*block, *device));
        found
    }

    fn scan_block(
        &self,
        (index, block, found): Found,
        buffer: &mut AlignedBuf,
        rebuild: &dyn Rebuild,
        progress: &OpenProgress,
        findings: &mut Findings,
    ) {
        let device = &self.devices[index as usize];
        let report = &mut findings.report;
        let unreadable_pages = device.read_block(block, buffer);
        if unreadable_pages > 0 {
            report.read_errors += unreadable_pages;
            findings.lost.push((index, block));
        }
        let bytes = &buffer[..device.block_bytes];
        let sequence = match found {
            FoundBlock::Sealed { sequence } => Some(sequence),
            _ => device.salvage_sequence(block, bytes, &self.headers[index as usize], report),
        };
        let before = report.images;
        if let Some(sequence) = sequence {
            // Before the images are shown: which of two copies is the original is told by it.
            device.state.lock().blocks[block as usize].sequence = sequence;
            device.ledger[block as usize]
                .sequence
                .store(sequence, Ordering::Relaxed);
            device.load(block, bytes);
            let mut images = Walk::new(bytes, sequence).filter_map(|piece| match piece {
                Piece::Image { at, image } => {
                    report.images += 1;
                    Some((image, device.location(block, at, image.bytes().len())))
                }
                Piece::Damage(range) => {
                    report.damaged += 1;
                    device.tell_damage(block, &range);
                    None
                }
            });
            rebuild.adopt(&mut images);
            // What an adopter leaves unread is counted all the same.
            images.for_each(drop);
        }
        progress.add(device.block_bytes as u64, report.images - before);
    }

    /// Counts the live bytes of every block from what the namespace kept.
    fn count_live(&self, rebuild: &dyn Rebuild) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let counts = on_threads(threads, |share| {
            let blocks = |device: &std::sync::Arc<Device>| vec![0_u32; device.blocks.len()];
            let mut live: Vec<Vec<u32>> = self.devices.iter().map(blocks).collect();
            rebuild.tell_live(share, threads, &mut |location| {
                let (block, _) = self.devices[location.device() as usize].place(location);
                live[location.device() as usize][block as usize] += location.bytes() as u32;
            });
            live
        });
        for live in counts {
            for (device, live) in self.devices.iter().zip(live) {
                let bytes: u64 = live.iter().map(|bytes| u64::from(*bytes)).sum();
                device.used_bytes.fetch_add(bytes, Ordering::Relaxed);
                for (record, live) in device.ledger.iter().zip(live) {
                    record.live.fetch_add(live, Ordering::AcqRel);
                }
            }
        }
    }

    /// Of two images of one version, true if the one at `location` was written first: the other is a
    /// copy by a defragmentation that may not have completed, and its block is free again without it.
    /// Both lie in blocks of one device that were shown by [`Store::scan`].
    pub fn is_original(&self, location: Location, copy: Location) -> bool {
        let device = self.device(location.device());
        let state = device.state.lock();
        let order = |location: Location| {
            let (block, at) = device.place(location);
            (state.blocks[block as usize].sequence, at)
        };
        order(location) < order(copy)
    }
}

fn scan_threads(devices: usize, block_bytes: usize) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (THREADS_PER_CPU * cpus)
        .max(THREADS_PER_DEVICE * devices)
        .min(BUFFER_BYTES_MAX / block_bytes)
}

/// Runs `work` on threads of its own, which are told their number from 0 on.
pub(super) fn on_threads<R: Send>(threads: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|i| scope.spawn(move || work(i))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, R>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().map(join).collect()
    })
}

impl Device {
    fn find_block(&self, block: u32, page: &mut AlignedBuf) -> FoundBlock {
        match self.medium.read_at(self.block_offset(block), page) {
            Ok(()) => BlockHeader::find(page, self.device_id, self.index, block),
            // Counted when the whole block is read.
            Err(_) => FoundBlock::Unreadable,
        }
    }

    /// Sequences go on where none was used: above the lease, the store's first, and what is found.
    pub(super) fn set_next_sequence(&self, header: &DeviceHeader, found: &[Found]) {
        let here = found.iter().filter(|found| found.0 == self.index);
        let largest = here.filter_map(|(.., found)| match found {
            FoundBlock::Sealed { sequence } => Some(sequence.saturating_add(1)),
            FoundBlock::Blank | FoundBlock::Unreadable => None,
        });
        let largest = largest.max().unwrap_or(0);
        let leased = self.read_lease().limit;
        self.state.lock().next_sequence = header.first_sequence.max(leased).max(largest);
    }

    /// The newest lease, whose place is not the next to be written.
    pub(super) fn read_lease(&self) -> Lease {
        let mut page = AlignedBuf::new(PAGE_BYTES);
        let leases = LEASE_OFFSETS.map(|offset| {
            let read = self.medium.read_at(offset, &mut page);
            read.ok()
                .and_then(|()| decode_lease(&page, self.device_id))
                .unwrap_or_default()
        });
        let newest = usize::from(leases[1].limit > leases[0].limit);
        self.state.lock().lease = newest;
        leases[newest]
    }

    /// Reads a whole block, page by page where it does not read as a whole; returns how many pages
    /// did not.
    pub(super) fn read_block(&self, block: u32, bytes: &mut AlignedBuf) -> u64 {
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
        self.count_read_error();
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
        block: u32,
        bytes: &[u8],
        header: &DeviceHeader,
        report: &mut ScanReport,
    ) -> Option<u64> {
        let next = self.state.lock().next_sequence;
        let sequence = sequence_by_images(bytes, header.first_sequence..next)?;
        report.damaged += 1;
        self.tell_damage(block, &(0..BLOCK_HEADER_BYTES));
        Some(sequence)
    }

    /// Says what each block is good for, once it is known what is live in it.
    fn conclude_scan(&self, blank: &[u32], lost: &[u32], report: &mut ScanReport) {
        let mut state = self.state.lock();
        let (mut is_blank, mut is_lost) = (
            vec![false; self.blocks.len()],
            vec![false; self.blocks.len()],
        );
        blank
            .iter()
            .for_each(|block| is_blank[*block as usize] = true);
        lost.iter()
            .for_each(|block| is_lost[*block as usize] = true);
        for block in (1..self.blocks.len() as u32).rev() {
            let at = block as usize;
            if self.live(block) > 0 {
                report.used_blocks += 1;
                state.blocks[at].phase = Phase::Used;
                // Not appended to again, so whatever it lacks can be gained by compacting it.
                state.blocks[at].filled = self.block_bytes - BLOCK_HEADER_BYTES;
            } else if is_lost[at] {
                state.blocks[at].phase = Phase::Lost;
                self.ledger[at].lost.store(1, Ordering::Relaxed);
            } else if is_blank[at] {
                report.free_blocks += 1;
                state.blocks[at].phase = Phase::Free;
                state.free.push(block);
            } else {
                // To be erased before it is used again, also if it holds something else altogether.
                report.free_blocks += 1;
                state.blocks[at].phase = Phase::Used;
                let sequence = match state.blocks[at].sequence {
                    0 => SEQUENCE_UNKNOWN,
                    sequence => sequence,
                };
                self.ledger[at].sequence.store(sequence, Ordering::Relaxed);
            }
            self.settle(&mut state, block);
        }
    }
}
