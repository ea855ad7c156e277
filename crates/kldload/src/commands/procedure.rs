//! What `kldload upgrade` and `kldload dr` share: a shell, a terminal, and pages for people.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kld_engine::{
    Adopter, Answer, Hands, Objective, Procedure, ProcedureEnd, ProcedureError, ProcedureKind, ProcedureStep,
    Procedures, RealHost, Report, Request, StepState, Verdict,
};
use kld_host::{Cmd, ExecError};
use kld_manifest::model::{StepAction, StepRole};
use kld_node::RealMachine;
use kld_ui::{Elapsed, ExitStatus, Hinted, Printer, Table};

use super::history::utc;
use super::seconds::seconds;
use super::{apply, lock};
use crate::manifest::ManifestFile;

/// The arguments of both.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// The manifest
    #[arg(default_value = "appliance.manifest")]
    file: PathBuf,
    /// Only show the steps, and who does them; exits with 3
    #[arg(long)]
    dry_run: bool,
    /// Begin with this step: after an interruption, or when you have mended what failed
    #[arg(long, value_name = "STEP")]
    from: Option<usize>,
    /// Do not ask before it begins
    #[arg(long, short)]
    yes: bool,
    /// Answer for every step that is asked of a person
    #[arg(long, value_enum, value_name = "ANSWER")]
    answer: Option<Said>,
    /// How long each `Verify:` may take to hold
    #[arg(long, default_value = "90s", value_name = "TIME", value_parser = seconds)]
    within: u64,
    /// Show what was carried out so far
    #[arg(long, conflicts_with_all = ["dry_run", "from", "yes", "answer"])]
    list: bool,
    /// Show the report of this number
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["dry_run", "from", "yes", "answer", "list"])]
    report: Option<u32>,
    /// Print the report as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// What is said for a step of a person's.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Said {
    /// It is done
    Done,
    /// It could not be done
    Failed,
    /// It is left out
    Skip,
}

/// The variable by which a `kldload` that a step runs knows that it may change the machine: the process that holds the lock.
pub(crate) const VARIABLE: &str = "KLDLOAD_PROCEDURE";

/// Shows, asks, carries out, reports.
pub(crate) fn run(printer: &Printer, kind: ProcedureKind, args: &Common) -> anyhow::Result<ExitStatus> {
    let name = kind.name();
    if args.list || args.report.is_some() {
        return look_back(printer, kind, args);
    }
    let manifest = ManifestFile::read(&args.file)?;
    let procedure = Procedure::new(manifest.appliance(printer)?, kind);
    if procedure.steps.is_empty() {
        return Err(ProcedureError::Empty(kind).into());
    }
    if args.dry_run {
        if args.json {
            printer.envelope("procedure", &[&procedure])?;
        } else {
            printer.data(&steps(&procedure, args.from.unwrap_or(1)))?;
        }
        return Ok(ExitStatus::Pending);
    }
    let lock = lock::lock(&format!("kldload {name}"))?;
    apply::recover(printer, apply::engine(), Adopter::new(&RealHost))?;
    // From here on a clock that runs out waits for the steps alone: nothing is interrupted that it could recover, too.
    let _lock = lock.for_steps();
    printer.note(&steps(&procedure, args.from.unwrap_or(1)));
    if !printer.confirm("begin?", args.yes) {
        return Err(Hinted::new("nothing was done: not confirmed", "`--yes` begins without asking").into());
    }
    let request = Request { from: args.from, by: apply::who(), within: Duration::from_secs(args.within) };
    let environment = kld_node::plane_addresses(&RealMachine);
    let mut hands = Shell { printer, answer: args.answer, dir: manifest.dir.clone(), environment };
    let report = Procedures::new(&RealHost).run(&procedure, &request, &mut hands)?;
    if args.json {
        printer.envelope("report", &[&report])?;
    } else {
        printer.data(&page(&report))?;
    }
    verdict(&report)
}

/// Success, or what stands in its way.
fn verdict(report: &Report) -> anyhow::Result<ExitStatus> {
    let (name, number) = (report.procedure.name(), report.number);
    let error = match report.end {
        _ if report.is_well() => return Ok(ExitStatus::Done),
        ProcedureEnd::Done => Hinted::new(
            format!("{name} {number} was carried out, and a target was missed"),
            format!("`kldload {name} --report {number}` shows what took how long"),
        ),
        ProcedureEnd::Failed => match report.failed() {
            Some(step) => Hinted::new(
                format!(
                    "{name} {number} failed in step {} `{}`: {}",
                    step.number,
                    step.text,
                    step.reason.as_deref().unwrap_or_default()
                ),
                format!("mend it, then `kldload {name} --from {}` goes on", step.number),
            ),
            None => Hinted::new(
                format!("{name} {number} took the branch that it was to begin with"),
                format!("`kldload {name} --report {number}` shows it"),
            ),
        },
        ProcedureEnd::Stopped | ProcedureEnd::Interrupted => stopped(report),
    };
    Err(error.into())
}

/// It waits for a person: at a step of the way, or in the branch of one that has failed.
fn stopped(report: &Report) -> Hinted {
    let name = report.procedure.name();
    let (number, text) = report.waiting().map_or((1, ""), |step| (step.number, step.text.as_str()));
    let waits = format!("step {number} `{text}` is for a person, and nobody is at the terminal");
    if let Some(failed) = report.failed() {
        let reason = failed.reason.as_deref().unwrap_or_default();
        return Hinted::new(
            format!("step {} `{}` failed: {reason}\n  {waits}", failed.number, failed.text),
            format!(
                "do what step {number} says; once it is mended, `kldload {name} --from {}`",
                failed.number
            ),
        );
    }
    let next = match report.step_behind(number) {
        Some(next) => format!("do it, then `kldload {name} --from {next}`"),
        None => format!("do it, then `kldload {name} --from {number} --answer done`"),
    };
    Hinted::new(waits, format!("{next}; `--answer` answers for all such steps"))
}

/// Earlier ones.
fn look_back(printer: &Printer, kind: ProcedureKind, args: &Common) -> anyhow::Result<ExitStatus> {
    let name = kind.name();
    let mut reports = Procedures::new(&RealHost).reports()?;
    reports.retain(|report| {
        report.procedure == kind && args.report.is_none_or(|number| report.number == number)
    });
    if let (Some(number), true) = (args.report, reports.is_empty()) {
        let hint = format!("`kldload {name} --list` lists them");
        return Err(Hinted::new(format!("there is no {name} {number}"), hint).into());
    }
    if args.json {
        printer.envelope("report", &reports)?;
    } else if args.report.is_some() {
        reports.iter().try_for_each(|report| printer.data(&page(report)))?;
    } else if reports.is_empty() {
        printer.note(&format!("no {name} was carried out on this machine yet"));
    } else {
        printer.data(&list(&reports))?;
    }
    Ok(ExitStatus::Done)
}

fn list(reports: &[Report]) -> String {
    let mut table = Table::new()
        .right("NUMBER")
        .left("WHEN")
        .left("BY")
        .left("ENDED")
        .right("TIME")
        .left("RTO")
        .left("RPO");
    for report in reports {
        table.row([
            report.number.to_string(),
            utc(report.began_at / 1000),
            report.by.clone(),
            ended(report.end).to_owned(),
            report.ended_at.map(|at| elapsed(at.saturating_sub(report.began_at))).unwrap_or_default(),
            word(report.rto.verdict).to_owned(),
            word(report.rpo.verdict).to_owned(),
        ]);
    }
    table.to_string()
}

fn ended(end: ProcedureEnd) -> &'static str {
    match end {
        ProcedureEnd::Done => "done",
        ProcedureEnd::Failed => "failed",
        ProcedureEnd::Stopped => "stopped",
        ProcedureEnd::Interrupted => "interrupted",
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "missed",
        Verdict::NoTarget => "",
    }
}

fn elapsed(millis: u64) -> String {
    Elapsed(Duration::from_millis(millis)).to_string()
}

/// What would happen.
fn steps(procedure: &Procedure, from: usize) -> String {
    let mut table = Table::new().right("STEP").left("HOW").left("WHAT");
    for (number, step) in (1..).zip(&procedure.steps).filter(|(number, _)| *number >= from) {
        table.row([number.to_string(), how(step.role, &step.action), what(&step.action).to_owned()]);
    }
    let mut text = table.to_string();
    for (name, target) in [("RTO", procedure.rto), ("RPO", procedure.rpo)] {
        if let Some(seconds) = target {
            let _ = writeln!(text, "{name} target: {}", elapsed(seconds.saturating_mul(1000)));
        }
    }
    text
}

fn how(role: StepRole, action: &StepAction) -> String {
    let who = match action {
        StepAction::Run(_) => "run",
        StepAction::Ask(_) => "ask",
    };
    match role {
        StepRole::Work => who.to_owned(),
        StepRole::Proof if who == "run" => "verify".to_owned(),
        StepRole::Proof => "verify: ask".to_owned(),
        StepRole::Branch => format!("if failed: {who}"),
    }
}

fn what(action: &StepAction) -> &str {
    match action {
        StepAction::Run(text) | StepAction::Ask(text) => text,
    }
}

/// Lines of a failed step's output in a page; all of it is in the report's directory.
const LINES: usize = 12;

/// A report for people.
fn page(report: &Report) -> String {
    let mut text = format!(
        "{} {} of {}: {}\nbegan {} by {}",
        report.procedure.name(),
        report.number,
        report.machine,
        ended(report.end),
        utc(report.began_at / 1000),
        report.by
    );
    if let Some(at) = report.ended_at {
        let _ = write!(text, ", took {}", elapsed(at.saturating_sub(report.began_at)));
    }
    if let Some(number) = report.continues {
        let _ = write!(text, ", goes on with {number}, which began {}", utc(report.since / 1000));
    }
    text.push_str("\n\n");
    let mut table = Table::new().right("STEP").left("HOW").left("ENDED").right("TIME").left("WHAT");
    for step in &report.steps {
        let ended = match step.state {
            StepState::Earlier => "earlier",
            StepState::Open if step.role == StepRole::Branch => "not taken",
            StepState::Open => "not begun",
            StepState::Waiting => "waits for a person",
            StepState::UnderWay => "under way",
            StepState::Done => "done",
            StepState::Failed => "failed",
            StepState::Skipped => "skipped",
        };
        table.row([
            step.number.to_string(),
            how(step.role, &step.action),
            ended.to_owned(),
            step.millis.map(elapsed).unwrap_or_default(),
            what(&step.action).to_owned(),
        ]);
    }
    let _ = writeln!(text, "{table}");
    for step in report.steps.iter().filter(|step| step.state == StepState::Failed) {
        let _ = writeln!(text, "step {}: {}", step.number, step.reason.as_deref().unwrap_or_default());
        let lines: Vec<&str> = step.output.lines().collect();
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            let _ = writeln!(text, "  {line}");
        }
    }
    for (name, objective) in [("RTO", &report.rto), ("RPO", &report.rpo)] {
        if objective.target_seconds.is_some() || objective.measured_millis.is_some() {
            text += &measured(name, objective);
        }
    }
    text
}

fn measured(name: &str, objective: &Objective) -> String {
    let measure = objective.measured_millis.map_or_else(|| "not measured".to_owned(), elapsed);
    let target = match objective.target_seconds {
        Some(seconds) => {
            format!(", target {}: {}", elapsed(seconds.saturating_mul(1000)), word(objective.verdict))
        }
        None => String::new(),
    };
    format!("{name} {measure}{target} ({})\n", objective.basis)
}

/// A shell for commands and a terminal for people.
struct Shell<'a> {
    printer: &'a Printer,
    answer: Option<Said>,
    /// The manifest's: its relative paths begin there.
    dir: PathBuf,
    environment: Vec<(String, String)>,
}

impl Hands for Shell<'_> {
    fn now(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    fn wait(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn run(
        &mut self,
        command: &str,
        limit: Option<Duration>,
        shown: bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), String> {
        let mut cmd = Cmd::new("/bin/sh")
            .args(["-c", command])
            .cwd(&self.dir)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env(VARIABLE, std::process::id().to_string());
        for (name, value) in &self.environment {
            cmd = cmd.env(name, value);
        }
        if let Some(limit) = limit {
            cmd = cmd.timeout(limit);
        }
        cmd.stream(|written| {
            if shown {
                self.printer.note(&format!("  {}", written.text()));
            }
            line(written.text());
        })
        .map_err(|error| why(&error))
    }

    fn ask(&mut self, what: &str) -> Option<Answer> {
        let said = match self.answer {
            Some(said) => Some(said),
            None if std::io::stdin().is_terminal() => self.asked(what),
            None => None,
        };
        said.map(|said| match said {
            Said::Done => Answer::Done,
            Said::Failed => Answer::Failed,
            Said::Skip => Answer::Skip,
        })
    }

    fn begins(&mut self, number: usize, of: usize, step: &ProcedureStep) {
        self.printer.note(&format!("[{number}/{of}] {}", step.text));
    }

    fn again(&mut self, why: &str, left: Duration) {
        self.printer.detail(&format!("  not yet: {why}; tries for another {}", Elapsed(left)));
    }

    fn ended(&mut self, number: usize, end: &kld_engine::End, took: Duration) {
        match end {
            kld_engine::End::Done => self.printer.note(&format!("  done in {}", Elapsed(took))),
            kld_engine::End::Skipped => self.printer.note("  skipped"),
            kld_engine::End::Failed(why) => {
                self.printer.warning(&format!("step {number} failed after {}: {why}", Elapsed(took)));
            }
        }
    }

    fn page(&self, report: &Report) -> String {
        page(report)
    }
}

impl Shell<'_> {
    /// Asks until one of the words is said; the end of the input is no answer.
    fn asked(&self, what: &str) -> Option<Said> {
        loop {
            self.printer.problem(&format!("  for you: {what}\n  done, failed or skip?"));
            let mut answer = String::new();
            if std::io::stdin().lock().read_line(&mut answer).ok()? == 0 {
                return None;
            }
            match answer.trim().to_ascii_lowercase().as_str() {
                "d" | "done" => return Some(Said::Done),
                "f" | "failed" => return Some(Said::Failed),
                "s" | "skip" => return Some(Said::Skip),
                _ => {}
            }
        }
    }
}

/// Why a command has failed, in one line.
fn why(error: &ExecError) -> String {
    let last = |stderr: &str| stderr.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned);
    let (how, stderr) = match error {
        ExecError::Failed { status, stderr, .. } => match status.code() {
            Some(code) => (format!("it ended with {code}"), last(stderr)),
            None => (format!("it was ended: {status}"), last(stderr)),
        },
        ExecError::TimedOut { limit, stderr, .. } => {
            (format!("not done within {}", Elapsed(*limit)), last(stderr))
        }
        other => (other.to_string(), None),
    };
    match stderr {
        Some(line) => format!("{how}: {line}"),
        None => how,
    }
}
