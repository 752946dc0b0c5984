//! The primary index: one table a partition, in digest order, at most 64 bytes a record.

mod entry;
mod journal;
#[cfg(test)]
mod shared_tests;
mod slots;
mod table;

pub use entry::{Entry, Location, TIES_MAX, Version, flag};
pub(crate) use journal::Descriptor;
pub use table::{Iter, PartitionTable};
