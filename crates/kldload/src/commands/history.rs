//! `kldload history`.

use clap_complete::engine::ArgValueCompleter;
use kld_engine::{History, Plan, RealHost, Record, State};
use kld_host::Cmd;
use kld_ui::{ExitStatus, Printer, Table};
use serde::Serialize;

use super::lock::records;
use super::{apply, plan};
use crate::candidates;

/// Show what was applied to this machine and taken back, when, by whom, and how it ended
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload history\n  kldload history 3\n  kldload history --json | jq '.items[-1].state'"
)]
pub(crate) struct Args {
    /// Show the plan of this apply or undo
    #[arg(add = ArgValueCompleter::new(candidates::applies))]
    number: Option<u32>,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A plan, and beside its own keys what became of it.
#[derive(Debug, Serialize)]
struct Recorded<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    apply: &'a Record,
}

/// Shows it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let history = History::new(&RealHost);
    let (mut records, _) = records(&history)?;
    records.retain(|record| args.number.is_none_or(|number| record.number == number));
    if let Some(number) = args.number {
        let Some((plan, record)) = history.plan(number)?.zip(records.first()) else {
            let hint = "`kldload history` lists them";
            return Err(kld_ui::Hinted::new(format!("there is no apply {number}"), hint).into());
        };
        if args.json {
            printer.envelope("plan", &[Recorded { plan: &plan, apply: record }])?;
        } else {
            printer.data(&(heading(record) + "\n" + &plan::render(&plan)))?;
            environment(printer, record)?;
            apply::say_kept(printer, number)?;
        }
        return Ok(ExitStatus::Done);
    }
    if args.json {
        printer.envelope("apply", &records)?;
        return Ok(ExitStatus::Done);
    }
    if records.is_empty() {
        printer.note("nothing was applied to this machine yet");
        return Ok(ExitStatus::Done);
    }
    let mut table =
        Table::new().right("APPLY").left("WHEN").left("BY").right("STEPS").left("ENDED").left("WHY");
    for record in &records {
        table.row(cells(record));
    }
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}

/// Says where the machine as it was before an apply can be started.
fn environment(printer: &Printer, record: &Record) -> anyhow::Result<()> {
    if let Some(why) = &record.no_environment {
        printer.note(&format!("no boot environment holds the machine as it was before: {why}"));
    }
    let Some((name, dataset)) = record.environment.as_ref().zip(record.environment_dataset()) else {
        return Ok(());
    };
    let is_there = Cmd::new("zfs").args(["list", "-H", "-o", "name", &dataset]).accept(1).output()?.code == 0;
    printer.note(&match is_there {
        true => format!(
            "boot environment `{name}` holds the machine as it was before; `kbe activate --once {name}` starts it next"
        ),
        false => format!("its boot environment `{name}` is gone"),
    });
    Ok(())
}

/// The same as [`cells`], for one alone: a line for each that says something, and all lines of its failure.
fn heading(record: &Record) -> String {
    let [_, when, by, _, ended, why] = cells(record);
    let mut text = format!("{}, {when}\nby     {by}\nended  {ended}\n", record.name());
    if why != "-" {
        text += &format!("why    {why}\n");
    }
    for line in record.failure.iter().flat_map(|failure| failure.lines().skip(1)) {
        text += &format!("       {line}\n");
    }
    text
}

fn cells(record: &Record) -> [String; 6] {
    let ended = match record.state {
        State::Committed => "committed",
        State::Unconfirmed => "unconfirmed",
        State::Undone => "undone",
        State::Interrupted => "interrupted",
        State::UnderWay => "under way",
    };
    let failure = record.failure.as_deref().and_then(|text| text.lines().next());
    let why = match (&record.undone, failure) {
        (Some(undone), why) => {
            let why = why.map_or_else(String::new, |why| format!("{why}: "));
            let with = undone.number.map_or_else(String::new, |number| format!(" with undo {number}"));
            format!("{why}taken back by {}{with}, {}", undone.by, utc(undone.at))
        }
        (None, Some(why)) => why.to_owned(),
        (None, None) if !record.undoes.is_empty() => format!("takes back {}", numbers(&record.undoes)),
        (None, None) => "-".to_owned(),
    };
    [
        record.number.to_string(),
        utc(record.at),
        record.by.clone(),
        record.steps.to_string(),
        ended.to_owned(),
        why,
    ]
}

/// `apply 3`, or `applies 4, 3`.
pub(crate) fn numbers(of: &[u32]) -> String {
    let numbers: Vec<String> = of.iter().map(u32::to_string).collect();
    format!("{} {}", if of.len() == 1 { "apply" } else { "applies" }, numbers.join(", "))
}

/// `2026-11-27 04:13 UTC`.
pub(crate) fn utc(seconds: u64) -> String {
    let (year, month, day) = kld_disk::esp::civil_from_days(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use kld_engine::{Plan, Record, State, Undone};

    fn record(undoes: &[u32], undone: Option<Undone>) -> Record {
        Record {
            number: 7,
            at: 1_795_752_780,
            by: "alice".to_owned(),
            state: State::Committed,
            steps: 2,
            root: None,
            environment: None,
            no_environment: None,
            failure: None,
            undoes: undoes.to_vec(),
            undone,
        }
    }

    #[test]
    fn one_says_what_became_of_it_before_its_plan() {
        let held = super::heading(&record(&[], None));
        assert_eq!(held, "apply 7, 2026-11-27 04:13 UTC\nby     alice\nended  committed\n");
        let failure = Some("webapp.service: failed\nno such file".to_owned());
        let failed = super::heading(&Record { state: State::Undone, failure, ..record(&[6], None) });
        let (first, rest) = failed.split_once('\n').expect("lines");
        assert_eq!(first, "undo 7, 2026-11-27 04:13 UTC");
        assert_eq!(rest, "by     alice\nended  undone\nwhy    webapp.service: failed\n       no such file\n");
    }

    #[test]
    fn the_record_stands_beside_the_keys_of_the_plan() {
        let mut plan = Plan::default();
        plan.machine = "web".to_owned();
        let apply = record(&[], None);
        let said = serde_json::to_value(super::Recorded { plan: &plan, apply: &apply }).expect("JSON");
        assert_eq!((&said["machine"], &said["steps"]), (&"web".into(), &serde_json::json!([])));
        let told = ["number", "by", "state", "at", "failure"].map(|key| said["apply"][key].clone());
        let want = serde_json::json!([7, "alice", "committed", 1_795_752_780, null]);
        assert_eq!(serde_json::Value::from(told.to_vec()), want);
    }

    #[test]
    fn an_apply_says_who_took_it_back_and_an_undo_what() {
        let why = |record: &Record| super::cells(record)[5].clone();
        assert_eq!(why(&record(&[], None)), "-");
        assert_eq!(why(&record(&[6, 5], None)), "takes back applies 6, 5");
        let undone = |number| Some(Undone { at: 1_795_752_780, by: "bob".to_owned(), number });
        assert_eq!(why(&record(&[], undone(Some(8)))), "taken back by bob with undo 8, 2026-11-27 04:13 UTC");
        let unconfirmed =
            Record { failure: Some("nobody has confirmed it".to_owned()), ..record(&[6], undone(None)) };
        assert_eq!(why(&unconfirmed), "nobody has confirmed it: taken back by bob, 2026-11-27 04:13 UTC");
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(super::utc(1_795_752_780), "2026-11-27 04:13 UTC");
    }
}
