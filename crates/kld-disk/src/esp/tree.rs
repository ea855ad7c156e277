//! Paths → folders with clusters: everything is placed before anything is written.

use super::directory::{Entry, EntryKind, render_directory};
use super::geometry::Geometry;
use super::{EspError, EspFile};
use std::collections::BTreeMap;

/// The place of the root directory: the first cluster.
const ROOT: u32 = 2;

/// A folder while paths are collected. Keys are names in small letters: FAT tells no two names apart by case, and the
/// order on disk is theirs.
#[derive(Debug, Default)]
struct Folder<'a> {
    children: BTreeMap<String, (String, Node<'a>)>,
}

#[derive(Debug)]
enum Node<'a> {
    Folder(Folder<'a>),
    File(EspFile<'a>),
}

/// A file with its place.
#[derive(Debug)]
pub(super) struct PlacedFile<'a> {
    pub(super) cluster: u32,
    pub(super) source: EspFile<'a>,
}

#[derive(Debug)]
struct PlacedFolder {
    cluster: u32,
    /// `None` for the root.
    parent: Option<u32>,
    entries: Vec<Entry>,
}

/// All folders and files with their clusters.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    folders: Vec<PlacedFolder>,
    /// Files that have content.
    pub(super) files: Vec<PlacedFile<'a>>,
    /// `(first cluster, count)`, in order and without gaps.
    pub(super) runs: Vec<(u32, u32)>,
    /// Clusters given out.
    pub(super) used: u32,
    label: [u8; 11],
}

impl<'a> Tree<'a> {
    pub(super) fn plan(
        files: Vec<EspFile<'a>>,
        label: [u8; 11],
        geometry: &Geometry,
    ) -> Result<Self, EspError> {
        let mut root = Folder::default();
        for file in files {
            root.insert(file)?;
        }
        let cluster = geometry.cluster();
        let needed = root.clusters(cluster, true);
        if needed > u64::from(geometry.clusters) {
            return Err(EspError::Full {
                needed: needed * cluster,
                available: u64::from(geometry.clusters) * cluster,
            });
        }
        let mut tree = Self { folders: Vec::new(), files: Vec::new(), runs: Vec::new(), used: 0, label };
        tree.place(root, None, cluster);
        Ok(tree)
    }

    /// The bytes of every folder, with its cluster.
    pub(super) fn render_directories(&self, epoch: u64) -> impl Iterator<Item = (u32, Vec<u8>)> {
        self.folders.iter().map(move |folder| {
            let label = folder.parent.is_none().then_some(self.label);
            // The parent's number is written as 0 when it is the root (fatgen103, p. 26).
            let dots = folder.parent.map(|parent| (folder.cluster, if parent == ROOT { 0 } else { parent }));
            (folder.cluster, render_directory(&folder.entries, label, dots, epoch))
        })
    }

    /// Gives `folder` and everything below it clusters, depth first, and returns its own.
    fn place(&mut self, folder: Folder<'a>, parent: Option<u32>, cluster: u64) -> u32 {
        let own = self.take(folder.len().div_ceil(cluster).max(1));
        let index = self.folders.len();
        self.folders.push(PlacedFolder { cluster: own, parent, entries: Vec::new() });
        let mut entries = Vec::with_capacity(folder.children.len());
        for (name, node) in folder.children.into_values() {
            let (first, kind) = match node {
                Node::Folder(child) => (self.place(child, Some(own), cluster), EntryKind::Folder),
                Node::File(source) => {
                    let len = u32::try_from(source.len).expect("insert refused files of 4 GiB and more");
                    let count = source.len.div_ceil(cluster);
                    let first = if count == 0 { 0 } else { self.take(count) };
                    if count > 0 {
                        self.files.push(PlacedFile { cluster: first, source });
                    }
                    (first, EntryKind::File { len })
                }
            };
            entries.push(Entry { name, cluster: first, kind });
        }
        self.folders[index].entries = entries;
        own
    }

    fn take(&mut self, count: u64) -> u32 {
        let count = u32::try_from(count).expect("plan checked that all clusters fit in 32 bits");
        let first = ROOT + self.used;
        self.runs.push((first, count));
        self.used += count;
        first
    }
}

impl<'a> Folder<'a> {
    fn insert(&mut self, file: EspFile<'a>) -> Result<(), EspError> {
        if file.len > u64::from(u32::MAX) {
            return Err(EspError::FileTooLarge { path: file.path, len: file.len });
        }
        let path = file.path.clone();
        let parts: Vec<&str> = path.split('/').collect();
        for part in &parts {
            check_name(part).map_err(|reason| EspError::Path { path: path.clone(), reason })?;
        }
        let taken = || EspError::Taken { path: path.clone() };
        let (name, folders) = parts.split_last().ok_or_else(taken)?;
        let mut folder = self;
        for part in folders {
            let (_, node) = folder
                .children
                .entry(part.to_ascii_lowercase())
                .or_insert_with(|| ((*part).to_owned(), Node::Folder(Folder::default())));
            let Node::Folder(next) = node else { return Err(taken()) };
            folder = next;
        }
        let earlier =
            folder.children.insert(name.to_ascii_lowercase(), ((*name).to_owned(), Node::File(file)));
        if earlier.is_some() { Err(taken()) } else { Ok(()) }
    }

    /// Bytes of the folder's own entries, with room for its label or `.` and `..`.
    fn len(&self) -> u64 {
        let slots: usize = self.children.values().map(|(name, _)| Entry::slots(name)).sum();
        (slots as u64 + 2) * 32
    }

    fn clusters(&self, cluster: u64, root: bool) -> u64 {
        debug_assert!(root || !self.children.is_empty(), "folders exist only above files");
        let below: u64 = self
            .children
            .values()
            .map(|(_, node)| match node {
                Node::Folder(folder) => folder.clusters(cluster, false),
                Node::File(file) => file.len.div_ceil(cluster),
            })
            .sum();
        below + self.len().div_ceil(cluster).max(1)
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a part of it is empty");
    }
    if name.len() > 255 {
        return Err("a part of it is longer than 255 characters");
    }
    if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && !b"\"*:<>?\\|".contains(&b)) {
        return Err("only printable ASCII without `\"*:<>?\\|` is allowed");
    }
    // Readers drop these, and `.` and `..` are not names.
    if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return Err("a part of it begins with a space or ends with a dot or a space");
    }
    Ok(())
}
