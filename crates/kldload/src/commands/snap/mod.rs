//! `kldload snap`, also called `ksnap`.

mod create;
mod diff;
mod hold;
mod list;
mod prune;
mod rollback;
mod show;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kld_host::Cmd;
use kld_snap::{Snapshot, list_cmd, parse_list};
use kld_ui::{ExitStatus, Hinted, Printer};

/// Make snapshots and go back to them, by short names
///
/// `ksnap DATASET NAME` makes `DATASET@NAME-YYYYmmdd-HHMMSS` (UTC); several datasets, or those below with -r, at one
/// instant. A path stands for the dataset that it lies on. Later, NAME means the newest of that name.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  ksnap rpool/srv/webapp-db pre-upgrade\n  ksnap -r rpool/srv before-migration\n  ksnap /srv/webapp /var/lib/postgresql release-7\n  ksnap rollback rpool/srv/webapp-db pre-upgrade\n  ksnap show /etc/fstab"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    create: create::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(list::Args),
    Diff(diff::Args),
    Show(show::Args),
    #[command(about = "Keep a snapshot from being destroyed")]
    Hold(hold::Args),
    #[command(about = "Let a snapshot go that was held")]
    Release(hold::Args),
    Rollback(rollback::Args),
    Prune(prune::Args),
}

/// Does what the verb says; without one, makes snapshots.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    match &args.verb {
        None => create::run(printer, &args.create),
        Some(Verb::List(args)) => list::run(printer, args),
        Some(Verb::Diff(args)) => diff::run(printer, args),
        Some(Verb::Show(args)) => show::run(printer, args),
        Some(Verb::Hold(args)) => hold::run(printer, args, hold::What::Hold),
        Some(Verb::Release(args)) => hold::run(printer, args, hold::What::Release),
        Some(Verb::Rollback(args)) => rollback::run(printer, args),
        Some(Verb::Prune(args)) => prune::run(printer, args),
    }
}

/// Where a path lies.
#[derive(Debug)]
struct Place {
    dataset: String,
    mounted_at: String,
}

/// The dataset that a word stands for: itself, or the one that a path (`/…`, `./…`) lies on.
fn dataset(word: &str) -> anyhow::Result<String> {
    if word.starts_with('/')
        || word == "."
        || word == ".."
        || word.starts_with("./")
        || word.starts_with("../")
    {
        return Ok(place(Path::new(word))?.dataset);
    }
    if let Some((dataset, _)) = word.split_once('@') {
        let hint = format!("write the dataset and the name apart: `{dataset} …`");
        return Err(Hinted::new(format!("`{word}` is a snapshot, and a dataset is wanted"), hint).into());
    }
    Ok(word.to_owned())
}

fn place(path: &Path) -> anyhow::Result<Place> {
    let path = path.canonicalize().with_context(|| format!("cannot look at `{}`", path.display()))?;
    let cmd = Cmd::new("findmnt").args(["-J", "-o", "FSTYPE,SOURCE,TARGET", "-T"]).arg(&path);
    let text = cmd.timeout(Duration::from_secs(10)).stdout_string()?;
    let answer: serde_json::Value = serde_json::from_str(&text).context("cannot understand `findmnt`")?;
    let field = |name: &str| answer["filesystems"][0][name].as_str().unwrap_or_default().to_owned();
    if field("fstype") != "zfs" {
        let hint = "`zfs list` names the datasets";
        return Err(Hinted::new(format!("`{}` does not lie on ZFS", path.display()), hint).into());
    }
    // `rpool/srv[/dir]` is what a bind mount says.
    let source = field("source");
    let dataset = source.split_once('[').map_or(source.as_str(), |(dataset, _)| dataset).to_owned();
    Ok(Place { dataset, mounted_at: field("target") })
}

/// The snapshots of these datasets.
fn snapshots(datasets: &[String], recursive: bool) -> anyhow::Result<Vec<Snapshot>> {
    Ok(parse_list(&list_cmd(datasets, recursive).stdout_string()?)?)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// `3 snapshots`, `1 snapshot`.
fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
