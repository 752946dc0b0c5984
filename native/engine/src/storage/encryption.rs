//! Encryption at rest: what is configured, the key file, and the keys of one device.
//!
//! AES in XTS mode (IEEE 1619), a page of 4096 bytes a data unit, whose number on the device is the tweak. The keys of a
//! device are derived from the file's by HKDF-SHA256 (RFC 5869) with the device id as salt, so that no two devices, and no
//! two lives of one, encrypt the same page in the same way. XTS hides what is stored; it does not tell who changed it.

use super::error::OpenError;
use super::header::KeyCheck;
use super::medium::PAGE_BYTES;
use aes::cipher::consts::U16;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use hkdf::Hkdf;
use sha2::Sha256;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const BLOCK_BYTES: usize = 16;
/// What a device writes as a whole, and so what is written or not when power fails.
const SECTOR_BYTES: usize = 512;
const SECTOR_BLOCKS: usize = SECTOR_BYTES / BLOCK_BYTES;
/// A longer file holds no key.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// The number stands in the device header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Algorithm {
    Aes128 = 1,
    Aes256 = 2,
}

impl Algorithm {
    fn key_bytes(self) -> usize {
        match self {
            Algorithm::Aes128 => 16,
            Algorithm::Aes256 => 32,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Algorithm::Aes128 => "aes-128",
            Algorithm::Aes256 => "aes-256",
        }
    }

    /// What a number in a device header stands for, in words.
    pub(super) fn describe(number: u8) -> String {
        match number {
            0 => "none".into(),
            1 => Algorithm::Aes128.name().into(),
            2 => Algorithm::Aes256.name().into(),
            other => format!("algorithm {other}"),
        }
    }
}

/// How a store is encrypted, and where its key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encryption {
    pub algorithm: Algorithm,
    /// Its content is the key: in hexadecimal, in base64, or as it is.
    pub key_file: PathBuf,
}

/// The key of a store, as it is in the file.
pub(super) struct StoreKey {
    algorithm: Algorithm,
    bytes: Zeroizing<Vec<u8>>,
}

impl StoreKey {
    /// Reads and checks the key file. That others can read it is a warning.
    pub(super) fn read(encryption: &Encryption) -> Result<StoreKey, OpenError> {
        let path = &encryption.key_file;
        let algorithm = encryption.algorithm;
        let io_error = |source: io::Error| OpenError::Io {
            path: path.clone(),
            source,
        };
        let file = File::open(path).map_err(io_error)?;
        let mode = file.metadata().map_err(io_error)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), mode = format!("{:03o}", mode & 0o777), "the encryption key can be read by others");
        }
        let mut content = Zeroizing::new(Vec::new());
        file.take(KEY_FILE_BYTES_MAX)
            .read_to_end(&mut content)
            .map_err(io_error)?;
        let bytes = parse_key(&content, algorithm, path)?;
        Ok(StoreKey { algorithm, bytes })
    }

    pub(super) fn number(&self) -> u8 {
        self.algorithm as u8
    }

    fn derive(&self, device_id: u64, purpose: &str, output: &mut [u8]) {
        let name = self.algorithm.name();
        let salt = device_id.to_le_bytes();
        Hkdf::<Sha256>::new(Some(&salt), &self.bytes)
            .expand_multi_info(&[b"perigee ", name.as_bytes(), purpose.as_bytes()], output)
            .expect("a few keys are less than HKDF gives");
    }

    /// Tells in the device header which key it is.
    pub(super) fn check(&self, device_id: u64) -> KeyCheck {
        let mut check = KeyCheck::default();
        self.derive(device_id, " check", &mut check);
        check
    }

    pub(super) fn cipher(&self, device_id: u64) -> PageCipher {
        let half = self.algorithm.key_bytes();
        let mut keys = Zeroizing::new([0; 64]);
        self.derive(device_id, "-xts pages", &mut keys[..2 * half]);
        let (data, tweak) = keys[..2 * half].split_at(half);
        match self.algorithm {
            Algorithm::Aes128 => PageCipher::Aes128(Box::new(Xts {
                data: Aes128::new(data.into()),
                tweak: Aes128::new(tweak.into()),
            })),
            Algorithm::Aes256 => PageCipher::Aes256(Box::new(Xts {
                data: Aes256::new(data.into()),
                tweak: Aes256::new(tweak.into()),
            })),
        }
    }
}

/// Text that reads as hexadecimal or base64 is taken for that, and has to be of the right length; anything else is the key itself.
fn parse_key(
    content: &[u8],
    algorithm: Algorithm,
    path: &Path,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let wanted = algorithm.key_bytes();
    let text = content.trim_ascii();
    let hex = (!text.is_empty() && text.iter().all(u8::is_ascii_hexdigit))
        .then(|| HEXLOWER_PERMISSIVE.decode(text).unwrap_or_default());
    let base64 = || {
        let decoded = BASE64.decode(text).or_else(|_| BASE64_NOPAD.decode(text));
        decoded.ok().filter(|key| key.len() == wanted)
    };
    let key = hex.or_else(base64).unwrap_or_else(|| content.to_vec());
    let key = Zeroizing::new(key);
    if key.len() == wanted {
        Ok(key)
    } else {
        Err(OpenError::KeyFile {
            path: path.to_path_buf(),
            algorithm: algorithm.name(),
            expected: wanted,
            found: key.len(),
        })
    }
}

/// Encrypts and decrypts pages of one device.
pub(crate) enum PageCipher {
    Aes128(Box<Xts<Aes128>>),
    Aes256(Box<Xts<Aes256>>),
}

impl PageCipher {
    /// Encrypts whole pages, the first of which is page `number` of the device.
    pub(crate) fn encrypt(&self, number: u64, pages: &mut [u8]) {
        for (number, page) in (number..).zip(pages.chunks_exact_mut(PAGE_BYTES)) {
            match self {
                PageCipher::Aes128(xts) => xts.encrypt(number, page),
                PageCipher::Aes256(xts) => xts.encrypt(number, page),
            }
        }
    }

    /// Undoes `encrypt`. Sectors that are all zero were never written, and stay so: what encrypts to zeroes is one of
    /// 2^4096.
    pub(crate) fn decrypt(&self, number: u64, pages: &mut [u8]) {
        for (number, page) in (number..).zip(pages.chunks_exact_mut(PAGE_BYTES)) {
            match self {
                PageCipher::Aes128(xts) => xts.decrypt(number, page),
                PageCipher::Aes256(xts) => xts.decrypt(number, page),
            }
        }
    }
}

/// XTS over whole sectors, several blocks at a time: the published crates take one block at a time, at a seventh of the
/// speed.
pub(crate) struct Xts<C> {
    data: C,
    tweak: C,
}

impl<C: BlockEncrypt<BlockSize = U16> + BlockDecrypt> Xts<C> {
    fn encrypt(&self, number: u64, page: &mut [u8]) {
        let mut tweak = self.first_tweak(number);
        for sector in page.chunks_exact_mut(SECTOR_BYTES) {
            tweak = whiten(sector, tweak, |blocks| self.data.encrypt_blocks(blocks));
        }
    }

    fn decrypt(&self, number: u64, page: &mut [u8]) {
        let mut tweak = self.first_tweak(number);
        for sector in page.chunks_exact_mut(SECTOR_BYTES) {
            tweak = if sector.iter().all(|byte| *byte == 0) {
                (0..SECTOR_BLOCKS).fold(tweak, |tweak, _| double(tweak))
            } else {
                whiten(sector, tweak, |blocks| self.data.decrypt_blocks(blocks))
            };
        }
    }

    fn first_tweak(&self, number: u64) -> u128 {
        let mut block = Block::from(u128::from(number).to_le_bytes());
        self.tweak.encrypt_block(&mut block);
        u128::from_le_bytes(block.into())
    }
}

/// Multiplies by the primitive element of GF(2^128).
fn double(tweak: u128) -> u128 {
    (tweak << 1) ^ ((tweak >> 127) * 0x87)
}

/// Applies `cipher` between two additions of the tweaks, and returns the tweak that follows.
fn whiten(sector: &mut [u8], mut tweak: u128, cipher: impl Fn(&mut [Block])) -> u128 {
    let mut tweaks = [0; SECTOR_BLOCKS];
    let mut blocks = [Block::default(); SECTOR_BLOCKS];
    let bytes = sector.chunks_exact(BLOCK_BYTES);
    for ((own, block), bytes) in tweaks.iter_mut().zip(&mut blocks).zip(bytes) {
        let plain = u128::from_le_bytes(bytes.try_into().expect("16 bytes"));
        *own = tweak;
        *block = (plain ^ tweak).to_le_bytes().into();
        tweak = double(tweak);
    }
    cipher(&mut blocks);
    let bytes = sector.chunks_exact_mut(BLOCK_BYTES);
    for ((own, block), bytes) in tweaks.iter().zip(&blocks).zip(bytes) {
        let whitened = u128::from_le_bytes((*block).into()) ^ own;
        bytes.copy_from_slice(&whitened.to_le_bytes());
    }
    tweak
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(algorithm: Algorithm, byte: u8) -> StoreKey {
        StoreKey {
            algorithm,
            bytes: Zeroizing::new(vec![byte; algorithm.key_bytes()]),
        }
    }

    fn page() -> Vec<u8> {
        (0..2 * PAGE_BYTES)
            .map(|i| (i * 7 + i / 256) as u8)
            .collect()
    }

    /// Vectors 1, 2 and 4 (its start) of IEEE 1619-2007, annex B, and vector 10 (its start) for AES-256.
    #[test]
    fn xts_is_that_of_the_standard() {
        let hex = |text: &str| HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap();
        let xts = |data: &str, tweak: &str| Xts {
            data: Aes128::new_from_slice(&hex(data)).unwrap(),
            tweak: Aes128::new_from_slice(&hex(tweak)).unwrap(),
        };
        let zero = "00".repeat(16);
        let mut sector = vec![0; PAGE_BYTES];
        xts(&zero, &zero).encrypt(0, &mut sector);
        assert_eq!(
            sector[..32],
            hex("917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e")[..]
        );
        let mut sector = vec![0x44; PAGE_BYTES];
        xts(&"11".repeat(16), &"22".repeat(16)).encrypt(0x33_3333_3333, &mut sector);
        assert_eq!(
            sector[..32],
            hex("c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0")[..]
        );
        let counting: Vec<u8> = (0..PAGE_BYTES).map(|i| i as u8).collect();
        let mut sector = counting.clone();
        xts(
            "27182818284590452353602874713526",
            "31415926535897932384626433832795",
        )
        .encrypt(0, &mut sector);
        assert_eq!(
            sector[..32],
            hex("27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c")[..]
        );
        let large = Xts {
            data: Aes256::new_from_slice(&hex(
                "2718281828459045235360287471352662497757247093699959574966967627",
            ))
            .unwrap(),
            tweak: Aes256::new_from_slice(&hex(
                "3141592653589793238462643383279502884197169399375105820974944592",
            ))
            .unwrap(),
        };
        let mut sector = counting;
        large.encrypt(0xFF, &mut sector);
        assert_eq!(
            sector[..32],
            hex("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b")[..]
        );
    }

    #[test]
    fn pages_read_back_and_each_is_encrypted_in_its_own_way() {
        for algorithm in [Algorithm::Aes128, Algorithm::Aes256] {
            let cipher = key(algorithm, 1).cipher(7);
            let mut bytes = page();
            cipher.encrypt(40, &mut bytes);
            assert_ne!(bytes, page());
            let mut second = page()[PAGE_BYTES..].to_vec();
            cipher.encrypt(41, &mut second);
            assert_eq!(bytes[PAGE_BYTES..], second);
            let mut elsewhere = page()[PAGE_BYTES..].to_vec();
            cipher.encrypt(42, &mut elsewhere);
            assert_ne!(second, elsewhere);
            for (other, id) in [(1, 8), (2, 7)] {
                let mut same = page()[PAGE_BYTES..].to_vec();
                key(algorithm, other).cipher(id).encrypt(41, &mut same);
                assert_ne!(second, same);
            }
            cipher.decrypt(40, &mut bytes);
            assert_eq!(bytes, page());
        }
    }

    #[test]
    fn sectors_that_were_never_written_read_as_zero_beside_others() {
        let cipher = key(Algorithm::Aes256, 3).cipher(9);
        let mut bytes = page()[..PAGE_BYTES].to_vec();
        cipher.encrypt(5, &mut bytes);
        // As a torn write leaves it.
        bytes[SECTOR_BYTES..3 * SECTOR_BYTES].fill(0);
        cipher.decrypt(5, &mut bytes);
        let mut expected = page()[..PAGE_BYTES].to_vec();
        expected[SECTOR_BYTES..3 * SECTOR_BYTES].fill(0);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn key_is_read_as_hexadecimal_base64_or_itself() {
        let raw: Vec<u8> = (0xA0..0xC0).collect();
        let hex = HEXLOWER_PERMISSIVE.encode(&raw);
        let base64 = BASE64.encode(&raw);
        let parse = |content: &[u8], algorithm| {
            parse_key(content, algorithm, Path::new("k")).map(|key| key.to_vec())
        };
        let accepted: [&[u8]; 6] = [
            &raw,
            hex.as_bytes(),
            hex.to_uppercase().as_bytes(),
            format!("{hex}\n").as_bytes(),
            format!(" {base64}\r\n").as_bytes(),
            base64.trim_end_matches('=').as_bytes(),
        ]
        .map(|content| Vec::leak(content.to_vec()) as &[u8]);
        for content in accepted {
            assert_eq!(parse(content, Algorithm::Aes256).unwrap(), raw);
        }
        // A key for the smaller algorithm is not taken for 32 bytes of text.
        let short = &hex.as_bytes()[..32];
        assert_eq!(parse(short, Algorithm::Aes128).unwrap(), raw[..16]);
        for (content, algorithm, found) in [
            (short, Algorithm::Aes256, 16),
            (hex.as_bytes(), Algorithm::Aes128, 32),
            (&raw[..31], Algorithm::Aes256, 31),
            (b"", Algorithm::Aes128, 0),
        ] {
            let refused = parse(content, algorithm).unwrap_err().to_string();
            assert!(
                refused.contains(&format!("a key of {found} bytes")),
                "{refused}"
            );
        }
    }
}
