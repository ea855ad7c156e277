//! The one place that writes to stdout and stderr, and that decides how much.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::{Hints, render_envelope, render_error};

/// How much is said on stderr. Data on stdout is the same at every level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// Errors and warnings.
    Quiet,
    /// Progress and notes too.
    #[default]
    Default,
    /// Every command that is run, every step.
    Verbose,
}

/// Where a command writes. Clones write to the same place; lines of several threads never mix.
#[derive(Clone)]
pub struct Printer {
    verbosity: Verbosity,
    json: bool,
    streams: Arc<Mutex<Streams>>,
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer")
            .field("verbosity", &self.verbosity)
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    terminal: Option<Terminal>,
}

/// The lines at the bottom of a terminal that are rewritten in place. They go around the colour filter, which
/// would take away the cursor movements under `NO_COLOR`; they hold no colour.
struct Terminal {
    raw: Box<dyn Write + Send>,
    live: Vec<String>,
}

impl Terminal {
    fn erase(&mut self) {
        let up = "\x1b[1A\x1b[2K".repeat(self.live.len());
        // A closed stderr must not stop the work itself, here and below.
        let _ = write!(self.raw, "\r{up}");
    }

    fn draw(&mut self) {
        let width = terminal_width();
        for line in &self.live {
            let shown: String = line.chars().take(width.saturating_sub(1)).collect();
            let _ = writeln!(self.raw, "{shown}");
        }
        let _ = self.raw.flush();
    }
}

fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |size| usize::from(size.ws_col)).max(20)
}

impl Streams {
    fn around_live<T>(&mut self, write: impl FnOnce(&mut Self) -> T) -> T {
        if let Some(terminal) = self.terminal.as_mut().filter(|terminal| !terminal.live.is_empty()) {
            terminal.erase();
            let _ = terminal.raw.flush();
        }
        let result = write(self);
        if let Some(terminal) = self.terminal.as_mut().filter(|terminal| !terminal.live.is_empty()) {
            terminal.draw();
        }
        result
    }
}

impl Printer {
    /// Prints to the process's stdout and stderr.
    pub fn new(verbosity: Verbosity, json: bool) -> Self {
        let live = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let terminal = live.then(|| Terminal { raw: Box::new(io::stderr()), live: Vec::new() });
        let streams =
            Streams { out: Box::new(anstream::stdout()), err: Box::new(anstream::stderr()), terminal };
        Self { verbosity, json, streams: Arc::new(Mutex::new(streams)) }
    }

    /// Prints into memory, without colour and as if not on a terminal: for tests of commands.
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        let out = anstream::StripStream::new(Box::new(captured.out.clone()) as Box<dyn Write + Send>);
        let err = anstream::StripStream::new(Box::new(captured.err.clone()) as Box<dyn Write + Send>);
        let streams = Streams { out: Box::new(out), err: Box::new(err), terminal: None };
        let printer =
            Self { verbosity: Verbosity::Default, json: false, streams: Arc::new(Mutex::new(streams)) };
        (printer, captured)
    }

    /// The same output with another level.
    #[must_use]
    pub fn with_verbosity(mut self, verbosity: Verbosity) -> Self {
        self.verbosity = verbosity;
        self
    }

    /// The same output with JSON asked for, or not.
    #[must_use]
    pub fn with_json(mut self, json: bool) -> Self {
        self.json = json;
        self
    }

    /// The level in force.
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Whether the user asked for JSON; then stdout gets one [`Printer::envelope`] and nothing else.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Writes what was asked for to stdout, with a final newline.
    ///
    /// # Errors
    /// When stdout cannot be written; `BrokenPipe` means that the reader has seen enough, which is no failure.
    pub fn data(&self, text: &str) -> io::Result<()> {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        self.streams().around_live(|streams| {
            write!(streams.out, "{text}{end}")?;
            streams.out.flush()
        })
    }

    /// Writes the items to stdout as the one JSON document of the command.
    ///
    /// # Errors
    /// When an item is no JSON or stdout cannot be written.
    pub fn envelope<T: Serialize>(&self, kind: &str, items: &[T]) -> io::Result<()> {
        self.data(&render_envelope(kind, items)?)
    }

    /// Says something a person would like to know.
    pub fn note(&self, text: &str) {
        if self.verbosity >= Verbosity::Default {
            self.say(text);
        }
    }

    /// Says something only a person who looks for a fault would like to know.
    pub fn detail(&self, text: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.say(text);
        }
    }

    /// Says that something is not as it should be though the work goes on.
    pub fn warning(&self, text: &str) {
        self.say(&format!("\x1b[1;33mwarning:\x1b[0m {text}"));
    }

    /// Shows something that is wrong with the input and was rendered already, at every level.
    pub fn problem(&self, text: &str) {
        self.say(text);
    }

    /// Shows why the command failed, and what can be done.
    pub fn error(&self, error: &(dyn Error + 'static), hints: &Hints) {
        self.say(&render_error(error, &hints.of(error)));
    }

    fn say(&self, text: &str) {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        self.streams().around_live(|streams| {
            let _ = write!(streams.err, "{text}{end}");
            let _ = streams.err.flush();
        });
    }

    pub(crate) fn prompt(&self, text: &str) {
        let mut streams = self.streams();
        let _ = write!(streams.err, "{text}");
        let _ = streams.err.flush();
    }

    /// Replaces the live lines; nothing happens off a terminal.
    pub(crate) fn set_live(&self, lines: Vec<String>) {
        if let Some(terminal) = self.streams().terminal.as_mut() {
            terminal.erase();
            terminal.live = lines;
            terminal.draw();
        }
    }

    pub(crate) fn has_live_lines(&self) -> bool {
        self.streams().terminal.is_some()
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        // A thread that panicked while printing left at worst half a line.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn captured_terminal() -> (Self, Captured) {
        let (printer, captured) = Self::captured();
        printer.streams().terminal = Some(Terminal { raw: Box::new(captured.err.clone()), live: Vec::new() });
        (printer, captured)
    }
}

/// What a [`Printer::captured`] has written so far.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    out: Buffer,
    err: Buffer,
}

impl Captured {
    /// Everything on stdout.
    pub fn stdout(&self) -> String {
        self.out.text()
    }

    /// Everything on stderr.
    pub fn stderr(&self) -> String {
        self.err.text()
    }
}

#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hinted;
    use expect_test::{Expect, expect};

    fn speak(printer: &Printer) {
        printer.data("rpool").expect("memory can be written");
        printer.note("a note");
        printer.detail("a detail");
        printer.warning("a warning");
        printer.error(&Hinted::new("an error", "a hint"), &Hints::new());
    }

    fn check(verbosity: Verbosity, want: Expect) {
        let (printer, captured) = Printer::captured();
        speak(&printer.with_verbosity(verbosity));
        assert_eq!(captured.stdout(), "rpool\n");
        want.assert_eq(&captured.stderr());
    }

    #[test]
    fn levels_change_stderr_only() {
        check(
            Verbosity::Quiet,
            expect![[r#"
                warning: a warning
                error: an error

                hint: a hint
            "#]],
        );
        check(
            Verbosity::Default,
            expect![[r#"
                a note
                warning: a warning
                error: an error

                hint: a hint
            "#]],
        );
        check(
            Verbosity::Verbose,
            expect![[r#"
                a note
                a detail
                warning: a warning
                error: an error

                hint: a hint
            "#]],
        );
    }

    #[test]
    fn live_lines_stay_below_what_is_said() {
        let (printer, captured) = Printer::captured_terminal();
        printer.set_live(vec!["[1/2] live".to_owned()]);
        printer.note("said");
        printer.set_live(Vec::new());
        expect![[r#""\r[1/2] live\n\r\u{1b}[1A\u{1b}[2Ksaid\n[1/2] live\n\r\u{1b}[1A\u{1b}[2K""#]]
            .assert_eq(&format!("{:?}", captured.stderr()));
    }
}
