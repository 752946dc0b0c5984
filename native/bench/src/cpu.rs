//! Processor time of processes, and who listens on a port, from `/proc`.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;

/// User and system time of a process so far, all its threads, in seconds. `None` when it is gone or
/// not ours to see.
pub fn process_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // SAFETY: plain query without arguments in memory.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(stat_ticks(&stat)? as f64 / ticks_per_second as f64)
}

/// User and system time of this process, in seconds.
pub fn own_seconds() -> f64 {
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid target; RUSAGE_SELF cannot fail with one.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Fields 14 and 15 of `/proc/PID/stat`. The second field, a name in parentheses, may hold
/// anything.
fn stat_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The local process that listens on the port of `address`, if it can be found.
pub fn listening_pid(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() && std::net::TcpListener::bind((address.ip(), 0)).is_err() {
        // No address of this machine.
        return None;
    }
    let mut inodes = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if let Ok(table) = fs::read_to_string(table) {
            inodes.extend(listening_inodes(&table, address.port()));
        }
    }
    let links: HashSet<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let listens = descriptors.any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|link| link.to_str().is_some_and(|link| links.contains(link)))
        });
        listens.then_some(pid)
    })
}

/// Columns: slot, local address, remote address, state (0A listens), queues, timer, retransmits,
/// uid, timeout, inode.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let listens = fields.get(3) == Some(&"0A") && fields[1].ends_with(&suffix);
            if listens {
                fields.get(9)?.parse().ok()
            } else {
                None
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_process_name_may_hold_spaces_and_parentheses() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 0 0 20 0 1 0 5 1000 50";
        assert_eq!(stat_ticks(stat), Some(42));
    }

    #[test]
    fn whoever_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listening_pid(address), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_pid(address), None);
    }

    #[test]
    fn own_time_agrees_with_the_process_table() {
        let until = std::time::Instant::now() + std::time::Duration::from_millis(200);
        while std::time::Instant::now() < until {}
        let from_table = process_seconds(std::process::id()).unwrap();
        assert!((own_seconds() - from_table).abs() < 0.1);
    }
}
