//! raidz: a block lies in rows over all devices of a vdev, with one to three columns of parity.
//!
//! Parity is a sum over the columns of data in the field of 256 elements: of the columns themselves, of their products with
//! powers of 2, and with powers of 4. Facts: `vdev_raidz.c` of OpenZFS.

use crate::spec::Parity;

/// Blocks that start in an odd piece of this size keep single parity on the second device of their row: the load is spread.
const SWAP_SHIFT: u32 = 20;

/// How a raidz vdev is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raidz {
    pub(crate) devices: u64,
    pub(crate) parity: Parity,
    /// log2 of a sector.
    pub(crate) ashift: u32,
}

/// What one device gets of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) device: usize,
    /// Byte in the space of the device.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Raidz {
    /// Bytes that a block of `size` bytes takes: with parity for each row, and filled up so that what is left between
    /// blocks is never too small for the smallest one.
    pub(crate) fn asize(&self, size: u64) -> u64 {
        let parity = self.parity.columns();
        let data = size.div_ceil(1 << self.ashift);
        let rows = data.div_ceil(self.devices - parity);
        (data + rows * parity).next_multiple_of(parity + 1) << self.ashift
    }

    /// What each device gets of a block that starts at `offset` in the space of the vdev; the length of `data` is a
    /// multiple of the sector size.
    pub(crate) fn columns(&self, offset: u64, data: &[u8]) -> Vec<Column> {
        let parity = self.parity.columns();
        let unit = 1u64 << self.ashift;
        let sectors = data.len() as u64 >> self.ashift;
        let (start, width) = (offset >> self.ashift, self.devices - parity);
        let (rows, rest) = (sectors / width, sectors % width);
        // The first columns are a sector longer when the last row is not full.
        let long = if rest == 0 { 0 } else { rest + parity };
        let count = if rows == 0 { long } else { self.devices };
        let mut columns: Vec<Column> = (0..count)
            .map(|column| {
                let place = start % self.devices + column;
                let row = start / self.devices + place / self.devices;
                let len = (rows + u64::from(column < long)) << self.ashift;
                let bytes = vec![0; len as usize];
                Column { device: (place % self.devices) as usize, offset: row * unit, bytes }
            })
            .collect();
        let (parities, content) = columns.split_at_mut(parity as usize);
        let mut rest = data;
        for column in content.iter_mut() {
            let (own, others) = rest.split_at(column.bytes.len());
            column.bytes.copy_from_slice(own);
            rest = others;
        }
        for (power, column) in (0..).zip(parities.iter_mut()) {
            generate(power, content, &mut column.bytes);
        }
        if self.parity == Parity::Single && (offset >> SWAP_SHIFT) & 1 == 1 {
            let [first, second] = &mut columns[..2] else { unreachable!("a block has data and parity") };
            std::mem::swap(&mut first.bytes, &mut second.bytes);
        }
        columns
    }
}

/// Sums up columns, each one after multiplying what is there by 2 as often as `power` says; a short one ends in zeros.
fn generate(power: u32, columns: &[Column], sum: &mut [u8]) {
    for column in columns {
        for (at, byte) in sum.iter_mut().enumerate() {
            let product = (0..power).fold(*byte, |byte, _| double(byte));
            *byte = product ^ column.bytes.get(at).copied().unwrap_or(0);
        }
    }
}

/// Times 2, modulo x^8 + x^4 + x^3 + x^2 + 1.
fn double(byte: u8) -> u8 {
    const POLYNOMIAL: u8 = 0x1d;
    let shifted = byte << 1;
    if byte & 0x80 == 0 { shifted } else { shifted ^ POLYNOMIAL }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raidz(devices: u64, parity: Parity) -> Raidz {
        Raidz { devices, parity, ashift: 12 }
    }

    #[test]
    fn sizes_with_parity_and_padding() {
        let sectors = |raidz: Raidz, data: u64| raidz.asize(data << 12) >> 12;
        let narrow = raidz(3, Parity::Single);
        assert_eq!([1, 2, 3, 4].map(|data| sectors(narrow, data)), [2, 4, 6, 6]);
        let wide = raidz(6, Parity::Double);
        assert_eq!([1, 4, 5, 8, 32].map(|data| sectors(wide, data)), [3, 6, 9, 12, 48]);
    }

    #[test]
    fn columns_of_a_block_wrap_around_and_swap() {
        let data: Vec<u8> = (0..5 * 4096).map(|i| (i / 4096) as u8 + 1).collect();
        let places = |raidz: Raidz, offset: u64| {
            let columns = raidz.columns(offset, &data);
            columns
                .iter()
                .map(|column| (column.device, column.offset >> 12, column.bytes[0]))
                .collect::<Vec<_>>()
        };
        // Two rows and a sector: columns of 2, 2 and 1 sectors of data after the parity.
        let four = raidz(4, Parity::Single);
        assert_eq!(places(four, 2 << 12), [(2, 0, 1 ^ 3 ^ 5), (3, 0, 1), (0, 1, 3), (1, 1, 5)]);
        let swapped = places(four, (1 << 20) + (2 << 12));
        assert_eq!(swapped[0], (2, 64, 1));
        assert_eq!(swapped[1], (3, 64, 1 ^ 3 ^ 5));
    }

    #[test]
    fn parities_are_sums_of_products() {
        assert_eq!(double(0x80), 0x1d);
        let raidz = Raidz { devices: 6, parity: Parity::Triple, ashift: 9 };
        let data = [[1u8; 512], [2; 512], [0x80; 512]].concat();
        let columns = raidz.columns(0, &data);
        let parity: Vec<u8> = columns[..3].iter().map(|column| column.bytes[0]).collect();
        // 1 + 2 + 128, (1 * 2 + 2) * 2 + 128, (1 * 4 + 2) * 4 + 128.
        assert_eq!(parity, [0x83, 0x80, 0x98]);
    }
}
