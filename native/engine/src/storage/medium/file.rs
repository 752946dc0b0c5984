//! A file or a raw block device, with direct I/O.

use super::ring::{PIECE_BYTES, WriteRing};
use super::{Medium, PAGE_BYTES};
use parking_lot::{Mutex, RwLock};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file or block device of fixed length that nobody else has open for the same purpose.
pub struct FileMedium {
    path: PathBuf,
    // Taken by `close`; transfers in flight keep their own handle.
    file: RwLock<Option<Arc<File>>>,
    bytes: u64,
    is_block_device: bool,
    ring: Mutex<Ring>,
}

/// A ring is taken out while it is used.
enum Ring {
    NotYet,
    Idle(Box<WriteRing>),
    /// In use, or refused by the kernel: then writes go one after the other.
    Unavailable,
}

impl FileMedium {
    /// Opens the file `path`, creating it if needed, and locks it. A file longer than `file_size` bytes
    /// is refused, a shorter one is extended by `prepare`. `ErrorKind::WouldBlock` means that the file
    /// is open elsewhere.
    pub fn open(path: &Path, file_size: u64) -> io::Result<FileMedium> {
        // Before it is opened: that alone does something to some kinds of devices.
        if let Ok(metadata) = std::fs::metadata(path)
            && !metadata.is_file()
        {
            return refuse(if metadata.file_type().is_block_device() {
                "it is a block device, which is to be named under devices".into()
            } else {
                "it is no regular file".into()
            });
        }
        let create = |options: &mut OpenOptions| {
            options.create(true).truncate(false).mode(0o600);
        };
        let file = match open_with(path, libc::O_DIRECT, create) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                tracing::warn!(path = %path.display(), "no direct I/O here, using the page cache");
                open_with(path, 0, create)?
            }
            result => result?,
        };
        // SAFETY: flock takes a descriptor that `file` keeps open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let length = file.metadata()?.len();
        if length > file_size {
            let what = format!("it has {length} bytes, the configured size is {file_size}");
            return refuse(what);
        }
        Ok(Self::of(path, file, file_size, false))
    }

    /// Opens the block device `path`, exclusively, as long as it is, less what does not fill a write block of
    /// `block_bytes`. `ErrorKind::ResourceBusy` means that it is mounted, part of a volume or open elsewhere.
    pub fn open_device(path: &Path, block_bytes: u64) -> io::Result<FileMedium> {
        if !std::fs::metadata(path)?.file_type().is_block_device() {
            return refuse("it is no block device; a file is to be named under files".into());
        }
        // Exclusive for block devices as for files that are created: nobody else may have claimed it.
        let file = open_with(path, libc::O_DIRECT | libc::O_EXCL, |_| {})?;
        if !file.metadata()?.file_type().is_block_device() {
            return refuse("it is no block device any more".into());
        }
        let length = (&file).seek(SeekFrom::End(0))?;
        let bytes = length / block_bytes * block_bytes;
        Ok(Self::of(path, file, bytes, true))
    }

    fn of(path: &Path, file: File, bytes: u64, is_block_device: bool) -> FileMedium {
        FileMedium {
            path: path.to_path_buf(),
            file: RwLock::new(Some(Arc::new(file))),
            bytes,
            is_block_device,
            ring: Mutex::new(Ring::NotYet),
        }
    }

    fn opened(&self) -> io::Result<Arc<File>> {
        self.file()
            .ok_or_else(|| io::Error::other("the device is closed"))
    }

    /// Where the bytes end: a file may not be extended yet, a device was long enough when opened.
    fn end(&self, file: &File) -> io::Result<u64> {
        if self.is_block_device {
            return Ok(self.bytes);
        }
        Ok(file.metadata()?.len())
    }

    /// Refuses transfers beyond the end, which would extend a file.
    fn check(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        check_alignment(offset, buffer);
        if offset + buffer.len() as u64 > self.bytes {
            let what = "beyond the end of the device";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        Ok(())
    }
}

fn refuse(what: String) -> io::Result<FileMedium> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

fn open_with(path: &Path, flags: i32, more: impl Fn(&mut OpenOptions)) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    more(&mut options);
    options.custom_flags(flags | libc::O_CLOEXEC).open(path)
}

/// Reserves the space, where the file system can: a store that runs into a full file system has
/// lost its device.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: fallocate takes a descriptor that `file` keeps open.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(error);
        }
        file.set_len(bytes)?;
    }
    Ok(())
}

/// Fills `buffer` with what is at `offset`, and with zeroes from the end of the file on. A read may be
/// short anywhere; where that is not the end, zeroes would pass for what was stored.
fn read_whole(
    buffer: &mut [u8],
    offset: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    end: impl Fn() -> io::Result<u64>,
) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let read = match read_at(&mut buffer[done..], offset + done as u64) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let reached = done + read;
        if reached == buffer.len() {
            break;
        }
        // Direct I/O goes on at a page only.
        let next = reached / PAGE_BYTES * PAGE_BYTES;
        if next > done {
            done = next;
            continue;
        }
        if offset + (reached as u64) < end()? {
            let what = "a read ended before the file does";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        buffer[reached..].fill(0);
        break;
    }
    Ok(())
}

fn check_alignment(offset: u64, buffer: &[u8]) {
    assert!(
        offset.is_multiple_of(PAGE_BYTES as u64),
        "offset {offset} is not a page's"
    );
    assert!(
        buffer.len().is_multiple_of(PAGE_BYTES),
        "{} bytes are no pages",
        buffer.len()
    );
    assert!(
        buffer.as_ptr().addr().is_multiple_of(PAGE_BYTES),
        "the buffer is not aligned"
    );
}

impl Medium for FileMedium {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn prepare(&self) -> io::Result<()> {
        let file = self.opened()?;
        if self.is_block_device {
            return Ok(());
        }
        // Also where the length fits: a sparse file may still run into a full file system.
        reserve(&file, self.bytes)?;
        // The length, and the name of a new file, are metadata that `sync` need not write.
        file.sync_all()?;
        match self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            Some(parent) => File::open(parent)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check(offset, buffer)?;
        let file = self.opened()?;
        read_whole(
            buffer,
            offset,
            |buffer, offset| file.read_at(buffer, offset),
            || self.end(&file),
        )
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        self.check(offset, buffer)?;
        self.opened()?.write_all_at(buffer, offset)
    }

    fn write_all(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        for (offset, buffer) in writes {
            self.check(*offset, buffer)?;
        }
        let file = self.opened()?;
        let one_by_one =
            || (writes.iter()).try_for_each(|(offset, buffer)| file.write_all_at(buffer, *offset));
        if writes.len() <= 1 && writes.iter().all(|(_, buffer)| buffer.len() <= PIECE_BYTES) {
            return one_by_one();
        }
        let taken = std::mem::replace(&mut *self.ring.lock(), Ring::Unavailable);
        let mut ring = match taken {
            Ring::Idle(ring) => ring,
            Ring::Unavailable => return one_by_one(),
            Ring::NotYet => match WriteRing::new() {
                Ok(ring) => Box::new(ring),
                Err(error) => {
                    tracing::info!(path = %self.path.display(), %error, "no io_uring here, writing one by one");
                    return one_by_one();
                }
            },
        };
        let written = ring.write_all(&file, writes);
        *self.ring.lock() = Ring::Idle(ring);
        written
    }

    fn sync(&self) -> io::Result<()> {
        self.opened()?.sync_data()
    }

    fn close(&self) {
        if let Some(file) = self.file.write().take() {
            // It would go with the last descriptor, of which a child that is just being started has one too.
            // SAFETY: flock takes a descriptor that `file` keeps open.
            unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
        }
    }

    fn file(&self) -> Option<Arc<File>> {
        self.file.read().clone()
    }
}

impl Drop for FileMedium {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Reads three pages of ones from a file that ends at `end`, at most `most` bytes at a time.
    fn read(end: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0xEE; 3 * PAGE_BYTES];
        let read_at = |buffer: &mut [u8], offset: u64| {
            let bytes = buffer
                .len()
                .min(most)
                .min(end.saturating_sub(offset) as usize);
            buffer[..bytes].fill(1);
            Ok(bytes)
        };
        read_whole(&mut buffer, 0, read_at, || Ok(end)).map(|()| buffer)
    }

    #[test]
    fn short_read_is_continued_and_reads_as_zero_only_from_the_end_on() {
        let page = PAGE_BYTES as u64;
        for end in [
            0,
            1,
            512,
            page,
            page + 512,
            3 * page - 1,
            3 * page,
            9 * page,
        ] {
            for most in [PAGE_BYTES, PAGE_BYTES + 512, 2 * PAGE_BYTES, usize::MAX] {
                let bytes = read(end, most).unwrap();
                let stored = bytes.iter().take_while(|byte| **byte == 1).count();
                assert_eq!(stored as u64, end.min(3 * page), "end {end} most {most}");
                assert!(bytes[stored..].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn read_that_stops_before_the_end_of_the_file_is_an_error() {
        for most in [0, 1, 512] {
            let error = read(9 * PAGE_BYTES as u64, most).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn sparse_file_of_the_right_length_has_its_space_reserved() {
        const BYTES: u64 = 1 << 20;
        let prepared_blocks = |name: &str, length: u64| {
            let name = format!("perigee-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            File::create(&path).unwrap().set_len(length).unwrap();
            let medium = FileMedium::open(&path, BYTES).unwrap();
            medium.prepare().unwrap();
            let metadata = std::fs::metadata(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert_eq!(metadata.len(), BYTES);
            metadata.blocks()
        };
        // Nothing is reserved in either where the file system cannot.
        let extended = prepared_blocks("extended", 0);
        assert_eq!(prepared_blocks("sparse", BYTES), extended);
    }
}
