//! Raw block devices: loop devices here, which take the rights to make them.

use super::*;
use std::process::Command;

/// A loop device over a file, gone after the test.
pub(super) struct LoopDevice {
    pub(super) path: PathBuf,
    pub(super) file: TempFile,
}

impl LoopDevice {
    /// `None`, with the reason printed, where loop devices cannot be made.
    pub(super) fn new(name: &str, bytes: u64) -> Option<LoopDevice> {
        let file = TempFile::new(name);
        std::fs::File::create(&file.0)
            .and_then(|file| file.set_len(bytes))
            .expect("a file in the temporary directory");
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file.0)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(LoopDevice {
                path: String::from_utf8_lossy(&output.stdout).trim().into(),
                file,
            }),
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("skipped: losetup: {}", reason.trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: losetup: {error}");
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

fn on(paths: &[&Path]) -> StoreConfig {
    StoreConfig {
        medium: MediumConfig::Device {
            paths: paths.iter().map(|path| path.to_path_buf()).collect(),
        },
        ..config()
    }
}

/// A process that another test is just starting has its copies of all descriptors for a moment, exclusive ones too.
fn open_patiently(config: &StoreConfig) -> Store {
    for _ in 0..1000 {
        match Store::open(config.clone()) {
            Err(OpenError::InUse { .. }) => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened.unwrap(),
        }
    }
    panic!("the device stays in use");
}

fn refusal(config: StoreConfig) -> String {
    Store::open(config).err().expect("a refusal").to_string()
}

#[test]
fn records_are_striped_over_block_devices_and_are_there_after_a_restart() {
    let sectors = 24 * BLOCK_BYTES as u64 + 512;
    let Some(first) = LoopDevice::new("striped-0", sectors) else {
        return;
    };
    let Some(second) = LoopDevice::new("striped-1", 16 * BLOCK_BYTES as u64) else {
        return;
    };
    let both = || on(&[&first.path, &second.path]);
    for in_memory in [false, true] {
        let mut expected = BTreeMap::new();
        for device in [&first, &second] {
            let file = std::fs::OpenOptions::new().write(true).open(&device.path);
            std::os::unix::fs::FileExt::write_all_at(&file.unwrap(), &[0; 4096], 0).unwrap();
        }
        for round in 0..3_u64 {
            let config = StoreConfig {
                in_memory,
                ..both()
            };
            let (node, _) = Node::started(open_patiently(&config));
            assert_eq!(node.versions(), expected, "round {round}");
            for key in 0..150 {
                let version = round * 100 + u64::from(key);
                node.put_patiently(key, version, 300).unwrap();
                expected.insert(key, version);
            }
            node.store.drain().unwrap();
            // What does not fill a write block is left alone.
            assert_eq!(node.store.stats().total_blocks, 23 + 15);
            let devices: BTreeSet<u8> = (node.map.lock().values())
                .map(|held| held.location.device())
                .collect();
            assert_eq!(devices.len(), 2);
            node.read_all();
            assert!(refusal(both()).contains("is in use"));
            node.store.close();
        }
    }
}

#[test]
fn mounted_device_is_refused_and_untouched() {
    let Some(device) = LoopDevice::new("mounted", 2 << 20) else {
        return;
    };
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F"])
        .arg(&device.path)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mkfs.ext4");
        return;
    }
    let before = std::fs::read(&device.path).unwrap();
    let refused = refusal(on(&[&device.path]));
    assert!(refused.contains("is not a Perigee device"), "{refused}");
    let at = TempFile::new("mount-point");
    std::fs::create_dir(&at.0).unwrap();
    let mounted = Command::new("mount")
        .args(["-o", "ro"])
        .arg(&device.path)
        .arg(&at.0)
        .status();
    if mounted.is_ok_and(|status| status.success()) {
        let refused = refusal(on(&[&device.path]));
        let unmounted = Command::new("umount").arg(&at.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
        assert!(
            refused.contains("is in use by another process, or mounted"),
            "{refused}"
        );
    } else {
        eprintln!("skipped: mounting is not permitted");
    }
    std::fs::remove_dir(&at.0).unwrap();
    assert!(std::fs::read(&device.path).unwrap() == before);
}

#[test]
fn file_given_as_device_and_device_given_as_file_are_refused() {
    let file = TempFile::new("no-device");
    std::fs::write(&file.0, vec![0; 16 * BLOCK_BYTES]).unwrap();
    let refused = refusal(on(&[&file.0]));
    assert!(
        refused.contains("it is no block device; a file is to be named under files"),
        "{refused}"
    );
    let missing = refusal(on(&[Path::new("/dev/no-such-device")]));
    assert!(missing.contains("No such file"), "{missing}");
    let as_file = |path: &Path| StoreConfig {
        medium: MediumConfig::File {
            paths: vec![path.to_path_buf()],
            file_size: 16 * BLOCK_BYTES as u64,
        },
        ..config()
    };
    let refused = refusal(as_file(Path::new("/dev/null")));
    assert!(refused.contains("it is no regular file"), "{refused}");
    if let Some(device) = LoopDevice::new("no-file", 16 * BLOCK_BYTES as u64) {
        let refused = refusal(as_file(&device.path));
        assert!(
            refused.contains("it is a block device, which is to be named under devices"),
            "{refused}"
        );
        assert!(
            std::fs::read(&device.file.0)
                .unwrap()
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

/// The signatures of some file systems and volumes lie beyond the first page.
#[test]
fn device_without_a_header_that_is_not_blank_is_refused_and_untouched() {
    let file = TempFile::new("signature");
    for offset in [4096, 2 * 4096 + 64, BLOCK_BYTES - 1] {
        let mut bytes = vec![0; 8 * BLOCK_BYTES];
        bytes[offset] = 1;
        std::fs::write(&file.0, &bytes).unwrap();
        let refused = refusal(file.config(8));
        assert!(refused.contains("is not blank"), "{refused}");
        assert!(std::fs::read(&file.0).unwrap() == bytes);
    }
}
