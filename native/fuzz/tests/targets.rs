//! The targets on their seeds, and on bytes from a seeded generator: what `npm run fuzz` does with coverage, for a moment.

use perigee_fuzz::{TARGETS, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};

mod support;

/// More cases of all targets: `PERIGEE_FUZZ_CASES=100 cargo test -p perigee-fuzz` runs a hundred times as many.
fn cases(target: &Target) -> u32 {
    let times = std::env::var("PERIGEE_FUZZ_CASES").ok();
    let times = times.map_or(1, |times| times.parse().expect("a number"));
    target.cases.saturating_mul(times)
}

/// Where the numbers begin; another one with `PERIGEE_SEED`.
fn seed() -> u64 {
    let seed = std::env::var("PERIGEE_SEED").ok();
    seed.map_or(1, |seed| seed.parse().expect("a number"))
}

fn run(target: &Target, data: &[u8], of: &str) {
    let ran = catch_unwind(AssertUnwindSafe(|| (target.run)(data)));
    assert!(ran.is_ok(), "{}: {of}: {}", target.name, support::hex(data));
}

#[test]
fn every_seed_keeps_what_its_target_promises() {
    for target in TARGETS {
        let seeds = support::seeds(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (name, data) in seeds {
            run(target, &data, &name);
        }
    }
}

#[test]
fn bytes_of_a_generator_break_no_promise() {
    let from = seed();
    for target in TARGETS {
        for case in from..from + u64::from(cases(target)) {
            let mut random = support::Random(case);
            let length = random.below(600) as usize;
            let data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            run(target, &data, &format!("seed {case}"));
        }
    }
}

#[test]
fn the_guide_says_what_each_target_promises() {
    let guide =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/testing.md");
    let guide = std::fs::read_to_string(guide).expect("the guide");
    let (_, section) = guide.split_once("| Target |").expect("a table of targets");
    let (table, _) = section.split_once("\n\n").expect("an end");
    for target in TARGETS {
        assert!(
            table.contains(&format!("| `{}` |", target.name)),
            "{}",
            target.name
        );
    }
    assert_eq!(table.matches("\n| `").count(), TARGETS.len());
}

/// Seeds with bytes of other values, or of others of the same target, in them.
#[test]
fn changed_seeds_break_no_promise() {
    let from = seed();
    for target in TARGETS {
        let seeds = support::seeds(target.name);
        for case in from..from + u64::from(cases(target)) {
            let mut random = support::Random(case);
            let mut pick = |count: usize| random.below(count as u64) as usize;
            let mut data = seeds[pick(seeds.len())].1.clone();
            for _ in 0..=pick(4) {
                let at = pick(data.len().max(1)).min(data.len());
                let other = &seeds[pick(seeds.len())].1;
                let from = pick(other.len().max(1)).min(other.len());
                let some = &other[from..(from + pick(24)).min(other.len())];
                match pick(4) {
                    0 => data.splice(at..at, some.iter().copied()).for_each(drop),
                    1 => drop(data.drain(at..(at + pick(9)).min(data.len()))),
                    2 if at < data.len() => data[at] = pick(256) as u8,
                    _ if at < data.len() => data[at] ^= 1 << pick(8),
                    _ => data.push(pick(256) as u8),
                }
            }
            run(target, &data, &format!("seed {case}"));
        }
    }
}
