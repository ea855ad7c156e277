//! What an interrupted command has left: found by what it looks like, not by a journal, and removed by the next one.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::Action;
use crate::entries::{PER_FILE, SPARE, keep_default, remove_unneeded};
use crate::esp::{Entry, Esp};
use crate::look::{Environment, Looked, Unfinished};

/// What was left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// What removes it.
    pub actions: Vec<Action>,
    /// Bytes that come free, by boot partition.
    pub frees: BTreeMap<String, u64>,
    /// What it is, for a person.
    pub said: Vec<String>,
    /// Boot partitions that lack an environment which another one starts, and have room for it: one was replaced, or away.
    pub unequal: Vec<String>,
    /// What brings it to them, once the rest is done.
    pub equalizing: Vec<Action>,
}

/// Finds what was left. Nothing of it is needed by what starts.
pub fn leftovers(looked: &Looked) -> Leftovers {
    let mut found = Leftovers::default();
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    // What is brought to one is on it.
    let mut partitions = looked.partitions.clone();
    let mut datasets = Vec::new();
    let mut snapshots = Vec::new();
    for environment in looked.environments.iter().filter(|of| of.unfinished.is_some()) {
        let is_whole = looked.entry(&environment.dataset).is_some();
        let is_in_use = looked.protection(environment).is_some();
        let making = environment.unfinished == Some(Unfinished::Making);
        if is_in_use || (making && is_whole) {
            let entry = looked.entry(&environment.dataset);
            found.actions.extend(entry.into_iter().flat_map(|entry| equal(&mut partitions, entry).1));
            let dataset = environment.dataset.clone();
            found.actions.push(Action::Mark { dataset, state: None });
            continue;
        }
        if !environment.children.is_empty()
            || environment.snapshots.iter().any(|of| !of.clones.is_empty() || of.holds > 0)
        {
            continue;
        }
        let what = if making { "half-made" } else { "half-destroyed" };
        found.said.push(format!("`{}` is {what}", environment.name()));
        gone.insert(&environment.dataset);
        datasets.push(Action::Destroy { dataset: environment.dataset.clone() });
    }
    let is_settled = |of: &&Environment| of.unfinished.is_none() && of.trial.is_none();
    for environment in looked.environments.iter().filter(is_settled) {
        let entry = looked.entry(&environment.dataset).filter(|entry| entry.tries_left().is_none());
        let Some(entry) = entry else { continue };
        let (lacking, actions) = equal(&mut partitions, entry);
        let name = environment.name();
        found.unequal.extend(lacking.iter().map(|mount| format!("`{mount}` does not start `{name}`")));
        found.equalizing.extend(actions);
    }
    if !found.equalizing.is_empty() {
        found.equalizing.splice(..0, keep_default(looked));
    }
    for snapshot in looked.environments.iter().flat_map(|environment| &environment.snapshots) {
        let stays = snapshot.clones.iter().any(|clone| !gone.contains(clone.as_str()));
        let goes_anyway = gone.contains(snapshot.name.split('@').next().unwrap_or_default());
        if snapshot.made_for.is_some() && !stays && !goes_anyway && snapshot.holds == 0 {
            if snapshot.clones.is_empty() {
                found
                    .said
                    .push(format!("`{}` was taken for an environment that is not there", snapshot.name));
            }
            snapshots.push(Action::DestroySnapshot { snapshot: snapshot.name.clone() });
        }
    }
    let default = looked.default_id();
    let is_told = |entry: &Entry| {
        [&default, &looked.loader.once, &looked.loader.selected]
            .into_iter()
            .flatten()
            .any(|told| entry.is_meant_by(told))
    };
    let leaves = |entry: &Entry| {
        let Some(dataset) = entry.dataset() else {
            // What a power cut leaves of a new file on FAT. One that is replaced has a stand-in beside it.
            let stand_in = entry.file.replace(".conf", ".stand-in.conf");
            let is_empty = entry.entry == Default::default();
            let has_stand_in =
                looked.partitions.iter().flat_map(|esp| &esp.entries).any(|of| of.file == stand_in);
            return is_empty && !has_stand_in && !is_told(entry);
        };
        let is_there = looked.environments.iter().any(|of| of.dataset == dataset)
            || looked.others.iter().any(|of| of == dataset);
        let is_ours = dataset.rsplit_once('/').is_some_and(|(root, _)| root == looked.root);
        if has_passed(looked, entry, dataset) {
            return true;
        }
        gone.contains(dataset) || (is_ours && !is_there && !is_told(entry))
    };
    for esp in &looked.partitions {
        for entry in esp.entries.iter().filter(|entry| leaves(entry)) {
            let path = esp.entry_path(&entry.file);
            let is_written =
                |action: &Action| matches!(action, Action::Write { path: of, .. } if *of == path);
            if found.actions.iter().any(is_written) {
                continue;
            }
            match entry.dataset() {
                None => found.said.push(format!("`{path}` is empty")),
                Some(dataset) if has_passed(looked, entry, dataset) => {
                    found.said.push(format!("`{path}` counts tries of what has passed"));
                }
                Some(dataset) if !gone.contains(dataset) => {
                    found.said.push(format!("`{path}` starts an environment that is not there"));
                }
                Some(_) => {}
            }
            found.actions.push(Action::Remove { path });
        }
    }
    found.actions.extend(datasets);
    found.actions.extend(snapshots);
    for esp in &partitions {
        let (actions, bytes) = remove_unneeded(esp, leaves);
        if bytes > 0 {
            found.said.push(format!("`{}` has kernels that no entry needs", esp.mount));
        }
        found.actions.extend(actions);
        found.frees.insert(esp.mount.clone(), bytes);
    }
    found
}

/// Whether every boot partition has an entry beside this one that says the same and does not count.
fn has_passed(looked: &Looked, entry: &Entry, dataset: &str) -> bool {
    let beside = |of: &Entry| of.id == entry.id && of.tries_left().is_none();
    entry.tries_left().is_some()
        && looked
            .partitions
            .iter()
            .all(|esp| esp.entries_of(dataset).any(|of| beside(of) && esp.is_complete(of)))
}

/// What brings an entry, and what it boots from, to the boot partitions that lack its environment, where there is room; and which
/// ones those are.
fn equal(partitions: &mut [Esp], entry: &Entry) -> (Vec<String>, Vec<Action>) {
    let (mut lacking, mut actions) = (Vec::new(), Vec::new());
    let starts = |esp: &Esp| {
        entry.dataset().is_some_and(|dataset| esp.entries_of(dataset).any(|of| esp.is_complete(of)))
    };
    let has_it = |esp: &&Esp| esp.entries.contains(entry) && esp.is_complete(entry);
    let Some(from) = partitions.iter().find(has_it).cloned() else { return (lacking, actions) };
    for esp in partitions.iter_mut().filter(|esp| !starts(esp)) {
        let missing = entry.boot_files().filter(|file| esp.files.get(*file) != from.files.get(*file));
        let missing: Vec<_> = missing.filter_map(|file| Some((file, *from.files.get(file)?))).collect();
        let needed = missing.iter().map(|(_, size)| size + PER_FILE).sum::<u64>() + PER_FILE;
        if needed + SPARE > esp.free {
            continue;
        }
        let copies = missing.into_iter().map(|(file, size)| Action::Copy {
            from: from.path(file),
            to: esp.path(file),
            size,
        });
        let write = Action::Write { path: esp.entry_path(&entry.file), text: entry.entry.to_string() };
        let bring: Vec<Action> = copies.chain([write]).collect();
        bring.iter().for_each(|action| esp.after(action));
        esp.free -= needed;
        lacking.push(esp.mount.clone());
        actions.extend(bring);
    }
    (lacking, actions)
}
