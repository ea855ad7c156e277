//! Top-level vdevs as the writer knows them: how their space is divided and laid out over devices.

use crate::spec::{Redundancy, Vdev};
use crate::write::raidz::Raidz;
use crate::write::space::Geometry;

/// One top-level vdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) geometry: Geometry,
    /// None when each device holds everything.
    pub(crate) raidz: Option<Raidz>,
    /// Bytes of a sector.
    unit: u64,
}

impl Shape {
    /// `vdev` with sectors of `1 << ashift` bytes.
    pub(crate) fn of(vdev: &Vdev, ashift: u8) -> Shape {
        let devices = vdev.paths.len() as u64;
        let unit = 1 << ashift;
        match vdev.redundancy {
            Redundancy::Mirror => Shape { geometry: Geometry::of(vdev.size), raidz: None, unit },
            Redundancy::Raidz(parity) => Shape {
                geometry: Geometry::over(vdev.size, devices),
                raidz: Some(Raidz { devices, parity, ashift: ashift.into() }),
                unit,
            },
        }
    }

    /// Bytes that a block of `size` bytes takes.
    pub(crate) fn asize(&self, size: u64) -> u64 {
        match &self.raidz {
            None => size.next_multiple_of(self.unit),
            Some(raidz) => raidz.asize(size),
        }
    }

    /// Devices whose space is one.
    pub(crate) fn width(&self) -> u64 {
        self.raidz.map_or(1, |raidz| raidz.devices)
    }
}
