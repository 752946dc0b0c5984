//! A file system that is full: a small one in memory, which takes the right to mount it.

use super::*;
use std::process::Command;

/// A mounted file system of a few megabytes, unmounted after the test.
struct SmallDisk(TempFile);

impl SmallDisk {
    /// `None`, with the reason printed, where mounting is not permitted.
    fn new(name: &str, bytes: u64) -> Option<SmallDisk> {
        let at = TempFile::new(name);
        std::fs::create_dir(&at.0).expect("a directory in the temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(&at.0)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(at));
        }
        eprintln!("skipped: mounting is not permitted");
        let _ = std::fs::remove_dir(&at.0);
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
        let _ = std::fs::remove_dir(&self.0.0);
    }
}

fn on(path: PathBuf, blocks: usize) -> StoreConfig {
    StoreConfig {
        medium: MediumConfig::File {
            paths: vec![path],
            file_size: (blocks * BLOCK_BYTES) as u64,
        },
        ..committing()
    }
}

#[test]
fn file_that_does_not_fit_is_refused_when_it_is_opened() {
    let Some(disk) = SmallDisk::new("too-small", 1 << 20) else {
        return;
    };
    let path = disk.0.0.join("data");
    let refused = Store::open(on(path.clone(), 128))
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("No space left on device"), "{refused}");
    // What fits is taken then.
    let _ = std::fs::remove_file(&path);
    Store::open(on(path, 32)).unwrap().close();
}

/// Space that is reserved can be lost all the same: somebody punched a hole, and took what it gave.
#[test]
fn write_that_finds_the_disk_full_fails_the_device_and_reads_go_on() {
    let Some(disk) = SmallDisk::new("filled", 1 << 20) else {
        return;
    };
    let path = disk.0.0.join("data");
    let (node, _) = Node::started(Store::open(on(path.clone(), 32)).unwrap());
    for key in 0..20 {
        node.put(key, 1, 500).unwrap();
    }
    node.store.drain().unwrap();
    let punched = Command::new("fallocate")
        .args(["--punch-hole", "--offset", &(4 * BLOCK_BYTES).to_string()])
        .args(["--length", &(28 * BLOCK_BYTES).to_string()])
        .arg(&path)
        .status();
    assert!(
        punched.is_ok_and(|status| status.success()),
        "a hole is punched"
    );
    let filler = std::fs::write(disk.0.0.join("filler"), vec![1; 2 << 20]);
    assert_eq!(filler.unwrap_err().kind(), io::ErrorKind::StorageFull);

    let mut refused = None;
    for key in 100..2000 {
        match node.put(key, 1, 500) {
            Ok(_) => {}
            Err(AppendError::Overload) => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert_eq!(refused, Some(AppendError::DeviceFailed));
    let failure = node.store.drain().unwrap_err().to_string();
    assert!(failure.contains("No space left on device"), "{failure}");
    let stats = node.store.device_stats();
    assert!(stats[0].failure.is_some());
    for key in 0..20 {
        assert_eq!(node.read(key), Some(1));
    }
    node.store.close();
}
