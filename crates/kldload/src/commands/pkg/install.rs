//! `kpkg install`.

use kld_packages::{Change, PackageName};
use kld_ui::{ExitStatus, Printer};

use super::clone::{Common, run_change};

/// Install packages in a clone of the running system, and start it next, once
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kpkg install --dry-run nginx\n  kpkg install --reboot nginx\n  kpkg install linux-image-amd64=6.12.57-1"
)]
pub(super) struct Args {
    /// The packages
    #[arg(required = true, value_name = "PACKAGE")]
    packages: Vec<PackageName>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    run_change(printer, "install", &Change::Install(args.packages.clone()), &args.common)
}
