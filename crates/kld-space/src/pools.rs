//! Which pools would answer: a command that asks a suspended one hangs and cannot be killed.

use std::fs;
use std::io;
use std::path::Path;

use kld_host::folder::{names_in, present};

/// Where the kernel says it, without a lock and without a disk (OpenZFS from 0.8).
const FOLDER: &str = "/proc/spl/kstat/zfs";

/// An imported pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// `ONLINE`, `DEGRADED`, `SUSPENDED` …
    pub state: String,
}

impl Pool {
    /// Whether it answers.
    pub fn answers(&self) -> bool {
        matches!(self.state.as_str(), "ONLINE" | "DEGRADED")
    }
}

/// Every imported pool, by name; none where the kernel has no ZFS.
///
/// # Errors
/// When they cannot be read.
pub fn pools() -> io::Result<Vec<Pool>> {
    pools_in(Path::new(FOLDER))
}

fn pools_in(folder: &Path) -> io::Result<Vec<Pool>> {
    let mut found = Vec::new();
    // What is no pool has no state.
    for name in names_in(folder)? {
        if let Some(state) = present(fs::read(folder.join(&name).join("state")))? {
            let state = String::from_utf8_lossy(&state).trim().to_owned();
            found.push(Pool { name, state });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_those_with_a_state() {
        let folder = std::env::temp_dir().join(format!("kld-space-pools-{}", std::process::id()));
        for (name, state) in [("tank", "SUSPENDED\n"), ("a b", "ONLINE\n"), ("d", "DEGRADED\n")] {
            fs::create_dir_all(folder.join(name)).expect("made");
            fs::write(folder.join(name).join("state"), state).expect("written");
        }
        fs::write(folder.join("arcstats"), "x").expect("written");
        let found = pools_in(&folder).expect("readable");
        fs::remove_dir_all(&folder).expect("removed");
        let said: Vec<_> = found.iter().map(|pool| (pool.name.as_str(), pool.answers())).collect();
        assert_eq!(said, [("a b", true), ("d", true), ("tank", false)]);
        assert_eq!(pools_in(&folder).expect("nothing is there"), []);
    }
}
