//! The data plane's threads: network loops, dispatch of client requests, and the lanes to TypeScript.

mod background_job;
mod batch_job;
mod contained;
mod dispatch;
mod housekeeping;
mod info_lane;
mod mailbox;
pub mod net;
mod parked;
mod query_job;
pub mod query_registry;
mod query_request;
mod reply_compression;
pub mod server;
#[cfg(test)]
mod testing;
mod turn;
pub mod udf_lane;
mod udf_workers;
