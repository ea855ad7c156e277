//! Writes, reads and verifies ZFS pools as bytes: no kernel module, no root, no loop device, the same bytes every time.
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
//! out.set_len(10 << 30)?;
//! let summary = write_pool(&spec, &[&out], &())?;
//! println!("{} bytes allocated", summary.allocated);
//! # Ok(())
//! # }
//! ```
//!
//! What is written is an exported pool on devices, mirrors and raidz (pool version 5000 with the feature flags of OpenZFS 2.0
//! and later), which any later OpenZFS imports without force. Each state of a dataset, its snapshots and then its head, is
//! born in one transaction group: there is no intent log, nothing is freed, and every metaslab in use is filled from its
//! front.
//!
//! [`read`] opens such a pool, and any that a kernel has changed since; [`verify`] checks all of it, with code that shares
//! nothing with the writer.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kld_pool::read::Pool;
//! use kld_pool::verify::verify;
//!
//! let image = std::fs::File::open("tank.img")?;
//! let pool = Pool::open(&[&image])?;
//! for entry in pool.filesystem("tank/home@install")?.walk() {
//!     println!("{}", String::from_utf8_lossy(&entry?.path));
//! }
//! assert!(verify(&pool, &()).is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! [`extract`] takes files, tars and images out of a pool again. [`send`] makes streams for `zfs receive` of a pool that is
//! open, or of what would be in one, and checks such streams.
//!
//! Limits of reading: disks, files, mirrors and raidz (no draid, no expanded raidz, no removed vdevs); little-endian
//! pools; no skein and edonr checksums; encrypted datasets are listed and their checksums verified, their content is not
//! read.
//!
//! Writing takes about 1100 bytes of memory for each file, its place in the tree included, and sending one that is in no pool
//! about 1500: the peak of the process, measured with empty files by `tests/memory.rs`. What files hold takes none.
//!
//! Limits of writing: no encryption, no dedup; the crate's README says what else, and what it would take.

#[doc(hidden)]
pub mod ceiling;
mod codec;
mod device;
pub mod extract;
mod features;
mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod name;
mod pool_properties;
mod properties;
pub mod read;
pub mod send;
mod spec;
pub mod tree;
pub mod verify;
mod write;

pub use codec::{Compression, ZSTD_FAST_LEVELS};
pub use device::{Progress, ReadAt, Region, WriteAt};
pub use name::{DatasetName, NameError, PoolName, SnapshotName};
pub use pool_properties::PoolProperties;
pub use properties::{Properties, PropertyError};
pub use spec::{
    BookmarkSpec, Content, DatasetSpec, Parity, PoolSpec, Redundancy, SnapshotSpec, Vdev, VdevType, Volume,
};
pub use write::error::WriteError;
pub use write::pool::{DatasetSummary, Summary, write_pool};
