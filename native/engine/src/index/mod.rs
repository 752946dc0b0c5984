//! The primary index: one table a partition, in digest order, at most 64 bytes a record.

mod entry;
mod journal;
#[cfg(test)]
mod shared_tests;
mod slots;
mod table;
#[cfg(test)]
mod table_tests;

pub use entry::{Entry, Location, TIES_MAX, Version, flag};
#[cfg(test)]
pub(crate) use journal::tests::kill_after;
pub(crate) use journal::{Descriptor, step};
pub use table::{Iter, PartitionTable, WithPrefix, prefix_of};
