//! `zpool`: the state of a pool, and the few changes a running node makes to its own pool.
//!
//! Read from `zpool status --json` (OpenZFS 2.3 and later, `zpool-status(8)`, output version 0.x); from what people read where
//! there is no JSON.

mod imported;
mod json;
mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

pub use imported::{Imported, KSTAT, imported, imported_of, state_file};
pub use json::parse_status;
pub use text::{parse_status_text, status_text_cmd};

use crate::Cmd;

/// A pool with failing disks answers late or never; a probe must not hang with it.
const DEADLINE: Duration = Duration::from_secs(20);

/// What `zpool status` says about one pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolStatus {
    /// `ONLINE`, `DEGRADED`, `FAULTED`, `SUSPENDED` …
    pub state: String,
    /// What is wrong, in the words of ZFS; `None` when nothing is.
    pub problem: Option<String>,
    /// Files with permanent errors.
    pub errors: u64,
    /// Read, write and checksum errors of all devices together.
    pub device_errors: u64,
    /// The last or running scrub or resilver; `None` when there never was one.
    pub scan: Option<Scan>,
    /// Disks, partitions and files that the pool lies on, in the order of their paths.
    pub devices: Vec<Device>,
    /// Caches and spares that cannot be used, in the order of their names: the pool is `ONLINE` without them.
    pub unusable: Vec<Unusable>,
}

/// Something that the pool lies on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// The path that ZFS opens.
    pub path: String,
    /// Its GUID, by which every command of `zpool` knows it too.
    pub guid: String,
}

/// A cache or spare that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unusable {
    /// What it is there for.
    pub role: Role,
    /// As `zpool` calls it: its path, or its GUID when that is gone.
    pub name: String,
    /// `UNAVAIL`, `FAULTED`, `REMOVED`.
    pub state: String,
}

impl Unusable {
    /// One in this state; `None` when nothing is wrong with it, or a person has switched it off.
    fn new(role: Role, name: &str, state: &str) -> Option<Self> {
        let own = || Self { role, name: name.to_owned(), state: state.to_owned() };
        matches!(state, "UNAVAIL" | "FAULTED" | "REMOVED").then(own)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Cache => "cache",
            Role::Spare => "spare",
        };
        write!(f, "{role} {} {}", self.name, self.state)
    }
}

/// What a device is there for that no data lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Holds copies of what is read often.
    Cache,
    /// Takes the place of a disk that fails.
    Spare,
}

/// A scrub or resilver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// `SCRUB` or `RESILVER`.
    pub function: String,
    /// `SCANNING`, `FINISHED`, `CANCELED`.
    pub state: String,
    /// Errors it has found.
    pub errors: u64,
    /// When it ended, as ZFS writes it.
    pub ended: Option<String>,
}

/// `zpool status` of one pool as JSON. With whole paths (`-P`): a partition that is labelled like its pool would have the
/// pool's own name otherwise, and OpenZFS 2.3 then shows the pool's numbers for it. Those before know no JSON and write nothing
/// (`usage`, 2): [`status_text_cmd`] then.
pub fn status_cmd(pool: &str) -> Cmd {
    Cmd::new("zpool").args(["status", "--json", "--json-int", "-p", "-P", pool]).accept(2).timeout(DEADLINE)
}

/// Asks how these features of a pool are: `zpool-features(7)`, without `feature@`.
pub fn features_cmd(pool: &str, features: &[&str]) -> Cmd {
    let names: Vec<String> = features.iter().map(|feature| format!("feature@{feature}")).collect();
    let names = names.join(",");
    Cmd::new("zpool").args(["get", "-Hp", "-o", "property,value", &names, pool]).timeout(DEADLINE)
}

/// Reads the output of [`features_cmd`]: those that may be used.
pub fn parse_features(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("feature@")?.split_once('\t'));
    lines.filter(|(_, state)| matches!(*state, "enabled" | "active")).map(|(name, _)| name).collect()
}

/// Starts a scrub and returns at once.
pub fn scrub_cmd(pool: &str) -> Cmd {
    Cmd::new("zpool").args(["scrub", pool]).timeout(DEADLINE)
}

/// Lets a device use all of a partition that has grown.
pub fn expand_cmd(pool: &str, device: &Device) -> Cmd {
    Cmd::new("zpool").args(["online", "-e", pool, &device.guid]).timeout(DEADLINE)
}

/// Gives the pool a new GUID, which every copy of an image needs.
pub fn reguid_cmd(pool: &str) -> Cmd {
    Cmd::new("zpool").args(["reguid", pool]).timeout(DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_may_be_used_once_they_are_enabled() {
        let text = "feature@a\tactive\nfeature@b\tenabled\nfeature@c\tdisabled\n";
        assert_eq!(parse_features(text), BTreeSet::from(["a", "b"]));
    }
}
