//! `ksnap prune`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Instant;

use clap_complete::engine::ArgValueCompleter;
use kld_snap::{Keep, KeepError, Pace, Pruned, Snapshot, destroy_cmd, parse_reclaim, prune};
use kld_ui::{ByteSize, ExitStatus, Hinted, Phases, Printer};
use serde::Serialize;

use super::{Chosen, counted, reclaimed, snapshots, why, word};
use crate::candidates;

/// Destroy snapshots that ksnap has made, but for those that a policy keeps
///
/// Each short name of each dataset counts by itself. Snapshots that are held or cloned, and those of others (sanoid, zfs),
/// stay. They go in batches, as many at a time as the pool destroys in a quarter of a second, so that others never wait long.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ksnap prune --dry-run --keep 5 rpool/srv/webapp-db\n  ksnap prune -r --keep last=3,daily=7,monthly=12 rpool/srv\n  ksnap prune --keep 1 --name pre-upgrade rpool/srv/webapp-db"
)]
pub(crate) struct Args {
    /// Datasets, or paths that lie on them
    #[arg(required = true, value_name = "DATASET|PATH", add = ArgValueCompleter::new(candidates::datasets_and_paths))]
    datasets: Vec<String>,
    /// What stays: a number, or `last=5,hourly=24,daily=7,weekly=4,monthly=12,yearly=2`
    #[arg(long, value_name = "POLICY", value_parser = word::<Keep>(KeepError::hint))]
    keep: Keep,
    /// Only those of this short name
    #[arg(long)]
    name: Option<String>,
    /// All datasets below, too
    #[arg(long, short)]
    recursive: bool,
    /// Only say what would go, and what that frees; exits with 3
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// What goes from one dataset.
#[derive(Debug, Serialize)]
struct Row {
    dataset: String,
    destroy: Vec<String>,
    /// Bytes that come free.
    frees: u64,
}

/// Shows, asks, destroys.
pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let datasets = Chosen::of(&args.datasets)?.datasets;
    let all = snapshots(&datasets, args.recursive)?;
    let asked_for = |snapshot: &&Snapshot| args.name.is_none() || snapshot.short() == args.name.as_deref();
    let asked_for: Vec<Snapshot> = all.iter().filter(asked_for).cloned().collect();
    let pruned = prune(&asked_for, args.keep);
    let mut by_dataset: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in &pruned.gone {
        by_dataset.entry(&snapshot.dataset).or_default().push(snapshot);
    }
    let mut rows = Vec::new();
    for (dataset, gone) in by_dataset {
        let frees = reclaimed(dataset, &all, &gone)?;
        let destroy = gone.iter().map(|snapshot| snapshot.name.clone()).collect();
        rows.push(Row { dataset: dataset.to_owned(), destroy, frees });
    }
    let go = !rows.is_empty() && !args.dry_run;
    show(printer, args.json, go && !args.yes, &page(&pruned, &rows))?;
    if go {
        if !printer.confirm("destroy them?", args.yes) {
            return Err(Hinted::new("nothing was destroyed: not confirmed", "`--yes` does not ask").into());
        }
        destroy(printer, &mut rows)?;
        let freed = rows.iter().map(|row| row.frees).sum();
        printer.note(&format!(
            "{} destroyed, {} freed",
            counted(pruned.gone.len(), "snapshot"),
            ByteSize(freed)
        ));
    }
    if args.json {
        printer.envelope("prune", &rows)?;
    }
    Ok(if go || rows.is_empty() { ExitStatus::Done } else { ExitStatus::Pending })
}

/// Who is asked sees it in any case; with `--json`, what is done is said once.
fn show(printer: &Printer, json: bool, asks: bool, page: &str) -> io::Result<()> {
    match (json, asks) {
        (false, _) => printer.data(page),
        (true, true) => {
            printer.note(page.trim_end());
            Ok(())
        }
        (true, false) => Ok(()),
    }
}

/// Destroys them, and puts down what that has freed.
fn destroy(printer: &Printer, rows: &mut [Row]) -> anyhow::Result<()> {
    let mut pace = Pace::default();
    let total: usize = rows.iter().map(|row| row.destroy.len()).sum();
    // What is over at once needs no progress.
    let phases = (total > pace.batch()).then(|| Phases::new(printer, 1));
    let phase = phases.as_ref().map(|phases| phases.start("destroy snapshots"));
    let mut done = 0;
    for row in rows {
        row.frees = 0;
        let mut left = &row.destroy[..];
        while !left.is_empty() {
            let (batch, rest) = left.split_at(pace.batch().min(left.len()));
            let start = Instant::now();
            row.frees += parse_reclaim(&destroy_cmd(&row.dataset, batch).stdout_string()?)?;
            pace = pace.after(batch.len(), start.elapsed());
            done += batch.len();
            if let Some(phase) = &phase {
                phase.set(done as u64, total as u64);
            }
            left = rest;
        }
    }
    if let Some(phase) = phase {
        phase.finish();
    }
    Ok(())
}

fn page(pruned: &Pruned, rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "{}: frees {}", row.dataset, ByteSize(row.frees));
        for name in &row.destroy {
            let _ = writeln!(text, "  - @{name}");
        }
    }
    for (snapshot, spared) in &pruned.spared {
        let _ = writeln!(text, "{} stays: it {}", snapshot.full(), why(snapshot, *spared));
    }
    let frees = rows.iter().map(|row| row.frees).sum();
    let gone = counted(pruned.gone.len(), "snapshot");
    let _ = writeln!(text, "{gone} to destroy ({}), {} kept", ByteSize(frees), pruned.kept.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_about_what_was_not_shown() {
        let said = |json, asks| {
            let (printer, said) = Printer::captured();
            show(&printer, json, asks, "two go\n").expect("captured");
            (said.stdout(), said.stderr())
        };
        let (none, page) = (String::new(), "two go\n".to_owned());
        assert_eq!(said(false, true), (page.clone(), none.clone()));
        // Standard output is for the machine.
        assert_eq!(said(true, true), (none.clone(), page));
        assert_eq!(said(true, false), (none.clone(), none));
    }
}
