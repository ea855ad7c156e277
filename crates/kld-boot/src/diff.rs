//! What two environments differ in since they parted: `zfs diff` from the snapshot that both come from, on each side.

use std::time::Duration;

use kld_host::zfs::{self, Change, ChangeKind};

use crate::error::BootError;
use crate::look::{Environment, Looked, Snapshot};
use crate::machine::{Machine, MachineError};
use crate::mount::{OWNER, SOURCE, while_mounted};

/// Longer than comparing two systems takes that have nothing in common but their beginning.
const DEADLINE: Duration = Duration::from_secs(900);

/// The snapshot from which both environments come; `None` when they have nothing in common.
pub fn common_snapshot<'a>(looked: &'a Looked, a: &str, b: &str) -> Result<Option<&'a Snapshot>, BootError> {
    let (a, b) = (line_of(looked, looked.environment(a)?), line_of(looked, looked.environment(b)?));
    for (dataset, of_a) in &a {
        let Some((_, of_b)) = b.iter().find(|(other, _)| other == dataset) else { continue };
        // The one that parted first; who is that dataset itself has not parted from it.
        let parted = [*of_a, *of_b].into_iter().flatten().min_by_key(|snapshot| snapshot.txg);
        return Ok(parted);
    }
    Ok(None)
}

/// The datasets from which an environment comes, itself first, each with the snapshot at which it was left.
fn line_of<'a>(looked: &'a Looked, environment: &'a Environment) -> Vec<(&'a str, Option<&'a Snapshot>)> {
    let mut line: Vec<(&str, Option<&Snapshot>)> = vec![(&environment.dataset, None)];
    let mut next = environment;
    while let Some((owner, snapshot)) = next.origin.as_ref().and_then(|origin| looked.snapshot(origin)) {
        line.push((&owner.dataset, Some(snapshot)));
        next = owner;
    }
    line
}

/// Has somebody look into an environment: where it is mounted, or where it is mounted for the look.
///
/// # Errors
/// When there is none, or it cannot be mounted; what `look` says.
pub fn look_into<T, E: From<BootError>>(
    machine: &dyn Machine,
    name: &str,
    look: impl FnOnce(&Environment, &str) -> Result<T, E>,
) -> Result<T, E> {
    let looked = Looked::before_change(machine)?;
    let environment = looked.environment(name)?;
    while_mounted(machine, &environment.dataset, SOURCE, |at| look(environment, at))
}

/// The files that an environment mounted at `at` has changed since a snapshot that it comes from.
///
/// # Errors
/// When `zfs diff` fails, or says something unknown.
pub fn file_changes(
    machine: &dyn Machine,
    since: &str,
    dataset: &str,
    at: &str,
) -> Result<Vec<Change>, BootError> {
    let diff = zfs::diff_cmd(since, dataset).timeout(DEADLINE);
    // It compares mounted file systems only, and a clone with the file system that owns the snapshot.
    let owner = since.split('@').next().unwrap_or_default();
    let said = while_mounted(machine, owner, OWNER, |_| machine.run(&diff).map_err(BootError::from))?;
    Ok(relative(zfs::parse_diff(&said).map_err(MachineError::from)?, at))
}

/// Folders whose entries have changed are told of by these.
fn relative(changes: Vec<Change>, at: &str) -> Vec<Change> {
    let told = changes.into_iter().filter(|of| !(of.is_directory && of.kind == ChangeKind::Modified));
    let mut changes: Vec<Change> =
        told.map(|of| Change { path: below(of.path, at), to: of.to.map(|to| below(to, at)), ..of }).collect();
    changes.sort_by(|a, b| (&a.path, a.kind, &a.to).cmp(&(&b.path, b.kind, &b.to)));
    changes
}

/// From the root of what is mounted at `at` on.
fn below(path: String, at: &str) -> String {
    let rest = path.strip_prefix(at).filter(|rest| rest.starts_with('/')).map(str::to_owned);
    rest.unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_root_of_the_environment() {
        let text = "M\t/\t/run/kbe/.source/etc\n+\tF\t/run/kbe/.source/etc/new\\0040one\nM\tF\t/run/kbe/.source/etc/passwd\n\
                    -\t/\t/run/kbe/.source/old\nR\tF\t/run/kbe/.source/a\t/run/kbe/.source/b\n";
        let said = |text: &str, at: &str| -> Vec<(char, String, Option<String>)> {
            let changes = relative(zfs::parse_diff(text).expect("readable"), at);
            changes.into_iter().map(|of| (of.kind.letter(), of.path, of.to)).collect()
        };
        let of = |letter, path: &str| (letter, path.to_owned(), None);
        assert_eq!(
            said(text, "/run/kbe/.source"),
            [
                ('R', "/a".to_owned(), Some("/b".to_owned())),
                of('+', "/etc/new one"),
                of('M', "/etc/passwd"),
                of('-', "/old")
            ]
        );
        // The running system is mounted at `/`.
        assert_eq!(said("+\tF\t/etc/\\0303\\0274\n", ""), [of('+', "/etc/ü")]);
    }
}
