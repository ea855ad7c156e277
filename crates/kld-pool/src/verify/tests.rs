//! Wrong pools whose checksums are all right: what only a comparison can find.

use super::{FindingKind, verify};
use crate::format::checksum::{fletcher4, seal_area};
use crate::format::put_u64;
use crate::read::Pool;
use crate::read::bytes::{u64_at, word};
use crate::read::dnode::{Dnode, SLOT};
use crate::read::objset::SLOTS_PER_BLOCK;
use crate::read::pointer::{BlockPointer, Body};
use crate::read::vdev::DATA_START;
use crate::tree::{Data, Kind, Meta, Timestamp, Tree};
use crate::{BookmarkSpec, DatasetSpec, PoolSpec, write_pool};

const SIZE: usize = 64 << 20;
/// Where the checksum stands in a block pointer, and the first pointer in a dnode.
const CHECKSUM_AT: usize = 96;
const POINTER_AT: usize = 64;

fn image() -> Vec<u8> {
    image_with(&|_| {})
}

/// A pool with a file system and its snapshot, and what `change` makes of its datasets.
fn image_with(change: &dyn Fn(&mut Vec<DatasetSpec>)) -> Vec<u8> {
    let mut tree = Tree::new();
    let content: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    tree.insert("f", Meta::root(0o644, Timestamp::default()), Kind::File(Data::bytes(content))).unwrap();
    let mut root = DatasetSpec::new("fz/root".parse().unwrap());
    root.content = tree.into();
    root.snapshots = vec!["a".into()];
    let mut spec = PoolSpec::new("fz".parse().unwrap(), SIZE as u64, [1; 32]);
    spec.datasets = vec![root];
    change(&mut spec.datasets);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE as u64).unwrap();
    write_pool(&spec, &[file.as_file()], &()).unwrap();
    std::fs::read(file.path()).unwrap()
}

/// Changes a block that is stored as it is, in all its copies, and gives its new checksum.
fn patch(image: &mut [u8], pointer: &BlockPointer, change: &mut dyn FnMut(&mut [u8])) -> [u64; 4] {
    let Body::Stored(stored) = &pointer.body else { panic!("the block is not stored") };
    assert_eq!(stored.psize, pointer.lsize, "the block is compressed");
    let mut checksum = None;
    for dva in stored.dvas() {
        let at = (dva.offset + DATA_START) as usize;
        let block = &mut image[at..at + stored.psize];
        change(block);
        checksum = Some(fletcher4(block));
    }
    checksum.expect("a block has an address")
}

fn put_checksum(bytes: &mut [u8], pointer_at: usize, checksum: [u64; 4]) {
    for (i, word) in checksum.into_iter().enumerate() {
        put_u64(bytes, pointer_at + CHECKSUM_AT + i * 8, word);
    }
}

/// Changes the dnode of an object of the pool and makes everything above it fit.
fn forge_dnode(image: &mut [u8], object: u64, change: &mut dyn FnMut(&mut [u8])) {
    let copy = image.to_vec();
    let pool = Pool::open(&[&copy]).unwrap();
    let (meta, blocks) = (&pool.mos.meta, &pool.blocks);
    let number = object / SLOTS_PER_BLOCK;
    let slot = (object % SLOTS_PER_BLOCK) as usize * SLOT;
    let leaf = meta.pointer(blocks, number).unwrap().unwrap();
    let indirect = BlockPointer::decode(&meta.pointers[0]).unwrap();
    assert_eq!(indirect.level, 1);
    let sum = patch(image, &leaf, &mut |block| change(&mut block[slot..slot + SLOT]));
    let sum = patch(image, &indirect, &mut |block| put_checksum(block, number as usize * 128, sum));
    let root = pool.uberblock.root().unwrap();
    let sum = patch(image, &root, &mut |block| put_checksum(block, POINTER_AT, sum));
    let end = SIZE;
    for label in [0, 256 << 10, end - (512 << 10), end - (256 << 10)] {
        for slot in (label + (128 << 10)..label + (256 << 10)).step_by(4096) {
            if image[slot..slot + 8] != [0; 8] {
                let uberblock = &mut image[slot..slot + 4096];
                put_checksum(uberblock, 40, sum);
                seal_area(uberblock, slot as u64);
            }
        }
    }
}

/// Changes the only data block of an object of the pool.
fn forge_data(image: &mut [u8], object: u64, change: &mut dyn FnMut(&mut [u8])) {
    let copy = image.to_vec();
    let pool = Pool::open(&[&copy]).unwrap();
    let pointer = pool.mos.dnode(object).unwrap().pointer(&pool.blocks, 0).unwrap().unwrap();
    // The block last: a pool whose tables do not fit their pointers cannot be opened.
    let sum = patch(&mut image.to_vec(), &pointer, change);
    forge_dnode(image, object, &mut |dnode| put_checksum(dnode, POINTER_AT, sum));
    patch(image, &pointer, change);
}

/// Adds to a word of the bonus of an object.
fn forge_bonus(image: &mut [u8], object: u64, index: usize, add: u64) {
    forge_dnode(image, object, &mut |dnode| {
        let bonus = POINTER_AT + 128;
        let old = word(&dnode[bonus..], index);
        put_u64(&mut dnode[bonus..], index * 8, old.wrapping_add(add));
    });
}

fn kinds(image: &[u8]) -> Vec<FindingKind> {
    let report = verify(&Pool::open(&[&image]).unwrap(), &());
    let mut kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// The objects of the pool with their dnodes.
fn objects(image: &[u8]) -> Vec<(u64, Dnode)> {
    let pool = Pool::open(&[&image]).unwrap();
    (1..400).filter_map(|object| Some((object, pool.mos.find(object).ok()??))).collect()
}

fn first_with_bonus(image: &[u8], bonus_type: u8) -> u64 {
    let found = objects(image).into_iter().find(|(_, dnode)| {
        dnode.bonus_type == bonus_type && (bonus_type != 16 || word(&dnode.bonus, 9) > 100_000)
    });
    found.unwrap().0
}

#[test]
fn a_forgery_without_change_is_clean() {
    let mut image = image();
    let map = first_with_bonus(&image, 7);
    forge_bonus(&mut image, map, 2, 0);
    assert_eq!(kinds(&image), []);
}

#[test]
fn space_maps_are_compared() {
    let clean = image();
    let map = first_with_bonus(&clean, 7);
    let mut miscounted = clean.clone();
    forge_bonus(&mut miscounted, map, 2, 4096);
    assert_eq!(kinds(&miscounted), [FindingKind::SpaceMap]);

    // One sector more or less in the one run, and in the sum, so that only the blocks disagree.
    let longer = |image: &[u8], add: u64, bytes: u64| {
        let mut image = image.to_vec();
        forge_data(&mut image, map, &mut |block| {
            let first = u64_at(block, 0).unwrap();
            put_u64(block, 0, first.wrapping_add(add << 24));
        });
        forge_bonus(&mut image, map, 2, bytes);
        kinds(&image)
    };
    assert_eq!(longer(&clean, 1, 4096), [FindingKind::Leak]);
    assert_eq!(longer(&clean, 0u64.wrapping_sub(1), 0u64.wrapping_sub(4096)), [FindingKind::NotAllocated]);
}

#[test]
fn accounting_is_counted_again() {
    let clean = image();
    let dataset = first_with_bonus(&clean, 16);
    let dir = first_with_bonus(&clean, 12);
    for (object, index) in [(dataset, 9), (dataset, 12), (dir, 5), (dir, 13), (dir, 15)] {
        let mut image = clean.clone();
        forge_bonus(&mut image, object, index, 512);
        assert_eq!(kinds(&image), [FindingKind::Accounting], "object {object} word {index}");
    }
    let mut image = clean.clone();
    forge_dnode(&mut image, dataset, &mut |dnode| put_u64(dnode, 24, 1 << 20));
    assert_eq!(kinds(&image), [FindingKind::Accounting]);
}

#[test]
fn clones_and_bookmarks_are_compared_in_both_directions() {
    let clean = image_with(&|datasets| {
        datasets[0].bookmarks = vec![BookmarkSpec { name: "m".to_owned(), snapshot: "a".to_owned() }];
        let mut clone = DatasetSpec::new("fz/clone".parse().unwrap());
        clone.origin = Some("fz/root@a".parse().unwrap());
        datasets.push(clone);
    });
    assert_eq!(kinds(&clean), []);
    let find = |bonus_type: u8, wanted: &dyn Fn(&[u8]) -> bool| {
        let found = objects(&clean).into_iter().find(|(_, d)| d.bonus_type == bonus_type && wanted(&d.bonus));
        let (object, dnode) = found.unwrap();
        (object, dnode.bonus)
    };
    // What the pool is born from has clones, too, but no content.
    let (snapshot, of_snapshot) = find(16, &|bonus| word(bonus, 32) != 0 && word(bonus, 9) > 0);
    let (dir, of_dir) = find(12, &|bonus| word(bonus, 18) != 0 && word(bonus, 5) > 0);
    let (clone, of_clone) = find(12, &|bonus| word(bonus, 3) == snapshot);
    let (origin, _) = find(16, &|bonus| word(bonus, 32) != 0 && word(bonus, 9) == 0);
    let away = |bonus: &[u8], index: usize, to: u64| to.wrapping_sub(word(bonus, index));
    for (object, index, add) in [
        // One dataset more that follows; no table of clones; no table of all clones; descent from elsewhere.
        (snapshot, 5, 1),
        (snapshot, 32, away(&of_snapshot, 32, 0)),
        (dir, 18, away(&of_dir, 18, 0)),
        (clone, 3, away(&of_clone, 3, origin)),
        // A GUID that the bookmark does not know.
        (snapshot, 14, 1),
    ] {
        let mut image = clean.clone();
        forge_bonus(&mut image, object, index, add);
        assert_eq!(kinds(&image), [FindingKind::Structure], "object {object} word {index}");
    }
}

#[test]
fn features_are_counted_again() {
    let mut image = image();
    let table = {
        let pool = Pool::open(&[&image]).unwrap();
        pool.directory_object("features_for_write").unwrap().unwrap()
    };
    forge_data(&mut image, table, &mut |block| {
        let name = b"com.delphix:spacemap_histogram";
        let slot = block.chunks_exact_mut(64).find(|slot| slot[14..].starts_with(name)).unwrap();
        slot[0] += 1;
    });
    assert_eq!(kinds(&image), [FindingKind::FeatureCount]);
}

#[test]
fn impossible_dnodes_are_errors() {
    let clean = image();
    let dataset = first_with_bonus(&clean, 16);
    for (at, value) in
        [(1, 0), (2, 0), (2, 255), (3, 0), (3, 255), (8, 0), (9, 255), (10, 255), (11, 255), (12, 255)]
    {
        let mut image = clean.clone();
        forge_dnode(&mut image, dataset, &mut |dnode| {
            dnode[at] = value;
            // The low byte alone may make a possible size.
            dnode[9] = if at == 8 { 0 } else { dnode[9] };
        });
        assert!(!kinds(&image).is_empty(), "byte {at} {value}");
    }
}

#[test]
fn lists_that_contain_themselves_are_errors() {
    let mut image = image();
    let list = Pool::open(&[&image]).unwrap().directory_object("free_bpobj").unwrap().unwrap();
    let map = first_with_bonus(&image, 7);
    // A list of no blocks, but of lists: itself, 512 times.
    forge_data(&mut image, map, &mut |block| {
        (0..4096).step_by(8).for_each(|at| put_u64(block, at, list));
    });
    forge_dnode(&mut image, list, &mut |dnode| {
        let bonus = &mut dnode[POINTER_AT + 128..];
        [(0, 0), (4, map), (5, 512)].into_iter().for_each(|(index, value)| put_u64(bonus, index * 8, value));
    });
    assert!(kinds(&image).contains(&FindingKind::Unreadable));
}

#[test]
fn snapshots_in_a_circle_are_errors() {
    let mut image = image();
    let dataset = first_with_bonus(&image, 16);
    forge_dnode(&mut image, dataset, &mut |dnode| put_u64(dnode, POINTER_AT + 128 + 8, dataset));
    assert!(kinds(&image).contains(&FindingKind::Unreadable));
}

#[test]
fn space_maps_longer_than_the_pool_or_of_two_metaslabs_are_errors() {
    let clean = image();
    let map = first_with_bonus(&clean, 7);
    let mut longer = clean.clone();
    forge_bonus(&mut longer, map, 1, SIZE as u64 * 2);
    assert!(kinds(&longer).contains(&FindingKind::Unreadable));

    let mut twice = clean.clone();
    let array = {
        let pool = Pool::open(&[&clean]).unwrap();
        pool.blocks.tops()[0].as_ref().unwrap().metaslab_array
    };
    forge_data(&mut twice, array, &mut |block| block[..16].copy_within(..8, 8));
    assert!(kinds(&twice).contains(&FindingKind::SpaceMap));
}
