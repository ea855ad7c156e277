//! The probe of `kst` for boot environments.

use kld_boot::{BootError, Environment, Looked, RealMachine, leftovers, unequal};
use kld_node::health::{Probe, Status};

use crate::commands::pkg;

/// Its name.
pub(crate) const PROBE: &str = "environments";

/// What runs, what starts next, and whether something waits for a person.
pub(crate) fn probe() -> Probe {
    match Looked::at(&RealMachine) {
        Ok(looked) => judge(&looked),
        Err(
            error @ (BootError::NotZfs { .. }
            | BootError::NoParent { .. }
            | BootError::NoLoader { .. }
            | BootError::LoaderElsewhere { .. }),
        ) => Probe::new(PROBE, Status::Info, first_line(&error)),
        Err(error) => Probe::new(PROBE, Status::Fail, first_line(&error)).with_command("kbe list"),
    }
}

fn first_line(error: &BootError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn judge(looked: &Looked) -> Probe {
    let name = |of: Option<&Environment>| of.map_or("nothing known", Environment::name).to_owned();
    let (runs, next) = (name(looked.running()), name(looked.once().or(looked.default_environment())));
    let summary = match runs == next {
        true => format!("`{runs}` runs and starts next"),
        false => format!("`{runs}` runs, `{next}` starts next"),
    };
    let failed = looked.environments.iter().find_map(|of| match pkg::said(looked, of)? {
        ("failed", reason) => Some(format!("{summary}; `{}` was not well: {reason}", of.name())),
        _ => None,
    });
    if let Some(summary) = failed {
        return Probe::new(PROBE, Status::Warn, summary).with_command("kpkg status");
    }
    if let Some(note) = looked.notes.first() {
        return Probe::new(PROBE, Status::Warn, format!("{summary}; {note}")).with_command("kbe list");
    }
    let unequal = unequal(looked);
    let commands = [(&unequal.mended, "kbe prune"), (&unequal.stays, "kbe list")];
    if let Some((first, command)) = commands.iter().find_map(|(said, command)| Some((said.first()?, command)))
    {
        return Probe::new(PROBE, Status::Warn, format!("{summary}; {first}")).with_command(*command);
    }
    // A command that is still at work leaves the same signs as one that was interrupted.
    let left = leftovers(looked);
    match (&left.said[..], runs == next) {
        ([], true) => Probe::new(PROBE, Status::Ok, summary),
        ([], false) => Probe::new(PROBE, Status::Info, summary),
        ([first, ..], _) => {
            Probe::new(PROBE, Status::Info, format!("{summary}; {first}")).with_command("kbe prune")
        }
    }
}
