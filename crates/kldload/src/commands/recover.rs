//! `kldload recover`.

use kld_ui::{ExitStatus, Printer};

use super::apply;

/// Undo an apply that was interrupted by a kill or a power cut
///
/// Runs at every boot, before services, and at the beginning of every `kldload apply`. When nothing was interrupted, it does
/// nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kldload recover")]
pub(crate) struct Args {}

/// Undoes it.
pub(crate) fn run(printer: &Printer, _args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = apply::lock("kldload recover")?;
    if !apply::recover(printer)? {
        printer.note("nothing was interrupted");
    }
    Ok(ExitStatus::Done)
}
