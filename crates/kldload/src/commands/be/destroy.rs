//! `kbe destroy`.

use kld_boot::{Looked, RealMachine, plan_destroy};
use kld_ui::{ExitStatus, Printer};

use super::{not_confirmed, perform, show};
use crate::commands::apply::lock;

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
    name: String,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = lock("kbe destroy")?;
    let plan = plan_destroy(&Looked::before_change(&RealMachine)?, &args.name)?;
    let shown = show(printer, &plan)?;
    printer.note(&format!("{} will be free", plan.frees));
    if args.dry_run {
        return Ok(shown);
    }
    if !printer.confirm(&format!("destroy `{}`?", args.name), args.yes) {
        return Err(not_confirmed());
    }
    perform(printer, &plan)?;
    printer.note(&format!("`{}` is gone", args.name));
    Ok(ExitStatus::Done)
}
