//! A medium whose bytes are encrypted on another.

use super::{AlignedBuf, Medium, PAGE_BYTES};
use crate::storage::encryption::PageCipher;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What is encrypted and written at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks kept for the next write.
const SPARE_CHUNKS_MAX: usize = 4;

/// Encrypts a medium page by page. Its start stays as it is: it says how the rest is to be read.
pub(crate) struct EncryptedMedium {
    inner: Arc<dyn Medium>,
    cipher: PageCipher,
    clear_bytes: u64,
    spare: Mutex<Vec<AlignedBuf>>,
}

impl EncryptedMedium {
    /// Bytes before `clear_bytes`, a whole number of pages, are not encrypted.
    pub(crate) fn new(
        inner: Arc<dyn Medium>,
        cipher: PageCipher,
        clear_bytes: u64,
    ) -> EncryptedMedium {
        assert!(clear_bytes.is_multiple_of(PAGE_BYTES as u64));
        EncryptedMedium {
            inner,
            cipher,
            clear_bytes,
            spare: Mutex::default(),
        }
    }

    /// Where what is encrypted begins in `bytes` bytes at `offset`, and the number of its first page.
    fn encrypted_part(&self, offset: u64, bytes: usize) -> (usize, u64) {
        let from = self.clear_bytes.saturating_sub(offset).min(bytes as u64);
        (from as usize, (offset + from) / PAGE_BYTES as u64)
    }
}

impl Medium for EncryptedMedium {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn prepare(&self) -> io::Result<()> {
        self.inner.prepare()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)?;
        self.decode(offset, buffer);
        Ok(())
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        let spare = self.spare.lock().pop();
        let mut chunk = spare.unwrap_or_default();
        chunk.reserve(buffer.len().min(CHUNK_BYTES));
        let chunks = buffer.chunks(CHUNK_BYTES).enumerate();
        let written = chunks.map(|(i, bytes)| {
            let offset = offset + (i * CHUNK_BYTES) as u64;
            let chunk = &mut chunk[..bytes.len()];
            chunk.copy_from_slice(bytes);
            let (from, number) = self.encrypted_part(offset, chunk.len());
            self.cipher.encrypt(number, &mut chunk[from..]);
            self.inner.write_at(offset, chunk)
        });
        let written = written.collect();
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_CHUNKS_MAX {
            spare.push(chunk);
        }
        written
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn close(&self) {
        self.inner.close();
    }

    fn file(&self) -> Option<Arc<File>> {
        self.inner.file()
    }

    fn decode(&self, offset: u64, bytes: &mut [u8]) {
        let (from, number) = self.encrypted_part(offset, bytes.len());
        self.cipher.decrypt(number, &mut bytes[from..]);
    }
}
