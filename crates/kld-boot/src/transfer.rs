//! Environments as streams: out of one machine, into another.

use std::time::Duration;

use kld_host::Cmd;

use crate::action::{Action, Plan, carry_out};
use crate::clean::leftovers;
use crate::create::{free_name, give_up, model, stamp};
use crate::entries::{complete, entry_after};
use crate::error::BootError;
use crate::kernel;
use crate::look::Looked;
use crate::machine::Machine;
use crate::mount::{SOURCE, mount_for_a_look, unmount};
use crate::name::BootEnvironmentName;

/// A system over a slow line.
const TRANSFER: Duration = Duration::from_secs(24 * 3600);

/// Bytes at the beginning of a stream that say what it is.
pub const STREAM_HEADER: usize = 312;

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHeader {
    /// The snapshot that it was made of: `rpool/ROOT/debian@export-20261127-041300`.
    pub snapshot: String,
    /// Whether it only holds what has changed since another one.
    pub is_incremental: bool,
}

impl StreamHeader {
    /// Reads the beginning of a `zfs send` stream; `None` when it is none of one dataset.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // dmu_replay_record_t of sys/zfs_ioctl.h: type, payload, then drr_begin: magic, version, time, type, flags, guids, name.
        let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let is_one = (word(16)? & 3) == 1;
        if word(0)? as u32 != 0 || word(8)? != 0x2_F5BA_CBAC || !is_one {
            return None;
        }
        let name = bytes.get(56..STREAM_HEADER)?.split(|byte| *byte == 0).next()?;
        let snapshot = String::from_utf8(name.to_vec()).ok()?;
        Some(Self { snapshot, is_incremental: word(48)? != 0 })
    }

    /// The name of the environment that it was.
    pub fn environment(&self) -> &str {
        let dataset = self.snapshot.split('@').next().unwrap_or_default();
        dataset.rsplit('/').next().unwrap_or_default()
    }
}

/// The snapshot that [`export`] sends, and what it does before and after.
///
/// # Errors
/// When there is no such environment, or it is half-made.
pub fn plan_export(machine: &dyn Machine, name: &str) -> Result<Plan, BootError> {
    let (snapshot, taken) = take(machine, name)?;
    Ok(Plan { actions: vec![taken, Action::DestroySnapshot { snapshot }], ..Plan::default() })
}

fn take(machine: &dyn Machine, name: &str) -> Result<(String, Action), BootError> {
    let looked = Looked::before_change(machine)?;
    let environment = looked.environment(name)?;
    if environment.unfinished.is_some() {
        return Err(BootError::HalfMade { name: name.to_owned() });
    }
    let snapshot = format!("{}@export-{}", environment.dataset, stamp(machine.now()));
    // Marked as taken for somebody: what a kill leaves of it is cleared like every other.
    let taken = Action::Snapshot { snapshot: snapshot.clone(), made_for: "export".to_owned() };
    Ok((snapshot, taken))
}

/// Takes a snapshot of an environment, has it sent, and destroys it.
///
/// # Errors
/// As [`plan_export`]; when the snapshot cannot be taken; what `send` says of the command that it runs.
pub fn export<E: From<BootError>>(
    machine: &dyn Machine,
    name: &str,
    send: impl FnOnce(&Cmd) -> Result<(), E>,
) -> Result<(), E> {
    let (snapshot, taken) = take(machine, name)?;
    let act = |action| carry_out(machine, &Plan { actions: vec![action], ..Plan::default() }, &mut |_| ());
    act(taken).map_err(BootError::from)?;
    let sent = send(&Cmd::new("zfs").args(["send", "-Lec", &snapshot]));
    let destroyed = act(Action::DestroySnapshot { snapshot }).map_err(BootError::from);
    sent?;
    Ok(destroyed?)
}

/// What [`import`] would do as far as it can be known before the stream was read: not which kernel it brings.
///
/// # Errors
/// A name that is taken.
pub fn plan_import(machine: &dyn Machine, name: &BootEnvironmentName, file: &str) -> Result<Plan, BootError> {
    let (mut plan, dataset) = receive(&Looked::before_change(machine)?, name, file)?;
    plan.actions.push(Action::Mark { dataset, state: None });
    Ok(plan)
}

/// All that is done before there is something to look into, and the dataset.
fn receive(looked: &Looked, name: &BootEnvironmentName, file: &str) -> Result<(Plan, String), BootError> {
    let left = leftovers(looked);
    let dataset = free_name(looked, name, &left)?;
    let running = looked.running().ok_or_else(|| BootError::NoModel { dataset: looked.root.clone() })?;
    model(looked, running)?;
    let mut actions = left.actions;
    actions.push(Action::Receive { file: file.to_owned(), dataset: dataset.clone() });
    Ok((Plan { actions, ..Plan::default() }, dataset))
}

/// Makes an environment of the stream in a file: a dataset, its kernel on the boot partitions, its entry. When something
/// fails, what was made is removed again.
///
/// # Errors
/// A name that is taken, a stream that ZFS refuses, no kernel in it, a boot partition without room.
pub fn import(
    machine: &dyn Machine,
    name: &BootEnvironmentName,
    file: &str,
    progress: &mut dyn FnMut(&Action),
) -> Result<(), BootError> {
    let (plan, dataset) = receive(&Looked::before_change(machine)?, name, file)?;
    let made = (|| -> Result<(), BootError> {
        carry_out(machine, &plan, progress)?;
        mount_for_a_look(machine, &dataset)?;
        let entered = enter(machine, name, progress);
        unmount(machine, SOURCE)?;
        entered
    })();
    if made.is_err() {
        // The first error is the one to tell; what cannot be removed now is found by the next command.
        let _ = unmount(machine, SOURCE).map_err(BootError::from).and_then(|()| give_up(machine, &dataset));
    }
    made
}

fn enter(
    machine: &dyn Machine,
    name: &BootEnvironmentName,
    progress: &mut dyn FnMut(&Action),
) -> Result<(), BootError> {
    let looked = Looked::at(machine)?;
    let environment = looked.environment(name.as_str())?;
    let kernel = kernel::find(machine, SOURCE, None)?;
    let kernel = kernel.ok_or_else(|| BootError::NoKernel { name: name.to_string() })?;
    let running = looked.running().ok_or_else(|| BootError::NoModel { dataset: looked.root.clone() })?;
    let (model, model_name) = model(&looked, running)?;
    let entry = entry_after(model, model_name, &environment.dataset, &kernel);
    let sent = environment.snapshots.iter().map(|of| Action::DestroySnapshot { snapshot: of.name.clone() });
    let mut actions: Vec<Action> = sent.collect();
    actions.extend(complete(&looked, &name.entry_id(), &entry, &kernel, &Default::default())?);
    actions.push(Action::Mark { dataset: environment.dataset.clone(), state: None });
    Ok(carry_out(machine, &Plan { actions, ..Plan::default() }, progress)?)
}

/// Receives a stream as an environment that is being made.
pub(crate) fn receive_cmd(file: &str, dataset: &str, state: &str) -> Cmd {
    let receive = Cmd::new("zfs").args(["receive", "-u", "-o", "canmount=noauto", "-o", "mountpoint=/"]);
    receive.args(["-o", state, dataset]).stdin_file(file).timeout(TRANSFER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_says_what_it_is() {
        let mut bytes = vec![0; STREAM_HEADER];
        bytes[8..16].copy_from_slice(&0x2_F5BA_CBAC_u64.to_le_bytes());
        bytes[16] = 0b101;
        bytes[56..74].copy_from_slice(b"tank/ROOT/debian@x");
        let header = StreamHeader::parse(&bytes).expect("a stream");
        assert_eq!((header.environment(), header.is_incremental), ("debian", false));
        bytes[48] = 1;
        assert!(StreamHeader::parse(&bytes).expect("a stream").is_incremental);
        for (at, value) in [(0, 1), (8, 0), (16, 2)] {
            let mut other = bytes.clone();
            other[at] = value;
            assert_eq!(StreamHeader::parse(&other), None, "{at}");
        }
        assert_eq!(StreamHeader::parse(&bytes[..200]), None);
    }
}
