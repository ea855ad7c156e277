//! Why a pool cannot be opened or something in it cannot be read.

use std::io;

/// A pool could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// None of the devices has a label that is whole.
    #[error("found no pool: no vdev label is whole")]
    NoLabel,
    /// The devices belong to different pools.
    #[error("the devices belong to different pools: `{first}` and `{second}`")]
    DifferentPools {
        /// Name of one pool.
        first: String,
        /// Name of another.
        second: String,
    },
    /// There is a label, but no uberblock that is whole.
    #[error("pool `{pool}` has no uberblock that is whole")]
    NoUberblock {
        /// Name of the pool.
        pool: String,
    },
    /// The pool uses features that change what is read here.
    #[error("pool `{pool}` uses features that are not supported: {features}")]
    Features {
        /// Name of the pool.
        pool: String,
        /// Their names, separated by commas.
        features: String,
    },
    /// A device could not be read at all.
    #[error("cannot read device {index}")]
    Device {
        /// Its place among the devices given, from 0.
        index: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The pool's own objects cannot be read.
    #[error("cannot read the configuration of pool `{pool}`")]
    Read {
        /// Name of the pool.
        pool: String,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
}

/// Something in a pool could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No copy of a block could be read.
    #[error("cannot read the block at `{at}`: {problem}")]
    Block {
        /// Vdev and byte of the first copy: `<vdev>:<hexadecimal offset>`.
        at: String,
        /// What was wrong with the last copy tried.
        problem: String,
    },
    /// A structure contradicts itself, although its checksum is right.
    #[error("{what} is damaged: {problem}")]
    Damaged {
        /// What it is.
        what: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Something that OpenZFS can do and this reader cannot.
    #[error("{what} is not supported")]
    NotSupported {
        /// What it is.
        what: String,
    },
    /// The dataset's content is encrypted.
    #[error("`{dataset}` is encrypted")]
    Encrypted {
        /// Name of the dataset.
        dataset: String,
    },
    /// The pool has no such dataset or snapshot.
    #[error("no dataset `{name}` in the pool")]
    NoDataset {
        /// The name asked for.
        name: String,
    },
    /// The dataset is not a file system.
    #[error("`{name}` is not a file system")]
    NotAFilesystem {
        /// The name asked for.
        name: String,
    },
    /// The file system has no such file.
    #[error("no `{path}` in the file system")]
    NotFound {
        /// The path asked for.
        path: String,
    },
    /// Something else was expected at this place.
    #[error("`{what}` is not a {expected}")]
    WrongKind {
        /// What was found.
        what: String,
        /// What was asked for.
        expected: &'static str,
    },
}

impl ReadError {
    pub(crate) fn damaged(what: impl Into<String>, problem: &'static str) -> ReadError {
        ReadError::Damaged { what: what.into(), problem }
    }
}
