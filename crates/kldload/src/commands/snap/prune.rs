//! `ksnap prune`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kld_snap::{Keep, Pruned, Snapshot, destroy_cmds, parse_reclaim, prune};
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer};
use serde::Serialize;

use super::{counted, dataset, reclaimed, snapshots, why};

/// Destroy snapshots that ksnap has made, but for those that a policy keeps
///
/// Each short name of each dataset counts by itself. Snapshots that are held or cloned, and those of others (sanoid, zfs),
/// stay. They go in batches, so that other commands come in between.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ksnap prune --dry-run --keep 5 rpool/srv/webapp-db\n  ksnap prune -r --keep last=3,daily=7,monthly=12 rpool/srv\n  ksnap prune --keep 1 --name pre-upgrade rpool/srv/webapp-db"
)]
pub(crate) struct Args {
    /// Datasets, or paths that lie on them
    #[arg(required = true, value_name = "DATASET|PATH")]
    datasets: Vec<String>,
    /// What stays: a number, or `last=5,hourly=24,daily=7,weekly=4,monthly=12,yearly=2`
    #[arg(long, value_name = "POLICY")]
    keep: String,
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
    let keep: Keep = args.keep.parse()?;
    let datasets = args.datasets.iter().map(|word| dataset(word)).collect::<Result<Vec<_>, _>>()?;
    let all = snapshots(&datasets, args.recursive)?;
    let asked_for = |snapshot: &&Snapshot| args.name.is_none() || snapshot.short() == args.name.as_deref();
    let asked_for: Vec<Snapshot> = all.iter().filter(asked_for).cloned().collect();
    let pruned = prune(&asked_for, keep);
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
    if !args.json {
        printer.data(&page(&pruned, &rows))?;
    }
    let go = !rows.is_empty() && !args.dry_run;
    if go {
        if !printer.confirm("destroy them?", args.yes) {
            return Err(Hinted::new("nothing was destroyed: not confirmed", "`--yes` does not ask").into());
        }
        for row in &mut rows {
            row.frees = destroy(&row.dataset, &row.destroy)?;
        }
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

/// Destroys them, and says what that has freed.
fn destroy(dataset: &str, names: &[String]) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for cmd in destroy_cmds(dataset, names) {
        bytes += parse_reclaim(&cmd.stdout_string()?)?;
    }
    Ok(bytes)
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
