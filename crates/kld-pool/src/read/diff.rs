//! What changed between two snapshots: found through blocks, not by reading files.
//!
//! Block pointers that are equal lead to equal content, so that only what differs is read. Changed directories give
//! names that came and went; changed files are found by their dnodes.

use std::collections::{BTreeMap, BTreeSet};

use super::bytes::text;
use super::dnode::Dnode;
use super::error::ReadError;
use super::fs::Filesystem;
use super::node::Node;
use super::objset::{SLOTS_PER_BLOCK, objects_of};
use super::pointer::POINTER;
use super::sa::Attribute;

/// Directories above a file that are followed.
const MAX_DEPTH: usize = 256;
/// The least that a block takes, in bytes (`SPA_MINBLOCKSIZE`).
const SECTOR: u64 = 512;

/// What happened to a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Content or metadata changed (the time of the last access does not count).
    Modified,
    /// It was called `from` before.
    Renamed {
        /// Path in the older snapshot.
        from: Vec<u8>,
        /// Content or metadata changed as well.
        modified: bool,
    },
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Difference {
    /// Path without a leading `/`, in the newer snapshot unless it was removed; empty for the root.
    pub path: Vec<u8>,
    /// What happened.
    pub change: Change,
}

/// An object before and after.
type Pair = (Option<Dnode>, Option<Dnode>);

/// The differences from `old` to `new`, two snapshots or file systems of one pool, in byte order of paths.
pub fn diff(old: &Filesystem, new: &Filesystem) -> Result<Vec<Difference>, ReadError> {
    let mut changed = BTreeMap::new();
    changed_objects(old, new, &mut changed)?;
    let mut names = Names::default();
    let mut modified = Vec::new();
    for (object, (before, after)) in changed {
        let before = node(old, object, before)?;
        let after = node(new, object, after)?;
        // The same number for something else: the object was removed and its number used again.
        let same = match (&before, &after) {
            (Some(before), Some(after)) => before.metadata.generation == after.metadata.generation,
            _ => false,
        };
        collect_names(old, before.as_ref(), &mut names.old)?;
        collect_names(new, after.as_ref(), &mut names.new)?;
        if let (true, Some(before), Some(after)) = (same, before, after)
            && differs(&before, &after)
        {
            modified.push(after);
        }
    }
    names.finish(old, new, &modified)
}

/// Only what a user can see: an object that is no file (a table of the file system) has no node.
fn node(filesystem: &Filesystem, object: u64, dnode: Option<Dnode>) -> Result<Option<Node>, ReadError> {
    const FILE: u8 = 19;
    const DIRECTORY: u8 = 20;
    const LINKED: u64 = 1;
    match dnode {
        Some(dnode) if matches!(dnode.object_type, FILE | DIRECTORY) => {
            // What was removed while it was open has no name.
            Ok(Some(filesystem.node_of(object, dnode)?).filter(|node| node.metadata.links >= LINKED))
        }
        _ => Ok(None),
    }
}

fn differs(before: &Node, after: &Node) -> bool {
    let without_access = |node: &Node| {
        let mut attributes = node.attributes.clone();
        attributes.remove(&Attribute::AccessTime);
        attributes
    };
    before.dnode.pointers != after.dnode.pointers || without_access(before) != without_access(after)
}

/// Objects whose dnodes differ.
fn changed_objects(
    old: &Filesystem,
    new: &Filesystem,
    changed: &mut BTreeMap<u64, Pair>,
) -> Result<(), ReadError> {
    let (old_blocks, new_blocks) = (changed_blocks(old, new)?, changed_blocks(new, old)?);
    for number in old_blocks.union(&new_blocks) {
        let mut before = dnodes(old, *number)?;
        for (object, after) in dnodes(new, *number)? {
            let before = before.remove(&object);
            if before.as_ref() != Some(&after) {
                changed.insert(object, (before, Some(after)));
            }
        }
        changed.extend(before.into_iter().map(|(object, before)| (object, (Some(before), None))));
    }
    Ok(())
}

fn dnodes(filesystem: &Filesystem, block: u64) -> Result<BTreeMap<u64, Dnode>, ReadError> {
    let set = &filesystem.set;
    match set.meta.read(&set.blocks, block)? {
        Some(bytes) => objects_of(&bytes, block.saturating_mul(SLOTS_PER_BLOCK)).into_iter().collect(),
        None => Ok(BTreeMap::new()),
    }
}

/// Blocks of dnodes of `one` whose pointers differ from those of `other`.
fn changed_blocks(one: &Filesystem, other: &Filesystem) -> Result<BTreeSet<u64>, ReadError> {
    let mut changed = BTreeSet::new();
    let set = &one.set;
    let mut next = Some(0);
    while let Some(from) = next
        && let Some(number) = set.meta.next_difference(&set.blocks, &other.set.meta, from)?
    {
        changed.insert(number);
        next = number.checked_add(1);
        // No two blocks share a sector, unless the pointers form a web.
        if changed.len() as u64 > set.blocks.device_bytes() / SECTOR {
            return Err(ReadError::damaged("an object set", "it has more blocks than the pool"));
        }
    }
    Ok(changed)
}

impl Dnode {
    /// The first data block at or after `from` that is not a hole and whose pointer differs from the one of `other`.
    fn next_difference(
        &self,
        blocks: &super::block::Blocks,
        other: &Dnode,
        from: u64,
    ) -> Result<Option<u64>, ReadError> {
        let same_shape = self.shape() == other.shape();
        let pairs = self.pointers.iter().zip(other.pointers.iter().map(Some).chain(std::iter::repeat(None)));
        for (i, (bytes, other)) in pairs.enumerate() {
            let place = At { level: self.levels - 1, number: i as u64, from };
            let other = other.filter(|_| same_shape).map(|other| &other[..]);
            if let Some(found) = self.difference_below(blocks, bytes, other, place)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn difference_below(
        &self,
        blocks: &super::block::Blocks,
        bytes: &[u8],
        other: Option<&[u8]>,
        at: At,
    ) -> Result<Option<u64>, ReadError> {
        if other == Some(bytes) || at.is_before(self.fanout()) {
            return Ok(None);
        }
        let pointer = self.checked(bytes, at.level)?;
        if pointer.is_hole() {
            return Ok(None);
        }
        let Some(level) = at.level.checked_sub(1) else { return Ok(Some(at.number)) };
        let block = blocks.read_cached(&pointer)?;
        let other_block = match other.map(|other| self.checked(other, at.level)) {
            Some(Ok(other)) if !other.is_hole() => Some(blocks.read_cached(&other)?),
            _ => None,
        };
        for (i, bytes) in block.chunks_exact(POINTER).enumerate() {
            let number = at.number.checked_mul(self.fanout()).and_then(|first| first.checked_add(i as u64));
            let Some(number) = number else { return Ok(None) };
            let other = other_block.as_ref().and_then(|block| block.get(i * POINTER..(i + 1) * POINTER));
            if let Some(found) = self.difference_below(blocks, bytes, other, At { level, number, ..at })? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// A pointer's place in its object, and the data block from which on differences are looked for.
#[derive(Clone, Copy)]
struct At {
    level: u8,
    number: u64,
    from: u64,
}

impl At {
    /// Whether everything below it lies before `from`.
    fn is_before(&self, fanout: u64) -> bool {
        let mut last = Some(self.number);
        for _ in 0..self.level {
            last = last
                .and_then(|last| last.checked_add(1)?.checked_mul(fanout))
                .and_then(|end| end.checked_sub(1));
        }
        last.is_some_and(|last| last < self.from)
    }
}

/// Names in changed directories: the directory and the name, and what it leads to with its generation.
type Entries = BTreeMap<(u64, Vec<u8>), (u64, u64)>;

#[derive(Default)]
struct Names {
    old: Entries,
    new: Entries,
}

fn collect_names(
    filesystem: &Filesystem,
    directory: Option<&Node>,
    names: &mut Entries,
) -> Result<(), ReadError> {
    let Some(directory) = directory.filter(|node| node.is_dir()) else { return Ok(()) };
    for entry in filesystem.read_dir(directory)? {
        let generation = filesystem.node(entry.object)?.metadata.generation;
        names.insert((directory.object, entry.name), (entry.object, generation));
    }
    Ok(())
}

impl Names {
    fn finish(
        self,
        old: &Filesystem,
        new: &Filesystem,
        modified: &[Node],
    ) -> Result<Vec<Difference>, ReadError> {
        let (mut before, mut after) = (Paths::of(old), Paths::of(new));
        let mut removed: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
        for ((directory, name), target) in &self.old {
            if self.new.get(&(*directory, name.clone())) != Some(target) {
                removed.entry(*target).or_default().push(before.below(*directory, name)?);
            }
        }
        let changed: BTreeSet<(u64, u64)> =
            modified.iter().map(|node| (node.object, node.metadata.generation)).collect();
        let mut differences = Vec::new();
        let mut renamed = BTreeSet::new();
        for ((directory, name), target) in &self.new {
            if self.old.get(&(*directory, name.clone())) == Some(target) {
                continue;
            }
            let path = after.below(*directory, name)?;
            // One that went and one that came: a new name for the same thing.
            let change = match removed.get_mut(target).and_then(Vec::pop) {
                Some(from) => {
                    renamed.insert(*target);
                    Change::Renamed { from, modified: changed.contains(target) }
                }
                None => Change::Added,
            };
            differences.push(Difference { path, change });
        }
        for path in removed.into_values().flatten() {
            differences.push(Difference { path, change: Change::Removed });
        }
        // A further name for a file changes its link count: that name is added, not modified as well.
        let added: BTreeSet<Vec<u8>> = differences
            .iter()
            .filter(|difference| difference.change == Change::Added)
            .map(|difference| difference.path.clone())
            .collect();
        for node in modified.iter().filter(|node| !renamed.contains(&(node.object, node.metadata.generation)))
        {
            let paths = after.all(node)?.into_iter().filter(|path| !added.contains(path));
            differences.extend(paths.map(|path| Difference { path, change: Change::Modified }));
        }
        differences.sort();
        Ok(differences)
    }
}

/// Paths of objects, remembered.
struct Paths<'f, 'a> {
    filesystem: &'f Filesystem<'a>,
    directories: BTreeMap<u64, Vec<u8>>,
}

impl<'f, 'a> Paths<'f, 'a> {
    fn of(filesystem: &'f Filesystem<'a>) -> Paths<'f, 'a> {
        Paths { filesystem, directories: BTreeMap::new() }
    }

    fn below(&mut self, directory: u64, name: &[u8]) -> Result<Vec<u8>, ReadError> {
        let mut path = self.directory(directory, 0)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        Ok(path)
    }

    fn directory(&mut self, object: u64, depth: usize) -> Result<Vec<u8>, ReadError> {
        if object == self.filesystem.root()?.object {
            return Ok(Vec::new());
        }
        if let Some(path) = self.directories.get(&object) {
            return Ok(path.clone());
        }
        if depth == MAX_DEPTH {
            return Err(ReadError::damaged(format!("directory {object}"), "it is in a circle"));
        }
        let parent = self.filesystem.node(object)?.parent;
        let entries = self.filesystem.read_dir(&self.filesystem.node(parent)?)?;
        let name = entries.into_iter().find(|entry| entry.object == object).map(|entry| entry.name);
        let name = name.ok_or(ReadError::NotFound { path: format!("directory {object}") })?;
        let mut path = self.directory(parent, depth + 1)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        self.directories.insert(object, path.clone());
        Ok(path)
    }

    /// The names of a node in the directory it knows; names of a file in other directories are not known to it.
    fn all(&mut self, node: &Node) -> Result<Vec<Vec<u8>>, ReadError> {
        if node.object == self.filesystem.root()?.object {
            return Ok(vec![Vec::new()]);
        }
        let parent = self.filesystem.node(node.parent)?;
        // The attributes of a file are files, too: they have no path.
        if !parent.is_dir() || parent.metadata.flags & FLAG_XATTR_DIRECTORY != 0 {
            return Ok(Vec::new());
        }
        let entries = self.filesystem.read_dir(&parent)?;
        let own = entries.into_iter().filter(|entry| entry.object == node.object);
        own.map(|entry| self.below(node.parent, &entry.name)).collect()
    }
}

/// `ZFS_XATTR`: a directory of extended attributes, or a file in one.
const FLAG_XATTR_DIRECTORY: u64 = 1;

impl std::fmt::Display for Difference {
    /// As `zfs diff` shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = text(&self.path);
        match &self.change {
            Change::Added => write!(f, "+\t/{path}"),
            Change::Removed => write!(f, "-\t/{path}"),
            Change::Modified => write!(f, "M\t/{path}"),
            Change::Renamed { from, .. } => write!(f, "R\t/{} -> /{path}", text(from)),
        }
    }
}
