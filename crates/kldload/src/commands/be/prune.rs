//! `kbe prune`.

use kld_boot::{
    Action, Keep, Leftovers, Looked, Plan, Pruned, RealMachine, Unequal, carry_out, choose, leftovers,
    plan_destroy, unequal,
};
use kld_ui::{ByteSize, ExitStatus, Printer};
use serde::Serialize;

use super::change::Shown;
use crate::commands::asked::asked;
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

/// What is done, as `--json` has it.
#[derive(Debug, Default, Serialize)]
struct Done<'a> {
    /// What goes.
    environment: Option<&'a str>,
    /// What an interrupted command has left, and goes.
    leftover: Option<&'a str>,
    /// What a boot partition lacks, and gets.
    mended: Option<&'a str>,
    /// Bytes, at least.
    frees: u64,
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
    show(printer, args, &left, &unequal, &chosen)?;
    if is_nothing {
        printer.note("nothing to destroy");
    }
    if args.shown.dry_run {
        warn_of(printer, &unequal);
    }
    if args.shown.dry_run && !is_nothing {
        return Ok(ExitStatus::Pending);
    }
    if !chosen.is_empty() {
        asked(printer, "destroy them?", args.yes)?;
    }
    let mut errors = if args.shown.dry_run { Vec::new() } else { perform(printer, left, &chosen) };
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

fn show(
    printer: &Printer,
    args: &Args,
    left: &Leftovers,
    unequal: &Unequal,
    chosen: &[Pruned],
) -> anyhow::Result<()> {
    if args.shown.output.json {
        let left = left.said.iter().map(|said| Done { leftover: Some(said), ..Done::default() });
        let goes = chosen.iter().map(|of| Done {
            environment: Some(&of.name),
            frees: of.frees.bytes,
            ..Done::default()
        });
        let mended = unequal.mended.iter().map(|said| Done { mended: Some(said), ..Done::default() });
        return Ok(printer.envelope("prune", &left.chain(goes).chain(mended).collect::<Vec<_>>())?);
    }
    let left = left.said.iter().map(|said| format!("  remove: {said}"));
    let goes = chosen.iter().map(|of| format!("  destroy `{}`, {} will be free", of.name, of.frees));
    let mended = unequal.mended.iter().map(|said| format!("  mend: {said}"));
    let lines: Vec<String> = left.chain(goes).chain(mended).collect();
    if !lines.is_empty() {
        printer.data(&lines.join("\n"))?;
    }
    Ok(())
}

/// Does it, and says what is done. What fails keeps nothing of another kind from being done: a boot partition that cannot be
/// written is no reason to keep an environment that has no entry there.
fn perform(printer: &Printer, left: Leftovers, chosen: &[Pruned]) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    let is_left = !left.actions.is_empty();
    match carried_out(printer, left.actions) {
        Ok(()) if !left.said.is_empty() => printer.note("what interrupted commands have left is gone"),
        Ok(()) if is_left => printer.note("what an interrupted command had begun is finished"),
        Ok(()) => {}
        Err(error) => errors.push(error),
    }
    // Where one cannot be destroyed, its like would be begun and not ended.
    let destroyed = chosen.iter().map(|of| destroy(printer, &of.name));
    let gone = destroyed.map_while(|done| done.map_err(|error| errors.push(error)).ok()).count();
    match gone {
        0 => {}
        1 => printer.note("1 environment is gone"),
        many => printer.note(&format!("{many} environments are gone")),
    }
    errors.extend(mend(printer).err());
    errors
}

fn carried_out(printer: &Printer, actions: Vec<Action>) -> anyhow::Result<()> {
    let plan = Plan { actions, ..Plan::default() };
    Ok(carry_out(&RealMachine, &plan, &mut |action| printer.detail(&action.to_string()))?)
}

fn destroy(printer: &Printer, name: &str) -> anyhow::Result<()> {
    // What one shares with the next changes with each that goes.
    let plan = plan_destroy(&Looked::before_change(&RealMachine)?, name)?;
    carried_out(printer, plan.actions)
}

/// Gives boot partitions what they lack of what is left.
fn mend(printer: &Printer) -> anyhow::Result<()> {
    let found = unequal(&Looked::before_change(&RealMachine)?);
    warn_of(printer, &found);
    if found.actions.is_empty() {
        return Ok(());
    }
    carried_out(printer, found.actions)?;
    printer.note(match found.stays.is_empty() {
        true => "the boot partitions have what they lacked",
        false => "the boot partitions have what could be brought to them",
    });
    Ok(())
}

fn warn_of(printer: &Printer, unequal: &Unequal) {
    for stays in &unequal.stays {
        printer.warning(stays);
    }
}
