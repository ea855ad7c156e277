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
    let (verb, done) = match what {
        What::Hold => ("hold", "is held"),
        What::Release => ("release", "is released"),
    };
    let cmd = Cmd::new("zfs").args([verb, &args.tag, &full]).timeout(Duration::from_secs(60));
    if args.json {
        let held = matches!(what, What::Hold);
        printer.envelope("hold", &[Hold { snapshot: &full, tag: &args.tag, held, dry_run: args.dry_run }])?;
    } else if args.dry_run {
        printer.data(&cmd.to_string())?;
    }
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    cmd.run()?;
    printer.note(&format!("`{full}` {done}"));
    Ok(ExitStatus::Done)
}
