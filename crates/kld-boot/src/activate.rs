//! Saying what starts next.

use crate::action::{Action, Plan, carry_out};
use crate::create::model;
use crate::entries::{complete, entry_after, keep_default};
use crate::error::BootError;
use crate::esp::Esp;
use crate::kernel;
use crate::loader;
use crate::look::{Looked, Maker, Unfinished};
use crate::machine::Machine;
use crate::mount::{SOURCE, while_mounted};
use crate::name::BootEnvironmentName;
use crate::trial;

/// How long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// Until another is activated.
    Always,
    /// The next time only.
    Once,
}

/// What [`activate`] would do.
///
/// # Errors
/// As [`activate`], but for what is only seen when it is done.
pub fn plan_activate(machine: &dyn Machine, name: &str, starts: Starts) -> Result<Plan, BootError> {
    let looked = Looked::before_change(machine)?;
    let mut plan = make_complete(machine, &looked, name, |_| Ok(()))?;
    plan.actions.extend(tell(&looked.after(&plan), name, starts)?.actions);
    Ok(plan)
}

/// What tells the loader. Every boot partition must have the environment's entry and kernel already: see [`make_complete`].
fn tell(looked: &Looked, name: &str, starts: Starts) -> Result<Plan, BootError> {
    let environment = looked.environment(name)?;
    if environment.unfinished == Some(Unfinished::Leaving) {
        return Err(BootError::HalfMade { name: name.to_owned() });
    }
    let entry = looked.entry(&environment.dataset);
    let entry = entry.ok_or_else(|| BootError::NoModel { dataset: environment.dataset.clone() })?;
    let id = entry.id.clone();
    let mut plan = Plan::default();
    if starts == Starts::Once {
        if !looked.loader.has_variables() {
            return Err(BootError::NoOneShot { reason: "the firmware's variables are not there" });
        }
        if !looked.loader.one_shot {
            return Err(BootError::NoOneShot { reason: "it is too old" });
        }
        let told = match entry.tries_left() {
            Some(_) => {
                plan.actions.extend(keep_default(looked));
                looked.meant_alone(&id)
            }
            None => id,
        };
        if !looked.loader.once.as_ref().is_some_and(|once| once.eq_ignore_ascii_case(&told)) {
            plan.actions.push(Action::Once { entry: Some(told) });
        }
        return Ok(plan);
    }
    if environment.maker == Maker::Apply {
        plan.actions.push(Action::Claim { dataset: environment.dataset.clone() });
    }
    let (plain, counted) = trial::settle(looked, &environment.dataset);
    plan.actions.extend(plain);
    if looked.bootfs.as_ref().is_some_and(|bootfs| *bootfs != environment.dataset) {
        plan.actions.push(Action::Bootfs { dataset: environment.dataset.clone() });
    }
    let old = looked.default_id().or_else(|| looked.loader.selected.clone());
    let conf_is_right = |conf: &str| loader::default_of(conf) == Some(&*id);
    let stale: Vec<_> = looked.partitions.iter().filter(|esp| !conf_is_right(&esp.conf)).collect();
    // FAT may lose a file that is replaced. Until the new one is on disk, the firmware holds what starts.
    let holds = looked.loader.has_variables() && !stale.is_empty();
    if let Some(old) = old.filter(|old| holds && looked.loader.default.as_ref() != Some(old)) {
        plan.actions.push(Action::DefaultVariable { entry: Some(old) });
    }
    plan.actions.extend(
        stale
            .iter()
            .map(|esp| Action::Write { path: esp.conf_path(), text: loader::with_default(&esp.conf, &id) }),
    );
    if holds || looked.loader.default.is_some() {
        plan.actions.push(Action::DefaultVariable { entry: None });
    }
    if looked.loader.once.is_some() {
        plan.actions.push(Action::Once { entry: None });
    }
    plan.actions.extend(counted);
    Ok(plan)
}

/// What gives an environment its entry and kernel on every boot partition that lacks them; nothing when none does. `at` is
/// where it is mounted.
fn plan_complete(machine: &dyn Machine, looked: &Looked, name: &str, at: &str) -> Result<Plan, BootError> {
    let environment = looked.environment(name)?;
    let valid: BootEnvironmentName = name.parse()?;
    let own = looked.entry(&environment.dataset);
    let release = own.and_then(|entry| entry.entry.get("version"));
    let kernel = kernel::find(machine, at, release)?;
    let kernel = kernel.ok_or_else(|| BootError::NoKernel { name: name.to_owned() })?;
    let (model, model_name) = model(looked, environment)?;
    let entry = entry_after(model, model_name, &environment.dataset, &kernel);
    let file = own.map_or_else(|| valid.entry_id(), |own| own.file.clone());
    for esp in looked.partitions.iter().filter(|esp| !has(esp, &environment.dataset)) {
        if let Some(taken) = esp.taken(&loader::id_of(&file), &environment.dataset) {
            return Err(BootError::EntryTaken { path: esp.entry_path(&taken.file) });
        }
    }
    let actions = complete(looked, &file, &entry, &kernel, &Default::default())?;
    Ok(Plan { actions, ..Plan::default() })
}

/// Plans what every boot partition lacks of an environment, and has it done while the environment is mounted.
fn make_complete(
    machine: &dyn Machine,
    looked: &Looked,
    name: &str,
    act: impl FnOnce(&Plan) -> Result<(), BootError>,
) -> Result<Plan, BootError> {
    let environment = looked.environment(name)?;
    if environment.unfinished.is_some() && looked.entry(&environment.dataset).is_none() {
        return Err(BootError::HalfMade { name: name.to_owned() });
    }
    if is_complete(looked, &environment.dataset) {
        return Ok(Plan::default());
    }
    while_mounted(machine, &environment.dataset, SOURCE, |at| {
        let plan = plan_complete(machine, looked, name, at)?;
        act(&plan)?;
        Ok(plan)
    })
}

/// Whether every boot partition can start an environment.
fn is_complete(looked: &Looked, dataset: &str) -> bool {
    looked.partitions.iter().all(|esp| has(esp, dataset))
}

fn has(esp: &Esp, dataset: &str) -> bool {
    esp.entries_of(dataset).any(|entry| esp.is_complete(entry))
}

/// Activates an environment: gives every boot partition its entry and kernel where they are missing, tells the loader,
/// and looks whether that is what it will do. Returns what was done; nothing when it was so already.
///
/// # Errors
/// When there is no such environment, it has no kernel or no entry can be made for it, the loader cannot do it,
/// [`BootError::NotTaken`] when it will start something else all the same, and what the machine refuses.
pub fn activate(
    machine: &dyn Machine,
    name: &str,
    starts: Starts,
    progress: &mut dyn FnMut(&Action),
) -> Result<Plan, BootError> {
    let mut looked = Looked::before_change(machine)?;
    let mut done =
        make_complete(machine, &looked, name, |plan| Ok(carry_out(machine, plan, &mut *progress)?))?;
    if !done.actions.is_empty() {
        looked = Looked::at(machine)?;
    }
    let plan = tell(&looked, name, starts)?;
    carry_out(machine, &plan, progress)?;
    done.actions.extend(plan.actions);

    let looked = Looked::at(machine)?;
    let would = match starts {
        Starts::Always => looked.once().or_else(|| looked.default_environment()),
        Starts::Once => looked.once(),
    };
    let would = would.map(|of| of.name().to_owned());
    if would.as_deref() != Some(name) {
        return Err(BootError::NotTaken { would });
    }
    Ok(done)
}
