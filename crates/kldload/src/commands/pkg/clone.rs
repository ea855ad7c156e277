//! What the verbs that change packages share: the clone, the work in it, and what is said of it.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kld_boot::{BootEnvironmentName, BootError, Looked, Machine as _, Origin, RealMachine, try_out};
use kld_host::{Cmd, Line};
use kld_node::health::Probe;
use kld_packages::{
    Change, PackageError, Preview, Report, Request, TrialFile, inside_cmd, manager_of, preview,
};
use kld_snap::stamp;
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer};

use super::watch::{restarted, services};
use crate::commands::lock::lock;
use crate::commands::status;

/// How long each probe may take before the change.
const PROBE: Duration = Duration::from_secs(20);

/// The arguments of every verb that changes packages.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// What the new boot environment is called; the verb and the date when none is named
    #[arg(long)]
    name: Option<BootEnvironmentName>,
    /// Only show what would be done, with today's lists of packages; exits with 3 when that is something
    #[arg(long)]
    dry_run: bool,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
    /// Restart into it at once
    #[arg(long, conflicts_with = "dry_run")]
    reboot: bool,
}

pub(super) fn run_change(
    printer: &Printer,
    verb: &str,
    change: &Change,
    common: &Common,
) -> anyhow::Result<ExitStatus> {
    if common.dry_run {
        return show(printer, change, common);
    }
    let _lock = lock(&format!("kpkg {verb}"))?;
    let looked = Looked::before_change(&RealMachine)?;
    let name = match &common.name {
        Some(name) => name.clone(),
        None => format!("{verb}-{}", stamp(RealMachine.now())).parse()?,
    };
    let request = request(&looked, change)?;
    let report = RefCell::new(None);
    printer.note(&format!("changing packages in a clone, `{name}`"));
    let is_tried = try_out(
        &RealMachine,
        &name,
        &Origin::Running,
        |dataset| {
            let came = work(printer, dataset, &request)?;
            let kernel = came.kernel.clone().filter(|_| !came.changes.is_empty());
            let findings = came.findings.clone();
            *report.borrow_mut() = Some(came);
            match findings.is_empty() {
                true => Ok(kernel),
                false => Err(PackageError::Unfit { findings }),
            }
        },
        &mut |action| printer.detail(&action.to_string()),
    )?;
    let changes = report.into_inner().map(|report: Report| report.changes).unwrap_or_default();
    if common.json {
        printer.envelope("package_change", &changes)?;
    } else if !changes.is_empty() {
        printer.data(&changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    }
    if !is_tried {
        printer.note("nothing to do: every package is as it should be");
        return Ok(ExitStatus::Done);
    }
    printer.note(&format!(
        "`{name}` starts next, once; when it is well it stays, else `{}` is back",
        request.trial.from
    ));
    if common.reboot {
        Cmd::new("systemctl").args(["--no-block", "reboot"]).run()?;
    }
    Ok(ExitStatus::Done)
}

/// What the process in the clone is told.
fn request(looked: &Looked, change: &Change) -> anyhow::Result<Request> {
    let running = looked.running().ok_or_else(|| BootError::NoModel { dataset: looked.root.clone() })?;
    let entry = looked.entry(&running.dataset);
    let program = std::env::current_exe().context("cannot say where this program is")?;
    // Whoever starts it and finds it well need not find it better than it was.
    let bad_before = status::health(PROBE)?.probes.iter().flat_map(Probe::troubles).collect();
    let restarted_before = restarted(&services(PROBE)?);
    let trial = TrialFile { from: running.name().to_owned(), bad_before, restarted_before };
    Ok(Request {
        change: change.clone(),
        program: program.to_string_lossy().into_owned(),
        kernel: entry.and_then(|entry| entry.entry.get("version")).map(str::to_owned),
        host_id_by_entry: entry.is_some_and(|entry| entry.entry.option("spl.spl_hostid").is_some()),
        trial,
    })
}

/// Has the work done, by this program in namespaces of its own.
fn work(printer: &Printer, dataset: &str, request: &Request) -> Result<Report, PackageError> {
    let mut json = String::new();
    let request_json = serde_json::to_vec(request).map_err(|_| PackageError::NoReport)?;
    let cmd =
        inside_cmd(&request.program, &["--verbose", "pkg", "inside", dataset]).stdin_bytes(request_json);
    cmd.stream(|line| match line {
        Line::Stdout(text) => json.push_str(text),
        Line::Stderr(text) => printer.detail(text),
    })
    .map_err(PackageError::inside)?;
    serde_json::from_str(&json).map_err(|_| PackageError::NoReport)
}

/// Says what would be done.
fn show(printer: &Printer, change: &Change, common: &Common) -> anyhow::Result<ExitStatus> {
    let looked = Looked::at(&RealMachine)?;
    let Preview { changes, download } = preview(&*manager_of(Path::new("/"))?, change)?;
    if common.json {
        printer.envelope("package_change", &changes)?;
    } else {
        let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        if !changes.is_empty() {
            lines.push(format!(
                "{} to fetch, {} free in the pool",
                ByteSize(download),
                ByteSize(looked.available)
            ));
            lines.extend(rooms(&looked)?);
        }
        printer.data(&lines.join("\n"))?;
    }
    if changes.is_empty() {
        printer.note("nothing to do: every package is as it should be");
        return Ok(ExitStatus::Done);
    }
    Ok(ExitStatus::Pending)
}

/// The room on the boot partitions, against what a kernel like the one that runs takes.
fn rooms(looked: &Looked) -> anyhow::Result<Vec<String>> {
    let running = looked.running().and_then(|running| looked.entry(&running.dataset));
    let mut lines = Vec::new();
    for esp in &looked.partitions {
        let files = running.iter().flat_map(|entry| entry.boot_files());
        let like: u64 = files.filter_map(|file| esp.files.get(file)).sum();
        let (free, like) = (ByteSize(esp.free), ByteSize(like));
        lines.push(format!("{free} free on {}; a kernel like the one that runs takes {like}", esp.mount));
    }
    if lines.is_empty() {
        return Err(Hinted::new("there is no boot partition", "`kbe list` says what was found").into());
    }
    Ok(lines)
}
