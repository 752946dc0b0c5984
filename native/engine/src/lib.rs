//! The record engine: index, storage, record operations and the one commit point. See docs/ARCHITECTURE.md.

pub mod change_queue;
pub mod changing;
pub mod clock;
mod commit;
#[cfg(test)]
mod compression_tests;
pub mod config;
#[cfg(test)]
mod container_tests;
#[cfg(test)]
mod deletion_tests;
pub mod device_copy;
#[cfg(test)]
mod device_read_tests;
pub mod eviction;
pub mod expiry;
pub mod expression;
pub mod filter;
pub mod histogram;
pub mod index;
mod lane_task;
pub mod latency;
pub mod limits;
pub mod namespace;
pub mod partition;
pub mod progress;
pub mod query;
#[cfg(test)]
mod query_tests;
pub mod rebuild;
pub mod record;
pub mod request;
#[cfg(test)]
mod request_tests;
pub mod secondary_index;
pub mod sets;
mod shared;
pub mod stats;
pub mod storage;
pub mod stream;
mod sweep;
#[cfg(test)]
mod testing;
pub mod tomb_raider;
pub mod truncate;
#[cfg(test)]
mod truncate_tests;
pub mod tunable;
pub mod udf;
#[cfg(test)]
mod warm_tests;
pub mod xdr;
#[cfg(test)]
mod xdr_tests;
