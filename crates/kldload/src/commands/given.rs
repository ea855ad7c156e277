//! What a person gives and nobody else may see.

use std::io::{self, IsTerminal as _, Read};

use anyhow::Context as _;
use kld_host::Cmd;

/// What is on standard input, at most one byte more than it may have. `None`: somebody sits there, who would be seen typing.
pub(crate) fn standard_input(most: usize) -> anyhow::Result<Option<Vec<u8>>> {
    if io::stdin().is_terminal() { Ok(None) } else { read(io::stdin(), most).map(Some) }
}

/// At most one byte more than it may have.
pub(crate) fn read(source: impl Read, most: usize) -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    source.take(most as u64 + 1).read_to_end(&mut value).context("cannot read the value")?;
    Ok(value)
}

/// Asks on the terminal, without showing what is typed.
pub(crate) fn ask(question: &str) -> anyhow::Result<Vec<u8>> {
    // No time limit: it stays in the terminal's foreground, and may read from it.
    let ask = Cmd::new("systemd-ask-password").args(["-n", "--echo=no", "--timeout=0", "--", question]);
    Ok(ask.stdin_file("/dev/tty").output()?.stdout)
}
