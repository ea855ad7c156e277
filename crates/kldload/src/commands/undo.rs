//! `kldload undo`.

use std::path::Path;

use kld_engine::{Adopter, Engine, History, RealHost, State};
use kld_host::Lock;
use kld_ui::{ExitStatus, Hinted, Printer};

use super::{apply, plan};

/// Take back the last apply: files, properties, rules and services are as they were before it
///
/// Packages stay and are named, because others may need them by now. Datasets that it made go when they are empty, and are
/// renamed when they are not. Several times takes back several.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kldload undo --dry-run\n  kldload undo")]
pub(crate) struct Args {
    /// Only this one, when it is the last
    number: Option<u32>,
    /// Only show what would be undone
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
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
        apply::recover(printer, Engine::new(&RealHost), Adopter::new(&RealHost))?;
    }
    let holds = |state| matches!(state, State::Committed | State::Unconfirmed);
    let last = history.records()?.into_iter().rev().find(|record| holds(record.state));
    let Some(last) = last else {
        return Err(Hinted::new(
            "there is no apply to take back",
            "`kldload history` lists what was applied",
        )
        .into());
    };
    if args.unconfirmed && (last.state != State::Unconfirmed || args.number != Some(last.number)) {
        return Ok(ExitStatus::Done);
    }
    if let Some(number) = args.number.filter(|number| *number != last.number) {
        let hint = format!("take back {} first", last.number);
        return Err(Hinted::new(format!("apply {number} is not the last one that holds"), hint).into());
    }
    if let Some(plan) = history.plan(last.number)? {
        printer.note(&format!("to be taken back: apply {}", last.number));
        printer.data(&plan::render(&plan))?;
    }
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    if !printer.confirm("take it back?", args.yes) {
        return Err(Hinted::new("nothing was changed: not confirmed", "`--yes` does not ask").into());
    }
    let why = if args.unconfirmed { "nobody has confirmed it" } else { "taken back" };
    let done = Engine::new(&RealHost).take_back(why, &mut apply::Said { printer })?;
    printer.note(&format!("apply {} is taken back: {} steps undone", done.number, done.steps));
    for packages in &done.packages {
        printer.note(&format!("left: apt-get purge {}", packages.replace(',', "")));
    }
    Ok(ExitStatus::Done)
}
