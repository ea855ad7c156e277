//! Errors and hints as they are shown.
//!
//! ```text
//! error: could not write `web.img`
//! caused by: no space left on device
//!
//! hint: the image needs 3.20G, `/srv` has 1.10G free
//! ```
//!
//! Errors are made without knowledge of this crate: one that can help its reader has a method
//! `hint(&self) -> Option<String>`, and the binary lists those types once in a [`Hints`].

use std::error::Error;
use std::fmt;

/// An error that may know what its reader can do about it.
pub trait Hint {
    /// What to do, in one sentence without a full stop; `None` when there is nothing.
    fn hint(&self) -> Option<String>;
}

/// A message with a hint, for errors that a command makes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hinted {
    message: String,
    hint: String,
}

impl Hinted {
    /// An error that says `message` and advises `hint`.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Hinted {}

impl Hint for Hinted {
    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

type Finder = Box<dyn Fn(&(dyn Error + 'static)) -> Option<String> + Send + Sync>;

/// The error types that know a hint. An error chain has lost its types; this finds them again.
pub struct Hints(Vec<Finder>);

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hints({} types)", self.0.len())
    }
}

impl Default for Hints {
    fn default() -> Self {
        Self::new()
    }
}

impl Hints {
    /// Knows [`Hinted`] only.
    pub fn new() -> Self {
        Self(Vec::new()).on(Hinted::hint)
    }

    /// Adds a type by its method: `.on(ExecError::hint)`.
    #[must_use]
    pub fn on<E: Error + 'static>(mut self, hint: fn(&E) -> Option<String>) -> Self {
        self.0.push(Box::new(move |error| error.downcast_ref::<E>().and_then(hint)));
        self
    }

    /// All hints along the chain, outermost first, each once.
    pub fn of(&self, error: &(dyn Error + 'static)) -> Vec<String> {
        let mut hints = Vec::new();
        for error in chain(error) {
            for hint in self.0.iter().filter_map(|find| find(error)) {
                if !hints.contains(&hint) {
                    hints.push(hint);
                }
            }
        }
        hints
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

const RED: &str = "\x1b[1;31m";
const CYAN: &str = "\x1b[1;36m";
const RESET: &str = "\x1b[0m";

/// The error, its causes and the hints, with colours; ends with a newline. A cause that says exactly what the
/// error above it said (a transparent wrapper) is left out.
pub fn render_error(error: &(dyn Error + 'static), hints: &[String]) -> String {
    let mut text = String::new();
    let mut above = String::new();
    for (depth, cause) in chain(error).enumerate() {
        let message = cause.to_string();
        if depth > 0 && message == above {
            continue;
        }
        let label = if depth == 0 { "error:" } else { "caused by:" };
        text.push_str(&format!("{RED}{label}{RESET} {}\n", message.trim_end()));
        above = message;
    }
    for (index, hint) in hints.iter().enumerate() {
        let gap = if index == 0 { "\n" } else { "" };
        text.push_str(&format!("{gap}{CYAN}hint:{RESET} {}\n", hint.trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use expect_test::{Expect, expect};

    #[derive(Debug, thiserror::Error)]
    #[error("`mmdebstrap` is not installed")]
    struct Missing;

    impl Missing {
        fn hint(&self) -> Option<String> {
            Some("apt install mmdebstrap".to_owned())
        }
    }

    fn check(error: anyhow::Error, want: Expect) {
        let hints = Hints::new().on(Missing::hint);
        let error: &(dyn Error + 'static) = error.as_ref();
        let text = render_error(error, &hints.of(error));
        want.assert_eq(&anstream::adapter::strip_str(&text).to_string());
    }

    #[test]
    fn shows_causes_then_hints() {
        check(
            Err::<(), _>(Missing)
                .context("could not make the root tree")
                .unwrap_err()
                .context("build failed"),
            expect![[r#"
                error: build failed
                caused by: could not make the root tree
                caused by: `mmdebstrap` is not installed

                hint: apt install mmdebstrap
            "#]],
        );
    }

    #[test]
    fn a_hint_is_found_wherever_its_error_is_in_the_chain() {
        check(
            anyhow::Error::new(Missing).context(Hinted::new("no tree", "look at `kldload check`")),
            expect![[r#"
                error: no tree
                caused by: `mmdebstrap` is not installed

                hint: apt install mmdebstrap
            "#]],
        );
        check(
            Hinted::new("`a.img` exists", "pass `--force` to replace it").into(),
            expect![[r#"
                error: `a.img` exists

                hint: pass `--force` to replace it
            "#]],
        );
    }

    #[test]
    fn without_hints_there_is_no_blank_line() {
        check(
            anyhow::anyhow!("plain"),
            expect![[r#"
                error: plain
            "#]],
        );
    }
}
