//! Media: what blocks are written to. Siblings behind one narrow trait.

mod buffer;
mod encrypted;
mod faulty;
mod file;
mod in_use;
mod memory;
mod ring;

pub use buffer::AlignedBuf;
pub(crate) use encrypted::EncryptedMedium;
pub use faulty::{Fault, FaultyMedium};
pub use file::FileMedium;
pub use in_use::{is_in_use, when_free};
pub use memory::{Mapping, MemoryMedium};

use std::fs::File;
use std::io;
use std::sync::Arc;

/// The unit of device I/O: offsets, lengths and addresses of transfers are multiples of it.
pub const PAGE_BYTES: usize = 4096;

/// A device of fixed length. Every offset, length and buffer address is a multiple of
/// [`PAGE_BYTES`]; a transfer is whole or an error.
pub trait Medium: Send + Sync {
    fn len(&self) -> u64;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the whole length usable. Called once, before the first write and not before the store
    /// knows that the device is its own; until then nothing of it is changed.
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    /// Bytes that were never written read as zero.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    fn write_at(&self, offset: u64, buffer: &[u8]) -> io::Result<()>;

    /// Writes each of the buffers at its offset, in any order, several at a time where the medium can; none overlap. After
    /// an error it is not known what was written.
    fn write_all(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        writes
            .iter()
            .try_for_each(|(offset, buffer)| self.write_at(*offset, buffer))
    }

    /// When it returns, everything written before survives a loss of power.
    fn sync(&self) -> io::Result<()>;

    /// Lets go of the device; later calls fail. Closing twice is harmless.
    fn close(&self);

    /// The device as memory, if it is: then blocks are written and read in place.
    fn mapping(&self) -> Option<Arc<Mapping>> {
        None
    }

    /// The file behind the device, for reads that others submit (io_uring of a network loop). What
    /// such a read brings has to pass through `decode`. `None`: read through `read_at` only, which
    /// is also the answer of a closed device.
    fn file(&self) -> Option<Arc<File>> {
        None
    }

    /// Turns bytes read from `file()` at `offset` into what was written there. Whole pages.
    fn decode(&self, _offset: u64, _bytes: &mut [u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    const PAGES: usize = 64;
    const BYTES: u64 = (PAGES * PAGE_BYTES) as u64;

    /// A file in the temporary directory, and one in memory, where direct I/O may be refused.
    fn files() -> Vec<PathBuf> {
        let name = format!("perigee-medium-{}", std::process::id());
        let directories = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
        directories
            .into_iter()
            .filter(|d| d.is_dir())
            .map(|d| d.join(&name))
            .collect()
    }

    fn media() -> Vec<Arc<dyn Medium>> {
        let memory: Arc<dyn Medium> = Arc::new(MemoryMedium::new(BYTES).unwrap());
        let wrapped = Arc::new(MemoryMedium::new(BYTES).unwrap());
        let mut media = vec![memory, Arc::new(FaultyMedium::new(wrapped, 1))];
        for path in files() {
            let _ = std::fs::remove_file(&path);
            media.push(Arc::new(FileMedium::open(&path, BYTES).unwrap()));
            let _ = std::fs::remove_file(&path);
        }
        media
    }

    fn filled(pages: usize, value: u8) -> AlignedBuf {
        let mut buffer = AlignedBuf::new(pages * PAGE_BYTES);
        buffer.fill(value);
        buffer
    }

    #[test]
    fn every_medium_keeps_what_is_written() {
        for medium in media() {
            assert_eq!(medium.len(), BYTES);
            let mut page = filled(1, 0xEE);
            medium
                .read_at(BYTES - PAGE_BYTES as u64, &mut page)
                .unwrap();
            assert!(page.iter().all(|byte| *byte == 0), "new bytes read as zero");
            medium.prepare().unwrap();

            medium.write_at(PAGE_BYTES as u64, &filled(3, 1)).unwrap();
            medium
                .write_at(2 * PAGE_BYTES as u64, &filled(1, 2))
                .unwrap();
            medium.sync().unwrap();
            let mut read = filled(5, 0xEE);
            medium.read_at(0, &mut read).unwrap();
            let pages: Vec<u8> = read.chunks(PAGE_BYTES).map(|page| page[17]).collect();
            assert_eq!(pages, [0, 1, 2, 1, 0]);
            if let Some(file) = medium.file() {
                let mut direct = filled(5, 0xEE);
                file.read_exact_at(&mut direct, 0).unwrap();
                medium.decode(0, &mut direct);
                assert!(direct[..] == read[..], "the file holds what was written");
            }

            // More than are in flight at a time, long and short ones, last first.
            let buffers: Vec<AlignedBuf> =
                (0..20).map(|i| filled(1 + i % 3, 10 + i as u8)).collect();
            let mut offset = BYTES;
            let writes: Vec<(u64, &[u8])> = (buffers.iter())
                .map(|buffer| {
                    offset -= buffer.len() as u64;
                    (offset, &buffer[..])
                })
                .collect();
            medium.write_all(&writes).unwrap();
            for (offset, buffer) in &writes {
                let mut read = AlignedBuf::new(buffer.len());
                medium.read_at(*offset, &mut read).unwrap();
                assert!(read[..] == **buffer, "at {offset}");
            }
            medium.write_all(&[]).unwrap();
            let beyond = [(0, &buffers[0][..]), (BYTES, &buffers[0][..])];
            assert!(medium.write_all(&beyond).is_err());

            assert!(medium.read_at(BYTES, &mut page).is_err());
            assert!(medium.write_at(BYTES, &page).is_err());
            assert!(
                medium
                    .write_at(BYTES - PAGE_BYTES as u64, &filled(2, 1))
                    .is_err()
            );
            medium.close();
            medium.close();
            assert!(medium.file().is_none(), "nobody reads a closed device");
        }
    }

    #[test]
    fn closed_file_is_unlocked_and_refuses_transfers() {
        let path = std::env::temp_dir().join(format!("perigee-closed-{}", std::process::id()));
        let medium = FileMedium::open(&path, BYTES).unwrap();
        assert_eq!(
            FileMedium::open(&path, BYTES).err().unwrap().kind(),
            io::ErrorKind::WouldBlock
        );
        medium.close();
        assert!(medium.sync().is_err());
        assert!(FileMedium::open(&path, BYTES).is_ok());
        let _ = std::fs::remove_file(&path);
    }

    #[test]
    fn power_cut_loses_only_what_was_not_synced() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let memory = Arc::new(MemoryMedium::new(BYTES).unwrap());
            let medium = FaultyMedium::new(memory, seed);
            medium.write_at(0, &filled(1, 1)).unwrap();
            medium.sync().unwrap();
            medium.write_at(0, &filled(1, 2)).unwrap();
            medium.write_at(0, &filled(1, 3)).unwrap();
            medium.cut_power();
            assert!(medium.sync().is_err());
            medium.restart();
            let mut page = filled(1, 0);
            medium.read_at(0, &mut page).unwrap();
            for sector in page.chunks(512) {
                assert!((1..=3).contains(&sector[0]), "seed {seed}");
                assert!(
                    sector.iter().all(|byte| *byte == sector[0]),
                    "sectors are whole"
                );
                outcomes.insert(sector[0]);
            }
        }
        assert_eq!(outcomes.len(), 3, "every version can survive");
    }
}
