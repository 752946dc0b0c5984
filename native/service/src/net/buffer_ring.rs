//! Buffers lent to the kernel for receiving: it picks one when bytes arrive, so an idle connection
//! holds none.
//!
//! One anonymous mapping: the ring of entries that the kernel reads (page-aligned, as it asks),
//! then the buffers. The ring's tail lies in the reserved field of its first entry; moving it hands
//! entries over.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// A power of two. When all are in use, receives end with ENOBUFS and are armed again.
pub(super) const BUFFERS: u16 = 256;
pub(super) const BUFFER_BYTES: usize = 16 << 10;

/// Distance of two buffers: five cache lines more than their size, since at a power of two the
/// first lines of all buffers, the ones that small frames use, would compete for the same few cache
/// sets.
const BUFFER_STRIDE: usize = BUFFER_BYTES + 5 * 64;

const RING_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();
const MAPPING_BYTES: usize = RING_BYTES + BUFFERS as usize * BUFFER_STRIDE;

pub(super) struct BufferRing {
    mapping: NonNull<u8>,
    tail: u16,
}

impl BufferRing {
    /// Maps the buffers and hands all of them to `ring` as `group`. The result must outlive the
    /// ring's operations.
    pub(super) fn register(ring: &IoUring, group: u16) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping; the result is checked.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAPPING_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast()).expect("mmap does not map page zero");
        let mut buffers = Self { mapping, tail: 0 };
        // SAFETY: the mapping begins with the ring, holds BUFFERS entries and lives as long as
        // `buffers`, which its owner keeps until every operation of the ring is reaped.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                mapping.as_ptr() as u64,
                BUFFERS,
                group,
                0,
            )?;
        }
        for buffer in 0..BUFFERS {
            buffers.give(buffer);
        }
        Ok(buffers)
    }

    /// The first `count` bytes of a buffer that the kernel has filled and that was not given back
    /// since.
    pub(super) fn bytes(&self, buffer: u16, count: usize) -> &[u8] {
        assert!(buffer < BUFFERS && count <= BUFFER_BYTES);
        // SAFETY: in bounds by the line above; the kernel does not write to a buffer between its
        // completion and `give`, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start(buffer), count) }
    }

    /// Hands a buffer to the kernel.
    pub(super) fn give(&mut self, buffer: u16) {
        assert!(buffer < BUFFERS);
        let address = self.start(buffer) as u64;
        let position = usize::from(self.tail % BUFFERS);
        self.tail = self.tail.wrapping_add(1);
        let entries: *mut BufRingEntry = self.mapping.as_ptr().cast();
        // SAFETY: `position` is within the ring, entries are plain integers in memory that we own,
        // and the kernel reads an entry only once the tail has passed it. The setters leave the
        // reserved field, the tail, alone. The kernel reads the tail as an aligned u16 with acquire
        // order, which the release store pairs with.
        unsafe {
            let entry = &mut *entries.add(position);
            entry.set_addr(address);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
            let tail = BufRingEntry::tail(entries);
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    fn start(&self, buffer: u16) -> *mut u8 {
        // SAFETY: within the mapping for every buffer number, which the callers check.
        unsafe {
            self.mapping
                .as_ptr()
                .add(RING_BYTES + usize::from(buffer) * BUFFER_STRIDE)
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: mapped by `register` with this size; the owner reaps all operations and drops the
        // ring first.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), MAPPING_BYTES) };
    }
}
