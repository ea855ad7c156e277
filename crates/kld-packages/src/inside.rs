//! The work in the clone, by a process of its own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kld_boot::{RealMachine, kernel_after, kernels};
use kld_host::Cmd;

use crate::checks::{self, Finding};
use crate::database::Packages;
use crate::error::PackageError;
use crate::manager::manager_of;
use crate::request::{Report, Request};
use crate::room::Room;
use crate::trial_units;

/// As long as the work itself may take, and a little more.
const DEADLINE: Duration = Duration::from_secs(5 * 3600);

/// Runs `program` with these words in namespaces of mounts and processes of its own: when it ends, or whoever waits for it
/// is killed, everything that it has started is killed, and what it has mounted is mounted nowhere.
pub fn inside_cmd(program: &str, words: &[&str]) -> Cmd {
    Cmd::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "--"])
        .arg(program)
        .args(words)
        .needs("unshare")
        .timeout(DEADLINE)
}

/// Changes the packages of a clone and looks whether it can start. This process must be the first of namespaces of its own.
///
/// # Errors
/// When something cannot be mounted, or the package manager fails. What is found is no error.
pub fn change(dataset: &str, request: &Request, say: &mut dyn FnMut(&str)) -> Result<Report, PackageError> {
    let mut room = Room::enter(dataset)?;
    let report = work(&mut room, request, say);
    // Also after an error: the clone is to be destroyed.
    let left = room.leave();
    let report = report?;
    left?;
    Ok(report)
}

fn work(room: &mut Room, request: &Request, say: &mut dyn FnMut(&str)) -> Result<Report, PackageError> {
    let root = Room::path("");
    let manager = manager_of(&root)?;
    if !is_file(&Room::path(&request.program)) {
        return Err(PackageError::ProgramElsewhere { program: request.program.clone() });
    }
    let started = request.kernel.as_deref();
    let kernels = || kernels(&RealMachine, root.to_string_lossy().trim_end_matches('/'), started);
    let (before, kernels_before) = (packages(&root)?, kernels()?);
    say("looking for what is wrong already");
    let known = checks::light(&*manager)?;
    Room::run(&manager.refresh(), manager.environment(), say)?;
    Room::run(&manager.change(&request.change), manager.environment(), say)?;
    room.end_work()?;
    let after = packages(&root)?;
    let changes = before.changes(&after);
    let kernels_after = kernels()?;
    let kernel = kernel_after(&kernels_before, &kernels_after, started).map(str::to_owned);
    let mut findings: Vec<Finding> = Vec::new();
    if !changes.is_empty() {
        say("checking what came out");
        findings = checks::light(&*manager)?.into_iter().filter(|found| !known.contains(found)).collect();
        findings.extend(checks::heavy(&*manager, &after, &changes, kernel.as_deref(), request)?);
        trial_units::write(&root, &request.program, &request.trial)?;
    }
    Ok(Report { changes, findings, kernel })
}

fn packages(root: &Path) -> Result<Packages, PackageError> {
    let read = Packages::of(root).map_err(PackageError::file("read the package database of", root))?;
    read.ok_or(PackageError::NoManager)
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}
