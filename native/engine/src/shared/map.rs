//! A file that is mapped as memory. One with a name outlives the process: on a tmpfs, until the machine restarts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

pub(crate) const PAGE_BYTES: u64 = 4096;

/// As `/proc/PID/maps` shows it.
const ANONYMOUS: &std::ffi::CStr = c"perigee-index";

/// A shared mapping of a whole file, most of which has no memory yet. Nothing of it is touched that was not
/// reserved: a full file system is an error of [`SharedMap::reserve`], not a signal at some access.
pub(crate) struct SharedMap {
    file: File,
    path: PathBuf,
    start: NonNull<u8>,
    bytes: u64,
}

// SAFETY: the mapping lives until it is dropped; who may touch which range is said where it is done.
unsafe impl Send for SharedMap {}
// SAFETY: as above.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Opens or creates `path`, for this process alone (`ErrorKind::WouldBlock` if another has it), and maps
    /// `bytes` of it. Also says whether the file was as long as that before.
    pub(crate) fn open(path: &Path, bytes: u64) -> io::Result<(SharedMap, bool)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(path)?;
        // SAFETY: flock takes a descriptor that `file` keeps open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let is_whole = file.metadata()?.len() == bytes;
        if !is_whole {
            file.set_len(0)?;
            file.set_len(bytes)?;
        }
        Ok((Self::map(file, path.to_path_buf(), bytes)?, is_whole))
    }

    /// Maps so many bytes of a file without a name, which ends with the process.
    // Unlike memory of the heap it says so when the machine has no more of it, however much is promised to others.
    pub(crate) fn anonymous(bytes: u64) -> io::Result<SharedMap> {
        // SAFETY: the name is a string that ends in a zero; a new descriptor is nobody else's.
        let file = unsafe {
            match libc::memfd_create(ANONYMOUS.as_ptr(), libc::MFD_CLOEXEC) {
                -1 => return Err(io::Error::last_os_error()),
                descriptor => File::from_raw_fd(descriptor),
            }
        };
        file.set_len(bytes)?;
        Self::map(file, PathBuf::from("memory"), bytes)
    }

    fn map(file: File, path: PathBuf, bytes: u64) -> io::Result<SharedMap> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: a new mapping touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("a mapping is never at address 0");
        Ok(SharedMap {
            file,
            path,
            start,
            bytes,
        })
    }

    /// The address of an object of type `T` at `offset`, which has to fit.
    pub(crate) fn at<T>(&self, offset: u64) -> NonNull<T> {
        let end = offset + size_of::<T>() as u64;
        assert!(end <= self.bytes && offset.is_multiple_of(align_of::<T>() as u64));
        // SAFETY: within the mapping, as just asserted.
        unsafe { self.start.add(offset as usize) }.cast()
    }

    /// Gives memory to a range, widened to whole pages. What had some keeps its contents.
    pub(crate) fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        assert!(offset + bytes <= self.bytes);
        let from = offset / PAGE_BYTES * PAGE_BYTES;
        let length = (offset + bytes).next_multiple_of(PAGE_BYTES) - from;
        loop {
            // SAFETY: fallocate takes a descriptor that `file` keeps open.
            let result = unsafe {
                libc::fallocate(
                    self.file.as_raw_fd(),
                    libc::FALLOC_FL_KEEP_SIZE,
                    from as libc::off_t,
                    length as libc::off_t,
                )
            };
            if result == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Takes the memory of the whole pages in a range away; they read as zero afterwards.
    pub(crate) fn punch(&self, offset: u64, bytes: u64) {
        let from = offset.next_multiple_of(PAGE_BYTES);
        let to = (offset + bytes) / PAGE_BYTES * PAGE_BYTES;
        if from >= to {
            return;
        }
        // SAFETY: fallocate takes a descriptor that `file` keeps open.
        let result = unsafe {
            libc::fallocate(
                self.file.as_raw_fd(),
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                from as libc::off_t,
                (to - from) as libc::off_t,
            )
        };
        if result != 0 {
            // Memory is kept that could be had back, and no more.
            let error = io::Error::last_os_error();
            tracing::debug!(path = %self.path.display(), %error, "a hole was not punched");
        }
    }

    /// Forgets the contents of a range and keeps its memory.
    ///
    /// # Safety
    ///
    /// The range is reserved, and nobody uses it meanwhile.
    pub(crate) unsafe fn zero(&self, offset: u64, bytes: u64) {
        assert!(offset + bytes <= self.bytes);
        // SAFETY: within the mapping, as just asserted; nobody else uses it, by contract.
        unsafe {
            let start = self.start.add(offset as usize);
            start.write_bytes(0, bytes as usize);
        }
    }

    /// Forgets the contents from an offset on, which read as zero afterwards, and gives their memory back.
    pub(crate) fn clear_from(&self, offset: u64) {
        self.punch(offset, self.bytes - offset);
    }

    /// Memory that the file takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.file
            .metadata()
            .map_or(0, |metadata| metadata.blocks() * 512)
    }

    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a file of shared memory was not removed");
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping of `open`, which nobody uses any more: whoever does holds the map.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes as usize) };
    }
}

/// Makes the directory, for this user alone; one that others could have put something into is refused.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    check_directory(path)
}

/// Refuses a directory that others could have put something into.
pub(super) fn check_directory(path: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    // SAFETY: a call without arguments or memory.
    let own = metadata.uid() == unsafe { libc::geteuid() };
    if !metadata.is_dir() || !own || metadata.mode() & 0o077 != 0 {
        let what = "it is not a directory that only this user can enter (mode 0700)";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(())
}
