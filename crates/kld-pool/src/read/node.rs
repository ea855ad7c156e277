//! Files as a file system has them: their kind, owner, times.

use super::bytes::word;
use super::dnode::Dnode;
use super::error::ReadError;
use super::sa::{Attribute, Attributes};
use crate::tree::Timestamp;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What is known about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits with set-user-id, set-group-id and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Numeric owner; above 32 bits it is one of a foreign domain.
    pub uid: u64,
    /// Numeric group, like `uid`.
    pub gid: u64,
    /// Bytes of content; of a directory the number of its entries, `.` and `..` included.
    pub size: u64,
    /// Names it has.
    pub links: u64,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of the content.
    pub modified: Timestamp,
    /// Last change of anything.
    pub changed: Timestamp,
    /// When it was made.
    pub created: Timestamp,
    /// Transaction group that made it: tells objects apart that had the same number one after the other.
    pub generation: u64,
    /// Flags of ZFS (`zfs_znode.h`).
    pub flags: u64,
    /// Project the node counts for, if it has one.
    pub project: Option<u64>,
}

/// A node of a file system: a file, a directory or anything else that has a name.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) object: u64,
    pub(crate) dnode: Dnode,
    pub(crate) attributes: Attributes,
    pub(crate) metadata: Metadata,
    /// Object of the directory it is in, or was last moved to.
    pub(crate) parent: u64,
}

impl Node {
    pub(crate) fn new(object: u64, dnode: Dnode, attributes: Attributes) -> Result<Node, ReadError> {
        let damaged = |problem| ReadError::damaged(format!("object {object}"), problem);
        let number = |attribute| attributes.get(&attribute).map(|value| word(value, 0));
        let need = |attribute| number(attribute).ok_or_else(|| damaged("it lacks an attribute"));
        let time = |attribute| {
            let value = attributes.get(&attribute).map(Vec::as_slice).unwrap_or_default();
            let nsec = u32::try_from(word(value, 1)).unwrap_or(0).min(999_999_999);
            Timestamp { sec: word(value, 0).cast_signed(), nsec }
        };
        let mode = need(Attribute::Mode)?;
        let rdev = number(Attribute::Device).unwrap_or(0);
        // As in the Linux kernel: 12 bits and 20 bits.
        let (major, minor) = ((rdev >> 20) as u32, (rdev & 0xf_ffff) as u32);
        let kind = match mode & 0o170_000 {
            0o040_000 => NodeKind::Directory,
            0o100_000 => NodeKind::File,
            0o120_000 => NodeKind::Symlink,
            0o020_000 => NodeKind::CharDevice { major, minor },
            0o060_000 => NodeKind::BlockDevice { major, minor },
            0o010_000 => NodeKind::Fifo,
            0o140_000 => NodeKind::Socket,
            _ => return Err(damaged("its mode says no kind of file")),
        };
        let metadata = Metadata {
            kind,
            mode: (mode & 0o7777) as u32,
            uid: need(Attribute::Owner)?,
            gid: need(Attribute::Group)?,
            size: need(Attribute::Size)?,
            links: need(Attribute::Links)?,
            accessed: time(Attribute::AccessTime),
            modified: time(Attribute::ModificationTime),
            changed: time(Attribute::ChangeTime),
            created: time(Attribute::CreationTime),
            generation: need(Attribute::Generation)?,
            flags: need(Attribute::Flags)?,
            project: number(Attribute::Project),
        };
        let parent = need(Attribute::Parent)?;
        Ok(Node { object, dnode, attributes, metadata, parent })
    }

    /// The number of its object; names with the same number are hard links of one another.
    pub fn object(&self) -> u64 {
        self.object
    }

    /// What is known about it.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.metadata.kind == NodeKind::Directory
    }

    /// Bytes that its content takes in the pool.
    pub fn allocated(&self) -> u64 {
        self.dnode.used
    }
}
