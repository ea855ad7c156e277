//! A boot environment for each apply: the machine as it was before, to be picked in the boot menu when it no longer starts.
//!
//! It is a net below the journal, which is the way back: what keeps it from being made is said, and does not stop the apply.
//! Most of that (another loader, a boot partition that is full) lasts, and a machine that cannot be changed for it could not
//! even be mended.

use kld_boot::{
    BootEnvironmentName, BootError, Looked, Machine, Maker, Origin, Plan, carry_out, claim, create,
    leftovers, outdated, plan_destroy,
};

use crate::history::History;
use crate::host::HostError;
use crate::journal::Event;

/// So many stay, the newest.
const KEPT: usize = 3;

/// The environments of applies on a machine.
#[derive(Clone, Copy)]
pub(crate) struct Environments<'a>(pub(crate) &'a dyn Machine);

/// What the environment of an apply is called.
pub(crate) fn name_of(number: u32) -> String {
    format!("apply-{number:06}")
}

/// The apply that an environment of this name is for.
fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix("apply-")?.parse().ok()?;
    (name_of(number) == name).then_some(number)
}

impl Environments<'_> {
    /// Makes the one of an apply from its snapshot of the root. Those of applies that were undone go first.
    pub(crate) fn make(self, history: &History<'_>, number: u32, snapshot: &str) -> Result<(), BootError> {
        let looked = Looked::before_change(self.0)?;
        let made = looked.environments.iter().filter(|of| of.maker == Maker::Apply);
        for undone in made.filter_map(|of| number_of(of.name())).filter(|of| was_undone(history, *of)) {
            // One that cannot go stays, and is found by `kbe list`.
            let _ = self.remove(undone);
        }
        let name: BootEnvironmentName = name_of(number).parse()?;
        create(self.0, &name, &Origin::Snapshot(snapshot.to_owned()), Maker::Apply, &mut |_| ())
    }

    /// Removes the one of an apply, however much of it was made. One that somebody has taken over stays, and so does one that
    /// runs or starts next.
    pub(crate) fn remove(self, number: u32) -> Result<(), BootError> {
        let looked = Looked::before_change(self.0)?;
        let name = name_of(number);
        let is_it = |of: &&kld_boot::Environment| of.name() == name && of.maker == Maker::Apply;
        let looked = match looked.environments.iter().find(is_it) {
            None => return Ok(()),
            Some(of) if of.unfinished.is_none() => looked,
            Some(_) => {
                let actions = leftovers(&looked).actions;
                carry_out(self.0, &Plan { actions, ..Plan::default() }, &mut |_| ())?;
                Looked::at(self.0)?
            }
        };
        if looked.environments.iter().any(|of| is_it(&of)) {
            carry_out(self.0, &plan_destroy(&looked, &name)?, &mut |_| ())?;
        }
        Ok(())
    }

    /// Destroys all but the newest.
    pub(crate) fn remove_old(self) -> Result<(), BootError> {
        for old in outdated(&Looked::before_change(self.0)?, KEPT) {
            // What one shares with the next changes with each that goes.
            let plan = plan_destroy(&Looked::at(self.0)?, &old.name)?;
            carry_out(self.0, &plan, &mut |_| ())?;
        }
        Ok(())
    }

    /// When the machine has been started from one, it is a person's from now on.
    pub(crate) fn claim(self, root: &str) -> Result<(), HostError> {
        if root.rsplit('/').next().and_then(number_of).is_none() {
            return Ok(());
        }
        claim(self.0, root).map_err(HostError::from)
    }
}

/// Whether an apply has ended as if it had never been.
fn was_undone(history: &History<'_>, number: u32) -> bool {
    let journal = history.store(number).journal().unwrap_or_default();
    journal.events.contains(&Event::RolledBack) && !journal.events.contains(&Event::Committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers() {
        assert_eq!(name_of(12), "apply-000012");
        assert_eq!(number_of("apply-000012"), Some(12));
        assert_eq!(number_of("apply-1234567"), Some(1_234_567));
        for other in ["apply-12", "apply-", "debian", "apply-+00012", "before-apply-000012"] {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
