//! `ksnap --before CMD --after CMD`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use kld_host::Cmd;
use kld_snap::split_words;
use kld_ui::{Hinted, Printer};

/// Somebody who waits for longer has a frozen machine.
const DEADLINE: Duration = Duration::from_secs(600);

/// Commands around a snapshot.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Hooks {
    /// Run this first; when it fails, no snapshot is made. A program and its arguments, without a shell
    #[arg(long, value_name = "COMMAND")]
    before: Option<String>,
    /// Run this last: also when --before or the snapshot has failed, and when ksnap is told to end
    #[arg(long, value_name = "COMMAND")]
    after: Option<String>,
}

/// Hooks that can be run.
pub(super) struct Ready {
    before: Option<Cmd>,
    after: Option<Cmd>,
}

impl Hooks {
    /// Reads both, before anything is done.
    pub(super) fn ready(&self) -> anyhow::Result<Ready> {
        let read = |text: &Option<String>| text.as_deref().map(command).transpose();
        Ok(Ready { before: read(&self.before)?, after: read(&self.after)? })
    }
}

fn command(text: &str) -> anyhow::Result<Cmd> {
    let words = split_words(text)?;
    let (program, args) = words.split_first().context("a command has words")?;
    Ok(Cmd::new(program).args(args).timeout(DEADLINE))
}

impl Ready {
    /// Does the work between the two. The outer result is whether it was done, the inner one whether `after` was.
    pub(super) fn around(
        self,
        printer: &Printer,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<anyhow::Result<()>> {
        let Self { before, after } = self;
        if before.is_none() && after.is_none() {
            return work().map(Ok);
        }
        // From here to the end a signal is only remembered: the hooks are in groups of their own, where Ctrl-C does not
        // reach them, and what `before` has stopped runs again.
        let told = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&told);
        ctrlc::set_handler(move || seen.store(true, Ordering::SeqCst)).context("cannot watch for signals")?;
        let begun = match &before {
            Some(cmd) => cmd.run().context("the command before the snapshot has failed, and none was made"),
            None => Ok(()),
        };
        let done = begun.and_then(|()| match told.load(Ordering::SeqCst) {
            true => Err(Hinted::new("told to end before the snapshot: none was made", "run it again").into()),
            false => work(),
        });
        let after = match &after {
            Some(cmd) => cmd.run().with_context(|| format!("`{cmd}` has failed after the snapshot")),
            None => Ok(()),
        };
        match (done, after) {
            (Ok(()), after) => Ok(after),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(second)) => {
                printer.warning(&format!("{second:#}"));
                Err(error)
            }
        }
    }
}
