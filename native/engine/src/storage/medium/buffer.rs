//! Memory that direct I/O accepts.

use super::PAGE_BYTES;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes at a page-aligned address, a whole number of pages.
pub struct AlignedBuf {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the buffer owns its memory as a Vec<u8> does; sharing it gives out plain bytes.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of at least `bytes`, rounded up to whole pages.
    pub fn new(bytes: usize) -> AlignedBuf {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        if bytes == 0 {
            return AlignedBuf {
                start: NonNull::dangling(),
                bytes,
            };
        }
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        AlignedBuf { start, bytes }
    }

    /// Makes room for at least `bytes`. The contents are unspecified afterwards.
    pub fn reserve(&mut self, bytes: usize) {
        if bytes > self.bytes {
            *self = AlignedBuf::new(bytes);
        }
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, PAGE_BYTES).expect("a buffer is far below isize::MAX")
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: `new` allocated it with this layout, and nothing else frees it.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) }
        }
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        AlignedBuf::new(0)
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `bytes` bytes were allocated, zeroed, and are borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}
