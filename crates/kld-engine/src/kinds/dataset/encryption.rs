//! Encryption is settled when a dataset is made: zfsprops(7). What the manifest says of it later is refused, with the way there.

use std::collections::BTreeMap;

use kld_host::zfs::Property;
use kld_manifest::names::DatasetName;
use kld_system::{Created, KEYS_IN_MEMORY, SystemDataset, unlocking_files};

use crate::host::{Host, HostError};
use crate::kinds::file::File;
use crate::kinds::{Kind as _, Refusal};
use crate::plan::key;
use crate::wanted::Wanted;

/// How to come by a dataset whose encryption is another one.
pub(super) const BESIDE: &str = "make a dataset beside it, copy into it, and swap their mountpoints";

/// What is asked of every dataset, whether a manifest speaks of it or not.
pub(super) const ASKED: [&str; 4] = ["encryption", "keyformat", "keylocation", "keystatus"];

/// Whether a person has the key, as a passphrase. The manifest asks for encryption; who has the key, the machine is told.
fn has_passphrase(there: &BTreeMap<String, Property>) -> bool {
    there.get("keyformat").is_some_and(|found| found.value == "passphrase")
}

/// Whether a property is not what the manifest gives, because a person has the key.
pub(super) fn is_of_a_person(property: &str, there: &BTreeMap<String, Property>) -> bool {
    matches!(property, "keyformat" | "keylocation") && has_passphrase(there)
}

/// Whether nobody has given the passphrase since the machine was started.
pub(super) fn is_locked(there: &BTreeMap<String, Property>) -> bool {
    has_passphrase(there) && there.get("keystatus").is_some_and(|found| found.value == "unavailable")
}

/// Files that unlock datasets which the manifest no longer names and which are still there, by their paths. They stay with them: a
/// dataset that left is unlocked at every start, until a person destroys it.
pub(in crate::kinds) fn still_unlock(
    host: &dyn Host,
    wanted: &Wanted,
    before: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, HostError> {
    let is_wanted = |name: &str| wanted.system.datasets.iter().any(|dataset| dataset.name.as_str() == name);
    let prefix = key(super::Dataset::NAME, "");
    let left = before.keys().filter_map(|item| item.strip_prefix(prefix.as_str()));
    let mut unlock = BTreeMap::new();
    for name in left.filter(|name| !name.contains('#') && !is_wanted(name)) {
        let Ok(dataset) = name.parse::<DatasetName>() else { continue };
        let files = unlocking_files(&dataset);
        let had_key = files.iter().any(|path| before.contains_key(&key(File::NAME, path)));
        if had_key && super::exists(host, name)? {
            unlock.extend(files.map(|path| (path, name.to_owned())));
        }
    }
    Ok(unlock)
}

/// How files come into a dataset that only the node can make.
pub(super) fn move_away(path: &str) -> String {
    format!("`mv {path} {path}.old`, apply, and copy them into the dataset")
}

/// Refuses to turn encryption on or off, and to change whose key it is; another algorithm is refused as other fixed properties
/// are. `was_stated`: the manifest has asked for encryption before.
pub(super) fn check(
    dataset: &SystemDataset,
    there: &BTreeMap<String, Property>,
    was_stated: bool,
) -> Result<(), Refusal> {
    let name = dataset.name.to_string();
    let now = |property: &str| there.get(property).map_or("", |found| found.value.as_str());
    let (algorithm, location) = (now("encryption"), now("keylocation"));
    let is_off = matches!(algorithm, "" | "-" | "off");
    // Somebody else's key is somebody else's business, as long as the manifest does not speak of it.
    let is_ours = location.starts_with(&format!("file://{KEYS_IN_MEMORY}/"));
    let has_own = dataset.property("keylocation").is_some();
    let fixed = |is: &str, becomes: &str| {
        (
            format!("`encryption` is `{is}` since it was made, and cannot become `{becomes}`"),
            BESIDE.to_owned(),
        )
    };
    let (reason, hint) = match dataset.created {
        Created::OnNode(wanted) if is_off => fixed("off", wanted),
        Created::InImage if !is_off && (is_ours || was_stated) => fixed(algorithm, "off"),
        Created::OnNode(_) if has_own && location == "none" => (
            "it is encrypted with the key of a dataset above it, and the manifest gives it one of its own"
                .to_owned(),
            BESIDE.to_owned(),
        ),
        Created::OnNode(_) if !has_own && (is_ours || location == "prompt") => (
            "it has a key of its own, and the manifest gives it that of a dataset above it".to_owned(),
            format!("`zfs change-key -i {name}` does so"),
        ),
        _ => return Ok(()),
    };
    Err(Refusal::Refused { name, reason, hint })
}
