//! `kbe create`.

use kld_boot::{BootEnvironmentName, Maker, Origin, RealMachine, create, plan_create};
use kld_ui::{ExitStatus, Printer};

use super::{said, show};
use crate::commands::apply::lock;

/// Clone the running system, or another one, into a new boot environment
///
/// Takes a snapshot, clones it, and writes a boot entry; the kernel is copied to the boot partition when it is not there
/// yet. What starts next stays as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe create before-upgrade\n  kbe create fresh --from @install\n  kbe create try --from before-upgrade\n  kbe create --dry-run before-upgrade"
)]
pub(crate) struct Args {
    /// Its name
    name: BootEnvironmentName,
    /// What it is made from instead of the running system: an environment, or a snapshot of one
    #[arg(long, value_name = "ENVIRONMENT|SNAPSHOT")]
    from: Option<String>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let from = args.from.as_deref().map_or(Origin::Running, Origin::parse);
    let _lock = lock("kbe create")?;
    if args.dry_run {
        return show(printer, &plan_create(&RealMachine, &args.name, &from)?);
    }
    create(&RealMachine, &args.name, &from, Maker::Person, &mut said(printer))?;
    printer.note(&format!("made `{}`; `kbe activate {0}` starts it next", args.name));
    Ok(ExitStatus::Done)
}
