//! Files and directories: link counts and sizes of directories, and paths for what was found elsewhere.

use std::collections::BTreeMap;

use super::{FindingKind, Place, Report};
use crate::read::error::ReadError;
use crate::read::fs::Filesystem;
use crate::read::node::NodeKind;
use crate::read::pool::Pool;
use crate::read::{DatasetKind, Node};

/// Directories above a file that are named.
const MAX_DEPTH: usize = 256;

/// Checks the file systems; their snapshots are not looked through once more.
pub(super) fn check(pool: &Pool, report: &mut Report) {
    let Some(datasets) = report.take(Place::dataset("$MOS"), pool.datasets()) else { return };
    for dataset in datasets {
        if dataset.kind != DatasetKind::Filesystem || dataset.encrypted {
            continue;
        }
        let place = Place::dataset(&dataset.name);
        if let Some(filesystem) = report.take(place, pool.filesystem_of(dataset)) {
            check_filesystem(&filesystem, report);
        }
    }
}

/// What a walk knows of a node.
#[derive(Clone, Copy, Debug)]
struct Seen {
    names: u64,
    links: u64,
}

fn check_filesystem(filesystem: &Filesystem, report: &mut Report) {
    let mut seen: BTreeMap<u64, Seen> = BTreeMap::new();
    let place = |object: u64, path: &[u8]| Place {
        object: Some(object),
        path: Some(String::from_utf8_lossy(path).into_owned()),
        ..Place::dataset(filesystem.name())
    };
    let mut complete = true;
    for entry in filesystem.walk() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                complete = false;
                report.add(FindingKind::Unreadable, Place::dataset(filesystem.name()), error.to_string());
                continue;
            }
        };
        let (node, path) = (&entry.node, &entry.path);
        let metadata = node.metadata();
        let known = seen.entry(node.object()).or_insert(Seen { names: 0, links: metadata.links });
        known.names += 1;
        match metadata.kind {
            NodeKind::Directory => {
                known.names = metadata.links;
                if let Err(problem) = check_directory(filesystem, node) {
                    report.add(FindingKind::Links, place(node.object(), path), problem);
                }
            }
            NodeKind::Symlink => match filesystem.read_link(node) {
                Ok(target) if target.len() as u64 != metadata.size => {
                    report.add(
                        FindingKind::Structure,
                        place(node.object(), path),
                        "the target of the link has another length than its size",
                    );
                }
                Ok(_) => {}
                Err(error) => {
                    report.add(FindingKind::Unreadable, place(node.object(), path), error.to_string())
                }
            },
            _ => {}
        }
        if let Err(error) = filesystem.xattrs(node) {
            report.add(FindingKind::Unreadable, place(node.object(), path), error.to_string());
        }
    }
    if complete {
        for (object, Seen { names, links }) in seen.into_iter().filter(|(_, seen)| seen.names != seen.links) {
            let place = Place { object: Some(object), ..Place::dataset(filesystem.name()) };
            report.add(FindingKind::Links, place, format!("it says it has {links} names, but has {names}"));
        }
    }
}

/// A directory's size is its entries and two, its link count its directories and two.
fn check_directory(filesystem: &Filesystem, directory: &Node) -> Result<(), String> {
    let entries = filesystem.read_dir(directory).map_err(|error| error.to_string())?;
    let metadata = directory.metadata();
    let size = entries.len() as u64 + 2;
    if metadata.size != size {
        return Err(format!("it says its size is {}, but it is {size}", metadata.size));
    }
    let mut below = 0;
    for entry in entries {
        below += u64::from(filesystem.node(entry.object).is_ok_and(|node| node.is_dir()));
    }
    if metadata.links != below + 2 {
        return Err(format!("it says it has {} links, but has {}", metadata.links, below + 2));
    }
    Ok(())
}

/// Adds paths to findings that name an object of a file system.
pub(super) fn name_paths(pool: &Pool, report: &mut Report) {
    let mut filesystems: BTreeMap<String, Option<Filesystem>> = BTreeMap::new();
    for finding in &mut report.findings {
        let Place { dataset: Some(dataset), object: Some(object), path: None, .. } = &finding.place else {
            continue;
        };
        let filesystem =
            filesystems.entry(dataset.clone()).or_insert_with(|| pool.filesystem(dataset).ok()).as_ref();
        finding.place.path = filesystem.and_then(|filesystem| path_of(filesystem, *object).ok());
    }
}

/// The path of an object: its parent knows its name.
pub(crate) fn path_of(filesystem: &Filesystem, object: u64) -> Result<String, ReadError> {
    let root = filesystem.root()?.object();
    let mut names = Vec::new();
    let mut at = object;
    while at != root {
        if names.len() == MAX_DEPTH {
            return Err(ReadError::damaged(format!("object {object}"), "it is in a circle of directories"));
        }
        let parent = filesystem.node(at)?.parent;
        let directory = filesystem.node(parent)?;
        let entries = filesystem.read_dir(&directory)?;
        let name = entries.into_iter().find(|entry| entry.object == at).map(|entry| entry.name);
        let name = name.ok_or(ReadError::NotFound { path: format!("object {at}") })?;
        names.push(String::from_utf8_lossy(&name).into_owned());
        at = parent;
    }
    names.reverse();
    Ok(format!("/{}", names.join("/")))
}
