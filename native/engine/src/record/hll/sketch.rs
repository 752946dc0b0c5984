//! The bytes of a HyperLogLog sketch, which clients fetch and send as they are (section 14).
//!
//! ```text
//! sketch   = u8 0, u8 index bits, u8 minhash bits, u64 little-endian cached estimate (0: none), registers
//! register = 6 bits: position of the lowest one in the second half of the hash, from 1 (0: nothing was added)
//!            minhash bits: bits of the first half behind the index
//! ```
//!
//! Registers follow one another bit by bit, the most significant first.

use super::murmur::murmur3_x64_128;
use perigee_wire::{ParticleError, ResultCode, particle_type as particle, validate_particle};
use std::ops::RangeInclusive;

const HEADER_BYTES: usize = 11;
const CACHED_AT: RangeInclusive<usize> = 3..=10;
const POSITION_BITS: u32 = 6;
const POSITION_MAX: u64 = (1 << POSITION_BITS) - 1;

const INDEX_BITS: RangeInclusive<u8> = 4..=16;
const MINHASH_BITS: RangeInclusive<u8> = 4..=51;
/// Index and minhash are cut from one half of the hash.
const BITS_MAX: u8 = 64;

/// How many bits of the hash choose a register, and how many more are kept in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub index_bits: u8,
    pub minhash_bits: u8,
}

impl Shape {
    pub fn is_valid(self) -> bool {
        INDEX_BITS.contains(&self.index_bits)
            && (self.minhash_bits == 0 || MINHASH_BITS.contains(&self.minhash_bits))
            && self.index_bits + self.minhash_bits <= BITS_MAX
    }

    fn registers(self) -> usize {
        1 << self.index_bits
    }

    fn register_bits(self) -> usize {
        POSITION_BITS as usize + usize::from(self.minhash_bits)
    }

    pub fn bytes(self) -> usize {
        HEADER_BYTES + (self.registers() * self.register_bits()).div_ceil(8)
    }

    /// What sketches of both shapes can be brought to. The order of registers by minhash is lost when they are folded.
    pub fn common(self, other: Shape) -> Shape {
        let minhash_bits = if self == other { self.minhash_bits } else { 0 };
        Shape {
            index_bits: self.index_bits.min(other.index_bits),
            minhash_bits,
        }
    }

    /// The register that an element is counted in, and what it puts there.
    fn place(self, element: &[u8]) -> (usize, u64) {
        let (first, second) = murmur3_x64_128(element, 0);
        let index = first & ((1 << self.index_bits) - 1);
        let minhash = first >> self.index_bits & ((1 << self.minhash_bits) - 1);
        let position = u64::from(second.trailing_zeros() + 1).min(POSITION_MAX);
        (index as usize, position << self.minhash_bits | minhash)
    }
}

/// A sketch whose length fits its shape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sketch<B> {
    shape: Shape,
    bytes: B,
}

impl<'a> Sketch<&'a [u8]> {
    pub fn parse(bytes: &'a [u8]) -> Result<Sketch<&'a [u8]>, ParticleError> {
        validate_particle(particle::HLL, bytes)?;
        let shape = Shape {
            index_bits: bytes[1],
            minhash_bits: bytes[2],
        };
        Ok(Sketch { shape, bytes })
    }
}

impl Sketch<Vec<u8>> {
    /// RECORD_TOO_BIG if it would exceed `bytes_max`.
    pub fn empty(shape: Shape, bytes_max: usize) -> Result<Sketch<Vec<u8>>, ResultCode> {
        if shape.bytes() > bytes_max {
            return Err(ResultCode::RecordTooBig);
        }
        Ok(Sketch::zeroed(shape))
    }

    fn zeroed(shape: Shape) -> Sketch<Vec<u8>> {
        let mut bytes = vec![0; shape.bytes()];
        bytes[1] = shape.index_bits;
        bytes[2] = shape.minhash_bits;
        Sketch { shape, bytes }
    }

    /// Everything that was added to any of them. `shape` is common to them all.
    pub fn union<B: AsRef<[u8]>>(shape: Shape, sketches: &[Sketch<B>]) -> Sketch<Vec<u8>> {
        let mut union = Sketch::zeroed(shape);
        sketches.iter().for_each(|sketch| union.absorb(sketch));
        union
    }

    fn absorb<B: AsRef<[u8]>>(&mut self, other: &Sketch<B>) {
        let mask = self.shape.registers() - 1;
        let dropped_bits = other.shape.minhash_bits - self.shape.minhash_bits;
        for at in 0..other.shape.registers() {
            self.raise(at & mask, other.register(at) >> dropped_bits);
        }
    }

    /// Whether a register had to be raised for an element.
    pub fn add(&mut self, element: &[u8]) -> bool {
        let (at, register) = self.shape.place(element);
        self.raise(at, register)
    }

    fn raise(&mut self, at: usize, register: u64) -> bool {
        if register <= self.register(at) {
            return false;
        }
        let width = self.shape.register_bits();
        let (byte, shift) = register_at(at, width);
        let bits = register << (64 - width) >> shift;
        let mask = !0_u64 << (64 - width) >> shift;
        let word = word_at(&self.bytes, byte) & !mask | bits;
        let end = self.bytes.len().min(byte + 8);
        self.bytes[byte..end].copy_from_slice(&word.to_be_bytes()[..end - byte]);
        true
    }

    pub fn set_cached(&mut self, estimate: u64) {
        self.bytes[CACHED_AT].copy_from_slice(&estimate.to_le_bytes());
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl<B: AsRef<[u8]>> Sketch<B> {
    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    pub fn to_owned(&self) -> Sketch<Vec<u8>> {
        Sketch {
            shape: self.shape,
            bytes: self.as_bytes().to_vec(),
        }
    }

    /// Whether the same was added to both, as far as they can tell.
    pub fn counts_as<C: AsRef<[u8]>>(&self, other: &Sketch<C>) -> bool {
        self.shape == other.shape
            && self.as_bytes()[HEADER_BYTES..] == other.as_bytes()[HEADER_BYTES..]
    }

    fn register(&self, at: usize) -> u64 {
        let width = self.shape.register_bits();
        let (byte, shift) = register_at(at, width);
        word_at(self.as_bytes(), byte) << shift >> (64 - width)
    }

    /// False if the element was certainly not added.
    pub fn may_contain(&self, element: &[u8]) -> bool {
        let (at, register) = self.shape.place(element);
        register <= self.register(at)
    }

    /// How many distinct elements were added, about; what an earlier estimate left in the sketch if nothing was added since.
    pub fn estimate(&self) -> u64 {
        match self.cached() {
            0 => self.fresh_estimate(),
            cached => cached,
        }
    }

    pub fn cached(&self) -> u64 {
        self.as_bytes()[CACHED_AT]
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// The improved raw estimator of Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017). No
    /// register is ever full: positions go up to 64, so that the correction for large counts is 0.
    pub fn fresh_estimate(&self) -> u64 {
        let registers = self.shape.registers();
        let mut counts = [0_u32; POSITION_MAX as usize + 1];
        for at in 0..registers {
            counts[(self.register(at) >> self.shape.minhash_bits) as usize] += 1;
        }
        let [zeros, positions @ ..] = counts;
        let above = positions
            .iter()
            .rev()
            .fold(0.0, |sum, count| 0.5 * (sum + f64::from(*count)));
        let registers = registers as f64;
        let below = registers * sigma(f64::from(zeros) / registers);
        (self.alpha() * registers * registers / (above + below)).round() as u64
    }

    fn alpha(&self) -> f64 {
        match self.shape.index_bits {
            4 => 0.673,
            5 => 0.697,
            6 => 0.709,
            _ => 0.7213 / (1.0 + 1.079 / self.shape.registers() as f64),
        }
    }
}

/// The correction for registers that nothing was counted in.
fn sigma(share: f64) -> f64 {
    if share >= 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut factor, mut sum) = (share, 1.0, share);
    loop {
        power *= power;
        let before = sum;
        sum += power * factor;
        factor += factor;
        if sum == before {
            return sum;
        }
    }
}

/// How many of the registers that are used in any of the sketches are the same in all, which estimates the share of
/// elements that are in all of them; NaN where there is no element. They are of one shape, with minhash bits.
///
/// Different elements may put the same into a register. For two sketches what that adds is taken off, after Yu and Weber,
/// "HyperMinHash: MinHash in LogLog space" (2017), where they are large enough that the approximation holds.
pub fn similarity<B: AsRef<[u8]>>(sketches: &[Sketch<B>]) -> f64 {
    let [first, others @ ..] = sketches else {
        return 0.0;
    };
    let shape = first.shape;
    let (mut same, mut used) = (0_u32, 0_u32);
    for at in 0..shape.registers() {
        let register = first.register(at);
        let (mut is_same, mut is_used) = (register != 0, register != 0);
        for other in others {
            let found = other.register(at);
            is_same &= found == register;
            is_used |= found != 0;
        }
        same += u32::from(is_same);
        used += u32::from(is_used);
    }
    if used == 0 {
        return f64::NAN;
    }
    if same == 0 {
        return 0.0;
    }
    let by_chance = match others {
        [other] => collisions(shape, first.fresh_estimate(), other.fresh_estimate()),
        _ => 0.0,
    };
    (f64::from(same) - by_chance).max(0.0) / f64::from(used)
}

/// Registers of two sketches without a common element that are the same, on average.
fn collisions(shape: Shape, first: u64, second: u64) -> f64 {
    const SHARE: f64 = 0.169_919_487_159_739_1;
    let (first, second) = (first as f64, second as f64);
    if first.max(second) <= (shape.registers() as f64) * 32.0 {
        return 0.0;
    }
    let balance = 4.0 * first * second / (first + second).powi(2);
    SHARE * shape.registers() as f64 * 0.5_f64.powi(i32::from(shape.minhash_bits)) * balance
}

/// Where a register begins: a byte, and a bit in it.
fn register_at(at: usize, width: usize) -> (usize, usize) {
    let bit = at * width;
    (HEADER_BYTES + bit / 8, bit % 8)
}

/// Eight bytes as a number; what lies behind the end is 0. A register of 57 bits, the widest, fits them wherever it begins.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    match bytes[at..].first_chunk::<8>() {
        Some(word) => u64::from_be_bytes(*word),
        None => {
            let mut word = [0; 8];
            word[..bytes.len() - at].copy_from_slice(&bytes[at..]);
            u64::from_be_bytes(word)
        }
    }
}
