//! ZFS datasets and their properties.
//!
//! A dataset that leaves the manifest is never destroyed: the plan lists the command that would, and what it would free.
//! Encrypted datasets are made by `kldload node init`, because their keys are born on the machine; once they are there, they are
//! as all others.

mod aside;
mod busy;
mod encryption;
mod features;
mod locked;
mod place;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use kld_host::Cmd;
use kld_host::zfs::{self, Property};
use kld_host::zpool::{self, Imported};
use kld_system::{Created, IDENTITY_UNIT, Layer, SystemDataset};
use kld_ui::ByteSize;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::aside::put_aside;
use self::aside::{bring_back, take_away};
pub(super) use self::encryption::still_unlock;
use self::place::{check as check_place, is_missing, set};
use self::values::{name_attributes, same, shown};
use super::{Found, Kind, Refusal, WayBack, digest, file, to_value};
use crate::history::Store;
use crate::host::{Host, HostError};
use crate::interruption::Interruption;
use crate::plan::{Action, Because, Cause, Left, Step, key};
use crate::wanted::Wanted;

pub(crate) use locked::{Locked, check as check_locked};

pub(super) struct Dataset;

/// What is to be done with one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Change {
    /// Make it.
    Create {
        dataset: String,
        properties: Vec<(String, String)>,
        /// Its root directory, when it is mounted.
        mountpoint: Option<String>,
    },
    /// Leave it to the node, which makes it with its key when all else is in place.
    Born {
        dataset: String,
        properties: Vec<(String, String)>,
        /// As above.
        mountpoint: Option<String>,
    },
    /// Give a property another value.
    Set { dataset: String, property: String, value: String },
    /// Let a property have the parent's value again, or the default.
    Inherit { dataset: String, property: String },
}

/// What it takes to go back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Memory {
    /// It was not there.
    Nothing,
    /// Nor were these directories, which mounting makes: the highest first.
    Missing(Vec<String>),
    /// The property had this value of its own.
    Local(String),
    /// It had one that `zfs receive` has brought, which another of its own hides: `zfs inherit -S` shows it again.
    Received,
    /// The property had none of its own.
    Inherited,
}

/// Set when a dataset is made, and never after: zfsprops(7).
const FIXED: [(&str, &str); 6] = [
    ("encryption", encryption::BESIDE),
    ("keyformat", encryption::BESIDE),
    ("casesensitivity", "make a dataset beside it and copy into it"),
    ("normalization", "make a dataset beside it and copy into it"),
    ("utf8only", "make a dataset beside it and copy into it"),
    ("volblocksize", "make a volume beside it and copy into it"),
];

/// What no dataset takes over from its parent, and the value that says that there is none: `zfs inherit` refuses them.
const NOT_INHERITED: [(&str, &str); 7] = [
    ("canmount", "on"),
    ("quota", "none"),
    ("refquota", "none"),
    ("reservation", "none"),
    ("refreservation", "none"),
    ("filesystem_limit", "none"),
    ("snapshot_limit", "none"),
];

/// Properties that hold for what is written from now on; the way to bring it to what is there.
const ONLY_NEW: &str =
    "holds for what is written from now on; files keep theirs until they are copied or received again";
const NEW_BLOCKS_ONLY: [&str; 6] = ["recordsize", "compression", "checksum", "copies", "dedup", "dnodesize"];

impl Kind for Dataset {
    type Change = Change;
    type Memory = Memory;
    const NAME: &'static str = "dataset";
    const ON_ROOT: bool = false;

    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        _earlier: &[Step],
    ) -> Result<Found, Refusal> {
        let pool = wanted.system.pool.as_str();
        let seen = look(host, wanted, before)?;
        let mounted = mounted(&seen);
        let mut found = Found::default();
        // Whatever boot environment runs: kldload's are side by side.
        let running = running_root(&seen).unwrap_or_default();
        let beside = |a: &str, b: &str| {
            a.rsplit_once('/').map(|(above, _)| above) == b.rsplit_once('/').map(|(above, _)| above)
        };
        let root_is_ours = beside(running, wanted.system.boot_dataset.as_str());
        let mut new = Vec::new();
        for dataset in &wanted.system.datasets {
            let name = dataset.name.to_string();
            // On a pool of others, what lies above a dataset of the manifest is made when it is missing, and left alone.
            let is_ours = root_is_ours
                || belongs_to_the_manifest(dataset)
                || (!seen.contains_key(&name) && is_above_ours(&name, wanted));
            // Another environment's root is its own business.
            let is_other_root = name == wanted.system.boot_dataset.as_str() && name != running;
            if !is_ours || is_other_root {
                continue;
            }
            let properties: Vec<_> = dataset.properties.iter().map(|item| item.value.clone()).collect();
            found.items.insert(name.clone(), digest(&properties));
            for (property, value) in &properties {
                found.items.insert(item(&name, property), value.clone());
            }
            let there = seen.get(&name);
            new.extend(properties.into_iter().filter(|(property, value)| {
                let now = there.and_then(|there| there.get(property));
                now.is_none_or(|now| !same(property, value, &now.value))
            }));
            match there {
                None => found.steps.push(create(host, dataset, &mounted, pool)?),
                Some(there) => {
                    let was_stated = before.contains_key(&key(Self::NAME, &item(&name, "encryption")));
                    encryption::check(dataset, there, was_stated)?;
                    check_place(host, dataset, there, &mounted)?;
                    found.steps.append(&mut changes(dataset, there)?);
                    found.steps.extend(given_up(dataset, there, before));
                }
            }
        }
        found.locked = locked::of(&seen, wanted);
        features::check(host, pool, new.iter().map(|(property, value)| (&**property, &**value)))?;
        busy::check(host, &seen, &found.steps)?;
        for gone in super::gone(Self::NAME, before, &found.items) {
            if gone.contains('#') {
                continue;
            }
            if seen.contains_key(gone) {
                let used = seen[gone].get("used").and_then(|used| used.value.parse().ok());
                found.left.push(Left {
                    kind: Self::NAME.to_owned(),
                    name: gone.to_owned(),
                    remove_with: format!(
                        "zfs destroy -r {gone}   # frees {}",
                        ByteSize(used.unwrap_or_default())
                    ),
                });
            }
        }
        Ok(found)
    }

    fn remember(&self, host: &dyn Host, _store: &Store<'_>, change: &Change) -> Result<Memory, HostError> {
        let (dataset, property) = match change {
            Change::Create { mountpoint: Some(path), .. } | Change::Born { mountpoint: Some(path), .. } => {
                return Ok(Memory::Missing(file::missing_above(host, &format!("{path}/"))?));
            }
            Change::Create { .. } | Change::Born { .. } => return Ok(Memory::Nothing),
            Change::Set { dataset, property, .. } | Change::Inherit { dataset, property } => {
                (dataset, property)
            }
        };
        let found = read(host, &zfs::get_cmd(dataset, &[property], false))?.into_iter().next();
        Ok(match found {
            Some(Property { value, source, .. }) if source == "local" => Memory::Local(value),
            Some(Property { source, .. }) if source == "received" => Memory::Received,
            _ => Memory::Inherited,
        })
    }

    fn make(&self, host: &dyn Host, _store: &Store<'_>, change: &Change) -> Result<(), HostError> {
        match change {
            Change::Create { dataset, properties, .. } => {
                if exists(host, dataset)? {
                    return Ok(());
                }
                let properties: Vec<(&str, &str)> =
                    properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                host.run(&zfs::create_cmd(dataset, &properties)).map(drop)
            }
            // `services.rs` tells the node.
            Change::Born { .. } => Ok(()),
            Change::Set { dataset, property, value } => set(host, dataset, property, value),
            Change::Inherit { dataset, property } => clear(host, dataset, property),
        }
    }

    fn undo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        match (change, memory) {
            (
                Change::Create { dataset, mountpoint, .. } | Change::Born { dataset, mountpoint, .. },
                memory,
            ) => {
                take_away(host, store, dataset, mountpoint.as_deref())?;
                let missing = if let Memory::Missing(missing) = memory { missing.as_slice() } else { &[] };
                missing.iter().rev().try_for_each(|path| file::remove_if_empty(host, path))
            }
            (
                Change::Set { dataset, property, .. } | Change::Inherit { dataset, property },
                Memory::Local(value),
            ) => set(host, dataset, property, value),
            (
                Change::Set { dataset, property, .. } | Change::Inherit { dataset, property },
                Memory::Received,
            ) => host.run(&Cmd::new("zfs").args(["inherit", "-S", property, dataset])).map(drop),
            (Change::Set { dataset, property, .. } | Change::Inherit { dataset, property }, _) => {
                clear(host, dataset, property)
            }
        }
    }

    fn way_back(&self, store: &Store<'_>, change: &Change, memory: &Memory) -> Result<WayBack, HostError> {
        let (Change::Create { dataset, .. }
        | Change::Born { dataset, .. }
        | Change::Set { dataset, .. }
        | Change::Inherit { dataset, .. }) = change;
        // Somebody has destroyed it since, or given it another name.
        if !exists(store.host, dataset)? {
            return Ok(WayBack::Nothing);
        }
        let from = match change {
            Change::Create { .. } | Change::Born { .. } => {
                let words = "goes, or is renamed when it holds anything".to_owned();
                return Ok(WayBack::Goes(Action::Remove, words));
            }
            Change::Set { property, value, .. } => format!("{property} {}", shown(property, value)),
            Change::Inherit { property, .. } => property.clone(),
        };
        let to = match (change, memory) {
            (Change::Set { property, .. } | Change::Inherit { property, .. }, Memory::Local(value)) => {
                shown(property, value)
            }
            (_, Memory::Received) => "as it was received".to_owned(),
            _ => "as its parent, or the default".to_owned(),
        };
        Ok(WayBack::Goes(Action::Change, format!("{from} → {to}")))
    }

    fn changed(
        &self,
        host: &dyn Host,
        _store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<Option<String>, HostError> {
        let (Change::Set { dataset, property, .. } | Change::Inherit { dataset, property }) = change else {
            return Ok(None);
        };
        if !exists(host, dataset)? {
            return Ok(None);
        }
        let found = read(host, &zfs::get_cmd(dataset, &[property], false))?;
        let Some(now) = found.into_iter().next() else { return Ok(None) };
        let is_local = now.source == "local";
        let is_as_left = match change {
            Change::Set { value, .. } => same(property, value, &now.value),
            _ => {
                !is_local
                    || NOT_INHERITED
                        .iter()
                        .any(|(name, none)| name == property && same(name, none, &now.value))
            }
        };
        let is_as_before = match memory {
            Memory::Local(value) => same(property, value, &now.value),
            _ => !is_local,
        };
        let words = || format!("{property} is {} by hand since", shown(property, &now.value));
        Ok((!is_as_left && !is_as_before).then(words))
    }

    fn redo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        of: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        match change {
            // One that the node had made empty is made again when the node is told.
            Change::Create { dataset, properties, .. } | Change::Born { dataset, properties, .. } => {
                bring_back(host, of, dataset, properties, || self.make(host, of, change))
            }
            // What it takes to go back is the same in both directions.
            _ => self.undo(host, store, change, memory),
        }
    }

    fn items_of(&self, name: &str, change: &Change) -> Vec<String> {
        vec![match change {
            Change::Create { .. } | Change::Born { .. } => name.to_owned(),
            Change::Set { property, .. } | Change::Inherit { property, .. } => item(name, property),
        }]
    }

    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError> {
        let stated = items.iter().filter_map(|(name, value)| Some((name.split_once('#')?, *value)));
        let names: BTreeSet<&str> = stated.clone().map(|((_, property), _)| property).collect();
        let pools: BTreeSet<&str> =
            items.iter().filter_map(|(name, _)| name.split(['/', '#']).next()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let asked: BTreeSet<&str> = names.iter().copied().chain(place::ASKED).collect();
        let mut seen = Seen::new();
        for pool in pools {
            seen.extend(ask(host, pool, &asked)?);
        }
        let is_as_wanted = |dataset: &str, property: &str, value: &str| {
            let Some(there) = seen.get(dataset) else { return false };
            // Of a volume, what only file systems have is not there.
            there.get(property).is_none_or(|found| same(property, value, &found.value))
                || encryption::is_of_a_person(property, there)
        };
        // What is to be mounted by itself: a manifest may say `canmount=noauto`.
        let by_hand = stated.clone().filter(|item| matches!(item, ((_, "canmount"), "noauto")));
        let by_hand: BTreeSet<&str> = by_hand.map(|((dataset, _), _)| dataset).collect();
        let places = stated.clone().filter(|((dataset, property), value)| {
            *property == "mountpoint" && value.starts_with('/') && !by_hand.contains(dataset)
        });
        let missing = places
            .filter(|((dataset, _), path)| seen.get(*dataset).is_some_and(|there| is_missing(there, path)));
        let missing = missing.map(|((dataset, _), path)| format!("{dataset} is not mounted on {path}"));
        let drifted =
            stated.clone().filter(|((dataset, property), value)| !is_as_wanted(dataset, property, value));
        let drifted = drifted.map(|((dataset, property), _)| format!("{property} of {dataset}"));
        Ok(drifted.chain(missing).collect())
    }
}

/// Takes a dataset's own value of a property away.
fn clear(host: &dyn Host, dataset: &str, property: &str) -> Result<(), HostError> {
    match NOT_INHERITED.iter().find(|(name, _)| *name == property) {
        Some((_, none)) => set(host, dataset, property, none),
        None => host.run(&Cmd::new("zfs").args(["inherit", property, dataset])).map(drop),
    }
}

fn unmount_cmd(dataset: &str) -> Cmd {
    Cmd::new("zfs").args(["unmount", dataset])
}

fn exists(host: &dyn Host, dataset: &str) -> Result<bool, HostError> {
    let cmd = Cmd::new("zfs").args(["list", "-H", "-o", "name", dataset]).accept(1);
    Ok(host.run(&cmd)?.code == 0)
}

/// Properties of every dataset of the pool, by dataset and name: one process, whatever there is.
type Seen = BTreeMap<String, BTreeMap<String, Property>>;

fn look(host: &dyn Host, wanted: &Wanted, before: &BTreeMap<String, String>) -> Result<Seen, Refusal> {
    let pool = wanted.system.pool.as_str();
    let state = host.read(&zpool::state_file(pool)).map_err(|error| Refusal::Look("the pool", error))?;
    if let Some(known) =
        state.map(|state| Imported::new(pool, state.as_bytes())).filter(|pool| !pool.answers())
    {
        let reason = format!("the pool is {}, and would not answer", known.state);
        return Err(Refusal::Refused { name: pool.to_owned(), reason, hint: known.hint() });
    }
    // Those that the manifest has stated, too: it may no longer do so.
    let stated = before.keys().filter_map(|item| {
        let (_, property) = item.strip_prefix(Dataset::NAME)?.split_once('#')?;
        Some(property)
    });
    let names: BTreeSet<&str> = wanted
        .system
        .datasets
        .iter()
        .flat_map(|dataset| dataset.properties.iter().map(|item| item.value.0.as_str()))
        .chain(["canmount", "mountpoint", "mounted", "used"])
        .chain(encryption::ASKED)
        .chain(stated)
        .collect();
    ask(host, pool, &names).map_err(|error| match &error {
        HostError::Exec(exec) if exec.stderr().is_some_and(|said| said.contains("does not exist")) => {
            Refusal::NoPool(pool.to_owned(), error)
        }
        _ => Refusal::Look("the datasets", error),
    })
}

/// What `zfs get` says, under names that mean the same to every version of ZFS.
fn read(host: &dyn Host, command: &Cmd) -> Result<Vec<Property>, HostError> {
    let mut found = zfs::parse_get(&host.text(command)?)?;
    name_attributes(host, &mut found)?;
    Ok(found)
}

/// Asks for properties of every dataset of a pool.
fn ask(host: &dyn Host, pool: &str, properties: &BTreeSet<&str>) -> Result<Seen, HostError> {
    let names: Vec<&str> = properties.iter().copied().collect();
    let mut seen = Seen::new();
    for property in read(host, &zfs::get_cmd(pool, &names, true))? {
        seen.entry(property.dataset.clone()).or_default().insert(property.name.clone(), property);
    }
    Ok(seen)
}

/// Whether a person wrote it, or a layer added it for a service; the operating system's own datasets are for machines
/// whose root is a boot environment, and kldload's memory is for all.
fn belongs_to_the_manifest(dataset: &SystemDataset) -> bool {
    dataset.because.span.is_written() || dataset.because.layer != Layer::Datasets
}

/// Whether one of the manifest's own datasets lies below `name`.
fn is_above_ours(name: &str, wanted: &Wanted) -> bool {
    let ours = wanted.system.datasets.iter().filter(|dataset| belongs_to_the_manifest(dataset));
    ours.map(|dataset| dataset.name.to_string())
        .any(|below| below.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
}

/// The dataset that is mounted on `/`.
fn running_root(seen: &Seen) -> Option<&str> {
    let is = |of: &BTreeMap<String, Property>, name: &str, value: &str| {
        of.get(name).is_some_and(|p| p.value == value)
    };
    let root = seen.iter().find(|(_, of)| is(of, "mountpoint", "/") && is(of, "mounted", "yes"));
    root.map(|(name, _)| name.as_str())
}

/// Directories that a dataset is mounted on.
fn mounted(seen: &Seen) -> BTreeSet<&str> {
    let mounted = |of: &&BTreeMap<String, Property>| of.get("mounted").is_some_and(|p| p.value == "yes");
    let paths = seen.values().filter(mounted).filter_map(|of| of.get("mountpoint"));
    paths.map(|property| property.value.as_str()).collect()
}

fn create(
    host: &dyn Host,
    dataset: &SystemDataset,
    mounted: &BTreeSet<&str>,
    pool: &str,
) -> Result<Step, Refusal> {
    let name = dataset.name.to_string();
    if name == pool {
        let reason = format!("there is no pool `{pool}`");
        return Err(Refusal::Refused { name, reason, hint: format!("`zpool create {pool} …` makes it") });
    }
    if let Some(path) = dataset.mounted_at() {
        let hint = match dataset.created {
            Created::InImage => format!("`kldload adopt {path} --manifest FILE` moves them into the dataset"),
            Created::OnNode(_) => encryption::move_away(path),
        };
        place::is_free(host, &name, path, mounted, hint)?;
    }
    let properties: Vec<(String, String)> =
        dataset.properties.iter().map(|item| item.value.clone()).collect();
    let shown: Vec<String> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mountpoint = dataset.mounted_at().map(str::to_owned);
    let (notes, change) = match dataset.created {
        Created::InImage => (Vec::new(), Change::Create { dataset: name.clone(), properties, mountpoint }),
        Created::OnNode(_) => {
            let note = format!("{IDENTITY_UNIT} makes it, with a key that is born on this machine");
            (vec![note], Change::Born { dataset: name.clone(), properties, mountpoint })
        }
    };
    Ok(Step {
        kind: Dataset::NAME.to_owned(),
        name,
        action: Action::Add,
        cause: Cause::Wish,
        summary: shown.join(" "),
        interrupts: None,
        notes,
        because: (&dataset.because).into(),
        change: to_value(&change),
    })
}

/// Properties that differ. The value counts, not where it comes from.
fn changes(dataset: &SystemDataset, there: &BTreeMap<String, Property>) -> Result<Vec<Step>, Refusal> {
    let mut steps = Vec::new();
    let name = dataset.name.to_string();
    let mut properties: Vec<_> = dataset.properties.iter().collect();
    // Unmounted before it moves, and mounted when it has.
    properties.sort_by_key(|item| match (item.value.0.as_str(), item.value.1.as_str()) {
        ("canmount", "on") => 2,
        ("canmount", _) => 0,
        _ => 1,
    });
    for item in properties {
        let (property, value) = (&item.value.0, &item.value.1);
        let Some(found) = there.get(property) else { continue };
        if same(property, value, &found.value) || encryption::is_of_a_person(property, there) {
            continue;
        }
        if let Some((_, hint)) = FIXED.iter().find(|(fixed, _)| fixed == property) {
            let reason =
                format!("`{property}` is `{}` since it was made, and cannot become `{value}`", found.value);
            return Err(Refusal::Refused { name, reason, hint: (*hint).to_owned() });
        }
        let mut notes = Vec::new();
        if NEW_BLOCKS_ONLY.contains(&property.as_str()) {
            notes.push(ONLY_NEW.to_owned());
        }
        let interrupts = (property == "mountpoint").then_some(Interruption::Remount);
        if interrupts.is_some() {
            notes.push(format!("it is mounted again: what uses `{}` is interrupted", found.value));
        }
        steps.push(Step {
            kind: Dataset::NAME.to_owned(),
            name: name.clone(),
            action: Action::Change,
            cause: Cause::Wish,
            summary: format!("{property} {} → {value}", shown(property, &found.value)),
            interrupts,
            notes,
            because: Because::from(&item.because),
            change: to_value(&Change::Set {
                dataset: name.clone(),
                property: property.clone(),
                value: value.clone(),
            }),
        });
    }
    Ok(steps)
}

/// The name of a property among what is remembered; `#` is in no name of a dataset.
fn item(dataset: &str, property: &str) -> String {
    format!("{dataset}#{property}")
}

/// Properties that the manifest has stated and no longer does.
fn given_up(
    dataset: &SystemDataset,
    there: &BTreeMap<String, Property>,
    before: &BTreeMap<String, String>,
) -> Vec<Step> {
    let name = dataset.name.to_string();
    let prefix = key(Dataset::NAME, &item(&name, ""));
    let stated = before.range(prefix.clone()..).map_while(|(key, _)| key.strip_prefix(&prefix));
    let gone = stated.filter(|property| dataset.property(property).is_none());
    let still = gone.filter_map(|property| there.get(property)).filter(|found| found.source == "local");
    still
        .map(|property| Step {
            kind: Dataset::NAME.to_owned(),
            name: name.clone(),
            action: Action::Change,
            cause: Cause::Wish,
            summary: format!(
                "{} {} → as its parent, or the default",
                property.name,
                shown(&property.name, &property.value)
            ),
            interrupts: None,
            notes: Vec::new(),
            because: Because {
                layer: "datasets".to_owned(),
                line: None,
                reason: "the manifest no longer states it".to_owned(),
            },
            change: to_value(&Change::Inherit { dataset: name.clone(), property: property.name.clone() }),
        })
        .collect()
}

/// Whether a step is for a dataset.
pub(crate) fn is_dataset(step: &Step) -> bool {
    step.kind == Dataset::NAME
}

/// Whether a step makes the dataset that is mounted on `path`.
pub(crate) fn makes_a_dataset_at(step: &Step, path: &str) -> bool {
    is_dataset(step)
        && matches!(
            super::from_value(&step.change),
            Ok(Change::Create { mountpoint: Some(at), .. }) if at == path
        )
}

/// Where a change leaves a dataset to the node; `None`: it does no such thing. Inside, `None`: it is not mounted.
fn birth(kind: &str, change: &Value) -> Option<Option<String>> {
    if kind != Dataset::NAME {
        return None;
    }
    match super::from_value(change) {
        Ok(Change::Born { mountpoint, .. }) => Some(mountpoint),
        _ => None,
    }
}

/// Whether a change of this kind leaves a dataset to the node.
pub(crate) fn is_birth(kind: &str, change: &Value) -> bool {
    birth(kind, change).is_some()
}

/// Whether a step leaves the dataset that is mounted on `path` to the node.
pub(super) fn is_born_at(step: &Step, path: &str) -> bool {
    birth(&step.kind, &step.change).flatten().as_deref() == Some(path)
}

/// Whether a step of a plan is for a dataset that is in use already; those are snapshotted before the change.
pub(crate) fn is_there_already(step: &Step) -> bool {
    is_dataset(step) && step.action == Action::Change
}
