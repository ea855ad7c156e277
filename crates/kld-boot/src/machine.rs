//! The machine, as far as boot environments touch it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kld_host::folder::{names_in, present};
use kld_host::{AtomicFile, Cmd, ExecError, ParseError, WriteError};

/// FAT keeps no modes: chmod(2) there only succeeds for what the mount's mask leaves of 0755.
const FAT_MODE: u32 = 0o755;

/// What happens on a machine. Paths are absolute; a link in the last component is not followed and counts as nothing.
pub trait Machine {
    /// The whole file, or `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, MachineError>;

    /// The size of a file in bytes, or `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn size(&self, path: &str) -> Result<Option<u64>, MachineError>;

    /// The names in a directory, sorted; empty when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn list(&self, path: &str) -> Result<Vec<String>, MachineError>;

    /// Puts a file in place on a FAT file system, with the directories above it, and returns when it is on disk. A power
    /// cut may leave an empty file, or the old one, or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), MachineError>;

    /// Removes a file or an empty directory; what is not there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, path: &str) -> Result<(), MachineError>;

    /// Makes a directory for root alone, with those above it; one that is there is left as it is.
    ///
    /// # Errors
    /// When it cannot be made.
    fn make_directory(&self, path: &str) -> Result<(), MachineError>;

    /// Bytes that still fit on the file system of `path`.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn free(&self, path: &str) -> Result<u64, MachineError>;

    /// Runs a command that must succeed, and returns its stdout.
    ///
    /// # Errors
    /// When it is missing, fails or takes too long.
    fn run(&self, command: &Cmd) -> Result<String, MachineError>;

    /// Seconds since 1970.
    fn now(&self) -> u64;
}

impl dyn Machine + '_ {
    /// The text of a file, or nothing.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, MachineError> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Something that the machine refused.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A path that cannot be used.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that cannot be put in place.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A tool that failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A tool that answered something unknown.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

impl MachineError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.hint(),
            Self::Exec(error) => error.hint(),
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("only root sees the boot partition: `sudo kbe …`".to_owned())
            }
            Self::File { .. } | Self::Parse(_) => None,
        }
    }
}

/// The machine this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealMachine;

fn fail(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> MachineError {
    let path = path.into();
    move |source| MachineError::File { action, path, source }
}

/// What `path` is, when it is a regular file.
fn regular(path: &str) -> io::Result<Option<fs::Metadata>> {
    Ok(present(fs::symlink_metadata(path))?.filter(fs::Metadata::is_file))
}

fn open(path: &str) -> io::Result<fs::File> {
    // What was a file a moment ago may be a link by now.
    fs::File::options().read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Writes everything to disk that the file system of `path` still holds in memory: on FAT, a synced file and a synced
/// directory are not enough.
fn sync_all(path: &str) -> io::Result<()> {
    let directory = fs::File::open(Path::new(path).parent().unwrap_or(Path::new("/")))?;
    Ok(rustix::fs::syncfs(&directory)?)
}

impl Machine for RealMachine {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, MachineError> {
        let read = || -> io::Result<Option<Vec<u8>>> {
            if regular(path)?.is_none() {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut open(path)?, &mut bytes)?;
            Ok(Some(bytes))
        };
        read().map_err(fail("read", path))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, MachineError> {
        Ok(regular(path).map_err(fail("look at", path))?.map(|meta| meta.size()))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, MachineError> {
        names_in(path).map_err(fail("list", path))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), MachineError> {
        let at = Path::new(path);
        fs::create_dir_all(at.parent().unwrap_or(Path::new("/")))
            .map_err(fail("make the directories above", path))?;
        let mut file = AtomicFile::create(at, FAT_MODE)?;
        file.file().write_all(bytes).map_err(fail("write", path))?;
        file.commit()?;
        sync_all(path).map_err(fail("sync the file system of", path))
    }

    fn remove(&self, path: &str) -> Result<(), MachineError> {
        let remove = || -> io::Result<()> {
            let Some(meta) = present(fs::symlink_metadata(path))? else { return Ok(()) };
            if meta.is_dir() {
                fs::remove_dir(path)?
            } else {
                fs::remove_file(path)?
            }
            sync_all(path)
        };
        remove().map_err(fail("remove", path))
    }

    fn make_directory(&self, path: &str) -> Result<(), MachineError> {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(path).map_err(fail("make", path))
    }

    fn free(&self, path: &str) -> Result<u64, MachineError> {
        let stat = rustix::fs::statvfs(path).map_err(|errno| fail("ask for room on", path)(errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn run(&self, command: &Cmd) -> Result<String, MachineError> {
        Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
    }

    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
    }
}
