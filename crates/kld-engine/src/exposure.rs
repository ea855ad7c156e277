//! How exposed the services are that a plan changes: what `systemd-analyze security` says of their unit files before any
//! of them is put in place.

use std::collections::BTreeSet;

use kld_host::systemd::{exposure_of_files_cmd, parse_exposure};
use serde::{Deserialize, Serialize};

use crate::host::{Entry, Host, HostError, Node};
use crate::plan::Step;
use crate::services::{UNIT_FILES, unit_of};
use crate::wanted::{Wanted, WantedFile};

/// A service before and after a plan. Numbers are tenths, 0 to 100: the lower, the tighter its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exposure {
    /// The service's unit.
    pub unit: String,
    /// How exposed it is; `None` when it is not there yet.
    pub now: Option<u8>,
    /// How exposed it will be; `None` when its package brings a unit that is not there yet.
    pub then: Option<u8>,
    /// The most that the manifest accepts (`max_exposure`).
    pub limit: Option<u8>,
}

impl Exposure {
    /// Whether the manifest does not accept it.
    pub(crate) fn is_too_high(&self) -> bool {
        matches!((self.then, self.limit), (Some(then), Some(limit)) if then > limit)
    }
}

/// Rates the services whose unit files `steps` change, in order. The new files lie in a directory of their own, in memory,
/// while they are rated.
pub(crate) fn rate(host: &dyn Host, wanted: &Wanted, steps: &[Step]) -> Result<Vec<Exposure>, HostError> {
    let files = steps.iter().filter(|step| step.kind == "file");
    let changed: BTreeSet<String> =
        files.filter_map(|step| step.name.strip_prefix(UNIT_FILES)).filter_map(unit_of).collect();
    let services = wanted.system.node.iter().flat_map(|node| &node.services);
    let changed: Vec<_> = services.filter(|service| changed.contains(&service.unit)).collect();
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let scratch = Scratch { host, dir: format!("/run/kldload-plan-{}/", std::process::id()) };
    changed
        .into_iter()
        .map(|service| {
            let of_unit = |(path, _): &(&String, &WantedFile)| {
                path.strip_prefix(UNIT_FILES).and_then(unit_of).as_deref() == Some(service.unit.as_str())
            };
            let new: Vec<_> = wanted.files.iter().filter(of_unit).collect();
            Ok(Exposure {
                unit: service.unit.clone(),
                now: rating(host, &service.unit, None),
                then: scratch.with(&new, |dir| rating(host, &service.unit, Some(dir)))?,
                limit: service.max_exposure_tenths,
            })
        })
        .collect()
}

/// `None`: systemd finds no such unit.
fn rating(host: &dyn Host, unit: &str, before: Option<&str>) -> Option<u8> {
    let text = host.text(&exposure_of_files_cmd(unit, before)).ok()?;
    parse_exposure(&text).ok()
}

/// A directory in which unit files lie for a moment.
struct Scratch<'a> {
    host: &'a dyn Host,
    dir: String,
}

impl Scratch<'_> {
    /// Calls with the files in place, and removes them again whatever happens.
    fn with<T>(
        &self,
        files: &[(&String, &WantedFile)],
        rate: impl FnOnce(&str) -> T,
    ) -> Result<T, HostError> {
        let path = |of: &str| of.replacen(UNIT_FILES, &self.dir, 1);
        let put = || {
            files.iter().try_for_each(|(of, file)| {
                let entry = Entry { node: file.node.clone(), mode: 0o644, uid: 0, gid: 0 };
                if matches!(entry.node, Node::File(_)) { self.host.put(&path(of), &entry) } else { Ok(()) }
            })
        };
        let rated = put().map(|()| rate(&self.dir));
        // Files before the directories they lie in.
        let folders = files.iter().filter_map(|(of, _)| Some(path(of).rsplit_once('/')?.0.to_owned()));
        let folders: BTreeSet<String> = folders.chain([self.dir.trim_end_matches('/').to_owned()]).collect();
        files.iter().try_for_each(|(of, _)| self.host.remove(&path(of)))?;
        folders.iter().rev().try_for_each(|folder| self.host.remove(folder))?;
        rated
    }
}
