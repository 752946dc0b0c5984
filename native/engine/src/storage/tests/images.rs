//! Devices that released versions of the format wrote: they open, hold exactly what is listed beside them, and
//! are upgraded.
//!
//! `images/NAME.img.zst` is the device, `images/NAME.records` what it holds, a line a record, and
//! `images/NAME-encrypted.img.zst` the same encrypted. `make` wrote them, as it was at the commit that is named where an
//! image is tested:
//! `PERIGEE_IMAGE=path/NAME cargo test -p perigee-engine images::make -- --ignored`.

use super::*;
use crate::clock::HybridClock;
use crate::config::{CommonStorageConfig, EncryptionConfig, StorageConfig};
use crate::namespace::Namespace;
use crate::progress::OpenProgress;
use crate::record::cdt::index_of;
use crate::record::compression::{Compression, CompressionKind, compress, with_plain};
use crate::storage::encryption::{Algorithm, Encryption};
use crate::testing::{TempDirectory, namespace_config};
use perigee_wire::{compute_digest, particle_type};
use std::fmt::Write as _;
use std::os::unix::fs::FileExt;

const IMAGE_BLOCKS: usize = 16;

/// Of the encrypted images.
const IMAGE_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A record in one line: digest, set, user key, generation, last-update time, void time, flags, bins (long values by
/// length and checksum).
fn line(view: &ImageView<'_>) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut line = format!(
        "{} set={} key={} generation={} lut={} void={} flags={}",
        hex(view.digest()),
        text(view.set_name()),
        view.key().map_or("none".into(), hex),
        view.generation(),
        view.last_update_time(),
        view.void_time(),
        view.flags(),
    );
    for bin in view.bins() {
        let value = match bin.value.len() {
            0..=16 => hex(bin.value),
            length => format!("{length}#{:08x}", crc32c::crc32c(bin.value)),
        };
        let _ = write!(line, " {}={}:{value}", text(bin.name), bin.particle);
        if let Some(index) = bin.index {
            let _ = write!(line, "~{}#{:08x}", index.len(), crc32c::crc32c(index));
        }
    }
    line
}

#[derive(Clone, Copy, Default)]
struct Sample {
    key: u32,
    version: u16,
    void_time: u32,
    flags: u16,
    bytes: usize,
}

impl Sample {
    /// Records take turns in having a set and in storing their user key.
    fn image(&self) -> Vec<u8> {
        let set: &[u8] = match self.key % 3 {
            0 => b"",
            1 => b"people",
            _ => b"places",
        };
        let name = format!("key-{}", self.key);
        let header = ImageHeader {
            digest: compute_digest(set, particle_type::STRING, name.as_bytes()),
            last_update_time: 500_000_000_000 + u64::from(self.version),
            generation: self.version,
            void_time: self.void_time,
            flags: self.flags,
        };
        let key = [&[particle_type::STRING][..], name.as_bytes()].concat();
        let stored_key = self.key.is_multiple_of(2).then_some(&key[..]);
        let mut image = Vec::new();
        let mut builder = ImageBuilder::begin(&mut image, &header, set, stored_key);
        if self.flags & image_flag::TOMBSTONE == 0 {
            let number = u64::from(self.key) * 1000 + u64::from(self.version);
            builder
                .bin(b"number", particle_type::INTEGER, &number.to_be_bytes())
                .bin(b"text", particle_type::STRING, &vec![b'a'; self.bytes]);
            if self.key.is_multiple_of(5) {
                // A list of small integers, many enough for an index.
                let count = 200 + self.key as usize;
                let mut list = vec![0xdc];
                list.extend_from_slice(&(count as u16).to_be_bytes());
                list.extend((0..count).map(|item| item as u8 & 0x7f));
                let index = index_of(&list);
                builder.indexed_bin(b"list", particle_type::LIST, &list, index.as_deref());
            }
        }
        builder.finish();
        image
    }

    /// As it is stored: every third record in each of the forms that there are.
    fn stored(&self) -> Vec<u8> {
        let image = self.image();
        let algorithm = match self.key % 9 {
            0..3 => CompressionKind::None,
            3..6 => CompressionKind::Lz4,
            _ => CompressionKind::Zstd,
        };
        let level = 3;
        let mut compressed = Vec::new();
        match compress(&image, Compression { algorithm, level }, &mut compressed) {
            true => compressed,
            false => image,
        }
    }
}

/// A store and where the newest version of each record lies; the moving of records is written out.
struct Maker {
    store: Arc<Store>,
    newest: BTreeMap<Digest, Location>,
}

struct MovesNothing;

impl Relocate for MovesNothing {
    fn relocate(&self, _: &Digest, _: Location, _: &mut Vec<u8>) -> bool {
        false
    }
}

impl Maker {
    fn put(&mut self, sample: Sample) {
        let mut image = sample.stored();
        let digest = *ImageView::trusted(&image).digest();
        let appended = self.store.append(&mut image).unwrap();
        if let Some(old) = self.newest.insert(digest, appended.location) {
            self.store.release(old);
        }
    }

    /// Copies a record as defragmentation does; the first place stays as it was.
    fn copy(&mut self, key: u32, releases: bool) {
        let sample = Sample {
            key,
            ..Sample::default()
        };
        let digest = *ImageView::trusted(&sample.image()).digest();
        let from = self.newest[&digest];
        let mut image = self.bytes(from);
        let to = self.store.append_relocated(&mut image).unwrap().location;
        if releases {
            self.newest.insert(digest, to);
            self.store.release(from);
        }
    }

    fn bytes(&self, location: Location) -> Vec<u8> {
        match self.store.read(location, |bytes| bytes.to_vec()) {
            ReadNow::InMemory(bytes) => bytes,
            ReadNow::NeedsDevice => {
                let mut buffer = AlignedBuf::default();
                let image = self.store.read_device(location, &mut buffer).unwrap();
                image.bytes().to_vec()
            }
        }
    }
}

#[test]
#[ignore = "makes a new image; see the top of the file"]
fn make() {
    let to = std::env::var("PERIGEE_IMAGE").expect("the path to write to, without an extension");
    let key_file = TempFile::new("image-key");
    std::fs::write(&key_file.0, IMAGE_KEY).unwrap();
    let encryption = Encryption {
        algorithm: Algorithm::Aes256,
        key_file: key_file.0.clone(),
    };
    let (device, records) = make_device(None);
    let write = |name: String, bytes: &[u8]| std::fs::write(name, bytes).unwrap();
    let pack = |device: &[u8]| zstd::encode_all(device, 19).unwrap();
    write(format!("{to}.img.zst"), &pack(&device));
    write(format!("{to}.records"), records.as_bytes());
    let (device, encrypted_records) = make_device(Some(encryption));
    assert_eq!(encrypted_records, records);
    write(format!("{to}-encrypted.img.zst"), &pack(&device));
}

/// A device, and the lines of what it holds.
fn make_device(encryption: Option<Encryption>) -> (Vec<u8>, String) {
    let file = TempFile::new("image");
    let config = StoreConfig {
        defrag_lwm_pct: 0,
        encryption,
        ..file.config(IMAGE_BLOCKS)
    };
    let store = Arc::new(Store::open(config).unwrap());
    store
        .scan(&reopen::Nothing, &OpenProgress::default())
        .unwrap();
    store.start(Arc::new(MovesNothing), Arc::new(Acks::default()));
    let mut maker = Maker {
        store: Arc::clone(&store),
        newest: BTreeMap::new(),
    };
    let first = |key: u32| Sample {
        key,
        version: 1,
        void_time: if key.is_multiple_of(5) {
            600_000_000
        } else {
            0
        },
        flags: if key.is_multiple_of(7) {
            image_flag::XDR_WRITE
        } else {
            0
        },
        bytes: (key as usize * 37) % 600,
    };
    (0..120).for_each(|key| maker.put(first(key)));
    // The first blocks are written for good before what follows replaces what they hold.
    store.drain().unwrap();
    for key in (0..120).step_by(4) {
        let covers = match key % 3 {
            0 => image_flag::COVERS,
            _ => 0,
        };
        let second = Sample {
            version: 2,
            flags: first(key).flags | covers,
            ..first(key)
        };
        maker.put(second);
    }
    let tombstone = |key: u32, flags: u16| Sample {
        version: 3,
        flags: flags | image_flag::TOMBSTONE,
        ..first(key)
    };
    (90..100).for_each(|key| maker.put(tombstone(key, image_flag::DURABLE)));
    (100..105).for_each(|key| maker.put(tombstone(key, image_flag::XDR_WRITE)));
    // Of several versions with the same time and generation, each won by its content.
    for ties in 1..=3 {
        maker.put(Sample {
            flags: image_flag::ties(ties),
            bytes: 333 + usize::from(ties),
            ..first(1)
        });
    }
    maker.put(Sample {
        version: 1,
        bytes: 7000,
        ..first(200)
    });
    store.drain().unwrap();
    // A compaction that completed, and one that a crash cut short.
    (1..20).step_by(2).for_each(|key| maker.copy(key, true));
    (21..40).step_by(2).for_each(|key| maker.copy(key, false));
    store.drain().unwrap();
    (300..305).for_each(|key| maker.put(first(key)));
    store.drain().unwrap();

    let damaged = {
        let image = first(50).image();
        *ImageView::trusted(&image).digest()
    };
    let lines: BTreeSet<String> = maker
        .newest
        .iter()
        .filter(|(digest, _)| **digest != damaged)
        .map(|(_, location)| {
            let stored = maker.bytes(*location);
            with_plain(&ImageView::trusted(&stored), line).unwrap()
        })
        .collect();
    let offset = maker.newest[&damaged].offset() + 60;
    store.close();
    let device = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&file.0)
        .unwrap();
    let mut byte = [0];
    device.read_exact_at(&mut byte, offset).unwrap();
    device.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();

    let list = lines.iter().map(|line| format!("{line}\n")).collect();
    (std::fs::read(&file.0).unwrap(), list)
}

/// Opens the device as a namespace and lists it; also says how many places were damaged.
fn records_of(path: &Path, key_file: Option<&Path>) -> (String, u64) {
    let mut config = namespace_config();
    config.storage_engine = StorageConfig::Device {
        common: CommonStorageConfig {
            files: vec![path.to_path_buf()],
            filesize: Some((IMAGE_BLOCKS * BLOCK_BYTES) as u64),
            write_block_size: BLOCK_BYTES as u32,
            flush_size: 8 << 10,
            encryption: match key_file {
                Some(_) => EncryptionConfig::Aes256,
                None => EncryptionConfig::None,
            },
            encryption_key_file: key_file.map(Path::to_path_buf),
            ..CommonStorageConfig::default()
        },
    };
    let clock = Arc::new(HybridClock::new());
    let progress = OpenProgress::default();
    let (namespace, report) = Namespace::open(config, clock, Vec::new(), 20, &progress).unwrap();
    let mut lines = BTreeSet::new();
    for partition in namespace.partitions() {
        let entries: Vec<_> = partition.lock().table.iter().collect();
        for entry in entries {
            let text = match namespace.with_image(&entry, None, line) {
                Ok(text) => text,
                Err(location) => {
                    let mut buffer = AlignedBuf::default();
                    let copy = namespace.read_device(location, &mut buffer).unwrap();
                    let read = namespace.with_image(&entry, Some(&copy), line);
                    read.expect("the copy is of the entry's location")
                }
            };
            assert_eq!(entry.is_tombstone(), !text.contains(" number="), "{text}");
            lines.insert(text);
        }
    }
    assert_eq!(
        lines.len() as i64,
        namespace.objects.load(Ordering::Relaxed) + namespace.tombstones.load(Ordering::Relaxed)
    );
    namespace.store.close();
    let list = lines.iter().map(|line| format!("{line}\n")).collect();
    (list, report.damaged)
}

fn check(name: &str, packed: &[u8], expected: &str, key: Option<&str>) {
    let directory = TempDirectory::new(name);
    let key_file = key.map(|key| {
        let path = directory.0.join("key");
        std::fs::write(&path, key).unwrap();
        path
    });
    let path = directory.0.join("device");
    std::fs::write(&path, zstd::decode_all(packed).unwrap()).unwrap();
    for opening in ["first", "second"] {
        let (found, damaged) = records_of(&path, key_file.as_deref());
        let differing = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
        assert_eq!(differing, None, "{name}, {opening} opening");
        assert_eq!(found.len(), expected.len(), "{name}, {opening} opening");
        assert_eq!(damaged, 1, "{name}, {opening} opening");
        let header = std::fs::read(&path).unwrap();
        assert_eq!(header[12..16], header::FORMAT_VERSION.to_le_bytes());
    }
}

/// Written at a879049, the last commit of that version.
#[test]
fn device_of_version_1_opens_with_every_record_and_is_upgraded() {
    let packed = include_bytes!("images/v1.img.zst");
    check("image-v1", packed, include_str!("images/v1.records"), None);
}

/// With everything that version 2 brought: compressed records, versions that cover older ones, ties in a row.
#[test]
fn device_of_version_2_opens_with_every_record() {
    let packed = include_bytes!("images/v2.img.zst");
    let expected = include_str!("images/v2.records");
    let has = |flag: u16, bits: u16| {
        let flags = |line: &str| -> u16 {
            let (_, rest) = line.split_once(" flags=").unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        expected.lines().any(|line| flags(line) & flag == bits)
    };
    assert!(has(image_flag::COVERS, image_flag::COVERS));
    assert!(has(image_flag::TIES, image_flag::ties(3)));
    check("image-v2", packed, expected, None);
}

#[test]
fn encrypted_device_of_version_2_opens_with_every_record() {
    let packed = include_bytes!("images/v2-encrypted.img.zst");
    let expected = include_str!("images/v2.records");
    check("image-v2-encrypted", packed, expected, Some(IMAGE_KEY));
}

/// With what version 3 brought: indexes beside lists.
#[test]
fn device_of_version_3_opens_with_every_record() {
    let expected = include_str!("images/v3.records");
    assert!(expected.contains(" list=20:") && expected.contains('~'));
    let packed = include_bytes!("images/v3.img.zst");
    check("image-v3", packed, expected, None);
    let packed = include_bytes!("images/v3-encrypted.img.zst");
    check("image-v3-encrypted", packed, expected, Some(IMAGE_KEY));
}
