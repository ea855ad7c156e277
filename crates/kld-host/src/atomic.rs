//! Files that appear whole or not at all.
//!
//! A file is written beside its target, synced, renamed over it, and the folder is synced: after a crash there is
//! the old file or the new one. The temporary is `.<name>.partial-<pid>`, locked while its writer lives; a partial
//! that nobody holds is left by a killed writer and is removed by the next one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A file that could not be written; nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} `{}`", path.display())]
pub struct WriteError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl WriteError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let folder = folder_of(&self.path);
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some(format!("make room in `{}` or choose another folder", folder.display()))
            }
            io::ErrorKind::NotFound => {
                Some(format!("make the folder first: `mkdir -p {}`", folder.display()))
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some(format!("choose a folder that you may write to instead of `{}`", folder.display()))
            }
            _ => None,
        }
    }

    /// What the system said.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Writes a whole file with these permission bits (`0o600`), whatever the umask.
///
/// # Errors
/// [`WriteError`]; then the target is as it was.
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    let mut file = AtomicFile::create(path, mode)?;
    file.file.write_all(bytes).map_err(|source| file.error("write", source))?;
    file.commit()
}

/// A file that is being written; dropped without [`AtomicFile::commit`] it never was.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    done: bool,
}

impl AtomicFile {
    /// Starts an empty file with these permission bits. It may be sparse and may be sought: see
    /// [`AtomicFile::file`].
    ///
    /// # Errors
    /// [`WriteError`] when the folder does not take it, or when this process writes the same target already.
    pub fn create(target: &Path, mode: u32) -> Result<Self, WriteError> {
        let error = |source| WriteError { action: "create", path: target.to_owned(), source };
        let name = target.file_name().ok_or_else(|| error(io::ErrorKind::IsADirectory.into()))?;
        let prefix = format!(".{}.partial-", name.to_string_lossy());
        let folder = folder_of(target);
        remove_stale(folder, &prefix).map_err(error)?;

        let partial = folder.join(format!("{prefix}{}", std::process::id()));
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create_new(true).mode(0o600).open(&partial).map_err(error)?;
        let new = Self { file, partial, target: target.to_owned(), done: false };
        flock(&new.file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| error(errno.into()))?;
        new.file.set_permissions(fs::Permissions::from_mode(mode)).map_err(error)?;
        Ok(new)
    }

    /// The open file, readable and writable.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where it lies until it is committed, for a tool that writes to a path.
    pub fn partial_path(&self) -> &Path {
        &self.partial
    }

    /// Puts it in place: synced, renamed, and the folder synced.
    ///
    /// # Errors
    /// [`WriteError`]; then the target is as it was.
    pub fn commit(mut self) -> Result<(), WriteError> {
        self.file.sync_all().map_err(|source| self.error("sync", source))?;
        fs::rename(&self.partial, &self.target).map_err(|source| self.error("replace", source))?;
        self.done = true;
        let folder = File::open(folder_of(&self.target));
        folder.and_then(|folder| folder.sync_all()).map_err(|source| self.error("sync the folder of", source))
    }

    fn error(&self, action: &'static str, source: io::Error) -> WriteError {
        WriteError { action, path: self.target.clone(), source }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn remove_stale(folder: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // One that cannot be opened or removed is someone else's; it does no harm.
        if let Ok(file) = File::open(entry.path())
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_content_and_mode() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wg0.conf");
        atomic_write(&path, b"old", 0o644).expect("writable");
        atomic_write(&path, b"new", 0o600).expect("writable");
        assert_eq!(fs::read(&path).expect("readable"), b"new");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        assert_eq!(names(folder.path()), ["wg0.conf"]);
    }

    #[test]
    fn dropped_means_never_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.img");
        atomic_write(&path, b"old", 0o644).expect("writable");
        let mut file = AtomicFile::create(&path, 0o644).expect("writable");
        file.file().set_len(1 << 30).expect("sparse files work");
        assert!(file.partial_path().exists());
        drop(file);
        assert_eq!(fs::read(&path).expect("readable"), b"old");
        assert_eq!(names(folder.path()), ["a.img"]);
    }

    #[test]
    fn partials_of_the_dead_are_removed_and_of_the_living_are_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(".a.img.partial-1"), "dead").expect("writable");
        fs::write(folder.path().join(".b.img.partial-1"), "another file's").expect("writable");
        let living = File::create(folder.path().join(".a.img.partial-2")).expect("writable");
        flock(&living, FlockOperation::NonBlockingLockExclusive).expect("nobody else has it");
        AtomicFile::create(&folder.path().join("a.img"), 0o644)
            .expect("writable")
            .commit()
            .expect("writable");
        assert_eq!(names(folder.path()), [".a.img.partial-2", ".b.img.partial-1", "a.img"]);
    }

    #[test]
    fn says_what_it_tried_and_what_to_do() {
        let error = atomic_write(Path::new("/nowhere/x/a"), b"", 0o644).expect_err("there is no such folder");
        assert_eq!(error.to_string(), "could not create `/nowhere/x/a`");
        assert_eq!(error.hint().as_deref(), Some("make the folder first: `mkdir -p /nowhere/x`"));

        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = folder.path().join("full");
        fs::create_dir(&target).expect("writable");
        assert!(atomic_write(&target, b"x", 0o644).is_err());
        assert_eq!(names(folder.path()), ["full"]);
        let first = AtomicFile::create(&folder.path().join("twice"), 0o644).expect("writable");
        let error = AtomicFile::create(&folder.path().join("twice"), 0o644).expect_err("it is being written");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        drop(first);
    }
}
