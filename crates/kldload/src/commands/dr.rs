//! `kldload dr`.

use kld_engine::ProcedureKind;
use kld_ui::{ExitStatus, Printer};

use super::procedure;

/// Carry out the manifest's `dr_procedure`, and measure how long it took and how much was lost
///
/// Commands run by `/bin/sh -c` as root and without input: the manifest is your own text. Other steps are asked of you.
/// The recovery time (RTO) is measured until the last `Verify:` held, the lost work (RPO) as the age of the newest snapshot
/// of each service's dataset at the start. Exits with 0 when every step was done and both targets were met.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload dr --dry-run appliance.manifest\n  kldload dr appliance.manifest\n  kldload dr --from 4\n  kldload dr --report 3\n  kldload dr --list --json | jq '.items[-1].rto'"
)]
pub(crate) struct Args {
    #[command(flatten)]
    common: procedure::Common,
}

/// Recovers.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    procedure::run(printer, ProcedureKind::Dr, &args.common)
}
