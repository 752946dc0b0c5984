//! Bits of a blob that follow one another, read and changed a byte's worth at a time.

/// Bits that a blob has; `len` is not 0.
#[derive(Clone, Copy, Debug)]
pub struct Bits {
    pub start: u64,
    pub len: u64,
}

impl Bits {
    /// Up to eight bits from `at`, counted from the start of these, at the top of a byte; what lies behind them is 0.
    fn window(&self, blob: &[u8], at: u64) -> u8 {
        let first = self.start + at;
        let left = self.len - at;
        let (byte, shift) = ((first / 8) as usize, first % 8);
        let next = blob.get(byte + 1).copied().unwrap_or(0);
        let pair = u16::from_be_bytes([blob[byte], next]);
        let window = (pair << shift >> 8) as u8;
        if left < 8 {
            window & !(0xff >> left)
        } else {
            window
        }
    }

    /// Puts the top bits of a byte at `at`, as many as there are left, eight at most.
    fn put_window(&self, blob: &mut [u8], at: u64, bits: u8) {
        let first = self.start + at;
        let left = (self.len - at).min(8);
        let (byte, shift) = ((first / 8) as usize, first % 8);
        let mask = u16::from(!(0xff_u16 >> left) as u8) << 8 >> shift;
        let bits = u16::from(bits) << 8 >> shift & mask;
        let [high_mask, low_mask] = mask.to_be_bytes();
        let [high, low] = bits.to_be_bytes();
        blob[byte] = blob[byte] & !high_mask | high;
        if low_mask != 0 {
            blob[byte + 1] = blob[byte + 1] & !low_mask | low;
        }
    }

    fn windows(&self) -> impl DoubleEndedIterator<Item = u64> {
        (0..self.len.div_ceil(8)).map(|window| window * 8)
    }

    /// The bits from the top of the first byte on; the rest of the last byte is 0.
    pub fn copy(&self, blob: &[u8]) -> Vec<u8> {
        self.windows().map(|at| self.window(blob, at)).collect()
    }

    pub fn count_ones(&self, blob: &[u8]) -> u64 {
        self.windows()
            .map(|at| u64::from(self.window(blob, at).count_ones()))
            .sum()
    }

    /// The first or last bit of a value, counted from the start of these.
    pub fn find(&self, blob: &[u8], wanted: bool, from_right: bool) -> Option<u64> {
        let matches = |at: u64| {
            let window = self.window(blob, at);
            let bits = if wanted { window } else { !window };
            let left = (self.len - at).min(8);
            bits & !(0xff_u16 >> left) as u8
        };
        if from_right {
            let at = self.windows().rev().find(|at| matches(*at) != 0)?;
            Some(at + 7 - u64::from(matches(at).trailing_zeros()))
        } else {
            let at = self.windows().find(|at| matches(*at) != 0)?;
            Some(at + u64::from(matches(at).leading_zeros()))
        }
    }

    /// Of 64 bits at most.
    pub fn integer(&self, blob: &[u8]) -> u64 {
        let value = self.windows().fold(0_u128, |value, at| {
            value << 8 | u128::from(self.window(blob, at))
        });
        (value >> (self.len.div_ceil(8) * 8 - self.len)) as u64
    }

    /// Puts the low bits of an integer, 64 at most.
    pub fn set_integer(&self, blob: &mut [u8], value: u64) {
        let value = u128::from(value) << (128 - self.len);
        for (at, byte) in self.windows().zip(value.to_be_bytes()) {
            self.put_window(blob, at, byte);
        }
    }

    /// Changes each bit by what it was and the bit of `other`, counted from its start; bits that `other` has not are 0.
    pub fn combine(&self, blob: &mut [u8], other: &[u8], how: fn(bool, bool) -> bool) {
        // Any such function is one of its four results, for eight bits at once.
        let all = |result: bool| if result { 0xff } else { 0 };
        let [none, new_only, old_only, both] = [
            all(how(false, false)),
            all(how(false, true)),
            all(how(true, false)),
            all(how(true, true)),
        ];
        for at in self.windows() {
            let old = self.window(blob, at);
            let new = other.get((at / 8) as usize).copied().unwrap_or(0);
            let changed = !old & !new & none
                | !old & new & new_only
                | old & !new & old_only
                | old & new & both;
            self.put_window(blob, at, changed);
        }
    }

    /// Moves the bits; those that come in are 0.
    pub fn shift(&self, blob: &mut [u8], bits: u64, to_left: bool) {
        let moved = bits.min(self.len);
        let kept = Bits {
            start: self.start + if to_left { moved } else { 0 },
            len: self.len - moved,
        };
        let copy = kept.copy(blob);
        self.combine(blob, &[], |_, _| false);
        let target = Bits {
            start: self.start + if to_left { 0 } else { moved },
            len: kept.len,
        };
        target.combine(blob, &copy, |_, new| new);
    }
}
