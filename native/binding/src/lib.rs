//! The add-on that TypeScript loads. Converts and forwards; decisions are on the other side of this border, records on
//! the other side of the engine's. The surface is described in docs/ARCHITECTURE.md, section "The binding".

#![cfg_attr(
    test,
    allow(dead_code, reason = "napi gathers exports only outside of tests")
)]

mod log;
mod node;
mod udf;
