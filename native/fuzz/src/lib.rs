//! What is fuzzed: each target takes bytes that a fuzzer made and panics where a promise is broken. The promises are more than not to panic:
//! what is written reads back, what is canonical stays so, an operation gives what a plain model gives, what is refused changes nothing,
//! results and work are bounded by what came in.
//!
//! `libfuzzer/` drives the targets with coverage (docs/guides/testing.md); the tests of this crate run the same functions on the seeds and on
//! bytes from a seeded generator.

mod bits;
mod containers;
mod devices;
mod expressions;
mod frames;
mod images;
mod indexes;
mod locations;
mod model;
pub mod part;
mod requests;
mod sketches;
mod values;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// How many inputs from a generator the tests run.
    pub cases: u32,
}

/// Every target. Those that open a store or a namespace have fewer cases.
pub const TARGETS: &[Target] = &[
    of("frames", frames::run, 2000),
    of("values", values::run, 2000),
    of("containers", containers::run, 2000),
    of("container-model", model::containers, 3000),
    of("bits", bits::run, 2000),
    of("bit-model", model::bits, 2000),
    of("sketches", sketches::run, 1000),
    of("locations", locations::run, 500),
    of("expressions", expressions::run, 2000),
    of("expression-model", model::expressions, 2000),
    of("indexes", indexes::run, 1000),
    of("images", images::run, 500),
    of("devices", devices::run, 30),
    of("requests", requests::run, 500),
];

const fn of(name: &'static str, run: fn(&[u8]), cases: u32) -> Target {
    Target { name, run, cases }
}

pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
