//! The bytes of one write block in memory, and the walk over the images in them.

use super::medium::{AlignedBuf, Mapping};
use crate::record::image::{BLOCK_HEADER_BYTES, FILLER_BYTES, IMAGE_UNIT_BYTES, ImageView};
use crate::shared::PooledBlock;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory of one block, appended to by one thread while others read.
///
/// The rule that keeps this sound: bytes at and above a block's append position are touched only
/// under its device's lock, and bytes below it are not written again until the block is free, when
/// no index entry leads to it any more.
pub(super) struct BlockBuf {
    start: NonNull<u8>,
    bytes: usize,
    owner: Owner,
}

/// Held to keep the memory that `start` points to.
enum Owner {
    Heap { _buffer: AlignedBuf },
    Mapped { _mapping: Arc<Mapping> },
    Shared(PooledBlock),
}

// SAFETY: the memory is owned or held by an Arc; access follows the rule above.
unsafe impl Send for BlockBuf {}
// SAFETY: as above.
unsafe impl Sync for BlockBuf {}

impl BlockBuf {
    pub(super) fn heap(bytes: usize) -> BlockBuf {
        let buffer = AlignedBuf::new(bytes);
        BlockBuf {
            start: buffer.start(),
            bytes,
            owner: Owner::Heap { _buffer: buffer },
        }
    }

    /// Memory of a shared file, from where another process can write it to the device.
    pub(super) fn shared(block: PooledBlock, bytes: usize) -> BlockBuf {
        BlockBuf {
            start: block.start(),
            bytes,
            owner: Owner::Shared(block),
        }
    }

    /// The memory holds this block from now on, complete up to `position` and not yet written. Like the
    /// following, this tells a process that comes after this one, if the memory is shared.
    pub(super) fn begin(&self, device: u8, block: u32, sequence: u64, position: usize) {
        if let Owner::Shared(shared) = &self.owner {
            shared.begin(device, block, sequence, position);
        }
    }

    /// The block is complete up to `position`. After live bytes were counted: see `attach.rs`.
    #[inline]
    pub(super) fn note_position(&self, position: usize) {
        if let Owner::Shared(shared) = &self.owner {
            shared.note_position(position);
        }
    }

    /// The block is written up to `to`.
    pub(super) fn note_written(&self, to: usize) {
        if let Owner::Shared(shared) = &self.owner {
            shared.note_written(to);
        }
    }

    /// The block is written.
    pub(super) fn end(&self) {
        if let Owner::Shared(shared) = &self.owner {
            shared.end();
        }
    }

    /// The block at `offset` of a medium that is memory itself.
    pub(super) fn mapped(mapping: &Arc<Mapping>, offset: usize, bytes: usize) -> BlockBuf {
        assert!(offset + bytes <= mapping.bytes());
        // SAFETY: the offset is within the mapping, as just asserted.
        let start = unsafe { mapping.start().add(offset) };
        BlockBuf {
            start,
            bytes,
            owner: Owner::Mapped {
                _mapping: Arc::clone(mapping),
            },
        }
    }

    /// # Safety
    ///
    /// The range lies below the append position, and the block is not freed while the slice lives
    /// (or, for a buffer on the heap, not reused: holding an `Arc` is enough).
    pub(super) unsafe fn slice(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.bytes);
        // SAFETY: in bounds and initialised (the memory starts zeroed); not written, by contract.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.len()) }
    }

    /// # Safety
    ///
    /// The range lies at or above the append position, and the device's lock is held.
    pub(super) unsafe fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.bytes);
        // SAFETY: in bounds; nobody else touches the range, by contract, so `bytes` is not in it.
        unsafe {
            let to = self.start.as_ptr().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// # Safety
    ///
    /// As for `write`.
    pub(super) unsafe fn zero(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.bytes);
        // SAFETY: as in `write`.
        unsafe {
            self.start
                .as_ptr()
                .add(range.start)
                .write_bytes(0, range.len())
        }
    }
}

/// What a walk meets.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Image {
        at: usize,
        image: ImageView<'a>,
    },
    /// Bytes that do not verify, before others that do: they were written, and have changed since.
    Damage(Range<usize>),
}

/// The images of a block, in the order they were written, without fillers.
///
/// Where an image should start and none verifies, the walk goes on by 16 bytes until one does. If
/// none follows, the rest is what the block held before, or the end of a write that did not
/// complete: no data was ever acknowledged there.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    sequence: u64,
}

impl<'a> Walk<'a> {
    /// `bytes` is a block, or as much of it as can hold images.
    pub(super) fn new(bytes: &'a [u8], sequence: u64) -> Walk<'a> {
        Walk {
            bytes,
            at: BLOCK_HEADER_BYTES,
            sequence,
        }
    }

    fn verify(&self, at: usize) -> Option<ImageView<'a>> {
        ImageView::verify(&self.bytes[at..], Some(self.sequence)).ok()
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        while self.at + FILLER_BYTES <= self.bytes.len() {
            let at = self.at;
            let Some(image) = self.verify(at) else {
                let next = (at..=self.bytes.len() - FILLER_BYTES)
                    .step_by(IMAGE_UNIT_BYTES)
                    .find(|next| self.verify(*next).is_some());
                self.at = next.unwrap_or(self.bytes.len());
                return next.map(|next| Piece::Damage(at..next));
            };
            self.at += image.bytes().len();
            if !image.is_filler() {
                return Some(Piece::Image { at, image });
            }
        }
        None
    }
}

/// The sequence, of those that can be, that the first whole image of a block was sealed for: what is
/// left to go by when the block's header is damaged.
pub(super) fn sequence_by_images(bytes: &[u8], sequences: Range<u64>) -> Option<u64> {
    let count = sequences.end.saturating_sub(sequences.start);
    (BLOCK_HEADER_BYTES..=bytes.len() - FILLER_BYTES)
        .step_by(IMAGE_UNIT_BYTES)
        .find_map(|at| {
            // Checksums come last: in foreign bytes, any 16 may claim to start a large image.
            let low = ImageView::trusted(&bytes[at..]).block_sequence();
            let distance = u64::from(low.wrapping_sub(sequences.start as u32));
            let sequence = sequences.start.checked_add(distance)?;
            let verifies = || ImageView::verify(&bytes[at..], Some(sequence)).is_ok();
            (distance < count && verifies()).then_some(sequence)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::image::{ImageBuilder, ImageHeader, seal, write_filler};

    const SEQUENCE: u64 = 9;
    const BLOCK_BYTES: usize = 1024;

    fn block(images: &[(u8, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_HEADER_BYTES];
        for (digest, sequence) in images {
            let header = ImageHeader {
                digest: [*digest; 20],
                last_update_time: 1,
                generation: 1,
                void_time: 0,
                flags: 0,
            };
            let image = ImageBuilder::begin(&mut bytes, &header, b"", None).finish();
            seal(image, *sequence);
        }
        bytes.resize(BLOCK_BYTES, 0);
        bytes
    }

    fn walk(bytes: &[u8]) -> Vec<String> {
        Walk::new(bytes, SEQUENCE)
            .map(|piece| match piece {
                Piece::Image { image, .. } => image.digest()[0].to_string(),
                Piece::Damage(range) => format!("damage {range:?}"),
            })
            .collect()
    }

    #[test]
    fn zeroes_and_former_lives_end_a_walk_silently() {
        assert_eq!(walk(&block(&[(1, 9), (2, 9)])), ["1", "2"]);
        assert_eq!(walk(&block(&[(1, 9), (2, 8), (3, 8)])), ["1"]);
        assert!(walk(&block(&[])).is_empty());
    }

    #[test]
    fn damage_before_whole_images_is_told() {
        let mut bytes = block(&[(1, 9), (2, 9), (3, 9)]);
        bytes[BLOCK_HEADER_BYTES + 48 + 30] ^= 4;
        assert_eq!(walk(&bytes), ["1", "damage 80..128", "3"]);
        bytes[BLOCK_HEADER_BYTES + 96 + 30] ^= 4;
        assert_eq!(walk(&bytes), ["1"]);
    }

    #[test]
    fn fillers_are_stepped_over() {
        let mut bytes = block(&[(1, 9), (2, 9), (3, 9)]);
        write_filler(&mut bytes[BLOCK_HEADER_BYTES + 48..], 48, SEQUENCE);
        assert_eq!(walk(&bytes), ["1", "3"]);
        write_filler(
            &mut bytes[BLOCK_HEADER_BYTES + 48..],
            BLOCK_BYTES - 80,
            SEQUENCE,
        );
        assert_eq!(walk(&bytes), ["1"]);
    }

    #[test]
    fn sequence_is_found_without_a_header() {
        assert_eq!(sequence_by_images(&block(&[(1, 77)]), 70..78), Some(77));
        assert_eq!(sequence_by_images(&block(&[]), 0..78), None);
        let high = 5 << 32 | 3;
        let sequences = high - 9..high + 1;
        assert_eq!(
            sequence_by_images(&block(&[(1, high)]), sequences),
            Some(high)
        );
    }

    #[test]
    fn images_of_sequences_that_cannot_be_do_not_name_the_block() {
        let images = block(&[(1, 5), (2, 78), (3, 77), (4, 70)]);
        assert_eq!(sequence_by_images(&images, 70..78), Some(77));
        assert_eq!(sequence_by_images(&images, 6..70), None);
        assert_eq!(sequence_by_images(&images, 5..5), None);
    }

    #[test]
    fn foreign_bytes_are_looked_through_without_their_checksums() {
        // Every 16 bytes claim to be an image of all that follows, of a sequence that cannot be.
        let units = (2 << 20) / IMAGE_UNIT_BYTES;
        let mut bytes = vec![0; units * IMAGE_UNIT_BYTES];
        for (i, unit) in bytes.chunks_mut(IMAGE_UNIT_BYTES).enumerate() {
            unit[4..8].copy_from_slice(&((units - i) as u32).to_le_bytes());
            unit[8..12].copy_from_slice(&9_u32.to_le_bytes());
        }
        // With checksums these are 137 GB to go through.
        let started = std::time::Instant::now();
        assert_eq!(sequence_by_images(&bytes, 10..1 << 20), None);
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
    }
}
