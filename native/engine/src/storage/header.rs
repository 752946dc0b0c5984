//! The headers of a device: its own, in the first page, that of each write block, and the lease on
//! sequences, in the two pages after the first.
//!
//! ```text
//! device header, at offset 0                        block header, at a block's start
//!  0 [8] magic "PERIGEE\0"                           0 [4] magic "PBLK"
//!  8 u32 crc32c of bytes 12..512                     4 u32 crc32c of bytes 8..32
//! 12 u32 format version                              8 u64 sequence
//! 16 u64 store id                                   16 u64 device id
//! 24 u64 first sequence                             24 u32 block
//! 32 u32 write block bytes                          28 u8 device   29 [3] zero
//! 36 u8 device   37 u8 devices   38 u8 zero
//! 39 u8 namespace length   40 [256] namespace, then zero
//! 296 u64 device id   304 u64 device bytes
//! 312 u8 encryption   313 [7] zero   320 [16] key check   336 zero up to 512
//!
//! lease, at offsets 4096 and 8192
//!  0 [4] magic "PSEQ"    4 u32 crc32c of bytes 8..32    8 u64 device id    16 u64 limit    24 u64 run
//! ```
//!
//! All little endian. The device header has the first write block to itself. In version 1 it is zero from
//! 312 on, and a lease has no run, nor is there one in its checksum. Version 3 differs from 2 in the bins of images.

use super::encryption::Algorithm;
use super::error::OpenError;
use super::medium::PAGE_BYTES;
use crate::record::image::BLOCK_HEADER_BYTES;
use std::path::Path;

/// What is written. Devices of every version from [`OLDEST_VERSION`] on are read, and upgraded when they are
/// opened.
pub(super) const FORMAT_VERSION: u32 = 3;
const OLDEST_VERSION: u32 = 1;

const DEVICE_MAGIC: [u8; 8] = *b"PERIGEE\0";
const CHECKSUM: usize = DEVICE_MAGIC.len();
const VERSION: usize = CHECKSUM + 4;
const STORE_ID: usize = VERSION + 4;
const FIRST_SEQUENCE: usize = STORE_ID + 8;
const WRITE_BLOCK_BYTES: usize = FIRST_SEQUENCE + 8;
const DEVICE: usize = WRITE_BLOCK_BYTES + 4;
const DEVICES: usize = DEVICE + 1;
const NAMESPACE_LENGTH: usize = DEVICES + 2;
const NAMESPACE: usize = NAMESPACE_LENGTH + 1;
const DEVICE_ID: usize = NAMESPACE + 256;
const DEVICE_BYTES: usize = DEVICE_ID + 8;
const ENCRYPTION: usize = DEVICE_BYTES + 8;
const KEY_CHECK: usize = ENCRYPTION + 8;
const DEVICE_END: usize = KEY_CHECK + size_of::<KeyCheck>();
// One sector, which a device writes as a whole.
const DEVICE_HEADER_BYTES: usize = 512;
const _: () = assert!(NAMESPACE + u8::MAX as usize <= DEVICE_ID);
const _: () = assert!(DEVICE_END <= DEVICE_HEADER_BYTES);
const _: () = assert!(DEVICE_HEADER_BYTES <= PAGE_BYTES);

/// Tells whether a key is the one that a device was encrypted with, without telling the key.
pub(super) type KeyCheck = [u8; 16];

/// What a device says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DeviceHeader {
    pub(super) version: u32,
    /// Drawn when the store was initialised, the same on all of its devices.
    pub(super) store_id: u64,
    /// Drawn whenever a device is initialised. Blocks and leases carry it, so that what a device
    /// held before it was wiped is not taken for data, though the store is the same.
    pub(super) device_id: u64,
    /// How long the device was when it was opened last; 0 is unknown.
    pub(super) device_bytes: u64,
    /// Drawn as well, so that records cannot be made to contain what looks like a record.
    pub(super) first_sequence: u64,
    pub(super) write_block_bytes: u32,
    pub(super) device: u8,
    pub(super) devices: u8,
    pub(super) namespace: String,
    /// 0 is none.
    pub(super) encryption: u8,
    pub(super) key_check: KeyCheck,
}

impl DeviceHeader {
    /// Fills a page.
    pub(super) fn encode(&self, page: &mut [u8]) {
        let name = self.namespace.as_bytes();
        page.fill(0);
        page[..CHECKSUM].copy_from_slice(&DEVICE_MAGIC);
        page[VERSION..STORE_ID].copy_from_slice(&self.version.to_le_bytes());
        page[STORE_ID..FIRST_SEQUENCE].copy_from_slice(&self.store_id.to_le_bytes());
        page[FIRST_SEQUENCE..WRITE_BLOCK_BYTES].copy_from_slice(&self.first_sequence.to_le_bytes());
        page[WRITE_BLOCK_BYTES..DEVICE].copy_from_slice(&self.write_block_bytes.to_le_bytes());
        page[DEVICE] = self.device;
        page[DEVICES] = self.devices;
        page[NAMESPACE_LENGTH] = name.len() as u8;
        page[NAMESPACE..NAMESPACE + name.len()].copy_from_slice(name);
        page[DEVICE_ID..DEVICE_BYTES].copy_from_slice(&self.device_id.to_le_bytes());
        page[DEVICE_BYTES..ENCRYPTION].copy_from_slice(&self.device_bytes.to_le_bytes());
        page[ENCRYPTION] = self.encryption;
        page[KEY_CHECK..DEVICE_END].copy_from_slice(&self.key_check);
        let checksum = crc32c::crc32c(&page[VERSION..DEVICE_HEADER_BYTES]);
        page[CHECKSUM..VERSION].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads the first page of a device. `None`: nothing was ever written there.
    pub(super) fn decode(page: &[u8], path: &Path) -> Result<Option<DeviceHeader>, OpenError> {
        let path = || path.to_path_buf();
        if page[..CHECKSUM] != DEVICE_MAGIC {
            if page.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let found = page[..CHECKSUM].try_into().expect("8 bytes");
            return Err(OpenError::Foreign {
                path: path(),
                found,
            });
        }
        // Before the checksum, whose place another version may have changed.
        let version = u32_at(page, VERSION);
        if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&version) {
            return Err(OpenError::Version {
                path: path(),
                found: version,
                oldest: OLDEST_VERSION,
                newest: FORMAT_VERSION,
            });
        }
        let expected = crc32c::crc32c(&page[VERSION..DEVICE_HEADER_BYTES]);
        let found = u32_at(page, CHECKSUM);
        if expected != found {
            return Err(OpenError::Header {
                path: path(),
                expected,
                found,
            });
        }
        let name = &page[NAMESPACE..NAMESPACE + page[NAMESPACE_LENGTH] as usize];
        Ok(Some(DeviceHeader {
            version,
            store_id: u64_at(page, STORE_ID),
            device_id: u64_at(page, DEVICE_ID),
            device_bytes: u64_at(page, DEVICE_BYTES),
            first_sequence: u64_at(page, FIRST_SEQUENCE),
            write_block_bytes: u32_at(page, WRITE_BLOCK_BYTES),
            device: page[DEVICE],
            devices: page[DEVICES],
            namespace: String::from_utf8_lossy(name).into_owned(),
            encryption: page[ENCRYPTION],
            key_check: page[KEY_CHECK..DEVICE_END].try_into().expect("16 bytes"),
        }))
    }

    /// Refuses a device that another configuration wrote.
    pub(super) fn check(&self, configured: &DeviceHeader, path: &Path) -> Result<(), OpenError> {
        let fields = [
            (
                "namespace",
                self.namespace.clone(),
                configured.namespace.clone(),
            ),
            (
                "a write block size of",
                self.write_block_bytes.to_string(),
                configured.write_block_bytes.to_string(),
            ),
            (
                "device count",
                self.devices.to_string(),
                configured.devices.to_string(),
            ),
            (
                "device index",
                self.device.to_string(),
                configured.device.to_string(),
            ),
            (
                "encryption",
                Algorithm::describe(self.encryption),
                Algorithm::describe(configured.encryption),
            ),
            (
                "store id",
                self.store_id.to_string(),
                configured.store_id.to_string(),
            ),
        ];
        match fields
            .into_iter()
            .find(|(_, found, expected)| found != expected)
        {
            None if self.device_bytes > configured.device_bytes => Err(OpenError::Mismatch {
                path: path.to_path_buf(),
                what: "a device length of",
                expected: configured.device_bytes.to_string(),
                found: self.device_bytes.to_string(),
            }),
            None => Ok(()),
            Some((what, found, expected)) => Err(OpenError::Mismatch {
                path: path.to_path_buf(),
                what,
                expected,
                found,
            }),
        }
    }
}

const LEASE_MAGIC: [u8; 4] = *b"PSEQ";
const LEASE_CHECKSUM: usize = LEASE_MAGIC.len();
const LEASE_DEVICE_ID: usize = LEASE_CHECKSUM + 4;
const LEASE_LIMIT: usize = LEASE_DEVICE_ID + 8;
const LEASE_RUN: usize = LEASE_LIMIT + 8;
const LEASE_END_V1: usize = LEASE_RUN;
const LEASE_END: usize = LEASE_RUN + 8;
/// Written in turn, so that one is whole whenever power fails.
pub(super) const LEASE_OFFSETS: [u64; 2] = [PAGE_BYTES as u64, 2 * PAGE_BYTES as u64];

/// What a start claims before it serves.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Lease {
    /// Sequences below it may be in use.
    pub(super) limit: u64,
    /// Drawn at random by every start: tells whether what another start left elsewhere is of the device
    /// as it is. 0 in leases of version 1.
    pub(super) run: u64,
}

/// Sequences below the limit may be in use. Blocks are erased, and their first pages may be lost in a
/// power cut, so what is found on a device does not tell.
pub(super) fn encode_lease(page: &mut [u8], device_id: u64, lease: Lease) {
    page.fill(0);
    page[..LEASE_CHECKSUM].copy_from_slice(&LEASE_MAGIC);
    page[LEASE_DEVICE_ID..LEASE_LIMIT].copy_from_slice(&device_id.to_le_bytes());
    page[LEASE_LIMIT..LEASE_RUN].copy_from_slice(&lease.limit.to_le_bytes());
    page[LEASE_RUN..LEASE_END].copy_from_slice(&lease.run.to_le_bytes());
    let checksum = crc32c::crc32c(&page[LEASE_DEVICE_ID..LEASE_END]);
    page[LEASE_CHECKSUM..LEASE_DEVICE_ID].copy_from_slice(&checksum.to_le_bytes());
}

/// The lease, if the page holds one of this device, as it is since it was initialised.
pub(super) fn decode_lease(page: &[u8], device_id: u64) -> Option<Lease> {
    let is_own = is_lease(page) && u64_at(page, LEASE_DEVICE_ID) == device_id;
    is_own.then(|| Lease {
        limit: u64_at(page, LEASE_LIMIT),
        run: match lease_checksum(page, LEASE_END) {
            true => u64_at(page, LEASE_RUN),
            false => 0,
        },
    })
}

/// Whether the page holds a lease, of whatever device.
pub(super) fn is_lease(page: &[u8]) -> bool {
    page[..LEASE_CHECKSUM] == LEASE_MAGIC
        && [LEASE_END, LEASE_END_V1]
            .iter()
            .any(|end| lease_checksum(page, *end))
}

fn lease_checksum(page: &[u8], end: usize) -> bool {
    u32_at(page, LEASE_CHECKSUM) == crc32c::crc32c(&page[LEASE_DEVICE_ID..end])
}

const BLOCK_MAGIC: [u8; 4] = *b"PBLK";
const BLOCK_CHECKSUM: usize = BLOCK_MAGIC.len();
const BLOCK_SEQUENCE: usize = BLOCK_CHECKSUM + 4;
const BLOCK_DEVICE_ID: usize = BLOCK_SEQUENCE + 8;
const BLOCK_INDEX: usize = BLOCK_DEVICE_ID + 8;
const BLOCK_DEVICE: usize = BLOCK_INDEX + 4;
const _: () = assert!(BLOCK_DEVICE + 4 == BLOCK_HEADER_BYTES);

/// What the first bytes of a block say. Written with the block's first flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockHeader {
    pub(super) sequence: u64,
    pub(super) device_id: u64,
    pub(super) block: u32,
    pub(super) device: u8,
}

/// A block header as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FoundBlock {
    /// Not written since the device was initialised.
    Blank,
    /// Written, in its life of this number.
    Sealed { sequence: u64 },
    /// Neither: damage, or what the device held before.
    Unreadable,
}

impl BlockHeader {
    pub(super) fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..BLOCK_CHECKSUM].copy_from_slice(&BLOCK_MAGIC);
        bytes[BLOCK_SEQUENCE..BLOCK_DEVICE_ID].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[BLOCK_DEVICE_ID..BLOCK_INDEX].copy_from_slice(&self.device_id.to_le_bytes());
        bytes[BLOCK_INDEX..BLOCK_DEVICE].copy_from_slice(&self.block.to_le_bytes());
        bytes[BLOCK_DEVICE] = self.device;
        let checksum = crc32c::crc32c(&bytes[BLOCK_SEQUENCE..]);
        bytes[BLOCK_CHECKSUM..BLOCK_SEQUENCE].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`, which should be that of `block` on `device`.
    pub(super) fn find(bytes: &[u8], device_id: u64, device: u8, block: u32) -> FoundBlock {
        let bytes = &bytes[..BLOCK_HEADER_BYTES];
        if bytes.iter().all(|byte| *byte == 0) {
            return FoundBlock::Blank;
        }
        let checksum = u32_at(bytes, BLOCK_CHECKSUM);
        let sealed = bytes[..BLOCK_CHECKSUM] == BLOCK_MAGIC
            && checksum == crc32c::crc32c(&bytes[BLOCK_SEQUENCE..]);
        if !sealed {
            return FoundBlock::Unreadable;
        }
        if u64_at(bytes, BLOCK_DEVICE_ID) != device_id {
            return FoundBlock::Blank;
        }
        // A write that went to the wrong place.
        if u32_at(bytes, BLOCK_INDEX) != block || bytes[BLOCK_DEVICE] != device {
            return FoundBlock::Unreadable;
        }
        FoundBlock::Sealed {
            sequence: u64_at(bytes, BLOCK_SEQUENCE),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> DeviceHeader {
        DeviceHeader {
            version: FORMAT_VERSION,
            store_id: 0x0123_4567_89AB_CDEF,
            device_id: 0x1122_3344_5566_7788,
            device_bytes: 1 << 30,
            first_sequence: 99,
            write_block_bytes: 65536,
            device: 1,
            devices: 2,
            namespace: "test".into(),
            encryption: 2,
            key_check: [0xA5; 16],
        }
    }

    fn page() -> Vec<u8> {
        let mut page = vec![0xEE; PAGE_BYTES];
        header().encode(&mut page);
        page
    }

    #[test]
    fn device_header_reads_back_what_was_written() {
        assert_eq!(
            DeviceHeader::decode(&page(), Path::new("x")).unwrap(),
            Some(header())
        );
        assert_eq!(
            DeviceHeader::decode(&[0; PAGE_BYTES], Path::new("x")).unwrap(),
            None
        );
    }

    #[test]
    fn every_flipped_bit_of_a_device_header_is_noticed() {
        for bit in 0..DEVICE_HEADER_BYTES * 8 {
            let mut page = page();
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(
                DeviceHeader::decode(&page, Path::new("x")).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn lease_is_of_one_initialisation() {
        let mut page = vec![0xEE; PAGE_BYTES];
        let lease = Lease {
            limit: 1 << 40,
            run: 0xFEED << 40,
        };
        encode_lease(&mut page, 7, lease);
        assert_eq!(decode_lease(&page, 7), Some(lease));
        assert_eq!(decode_lease(&page, 8), None);
        for bit in 0..LEASE_END * 8 {
            let mut page = page.clone();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_lease(&page, 7), None, "bit {bit}");
        }
        assert_eq!(decode_lease(&[0; PAGE_BYTES], 7), None);
    }

    #[test]
    fn block_header_is_of_one_initialisation_device_and_block() {
        let header = BlockHeader {
            sequence: 5 << 32,
            device_id: 7,
            block: 3,
            device: 1,
        };
        let bytes = header.encode();
        assert_eq!(
            BlockHeader::find(&bytes, 7, 1, 3),
            FoundBlock::Sealed { sequence: 5 << 32 }
        );
        assert_eq!(BlockHeader::find(&bytes, 8, 1, 3), FoundBlock::Blank);
        assert_eq!(BlockHeader::find(&bytes, 7, 0, 3), FoundBlock::Unreadable);
        assert_eq!(BlockHeader::find(&bytes, 7, 1, 4), FoundBlock::Unreadable);
        assert_eq!(BlockHeader::find(&[0; 32], 7, 1, 3), FoundBlock::Blank);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                BlockHeader::find(&bytes, 7, 1, 3),
                FoundBlock::Unreadable,
                "bit {bit}"
            );
        }
    }
}
