//! `kpkg remove`.

use kld_packages::{Change, PackageName};
use kld_ui::{ExitStatus, Printer};

use super::clone::{Common, run_change};

/// Remove packages in a clone of the running system, and start it next, once
///
/// Their configuration stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kpkg remove --dry-run nginx\n  kpkg remove --reboot nginx")]
pub(super) struct Args {
    /// The packages
    #[arg(required = true, value_name = "PACKAGE")]
    packages: Vec<PackageName>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    run_change(printer, "remove", &Change::Remove(args.packages.clone()), &args.common)
}
