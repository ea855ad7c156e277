//! What goes into a dataset: a tree of directories, files, links and devices.
//!
//! Metadata is in memory, file content stays where it is (a file of the host, a region of a tar) and is read when the
//! pool is written. One node may have several names (hard links). Directories iterate in byte order of names, so
//! that everything derived from a tree is independent of where it came from.
//!
//! Paths are relative to the tree's root; a leading `/` and `.` components are ignored, `..` is refused. Lookups never
//! follow symbolic links, except [`Tree::resolve`].

mod data;
mod path;
mod scan;
mod tar;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

pub use data::{Data, Extent, SourceFile};
pub(crate) use data::{ReadError, Reader};
pub(crate) use path::display;
pub use path::{InvalidPath, TreePath};
pub use scan::ScanError;
pub use tar::{TarError, TarProblem};

/// Longest name of a directory entry, in bytes.
pub const MAX_NAME: usize = 255;
/// Links followed before a path is taken to be a loop, as in Linux.
const MAX_LINKS: usize = 40;

/// A point in time since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub sec: i64,
    /// Nanoseconds, below 10^9.
    pub nsec: u32,
}

/// Ownership, permissions, time and extended attributes of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-user-id, set-group-id and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Last modification; the other times of the node are set to it as well.
    pub mtime: Timestamp,
    /// Extended attributes with their full names, values in the kernel's own format. POSIX ACLs are the attributes
    /// `system.posix_acl_access` and `system.posix_acl_default`, file capabilities `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Metadata of something that belongs to root and has no extended attributes.
    pub fn root(mode: u32, mtime: Timestamp) -> Meta {
        Meta { mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory; its entries are reached through [`Node::entries`].
    Directory,
    /// A regular file.
    File(Data),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Identifies a node within its tree; two paths with the same id are hard links of one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    const ROOT: NodeId = NodeId(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Debug)]
struct Slot {
    meta: Meta,
    kind: Kind,
    entries: BTreeMap<Vec<u8>, NodeId>,
}

/// A tree of nodes below a root directory.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Node 0 is the root. Removed nodes stay as garbage that no directory names.
    slots: Vec<Slot>,
}

/// A node of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    tree: &'a Tree,
    id: NodeId,
}

impl<'a> Node<'a> {
    /// Which node this is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its metadata.
    pub fn meta(&self) -> &'a Meta {
        &self.tree.slot(self.id).meta
    }

    /// What it is.
    pub fn kind(&self) -> &'a Kind {
        &self.tree.slot(self.id).kind
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind(), Kind::Directory)
    }

    /// The entries of a directory in byte order of names; empty for anything else.
    pub fn entries(&self) -> impl Iterator<Item = (&'a [u8], Node<'a>)> + use<'a> {
        let tree = self.tree;
        tree.slot(self.id).entries.iter().map(move |(name, id)| (name.as_slice(), Node { tree, id: *id }))
    }
}

/// A node could not be added to a tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// The path itself is not acceptable.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// A parent does not exist or is not a directory.
    #[error("cannot add `{path}`: its parent is not a directory")]
    NoParent {
        /// The path that was to be added.
        path: String,
    },
    /// A directory is in the way.
    #[error("cannot replace the directory `{path}`")]
    IsDirectory {
        /// The path of the directory.
        path: String,
    },
    /// The source of a hard link does not exist or is a directory.
    #[error("cannot link to `{path}`: not an existing file")]
    NoSource {
        /// The path that was to be linked to.
        path: String,
    },
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

impl Tree {
    /// A tree that is an empty root directory: mode 0755, owned by root, dated 1970.
    pub fn new() -> Tree {
        let meta = Meta::root(0o755, Timestamp::default());
        Tree { slots: vec![Slot { meta, kind: Kind::Directory, entries: BTreeMap::new() }] }
    }

    /// The root directory.
    pub fn root(&self) -> Node<'_> {
        Node { tree: self, id: NodeId::ROOT }
    }

    /// The node at `path`; symbolic links are not followed.
    pub fn get(&self, path: impl TreePath) -> Option<Node<'_>> {
        Some(Node { tree: self, id: self.find(&path::components(path.as_bytes()).ok()?)? })
    }

    /// The node at `path`, following symbolic links (also the last one) within the tree.
    pub fn resolve(&self, path: impl TreePath) -> Option<Node<'_>> {
        let id = *self.follow(vec![NodeId::ROOT], path.as_bytes(), &mut 0)?.last()?;
        Some(Node { tree: self, id })
    }

    /// The content of the file at `path`.
    pub fn read(&self, path: impl TreePath) -> io::Result<Vec<u8>> {
        match self.get(path).map(|node| node.kind()) {
            Some(Kind::File(data)) => data.read(),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no such file in the tree")),
        }
    }

    /// Changes the metadata of the node at `path` (of all its names, if it has several).
    pub fn meta_mut(&mut self, path: impl TreePath) -> Option<&mut Meta> {
        let id = self.get(path)?.id;
        Some(&mut self.slot_mut(id).meta)
    }

    /// Puts a node at `path`, whose parent must be a directory. Replaces what is there unless that is a directory;
    /// inserting a directory over a directory only changes its metadata.
    pub fn insert(&mut self, path: impl TreePath, meta: Meta, kind: Kind) -> Result<NodeId, InsertError> {
        let path = path.as_bytes();
        let components = path::components(path)?;
        let is_dir = matches!(kind, Kind::Directory);
        let Some((name, parents)) = components.split_last() else {
            return if is_dir {
                self.slots[0].meta = meta;
                Ok(NodeId::ROOT)
            } else {
                Err(InsertError::IsDirectory { path: "/".to_owned() })
            };
        };
        let parent = self.find_dir(parents, path)?;
        if let Some(existing) = self.slot(parent).entries.get(*name).copied()
            && self.is_dir(existing)
        {
            if !is_dir {
                return Err(InsertError::IsDirectory { path: path::display(path) });
            }
            self.slot_mut(existing).meta = meta;
            return Ok(existing);
        }
        let id = self.add(meta, kind);
        self.slot_mut(parent).entries.insert(name.to_vec(), id);
        Ok(id)
    }

    /// Gives the file at `existing` the further name `path`.
    pub fn link(&mut self, existing: impl TreePath, path: impl TreePath) -> Result<(), InsertError> {
        let id = match self.get(&existing) {
            Some(node) if !node.is_dir() => node.id,
            _ => return Err(InsertError::NoSource { path: path::display(existing.as_bytes()) }),
        };
        let path = path.as_bytes();
        let components = path::components(path)?;
        let is_directory = || InsertError::IsDirectory { path: path::display(path) };
        let (name, parents) = components.split_last().ok_or_else(is_directory)?;
        let parent = self.find_dir(parents, path)?;
        if self.slot(parent).entries.get(*name).is_some_and(|old| self.is_dir(*old)) {
            return Err(is_directory());
        }
        self.slot_mut(parent).entries.insert(name.to_vec(), id);
        Ok(())
    }

    /// Makes the directory `path` and its missing parents, all with `meta`; directories that exist are kept as they are.
    pub fn ensure_dir(&mut self, path: impl TreePath, meta: Meta) -> Result<NodeId, InsertError> {
        let path = path.as_bytes();
        let mut at = NodeId::ROOT;
        for name in path::components(path)? {
            at = match self.slot(at).entries.get(name).copied() {
                Some(id) if self.is_dir(id) => id,
                Some(_) => return Err(InsertError::NoParent { path: path::display(path) }),
                None => {
                    let id = self.add(meta.clone(), Kind::Directory);
                    self.slot_mut(at).entries.insert(name.to_vec(), id);
                    id
                }
            };
        }
        Ok(at)
    }

    /// Removes the name `path` and everything below it; gives what it was. The root cannot be removed.
    pub fn remove(&mut self, path: impl TreePath) -> Option<(Meta, Kind)> {
        let components = path::components(path.as_bytes()).ok()?;
        let (name, parents) = components.split_last()?;
        let parent = self.find(parents)?;
        let id = self.slot_mut(parent).entries.remove(*name)?;
        let slot = self.slot(id);
        Some((slot.meta.clone(), slot.kind.clone()))
    }

    /// Takes the content of the directory `path` out into a tree of its own, whose root has the directory's metadata.
    /// The directory stays, empty: it is where a dataset with the new tree is mounted. A file with names on both sides
    /// becomes two files. None when `path` is not a directory or is the root.
    pub fn split_off(&mut self, path: impl TreePath) -> Option<Tree> {
        let id = self.get(path).filter(|node| node.is_dir() && node.id != NodeId::ROOT)?.id;
        let mut part = Tree::new();
        part.slots[0].meta = self.slot(id).meta.clone();
        part.merge(self, id, vec![NodeId::ROOT], &mut BTreeMap::new());
        self.slot_mut(id).entries.clear();
        Some(part)
    }

    /// Lays `upper` over this tree: its nodes win, directories merge and take the metadata of `upper` (but the root keeps
    /// its own). A directory of `upper` that meets a symbolic link to a directory merges into the directory the link points
    /// at, so that `lib/modules` may be laid over a tree whose `lib` is a link to `usr/lib`.
    pub fn overlay(&mut self, upper: Tree) {
        self.merge(&upper, NodeId::ROOT, vec![NodeId::ROOT], &mut BTreeMap::new());
    }

    /// Every name in the tree with its node, depth first, directories before their content, in byte order; the root
    /// comes first, its path is empty. Paths have no leading `/`.
    pub fn walk(&self) -> impl Iterator<Item = (Vec<u8>, Node<'_>)> {
        let mut open = vec![(Vec::new(), self.root())];
        std::iter::from_fn(move || {
            let (path, node) = open.pop()?;
            let below = open.len();
            for (name, child) in node.entries() {
                let mut child_path = Vec::with_capacity(path.len() + 1 + name.len());
                if !path.is_empty() {
                    child_path.extend_from_slice(&path);
                    child_path.push(b'/');
                }
                child_path.extend_from_slice(name);
                open.push((child_path, child));
            }
            open[below..].reverse();
            Some((path, node))
        })
    }

    /// Bytes of all files as their readers see them; a file with several names counts once.
    pub fn apparent_size(&self) -> u64 {
        self.distinct()
            .into_iter()
            .map(|id| match &self.slot(id).kind {
                Kind::File(data) => data.len(),
                _ => 0,
            })
            .sum()
    }

    /// Number of nodes, the root included; a file with several names counts once.
    pub fn len(&self) -> usize {
        self.distinct().len()
    }

    /// Whether the root directory is empty.
    pub fn is_empty(&self) -> bool {
        self.slots[0].entries.is_empty()
    }

    /// Brings every modification time later than `latest` down to it.
    pub fn clamp_mtimes(&mut self, latest: Timestamp) {
        for slot in &mut self.slots {
            slot.meta.mtime = slot.meta.mtime.min(latest);
        }
    }

    /// The node with this id.
    pub(crate) fn node(&self, id: NodeId) -> Node<'_> {
        Node { tree: self, id }
    }

    /// One more than the largest index of a node.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Adds a directory of files that no name leads to.
    pub(crate) fn add_hidden_dir(&mut self, meta: Meta, files: Vec<(Vec<u8>, Meta, Data)>) -> NodeId {
        let files = files.into_iter().map(|(name, meta, data)| (name, self.add(meta, Kind::File(data))));
        let entries = files.collect();
        let id = self.add(meta, Kind::Directory);
        self.slot_mut(id).entries = entries;
        id
    }

    /// Gives a node a further name, even one that no file can have.
    #[cfg(test)]
    pub(crate) fn name_anyhow(&mut self, parent: &str, name: &str, id: NodeId) {
        let parent = self.get(parent).expect("the directory exists").id;
        self.slot_mut(parent).entries.insert(name.into(), id);
    }

    pub(crate) fn set_xattrs(&mut self, id: NodeId, xattrs: BTreeMap<Vec<u8>, Vec<u8>>) {
        self.slot_mut(id).meta.xattrs = xattrs;
    }

    /// The first name of a node, for messages.
    pub(crate) fn path_of(&self, id: NodeId) -> String {
        let found = self.walk().find(|(_, node)| node.id == id);
        format!("/{}", path::display(&found.map(|(path, _)| path).unwrap_or_default()))
    }

    fn distinct(&self) -> BTreeSet<NodeId> {
        self.walk().map(|(_, node)| node.id).collect()
    }

    fn slot(&self, id: NodeId) -> &Slot {
        &self.slots[id.index()]
    }

    fn slot_mut(&mut self, id: NodeId) -> &mut Slot {
        &mut self.slots[id.index()]
    }

    fn is_dir(&self, id: NodeId) -> bool {
        matches!(self.slot(id).kind, Kind::Directory)
    }

    pub(crate) fn add(&mut self, meta: Meta, kind: Kind) -> NodeId {
        let id =
            NodeId(u32::try_from(self.slots.len()).expect("2^32 nodes exceed the memory of any machine"));
        self.slots.push(Slot { meta, kind, entries: BTreeMap::new() });
        id
    }

    fn find(&self, components: &[&[u8]]) -> Option<NodeId> {
        components.iter().try_fold(NodeId::ROOT, |at, name| self.slot(at).entries.get(*name).copied())
    }

    fn find_dir(&self, components: &[&[u8]], whole: &[u8]) -> Result<NodeId, InsertError> {
        self.find(components)
            .filter(|id| self.is_dir(*id))
            .ok_or_else(|| InsertError::NoParent { path: path::display(whole) })
    }

    /// Walks `path` from the directory at the end of `stack` (its ancestors before it), following links.
    fn follow(&self, mut stack: Vec<NodeId>, path: &[u8], links: &mut usize) -> Option<Vec<NodeId>> {
        if path.starts_with(b"/") {
            stack.truncate(1);
        }
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => stack.truncate((stack.len() - 1).max(1)),
                name => {
                    let next = *self.slot(*stack.last()?).entries.get(name)?;
                    if let Kind::Symlink(target) = &self.slot(next).kind {
                        *links += 1;
                        if *links > MAX_LINKS {
                            return None;
                        }
                        stack = self.follow(stack, target, links)?;
                    } else {
                        stack.push(next);
                    }
                }
            }
        }
        Some(stack)
    }

    /// Lays the directory `from` of `upper` over the directory at the end of `stack`. `copied` maps the nodes of `upper`
    /// that are here already, so that hard links stay links.
    fn merge(
        &mut self,
        upper: &Tree,
        from: NodeId,
        stack: Vec<NodeId>,
        copied: &mut BTreeMap<NodeId, NodeId>,
    ) {
        let into = *stack.last().expect("the stack starts at the root");
        for (name, child) in &upper.slot(from).entries {
            let slot = upper.slot(*child);
            if !matches!(slot.kind, Kind::Directory) {
                let id =
                    *copied.entry(*child).or_insert_with(|| self.add(slot.meta.clone(), slot.kind.clone()));
                self.slot_mut(into).entries.insert(name.clone(), id);
                continue;
            }
            let mut below = self
                .follow(stack.clone(), name, &mut 0)
                .filter(|found| found.last().is_some_and(|last| self.is_dir(*last)));
            let replaced_meta =
                self.slot(into).entries.get(name).is_some_and(|existing| self.is_dir(*existing));
            let target = below.take().unwrap_or_else(|| {
                let id = self.add(slot.meta.clone(), Kind::Directory);
                self.slot_mut(into).entries.insert(name.clone(), id);
                stack.iter().copied().chain([id]).collect()
            });
            if replaced_meta {
                let id = *target.last().expect("the stack starts at the root");
                self.slot_mut(id).meta = slot.meta.clone();
            }
            self.merge(upper, *child, target, copied);
        }
    }
}

#[cfg(test)]
mod tests;
