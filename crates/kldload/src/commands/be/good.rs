//! `kbe good`.

use kld_boot::{Looked, RealMachine, mark_good};
use kld_ui::{ExitStatus, Printer};

use super::change::Output;
use crate::commands::apply::take_lock;
use crate::commands::pkg;

/// Say that the running boot environment is well: it is the way back from now on, and is never destroyed
///
/// For whoever can tell: a person who has looked, or a unit after `boot-complete.target`. Until somebody has said it of any
/// environment, the running one counts as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe good\n  kst && kbe good")]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let running = Looked::at(&RealMachine)?.running().map(|of| (of.name().to_owned(), of.trial.is_some()));
    let (name, is_on_trial) = running.unwrap_or_default();
    // Of one whose packages were changed it says more: that it stays.
    args.output.doing(printer, &name, |_| {
        if is_on_trial {
            printer.note(&format!("`{}` is well and stays", pkg::pass(printer)?));
            return Ok(());
        }
        let _lock = take_lock("kbe good")?;
        printer.note(&format!("`{}` is well", mark_good(&RealMachine)?));
        Ok(())
    })?;
    Ok(ExitStatus::Done)
}
