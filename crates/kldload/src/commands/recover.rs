//! `kldload recover`.

use kld_engine::{Adopter, Engine, RealHost};
use kld_ui::{ExitStatus, Printer};

use super::apply;

/// Undo an apply that was interrupted by a kill or a power cut, and bring an adoption to its end
///
/// Runs at every boot, before services, and at the beginning of every `kldload apply` and `kldload adopt`. When nothing was
/// interrupted, it does nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kldload recover")]
pub(crate) struct Args {
    /// The machine is starting: no service is started again
    #[arg(long)]
    boot: bool,
}

/// Undoes it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = apply::lock("kldload recover")?;
    let (engine, adopter) = (Engine::new(&RealHost), Adopter::new(&RealHost));
    let (engine, adopter) =
        if args.boot { (engine.while_starting(), adopter.while_starting()) } else { (engine, adopter) };
    if !apply::recover(printer, engine, adopter)? {
        printer.note("nothing was interrupted");
    }
    Ok(ExitStatus::Done)
}
