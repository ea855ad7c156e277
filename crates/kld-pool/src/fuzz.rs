//! What fuzzing calls: each function takes any bytes and must come back, soon and without a panic.
//!
//! `fuzz/` has a target for each of them, and the inputs that were worth keeping; the tests here run those again.

mod base;
mod forge;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::sync::OnceLock;

use crate::device::ReadAt;
use crate::format::checksum::seal_area;
use crate::format::put_u64;
use crate::read::block::Blocks;
use crate::read::decompress::decompress;
use crate::read::dnode::Dnode;
use crate::read::label::read_labels;
use crate::read::nvlist::NvList;
use crate::read::pointer::{BlockPointer, POINTER};
use crate::read::sa::from_znode;
use crate::read::vdev::{DATA_START, Device, Form, Top};
use crate::read::zap::Zap;
use crate::read::{Filesystem, NodeKind, Pool, diff};
use crate::send::{SendOptions, check, check_unverified};
use crate::tree::{Kind, Tree};
use crate::verify::verify;
use forge::{Change, Forge, What};

/// Names of a file system and bytes of a file that are looked at: enough for all that a forged pool can have without
/// saying the same thing many times.
const MAX_NAMES: usize = 2000;
const MAX_CONTENT: u64 = 4 << 20;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by the names of their targets.
pub const TARGETS: [(&str, Target); 9] = [
    ("pool", pool),
    ("image", image),
    ("labels", labels),
    ("nvlist", nvlist),
    ("objects", objects),
    ("table", table),
    ("decompress", decompressors),
    ("tar", tar),
    ("stream", stream),
];

fn forge() -> &'static Forge {
    static FORGE: OnceLock<Forge> = OnceLock::new();
    FORGE.get_or_init(|| Forge::new(base::image()))
}

/// Changes to the blocks of a pool, whose checksums are then put right. What the verifier calls clean can be read.
pub fn pool(bytes: &[u8]) {
    const MAX_CHANGES: usize = 12;
    let forge = forge();
    let changes: Vec<Change> =
        bytes.chunks_exact(CHANGE).take(MAX_CHANGES).map(|bytes| change(forge, bytes)).collect();
    if let Some(forged) = forge.apply(&changes) {
        use_pool(&forged);
    }
}

/// Bytes of a change: block, place, operation, value.
const CHANGE: usize = 14;

fn change(forge: &Forge, bytes: &[u8]) -> Change {
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let block = number(0..2) as usize % forge.len();
    let (place, operation, value) = (number(2..5) as usize, bytes[5], number(6..14));
    // Most of a large block is empty: an even place counts only what is not.
    let at = match place % 2 {
        0 => place / 2 % (forge.extent(block) + 32),
        _ => place / 2,
    };
    let width = 1 << (operation & 3);
    let what = match operation >> 2 & 7 {
        0 | 1 => What::Set { width, value },
        2 => What::Add { width, value },
        3 => What::Flip { width, value },
        4 => What::Fill { len: width * 64, byte: value as u8 },
        5 => {
            What::Copy { len: width * 64, block: value as u16 as usize, from: (value >> 16) as u16 as usize }
        }
        6 => What::Copy { len: width * 8, block: value as u16 as usize, from: (value >> 16) as u16 as usize },
        _ => What::Lead { block: value as u16 as usize },
    };
    Change { block, at, what }
}

/// Uses a pool in every way that a reader can.
fn use_pool(image: &dyn ReadAt) {
    let Ok(pool) = Pool::open(&[image]) else { return };
    let report = verify(&pool, &());
    let clean = report.is_clean() && report.not_checked.is_empty();
    drop(report.findings.iter().map(ToString::to_string).collect::<Vec<_>>());
    drop(pool.properties());
    let Ok(datasets) = pool.datasets() else { return assert!(!clean, "datasets cannot be listed") };
    let mut before: Option<Filesystem> = None;
    for dataset in datasets.iter().take(64) {
        drop(pool.dataset_properties(dataset));
        if let Ok(volume) = pool.volume(&dataset.name) {
            let mut content = vec![0; volume.size().min(MAX_CONTENT) as usize];
            drop(volume.read(0, &mut content));
            drop(volume.read(volume.size(), &mut content));
        }
        if let Ok(filesystem) = pool.filesystem(&dataset.name) {
            let read = use_filesystem(&filesystem);
            // Of snapshots the verifier checks blocks, not files.
            let is_snapshot = dataset.name.contains('@');
            assert!(!clean || is_snapshot || read.is_ok(), "`{}`: {read:?}", dataset.name);
            if let Some(before) = &before {
                drop(diff(before, &filesystem));
            }
            before = Some(filesystem);
        }
    }
}

/// Reads what is in a file system; the first failure is given.
fn use_filesystem(filesystem: &Filesystem) -> Result<(), String> {
    let mut result = Ok(());
    let mut note = |error: String| {
        if result.is_ok() {
            result = Err(error);
        }
    };
    for entry in filesystem.walk().take(MAX_NAMES) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                note(error.to_string());
                continue;
            }
        };
        let node = &entry.node;
        drop(filesystem.lookup(&entry.path));
        if let Err(error) = filesystem.xattrs(node) {
            note(error.to_string());
        }
        match node.metadata().kind {
            NodeKind::File => {
                let mut content = filesystem.content(node).take(MAX_CONTENT);
                if let Err(error) = io::copy(&mut content, &mut io::sink()) {
                    note(error.to_string());
                }
                let mut at = 0;
                for _ in 0..16 {
                    match filesystem.next_data(node, at) {
                        Ok(Some((start, end))) => {
                            assert!(at <= start && start < end, "data at {start} to {end} is behind {at}");
                            at = end;
                        }
                        Ok(None) | Err(_) => break,
                    }
                }
                let end = node.metadata().size.saturating_sub(1);
                drop(filesystem.read(node, end, &mut [0; 2]));
            }
            NodeKind::Symlink => drop(filesystem.read_link(node)),
            _ => {}
        }
    }
    result
}

/// Bytes of a scratch: place, value.
const SCRATCH: usize = 5 + 8;

/// A whole pool with scratches that no checksum was put right for: damage as disks and cables make it. The reader finds
/// another copy or says so.
pub fn image(bytes: &[u8]) {
    const MAX_SCRATCHES: usize = 64;
    let forge = forge();
    let mut scratched = forge.untouched();
    for scratch in bytes.chunks_exact(SCRATCH).take(MAX_SCRATCHES) {
        let (place, value) = scratch.split_at(5);
        let place = place.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
        scratched.scratch(forge.place(place), value);
    }
    use_pool(&scratched);
}

/// A device that begins with these bytes; areas of labels get their checksums.
pub fn labels(bytes: &[u8]) {
    const CONFIG: std::ops::Range<usize> = 16 << 10..128 << 10;
    const SLOT: usize = 4096;
    let mut image = vec![0; 1 << 20];
    let (config, ring) = bytes.split_at(bytes.len() / 2);
    let len = config.len().min(CONFIG.len() - 64);
    image[CONFIG.start..CONFIG.start + len].copy_from_slice(&config[..len]);
    seal_area(&mut image[CONFIG], CONFIG.start as u64);
    for (i, slot) in ring.chunks(200).take(32).enumerate() {
        let at = CONFIG.end + i * SLOT;
        image[at..at + slot.len()].copy_from_slice(slot);
        seal_area(&mut image[at..at + SLOT], at as u64);
    }
    for label in read_labels(&image, image.len() as u64) {
        for uberblock in &label.uberblocks {
            let _ = uberblock.root();
        }
    }
    use_pool(&image);
}

/// A packed list of names and values.
pub fn nvlist(bytes: &[u8]) {
    let Some(list) = NvList::unpack(bytes) else { return };
    let _ = list.iter().count();
    drop(Top::of(&list, &|guid| Some(guid as usize)));
    for list in list.lists("children") {
        drop(Top::of(list, &|_| None));
    }
}

/// Dnodes, block pointers and what stands in a bonus.
pub fn objects(bytes: &[u8]) {
    let _ = BlockPointer::decode(bytes);
    drop(crate::read::objset::objects_of(bytes, u64::MAX - 3));
    drop(from_znode(bytes));
    if let Ok(Some(dnode)) = Dnode::decode(bytes) {
        drop(dnode.pointers.iter().map(|pointer| BlockPointer::decode(pointer)).collect::<Vec<_>>());
        drop(crate::read::dataset::DatasetPhys::decode(&dnode, 1));
        drop(crate::read::dataset::DirPhys::decode(&dnode, 1));
        let blocks = Blocks::new(Vec::new(), Vec::new());
        let mut buf = [0; 700];
        for at in [0, 1, 1 << 40, u64::MAX - 600, u64::MAX] {
            drop(dnode.read_bytes(&blocks, at, &mut buf));
            drop(dnode.next_data(&blocks, at));
        }
    }
}

/// The blocks of a table, whose first byte says how large they are.
pub fn table(bytes: &[u8]) {
    const MAX_BLOCKS: usize = 8;
    let Some((first, content)) = bytes.split_first() else { return };
    let size = 512usize << (first % 6);
    let mut device = vec![0; DATA_START as usize];
    device.extend(&content[..content.len().min(size * MAX_BLOCKS)]);
    device.resize(DATA_START as usize + size * MAX_BLOCKS, 0);
    let blocks = blocks_of(&device);
    let Ok(zap) = Zap::open(&blocks, table_of(size, MAX_BLOCKS), 7) else { return };
    drop(zap.problems());
    if let Ok(entries) = zap.entries() {
        for entry in entries.iter().take(64) {
            let _ = (entry.number(), entry.text(), entry.hex_name());
            drop(zap.get(&entry.name));
        }
    }
    drop(zap.get(b"name"));
}

/// A pointer to a block that is stored as it is, without a checksum.
fn pointer(offset: usize, size: usize, level: u64) -> [u8; POINTER] {
    const OFF: u64 = 2;
    let sectors = (size / 512) as u64;
    let mut bytes = [0; POINTER];
    put_u64(&mut bytes, 0, sectors);
    put_u64(&mut bytes, 8, (offset / 512) as u64);
    put_u64(
        &mut bytes,
        48,
        (sectors - 1) | (sectors - 1) << 16 | OFF << 32 | OFF << 40 | level << 56 | 1 << 63,
    );
    put_u64(&mut bytes, 80, 1);
    bytes
}

/// A device that holds everything, as the only one of its pool.
fn blocks_of(device: &dyn ReadAt) -> Blocks<'_> {
    let top = Top {
        form: Form::Copies(vec![Some(0)]),
        ashift: 9,
        asize: 1 << 30,
        metaslab_shift: 29,
        metaslab_array: 0,
        table: 0,
    };
    let device = Device { io: device, size: device.size().unwrap_or(0), labels: Vec::new(), guid: 1 };
    Blocks::new(vec![device], vec![Some(top)])
}

/// A table whose blocks lie one after the other on a device.
fn table_of(size: usize, count: usize) -> Dnode {
    let mut bytes = [0; 512];
    // Table, levels, pointers, block size in sectors, last block.
    (bytes[0], bytes[1], bytes[2], bytes[3]) = (4, 17, 1, 3);
    bytes[8..10].copy_from_slice(&((size / 512) as u16).to_le_bytes());
    put_u64(&mut bytes, 16, count as u64 - 1);
    for i in 0..3 {
        bytes[64 + i * POINTER..64 + (i + 1) * POINTER].copy_from_slice(&pointer(i * size, size, 0));
    }
    Dnode::decode(&bytes).expect("the dnode is good").expect("it is in use")
}

/// A compressed block, behind the number of its algorithm and its size.
pub fn decompressors(bytes: &[u8]) {
    let Some((head, stored)) = bytes.split_first_chunk::<3>() else { return };
    let lsize = usize::from(u16::from_le_bytes([head[1], head[2]])) * 64;
    if let Ok(out) = decompress(head[0] % 20, stored.to_vec(), lsize) {
        assert_eq!(out.len(), lsize);
    }
}

/// A tar; checksums of headers are put right when its first byte is odd.
pub fn tar(bytes: &[u8]) {
    use std::os::fd::AsRawFd;
    let Some((first, content)) = bytes.split_first() else { return };
    let mut content = content.to_vec();
    if first % 2 == 1 {
        for header in content.chunks_exact_mut(512) {
            if header[257..262] == *b"ustar" {
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
    }
    let Ok(file) = rustix::fs::memfd_create("tar", rustix::fs::MemfdFlags::CLOEXEC) else { return };
    let mut file = std::fs::File::from(file);
    file.write_all(&content).expect("memory can be written");
    let Ok(mut tree) = Tree::from_tar(format!("/proc/self/fd/{}", file.as_raw_fd())) else { return };
    for (path, node) in tree.walk() {
        if let Kind::File(data) = node.kind()
            && data.len() < MAX_CONTENT
        {
            assert_eq!(tree.read(&path).expect("a file can be read").len() as u64, data.len());
        }
        let _ = tree.resolve(&path);
    }
    let _ = (tree.apparent_size(), tree.len());
    tree.clamp_mtimes(crate::tree::Timestamp { sec: 0, nsec: 0 });
    tree.clone().overlay(tree);
}

/// A send stream: of a forged pool's snapshots, with these changes, or made of nothing but these bytes.
///
/// The first byte says which; checksums do not count when it is odd.
pub fn stream(bytes: &[u8]) {
    const CHANGE: usize = 3 + 8;
    let Some((first, content)) = bytes.split_first() else { return };
    let stream = match first >> 1 & 3 {
        0 => content.to_vec(),
        number => {
            let mut stream = streams()[usize::from(number) - 1].clone();
            for change in content.chunks_exact(CHANGE).take(16) {
                let place = change[..3].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
                let place = place % stream.len();
                let len = (stream.len() - place).min(8);
                stream[place..place + len].copy_from_slice(&change[3..3 + len]);
            }
            stream
        }
    };
    drop(match first % 2 {
        1 => check_unverified(stream.as_slice()),
        _ => check(stream.as_slice()),
    });
}

/// Streams of the pool that fuzzing starts from: full, with everything that may be left as it is; full and plain; a
/// difference.
fn streams() -> &'static [Vec<u8>; 3] {
    static STREAMS: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    STREAMS.get_or_init(|| {
        let image = base::image();
        let pool = Pool::open(&[&image]).expect("the pool is good");
        let all = SendOptions { compressed: true, large_blocks: true, embedded: true };
        let send = |to: &str, from: Option<&str>, options| {
            let mut bytes = Vec::new();
            let stream = pool.send(to, from, options).expect("the snapshot is there");
            stream.write_to(&mut bytes).expect("memory can be written");
            bytes
        };
        [
            send("fz/root@a", None, all),
            send("fz/root@b", None, SendOptions::default()),
            send("fz/root@b", Some("fz/root@a"), all),
        ]
    })
}
