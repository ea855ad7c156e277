//! `kbe create`.

use clap_complete::engine::ArgValueCompleter;
use kld_boot::{BootEnvironmentName, Maker, Origin, RealMachine, create, plan_create};
use kld_ui::{ExitStatus, Printer};

use super::change::Shown;
use crate::candidates;
use crate::commands::lock::lock;

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
    #[arg(long, value_name = "ENVIRONMENT|SNAPSHOT", add = ArgValueCompleter::new(candidates::origins))]
    from: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let from = args.from.as_deref().map_or(Origin::Running, Origin::parse);
    let _lock = lock("kbe create")?;
    if args.shown.dry_run {
        let plan = plan_create(&RealMachine, &args.name, &from)?;
        return args.shown.plan(printer, args.name.as_str(), &plan);
    }
    args.shown.output.doing(printer, args.name.as_str(), |said| {
        Ok(create(&RealMachine, &args.name, &from, Maker::Person, said)?)
    })?;
    printer.note(&format!("made `{}`; `kbe activate {0}` starts it next", args.name));
    Ok(ExitStatus::Done)
}
