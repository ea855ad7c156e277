//! Work that may hang in the kernel, where no signal reaches it.

use std::sync::mpsc::channel;
use std::time::Duration;

/// Does it in a thread of its own, and gives up waiting after `limit`: `None`. The thread is left behind then, and ends with
/// this process. A command on a pool that is suspended is such work; its own [`crate::Cmd::timeout`] kills it, and then waits
/// for a process that cannot die.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    let started = std::thread::Builder::new().spawn(move || drop(sender.send(work())));
    started.ok()?;
    receiver.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_left_behind() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (hang, never) = channel::<()>();
        let hangs = within(Duration::from_millis(20), move || never.recv().is_ok());
        assert_eq!(hangs, None);
        drop(hang);
    }
}
