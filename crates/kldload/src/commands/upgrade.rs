//! `kldload upgrade`.

use kld_engine::ProcedureKind;
use kld_ui::{ExitStatus, Printer};

use super::procedure;

/// Carry out the manifest's `upgrade_procedure`: each step shown and timed, its branch taken when it fails
///
/// Commands run by `/bin/sh -c` as root and without input: the manifest is your own text. Other steps are asked of you.
/// `Verify:` steps are tried until they hold. What happened is kept in /var/lib/kldload/procedures. Exits with 0 when every
/// step was done and the targets were met.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload upgrade --dry-run\n  kldload upgrade appliance.manifest\n  kldload upgrade --yes --answer done\n  kldload upgrade --from 4\n  kldload upgrade --list"
)]
pub(crate) struct Args {
    #[command(flatten)]
    common: procedure::Common,
}

/// Upgrades.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    procedure::run(printer, ProcedureKind::Upgrade, &args.common)
}
