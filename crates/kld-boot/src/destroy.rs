//! Destroying an environment. Its entry goes first: what the menu shows can be started at any instant.

use crate::action::{Action, Freed, Plan};
use crate::entries::remove_unneeded;
use crate::error::BootError;
use crate::look::{Environment, Looked, Snapshot, Unfinished};

/// Who takes over what others were made from.
struct Heir<'a> {
    environment: &'a Environment,
    /// The snapshot it was made from; this one and all before it go over to it.
    snapshot: &'a Snapshot,
}

fn heir<'a>(looked: &'a Looked, leaving: &'a Environment) -> Result<Option<Heir<'a>>, BootError> {
    let mut newest = None;
    for snapshot in &leaving.snapshots {
        for clone in &snapshot.clones {
            let environment = looked.environments.iter().find(|of| of.dataset == *clone);
            let environment = environment.ok_or_else(|| BootError::Dependent {
                clone: clone.clone(),
                snapshot: snapshot.name.clone(),
            })?;
            newest = Some(Heir { environment, snapshot });
        }
    }
    let Some(heir) = newest else { return Ok(None) };
    let moving = leaving.snapshots.iter().filter(|of| of.txg <= heir.snapshot.txg);
    for snapshot in moving {
        if heir.environment.snapshots.iter().any(|of| of.short() == snapshot.short()) {
            return Err(BootError::Collision {
                heir: heir.environment.dataset.clone(),
                name: leaving.dataset.clone(),
                snapshot: snapshot.short().to_owned(),
            });
        }
    }
    Ok(Some(heir))
}

/// What destroys an environment, its snapshots, the snapshot that was taken for it, its entries, and kernels that no other
/// entry needs. When others were made from its snapshots, the newest of them is promoted first.
///
/// # Errors
/// When it runs, starts next, is the last that was well or is mounted; when something that is no environment depends on
/// it; when somebody holds a snapshot.
pub fn plan_destroy(looked: &Looked, name: &str) -> Result<Plan, BootError> {
    let environment = looked.environment(name)?;
    looked.must_be_free(environment)?;
    plan(looked, environment)
}

/// What would come free with an environment, also with one that must stay; `None` when it could not be destroyed anyway.
pub fn frees(looked: &Looked, environment: &Environment) -> Option<Freed> {
    Some(plan(looked, environment).ok()?.frees)
}

fn plan(looked: &Looked, environment: &Environment) -> Result<Plan, BootError> {
    let name = environment.name();
    if let Some(child) = environment.children.first() {
        return Err(BootError::HasChildren { name: name.to_owned(), child: child.clone() });
    }
    let heir = heir(looked, environment)?;
    let stays = |of: &&Snapshot| heir.as_ref().is_none_or(|heir| of.txg > heir.snapshot.txg);
    let going: Vec<&Snapshot> = environment.snapshots.iter().filter(stays).collect();
    if let Some(held) = going.iter().find(|of| of.holds > 0) {
        return Err(BootError::Held { snapshot: held.name.clone() });
    }

    let dataset = environment.dataset.clone();
    let mut actions = Vec::new();
    if let Some(heir) = &heir {
        actions.push(Action::Promote { dataset: heir.environment.dataset.clone() });
    }
    actions.push(Action::Mark { dataset: dataset.clone(), state: Some(Unfinished::Leaving) });
    for esp in &looked.partitions {
        let entries = esp.entries.iter().filter(|entry| entry.dataset() == Some(&dataset));
        actions.extend(entries.map(|entry| Action::Remove { path: esp.entry_path(&entry.file) }));
    }
    actions.push(Action::Destroy { dataset: dataset.clone() });
    let mut frees = match &heir {
        None => Freed { bytes: environment.used, at_least: false },
        Some(_) => {
            Freed { bytes: environment.own + going.iter().map(|of| of.used).sum::<u64>(), at_least: true }
        }
    };
    let is_spent = |snapshot: &Snapshot| {
        snapshot.made_for.is_some() && snapshot.holds == 0 && snapshot.clones.len() == 1
    };
    match &heir {
        Some(heir) if is_spent(heir.snapshot) => {
            let snapshot = format!("{}@{}", heir.environment.dataset, heir.snapshot.short());
            actions.push(Action::DestroySnapshot { snapshot });
        }
        Some(_) => {}
        None => {
            let origin = environment.origin.as_ref().and_then(|origin| looked.snapshot(origin));
            if let Some((_, snapshot)) = origin.filter(|(_, snapshot)| is_spent(snapshot)) {
                frees.bytes += snapshot.used;
                actions.push(Action::DestroySnapshot { snapshot: snapshot.name.clone() });
            }
        }
    }
    for esp in &looked.partitions {
        actions.extend(remove_unneeded(esp, |entry| entry.dataset() == Some(&dataset)).0);
    }
    Ok(Plan { actions, frees })
}
