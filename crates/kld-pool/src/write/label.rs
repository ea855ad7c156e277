//! Vdev labels: what makes a disk recognisable as part of a pool, and the uberblock that points at the pool's root.
//!
//! Four copies, two at each end of the vdev. Each is 256 KiB: padding and boot area, the configuration as an nvlist, and a
//! ring of uberblocks of which two slots are used.

use crate::features::FOR_LABEL;
use crate::format::blkptr::BlockPointer;
use crate::format::checksum::seal_area;
use crate::format::nvlist::{NvList, Value};
use crate::format::put_u64;
use crate::pool_properties::PoolProperties;
use crate::spec::{Parity, VdevType};
use crate::write::space::{Geometry, LABEL};
use crate::write::txg;

/// On-disk version of every pool with feature flags.
const VERSION: u64 = 5000;
/// `POOL_STATE_EXPORTED`: any machine may import it without force.
const STATE_EXPORTED: u64 = 1;

const BOOT_AT: usize = 8 << 10;
const CONFIG_AT: usize = 16 << 10;
const RING_AT: usize = 128 << 10;
const RING_LEN: usize = 128 << 10;
/// In its own slot and in the one that the next group will take. libblkid before 2.40, which `zpool import` asks what is on a
/// disk, wants four in all; on a disk that is larger than the pool it finds the two labels at the front only.
const UBERBLOCK_COPIES: usize = 2;

/// Everything the labels and the pool's configuration say.
#[derive(Debug)]
pub(crate) struct Config<'a> {
    pub(crate) name: &'a str,
    pub(crate) guid: u64,
    /// The top-level vdevs.
    pub(crate) tops: Vec<Top<'a>>,
    pub(crate) vdev_type: VdevType,
    pub(crate) ashift: u8,
    pub(crate) properties: &'a PoolProperties,
    /// Transaction group of the uberblock.
    pub(crate) txg: u64,
    pub(crate) created: u64,
}

/// A top-level vdev.
#[derive(Debug)]
pub(crate) struct Top<'a> {
    /// Of the mirror or raidz; of the device when there is only one.
    pub(crate) guid: u64,
    /// Of a raidz.
    pub(crate) parity: Option<Parity>,
    /// The devices.
    pub(crate) leaves: Vec<Leaf<'a>>,
    pub(crate) geometry: Geometry,
    /// Object that lists the space maps.
    pub(crate) metaslab_array: u64,
}

/// A device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf<'a> {
    pub(crate) guid: u64,
    pub(crate) path: &'a str,
}

impl Config<'_> {
    fn pool(&self) -> NvList {
        let list = NvList::new()
            .u64("version", VERSION)
            .text("name", self.name)
            .u64("state", STATE_EXPORTED)
            .u64("txg", self.txg)
            .u64("pool_guid", self.guid)
            .u64("errata", 0);
        self.properties.configuration().fold(list, |list, (name, value)| list.text(name, value))
    }

    fn vdev(&self, id: u64, top: &Top) -> NvList {
        let (list, children) = match (top.leaves.as_slice(), top.parity) {
            ([leaf], None) => (self.leaf(id, leaf), None),
            (leaves, parity) => {
                let kind = if parity.is_some() { "raidz" } else { "mirror" };
                let list = NvList::new().text("type", kind).u64("id", id).u64("guid", top.guid);
                let list =
                    parity.into_iter().fold(list, |list, parity| list.u64("nparity", parity.columns()));
                let create_txg = |list: NvList| list.u64("create_txg", txg::POOL_CREATED);
                let children = (0..).zip(leaves).map(|(id, leaf)| create_txg(self.leaf(id, leaf)));
                (list, Some(children.collect()))
            }
        };
        let list = list
            .u64("metaslab_array", top.metaslab_array)
            .u64("metaslab_shift", u64::from(top.geometry.metaslab_shift))
            .u64("ashift", u64::from(self.ashift))
            .u64("asize", top.geometry.allocatable)
            .u64("is_log", 0)
            .u64("create_txg", txg::POOL_CREATED);
        children.into_iter().fold(list, |list, children| list.with("children", Value::Lists(children)))
    }

    fn leaf(&self, id: u64, leaf: &Leaf) -> NvList {
        let list = NvList::new();
        let list = match self.vdev_type {
            VdevType::Disk => list.text("type", "disk"),
            VdevType::File => list.text("type", "file"),
        };
        let list = list.u64("id", id).u64("guid", leaf.guid).text("path", leaf.path);
        match self.vdev_type {
            VdevType::Disk => list.u64("whole_disk", 0),
            VdevType::File => list,
        }
    }

    fn features(&self) -> Value {
        Value::List(FOR_LABEL.iter().fold(NvList::new(), |list, name| list.with(name, Value::Flag)))
    }

    /// The configuration object of the pool, packed.
    pub(crate) fn pack_for_pool(&self) -> Vec<u8> {
        let root = NvList::new()
            .text("type", "root")
            .u64("id", 0)
            .u64("guid", self.guid)
            .u64("create_txg", txg::POOL_CREATED)
            .with(
                "children",
                Value::Lists((0..).zip(&self.tops).map(|(id, top)| self.vdev(id, top)).collect()),
            );
        self.pool()
            .u64("vdev_children", self.tops.len() as u64)
            .with("vdev_tree", Value::List(root))
            .with("features_for_read", self.features())
            .pack()
    }

    fn pack_for_label(&self, id: usize, leaf: &Leaf) -> Vec<u8> {
        let top = &self.tops[id];
        self.pool()
            .u64("top_guid", top.guid)
            .u64("guid", leaf.guid)
            .u64("vdev_children", self.tops.len() as u64)
            .with("vdev_tree", Value::List(self.vdev(id as u64, top)))
            .with("features_for_read", self.features())
            .pack()
    }

    /// The four labels of a device of a top-level vdev with their places on it.
    pub(crate) fn labels(&self, top: usize, device: usize, root: &BlockPointer) -> Vec<(u64, Vec<u8>)> {
        let end = self.tops[top].geometry.device;
        let packed = self.pack_for_label(top, &self.tops[top].leaves[device]);
        [0, LABEL, end - 2 * LABEL, end - LABEL].map(|at| (at, self.label(&packed, root, at))).into()
    }

    fn label(&self, packed: &[u8], root: &BlockPointer, at: u64) -> Vec<u8> {
        let mut label = vec![0; LABEL as usize];
        label[CONFIG_AT..CONFIG_AT + packed.len()].copy_from_slice(packed);
        seal_area(&mut label[BOOT_AT..CONFIG_AT], at + BOOT_AT as u64);
        seal_area(&mut label[CONFIG_AT..RING_AT], at + CONFIG_AT as u64);

        const MIN_SLOT_SHIFT: u8 = 10;
        const MAX_SLOT_SHIFT: u8 = 13;
        let slot = 1usize << self.ashift.clamp(MIN_SLOT_SHIFT, MAX_SLOT_SHIFT);
        for n in 0..UBERBLOCK_COPIES {
            let start = RING_AT + ((self.txg as usize + n) % (RING_LEN / slot)) * slot;
            let uberblock = &mut label[start..start + slot];
            self.fill_uberblock(uberblock, root);
            seal_area(uberblock, at + start as u64);
        }
        label
    }

    fn fill_uberblock(&self, uberblock: &mut [u8], root: &BlockPointer) {
        const MAGIC: u64 = 0x00ba_b10c;
        const MMP_MAGIC: u64 = 0xa11c_ea11;
        let guids = self.tops.iter().flat_map(|top| {
            let mirror = if let [_] = top.leaves.as_slice() { 0 } else { top.guid };
            top.leaves.iter().map(|leaf| leaf.guid).chain([mirror])
        });
        let guid_sum = guids.fold(self.guid, u64::wrapping_add);
        let head = [MAGIC, VERSION, self.txg, guid_sum, self.created];
        let tail = [VERSION, MMP_MAGIC];
        for (i, word) in head.iter().chain(root.words()).chain(&tail).enumerate() {
            put_u64(uberblock, i * 8, *word);
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn four_labels_that_check_themselves() {
        let properties = PoolProperties::new();
        let config = Config {
            name: "tank",
            guid: 1,
            tops: vec![Top {
                guid: 2,
                parity: None,
                leaves: vec![Leaf { guid: 2, path: "/dev/x" }],
                geometry: Geometry::of(64 << 20),
                metaslab_array: 3,
            }],
            vdev_type: VdevType::Disk,
            ashift: 12,
            properties: &properties,
            txg: 16,
            created: 5,
        };
        let labels = config.labels(0, 0, &BlockPointer::HOLE);
        let places: Vec<u64> = labels.iter().map(|(at, _)| *at >> 10).collect();
        assert_eq!(places, [0, 256, 65024, 65280]);
        for (at, label) in labels {
            for (start, len) in [(BOOT_AT, 8 << 10), (CONFIG_AT, 112 << 10), (RING_AT + 16 * 4096, 4096)] {
                let mut area = label[start..start + len].to_vec();
                let stored = area.split_off(len - 32);
                area.extend((at + start as u64).to_le_bytes());
                area.extend([0; 24]);
                let digest: Vec<u8> = Sha256::digest(&area)
                    .chunks(8)
                    .flat_map(|word| word.iter().rev().copied().collect::<Vec<_>>())
                    .collect();
                assert_eq!(stored, digest, "{at} {start}");
            }
        }
    }
}
