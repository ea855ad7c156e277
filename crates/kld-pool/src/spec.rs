//! What a pool is to be: the input of [`crate::write_pool`].

use crate::name::{DatasetName, PoolName, SnapshotName};
use crate::pool_properties::PoolProperties;
use crate::properties::Properties;
use crate::tree::{Data, Tree};

/// A dataset with its content.
#[derive(Clone, Debug)]
pub struct DatasetSpec {
    /// Full name, pool included.
    pub name: DatasetName,
    /// Properties set on it; all others are inherited.
    pub properties: Properties,
    /// The snapshot it is a clone of, which another dataset of the pool has. What it holds like its origin is stored
    /// once; it is born after that snapshot.
    pub origin: Option<SnapshotName>,
    /// What it holds.
    pub content: Content,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<SnapshotSpec>,
    /// Its bookmarks.
    pub bookmarks: Vec<BookmarkSpec>,
}

/// What a dataset holds.
#[derive(Clone, Debug, Default)]
pub enum Content {
    /// Nothing is given: a file system with an empty root directory, or, for a clone, what its origin holds.
    #[default]
    Empty,
    /// A file system.
    Files(Tree),
    /// A volume: a block device.
    Volume(Volume),
}

/// A block device in a pool.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its size in bytes (`volsize`), a multiple of the block size.
    pub size: u64,
    /// Bytes of its blocks (`volblocksize`): a power of two from 512 to 16 MiB; 16384 is what ZFS takes by itself.
    pub block_size: u64,
    /// What it holds from its start on; the rest reads as zeros.
    pub data: Data,
}

/// A snapshot of a dataset.
#[derive(Clone, Debug)]
pub struct SnapshotSpec {
    /// The part of its name behind the `@`.
    pub name: String,
    /// What the dataset held when it was taken; none is what the next younger snapshot has, or the dataset itself.
    /// Blocks that are the same in both are stored once. Memory grows by about 180 bytes for each block of a dataset
    /// whose snapshots differ.
    pub content: Option<Content>,
    /// Tags of holds: while it has one, it cannot be destroyed.
    pub holds: Vec<String>,
}

/// A bookmark: it remembers when a snapshot was taken, so that changes since then can be sent when it is gone.
#[derive(Clone, Debug)]
pub struct BookmarkSpec {
    /// The part of its name behind the `#`.
    pub name: String,
    /// The snapshot, one of the same dataset: the part of its name behind the `@`.
    pub snapshot: String,
}

impl DatasetSpec {
    /// An empty file system that inherits everything.
    pub fn new(name: DatasetName) -> DatasetSpec {
        DatasetSpec {
            name,
            properties: Properties::new(),
            origin: None,
            content: Content::Empty,
            snapshots: Vec::new(),
            bookmarks: Vec::new(),
        }
    }
}

impl Content {
    /// Bytes as readers see them: of all files, or of what a volume is given.
    pub(crate) fn apparent_size(&self) -> u64 {
        match self {
            Content::Empty => 0,
            Content::Files(tree) => tree.apparent_size(),
            Content::Volume(volume) => volume.data.len(),
        }
    }
}

impl From<Tree> for Content {
    fn from(tree: Tree) -> Content {
        Content::Files(tree)
    }
}

impl From<&str> for SnapshotSpec {
    fn from(name: &str) -> SnapshotSpec {
        name.to_owned().into()
    }
}

impl From<String> for SnapshotSpec {
    /// A snapshot of what the dataset holds at the end.
    fn from(name: String) -> SnapshotSpec {
        SnapshotSpec { name, content: None, holds: Vec::new() }
    }
}

/// What the pool will lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VdevType {
    /// A disk or partition.
    Disk,
    /// A regular file.
    File,
}

/// How the devices of a vdev make up for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redundancy {
    /// Each holds everything; of a single one there is nothing else.
    Mirror,
    /// Blocks lie in rows over all of them, with parity.
    Raidz(Parity),
}

/// How many devices of a raidz vdev may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parity {
    /// raidz1.
    Single,
    /// raidz2.
    Double,
    /// raidz3.
    Triple,
}

impl Parity {
    /// Columns of parity in a row.
    pub(crate) fn columns(self) -> u64 {
        match self {
            Parity::Single => 1,
            Parity::Double => 2,
            Parity::Triple => 3,
        }
    }
}

/// A top-level vdev: one device, a mirror of several, or a raidz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vdev {
    /// Size in bytes of each of its devices. It fixes the size of its metaslabs for the life of the pool: give the size of the
    /// disk the pool will live on, where that is known.
    pub size: u64,
    /// Where the importing machine first looks for its devices; it also finds them elsewhere by their labels.
    pub paths: Vec<String>,
    /// What its devices are to one another.
    pub redundancy: Redundancy,
}

impl Vdev {
    /// A vdev of one device.
    pub fn disk(size: u64, path: impl Into<String>) -> Vdev {
        Vdev { size, paths: vec![path.into()], redundancy: Redundancy::Mirror }
    }
}

/// A pool on one or several top-level vdevs.
#[derive(Clone, Debug)]
pub struct PoolSpec {
    /// Its name.
    pub name: PoolName,
    /// Its top-level vdevs, at least one. Blocks are spread over them, copies of a block lie on different ones.
    pub vdevs: Vec<Vdev>,
    /// log2 of the smallest write, 9 to 16; 12 is right for nearly all disks.
    pub ashift: u8,
    /// GUIDs and hash salts derive from it: pools with equal seeds must never meet on one machine.
    pub seed: [u8; 32],
    /// When the pool and its datasets were made, in seconds since 1970.
    pub created: u64,
    /// Its datasets in any order; missing parents are made, empty and inheriting. The root of the pool is the one named
    /// like the pool.
    pub datasets: Vec<DatasetSpec>,
    /// The dataset to boot from.
    pub bootfs: Option<DatasetName>,
    /// Pool properties.
    pub properties: PoolProperties,
    /// What the devices are.
    pub vdev_type: VdevType,
    /// Threads that read and compress; 0 is one per core. The bytes written do not depend on it.
    pub threads: usize,
}

impl PoolSpec {
    /// An empty pool with 4 KiB sectors on a partition of `size` bytes that is labelled like the pool.
    pub fn new(name: PoolName, size: u64, seed: [u8; 32]) -> PoolSpec {
        const ASHIFT_4K: u8 = 12;
        PoolSpec {
            vdevs: vec![Vdev::disk(size, format!("/dev/disk/by-partlabel/{name}"))],
            name,
            ashift: ASHIFT_4K,
            seed,
            created: 0,
            datasets: Vec::new(),
            bootfs: None,
            properties: PoolProperties::new(),
            vdev_type: VdevType::Disk,
            threads: 0,
        }
    }
}
