//! Extended attributes that are too large for the inode: each is a file in a hidden directory of the file it belongs to.
//!
//! The rest of the writer sees them as ordinary directories and files of a larger tree, which no name leads to.

use std::collections::BTreeMap;

use super::attributes::{MAX_XATTR_VALUE, MAX_XATTRS, packed_xattrs};
use crate::tree::{Data, Meta, NodeId, Tree};

/// A tree with hidden directories.
#[derive(Debug)]
pub(super) struct Expanded {
    pub(super) tree: Tree,
    /// Owners and their hidden directories, in the order of the owners' first names.
    pub(super) dirs: Vec<(NodeId, NodeId)>,
}

/// The tree with large attributes moved to files; none when there are none.
pub(super) fn expand(tree: &Tree) -> Option<Expanded> {
    /// Mode of the hidden directory and of the files in it, as OpenZFS makes them.
    const DIRECTORY: u32 = 0o1777;
    const FILE: u32 = 0o644;
    let mut owners: Vec<NodeId> = Vec::new();
    for (_, node) in tree.walk() {
        if !too_large(&node.meta().xattrs).is_empty() && !owners.contains(&node.id()) {
            owners.push(node.id());
        }
    }
    if owners.is_empty() {
        return None;
    }
    let mut expanded = Expanded { tree: tree.clone(), dirs: Vec::new() };
    for owner in owners {
        let mut meta = tree.node(owner).meta().clone();
        let names = too_large(&meta.xattrs);
        let mut xattrs = std::mem::take(&mut meta.xattrs);
        let with_mode = |mode| Meta { mode, ..meta.clone() };
        let files = names
            .into_iter()
            .filter_map(|name| xattrs.remove_entry(&name))
            .map(|(name, value)| (name, with_mode(FILE), Data::bytes(value)))
            .collect();
        let dir = expanded.tree.add_hidden_dir(with_mode(DIRECTORY), files);
        expanded.tree.set_xattrs(owner, xattrs);
        expanded.dirs.push((owner, dir));
    }
    Some(expanded)
}

/// Names of the attributes that do not fit into the inode: values that are too large, and then the largest of the others
/// until the rest fits.
fn too_large(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<Vec<u8>> {
    let sum: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    // Nearly always: not worth packing to find out.
    if sum < MAX_XATTR_VALUE / 2 && xattrs.len() < 16 {
        return Vec::new();
    }
    let (mut rest, large): (BTreeMap<_, _>, BTreeMap<_, _>) =
        xattrs.clone().into_iter().partition(|(_, value)| value.len() <= MAX_XATTR_VALUE);
    let mut names: Vec<Vec<u8>> = large.into_keys().collect();
    while packed_xattrs(&rest).len() > MAX_XATTRS {
        let largest =
            rest.iter().max_by_key(|(name, value)| (value.len(), *name)).map(|(name, _)| name.clone());
        if let Some((name, _)) = largest.and_then(|name| rest.remove_entry(&name)) {
            names.push(name);
        }
    }
    names
}
