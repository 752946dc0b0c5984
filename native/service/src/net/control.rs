//! Reaching a loop from other threads: wake it, stop it.
//!
//! The state word keeps wake-ups cheap: only a wake that finds the loop asleep costs a system call.
//! `AWAKE` becomes `NOTIFIED` by a wake; `ASLEEP`, entered only from `AWAKE` right before the wait,
//! becomes `NOTIFIED` by a wake that also writes the eventfd; after the wait the loop goes back to
//! `AWAKE`, and only then looks at its mailbox.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

struct Shared {
    state: AtomicU8,
    event: OwnedFd,
    /// Set once: when the loop must be done, whatever is still parked.
    stop_deadline: Mutex<Option<Instant>>,
}

/// Wakes one loop from any thread; cheap to clone. Wakes coalesce, and one is never lost: `on_wake`
/// starts after the last `wake()`.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    /// Makes the loop call `on_wake` soon. A system call only when the loop is asleep and nobody
    /// has woken it yet.
    pub fn wake(&self) {
        if self.shared.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {
            let one = 1u64;
            // SAFETY: eight readable bytes and a descriptor that `shared` keeps open. A full
            // counter (EAGAIN) is a wake-up already pending.
            unsafe { libc::write(self.shared.event.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }
}

/// Both ends of the command over one loop: made before the loop's thread, cloned into it.
#[derive(Clone)]
pub struct LoopControl {
    waker: Waker,
}

impl LoopControl {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the result is checked.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        let shared = Shared {
            state: AtomicU8::new(AWAKE),
            event,
            stop_deadline: Mutex::new(None),
        };
        Ok(Self {
            waker: Waker {
                shared: Arc::new(shared),
            },
        })
    }

    /// A handle that can only wake.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Ends the loop: it accepts and receives nothing more, finishes what was received, and returns
    /// when no request is parked and all replies have left, at the latest after `grace`. The first
    /// call sets the time.
    pub fn stop(&self, grace: Duration) {
        self.waker
            .shared
            .stop_deadline
            .lock()
            .get_or_insert_with(|| Instant::now() + grace);
        self.waker.wake();
    }

    pub(super) fn event(&self) -> RawFd {
        self.waker.shared.event.as_raw_fd()
    }

    pub(super) fn stop_deadline(&self) -> Option<Instant> {
        *self.waker.shared.stop_deadline.lock()
    }

    /// Before the wait: false when a wake-up came meanwhile and the wait must not block.
    pub(super) fn fall_asleep(&self) -> bool {
        self.waker
            .shared
            .state
            .compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Whether somebody has woken the loop since it last woke up.
    pub(super) fn is_notified(&self) -> bool {
        self.waker.shared.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// After the wait, and before the mailbox is looked at: whether somebody woke the loop.
    pub(super) fn wake_up(&self) -> bool {
        self.waker.shared.state.swap(AWAKE, Ordering::SeqCst) == NOTIFIED
    }
}
