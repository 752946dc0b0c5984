//! What is checked: a file or a raw device, opened for direct I/O and for nobody else, and never
//! overwritten without a word from the user.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use perigee_engine::storage::AlignedBuf;
use perigee_engine::storage::medium::{PAGE_BYTES, is_in_use, when_free};

use super::plan::Plan;
use crate::error::BenchError;
use crate::frames::Random;

/// The first page of what this program fills: magic, then the bytes that are filled (u64, little
/// endian), 0 until all are.
const MAGIC: &[u8; 16] = b"PERIGEE-ACT-0001";

/// Marks of what a device may hold: name, offset, bytes. Page 0 to 32 are looked at.
const SIGNATURES: [(&str, usize, &[u8]); 9] = [
    ("a Perigee namespace", 0, b"PERIGEE\0"),
    ("an XFS file system", 0, b"XFSB"),
    ("a LUKS volume", 0, b"LUKS\xBA\xBE"),
    ("a GPT partition table", 512, b"EFI PART"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an ext2, ext3 or ext4 file system", 1080, b"\x53\xEF"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("a btrfs file system", 65_600, b"_BHRfS_M"),
    ("a partition table or boot sector", 510, b"\x55\xAA"),
];
const LOOKED_AT_BYTES: usize = 32 * PAGE_BYTES;

pub struct Target {
    pub path: PathBuf,
    pub file: Arc<File>,
    /// Whole write blocks, the first of which holds the mark only.
    pub blocks: u64,
    salted: bool,
}

/// What a path leads to, as far as it decides about overwriting.
#[derive(Clone, Debug, PartialEq)]
enum Found {
    EmptyFile,
    /// Filled by this program, so many bytes.
    Salted {
        bytes: u64,
        raw: bool,
    },
    /// Something that this program did not write, or nothing that can be told, on a raw device.
    Foreign {
        what: &'static str,
        raw: bool,
    },
}

impl Target {
    /// Opens a device, or makes a file of `size` bytes. Nothing is written to what exists yet.
    pub fn open(
        path: &Path,
        plan: &Plan,
        size: Option<u64>,
        salt: bool,
        destructive: bool,
    ) -> Result<Target, BenchError> {
        let refuse = |what: String| {
            Err(BenchError::Device {
                path: path.to_owned(),
                what,
            })
        };
        let failed = |operation| {
            move |source| BenchError::DeviceIo {
                path: path.to_owned(),
                operation,
                source,
            }
        };
        let existing = match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("look at it")(error)),
        };
        let raw = existing.is_some_and(|kind| kind.is_block_device());
        if existing.is_some_and(|kind| !kind.is_file() && !kind.is_block_device()) {
            return refuse("it is neither a file nor a block device".to_owned());
        }
        if existing.is_none() && size.is_none() {
            return refuse("it does not exist; --size makes a file of that size".to_owned());
        }
        if existing.is_none() && !salt {
            return refuse(NOT_SALTED.to_owned());
        }
        let least = plan.device_bytes_min();
        let too_small = |bytes: u64| format!("{bytes} bytes are too few, {least} are needed");
        if let Some(size) = size.filter(|size| *size < least) {
            return refuse(too_small(size));
        }
        // On a raw device O_EXCL refuses one that is mounted or otherwise in use.
        let exclusive = if raw { libc::O_EXCL } else { 0 };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(existing.is_none())
            .mode(0o600)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | exclusive)
            .open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return refuse("it is mounted, or in use otherwise".to_owned());
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                if existing.is_none() {
                    // A file system may make the file before it finds that it cannot do this.
                    let _ = std::fs::remove_file(path);
                }
                return refuse(
                    "direct I/O is not possible here, and the page cache is no device".to_owned(),
                );
            }
            Err(error) => return Err(failed("open it")(error)),
        };
        // The engine holds this lock on its devices.
        let locked = when_free(path, || {
            // SAFETY: flock takes a descriptor that `file` keeps open.
            match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
        match locked {
            Ok(()) => {}
            Err(error) if is_in_use(&error) => {
                return refuse("another process has it open".to_owned());
            }
            Err(error) => return Err(failed("lock it")(error)),
        }
        let length = (&file)
            .seek(SeekFrom::End(0))
            .map_err(failed("find its end"))?;
        let found = look(&file, length, raw).map_err(failed("read its first pages"))?;
        if let Some(what) = reason_to_refuse(&found, destructive) {
            return refuse(what);
        }
        let bytes = size.unwrap_or(length);
        if raw && bytes > length {
            return refuse(format!("it has {length} bytes, fewer than --size {bytes}"));
        }
        let blocks = bytes / plan.write_block_bytes;
        if bytes < least {
            return refuse(too_small(bytes));
        }
        let used = blocks * plan.write_block_bytes;
        let salted = matches!(found, Found::Salted { bytes, .. } if bytes >= used);
        if !salted && !salt {
            return refuse(NOT_SALTED.to_owned());
        }
        if !raw && length < used {
            reserve(&file, used).map_err(failed("reserve its space"))?;
        }
        Ok(Target {
            path: path.to_owned(),
            file: Arc::new(file),
            blocks,
            salted: salted && !salt,
        })
    }

    pub fn is_salted(&self) -> bool {
        self.salted
    }

    /// Fills every block with random bytes and marks the device as filled. `progress` is told the
    /// bytes written, of all. False if `stop` ended it.
    pub fn salt(
        &mut self,
        plan: &Plan,
        pattern: &mut Pattern,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<bool, BenchError> {
        let failed = |operation| {
            let path = self.path.clone();
            move |source| BenchError::DeviceIo {
                path,
                operation,
                source,
            }
        };
        let block = plan.write_block_bytes;
        let total = self.blocks * block;
        self.mark(0).map_err(failed("write to it"))?;
        let mut told = Instant::now();
        for number in 1..self.blocks {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let bytes = pattern.fresh(block as usize);
            self.file
                .write_all_at(bytes, number * block)
                .map_err(failed("write to it"))?;
            if told.elapsed() >= Duration::from_millis(500) {
                told = Instant::now();
                progress((number + 1) * block, total);
            }
        }
        self.file
            .sync_data()
            .and_then(|()| self.mark(total))
            .map_err(failed("write to it"))?;
        self.salted = true;
        Ok(true)
    }

    /// Says, durably, that so many bytes are filled.
    fn mark(&self, bytes: u64) -> io::Result<()> {
        let mut page = AlignedBuf::new(PAGE_BYTES);
        page[..MAGIC.len()].copy_from_slice(MAGIC);
        page[MAGIC.len()..MAGIC.len() + 8].copy_from_slice(&bytes.to_le_bytes());
        self.file.write_all_at(&page, 0)?;
        self.file.sync_data()
    }
}

const NOT_SALTED: &str =
    "it is not filled yet, and reading what was never written costs nothing; --salt fills it first";

fn look(file: &File, length: u64, raw: bool) -> io::Result<Found> {
    if length == 0 {
        return Ok(Found::EmptyFile);
    }
    let mut start = AlignedBuf::new(LOOKED_AT_BYTES);
    let mut read = 0;
    // Short where the file ends.
    while read < LOOKED_AT_BYTES {
        match file.read_at(&mut start[read..], read as u64)? {
            0 => break,
            bytes => read += bytes,
        }
        if !read.is_multiple_of(PAGE_BYTES) {
            break;
        }
    }
    Ok(judge(&start[..read], raw))
}

fn judge(start: &[u8], raw: bool) -> Found {
    let has = |at: usize, mark: &[u8]| start.get(at..at + mark.len()) == Some(mark);
    if has(0, MAGIC) && start.len() >= MAGIC.len() + 8 {
        let bytes = start[MAGIC.len()..MAGIC.len() + 8]
            .try_into()
            .expect("8 bytes");
        let bytes = u64::from_le_bytes(bytes);
        return Found::Salted { bytes, raw };
    }
    let signature = SIGNATURES.iter().find(|(_, at, mark)| has(*at, mark));
    let what = match signature {
        Some((what, ..)) => what,
        None if raw => "no known signature, which proves nothing",
        None => "data of somebody else",
    };
    Found::Foreign { what, raw }
}

fn reason_to_refuse(found: &Found, destructive: bool) -> Option<String> {
    match found {
        _ if destructive => None,
        Found::EmptyFile | Found::Salted { raw: false, .. } => None,
        Found::Salted { raw: true, .. } => Some(
            "it is a raw device; --destructive says that everything on it may be lost".to_owned(),
        ),
        Found::Foreign { what, raw } => {
            let kind = if *raw { "raw device" } else { "file" };
            Some(format!(
                "this {kind} holds {what}; --destructive says that everything in it may be lost"
            ))
        }
    }
}

fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: fallocate takes a descriptor that `file` keeps open.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Random bytes for writes, no page like another, so that neither compression nor deduplication in
/// the device gains from them.
pub struct Pattern {
    bytes: AlignedBuf,
    stamp: u64,
}

impl Pattern {
    pub fn new(bytes: usize, seed: u64) -> Pattern {
        let mut random = Random::new(seed);
        let mut buffer = AlignedBuf::new(bytes);
        for word in buffer.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        Pattern {
            bytes: buffer,
            stamp: random.next(),
        }
    }

    /// The first `bytes`, changed in every page.
    pub fn fresh(&mut self, bytes: usize) -> &[u8] {
        let bytes = &mut self.bytes[..bytes];
        for page in bytes.chunks_mut(PAGE_BYTES) {
            self.stamp = self.stamp.wrapping_add(0x9E37_79B9_7F4A_7C15);
            page[..8].copy_from_slice(&self.stamp.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_or_empty_is_overwritten_unasked() {
        let mut start = vec![0; LOOKED_AT_BYTES];
        let refused = |start: &[u8], raw| reason_to_refuse(&judge(start, raw), false);
        assert!(refused(&start, false).unwrap().contains("somebody else"));
        assert!(
            refused(&start, true)
                .unwrap()
                .contains("no known signature")
        );
        for (what, at, mark) in SIGNATURES {
            let mut start = start.clone();
            start[at..at + mark.len()].copy_from_slice(mark);
            let reason = refused(&start, true).unwrap();
            assert!(reason.contains(what), "{reason}");
            assert_eq!(reason_to_refuse(&judge(&start, true), true), None);
        }
        start[..MAGIC.len()].copy_from_slice(MAGIC);
        assert_eq!(refused(&start, false), None);
        assert!(refused(&start, true).unwrap().contains("--destructive"));
        assert_eq!(reason_to_refuse(&Found::EmptyFile, false), None);
        // Bytes of a short file.
        assert!(refused(&start[..20], false).is_some());
    }

    #[test]
    fn no_page_of_a_pattern_comes_twice() {
        let mut pattern = Pattern::new(4 * PAGE_BYTES, 1);
        let mut pages = std::collections::HashSet::new();
        for _ in 0..3 {
            let fresh = pattern.fresh(4 * PAGE_BYTES);
            pages.extend(fresh.chunks(PAGE_BYTES).map(<[u8]>::to_vec));
        }
        assert_eq!(pages.len(), 12);
    }
}
