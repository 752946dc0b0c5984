//! A configured value that may change while the node runs.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Reading costs a plain load. A change is seen by other threads soon, and values that change together may be seen one
/// after the other.
pub struct Tunable<T>(AtomicU64, PhantomData<T>);

/// What fits into a word and back without loss.
pub trait Word: Copy {
    fn to_word(self) -> u64;
    fn from_word(word: u64) -> Self;
}

macro_rules! words {
    ($($type:ty),+) => {
        $(impl Word for $type {
            fn to_word(self) -> u64 {
                self as u64
            }

            fn from_word(word: u64) -> Self {
                word as $type
            }
        })+
    };
}

words!(u8, u16, u32, u64, usize, i8);

impl Word for bool {
    fn to_word(self) -> u64 {
        u64::from(self)
    }

    fn from_word(word: u64) -> Self {
        word != 0
    }
}

/// In nanoseconds, of which a word holds five centuries.
impl Word for Duration {
    fn to_word(self) -> u64 {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX)
    }

    fn from_word(word: u64) -> Self {
        Duration::from_nanos(word)
    }
}

impl<T: Word> Tunable<T> {
    pub fn new(value: T) -> Self {
        Tunable(AtomicU64::new(value.to_word()), PhantomData)
    }

    #[inline]
    pub fn get(&self) -> T {
        T::from_word(self.0.load(Ordering::Relaxed))
    }

    pub fn set(&self, value: T) {
        self.0.store(value.to_word(), Ordering::Relaxed);
    }
}

impl<T: Word> From<T> for Tunable<T> {
    fn from(value: T) -> Self {
        Tunable::new(value)
    }
}

impl<T: Word + Default> Default for Tunable<T> {
    fn default() -> Self {
        Tunable::new(T::default())
    }
}

impl<T: Word> Clone for Tunable<T> {
    fn clone(&self) -> Self {
        Tunable::new(self.get())
    }
}

impl<T: Word + fmt::Debug> fmt::Debug for Tunable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(formatter)
    }
}

impl<'de, T: Word + Deserialize<'de>> Deserialize<'de> for Tunable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Tunable::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_it_went_in() {
        for value in [-1i8, 0, 100, i8::MIN] {
            assert_eq!(Tunable::new(value).get(), value);
        }
        let tunable = Tunable::new(u64::MAX);
        assert_eq!(tunable.get(), u64::MAX);
        tunable.set(7);
        assert_eq!(tunable.clone().get(), 7);
        let nap = Duration::from_micros(1_000_000);
        assert_eq!(Tunable::new(nap).get(), nap);
        assert!(Tunable::new(true).get() && !Tunable::new(false).get());
    }
}
