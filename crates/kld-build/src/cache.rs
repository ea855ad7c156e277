//! The cache: finished pieces of work, found again by the digest of everything they were made from.
//!
//! An entry is a directory `KIND/KEY/`. It is made under a temporary name and renamed when complete, so an
//! entry that exists is whole; a killed build leaves only a temporary directory, which the next one removes. Entries
//! that nobody has asked for in a long time are removed by [`Cache::prune`].
//! Nothing is ever read from an entry that a key did not ask for, so deleting the whole cache is always safe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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
        Some(self.path(kind, key)).filter(|path| path.is_dir()).inspect(|path| touch(path))
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
        if let Some(entry) = self.get(kind, key) {
            return Ok(entry);
        }
        let entry = self.path(kind, key);
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
        // All of it is on disk before it gets the name that says so.
        fs::File::open(&partial)
            .and_then(|dir| rustix::fs::syncfs(dir).map_err(io::Error::from))
            .map_err(|source| fail("sync the cache entry", &partial, source))?;
        fs::rename(&partial, &entry).map_err(|source| fail("finish the cache entry", &entry, source))?;
        fs::File::open(&parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| fail("sync the cache directory", &parent, source))?;
        Ok(entry)
    }

    /// Removes entries that nobody has asked for in `unused`; gives how many. What another build works with is left alone,
    /// and so is everything that does not look like an entry: people point caches at directories with other things in them.
    ///
    /// # Errors
    /// The cache cannot be read, or an entry cannot be removed.
    pub fn prune(&self, unused: Duration) -> Result<usize, CacheError> {
        let mut removed = 0;
        for kind in directories(&self.root)? {
            for entry in directories(&kind)?.into_iter().filter(|path| is_entry(path)) {
                let age = fs::metadata(&entry).and_then(|meta| meta.modified()).map(|time| time.elapsed());
                if !matches!(age, Ok(Ok(age)) if age > unused) {
                    continue;
                }
                let lock = entry.with_extension("lock");
                let partial = entry.with_extension("partial");
                let Ok(_held) = Lock::try_acquire(&lock, "kldload build") else { continue };
                remove_if_there(&partial)?;
                // Renamed first: half an entry must not look like a whole one.
                fs::rename(&entry, &partial)
                    .map_err(|source| fail("remove the cache entry", &entry, source))?;
                remove_if_there(&partial)?;
                let _ = fs::remove_file(&lock);
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// The directories in a directory.
fn directories(path: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let entries = fs::read_dir(path).map_err(|source| fail("list the cache", path, source))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect())
}

/// Named by a key, with the lock file that every entry was made under.
fn is_entry(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_key = name.len() == 32 && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_key && path.with_extension("lock").is_file()
}

/// Remembers that an entry was asked for. A cache that cannot be written to still serves.
fn touch(entry: &Path) {
    let _ = fs::File::open(entry).and_then(|dir| dir.set_modified(SystemTime::now()));
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

    #[test]
    fn what_nobody_asks_for_goes_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path()).expect("the cache opens");
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let not_ours = dir.path().join("layer/thesis");
        fs::create_dir_all(&not_ours).expect("made");
        fs::File::open(&not_ours).and_then(|dir| dir.set_modified(long_ago)).expect("made older");
        for name in ["old", "asked", "held"] {
            let entry =
                cache.ensure("layer", &key(&[name]), |path| fs::write(path.join("f"), "x")).expect("made");
            fs::File::open(entry).and_then(|dir| dir.set_modified(long_ago)).expect("made older");
        }
        cache.get("layer", &key(&["asked"])).expect("it is there");
        let lock = cache.path("layer", &key(&["held"])).with_extension("lock");
        let held = Lock::try_acquire(&lock, "a test").expect("free");
        assert_eq!(cache.prune(Duration::from_secs(60)).expect("pruned"), 1);
        let there = |name| cache.get("layer", &key(&[name])).is_some();
        assert_eq!((there("old"), there("asked"), there("held")), (false, true, true));
        assert!(not_ours.exists());
        drop(held);
    }
}
