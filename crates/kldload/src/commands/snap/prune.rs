//! `ksnap prune`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Instant;

use clap_complete::engine::ArgValueCompleter;
use kld_host::ExecError;
use kld_snap::{
    Keep, KeepError, Pace, Pruned, Snapshot, by_snapshots_cmd, destroy_cmd, destroy_together_cmd, known,
    parse_by_snapshots, parse_destroyed, parse_reclaim, pool_of, prune,
};
use kld_ui::{ByteSize, ExitStatus, Hinted, Phases, Printer};
use serde::Serialize;

use super::{Chosen, counted, reclaimed, snapshots, why, word};
use crate::candidates;

/// Destroy snapshots that ksnap has made, but for those that a policy keeps
///
/// Each short name of each dataset counts by itself. Snapshots that are held or cloned, and those of others (sanoid, zfs),
/// stay. They go in batches, of all datasets, as many at a time as make others wait a quarter of a second longer than one
/// alone.
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

/// Snapshots that are destroyed in a moment.
const AT_ONCE: usize = 25;

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
    // Who is not asked learns what came free, which is not worked out before.
    let foretold = args.dry_run || !args.yes;
    let mut rows = rows(&datasets, args.recursive, &all, &pruned.gone, foretold)?;
    let go = !rows.is_empty() && !args.dry_run;
    show(printer, args.json, go && !args.yes, &page(&pruned, &rows, foretold))?;
    if go {
        if !printer.confirm("destroy them?", args.yes) {
            return Err(Hinted::new("nothing was destroyed: not confirmed", "`--yes` does not ask").into());
        }
        let freed = destroy(printer, &pruned.gone)?;
        for row in &mut rows {
            row.frees = freed.get(&row.dataset).copied().unwrap_or(0);
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

/// What goes, dataset by dataset, and what that would free when it is to be foretold: one question says it for most of them.
fn rows(
    asked: &[String],
    recursive: bool,
    all: &[Snapshot],
    gone: &[Snapshot],
    foretold: bool,
) -> anyhow::Result<Vec<Row>> {
    let mut by_dataset: BTreeMap<&str, (Vec<Snapshot>, Vec<&Snapshot>)> = BTreeMap::new();
    for snapshot in gone {
        by_dataset.entry(&snapshot.dataset).or_default().1.push(snapshot);
    }
    for snapshot in all {
        if let Some((all, _)) = by_dataset.get_mut(snapshot.dataset.as_str()) {
            all.push(snapshot.clone());
        }
    }
    let by_snapshots = match foretold && !by_dataset.is_empty() {
        true => Some(parse_by_snapshots(&by_snapshots_cmd(asked, recursive).stdout_string()?)),
        false => None,
    };
    let row = |(dataset, (all, gone)): (&str, (Vec<Snapshot>, Vec<&Snapshot>))| {
        let frees = match &by_snapshots {
            None => 0,
            Some(by) => match known(dataset, &all, &gone, by.get(dataset).copied()) {
                Some(bytes) => bytes,
                None => reclaimed(dataset, &all, &gone)?,
            },
        };
        let destroy = gone.iter().map(|snapshot| snapshot.name.clone()).collect();
        Ok(Row { dataset: dataset.to_owned(), destroy, frees })
    };
    by_dataset.into_iter().map(row).collect()
}

/// Destroys them. Gives what came free, by dataset.
fn destroy(printer: &Printer, gone: &[Snapshot]) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut pools: BTreeMap<&str, Vec<Snapshot>> = BTreeMap::new();
    for snapshot in gone {
        pools.entry(pool_of(&snapshot.dataset)).or_default().push(snapshot.clone());
    }
    // What is over at once needs no progress.
    let phases = (gone.len() > AT_ONCE).then(|| Phases::new(printer, 1));
    let phase = phases.as_ref().map(|phases| phases.start("destroy snapshots"));
    let (mut freed, mut done, mut together) = (BTreeMap::new(), 0, true);
    for (pool, snapshots) in pools {
        let mut pace = Pace::default();
        let mut left = &snapshots[..];
        while !left.is_empty() {
            let (batch, rest) = left.split_at(pace.batch().min(left.len()));
            let start = Instant::now();
            let refused = if together { destroy_together(pool, batch, &mut freed)? } else { None };
            together = refused.is_some();
            destroy_each(refused.as_deref().unwrap_or(batch), &mut freed)?;
            pace = pace.after(batch.len(), start.elapsed());
            done += batch.len();
            if let Some(phase) = &phase {
                phase.set(done as u64, gone.len() as u64);
            }
            left = rest;
        }
    }
    if let Some(phase) = phase {
        phase.finish();
    }
    Ok(freed)
}

/// Destroys these of a pool at once, and gives back those that this does not destroy. `None`: it is not for this user, or this pool.
fn destroy_together(
    pool: &str,
    batch: &[Snapshot],
    freed: &mut BTreeMap<String, u64>,
) -> anyhow::Result<Option<Vec<Snapshot>>> {
    let said = match destroy_together_cmd(pool, batch).stdout_string() {
        Ok(said) => parse_destroyed(&said)?,
        Err(ExecError::Failed { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for (dataset, bytes) in said.freed {
        *freed.entry(dataset).or_default() += bytes;
    }
    let refused = batch.iter().filter(|snapshot| said.refused.contains_key(&snapshot.full()));
    Ok(Some(refused.cloned().collect()))
}

/// Destroys these, one dataset after the other. Whatever is in the way is said by ZFS.
fn destroy_each(snapshots: &[Snapshot], freed: &mut BTreeMap<String, u64>) -> anyhow::Result<()> {
    let mut by_dataset: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for snapshot in snapshots {
        by_dataset.entry(&snapshot.dataset).or_default().push(&snapshot.name);
    }
    for (dataset, names) in by_dataset {
        let bytes = parse_reclaim(&destroy_cmd(dataset, &names).stdout_string()?)?;
        *freed.entry(dataset.to_owned()).or_default() += bytes;
    }
    Ok(())
}

fn page(pruned: &Pruned, rows: &[Row], foretold: bool) -> String {
    let mut text = String::new();
    for row in rows {
        let frees = if foretold { format!(": frees {}", ByteSize(row.frees)) } else { String::new() };
        let _ = writeln!(text, "{}{frees}", row.dataset);
        for name in &row.destroy {
            let _ = writeln!(text, "  - @{name}");
        }
    }
    for (snapshot, spared) in &pruned.spared {
        let _ = writeln!(text, "{} stays: it {}", snapshot.full(), why(snapshot, *spared));
    }
    let frees: u64 = rows.iter().map(|row| row.frees).sum();
    let frees = if foretold { format!(" ({})", ByteSize(frees)) } else { String::new() };
    let gone = counted(pruned.gone.len(), "snapshot");
    let _ = writeln!(text, "{gone} to destroy{frees}, {} kept", pruned.kept.len());
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
