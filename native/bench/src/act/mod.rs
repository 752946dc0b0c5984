//! The device check: the storage load of this engine against a file or a raw device, without an
//! engine. It finds out what a device does at a rate of reads and writes that is asked for, while
//! large blocks are written and read beside them, and judges that by thresholds.

mod device;
mod load;
mod options;
mod plan;
mod report;
mod verdict;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::BenchError;
use device::{Pattern, Target};
use load::Shared;
pub use options::{ActOptions, parse_bytes};
use plan::Plan;
use report::{Interval, Report};
use verdict::{Asked, Failure, Measured, judge};

/// How soon the printing thread sees that the check is over.
const LOOK: Duration = Duration::from_millis(50);

/// True when the devices pass.
pub fn run(options: &ActOptions) -> Result<bool, BenchError> {
    let plan = Plan::new(options)?;
    let interrupted = until_interrupted()?;
    let mut targets = Vec::new();
    for path in &options.devices {
        let (size, salt) = (options.size, options.salt);
        targets.push(Target::open(path, &plan, size, salt, options.destructive)?);
    }
    salt(&mut targets, &plan, options, &interrupted)?;

    let shared = Shared::new(options.max_lag);
    let mut threads = Vec::new();
    for (number, target) in targets.into_iter().enumerate() {
        let seed = options.seed.wrapping_add(number as u64 * 0x1000_0001);
        let started = load::start(&Arc::new(target), &plan, &shared, options.queue_depth, seed);
        match started {
            Ok(more) => threads.extend(more),
            Err(error) => {
                shared.stop.store(true, Ordering::Relaxed);
                threads.into_iter().for_each(join);
                return Err(error);
            }
        }
    }
    let measured = measure(options, &plan, &shared, &interrupted);
    shared.stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(join);
    let (mut total, intervals, seconds) = measured?;

    let trouble = std::mem::take(&mut *shared.trouble.lock());
    let devices = options.devices.len() as f64;
    let asked = Asked {
        reads_per_second: plan.reads_per_second * devices,
        block_bytes_per_second: (plan.client_bytes_per_second + plan.defrag_bytes_per_second)
            * devices,
        // A unit of each stream, and a block, of each device.
        block_write_grain_bytes: 2.0 * plan.flush_bytes as f64 * devices,
        block_read_grain_bytes: plan.write_block_bytes as f64 * devices,
    };
    let mut failures = judge(&total, seconds, &asked, &options.thresholds);
    if let Some((what, lag)) = trouble.behind {
        // Perhaps before the measurement began.
        total.lag_max = total.lag_max.max(lag);
        let lag_seconds = lag.as_secs_f64();
        failures.insert(0, Failure::Behind { what, lag_seconds });
    }
    if let Some(first) = trouble.first_error {
        let count = total.errors.max(1);
        failures.insert(0, Failure::Errors { count, first });
    }
    let stopped = interrupted.load(Ordering::Relaxed);
    let report = Report::new(
        options, &plan, &total, intervals, seconds, stopped, failures,
    );
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.passed)
}

fn join(thread: std::thread::JoinHandle<()>) {
    thread.join().expect("a thread of the check does not panic");
}

/// Set by the first SIGINT or SIGTERM; a second one ends the process at once.
fn until_interrupted() -> Result<Arc<AtomicBool>, BenchError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal finds the flag unset.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}

/// Fills the devices that are not filled, one after the other.
fn salt(
    targets: &mut [Target],
    plan: &Plan,
    options: &ActOptions,
    interrupted: &AtomicBool,
) -> Result<(), BenchError> {
    let visible = !options.json && std::io::stderr().is_terminal();
    let mut pattern = Pattern::new(plan.write_block_bytes as usize, options.seed);
    for target in targets.iter_mut().filter(|target| !target.is_salted()) {
        let path = target.path.display().to_string();
        let started = Instant::now();
        let mut progress = |written: u64, total: u64| {
            let speed = written as f64 / started.elapsed().as_secs_f64();
            let left = (total - written) as f64 / speed;
            if visible {
                eprint!(
                    "\r\x1b[Kfilling {path}: {} %, {:.0} MB/s, {left:.0} s left",
                    written * 100 / total,
                    speed / 1e6
                );
            }
        };
        let complete = target.salt(plan, &mut pattern, interrupted, &mut progress)?;
        if visible {
            eprint!("\r\x1b[K");
        }
        if !complete {
            return Err(BenchError::Interrupted);
        }
    }
    Ok(())
}

/// Warm-up, then an interval after the other until the time is over, the load has ended itself, or
/// the user has ended it. What was measured in all, by interval, and the seconds.
fn measure(
    options: &ActOptions,
    plan: &Plan,
    shared: &Shared,
    interrupted: &AtomicBool,
) -> Result<(Measured, Vec<Interval>, f64), BenchError> {
    let over = || interrupted.load(Ordering::Relaxed) || shared.stop.load(Ordering::Relaxed);
    let wait = |until: Instant| {
        while !over() && Instant::now() < until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(LOOK));
        }
    };
    if !options.json {
        report::print_head(options, plan);
    }
    wait(Instant::now() + options.warmup);
    if interrupted.load(Ordering::Relaxed) {
        return Err(BenchError::Interrupted);
    }
    let warmup = std::mem::take(&mut *shared.measured.lock());
    // Errors count whenever they happen.
    let mut total = Measured {
        errors: warmup.errors,
        ..Measured::default()
    };
    let mut intervals = Vec::new();
    let started = Instant::now();
    let end = started + options.duration;
    let mut since = started;
    while Instant::now() < end && !over() {
        wait((since + options.interval).min(end));
        let now = Instant::now();
        let measured = std::mem::take(&mut *shared.measured.lock());
        let interval = Interval::new(&measured, since - started, now - since);
        if !options.json {
            interval.print();
        }
        intervals.push(interval);
        total.add(&measured);
        since = now;
    }
    // Nothing at all where the load ended itself before.
    let seconds = (since - started).as_secs_f64().max(1e-9);
    if intervals.is_empty() && interrupted.load(Ordering::Relaxed) {
        return Err(BenchError::Interrupted);
    }
    Ok((total, intervals, seconds))
}
