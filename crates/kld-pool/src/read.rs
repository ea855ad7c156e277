//! The reader: a pool on devices or images becomes datasets, files and their content.
//!
//! It decodes everything on its own, from bytes that it does not trust: a damaged or hostile image gives an error, not a
//! panic, an endless loop or more memory than the image is worth. Nothing here knows how the writer works.
//!
//! `pool` opens a pool; `block` reads blocks and heals what it can, below it `raidz`, `checksum` and `decompress`;
//! `objset` and `zap` are objects and tables; `dataset` is what there is, `marks` what snapshots are marked
//! with, `fs` what is in them. `pieces` reads data of any length with several threads.

pub(crate) mod block;
pub(crate) mod bytes;
pub(crate) mod checksum;
pub(crate) mod dataset;
pub(crate) mod decompress;
pub(crate) mod diff;
pub(crate) mod dnode;
pub(crate) mod error;
pub(crate) mod fs;
pub(crate) mod label;
pub(crate) mod marks;
pub(crate) mod node;
pub(crate) mod nvlist;
pub(crate) mod objset;
pub(crate) mod pieces;
pub(crate) mod pointer;
pub(crate) mod pool;
pub(crate) mod property;
pub(crate) mod raidz;
pub(crate) mod sa;
pub(crate) mod vdev;
pub(crate) mod volume;
pub(crate) mod zap;

pub use dataset::{Dataset, DatasetKind, DatasetSpace};
pub use diff::{Change, Difference, diff};
pub use error::{OpenError, ReadError};
pub use fs::{Content, DirEntry, Filesystem, Walk, WalkEntry};
pub use marks::{Bookmark, Hold};
pub use node::{Metadata, Node, NodeKind};
pub use pieces::Piece;
pub use pool::{Feature, Pool, PropertyValue};
pub use property::{Property, PropertySource};
pub use volume::Volume;
