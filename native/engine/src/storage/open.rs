//! Opening a store: its media, and the headers that say whether they are its own. Every device is looked at before
//! any is written to, so whatever is refused is left as it was.

use super::Store;
use super::config::{MediumConfig, StoreConfig};
use super::defrag::DefragSignal;
use super::device::Device;
use super::encryption::StoreKey;
use super::error::OpenError;
use super::header::{DeviceHeader, FORMAT_VERSION, LEASE_OFFSETS, is_lease};
use super::medium::{
    AlignedBuf, EncryptedMedium, FileMedium, Mapping, Medium, MemoryMedium, PAGE_BYTES, is_in_use,
    when_free,
};
use super::stats::Counters;
use crate::shared::{Attached, Identity, SharedStore};
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// As much of a device without a header has to be blank: where file systems, volumes and the like leave
/// their signatures, all within the first block, which holds nothing else.
const BLANK_BYTES_MAX: usize = 1 << 20;

impl Store {
    /// Opens the media, initialising those that are new. Devices of other stores, or written with
    /// other settings, are refused and left as they are.
    pub fn open(config: StoreConfig) -> Result<Store, OpenError> {
        let media = match &config.medium {
            MediumConfig::Memory { data_size } => {
                config.validate(1, *data_size)?;
                let medium = MemoryMedium::new(*data_size)
                    .map_err(|source| io_error(Path::new("memory"), source))?;
                vec![Arc::new(medium) as Arc<dyn Medium>]
            }
            MediumConfig::File { paths, file_size } => {
                config.validate(paths.len(), *file_size)?;
                open_all(paths, |path| FileMedium::open(path, *file_size))?
            }
            MediumConfig::Device { paths } => {
                let block_bytes = u64::from(config.write_block_bytes);
                open_all(paths, |path| FileMedium::open_device(path, block_bytes))?
            }
        };
        Self::open_on(config, media)
    }

    /// Opens a store on media that are already open; `config.medium` only names them.
    pub fn open_on(config: StoreConfig, media: Vec<Arc<dyn Medium>>) -> Result<Store, OpenError> {
        let smallest = media.iter().map(|medium| medium.len()).min().unwrap_or(0);
        config.validate(media.len(), smallest)?;
        let paths = paths(&config.medium, media.len());
        let key = config.encryption.as_ref().map(StoreKey::read).transpose()?;
        let mut page = AlignedBuf::new(PAGE_BYTES);
        let mut found = Vec::new();
        for (medium, path) in media.iter().zip(&paths) {
            medium
                .read_at(0, &mut page)
                .map_err(|source| io_error(path, source))?;
            let header = DeviceHeader::decode(&page, path)?;
            if header.is_none() {
                check_blank(&**medium, path, config.write_block_bytes as usize)?;
            }
            found.push(header);
        }
        // All devices are looked at before any is written to.
        let store_id = found.iter().flatten().map(|header| header.store_id).next();
        let store_id = store_id.unwrap_or_else(random);
        let key_check = |device_id: u64| {
            let check = key.as_ref().map(|key| key.check(device_id));
            check.unwrap_or_default()
        };
        let mut headers = Vec::new();
        for (device, (found, path)) in found.iter().zip(&paths).enumerate() {
            // 0 stands for the store id, in devices of an older format.
            let device_id = random().max(1);
            let configured = DeviceHeader {
                version: FORMAT_VERSION,
                store_id,
                device_id,
                device_bytes: media[device].len(),
                // Half of the 32 bits that images carry is left to count through.
                first_sequence: 1 + random() % (1 << 31),
                write_block_bytes: config.write_block_bytes,
                device: device as u8,
                devices: media.len() as u8,
                namespace: config.namespace.clone(),
                encryption: key.as_ref().map_or(0, StoreKey::number),
                key_check: key_check(device_id),
            };
            headers.push(match found {
                Some(found) => {
                    found.check(&configured, path)?;
                    if found.key_check != key_check(found.device_id) {
                        let key_file = config.encryption.as_ref();
                        return Err(OpenError::Key {
                            path: path.clone(),
                            key_file: key_file.map_or_else(PathBuf::new, |e| e.key_file.clone()),
                        });
                    }
                    if found.version != FORMAT_VERSION {
                        tracing::info!(
                            path = %path.display(),
                            from = found.version,
                            to = FORMAT_VERSION,
                            "the device's format is upgraded"
                        );
                    }
                    DeviceHeader {
                        version: FORMAT_VERSION,
                        device_bytes: configured.device_bytes,
                        ..found.clone()
                    }
                }
                None => configured,
            });
        }
        let mappings = (media.iter().zip(&paths))
            .map(|(medium, path)| match medium.mapping() {
                None if config.in_memory => Mapping::new(medium.len())
                    .map(|mapping| Some(Arc::new(mapping)))
                    .map_err(|source| io_error(path, source)),
                mapping => Ok(mapping),
            })
            .collect::<Result<Vec<_>, OpenError>>()?;
        let fresh: Vec<bool> = found.iter().map(Option::is_none).collect();
        let is_new = fresh.iter().all(|fresh| *fresh);
        for (device, medium) in media.iter().enumerate() {
            let path = &paths[device];
            medium.prepare().map_err(|source| io_error(path, source))?;
            let is_current = found[device].as_ref() == Some(&headers[device]);
            if is_current || medium.mapping().is_some() {
                continue;
            }
            if fresh[device] && !is_new {
                tracing::warn!(path = %path.display(), "the device is empty, others of the store are not");
            }
            headers[device].encode(&mut page);
            medium
                .write_at(0, &page)
                .and_then(|()| medium.sync())
                .map_err(|source| io_error(path, source))?;
        }
        let shared = open_shared(&config, &media, &headers, &paths);
        let config = Arc::new(config);
        let counters = Arc::new(Counters::default());
        let signal = Arc::new(DefragSignal::default());
        let count = media.len();
        let devices = media
            .into_iter()
            .zip(&headers)
            .zip(mappings)
            .map(|((medium, header), mapping)| {
                let medium = match &key {
                    Some(key) => Arc::new(EncryptedMedium::new(
                        medium,
                        key.cipher(header.device_id),
                        u64::from(config.write_block_bytes),
                    )),
                    None => medium,
                };
                Arc::new(Device::new(
                    header.device,
                    count,
                    Arc::clone(&config),
                    medium,
                    mapping,
                    header.device_id,
                    header.first_sequence,
                    Arc::clone(&counters),
                    Arc::clone(&signal),
                    shared.as_ref().map(|(shared, _)| Arc::clone(shared)),
                ))
            })
            .collect();
        Ok(Store {
            config,
            devices,
            headers,
            fresh,
            counters,
            signal,
            scanned: AtomicBool::new(false),
            threads: Mutex::default(),
            sink: OnceLock::new(),
            shared,
        })
    }
}

/// The files in shared memory, where the configuration asks for them and they can be had.
fn open_shared(
    config: &StoreConfig,
    media: &[Arc<dyn Medium>],
    headers: &[DeviceHeader],
    paths: &[PathBuf],
) -> Option<(Arc<SharedStore>, Attached)> {
    let directory = config.shared_directory.as_ref()?;
    let block_bytes = u64::from(config.write_block_bytes);
    let blocks = |bytes: u64| (bytes / block_bytes) as u32;
    // Open and spare blocks of each device, and blocks that readers still hold when they leave the cache.
    let buffers_max = blocks(config.write_cache_bytes_max)
        + blocks(config.post_write_cache_bytes)
        + 16 * media.len() as u32
        + 64;
    let device = |(medium, header): (&Arc<dyn Medium>, &DeviceHeader)| {
        (header.device_id, u64::from(blocks(medium.len())))
    };
    let identity = Identity {
        namespace: config.namespace.clone(),
        store_id: headers[0].store_id,
        paths: paths.to_vec(),
        block_bytes,
        devices: media.iter().zip(headers).map(device).collect(),
        buffers_max,
    };
    match SharedStore::open(directory, identity) {
        Ok((shared, attached)) => Some((Arc::new(shared), attached)),
        Err(error) => {
            tracing::warn!(
                namespace = %config.namespace,
                directory = %directory.display(),
                %error,
                "no shared memory: the index lies on the heap, and the next start will be cold"
            );
            None
        }
    }
}

fn open_all(
    paths: &[PathBuf],
    open: impl Fn(&Path) -> io::Result<FileMedium>,
) -> Result<Vec<Arc<dyn Medium>>, OpenError> {
    let open = |path: &PathBuf| match when_free(path, || open(path)) {
        Ok(medium) => Ok(Arc::new(medium) as Arc<dyn Medium>),
        Err(error) if is_in_use(&error) => Err(OpenError::InUse { path: path.clone() }),
        Err(error) => Err(io_error(path, error)),
    };
    paths.iter().map(open).collect()
}

/// Refuses a device without a header that holds something else: only leases of a device that was wiped may be there.
fn check_blank(medium: &dyn Medium, path: &Path, block_bytes: usize) -> Result<(), OpenError> {
    let mut bytes = AlignedBuf::new(block_bytes.min(BLANK_BYTES_MAX));
    medium
        .read_at(0, &mut bytes)
        .map_err(|source| io_error(path, source))?;
    for (i, page) in bytes.chunks(PAGE_BYTES).enumerate() {
        let offset = (i * PAGE_BYTES) as u64;
        let may_be_lease = LEASE_OFFSETS.contains(&offset);
        if page.iter().any(|byte| *byte != 0) && !(may_be_lease && is_lease(page)) {
            return Err(OpenError::NotBlank {
                path: path.to_path_buf(),
                offset,
            });
        }
    }
    Ok(())
}

fn paths(medium: &MediumConfig, count: usize) -> Vec<PathBuf> {
    match medium {
        MediumConfig::File { paths, .. } | MediumConfig::Device { paths }
            if paths.len() == count =>
        {
            paths.clone()
        }
        _ => (0..count)
            .map(|device| format!("device {device}").into())
            .collect(),
    }
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_path_buf(),
        source,
    }
}

/// Unpredictable, which is all that store ids and first sequences need.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
