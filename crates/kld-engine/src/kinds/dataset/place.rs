//! Where datasets are mounted: nothing may lie below one, and one that should be there must be.

use std::collections::{BTreeMap, BTreeSet};

use kld_host::zfs::{self, Property};
use kld_system::SystemDataset;

use super::encryption;
use crate::host::{Host, HostError};
use crate::kinds::Refusal;

/// What [`is_missing`] and [`mount`] look at.
pub(super) const ASKED: [&str; 4] = ["canmount", "keystatus", "mounted", "mountpoint"];

/// Refuses a dataset that is not where it should be, because what belongs into it would be written below it; and another place for
/// one, when that would hide what is there.
pub(super) fn check(
    host: &dyn Host,
    dataset: &SystemDataset,
    there: &BTreeMap<String, Property>,
    mounted: &BTreeSet<&str>,
) -> Result<(), Refusal> {
    let is_by_itself = dataset.property("canmount") != Some("noauto");
    let Some(path) = dataset.mounted_at().filter(|_| is_by_itself) else { return Ok(()) };
    let name = dataset.name.to_string();
    if is_missing(there, path) {
        let reason = format!("it is not mounted on `{path}`, and what belongs into it would come below it");
        let hint = format!("`zfs mount {name}`, and plan again");
        return Err(Refusal::Refused { name, reason, hint });
    }
    let is_there = value(there, "mounted") == "yes" && value(there, "mountpoint") == path;
    if is_there || encryption::is_locked(there) {
        return Ok(());
    }
    let hint = format!("move them away from `{path}`, or give the dataset another `mountpoint=`");
    is_free(host, &name, path, mounted, hint)
}

/// Whether a dataset is to be mounted by itself on this path, could be, and is not.
pub(super) fn is_missing(there: &BTreeMap<String, Property>, path: &str) -> bool {
    value(there, "canmount") == "on"
        && value(there, "mountpoint") == path
        && value(there, "mounted") == "no"
        && value(there, "keystatus") != "unavailable"
}

/// Refuses a place that holds what a dataset would hide; the hint is for files.
pub(super) fn is_free(
    host: &dyn Host,
    name: &str,
    path: &str,
    mounted: &BTreeSet<&str>,
    hint: String,
) -> Result<(), Refusal> {
    let (reason, hint) = if mounted.contains(path) {
        let hint = "give one of them another `mountpoint=`".to_owned();
        (format!("another dataset is mounted on `{path}`"), hint)
    } else {
        let files = host.list(path).map_err(|error| Refusal::Look("a mountpoint", error))?;
        if files.is_empty() {
            return Ok(());
        }
        (format!("`{path}` holds {} files that the dataset would hide", files.len()), hint)
    };
    Err(Refusal::Refused { name: name.to_owned(), reason, hint })
}

/// Gives a property another value. `zfs set canmount=on` itself mounts nothing.
pub(super) fn set(host: &dyn Host, dataset: &str, property: &str, value: &str) -> Result<(), HostError> {
    host.run(&zfs::set_cmd(dataset, &[(property, value)]))?;
    if (property, value) == ("canmount", "on") { mount(host, dataset) } else { Ok(()) }
}

/// Mounts a dataset that is to be mounted by itself, has a place, and whose key is there; one that is mounted stays.
pub(super) fn mount(host: &dyn Host, dataset: &str) -> Result<(), HostError> {
    let found = zfs::parse_get(&host.text(&zfs::get_cmd(dataset, &ASKED, false))?)?;
    let there: BTreeMap<String, Property> = found.into_iter().map(|of| (of.name.clone(), of)).collect();
    let waits = value(&there, "canmount") == "on"
        && value(&there, "mounted") == "no"
        && value(&there, "mountpoint").starts_with('/')
        && value(&there, "keystatus") != "unavailable";
    if waits { host.run(&zfs::mount_cmd(dataset)).map(drop) } else { Ok(()) }
}

pub(super) fn is_mounted(host: &dyn Host, dataset: &str) -> Result<bool, HostError> {
    let found = zfs::parse_get(&host.text(&zfs::get_cmd(dataset, &["mounted"], false))?)?;
    Ok(found.iter().any(|property| property.value == "yes"))
}

fn value<'a>(there: &'a BTreeMap<String, Property>, name: &str) -> &'a str {
    there.get(name).map_or("", |property| property.value.as_str())
}
