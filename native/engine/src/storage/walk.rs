//! Showing every image that lies on the devices of a running store, dead ones too: what a restart would find.
//!
//! What was appended before the walk began is seen, or is gone for good: each block is looked at once, in whatever phase
//! it is, and is passed over only when it is free, so when its erasure is durable. Images that are copied, written or freed
//! while the walk is under way may be seen in both of their places, in one, or, of those appended meanwhile, in none.

use super::Store;
use super::device::{Device, Phase, STREAMS};
use super::medium::{AlignedBuf, PAGE_BYTES};
use super::write_block::{Piece, Walk};
use crate::index::Location;
use crate::record::image::{BLOCK_HEADER_BYTES, ImageView};
use std::time::Duration;

/// Bytes copied out of a mapping under one hold of the device's lock.
const COPY_BYTES: usize = 64 << 10;

/// What became of the walk of a block.
#[derive(PartialEq, Eq)]
enum Seen {
    Whole,
    /// Its bytes are on the device, perhaps, and could not be had.
    Unreadable,
}

/// Where a block's bytes are, and how many of them can hold images.
struct Source {
    sequence: u64,
    end: usize,
    /// They have not all reached the medium, or are cached.
    buffer: Option<std::sync::Arc<super::write_block::BlockBuf>>,
}

impl Store {
    /// Shows every image to `visit`, device by device, with a pause after each block, asked for anew each time, until `stop` says to end. Returns
    /// for each device whether all of it was seen: not if a block of it did not read. No lock is held while `visit` runs.
    pub fn walk(
        &self,
        pause: &dyn Fn() -> Duration,
        stop: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(&ImageView<'_>, Location),
    ) -> Vec<bool> {
        self.walk_part((0, 1), pause, stop, visit)
    }

    /// Blocks of all devices, free ones too.
    pub fn blocks(&self) -> u64 {
        let blocks = |device: &std::sync::Arc<Device>| device.blocks.len() as u64 - 1;
        self.devices.iter().map(blocks).sum()
    }

    /// As `walk`, of one part of all blocks of so many equal parts, which together are the whole: for several threads.
    pub fn walk_part(
        &self,
        (part, parts): (usize, usize),
        pause: &dyn Fn() -> Duration,
        stop: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(&ImageView<'_>, Location),
    ) -> Vec<bool> {
        let mut buffer = AlignedBuf::new(self.config.write_block_bytes as usize);
        let mut walk_device = |device: &Device| {
            for block in (1 + part..device.blocks.len()).step_by(parts) {
                let block = block as u32;
                if stop() || device.walk_block(block, &mut buffer, visit) == Seen::Unreadable {
                    return false;
                }
                let pause = pause();
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
            }
            true
        };
        self.devices.iter().map(|d| walk_device(d)).collect()
    }
}

impl Device {
    fn walk_block(
        &self,
        block: u32,
        buffer: &mut AlignedBuf,
        visit: &mut dyn FnMut(&ImageView<'_>, Location),
    ) -> Seen {
        let source = match self.source(block) {
            Ok(Some(source)) => source,
            Ok(None) => return Seen::Whole,
            Err(unreadable) => return unreadable,
        };
        let Source { sequence, end, .. } = source;
        let bytes: &[u8] = if let Some(cached) = &source.buffer {
            // SAFETY: below the append position, and the reference keeps the buffer from being reused.
            unsafe { cached.slice(0..end) }
        } else if self.mapping.is_some() {
            if !self.copy_mapped(block, sequence, &mut buffer[..end]) {
                return Seen::Whole;
            }
            &buffer[..end]
        } else {
            let pages = end.next_multiple_of(PAGE_BYTES);
            if let Err(error) = self
                .medium
                .read_at(self.block_offset(block), &mut buffer[..pages])
            {
                self.counters.read_errors.add(1);
                tracing::error!(
                    namespace = %self.config.namespace,
                    device = self.index,
                    block,
                    %error,
                    "a block cannot be looked through, since it cannot be read"
                );
                return Seen::Unreadable;
            }
            &buffer[..end]
        };
        // Freed meanwhile, and in use again perhaps: then nothing of the former life ever comes back, and none of these
        // bytes verifies with its sequence, unless they were read before.
        for piece in Walk::new(bytes, sequence) {
            match piece {
                Piece::Image { at, image } => {
                    visit(&image, self.location(block, at, image.bytes().len()));
                }
                // What does not verify now verifies at no later start.
                Piece::Damage(range) => self.tell_damage(block, &range),
            }
        }
        Seen::Whole
    }

    /// `None` for a block without images.
    fn source(&self, block: u32) -> Result<Option<Source>, Seen> {
        let state = self.state.lock();
        let at = state.blocks[block as usize];
        let end = match at.phase {
            Phase::Header | Phase::Free => return Ok(None),
            Phase::Lost => return Err(Seen::Unreadable),
            Phase::Open => {
                let open = |stream| {
                    let open = state.streams[stream as usize].open.as_ref();
                    open.filter(|open| open.block == block)
                };
                let position = STREAMS.into_iter().find_map(open).map(|open| open.position);
                position.expect("an open block is a stream's")
            }
            Phase::Filled | Phase::Used | Phase::Compacting | Phase::Retired => {
                BLOCK_HEADER_BYTES + at.filled
            }
        };
        let buffer = self.blocks[block as usize].buffer.read().clone();
        Ok(Some(Source {
            sequence: at.sequence,
            end,
            buffer,
        }))
    }

    /// Copies a block out of the mapping. False if it is freed meanwhile.
    fn copy_mapped(&self, block: u32, sequence: u64, to: &mut [u8]) -> bool {
        let mapping = self.mapping.as_ref().expect("the caller has looked");
        let from = self.block_offset(block) as usize;
        for (i, piece) in to.chunks_mut(COPY_BYTES).enumerate() {
            let state = self.state.lock();
            let now = &state.blocks[block as usize];
            if now.sequence != sequence || now.phase == Phase::Free {
                return false;
            }
            // SAFETY: within the block, which the mapping covers, and below its append position; the block is not
            // written again before it is free, which it is not while the device's lock is held.
            let bytes = unsafe {
                let start = mapping.start().as_ptr().add(from + i * COPY_BYTES);
                std::slice::from_raw_parts(start, piece.len())
            };
            piece.copy_from_slice(bytes);
        }
        true
    }
}
