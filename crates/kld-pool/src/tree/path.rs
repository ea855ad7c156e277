//! Paths inside a tree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::MAX_NAME;

/// Anything that names a place in a tree: text, bytes or a [`Path`].
pub trait TreePath {
    /// The path as bytes, components separated by `/`.
    fn as_bytes(&self) -> &[u8];
}

impl TreePath for [u8] {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> TreePath for [u8; N] {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

impl TreePath for Vec<u8> {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

impl TreePath for str {
    fn as_bytes(&self) -> &[u8] {
        str::as_bytes(self)
    }
}

impl TreePath for String {
    fn as_bytes(&self) -> &[u8] {
        str::as_bytes(self)
    }
}

impl TreePath for OsStr {
    fn as_bytes(&self) -> &[u8] {
        OsStrExt::as_bytes(self)
    }
}

impl TreePath for Path {
    fn as_bytes(&self) -> &[u8] {
        OsStrExt::as_bytes(self.as_os_str())
    }
}

impl TreePath for PathBuf {
    fn as_bytes(&self) -> &[u8] {
        OsStrExt::as_bytes(self.as_os_str())
    }
}

impl<T: TreePath + ?Sized> TreePath for &T {
    fn as_bytes(&self) -> &[u8] {
        T::as_bytes(self)
    }
}

/// A path cannot name a node of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPath {
    /// A component is `..`.
    #[error("path `{0}` leaves its directory by `..`")]
    Parent(String),
    /// A component is longer than [`MAX_NAME`] bytes.
    #[error("path `{0}` has a name of more than 255 bytes")]
    NameTooLong(String),
    /// The whole path is longer than Linux accepts.
    #[error("path `{}…` has more than 4096 bytes", .0.chars().take(64).collect::<String>())]
    TooLong(String),
    /// A component holds a NUL byte.
    #[error("path `{0}` holds a NUL byte")]
    Nul(String),
}

/// The components of a path, without empty ones and `.`.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, InvalidPath> {
    /// `PATH_MAX`; also bounds how deep trees are.
    const MAX_PATH: usize = 4096;
    if path.len() > MAX_PATH {
        return Err(InvalidPath::TooLong(display(path)));
    }
    let mut found = Vec::new();
    for name in path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        if name == b".." {
            return Err(InvalidPath::Parent(display(path)));
        }
        if name.len() > MAX_NAME {
            return Err(InvalidPath::NameTooLong(display(path)));
        }
        if name.contains(&0) {
            return Err(InvalidPath::Nul(display(path)));
        }
        found.push(name);
    }
    Ok(found)
}

/// A path for a message: control characters and what is not text are escaped.
pub(crate) fn display(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
