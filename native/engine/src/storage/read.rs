//! Reading a record: from memory if its block is there, else from the device, by whoever can wait.
//!
//! A device read takes no lock: a request learns under its partition's lock that it needs the device,
//! lets go, has the pages fetched (by [`Store::read_device`], or by a network loop that submits
//! [`Store::record_read`] itself), has them checked by [`Store::finish_read`], and looks its record
//! up again.

use super::device::Device;
use super::error::ReadError;
use super::medium::{AlignedBuf, Medium, PAGE_BYTES};
use super::{ReadNow, Store};
use crate::index::Location;
use crate::record::image::ImageView;
use std::io;
use std::sync::Arc;

const CACHE_LINE_BYTES: usize = 64;
/// Beyond these the processor's own prefetching has caught on.
const PREFETCH_BYTES_MAX: usize = 4 * CACHE_LINE_BYTES;

/// The whole pages in which an image lies, to be read by someone else than the store.
pub struct RecordRead {
    pub medium: Arc<dyn Medium>,
    /// A multiple of the page size, as is `bytes`.
    pub offset: u64,
    pub bytes: usize,
}

impl Store {
    /// Runs `f` on the image at `location` if it is in memory. The caller holds the record's
    /// partition lock and has the location from the index, so the block cannot be reused meanwhile.
    pub fn read<R>(&self, location: Location, f: impl FnOnce(&[u8]) -> R) -> ReadNow<R> {
        self.device(location.device()).read(location, f)
    }

    /// Asks the processor for the image at `location`, if that is in mapped memory: reads of many records that lie anywhere would wait for
    /// one after the other.
    pub fn prefetch(&self, location: Location) {
        self.device(location.device()).prefetch(location);
    }

    /// What has to be read to have the image at `location`. [`Store::finish_read`] takes the outcome.
    pub fn record_read(&self, location: Location) -> RecordRead {
        let (offset, bytes, _) = pages(location);
        RecordRead {
            medium: Arc::clone(&self.device(location.device()).medium),
            offset,
            bytes,
        }
    }

    /// The image at `location` out of the pages that [`Store::record_read`] asked for, its checksum
    /// verified. No lock was held, so the block may have been reused: the caller compares digest,
    /// last-update time and generation with the index before it believes the image, and the location
    /// before it believes [`ReadError::Corrupt`].
    pub fn finish_read<'a>(
        &self,
        location: Location,
        pages: &'a [u8],
        outcome: io::Result<()>,
    ) -> Result<ImageView<'a>, ReadError> {
        self.device(location.device())
            .finish_read(location, pages, outcome)
    }

    /// Reads the image at `location` from its device into `buffer`, blocking. As with
    /// [`Store::finish_read`], what comes is to be compared with the index.
    pub fn read_device<'a>(
        &self,
        location: Location,
        buffer: &'a mut AlignedBuf,
    ) -> Result<ImageView<'a>, ReadError> {
        let read = self.record_read(location);
        buffer.reserve(read.bytes);
        let pages = &mut buffer[..read.bytes];
        let outcome = read.medium.read_at(read.offset, pages);
        self.finish_read(location, pages, outcome)
    }

    /// The image at `location` turned out damaged while the index named it: counts that, once for each
    /// block.
    pub fn tell_damage(&self, location: Location) {
        let device = self.device(location.device());
        let (block, at) = device.place(location);
        device.tell_damage(block, &(at..at + location.bytes()));
    }
}

impl Device {
    fn prefetch(&self, location: Location) {
        let Some(mapping) = &self.mapping else {
            return;
        };
        let (block, at) = self.place(location);
        let offset = self.block_offset(block) as usize + at;
        for line in (0..location.bytes().min(PREFETCH_BYTES_MAX)).step_by(CACHE_LINE_BYTES) {
            // SAFETY: `place` checked that the range is in a block of the device, which the mapping covers.
            let address = unsafe { mapping.start().as_ptr().add(offset + line) };
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch touches no memory that the program can see, whatever the address.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(address.cast_const().cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = address;
        }
    }

    fn read<R>(&self, location: Location, f: impl FnOnce(&[u8]) -> R) -> ReadNow<R> {
        let (block, at) = self.place(location);
        if let Some(mapping) = &self.mapping {
            let offset = self.block_offset(block) as usize + at;
            // SAFETY: `place` checked that the range is in a block of the device, which the mapping
            // covers. The caller has the location from the index and holds the record's lock, so
            // the record was appended before, and its block is not freed while it is live.
            let bytes = unsafe {
                std::slice::from_raw_parts(mapping.start().as_ptr().add(offset), location.bytes())
            };
            return ReadNow::InMemory(f(bytes));
        }
        // The reference keeps the buffer from being reused; the lock is not held while `f` runs,
        // which may append.
        let buffer = self.blocks[block as usize].buffer.read().clone();
        match buffer {
            Some(buffer) => {
                // SAFETY: as above for what was appended; the reference is held.
                let bytes = unsafe { buffer.slice(at..at + location.bytes()) };
                ReadNow::InMemory(f(bytes))
            }
            None => ReadNow::NeedsDevice,
        }
    }

    fn finish_read<'a>(
        &self,
        location: Location,
        pages: &'a [u8],
        outcome: io::Result<()>,
    ) -> Result<ImageView<'a>, ReadError> {
        self.counters.device_reads.add(1);
        let (device, offset, bytes) = (self.index, location.offset(), location.bytes());
        if let Err(source) = outcome {
            self.count_read_error();
            return Err(ReadError::Io {
                device,
                offset,
                bytes,
                source,
            });
        }
        let (_, _, skip) = self::pages(location);
        ImageView::verify(&pages[skip..skip + bytes], None).map_err(|source| ReadError::Corrupt {
            device,
            offset,
            bytes,
            source,
        })
    }
}

/// Offset and length of the pages that hold an image, and where in them it starts.
fn pages(location: Location) -> (u64, usize, usize) {
    let page = PAGE_BYTES as u64;
    let from = location.offset() / page * page;
    let end = (location.offset() + location.bytes() as u64).next_multiple_of(page);
    let skip = (location.offset() - from) as usize;
    (from, (end - from) as usize, skip)
}
