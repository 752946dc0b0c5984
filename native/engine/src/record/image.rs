//! The record image: the bytes of one version of a record in a write block. All little endian.
//!
//! ```text
//!  0 u32 crc32c of bytes 4..len (of bytes 4..16 in a filler)
//!  4 u32 size in 16-byte units (low 20 bits), flags (high 12 bits)
//!  8 u32 sequence of the write block (low 32 bits)
//! 12 [20] digest
//! 32 u40 last-update time (ms since 2010-01-01)     37 u8 set name length
//! 38 u16 generation    40 u32 void time (s since 2010-01-01, 0 never)    44 u16 bins
//! 46 u16 reserved      48 ... set name; user key (u32 length, type byte, value) if flagged; bins;
//!                             zero padding to 16
//! bin: u8 name length, u8 particle type, u32 value length, name, value (as on the wire)
//!      type | 0x80: the value is followed by its index and u32 index length, all counted in the value length
//! ```
//!
//! A filler covers bytes that hold no record. Only its first 16 bytes are written and checked, so
//! that closing a block early does not mean writing the rest of it.

use crate::index::Version;
use perigee_wire::Digest;

/// Images start at, and are padded to, multiples of this.
pub const IMAGE_UNIT_BYTES: usize = 16;

const CHECKSUM: usize = 0;
const SIZE: usize = CHECKSUM + 4;
const SEQUENCE: usize = SIZE + 4;
const DIGEST: usize = SEQUENCE + 4;
/// All that a filler has of a header; the digest's place is zero up to here.
pub(crate) const FILLER_BYTES: usize = 16;
const LAST_UPDATE_TIME: usize = DIGEST + size_of::<Digest>();
const LAST_UPDATE_TIME_BYTES: usize = 5;
const SET_LENGTH: usize = LAST_UPDATE_TIME + LAST_UPDATE_TIME_BYTES;
const GENERATION: usize = SET_LENGTH + 1;
const VOID_TIME: usize = GENERATION + 2;
const BINS: usize = VOID_TIME + 4;
const RESERVED: usize = BINS + 2;
/// Bytes before the set name.
pub const IMAGE_HEADER_BYTES: usize = RESERVED + 2;
const _: () = assert!(IMAGE_HEADER_BYTES == 48);

const KEY_LENGTH_BYTES: usize = 4;
const BIN_PARTICLE: usize = 1;
const BIN_VALUE_LENGTH: usize = BIN_PARTICLE + 1;
const BIN_HEADER_BYTES: usize = BIN_VALUE_LENGTH + 4;
/// Of the particle type: the index of a large list or map lies behind it.
const BIN_INDEXED: u8 = 0x80;
const INDEX_LENGTH_BYTES: usize = 4;

const UNITS_BITS: u32 = 20;
const UNITS_MAX: u32 = (1 << UNITS_BITS) - 1;

/// Bytes at the start of a write block that hold no record: see docs/reference/storage-format.md.
pub const BLOCK_HEADER_BYTES: usize = 32;
/// The largest write block.
pub const WRITE_BLOCK_BYTES_MAX: usize = 8 << 20;
/// The largest image that fits into the largest write block.
pub const RECORD_BYTES_MAX: usize = WRITE_BLOCK_BYTES_MAX - BLOCK_HEADER_BYTES;
const _: () = assert!(RECORD_BYTES_MAX / IMAGE_UNIT_BYTES <= UNITS_MAX as usize);

/// Bits of [`ImageHeader::flags`].
pub mod image_flag {
    /// A deletion: no bins.
    pub const TOMBSTONE: u16 = 1;
    /// The user key follows the set name. The builder sets it.
    pub const HAS_KEY: u16 = 1 << 1;
    /// The version came by XDR.
    pub const XDR_WRITE: u16 = 1 << 2;
    /// No record at all: covers bytes up to a page boundary or to the block's end.
    pub const FILLER: u16 = 1 << 3;
    /// The deletion was asked to survive restarts.
    pub const DURABLE: u16 = 1 << 4;
    /// Two bits: how many versions with the same last-update time and generation this one and its predecessors took
    /// the place of, by their content. Format 1 had one bit here, which reads as one.
    pub const TIES: u16 = 0b11 << TIES_SHIFT;
    pub(super) const TIES_SHIFT: u32 = 5;
    /// What follows the user key is compressed.
    pub const COMPRESSED: u16 = 1 << 7;
    /// An older version may lie on the device that must not come back when this one goes.
    pub const COVERS: u16 = 1 << 8;
    /// As many bits as there are.
    pub const ALL: u16 = (1 << 12) - 1;

    /// The bits for a number of ties; counting ends at [`TIES_MAX`](crate::index::TIES_MAX).
    pub fn ties(count: u8) -> u16 {
        u16::from(count.min(crate::index::TIES_MAX)) << TIES_SHIFT
    }
}

/// Why bytes are not an image of the block they were found in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    #[error("checksum {found:#010x} where the bytes give {expected:#010x}")]
    Checksum { expected: u32, found: u32 },
    #[error("sequence {found} in a block of sequence {expected}")]
    Sequence { expected: u32, found: u32 },
    #[error("an image of {needed} bytes where {available} are left")]
    Truncated { needed: usize, available: usize },
    #[error("a size of {bytes} bytes, below the header's")]
    Size { bytes: usize },
}

/// The fixed part of an image that its writer chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageHeader {
    pub digest: Digest,
    /// Milliseconds since 2010-01-01, 40 bits.
    pub last_update_time: u64,
    pub generation: u16,
    /// Seconds since 2010-01-01; 0 never expires.
    pub void_time: u32,
    /// Bits of [`image_flag`]; `HAS_KEY` follows from the key that is given.
    pub flags: u16,
}

/// Appends one image to a buffer: `begin`, `bin` for each bin, `finish`.
pub struct ImageBuilder<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    bins: u16,
    flags: u16,
}

impl<'a> ImageBuilder<'a> {
    /// Starts an image at the end of `buffer`. `set` is empty for a record without one; `key` is the
    /// user key (type byte, then value) if it is stored.
    pub fn begin(
        buffer: &'a mut Vec<u8>,
        header: &ImageHeader,
        set: &[u8],
        key: Option<&[u8]>,
    ) -> ImageBuilder<'a> {
        debug_assert!(header.last_update_time < 1 << (8 * LAST_UPDATE_TIME_BYTES));
        let start = buffer.len();
        buffer.extend_from_slice(&[0; DIGEST]);
        buffer.extend_from_slice(&header.digest);
        buffer.extend_from_slice(&header.last_update_time.to_le_bytes()[..LAST_UPDATE_TIME_BYTES]);
        buffer.push(u8::try_from(set.len()).expect("a set name has at most 63 bytes"));
        buffer.extend_from_slice(&header.generation.to_le_bytes());
        buffer.extend_from_slice(&header.void_time.to_le_bytes());
        buffer.extend_from_slice(&[0; IMAGE_HEADER_BYTES - BINS]);
        debug_assert_eq!(buffer.len() - start, IMAGE_HEADER_BYTES);
        buffer.extend_from_slice(set);
        let mut flags = header.flags & !image_flag::HAS_KEY;
        if let Some(key) = key {
            flags |= image_flag::HAS_KEY;
            buffer.extend_from_slice(&length_u32(key));
            buffer.extend_from_slice(key);
        }
        ImageBuilder {
            buffer,
            start,
            bins: 0,
            flags,
        }
    }

    /// Adds a bin; `value` is in wire form.
    pub fn bin(&mut self, name: &[u8], particle: u8, value: &[u8]) -> &mut Self {
        self.indexed_bin(name, particle, value, None)
    }

    /// Adds a bin with the index that is kept beside a large list or map.
    pub fn indexed_bin(
        &mut self,
        name: &[u8],
        particle: u8,
        value: &[u8],
        index: Option<&[u8]>,
    ) -> &mut Self {
        self.bins = self
            .bins
            .checked_add(1)
            .expect("a record has at most 32767 bins");
        self.buffer
            .push(u8::try_from(name.len()).expect("a bin name has at most 15 bytes"));
        let Some(index) = index else {
            self.buffer.push(particle);
            self.buffer.extend_from_slice(&length_u32(value));
            self.buffer.extend_from_slice(name);
            self.buffer.extend_from_slice(value);
            return self;
        };
        let bytes = value.len() + index.len() + INDEX_LENGTH_BYTES;
        let bytes = u32::try_from(bytes).expect("a value is far below 4 GiB");
        self.buffer.push(particle | BIN_INDEXED);
        self.buffer.extend_from_slice(&bytes.to_le_bytes());
        self.buffer.extend_from_slice(name);
        self.buffer.extend_from_slice(value);
        self.buffer.extend_from_slice(index);
        self.buffer.extend_from_slice(&length_u32(index));
        self
    }

    /// Pads the image and completes its header, all but the seal. An image above
    /// [`RECORD_BYTES_MAX`] is returned too; the store refuses it.
    pub fn finish(self) -> &'a mut [u8] {
        let bytes = (self.buffer.len() - self.start).next_multiple_of(IMAGE_UNIT_BYTES);
        self.buffer.resize(self.start + bytes, 0);
        let image = &mut self.buffer[self.start..];
        put_size(image, self.flags);
        image[BINS..RESERVED].copy_from_slice(&self.bins.to_le_bytes());
        image
    }
}

fn put_size(image: &mut [u8], flags: u16) {
    let units = (image.len() / IMAGE_UNIT_BYTES).min(UNITS_MAX as usize) as u32;
    put_u32(image, SIZE, units | u32::from(flags) << UNITS_BITS);
}

/// Pads an image whose end was replaced and completes its header again, all but the seal.
pub(super) fn resize_image(image: &mut Vec<u8>, flags: u16) {
    image.resize(image.len().next_multiple_of(IMAGE_UNIT_BYTES), 0);
    put_size(image, flags);
}

fn length_u32(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len())
        .expect("a value is far below 4 GiB")
        .to_le_bytes()
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Sets bits of [`image_flag`] in a finished image that is not sealed yet.
pub fn add_flags(image: &mut [u8], flags: u16) {
    let size = u32_at(image, SIZE) | u32::from(flags) << UNITS_BITS;
    put_u32(image, SIZE, size);
}

/// Binds a finished image to the block it is written into. Done again when it moves to another.
pub fn seal(image: &mut [u8], block_sequence: u64) {
    put_u32(image, SEQUENCE, block_sequence as u32);
    let checksum = crc32c::crc32c(&image[SIZE..]);
    put_u32(image, CHECKSUM, checksum);
}

/// Writes the 16 bytes that say: no record in the next `covers` bytes.
pub(crate) fn write_filler(bytes: &mut [u8], covers: usize, block_sequence: u64) {
    debug_assert!(covers >= FILLER_BYTES && covers.is_multiple_of(IMAGE_UNIT_BYTES));
    let bytes = &mut bytes[..FILLER_BYTES];
    bytes.fill(0);
    let units = (covers / IMAGE_UNIT_BYTES) as u32;
    put_u32(
        bytes,
        SIZE,
        units | u32::from(image_flag::FILLER) << UNITS_BITS,
    );
    seal(bytes, block_sequence);
}

/// A record image that was checked, now or when its bytes entered memory.
#[derive(Clone, Copy)]
pub struct ImageView<'a> {
    // At least a header long, unless it is a filler.
    bytes: &'a [u8],
}

impl<'a> ImageView<'a> {
    /// Checks size, sequence (if one is given) and checksum of the image that `bytes` starts with.
    pub fn verify(bytes: &'a [u8], block_sequence: Option<u64>) -> Result<Self, ImageError> {
        let view = Self::sized(bytes)?;
        if let Some(sequence) = block_sequence {
            let (expected, found) = (sequence as u32, view.block_sequence());
            if expected != found {
                return Err(ImageError::Sequence { expected, found });
            }
        }
        let checked = if view.is_filler() {
            FILLER_BYTES
        } else {
            view.bytes.len()
        };
        let expected = crc32c::crc32c(&view.bytes[SIZE..checked]);
        let found = u32_at(view.bytes, CHECKSUM);
        if expected != found {
            return Err(ImageError::Checksum { expected, found });
        }
        Ok(view)
    }

    /// For bytes that were verified, or built here, and have been in memory since. Should they be
    /// damaged after all, values come out wrong or missing, never out of bounds.
    pub fn trusted(bytes: &'a [u8]) -> Self {
        Self::sized(bytes).unwrap_or(ImageView {
            bytes: &EMPTY_IMAGE,
        })
    }

    fn sized(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let available = bytes.len();
        if available < FILLER_BYTES {
            return Err(ImageError::Truncated {
                needed: FILLER_BYTES,
                available,
            });
        }
        let size = u32_at(bytes, SIZE);
        let needed = (size & UNITS_MAX) as usize * IMAGE_UNIT_BYTES;
        let filler = (size >> UNITS_BITS) as u16 & image_flag::FILLER != 0;
        if needed
            < if filler {
                FILLER_BYTES
            } else {
                IMAGE_HEADER_BYTES
            }
        {
            return Err(ImageError::Size { bytes: needed });
        }
        if needed > available {
            return Err(ImageError::Truncated { needed, available });
        }
        Ok(ImageView {
            bytes: &bytes[..needed],
        })
    }

    /// The whole image, padding included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn flags(&self) -> u16 {
        (u32_at(self.bytes, SIZE) >> UNITS_BITS) as u16
    }

    pub fn is_filler(&self) -> bool {
        self.flags() & image_flag::FILLER != 0
    }

    pub fn is_tombstone(&self) -> bool {
        self.flags() & image_flag::TOMBSTONE != 0
    }

    /// Low 32 bits of the sequence of the block that the image was sealed for.
    pub fn block_sequence(&self) -> u32 {
        u32_at(self.bytes, SEQUENCE)
    }

    pub fn digest(&self) -> &'a Digest {
        self.header()[DIGEST..LAST_UPDATE_TIME]
            .try_into()
            .expect("20 bytes")
    }

    pub fn last_update_time(&self) -> u64 {
        let mut time = [0; 8];
        time[..LAST_UPDATE_TIME_BYTES]
            .copy_from_slice(&self.header()[LAST_UPDATE_TIME..SET_LENGTH]);
        u64::from_le_bytes(time)
    }

    pub fn generation(&self) -> u16 {
        u16_at(self.header(), GENERATION)
    }

    /// What the versions of a record are ordered by.
    pub fn version(&self) -> Version {
        Version {
            last_update_time: self.last_update_time(),
            generation: self.generation(),
            ties: ((self.flags() & image_flag::TIES) >> image_flag::TIES_SHIFT) as u8,
        }
    }

    pub fn void_time(&self) -> u32 {
        u32_at(self.header(), VOID_TIME)
    }

    pub fn n_bins(&self) -> usize {
        u16_at(self.header(), BINS) as usize
    }

    /// Empty for a record without a set.
    pub fn set_name(&self) -> &'a [u8] {
        let mut rest = self.body();
        take(&mut rest, self.set_bytes()).unwrap_or_default()
    }

    /// Type byte and value of the user key, if it was stored.
    pub fn key(&self) -> Option<&'a [u8]> {
        if self.flags() & image_flag::HAS_KEY == 0 {
            return None;
        }
        let mut rest = self.body();
        take(&mut rest, self.set_bytes())?;
        let bytes = u32_at(take(&mut rest, KEY_LENGTH_BYTES)?, 0) as usize;
        take(&mut rest, bytes)
    }

    /// The bins, in the order they were written. Of a compressed image there are none.
    pub fn bins(&self) -> Bins<'a> {
        let at = self
            .bins_at()
            .filter(|_| self.flags() & image_flag::COMPRESSED == 0);
        at.map_or(Bins { rest: &[], left: 0 }, |at| Bins {
            rest: &self.bytes[at..],
            left: self.n_bins(),
        })
    }

    /// Where the bins begin, or their compressed form.
    pub(super) fn bins_at(&self) -> Option<usize> {
        let mut rest = self.body();
        take(&mut rest, self.set_bytes())?;
        if self.flags() & image_flag::HAS_KEY != 0 {
            let bytes = u32_at(take(&mut rest, KEY_LENGTH_BYTES)?, 0) as usize;
            take(&mut rest, bytes)?;
        }
        Some(self.bytes.len() - rest.len())
    }

    /// The header, also of a filler, which has only the start of one.
    fn header(&self) -> &'a [u8] {
        if self.bytes.len() >= IMAGE_HEADER_BYTES {
            self.bytes
        } else {
            &EMPTY_IMAGE
        }
    }

    fn body(&self) -> &'a [u8] {
        self.bytes.get(IMAGE_HEADER_BYTES..).unwrap_or_default()
    }

    fn set_bytes(&self) -> usize {
        self.header()[SET_LENGTH] as usize
    }
}

impl std::fmt::Debug for ImageView<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ImageView")
            .field("bytes", &self.bytes.len())
            .field("flags", &self.flags())
            .field("digest", &self.digest())
            .field("generation", &self.generation())
            .field("last_update_time", &self.last_update_time())
            .finish_non_exhaustive()
    }
}

static EMPTY_IMAGE: [u8; IMAGE_HEADER_BYTES] = [0; IMAGE_HEADER_BYTES];

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// One bin of an image; the value is in wire form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bin<'a> {
    pub name: &'a [u8],
    pub particle: u8,
    pub value: &'a [u8],
    /// Of a large list or map.
    pub index: Option<&'a [u8]>,
}

/// Iterator over the bins of an image.
#[derive(Clone)]
pub struct Bins<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Bins<'a> {
    type Item = Bin<'a>;

    fn next(&mut self) -> Option<Bin<'a>> {
        self.left = self.left.checked_sub(1)?;
        let bin = self.take_bin();
        if bin.is_none() {
            self.left = 0;
        }
        bin
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

impl<'a> Bins<'a> {
    fn take_bin(&mut self) -> Option<Bin<'a>> {
        let header = take(&mut self.rest, BIN_HEADER_BYTES)?;
        let name = take(&mut self.rest, header[0] as usize)?;
        let value = take(&mut self.rest, u32_at(header, BIN_VALUE_LENGTH) as usize)?;
        let particle = header[BIN_PARTICLE];
        if particle & BIN_INDEXED == 0 {
            return Some(Bin {
                name,
                particle,
                value,
                index: None,
            });
        }
        let (rest, length) = value.split_last_chunk::<INDEX_LENGTH_BYTES>()?;
        let index_bytes = u32::from_le_bytes(*length) as usize;
        let (value, index) = rest.split_at_checked(rest.len().checked_sub(index_bytes)?)?;
        Some(Bin {
            name,
            particle: particle & !BIN_INDEXED,
            value,
            index: Some(index),
        })
    }
}

impl std::iter::FusedIterator for Bins<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEQUENCE_OF_BLOCK: u64 = 0x1_0000_0007;

    fn header() -> ImageHeader {
        ImageHeader {
            digest: std::array::from_fn(|i| i as u8),
            last_update_time: 0xAB_CDEF_0123,
            generation: 513,
            void_time: 77,
            flags: image_flag::XDR_WRITE,
        }
    }

    fn sample() -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut builder = ImageBuilder::begin(&mut buffer, &header(), b"users", Some(b"\x03anna"));
        builder
            .bin(b"age", 1, &41_u64.to_be_bytes())
            .bin(b"", 3, b"")
            .bin(b"note", 3, b"hello");
        seal(builder.finish(), SEQUENCE_OF_BLOCK);
        buffer
    }

    #[test]
    fn an_index_is_kept_beside_its_value() {
        let mut buffer = Vec::new();
        let mut builder = ImageBuilder::begin(&mut buffer, &header(), b"", None);
        builder
            .indexed_bin(b"large", 20, b"elements", Some(b"index"))
            .indexed_bin(b"empty", 20, b"", Some(b""))
            .bin(b"small", 20, b"few");
        builder.finish();
        let bin = |name, value, index| Bin {
            name,
            particle: 20,
            value,
            index,
        };
        let bins: Vec<_> = ImageView::trusted(&buffer).bins().collect();
        let expected = [
            bin(&b"large"[..], &b"elements"[..], Some(&b"index"[..])),
            bin(b"empty", b"", Some(b"")),
            bin(b"small", b"few", None),
        ];
        assert_eq!(bins, expected);
        // A length that lies ends the bins.
        let at = buffer
            .windows(5)
            .position(|bytes| bytes == b"index")
            .expect("it is there");
        buffer[at + 5] = 200;
        assert_eq!(ImageView::trusted(&buffer).bins().count(), 0);
    }

    #[test]
    fn layout_is_the_documented_one() {
        let image = sample();
        assert_eq!(image.len() % 16, 0);
        assert_eq!(u32_at(&image, 0), crc32c::crc32c(&image[4..]));
        assert_eq!(u32_at(&image, 4), (image.len() as u32 / 16) | (0b110 << 20));
        assert_eq!(u32_at(&image, 8), 7);
        assert_eq!(image[12..32], header().digest);
        assert_eq!(image[32..37], [0x23, 0x01, 0xEF, 0xCD, 0xAB]);
        assert_eq!(image[37], 5);
        assert_eq!(image[38..40], [1, 2]);
        assert_eq!(image[40..44], [77, 0, 0, 0]);
        assert_eq!(image[44..48], [3, 0, 0, 0]);
        assert_eq!(image[48..62], *b"users\x05\0\0\0\x03anna");
        assert_eq!(image[62..79], *b"\x03\x01\x08\0\0\0age\0\0\0\0\0\0\0\x29");
    }

    #[test]
    fn image_reads_back_what_was_built() {
        let image = sample();
        let view = ImageView::verify(&image, Some(SEQUENCE_OF_BLOCK)).unwrap();
        assert_eq!(*view.digest(), header().digest);
        assert_eq!(view.last_update_time(), header().last_update_time);
        assert_eq!(view.generation(), 513);
        assert_eq!(view.void_time(), 77);
        assert_eq!(view.flags(), image_flag::XDR_WRITE | image_flag::HAS_KEY);
        assert_eq!(view.set_name(), b"users");
        assert_eq!(view.key(), Some(&b"\x03anna"[..]));
        assert_eq!(view.n_bins(), 3);
        let names: Vec<_> = view
            .bins()
            .map(|bin| (bin.name, bin.particle, bin.value))
            .collect();
        assert_eq!(
            names,
            [
                (&b"age"[..], 1, &41_u64.to_be_bytes()[..]),
                (b"", 3, b""),
                (b"note", 3, b"hello")
            ]
        );
    }

    #[test]
    fn image_follows_what_the_buffer_already_held() {
        let mut buffer = vec![9; 5];
        let image = ImageBuilder::begin(&mut buffer, &header(), b"", None).finish();
        seal(image, 1);
        assert_eq!(image.len(), IMAGE_HEADER_BYTES);
        let view = ImageView::verify(&buffer[5..], Some(1)).unwrap();
        assert_eq!(
            (view.set_name(), view.key(), view.bins().count()),
            (&b""[..], None, 0)
        );
    }

    #[test]
    fn image_of_another_life_of_the_block_is_refused() {
        let image = sample();
        assert!(matches!(
            ImageView::verify(&image, Some(SEQUENCE_OF_BLOCK + 1)),
            Err(ImageError::Sequence {
                expected: 8,
                found: 7
            })
        ));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let image = sample();
        for bit in 0..image.len() * 8 {
            let mut damaged = image.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                ImageView::verify(&damaged, Some(SEQUENCE_OF_BLOCK)).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn image_cut_short_is_refused() {
        let image = sample();
        for bytes in 0..image.len() {
            assert!(ImageView::verify(&image[..bytes], Some(SEQUENCE_OF_BLOCK)).is_err());
        }
    }

    #[test]
    fn filler_covers_bytes_that_it_does_not_check() {
        let mut bytes = [0xEE; 64];
        write_filler(&mut bytes, 64, 3);
        let view = ImageView::verify(&bytes, Some(3)).unwrap();
        assert!(view.is_filler());
        assert_eq!(view.bytes().len(), 64);
        assert_eq!(bytes[16..], [0xEE; 48]);
        bytes[4] ^= 1;
        assert!(ImageView::verify(&bytes, Some(3)).is_err());
    }

    proptest! {
        #[test]
        fn damaged_memory_never_reads_out_of_bounds(
            flips in prop::collection::vec((0..96_usize, any::<u8>()), 0..12),
            cut in 0..97_usize,
        ) {
            let mut image = sample();
            for (at, value) in flips {
                let at = at % image.len();
                image[at] = value;
            }
            image.truncate(cut);
            let view = ImageView::trusted(&image);
            let _ = (view.set_name(), view.key(), view.digest(), view.last_update_time());
            prop_assert!(view.bins().count() <= view.n_bins());
        }
    }
}
