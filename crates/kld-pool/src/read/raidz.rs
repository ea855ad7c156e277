//! raidz: where the columns of a block lie, and the block from what is left of them.
//!
//! Parity columns are sums over the columns of data in the field of 256 elements (x^8 + x^4 + x^3 + x^2 + 1): column i of n
//! counts with the factor g^(n-1-i), where g is 1, 2 or 4. What is missing solves these equations. A column may be there and
//! wrong: then all ways of leaving out columns are tried until the block has its checksum.

/// Shape of a raidz vdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raidz {
    pub(crate) devices: usize,
    /// 1 to 3, and fewer than devices.
    pub(crate) parity: usize,
    /// log2 of a sector.
    pub(crate) ashift: u32,
}

/// A part of a block on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) device: usize,
    /// Byte in the space of the device.
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

/// What was read of a block, by column: parity first, then data.
pub(crate) type Read = Vec<Option<Vec<u8>>>;

impl Raidz {
    /// Bytes that a block of `size` bytes takes.
    pub(crate) fn asize(&self, size: u64) -> u64 {
        let (parity, width) = (self.parity as u64, (self.devices - self.parity) as u64);
        let data = size.div_ceil(1 << self.ashift);
        (data + data.div_ceil(width) * parity).next_multiple_of(parity + 1) << self.ashift
    }

    /// The columns of a block of `len` bytes at `offset` of the vdev's space: parity first, then data. None when it lies where
    /// no device is that large.
    pub(crate) fn columns(&self, offset: u64, len: usize) -> Option<Vec<Column>> {
        const SWAP_BIT: u64 = 1 << 20;
        let (devices, width) = (self.devices as u64, self.devices - self.parity);
        let sectors = len.div_ceil(1 << self.ashift);
        let long = match sectors % width {
            0 => 0,
            rest => rest + self.parity,
        };
        let count = if sectors < width { long } else { self.devices };
        let start = offset >> self.ashift;
        let column = |i: usize| {
            let at = start.checked_add(i as u64)?;
            // A row begins on the device where the block does.
            let row = start / devices + u64::from(at % devices < start % devices);
            Some(Column {
                device: (at % devices) as usize,
                offset: row.checked_mul(1 << self.ashift)?,
                len: (sectors / width + usize::from(i < long)) << self.ashift,
            })
        };
        let mut columns = (0..count).map(column).collect::<Option<Vec<Column>>>()?;
        if self.parity == 1 && offset & SWAP_BIT != 0 && columns.len() > 1 {
            columns.swap(0, 1);
        }
        Some(columns)
    }

    /// The columns of parity for columns of data, each as long as the first of them.
    pub(crate) fn parity_of(&self, data: &[&[u8]]) -> Vec<Vec<u8>> {
        let len = data.first().map_or(0, |column| column.len());
        (0..self.parity).map(|power| sum(power, data.iter().map(|column| Some(*column)), len)).collect()
    }

    /// Every block that the columns could be, best guesses first: as it was read, then with more and more columns left out,
    /// those that could not be read always. `len` is the length of the block.
    pub(crate) fn candidates<'r>(
        &'r self,
        read: &'r Read,
        columns: &'r [Column],
        len: usize,
    ) -> impl Iterator<Item = Vec<u8>> + 'r {
        let lost: Vec<usize> = (self.parity..read.len()).filter(|i| read[*i].is_none()).collect();
        let usable: Vec<usize> = (0..self.parity.min(read.len())).filter(|i| read[*i].is_some()).collect();
        let least = lost.len();
        (least..=usable.len()).flat_map(move |count| {
            let (lost, usable) = (lost.clone(), usable.clone());
            let doubted: Vec<usize> = (self.parity..read.len()).filter(|i| !lost.contains(i)).collect();
            subsets(doubted, count - least).flat_map(move |more| {
                let mut gone = [lost.as_slice(), &more].concat();
                gone.sort_unstable();
                subsets(usable.clone(), gone.len())
                    .filter_map(move |parities| self.solve(read, columns, &gone, &parities, len))
                    .collect::<Vec<_>>()
            })
        })
    }

    /// The block without the columns `gone`, of which there are as many as `parities`.
    fn solve(
        &self,
        read: &Read,
        columns: &[Column],
        gone: &[usize],
        parities: &[usize],
        len: usize,
    ) -> Option<Vec<u8>> {
        let data = || self.parity..read.len();
        let longest = data().map(|i| columns[i].len).max().unwrap_or(0);
        // For each equation the factors of what is gone, and what they must add up to.
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for power in parities {
            let known = data().map(|i| if gone.contains(&i) { None } else { read[i].as_deref() });
            let mut right = sum(*power, known, longest);
            right.iter_mut().zip(read[*power].as_deref()?).for_each(|(byte, parity)| *byte ^= parity);
            let factor = |i: &usize| power_of_two(power * (read.len() - 1 - i));
            rows.push((gone.iter().map(factor).collect(), right));
        }
        let found = eliminate(rows)?;
        let mut block = Vec::with_capacity(len);
        for i in data() {
            let column = match gone.iter().position(|lost| *lost == i) {
                Some(at) => found.get(at)?.get(..columns[i].len)?,
                None => read[i].as_deref()?,
            };
            block.extend_from_slice(column);
        }
        block.truncate(len);
        Some(block)
    }
}

/// Sums up columns, the earlier ones times 2 to the `power` for each later one; one that is not known counts as zeros.
fn sum<'c>(power: usize, columns: impl Iterator<Item = Option<&'c [u8]>>, len: usize) -> Vec<u8> {
    let table: [u8; 256] = std::array::from_fn(|byte| multiply(byte as u8, power_of_two(power)));
    let mut sum = vec![0; len];
    for column in columns {
        if power > 0 {
            sum.iter_mut().for_each(|byte| *byte = table[usize::from(*byte)]);
        }
        sum.iter_mut().zip(column.unwrap_or_default()).for_each(|(byte, more)| *byte ^= more);
    }
    sum
}

/// Solves equations whose unknowns and right sides are columns; none when they do not decide.
fn eliminate(mut rows: Vec<(Vec<u8>, Vec<u8>)>) -> Option<Vec<Vec<u8>>> {
    for at in 0..rows.len() {
        let pivot = (at..rows.len()).find(|row| rows[*row].0[at] != 0)?;
        rows.swap(at, pivot);
        let inverse = inverse(rows[at].0[at]);
        scale(&mut rows[at], inverse);
        let (factors, right) = rows[at].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(other, _)| *other != at) {
            let factor = row.0[at];
            row.0.iter_mut().zip(&factors).for_each(|(byte, more)| *byte ^= multiply(*more, factor));
            let table: [u8; 256] = std::array::from_fn(|byte| multiply(byte as u8, factor));
            row.1.iter_mut().zip(&right).for_each(|(byte, more)| *byte ^= table[usize::from(*more)]);
        }
    }
    Some(rows.into_iter().map(|(_, right)| right).collect())
}

fn scale(row: &mut (Vec<u8>, Vec<u8>), factor: u8) {
    let table: [u8; 256] = std::array::from_fn(|byte| multiply(byte as u8, factor));
    row.0.iter_mut().chain(row.1.iter_mut()).for_each(|byte| *byte = table[usize::from(*byte)]);
}

fn multiply(mut a: u8, mut b: u8) -> u8 {
    const POLYNOMIAL: u8 = 0x1d;
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { POLYNOMIAL };
        b >>= 1;
    }
    product
}

fn power_of_two(exponent: usize) -> u8 {
    (0..exponent % 255).fold(1, |power, _| multiply(power, 2))
}

/// What gives 1 times `a`, which is not 0: all such elements to the 255th are 1.
fn inverse(a: u8) -> u8 {
    (0..254).fold(1, |product, _| multiply(product, a))
}

/// All ways to take `count` of `items`, in their order.
fn subsets(items: Vec<usize>, count: usize) -> Box<dyn Iterator<Item = Vec<usize>>> {
    if count == 0 {
        return Box::new(std::iter::once(Vec::new()));
    }
    Box::new((0..items.len()).flat_map(move |first| {
        let chosen = items[first];
        subsets(items[first + 1..].to_vec(), count - 1).map(move |mut rest| {
            rest.insert(0, chosen);
            rest
        })
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_field_has_inverses() {
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1, "{a}");
        }
        assert_eq!((multiply(0x80, 2), power_of_two(8), power_of_two(255)), (0x1d, 0x1d, 1));
    }

    proptest! {
        #[test]
        fn a_block_survives_as_many_columns_as_there_is_parity(
            parity in 1usize..=3,
            more in 1usize..6,
            sectors in 1usize..20,
            start in 0u64..5000,
            damage in proptest::collection::vec((0usize..9, any::<bool>()), 3),
        ) {
            let raidz = Raidz { devices: parity + more, parity, ashift: 9 };
            let block: Vec<u8> = (0..sectors * 512).map(|i| (i * 7 + i / 512 * 31) as u8).collect();
            let columns = raidz.columns(start << 9, block.len()).unwrap();
            let mut rest = block.as_slice();
            let data: Vec<&[u8]> = columns[parity..].iter().map(|column| rest.split_off(..column.len).unwrap()).collect();
            let mut read: Read = raidz.parity_of(&data).into_iter().map(Some).collect();
            read.extend(data.iter().map(|column| Some(column.to_vec())));
            for (column, is_missing) in damage.into_iter().take(parity) {
                let column = column % read.len();
                if is_missing {
                    read[column] = None;
                } else if let Some(bytes) = &mut read[column] {
                    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
                }
            }
            let found = raidz.candidates(&read, &columns, block.len()).any(|candidate| candidate == block);
            prop_assert!(found);
        }
    }
}
