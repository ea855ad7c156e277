//! Why a pool could not be written.

use std::io;
use std::path::PathBuf;

use crate::name::NameError;
use crate::write::space::MIN_DEVICE;

/// A pool could not be written. What was written so far is not a pool: labels are written last.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The vdev is smaller than any pool.
    #[error("cannot make a pool of {size} bytes: the least is {MIN_DEVICE}")]
    BelowMinimum {
        /// The size asked for.
        size: u64,
    },
    /// The vdev is larger than what can be described.
    #[error("cannot make a pool of {size} bytes: the most is 256 TiB")]
    AboveMaximum {
        /// The size asked for.
        size: u64,
    },
    /// The content does not fit. All of it was read and compressed to find out how much is needed.
    #[error("the content does not fit into {size} bytes: at least {needed} bytes are needed")]
    TooSmall {
        /// The size of all vdevs together.
        size: u64,
        /// A size on which the content fits.
        needed: u64,
    },
    /// The sector size is out of range.
    #[error("cannot make a pool with ashift `{0}`: it must be from 9 to 16")]
    BadAshift(u8),
    /// A snapshot cannot have its name.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// A dataset is named like one of another pool.
    #[error("dataset `{dataset}` is not in pool `{pool}`")]
    ForeignDataset {
        /// The dataset.
        dataset: String,
        /// The pool being written.
        pool: String,
    },
    /// Two datasets, or two snapshots of one dataset, have the same name.
    #[error("`{0}` is given twice")]
    Duplicate(String),
    /// A clone or a bookmark names a snapshot that is not in the pool.
    #[error("`{what}` needs the snapshot `{snapshot}`, which is not given")]
    NoSnapshot {
        /// The clone or bookmark.
        what: String,
        /// The snapshot.
        snapshot: String,
    },
    /// A dataset descends from a snapshot of itself, perhaps through other clones.
    #[error("`{0}` is a clone of itself")]
    CircularOrigin(String),
    /// A pool has 1 to 256 top-level vdevs, each with at least one device.
    #[error("a pool needs 1 to 256 vdevs, each with a device")]
    BadVdevs,
    /// A raidz has more devices than columns of parity, and at most 255.
    #[error("a raidz on {devices} devices is not possible: it takes {least} to 255")]
    BadRaidz {
        /// Devices given.
        devices: usize,
        /// The fewest that its parity takes.
        least: u64,
    },
    /// There are as many outputs as there are paths of devices.
    #[error("a pool on {paths} devices cannot be written to {outputs} outputs")]
    Outputs {
        /// Paths of devices in the specification.
        paths: usize,
        /// Outputs given.
        outputs: usize,
    },
    /// A volume has no size, one that is not a multiple of its block size, more data than room, a block size that is not a
    /// power of two from 512 bytes to 16 MiB, or snapshots or an origin of another kind.
    #[error("the volume `{dataset}` cannot have its sizes")]
    BadVolume {
        /// The volume.
        dataset: String,
    },
    /// A dataset lies below a volume.
    #[error("dataset `{0}` lies below a volume")]
    BelowVolume(String),
    /// A property of file systems is set on a volume.
    #[error("property `{property}` of `{dataset}` is not one of volumes")]
    NotForVolumes {
        /// The volume.
        dataset: String,
        /// The property.
        property: &'static str,
    },
    /// A property of volumes is set on a file system.
    #[error("property `{property}` of `{dataset}` is one of volumes only")]
    OnlyForVolumes {
        /// The file system.
        dataset: String,
        /// The property.
        property: &'static str,
    },
    /// A property needs a feature that the pool does not enable.
    #[error(
        "`{property}` of `{dataset}` needs feature `{feature}`, which is not in the pool's `compatibility`"
    )]
    FeatureDisabled {
        /// The dataset.
        dataset: String,
        /// The property that asks for it.
        property: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// The dataset to boot from is not in the pool.
    #[error("the dataset to boot from, `{0}`, is not given")]
    NoBootfs(String),
    /// Content exceeds a limit set on its dataset.
    #[error("`{property}` of `{dataset}` is {limit} bytes, less than the {used} bytes it uses")]
    OverQuota {
        /// The dataset.
        dataset: String,
        /// `quota` or `refquota`.
        property: &'static str,
        /// The limit.
        limit: u64,
        /// What is used.
        used: u64,
    },
    /// A file of the host could not be read.
    #[error("cannot read `{}` for `{path}` of `{dataset}`", source_path.display())]
    ReadFile {
        /// The dataset it was for.
        dataset: String,
        /// Its path there.
        path: String,
        /// The file of the host.
        source_path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the host is not what it was when the tree was made.
    #[error("`{}` changed while it was read for `{path}` of `{dataset}`", source_path.display())]
    FileChanged {
        /// The dataset it was for.
        dataset: String,
        /// Its path there.
        path: String,
        /// The file of the host.
        source_path: PathBuf,
    },
    /// Extended attributes exceed what ZFS keeps as system attributes.
    #[error(
        "the extended attributes of `{path}` of `{dataset}` take {bytes} bytes, more than ZFS can keep with the file"
    )]
    XattrsTooLarge {
        /// The dataset.
        dataset: String,
        /// The file.
        path: String,
        /// The size of the value at fault, or of all together.
        bytes: usize,
    },
    /// Too many names of a table share one hash.
    #[error("a table of {entries} names cannot be hashed")]
    TableTooCrowded {
        /// Names in it.
        entries: usize,
    },
    /// The compressor failed.
    #[error("cannot compress a block")]
    Compress {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The output failed.
    #[error("cannot write the pool at byte {offset}")]
    Output {
        /// Where on the vdev.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The output could not be made durable.
    #[error("cannot make the pool durable")]
    Sync {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl WriteError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            WriteError::BelowMinimum { .. } => Some("make the pool at least 64 MiB large".to_owned()),
            WriteError::TooSmall { needed, .. } => Some(format!(
                "make the pool at least {} MiB large, and larger to have room to work",
                needed >> 20
            )),
            WriteError::OverQuota { property, .. } => {
                Some(format!("raise `{property}` or put less into the dataset"))
            }
            WriteError::FileChanged { .. } => {
                Some("leave the source alone while the pool is written".to_owned())
            }
            WriteError::FeatureDisabled { property, feature, .. } => {
                Some(format!("change `{property}`, or choose a `compatibility` that has `{feature}`"))
            }
            WriteError::BadVolume { .. } => Some(
                "a volume is a multiple of its block size, which is a power of two from 512 to 16M, and its data fits"
                    .to_owned(),
            ),
            WriteError::NoBootfs(name) => Some(format!("add the dataset `{name}`")),
            _ => None,
        }
    }
}
