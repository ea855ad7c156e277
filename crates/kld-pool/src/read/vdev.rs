//! The vdevs of a pool: which devices hold a byte of the pool's space.

use super::label::Label;
use super::nvlist::NvList;
use super::raidz::Raidz;
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

/// A top-level vdev: a device, a mirror of several, or a raidz.
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
    /// Rows with parity over children, each of which is one device, or several while it is being replaced.
    Raidz(Raidz, Vec<Vec<Option<usize>>>),
    /// A kind that cannot be read, by its name.
    NotSupported(String),
    /// Not there (any more): a removed log device leaves such a hole.
    Absent,
}

impl Top {
    /// A top-level vdev as a configuration describes it; `find` gives the index of the device with a GUID.
    pub(crate) fn of(tree: &NvList, find: &dyn Fn(u64) -> Option<usize>) -> Option<Top> {
        let kind = tree.text("type")?;
        let number = |name| tree.number(name).unwrap_or(0);
        // Shifts that no vdev has would make later arithmetic wrong; such a vdev has no space.
        let ashift = u32::try_from(number("ashift")).ok().filter(|shift| *shift <= 16).unwrap_or(9);
        let form = match kind.as_str() {
            "hole" | "missing" => Form::Absent,
            "raidz" => raidz_of(tree, ashift, find).unwrap_or_else(Form::NotSupported),
            _ => {
                let mut leaves = Vec::new();
                match leaves_of(tree, find, 0, &mut leaves) {
                    Ok(()) => Form::Copies(leaves),
                    Err(kind) => Form::NotSupported(kind),
                }
            }
        };
        Some(Top {
            form,
            ashift,
            asize: number("asize"),
            metaslab_shift: u32::try_from(number("metaslab_shift"))
                .ok()
                .filter(|shift| *shift < 63)
                .unwrap_or(0),
            metaslab_array: number("metaslab_array"),
            table: number("com.delphix:vdev_zap_top"),
        })
    }

    /// Bytes that a block of `size` bytes takes.
    pub(crate) fn asize_of(&self, size: u64) -> u64 {
        match &self.form {
            Form::Raidz(raidz, _) => raidz.asize(size),
            _ => size.next_multiple_of(1 << self.ashift),
        }
    }

    /// What datasets are charged for `asize` allocated bytes: all of it but on raidz, where it is what a block of 128 KiB has
    /// of data (`vdev_deflate_ratio`).
    pub(crate) fn charge(&self, asize: u64) -> u64 {
        const TYPICAL: u64 = 128 << 10;
        const SECTOR: u64 = 512;
        (asize / SECTOR).saturating_mul(TYPICAL / (self.asize_of(TYPICAL) / SECTOR))
    }

    /// Number of metaslabs.
    pub(crate) fn metaslabs(&self) -> u64 {
        if self.metaslab_shift == 0 { 0 } else { self.asize >> self.metaslab_shift }
    }
}

/// A raidz as a configuration describes it; fails with what it is called when it cannot be read.
fn raidz_of(tree: &NvList, ashift: u32, find: &dyn Fn(u64) -> Option<usize>) -> Result<Form, String> {
    let changed = ["raidz_expanding", "raidz_expand_txgs"];
    if tree.iter().any(|(name, _)| changed.iter().any(|changed| changed.as_bytes() == name)) {
        return Err("raidz that was expanded".to_owned());
    }
    let children = tree.lists("children");
    let parity = tree.number("nparity").and_then(|parity| usize::try_from(parity).ok()).unwrap_or(1);
    if !(1..=3).contains(&parity) || children.len() <= parity {
        return Err("raidz of an impossible shape".to_owned());
    }
    let devices = children.iter().map(|child| {
        let mut leaves = Vec::new();
        leaves_of(child, find, 1, &mut leaves).map(|()| leaves)
    });
    let shape = Raidz { devices: children.len(), parity, ashift };
    Ok(Form::Raidz(shape, devices.collect::<Result<_, _>>()?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::nvlist::{NvList as Written, Value};

    /// What becomes of a vdev that is described so, with two disks of which only the first is given.
    fn form(list: Written) -> String {
        let disk = |guid| Written::new().text("type", "disk").u64("guid", guid);
        let list = list.with("children", Value::Lists(vec![disk(1), disk(2)]));
        let list = NvList::unpack(&list.pack()).unwrap();
        match Top::of(&list, &|guid| (guid == 1).then_some(0)).unwrap().form {
            Form::Copies(leaves) => format!("copies on {leaves:?}"),
            Form::Raidz(_, devices) => format!("raidz on {}", devices.len()),
            Form::NotSupported(kind) => format!("not supported: {kind}"),
            Form::Absent => "absent".to_owned(),
        }
    }

    #[test]
    fn kinds_of_vdevs() {
        let of = |kind: &str| Written::new().text("type", kind);
        assert_eq!(form(of("mirror")), "copies on [Some(0), None]");
        // Where a vdev is for logs or for small blocks makes no difference to a reader.
        assert_eq!(form(of("mirror").u64("is_log", 1)), "copies on [Some(0), None]");
        assert_eq!(form(of("disk").text("alloc_bias", "special").u64("guid", 1)), "copies on [Some(0)]");
        assert_eq!(form(of("raidz").u64("nparity", 1)), "raidz on 2");
        assert_eq!(
            form(of("raidz").u64("nparity", 1).with("raidz_expanding", Value::Flag)),
            "not supported: raidz that was expanded"
        );
        assert_eq!(form(of("raidz").u64("nparity", 2)), "not supported: raidz of an impossible shape");
        assert_eq!(form(of("draid").u64("nparity", 1)), "not supported: draid");
        assert_eq!(form(of("indirect")), "not supported: indirect");
        assert_eq!(form(of("hole")), "absent");
    }
}
