//! Environments that are changed before they first start, and must prove themselves when they do.
//!
//! [`try_out`] makes a clone without an entry, marked as half-made, and has it changed: until it is finished, nothing starts
//! it, and what a kill leaves of it is cleared like every half-made environment. Then it gets an entry with one try, and the
//! loader is told to take it once. `loader.conf` goes on naming the old one, so whatever the new one does, the start after it
//! is as before; that needs no help of the new one. [`pass_trial`], said by the new one when it is well, makes it the
//! default; [`fail_trial`] remembers why it is not.

use std::fmt;

use kld_disk::BootEntry;
use kld_host::{mounts, zfs};

use crate::action::{Action, Plan, carry_out};
use crate::activate::{Starts, activate, plan_activate};
use crate::create::{Origin, give_up, model, properties, request, take};
use crate::entries::{complete, entry_after};
use crate::error::BootError;
use crate::esp::mounts;
use crate::good::plan_good;
use crate::kernel;
use crate::loader;
use crate::look::{Environment, Looked, Maker, TRIAL};
use crate::machine::{Machine, MachineError};
use crate::mount::{SOURCE, mount_for_a_look, unmount};
use crate::name::BootEnvironmentName;

/// On the kernel's command line of what is on trial: a panic, also one of the initial RAM file system, restarts the machine.
const OPTIONS: &str = "panic=10";

/// What an environment that was changed has still to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// It must be started and found well.
    Waiting,
    /// It was started, and not well.
    Failed(String),
}

impl Trial {
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once(' ') {
            Some(("failed", reason)) => Self::Failed(reason.to_owned()),
            _ if text == "waiting" => Self::Waiting,
            _ => Self::Failed(text.to_owned()),
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting"),
            Self::Failed(reason) => write!(f, "failed {reason}"),
        }
    }
}

impl Looked {
    /// Whether the loader has started an environment that is on trial; the loader itself counts.
    pub fn was_tried(&self, environment: &Environment) -> bool {
        let entries = self.partitions.iter().flat_map(|esp| esp.entries_of(&environment.dataset));
        environment.trial.is_some() && entries.into_iter().any(|entry| entry.tries_left() == Some(0))
    }
}

/// Clones an environment, has the clone changed, and lets it start next, once. `change` is given the clone's dataset, which
/// is mounted nowhere, and says the release of the kernel that it will start with, or nothing when it has changed nothing.
/// Returns whether there is something to try; when there is not, or something fails, the clone is gone again.
///
/// # Errors
/// As [`crate::create`]; when the loader cannot start one once; what `change` says; [`BootError::NotTaken`].
pub fn try_out<E: From<BootError>>(
    machine: &dyn Machine,
    name: &BootEnvironmentName,
    from: &Origin,
    change: impl FnOnce(&str) -> Result<Option<String>, E>,
    progress: &mut dyn FnMut(&Action),
) -> Result<bool, E> {
    let dataset = begin(machine, name, from, progress)?;
    let tried = change(&dataset).and_then(|release| {
        if let Some(release) = &release {
            start(machine, name, release, progress)?;
        }
        Ok(release.is_some())
    });
    if !matches!(tried, Ok(true)) {
        // The first error is the one to tell; what cannot be removed now is found by the next command.
        let _ = abandon(machine, &dataset);
    }
    tried
}

/// Clones an environment that will be changed: no entry, marked as half-made. Returns its dataset.
fn begin(
    machine: &dyn Machine,
    name: &BootEnvironmentName,
    from: &Origin,
    progress: &mut dyn FnMut(&Action),
) -> Result<String, BootError> {
    let looked = Looked::before_change(machine)?;
    if !looked.loader.has_variables() {
        return Err(BootError::NoOneShot { reason: "the firmware's variables are not there" });
    }
    if !looked.loader.one_shot {
        return Err(BootError::NoOneShot { reason: "it is too old" });
    }
    let request = request(&looked, name, from, machine.now())?;
    model(&looked, request.origin)?;
    let mut properties = properties(machine, request.origin, Maker::Person)?;
    properties.push((TRIAL.to_owned(), Trial::Waiting.to_string()));
    let mut actions = request.left.actions.clone();
    actions.extend(matches!(from, Origin::Running | Origin::Environment(_)).then(|| take(&request, name)));
    let (snapshot, dataset) = (request.snapshot.clone(), request.dataset.clone());
    actions.push(Action::Clone { snapshot, dataset: dataset.clone(), properties });
    let made = carry_out(machine, &Plan { actions, ..Plan::default() }, progress);
    if made.is_err() {
        // The first error is the one to tell; what cannot be removed now is found by the next command.
        let _ = give_up(machine, &dataset);
    }
    made?;
    Ok(dataset)
}

/// Destroys a clone that is not finished.
fn abandon(machine: &dyn Machine, dataset: &str) -> Result<(), BootError> {
    unmount(machine, SOURCE)?;
    give_up(machine, dataset)
}

/// Gives a changed clone its kernel, of this release, and its entry on every boot partition, and starts it next, once.
fn start(
    machine: &dyn Machine,
    name: &BootEnvironmentName,
    release: &str,
    progress: &mut dyn FnMut(&Action),
) -> Result<(), BootError> {
    let looked = Looked::before_change(machine)?;
    let environment = looked.environment(name.as_str())?;
    mount_for_a_look(machine, &environment.dataset)?;
    let entered = enter(machine, &looked, environment, name, release, progress);
    let unmounted = unmount(machine, SOURCE);
    entered?;
    unmounted?;
    activate(machine, name.as_str(), Starts::Once, progress)?;
    Ok(())
}

fn enter(
    machine: &dyn Machine,
    looked: &Looked,
    environment: &Environment,
    name: &BootEnvironmentName,
    release: &str,
    progress: &mut dyn FnMut(&Action),
) -> Result<(), BootError> {
    let kernel = kernel::find(machine, SOURCE, Some(release))?.filter(|of| of.version == release);
    let kernel = kernel.ok_or_else(|| BootError::NoKernel { name: name.to_string() })?;
    let running = looked.running();
    let origin = running.ok_or_else(|| BootError::NoModel { dataset: environment.dataset.clone() })?;
    let (model, model_name) = model(looked, origin)?;
    let entry = with_options(&entry_after(model, model_name, &environment.dataset, &kernel));
    let file = loader::file_on_trial(&name.entry_id());
    let mut actions = complete(looked, &file, &entry, &kernel, &Default::default())?;
    actions.push(Action::Mark { dataset: environment.dataset.clone(), state: None });
    Ok(carry_out(machine, &Plan { actions, ..Plan::default() }, progress)?)
}

/// Says that the running environment, which was on trial, is well: it starts from now on. Returns its name.
///
/// # Errors
/// As [`activate`] and [`crate::plan_good`].
pub fn pass_trial(machine: &dyn Machine, progress: &mut dyn FnMut(&Action)) -> Result<String, BootError> {
    let looked = Looked::before_change(machine)?;
    let running = looked.running().ok_or_else(|| BootError::NoModel { dataset: looked.root.clone() })?;
    activate(machine, running.name(), Starts::Always, progress)?;
    let (good, name) = plan_good(machine)?;
    carry_out(machine, &good, progress)?;
    carry_out(machine, &end_of_trial(running), progress)?;
    Ok(name)
}

/// What [`pass_trial`] would do, and to which.
///
/// # Errors
/// What cannot be read, and what [`activate`] would refuse.
pub fn plan_pass_trial(machine: &dyn Machine) -> Result<(Plan, String), BootError> {
    let looked = Looked::before_change(machine)?;
    let running = looked.running().ok_or_else(|| BootError::NoModel { dataset: looked.root.clone() })?;
    let mut plan = plan_activate(machine, running.name(), Starts::Always)?;
    let (good, name) = plan_good(machine)?;
    plan.actions.extend(good.actions.into_iter().chain(end_of_trial(running).actions));
    Ok((plan, name))
}

fn end_of_trial(of: &Environment) -> Plan {
    let done = Action::Trial { dataset: of.dataset.clone(), trial: None };
    Plan { actions: vec![done], ..Plan::default() }
}

/// Whether what runs must prove itself. One that has failed has not: it is there to be looked into. Only the pool is asked, so
/// that a boot partition that is away makes no trial of what has none.
///
/// # Errors
/// When ZFS does not say.
pub fn is_on_trial(machine: &dyn Machine) -> Result<bool, MachineError> {
    let mounted = mounts(machine)?;
    let Some(root) = mounts::mounted_on(&mounted, "/").filter(|mount| mount.kind == "zfs") else {
        return Ok(false);
    };
    let properties = zfs::parse_get(&machine.run(&zfs::get_cmd(&root.source, &[TRIAL], false))?)?;
    let trial = properties.iter().find(|of| of.name == TRIAL && of.value != "-");
    Ok(trial.is_some_and(|of| Trial::parse(&of.value) == Trial::Waiting))
}

/// Remembers why the running environment, which was on trial, is not well, and sees to it that another one starts next.
///
/// # Errors
/// What the machine refuses. The reason is written first, with no look at anything but what runs.
pub fn fail_trial(
    machine: &dyn Machine,
    reason: &str,
    progress: &mut dyn FnMut(&Action),
) -> Result<(), BootError> {
    let mounted = mounts(machine)?;
    let root = mounts::mounted_on(&mounted, "/");
    let dataset = root.map(|mount| mount.source.clone()).unwrap_or_default();
    let failed = Action::Trial { dataset: dataset.clone(), trial: Some(Trial::Failed(one_line(reason))) };
    carry_out(machine, &Plan { actions: vec![failed], ..Plan::default() }, progress)?;
    let looked = Looked::before_change(machine)?;
    // It was made the default by a person, or by a `pass_trial` that the power cut off.
    if looked.default_environment().is_some_and(|of| of.dataset == dataset)
        && let Some(back) = way_back(&looked, &dataset)
    {
        activate(machine, &back, Starts::Always, progress)?;
    }
    Ok(())
}

/// What starts instead: the last that was well, else what the failed one was made from, else the newest of the others.
fn way_back(looked: &Looked, failed: &str) -> Option<String> {
    let others = || {
        let whole = |of: &&Environment| of.trial.is_none() && looked.entry(&of.dataset).is_some();
        looked.environments.iter().filter(|of| of.dataset != failed).filter(whole)
    };
    let good = others().filter(|of| of.good.is_some()).max_by_key(|of| of.good.as_ref().map(|good| good.at));
    let origin = looked.environments.iter().find(|of| of.dataset == failed).and_then(|of| of.origin.clone());
    let parent = origin.as_deref().and_then(|origin| origin.split('@').next());
    let parent = || others().find(|of| Some(of.dataset.as_str()) == parent);
    good.or_else(parent).or_else(|| others().next_back()).map(|of| of.name().to_owned())
}

/// A property holds one line of at most 8 KiB.
fn one_line(reason: &str) -> String {
    let words: Vec<&str> = reason.split_whitespace().collect();
    words.join(" ").chars().take(1000).collect()
}

/// What makes the entries of a dataset plain: the plain ones, and afterwards the removal of those that count.
pub(crate) fn settle(looked: &Looked, dataset: &str) -> (Vec<Action>, Vec<Action>) {
    let (mut plain, mut counted) = (Vec::new(), Vec::new());
    for esp in &looked.partitions {
        for entry in esp.entries_of(dataset) {
            let bare = without_options(&entry.entry);
            let counts = entry.tries_left().is_some();
            let is_there = |of: &crate::esp::Entry| of.file == entry.id && of.entry == bare;
            if (counts || bare != entry.entry) && !esp.entries.iter().any(is_there) {
                plain.push(Action::Write { path: esp.entry_path(&entry.id), text: bare.to_string() });
            }
            if counts {
                counted.push(Action::Remove { path: esp.entry_path(&entry.file) });
            }
        }
    }
    (plain, counted)
}

/// An entry with what is said of something on trial, on a line of its own.
fn with_options(entry: &BootEntry) -> BootEntry {
    let mut entry = entry.clone();
    let mut lines: Vec<String> = entry.get_all("options").map(str::to_owned).collect();
    lines.push(OPTIONS.to_owned());
    set_options(&mut entry, &lines);
    entry
}

/// An entry without that line.
pub(crate) fn without_options(entry: &BootEntry) -> BootEntry {
    let mut lines: Vec<String> = entry.get_all("options").map(str::to_owned).collect();
    if lines.len() < 2 || lines.last().is_none_or(|last| last != OPTIONS) {
        return entry.clone();
    }
    lines.pop();
    let mut entry = entry.clone();
    set_options(&mut entry, &lines);
    entry
}

fn set_options(entry: &mut BootEntry, lines: &[String]) {
    entry.set("options", lines.iter().map(String::as_str));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_remembered_in_words() {
        for trial in [Trial::Waiting, Trial::Failed("services: app.service failed".to_owned())] {
            assert_eq!(Trial::parse(&trial.to_string()), trial);
        }
        assert_eq!(one_line("a\n  b\tc "), "a b c");
    }

    #[test]
    fn what_is_said_of_a_trial_comes_and_goes() {
        let entry =
            BootEntry::from_fields([("title", "x"), ("options", "root=ZFS=a/b quiet"), ("version", "6")]);
        let on_trial = with_options(&entry);
        assert_eq!(
            on_trial.to_string(),
            "title x\noptions root=ZFS=a/b quiet\noptions panic=10\nversion 6\n"
        );
        assert_eq!(without_options(&on_trial), entry);
        assert_eq!(without_options(&entry), entry);
        let mine = BootEntry::from_fields([("options", "panic=10")]);
        assert_eq!(without_options(&mine), mine);
    }
}
