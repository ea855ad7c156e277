//! Asking before something is changed.

use std::io::{self, IsTerminal};

use crate::Printer;

impl Printer {
    /// Asks `question` on stderr and reads one line from stdin: only `y` and `yes` mean yes.
    ///
    /// `yes` is the user's `--yes`: nothing is asked. Without it and without a terminal on stdin the answer is no,
    /// so that a script never hangs and never destroys.
    pub fn confirm(&self, question: &str, yes: bool) -> bool {
        if yes {
            return true;
        }
        if !io::stdin().is_terminal() {
            return false;
        }
        self.prompt(&format!("{question} [y/N] "));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).is_ok() && is_yes(&answer)
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (answer, want) in
            [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("yeah\n", false), ("n\n", false)]
        {
            assert_eq!(is_yes(answer), want, "{answer:?}");
        }
    }

    #[test]
    fn the_flag_answers_without_asking() {
        let (printer, captured) = Printer::captured();
        assert!(printer.confirm("destroy `tank`?", true));
        assert_eq!(captured.stderr(), "");
    }
}
