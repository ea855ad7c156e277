//! The devices of a pool, and where the bytes of a block go on them.

use crate::device::WriteAt;
use crate::format::blkptr::Address;
use crate::write::error::WriteError;
use crate::write::shape::Shape;
use crate::write::space::DATA_START;

/// For each top-level vdev its devices: each with the same content, or with columns of it.
#[derive(Clone)]
pub(crate) struct Outputs<'a> {
    vdevs: Vec<(&'a [&'a dyn WriteAt], Shape)>,
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(vdevs: Vec<&'a [&'a dyn WriteAt]>, shapes: &[Shape]) -> Outputs<'a> {
        Outputs { vdevs: vdevs.into_iter().zip(shapes.iter().copied()).collect() }
    }

    /// Writes the sectors of one block, or where each device holds everything also of blocks that follow one another, at
    /// an address, given as a number.
    pub(crate) fn write(&self, bytes: &[u8], address: u64) -> Result<(), WriteError> {
        let address = Address::of_number(address);
        let (outs, shape) = &self.vdevs[address.vdev()];
        match &shape.raidz {
            None => outs.iter().try_for_each(|out| write_to(*out, bytes, DATA_START + address.offset())),
            Some(raidz) => raidz.columns(address.offset(), bytes).iter().try_for_each(|column| {
                write_to(outs[column.device], &column.bytes, DATA_START + column.offset)
            }),
        }
    }

    /// Writes at an offset of one device.
    pub(crate) fn write_one(
        &self,
        vdev: usize,
        device: usize,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), WriteError> {
        write_to(self.vdevs[vdev].0[device], bytes, offset)
    }

    pub(crate) fn sync(&self) -> Result<(), WriteError> {
        let mut outs = self.vdevs.iter().flat_map(|(outs, _)| outs.iter());
        outs.try_for_each(|out| out.sync()).map_err(|source| WriteError::Sync { source })
    }
}

fn write_to(out: &dyn WriteAt, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
    out.write_all_at(bytes, offset).map_err(|source| WriteError::Output { offset, source })
}
