//! `kldload pool diff`.

use kld_pool::read::{Change, Difference, diff};
use kld_ui::{ExitStatus, Printer};
use serde::Serialize;

use super::image::Image;
use super::shown;

/// Show what changed from one snapshot to another, as `zfs diff` does
///
/// `+` was added, `-` was removed, `M` was changed, `R` was renamed. What changed is found through blocks: files that are
/// the same are not read.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool diff webapp.img rpool/ROOT/debian@install rpool/ROOT/debian"
)]
pub(crate) struct Args {
    /// File or device; sides of a mirror are separated by commas
    image: String,
    /// The older snapshot
    old: String,
    /// The newer snapshot or file system
    new: String,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    change: &'static str,
    path: String,
    from: Option<String>,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let rows: Vec<Row> = Image::open(&args.image)?.with_pool(|pool| {
        let (old, new) = (pool.filesystem(&args.old)?, pool.filesystem(&args.new)?);
        Ok(diff(&old, &new)?.iter().map(row).collect())
    })?;
    if args.json {
        printer.envelope("changes", &rows)?;
        return Ok(ExitStatus::Done);
    }
    let line = |row: &Row| match &row.from {
        Some(from) => format!("{}\t{from} -> {}\n", row.change, row.path),
        None => format!("{}\t{}\n", row.change, row.path),
    };
    if !rows.is_empty() {
        printer.data(&rows.iter().map(line).collect::<String>())?;
    }
    Ok(ExitStatus::Done)
}

fn row(difference: &Difference) -> Row {
    let path = |path: &[u8]| format!("/{}", shown(path));
    let (change, from) = match &difference.change {
        Change::Added => ("+", None),
        Change::Removed => ("-", None),
        Change::Modified => ("M", None),
        Change::Renamed { from, .. } => ("R", Some(path(from))),
    };
    Row { change, path: path(&difference.path), from }
}
