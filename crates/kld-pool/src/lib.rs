//! Writes ZFS pools as bytes: no kernel module, no root, no loop device, and the same bytes every time.
//!
//! ```no_run
//! use kld_pool::tree::Tree;
//! use kld_pool::{DatasetSpec, PoolSpec, write_pool};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut root = DatasetSpec::new("tank/home".parse()?);
//! root.properties.set("compression", "zstd-3")?;
//! root.content = Tree::from_dir("/srv/home")?.into();
//! root.snapshots.push("install".into());
//!
//! let mut spec = PoolSpec::new("tank".parse()?, 10 << 30, [7; 32]);
//! spec.datasets.push(root);
//! let out = std::fs::File::create_new("tank.img")?;
//! out.set_len(spec.size)?;
//! let summary = write_pool(&spec, &[&out], &())?;
//! println!("{} bytes allocated", summary.allocated);
//! # Ok(())
//! # }
//! ```
//!
//! What is written is an exported pool on one device or on a mirror (pool version 5000 with the feature flags of OpenZFS 2.0
//! and later), which any later OpenZFS imports without force. Each state of a dataset, its snapshots and then its head, is
//! born in one transaction group: there is no intent log, nothing is freed, and every metaslab in use is filled from its
//! front.
//!
//! Limits: one top-level vdev, no raidz; no encryption, no dedup, no clones.

mod codec;
mod device;
mod features;
mod format;
mod name;
mod pool_properties;
mod properties;
pub mod read;
mod spec;
pub mod tree;
pub mod verify;
mod write;

pub use codec::{Compression, ZSTD_FAST_LEVELS};
pub use device::{Progress, ReadAt, Region, WriteAt};
pub use name::{DatasetName, NameError, PoolName};
pub use pool_properties::PoolProperties;
pub use properties::{Properties, PropertyError};
pub use spec::{Content, DatasetSpec, PoolSpec, SnapshotSpec, VdevType, Volume};
pub use write::error::WriteError;
pub use write::pool::{DatasetSummary, Summary, write_pool};
