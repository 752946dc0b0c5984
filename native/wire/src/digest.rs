//! Record digests and the partition that follows from one (section 6).

pub use crate::flags::limits::PARTITIONS;
use ripemd::{Digest as _, Ripemd160};

/// RIPEMD-160 of set name, key type and key: the identity of a record within its namespace.
pub type Digest = [u8; 20];

pub(crate) const DIGEST_BYTES: usize = size_of::<Digest>();

/// Hashes a key as every client does. `key_type` is the particle type of the key, `key` its wire
/// bytes (8, big endian, for an integer or a double); an empty set contributes nothing.
pub fn compute_digest(set: &[u8], key_type: u8, key: &[u8]) -> Digest {
    let mut hash = Ripemd160::new();
    hash.update(set);
    hash.update([key_type]);
    hash.update(key);
    hash.finalize().into()
}

/// The id of a partition, always below [`PARTITIONS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId(u16);

impl PartitionId {
    /// `None` when there is no such partition.
    pub const fn new(id: u16) -> Option<PartitionId> {
        if (id as usize) < PARTITIONS {
            Some(PartitionId(id))
        } else {
            None
        }
    }

    pub const fn get(self) -> u16 {
        self.0
    }

    /// For tables that hold one entry a partition.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every partition, ascending.
    pub fn all() -> impl DoubleEndedIterator<Item = PartitionId> + ExactSizeIterator {
        (0..PARTITIONS as u16).map(PartitionId)
    }
}

impl std::fmt::Display for PartitionId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The low 12 bits of the first two digest bytes, little endian.
#[inline]
pub fn partition_of(digest: &Digest) -> PartitionId {
    PartitionId(u16::from_le_bytes([digest[0], digest[1]]) & (PARTITIONS as u16 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{hex, unhex};

    /// Set, key type, key in hex, digest, partition where it is given; `-` is empty. Section 20.
    const VECTORS: &str = "
        set  1 0000000000000000 93d943aae37b017ad7e011b0c1d2e2143c2fb37d 2451
        set  1 0000000000000001 82d7213b469812947c109a6d341e3b5b1dedec1f 1922
        set  1 ffffffffffffffff 22116d253745e29fc63fdf760b6e26f7e197e01d 290
        set  1 8000000000000000 7185c2a47fb02c996daed26b4e01b83240aee9d4
        set  1 7fffffffffffffff 1698328974afa62c8e069860c1516f780d63dbb8
        set  3 - 2819b1ff6e346a43b4f5f6b77a88bc3eaac22a83 2344
        set  3 73 607cddba7cd111745ef0a3d783d57f0e83c8f311
        set  3 61616161616161616161 5979fb32a80da070ff356f7695455592272e36c2
        set  4 - 327e2877b8815c7aeede0d5a8620d4ef8df4a4b4
        set  4 73 ca2d96dc9a184d15a7fa2927565e844e9254e001
        demo 3 6b657931 ec91192d4b7f8ce35d5d78d34bca65cbaaaac960 492
        demo 1 0000000000000001 b7f4b83889e2da67de683e1df6919a1eacc446c8 1207
        demo 4 000102 4343d714e2422fcf1974ea077b425e2bfdbc3e13
        -    3 61 79e55340ff2911fc794c49ec2a8175bd9d7ca04c 1401";

    #[test]
    fn digests_are_those_of_the_official_clients() {
        let mut checked = 0;
        for line in VECTORS.trim().lines() {
            let mut columns = line.split_whitespace();
            let mut next = || {
                columns
                    .next()
                    .expect("a vector has four columns")
                    .trim_matches('-')
            };
            let (set, kind, key, expected) = (next(), next(), next(), next());
            let digest = compute_digest(set.as_bytes(), kind.parse().unwrap(), &unhex(key));
            assert_eq!(hex(&digest), expected, "{line}");
            if let Some(partition) = columns.next() {
                assert_eq!(partition_of(&digest).to_string(), partition, "{line}");
            }
            checked += 1;
        }
        assert_eq!(checked, 14);
    }

    #[test]
    fn partition_ids_end_at_4095() {
        assert_eq!(PartitionId::new(4095).map(PartitionId::index), Some(4095));
        assert_eq!(PartitionId::new(4096), None);
        assert_eq!(PartitionId::all().len(), PARTITIONS);
        assert_eq!(partition_of(&[0xFF; 20]).index(), PARTITIONS - 1);
    }
}
