//! The vdevs of a pool: which devices hold a byte of the pool's space.

use super::label::Label;
use super::nvlist::NvList;
use crate::device::ReadAt;

/// Front labels and boot area: where the space of a device starts.
pub(crate) const DATA_START: u64 = 4 << 20;
/// Vdevs inside vdevs that are followed.
const MAX_DEPTH: u32 = 8;

/// A device that was given, with what its labels say.
pub(crate) struct Device<'a> {
    pub(crate) io: &'a dyn ReadAt,
    pub(crate) size: u64,
    pub(crate) labels: Vec<Label>,
    pub(crate) guid: u64,
}

impl std::fmt::Debug for Device<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("guid", &self.guid).field("size", &self.size).finish_non_exhaustive()
    }
}

/// A top-level vdev: a device or a mirror of several.
#[derive(Clone, Debug)]
pub(crate) struct Top {
    pub(crate) form: Form,
    pub(crate) ashift: u32,
    /// Bytes of its space.
    pub(crate) asize: u64,
    pub(crate) metaslab_shift: u32,
    /// Object that lists the space maps; 0 when there are none.
    pub(crate) metaslab_array: u64,
    /// Table of the vdev; 0 when it has none.
    pub(crate) table: u64,
}

/// How a top-level vdev keeps its bytes.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Every child holds everything. A child that is not among the devices given is `None`.
    Copies(Vec<Option<usize>>),
    /// A kind that cannot be read, by its name.
    NotSupported(String),
    /// Not there (any more): a removed log device leaves such a hole.
    Absent,
}

impl Top {
    /// A top-level vdev as a configuration describes it; `find` gives the index of the device with a GUID.
    pub(crate) fn of(tree: &NvList, find: &dyn Fn(u64) -> Option<usize>) -> Option<Top> {
        let kind = tree.text("type")?;
        let form = match kind.as_str() {
            "hole" | "missing" => Form::Absent,
            _ => {
                let mut leaves = Vec::new();
                match leaves_of(tree, find, 0, &mut leaves) {
                    Ok(()) => Form::Copies(leaves),
                    Err(kind) => Form::NotSupported(kind),
                }
            }
        };
        let number = |name| tree.number(name).unwrap_or(0);
        Some(Top {
            form,
            // Shifts that no vdev has would make later arithmetic wrong; such a vdev has no space.
            ashift: u32::try_from(number("ashift")).ok().filter(|shift| *shift <= 16).unwrap_or(9),
            asize: number("asize"),
            metaslab_shift: u32::try_from(number("metaslab_shift"))
                .ok()
                .filter(|shift| *shift < 63)
                .unwrap_or(0),
            metaslab_array: number("metaslab_array"),
            table: number("com.delphix:vdev_zap_top"),
        })
    }

    /// Number of metaslabs.
    pub(crate) fn metaslabs(&self) -> u64 {
        if self.metaslab_shift == 0 { 0 } else { self.asize >> self.metaslab_shift }
    }
}

/// Collects the devices that each hold everything; fails with the name of a kind for which that is not so.
fn leaves_of(
    tree: &NvList,
    find: &dyn Fn(u64) -> Option<usize>,
    depth: u32,
    leaves: &mut Vec<Option<usize>>,
) -> Result<(), String> {
    let kind = tree.text("type").unwrap_or_default();
    match kind.as_str() {
        "disk" | "file" => {
            leaves.push(tree.number("guid").and_then(find));
            Ok(())
        }
        "mirror" | "replacing" | "spare" if depth < MAX_DEPTH => {
            tree.lists("children").iter().try_for_each(|child| leaves_of(child, find, depth + 1, leaves))
        }
        _ => Err(kind),
    }
}
