//! The question before something is changed.

use std::io;

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

/// Who is asked sees it in any case; with `--json`, what is done is said once, afterwards.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn show(printer: &Printer, json: bool, asks: bool, page: &str) -> io::Result<()> {
    match (json, asks) {
        (false, _) => printer.data(page),
        (true, true) => {
            printer.note(page.trim_end());
            Ok(())
        }
        (true, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_about_what_was_not_shown() {
        let said = |json, asks| {
            let (printer, said) = Printer::captured();
            show(&printer, json, asks, "two go\n").expect("captured");
            (said.stdout(), said.stderr())
        };
        let (none, page) = (String::new(), "two go\n".to_owned());
        assert_eq!(said(false, true), (page.clone(), none.clone()));
        // Standard output is for the machine.
        assert_eq!(said(true, true), (none.clone(), page));
        assert_eq!(said(true, false), (none.clone(), none));
    }
}
