//! How much memory this process can still have: the machine's, or less where a control group limits it.

use std::fs;
use std::path::Path;

/// Memory and what of it is left, in bytes. What the kernel can take back (clean page cache) counts as left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemMemory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

impl SystemMemory {
    /// Looks at the machine. `None` where it does not tell.
    pub fn read() -> Option<SystemMemory> {
        Self::read_below(Path::new("/"))
    }

    /// As `read`, on the `proc` and `sys` of another root.
    fn read_below(root: &Path) -> Option<SystemMemory> {
        let machine = fs::read_to_string(root.join("proc/meminfo"))
            .ok()
            .and_then(|text| parse_meminfo(&text));
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limits = groups.lines().flat_map(|line| group_limits(root, line));
        // Whichever leaves the least.
        machine
            .into_iter()
            .chain(limits.filter(|limit| machine.is_none_or(|m| limit.total_bytes < m.total_bytes)))
            .min_by_key(|memory| memory.available_bytes)
    }

    pub fn used_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.available_bytes)
    }

    pub fn used_pct(&self) -> u64 {
        super::percent(self.used_bytes(), self.total_bytes)
    }
}

fn parse_meminfo(text: &str) -> Option<SystemMemory> {
    let kib = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(SystemMemory {
        total_bytes: kib("MemTotal:")? * 1024,
        available_bytes: kib("MemAvailable:")? * 1024,
    })
}

/// Where a version of control groups keeps what is needed.
struct Layout {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    inactive_file: &'static str,
}

const VERSION_2: Layout = Layout {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    inactive_file: "inactive_file",
};

const VERSION_1: Layout = Layout {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive_file: "total_inactive_file",
};

/// The limits of the group in a line of `/proc/self/cgroup` (`hierarchy:controllers:path`) and of the groups around it.
fn group_limits(root: &Path, line: &str) -> Vec<SystemMemory> {
    let mut parts = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
    else {
        return Vec::new();
    };
    let layout = match controllers {
        "" => VERSION_2,
        controllers if controllers.split(',').any(|name| name == "memory") => VERSION_1,
        _ => return Vec::new(),
    };
    // In a container the path may name groups outside of what is mounted: those around it are looked at all the same.
    let mount = root.join(layout.mount);
    Path::new(path.trim_start_matches('/'))
        .ancestors()
        .filter_map(|group| limit_of(&mount.join(group), &layout))
        .collect()
}

/// `None` for a group without a limit.
fn limit_of(group: &Path, layout: &Layout) -> Option<SystemMemory> {
    let number = |file: &str| {
        let text = fs::read_to_string(group.join(file)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let total_bytes = number(layout.limit)?;
    let used = number(layout.usage)?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cache = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == layout.inactive_file)
        .and_then(|(_, bytes)| bytes.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Some(SystemMemory {
        total_bytes,
        available_bytes: total_bytes.saturating_sub(used.saturating_sub(cache)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDirectory;

    const KIB: u64 = 1024;

    fn root(name: &str, files: &[(&str, &str)]) -> TempDirectory {
        let root = TempDirectory::new(name);
        for (path, text) in files {
            let path = root.0.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        root
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    400 kB\n",
    );

    #[test]
    fn without_a_group_the_machine_counts() {
        let root = root("meminfo", &[MEMINFO, ("proc/self/cgroup", "0::/\n")]);
        let memory = SystemMemory::read_below(&root.0).expect("memory");
        assert_eq!((memory.total_bytes, memory.used_pct()), (1000 * KIB, 60));
    }

    #[test]
    fn a_limit_around_the_group_counts_and_cache_is_not_use() {
        let root = root(
            "cgroup2",
            &[
                MEMINFO,
                ("proc/self/cgroup", "0::/pod/service\n"),
                ("sys/fs/cgroup/pod/service/memory.max", "max\n"),
                ("sys/fs/cgroup/pod/service/memory.current", "1\n"),
                ("sys/fs/cgroup/pod/memory.max", "204800\n"),
                ("sys/fs/cgroup/pod/memory.current", "153600\n"),
                (
                    "sys/fs/cgroup/pod/memory.stat",
                    "anon 1\ninactive_file 51200\n",
                ),
            ],
        );
        let expected = SystemMemory {
            total_bytes: 200 * KIB,
            available_bytes: 100 * KIB,
        };
        assert_eq!(SystemMemory::read_below(&root.0), Some(expected));
    }

    #[test]
    fn the_older_layout_is_read_and_a_limit_above_the_machine_is_none() {
        let files = |limit| {
            [
                MEMINFO,
                (
                    "proc/self/cgroup",
                    "11:cpu,cpuacct:/a\n5:memory:/elsewhere/docker\n0::/x\n",
                ),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "102400\n"),
                (
                    "sys/fs/cgroup/memory/memory.stat",
                    "total_inactive_file 0\n",
                ),
            ]
        };
        let limited = root("cgroup1", &files("204800\n"));
        let memory = SystemMemory::read_below(&limited.0).expect("memory");
        assert_eq!(
            (memory.total_bytes, memory.available_bytes),
            (200 * KIB, 100 * KIB)
        );
        let unlimited = root("cgroup1-none", &files("9223372036854771712\n"));
        let memory = SystemMemory::read_below(&unlimited.0).expect("memory");
        assert_eq!(memory.total_bytes, 1000 * KIB);
    }

    #[test]
    fn this_machine_tells() {
        let memory = SystemMemory::read().expect("memory");
        assert!(memory.total_bytes > 0 && memory.available_bytes <= memory.total_bytes);
    }
}
