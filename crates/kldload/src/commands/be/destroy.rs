//! `kbe destroy`.

use clap_complete::engine::ArgValueCompleter;
use kld_boot::{Looked, RealMachine, plan_destroy};
use kld_ui::{ExitStatus, Printer};

use super::change::Shown;
use crate::candidates;
use crate::commands::asked::asked;
use crate::commands::lock::lock;

/// Destroy a boot environment, its snapshots, its boot entry and a kernel that nobody else needs
///
/// Refused for the one that runs, the one that starts next and the last one that was well. When others were made from
/// it, the newest of them takes over what they share first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe destroy --dry-run before-upgrade\n  kbe destroy before-upgrade\n  kbe destroy --yes before-upgrade"
)]
pub(crate) struct Args {
    /// Its name
    #[arg(add = ArgValueCompleter::new(candidates::environments))]
    name: String,
    #[command(flatten)]
    shown: Shown,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = lock("kbe destroy")?;
    let plan = plan_destroy(&Looked::before_change(&RealMachine)?, &args.name)?;
    // Who is asked sees it in any case; with `--json`, what is done is said once.
    let pending = match args.shown.dry_run || !args.shown.output.json {
        true => args.shown.plan(printer, &args.name, &plan)?,
        false => ExitStatus::Pending,
    };
    printer.note(&format!("{} will be free", plan.frees));
    if args.shown.dry_run {
        return Ok(pending);
    }
    asked(printer, &format!("destroy `{}`?", args.name), args.yes)?;
    args.shown.perform(printer, &args.name, &plan)?;
    printer.note(&format!("`{}` is gone", args.name));
    Ok(ExitStatus::Done)
}
