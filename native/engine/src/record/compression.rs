//! Compressed record images. Header, set name and user key stay as they are; what follows them, the bins, is one
//! compressed block, where that makes the stored image smaller:
//!
//! ```text
//! header with COMPRESSED; set name; user key;
//! u32 bytes of the bins and their padding   u32 bytes of the compressed block (low 24 bits), algorithm (high 8: 1 lz4, 2 zstd)
//! compressed block; zero padding to 16
//! ```
//!
//! All readers are given the plain image; see [`inflate`]. What copies images as a whole copies them as they are.

use std::cell::RefCell;

use serde::Deserialize;

use super::image::{
    IMAGE_UNIT_BYTES, ImageView, RECORD_BYTES_MAX, image_flag, resize_image, u32_at,
};
use crate::tunable::Word;

const HEADER_BYTES: usize = 8;
const BLOCK_BITS: u32 = 24;
const BLOCK_MAX: usize = (1 << BLOCK_BITS) - 1;
const _: () = assert!(RECORD_BYTES_MAX <= BLOCK_MAX);
const LZ4: u32 = 1;
const ZSTD: u32 = 2;

/// Buffers above it are not kept for a thread's next record.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What new versions are compressed with. Both forms are read at all times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompressionKind {
    #[default]
    None,
    Lz4,
    Zstd,
}

impl Word for CompressionKind {
    fn to_word(self) -> u64 {
        self as u64
    }

    fn from_word(word: u64) -> Self {
        [Self::None, Self::Lz4, Self::Zstd][word as usize]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compression {
    pub algorithm: CompressionKind,
    /// Of zstd: 1 is fastest, 9 smallest.
    pub level: u8,
}

/// Why a compressed image is none, though its checksum holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InflateError {
    #[error("the compressed block is cut short")]
    Truncated,
    #[error("{bytes} bytes of bins, more than a record can have")]
    Size { bytes: usize },
    #[error("compression algorithm {0} is not known")]
    Algorithm(u32),
    #[error("the compressed block does not hold {bytes} bytes of bins")]
    Block { bytes: usize },
}

/// Appends the compressed form of a finished image to `out`, which is emptied first. False if it would not be smaller:
/// then the image is to be stored as it is.
pub fn compress(image: &[u8], with: Compression, out: &mut Vec<u8>) -> bool {
    #[cfg(test)]
    tests::COMPRESSED.set(tests::COMPRESSED.get() + 1);
    let view = ImageView::trusted(image);
    let Some(from) = view.bins_at().filter(|_| !view.is_tombstone()) else {
        return false;
    };
    let bins = &image[from..];
    // Padding included, which compresses well and spares a length.
    let room = (image.len() - from).saturating_sub(HEADER_BYTES + IMAGE_UNIT_BYTES);
    out.clear();
    out.extend_from_slice(&image[..from]);
    out.extend_from_slice(&(bins.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let block_at = out.len();
    let (algorithm, block) = match with.algorithm {
        CompressionKind::None => return false,
        CompressionKind::Lz4 => {
            out.resize(
                block_at + lz4_flex::block::get_maximum_output_size(bins.len()),
                0,
            );
            (
                LZ4,
                lz4_flex::block::compress_into(bins, &mut out[block_at..]).ok(),
            )
        }
        CompressionKind::Zstd => {
            out.resize(block_at + room, 0);
            let to = &mut out[block_at..];
            (
                ZSTD,
                with_compressor(with.level, |zstd| zstd.compress_to_buffer(bins, to).ok()),
            )
        }
    };
    let Some(block) = block.filter(|block| *block <= room) else {
        return false;
    };
    let word = block as u32 | algorithm << BLOCK_BITS;
    out[block_at - 4..block_at].copy_from_slice(&word.to_le_bytes());
    out.truncate(block_at + block);
    resize_image(out, view.flags() | image_flag::COMPRESSED);
    out.len() < image.len()
}

/// A version that is compressed before it is known which header it gets, and before the lock is taken under which that is
/// decided: most often the bins are the same then.
#[derive(Default)]
pub struct CompressedAhead {
    plain: Vec<u8>,
    /// With what it was compressed, and where the bins of `plain` begin; `None` when there is nothing.
    made: Option<(Compression, usize)>,
    /// The compressed form, if it is smaller.
    stored: Vec<u8>,
    is_smaller: bool,
}

impl CompressedAhead {
    /// Compresses the image that `build` makes, if it makes one.
    pub fn prepare(&mut self, with: Compression, build: impl FnOnce(&mut Vec<u8>) -> bool) {
        self.made = None;
        if build(&mut self.plain) {
            #[cfg(test)]
            tests::PREPARED.set(tests::PREPARED.get() + 1);
            self.is_smaller = compress(&self.plain, with, &mut self.stored);
            let bins_at = ImageView::trusted(&self.plain).bins_at();
            self.made = bins_at.map(|bins_at| (with, bins_at));
        }
    }

    /// As [`compress`], if what was prepared has the bins of this image. `None` if not. What was prepared is gone
    /// afterwards.
    pub fn take(&mut self, image: &[u8], with: Compression, out: &mut Vec<u8>) -> Option<bool> {
        let made = self.made.take();
        let view = ImageView::trusted(image);
        let from = view.bins_at().filter(|from| made == Some((with, *from)))?;
        if image[from..] != self.plain[from..] {
            return None;
        }
        if self.is_smaller {
            out.clear();
            out.extend_from_slice(&image[..from]);
            out.extend_from_slice(&self.stored[from..]);
            resize_image(out, view.flags() | image_flag::COMPRESSED);
        }
        Some(self.is_smaller)
    }

    /// Gives memory back that most records do not need.
    pub fn trim(&mut self) {
        for buffer in [&mut self.plain, &mut self.stored] {
            if buffer.capacity() > KEPT_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
    }
}

/// Writes the plain form of a compressed image into `out`, which is emptied first.
pub fn inflate(view: &ImageView<'_>, out: &mut Vec<u8>) -> Result<(), InflateError> {
    let image = view.bytes();
    let from = view.bins_at().ok_or(InflateError::Truncated)?;
    let block_at = from + HEADER_BYTES;
    if block_at > image.len() {
        return Err(InflateError::Truncated);
    }
    let bytes = u32_at(image, from) as usize;
    let word = u32_at(image, from + 4);
    let block = image
        .get(block_at..block_at + (word as usize & BLOCK_MAX))
        .ok_or(InflateError::Truncated)?;
    // Checked before it sizes anything.
    if from + bytes > RECORD_BYTES_MAX {
        return Err(InflateError::Size { bytes });
    }
    out.clear();
    out.extend_from_slice(&image[..from]);
    out.resize(from + bytes, 0);
    let to = &mut out[from..];
    let inflated = match word >> BLOCK_BITS {
        LZ4 => lz4_flex::block::decompress_into(block, to).ok(),
        ZSTD => with_decompressor(|zstd| zstd.decompress_to_buffer(block, to).ok()),
        other => return Err(InflateError::Algorithm(other)),
    };
    if inflated != Some(bytes) {
        return Err(InflateError::Block { bytes });
    }
    resize_image(out, view.flags() & !image_flag::COMPRESSED);
    Ok(())
}

/// Gives `f` the plain form of an image, which is the image itself unless it is compressed.
pub fn with_plain<R>(
    view: &ImageView<'_>,
    f: impl FnOnce(&ImageView<'_>) -> R,
) -> Result<R, InflateError> {
    thread_local! {
        static PLAIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    if view.flags() & image_flag::COMPRESSED == 0 {
        return Ok(f(view));
    }
    // Taken out, so that `f` may come here again.
    let mut plain = PLAIN.take();
    let result = inflate(view, &mut plain).map(|()| f(&ImageView::trusted(&plain)));
    if plain.capacity() <= KEPT_BYTES_MAX {
        PLAIN.set(plain);
    }
    result
}

fn with_compressor<R>(
    level: u8,
    f: impl FnOnce(&mut zstd::bulk::Compressor<'static>) -> Option<R>,
) -> Option<R> {
    thread_local! {
        static CONTEXT: RefCell<Option<(u8, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| {
        if context
            .as_ref()
            .is_none_or(|(made_for, _)| *made_for != level)
        {
            *context = zstd::bulk::Compressor::new(i32::from(level))
                .ok()
                .map(|zstd| (level, zstd));
        }
        f(&mut context.as_mut()?.1)
    })
}

fn with_decompressor<R>(
    f: impl FnOnce(&mut zstd::bulk::Decompressor<'static>) -> Option<R>,
) -> Option<R> {
    thread_local! {
        static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = zstd::bulk::Decompressor::new().ok();
        }
        f(context.as_mut()?)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::image::{ImageBuilder, ImageHeader, seal};
    use proptest::prelude::*;

    thread_local! {
        /// How often this thread compressed something.
        pub(crate) static COMPRESSED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
        /// How often that was ahead.
        pub(crate) static PREPARED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    fn with(algorithm: CompressionKind) -> Compression {
        Compression {
            algorithm,
            level: 3,
        }
    }

    fn image(set: &[u8], key: Option<&[u8]>, bins: &[(String, Vec<u8>)]) -> Vec<u8> {
        let header = ImageHeader {
            digest: [7; 20],
            last_update_time: 123_456,
            generation: 9,
            void_time: 77,
            flags: image_flag::XDR_WRITE | image_flag::COVERS,
        };
        let mut buffer = Vec::new();
        let mut builder = ImageBuilder::begin(&mut buffer, &header, set, key);
        for (name, value) in bins {
            builder.bin(name.as_bytes(), 4, value);
        }
        builder.finish();
        buffer
    }

    #[test]
    fn repetitive_bins_shrink_and_read_back_and_the_header_stays_readable() {
        let plain = image(
            b"users",
            Some(b"\x03anna"),
            &[("text".into(), b"abcd".repeat(300))],
        );
        for algorithm in [CompressionKind::Lz4, CompressionKind::Zstd] {
            let mut stored = Vec::new();
            assert!(compress(&plain, with(algorithm), &mut stored));
            assert!(
                stored.len() < plain.len() / 5,
                "{algorithm:?} {}",
                stored.len()
            );
            seal(&mut stored, 5);
            let view = ImageView::verify(&stored, Some(5)).expect("an image");
            assert_eq!(
                (view.set_name(), view.key()),
                (&b"users"[..], Some(&b"\x03anna"[..]))
            );
            assert_eq!(
                (view.generation(), view.void_time(), view.n_bins()),
                (9, 77, 1)
            );
            let mut again = Vec::new();
            inflate(&view, &mut again).expect("a whole block");
            // All but the seal, which is of the stored form.
            assert_eq!(again[4..8], plain[4..8]);
            assert_eq!(again[12..], plain[12..]);
        }
    }

    #[test]
    fn what_was_compressed_ahead_serves_for_the_same_bins_alone() {
        let bins = [("text".to_owned(), b"abcd".repeat(300))];
        let prepared = image(b"users", None, &bins);
        let mut wanted = image(b"users", None, &bins);
        wanted[12..32].fill(9);
        crate::record::image::add_flags(&mut wanted, image_flag::TIES);
        let mut ahead = CompressedAhead::default();
        let mut prepare = |image: &[u8]| {
            ahead.prepare(with(CompressionKind::Lz4), |to| {
                image.clone_into(to);
                true
            });
            let mut out = Vec::new();
            let taken = ahead.take(&wanted, with(CompressionKind::Lz4), &mut out);
            let again = ahead.take(&wanted, with(CompressionKind::Lz4), &mut Vec::new());
            assert_eq!(again, None, "only once");
            (taken, out)
        };
        let mut expected = Vec::new();
        assert!(compress(&wanted, with(CompressionKind::Lz4), &mut expected));
        assert_eq!(prepare(&prepared), (Some(true), expected));
        let other = image(b"users", None, &[("text".to_owned(), b"abce".repeat(300))]);
        assert_eq!(prepare(&other), (None, vec![]));
        assert_eq!(prepare(&image(b"user", None, &bins)).0, None);
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        let noise: Vec<u8> = (0..200u32)
            .flat_map(|i| crc32c::crc32c(&i.to_le_bytes()).to_le_bytes())
            .collect();
        for algorithm in [CompressionKind::Lz4, CompressionKind::Zstd] {
            let mut out = Vec::new();
            assert!(!compress(
                &image(b"", None, &[("n".into(), noise.clone())]),
                with(algorithm),
                &mut out
            ));
            assert!(!compress(
                &image(b"", None, &[("n".into(), vec![1; 8])]),
                with(algorithm),
                &mut out
            ));
        }
    }

    #[test]
    fn lengths_are_checked_before_they_size_anything() {
        let plain = image(b"", None, &[("text".into(), b"abcd".repeat(300))]);
        let mut stored = Vec::new();
        assert!(compress(&plain, with(CompressionKind::Lz4), &mut stored));
        let from = ImageView::trusted(&stored).bins_at().expect("bins");
        let check = |at: usize, bytes: &[u8]| {
            let mut damaged = stored.clone();
            damaged[from + at..from + at + bytes.len()].copy_from_slice(bytes);
            inflate(&ImageView::trusted(&damaged), &mut Vec::new()).unwrap_err()
        };
        assert_eq!(
            check(0, &[0xff; 4]),
            InflateError::Size { bytes: 0xffff_ffff }
        );
        assert_eq!(check(4, &[0xff; 3]), InflateError::Truncated);
        assert_eq!(check(7, &[9]), InflateError::Algorithm(9));
        assert!(matches!(
            check(0, &[1, 0, 0, 0]),
            InflateError::Block { bytes: 1 }
        ));
    }

    proptest! {
        #[test]
        fn every_record_comes_back(
            set in "[a-z]{0,10}",
            key in prop::option::of(prop::collection::vec(any::<u8>(), 1..30)),
            bins in prop::collection::vec(("[a-z]{1,15}", prop::collection::vec(0..4u8, 0..400)), 1..8),
            zstd in any::<bool>(),
        ) {
            let plain = image(set.as_bytes(), key.as_deref(), &bins);
            let algorithm = if zstd { CompressionKind::Zstd } else { CompressionKind::Lz4 };
            let mut stored = Vec::new();
            if compress(&plain, with(algorithm), &mut stored) {
                prop_assert!(stored.len() < plain.len());
                let mut again = Vec::new();
                inflate(&ImageView::trusted(&stored), &mut again).unwrap();
                prop_assert_eq!(again, plain);
            }
        }

        #[test]
        fn damaged_blocks_are_told_and_never_read_out_of_bounds(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            zstd in any::<bool>(),
        ) {
            let plain = image(b"demo", None, &[("text".into(), b"abcdefgh".repeat(100))]);
            let algorithm = if zstd { CompressionKind::Zstd } else { CompressionKind::Lz4 };
            let mut stored = Vec::new();
            prop_assert!(compress(&plain, with(algorithm), &mut stored));
            for (at, value) in flips {
                let at = at.index(stored.len());
                stored[at] = value;
            }
            let mut out = Vec::new();
            if inflate(&ImageView::trusted(&stored), &mut out).is_ok() {
                let view = ImageView::trusted(&out);
                prop_assert!(view.bins().count() <= view.n_bins());
            }
        }
    }
}
