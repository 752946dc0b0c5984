//! The program that libFuzzer drives. `PERIGEE_FUZZ_TARGET` names what it feeds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use perigee_fuzz::{Target, target};
use std::sync::OnceLock;

static CHOSEN: OnceLock<Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("PERIGEE_FUZZ_TARGET").unwrap_or_default();
        let Some(chosen) = target(&name) else {
            eprintln!("PERIGEE_FUZZ_TARGET={name:?} names no target");
            std::process::exit(2);
        };
        let _ = CHOSEN.set(chosen);
    },
    |data: &[u8]| {
        (CHOSEN.get().expect("set at the start").run)(data);
    }
);
