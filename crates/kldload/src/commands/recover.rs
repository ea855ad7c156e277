//! `kldload recover`.

use kld_engine::{Adopter, RealHost};
use kld_node::{RealMachine, keys};
use kld_ui::{ExitStatus, Printer};

use super::snap::swap;
use super::status::read_config;
use super::{adopt, apply, lock};

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
    let found = all(
        printer,
        [
            swap::recover(printer),
            adopt::recover(printer, adopter),
            apply::undo_interrupted(printer, engine),
            // At a start, `kldload node init` has done that before.
            if args.boot { Ok(false) } else { end_rotations(printer) },
        ],
    )?;
    if !found {
        printer.note("nothing was interrupted");
    }
    Ok(ExitStatus::Done)
}

/// What was interrupted in several ways has been brought to its end, as far as it can be: one that is stuck has kept no other from
/// that. Whether there was anything; the first error, once the others are said.
pub(super) fn all(
    printer: &Printer,
    tried: impl IntoIterator<Item = anyhow::Result<bool>>,
) -> anyhow::Result<bool> {
    let (mut found, mut first) = (false, None);
    for one in tried {
        match one {
            Ok(was_there) => found |= was_there,
            Err(error) if first.is_none() => first = Some(error),
            Err(error) => printer.warning(&format!("{error:#}")),
        }
    }
    first.map_or(Ok(found), Err)
}

fn end_rotations(printer: &Printer) -> anyhow::Result<bool> {
    let Some(config) = read_config()? else { return Ok(false) };
    let settled = keys::recover(&RealMachine, &config)?;
    for dataset in &settled {
        printer.note(&format!(
            "a change of the key of `{dataset}` was interrupted: what is sealed is what loads it, and nothing when that is a passphrase"
        ));
    }
    Ok(!settled.is_empty())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn one_that_is_stuck_keeps_no_other_from_being_heard() {
        let (printer, captured) = Printer::captured();
        let said = |tried: [anyhow::Result<bool>; 3]| all(&printer, tried).map_err(|error| error.to_string());
        assert_eq!(said([Ok(false), Ok(true), Ok(false)]), Ok(true));
        assert_eq!(said([Ok(false), Ok(false), Ok(false)]), Ok(false));
        let stuck = [Ok(true), Err(anyhow!("the first")), Err(anyhow!("another"))];
        assert_eq!(said(stuck), Err("the first".to_owned()));
        assert!(captured.stderr().contains("another"), "{}", captured.stderr());
    }
}
