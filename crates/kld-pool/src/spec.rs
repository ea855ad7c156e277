//! What a pool is to be: the input of [`crate::write_pool`].

use crate::name::{DatasetName, PoolName};
use crate::pool_properties::PoolProperties;
use crate::properties::Properties;
use crate::tree::Tree;

/// A dataset with its content.
#[derive(Clone, Debug)]
pub struct DatasetSpec {
    /// Full name, pool included.
    pub name: DatasetName,
    /// Properties set on it; all others are inherited.
    pub properties: Properties,
    /// Its content; none is an empty root directory.
    pub tree: Option<Tree>,
    /// Names (the part behind the `@`) of snapshots, oldest first, which all hold the content.
    pub snapshots: Vec<String>,
}

impl DatasetSpec {
    /// An empty dataset that inherits everything.
    pub fn new(name: DatasetName) -> DatasetSpec {
        DatasetSpec { name, properties: Properties::new(), tree: None, snapshots: Vec::new() }
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

/// A pool on one vdev.
#[derive(Clone, Debug)]
pub struct PoolSpec {
    /// Its name.
    pub name: PoolName,
    /// Size of the vdev (the partition) in bytes. It fixes the size of metaslabs for the life of the pool: give the
    /// size of the disk the pool will live on, where that is known.
    pub size: u64,
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
    /// Where the importing machine first looks for the vdev; it also finds it elsewhere by its labels.
    pub vdev_path: String,
    /// What the vdev is.
    pub vdev_type: VdevType,
    /// Threads that read and compress; 0 is one per core. The bytes written do not depend on it.
    pub threads: usize,
}

impl PoolSpec {
    /// An empty pool with 4 KiB sectors on a partition labelled like the pool.
    pub fn new(name: PoolName, size: u64, seed: [u8; 32]) -> PoolSpec {
        const ASHIFT_4K: u8 = 12;
        PoolSpec {
            vdev_path: format!("/dev/disk/by-partlabel/{name}"),
            name,
            size,
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
