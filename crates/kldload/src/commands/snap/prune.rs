//! `ksnap prune`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use clap_complete::engine::ArgValueCompleter;
use kld_host::zfs::pool_of;
use kld_host::{Cmd, ExecError, Output};
use kld_snap::{
    Keep, KeepError, Pace, Pruned, Snapshot, Spared, by_snapshots_cmd, destroy_cmd, destroy_together_cmd,
    is_gone, known, list_these_cmd, names_cmd, parse_by_snapshots, parse_destroyed, parse_names,
    parse_reclaim, parse_these, prune, spared,
};
use kld_ui::{ByteSize, ExitStatus, Hinted, Phases, Printer};
use serde::Serialize;

use super::{Chosen, counted, reclaimed, snapshots, why, word};
use crate::candidates;
use crate::commands::asked::show;

/// Destroy snapshots that ksnap has made, but for those that a policy keeps
///
/// Each short name of each dataset counts by itself. Snapshots that are held or cloned, and those of others (sanoid, zfs),
/// stay. They go in batches, of all datasets, as many at a time as make others wait half a second longer than one
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
/// Snapshots that an error names.
const NAMED: usize = 10;

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
    // Who is not asked learns what has come free, which is not worked out before; and ZFS knows what cannot go.
    let foretold = args.dry_run || !args.yes;
    let all = if foretold {
        snapshots(&datasets, args.recursive)?
    } else {
        parse_names(&names_cmd(&datasets, args.recursive).stdout_string()?)?
    };
    let asked_for = |snapshot: &&Snapshot| args.name.is_none() || snapshot.short() == args.name.as_deref();
    let asked_for: Vec<Snapshot> = all.iter().filter(asked_for).cloned().collect();
    let mut pruned = prune(&asked_for, args.keep);
    let mut rows = rows(&datasets, args.recursive, &all, &pruned.gone, foretold)?;
    let go = !rows.is_empty() && !args.dry_run;
    if foretold || !go {
        show(printer, args.json, go, &page(&pruned, &rows, "to destroy"))?;
    }
    let mut failed = BTreeMap::new();
    if go {
        if !printer.confirm("destroy them?", args.yes) {
            return Err(Hinted::new("nothing was destroyed: not confirmed", "`--yes` does not ask").into());
        }
        let done = destroy(printer, &pruned.gone)?;
        pruned.gone.retain(|snapshot| !done.stays(snapshot));
        pruned.spared.extend(done.spared);
        for row in &mut rows {
            row.frees = done.freed.get(&row.dataset).copied().unwrap_or(0);
            let of_it = pruned.gone.iter().filter(|snapshot| snapshot.dataset == row.dataset);
            row.destroy = of_it.map(|snapshot| snapshot.name.clone()).collect();
        }
        rows.retain(|row| !row.destroy.is_empty());
        let said = page(&pruned, &rows, "destroyed");
        match foretold {
            true => printer.note(said.lines().last().unwrap_or_default()),
            false => show(printer, args.json, false, &said)?,
        }
        failed = done.failed;
    }
    if args.json {
        printer.envelope("prune", &rows)?;
    }
    if !failed.is_empty() {
        return Err(stay(&failed).into());
    }
    Ok(if go || rows.is_empty() { ExitStatus::Done } else { ExitStatus::Pending })
}

/// The error about those that are still there.
fn stay(failed: &BTreeMap<String, String>) -> Hinted {
    let mut message = format!("{} could not be destroyed", counted(failed.len(), "snapshot"));
    for (name, why) in failed.iter().take(NAMED) {
        let _ = write!(message, "\n  `{name}`: {why}");
    }
    if failed.len() > NAMED {
        let _ = write!(message, "\n  and {} more", failed.len() - NAMED);
    }
    Hinted::new(
        message,
        "whoever uses them now (a `zfs send`, a hold, a clone) keeps them; prune again later",
    )
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

/// What has become of them.
#[derive(Default)]
struct Done {
    /// Bytes that came free, by dataset.
    freed: BTreeMap<String, u64>,
    /// Those that cannot go.
    spared: Vec<(Snapshot, Spared)>,
    /// Full names of the others that are still there, with the words of ZFS.
    failed: BTreeMap<String, String>,
}

impl Done {
    fn stays(&self, snapshot: &Snapshot) -> bool {
        let full = snapshot.full();
        self.failed.contains_key(&full) || self.spared.iter().any(|(spared, _)| spared.full() == full)
    }
}

/// Destroys them. One that cannot go keeps no other.
fn destroy(printer: &Printer, gone: &[Snapshot]) -> anyhow::Result<Done> {
    let mut pools: BTreeMap<&str, Vec<Snapshot>> = BTreeMap::new();
    for snapshot in gone {
        pools.entry(pool_of(&snapshot.dataset)).or_default().push(snapshot.clone());
    }
    // What is over at once needs no progress.
    let phases = (gone.len() > AT_ONCE).then(|| Phases::new(printer, 1));
    let phase = phases.as_ref().map(|phases| phases.start("destroy snapshots"));
    let (mut done, mut count, mut together) = (Done::default(), 0, true);
    for (pool, snapshots) in pools {
        let mut pace = Pace::default();
        let mut left = &snapshots[..];
        while !left.is_empty() {
            let (batch, rest) = left.split_at(pace.batch().min(left.len()));
            let start = Instant::now();
            let refused = if together { destroy_together(pool, batch, &mut done)? } else { None };
            pace = pace.after(batch.len(), start.elapsed());
            together = refused.is_some();
            destroy_each(&Cmd::output, refused.as_deref().unwrap_or(batch), &mut done)?;
            count += batch.len();
            if let Some(phase) = &phase {
                phase.set(count as u64, gone.len() as u64);
            }
            left = rest;
        }
    }
    if let Some(phase) = phase {
        phase.finish();
    }
    Ok(done)
}

/// Destroys these of a pool at once, and gives back those that this does not destroy. `None`: it is not for this user, or this pool.
fn destroy_together(
    pool: &str,
    batch: &[Snapshot],
    done: &mut Done,
) -> anyhow::Result<Option<Vec<Snapshot>>> {
    let said = match destroy_together_cmd(pool, batch).stdout_string() {
        Ok(said) => parse_destroyed(&said)?,
        Err(ExecError::Failed { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for (dataset, bytes) in said.freed {
        *done.freed.entry(dataset).or_default() += bytes;
    }
    let refused = batch.iter().filter(|snapshot| said.refused.contains_key(&snapshot.full()));
    Ok(Some(refused.cloned().collect()))
}

/// What runs a command.
type Run<'a> = &'a dyn Fn(&Cmd) -> Result<Output, ExecError>;

/// Destroys these, one dataset after the other, but for those that cannot go. One that is gone already is none.
fn destroy_each(run: Run<'_>, snapshots: &[Snapshot], done: &mut Done) -> anyhow::Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let full: Vec<String> = snapshots.iter().map(Snapshot::full).collect();
    let mut by_dataset: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for snapshot in parse_these(&run(&list_these_cmd(&full))?)? {
        match spared(&snapshot) {
            Some(why) => done.spared.push((snapshot, why)),
            None => by_dataset.entry(snapshot.dataset).or_default().push(snapshot.name),
        }
    }
    by_dataset.into_iter().try_for_each(|(dataset, names)| destroy_list(run, &dataset, &names, done))
}

/// Destroys these of one dataset. A list goes whole or not at all; when it does not, its names are tried one by one.
fn destroy_list(run: Run<'_>, dataset: &str, names: &[String], done: &mut Done) -> anyhow::Result<()> {
    match (run(&destroy_cmd(dataset, names)), names) {
        (Ok(said), _) => {
            let freed = parse_reclaim(&String::from_utf8_lossy(&said.stdout))?;
            *done.freed.entry(dataset.to_owned()).or_default() += freed;
        }
        (Err(ExecError::Failed { stderr, .. }), [_]) if stderr.lines().any(is_gone) => {}
        (Err(ExecError::Failed { stderr, .. }), [name]) => {
            done.failed.insert(format!("{dataset}@{name}"), stderr.trim().replace('\n', "; "));
        }
        (Err(ExecError::Failed { .. }), names) => {
            names.chunks(1).try_for_each(|name| destroy_list(run, dataset, name, done))?;
        }
        (Err(error), _) => return Err(error.into()),
    }
    Ok(())
}

/// `done`: what has been, or is to be, done.
fn page(pruned: &Pruned, rows: &[Row], done: &str) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "{}: {}", row.dataset, ByteSize(row.frees));
        for name in &row.destroy {
            let _ = writeln!(text, "  - @{name}");
        }
    }
    for (snapshot, spared) in &pruned.spared {
        let _ = writeln!(text, "{} stays: it {}", snapshot.full(), why(snapshot, *spared));
    }
    let frees = rows.iter().map(|row| row.frees).sum();
    let gone = counted(pruned.gone.len(), "snapshot");
    let _ = writeln!(text, "{gone} {done} ({}), {} kept", ByteSize(frees), pruned.kept.len());
    text
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    /// `zfs` without root's `program`, on a pool from which `t/a@1` goes before it is looked for, and `t/b@4` after.
    fn zfs(left: &RefCell<Vec<&str>>, cmd: &Cmd) -> Result<Output, ExecError> {
        let words: Vec<String> = cmd.argv().map(|word| word.to_string_lossy().into_owned()).collect();
        let failed = |stderr: String| {
            let (command, status) = (cmd.to_string(), ExitStatus::from_raw(1 << 8));
            Err(ExecError::Failed { command, status, stderr })
        };
        let mut left = left.borrow_mut();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if words[0] == "list" {
            for name in words.iter().filter(|word| word.contains('@')) {
                match left.contains(&name.as_str()) {
                    true => stdout += &format!("{name}\t0\t1\t0\t0\t0\t0\t\n"),
                    false => stderr += &format!("cannot open '{name}': dataset does not exist\n"),
                }
            }
            left.retain(|name| *name != "t/b@4");
        } else {
            let (dataset, names) = words.last().and_then(|list| list.split_once('@')).expect("a list");
            let full: Vec<String> = names.split(',').map(|name| format!("{dataset}@{name}")).collect();
            if full.iter().any(|name| name == "t/a@3") {
                return failed("cannot destroy snapshot t/a@3: dataset is busy\n".to_owned());
            }
            if full.iter().all(|name| !left.contains(&name.as_str())) {
                return failed("could not find any snapshots to destroy; check snapshot names.\n".to_owned());
            }
            left.retain(|name| !full.iter().any(|of| of == name));
            stdout = "reclaim\t4096\n".to_owned();
        }
        let code = i32::from(!stderr.is_empty());
        if !cmd.accepts(code) {
            return failed(stderr);
        }
        Ok(Output { code, stdout: stdout.into_bytes(), stderr })
    }

    #[test]
    fn one_that_somebody_has_destroyed_meanwhile_is_none() {
        let text = "t/a@1\t1\nt/a@2\t2\nt/a@3\t3\nt/b@4\t4\n";
        let snapshots = parse_names(text).expect("good");
        let left = RefCell::new(vec!["t/a@2", "t/a@3", "t/b@4"]);
        let mut done = Done::default();
        destroy_each(&|cmd| zfs(&left, cmd), &snapshots, &mut done).expect("the others go");
        assert_eq!(left.take(), ["t/a@3"]);
        assert_eq!(done.freed, [("t/a".to_owned(), 4096)].into());
        assert_eq!(done.failed.into_keys().collect::<Vec<_>>(), ["t/a@3"]);
    }
}
