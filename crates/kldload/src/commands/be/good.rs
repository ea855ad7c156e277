//! `kbe good`.

use kld_boot::{Looked, RealMachine, plan_good, plan_pass_trial};
use kld_ui::{ExitStatus, Printer};

use super::change::Shown;
use crate::commands::lock::take_lock;
use crate::commands::pkg;

/// Say that the running boot environment is well: it is the way back from now on, and is never destroyed
///
/// For whoever can tell: a person who has looked, or a unit after `boot-complete.target`. Until somebody has said it of any
/// environment, the running one counts as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe good\n  kst && kbe good\n  kbe good --dry-run")]
pub(crate) struct Args {
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let running = Looked::at(&RealMachine)?.running().map(|of| (of.name().to_owned(), of.trial.is_some()));
    let (name, is_on_trial) = running.unwrap_or_default();
    if is_on_trial && !args.shown.dry_run {
        // Of one whose packages were changed it says more: that it stays.
        let name = args.shown.output.doing(printer, &name, |_| pkg::pass(printer))?;
        printer.note(&format!("`{name}` is well and stays"));
        return Ok(ExitStatus::Done);
    }
    let _lock = take_lock("kbe good")?;
    let (plan, name) = if is_on_trial { plan_pass_trial(&RealMachine)? } else { plan_good(&RealMachine)? };
    if args.shown.dry_run {
        return args.shown.plan(printer, &name, &plan);
    }
    args.shown.perform(printer, &name, &plan)?;
    printer.note(&format!("`{name}` is well"));
    Ok(ExitStatus::Done)
}
