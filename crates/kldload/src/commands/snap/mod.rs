//! `kldload snap`, also called `ksnap`.

mod create;
mod diff;
mod hold;
mod hooks;
mod list;
mod prune;
mod rollback;
mod services;
mod show;
pub(super) mod swap;
mod users;

use std::fmt::Display;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use kld_snap::{Snapshot, Spared, known, list_cmd, parse_list, parse_reclaim, reclaim_cmds};
use kld_ui::{ExitStatus, Printer};

use super::place::{Chosen, dataset, place};

/// Make snapshots and go back to them, by short names
///
/// `ksnap DATASET NAME` makes `DATASET@NAME-YYYYmmdd-HHMMSS` (UTC); several datasets, or those below with -r, at one
/// instant. A path stands for the dataset that it lies on. Later, NAME means the newest of that name. A database needs nothing
/// besides when its data and its log are named together; --before and --after are for file systems on volumes, and for
/// programs that keep something in memory.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  ksnap rpool/srv/webapp-db pre-upgrade\n  ksnap -r rpool/srv before-migration\n  ksnap /srv/webapp /var/lib/postgresql release-7\n  ksnap --before 'fsfreeze -f /mnt' --after 'fsfreeze -u /mnt' rpool/vm/disk nightly\n  ksnap rollback rpool/srv/webapp-db pre-upgrade\n  ksnap show /etc/fstab"
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

/// The snapshots of these datasets.
pub(super) fn snapshots(datasets: &[String], recursive: bool) -> anyhow::Result<Vec<Snapshot>> {
    Ok(parse_list(&list_cmd(datasets, recursive).stdout_string()?)?)
}

/// Bytes that come free when the chosen ones of a dataset go, of all that it has. ZFS is asked when they are not known without.
pub(super) fn reclaimed(dataset: &str, all: &[Snapshot], chosen: &[&Snapshot]) -> anyhow::Result<u64> {
    if let Some(bytes) = known(dataset, all, chosen, None) {
        return Ok(bytes);
    }
    let mut bytes = 0;
    for cmd in reclaim_cmds(dataset, all, chosen) {
        bytes += parse_reclaim(&cmd.stdout_string()?)?;
    }
    Ok(bytes)
}

/// Why a snapshot stays: it …
pub(super) fn why(snapshot: &Snapshot, spared: Spared) -> String {
    match spared {
        Spared::Held => "is held".to_owned(),
        Spared::Cloned => format!("has the clone {}", snapshot.clones.join(", ")),
    }
}

/// Reads a word of the command line. What is wrong with it ends with a hint, too.
fn word<T: FromStr<Err: Display>>(
    hint: fn(&T::Err) -> Option<String>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        text.parse().map_err(|error| match hint(&error) {
            Some(hint) => format!("{error}\n\nhint: {hint}"),
            None => error.to_string(),
        })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// `3 snapshots`, `1 snapshot`.
pub(super) fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
