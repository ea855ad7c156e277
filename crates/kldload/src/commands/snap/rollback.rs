//! `ksnap rollback`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap_complete::engine::ArgValueCompleter;
use kld_engine::{User, users_of_dataset};
use kld_host::mounts::Mount;
use kld_host::zfs::{Change, parse_diff};
use kld_host::{Cmd, ExecError, mounts};
use kld_snap::{
    Rollback, Snapshot, Swap, bookmarks_cmd, find, grants_cmd, has_grants, is_no_system, parse_bookmarks,
    rollback, rollback_cmd,
};
use kld_system::NodeConfig;
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer};
use serde::Serialize;

use super::diff::{diff_cmd, line};
use super::users::{places, unused_volume};
use super::{counted, dataset, reclaimed, services, snapshots, swap};
use crate::candidates;
use crate::commands::asked::asked;
use crate::commands::history::utc;
use crate::commands::proof::Proof;
use crate::commands::seconds::seconds;
use crate::commands::{lock, status};

/// Bring a dataset back to a snapshot: everything written since is lost
///
/// Shows what would be lost (bytes, files, newer snapshots and bookmarks) and asks. Newer ones go only with -r. With --swap nothing
/// is lost: a clone of the snapshot takes the dataset's place, and the dataset is kept under another name. While a service
/// uses the dataset it refuses, unless --stop-services stops it before, and starts and proves it after.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ksnap rollback --dry-run rpool/srv/webapp-db pre-upgrade\n  ksnap rollback --stop-services rpool/srv/webapp-db pre-upgrade\n  ksnap rollback -r /srv/webapp pre-upgrade\n  ksnap rollback --swap --stop-services rpool/srv/webapp-db pre-upgrade"
)]
pub(crate) struct Args {
    /// The dataset, or a path that lies on it
    #[arg(value_name = "DATASET|PATH", add = ArgValueCompleter::new(candidates::datasets_and_paths))]
    dataset: String,
    /// The snapshot: its short name means the newest of that name
    #[arg(add = ArgValueCompleter::new(candidates::snapshots))]
    name: String,
    /// Newer snapshots and bookmarks are destroyed
    #[arg(long, short = 'r')]
    destroy_newer: bool,
    /// Keep everything: a clone takes its place, and it is kept as NAME.before-YYYYmmdd-HHMMSS
    #[arg(long, conflicts_with = "destroy_newer")]
    swap: bool,
    /// Stop the services that use it, and start them again
    #[arg(long)]
    stop_services: bool,
    /// How long they may take to be well
    #[arg(long, default_value = "90s", value_name = "TIME", value_parser = seconds)]
    within: u64,
    /// Only show what would be lost; exits with 3
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print what is lost as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// What a rollback takes away.
#[derive(Debug, Serialize)]
struct Loss {
    #[serde(flatten)]
    plan: Rollback,
    /// Bytes written since the snapshot.
    written: u64,
    /// Bytes that only newer snapshots hold.
    in_newer: u64,
    /// Files that go back; `None` where the dataset is not mounted, or is a volume.
    files: Option<Vec<Change>>,
    /// Services that use the dataset now.
    running: Vec<String>,
    /// Who else has something of it open.
    in_use: Vec<String>,
}

/// Shows, asks, goes back.
pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    // Nothing of an apply, or of another rollback, comes between what is shown and what is done.
    let _lock = (!args.dry_run).then(|| lock::lock("ksnap rollback")).transpose()?;
    let dataset = dataset(&args.dataset)?;
    let pool = dataset.split('/').next().unwrap_or_default();
    // What ZFS has not written yet, it does not count as lost. A pool that takes no writes has none.
    Cmd::new("zpool").args(["sync", "--", pool]).timeout(Duration::from_secs(60)).run().ok();
    if !args.dry_run {
        swap::recover_in(printer, &[pool.to_owned()])?;
    }
    let all = snapshots(std::slice::from_ref(&dataset), false)?;
    let bookmarks = parse_bookmarks(&bookmarks_cmd(&dataset).stdout_string()?)?;
    let plan = rollback(&all, &bookmarks, find(&dataset, &all, &args.name)?);
    let mounts = mounts::parse(&fs::read_to_string("/proc/self/mountinfo")?);
    is_no_system(&plan.to, &property(&dataset, "mountpoint")?, &mounts)?;
    let node = status::read_config()?;
    let loss = look(plan, &dataset, &all, &mounts)?;
    let kept = args.swap.then(|| swap::plan(&dataset, &loss.plan.to.full())).transpose()?;
    if args.json {
        printer.envelope("rollback", std::slice::from_ref(&loss))?;
    } else {
        printer.data(&page(&dataset, &loss, kept.as_ref()))?;
    }
    if let Some(Swap { aside, .. }) = &kept
        && has_grants(&grants_cmd(&dataset).stdout_string()?, &dataset)
    {
        printer.warning(&format!(
            "what `zfs allow` has granted on `{dataset}` stays with `{aside}`: grant it anew"
        ));
    }
    refuse(args, &dataset, &loss)?;
    if property(&dataset, "type")? == "volume" {
        unused_volume(&dataset)?;
    }
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    asked(printer, "go back?", args.yes)?;
    let back = || match &kept {
        Some(kept) => swap::swap(printer, kept),
        None => Ok(rollback_cmd(&loss.plan.to.full(), args.destroy_newer).run()?),
    };
    if loss.running.is_empty() {
        back()?;
    } else {
        let proof = Proof::before();
        let units = services::without(printer, &loss.running, back)?;
        well(&Cmd::stdout_string, &proof, node.as_ref(), &units, Duration::from_secs(args.within)).map_err(
            |wrong| {
                let hint = "the dataset went back; `kst` shows more";
                Hinted::new(format!("not well within {} seconds: {wrong}", args.within), hint)
            },
        )?;
    }
    printer.note(&format!("`{dataset}` is as it was at {}", utc(loss.plan.to.created)));
    if let Some(Swap { aside, .. }) = &kept {
        printer.note(&format!("what it was is kept as `{aside}`; `zfs destroy -r {aside}` removes it"));
    }
    Ok(ExitStatus::Done)
}

/// One property of the dataset, in exact numbers.
pub(super) fn property(dataset: &str, name: &str) -> anyhow::Result<String> {
    let get = Cmd::new("zfs").args(["get", "-Hp", "-o", "value", name, dataset]);
    Ok(get.timeout(Duration::from_secs(60)).stdout_string()?.trim().to_owned())
}

/// What stands in the way, before anybody is asked.
fn refuse(args: &Args, dataset: &str, loss: &Loss) -> anyhow::Result<()> {
    let full = loss.plan.to.full();
    if !args.swap {
        refuse_loss(args, dataset, loss, &full)?;
    }
    if !loss.running.is_empty() && !args.stop_services {
        let units = loss.running.join("`, `");
        let hint = "`--stop-services` stops them, goes back, starts and proves them";
        return Err(Hinted::new(format!("`{units}` runs on `{dataset}`"), hint).into());
    }
    Ok(())
}

/// What would be destroyed, and by whose leave.
fn refuse_loss(args: &Args, dataset: &str, loss: &Loss, full: &str) -> anyhow::Result<()> {
    if let Some(blocker) = loss.plan.blockers.first() {
        let hint = format!("`--swap` keeps all of them; a copy: `zfs clone {full} {dataset}-back`");
        return Err(Hinted::new(format!("cannot go back to `{full}`: {blocker}"), hint).into());
    }
    if let Some(newer) = newer(&loss.plan).filter(|_| !args.destroy_newer) {
        let hint = format!(
            "`--swap` keeps them, `-r` destroys them; a copy: `zfs clone {full} {dataset}-back`; for single files: `ksnap show FILE`"
        );
        return Err(Hinted::new(format!("going back to `{full}` destroys {newer}"), hint).into());
    }
    Ok(())
}

/// What goes besides what was written: `2 newer snapshots and 1 newer bookmark`.
fn newer(plan: &Rollback) -> Option<String> {
    let kinds = [(plan.newer.len(), "newer snapshot"), (plan.newer_bookmarks.len(), "newer bookmark")];
    let kinds: Vec<String> =
        kinds.into_iter().filter(|(count, _)| *count > 0).map(|(count, one)| counted(count, one)).collect();
    (!kinds.is_empty()).then(|| kinds.join(" and "))
}

fn look(plan: Rollback, dataset: &str, all: &[Snapshot], mounts: &[Mount]) -> anyhow::Result<Loss> {
    let full = plan.to.full();
    let written = property(dataset, &format!("written@{}", plan.to.name))?.parse().unwrap_or(0);
    let mut in_newer = 0;
    if plan.blockers.is_empty() {
        let newer: Vec<&Snapshot> = plan.newer.iter().collect();
        in_newer = reclaimed(dataset, all, &newer)?;
    }
    let places = places(mounts, dataset);
    let diff = || Ok::<_, anyhow::Error>(parse_diff(&diff_cmd(&full, dataset).stdout_string()?)?);
    let files = (!places.is_empty()).then(diff).transpose()?;
    let (running, in_use) = apart(users_of_dataset(dataset)?);
    Ok(Loss { plan, written, in_newer, files, running, in_use })
}

/// Services, which can be stopped and started again, and who else there is.
fn apart(users: Vec<User>) -> (Vec<String>, Vec<String>) {
    let (services, others): (Vec<_>, Vec<_>) = users.into_iter().partition(|user| user.unit.is_some());
    let services: BTreeSet<String> = services.into_iter().filter_map(|user| user.unit).collect();
    (services.into_iter().collect(), others.iter().map(ToString::to_string).collect())
}

/// That what was started again runs, and that the manifest's proofs hold.
fn well(
    run: &dyn Fn(&Cmd) -> Result<String, ExecError>,
    proof: &Proof,
    node: Option<&NodeConfig>,
    units: &[String],
    limit: Duration,
) -> Result<(), String> {
    // Nobody waits in vain: once all runs again, Ctrl-C ends the command.
    proof.holds(node, limit, &AtomicBool::new(false))?;
    // `systemctl start` returns when most services have only been begun.
    let show = Cmd::new("systemctl").args(["is-active", "--"]).args(units).accept(3);
    let states = run(&show.timeout(Duration::from_secs(30))).map_err(|error| error.to_string())?;
    let down =
        units.iter().zip(states.lines()).filter(|(_, state)| !matches!(*state, "active" | "activating"));
    let down: Vec<String> = down.map(|(unit, state)| format!("`{unit}` is {state}")).collect();
    if down.is_empty() { Ok(()) } else { Err(down.join(", ")) }
}

/// Files that are named.
const NAMED: usize = 12;

fn page(dataset: &str, loss: &Loss, kept: Option<&Swap>) -> String {
    let Loss { plan, written, in_newer, files, running, in_use } = loss;
    let mut text = format!("{dataset} back to @{}, of {}\n", plan.to.name, utc(plan.to.created));
    let lost = if kept.is_some() { "put aside" } else { "lost" };
    let _ = write!(text, "{lost}: {} written since, ", ByteSize(*written));
    let _ = match files {
        Some(files) => writeln!(text, "{} differ", counted(files.len(), "file")),
        None => writeln!(text, "files are not compared: it is not mounted"),
    };
    let files = files.as_deref().unwrap_or_default();
    for change in files.iter().take(NAMED) {
        text += &format!("  {}", line(change));
    }
    if files.len() > NAMED {
        let _ =
            writeln!(text, "  … and {} more: `ksnap diff {dataset} {}`", files.len() - NAMED, plan.to.name);
    }
    if !plan.newer.is_empty() {
        let newer = counted(plan.newer.len(), "newer snapshot");
        let _ = writeln!(text, "{lost}: {newer}, {} that only they hold", ByteSize(*in_newer));
        for snapshot in &plan.newer {
            let _ = writeln!(text, "  - @{} of {}", snapshot.name, utc(snapshot.created));
        }
    }
    if !plan.newer_bookmarks.is_empty() {
        let newer = counted(plan.newer_bookmarks.len(), "newer bookmark");
        let _ = writeln!(text, "{lost}: {newer}, from which replication could go on");
        for bookmark in &plan.newer_bookmarks {
            let _ = writeln!(text, "  - #{} of {}", bookmark.name, utc(bookmark.created));
        }
    }
    if let Some(Swap { aside, .. }) = kept {
        let _ = writeln!(text, "kept: all of it, as {aside}");
    }
    for blocker in plan.blockers.iter().filter(|_| kept.is_none()) {
        let _ = writeln!(text, "in the way: {blocker}");
    }
    for unit in running {
        let _ = writeln!(text, "running: {unit}");
    }
    for user in in_use {
        let _ = writeln!(text, "in use: {user}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_are_lost_as_snapshots_are() {
        let all = kld_snap::parse_list("t/a@one\t1\t10\t0\t0\t0\t0\t\n").expect("good");
        let bookmarks = parse_bookmarks("t/a#sent\t86400\t30\n").expect("good");
        let plan = rollback(&all, &bookmarks, &all[0]);
        let (written, in_newer, running, in_use) = (0, 0, Vec::new(), Vec::new());
        let loss = Loss { plan, written, in_newer, files: None, running, in_use };
        assert!(page("t/a", &loss, None).contains("\n  - #sent of 1970-01-02 00:00 UTC\n"));
        let args = |words: &[&str]| {
            use clap::{Args as _, FromArgMatches as _};
            let command = Args::augment_args(clap::Command::new("rollback").no_binary_name(true));
            let matches = command.get_matches_from([words, &["t/a", "one"]].concat());
            Args::from_arg_matches(&matches).expect("good")
        };
        let error = refuse(&args(&[]), "t/a", &loss).expect_err("it is lost");
        assert_eq!(error.to_string(), "going back to `t/a@one` destroys 1 newer bookmark");
        assert!(
            refuse(&args(&["-r"]), "t/a", &loss).is_ok() && refuse(&args(&["--swap"]), "t/a", &loss).is_ok()
        );
    }

    #[test]
    fn what_was_started_again_must_run() {
        let units = ["app.service", "db.service"].map(str::to_owned);
        let well = |states: &str| {
            let run = |cmd: &Cmd| {
                assert_eq!(cmd.to_string(), "systemctl is-active -- app.service db.service");
                assert!(cmd.accepts(3), "none of them runs");
                Ok(states.to_owned())
            };
            well(&run, &Proof::default(), None, &units, Duration::ZERO)
        };
        assert_eq!(well("active\nactivating"), Ok(()));
        assert_eq!(well("active\nfailed"), Err("`db.service` is failed".to_owned()));
        assert_eq!(
            well("inactive\nfailed"),
            Err("`app.service` is inactive, `db.service` is failed".to_owned())
        );
    }

    #[test]
    fn services_are_told_from_people() {
        let user = |name: &str, unit: Option<&str>| User {
            name: name.to_owned(),
            process: Some(7),
            unit: unit.map(str::to_owned),
            does: "has /srv/db/1 open".to_owned(),
        };
        let users = vec![
            user("postgres", Some("db.service")),
            user("postgres", Some("db.service")),
            user("bash", None),
            user("app", Some("app.service")),
        ];
        let (services, others) = apart(users);
        assert_eq!(services, ["app.service", "db.service"]);
        assert_eq!(others, ["bash (process 7) has /srv/db/1 open"]);
    }
}
