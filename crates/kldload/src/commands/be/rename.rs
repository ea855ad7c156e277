//! `kbe rename`.

use clap_complete::engine::ArgValueCompleter;
use kld_boot::{BootEnvironmentName, Looked, RealMachine, plan_rename};
use kld_ui::{ExitStatus, Printer};

use super::change::Shown;
use crate::candidates;
use crate::commands::lock::lock;

/// Give a boot environment another name
///
/// Refused for the one that runs and the one that starts next: entry and dataset cannot change in one instant.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe rename try 2026-11\n  kbe rename --dry-run try 2026-11")]
pub(crate) struct Args {
    /// Its name
    #[arg(add = ArgValueCompleter::new(candidates::environments))]
    name: String,
    /// What it is to be called
    new: BootEnvironmentName,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = lock("kbe rename")?;
    let plan = plan_rename(&Looked::before_change(&RealMachine)?, &args.name, &args.new)?;
    if args.shown.dry_run {
        return args.shown.plan(printer, &args.name, &plan);
    }
    args.shown.perform(printer, &args.name, &plan)?;
    printer.note(&format!("`{}` is `{}`", args.name, args.new));
    Ok(ExitStatus::Done)
}
