//! A medium that fails by script, for tests.
//!
//! Fault model: writes and syncs can fail, in whole or after a part was written; reads can fail or
//! return flipped bits; writes can be held back; power can fail after a number of operations. What
//! was written and not synced when power fails survives or not, sector by sector, in any mixture of
//! its versions since the last sync, drawn from a seed. What was synced survives.

use super::{Medium, PAGE_BYTES};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

/// One thing to go wrong. Writes and syncs count from the moment it is injected, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// That write fails, and nothing of it is written.
    FailWrite { nth: u64 },
    /// That write fails after its first half.
    ShortWrite { nth: u64 },
    /// That write fails, with some of its sectors written.
    TornWrite { nth: u64 },
    /// That sync fails.
    FailSync { nth: u64 },
    /// Reads that touch the byte at `offset` fail.
    FailRead { offset: u64 },
    /// Reads see that bit of the byte at `offset` flipped.
    FlipBit { offset: u64, bit: u8 },
    /// Power fails at that write or sync.
    PowerCut { nth: u64 },
}

/// Wraps a medium and breaks it.
pub struct FaultyMedium {
    inner: Arc<dyn Medium>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Faults with the operation count that their `nth` counts from.
    faults: Vec<(Fault, u64, u64)>,
    writes: u64,
    syncs: u64,
    random: u64,
    /// Sectors overwritten since the last sync: offset and former contents, oldest first.
    undo: Vec<(u64, Vec<u8>)>,
    held: bool,
    waiting: usize,
    is_cut: bool,
}

impl FaultyMedium {
    /// `seed` decides what of unsynced writes survives.
    pub fn new(inner: Arc<dyn Medium>, seed: u64) -> FaultyMedium {
        let state = State {
            random: seed,
            ..State::default()
        };
        FaultyMedium {
            inner,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub fn inject(&self, fault: Fault) {
        let mut state = self.state.lock();
        let (writes, syncs) = (state.writes, state.syncs);
        state.faults.push((fault, writes, syncs));
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Makes writes and syncs wait until `let_go`.
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    pub fn let_go(&self) {
        self.state.lock().held = false;
        self.changed.notify_all();
    }

    /// Waits until a write or a sync is held back.
    pub fn wait_until_held(&self) {
        let mut state = self.state.lock();
        while state.waiting == 0 {
            self.changed.wait(&mut state);
        }
    }

    /// Fails power now: every later operation fails until `restart`.
    pub fn cut_power(&self) {
        let mut state = self.state.lock();
        self.cut(&mut state);
    }

    pub fn is_cut(&self) -> bool {
        self.state.lock().is_cut
    }

    /// Power is back, and all faults are forgotten.
    pub fn restart(&self) {
        let mut state = self.state.lock();
        let random = state.random;
        *state = State {
            random,
            ..State::default()
        };
    }

    fn cut(&self, state: &mut State) {
        if std::mem::replace(&mut state.is_cut, true) {
            return;
        }
        // Lost altogether, kept altogether, or a mixture: each alone finds bugs the others hide.
        let kept_of_8 = [0, 1, 4, 7, 8][state.below(5) as usize];
        let mut decided = HashSet::new();
        for (offset, former) in std::mem::take(&mut state.undo).into_iter().rev() {
            if decided.contains(&offset) {
                continue;
            }
            if state.below(8) < kept_of_8 {
                decided.insert(offset);
            } else {
                self.write_sectors(offset, &former)
                    .expect("the wrapped medium works");
            }
        }
        self.changed.notify_all();
    }

    /// Writes part of a page by way of the whole.
    fn write_sectors(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let page = PAGE_BYTES as u64;
        let from = offset / page * page;
        let mut buffer = super::AlignedBuf::new(PAGE_BYTES);
        self.inner.read_at(from, &mut buffer)?;
        let at = (offset - from) as usize;
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        self.inner.write_at(from, &buffer)
    }

    fn wait_while_held(&self, state: &mut MutexGuard<'_, State>) {
        while state.held && !state.is_cut {
            state.waiting += 1;
            self.changed.notify_all();
            self.changed.wait(state);
            state.waiting -= 1;
        }
    }

    fn remember(&self, state: &mut State, offset: u64, length: usize) -> io::Result<()> {
        let mut former = super::AlignedBuf::new(length);
        self.inner.read_at(offset, &mut former)?;
        let sectors = former.chunks(SECTOR_BYTES).enumerate();
        state
            .undo
            .extend(sectors.map(|(i, bytes)| (offset + (i * SECTOR_BYTES) as u64, bytes.to_vec())));
        Ok(())
    }
}

impl State {
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % bound
    }

    fn check_power(&self) -> io::Result<()> {
        if self.is_cut {
            Err(io::Error::other("no power"))
        } else {
            Ok(())
        }
    }

    fn power_fails(&self) -> bool {
        self.faults.iter().any(|(fault, writes, syncs)| {
            let operation = self.writes - writes + self.syncs - syncs;
            matches!(fault, Fault::PowerCut { nth } if *nth == operation)
        })
    }

    fn fault_of_write(&self) -> Option<Fault> {
        let due = |(fault, writes, _): &(Fault, u64, u64)| match fault {
            Fault::FailWrite { nth } | Fault::ShortWrite { nth } | Fault::TornWrite { nth } => {
                self.writes - writes == *nth
            }
            _ => false,
        };
        self.faults
            .iter()
            .find(|fault| due(fault))
            .map(|(fault, ..)| *fault)
    }
}

fn injected() -> io::Error {
    io::Error::other("injected fault")
}

impl Medium for FaultyMedium {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        state.check_power()?;
        self.inner.read_at(offset, buffer)?;
        for (fault, ..) in &state.faults {
            let (Fault::FailRead { offset: at } | Fault::FlipBit { offset: at, .. }) = fault else {
                continue;
            };
            let Some(at) = at
                .checked_sub(offset)
                .filter(|at| *at < buffer.len() as u64)
            else {
                continue;
            };
            match fault {
                Fault::FlipBit { bit, .. } => buffer[at as usize] ^= 1 << bit,
                _ => return Err(injected()),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        let mut guard = self.state.lock();
        self.wait_while_held(&mut guard);
        let state = &mut *guard;
        state.check_power()?;
        state.writes += 1;
        self.remember(state, offset, buffer.len())?;
        if state.power_fails() {
            self.inner.write_at(offset, buffer)?;
            self.cut(state);
            return Err(io::Error::other("no power"));
        }
        match state.fault_of_write() {
            None => self.inner.write_at(offset, buffer),
            Some(Fault::ShortWrite { .. }) => {
                let half = buffer.len() / 2 / SECTOR_BYTES;
                for (i, sector) in buffer.chunks(SECTOR_BYTES).enumerate().take(half) {
                    self.write_sectors(offset + (i * SECTOR_BYTES) as u64, sector)?;
                }
                Err(injected())
            }
            Some(Fault::TornWrite { .. }) => {
                for (i, sector) in buffer.chunks(SECTOR_BYTES).enumerate() {
                    if state.below(2) == 0 {
                        self.write_sectors(offset + (i * SECTOR_BYTES) as u64, sector)?;
                    }
                }
                Err(injected())
            }
            Some(_) => Err(injected()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.state.lock();
        self.wait_while_held(&mut guard);
        let state = &mut *guard;
        state.check_power()?;
        state.syncs += 1;
        if state.power_fails() {
            self.cut(state);
            return Err(io::Error::other("no power"));
        }
        let fails = |(fault, _, syncs): &(Fault, u64, u64)| matches!(fault, Fault::FailSync { nth } if state.syncs - syncs == *nth);
        if state.faults.iter().any(fails) {
            return Err(injected());
        }
        self.inner.sync()?;
        state.undo.clear();
        Ok(())
    }

    fn close(&self) {
        // The wrapped medium stays open: tests look at it, and open it again.
    }
}
