//! File systems: from paths to nodes, and from nodes to content.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use super::bytes::text;
use super::dataset::{Dataset, DatasetKind};
use super::error::ReadError;
use super::node::{Node, NodeKind};
use super::nvlist::{NvList, Value};
use super::objset::{ObjectSet, SetKind};
use super::pieces::{Piece, data_ranges, read_pieces};
use super::pool::Pool;
use super::sa::{Attribute, Attributes, Layouts, from_znode};

const MASTER_NODE: u64 = 1;
/// Types of a bonus that describes a file.
const BONUS_ZNODE: u8 = 17;
pub(crate) const BONUS_SA: u8 = 44;
/// Longest value of an extended attribute kept as a file, of all of one node, and longest target of a link.
const MAX_XATTR: u64 = 16 << 20;
const MAX_XATTRS: u64 = 64 << 20;
const MAX_LINK: u64 = 64 << 10;
/// Longest spill block.
const MAX_SPILL: usize = 128 << 10;

/// A file system or a snapshot of one.
#[derive(Debug)]
pub struct Filesystem<'a> {
    pub(crate) set: ObjectSet<'a>,
    pub(crate) name: String,
    layouts: Layouts,
    root: u64,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// The object it names.
    pub object: u64,
}

/// A name met on a walk.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WalkEntry {
    /// Path from the root without a leading `/`; empty for the root itself.
    pub path: Vec<u8>,
    /// What it names.
    pub node: Node,
}

impl<'a> Pool<'a> {
    /// Opens the file system or snapshot `name`, such as `rpool/ROOT/debian@install`.
    pub fn filesystem(&self, name: &str) -> Result<Filesystem<'a>, ReadError> {
        self.filesystem_of(self.dataset(name)?)
    }

    pub(crate) fn filesystem_of(&self, dataset: Dataset) -> Result<Filesystem<'a>, ReadError> {
        if dataset.encrypted {
            return Err(ReadError::Encrypted { dataset: dataset.name });
        }
        if matches!(dataset.kind, DatasetKind::Volume | DatasetKind::Other) {
            return Err(ReadError::NotAFilesystem { name: dataset.name });
        }
        let set = ObjectSet::open(self.blocks.clone(), &dataset.phys.pointer()?)?;
        let set = set
            .filter(|set| set.kind == SetKind::Filesystem)
            .ok_or(ReadError::NotAFilesystem { name: dataset.name.clone() })?;
        Filesystem::open(set, dataset.name)
    }
}

impl<'a> Filesystem<'a> {
    pub(crate) fn open(set: ObjectSet<'a>, name: String) -> Result<Filesystem<'a>, ReadError> {
        let master = set.zap(MASTER_NODE)?;
        let root = master.need("ROOT")?;
        let layouts = match master.number("SA_ATTRS")? {
            Some(attributes) => Layouts::read(&set, attributes)?,
            None => Layouts::default(),
        };
        Ok(Filesystem { set, name, layouts, root })
    }

    /// Its full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its root directory.
    pub fn root(&self) -> Result<Node, ReadError> {
        self.node(self.root)
    }

    /// The node with the object number `object`.
    pub fn node(&self, object: u64) -> Result<Node, ReadError> {
        self.node_of(object, self.set.dnode(object)?)
    }

    pub(crate) fn node_of(&self, object: u64, dnode: super::dnode::Dnode) -> Result<Node, ReadError> {
        let damaged = |problem| ReadError::damaged(format!("object {object}"), problem);
        let attributes = match dnode.bonus_type {
            BONUS_SA => {
                let mut attributes = Attributes::new();
                self.layouts.unpack(&dnode.bonus, &mut attributes).map_err(damaged)?;
                if let Some(spill) = &dnode.spill {
                    let pointer =
                        super::pointer::BlockPointer::decode(spill).map_err(|bad| damaged(bad.text()))?;
                    if pointer.lsize > MAX_SPILL {
                        return Err(damaged("its spill block is too large"));
                    }
                    if !pointer.is_hole() {
                        let block = self.set.blocks.read_cached(&pointer)?;
                        self.layouts.unpack(&block, &mut attributes).map_err(damaged)?;
                    }
                }
                attributes
            }
            BONUS_ZNODE => from_znode(&dnode.bonus).ok_or_else(|| damaged("its attributes are cut off"))?,
            _ => return Err(damaged("it is not a file")),
        };
        Node::new(object, dnode, attributes)
    }

    /// The node at `path`; symbolic links are not followed.
    pub fn lookup(&self, path: impl AsRef<[u8]>) -> Result<Node, ReadError> {
        let path = path.as_ref();
        let missing = || ReadError::NotFound { path: text(path) };
        let mut node = self.root()?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            if !node.is_dir() {
                return Err(missing());
            }
            let table = super::zap::Zap::open(&self.set.blocks, node.dnode, node.object)?;
            let entry = table.get(name)?.and_then(|entry| entry.number()).ok_or_else(missing)?;
            node = self.node(object_of(entry))?;
        }
        Ok(node)
    }

    /// The entries of a directory in byte order of names, without `.` and `..`.
    pub fn read_dir(&self, directory: &Node) -> Result<Vec<DirEntry>, ReadError> {
        if !directory.is_dir() {
            let what = format!("object {}", directory.object);
            return Err(ReadError::WrongKind { what, expected: "directory" });
        }
        let table = super::zap::Zap::open(&self.set.blocks, directory.dnode.clone(), directory.object)?;
        let entries = table.entries()?.into_iter();
        entries
            .map(|entry| match entry.number() {
                Some(number) => Ok(DirEntry { object: object_of(number), name: entry.name }),
                None => Err(ReadError::damaged(
                    format!("directory {}", directory.object),
                    "an entry is not a number",
                )),
            })
            .collect()
    }

    /// Reads content from byte `offset` on; gives how many bytes there were, fewer than asked only at the end.
    pub fn read(&self, file: &Node, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        if file.metadata.kind != NodeKind::File {
            let what = format!("object {}", file.object);
            return Err(ReadError::WrongKind { what, expected: "regular file" });
        }
        self.read_data(file, offset, buf)
    }

    fn read_data(&self, file: &Node, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let left = file.metadata.size.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        file.dnode.read_bytes(&self.set.blocks, offset, &mut buf[..len])?;
        Ok(len)
    }

    /// The content of a file as a stream.
    pub fn content<'n>(&'n self, file: &'n Node) -> Content<'n, 'a> {
        Content { filesystem: self, file, offset: 0 }
    }

    /// Hands the data of a file to `sink`, piece by piece in order, passing over holes; `sink` ends it by an error. Blocks are
    /// read by `threads` threads, 0 is one per core.
    pub fn read_pieces<E>(
        &self,
        file: &Node,
        threads: usize,
        sink: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        read_pieces(&self.set.blocks, &file.dnode, file.metadata.size, threads, sink)
    }

    /// The stretches of a file that are no holes, in order; what cannot be read may be one.
    pub(crate) fn data_ranges(&self, file: &Node) -> Vec<Range<u64>> {
        data_ranges(&self.set.blocks, &file.dnode, file.metadata.size)
    }

    /// The next stretch of a file, at or after `offset`, that is not a hole: its first byte and its end. Holes read as
    /// zeros and take no space.
    pub fn next_data(&self, file: &Node, offset: u64) -> Result<Option<(u64, u64)>, ReadError> {
        let size = file.dnode.block_size;
        let Some(first) = file.dnode.next_data(&self.set.blocks, offset / size)? else { return Ok(None) };
        let start = first.saturating_mul(size).max(offset);
        let end = first.saturating_add(1).saturating_mul(size).min(file.metadata.size);
        Ok((start < end).then_some((start, end)))
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, link: &Node) -> Result<Vec<u8>, ReadError> {
        let size = link.metadata.size;
        if link.metadata.kind != NodeKind::Symlink {
            let what = format!("object {}", link.object);
            return Err(ReadError::WrongKind { what, expected: "symbolic link" });
        }
        if size > MAX_LINK {
            return Err(ReadError::damaged(
                format!("object {}", link.object),
                "the target of the link is too long",
            ));
        }
        if let Some(target) = link.attributes.get(&Attribute::Symlink) {
            return Ok(target[..target.len().min(size as usize)].to_vec());
        }
        let mut target = vec![0; size as usize];
        self.read_data(link, 0, &mut target)?;
        Ok(target)
    }

    /// The extended attributes of a node with their full names, POSIX ACLs included (`system.posix_acl_access` and
    /// `system.posix_acl_default`, in the kernel's format).
    pub fn xattrs(&self, node: &Node) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
        let mut xattrs = BTreeMap::new();
        let damaged = |problem| ReadError::damaged(format!("object {}", node.object), problem);
        let directory =
            node.attributes.get(&Attribute::XattrDirectory).map_or(0, |value| super::bytes::word(value, 0));
        if directory != 0 {
            let directory = self.node(directory)?;
            let mut left = MAX_XATTRS;
            for entry in self.read_dir(&directory)? {
                let file = self.node(entry.object)?;
                left = left
                    .checked_sub(file.metadata.size)
                    .filter(|_| file.metadata.size <= MAX_XATTR)
                    .ok_or_else(|| damaged("its extended attributes are too long"))?;
                let mut value = vec![0; file.metadata.size as usize];
                self.read_data(&file, 0, &mut value)?;
                xattrs.insert(entry.name, value);
            }
        }
        if let Some(packed) = node.attributes.get(&Attribute::Xattrs).filter(|packed| !packed.is_empty()) {
            let list =
                NvList::unpack(packed).ok_or_else(|| damaged("its extended attributes cannot be decoded"))?;
            for (name, value) in list.iter() {
                if let Value::Bytes(value) = value {
                    xattrs.insert(name.to_vec(), value.clone());
                }
            }
        }
        Ok(xattrs)
    }

    /// Every name in the file system with its node: depth first, directories before their content, in byte order. What
    /// cannot be read is an error in its place; the walk goes on behind it.
    pub fn walk(&self) -> Walk<'_, 'a> {
        Walk { filesystem: self, open: vec![(Vec::new(), self.root)], directories: BTreeSet::new() }
    }
}

/// The number of an object in a directory entry, whose top bits are the kind.
fn object_of(entry: u64) -> u64 {
    entry & ((1 << 48) - 1)
}

/// Iterates over a file system.
#[derive(Debug)]
pub struct Walk<'f, 'a> {
    filesystem: &'f Filesystem<'a>,
    /// Names to visit, last first.
    open: Vec<(Vec<u8>, u64)>,
    /// Directories visited: one that comes again would make the walk endless.
    directories: BTreeSet<u64>,
}

impl Iterator for Walk<'_, '_> {
    type Item = Result<WalkEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, object) = self.open.pop()?;
        let node = match self.filesystem.node(object) {
            Ok(node) => node,
            Err(error) => return Some(Err(error)),
        };
        if node.is_dir() {
            if !self.directories.insert(object) {
                let what = format!("`{}`", text(&path));
                return Some(Err(ReadError::damaged(what, "the directory has two names")));
            }
            match self.filesystem.read_dir(&node) {
                Ok(entries) => self.open.extend(entries.into_iter().rev().map(|entry| {
                    let mut child = path.clone();
                    if !child.is_empty() {
                        child.push(b'/');
                    }
                    child.extend(&entry.name);
                    (child, entry.object)
                })),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(WalkEntry { path, node }))
    }
}

/// The content of a file as a stream; see [`Filesystem::content`].
#[derive(Debug)]
pub struct Content<'n, 'a> {
    filesystem: &'n Filesystem<'a>,
    file: &'n Node,
    offset: u64,
}

impl io::Read for Content<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.filesystem.read(self.file, self.offset, buf).map_err(io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}
