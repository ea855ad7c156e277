//! Which pools are imported, and whether they would answer: a command that asks a suspended one hangs and cannot be killed.

use std::fs;
use std::io;
use std::path::Path;

use crate::folder::{names_in, present};

/// A folder for each imported pool, and files of other things (OpenZFS from 0.8).
pub const KSTAT: &str = "/proc/spl/kstat/zfs";

/// Where the kernel says how a pool is, without a lock and without a disk.
pub fn state_file(pool: &str) -> String {
    format!("{KSTAT}/{pool}/state")
}

/// An imported pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its name.
    pub name: String,
    /// `ONLINE`, `DEGRADED`, `SUSPENDED` …
    pub state: String,
}

impl Imported {
    /// With what [`state_file`] holds.
    pub fn new(name: &str, state: &[u8]) -> Self {
        Self { name: name.to_owned(), state: String::from_utf8_lossy(state).trim().to_owned() }
    }

    /// Whether it answers.
    pub fn answers(&self) -> bool {
        matches!(self.state.as_str(), "ONLINE" | "DEGRADED")
    }

    /// What a person can do about one that does not answer.
    pub fn hint(&self) -> String {
        format!(
            "`zpool status {0}` says which device is missing; `zpool clear {0}` goes on when it is there again",
            self.name
        )
    }
}

/// Every imported pool, by name; none where the kernel has no ZFS.
///
/// # Errors
/// When they cannot be read.
pub fn imported() -> io::Result<Vec<Imported>> {
    imported_in(Path::new(KSTAT))
}

fn imported_in(folder: &Path) -> io::Result<Vec<Imported>> {
    imported_of(names_in(folder)?, |name| present(fs::read(folder.join(name).join("state"))))
}

/// Those among the names in [`KSTAT`]; `state` reads [`state_file`], where there is one.
///
/// # Errors
/// What `state` fails with.
pub fn imported_of<E>(
    names: Vec<String>,
    state: impl Fn(&str) -> Result<Option<Vec<u8>>, E>,
) -> Result<Vec<Imported>, E> {
    let mut found = Vec::new();
    // What is no pool has no state.
    for name in names {
        if let Some(state) = state(&name)? {
            found.push(Imported::new(&name, &state));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_those_with_a_state() {
        let folder = tempfile::tempdir().expect("writable");
        for (name, state) in [("tank", "SUSPENDED\n"), ("a b", "ONLINE\n"), ("d", "DEGRADED\n")] {
            fs::create_dir_all(folder.path().join(name)).expect("made");
            fs::write(folder.path().join(name).join("state"), state).expect("written");
        }
        fs::write(folder.path().join("arcstats"), "x").expect("written");
        let found = imported_in(folder.path()).expect("readable");
        let said: Vec<_> = found.iter().map(|pool| (pool.name.as_str(), pool.answers())).collect();
        assert_eq!(said, [("a b", true), ("d", true), ("tank", false)]);
        assert_eq!(imported_in(&folder.path().join("d")).expect("no pools"), []);
        assert_eq!(imported_in(&folder.path().join("none")).expect("nothing is there"), []);
    }
}
