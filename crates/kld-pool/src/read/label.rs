//! Vdev labels: which pool a device belongs to, and the uberblocks that lead into it.

use super::bytes::{u64_at, word};
use super::checksum::check_area;
use super::nvlist::NvList;
use super::pointer::{BlockPointer, POINTER};
use crate::device::ReadAt;

/// Bytes of one label; two lie at each end of a device.
pub(crate) const LABEL: u64 = 256 << 10;
const CONFIG_AT: u64 = 16 << 10;
const CONFIG_LEN: usize = 112 << 10;
const RING_AT: u64 = 128 << 10;
const RING_LEN: usize = 128 << 10;
/// Uberblock slots are as large as a sector, but within these.
const SLOT_SHIFTS: std::ops::RangeInclusive<u64> = 10..=13;

/// The root of the pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uberblock {
    /// Transaction group, seconds since 1970, and what breaks ties of both: later is better.
    pub(crate) age: (u64, u64, u64),
    pub(crate) guid_sum: u64,
    pub(crate) root: [u8; POINTER],
    /// Transaction group of a checkpoint, or 0.
    pub(crate) checkpoint: u64,
}

impl Uberblock {
    pub(crate) fn txg(&self) -> u64 {
        self.age.0
    }
}

/// What one of the four labels holds.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    /// First byte of the label on the device.
    pub(crate) at: u64,
    /// The configuration, if its checksum is right and it can be decoded.
    pub(crate) config: Option<NvList>,
    /// Uberblocks whose checksums are right.
    pub(crate) uberblocks: Vec<Uberblock>,
    /// Slots that start like an uberblock but have a wrong checksum.
    pub(crate) bad_slots: u64,
}

/// Bytes of a device that a vdev uses.
pub(crate) fn usable_size(size: u64) -> u64 {
    size / LABEL * LABEL
}

/// Reads the four labels of a device; those that cannot be read have neither configuration nor uberblocks.
pub(crate) fn read_labels(device: &dyn ReadAt, size: u64) -> Vec<Label> {
    let end = usable_size(size);
    let places = [Some(0), Some(LABEL), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)];
    let mut labels: Vec<Label> = Vec::new();
    for at in places.into_iter().flatten() {
        if at + LABEL <= size && labels.iter().all(|label| label.at != at) {
            labels.push(read_label(device, at));
        }
    }
    labels
}

fn read_label(device: &dyn ReadAt, at: u64) -> Label {
    let mut label = Label { at, config: None, uberblocks: Vec::new(), bad_slots: 0 };
    let mut config = vec![0; CONFIG_LEN];
    if device.read_at(&mut config, at + CONFIG_AT).is_err() {
        return label;
    }
    if check_area(&config, [at + CONFIG_AT, 0, 0, 0]) {
        label.config = NvList::unpack(&config);
    }
    let mut ring = vec![0; RING_LEN];
    if device.read_at(&mut ring, at + RING_AT).is_err() {
        return label;
    }
    // Of a label without configuration the slot size is not known: all are tried.
    let shifts = match label.config.as_ref().and_then(|config| config.list("vdev_tree")?.number("ashift")) {
        Some(ashift) => {
            let shift = ashift.clamp(*SLOT_SHIFTS.start(), *SLOT_SHIFTS.end());
            shift..=shift
        }
        None => SLOT_SHIFTS,
    };
    for shift in shifts {
        let slot = 1usize << shift;
        for (i, bytes) in ring.chunks_exact(slot).enumerate() {
            let place = at + RING_AT + (i * slot) as u64;
            match uberblock(bytes, place) {
                Slot::Good(uberblock) if !label.uberblocks.contains(&uberblock) => {
                    label.uberblocks.push(uberblock)
                }
                Slot::Bad => label.bad_slots += 1,
                Slot::Good(_) | Slot::Empty => {}
            }
        }
    }
    label
}

enum Slot {
    Empty,
    Bad,
    Good(Uberblock),
}

fn uberblock(slot: &[u8], place: u64) -> Slot {
    const MAGIC: u64 = 0x00ba_b10c;
    const MMP_MAGIC: u64 = 0xa11c_ea11;
    const ROOT_AT: usize = 40;
    // A new device gets an unsealed uberblock of transaction group 0.
    if word(slot, 0) != MAGIC || word(slot, 2) == 0 {
        return Slot::Empty;
    }
    if !check_area(slot, [place, 0, 0, 0]) {
        return Slot::Bad;
    }
    let Some(root) = super::bytes::array(slot, ROOT_AT) else { return Slot::Bad };
    let tail = ROOT_AT + POINTER;
    let at = |index: usize| u64_at(slot, tail + index * 8).unwrap_or(0);
    // software version, MMP magic, delay, configuration, checkpoint
    let (mmp_magic, mmp_config, checkpoint) = (at(1), at(3), at(4));
    const SEQUENCE_VALID: u64 = 2;
    let sequence = if mmp_magic == MMP_MAGIC && mmp_config & SEQUENCE_VALID != 0 {
        (mmp_config >> 32) & 0xffff
    } else {
        0
    };
    Slot::Good(Uberblock {
        age: (word(slot, 2), word(slot, 4), sequence),
        guid_sum: word(slot, 3),
        root,
        checkpoint,
    })
}

impl Uberblock {
    /// The pointer to the pool's own objects.
    pub(crate) fn root(&self) -> Result<BlockPointer, super::pointer::BadPointer> {
        BlockPointer::decode(&self.root)
    }
}
