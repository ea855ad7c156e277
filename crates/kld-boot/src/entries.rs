//! Entries and kernels of an environment on every boot partition: the same on each, and room for them before anything is
//! written.

use std::collections::BTreeMap;

use kld_disk::BootEntry;

use crate::action::Action;
use crate::error::BootError;
use crate::esp::{Entry, Esp, dataset_of};
use crate::kernel::Kernel;
use crate::loader;
use crate::look::Looked;
use crate::trial;

/// What FAT may take more than a file has bytes: a cluster for the file and one for its directory.
pub(crate) const PER_FILE: u64 = 128 << 10;
/// What stays free on a boot partition, for the entries of others.
pub(crate) const SPARE: u64 = 1 << 20;

/// Gives an entry another dataset, in the words that it used.
pub(crate) fn set_dataset(entry: &mut BootEntry, dataset: &str) {
    let zfs = entry.option("root").is_some_and(|root| root.starts_with("zfs:"));
    if entry.option("root").is_none() && entry.option("zfs").is_some() {
        entry.set_option("zfs", dataset);
    } else if zfs {
        entry.set_option("root", &format!("zfs:{dataset}"));
    } else {
        entry.set_option("root", &format!("ZFS={dataset}"));
    }
}

/// What the title of an entry is without the name of its environment.
fn bare_title<'a>(entry: &'a BootEntry, name: &str) -> &'a str {
    let title = entry.get("title").unwrap_or("Linux");
    title.strip_suffix(name).and_then(|rest| rest.strip_suffix(", ")).unwrap_or(title)
}

/// An entry for an environment after the model of another's.
pub(crate) fn entry_after(model: &BootEntry, model_name: &str, dataset: &str, kernel: &Kernel) -> BootEntry {
    let name = dataset.rsplit_once('/').map_or(dataset, |(_, name)| name);
    let mut entry = model.clone();
    entry.set("title", [&*format!("{}, {name}", bare_title(model, model_name))]);
    entry.set("version", [&*kernel.version]);
    entry.set("sort-key", [&*name.to_ascii_lowercase()]);
    entry.set("linux", [&*kernel.linux.target]);
    // The last one is the environment's; those before it are of the machine, as microcode is.
    let mut initrds: Vec<&str> = model.get_all("initrd").collect();
    initrds.pop();
    initrds.push(&kernel.initrd.target);
    entry.set("initrd", initrds);
    set_dataset(&mut entry, dataset);
    trial::without_options(&entry)
}

/// Without a default the loader takes the first of its menu, which an entry with another name may become; with the one that
/// was started last for a default, it goes on with one that was only tried. What names the one that would start now, on the
/// boot partitions that do not: the last one, else the one that runs.
pub(crate) fn keep_default(looked: &Looked) -> Vec<Action> {
    let last = || {
        let id = looked.default_id().filter(|_| looked.starts_the_last())?;
        looked.partitions.iter().flat_map(|esp| &esp.entries).find(|entry| entry.id == id)
    };
    let running = || looked.running().and_then(|running| looked.entry(&running.dataset));
    // What is on trial is never the default.
    let is_plain = |entry: &&Entry| entry.tries_left().is_none();
    let Some(kept) = last().filter(is_plain).or_else(|| running().filter(is_plain)) else {
        return Vec::new();
    };
    let by_variable = looked.loader.default.as_deref().is_some_and(loader::is_saved);
    let says_another = |esp: &&Esp| match loader::default_of(&esp.conf) {
        // Nobody has read it, as long as the variable was there.
        Some(default) if by_variable => default != kept.id,
        Some(default) => loader::is_saved(default),
        None => true,
    };
    let writes = looked
        .partitions
        .iter()
        .filter(says_another)
        .map(|esp| Action::Write { path: esp.conf_path(), text: loader::with_default(&esp.conf, &kept.id) });
    // FAT may lose a file that is replaced. Until the new one is on disk, the firmware holds what starts.
    let holds = looked.loader.has_variables() && looked.starts_the_last();
    let variable = |entry: Option<&str>| {
        let entry = entry.map(str::to_owned);
        holds.then_some(Action::DefaultVariable { entry })
    };
    variable(Some(&kept.id)).into_iter().chain(writes).chain(variable(None)).collect()
}

/// What it takes until every boot partition has the entry of a dataset and what it boots from, and until the loader does not
/// start it for that. `given_up` are bytes that come free on each partition before.
pub(crate) fn complete(
    looked: &Looked,
    file: &str,
    entry: &BootEntry,
    kernel: &Kernel,
    given_up: &BTreeMap<String, u64>,
) -> Result<Vec<Action>, BootError> {
    let mut actions = Vec::new();
    for esp in &looked.partitions {
        let own = dataset_of(entry).map(|dataset| esp.entries_of(dataset).any(|of| esp.is_complete(of)));
        if own == Some(true) {
            continue;
        }
        let sources = [&kernel.linux, &kernel.initrd];
        let missing = sources.into_iter().filter(|of| esp.files.get(&of.target) != Some(&of.size));
        let missing: Vec<_> = missing.collect();
        let needed = missing.iter().map(|source| source.size + PER_FILE).sum::<u64>() + PER_FILE;
        let free = esp.free + given_up.get(&esp.mount).copied().unwrap_or(0);
        if needed + SPARE > free {
            let would_free = own_kernels(looked, esp);
            return Err(BootError::Full {
                mount: esp.mount.clone(),
                free,
                needed: needed + SPARE,
                would_free,
            });
        }
        actions.extend(missing.iter().map(|source| Action::Copy {
            from: source.path.clone(),
            to: esp.path(&source.target),
            size: source.size,
        }));
        actions.push(Action::Write { path: esp.entry_path(file), text: entry.to_string() });
    }
    if !actions.is_empty() {
        actions.splice(..0, keep_default(looked));
    }
    Ok(actions)
}

/// Environments that could go, and the bytes of their kernels that nobody else uses.
fn own_kernels(looked: &Looked, esp: &Esp) -> Vec<(String, u64)> {
    let could_go = looked.environments.iter().filter(|of| looked.protection(of).is_none());
    let size = |dataset: &str| -> u64 {
        esp.unneeded(|entry| entry.dataset() == Some(dataset)).iter().map(|(_, size)| size).sum()
    };
    could_go.map(|of| (of.name().to_owned(), size(&of.dataset))).filter(|(_, size)| *size > 0).collect()
}

/// What removes the files of a boot partition that only these entries need, and the directories that were theirs.
pub(crate) fn remove_unneeded(esp: &Esp, leaves: impl Fn(&Entry) -> bool) -> (Vec<Action>, u64) {
    let unneeded = esp.unneeded(leaves);
    let directory = |path: &str| path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
    let mut actions: Vec<Action> =
        unneeded.iter().map(|(path, _)| Action::Remove { path: esp.path(path) }).collect();
    let mut directories: Vec<String> = unneeded.iter().map(|(path, _)| directory(path)).collect();
    directories.dedup();
    let stays = |of: &String| {
        let all = esp.files.keys().filter(|path| directory(path) == *of);
        all.into_iter().any(|path| !unneeded.iter().any(|(gone, _)| gone == path))
    };
    directories.retain(|of| !stays(of));
    actions.extend(directories.into_iter().map(|of| Action::Remove { path: esp.path(&of) }));
    (actions, unneeded.iter().map(|(_, size)| size).sum())
}
