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
            io::ErrorKind::InvalidInput => Some("name a file, and copy it from there".to_owned()),
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
    /// Starts the file that a person has named as an output: where the name is a symbolic link, the file that it leads to.
    ///
    /// # Errors
    /// As of [`AtomicFile::create`], and for links that lead nowhere.
    pub fn output(name: &Path, mode: u32) -> Result<Self, WriteError> {
        let error = |source| WriteError { action: "replace", path: name.to_owned(), source };
        match fs::metadata(name) {
            Ok(meta) => must_be_file(meta.file_type()).map_err(error)?,
            Err(_) if fs::symlink_metadata(name).is_ok() => {
                return Err(error(no_file("a symbolic link that leads nowhere")));
            }
            Err(_) => return Self::create(name, mode),
        }
        Self::create(&fs::canonicalize(name).map_err(error)?, mode)
    }

    /// Starts an empty file with these permission bits. It may be sparse and may be sought: see
    /// [`AtomicFile::file`]. A symbolic link is replaced, and not followed.
    ///
    /// # Errors
    /// [`WriteError`] when the folder does not take it, when something is there that is no file (a rename would put a file in the
    /// place of `/dev/null`), or when this process writes the same target already.
    pub fn create(target: &Path, mode: u32) -> Result<Self, WriteError> {
        let error = |source| WriteError { action: "create", path: target.to_owned(), source };
        if let Ok(meta) = fs::symlink_metadata(target)
            && !meta.is_symlink()
        {
            must_be_file(meta.file_type()).map_err(error)?;
        }
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

    /// Where it will be.
    pub fn target(&self) -> &Path {
        &self.target
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

/// What a rename may replace.
fn must_be_file(kind: fs::FileType) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    Err(no_file(match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        kind if kind.is_fifo() => "a pipe",
        _ => "a socket",
    }))
}

fn no_file(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}"))
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
    fn only_files_are_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let make =
            rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0);
        make.expect("pipes can be made");
        for (link, to) in [("to-pipe", "pipe"), ("to-nothing", "nothing"), ("to-file", "file")] {
            std::os::unix::fs::symlink(to, at(link)).expect("writable");
        }
        fs::write(at("file"), "old").expect("writable");
        let why = |result: Result<AtomicFile, WriteError>| {
            let error = result.expect_err("it is no file");
            format!("{}: {}", error, error.source).replace(&format!("{}/", folder.path().display()), "")
        };
        assert_eq!(why(AtomicFile::create(&at("pipe"), 0o600)), "could not create `pipe`: it is a pipe");
        assert_eq!(
            why(AtomicFile::output(&at("to-pipe"), 0o600)),
            "could not replace `to-pipe`: it is a pipe"
        );
        assert_eq!(
            why(AtomicFile::output(&at("to-nothing"), 0o600)),
            "could not replace `to-nothing`: it is a symbolic link that leads nowhere"
        );
        assert_eq!(
            why(AtomicFile::output(Path::new("/dev/null"), 0o600)),
            "could not replace `/dev/null`: it is a device"
        );
        AtomicFile::output(&at("to-file"), 0o600).expect("writable").commit().expect("writable");
        assert!(fs::symlink_metadata(at("to-file")).expect("there").is_symlink(), "the link stays");
        assert_eq!(fs::read(at("file")).expect("readable"), b"", "and what it leads to is new");
        atomic_write(&at("to-file"), b"x", 0o644).expect("writable");
        assert!(
            fs::symlink_metadata(at("to-file")).expect("there").is_file(),
            "elsewhere links are replaced"
        );
    }

    #[test]
    fn says_what_it_tried_and_what_to_do() {
        let error = atomic_write(Path::new("/nowhere/x/a"), b"", 0o644).expect_err("there is no such folder");
        assert_eq!(error.to_string(), "could not create `/nowhere/x/a`");
        assert_eq!(error.hint().as_deref(), Some("make the folder first: `mkdir -p /nowhere/x`"));

        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = folder.path().join("full");
        fs::create_dir(&target).expect("writable");
        let error = atomic_write(&target, b"x", 0o644).expect_err("it is a directory");
        assert_eq!(
            (error.kind(), error.source.to_string().as_str()),
            (io::ErrorKind::InvalidInput, "it is a directory")
        );
        assert_eq!(names(folder.path()), ["full"]);
        let first = AtomicFile::create(&folder.path().join("twice"), 0o644).expect("writable");
        let error = AtomicFile::create(&folder.path().join("twice"), 0o644).expect_err("it is being written");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        drop(first);
    }
}
