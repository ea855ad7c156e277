//! `zpool status --json`.
//!
//! The form is that of `zpool_main.c` from 2.3: below `vdevs` stands what ordinary data lies on, and beside it, by their
//! classes, all other devices.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Device, PoolStatus, Role, Scan, Unusable};
use crate::ParseError;

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
    vdevs: Vdevs,
    #[serde(default)]
    special: Vdevs,
    #[serde(default)]
    dedup: Vdevs,
    #[serde(default)]
    logs: Vdevs,
    #[serde(default)]
    l2cache: Vdevs,
    #[serde(default)]
    spares: Vdevs,
}

/// By name.
type Vdevs = BTreeMap<String, Vdev>;

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
    #[serde(default)]
    state: String,
    aux: Option<String>,
    path: Option<String>,
    guid: Option<Number>,
    #[serde(default)]
    read_errors: Number,
    #[serde(default)]
    write_errors: Number,
    #[serde(default)]
    checksum_errors: Number,
    #[serde(default)]
    vdevs: Vdevs,
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

    /// As `zpool status` calls it without JSON, where it writes what the kernel knows (`zpool_state_to_name`).
    fn state(&self) -> &str {
        match (self.state.as_str(), self.aux.as_deref()) {
            ("CANT_OPEN", Some("CORRUPT_DATA")) => "FAULTED",
            ("CANT_OPEN", _) => "UNAVAIL",
            (state, _) => state,
        }
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

/// Reads the output of [`super::status_cmd`].
///
/// # Errors
/// When it is not that JSON, or holds another pool.
pub fn parse_status(pool: &str, json: &str) -> Result<PoolStatus, ParseError> {
    let error = |reason: String| ParseError { tool: "zpool status --json", reason };
    let mut document: Document = serde_json::from_str(json).map_err(|source| error(source.to_string()))?;
    let found = document.pools.remove(pool).ok_or_else(|| error(format!("no pool `{pool}` in it")))?;
    let Pool { vdevs, special, dedup, logs, l2cache, spares, .. } = found;
    let unusable = [(Role::Cache, &l2cache), (Role::Spare, &spares)].into_iter();
    let unusable = unusable.flat_map(|(role, vdevs)| {
        vdevs.iter().filter_map(move |(name, vdev)| Unusable::new(role, name, vdev.state()))
    });
    let unusable: Vec<Unusable> = unusable.collect();
    // What data lies on stands in four places.
    let data = [vdevs, special, dedup, logs];
    let all = data.iter().chain([&l2cache, &spares]).flat_map(BTreeMap::values);
    let device_errors = all.map(Vdev::errors).fold(0, u64::saturating_add);
    let devices = data.into_iter().flat_map(BTreeMap::into_values).flat_map(Vdev::devices);
    let mut devices: Vec<Device> = devices.collect();
    devices.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(PoolStatus {
        device_errors,
        devices,
        unusable,
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
            unusable: Vec::new(),
        };
        assert_eq!(parse_status("tank", MIRROR), Ok(want));
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

    /// OpenZFS 2.3 writes them beside `vdevs`, and the state that the kernel knows in place of what it calls it elsewhere.
    const CLASSES: &str = r#"{ "pools": { "tank": { "name": "tank", "state": "ONLINE",
        "vdevs": { "tank": { "vdev_type": "root", "class": "normal", "state": "ONLINE", "checksum_errors": 0,
          "vdevs": { "/dev/sda": { "path": "/dev/sda", "guid": 1, "state": "ONLINE", "checksum_errors": 0 } } } },
        "dedup": { "/dev/sdb": { "path": "/dev/sdb", "guid": 2, "class": "dedup", "state": "ONLINE", "read_errors": 1 } },
        "special": { "mirror-2": { "vdev_type": "mirror", "class": "special", "state": "ONLINE", "checksum_errors": 0,
          "vdevs": { "/dev/sdc": { "path": "/dev/sdc", "guid": 3, "class": "special", "state": "ONLINE", "checksum_errors": 20 },
                     "/dev/sdd": { "path": "/dev/sdd", "guid": 4, "class": "special", "state": "ONLINE" } } } },
        "logs": { "/dev/sde": { "path": "/dev/sde", "guid": 5, "class": "log", "state": "ONLINE", "write_errors": 300 } },
        "l2cache": { "/dev/sdf": { "path": "/dev/sdf", "guid": 6, "class": "l2cache", "state": "CANT_OPEN", "read_errors": 4000,
                       "aux": "OPEN_FAILED" },
                     "/dev/sdg": { "path": "/dev/sdg", "guid": 7, "class": "l2cache", "state": "ONLINE" } },
        "spares": { "/dev/sdh": { "path": "/dev/sdh", "guid": 8, "class": "spare", "state": "AVAIL" },
                    "/dev/sdi": { "path": "/dev/sdi", "guid": 9, "class": "spare", "state": "INUSE" },
                    "/dev/sdj": { "path": "/dev/sdj", "guid": 10, "class": "spare", "state": "CANT_OPEN",
                      "aux": "CORRUPT_DATA" } },
        "error_count": 0 } } }"#;

    #[test]
    fn what_stands_beside_the_data_is_looked_at_too() {
        let status = parse_status("tank", CLASSES).expect("is JSON");
        assert_eq!(status.device_errors, 4321);
        let said: Vec<String> = status.unusable.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["cache /dev/sdf UNAVAIL", "spare /dev/sdj FAULTED"]);
        let on: String = status.devices.iter().map(|device| device.guid.as_str()).collect();
        assert_eq!(on, "12345", "no data lies on caches and spares");
    }
}
