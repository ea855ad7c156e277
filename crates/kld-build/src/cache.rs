//! The cache: finished pieces of work, found again by the digest of everything they were made from.
//!
//! An entry is a directory `KIND/KEY/`. It is made under a temporary name and renamed when complete, so an
//! entry that exists is whole; a killed build leaves only a temporary directory, which the next one removes.
//! Nothing is ever read from an entry that a key did not ask for, so deleting the whole cache is always safe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kld_host::Lock;
use sha2::{Digest, Sha256};

/// A directory of finished work.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Digest of everything that decides the content of an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

/// Collects what decides an entry's content. Each part is length-prefixed: parts cannot run into each other.
#[derive(Debug)]
pub struct KeyBuilder(Sha256);

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct CacheError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Why an entry is not there: the cache failed, or the work that makes the entry did.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError<E: std::error::Error + 'static> {
    /// The cache itself.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Another build holds the entry and waiting for it failed.
    #[error(transparent)]
    Lock(#[from] kld_host::LockError),
    /// The work.
    #[error(transparent)]
    Make(E),
}

impl KeyBuilder {
    /// Starts a key for one kind of entry; `format` changes when the way of making it does.
    pub fn new(kind: &str, format: u32) -> Self {
        Self(Sha256::new()).part(kind).part(format.to_string())
    }

    /// Adds one part.
    pub fn part(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds several parts; their number counts too.
    pub fn parts<T: AsRef<[u8]>>(self, parts: impl ExactSizeIterator<Item = T>) -> Self {
        let counted = self.part(parts.len().to_string());
        parts.fold(counted, Self::part)
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key(hex(&self.0.finalize()[..16]))
    }
}

impl Key {
    /// The key as lower-case hexadecimal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Cache {
    /// The cache below `root`, made when missing.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        fs::create_dir_all(root).map_err(|source| fail("make the cache directory", root, source))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Where a person's cache is: `$XDG_CACHE_HOME/kldload`, else `~/.cache/kldload`, else `/var/cache/kldload`.
    pub fn default_root() -> PathBuf {
        if let Some(xdg) = std::env::var_os("XDG_CACHE_HOME").filter(|v| Path::new(v).is_absolute()) {
            return PathBuf::from(xdg).join("kldload");
        }
        match std::env::var_os("HOME").filter(|v| !v.is_empty()) {
            Some(home) => PathBuf::from(home).join(".cache/kldload"),
            None => PathBuf::from("/var/cache/kldload"),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that a key's entry has or would have.
    pub fn path(&self, kind: &str, key: &Key) -> PathBuf {
        self.root.join(kind).join(&key.0)
    }

    /// The entry of a key, when it is complete.
    pub fn get(&self, kind: &str, key: &Key) -> Option<PathBuf> {
        Some(self.path(kind, key)).filter(|path| path.is_dir())
    }

    /// Removes an entry, so that the next build makes it again.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(&self, kind: &str, key: &Key) -> Result<(), CacheError> {
        remove_if_there(&self.path(kind, key))
    }

    /// The entry of a key; made by `make`, which fills the (empty) directory it is given, when missing.
    ///
    /// Two builds that need the same entry do the work once: the second waits for the first.
    ///
    /// # Errors
    /// `make` failed, or the cache cannot be written.
    pub fn ensure<E: std::error::Error + 'static>(
        &self,
        kind: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, EnsureError<E>> {
        let entry = self.path(kind, key);
        if entry.is_dir() {
            return Ok(entry);
        }
        let parent = self.root.join(kind);
        fs::create_dir_all(&parent).map_err(|source| fail("make the cache directory", &parent, source))?;
        let _held = Lock::acquire(&parent.join(format!("{}.lock", key.0)), "kldload build")?;
        if entry.is_dir() {
            return Ok(entry);
        }
        let partial = parent.join(format!("{}.partial", key.0));
        remove_if_there(&partial)?;
        fs::create_dir(&partial).map_err(|source| fail("make the cache entry", &partial, source))?;
        if let Err(error) = make(&partial) {
            // Best effort: what stays is removed by the next build under the same lock.
            let _ = fs::remove_dir_all(&partial);
            return Err(EnsureError::Make(error));
        }
        fs::rename(&partial, &entry).map_err(|source| fail("finish the cache entry", &entry, source))?;
        fs::File::open(&parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| fail("sync the cache directory", &parent, source))?;
        Ok(entry)
    }
}

fn remove_if_there(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(fail("remove an unfinished cache entry", path, source))
        }
        _ => Ok(()),
    }
}

fn fail(action: &'static str, path: &Path, source: io::Error) -> CacheError {
    CacheError { action, path: path.to_owned(), source }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> Key {
        KeyBuilder::new("test", 1).parts(parts.iter()).finish()
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["ab"]), key(&["ab", ""]));
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
    }

    #[test]
    fn an_entry_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path()).expect("the cache opens");
        let make = |path: &Path| fs::write(path.join("file"), "made");
        let entry = cache.ensure("layer", &key(&["x"]), make).expect("the entry is made");
        assert_eq!(fs::read_to_string(entry.join("file")).expect("the file is there"), "made");
        let again = cache.ensure("layer", &key(&["x"]), |_| Err(io::Error::other("made twice")));
        assert_eq!(again.expect("the entry is found"), entry);
    }

    #[test]
    fn failed_work_leaves_no_entry() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path()).expect("the cache opens");
        let failed = cache.ensure("layer", &key(&["x"]), |path| {
            fs::write(path.join("half"), "half")?;
            Err(io::Error::other("no network"))
        });
        assert!(matches!(failed, Err(EnsureError::Make(_))));
        assert_eq!(cache.get("layer", &key(&["x"])), None);
        assert!(!cache.path("layer", &key(&["x"])).with_extension("partial").exists());
    }

    #[test]
    fn what_a_killed_build_left_is_not_used() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path()).expect("the cache opens");
        let partial = dir.path().join("layer").join(format!("{}.partial", key(&["x"]).0));
        fs::create_dir_all(&partial).expect("the leftover is made");
        fs::write(partial.join("half"), "half").expect("the leftover is filled");
        let entry = cache
            .ensure("layer", &key(&["x"]), |path| {
                assert!(!path.join("half").exists());
                fs::write(path.join("file"), "whole")
            })
            .expect("the entry is made");
        assert!(entry.join("file").exists() && !entry.join("half").exists());
    }
}
