//! What was taken out, what was not, and why.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::Range;

use crate::read::ReadError;
use crate::tree::display;

/// Nothing more can be taken out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// What was asked for is not there or cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory to extract to is not empty.
    #[error("the directory `{path}` is not empty")]
    NotEmpty {
        /// The directory.
        path: String,
    },
    /// The host failed in a way that will not go away: its disk is full, the output is closed.
    #[error("cannot write `{path}`")]
    Write {
        /// What was being written.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A directory was moved while files were extracted into it.
    #[error("the directory above `{path}` was moved away while files were extracted")]
    Moved {
        /// The directory that is no longer where it was.
        path: String,
    },
}

impl ExtractError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ExtractError::NotEmpty { .. } => Some("name a new directory".to_owned()),
            ExtractError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room, or extract only a part: name a path".to_owned())
            }
            _ => None,
        }
    }
}

/// What was taken out of a pool.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Directories.
    pub directories: u64,
    /// Regular files, each counted once.
    pub files: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Symbolic links, devices, pipes and sockets.
    pub others: u64,
    /// Bytes of content that were read: holes do not count.
    pub bytes: u64,
    /// What is missing or damaged, in the order it was met.
    pub problems: Vec<Problem>,
    /// What the host, or the tar, could not take.
    pub left_out: BTreeMap<LeftOut, Omission>,
    /// Where in the file system paths begin.
    base: Vec<u8>,
}

/// Something that is missing or damaged in what was taken out.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The file, from the root of the file system, without a leading `/`.
    pub path: Vec<u8>,
    /// The bytes of the file that are affected; they are zeros in what was taken out.
    pub range: Option<Range<u64>>,
    /// What is wrong.
    pub trouble: Trouble,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Trouble {
    /// It cannot be read from the pool.
    Read(ReadError),
    /// It cannot be made on the host.
    Write(io::Error),
    /// No file can have such a name.
    Name,
    /// The directory holds the name twice.
    Twice,
    /// The directory is its own ancestor, or has a second name.
    Loop,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`/{}`: ", display(&self.path))?;
        if let Some(Range { start, end }) = self.range {
            write!(f, "bytes {start} to {end} are missing: ")?;
        }
        match &self.trouble {
            Trouble::Read(error) => write!(f, "{error}"),
            Trouble::Write(error) => write!(f, "cannot be made: {error}"),
            Trouble::Name => f.write_str("no file can have this name"),
            Trouble::Twice => f.write_str("its directory holds the name twice"),
            Trouble::Loop => f.write_str("the directory has another name already"),
        }
    }
}

/// A kind of thing that was left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LeftOut {
    /// Owners and groups: only root can give files away.
    Owners,
    /// Set-user-id and set-group-id bits of files whose owner was left out: they would lend the rights of somebody else.
    SetIdBits,
    /// Devices: only root can make them.
    Devices,
    /// Extended attributes of a namespace, such as `security`.
    Attributes(String),
    /// Sockets: a tar has none.
    Sockets,
}

/// How often something was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Omission {
    /// Files.
    pub count: u64,
    /// Path of the first one.
    pub first: Vec<u8>,
}

impl LeftOut {
    /// The attribute called `name`.
    pub(super) fn attribute(name: &[u8]) -> LeftOut {
        let namespace = name.split(|byte| *byte == b'.').next().unwrap_or_default();
        LeftOut::Attributes(String::from_utf8_lossy(namespace).into_owned())
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LeftOut::Owners => f.write_str("owners"),
            LeftOut::SetIdBits => f.write_str("set-user-id and set-group-id bits"),
            LeftOut::Devices => f.write_str("devices"),
            LeftOut::Attributes(namespace) => {
                write!(f, "extended attributes `{}.*`", display(namespace.as_bytes()))
            }
            LeftOut::Sockets => f.write_str("sockets"),
        }
    }
}

impl Report {
    /// Nothing yet, from the directory `base` on.
    pub(super) fn below(base: &str) -> Report {
        Report { base: base.trim_matches('/').into(), ..Report::default() }
    }

    /// A path from the root of the file system.
    fn full(&self, path: &[u8]) -> Vec<u8> {
        match (self.base.is_empty(), path.is_empty()) {
            (true, _) => path.to_owned(),
            (false, true) => self.base.clone(),
            (false, false) => [self.base.as_slice(), path].join(&b'/'),
        }
    }

    pub(super) fn problem(&mut self, path: &[u8], range: Option<Range<u64>>, trouble: Trouble) {
        let path = self.full(path);
        // Blocks that follow one another are one loss when they were lost for one reason.
        if let (Some(new), Some(last)) = (&range, self.problems.last_mut())
            && let Some(known) = &mut last.range
            && last.path == path
            && known.end == new.start
            && reason(&last.trouble) == reason(&trouble)
        {
            known.end = new.end;
            return;
        }
        self.problems.push(Problem { path, range, trouble });
    }

    pub(super) fn leave_out(&mut self, what: LeftOut, path: &[u8]) {
        let first = self.full(path);
        match self.left_out.entry(what) {
            Entry::Occupied(mut known) => known.get_mut().count += 1,
            Entry::Vacant(new) => drop(new.insert(Omission { count: 1, first })),
        }
    }
}

/// What went wrong, without where.
fn reason(trouble: &Trouble) -> Option<&str> {
    match trouble {
        Trouble::Read(ReadError::Block { problem, .. }) => Some(problem),
        _ => None,
    }
}
