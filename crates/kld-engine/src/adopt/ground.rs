//! What adopting a directory needs of a machine beyond [`Host`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use kld_host::{Cmd, Output};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::compare::{self, Comparison, Survey};
use super::users::{self, User};
use super::walk::Fault;
use crate::host::{Host, HostError, RealHost};

/// A machine whose directories can change places.
pub trait Ground: Host {
    /// The number of what lies at a path, which stays when it is renamed; `None` when there is nothing.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn number(&self, path: &str) -> Result<Option<u64>, HostError>;

    /// Whether a path is a directory, and not a link to one.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn is_directory(&self, path: &str) -> Result<bool, HostError>;

    /// What a path stands for once every link is followed; `None` when there is nothing.
    ///
    /// # Errors
    /// When it cannot be followed.
    fn resolve(&self, path: &str) -> Result<Option<String>, HostError>;

    /// Lets two names of one directory change places in one instant, on disk when it returns. `false`: the file system
    /// cannot do that, and nothing is done.
    ///
    /// # Errors
    /// When it fails.
    fn exchange(&self, one: &str, other: &str) -> Result<bool, HostError>;

    /// Gives something another name in its directory, on disk when it returns; never over something.
    ///
    /// # Errors
    /// When it is not there, or the name is taken.
    fn rename(&self, from: &str, to: &str) -> Result<(), HostError>;

    /// Goes through a tree.
    ///
    /// # Errors
    /// When a part of it cannot be read.
    fn survey(&self, path: &str) -> Result<Survey, HostError>;

    /// Compares a tree with its copy, all of it; `None` when `stop` is set before that is done.
    ///
    /// # Errors
    /// When a part of it cannot be read.
    fn compare_unless(
        &self,
        old: &str,
        new: &str,
        stop: &AtomicBool,
    ) -> Result<Option<Comparison>, HostError>;

    /// The same to the end.
    ///
    /// # Errors
    /// When a part of it cannot be read.
    fn compare(&self, old: &str, new: &str) -> Result<Comparison, HostError> {
        let done = self.compare_unless(old, new, &AtomicBool::new(false))?;
        Ok(done.expect("nobody sets it"))
    }

    /// Runs a command that must succeed, and ends it when `stop` is set before it has; then there is `None`.
    ///
    /// # Errors
    /// As [`Host::run`].
    fn run_unless(&self, command: &Cmd, stop: &AtomicBool) -> Result<Option<Output>, HostError>;

    /// Everybody who uses a directory or something in it.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn users(&self, path: &str) -> Result<Vec<User>, HostError>;
}

fn fail<'a>(action: &'static str, path: &'a str) -> impl FnOnce(io::Error) -> HostError + 'a {
    move |source| HostError::File { action, path: path.into(), source }
}

fn unreadable((path, source): Fault) -> HostError {
    HostError::File { action: "read", path, source }
}

/// Syncs the directory that holds a name.
fn sync_above(path: &str) -> Result<(), HostError> {
    let above = Path::new(path).parent().unwrap_or(Path::new("/"));
    std::fs::File::open(above)
        .and_then(|folder| folder.sync_all())
        .map_err(fail("sync the directory of", path))
}

impl Ground for RealHost {
    fn number(&self, path: &str) -> Result<Option<u64>, HostError> {
        match rustix::fs::lstat(path) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(fail("look at", path)(error.into())),
        }
    }

    fn is_directory(&self, path: &str) -> Result<bool, HostError> {
        match rustix::fs::lstat(path) {
            Ok(stat) => Ok(super::walk::kind(&stat) == rustix::fs::FileType::Directory),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(fail("look at", path)(error.into())),
        }
    }

    fn resolve(&self, path: &str) -> Result<Option<String>, HostError> {
        match std::fs::canonicalize(path) {
            Ok(resolved) => Ok(Some(text(resolved))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail("follow", path)(error)),
        }
    }

    fn exchange(&self, one: &str, other: &str) -> Result<bool, HostError> {
        match rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            Ok(()) => sync_above(one).map(|()| true),
            // OpenZFS before 2.2 and others.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
            Err(error) => Err(fail("exchange", one)(error.into())),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), HostError> {
        let done = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if rustix::fs::lstat(to).is_ok() => {
                Err(Errno::EXIST)
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => rustix::fs::rename(from, to),
            done => done,
        };
        done.map_err(|error| fail("rename", from)(error.into()))?;
        sync_above(to)
    }

    fn survey(&self, path: &str) -> Result<Survey, HostError> {
        compare::survey(Path::new(path)).map_err(unreadable)
    }

    fn compare_unless(
        &self,
        old: &str,
        new: &str,
        stop: &AtomicBool,
    ) -> Result<Option<Comparison>, HostError> {
        compare::compare(Path::new(old), Path::new(new), stop).map_err(unreadable)
    }

    fn run_unless(&self, command: &Cmd, stop: &AtomicBool) -> Result<Option<Output>, HostError> {
        Ok(command.clone().apart().output_unless(stop)?)
    }

    fn users(&self, path: &str) -> Result<Vec<User>, HostError> {
        users::find(path).map_err(fail("find who uses", path))
    }
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}
