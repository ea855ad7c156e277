//! `kldload plan`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_engine::{Action, Cause, History, Plan, RealHost, Replaced, Step, Wanted};
use kld_host::systemd::shown_exposure;
use kld_system::PROGRAM_PATH;
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer};
use sha2::{Digest as _, Sha256};

use super::history::{numbers, utc};
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
    let found = History::new(&RealHost).replaced(&plan.manifest);
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
    let digest = Sha256::digest(manifest.text.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let wanted = Wanted::new(system, &manifest.dir, digest)?;
    let before = History::new(&RealHost).applied().context("cannot read what was applied last")?;
    let plan = kld_engine::plan(&RealHost, &wanted, &before)?;
    Ok((plan, wanted))
}

/// A plan for people.
pub(crate) fn render(plan: &Plan) -> String {
    let mut text = String::new();
    let changes = plan.steps.iter().filter(|step| step.kind != "service").count();
    if plan.is_empty() && !plan.undoes.is_empty() {
        let taken_back = numbers(&plan.undoes);
        let _ = writeln!(text, "{}: {taken_back} taken back, nothing to do", plan.machine);
    } else if plan.is_empty() {
        let _ = writeln!(text, "{}: as the manifest says, nothing to do", plan.machine);
    } else {
        let counted =
            |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let taken_back = match plan.undoes.is_empty() {
            true => String::new(),
            false => format!("{} taken back, ", numbers(&plan.undoes)),
        };
        let takes = match plan.takes {
            0 => String::new(),
            bytes => format!("; takes about {}", ByteSize(bytes)),
        };
        let _ = writeln!(
            text,
            "{}: {taken_back}{}, then {}{takes}",
            plan.machine,
            counted(changes, "change", "changes"),
            counted(plan.steps.len() - changes + plan.restarts.len(), "service is told", "services are told")
        );
    }
    let of = |cause| plan.steps.iter().filter(move |step| step.cause == cause);
    let told = |cause| plan.restarts.iter().filter(move |step| step.cause == cause);
    section(&mut text, "first, for the journal, and to stay", plan.memory.iter());
    section(&mut text, "first", of(Cause::Wish).filter(|step| step.kind == "service"));
    section(&mut text, "changes", of(Cause::Wish).filter(|step| step.kind != "service"));
    let drift = match plan.undoes.is_empty() {
        true => "changed by hand since the last apply, and put back",
        false => "changed by hand since: goes back with `--changed` only, and what is there now is kept",
    };
    section(&mut text, drift, of(Cause::Drift).chain(told(Cause::Drift)));
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
        let title = match plan.undoes.is_empty() {
            true => "no longer in the manifest, and left alone",
            false => "stays, because others may need it by now",
        };
        let _ = writeln!(text, "\n{title}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undo_says_what_was_changed_by_hand_and_what_stays() {
        let step = |kind: &str, name: &str, cause: &str, summary: &str, notes: &[&str]| {
            serde_json::json!({
                "kind": kind, "name": name, "action": "change", "cause": cause, "summary": summary, "notes": notes,
                "because": { "layer": "undo", "line": null, "reason": "apply 2 is taken back" }, "change": null,
            })
        };
        let plan = serde_json::json!({
            "machine": "webapp", "manifest": "", "undoes": [3, 2], "left": [
                { "kind": "package", "name": "git", "remove_with": "apt-get purge git" },
            ],
            "steps": [
                step("service", "new.service", "wish", "stops", &[]),
                step("file", "/etc/a", "wish", "+0 −2 lines", &[]),
                step("file", "/etc/b", "drift", "mode 0600 → 0644", &["+1 −0 lines by hand since"]),
            ],
            "restarts": [step("service", "webapp.service", "wish", "starts again", &[])], "items": {},
        });
        let plan: Plan = serde_json::from_value(plan).expect("a plan");
        let want = "webapp: applies 3, 2 taken back, 2 changes, then 2 services are told

first
    service  new.service  stops
             because apply 2 is taken back

changes
  ~ file     /etc/a  +0 −2 lines

changed by hand since: goes back with `--changed` only, and what is there now is kept
  ~ file     /etc/b  mode 0600 → 0644
             +1 −0 lines by hand since

then
    service  webapp.service  starts again
             because apply 2 is taken back

stays, because others may need it by now
    package git
      apt-get purge git
";
        assert_eq!(render(&plan), want);
    }
}
