//! `ksnap hold` and `ksnap release`.

use std::time::Duration;

use clap_complete::engine::ArgValueCompleter;
use kld_host::Cmd;
use kld_snap::find;
use kld_ui::{ExitStatus, Printer};
use serde::Serialize;

use super::{dataset, snapshots};
use crate::candidates;

/// Keep a snapshot from being destroyed, or let it go again
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ksnap hold rpool/srv/webapp-db pre-upgrade\n  ksnap release rpool/srv/webapp-db pre-upgrade"
)]
pub(crate) struct Args {
    /// The dataset, or a path that lies on it
    #[arg(value_name = "DATASET|PATH", add = ArgValueCompleter::new(candidates::datasets_and_paths))]
    dataset: String,
    /// The snapshot
    #[arg(add = ArgValueCompleter::new(candidates::snapshots))]
    name: String,
    /// Who holds it
    #[arg(long, default_value = "ksnap")]
    tag: String,
    /// Only show what would be done; exits with 3
    #[arg(long)]
    dry_run: bool,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// What is held or let go, as `--json` has it.
#[derive(Debug, Serialize)]
struct Hold<'a> {
    snapshot: &'a str,
    tag: &'a str,
    held: bool,
    dry_run: bool,
}

/// Which of both.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Hold,
    Release,
}

/// Holds or lets go.
pub(super) fn run(printer: &Printer, args: &Args, what: What) -> anyhow::Result<ExitStatus> {
    let dataset = dataset(&args.dataset)?;
    let full = find(&dataset, &snapshots(std::slice::from_ref(&dataset), false)?, &args.name)?.full();
    perform(printer, args, what, &full, |cmd| Ok(cmd.run()?))
}

/// Does it, or shows what would be done. That it is so is said afterwards.
fn perform(
    printer: &Printer,
    args: &Args,
    what: What,
    full: &str,
    run: impl FnOnce(&Cmd) -> anyhow::Result<()>,
) -> anyhow::Result<ExitStatus> {
    let (verb, done) = match what {
        What::Hold => ("hold", "is held"),
        What::Release => ("release", "is released"),
    };
    let cmd = Cmd::new("zfs").args([verb, &args.tag, full]).timeout(Duration::from_secs(60));
    if !args.dry_run {
        run(&cmd)?;
    }
    if args.json {
        let held = matches!(what, What::Hold);
        printer.envelope("hold", &[Hold { snapshot: full, tag: &args.tag, held, dry_run: args.dry_run }])?;
    } else if args.dry_run {
        printer.data(&cmd.to_string())?;
    }
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    printer.note(&format!("`{full}` {done}"));
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_not_said_to_be_so() {
        let said = |dry_run, works| {
            let (printer, said) = Printer::captured();
            let (dataset, name, tag) = ("t/a".to_owned(), "one".to_owned(), "ksnap".to_owned());
            let args = Args { dataset, name, tag, dry_run, json: true };
            let run = |_: &Cmd| if works { Ok(()) } else { anyhow::bail!("tag already exists") };
            let done = perform(&printer, &args, What::Hold, "t/a@one", run);
            (said.stdout().contains("\"held\": true"), done.ok())
        };
        assert_eq!(said(false, true), (true, Some(ExitStatus::Done)));
        assert_eq!(said(false, false), (false, None));
        // Nothing is run, and what is said says so.
        assert_eq!(said(true, false), (true, Some(ExitStatus::Pending)));
    }
}
