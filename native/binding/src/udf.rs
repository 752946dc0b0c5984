//! The call with which a Lua worker thread gives back results and takes tasks.

use std::time::Duration;

use napi::bindgen_prelude::Uint8ArraySlice;
use napi_derive::napi;
use perigee_service::udf_lane::Exchanged;

use crate::node::server;

/// Nothing more will come: the node is closed.
const CLOSED: i64 = -1;

/// Carries out `results`, then blocks up to `wait_ms` for tasks and writes them to `tasks`. Returns the bytes written, 0
/// when none came, -1 when the node is closed.
/// For worker threads: it must not be called on the main thread.
#[napi]
pub fn udf_exchange(
    handle: u32,
    worker: u32,
    results: Option<&[u8]>,
    mut tasks: Uint8ArraySlice<'_>,
    wait_ms: u32,
) -> i64 {
    let Some(server) = server(handle) else {
        return CLOSED;
    };
    // SAFETY: the calling worker owns the buffer, shares it with no other thread and is blocked in this call.
    let tasks = unsafe { tasks.as_mut() };
    match server.udf.exchange(
        worker,
        results.unwrap_or_default(),
        tasks,
        Duration::from_millis(u64::from(wait_ms)),
    ) {
        Exchanged::Tasks(bytes) => bytes as i64,
        Exchanged::Nothing => 0,
        Exchanged::Closed => CLOSED,
    }
}
