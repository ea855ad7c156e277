//! `ksnap list`.

use clap_complete::engine::ArgValueCompleter;
use kld_ui::{ByteSize, ExitStatus, Printer, Table};

use super::{Chosen, snapshots};
use crate::candidates;
use crate::commands::history::utc;

/// List snapshots, oldest first, with what each holds for itself
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ksnap list rpool/srv/webapp-db\n  ksnap list -r rpool/srv --json | jq '.items[].name'"
)]
pub(crate) struct Args {
    /// Datasets, or paths that lie on them; all of the machine when there is none
    #[arg(value_name = "DATASET|PATH", add = ArgValueCompleter::new(candidates::datasets_and_paths))]
    datasets: Vec<String>,
    /// All datasets below, too
    #[arg(long, short)]
    recursive: bool,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let chosen = Chosen::of(&args.datasets)?;
    let found = match chosen.is_nothing() {
        true => Vec::new(),
        false => snapshots(&chosen.datasets, args.recursive || args.datasets.is_empty())?,
    };
    if args.json {
        printer.envelope("snapshot", &found)?;
        return Ok(chosen.end(printer));
    }
    if found.is_empty() {
        if !chosen.is_nothing() {
            printer.note("there is no snapshot");
        }
        return Ok(chosen.end(printer));
    }
    let mut table =
        Table::new().left("SNAPSHOT").left("WHEN").right("USED").right("REFER").right("HOLDS").left("CLONES");
    for snapshot in &found {
        table.row([
            snapshot.full(),
            utc(snapshot.created),
            ByteSize(snapshot.used).to_string(),
            ByteSize(snapshot.referenced).to_string(),
            snapshot.holds.to_string(),
            snapshot.clones.join(","),
        ]);
    }
    printer.data(&table.to_string())?;
    Ok(chosen.end(printer))
}
