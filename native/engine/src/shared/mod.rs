//! What of a namespace outlives its process in shared memory, so that the next one can take it over: the index, what
//! is known of each block, and the blocks that are not yet written to the devices.
//!
//! Two files a store, named after namespace and store id: `.index` and `.blocks`. They are believed only if everything
//! they say of themselves is as expected, and each value is checked before it is used.

mod arena;
mod index_file;
mod map;
mod pool;

pub(crate) use arena::{Arena, GRANULE_BYTES};
pub(crate) use index_file::{
    Attached, BlockRecord, INDEX_BYTES_MAX, Identity, Ledger, SetNames, SharedStore, remove_of,
};
pub(crate) use pool::{PooledBlock, Unwritten};
