//! The machine, as far as this crate touches it: files that appear whole, commands, random bytes, the clock.

#[cfg(test)]
pub(crate) mod fake;
mod real;

pub use real::RealMachine;

use kld_host::{Cmd, ExecError, ToolError, WriteError};
use std::io;
use std::path::{Path, PathBuf};

/// Who may do what with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// Permission bits.
    pub mode: u32,
    /// The group, by name; `root` owns every file.
    pub group: Option<&'a str>,
}

impl Access<'_> {
    /// For everybody to read.
    pub const PUBLIC: Self = Self { mode: 0o644, group: None };
    /// For root alone.
    pub const SECRET: Self = Self { mode: 0o600, group: None };
    /// For root, and for systemd-networkd to read.
    pub const NETWORK: Access<'static> = Access { mode: 0o640, group: Some("systemd-network") };
}

/// What happens on a machine. Paths are absolute; all bytes of a file fit in memory.
pub trait Machine: Send + Sync {
    /// The whole file, or `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, MachineError>;

    /// The names in a folder in order; empty when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn list(&self, path: &Path) -> Result<Vec<String>, MachineError>;

    /// What a path stands for once every link is followed, or `None` when there is nothing.
    fn resolve(&self, path: &Path) -> Option<PathBuf>;

    /// Seconds since 1970 at which a file was last changed, or `None` when there is none.
    fn modified(&self, path: &Path) -> Option<u64>;

    /// Puts a file in place, whole or not at all, and makes the folders above it.
    ///
    /// # Errors
    /// When it cannot be written, or its group does not exist; then the old file is there.
    fn write(&self, path: &Path, bytes: &[u8], access: Access<'_>) -> Result<(), MachineError>;

    /// Gives a file that is there its owner and mode.
    ///
    /// # Errors
    /// When it is not there, or its group does not exist.
    fn set_access(&self, path: &Path, access: Access<'_>) -> Result<(), MachineError>;

    /// Writes to a file of the kernel, which cannot be replaced.
    ///
    /// # Errors
    /// When the kernel refuses the value.
    fn set_parameter(&self, path: &Path, value: &str) -> Result<(), MachineError>;

    /// Makes a folder for root alone, and those above it for everybody to enter; one that is there is left as it is.
    ///
    /// # Errors
    /// When it cannot be made.
    fn make_folder(&self, path: &Path) -> Result<(), MachineError>;

    /// Renames a file over another.
    ///
    /// # Errors
    /// When it is not there.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), MachineError>;

    /// Writes everything to disk that the file system of `path` still holds in memory. For FAT, where a synced file and
    /// a synced folder do not make a rename safe.
    ///
    /// # Errors
    /// When the disk fails, or `path` has no folder.
    fn sync(&self, path: &Path) -> Result<(), MachineError>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, path: &Path) -> Result<(), MachineError>;

    /// Runs a command with `input` on its stdin and returns its stdout. `input` is never displayed.
    ///
    /// # Errors
    /// When it is missing, fails or takes too long.
    fn run(&self, command: Cmd, input: &[u8]) -> Result<Vec<u8>, MachineError>;

    /// Fills `bytes` from the kernel's random number generator.
    fn fill_random(&self, bytes: &mut [u8]);

    /// Seconds since 1970.
    fn now(&self) -> u64;

    /// Whether root asks, from whom nothing is hidden.
    fn is_root(&self) -> bool;
}

/// Variables for commands of the manifest: the addresses of the planes, `WG0_ADDRESS=10.8.0.1`. None on a machine without
/// planes.
pub fn plane_addresses(machine: &dyn Machine) -> Vec<(String, String)> {
    let text = machine.read_text("/etc/kldload/planes.env").ok().flatten().unwrap_or_default();
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl dyn Machine + '_ {
    /// The whole file as text; bytes that are not UTF-8 are replaced.
    pub(crate) fn read_text(&self, path: impl AsRef<Path>) -> Result<Option<String>, MachineError> {
        Ok(self.read(path.as_ref())?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// A command's stdout as text, without the final newline.
    pub(crate) fn run_text(&self, command: Cmd) -> Result<String, MachineError> {
        Ok(String::from_utf8_lossy(&self.run(command, &[])?).trim_end_matches('\n').to_owned())
    }

    /// Whether there is something at `path`.
    pub(crate) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.resolve(path.as_ref()).is_some()
    }
}

/// Something that the machine refused.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file that cannot be used.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that cannot be put in place.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A group that does not exist.
    #[error("group `{name}` does not exist, but `{}` is for it to read", path.display())]
    NoGroup {
        /// The group.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A tool that failed, or that answered something unknown.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

impl From<ExecError> for MachineError {
    fn from(error: ExecError) -> Self {
        Self::Tool(error.into())
    }
}

impl From<kld_host::ParseError> for MachineError {
    fn from(error: kld_host::ParseError) -> Self {
        Self::Tool(error.into())
    }
}

impl MachineError {
    /// How a tool has failed, when it was one.
    pub(crate) fn exec(&self) -> Option<&ExecError> {
        if let Self::Tool(ToolError::Exec(error)) = self { Some(error) } else { None }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { .. } => None,
            Self::Write(error) => error.hint(),
            Self::NoGroup { name, .. } => Some(format!("make it: `groupadd --system {name}`")),
            Self::Tool(error) => error.hint(),
        }
    }
}
