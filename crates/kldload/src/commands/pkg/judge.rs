//! `kpkg judge`: what the units of a changed system call at its first start.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kld_boot::{RealMachine, fail_trial, is_on_trial, pass_trial};
use kld_host::{Cmd, ExecError};
use kld_node::health::Probe;
use kld_packages::{TRIAL_FILE, TrialFile, remove_trial_units};
use kld_ui::{ExitStatus, Printer};

use super::watch::{Services, Watch, services};
use crate::commands::lock::take_lock;
use crate::commands::status;

/// A machine that has just started is busy.
const PROBE: Duration = Duration::from_secs(20);

/// What the units of a changed system call at its first start; not needed by people
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// It did not get as far as its services
    #[arg(long)]
    stuck: bool,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    if !must_prove_itself(printer) {
        // A clone of one on trial has these, too, and so has one that lost its power before they went. No fault of theirs may
        // restart a system that has nothing to prove.
        if let Err(error) = end(printer) {
            printer.warning(&error.to_string());
        }
        return Ok(ExitStatus::Done);
    }
    let problems = if args.stuck { vec![why_stuck()] } else { judge(printer)? };
    if problems.is_empty() {
        let name = pass(printer)?;
        printer.note(&format!("`{name}` is well and stays"));
        return Ok(ExitStatus::Done);
    }
    let reason = problems.join("; ");
    printer.problem(&format!("the changed system is not well, the old one starts: {reason}"));
    // Whatever else fails: this is not a system to stay in, and the loader starts the old one anyway.
    if let Err(error) = fail_trial(&RealMachine, &reason, &mut |action| printer.detail(&action.to_string())) {
        printer.warning(&format!("the reason could not be kept: {error}"));
    }
    Cmd::new("systemctl").args(["--no-block", "reboot"]).run()?;
    Ok(ExitStatus::Done)
}

/// Whether this system must prove itself.
fn must_prove_itself(printer: &Printer) -> bool {
    is_on_trial(&RealMachine).unwrap_or_else(|error| {
        // A system whose pool does not answer is not well; but the file says that it must be.
        printer.warning(&error.to_string());
        true
    })
}

/// Makes it the one that starts from now on.
pub(crate) fn pass(printer: &Printer) -> anyhow::Result<String> {
    let _lock = take_lock("kpkg judge")?;
    let name = pass_trial(&RealMachine, &mut |action| printer.detail(&action.to_string()))?;
    end(printer)?;
    Ok(name)
}

/// Removes what judges: it has nothing more to say.
fn end(printer: &Printer) -> anyhow::Result<()> {
    // It may be gone already. What it starts looks for the file that goes now.
    if let Err(error) = stop_stuck_timer() {
        printer.detail(&error.to_string());
    }
    remove_trial_units(Path::new("/"))?;
    Ok(Cmd::new("systemctl").arg("daemon-reload").run()?)
}

fn stop_stuck_timer() -> Result<(), ExecError> {
    Cmd::new("systemctl").args(["stop", "--", kld_packages::STUCK_TIMER]).run()
}

/// Everything was started: from here it is the verdict that takes its time, and its unit's own limit that ends it.
fn judge(printer: &Printer) -> anyhow::Result<Vec<String>> {
    if let Err(error) = stop_stuck_timer() {
        printer.warning(&error.to_string());
    }
    watch()
}

/// What is worse than before the change, once everything has had its time; nothing when nothing is, and stays so.
fn watch() -> anyhow::Result<Vec<String>> {
    let trial = std::fs::read(TRIAL_FILE).with_context(|| format!("cannot read `{TRIAL_FILE}`"))?;
    let trial: TrialFile =
        serde_json::from_slice(&trial).with_context(|| format!("cannot understand `{TRIAL_FILE}`"))?;
    let mut watch = Watch::new(&trial.restarted_before);
    let begun = Instant::now();
    loop {
        let mut problems = worse(&status::health(PROBE)?.probes, &trial);
        let services = services(PROBE).unwrap_or_else(|error| {
            problems.push(format!("services: {error}"));
            Services::new()
        });
        if let Some(verdict) = watch.look(begun.elapsed(), problems, services) {
            return Ok(verdict);
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

fn worse(probes: &[Probe], trial: &TrialFile) -> Vec<String> {
    let is_new = |probe: &&Probe| probe.troubles().iter().any(|of| !trial.bad_before.contains(of));
    probes.iter().filter(is_new).map(|probe| format!("{}: {}", probe.name, probe.summary)).collect()
}

/// Why no service was reached: the units that failed.
fn why_stuck() -> String {
    let failed =
        Cmd::new("systemctl").args(["list-units", "--failed", "--plain", "--no-legend", "--no-pager"]);
    let failed = failed.timeout(PROBE).stdout_string().unwrap_or_default();
    let names: Vec<&str> = failed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let emergency = Cmd::new("systemctl").args(["is-active", "--quiet", "emergency.target"]).timeout(PROBE);
    let state = if emergency.run().is_ok() { "it started in emergency mode" } else { "its start got stuck" };
    match &names[..] {
        [] => state.to_owned(),
        names => format!("{state}: {} failed", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use kld_node::health::Status;

    use super::*;

    #[test]
    fn only_what_became_bad_counts() {
        let bad_before = ["scrub", "services: old.service", "boot: degraded"].map(str::to_owned).to_vec();
        let trial = TrialFile { from: "debian".to_owned(), bad_before, ..TrialFile::default() };
        let services = |units: &[&str]| {
            Probe::new("services", Status::Fail, format!("{} failed", units.join(", ")))
                .with_subjects(units.iter().copied())
        };
        let probes = [
            Probe::new("boot", Status::Warn, "still starting"),
            Probe::new("scrub", Status::Fail, "never"),
            Probe::new("boot", Status::Fail, "degraded").with_subjects(["degraded"]),
            services(&["old.service"]),
            services(&["app.service", "old.service"]),
            Probe::new("pool", Status::Timeout, "no answer"),
            Probe::new("boot", Status::Fail, "maintenance").with_subjects(["maintenance"]),
        ];
        assert_eq!(
            worse(&probes, &trial),
            ["services: app.service, old.service failed", "pool: no answer", "boot: maintenance"]
        );
        assert!(worse(&probes[..4], &trial).is_empty());
    }
}
