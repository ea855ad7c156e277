//! Folders, and what is in them: what is not there is no error.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::atomic::folder_of;

/// `Ok(None)` for what is not there.
///
/// # Errors
/// Every other error.
pub fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The names in a folder, sorted; none when there is no such folder.
///
/// # Errors
/// When it is there and cannot be read.
pub fn names_in(folder: impl AsRef<Path>) -> io::Result<Vec<String>> {
    let Some(entries) = present(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Makes the folders that are missing for everybody to enter, whatever the umask: daemons that are not root must find
/// their files. A folder that is there keeps its mode. They are on disk when this returns.
///
/// # Errors
/// When one cannot be made.
pub fn make_public_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        sync_folder_of(folder)?;
    }
    Ok(())
}

/// Returns when it is on disk that something was made, renamed or removed at `path`.
///
/// # Errors
/// When its folder cannot be synced.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    fs::File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_no_error_and_folders_are_for_everybody() {
        let dir = tempfile::tempdir().expect("writable");
        assert_eq!(names_in(dir.path().join("none")).expect("no error"), [""; 0]);
        assert!(present(fs::read(dir.path())).is_err(), "a folder is there, and no file");
        let deep = dir.path().join("a/b");
        make_public_folders(&deep).expect("made");
        make_public_folders(&deep).expect("they are there");
        assert_eq!(fs::metadata(&deep).expect("there").permissions().mode() & 0o7777, 0o755);
        fs::write(dir.path().join("a/a"), "").expect("written");
        assert_eq!(names_in(dir.path().join("a")).expect("readable"), ["a", "b"]);
        assert_eq!(names_in(dir.path().join("a/a/x")).expect("no error"), [""; 0]);
    }
}
