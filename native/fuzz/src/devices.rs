//! Opening a store on a device that holds something else than what was written to it: bytes of a real device are changed, and the
//! checksums with them where the input says so.

use crate::images::look;
use arbitrary::Unstructured;
use perigee_engine::index::Location;
use perigee_engine::progress::OpenProgress;
use perigee_engine::record::image::{ImageBuilder, ImageHeader, ImageView};
use perigee_engine::storage::{CommitSink, CommitWaiter, DeviceError, Medium, Relocate};
use perigee_engine::storage::{MediumConfig, Rebuild, Store, StoreConfig};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

const BLOCK_BYTES: usize = 16 << 10;
const BLOCKS: usize = 6;
const PAGE_BYTES: usize = 4096;
/// Images that the device is given.
const RECORDS: u8 = 60;
const EDITS_MAX: usize = 8;

/// A device of which everything can be seen.
struct Bytes(Mutex<Vec<u8>>);

impl Bytes {
    fn range(&self, offset: u64, bytes: usize) -> io::Result<std::ops::Range<usize>> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        match from.checked_add(bytes) {
            Some(end) if end <= BLOCKS * BLOCK_BYTES => Ok(from..end),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Medium for Bytes {
    fn len(&self) -> u64 {
        (BLOCKS * BLOCK_BYTES) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, buffer.len())?;
        buffer.copy_from_slice(&self.0.lock().expect("whole")[range]);
        Ok(())
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        let range = self.range(offset, buffer.len())?;
        self.0.lock().expect("whole")[range].copy_from_slice(buffer);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn close(&self) {}
}

/// Keeps every image that it is shown.
#[derive(Default)]
struct Kept(Mutex<Vec<Location>>);

impl Rebuild for Kept {
    fn adopt(&self, images: &mut dyn Iterator<Item = (ImageView<'_>, Location)>) {
        for (image, location) in images {
            look(&image);
            assert_eq!(image.bytes().len(), location.bytes());
            self.0.lock().expect("whole").push(location);
        }
    }

    fn tell_live(&self, share: usize, _: usize, live: &mut dyn FnMut(Location)) {
        if share == 0 {
            self.0
                .lock()
                .expect("whole")
                .iter()
                .for_each(|it| live(*it));
        }
    }
}

struct Nobody;

impl CommitSink for Nobody {
    fn committed(&self, _: CommitWaiter, _: Result<(), DeviceError>) {}
}

impl Relocate for Nobody {
    fn relocate(&self, _: &[u8; 20], _: Location, _: &mut Vec<u8>) -> bool {
        false
    }
}

fn config() -> StoreConfig {
    let medium = MediumConfig::Memory {
        data_size: (BLOCKS * BLOCK_BYTES) as u64,
    };
    StoreConfig {
        write_block_bytes: BLOCK_BYTES as u32,
        flush_size_bytes: PAGE_BYTES as u32,
        write_cache_bytes_max: 4 * BLOCK_BYTES as u64,
        post_write_cache_bytes: 0,
        ..StoreConfig::new("fuzz", medium)
    }
}

fn image(record: u8, bytes: usize) -> Vec<u8> {
    let header = ImageHeader {
        digest: [record; 20],
        last_update_time: 1 + u64::from(record),
        generation: 1,
        void_time: 0,
        flags: 0,
    };
    let mut image = Vec::new();
    let mut builder = ImageBuilder::begin(&mut image, &header, b"set", Some(b"\x03key"));
    builder.bin(b"bin", 4, &vec![record; bytes]);
    builder.finish();
    image
}

/// What a store leaves on a device.
fn device() -> &'static [u8] {
    static DEVICE: OnceLock<Vec<u8>> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let medium = Arc::new(Bytes(Mutex::new(vec![0; BLOCKS * BLOCK_BYTES])));
        let store = Store::open_on(config(), vec![medium.clone() as Arc<dyn Medium>])
            .expect("a blank device");
        let store = Arc::new(store);
        let report = store.scan(&Kept::default(), &OpenProgress::default());
        report.expect("nothing to scan");
        store.start(Arc::new(Nobody), Arc::new(Nobody));
        for record in 0..RECORDS {
            let mut image = image(record, 7 * usize::from(record));
            store.append(&mut image).expect("room for a few records");
        }
        store.drain().expect("a device that takes writes");
        store.close();
        medium.0.lock().expect("whole").clone()
    })
}

pub(crate) fn run(data: &[u8]) {
    let mut bytes = device().to_vec();
    let mut input = Unstructured::new(data);
    let damaged = damage(&mut bytes, &mut input);
    let medium = Arc::new(Bytes(Mutex::new(bytes)));
    let Ok(store) = Store::open_on(config(), vec![medium as Arc<dyn Medium>]) else {
        assert!(damaged, "a whole device opens");
        return;
    };
    let kept = Kept::default();
    let report = store.scan(&kept, &OpenProgress::default());
    let Ok(report) = report else {
        assert!(damaged, "a whole device is scanned");
        return;
    };
    let found = kept.0.lock().expect("whole").len() as u64;
    assert_eq!(report.images, found);
    assert_eq!(
        report.used_blocks + report.free_blocks,
        BLOCKS as u64 - 1,
        "{report:?}"
    );
    if !damaged {
        assert_eq!(found, u64::from(RECORDS));
    }
    // Whatever was found, it goes on from there or says why it does not.
    let _ = store.append(&mut image(200, 50));
    store.close();
}

/// Changes bytes where structures lie. False if nothing was to be changed.
fn damage(bytes: &mut [u8], input: &mut Unstructured<'_>) -> bool {
    let mut damaged = false;
    for _ in 0..EDITS_MAX {
        let Ok(edit) = edit(bytes, input) else { break };
        damaged |= edit;
    }
    damaged
}

fn edit(bytes: &mut [u8], input: &mut Unstructured<'_>) -> arbitrary::Result<bool> {
    if input.is_empty() {
        return Ok(false);
    }
    // Start and end of a structure, and where its checksum stands and what that covers.
    let (start, length, checksum, covered) = match input.int_in_range(0..=4)? {
        0 => (0, 336, 8, 12..512),
        1 => {
            let lease = input.int_in_range(1..=2_usize)?;
            (lease * PAGE_BYTES, 32, 4, 8..32)
        }
        2 => {
            let block = input.int_in_range(1..=BLOCKS - 1)?;
            (block * BLOCK_BYTES, 32, 4, 8..32)
        }
        3 => {
            let images = images(bytes);
            if images.is_empty() {
                return Ok(false);
            }
            let (start, length) = *input.choose(&images)?;
            (start, length, 0, 4..length)
        }
        _ => {
            let start = input.int_in_range(0..=bytes.len() - 64)?;
            (start, 64, 0, 0..0)
        }
    };
    let at = start + input.int_in_range(0..=length - 1)?;
    let count = input.int_in_range(1..=8_usize)?.min(start + length - at);
    for byte in &mut bytes[at..at + count] {
        *byte = input.arbitrary()?;
    }
    if !covered.is_empty() && input.ratio(7, 8)? {
        let sum = crc32c::crc32c(&bytes[start + covered.start..start + covered.end]);
        bytes[start + checksum..start + checksum + 4].copy_from_slice(&sum.to_le_bytes());
    }
    Ok(true)
}

/// Where images lie in the blocks, as far as they follow one another.
fn images(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for block in 1..BLOCKS {
        let end = (block + 1) * BLOCK_BYTES;
        let mut at = block * BLOCK_BYTES + 32;
        while at < end
            && let Ok(image) = ImageView::verify(&bytes[at..end], None)
            && !image.is_filler()
        {
            found.push((at, image.bytes().len()));
            at += image.bytes().len();
        }
    }
    found
}
