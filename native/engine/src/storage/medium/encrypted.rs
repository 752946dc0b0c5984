//! A medium whose bytes are encrypted on another.

use super::{AlignedBuf, Medium, PAGE_BYTES};
use crate::storage::encryption::PageCipher;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What is encrypted at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that are written together, and kept for the next write.
const CHUNKS_MAX: usize = 8;

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

    /// Writes what was encrypted, and keeps the memory.
    fn write_group(&self, group: &mut Vec<(u64, AlignedBuf, usize)>) -> io::Result<()> {
        let writes: Vec<(u64, &[u8])> = (group.iter())
            .map(|(offset, chunk, bytes)| (*offset, &chunk[..*bytes]))
            .collect();
        let written = self.inner.write_all(&writes);
        let mut spare = self.spare.lock();
        let room = CHUNKS_MAX - spare.len().min(CHUNKS_MAX);
        spare.extend(group.drain(..).take(room).map(|(_, chunk, _)| chunk));
        written
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
        self.write_all(&[(offset, buffer)])
    }

    fn write_all(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        let pieces = writes.iter().flat_map(|(offset, buffer)| {
            let chunks = buffer.chunks(CHUNK_BYTES).enumerate();
            chunks.map(move |(i, bytes)| (offset + (i * CHUNK_BYTES) as u64, bytes))
        });
        let mut group: Vec<(u64, AlignedBuf, usize)> = Vec::new();
        for (offset, bytes) in pieces {
            if group.len() == CHUNKS_MAX {
                self.write_group(&mut group)?;
            }
            let mut chunk = self.spare.lock().pop().unwrap_or_default();
            chunk.reserve(bytes.len());
            chunk[..bytes.len()].copy_from_slice(bytes);
            let (from, number) = self.encrypted_part(offset, bytes.len());
            self.cipher.encrypt(number, &mut chunk[from..bytes.len()]);
            group.push((offset, chunk, bytes.len()));
        }
        self.write_group(&mut group)
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
