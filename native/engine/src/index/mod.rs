//! The primary index: one table a partition, in digest order, at most 64 bytes a record.

mod entry;
mod table;

pub use entry::{Entry, Location, TIES_MAX, Version, flag};
pub use table::{Iter, PartitionTable};
