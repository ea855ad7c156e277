//! Making an environment: a clone, its kernel on the boot partitions, its entry.
//!
//! What starts is not touched, and the entry comes last, so that a crash leaves nothing worse than a dataset, a snapshot or
//! a kernel too much. [`crate::leftovers`] finds them; the mark on the dataset tells one that was never finished from one
//! that somebody made by hand.

use kld_disk::esp::civil_from_days;
use kld_host::zfs;

use crate::action::{Action, Plan, carry_out};
use crate::clean::{Leftovers, leftovers};
use crate::entries::{complete, entry_after};
use crate::error::BootError;
use crate::kernel::{self, Kernel};
use crate::look::{Environment, Looked, MADE_BY, Maker, Unfinished};
use crate::machine::{Machine, MachineError};
use crate::mount::{SOURCE, mount_for_a_look, unmount};
use crate::name::BootEnvironmentName;

/// What an environment is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The system that runs, as it is now.
    Running,
    /// Another environment, as it is now.
    Environment(String),
    /// A snapshot: `rpool/ROOT/debian@install`, `debian@install`, or `@install` of the system that runs.
    Snapshot(String),
}

impl Origin {
    /// Reads what a person wrote behind `--from`.
    pub fn parse(text: &str) -> Self {
        match text.contains('@') {
            true => Self::Snapshot(text.to_owned()),
            false => Self::Environment(text.to_owned()),
        }
    }
}

/// Properties that a clone takes from its origin by itself, or must not share with it.
const NOT_COPIED: [&str; 12] = [
    "mountpoint",
    "canmount",
    "casesensitivity",
    "encryption",
    "keyformat",
    "keylocation",
    "normalization",
    "pbkdf2iters",
    "utf8only",
    "volblocksize",
    "sharenfs",
    "sharesmb",
];
/// What `kbe` itself remembers in properties.
const OURS: &str = "org.kldload:kbe-";

/// A creation that nothing speaks against but the room on the boot partitions.
pub(crate) struct Request<'a> {
    pub(crate) dataset: String,
    file: String,
    pub(crate) origin: &'a Environment,
    /// What it is cloned from.
    pub(crate) snapshot: String,
    /// Whether the snapshot has to be taken.
    takes: bool,
    pub(crate) left: Leftovers,
}

/// The dataset of a new environment, when neither it nor its entry is there already.
pub(crate) fn free_name(
    looked: &Looked,
    name: &BootEnvironmentName,
    left: &Leftovers,
) -> Result<String, BootError> {
    let dataset = format!("{}/{name}", looked.root);
    let goes = |dataset: &str| {
        left.actions.iter().any(|action| matches!(action, Action::Destroy { dataset: of } if of == dataset))
    };
    let file = name.entry_id();
    let taken = looked
        .environments
        .iter()
        .find(|of| of.name().eq_ignore_ascii_case(name.as_str()) && !goes(&of.dataset));
    if let Some(taken) = taken {
        return Err(BootError::Exists { name: taken.name().to_owned() });
    }
    if looked.others.contains(&dataset) {
        return Err(BootError::Exists { name: name.to_string() });
    }
    for esp in &looked.partitions {
        let path = esp.entry_path(&file);
        let removed = left.actions.contains(&Action::Remove { path: path.clone() });
        // One that starts nothing is what a power cut leaves of a file.
        let is_other = |entry: &&crate::esp::Entry| {
            entry.id.eq_ignore_ascii_case(&file) && entry.entry.get("linux").is_some()
        };
        if !removed && esp.entries.iter().any(|entry| is_other(&entry)) {
            return Err(BootError::EntryTaken { path });
        }
    }
    Ok(dataset)
}

pub(crate) fn request<'a>(
    looked: &'a Looked,
    name: &BootEnvironmentName,
    from: &Origin,
    now: u64,
) -> Result<Request<'a>, BootError> {
    let left = leftovers(looked);
    let dataset = free_name(looked, name, &left)?;
    let file = name.entry_id();
    let running = || looked.running().ok_or_else(|| BootError::NoModel { dataset: looked.root.clone() });
    let (origin, snapshot) = match from {
        Origin::Running => (running()?, None),
        Origin::Environment(name) => (looked.environment(name)?, None),
        Origin::Snapshot(text) => {
            let (of, short) = text.split_once('@').unwrap_or((text, ""));
            let dataset = match of {
                "" => running()?.dataset.clone(),
                of if of.contains('/') => of.to_owned(),
                of => format!("{}/{of}", looked.root),
            };
            let full = format!("{dataset}@{short}");
            let (origin, snapshot) =
                looked.snapshot(&full).ok_or_else(|| BootError::NoSnapshot { name: text.clone() })?;
            (origin, Some(snapshot.name.clone()))
        }
    };
    if origin.unfinished.is_some() && !origin.is_running() && looked.entry(&origin.dataset).is_none() {
        return Err(BootError::HalfMade { name: origin.name().to_owned() });
    }
    if let Some(child) = origin.children.first() {
        return Err(BootError::HasChildren { name: origin.name().to_owned(), child: child.clone() });
    }
    let takes = snapshot.is_none();
    let snapshot = snapshot.unwrap_or_else(|| format!("{}@{name}-{}", origin.dataset, stamp(now)));
    Ok(Request { dataset, file, origin, snapshot, takes, left })
}

/// Seconds since 1970 as they stand in names: `20261127-041300`, in UTC.
pub(crate) fn stamp(seconds: u64) -> String {
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// The properties of a clone.
pub(crate) fn properties(
    machine: &dyn Machine,
    origin: &Environment,
    maker: Maker,
) -> Result<Vec<(String, String)>, MachineError> {
    let text = machine.run(&zfs::get_cmd(&origin.dataset, &["all"], false))?;
    let own = zfs::parse_get(&text)?.into_iter().filter(|property| {
        property.is_set() && !NOT_COPIED.contains(&property.name.as_str()) && !property.name.starts_with(OURS)
    });
    let mut all: Vec<(String, String)> = own.map(|property| (property.name, property.value)).collect();
    all.push(("canmount".to_owned(), "noauto".to_owned()));
    all.push(("mountpoint".to_owned(), "/".to_owned()));
    all.extend(maker.mark().map(|mark| (MADE_BY.to_owned(), mark.to_owned())));
    Ok(all)
}

/// The model of the new entry: that of the origin, else of what runs.
pub(crate) fn model<'a>(
    looked: &'a Looked,
    origin: &'a Environment,
) -> Result<(&'a kld_disk::BootEntry, &'a str), BootError> {
    [Some(origin), looked.running()]
        .into_iter()
        .flatten()
        .find_map(|of| Some((&looked.entry(&of.dataset)?.entry, of.name())))
        .ok_or_else(|| BootError::NoModel { dataset: origin.dataset.clone() })
}

fn plan(
    looked: &Looked,
    request: &Request<'_>,
    properties: Vec<(String, String)>,
    kernel: &Kernel,
) -> Result<Plan, BootError> {
    let (model, model_name) = model(looked, request.origin)?;
    let entry = entry_after(model, model_name, &request.dataset, kernel);
    // Kernels that were left go before the room is counted, unless they are just what is needed.
    let mut actions = request.left.actions.clone();
    let mut frees = request.left.frees.clone();
    for esp in &looked.partitions {
        for target in [&kernel.linux.target, &kernel.initrd.target] {
            let path = esp.path(target);
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
            if let Some(at) = actions.iter().position(|of| *of == Action::Remove { path: path.clone() }) {
                actions.remove(at);
                actions.retain(|of| *of != Action::Remove { path: directory.clone() });
                *frees.entry(esp.mount.clone()).or_default() -= esp.files[target.as_str()];
            }
        }
    }
    actions.push(Action::Clone {
        snapshot: request.snapshot.clone(),
        dataset: request.dataset.clone(),
        properties,
    });
    actions.extend(complete(looked, &request.file, &entry, kernel, &frees)?);
    actions.push(Action::Mark { dataset: request.dataset.clone(), state: None });
    Ok(Plan { actions, ..Plan::default() })
}

/// The kernel of what is mounted at `at`, of the release that the origin's entry starts when it is there.
fn kernel_at(
    machine: &dyn Machine,
    looked: &Looked,
    at: &str,
    origin: &Environment,
) -> Result<Kernel, BootError> {
    let release = looked.entry(&origin.dataset).and_then(|entry| entry.entry.get("version"));
    kernel::find(machine, at, release)?.ok_or_else(|| BootError::NoKernel { name: origin.name().to_owned() })
}

/// What [`create`] would do. Takes no snapshot, so a kernel that is being installed right now is one that the real thing
/// would not see.
///
/// # Errors
/// As [`create`].
pub fn plan_create(
    machine: &dyn Machine,
    name: &BootEnvironmentName,
    from: &Origin,
) -> Result<Plan, BootError> {
    let looked = Looked::before_change(machine)?;
    let request = request(&looked, name, from, machine.now())?;
    let at = match (request.takes, request.origin.mounted.first()) {
        (true, Some(place)) => place.trim_end_matches('/').to_owned(),
        (takes, _) => {
            let source = if takes { &request.origin.dataset } else { &request.snapshot };
            mount_for_a_look(machine, source)?;
            SOURCE.to_owned()
        }
    };
    let planned = (|| {
        let kernel = kernel_at(machine, &looked, &at, request.origin)?;
        plan(&looked, &request, properties(machine, request.origin, Maker::Person)?, &kernel)
    })();
    if at == SOURCE {
        unmount(machine, SOURCE)?;
    }
    let mut plan = planned?;
    if request.takes {
        plan.actions.insert(0, take(&request, name));
    }
    Ok(plan)
}

pub(crate) fn take(request: &Request<'_>, name: &BootEnvironmentName) -> Action {
    Action::Snapshot { snapshot: request.snapshot.clone(), made_for: name.to_string() }
}

/// Makes an environment. The kernel is read from the snapshot, so that it is the one of the modules beside it. When
/// something fails, what was made is removed again.
///
/// # Errors
/// A name that is taken, an origin that is not there or is more than one dataset, no kernel in it, a boot partition
/// without room for it, and what the machine refuses.
pub fn create(
    machine: &dyn Machine,
    name: &BootEnvironmentName,
    from: &Origin,
    maker: Maker,
    progress: &mut dyn FnMut(&Action),
) -> Result<(), BootError> {
    let looked = Looked::before_change(machine)?;
    let request = request(&looked, name, from, machine.now())?;
    if request.takes {
        let take = Plan { actions: vec![take(&request, name)], ..Plan::default() };
        carry_out(machine, &take, progress)?;
    }
    let made = (|| -> Result<(), BootError> {
        mount_for_a_look(machine, &request.snapshot)?;
        let kernel = kernel_at(machine, &looked, SOURCE, request.origin)?;
        let plan = plan(&looked, &request, properties(machine, request.origin, maker)?, &kernel)?;
        Ok(carry_out(machine, &plan, progress)?)
    })();
    let unmounted = unmount(machine, SOURCE);
    if made.is_err() {
        // The first error is the one to tell; what cannot be removed now is found by the next command.
        let _ = give_up(machine, &request.dataset);
    }
    made?;
    Ok(unmounted?)
}

/// Removes what was made of an environment that is not finished.
pub(crate) fn give_up(machine: &dyn Machine, dataset: &str) -> Result<(), BootError> {
    let looked = Looked::at(machine)?;
    let half = looked.environments.iter().find(|of| of.dataset == dataset);
    if half.is_some_and(|half| half.unfinished == Some(Unfinished::Making)) || half.is_none() {
        let mut left = leftovers(&looked);
        if half.is_some_and(|half| looked.entry(&half.dataset).is_some()) {
            // All but the last mark was made: it is complete.
            left.actions.retain(|action| matches!(action, Action::Mark { .. }));
        }
        carry_out(machine, &Plan { actions: left.actions, ..Plan::default() }, &mut |_| ())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_carry_the_date() {
        assert_eq!(stamp(1_795_752_780), "20261127-041300");
    }
}
