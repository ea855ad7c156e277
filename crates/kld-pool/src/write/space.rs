//! Space on the vdev: its division into metaslabs, and what a dataset takes of it.
//!
//! Sizes and offsets are bytes; offset 0 is the first byte after the front labels and the boot area.

use std::sync::Arc;

use crate::format::SECTOR;
use crate::format::blkptr::BlockPointer;
use crate::write::shape::Shape;

/// Front labels and boot area: what lies before offset 0.
pub(crate) const DATA_START: u64 = 4 << 20;
/// One label.
pub(crate) const LABEL: u64 = 256 << 10;
/// Two labels at the end of the vdev.
const BACK_LABELS: u64 = 2 * LABEL;
/// Smallest vdev that OpenZFS accepts (`SPA_MINDEVSIZE`).
pub(crate) const MIN_DEVICE: u64 = 64 << 20;
/// Largest vdev whose array of space maps fits into one block (16384 metaslabs of 16 GiB).
pub(crate) const MAX_DEVICE: u64 = 256 << 40;

/// How the vdev is divided. The size of metaslabs is fixed for the life of the vdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Size of a device, rounded down to whole labels.
    pub(crate) device: u64,
    /// Bytes between the front and the back labels, of all devices whose space is one.
    pub(crate) allocatable: u64,
    /// log2 of the metaslab size.
    pub(crate) metaslab_shift: u32,
    pub(crate) metaslabs: u64,
}

impl Geometry {
    /// Divides a device or mirror of `size` bytes (at least [`MIN_DEVICE`]) the way OpenZFS does: 512 MiB metaslabs, smaller
    /// ones so that there are about 16, larger ones so that there are at most about 200.
    pub(crate) fn of(size: u64) -> Geometry {
        Geometry::over(size, 1)
    }

    /// Divides the space of several devices together.
    pub(crate) fn over(size: u64, devices: u64) -> Geometry {
        const DEFAULT_SHIFT: u32 = 29;
        const MIN_SHIFT: u32 = 24;
        const MAX_SHIFT: u32 = 34;
        let device = size / LABEL * LABEL;
        let allocatable = (device - DATA_START - BACK_LABELS) * devices;
        let highest_bit = |value: u64| 64 - value.leading_zeros();
        let metaslab_shift = match allocatable >> DEFAULT_SHIFT {
            ..16 => highest_bit(allocatable / 16).max(MIN_SHIFT),
            16..=200 => DEFAULT_SHIFT,
            _ => highest_bit(allocatable / 200).min(MAX_SHIFT),
        };
        Geometry { device, allocatable, metaslab_shift, metaslabs: allocatable >> metaslab_shift }
    }

    /// Bytes that metaslabs cover.
    pub(crate) fn capacity(&self) -> u64 {
        self.metaslabs << self.metaslab_shift
    }

    pub(crate) fn metaslab_size(&self) -> u64 {
        1 << self.metaslab_shift
    }
}

/// The smallest size, in whole MiB, of each of `devices` on which `used` bytes in blocks of at most `largest` bytes surely
/// fit.
pub(crate) fn device_size_for(used: u64, largest: u64, devices: u64) -> u64 {
    const STEP: u64 = 1 << 20;
    // Blocks that would straddle two metaslabs leave gaps, one per metaslab, whose size depends on the geometry. More
    // metaslabs touched are also more space maps.
    const SPARE: u64 = 1 << 20;
    let fits = |size: u64| {
        let geometry = Geometry::over(size, devices);
        used + (geometry.metaslabs + 1) * (largest + SPARE) <= geometry.capacity()
    };
    let mut size = (used / devices + DATA_START + BACK_LABELS).next_multiple_of(STEP).max(MIN_DEVICE);
    while !fits(size) {
        size += (size / 64).next_multiple_of(STEP);
    }
    size
}

/// What is charged for allocated space, by top-level vdev: all of it on devices and mirrors; on raidz what a block of
/// 128 KiB has of data, whatever the size of the block (`vdev_deflate_ratio` of OpenZFS).
#[derive(Clone, Debug)]
pub(crate) struct Deflation(Arc<[u64]>);

impl Deflation {
    pub(crate) fn of(shapes: &[Shape]) -> Deflation {
        const TYPICAL: u64 = 128 << 10;
        Deflation(shapes.iter().map(|shape| TYPICAL / (shape.asize(TYPICAL) / SECTOR as u64)).collect())
    }

    /// Bytes that are charged for allocated ones of each vdev.
    pub(crate) fn charge_all(&self, asizes: impl Iterator<Item = u64>) -> u64 {
        asizes.enumerate().map(|(vdev, asize)| self.charge(vdev, asize)).sum()
    }

    /// Bytes that are charged for `asize` allocated ones.
    pub(crate) fn charge(&self, vdev: usize, asize: u64) -> u64 {
        asize / SECTOR as u64 * self.0[vdev]
    }
}

/// Space charged to a dataset or to the pool's own metadata.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// Allocated bytes of all copies, as far as they are charged.
    pub(crate) referenced: u64,
    /// Bytes after compression.
    pub(crate) compressed: u64,
    /// Bytes before compression (metadata counts as compressed).
    pub(crate) uncompressed: u64,
}

impl Space {
    /// What the block behind a pointer is charged with: nothing for a hole, no allocation for an embedded one.
    pub(crate) fn of(pointer: &BlockPointer, deflation: &Deflation) -> Space {
        let compressed = pointer.psize();
        Space {
            referenced: pointer.copies().map(|(vdev, asize)| deflation.charge(vdev, asize)).sum(),
            compressed,
            uncompressed: if pointer.is_metadata() { compressed } else { pointer.lsize() },
        }
    }
}

impl std::ops::AddAssign for Space {
    fn add_assign(&mut self, other: Space) {
        self.referenced += other.referenced;
        self.compressed += other.compressed;
        self.uncompressed += other.uncompressed;
    }
}

impl std::ops::Add for Space {
    type Output = Space;
    fn add(mut self, other: Space) -> Space {
        self += other;
        self
    }
}

impl std::ops::Sub for Space {
    type Output = Space;
    fn sub(self, other: Space) -> Space {
        Space {
            referenced: self.referenced - other.referenced,
            compressed: self.compressed - other.compressed,
            uncompressed: self.uncompressed - other.uncompressed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn geometry_table() {
        const GIB: u64 = 1 << 30;
        for (size, shift, count) in [
            (64 << 20, 24, 3),
            (GIB, 26, 15),
            (10 * GIB, 29, 19),
            (100 * GIB, 29, 199),
            (1024 * GIB, 33, 127),
        ] {
            let geometry = Geometry::of(size);
            assert_eq!((geometry.metaslab_shift, geometry.metaslabs), (shift, count), "{size}");
        }
        assert_eq!(Geometry::of((64 << 20) + 5).device, 64 << 20);
    }

    proptest! {
        #[test]
        fn the_advised_size_suffices(used in 1u64..(40 << 30), largest in 512u64..(2 << 20)) {
            prop_assert!(Geometry::of(device_size_for(used, largest, 1)).capacity() >= used);
        }
    }
}
