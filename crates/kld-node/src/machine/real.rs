//! The machine this process runs on.

use super::{Access, Machine, MachineError};
use kld_host::folder::{make_public_folders, names_in, present};
use kld_host::{AtomicFile, Cmd};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealMachine;

fn file_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> MachineError + 'a {
    move |source| MachineError::File { action, path: path.to_owned(), source }
}

/// The number of a group, from `/etc/group`: nothing but system groups is asked for, and those are there.
fn group_id(name: &str, path: &Path) -> Result<u32, MachineError> {
    let file = Path::new("/etc/group");
    let text = fs::read_to_string(file).map_err(file_error("read", file))?;
    parse_group_id(&text, name)
        .ok_or_else(|| MachineError::NoGroup { name: name.to_owned(), path: path.to_owned() })
}

fn parse_group_id(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

impl Machine for RealMachine {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, MachineError> {
        present(fs::read(path)).map_err(file_error("read", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, MachineError> {
        names_in(path).map_err(file_error("list", path))
    }

    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        fs::canonicalize(path).ok()
    }

    fn modified(&self, path: &Path) -> Option<u64> {
        let time = fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
        Some(time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()))
    }

    fn write(&self, path: &Path, bytes: &[u8], access: Access<'_>) -> Result<(), MachineError> {
        let gid = access.group.map(|name| group_id(name, path)).transpose()?;
        if let Some(folder) = path.parent() {
            make_public_folders(folder).map_err(file_error("make the folder of", path))?;
        }
        let mut file = AtomicFile::create(path, access.mode)?;
        if gid.is_some() {
            fchown(file.file(), Some(0), gid).map_err(file_error("give away", path))?;
        }
        file.file().write_all(bytes).map_err(file_error("write", path))?;
        Ok(file.commit()?)
    }

    fn set_access(&self, path: &Path, access: Access<'_>) -> Result<(), MachineError> {
        let gid = access.group.map_or(Ok(0), |name| group_id(name, path))?;
        chown(path, Some(0), Some(gid)).map_err(file_error("give away", path))?;
        fs::set_permissions(path, Permissions::from_mode(access.mode)).map_err(file_error("protect", path))
    }

    fn set_parameter(&self, path: &Path, value: &str) -> Result<(), MachineError> {
        fs::write(path, value).map_err(file_error("set", path))
    }

    fn make_folder(&self, path: &Path) -> Result<(), MachineError> {
        let make = || -> io::Result<()> {
            make_public_folders(path.parent().unwrap_or(Path::new("/")))?;
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
                made => made,
            }
        };
        make().map_err(file_error("make", path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), MachineError> {
        fs::rename(from, to).map_err(file_error("replace", to))?;
        let folder = to.parent().unwrap_or(Path::new("/"));
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(file_error("sync", folder))
    }

    fn sync(&self, path: &Path) -> Result<(), MachineError> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let synced = fs::File::open(folder).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
        synced.map_err(file_error("sync the file system of", path))
    }

    fn remove(&self, path: &Path) -> Result<(), MachineError> {
        present(fs::remove_file(path)).map(drop).map_err(file_error("remove", path))
    }

    fn run(&self, command: Cmd, input: &[u8]) -> Result<Vec<u8>, MachineError> {
        let command = if input.is_empty() { command } else { command.stdin_bytes(input) };
        Ok(command.output()?.stdout)
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut filled = 0;
        while filled < bytes.len() {
            // Blocks until the generator is seeded, which a key made early in the first boot depends on.
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => unreachable!("getrandom(2) without flags only fails on bad pointers: {error}"),
            }
        }
    }

    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        let text = "root:x:0:\nsystemd-network:x:998:\nbroken\nbad:x:y:\n";
        assert_eq!(parse_group_id(text, "systemd-network"), Some(998));
        for name in ["systemd", "broken", "bad", ""] {
            assert_eq!(parse_group_id(text, name), None, "{name}");
        }
    }

    #[test]
    fn files_appear_whole_and_what_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert_eq!(RealMachine.read(&path).unwrap(), None);
        assert!(RealMachine.list(&dir.path().join("a")).unwrap().is_empty());
        assert!(RealMachine.remove(&path).is_ok());
        RealMachine.write(&path, b"x", Access::SECRET).unwrap();
        assert_eq!(RealMachine.read(&path).unwrap().as_deref(), Some(&b"x"[..]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(RealMachine.list(&dir.path().join("a")).unwrap(), ["b"]);
        assert!(RealMachine.read(dir.path()).is_err(), "a folder is not a file");
    }

    #[test]
    fn a_folder_is_for_root_alone_and_those_above_it_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            RealMachine.make_folder(&dir.path().join("a/b")).unwrap();
        }
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b")), (0o755, 0o700));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(RealMachine.make_folder(&dir.path().join("file")).is_err());
    }

    #[test]
    fn random_bytes_differ() {
        let mut numbers = [[0; 32]; 2];
        numbers.iter_mut().for_each(|bytes| RealMachine.fill_random(bytes));
        assert_ne!(numbers[0], numbers[1]);
        assert_ne!(numbers[0], [0; 32]);
    }
}
