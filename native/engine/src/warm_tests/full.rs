//! File systems in memory that are full: when the files are made, while they grow, and when they are taken over.

use std::ffi::CString;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{KEYS, Model, SERIAL, check_counts, config, contents, filled, open, put, shared_files};
use crate::rebuild::StartKind;
use crate::testing::TempDirectory;
use perigee_wire::ResultCode;

/// A small file system of its own for the shared files of a directory.
struct SmallFileSystem {
    at: PathBuf,
}

impl SmallFileSystem {
    /// `None` where this user may not mount any, which is said.
    fn mount(directory: &TempDirectory, kib: u32) -> Option<SmallFileSystem> {
        let at = directory.0.join("shared");
        std::fs::create_dir(&at).expect("a directory");
        let options = c_string(&format!("size={kib}k,mode=0700"));
        let path = c_string(at.to_str().expect("a path"));
        // SAFETY: strings that end in a zero, and no flags.
        let result = unsafe {
            libc::mount(
                c"tmpfs".as_ptr(),
                path.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            println!("skipped: no file system can be mounted here: {error}");
            return None;
        }
        Some(SmallFileSystem { at })
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("a file");
        let mut chunk = 64 << 10;
        while chunk > 0 {
            if file.write_all(&vec![1; chunk]).is_err() {
                chunk /= 2;
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let path = c_string(self.at.to_str().expect("a path"));
        // SAFETY: a string that ends in a zero.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("no zero in it")
}

/// Opens, changes every record, and looks at all; returns how it started.
fn rewrite(directory: &Path, model: &mut Model, values_from: u64) -> StartKind {
    let namespace = open(config(directory));
    assert_eq!(contents(&namespace), *model);
    check_counts(&namespace);
    for key in 0..KEYS {
        let value = values_from + u64::from(key);
        loop {
            match put(&namespace, key, value) {
                ResultCode::Ok => break,
                ResultCode::DeviceOverload => namespace.store.drain().expect("the file works"),
                code => panic!("key {key}: {code:?}"),
            }
        }
        model.insert(key, value);
    }
    assert_eq!(contents(&namespace), *model);
    namespace.store.close();
    namespace.start_report.kind
}

#[test]
fn without_room_for_its_files_the_index_lies_on_the_heap() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-no-room");
    let Some(_small) = SmallFileSystem::mount(&directory, 512) else {
        return;
    };
    let mut model = Model::new();
    for round in 0..2 {
        let kind = rewrite(&directory.0, &mut model, 1000 * round);
        assert_eq!(kind, StartKind::Cold, "round {round}");
    }
}

#[test]
fn shared_memory_that_fills_up_costs_a_cold_start_and_nothing_else() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-full");
    let Some(small) = SmallFileSystem::mount(&directory, 4096) else {
        return;
    };
    let namespace = open(config(&directory.0));
    small.fill();
    let mut model = Model::new();
    for key in 0..KEYS {
        let value = 1000 + u64::from(key);
        while let ResultCode::DeviceOverload = put(&namespace, key, value) {
            namespace.store.drain().expect("the file takes writes");
        }
        model.insert(key, value);
    }
    assert_eq!(contents(&namespace), model);
    check_counts(&namespace);
    namespace.store.close();
    drop(namespace);
    // Nothing of what is there is believed, and there still is no room for more.
    for round in 2..4 {
        let kind = rewrite(&directory.0, &mut model, 1000 * round);
        assert_eq!(kind, StartKind::Cold, "round {round}");
    }
    small.make_room();
    assert_eq!(rewrite(&directory.0, &mut model, 8000), StartKind::Cold);
    assert_eq!(rewrite(&directory.0, &mut model, 9000), StartKind::Warm);
}

/// Nothing that a warm start needs has to be found anew.
#[test]
fn full_file_system_is_no_hindrance_to_a_warm_start() {
    let _serial = SERIAL.lock();
    let directory = TempDirectory::in_memory("warm-brim");
    let Some(small) = SmallFileSystem::mount(&directory, 8192) else {
        return;
    };
    let model = filled(&directory);
    assert_eq!(shared_files(&directory).len(), 2);
    small.fill();
    for _ in 0..3 {
        let namespace = open(config(&directory.0));
        assert_eq!(namespace.start_report.kind, StartKind::Warm);
        assert_eq!(contents(&namespace), model);
        namespace.store.close();
    }
}
