//! `kldload plan`.

mod page;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_engine::{Digests, History, Plan, RealHost, Replaced, Wanted};
use kld_system::PROGRAM_PATH;
use kld_ui::{ExitStatus, Hinted, Printer};

pub(crate) use self::page::render;
use super::history::utc;
use crate::lock_file;
use crate::manifest::ManifestFile;

/// Say what `kldload apply` would change on this machine, and why
///
/// Looks, and touches nothing. Exits with 0 when the machine is as the manifest says, with 3 when there are changes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload plan /etc/kldload/appliance.manifest\n  kldload plan --lock webapp.img.lock appliance.manifest\n  kldload plan --json appliance.manifest | jq '.items[0].steps[].name'"
)]
pub(crate) struct Args {
    /// The manifest; its files lie beside it
    file: PathBuf,
    /// Install exactly the versions of this lock file; without it, of MANIFEST.lock when it lies beside the manifest
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Print the plan as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Looks.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let (plan, _) = make(printer, &args.file, args.lock.as_ref())?;
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
pub(crate) fn make(printer: &Printer, file: &Path, lock: Option<&PathBuf>) -> anyhow::Result<(Plan, Wanted)> {
    if !Path::new(PROGRAM_PATH).exists() {
        let what = format!("`{PROGRAM_PATH}` is not there, and units of this machine would start it");
        return Err(Hinted::new(what, format!("`install -m 755 kldload {PROGRAM_PATH}`")).into());
    }
    let manifest = ManifestFile::read(file)?;
    let system = manifest.system(printer)?;
    let digests = Digests::of(&manifest.text, manifest.appliance(printer)?);
    let lock = lock_file::of(printer, lock.or(lock_file::beside(file).as_ref()), &system)?;
    let locked = lock.map(|(path, lock)| lock_file::locked(&path, lock));
    let wanted = Wanted::new(system, &manifest.dir, digests)?.locked(locked);
    let before = History::new(&RealHost).applied().context("cannot read what was applied last")?;
    let plan = kld_engine::plan(&RealHost, &wanted, &before)?;
    Ok((plan, wanted))
}
