//! One holder at a time, across processes.
//!
//! An advisory `flock(2)` on a file that stays: the kernel lets go when the holder dies, so there is no stale lock.
//! The file says who holds it, for the message only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, major, minor, stat};

/// The kernel's list of who has which file locked: proc_locks(5).
const LOCKS: &str = "/proc/locks";

/// Who has it, when the file does not say so.
const UNKNOWN: &str = "another process";

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Said, and not left to the end of the file: a child that another thread is just starting has it open, too, until it becomes
    /// another program.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// A lock that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone else has it.
    #[error("`{}` is locked by {holder}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who: `process 4242 (kldload build)`.
        holder: String,
    },
    /// The file cannot be used.
    #[error("could not lock `{}`", path.display())]
    File {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LockError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Held { .. } => Some("wait until it has ended, or end it".to_owned()),
            Self::File { .. } => None,
        }
    }
}

impl Lock {
    /// Takes the lock if it is free. `purpose` is shown to whoever finds it taken: `kldload build`.
    ///
    /// # Errors
    /// [`LockError::Held`] when it is taken.
    pub fn try_acquire(path: &Path, purpose: &str) -> Result<Self, LockError> {
        Self::acquire_with(path, purpose, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock, waiting as long as it takes.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn acquire(path: &Path, purpose: &str) -> Result<Self, LockError> {
        Self::acquire_with(path, purpose, FlockOperation::LockExclusive)
    }

    /// Who has it, as [`LockError::Held`] says: for who only looks, and must not have it himself for a moment. `None` also when that
    /// cannot be seen.
    pub fn holder(path: &Path) -> Option<String> {
        let there = stat(path).ok()?;
        let file = format!("{:02x}:{:02x}:{}", major(there.st_dev), minor(there.st_dev), there.st_ino);
        let locks = fs::read_to_string(LOCKS).ok()?;
        let is_held = locks.lines().any(|line| {
            let mut words = line.split_ascii_whitespace();
            words.any(|word| word == "FLOCK") && words.any(|word| word == file)
        });
        is_held.then(|| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().next().unwrap_or(UNKNOWN).to_owned()
        })
    }

    fn acquire_with(path: &Path, purpose: &str, operation: FlockOperation) -> Result<Self, LockError> {
        let error = |source| LockError::File { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(error)?;
        match flock(&file, operation) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.take(200).read_to_string(&mut holder);
                let holder = holder.lines().next().unwrap_or(UNKNOWN).to_owned();
                return Err(LockError::Held { path: path.to_owned(), holder });
            }
            Err(errno) => return Err(error(errno.into())),
        }
        file.set_len(0).map_err(error)?;
        file.rewind().map_err(error)?;
        writeln!(file, "process {} ({purpose})", std::process::id()).map_err(error)?;
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_says_who() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let first = Lock::try_acquire(&path, "kldload build").expect("free");
        let error = Lock::try_acquire(&path, "other").expect_err("taken");
        let want =
            format!("`{}` is locked by process {} (kldload build)", path.display(), std::process::id());
        assert_eq!(error.to_string(), want);
        let holder = format!("process {} (kldload build)", std::process::id());
        assert_eq!(Lock::holder(&path), Some(holder));
        drop(first);
        assert_eq!(Lock::holder(&path), None, "free, though its file still names who had it");
        assert_eq!(Lock::holder(&folder.path().join("other")), None);
        Lock::acquire(&path, "next").expect("free again");
    }

    #[test]
    fn whoever_has_the_file_open_still_does_not_keep_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let lock = Lock::try_acquire(&path, "first").expect("free");
        let _of_a_child = lock.file.try_clone().expect("open twice");
        drop(lock);
        Lock::try_acquire(&path, "next").expect("free again");
    }

    #[test]
    fn a_file_that_cannot_be_is_no_lock() {
        assert!(matches!(Lock::try_acquire(Path::new("/nowhere/lock"), "x"), Err(LockError::File { .. })));
    }
}
