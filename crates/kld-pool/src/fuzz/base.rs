//! The pool that fuzzing starts from: small, with some of everything that the writer knows.

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::device::WriteAt;
use crate::spec::{Content, SnapshotSpec, VdevType, Volume};
use crate::tree::{Data, Kind, Meta, Timestamp, Tree};
use crate::{DatasetSpec, PoolSpec, write_pool};

const SIZE: u64 = 64 << 20;

/// An output in memory.
struct Memory(Mutex<Vec<u8>>);

impl WriteAt for Memory {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = offset as usize;
        bytes.get_mut(start..start + buf.len()).ok_or(io::ErrorKind::WriteZero)?.copy_from_slice(buf);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let step = |_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    };
    (0..len).map(step).collect()
}

fn meta(mode: u32) -> Meta {
    Meta::root(mode, Timestamp { sec: 1_700_000_000, nsec: 5 })
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    let mut add = |path: &str, meta: Meta, kind: Kind| {
        tree.insert(path, meta, kind).expect("the path is good");
    };
    add("dir", meta(0o755), Kind::Directory);
    add("dir/sub", meta(0o700), Kind::Directory);
    add("dir/sub/empty", meta(0o644), Kind::File(Data::bytes([])));
    add("dir/short", meta(0o644), Kind::File(Data::bytes(*b"short")));
    add("dir/text", meta(0o644), Kind::File(Data::bytes(b"words and words. ".repeat(3000))));
    add("dir/noise", meta(0o644), Kind::File(Data::bytes(noise(20_000))));
    add("link", meta(0o777), Kind::Symlink(b"dir/short".to_vec()));
    add("long-link", meta(0o777), Kind::Symlink(vec![b'l'; 1000]));
    add("device", meta(0o600), Kind::CharDevice { major: 5, minor: 1 });
    add("pipe", meta(0o600), Kind::Fifo);
    // A name too long for a small table.
    add("names", meta(0o755), Kind::Directory);
    for i in 0..40 {
        add(&format!("names/{}-{i}", "n".repeat(60)), meta(0o644), Kind::Socket);
    }
    for (name, len) in [("inode", 20), ("spill", 1500), ("directory", 70_000)] {
        let mut meta = meta(0o640);
        meta.xattrs.insert(b"user.small".to_vec(), b"value".to_vec());
        meta.xattrs.insert(b"user.k".to_vec(), noise(len));
        add(name, meta, Kind::File(Data::bytes(*b"with attributes")));
    }
    tree
}

/// A pool on one device.
pub(super) fn image() -> Vec<u8> {
    let older = tree();
    let mut newer = older.clone();
    newer.insert("dir/short", meta(0o600), Kind::File(Data::bytes(*b"other"))).expect("the path is good");
    newer.remove("dir/noise");
    let mut root = dataset("fz/root", &[("compression", "zstd-1")], newer.into());
    root.snapshots = ["a", "b"].map(SnapshotSpec::from).into();
    root.snapshots[0].content = Some(older.into());
    let mut records = Tree::new();
    let content = Kind::File(Data::bytes(noise(700_000)));
    records.insert("f", meta(0o644), content).expect("the path is good");
    let records = dataset(
        "fz/records",
        &[("recordsize", "512"), ("compression", "off"), ("dnodesize", "auto")],
        records.into(),
    );
    let data = Data::bytes(b"a disk ".repeat(9000));
    let volume = Content::Volume(Volume { size: 1 << 20, block_size: 16_384, data });
    let mut spec = PoolSpec::new("fz".parse().expect("the name is good"), SIZE, [1; 32]);
    spec.vdev_type = VdevType::File;
    spec.datasets = vec![root, records, dataset("fz/vol", &[], volume)];
    for compression in ["gzip-6", "lz4", "zle", "lzjb"] {
        let mut tree = Tree::new();
        let content = Kind::File(Data::bytes(b"abcabcabc abc\0\0\0\0\0\0\0".repeat(600)));
        tree.insert("f", meta(0o644), content).expect("the path is good");
        let properties = [("compression", compression), ("quota", "1G")];
        spec.datasets.push(dataset(&format!("fz/{compression}"), &properties, tree.into()));
    }
    let out = Memory(Mutex::new(vec![0; SIZE as usize]));
    write_pool(&spec, &[&out], &()).expect("the pool is good");
    out.0.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn dataset(name: &str, properties: &[(&str, &str)], content: Content) -> DatasetSpec {
    let mut dataset = DatasetSpec::new(name.parse().expect("the name is good"));
    for (name, value) in properties {
        dataset.properties.set(name, value).expect("the property is good");
    }
    dataset.content = content;
    dataset
}
