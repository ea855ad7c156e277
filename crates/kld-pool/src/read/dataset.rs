//! Datasets and snapshots: what there is, how it hangs together and what it takes.

use std::collections::{BTreeMap, BTreeSet};

use super::bytes::{text, word};
use super::dnode::Dnode;
use super::error::ReadError;
use super::objset::{ObjectSet, SetKind};
use super::pointer::{BlockPointer, POINTER};
use super::pool::Pool;

/// `DMU_OT_DSL_DIR` and `DMU_OT_DSL_DATASET` as types of a bonus.
pub(crate) const BONUS_DIR: u8 = 12;
pub(crate) const BONUS_DATASET: u8 = 16;
/// Datasets inside datasets that are followed.
const MAX_DEPTH: usize = 64;

/// What a dataset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatasetKind {
    /// A file system.
    Filesystem,
    /// A volume.
    Volume,
    /// A snapshot of either.
    Snapshot,
    /// Something else, or damaged: it can be listed, not read.
    Other,
}

/// A dataset or snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dataset {
    /// Full name, such as `rpool/ROOT/debian@install`.
    pub name: String,
    /// What it is.
    pub kind: DatasetKind,
    /// Its GUID, which a copy made by send and receive shares.
    pub guid: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The transaction group that made it.
    pub created_txg: u64,
    /// Full name of the snapshot it is a clone of.
    pub origin: Option<String>,
    /// Of a snapshot: full names of its clones.
    pub clones: Vec<String>,
    /// Whether its content is encrypted.
    pub encrypted: bool,
    /// What it takes.
    pub space: DatasetSpace,
    pub(crate) object: u64,
    pub(crate) phys: DatasetPhys,
}

/// Space in bytes, as `zfs list` knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetSpace {
    /// With everything below it and its snapshots; of a snapshot what only it holds.
    pub used: u64,
    /// What its own content takes, shared or not.
    pub referenced: u64,
    /// Part of `referenced` that nothing else holds.
    pub unique: u64,
    /// Its own content before compression.
    pub logical: u64,
}

/// `dsl_dataset_phys_t`, the fields that are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatasetPhys {
    pub(crate) dir: u64,
    pub(crate) previous: u64,
    pub(crate) previous_txg: u64,
    pub(crate) next: u64,
    pub(crate) snapshots: u64,
    pub(crate) children: u64,
    pub(crate) created: u64,
    pub(crate) created_txg: u64,
    pub(crate) deadlist: u64,
    pub(crate) referenced: u64,
    pub(crate) uncompressed: u64,
    pub(crate) unique: u64,
    pub(crate) guid: u64,
    pub(crate) flags: u64,
    pub(crate) root: [u8; POINTER],
    /// Table of the clones of a snapshot; 0 when there never was one.
    pub(crate) next_clones: u64,
    pub(crate) properties: u64,
    /// Table of the holds of a snapshot; 0 when there never was one.
    pub(crate) holds: u64,
}

/// `dsl_dir_phys_t`, the fields that are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirPhys {
    pub(crate) head: u64,
    pub(crate) parent: u64,
    pub(crate) origin: u64,
    pub(crate) children: u64,
    pub(crate) used: u64,
    pub(crate) reserved: u64,
    pub(crate) properties: u64,
    pub(crate) flags: u64,
    /// Used by head, snapshots, children, reservations of children, reservation of the head.
    pub(crate) breakdown: [u64; 5],
    /// Table of the clones of all snapshots of its head; 0 when there never was one.
    pub(crate) clones: u64,
}

/// A directory of the dataset layer with its name.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    pub(crate) name: String,
    pub(crate) object: u64,
    pub(crate) phys: DirPhys,
    pub(crate) encrypted: bool,
}

impl Dir {
    /// Hidden directories of the pool itself: `$MOS`, `$FREE`, `$ORIGIN`.
    pub(crate) fn is_hidden(&self) -> bool {
        self.name.rsplit('/').next().is_some_and(|name| name.starts_with('$'))
    }
}

impl DatasetPhys {
    pub(crate) fn decode(dnode: &Dnode, object: u64) -> Result<DatasetPhys, ReadError> {
        const ROOT_AT: usize = 128;
        let bonus = &dnode.bonus;
        let root = super::bytes::array(bonus, ROOT_AT)
            .filter(|_| dnode.bonus_type == BONUS_DATASET)
            .ok_or_else(|| ReadError::damaged(format!("object {object}"), "it is not a dataset"))?;
        let at = |index| word(bonus, index);
        Ok(DatasetPhys {
            dir: at(0),
            previous: at(1),
            previous_txg: at(2),
            next: at(3),
            snapshots: at(4),
            children: at(5),
            created: at(6),
            created_txg: at(7),
            deadlist: at(8),
            referenced: at(9),
            uncompressed: at(11),
            unique: at(12),
            guid: at(14),
            flags: at(15),
            root,
            next_clones: at(32),
            properties: at(33),
            holds: at(34),
        })
    }

    pub(crate) fn pointer(&self) -> Result<BlockPointer, ReadError> {
        BlockPointer::decode(&self.root).map_err(|bad| ReadError::damaged("a dataset", bad.text()))
    }
}

impl DirPhys {
    pub(crate) fn decode(dnode: &Dnode, object: u64) -> Result<DirPhys, ReadError> {
        const LEN: usize = 256;
        let bonus = &dnode.bonus;
        if dnode.bonus_type != BONUS_DIR || bonus.len() < LEN {
            return Err(ReadError::damaged(format!("object {object}"), "it is not a dataset directory"));
        }
        let at = |index| word(bonus, index);
        Ok(DirPhys {
            head: at(1),
            parent: at(2),
            origin: at(3),
            children: at(4),
            used: at(5),
            reserved: at(9),
            properties: at(10),
            flags: at(12),
            breakdown: [at(13), at(14), at(15), at(16), at(17)],
            clones: at(18),
        })
    }
}

impl<'a> Pool<'a> {
    /// Every dataset and snapshot: parents before children, in byte order of names, each dataset followed by its
    /// snapshots, oldest first.
    pub fn datasets(&self) -> Result<Vec<Dataset>, ReadError> {
        let dirs = self.dirs()?;
        let mut datasets = Vec::new();
        for dir in dirs.iter().filter(|dir| !dir.is_hidden()) {
            self.chain_of(dir, &mut datasets)?;
        }
        Self::name_origins(&dirs, &mut datasets);
        Ok(datasets)
    }

    /// One dataset or snapshot by its name.
    pub fn dataset(&self, name: &str) -> Result<Dataset, ReadError> {
        let missing = || ReadError::NoDataset { name: name.to_owned() };
        self.datasets()?.into_iter().find(|dataset| dataset.name == name).ok_or_else(missing)
    }

    /// All directories of the dataset layer, hidden ones too.
    pub(crate) fn dirs(&self) -> Result<Vec<Dir>, ReadError> {
        let root = self
            .directory_object("root_dataset")?
            .ok_or_else(|| ReadError::damaged("the object directory", "it has no root dataset"))?;
        let mut dirs = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![(self.name().to_owned(), root, 0)];
        while let Some((name, object, depth)) = open.pop() {
            if !seen.insert(object) || depth > MAX_DEPTH {
                return Err(ReadError::damaged(format!("dataset `{name}`"), "it is its own ancestor"));
            }
            let dnode = self.mos.dnode(object)?;
            let phys = DirPhys::decode(&dnode, object)?;
            let below = open.len();
            if phys.children != 0 {
                for entry in self.mos.zap(phys.children)?.entries()? {
                    let child = entry.number().ok_or_else(|| {
                        ReadError::damaged(format!("dataset `{name}`"), "a child is not a number")
                    })?;
                    open.push((format!("{name}/{}", text(&entry.name)), child, depth + 1));
                }
            }
            open[below..].reverse();
            let encrypted = self.field(&dnode, object, "com.datto:crypto_key_obj")?.is_some();
            dirs.push(Dir { name, object, phys, encrypted });
        }
        Ok(dirs)
    }

    /// A field that an object of this layer has only when it carries a table.
    fn field(&self, dnode: &Dnode, object: u64, field: &str) -> Result<Option<u64>, ReadError> {
        const TABLE: u8 = 0xc4;
        if dnode.object_type != TABLE {
            return Ok(None);
        }
        super::zap::Zap::open(&self.blocks, dnode.clone(), object)?.number(field)
    }

    /// A field that a dataset has only when it carries a table.
    pub(crate) fn dataset_field(&self, object: u64, field: &str) -> Result<Option<u64>, ReadError> {
        self.field(&self.mos.dnode(object)?, object, field)
    }

    pub(crate) fn dataset_phys(&self, object: u64) -> Result<DatasetPhys, ReadError> {
        DatasetPhys::decode(&self.mos.dnode(object)?, object)
    }

    /// Appends the head of a directory and its snapshots.
    fn chain_of(&self, dir: &Dir, datasets: &mut Vec<Dataset>) -> Result<(), ReadError> {
        if dir.phys.head == 0 {
            return Ok(());
        }
        let head = self.dataset_phys(dir.phys.head)?;
        let kind = match ObjectSet::open(self.blocks.clone(), &head.pointer()?)?.map(|set| set.kind) {
            Some(SetKind::Volume) => DatasetKind::Volume,
            Some(SetKind::Filesystem) => DatasetKind::Filesystem,
            Some(SetKind::Meta | SetKind::Other(_)) | None => DatasetKind::Other,
        };
        let mut dataset = dataset_of(dir, dir.name.clone(), kind, dir.phys.head, head);
        dataset.space.used = dir.phys.used;
        datasets.push(dataset);
        let mut snapshots = Vec::new();
        if head.snapshots != 0 {
            for entry in self.mos.zap(head.snapshots)?.entries()? {
                let object = entry.number().unwrap_or(0);
                let phys = self.dataset_phys(object)?;
                let name = format!("{}@{}", dir.name, text(&entry.name));
                snapshots.push(dataset_of(dir, name, DatasetKind::Snapshot, object, phys));
            }
        }
        snapshots.sort_by_key(|snapshot| (snapshot.created_txg, snapshot.object));
        datasets.extend(snapshots);
        Ok(())
    }

    /// Fills in which snapshots clones come from, and which clones snapshots have.
    fn name_origins(dirs: &[Dir], datasets: &mut [Dataset]) {
        let places: BTreeMap<u64, usize> =
            datasets.iter().enumerate().map(|(place, dataset)| (dataset.object, place)).collect();
        for dir in dirs {
            // The snapshot that every ordinary dataset descends from is not listed.
            if let (Some(head), Some(origin)) = (places.get(&dir.phys.head), places.get(&dir.phys.origin)) {
                datasets[*head].origin = Some(datasets[*origin].name.clone());
                datasets[*origin].clones.push(dir.name.clone());
            }
        }
    }

    /// The datasets of a directory from its head back to its oldest snapshot: objects and contents.
    pub(crate) fn chain(&self, dir: &Dir) -> Result<Vec<(u64, DatasetPhys)>, ReadError> {
        let mut chain = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = dir.phys.head;
        while next != 0 {
            let phys = self.dataset_phys(next)?;
            if phys.dir != dir.object {
                break;
            }
            if !seen.insert(next) {
                let what = format!("dataset `{}`", dir.name);
                return Err(ReadError::damaged(what, "its snapshots run in a circle"));
            }
            chain.push((next, phys));
            next = phys.previous;
        }
        Ok(chain)
    }
}

fn dataset_of(dir: &Dir, name: String, kind: DatasetKind, object: u64, phys: DatasetPhys) -> Dataset {
    Dataset {
        name,
        kind,
        guid: phys.guid,
        created: phys.created,
        created_txg: phys.created_txg,
        origin: None,
        clones: Vec::new(),
        encrypted: dir.encrypted,
        space: DatasetSpace {
            used: phys.unique,
            referenced: phys.referenced,
            unique: phys.unique,
            logical: phys.uncompressed,
        },
        object,
        phys,
    }
}
