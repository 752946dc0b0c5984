//! Waiting for a device that somebody else has.
//!
//! A device is locked by the process that has it open, or opened for it alone. When that process is killed, the kernel
//! gives up its files at once, but those that an io_uring of it holds only when what was under way there has ended and a
//! kernel thread came to it: after some ten milliseconds, or many seconds on a machine that is busy. Until then no process
//! has the file open, and it is locked all the same. So who can be found to have it open is waited for shortly, as a node
//! that is being stopped; nobody for longer.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(30);
/// Processes are looked through at most so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Of a process's flags in its `stat`: it is ending (PF_EXITING).
const EXITING: u64 = 4;

#[derive(Clone, Copy)]
struct Waits {
    /// While a process has the device open.
    held: Duration,
    /// While none is seen to: it was killed, or is in a container of its own, or cannot be looked at.
    unheld: Duration,
}

const WAITS: Waits = Waits {
    held: Duration::from_secs(3),
    unheld: Duration::from_secs(30),
};

/// Whether an error says that somebody else has the device.
pub fn is_in_use(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy
    )
}

/// Opens or locks the device at `path`, again while it is in use: for 3 s while a process has it open or it is mounted,
/// and for 30 s while neither is seen.
pub fn when_free<R>(path: &Path, open: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    wait(path, WAITS, open)
}

fn wait<R>(path: &Path, waits: Waits, mut open: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    let started = Instant::now();
    let mut looked: Option<(Instant, Option<String>)> = None;
    loop {
        let error = match open() {
            Err(error) if is_in_use(&error) => error,
            result => return result,
        };
        if looked
            .as_ref()
            .is_none_or(|(at, _)| at.elapsed() >= LOOK_EVERY)
        {
            let found = holder(path);
            if looked.as_ref().is_none_or(|(_, before)| *before != found) {
                tell(path, found.as_deref(), waits);
            }
            looked = Some((Instant::now(), found));
        }
        let is_held = matches!(looked, Some((_, Some(_))));
        let patience = if is_held { waits.held } else { waits.unheld };
        if started.elapsed() >= patience {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
    }
}

fn tell(path: &Path, holder: Option<&str>, waits: Waits) {
    let path = path.display();
    match holder {
        Some(holder) => tracing::warn!(
            %path,
            holder,
            wait_s = waits.held.as_secs(),
            "in use: it is waited for"
        ),
        None => tracing::warn!(
            %path,
            wait_s = waits.unheld.as_secs(),
            "in use, though no process is seen to have it open: it is waited for, as the kernel may have to clean up after one that was killed"
        ),
    }
}

/// Who has it open, in words.
fn holder(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for process in numbers {
        if has_open(process, &path) && !is_ending(process) {
            return Some(format!("process {process}"));
        }
    }
    is_mounted(&path).then(|| "a mount".to_owned())
}

fn has_open(process: u32, path: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return false;
    };
    // Who waits for a file has it open already, to lock it; a block device is not opened while somebody has it.
    let is_file = fs::metadata(path).is_ok_and(|about| about.is_file());
    let may_be_waiting = is_file && process == std::process::id();
    descriptors.flatten().any(|entry| {
        let is_it = fs::read_link(entry.path()).is_ok_and(|file| file == path);
        is_it && (!may_be_waiting || is_locked(&entry.file_name().to_string_lossy()))
    })
}

/// Whether this process has a lock through one of its descriptors.
fn is_locked(descriptor: &str) -> bool {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"));
    about.is_ok_and(|about| about.lines().any(|line| line.starts_with("lock:")))
}

fn is_ending(process: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return true;
    };
    // "PID (name) state parent group session terminal owner flags ..."; a name may hold anything.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u64>().ok());
    matches!(fields.first(), Some(&("Z" | "X"))) || flags.is_some_and(|f| f & EXITING != 0)
}

/// Whether a file system on the block device is mounted.
fn is_mounted(path: &Path) -> bool {
    // "ID PARENT MAJOR:MINOR ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS"
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|mount| {
        let source = mount
            .rsplit_once(" - ")
            .and_then(|(_, rest)| rest.split(' ').nth(1));
        source.is_some_and(|source| Path::new(source) == path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempFile;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    const LONG: Duration = Duration::from_secs(3600);

    fn temp_file(name: &str) -> (TempFile, File) {
        let temp = TempFile::new(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temp.0);
        (temp, file.unwrap())
    }

    fn lock(file: &File) -> io::Result<()> {
        // SAFETY: flock takes a descriptor that `file` keeps open.
        match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[test]
    fn a_file_that_a_process_has_open_is_not_waited_for_long() {
        let (temp, held) = temp_file("held");
        lock(&held).unwrap();
        assert_eq!(
            holder(&temp.0),
            Some(format!("process {}", std::process::id()))
        );
        let waits = Waits {
            held: Duration::ZERO,
            unheld: LONG,
        };
        let refused = wait(&temp.0, waits, || lock(&File::open(&temp.0)?));
        assert!(is_in_use(&refused.unwrap_err()));
    }

    /// As after a `kill -9`: the kernel still has the file, and with it the lock. Such a start was refused after 3 s.
    #[test]
    fn a_lock_without_a_process_is_waited_for() {
        let (temp, held) = temp_file("unheld");
        held.set_len(1).unwrap();
        lock(&held).unwrap();
        // SAFETY: a new mapping, which nobody reads; it keeps the open file when the descriptor is gone.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                1,
                libc::PROT_READ,
                libc::MAP_SHARED,
                held.as_raw_fd(),
                0,
            )
        };
        assert_ne!(mapping, libc::MAP_FAILED);
        drop(held);
        assert_eq!(holder(&temp.0), None);
        let waits = Waits {
            held: Duration::ZERO,
            unheld: LONG,
        };
        let mut attempts = 0;
        let opened = wait(&temp.0, waits, || {
            attempts += 1;
            if attempts == 4 {
                // SAFETY: mapped above, and not used.
                assert_eq!(unsafe { libc::munmap(mapping, 1) }, 0);
            }
            lock(&File::open(&temp.0)?)
        });
        opened.unwrap();
        assert_eq!(attempts, 4);
    }
}
