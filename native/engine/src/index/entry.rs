//! One index entry: the unpacked view that the engine works with, and its packed 40 bytes.
//!
//! ```text
//!  0 [18] digest bytes 2..20
//! 18 u16 digest bits 12..16 (high nibble of digest byte 1) << 12 | set id
//! 20 u16 generation
//! 22 u40 last-update time (ms since 2010-01-01)
//! 27 u32 void time (s since 2010-01-01, 0 never)
//! 31 u8 flags
//! 32 u64 location: rblock << 27 | units << 7 | device. No units: an empty slot
//! ```
//!
//! The low 12 digest bits are the partition, which the table knows.

use perigee_wire::{Digest, PartitionId};
use std::cmp::Ordering;

const DEVICE_BITS: u32 = 7;
const UNITS_BITS: u32 = 20;
const RBLOCK_BITS: u32 = 37;
const UNITS_SHIFT: u32 = DEVICE_BITS;
const RBLOCK_SHIFT: u32 = UNITS_SHIFT + UNITS_BITS;
const _: () = assert!(DEVICE_BITS + UNITS_BITS + RBLOCK_BITS == u64::BITS);

/// Where a record's image lies: a device, an offset and a length, both in units of 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location(u64);

impl Location {
    /// The smallest piece of a device that a record can occupy.
    pub const UNIT_BYTES: u64 = 16;
    pub const DEVICES_MAX: usize = 1 << DEVICE_BITS;
    pub const UNITS_MAX: u32 = (1 << UNITS_BITS) - 1;
    /// How much of a device the offset can reach: 2 TiB.
    pub const DEVICE_BYTES_MAX: u64 = (1 << RBLOCK_BITS) * Self::UNIT_BYTES;

    /// `rblock` and `units` count 16-byte units; a record has at least one.
    pub const fn new(device: u8, rblock: u64, units: u32) -> Location {
        assert!((device as usize) < Self::DEVICES_MAX);
        assert!(rblock < 1 << RBLOCK_BITS);
        assert!(units > 0 && units <= Self::UNITS_MAX);
        Location(rblock << RBLOCK_SHIFT | (units as u64) << UNITS_SHIFT | device as u64)
    }

    pub const fn device(self) -> u8 {
        (self.0 & ((1 << DEVICE_BITS) - 1)) as u8
    }

    /// Offset from the device's start, in 16-byte units.
    pub const fn rblock(self) -> u64 {
        self.0 >> RBLOCK_SHIFT
    }

    /// Length in 16-byte units.
    pub const fn units(self) -> u32 {
        (self.0 >> UNITS_SHIFT) as u32 & Self::UNITS_MAX
    }

    /// Offset from the device's start, in bytes.
    pub const fn offset(self) -> u64 {
        self.rblock() * Self::UNIT_BYTES
    }

    /// Length in bytes.
    pub const fn bytes(self) -> usize {
        self.units() as usize * Self::UNIT_BYTES as usize
    }

    pub const fn raw(self) -> u64 {
        self.0
    }

    pub const fn from_raw(raw: u64) -> Location {
        Location(raw)
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}:{:#x}+{}",
            self.device(),
            self.offset(),
            self.bytes()
        )
    }
}

/// Bits of [`Entry::flags`].
pub mod flag {
    /// The record is deleted; the entry keeps the deletion's last-update time.
    pub const TOMBSTONE: u8 = 1;
    /// The newest version came by XDR and is not shipped back.
    pub const XDR_WRITE: u8 = 1 << 1;
    /// The image holds the user key.
    pub const KEY_STORED: u8 = 1 << 2;
    /// The deletion was asked to survive restarts.
    pub const DURABLE: u8 = 1 << 3;
    /// Two bits: [`Version::ties`](super::Version::ties).
    pub const TIES: u8 = 0b11 << TIES_SHIFT;
    pub(super) const TIES_SHIFT: u32 = 4;
    /// An older version may lie on the device that must not come back when this one goes.
    pub const COVERS: u8 = 1 << 6;
    /// A tombstone of which the tomb raider's pass has met no record so far. Of the index alone.
    pub const CENOTAPH: u8 = 1 << 7;

    /// The bits for a number of ties; counting ends at [`TIES_MAX`](super::TIES_MAX).
    pub fn ties(count: u8) -> u8 {
        count.min(super::TIES_MAX) << TIES_SHIFT
    }
}

/// What [`Version::ties`] counts to. The winner of a further tie may lose to its predecessor at a restart.
pub const TIES_MAX: u8 = 3;

/// What the versions of a record are ordered by: of two on a device, the greater is the newer. Equal ones are copies of
/// one, made by defragmentation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// Milliseconds since 2010-01-01.
    pub last_update_time: u64,
    pub generation: u16,
    /// How often in a row a version with this time and generation was replaced by one of greater content. Up to
    /// [`TIES_MAX`].
    pub ties: u8,
}

/// What the index knows of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub digest: Digest,
    /// 12 bits.
    pub set_id: u16,
    pub generation: u16,
    /// Milliseconds since 2010-01-01, 40 bits.
    pub last_update_time: u64,
    /// Seconds since 2010-01-01; 0 never expires.
    pub void_time: u32,
    pub location: Location,
    /// Bits of [`flag`].
    pub flags: u8,
}

impl Entry {
    pub const SET_ID_MAX: u16 = (1 << 12) - 1;
    pub const LAST_UPDATE_TIME_MAX: u64 = (1 << 40) - 1;

    /// True for a deletion that is remembered.
    pub const fn is_tombstone(&self) -> bool {
        self.flags & flag::TOMBSTONE != 0
    }

    /// What the versions of a record are ordered by.
    pub const fn version(&self) -> Version {
        Version {
            last_update_time: self.last_update_time,
            generation: self.generation,
            ties: (self.flags & flag::TIES) >> flag::TIES_SHIFT,
        }
    }
}

const DIGEST_FROM: usize = 2;
const DIGEST_BYTES: usize = size_of::<Digest>() - DIGEST_FROM;
const SET: usize = DIGEST_BYTES;
const GENERATION: usize = SET + 2;
const LAST_UPDATE_TIME: usize = GENERATION + 2;
const LAST_UPDATE_TIME_BYTES: usize = 5;
const VOID_TIME: usize = LAST_UPDATE_TIME + LAST_UPDATE_TIME_BYTES;
const FLAGS: usize = VOID_TIME + 4;
const LOCATION: usize = FLAGS + 1;
pub(super) const SLOT_BYTES: usize = LOCATION + 8;
const _: () = assert!(SLOT_BYTES == 40);

const NIBBLE_SHIFT: u32 = 12;

/// A digest without its partition, split so that most comparisons are of one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotKey {
    /// Digest bits 12..16, then the 60 bits that follow.
    pub(super) prefix: u64,
    rest: [u8; DIGEST_BYTES - PREFIX_WHOLE_BYTES],
}

// The prefix ends in the middle of a byte, which is therefore compared again in the rest.
const PREFIX_WHOLE_BYTES: usize = 7;

impl SlotKey {
    #[inline]
    pub(super) fn new(digest: &Digest) -> SlotKey {
        SlotKey {
            prefix: prefix_of((digest[1] >> 4) as u64, &digest[DIGEST_FROM..]),
            rest: digest[DIGEST_FROM + PREFIX_WHOLE_BYTES..]
                .try_into()
                .expect("constant length"),
        }
    }

    /// Not after any key with this prefix.
    #[inline]
    pub(super) fn least(prefix: u64) -> SlotKey {
        SlotKey {
            prefix,
            rest: [0; DIGEST_BYTES - PREFIX_WHOLE_BYTES],
        }
    }
}

#[inline]
fn prefix_of(nibble: u64, digest: &[u8]) -> u64 {
    let head = u64::from_be_bytes(digest[..8].try_into().expect("constant length"));
    nibble << 60 | head >> 4
}

/// One place of a table: an [`Entry`] in 40 bytes, or empty.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Slot([u8; SLOT_BYTES]);

impl Slot {
    pub(super) const EMPTY: Slot = Slot([0; SLOT_BYTES]);

    pub(super) fn pack(entry: &Entry) -> Slot {
        assert!(
            entry.location.units() > 0,
            "an entry without units would read as an empty slot"
        );
        debug_assert!(entry.set_id <= Entry::SET_ID_MAX);
        debug_assert!(entry.last_update_time <= Entry::LAST_UPDATE_TIME_MAX);
        let nibble = (entry.digest[1] >> 4) as u16;
        let set = nibble << NIBBLE_SHIFT | entry.set_id & Entry::SET_ID_MAX;
        let mut slot = [0; SLOT_BYTES];
        slot[..SET].copy_from_slice(&entry.digest[DIGEST_FROM..]);
        slot[SET..GENERATION].copy_from_slice(&set.to_le_bytes());
        slot[GENERATION..LAST_UPDATE_TIME].copy_from_slice(&entry.generation.to_le_bytes());
        slot[LAST_UPDATE_TIME..VOID_TIME]
            .copy_from_slice(&entry.last_update_time.to_le_bytes()[..LAST_UPDATE_TIME_BYTES]);
        slot[VOID_TIME..FLAGS].copy_from_slice(&entry.void_time.to_le_bytes());
        slot[FLAGS] = entry.flags;
        slot[LOCATION..].copy_from_slice(&entry.location.raw().to_le_bytes());
        Slot(slot)
    }

    pub(super) fn unpack(&self, partition: PartitionId) -> Entry {
        let u16_at = |at: usize| u16::from_le_bytes([self.0[at], self.0[at + 1]]);
        let mut last_update_time = [0; 8];
        last_update_time[..LAST_UPDATE_TIME_BYTES]
            .copy_from_slice(&self.0[LAST_UPDATE_TIME..VOID_TIME]);
        let set = u16_at(SET);
        let low = (partition.get() | set & !Entry::SET_ID_MAX).to_le_bytes();
        let mut digest = [0; size_of::<Digest>()];
        digest[..DIGEST_FROM].copy_from_slice(&low);
        digest[DIGEST_FROM..].copy_from_slice(&self.0[..SET]);
        Entry {
            digest,
            set_id: set & Entry::SET_ID_MAX,
            generation: u16_at(GENERATION),
            last_update_time: u64::from_le_bytes(last_update_time),
            void_time: u32::from_le_bytes(self.0[VOID_TIME..FLAGS].try_into().expect("4 bytes")),
            location: self.location(),
            flags: self.0[FLAGS],
        }
    }

    pub(super) fn words(&self) -> [u64; SLOT_BYTES / 8] {
        std::array::from_fn(|i| {
            u64::from_ne_bytes(self.0[8 * i..8 * i + 8].try_into().expect("8 bytes"))
        })
    }

    pub(super) fn of_words(words: [u64; SLOT_BYTES / 8]) -> Slot {
        Slot(std::array::from_fn(|i| words[i / 8].to_ne_bytes()[i % 8]))
    }

    #[inline]
    fn location(&self) -> Location {
        Location::from_raw(u64::from_le_bytes(
            self.0[LOCATION..].try_into().expect("8 bytes"),
        ))
    }

    /// Empty, or with a location that has a length.
    pub(super) fn is_possible(&self) -> bool {
        self.is_empty() || self.location().units() > 0
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // Device 0, block 0 and no units: the only way to have no units.
        self.location().raw() == 0
    }

    #[inline]
    pub(super) fn prefix(&self) -> u64 {
        prefix_of((self.0[SET + 1] >> 4) as u64, &self.0)
    }

    /// How the entry's key stands to another; `None` for an empty slot.
    #[inline]
    pub(super) fn order(&self, key: &SlotKey) -> Option<Ordering> {
        if self.is_empty() {
            return None;
        }
        // Nearly always decided by the prefix alone.
        Some(match self.prefix().cmp(&key.prefix) {
            Ordering::Equal => self.key().cmp(key),
            order => order,
        })
    }

    #[inline]
    pub(super) fn key(&self) -> SlotKey {
        SlotKey {
            prefix: self.prefix(),
            rest: self.0[PREFIX_WHOLE_BYTES..SET]
                .try_into()
                .expect("constant length"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perigee_wire::partition_of;

    #[test]
    fn location_keeps_the_largest_of_every_field() {
        let location = Location::new(127, (1 << 37) - 1, Location::UNITS_MAX);
        assert_eq!(location.device(), 127);
        assert_eq!(location.rblock(), (1 << 37) - 1);
        assert_eq!(location.units(), (1 << 20) - 1);
        assert_eq!(location.bytes(), ((1 << 20) - 1) * 16);
        assert_eq!(Location::from_raw(location.raw()), location);
    }

    #[test]
    fn packing_loses_nothing() {
        let digest: Digest = std::array::from_fn(|i| 0xFF - 3 * i as u8);
        let entry = Entry {
            digest,
            set_id: Entry::SET_ID_MAX,
            generation: u16::MAX,
            last_update_time: Entry::LAST_UPDATE_TIME_MAX,
            void_time: (1 << 30) - 1,
            location: Location::new(127, 3, 1),
            flags: flag::TOMBSTONE | flag::DURABLE,
        };
        let slot = Slot::pack(&entry);
        assert!(!slot.is_empty());
        assert_eq!(slot.unpack(partition_of(&digest)), entry);
    }

    #[test]
    fn keys_order_as_digests_do() {
        let mut digests: Vec<Digest> = (0..20)
            .flat_map(|at| [0x0F_u8, 0x10, 0x7F, 0x80, 0xF0].map(|value| (at, value)))
            .map(|(at, value)| {
                let mut digest = [0x44; 20];
                digest[at] = value;
                (digest[0], digest[1]) = (7, digest[1] & 0xF0);
                digest
            })
            .collect();
        digests.sort_unstable();
        assert!(
            digests
                .windows(2)
                .all(|pair| SlotKey::new(&pair[0]) <= SlotKey::new(&pair[1]))
        );
        digests.dedup();
        assert!(
            digests
                .windows(2)
                .all(|pair| SlotKey::new(&pair[0]) < SlotKey::new(&pair[1]))
        );
    }
}
