//! Who may work: as many tests as there are processors, and one of them has the shared machine.
//!
//! Every test has a thread from the start (`cargo xtask test` says `--test-threads=64`), so that it is known who still
//! waits for what: tests of the shared machine follow each other without a pause beside all others, and the machine ends
//! with the last of them. An emulated machine that does nothing still costs a third of a processor.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is counted.
#[derive(Debug, Default)]
struct Counts {
    /// Tests at work.
    working: usize,
    /// Tests that wait for the shared machine or have it.
    shared: usize,
    /// One of them is at work.
    shared_works: bool,
    /// Other tests that wait or are at work.
    others: usize,
}

static COUNTS: Mutex<Counts> = Mutex::new(Counts { working: 0, shared: 0, shared_works: false, others: 0 });
static CHANGED: Condvar = Condvar::new();

thread_local! {
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// The right to start machines, and to compile or write images; ends when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    is_shared: bool,
}

fn counts() -> MutexGuard<'static, Counts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tests that may work at once.
fn places() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).max(2)
}

impl Turn {
    /// Waits until a test that needs no shared machine may work.
    pub(crate) fn take() -> Turn {
        let mut counts = counts();
        counts.others += 1;
        // One place is kept for whoever has the shared machine next.
        while counts.working + usize::from(counts.shared > 0 && !counts.shared_works) >= places() {
            counts = CHANGED.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        counts.working += 1;
        AT_WORK.set(true);
        Turn { is_shared: false }
    }

    /// Says that a test will want the shared machine; before it waits for it.
    pub(crate) fn announce_shared() {
        counts().shared += 1;
    }

    /// Waits until the test that has the shared machine may work.
    pub(crate) fn take_shared() -> Turn {
        let mut counts = counts();
        while counts.working >= places() {
            counts = CHANGED.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        counts.working += 1;
        counts.shared_works = true;
        AT_WORK.set(true);
        Turn { is_shared: true }
    }

    /// Nobody else wants the shared machine, and others could use its processor.
    pub(crate) fn is_last_shared(&self) -> bool {
        let counts = counts();
        self.is_shared && counts.shared == 1 && counts.others > 0
    }

    /// A test that forgot to wait for its turn would slow all others down until they fail.
    pub(crate) fn assert_taken() {
        assert!(AT_WORK.get(), "a test waits for its `Turn` before it starts a machine");
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = counts();
        counts.working -= 1;
        if self.is_shared {
            counts.shared -= 1;
            counts.shared_works = false;
        } else {
            counts.others -= 1;
        }
        AT_WORK.set(false);
        CHANGED.notify_all();
    }
}
