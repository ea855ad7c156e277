//! `kbe activate`.

use clap_complete::engine::ArgValueCompleter;
use kld_boot::{RealMachine, Starts, activate, plan_activate};
use kld_ui::{ExitStatus, Printer};

use super::change::Shown;
use crate::candidates;
use crate::commands::lock::take_lock;

/// Let a boot environment start from the next restart on, or only once
///
/// What is written is read again, and the command fails when the loader would start something else. With --once, the
/// start after the next one is as before: whatever happens, a power cycle brings the machine back.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe activate before-upgrade && reboot\n  kbe activate --once try && reboot\n  kbe activate --dry-run before-upgrade"
)]
pub(crate) struct Args {
    /// Its name
    #[arg(add = ArgValueCompleter::new(candidates::environments))]
    name: String,
    /// For the next start only
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let starts = if args.once { Starts::Once } else { Starts::Always };
    let _lock = take_lock("kbe activate")?;
    if args.shown.dry_run {
        let plan = plan_activate(&RealMachine, &args.name, starts)?;
        return args.shown.plan(printer, &args.name, &plan);
    }
    let done = args
        .shown
        .output
        .doing(printer, &args.name, |said| Ok(activate(&RealMachine, &args.name, starts, said)?))?;
    printer.note(&match (done.actions.is_empty(), args.once) {
        (true, true) => format!("`{}` starts next, once: it was so already", args.name),
        (true, false) => format!("`{}` starts next: it was so already", args.name),
        (false, true) => format!("`{}` starts next, once", args.name),
        (false, false) => format!("`{}` starts next", args.name),
    });
    Ok(ExitStatus::Done)
}
