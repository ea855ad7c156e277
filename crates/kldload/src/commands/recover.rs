//! `kldload recover`.

use kld_engine::{Adopter, RealHost};
use kld_node::{RealMachine, keys};
use kld_ui::{ExitStatus, Printer};

use super::snap::swap;
use super::status::read_config;
use super::{apply, lock};

/// Undo an apply that was interrupted by a kill or a power cut, and bring adoptions, rotations of keys and swaps of datasets to their end
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
    // Also while an apply waits to be confirmed: a start takes it back.
    let _lock = lock::take_lock("kldload recover")?;
    let (engine, adopter) = (apply::engine(), Adopter::new(&RealHost));
    let (engine, adopter) =
        if args.boot { (engine.while_starting(), adopter.while_starting()) } else { (engine, adopter) };
    // One that is stuck must not keep the other from its end.
    let swapped = swap::recover(printer);
    let mut found = apply::recover(printer, engine, adopter)?;
    found |= swapped?;
    // At a start, `kldload node init` has done that before.
    if let Some(config) = read_config()?.filter(|_| !args.boot) {
        for dataset in keys::recover(&RealMachine, &config)? {
            printer.note(&format!(
                "a change of the key of `{dataset}` was interrupted: what is sealed is what loads it, and nothing when that is a passphrase"
            ));
            found = true;
        }
    }
    if !found {
        printer.note("nothing was interrupted");
    }
    Ok(ExitStatus::Done)
}
