//! Used blocks by what emptying them gains: doubly linked lists by block number, so that a block is moved, and the best
//! one found, in the same time on a device of any size.

/// Ranks of blocks below the low-water mark, and of those above it; the fewer live bytes, the lower the rank.
pub(super) const SPARSE_RANKS: usize = 32;
pub(super) const DENSE_RANKS: usize = 32;
/// The rank of blocks of copies of which little but padding is to be gained, and that of blocks that are worth emptying only
/// while tombstones need space.
pub(super) const PADDED_RANK: usize = SPARSE_RANKS + DENSE_RANKS;
pub(super) const MEAGRE_RANK: usize = PADDED_RANK + 1;
const RANKS: usize = MEAGRE_RANK + 1;

/// No block. Block 0 is the device header's.
const NONE: u32 = 0;
const UNRANKED: u8 = u8::MAX;

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    rank: u8,
}

pub(super) struct Ranks {
    links: Vec<Link>,
    first: [u32; RANKS],
    last: [u32; RANKS],
    sparse: usize,
}

impl Ranks {
    pub(super) fn new(blocks: usize) -> Ranks {
        let link = Link {
            before: NONE,
            after: NONE,
            rank: UNRANKED,
        };
        Ranks {
            links: vec![link; blocks],
            first: [NONE; RANKS],
            last: [NONE; RANKS],
            sparse: 0,
        }
    }

    /// Gives the block this rank, behind those that have had it for longer; `None` takes it out.
    pub(super) fn set(&mut self, block: u32, rank: Option<usize>) {
        let now = rank.map_or(UNRANKED, |rank| rank as u8);
        let Link {
            before,
            after,
            rank,
        } = self.links[block as usize];
        if rank == now {
            return;
        }
        if rank != UNRANKED {
            match before {
                NONE => self.first[rank as usize] = after,
                before => self.links[before as usize].after = after,
            }
            match after {
                NONE => self.last[rank as usize] = before,
                after => self.links[after as usize].before = before,
            }
            self.sparse -= usize::from((rank as usize) < SPARSE_RANKS);
        }
        let mut link = Link {
            before: NONE,
            after: NONE,
            rank: now,
        };
        if now != UNRANKED {
            link.before = std::mem::replace(&mut self.last[now as usize], block);
            match link.before {
                NONE => self.first[now as usize] = block,
                before => self.links[before as usize].after = block,
            }
            self.sparse += usize::from((now as usize) < SPARSE_RANKS);
        }
        self.links[block as usize] = link;
    }

    pub(super) fn get(&self, block: u32) -> Option<usize> {
        let rank = self.links[block as usize].rank;
        (rank != UNRANKED).then_some(rank as usize)
    }

    /// How many blocks are below the low-water mark.
    pub(super) fn sparse(&self) -> usize {
        self.sparse
    }

    /// Blocks of the ranks below `end`, the lowest rank first.
    pub(super) fn below(&self, end: usize) -> impl Iterator<Item = u32> {
        let some = |block: u32| (block != NONE).then_some(block);
        self.first[..end].iter().flat_map(move |first| {
            std::iter::successors(some(*first), move |block| {
                some(self.links[*block as usize].after)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use std::collections::BTreeMap;

    #[test]
    fn ranks_agree_with_a_plain_map() {
        const BLOCKS: usize = 50;
        let mut ranks = Ranks::new(BLOCKS);
        // Rank and when it was given.
        let mut plain: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
        let mut random = Random(3);
        for step in 0..5000 {
            let block = 1 + random.below(BLOCKS as u64 - 1) as u32;
            let rank = Some(random.below(RANKS as u64 + 9) as usize).filter(|rank| *rank < RANKS);
            ranks.set(block, rank);
            match rank {
                None => drop(plain.remove(&block)),
                Some(rank) if plain.get(&block).is_some_and(|had| had.0 == rank) => {}
                Some(rank) => drop(plain.insert(block, (rank, step))),
            }
            let end = random.below(RANKS as u64 + 1) as usize;
            let mut expected: Vec<_> = plain.iter().filter(|(_, at)| at.0 < end).collect();
            expected.sort_by_key(|(_, at)| **at);
            let expected: Vec<u32> = expected.into_iter().map(|(block, _)| *block).collect();
            assert_eq!(
                ranks.below(end).collect::<Vec<_>>(),
                expected,
                "step {step}"
            );
            let sparse = plain.values().filter(|at| at.0 < SPARSE_RANKS).count();
            assert_eq!(ranks.sparse(), sparse, "step {step}");
        }
    }
}
