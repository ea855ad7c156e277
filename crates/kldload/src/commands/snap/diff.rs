//! `ksnap diff`.

use std::time::Duration;

use clap_complete::engine::ArgValueCompleter;
use kld_host::Cmd;
use kld_host::zfs::{self, Change, parse_diff};
use kld_snap::find;
use kld_ui::{ExitStatus, Printer};

use super::{dataset, snapshots};
use crate::candidates;

/// Say which files differ between a snapshot and now, or another snapshot
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ksnap diff rpool/srv/webapp pre-upgrade\n  ksnap diff /srv/webapp monday tuesday"
)]
pub(crate) struct Args {
    /// The dataset, or a path that lies on it
    #[arg(value_name = "DATASET|PATH", add = ArgValueCompleter::new(candidates::datasets_and_paths))]
    dataset: String,
    /// The earlier snapshot
    #[arg(add = ArgValueCompleter::new(candidates::snapshots))]
    name: String,
    /// The later one; now, when there is none
    other: Option<String>,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Compares.
pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let dataset = dataset(&args.dataset)?;
    let all = snapshots(std::slice::from_ref(&dataset), false)?;
    let from = find(&dataset, &all, &args.name)?.full();
    let to = match &args.other {
        Some(name) => find(&dataset, &all, name)?.full(),
        None => dataset,
    };
    let changes = parse_diff(&diff_cmd(&from, &to).stdout_string()?)?;
    if args.json {
        printer.envelope("change", &changes)?;
    } else if changes.is_empty() {
        printer.note("no file differs");
    } else {
        printer.data(&changes.iter().map(line).collect::<String>())?;
    }
    Ok(ExitStatus::Done)
}

/// A large dataset takes its time.
const DEADLINE: Duration = Duration::from_secs(600);

/// What differs between two snapshots, or a snapshot and now.
pub(super) fn diff_cmd(from: &str, to: &str) -> Cmd {
    zfs::diff_cmd(from, to).timeout(DEADLINE)
}

/// As `zfs diff` writes it, readable.
pub(super) fn line(change: &Change) -> String {
    let sign = change.kind.letter();
    // A name that holds a line end must not look like two lines.
    let path = change.path.escape_debug();
    match &change.to {
        Some(to) => format!("{sign}  {path} → {}\n", to.escape_debug()),
        None => format!("{sign}  {path}\n"),
    }
}
