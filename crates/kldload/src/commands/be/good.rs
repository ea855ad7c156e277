//! `kbe good`.

use kld_boot::{Looked, RealMachine, mark_good};
use kld_ui::{ExitStatus, Printer};

use crate::commands::apply::lock;
use crate::commands::pkg;

/// Say that the running boot environment is well: it is the way back from now on, and is never destroyed
///
/// For whoever can tell: a person who has looked, or a unit after `boot-complete.target`. Until somebody has said it of any
/// environment, the running one counts as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe good\n  kst && kbe good")]
pub(crate) struct Args {}

pub(super) fn run(printer: &Printer, _: &Args) -> anyhow::Result<ExitStatus> {
    // Of one whose packages were changed it says more: that it stays.
    if Looked::at(&RealMachine)?.running().is_some_and(|of| of.trial.is_some()) {
        printer.note(&format!("`{}` is well and stays", pkg::pass(printer)?));
        return Ok(ExitStatus::Done);
    }
    let _lock = lock("kbe good")?;
    printer.note(&format!("`{}` is well", mark_good(&RealMachine)?));
    Ok(ExitStatus::Done)
}
