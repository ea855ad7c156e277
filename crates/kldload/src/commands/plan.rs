//! `kldload plan`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_engine::{Action, Cause, Digests, History, Plan, RealHost, Replaced, Step, Wanted};
use kld_host::systemd::shown_exposure;
use kld_system::PROGRAM_PATH;
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer};

use super::history::utc;
use crate::manifest::ManifestFile;

/// Say what `kldload apply` would change on this machine, and why
///
/// Looks, and touches nothing. Exits with 0 when the machine is as the manifest says, with 3 when there are changes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload plan /etc/kldload/appliance.manifest\n  kldload plan --json appliance.manifest | jq '.items[0].steps[].name'"
)]
pub(crate) struct Args {
    /// The manifest; its files lie beside it
    file: PathBuf,
    /// Print the plan as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Looks.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let (plan, _) = make(printer, &args.file)?;
    if args.json {
        printer.envelope("plan", std::slice::from_ref(&plan))?;
    } else {
        printer.data(&render(&plan))?;
    }
    if let Some((what, way_back)) = replaced(&plan)? {
        printer.warning(&format!("{what}: {way_back}"));
    }
    Ok(if plan.is_empty() { ExitStatus::Done } else { ExitStatus::Pending })
}

/// That the manifest of a plan is older than what was applied, and the way back to it: somebody may have taken an old copy.
pub(crate) fn replaced(plan: &Plan) -> anyhow::Result<Option<(String, String)>> {
    if plan.is_empty() {
        return Ok(None);
    }
    let found = History::new(&RealHost).replaced(plan);
    Ok(found.context("cannot read what was applied before")?.map(|Replaced { was, next, by }| {
        let what = format!(
            "this manifest is older than what was applied: it was apply {}, of {}, and apply {} by {}, of {}, has replaced it",
            was.number, utc(was.at), by.number, by.by, utc(by.at)
        );
        let undo = if next == by.number { String::new() } else { format!(" {next}") };
        (what, format!("`kldload undo{undo}` takes back what came after it"))
    }))
}

/// The plan for this machine, and what it is for.
pub(crate) fn make(printer: &Printer, file: &Path) -> anyhow::Result<(Plan, Wanted)> {
    if !Path::new(PROGRAM_PATH).exists() {
        let what = format!("`{PROGRAM_PATH}` is not there, and units of this machine would start it");
        return Err(Hinted::new(what, format!("`install -m 755 kldload {PROGRAM_PATH}`")).into());
    }
    let manifest = ManifestFile::read(file)?;
    let system = manifest.system(printer)?;
    let digests = Digests::of(&manifest.text, manifest.appliance(printer)?);
    let wanted = Wanted::new(system, &manifest.dir, digests)?;
    let before = History::new(&RealHost).applied().context("cannot read what was applied last")?;
    let plan = kld_engine::plan(&RealHost, &wanted, &before)?;
    Ok((plan, wanted))
}

/// A plan for people.
pub(crate) fn render(plan: &Plan) -> String {
    let mut text = String::new();
    if plan.is_empty() {
        let _ = writeln!(text, "{}: as the manifest says, nothing to do", plan.machine);
    } else {
        let counted =
            |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let takes = match plan.takes {
            0 => String::new(),
            bytes => format!("; takes about {}", ByteSize(bytes)),
        };
        let _ = writeln!(
            text,
            "{}: {}, then {}{takes}",
            plan.machine,
            counted(plan.steps.len(), "change", "changes"),
            counted(plan.restarts.len(), "service is told", "services are told")
        );
    }
    let of = |cause| plan.steps.iter().filter(move |step| step.cause == cause);
    let told = |cause| plan.restarts.iter().filter(move |step| step.cause == cause);
    section(&mut text, "first, for the journal, and to stay", plan.memory.iter());
    section(&mut text, "changes", of(Cause::Wish));
    section(
        &mut text,
        "changed by hand since the last apply, and put back",
        of(Cause::Drift).chain(told(Cause::Drift)),
    );
    section(&mut text, "then", told(Cause::Wish));
    // Of a unit that its package has yet to bring nothing is known.
    let known: Vec<_> = plan.exposures.iter().filter(|of| of.now.or(of.then).is_some()).collect();
    if !known.is_empty() {
        let tenths = |tenths: Option<u8>| tenths.map_or_else(|| "–".to_owned(), shown_exposure);
        let _ = writeln!(text, "\nexposed to the rest of the machine, from 0.0 (not at all) to 10.0");
        let width = known.iter().map(|of| of.unit.chars().count()).max().unwrap_or_default();
        for of in known {
            let limit =
                of.limit.map_or_else(String::new, |limit| format!(", at most {}", tenths(Some(limit))));
            let _ = writeln!(text, "    {:width$}  {} → {}{limit}", of.unit, tenths(of.now), tenths(of.then));
        }
    }
    if !plan.left.is_empty() {
        let _ = writeln!(text, "\nno longer in the manifest, and left alone");
        for left in &plan.left {
            let _ = writeln!(text, "    {} {}", left.kind, left.name);
            let _ = writeln!(text, "      {}", left.remove_with);
        }
    }
    text
}

fn section<'a>(text: &mut String, title: &str, steps: impl Iterator<Item = &'a Step>) {
    let steps: Vec<&Step> = steps.collect();
    if steps.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    let width = steps.iter().map(|step| step.name.chars().count()).max().unwrap_or_default().min(48);
    for step in steps {
        let sign = match step.action {
            _ if step.kind == "service" => ' ',
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        };
        let line = step.because.line.map_or_else(String::new, |line| format!("  (line {line})"));
        let _ = writeln!(text, "  {sign} {:8} {:width$}  {}{line}", step.kind, step.name, step.summary);
        for note in &step.notes {
            let _ = writeln!(text, "             {note}");
        }
        if step.kind == "service" {
            let _ = writeln!(text, "             because {}", step.because.reason);
        }
    }
}
