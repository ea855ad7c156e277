//! Saying that what runs is well, or somebody's.

use crate::action::{Action, Plan, carry_out};
use crate::error::BootError;
use crate::look::{Good, Looked};
use crate::machine::{Machine, MachineError};

/// The kernel's name for this start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Remembers that the running environment is well, which is the way back from then on; and its name. Said twice between two
/// starts, it counts once.
///
/// # Errors
/// What cannot be read.
pub fn plan_good(machine: &dyn Machine) -> Result<(Plan, String), BootError> {
    let looked = Looked::before_change(machine)?;
    let running = looked.running().ok_or_else(|| BootError::NoModel { dataset: looked.root.clone() })?;
    let boot_id = machine.text(BOOT_ID)?.unwrap_or_default().trim().to_owned();
    let known = running.good.as_ref();
    let boots =
        known.map_or(0, |good| good.boots) + u64::from(known.is_none_or(|good| good.boot_id != boot_id));
    let good = Good { at: machine.now(), boots, boot_id };
    let actions = vec![Action::Good { dataset: running.dataset.clone(), good }];
    Ok((Plan { actions, ..Plan::default() }, running.name().to_owned()))
}

/// Remembers that an environment is a person's from now on: one that an apply has made and somebody has started.
///
/// # Errors
/// What the machine refuses.
pub fn claim(machine: &dyn Machine, dataset: &str) -> Result<(), MachineError> {
    let actions = vec![Action::Claim { dataset: dataset.to_owned() }];
    carry_out(machine, &Plan { actions, ..Plan::default() }, &mut |_| ())
}
