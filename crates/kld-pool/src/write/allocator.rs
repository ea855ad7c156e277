//! The allocator: blocks are spread over the top-level vdevs; on each, every metaslab is filled from its front, and each kind
//! of block has metaslabs of its own.
//!
//! A vdev is filled for about a mebibyte, then it is the turn of the one that is the least full. Copies of a block lie on
//! different vdevs, if there are enough.
//!
//! The copies of a block of metadata lie a third of the vdev apart, so that no damaged region, however it came about, can
//! take all of them. Filling from the front gives one used run per metaslab, which makes a space map one entry, and only as
//! many metaslabs are touched as there are lanes. When every metaslab has been taken, lanes use what is left in others'.

use crate::format::blkptr::{Address, Dva};
use crate::write::shape::Shape;

/// Most copies of a block.
pub(crate) const MAX_COPIES: usize = 3;

/// What a block is, as far as its place is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Content of files and volumes.
    Content,
    Metadata,
}

/// One stream of allocations.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// The metaslab it looks at first.
    start: u64,
    /// The metaslab it fills; none before its first block.
    current: Option<u64>,
}

/// Blocks of a kind that a vdev gets before it is another one's turn (`metaslab_aliquot` of OpenZFS).
const TURN: u64 = 1 << 20;

/// One top-level vdev.
#[derive(Clone, Debug)]
struct Vdev {
    shape: Shape,
    /// The lanes of content, then those of metadata, by copy.
    lanes: [Lane; 2 * MAX_COPIES],
    /// For each metaslab, the used bytes at its start.
    used: Vec<u64>,
    /// For each metaslab, whether a lane fills it or has filled it.
    taken: Vec<bool>,
    allocated: u64,
}

/// Whose turn it is for a kind of blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    vdev: usize,
    /// Bytes it got.
    got: u64,
}

/// Hands out space.
///
/// It never fails: what does not fit is counted, so that the caller can say how much was needed.
#[derive(Clone, Debug)]
pub(crate) struct Allocator {
    vdevs: Vec<Vdev>,
    /// For content and for metadata.
    turns: [Turn; 2],
    allocated: u64,
    largest: u64,
    overflowed: bool,
}

/// A metaslab that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) vdev: usize,
    pub(crate) metaslab: usize,
    /// Bytes at its start.
    pub(crate) used: u64,
}

impl Allocator {
    /// Space on top-level vdevs, at least one.
    pub(crate) fn new(shapes: &[Shape]) -> Allocator {
        Allocator {
            vdevs: shapes.iter().map(|shape| Vdev::new(*shape)).collect(),
            turns: [Turn::default(); 2],
            allocated: 0,
            largest: 0,
            overflowed: false,
        }
    }

    /// Space for `copies` (1 to 3) times `size` bytes (whose space is at most a metaslab, which is at least 16 MiB), never
    /// across the end of a metaslab.
    pub(crate) fn allocate(&mut self, class: Class, size: u64, copies: usize) -> Vec<Dva> {
        let first = self.turn(class, size);
        let mut dvas: Vec<Dva> = Vec::with_capacity(copies);
        for copy in 0..copies {
            let lane = copy + if class == Class::Content { 0 } else { MAX_COPIES };
            let count = self.vdevs.len();
            let placed = (0..count).map(|i| (first + copy + i) % count).find_map(|vdev| {
                let others = dvas.iter().filter(|other| other.address.vdev() == vdev);
                let others: Vec<u64> = others.map(|other| other.address.offset()).collect();
                let asize = self.vdevs[vdev].shape.asize(size);
                let offset = self.vdevs[vdev].allocate(lane, asize, &others)?;
                Some(Dva { address: Address::new(vdev, offset), asize })
            });
            self.overflowed |= placed.is_none();
            let placed = placed.unwrap_or_else(|| {
                let vdev = &mut self.vdevs[first];
                let asize = vdev.shape.asize(size);
                vdev.allocated += asize;
                Dva { address: Address::new(first, 0), asize }
            });
            self.allocated += placed.asize;
            self.largest = self.largest.max(placed.asize);
            dvas.push(placed);
        }
        dvas
    }

    /// The vdev for the first copy of a block.
    fn turn(&mut self, class: Class, size: u64) -> usize {
        let turn = &mut self.turns[usize::from(class == Class::Metadata)];
        if turn.got >= TURN {
            let fullness = |vdev: &Vdev| {
                (u128::from(vdev.allocated) << 32) / u128::from(vdev.shape.geometry.capacity().max(1))
            };
            let emptiest = (0..self.vdevs.len()).min_by_key(|vdev| fullness(&self.vdevs[*vdev]));
            *turn = Turn { vdev: emptiest.unwrap_or(0), got: 0 };
        }
        turn.got += size;
        turn.vdev
    }

    /// Whether everything allocated so far lies on the vdevs.
    pub(crate) fn fits(&self) -> bool {
        !self.overflowed
    }

    /// Bytes allocated so far, all copies included.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Bytes allocated so far on each vdev, or that would have been if they fitted.
    pub(crate) fn by_vdev(&self) -> impl Iterator<Item = u64> {
        self.vdevs.iter().map(|vdev| vdev.allocated)
    }

    /// The largest block allocated so far, in bytes.
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// Metaslabs that hold something, in order.
    pub(crate) fn touched(&self) -> impl Iterator<Item = Touched> {
        let of = |(index, vdev): (usize, &Vdev)| {
            let used: Vec<_> = vdev.used.iter().copied().enumerate().filter(|(_, used)| *used > 0).collect();
            used.into_iter().map(move |(metaslab, used)| Touched { vdev: index, metaslab, used })
        };
        self.vdevs.iter().enumerate().flat_map(of)
    }
}

impl Vdev {
    fn new(shape: Shape) -> Vdev {
        let count = shape.geometry.metaslabs;
        let copies = MAX_COPIES as u64;
        let lanes = std::array::from_fn(|lane| {
            let third = (lane as u64 % copies) * count / copies;
            let is_content = lane < MAX_COPIES;
            // Content stands behind metadata, which takes the first metaslab of each third.
            Lane { start: (third + u64::from(is_content)) % count.max(1), current: None }
        });
        Vdev { shape, lanes, used: vec![0; count as usize], taken: vec![false; count as usize], allocated: 0 }
    }

    /// Space in a lane, apart from `others` if that is possible; none when the vdev is full.
    fn allocate(&mut self, lane: usize, size: u64, others: &[u64]) -> Option<u64> {
        let metaslab = self.choose(lane, size, others)?;
        self.lanes[lane].current = Some(metaslab);
        self.taken[metaslab as usize] = true;
        let used = &mut self.used[metaslab as usize];
        let offset = (metaslab << self.shape.geometry.metaslab_shift) + *used;
        *used += size;
        self.allocated += size;
        Some(offset)
    }

    /// The metaslab for a block: the lane's own while there is room, then the next that nobody has, then any with room;
    /// one that already holds another copy of the block only when there is no other.
    fn choose(&self, lane: usize, size: u64, others: &[u64]) -> Option<u64> {
        let Lane { start, current } = self.lanes[lane];
        let geometry = self.shape.geometry;
        let count = geometry.metaslabs;
        let has_room = |metaslab: &u64| self.used[*metaslab as usize] + size <= geometry.metaslab_size();
        let is_apart =
            |metaslab: &u64| others.iter().all(|offset| offset >> geometry.metaslab_shift != *metaslab);
        let from_start = || (0..count).map(|i| (start + i) % count);
        current
            .filter(|metaslab| has_room(metaslab) && is_apart(metaslab))
            .or_else(|| from_start().find(|metaslab| !self.taken[*metaslab as usize] && has_room(metaslab)))
            .or_else(|| from_start().find(|metaslab| has_room(metaslab) && is_apart(metaslab)))
            .or_else(|| from_start().find(has_room))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::spec;

    fn shape(size: u64) -> Shape {
        Shape::of(&spec::Vdev::disk(size, "/a"), 12)
    }

    proptest! {
        #[test]
        fn allocations_are_disjoint_aligned_and_inside_one_metaslab(
            blocks in proptest::collection::vec((1u64..1_500_000, 1usize..=3, any::<bool>()), 1..200),
            vdevs in 1usize..4,
        ) {
            let shape = shape(96 << 20);
            let geometry = shape.geometry;
            let size_of = geometry.metaslab_size();
            let mut allocator = Allocator::new(&vec![shape; vdevs]);
            let mut extents = Vec::new();
            for (size, copies, is_content) in blocks {
                let class = if is_content { Class::Content } else { Class::Metadata };
                let addresses: Vec<Address> =
                    allocator.allocate(class, size, copies).into_iter().map(|dva| dva.address).collect();
                if !allocator.fits() {
                    break;
                }
                let places: BTreeSet<usize> = addresses.iter().map(|address| address.vdev()).collect();
                if allocator.allocated() < size_of * geometry.metaslabs / 2 {
                    prop_assert_eq!(places.len(), copies.min(vdevs));
                }
                for address in addresses {
                    let offset = address.offset();
                    prop_assert_eq!(offset % 4096, 0);
                    prop_assert_eq!(offset / size_of, (offset + size - 1) / size_of);
                    extents.push((address.vdev(), offset, offset + size));
                }
            }
            extents.sort_unstable();
            for pair in extents.windows(2) {
                prop_assert!(pair[0].0 < pair[1].0 || pair[0].2 <= pair[1].1, "{pair:?}");
            }
            for Touched { vdev, metaslab, used } in allocator.touched() {
                let start = metaslab as u64 * size_of;
                let own = extents.iter().filter(|(on, at, _)| *on == vdev && at / size_of == metaslab as u64);
                prop_assert!(own.map(|(_, _, end)| *end).max().is_none_or(|end| end <= start + used));
            }
        }
    }

    #[test]
    fn copies_lie_a_third_of_the_vdev_apart() {
        let mut allocator = Allocator::new(&[shape(10 << 30)]);
        for _ in 0..3000 {
            allocator.allocate(Class::Content, 1 << 20, 1);
            let offsets = allocator.allocate(Class::Metadata, 4096, 3);
            assert!(
                offsets.windows(2).all(|pair| pair[1].address.offset() - pair[0].address.offset() >= 3 << 30),
                "{offsets:?}"
            );
        }
        // Three of metadata, six of content.
        assert_eq!(allocator.touched().count(), 9);
    }

    #[test]
    fn a_vdev_can_be_filled() {
        let shape = shape(64 << 20);
        let mut allocator = Allocator::new(&[shape]);
        for _ in 0..shape.geometry.capacity() >> 20 {
            allocator.allocate(Class::Content, 1 << 20, 1);
        }
        assert!(allocator.fits());
        allocator.allocate(Class::Metadata, 512, 1);
        assert!(!allocator.fits());
    }
}
