//! `kldload apply`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use kld_engine::{
    Adopter, Engine, History, Outcome, Plan, Progress, RealHost, Recovered, Step, put_aside, waits_for_reboot,
};
use kld_ui::{ExitStatus, Hinted, Printer};

use super::lock::lock;
use super::proof::Proof;
use super::seconds::seconds;
use super::session::is_over_ssh;
use super::{adopt, plan, recover};
use crate::signals;

/// Bring this machine to what a manifest says, or leave it as it was
///
/// Shows the plan and asks. Then each change is made and written to a journal, the changed services are told, and the
/// manifest's own proofs run. When anything fails, all of it is undone; data of users is never rolled back.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload apply --dry-run appliance.manifest\n  kldload apply appliance.manifest\n  kldload apply --yes appliance.manifest\n  kldload apply --confirm-within 60s appliance.manifest && kldload confirm"
)]
pub(crate) struct Args {
    /// The manifest; its files lie beside it
    file: PathBuf,
    /// Install exactly the versions of this lock file; without it, of MANIFEST.lock when it lies beside the manifest
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Only show the plan; exits with 3 when there are changes
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Apply a manifest that was applied before and that another one has replaced since
    #[arg(long)]
    older: bool,
    /// How long the services and proofs may take to be well: `90`, `2min`
    #[arg(long, default_value = "90s", value_name = "TIME", value_parser = seconds)]
    within: u64,
    /// Go back unless `kldload confirm` comes within this time; 60s when you are logged in over SSH and the plan changes
    /// rules or networks
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    confirm_within: Option<u64>,
}

/// Plans, asks, applies.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    if args.dry_run {
        let (plan, _) = plan::make(printer, &args.file, args.lock.as_ref())?;
        printer.data(&plan::render(&plan))?;
        return Ok(if plan.is_empty() { ExitStatus::Done } else { ExitStatus::Pending });
    }
    let _lock = lock("kldload apply")?;
    recover(printer, engine(), Adopter::new(&RealHost))?;
    let (plan, wanted) = plan::make(printer, &args.file, args.lock.as_ref())?;
    printer.data(&plan::render(&plan))?;
    if plan.is_empty() {
        return Ok(ExitStatus::Done);
    }
    if let Some((what, way_back)) = plan::replaced(&plan)?.filter(|_| !args.older) {
        return Err(Hinted::new(what, format!("{way_back}; `--older` applies it all the same")).into());
    }
    if !printer.confirm("apply?", args.yes) {
        let hint = "`--yes` applies without asking";
        return Err(Hinted::new("nothing was changed: not confirmed", hint).into());
    }
    let proof = Proof::before();
    let confirm_within = args.confirm_within.or_else(|| may_cut_off(&plan).then_some(60));
    let stop = signals::stop(printer)?;
    let prove = || proof.holds(wanted.system.node.as_ref(), Duration::from_secs(args.within), &stop);
    let outcome =
        engine().unless(&stop).apply(&plan, &who(), confirm_within, &prove, &mut Said { printer })?;
    match outcome {
        Outcome::Committed { number } => {
            printer.note(&format!("apply {number} is done: the machine is as the manifest says"));
            say_reboot(printer, &plan);
            if let Some(seconds) = confirm_within {
                printer.warning(&format!(
                    "within {seconds} seconds it goes back, unless you say `kldload confirm`"
                ));
            }
            Ok(ExitStatus::Done)
        }
        Outcome::RolledBack { number, what, error } => {
            say_put_aside(printer, number);
            Err(Hinted::new(
                format!("apply {number} failed at {what}, and everything is as it was before\n  {error}"),
                "mend what it names and apply again",
            )
            .into())
        }
        Outcome::Stopped { number, before } => {
            say_put_aside(printer, number);
            Err(Hinted::new(
                format!("apply {number} was stopped before {before}, and everything is as it was before"),
                "`kldload apply` makes the whole of it",
            )
            .into())
        }
    }
}

/// That something is in use only after a start: by the plan, or by the word of a package.
fn say_reboot(printer: &Printer, plan: &Plan) {
    // What cannot be read has nothing to do with the apply, which is done.
    let marked = waits_for_reboot(&RealHost).ok().flatten();
    if marked.is_some() || plan.needs_reboot() {
        let names = marked.filter(|names| !names.is_empty());
        let what = names.map_or_else(|| "what it has installed".to_owned(), |names| names.join(", "));
        printer.warning(&format!("{what} is in use after the next start: `reboot`"));
    }
}

/// Names what was changed by hand and went with what was taken back, and where it is.
pub(crate) fn say_kept(printer: &Printer, number: u32) -> anyhow::Result<()> {
    for (path, kept) in History::new(&RealHost).kept(number)? {
        printer.note(&format!("kept: `{path}`, as somebody had changed it, is `{kept}`"));
    }
    Ok(())
}

/// Names the datasets that an apply had made and that something was written into, or whose snapshots somebody needs: they are not
/// destroyed.
pub(crate) fn say_put_aside(printer: &Printer, number: u32) {
    for name in put_aside(&RealHost, number).unwrap_or_default() {
        printer.note(&format!(
            "left: `{name}`, with what was written into it, or with snapshots that are held or cloned; `zfs destroy -r {name}` removes it"
        ));
    }
}

/// What a session over SSH comes through.
const WAY_IN: [&str; 5] = [
    "/etc/nftables.conf",
    "/etc/systemd/network/",
    "/etc/ssh/",
    "/etc/kldload/node.json",
    "nftables.service",
];

/// Whether this session comes through what the plan changes.
pub(crate) fn may_cut_off(plan: &Plan) -> bool {
    plan.all().any(|step| is_on_the_way_in(&step.name)) && is_over_ssh()
}

fn is_on_the_way_in(name: &str) -> bool {
    WAY_IN.iter().any(|of| name.starts_with(of))
}

/// The engine for this machine.
pub(crate) fn engine() -> Engine<'static> {
    Engine::new(&RealHost).with_environments(&kld_boot::RealMachine)
}

/// Undoes what was interrupted, and ends adoptions; whether there was something.
pub(crate) fn recover(printer: &Printer, engine: Engine<'_>, adopter: Adopter<'_>) -> anyhow::Result<bool> {
    recover::all(printer, [adopt::recover(printer, adopter), undo_interrupted(printer, engine)])
}

/// Undoes an apply that was interrupted; whether there was one.
pub(crate) fn undo_interrupted(printer: &Printer, engine: Engine<'_>) -> anyhow::Result<bool> {
    let recovered =
        engine.recover(&mut Said { printer }).context("cannot undo an apply that was interrupted")?;
    let Some(Recovered { number, was_undo, steps }) = recovered else { return Ok(false) };
    printer.note(&match was_undo {
        true => format!(
            "undo {number} was interrupted: {steps} steps made again, the machine is as it was before it"
        ),
        false => format!(
            "apply {number} was interrupted: {steps} steps undone, the machine is as it was before it"
        ),
    });
    say_kept(printer, number)?;
    Ok(true)
}

/// Who asked: the account behind sudo, when there is one.
pub(crate) fn who() -> String {
    ["SUDO_USER", "LOGNAME", "USER"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "root".to_owned())
}

/// Says each step.
pub(crate) struct Said<'a> {
    pub(crate) printer: &'a Printer,
}

impl Progress for Said<'_> {
    fn environment(&mut self, name: &str) {
        self.printer.note(&format!("boot environment `{name}` holds the machine as it is now"));
    }

    fn no_environment(&mut self, why: &str) {
        self.printer.warning(&format!("no boot environment holds the machine as it is now: {why}"));
    }

    fn step(&mut self, number: usize, of: usize, step: &Step) {
        self.printer.note(&format!("[{number}/{of}] {} {}: {}", step.kind, step.name, step.summary));
    }

    fn back(&mut self, why: &str) {
        self.printer.warning(&format!("{why}: going back"));
    }

    fn undo(&mut self, step: &Step) {
        self.printer.note(&format!("undo {} {}", step.kind, step.name));
    }

    fn proving(&mut self) {
        self.printer.note("prove that services run and that the manifest's proofs hold");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_cut_off_a_session_is_known() {
        let network = "/etc/systemd/network/wg0.netdev";
        assert!([network, "/etc/nftables.conf", "nftables.service"].into_iter().all(is_on_the_way_in));
        assert!(!["/etc/sanoid/sanoid.conf", "webapp.service"].into_iter().any(is_on_the_way_in));
    }
}
