//! The device check as a process, on small real files.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use perigee_engine::storage::medium::{FileMedium, Medium};

const SIZE: u64 = 2 << 20;
/// A load that any machine keeps; what is judged is set by each test.
const GENTLE: &str = "--size 2M --write-block-size 64K --flush-size 16K --reads-per-second 200 \
    --writes-per-second 20 --flush-max-ms 50 --warmup 50ms --interval 100ms";
const SHORT: &str = "--duration 300ms";
/// No scheduler is that late.
const LENIENT: &str = "--fail-above 1m:0%";

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("perigee-act-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        Scratch(directory)
    }

    fn device(&self) -> PathBuf {
        self.0.join("device")
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn command(device: &Path, lines: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perigee-bench"));
    command.args(["act", "--device"]).arg(device);
    for line in lines {
        command.args(line.split_whitespace());
    }
    command
}

fn act(device: &Path, lines: &[&str]) -> Output {
    command(device, lines).output().unwrap()
}

fn assert_status(output: &Output, status: i32) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{out}\n{err}");
}

fn assert_refused(output: &Output, reason: &str) {
    assert_status(output, 2);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(reason), "{message}");
    assert!(output.stdout.is_empty());
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits for the first line of an interval.
fn wait_for_interval(child: &mut Child) -> BufReader<std::process::ChildStdout> {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    for _ in 0..3 {
        line.clear();
        lines.read_line(&mut line).unwrap();
    }
    assert!(
        line.trim().starts_with(|c: char| c.is_ascii_digit()),
        "{line}"
    );
    lines
}

#[test]
fn device_that_keeps_the_rate_passes_and_says_what_it_did() {
    let scratch = Scratch::new("passes");
    let device = scratch.device();
    let output = act(&device, &[GENTLE, SHORT, LENIENT, "--salt --json"]);
    assert_status(&output, 0);
    let report = report(&output);
    assert_eq!(report["passed"], true);
    assert_eq!(report["failures"].as_array().unwrap().len(), 0);
    assert!(report["reads"].as_u64().unwrap() > 0, "{report}");
    assert!(report["block_write_latency_us"]["max"].as_f64().unwrap() > 0.0);
    assert!(report["sync_latency_us"]["max"].as_f64().unwrap() > 0.0);
    assert_eq!(report["pct_above_ms"].as_array().unwrap().len(), 7);
    assert!(report["intervals"].as_array().unwrap().len() >= 2);
    assert_eq!(std::fs::metadata(&device).unwrap().len(), SIZE);

    // Filled once is filled; the size is the file's.
    let again = act(&device, &[GENTLE, SHORT, LENIENT, "--json"]);
    assert_status(&again, 0);
}

#[test]
fn slow_reads_fail_by_the_threshold_they_miss() {
    let scratch = Scratch::new("threshold");
    let strict = "--fail-above 0.0001ms:0% --fail-above 1m:0%";
    let output = act(&scratch.device(), &[GENTLE, SHORT, strict, "--salt --json"]);
    assert_status(&output, 1);
    let report = report(&output);
    let failures = report["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{report}");
    assert_eq!(failures[0]["kind"], "latency");
    assert_eq!(failures[0]["threshold"], "0.0001ms:0%");
}

#[test]
fn rate_that_no_device_keeps_fails_early_and_says_so() {
    let scratch = Scratch::new("rate");
    let rate = "--reads-per-second 90000000 --max-lag 200ms --duration 10m";
    let output = act(
        &scratch.device(),
        &[
            "--size 2M --write-block-size 64K --flush-size 16K --salt",
            rate,
            LENIENT,
        ],
    );
    assert_status(&output, 1);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("the devices cannot keep the asked rate: reads were"),
        "{text}"
    );
    assert!(text.trim_end().contains("FAILED"), "{text}");
}

#[test]
fn what_is_not_ours_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new("refusals");
    let device = scratch.device();
    assert_refused(&act(&device, &[]), "--size makes a file");
    assert_refused(&act(&device, &[GENTLE]), "--salt fills it first");
    assert_refused(&act(&device, &["--size 16M --salt"]), "too few");
    assert!(
        scratch.files().is_empty(),
        "nothing is made before it is refused"
    );
    assert_refused(
        &act(&scratch.0, &[GENTLE, "--salt"]),
        "neither a file nor a block device",
    );
    assert_refused(
        &act(&device, &["--record-bytes 9M --size 1G --salt"]),
        "write block",
    );

    std::fs::write(&device, b"somebody's").unwrap();
    assert_refused(&act(&device, &[GENTLE, "--salt"]), "--destructive");
    assert_eq!(std::fs::read(&device).unwrap(), b"somebody's");

    let mut perigee = vec![0; 8192];
    perigee[..8].copy_from_slice(b"PERIGEE\0");
    std::fs::write(&device, &perigee).unwrap();
    assert_refused(&act(&device, &[GENTLE, "--salt"]), "a Perigee namespace");
    assert_eq!(std::fs::read(&device).unwrap(), perigee);
    assert_status(
        &act(&device, &[GENTLE, SHORT, LENIENT, "--salt --destructive"]),
        0,
    );
}

#[test]
fn device_that_a_node_has_open_is_refused_whatever_is_said() {
    let scratch = Scratch::new("locked");
    let device = scratch.device();
    let node = FileMedium::open(&device, SIZE).unwrap();
    node.prepare().unwrap();
    let output = act(&device, &[GENTLE, "--salt --destructive"]);
    assert_refused(&output, "another process has it open");
}

#[test]
fn interrupt_ends_with_the_verdict_so_far() {
    let scratch = Scratch::new("interrupt");
    let mut child = command(
        &scratch.device(),
        &[GENTLE, LENIENT, "--salt --duration 10m"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = wait_for_interval(&mut child);
    // SAFETY: plain call; the child is ours and not reaped yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let mut text = String::new();
    lines.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    assert!(
        text.contains("(interrupted)") && text.contains("passed"),
        "{text}"
    );
}

#[test]
fn kill_9_leaves_the_file_and_nothing_else() {
    let scratch = Scratch::new("kill");
    let device = scratch.device();
    let mut child = command(&device, &[GENTLE, LENIENT, "--salt --duration 10m"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _lines = wait_for_interval(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scratch.files(), ["device"]);
    // Not locked, and filled still.
    assert_status(&act(&device, &[GENTLE, SHORT, LENIENT]), 0);

    // A filling that did not end leaves a file that is ours, and not filled.
    let file = File::options().write(true).open(&device).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 8], 16).unwrap();
    // SAFETY: a descriptor that `file` keeps open.
    unsafe { libc::fsync(file.as_raw_fd()) };
    assert_refused(&act(&device, &[GENTLE]), "--salt fills it first");
    assert_status(&act(&device, &[GENTLE, SHORT, LENIENT, "--salt"]), 0);
}
