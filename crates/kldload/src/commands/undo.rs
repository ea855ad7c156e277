//! `kldload undo`.

use std::cell::RefCell;
use std::time::Duration;

use clap_complete::engine::ArgValueCompleter;
use kld_engine::{
    Adopter, ApplyError, CLOCK, Cause, History, Outcome, Plan, RealHost, Record, State, TakenBack,
};
use kld_ui::{ExitStatus, Hinted, Printer};

use super::asked::asked;
use super::history::numbers;
use super::lock::Alone;
use super::proof::Proof;
use super::seconds::seconds;
use super::status::read_config;
use super::{apply, lock, plan};
use crate::candidates;
use crate::signals;

/// Take back the last apply: files, properties, rules and services are as they were before it
///
/// Shows the plan and asks, and carries it out as an apply does: with a journal, and back to where it began when a step fails.
/// What was changed by hand since is named, and only goes back with `--overwrite`. Packages stay and are named, because others
/// may need them by now. Datasets that it made go when they are empty, and are renamed when they are not. Later applies build
/// on earlier ones: with a number, it and all after it are taken back, newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload undo --dry-run\n  kldload undo\n  kldload undo 3\n  kldload undo --confirm-within 60s && kldload confirm"
)]
pub(crate) struct Args {
    /// The apply to be taken back, with all after it; the last when left out
    #[arg(add = ArgValueCompleter::new(candidates::applies))]
    number: Option<u32>,
    /// Only show the plan; exits with 3 when there is something to take back
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as JSON on standard output
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Take back what was changed by hand since, too; what is there now is kept
    #[arg(long)]
    overwrite: bool,
    /// How long the services and proofs may take to be well afterwards: `90`, `2min`
    #[arg(long, default_value = "90s", value_name = "TIME", value_parser = seconds)]
    within: u64,
    /// Go forward again unless `kldload confirm` comes within this time: `60`, `2min`; 60s when you are logged in over SSH and
    /// rules or networks change
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    confirm_within: Option<u64>,
    /// Only when nobody has confirmed it; waits for an apply that is under way
    #[arg(long, hide = true)]
    unconfirmed: bool,
}

/// Shows, asks, takes back.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let lock = if args.unconfirmed { lock::lock_for_the_clock()? } else { lock::take_lock("kldload undo")? };
    if !args.dry_run {
        apply::recover(printer, apply::engine(), Adopter::new(&RealHost))?;
    }
    let records = History::new(&RealHost).records()?;
    let waiting = records.iter().find(|record| record.state == State::Unconfirmed);
    if args.unconfirmed {
        if waiting.is_some_and(|waiting| args.number == Some(waiting.number)) {
            take_back(printer, "nobody has confirmed it", CLOCK)?;
        }
        return Ok(ExitStatus::Done);
    }
    if let Some(waiting) = waiting {
        if args.number.is_some_and(|number| number != waiting.number) {
            return Err(ApplyError::Waits { number: waiting.number }.into());
        }
        return end_waiting(printer, args, waiting, lock);
    }
    let plan = kld_engine::undo(&RealHost, args.number)?;
    show(printer, args, &plan)?;
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    let changed: Vec<String> = by_hand(&plan).map(|name| format!("`{name}`")).collect();
    if !changed.is_empty() && !args.overwrite {
        let what = format!("nothing was changed: somebody has changed {} since", changed.join(", "));
        let hint = "`--overwrite` takes that back, too, and keeps what is there now; `kldload undo --dry-run` shows it";
        return Err(Hinted::new(what, hint).into());
    }
    asked(printer, "take it back?", args.yes)?;
    carry_out(printer, args, &plan)
}

fn show(printer: &Printer, args: &Args, plan: &Plan) -> anyhow::Result<()> {
    if args.json {
        return Ok(printer.envelope("plan", std::slice::from_ref(plan))?);
    }
    Ok(printer.data(&plan::render(plan))?)
}

fn by_hand(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.steps.iter().filter(|step| step.cause == Cause::Drift).map(|step| step.name.as_str())
}

/// What waits to be confirmed goes back now, and not when its time is over.
fn end_waiting(printer: &Printer, args: &Args, waiting: &Record, lock: Alone) -> anyhow::Result<ExitStatus> {
    if waiting.undoes.is_empty() {
        show(printer, args, &kld_engine::undo(&RealHost, Some(waiting.number))?)?;
    } else {
        if args.json {
            // What would hold again is what the waiting plan took.
            printer.envelope("plan", History::new(&RealHost).plan(waiting.number)?.as_slice())?;
        }
        let again = numbers(&waiting.undoes);
        printer.note(&format!("{} waits to be confirmed: {again} would hold again", waiting.name()));
    }
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    // The clock does not wait for an answer, which whoever is cut off cannot give.
    drop(lock);
    asked(printer, "take it back?", args.yes)?;
    // As a step of a procedure it has the procedure's.
    let _lock = lock::take_lock("kldload undo")?;
    let now = History::new(&RealHost).records()?;
    if now.iter().any(|record| record.number == waiting.number && record.state == State::Unconfirmed) {
        take_back(printer, "not confirmed", &apply::who())?;
    } else {
        printer.note(&format!("{} waits no more: `kldload history` says what became of it", waiting.name()));
    }
    Ok(ExitStatus::Done)
}

fn take_back(printer: &Printer, why: &str, by: &str) -> anyhow::Result<()> {
    let done: TakenBack = apply::engine().take_back(why, by, &mut apply::Said { printer })?;
    let (number, steps) = (done.number, done.steps);
    printer.note(&match done.was_undo {
        true => format!("undo {number} is taken back: {steps} steps made again"),
        false => format!("apply {number} is taken back: {steps} steps undone"),
    });
    apply::say_put_aside(printer, number);
    apply::say_kept(printer, number)?;
    for command in &done.left {
        printer.note(&format!("left: {command}"));
    }
    Ok(())
}

fn carry_out(printer: &Printer, args: &Args, plan: &Plan) -> anyhow::Result<ExitStatus> {
    let (proof, unproven) = (Proof::before(), RefCell::new(None));
    // Who goes back has a reason to, and the proofs of what was before may need what is broken now: they are said, and keep
    // nobody from it.
    let stop = signals::stop(printer)?;
    let prove = || {
        let proven = match read_config() {
            Ok(node) => proof.holds(node.as_ref(), Duration::from_secs(args.within), &stop),
            Err(error) => Err(format!("{error:#}")),
        };
        *unproven.borrow_mut() = proven.err();
        Ok(())
    };
    let confirm_within = args.confirm_within.or_else(|| apply::may_cut_off(plan).then_some(60));
    let taken = numbers(&plan.undoes);
    let engine = apply::engine().unless(&stop);
    match engine.apply(plan, &apply::who(), confirm_within, &prove, &mut apply::Said { printer })? {
        Outcome::Committed { number } => {
            printer.note(&format!("undo {number} is done: the machine is as it was before {taken}"));
            for apply in &plan.undoes {
                apply::say_put_aside(printer, *apply);
            }
            apply::say_kept(printer, number)?;
            for left in &plan.left {
                printer.note(&format!("left: {}", left.remove_with));
            }
            if let Some(seconds) = confirm_within {
                printer.warning(&format!(
                    "within {seconds} seconds it goes forward again, unless you say `kldload confirm`"
                ));
            }
            let Some(wrong) = unproven.take() else { return Ok(ExitStatus::Done) };
            let what = format!("{taken} taken back, and not all is well\n  {wrong}");
            let hint = "`kst` names the command that mends it; the manifest that was taken back can be applied again";
            Err(Hinted::new(what, hint).into())
        }
        Outcome::RolledBack { number, what, error } => Err(Hinted::new(
            format!("undo {number} failed at {what}, and everything is as it was before it\n  {error}"),
            "mend what it names and undo again",
        )
        .into()),
        Outcome::Stopped { number, before } => Err(Hinted::new(
            format!("undo {number} was stopped before {before}, and everything is as it was before it"),
            "`kldload undo` makes the whole of it",
        )
        .into()),
    }
}
