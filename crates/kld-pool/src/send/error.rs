//! Why a snapshot cannot be sent.

use std::io;

use crate::read::ReadError;
use crate::write::error::WriteError;

/// A stream could not be made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Only a snapshot stays as it is while it is sent.
    #[error("`{name}` is not a snapshot")]
    NotASnapshot {
        /// The name asked for.
        name: String,
    },
    /// A difference can only be sent from a state that the snapshot descends from.
    #[error("`{from}` is not an earlier snapshot of `{to}` or of what it is a clone of")]
    NotEarlier {
        /// The snapshot to start from.
        from: String,
        /// The snapshot to send.
        to: String,
    },
    /// The pool does not have a snapshot that a token speaks of.
    #[error("the pool has no snapshot with GUID {guid}, which was called `{name}`")]
    NoSuchGuid {
        /// Its GUID.
        guid: u64,
        /// The name it had, or the name of the snapshot that was sent from it.
        name: String,
    },
    /// The object that a token says to go on with is not in the snapshot.
    #[error("cannot resume at object {object}: `{name}` has no such object")]
    NoSuchObject {
        /// The object.
        object: u64,
        /// The snapshot.
        name: String,
    },
    /// Something that OpenZFS can send and this cannot.
    #[error("`{name}` cannot be sent: {what} is not supported")]
    NotSupported {
        /// The snapshot.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A table larger than 128 KiB cannot be taken apart.
    #[error("`{name}` has tables in blocks larger than 128 KiB: it must be sent with large blocks")]
    LargeTables {
        /// The snapshot.
        name: String,
    },
    /// The pool cannot be read.
    #[error("cannot read what is to be sent")]
    Read(#[from] ReadError),
    /// What is to be sent without a pool cannot be planned or read.
    #[error(transparent)]
    Content(#[from] WriteError),
    /// There is nothing to go on with.
    #[error("cannot go on at byte {offset}: the stream of `{name}` has {len}")]
    PastTheEnd {
        /// Where to go on.
        offset: u64,
        /// The length of the stream in bytes.
        len: u64,
        /// The snapshot.
        name: String,
    },
    /// A thread that reads ended early.
    #[error("a thread that reads ended early")]
    Interrupted,
    /// The stream cannot be written.
    #[error("cannot write the stream")]
    Write(#[source] io::Error),
}
