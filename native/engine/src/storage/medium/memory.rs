//! Memory as a medium: one anonymous mapping, whose pages exist once they are touched.

use super::Medium;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// An anonymous, zeroed mapping. Shared between writers and readers of disjoint ranges.
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping lives until it is dropped; who may touch which range is said where it is done.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `bytes` of address space, not of memory.
    pub(crate) fn new(bytes: u64) -> io::Result<Mapping> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: a new anonymous mapping touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("a mapping is never at address 0");
        Ok(Mapping { start, bytes })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this range, and whoever uses it holds an Arc.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A device that forgets everything when it is dropped.
pub struct MemoryMedium {
    mapping: Arc<Mapping>,
    transfer: parking_lot::RwLock<()>,
}

impl MemoryMedium {
    /// Reserves `data_size` bytes of address space, not of memory.
    pub fn new(data_size: u64) -> io::Result<MemoryMedium> {
        Ok(MemoryMedium {
            mapping: Arc::new(Mapping::new(data_size)?),
            transfer: parking_lot::RwLock::new(()),
        })
    }

    fn at(&self, offset: u64, bytes: usize) -> io::Result<*mut u8> {
        match usize::try_from(offset)
            .ok()
            .and_then(|from| from.checked_add(bytes))
        {
            Some(end) if end <= self.mapping.bytes() => {
                // SAFETY: offset + bytes is within the mapping, as just compared.
                Ok(unsafe { self.mapping.start().as_ptr().add(offset as usize) })
            }
            _ => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "beyond the end of the device",
            )),
        }
    }
}

impl Medium for MemoryMedium {
    fn len(&self) -> u64 {
        self.mapping.bytes() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = self.at(offset, buffer.len())?;
        let _shared = self.transfer.read();
        // SAFETY: the source is within the mapping and `buffer` is not part of it; `transfer` keeps
        // `write_at` away, and a store that uses the mapping itself makes no transfers.
        unsafe { std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len()) };
        Ok(())
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        let to = self.at(offset, buffer.len())?;
        let _exclusive = self.transfer.write();
        // SAFETY: as in `read_at`, with `transfer` keeping everyone away.
        unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, buffer.len()) };
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn close(&self) {}

    fn mapping(&self) -> Option<Arc<Mapping>> {
        Some(Arc::clone(&self.mapping))
    }
}
