//! What an interrupted command has left: found by what it looks like, not by a journal, and removed by the next one.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::Action;
use crate::entries::remove_unneeded;
use crate::equal::{Bring, bring, unequal};
use crate::esp::Entry;
use crate::look::{Looked, Unfinished};

/// What was left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// What removes it.
    pub actions: Vec<Action>,
    /// Bytes that come free, by boot partition.
    pub frees: BTreeMap<String, u64>,
    /// What it is, for a person.
    pub said: Vec<String>,
}

/// Finds what was left. Nothing of it is needed by what starts.
pub fn leftovers(looked: &Looked) -> Leftovers {
    let mut found = Leftovers::default();
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    // What is brought to one is on it, beside all that is there.
    let mut partitions = looked.partitions.clone();
    let mut datasets = Vec::new();
    let mut snapshots = Vec::new();
    for environment in looked.environments.iter().filter(|of| of.unfinished.is_some()) {
        let whole = looked.entry_on(&environment.dataset, |_| true);
        let is_in_use = looked.protection(environment).is_some();
        let making = environment.unfinished == Some(Unfinished::Making);
        if is_in_use || (making && whole.is_some()) {
            for esp in &mut partitions {
                let by = whole.map(|(from, entry)| bring(from, entry, esp));
                if let Some(Bring::By(actions)) = by {
                    actions.iter().for_each(|action| esp.gains(action));
                    found.actions.extend(actions);
                }
            }
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
    let brought = unequal(looked).actions;
    for esp in &mut partitions {
        brought.iter().for_each(|action| esp.gains(action));
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
