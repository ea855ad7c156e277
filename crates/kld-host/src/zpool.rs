//! `zpool`: the state of a pool, and the few changes a running node makes to its own pool.
//!
//! Read from `zpool status --json` (OpenZFS 2.3 and later, `zpool-status(8)`, output version 0.x); from what people read where
//! there is no JSON.

mod imported;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

pub use imported::{Imported, KSTAT, imported, imported_of, state_file};
pub use text::{parse_status_text, status_text_cmd};

use crate::{Cmd, ParseError};

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
}

/// Something that the pool lies on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// The path that ZFS opens.
    pub path: String,
    /// Its GUID, by which every command of `zpool` knows it too.
    pub guid: String,
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

#[derive(Deserialize)]
struct Document {
    pools: BTreeMap<String, Pool>,
}

#[derive(Deserialize)]
struct Pool {
    state: String,
    status: Option<String>,
    #[serde(default)]
    error_count: Number,
    scan_stats: Option<ScanStats>,
    #[serde(default)]
    vdevs: BTreeMap<String, Vdev>,
}

#[derive(Deserialize)]
struct ScanStats {
    function: String,
    state: String,
    #[serde(default)]
    errors: Number,
    end_time: Option<Number>,
}

#[derive(Deserialize)]
struct Vdev {
    path: Option<String>,
    guid: Option<Number>,
    #[serde(default)]
    read_errors: Number,
    #[serde(default)]
    write_errors: Number,
    #[serde(default)]
    checksum_errors: Number,
    #[serde(default)]
    vdevs: BTreeMap<String, Vdev>,
}

impl Vdev {
    /// Leaves only: ZFS counts the errors of a mirror's sides again in the mirror.
    fn errors(&self) -> u64 {
        if self.vdevs.is_empty() {
            let own = [&self.read_errors, &self.write_errors, &self.checksum_errors];
            return own.into_iter().map(Number::value).fold(0, u64::saturating_add);
        }
        self.vdevs.values().map(Self::errors).fold(0, u64::saturating_add)
    }

    fn devices(self) -> Vec<Device> {
        let own =
            self.path.map(|path| Device { path, guid: self.guid.map(Number::text).unwrap_or_default() });
        own.into_iter().chain(self.vdevs.into_values().flat_map(Self::devices)).collect()
    }
}

/// Numbers are strings without `--json-int`, and some stay strings with it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Int(u64),
    Text(String),
}

impl Default for Number {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl Number {
    /// A count that is no number is not zero: it counts as one, so that it is looked at.
    fn value(&self) -> u64 {
        match self {
            Self::Int(value) => *value,
            Self::Text(text) => text.parse().unwrap_or(1),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Int(value) => value.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// Reads the output of [`status_cmd`].
///
/// # Errors
/// When it is not that JSON, or holds another pool.
pub fn parse_status(pool: &str, json: &str) -> Result<PoolStatus, ParseError> {
    let error = |reason: String| ParseError { tool: "zpool status --json", reason };
    let mut document: Document = serde_json::from_str(json).map_err(|source| error(source.to_string()))?;
    let found = document.pools.remove(pool).ok_or_else(|| error(format!("no pool `{pool}` in it")))?;
    let device_errors = found.vdevs.values().map(Vdev::errors).fold(0, u64::saturating_add);
    let mut devices: Vec<Device> = found.vdevs.into_values().flat_map(Vdev::devices).collect();
    devices.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(PoolStatus {
        device_errors,
        devices,
        state: found.state,
        problem: found.status.filter(|status| status != "OK"),
        errors: found.error_count.value(),
        scan: found.scan_stats.map(|scan| Scan {
            function: scan.function,
            state: scan.state,
            errors: scan.errors.value(),
            ended: scan.end_time.map(Number::text).filter(|time| time != "-" && time != "0"),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After the example in `zpool-status(8)` of OpenZFS 2.3.
    const MIRROR: &str = r#"{
      "output_version": { "command": "zpool status", "vers_major": 0, "vers_minor": 1 },
      "pools": { "tank": {
        "name": "tank", "state": "DEGRADED", "pool_guid": "3920273586464696295", "txg": "16597",
        "spa_version": "5000", "zpl_version": "5",
        "status": "One or more devices has experienced an unrecoverable error.",
        "action": "Determine if the device needs to be replaced.",
        "scan_stats": { "function": "SCRUB", "state": "FINISHED", "start_time": "Mon Sep 30 14:46:39 UTC 2024",
          "end_time": "Mon Sep 30 14:46:40 UTC 2024", "to_examine": "41.5M", "errors": "2" },
        "vdevs": { "tank": { "name": "tank", "vdev_type": "root", "state": "ONLINE",
          "read_errors": "0", "write_errors": "0", "checksum_errors": "0",
          "vdevs": { "mirror-0": { "name": "mirror-0", "vdev_type": "mirror", "checksum_errors": 3,
            "vdevs": { "/dev/sda": { "path": "/dev/sda", "guid": "77", "read_errors": 0, "write_errors": 1, "checksum_errors": 3 },
                       "sdb": { "read_errors": "0", "write_errors": "0", "checksum_errors": "0" } } } } } },
        "error_count": "2"
      } }
    }"#;

    #[test]
    fn reads_a_degraded_mirror() {
        let want = PoolStatus {
            state: "DEGRADED".to_owned(),
            problem: Some("One or more devices has experienced an unrecoverable error.".to_owned()),
            errors: 2,
            device_errors: 4,
            scan: Some(Scan {
                function: "SCRUB".to_owned(),
                state: "FINISHED".to_owned(),
                errors: 2,
                ended: Some("Mon Sep 30 14:46:40 UTC 2024".to_owned()),
            }),
            devices: vec![Device { path: "/dev/sda".to_owned(), guid: "77".to_owned() }],
        };
        assert_eq!(parse_status("tank", MIRROR), Ok(want));
    }

    #[test]
    fn features_may_be_used_once_they_are_enabled() {
        let text = "feature@a\tactive\nfeature@b\tenabled\nfeature@c\tdisabled\n";
        assert_eq!(parse_features(text), BTreeSet::from(["a", "b"]));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(parse_status("rpool", MIRROR).is_err());
        assert!(parse_status("tank", "no pools available").is_err());
        assert!(parse_status("tank", r#"{"pools":{"tank":{"name":"tank"}}}"#).is_err());
    }

    #[test]
    fn healthy_means_no_problem_and_never_scrubbed_no_scan() {
        let status =
            parse_status("r", r#"{"pools":{"r":{"state":"ONLINE","status":"OK"}}}"#).expect("is JSON");
        assert_eq!(status, PoolStatus { state: "ONLINE".to_owned(), ..PoolStatus::default() });
    }
}
