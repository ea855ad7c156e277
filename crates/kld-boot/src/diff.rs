//! What two environments differ in since they parted: `zfs diff` from the snapshot that both come from, on each side.

use std::fmt;
use std::time::Duration;

use kld_host::{Cmd, ParseError};

use crate::error::BootError;
use crate::look::{Environment, Looked, Snapshot};
use crate::machine::{Machine, MachineError};
use crate::mount::{SOURCE, mount_for_a_look, unmount};

/// Longer than comparing two systems takes that have nothing in common but their beginning.
const DEADLINE: Duration = Duration::from_secs(900);

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has other content or rights.
    Modified,
    /// It has another name.
    Renamed,
}

/// A file that one environment has changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileChange {
    /// From the environment's root on.
    pub path: String,
    /// What happened to it.
    pub kind: FileChangeKind,
    /// Its new name, where it has one.
    pub to: Option<String>,
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.kind {
            FileChangeKind::Added => '+',
            FileChangeKind::Removed => '-',
            FileChangeKind::Modified => 'M',
            FileChangeKind::Renamed => 'R',
        };
        write!(f, "{letter} {}", self.path)?;
        self.to.iter().try_for_each(|to| write!(f, " -> {to}"))
    }
}

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
    if let Some(place) = environment.mounted.first() {
        return look(environment, place.trim_end_matches('/'));
    }
    mount_for_a_look(machine, &environment.dataset).map_err(BootError::from)?;
    let seen = look(environment, SOURCE);
    unmount(machine, SOURCE).map_err(BootError::from)?;
    seen
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
) -> Result<Vec<FileChange>, MachineError> {
    let diff = Cmd::new("zfs").args(["diff", "-FH", since, dataset]).timeout(DEADLINE);
    let mut changes = parse(&machine.run(&diff)?, at)?;
    changes.sort();
    Ok(changes)
}

/// Reads `zfs diff -FH`: change, type, path, and the new path of what was renamed. Folders whose entries have changed are
/// told of by these.
fn parse(text: &str, at: &str) -> Result<Vec<FileChange>, MachineError> {
    let error = |line: &str| ParseError { tool: "zfs diff", reason: format!("unknown line `{line}`") };
    let mut changes = Vec::new();
    for line in text.lines() {
        let mut columns = line.split('\t');
        let (change, kind, path) = (columns.next(), columns.next(), columns.next());
        let (Some(change), Some(kind), Some(path)) = (change, kind, path) else {
            return Err(error(line).into());
        };
        let of = |path: &str| -> String {
            let path = unescape(path);
            path.strip_prefix(at).filter(|rest| rest.starts_with('/')).unwrap_or(&path).to_owned()
        };
        let (change, kind) = (change.trim(), kind.trim());
        let change = match change {
            "+" => FileChangeKind::Added,
            "-" => FileChangeKind::Removed,
            "M" if kind == "/" => continue,
            "M" => FileChangeKind::Modified,
            "R" => FileChangeKind::Renamed,
            _ => return Err(error(line).into()),
        };
        changes.push(FileChange { path: of(path), kind: change, to: columns.next().map(of) });
    }
    Ok(changes)
}

/// `zfs diff` writes blanks, tabs, backslashes and bytes that are no ASCII as `\0040`, in octal.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal.filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[4..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_zfs_says_is_read() {
        let text = "M\t/\t/run/kbe/.source/etc\n+\tF\t/run/kbe/.source/etc/new\\0040one\nM\tF\t/run/kbe/.source/etc/passwd\n\
                    -\t/\t/run/kbe/.source/old\nR\tF\t/run/kbe/.source/a\t/run/kbe/.source/b\n";
        let changes = parse(text, "/run/kbe/.source").expect("readable");
        let said: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["+ /etc/new one", "M /etc/passwd", "- /old", "R /a -> /b"]);
        // The running system is mounted at `/`.
        assert_eq!(parse("+\tF\t/etc/\\0303\\0274\n", "").expect("readable")[0].path, "/etc/ü");
        assert!(parse("?\tF\t/x\n", "").is_err() && parse("+\tF\n", "").is_err());
    }
}
