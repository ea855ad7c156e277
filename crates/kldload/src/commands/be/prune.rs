//! `kbe prune`.

use kld_boot::{
    Action, Keep, Leftovers, Looked, Machine, Plan, Pruned, RealMachine, Unequal, carry_out, choose,
    leftovers, plan_destroy, unequal,
};
use kld_ui::{ByteSize, ExitStatus, Printer};
use serde::Serialize;

use super::change::Shown;
use crate::commands::asked::{asked, show};
use crate::commands::lock::lock;
use crate::hints;

/// Destroy the oldest boot environments, and what interrupted commands have left
///
/// Never the one that runs, the one that starts next, the last one that was well, or one without a boot entry. Without
/// --keep and --free, only what interrupted commands have left goes. A boot partition that lacks an environment, because it
/// was replaced or away, is given it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe prune\n  kbe prune --keep 5\n  kbe prune --free 10G --dry-run")]
pub(crate) struct Args {
    /// Keep this many, the newest
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Go on until this much is free in the pool
    #[arg(long, value_name = "SIZE", conflicts_with = "keep")]
    free: Option<ByteSize>,
    #[command(flatten)]
    shown: Shown,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// One thing that is done, as `--json` has it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Done {
    /// What goes.
    environment: Option<String>,
    /// What an interrupted command has left, and goes.
    leftover: Option<String>,
    /// What a boot partition lacks, and gets.
    mended: Option<String>,
    /// Bytes, at least.
    frees: u64,
}

impl Done {
    fn environment(of: &Pruned) -> Self {
        Self { environment: Some(of.name.clone()), frees: of.frees.bytes, ..Self::default() }
    }

    fn leftover(said: &str) -> Self {
        Self { leftover: Some(said.to_owned()), ..Self::default() }
    }

    fn mended(said: &str) -> Self {
        Self { mended: Some(said.to_owned()), ..Self::default() }
    }
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = lock("kbe prune")?;
    let mut looked = Looked::before_change(&RealMachine)?;
    let left = leftovers(&looked);
    let keep = args.keep.map(Keep::Newest).or_else(|| args.free.map(|size| Keep::Free(size.0)));
    let chosen = keep.map(|keep| choose(&looked, keep)).unwrap_or_default();
    // What goes is brought nowhere.
    looked.environments.retain(|of| chosen.iter().all(|gone| gone.name != of.name()));
    let unequal = unequal(&looked);
    let is_nothing = left.actions.is_empty() && unequal.actions.is_empty() && chosen.is_empty();
    let dry_run = args.shown.dry_run;
    let asks = !dry_run && !args.yes && !chosen.is_empty();
    let page = page(&left, &unequal, &chosen);
    if !page.is_empty() {
        show(printer, args.shown.output.json, asks, &page)?;
    }
    if is_nothing {
        printer.note("nothing to destroy");
    }
    let (done, mut errors) = if dry_run {
        warn_of(printer, &unequal);
        (planned(&left, &unequal, &chosen), Vec::new())
    } else {
        if !chosen.is_empty() {
            asked(printer, "destroy them?", args.yes)?;
        }
        perform(&RealMachine, printer, left, &chosen)
    };
    if args.shown.output.json {
        printer.envelope("prune", &done)?;
    }
    if dry_run && !is_nothing {
        return Ok(ExitStatus::Pending);
    }
    let is_enough = args.free.map_or(Ok(true), |wanted| is_free(printer, wanted));
    let is_enough = is_enough.map_err(|error| errors.push(error)).unwrap_or_default();
    let last = errors.pop();
    for error in errors {
        printer.error(&*error, &hints::all());
    }
    match last {
        Some(error) => Err(error),
        None if is_enough => Ok(ExitStatus::Done),
        None => Ok(ExitStatus::Failed),
    }
}

/// Whether so much is free in the pool; says so when it is not.
fn is_free(printer: &Printer, wanted: ByteSize) -> anyhow::Result<bool> {
    let available = Looked::before_change(&RealMachine)?.available;
    if wanted.0 > available {
        printer.warning(&format!("{} are free, not {wanted}: what is left must stay", ByteSize(available)));
    }
    Ok(wanted.0 <= available)
}

/// What would be done.
fn planned(left: &Leftovers, unequal: &Unequal, chosen: &[Pruned]) -> Vec<Done> {
    let left = left.said.iter().map(|said| Done::leftover(said));
    left.chain(chosen.iter().map(Done::environment))
        .chain(unequal.mended.iter().map(|said| Done::mended(said)))
        .collect()
}

/// The same for a person.
fn page(left: &Leftovers, unequal: &Unequal, chosen: &[Pruned]) -> String {
    let left = left.said.iter().map(|said| format!("  remove: {said}"));
    let goes = chosen.iter().map(|of| format!("  destroy `{}`, {} will be free", of.name, of.frees));
    let mended = unequal.mended.iter().map(|said| format!("  mend: {said}"));
    left.chain(goes).chain(mended).collect::<Vec<_>>().join("\n")
}

/// Does it, and gives back what is done. What fails keeps nothing of another kind from being done: a boot partition that cannot be
/// written is no reason to keep an environment that has no entry there.
fn perform(
    machine: &dyn Machine,
    printer: &Printer,
    left: Leftovers,
    chosen: &[Pruned],
) -> (Vec<Done>, Vec<anyhow::Error>) {
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    let is_left = !left.actions.is_empty();
    match carried_out(machine, printer, left.actions) {
        Ok(()) if !left.said.is_empty() => {
            printer.note("what interrupted commands have left is gone");
            done.extend(left.said.iter().map(|said| Done::leftover(said)));
        }
        Ok(()) if is_left => printer.note("what an interrupted command had begun is finished"),
        Ok(()) => {}
        Err(error) => errors.push(error),
    }
    // Where one cannot be destroyed, its like would be begun and not ended.
    let destroyed = chosen.iter().map(|of| destroy(machine, printer, &of.name));
    let gone = destroyed.map_while(|done| done.map_err(|error| errors.push(error)).ok()).count();
    match gone {
        0 => {}
        1 => printer.note("1 environment is gone"),
        many => printer.note(&format!("{many} environments are gone")),
    }
    done.extend(chosen[..gone].iter().map(Done::environment));
    match mend(machine, printer) {
        Ok(mended) => done.extend(mended.iter().map(|said| Done::mended(said))),
        Err(error) => errors.push(error),
    }
    (done, errors)
}

fn carried_out(machine: &dyn Machine, printer: &Printer, actions: Vec<Action>) -> anyhow::Result<()> {
    let plan = Plan { actions, ..Plan::default() };
    Ok(carry_out(machine, &plan, &mut |action| printer.detail(&action.to_string()))?)
}

fn destroy(machine: &dyn Machine, printer: &Printer, name: &str) -> anyhow::Result<()> {
    // What one shares with the next changes with each that goes.
    let plan = plan_destroy(&Looked::before_change(machine)?, name)?;
    carried_out(machine, printer, plan.actions)
}

/// Gives boot partitions what they lack of what is left, and says what that was.
fn mend(machine: &dyn Machine, printer: &Printer) -> anyhow::Result<Vec<String>> {
    let found = unequal(&Looked::before_change(machine)?);
    warn_of(printer, &found);
    if !found.actions.is_empty() {
        carried_out(machine, printer, found.actions)?;
        printer.note(match found.stays.is_empty() {
            true => "the boot partitions have what they lacked",
            false => "the boot partitions have what could be brought to them",
        });
    }
    Ok(found.mended)
}

fn warn_of(printer: &Printer, unequal: &Unequal) {
    for stays in &unequal.stays {
        printer.warning(stays);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use kld_boot::{Freed, MachineError};
    use kld_host::Cmd;

    use super::*;

    /// A machine that can remove files, and nothing else.
    struct Removes;

    fn refused<T>(path: &str) -> Result<T, MachineError> {
        Err(MachineError::File {
            action: "use",
            path: path.into(),
            source: io::ErrorKind::PermissionDenied.into(),
        })
    }

    impl Machine for Removes {
        fn read(&self, path: &str) -> Result<Option<Vec<u8>>, MachineError> {
            refused(path)
        }
        fn size(&self, path: &str) -> Result<Option<u64>, MachineError> {
            refused(path)
        }
        fn list(&self, path: &str) -> Result<Vec<String>, MachineError> {
            refused(path)
        }
        fn write(&self, path: &str, _: &[u8]) -> Result<(), MachineError> {
            refused(path)
        }
        fn remove(&self, _: &str) -> Result<(), MachineError> {
            Ok(())
        }
        fn make_directory(&self, path: &str) -> Result<(), MachineError> {
            refused(path)
        }
        fn free(&self, path: &str) -> Result<u64, MachineError> {
            refused(path)
        }
        fn run(&self, command: &Cmd) -> Result<String, MachineError> {
            refused(&command.to_string())
        }
        fn now(&self) -> u64 {
            0
        }
    }

    #[test]
    fn only_what_is_done_is_said_to_be() {
        let path = "/efi/EFI/kldload/0/linux".to_owned();
        let (said, actions) = (vec!["a kernel".to_owned()], vec![Action::Remove { path }]);
        let left = Leftovers { actions, said: said.clone(), ..Leftovers::default() };
        let chosen = [Pruned { name: "old".to_owned(), frees: Freed::default() }];
        let would = planned(&left, &Unequal::default(), &chosen);
        assert_eq!(would, [Done::leftover(&said[0]), Done::environment(&chosen[0])]);
        let (done, errors) = perform(&Removes, &Printer::captured().0, left, &chosen);
        assert_eq!(done, [Done::leftover(&said[0])]);
        assert_eq!(errors.len(), 2, "neither was it destroyed, nor could anything be mended: {errors:?}");
    }
}
