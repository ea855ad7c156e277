//! The machine that is changed, as far as this crate touches it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kld_host::folder::{make_public_folders, names_in, present, sync_folder_of};
use kld_host::{AtomicFile, Cmd, ExecError, Output, WriteError};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::adopt::users::{self, User};

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file and its content.
    File(Vec<u8>),
    /// A symbolic link and its target.
    Link(String),
    /// A directory.
    Directory,
    /// A device, a socket or a pipe: never touched.
    Other,
}

/// A path with its owner and permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub node: Node,
    /// Permission bits, 0 to 0o7777; of no meaning for links.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What happens on a machine. Paths are absolute; links in the last component are never followed.
pub trait Host: Sync {
    /// What is at a path, or `None` when there is nothing.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn entry(&self, path: &str) -> Result<Option<Entry>, HostError>;

    /// The names in a directory, sorted; empty when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn list(&self, path: &str) -> Result<Vec<String>, HostError>;

    /// Puts a file or link in place, whole or not at all, or makes a directory; makes the directories above it.
    ///
    /// # Errors
    /// When it cannot be written; then what was there still is.
    fn put(&self, path: &str, entry: &Entry) -> Result<(), HostError>;

    /// Removes a file, a link or an empty directory; what is not there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, path: &str) -> Result<(), HostError>;

    /// Adds bytes to a file and returns when they are on disk.
    ///
    /// # Errors
    /// When they cannot be written.
    fn append(&self, path: &str, bytes: &[u8]) -> Result<(), HostError>;

    /// Runs a command that must succeed.
    ///
    /// # Errors
    /// When it is missing, fails or takes too long.
    fn run(&self, command: &Cmd) -> Result<Output, HostError>;

    /// Everybody who keeps what is mounted on a directory from being unmounted.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn holders(&self, mountpoint: &str) -> Result<Vec<User>, HostError>;

    /// Seconds since 1970.
    fn now(&self) -> u64;
}

impl dyn Host + '_ {
    /// A command's stdout as text.
    pub(crate) fn text(&self, command: &Cmd) -> Result<String, HostError> {
        Ok(String::from_utf8_lossy(&self.run(command)?.stdout).into_owned())
    }

    /// The text of a file, or nothing.
    pub(crate) fn read(&self, path: &str) -> Result<Option<String>, HostError> {
        read(self, path)
    }

    /// Edits a text file in place, with the mode and the owners that it has; nothing is written when nothing changes. `false`
    /// when there is no file.
    pub(crate) fn rewrite(
        &self,
        path: &str,
        edit: impl FnOnce(&str) -> Result<String, HostError>,
    ) -> Result<bool, HostError> {
        let Some(Entry { node: Node::File(bytes), mode, uid, gid }) = self.entry(path)? else {
            return Ok(false);
        };
        let now = String::from_utf8_lossy(&bytes).into_owned();
        let text = edit(&now)?;
        if text != now {
            self.put(path, &Entry { node: Node::File(text.into_bytes()), mode, uid, gid })?;
        }
        Ok(true)
    }
}

/// The text of a file, or nothing.
pub(crate) fn read(host: &(impl Host + ?Sized), path: &str) -> Result<Option<String>, HostError> {
    Ok(match host.entry(path)? {
        Some(Entry { node: Node::File(bytes), .. }) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    })
}

/// Something that the machine refused.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
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
    Parse(#[from] kld_host::ParseError),
    /// An account that must exist and does not.
    #[error("there is no account or group `{0}`")]
    NoAccount(String),
    /// A plan that is carried out in another process than the one that made it.
    #[error("the secret of `{0}` is not at hand")]
    NoSecret(String),
    /// Something is in the way.
    #[error("`{path}` is {what}")]
    InTheWay {
        /// The path.
        path: String,
        /// What is there.
        what: &'static str,
    },
}

impl From<kld_boot::MachineError> for HostError {
    fn from(error: kld_boot::MachineError) -> Self {
        match error {
            kld_boot::MachineError::File { action, path, source } => Self::File { action, path, source },
            kld_boot::MachineError::Write(error) => Self::Write(error),
            kld_boot::MachineError::Exec(error) => Self::Exec(error),
            kld_boot::MachineError::Parse(error) => Self::Parse(error),
        }
    }
}

impl HostError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.hint(),
            Self::Exec(error) => error.hint(),
            Self::NoAccount(name) => Some(format!("add `{name}` to `users:`, or the package that makes it")),
            Self::NoSecret(_) => Some("it is in the manifest alone: plan again".to_owned()),
            Self::InTheWay { path, .. } => Some(format!("move `{path}` away, or give the file another path")),
            Self::File { .. } | Self::Parse(_) => None,
        }
    }
}

/// The machine this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealHost;

fn fail<'a>(action: &'static str, path: &'a str) -> impl FnOnce(io::Error) -> HostError + 'a {
    move |source| HostError::File { action, path: path.into(), source }
}

impl Host for RealHost {
    fn entry(&self, path: &str) -> Result<Option<Entry>, HostError> {
        let read = || -> io::Result<Option<Entry>> {
            let Some(meta) = present(fs::symlink_metadata(path))? else { return Ok(None) };
            let node = match meta.file_type() {
                kind if kind.is_file() => Node::File(fs::read(path)?),
                kind if kind.is_symlink() => Node::Link(fs::read_link(path)?.to_string_lossy().into_owned()),
                kind if kind.is_dir() => Node::Directory,
                _ => Node::Other,
            };
            Ok(Some(Entry { node, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() }))
        };
        read().map_err(fail("read", path))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, HostError> {
        names_in(path).map_err(fail("list", path))
    }

    fn put(&self, path: &str, entry: &Entry) -> Result<(), HostError> {
        let at = Path::new(path);
        make_public_folders(at.parent().unwrap_or(Path::new("/")))
            .map_err(fail("make the directories above", path))?;
        match &entry.node {
            Node::File(bytes) => {
                let mut file = AtomicFile::create(at, entry.mode)?;
                fchown(file.file(), Some(entry.uid), Some(entry.gid)).map_err(fail("give away", path))?;
                // Giving a file away takes its set-user-id bit.
                file.file()
                    .set_permissions(fs::Permissions::from_mode(entry.mode))
                    .map_err(fail("protect", path))?;
                file.file().write_all(bytes).map_err(fail("write", path))?;
                Ok(file.commit()?)
            }
            Node::Link(target) => {
                let make = || -> io::Result<()> {
                    let name = at.file_name().unwrap_or_default().to_string_lossy();
                    let new = at.with_file_name(format!(".{name}.kldload-new"));
                    present(fs::remove_file(&new))?;
                    symlink(target, &new)?;
                    lchown(&new, Some(entry.uid), Some(entry.gid))?;
                    fs::rename(&new, at)?;
                    sync_folder_of(at)
                };
                make().map_err(fail("link", path))
            }
            Node::Directory => {
                if fs::symlink_metadata(at).is_ok_and(|there| there.is_symlink()) {
                    return Err(HostError::InTheWay { path: path.to_owned(), what: "a symbolic link" });
                }
                let make = || -> io::Result<()> {
                    if !at.is_dir() {
                        fs::create_dir(at)?;
                    }
                    // By its handle: who may write above it may put a link in its place meanwhile.
                    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let folder = fs::File::from(rustix::fs::open(at, flags, Mode::empty())?);
                    fchown(&folder, Some(entry.uid), Some(entry.gid))?;
                    folder.set_permissions(fs::Permissions::from_mode(entry.mode))?;
                    sync_folder_of(at)
                };
                make().map_err(fail("make", path))
            }
            Node::Other => Err(HostError::InTheWay { path: path.to_owned(), what: "a device or socket" }),
        }
    }

    fn remove(&self, path: &str) -> Result<(), HostError> {
        let remove = || -> io::Result<()> {
            let Some(meta) = present(fs::symlink_metadata(path))? else { return Ok(()) };
            if meta.is_dir() {
                fs::remove_dir(path)?
            } else {
                fs::remove_file(path)?
            }
            sync_folder_of(Path::new(path))
        };
        remove().map_err(fail("remove", path))
    }

    fn append(&self, path: &str, bytes: &[u8]) -> Result<(), HostError> {
        let append = || -> io::Result<()> {
            let is_new = !Path::new(path).exists();
            let mut file = fs::File::options().append(true).create(true).open(path)?;
            if is_new {
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
            }
            file.write_all(bytes)?;
            file.sync_all()?;
            if is_new { sync_folder_of(Path::new(path)) } else { Ok(()) }
        };
        append().map_err(fail("write to", path))
    }

    fn run(&self, command: &Cmd) -> Result<Output, HostError> {
        // Ctrl-C is the engine's: a step, or the way back, is not cut off in the middle.
        Ok(command.clone().apart().output()?)
    }

    fn holders(&self, mountpoint: &str) -> Result<Vec<User>, HostError> {
        users::find_holders(mountpoint).map_err(fail("find who uses", mountpoint))
    }

    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
    }
}

/// An [`Entry`] as a journal keeps it: content by digest, in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptEntry {
    pub(crate) node: KeptNode,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptNode {
    /// The SHA-256 of its content.
    File(String),
    Link(String),
    Directory,
}
