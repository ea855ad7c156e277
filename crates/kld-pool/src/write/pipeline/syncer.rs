//! The thread that makes durable what others write.

use std::sync::mpsc::{self, SyncSender};
use std::thread::{Scope, ScopedJoinHandle};

use crate::write::error::WriteError;
use crate::write::outputs::Outputs;

/// Bytes after which there is something to do: enough for a disk to write in one go, little beside a page cache.
const DUE: u64 = 32 << 20;

/// Hears what was written. Dropped, it ends the thread.
pub(super) struct Syncer<'scope> {
    due: SyncSender<()>,
    thread: ScopedJoinHandle<'scope, Result<(), WriteError>>,
    /// Bytes written since the thread was last called.
    written: u64,
}

impl<'scope> Syncer<'scope> {
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        outputs: &'env Outputs<'_>,
    ) -> Syncer<'scope> {
        let (due, calls) = mpsc::sync_channel(1);
        let thread = scope.spawn(move || calls.into_iter().try_for_each(|()| outputs.sync()));
        Syncer { due, thread, written: 0 }
    }

    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        // A thread that is at it takes this with its next turn; one that has failed says so at the end.
        if self.written >= DUE && self.due.try_send(()).is_ok() {
            self.written = 0;
        }
    }

    /// Waits for the thread. An error counts although a later call may succeed: the system tells of a lost write only once.
    pub(super) fn finish(self) -> Result<(), WriteError> {
        drop(self.due);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
