//! Package files, kept under their digests: what was downloaded once is not downloaded again, whatever tree wants it.
//!
//! apt trusts what lies in its archive directory by name and size alone. So every file is hashed before apt gets it, and
//! after the installation what apt used is held against the digests of the signed package index ([`check`]).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::cache::hex;
use crate::lock::Lock;

/// Length of a digest in hexadecimal.
const DIGEST: usize = 64;

/// The kept files: `DIGEST_NAME.deb` in one directory.
#[derive(Debug, Clone)]
pub(crate) struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// Those of a cache.
    pub(crate) fn of(cache: &Path) -> Self {
        Self { dir: cache.join("packages") }
    }

    /// Puts every kept file into an empty directory, under the name apt knows it by. One that is not what its name says is
    /// removed instead.
    pub(crate) fn lend(&self, to: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::create_dir_all(to)?;
        for (digest, name, path) in self.files()? {
            if digest_of(&path)? == digest {
                // A copy of the name, not of the bytes, where the file system can.
                fs::hard_link(&path, to.join(&name))
                    .or_else(|_| fs::copy(&path, to.join(&name)).map(drop))?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Keeps every package file of a directory, and gives their digests by file name.
    pub(crate) fn keep(&self, from: &Path) -> io::Result<BTreeMap<String, String>> {
        let mut digests = BTreeMap::new();
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Our own modules may be compiled anew under the same name and version.
            if !name.ends_with(".deb") || name.starts_with("zfs-modules-") {
                continue;
            }
            let digest = digest_of(&path)?;
            let kept = self.dir.join(format!("{digest}_{name}"));
            if !kept.exists() {
                // Written beside and renamed: a killed build leaves no half package under a whole one's name.
                let partial = self.dir.join(format!("{name}.partial"));
                fs::copy(&path, &partial)?;
                fs::rename(&partial, &kept)?;
            }
            digests.insert(name, digest);
        }
        Ok(digests)
    }

    /// Remembers that these packages are in use, and removes files that no tree has used in `unused`.
    pub(crate) fn used(&self, lock: &Lock, unused: Duration) -> io::Result<()> {
        let now = SystemTime::now();
        for (digest, _, path) in self.files()? {
            let file = fs::File::open(&path)?;
            if lock.packages.iter().any(|package| package.sha256.as_deref() == Some(&digest)) {
                file.set_modified(now)?;
            } else if now.duration_since(file.metadata()?.modified()?).is_ok_and(|age| age > unused) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Digest, name and path of every kept file.
    fn files(&self) -> io::Result<Vec<(String, String, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some((digest, name)) = name.split_once('_')
                && digest.len() == DIGEST
            {
                files.push((digest.to_owned(), name.to_owned(), path.clone()));
            }
        }
        Ok(files)
    }
}

/// Every installed package came from a file with the digest that the signed index gives it.
///
/// # Errors
/// The first that did not, as `package version`.
pub(crate) fn check(lock: &Lock, digests: &BTreeMap<String, String>) -> Result<(), String> {
    for package in &lock.packages {
        // As apt names it: an epoch's colon is escaped.
        let version = package.version.replace(':', "%3a");
        let name = format!("{}_{version}_{}.deb", package.name, package.architecture);
        if let (Some(wanted), Some(found)) = (&package.sha256, digests.get(&name))
            && wanted != found
        {
            return Err(format!("{} {}", package.name, package.version));
        }
    }
    Ok(())
}

fn digest_of(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (fs::File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(sha256: &str) -> Lock {
        Lock::from_list("debian-13", "6.12", &format!("a\tamd64\t1:2-3\t{sha256}\n")).expect("a list")
    }

    #[test]
    fn what_was_kept_is_lent_again_unless_it_has_changed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let packages = Packages::of(dir.path());
        packages.lend(&first).expect("there is none yet");
        fs::write(first.join("a_1%3a2-3_amd64.deb"), "package").expect("writable");
        fs::write(first.join("lock"), "").expect("writable");
        let digests = packages.keep(&first).expect("kept");
        assert_eq!(digests.len(), 1);
        packages.lend(&second).expect("lent");
        assert_eq!(fs::read_to_string(second.join("a_1%3a2-3_amd64.deb")).expect("lent"), "package");

        // Someone changes the file behind its name.
        let (_, _, kept) = packages.files().expect("listed").remove(0);
        fs::remove_file(&kept).expect("removed");
        fs::write(&kept, "trojan!").expect("writable");
        let third = dir.path().join("third");
        packages.lend(&third).expect("the others are lent");
        assert_eq!(fs::read_dir(&third).expect("readable").count(), 0);
        assert!(packages.files().expect("listed").is_empty());
    }

    #[test]
    fn an_installed_package_with_another_digest_is_named() {
        let (one, other) = ("a".repeat(DIGEST), "b".repeat(DIGEST));
        let digests = BTreeMap::from([("a_1%3a2-3_amd64.deb".to_owned(), one.clone())]);
        assert_eq!(check(&lock(&one), &digests), Ok(()));
        assert_eq!(check(&lock(&other), &digests), Err("a 1:2-3".to_owned()));
        assert_eq!(check(&lock(&other), &BTreeMap::new()), Ok(()));
    }

    #[test]
    fn what_no_tree_uses_goes_after_a_while() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let from = dir.path().join("from");
        let packages = Packages::of(dir.path());
        packages.lend(&from).expect("there is none yet");
        for name in ["a_1_amd64.deb", "b_1_amd64.deb"] {
            fs::write(from.join(name), name).expect("writable");
        }
        let digests = packages.keep(&from).expect("kept");
        for (_, _, path) in packages.files().expect("listed") {
            let long_ago = SystemTime::now() - Duration::from_secs(3600);
            fs::File::open(path).and_then(|file| file.set_modified(long_ago)).expect("made older");
        }
        packages.used(&lock(&digests["a_1_amd64.deb"]), Duration::from_secs(60)).expect("tidied");
        let names: Vec<String> =
            packages.files().expect("listed").into_iter().map(|(_, name, _)| name).collect();
        assert_eq!(names, ["a_1_amd64.deb"]);
    }
}
