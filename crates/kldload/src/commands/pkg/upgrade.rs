//! `kpkg upgrade`, also called `kupgrade`.

use kld_packages::Change;
use kld_ui::{ExitStatus, Printer};

use super::clone::{Common, run_change};

/// Upgrade the packages in a clone of the running system, and start it next, once
///
/// Nothing of the running system changes. What would not start is refused: a kernel without its ZFS module, an initial RAM file system
/// without ZFS, packages that are not configured, units whose programs are not there, a broken fstab or SSH configuration. At its
/// first start the clone must be as well as the system was, or the start after it is the old one again. Data of services lies beside
/// the clones and does not go back.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kupgrade --dry-run\n  kupgrade\n  kupgrade --reboot\n  kupgrade --full --name trixie-point-release"
)]
pub(super) struct Args {
    /// Also upgrade what needs another package to go, as `apt-get dist-upgrade` does
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    run_change(printer, "upgrade", &Change::Upgrade { full: args.full }, &args.common)
}
