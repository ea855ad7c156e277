//! The question before something is changed.

use kld_ui::{Hinted, Printer};

/// Asks, unless `yes` was said beforehand.
///
/// # Errors
/// When the answer is no, or nobody is there to give one.
pub(crate) fn asked(printer: &Printer, question: &str, yes: bool) -> anyhow::Result<()> {
    if printer.confirm(question, yes) {
        return Ok(());
    }
    Err(Hinted::new("nothing was changed: not confirmed", "`--yes` does not ask").into())
}
