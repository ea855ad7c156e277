//! `kldload confirm`.

use kld_engine::{Engine, RealHost};
use kld_ui::{ExitStatus, Printer};

use super::lock;

/// Keep the last apply or undo, which would go back otherwise
///
/// Say it from a new session: that you can is the proof that the new rules let you in.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kldload confirm")]
pub(crate) struct Args {}

/// Keeps it.
pub(crate) fn run(printer: &Printer, _args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = lock::lock_to_confirm()?;
    if Engine::new(&RealHost).confirm()? {
        printer.note("confirmed: it stays");
    } else {
        printer.note("nothing waits to be confirmed");
    }
    Ok(ExitStatus::Done)
}
