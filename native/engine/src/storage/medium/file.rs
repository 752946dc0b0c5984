//! A file (or a raw device, which opens the same way) with direct I/O.

use super::{Medium, PAGE_BYTES};
use parking_lot::RwLock;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An exclusively locked file of fixed length.
pub struct FileMedium {
    path: PathBuf,
    // Taken by `close`; transfers in flight keep their own handle.
    file: RwLock<Option<Arc<File>>>,
    bytes: u64,
}

impl FileMedium {
    /// Opens `path`, creating it if needed, and locks it. A file longer than `file_size` bytes is
    /// refused, a shorter one is extended by `prepare`. `ErrorKind::WouldBlock` means that the file
    /// is open elsewhere.
    pub fn open(path: &Path, file_size: u64) -> io::Result<FileMedium> {
        let file = match Self::open_with(path, libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                tracing::warn!(path = %path.display(), "no direct I/O here, using the page cache");
                Self::open_with(path, 0)?
            }
            result => result?,
        };
        // SAFETY: flock takes a descriptor that `file` keeps open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let refuse = |bytes: u64| {
            let what = format!("it has {bytes} bytes, the configured size is {file_size}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        };
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() {
            let bytes = (&file).seek(SeekFrom::End(0))?;
            if bytes < file_size {
                return refuse(bytes);
            }
        } else if metadata.len() > file_size {
            return refuse(metadata.len());
        }
        let file = RwLock::new(Some(Arc::new(file)));
        Ok(FileMedium {
            path: path.to_path_buf(),
            file,
            bytes: file_size,
        })
    }

    fn open_with(path: &Path, flags: i32) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags | libc::O_CLOEXEC)
            .open(path)
    }

    fn file(&self) -> io::Result<Arc<File>> {
        self.file
            .read()
            .clone()
            .ok_or_else(|| io::Error::other("the device is closed"))
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
        let file = self.file()?;
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() || metadata.len() == self.bytes {
            return Ok(());
        }
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
        let file = self.file()?;
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                // The file is not extended yet.
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                // Direct I/O goes on at a page only: the end of the file was within one.
                Ok(read) if !(done + read).is_multiple_of(PAGE_BYTES) => {
                    buffer[done + read..].fill(0);
                    break;
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        self.check(offset, buffer)?;
        self.file()?.write_all_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn close(&self) {
        // The lock goes with the descriptor.
        self.file.write().take();
    }
}
