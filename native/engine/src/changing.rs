//! Whether this thread is in the middle of a change.
//!
//! A panic while a request is only decoded or evaluated leaves nothing behind: its connection can be closed and the thread go on.
//! A panic between the steps of a change (storage, index, counts, change queues) leaves them apart, and no lock tells, since
//! they are not poisoned. Whoever catches a panic asks here which of the two it was.

use std::cell::Cell;

thread_local! {
    /// Changes within one another that this thread is in.
    static CHANGING: Cell<u32> = const { Cell::new(0) };
}

/// Held over the steps of a change.
#[must_use]
pub struct Changing(());

pub fn changing() -> Changing {
    CHANGING.set(CHANGING.get() + 1);
    Changing(())
}

impl Drop for Changing {
    fn drop(&mut self) {
        // A change that ends by a panic has not ended.
        if !std::thread::panicking() {
            CHANGING.set(CHANGING.get() - 1);
        }
    }
}

/// Whether this thread is in the middle of a change; of one that caught a panic, whether that ended a change half way.
pub fn is_changing() -> bool {
    CHANGING.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panic_within_a_change_is_told_from_one_beside_it() {
        // On a thread of its own, which stays as the panic leaves it.
        let told = std::thread::spawn(|| {
            drop((changing(), changing()));
            let beside = catch_unwind(|| panic!("beside"));
            assert!(beside.is_err() && !is_changing());
            let within = catch_unwind(AssertUnwindSafe(|| {
                let _outer = changing();
                drop(changing());
                assert!(is_changing());
                panic!("within")
            }));
            assert!(within.is_err());
            is_changing()
        });
        assert!(told.join().expect("both panics were caught"));
        assert!(!is_changing());
    }
}
