//! `kbe good`.

use kld_boot::{RealMachine, mark_good};
use kld_ui::{ExitStatus, Printer};

use crate::commands::apply::lock;

/// Say that the running boot environment is well: it is the way back from now on, and is never destroyed
///
/// For whoever can tell: a person who has looked, or a unit after `boot-complete.target`. Until somebody has said it of any
/// environment, the running one counts as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe good\n  kst && kbe good")]
pub(crate) struct Args {}

pub(super) fn run(printer: &Printer, _: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = lock("kbe good")?;
    printer.note(&format!("`{}` is well", mark_good(&RealMachine)?));
    Ok(ExitStatus::Done)
}
