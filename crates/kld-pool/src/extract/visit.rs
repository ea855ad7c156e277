//! Walks a part of a file system and says what is met, names that no file can have excepted.

use std::collections::BTreeSet;

use super::report::{ExtractError, Report, Trouble};
use crate::read::{DirEntry, Filesystem, Node};
use crate::tree::MAX_NAME;

/// What is done with what is met.
pub(super) trait Visitor {
    /// Where problems are told.
    fn report(&mut self) -> &mut Report;

    /// A directory; whether to go into it. Everything below it comes before [`Visitor::leave`].
    fn enter(&mut self, at: At<'_>, node: &Node) -> Result<bool, ExtractError>;

    /// The end of the directory that was entered last.
    fn leave(&mut self, path: &[u8]) -> Result<(), ExtractError>;

    /// Anything else.
    fn file(&mut self, at: At<'_>, node: &Node) -> Result<(), ExtractError>;
}

/// Where something is.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    /// Path from where the walk began, without a leading `/`.
    pub(super) path: &'p [u8],
    /// Its last component; empty where the walk begins.
    pub(super) name: &'p [u8],
}

/// Directories that are open, deepest last: the names in each that are still to come, and how long its path is.
struct Open {
    names: std::vec::IntoIter<DirEntry>,
    path_len: usize,
}

/// Visits the directory `top` and everything below it: depth first, in byte order of names.
pub(super) fn visit(
    filesystem: &Filesystem<'_>,
    top: &Node,
    visitor: &mut dyn Visitor,
) -> Result<(), ExtractError> {
    let mut path = Vec::new();
    let mut directories = BTreeSet::from([top.object()]);
    let mut open = Vec::new();
    if visitor.enter(At { path: &path, name: &[] }, top)? {
        open.push(list(filesystem, top, &path, visitor));
    }
    while let Some(directory) = open.last_mut() {
        path.truncate(directory.path_len);
        let Some(entry) = directory.names.next() else {
            visitor.leave(&path)?;
            open.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        let name_at = path.len();
        path.extend_from_slice(&entry.name);
        let at = At { path: &path, name: &path[name_at..] };
        if !is_name(at.name) {
            visitor.report().problem(&path, None, Trouble::Name);
            continue;
        }
        let node = match filesystem.node(entry.object) {
            Ok(node) => node,
            Err(error) => {
                visitor.report().problem(&path, None, Trouble::Read(error));
                continue;
            }
        };
        if !node.is_dir() {
            visitor.file(at, &node)?;
        } else if !directories.insert(node.object()) {
            visitor.report().problem(&path, None, Trouble::Loop);
        } else if visitor.enter(at, &node)? {
            open.push(list(filesystem, &node, &path, visitor));
        }
    }
    Ok(())
}

/// A directory that cannot be listed is empty, and a problem.
fn list(filesystem: &Filesystem<'_>, node: &Node, path: &[u8], visitor: &mut dyn Visitor) -> Open {
    let mut names = filesystem.read_dir(node).unwrap_or_else(|error| {
        visitor.report().problem(path, None, Trouble::Read(error));
        Vec::new()
    });
    names.sort_by(|a, b| a.name.cmp(&b.name));
    names.dedup_by(|later, first| {
        let is_twice = later.name == first.name;
        if is_twice {
            let path = [path, &later.name].join(&b'/');
            visitor.report().problem(&path, None, Trouble::Twice);
        }
        is_twice
    });
    Open { names: names.into_iter(), path_len: path.len() }
}

/// Whether Linux can give a file this name.
fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= MAX_NAME
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// The directory and the name of a file that was found at `path`.
pub(super) fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').unwrap_or(("", path))
}
