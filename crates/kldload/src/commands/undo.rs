//! `kldload undo`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use kld_engine::{Adopter, Back, Changed, History, Host as _, RealHost, Record, State};
use kld_host::Lock;
use kld_ui::{ExitStatus, Hinted, Printer};

use super::apply;
use super::history::utc;
use super::seconds::seconds;
use super::status::read_config;

/// Take back the last apply: files, properties, rules and services are as they were before it
///
/// Packages stay and are named, because others may need them by now. Datasets that it made go when they are empty, and are
/// renamed when they are not. Later applies build on earlier ones: with a number, it and all after it are taken back,
/// newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kldload undo --dry-run\n  kldload undo\n  kldload undo 3")]
pub(crate) struct Args {
    /// The apply to be taken back, with all after it; the last when left out
    number: Option<u32>,
    /// Only show what would be undone
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Also what somebody has changed by hand since; files are kept as they were then
    #[arg(long)]
    overwrite: bool,
    /// How long the services and proofs may take to be well afterwards: `90`, `2min`
    #[arg(long, default_value = "90s", value_name = "TIME", value_parser = seconds)]
    within: u64,
    /// Only when nobody has confirmed it; waits for an apply that is under way
    #[arg(long, hide = true)]
    unconfirmed: bool,
}

/// Shows, asks, takes back.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = if args.unconfirmed {
        Lock::acquire(Path::new(apply::LOCK), "kldload undo")?
    } else {
        apply::lock("kldload undo")?
    };
    let history = History::new(&RealHost);
    if !args.dry_run {
        apply::recover(printer, apply::engine(), Adopter::new(&RealHost))?;
    }
    let records = history.records()?;
    let held: Vec<&Record> = records.iter().filter(|record| record.holds()).rev().collect();
    let Some(last) = held.first() else {
        return Err(Hinted::new(
            "there is no apply to take back",
            "`kldload history` lists what was applied",
        )
        .into());
    };
    if args.unconfirmed && (last.state != State::Unconfirmed || args.number != Some(last.number)) {
        return Ok(ExitStatus::Done);
    }
    let down_to = args.number.unwrap_or(last.number);
    if !held.iter().any(|record| record.number == down_to) {
        let what = format!("apply {down_to} does not hold: it was taken back, or there was none");
        return Err(Hinted::new(what, "`kldload history` lists what was applied").into());
    }
    let taken: Vec<u32> = held.iter().map(|record| record.number).filter(|n| *n >= down_to).collect();
    let mut changed = BTreeSet::new();
    for number in &taken {
        printer.note(&format!("to be taken back: apply {number}"));
        let since = history.changed_since(*number)?;
        printer.data(&render(&apply::engine().way_back(*number)?, &since))?;
        changed.extend(since.into_iter().map(|of| of.what));
    }
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    if !changed.is_empty() && !args.overwrite && !args.unconfirmed {
        let names = changed.into_iter().collect::<Vec<_>>().join("`, `");
        let hint = "`--overwrite` takes it back all the same, and keeps files as they are now";
        return Err(Hinted::new(format!("`{names}` was changed by hand since"), hint).into());
    }
    if !printer.confirm("take it back?", args.yes) {
        return Err(Hinted::new("nothing was changed: not confirmed", "`--yes` does not ask").into());
    }
    let why = match args.unconfirmed {
        true => "nobody has confirmed it".to_owned(),
        false => format!("taken back by {}, {}", apply::who(), utc(RealHost.now())),
    };
    for _ in &taken {
        let done = apply::engine().take_back(&why, &mut apply::Said { printer })?;
        printer.note(&format!("apply {} is taken back: {} steps undone", done.number, done.steps));
        apply::say_put_aside(printer, done.number);
        for packages in &done.packages {
            printer.note(&format!("left: apt-get purge {}", packages.replace(',', "")));
        }
        for (path, at) in &done.kept {
            printer.note(&format!("kept: `{path}` as it was changed by hand, as `{at}`"));
        }
    }
    // What was well before need not be now: time has passed, and data has changed.
    let node = read_config()?;
    apply::prove(node.as_ref(), Duration::from_secs(args.within)).map_err(|wrong| {
        let hint = "`kst` shows more; `kldload apply` with the manifest goes forward again";
        Hinted::new(format!("taken back, and not well within {} seconds: {wrong}", args.within), hint)
    })?;
    Ok(ExitStatus::Done)
}

/// The way back for people.
fn render(way: &[Back], changed: &[Changed]) -> String {
    let width = way.iter().map(|back| back.name.chars().count()).max().unwrap_or_default().min(48);
    way.iter().fold(String::new(), |mut text, back| {
        let is_changed = changed.iter().any(|of| (&of.kind, &of.name) == (&back.kind, &back.name));
        let since = if is_changed { "; changed by hand since" } else { "" };
        let _ = writeln!(text, "    {:8} {:width$}  {}{since}", back.kind, back.name, back.summary);
        text
    })
}
