//! Random trees, and pools of them.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod zdb;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use kld_pool::read::Pool;
use kld_pool::tree::{Data, Kind, Meta, Timestamp, Tree};
use kld_pool::{
    Content, DatasetSpec, PoolSpec, ReadAt, SnapshotSpec, Summary, VdevType, WriteAt, write_pool,
};

/// Deterministic pseudo-random numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

/// Content of a size near the limits of blocks, of every degree of compressibility.
fn content(random: &mut Random) -> Vec<u8> {
    let size = random.pick(&[
        0usize, 1, 100, 112, 511, 512, 513, 4095, 4096, 4097, 16_384, 131_071, 131_072, 131_073, 262_144,
        300_000, 1_048_577,
    ]);
    match random.below(5) {
        0 => vec![0; size],
        1 => vec![random.next() as u8; size],
        2 => {
            let part = random.bytes(size / 20 + 1);
            part.iter().copied().cycle().take(size).collect()
        }
        3 => {
            let mut holes = random.bytes(size);
            holes[size / 3..size / 3 * 2].fill(0);
            holes
        }
        _ => random.bytes(size),
    }
}

/// A tree of about `count` nodes of all kinds.
pub(crate) fn random_tree(random: &mut Random, count: usize) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![String::new()];
    let mut files: Vec<String> = Vec::new();
    for i in 0..count {
        let width = random.pick(&[1usize, 5, 20, 49, 50, 51, 120]);
        let dir = dirs[random.below(dirs.len())].clone();
        let path = format!(
            "{dir}{}-{i}",
            "abé -_."[..random.pick(&[1, 2, 4, 7])].repeat(width).chars().take(width).collect::<String>()
        );
        let mode = random.pick(&[0o644, 0o755, 0o600, 0o4755, 0o070, 0o007, 0o604]);
        let time = Timestamp { sec: 1_700_000_000 + i as i64, nsec: random.below(1_000_000_000) as u32 };
        let mut meta = Meta {
            mode,
            uid: random.pick(&[0, 33, 1000]),
            gid: random.pick(&[0, 50]),
            mtime: time,
            xattrs: BTreeMap::new(),
        };
        if random.below(5) == 0 {
            let len = random.pick(&[1usize, 30, 200, 1000, 3000, 20_000]);
            meta.xattrs.insert(b"user.k".to_vec(), random.bytes(len));
        }
        match random.below(100) {
            0..12 => {
                tree.insert(&path, meta, Kind::Directory).unwrap();
                dirs.push(path + "/");
            }
            12..22 => {
                let target = vec![b't'; random.pick(&[1, 10, 100, 160, 170, 400, 1000])];
                tree.insert(&path, meta, Kind::Symlink(target)).unwrap();
            }
            22..28 if !files.is_empty() => {
                let existing = files[random.below(files.len())].clone();
                tree.link(existing, &path).unwrap();
            }
            28..31 => drop(tree.insert(&path, meta, Kind::CharDevice { major: 5, minor: 300 }).unwrap()),
            31..33 => drop(tree.insert(&path, meta, Kind::Fifo).unwrap()),
            33..35 => drop(tree.insert(&path, meta, Kind::Socket).unwrap()),
            _ => {
                let data = Data::bytes(content(random));
                tree.insert(&path, meta, Kind::File(data)).unwrap();
                files.push(path);
            }
        }
    }
    tree
}

/// A pool named `fz` of `mib` MiB, used as a file.
pub(crate) fn pool(mib: u64) -> PoolSpec {
    let mut spec = PoolSpec::new("fz".parse().unwrap(), mib << 20, [9; 32]);
    spec.vdev_type = VdevType::File;
    spec.vdevs[0].paths = vec!["/pool".to_owned()];
    spec.created = 1_700_000_000;
    spec.threads = 2;
    spec
}

pub(crate) fn dataset(name: &str, properties: &[(&str, &str)], tree: Option<Tree>) -> DatasetSpec {
    let mut dataset = DatasetSpec::new(name.parse().unwrap());
    properties.iter().for_each(|(name, value)| dataset.properties.set(name, value).unwrap());
    dataset.content = tree.map_or(Content::Empty, Content::Files);
    dataset
}

pub(crate) fn meta() -> Meta {
    Meta::root(0o644, Timestamp { sec: 1_700_000_000, nsec: 0 })
}

/// A snapshot of `tree`.
pub(crate) fn snapshot(name: &str, tree: &Tree) -> SnapshotSpec {
    SnapshotSpec { content: Some(Content::Files(tree.clone())), ..name.into() }
}

/// The same content in memory of its own: known to be the same only by reading it.
pub(crate) fn copy(tree: &Tree) -> Tree {
    let mut copy = Tree::new();
    let mut first: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for (path, node) in tree.walk() {
        if let Some(existing) = first.get(&node.id()) {
            copy.link(existing, &path).unwrap();
            continue;
        }
        let kind = match node.kind() {
            Kind::File(data) => Kind::File(Data::bytes(data.read().unwrap())),
            kind => kind.clone(),
        };
        copy.insert(&path, node.meta().clone(), kind).unwrap();
        first.insert(node.id(), path);
    }
    copy
}

/// Every file of a state read back, and one of them by zdb, too.
pub(crate) fn check_state(image: &Image, state: &str, tree: &Tree, random: &mut Random) {
    let devices = image.devices();
    let devices: Vec<&dyn ReadAt> = devices.iter().map(|device| device as &dyn ReadAt).collect();
    let pool = Pool::open(&devices).unwrap();
    let filesystem = pool.filesystem(state).unwrap();
    let files: Vec<_> = tree.walk().filter(|(_, node)| matches!(node.kind(), Kind::File(_))).collect();
    for (path, _) in &files {
        let shown = String::from_utf8_lossy(path);
        let node = filesystem.lookup(path).unwrap();
        let mut content = Vec::new();
        filesystem.content(&node).read_to_end(&mut content).unwrap();
        assert!(content == tree.read(path).unwrap(), "{state} {shown}");
    }
    // zdb refuses to extract an empty file.
    let full: Vec<_> = files
        .iter()
        .filter(|(_, node)| matches!(node.kind(), Kind::File(data) if !data.is_empty()))
        .collect();
    let path = std::str::from_utf8(&full[random.below(full.len())].0).unwrap();
    assert!(image.extract(state, path) == tree.read(path).unwrap(), "{state} {path}");
}

/// The tree with some files gone, rewritten, longer, shorter, with holes, with other attributes, and new ones.
pub(crate) fn changed(tree: &Tree, random: &mut Random) -> Tree {
    let mut new = tree.clone();
    let paths: Vec<Vec<u8>> = tree.walk().skip(1).map(|(path, _)| path).collect();
    for path in paths {
        let Some(node) = new.get(&path) else { continue };
        let is_file = matches!(node.kind(), Kind::File(_));
        let put = |new: &mut Tree, path: &[u8], content: Vec<u8>| {
            new.insert(path, meta(), Kind::File(Data::bytes(content))).unwrap();
        };
        match random.below(24) {
            0 => drop(new.remove(&path)),
            1 => put(&mut new, &[&path, &b".new"[..]].concat(), random.bytes(70_000)),
            2 => new.meta_mut(&path).unwrap().mtime.sec += 1,
            3 => {
                let value = random.bytes(3000);
                new.meta_mut(&path).unwrap().xattrs.insert(b"user.new".to_vec(), value);
            }
            change @ 4..=7 if is_file => {
                let mut content = new.read(&path).unwrap();
                let middle = content.len() / 2;
                match change {
                    4 => content.extend(random.bytes(200_000)),
                    5 => content.truncate(middle),
                    6 => content[middle..].fill(0),
                    _ => content.iter_mut().step_by(150_000).for_each(|byte| *byte ^= 1),
                }
                put(&mut new, &path, content);
            }
            _ => {}
        }
    }
    new
}

/// Changes, removes and adds files and attributes here and there.
pub(crate) fn change(tree: &mut Tree, random: &mut Random) {
    let paths: Vec<(Vec<u8>, bool)> =
        tree.walk().skip(1).map(|(path, node)| (path, matches!(node.kind(), Kind::File(_)))).collect();
    for (path, is_file) in paths {
        if tree.get(&path).is_none() {
            continue;
        }
        match random.below(20) {
            0 => drop(tree.remove(&path)),
            1 if is_file => {
                let content = random.bytes(200_000);
                tree.insert(&path, meta(), Kind::File(Data::bytes(content))).unwrap();
            }
            2 if is_file => {
                let mut content = tree.read(&path).unwrap();
                let middle = content.len() / 2;
                content[middle..].fill(0);
                tree.insert(&path, meta(), Kind::File(Data::bytes(content))).unwrap();
            }
            3 => tree.meta_mut(&path).unwrap().mtime.sec += 1,
            4 => {
                let value = random.bytes(2000);
                tree.meta_mut(&path).unwrap().xattrs.insert(b"user.new".to_vec(), value);
            }
            5 => {
                let new = [path.as_slice(), b".new"].concat();
                tree.insert(&new, meta(), Kind::File(Data::bytes(random.bytes(70_000)))).unwrap();
            }
            _ => {}
        }
    }
}

/// A pool in a folder of its own.
pub(crate) struct Image {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) summary: Summary,
    devices: Vec<PathBuf>,
}

/// Writes a pool; its devices are `pool.img`, `pool1.img` and so on.
pub(crate) fn write(spec: &PoolSpec) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let sizes = spec.vdevs.iter().flat_map(|vdev| vdev.paths.iter().map(|_| vdev.size));
    let (devices, outs): (Vec<PathBuf>, Vec<File>) = sizes
        .enumerate()
        .map(|(i, size)| {
            let name = if i == 0 { "pool.img".to_owned() } else { format!("pool{i}.img") };
            let path = dir.path().join(name);
            let out = File::create(&path).unwrap();
            out.set_len(size).unwrap();
            (path, out)
        })
        .unzip();
    let outs: Vec<&dyn WriteAt> = outs.iter().map(|out| out as &dyn WriteAt).collect();
    let summary = write_pool(spec, &outs, &()).unwrap();
    Image { dir, summary, devices }
}

impl Image {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.devices[0]).unwrap()
    }

    /// Its first device, open for reading: all there is of most pools.
    pub(crate) fn device(&self) -> File {
        File::open(&self.devices[0]).unwrap()
    }

    /// Its devices in the order of the vdevs, open for reading.
    pub(crate) fn devices(&self) -> Vec<File> {
        self.devices.iter().map(|path| File::open(path).unwrap()).collect()
    }

    /// All bytes of every device.
    pub(crate) fn bytes_of_devices(&self) -> Vec<Vec<u8>> {
        self.devices.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }
}
