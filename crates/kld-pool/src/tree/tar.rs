//! A tree from an uncompressed tar: headers are indexed once, file content stays in the tar.
//!
//! Understood: POSIX ustar, the GNU long names and base-256 numbers, PAX records (`path`, `linkpath`, `size`, `mtime`,
//! `uid`, `gid`, `SCHILY.xattr.*`, `GNU.sparse.*` version 1.0) and old GNU sparse members. Hard links may come before
//! their target. Names like `./x` are normalised; absolute names, `..` and names whose parent is a symbolic link are
//! errors. Compressed tars are not read: their content could not be reached without unpacking them.

mod header;
mod pax;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use header::{BLOCK, Header};
use pax::Records;

use super::{Data, Extent, InsertError, InvalidPath, Kind, Meta, SourceFile, Timestamp, Tree, path};

/// A tar could not be taken in.
#[derive(Debug, thiserror::Error)]
#[error("cannot read tar `{}` at byte {offset}: {problem}", path.display())]
pub struct TarError {
    /// The tar.
    pub path: PathBuf,
    /// Where the member or header at fault starts.
    pub offset: u64,
    /// What is wrong there.
    pub problem: TarProblem,
    /// The failure below it, if there is one.
    #[source]
    pub source: Option<io::Error>,
}

impl TarError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self.problem {
            TarProblem::Compressed => Some("decompress it first"),
            TarProblem::Truncated => {
                Some("the file is shorter than its headers say: make or download it again")
            }
            TarProblem::UnsupportedMember { .. } | TarProblem::GlobalRecord(_) => {
                Some("repack it with `tar --format=pax`")
            }
            _ => None,
        }
    }
}

/// What is wrong with a tar.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarProblem {
    /// Reading failed.
    #[error("reading failed")]
    Unreadable,
    /// It is a gzip, xz, zstd or bzip2 stream.
    #[error("it is compressed")]
    Compressed,
    /// A header's checksum does not match.
    #[error("this is not a tar header")]
    NotAHeader,
    /// A field does not hold a number in range.
    #[error("the field `{0}` of the header is not a number in range")]
    BadNumber(&'static str),
    /// A PAX record cannot be understood.
    #[error("the extended header record `{0}` cannot be understood")]
    BadRecord(String),
    /// A global PAX record that makes sense for one member only.
    #[error("the extended header record `{0}` stands for all members, but fits only one")]
    GlobalRecord(&'static str),
    /// The tar ends inside a member.
    #[error("it ends inside a member")]
    Truncated,
    /// Extended headers of absurd size.
    #[error("an extended header of {0} bytes is too large")]
    HeaderTooLarge(u64),
    /// A member of a kind that cannot be represented.
    #[error("member `{name}` has the unsupported type `{flag}`")]
    UnsupportedMember {
        /// The member.
        name: String,
        /// Its type flag.
        flag: char,
    },
    /// The map of a sparse member is inconsistent.
    #[error("the sparse map of member `{0}` is inconsistent")]
    BadSparseMap(String),
    /// A member's name starts with `/`.
    #[error("member name `{0}` is absolute")]
    AbsoluteName(String),
    /// A member's name cannot be a path in a tree.
    #[error(transparent)]
    BadName(#[from] InvalidPath),
    /// A member does not fit where it is to go.
    #[error(transparent)]
    Misplaced(#[from] InsertError),
    /// A hard link whose target is not in the tar.
    #[error("hard link `{name}` points at `{target}`, which is not a file of the tar")]
    DanglingLink {
        /// The link.
        name: String,
        /// What it points at.
        target: String,
    },
}

impl Tree {
    /// The content of the uncompressed tar at `path`, which must stay unchanged until the pool is written.
    pub fn from_tar(path: impl AsRef<Path>) -> Result<Tree, TarError> {
        let path = path.as_ref();
        from_source(path, SourceFile::open(path))
    }

    /// Like [`Tree::from_tar`], of a tar that is open already, such as one without a name; `path` is what messages call it.
    pub fn from_open_tar(file: File, path: impl AsRef<Path>) -> Result<Tree, TarError> {
        let path = path.as_ref();
        from_source(path, SourceFile::held(file, path))
    }
}

fn from_source(path: &Path, source: io::Result<SourceFile>) -> Result<Tree, TarError> {
    let at = |offset| {
        move |failure: Failure| TarError {
            path: path.to_owned(),
            offset,
            problem: failure.problem,
            source: failure.source,
        }
    };
    let file = Arc::new(source.map_err(|error| at(0)(error.into()))?);
    let mut index = Index::new(Arc::clone(&file)).map_err(at(0))?;
    loop {
        let start = index.at;
        if !index.next_member().map_err(at(start))? {
            break;
        }
    }
    index.finish().map_err(|(offset, failure)| at(offset)(failure))
}

/// A problem with the error below it.
struct Failure {
    problem: TarProblem,
    source: Option<io::Error>,
}

impl<T: Into<TarProblem>> From<T> for Failure {
    fn from(problem: T) -> Failure {
        Failure { problem: problem.into(), source: None }
    }
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Failure {
        Failure { problem: TarProblem::Unreadable, source: Some(source) }
    }
}

/// A hard link to be made when all targets are known.
struct PendingLink {
    offset: u64,
    name: Vec<u8>,
    target: Vec<u8>,
}

struct Index {
    file: Arc<SourceFile>,
    len: u64,
    at: u64,
    tree: Tree,
    links: Vec<PendingLink>,
    global: Records,
    /// Extended headers for the next member.
    next: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Index {
    fn new(file: Arc<SourceFile>) -> Result<Index, Failure> {
        const STREAMS: [&[u8]; 4] = [b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"BZh"];
        let handle = open_file(&file);
        let len = handle.metadata()?.len();
        let mut start = [0; 8];
        let have = (len as usize).min(start.len());
        handle.read_exact_at(&mut start[..have], 0)?;
        if STREAMS.iter().any(|magic| start.starts_with(magic)) {
            return Err(TarProblem::Compressed.into());
        }
        Ok(Index {
            file,
            len,
            at: 0,
            tree: Tree::new(),
            links: Vec::new(),
            global: Records::default(),
            next: Records::default(),
            long_name: None,
            long_link: None,
        })
    }

    /// Takes in one header with its content; false at the end of the archive.
    fn next_member(&mut self) -> Result<bool, Failure> {
        if self.at == self.len && self.at > 0 {
            // Some writers leave the end marker out.
            return Ok(false);
        }
        let header = Header::parse(&self.read_block(self.at)?)?;
        let Some(header) = header else { return Ok(false) };
        let body = self.at + BLOCK;
        match header.flag {
            b'x' => self.next.parse(&self.read_body(body, header.size)?)?,
            b'g' => {
                self.global.parse(&self.read_body(body, header.size)?)?;
                if let Some(key) = self.global.only_for_one() {
                    return Err(TarProblem::GlobalRecord(key).into());
                }
            }
            b'L' => self.long_name = Some(until_nul(self.read_body(body, header.size)?)),
            b'K' => self.long_link = Some(until_nul(self.read_body(body, header.size)?)),
            _ => return self.member(&header, body).map(|()| true),
        }
        self.skip(body, header.size)?;
        Ok(true)
    }

    fn member(&mut self, header: &Header, body: u64) -> Result<(), Failure> {
        let mut records = self.global.clone();
        records.override_with(std::mem::take(&mut self.next));
        let size = records.size.unwrap_or(header.size);
        let name = records.sparse_name.take().or(records.path.take());
        let name = name.or(self.long_name.take()).unwrap_or_else(|| header.name.clone());
        let target = records.linkpath.take().or(self.long_link.take()).unwrap_or_else(|| header.link.clone());
        self.long_name = None;
        self.long_link = None;
        let meta = Meta {
            mode: header.mode & 0o7777,
            uid: records.uid.unwrap_or(header.uid),
            gid: records.gid.unwrap_or(header.gid),
            mtime: records.mtime.unwrap_or(Timestamp { sec: header.mtime, nsec: 0 }),
            xattrs: std::mem::take(&mut records.xattrs),
        };
        if name.starts_with(b"/") {
            return Err(TarProblem::AbsoluteName(path::display(&name)).into());
        }
        // Version 7 tars mark directories only by their name.
        let is_old_dir = matches!(header.flag, b'0' | 0) && name.ends_with(b"/");
        let (kind, content) = match header.flag {
            b'5' => (Kind::Directory, 0),
            _ if is_old_dir => (Kind::Directory, 0),
            b'0' | 0 | b'7' => (self.file(&records, &name, body, size)?, size),
            b'S' => {
                let (data, map_len) = self.old_sparse(header, &name, body, size)?;
                self.place(&name, meta, Kind::File(data))?;
                return self.skip(body + map_len, size);
            }
            b'1' => {
                if target.starts_with(b"/") {
                    return Err(TarProblem::AbsoluteName(path::display(&target)).into());
                }
                path::components(&name).map_err(TarProblem::BadName)?;
                path::components(&target).map_err(TarProblem::BadName)?;
                self.links.push(PendingLink { offset: self.at, name, target });
                // POSIX lets a link carry its content again; the size says whether it does.
                return self.skip(body, size);
            }
            b'2' => (Kind::Symlink(target), 0),
            b'3' => (Kind::CharDevice { major: header.major, minor: header.minor }, 0),
            b'4' => (Kind::BlockDevice { major: header.major, minor: header.minor }, 0),
            b'6' => (Kind::Fifo, 0),
            flag => {
                let name = path::display(&name);
                return Err(TarProblem::UnsupportedMember { name, flag: char::from(flag) }.into());
            }
        };
        self.place(&name, meta, kind)?;
        self.skip(body, content)
    }

    /// Puts a member into the tree; parents that were not archived are made.
    fn place(&mut self, name: &[u8], meta: Meta, kind: Kind) -> Result<(), Failure> {
        self.ensure_parent(name)?;
        let is_dir = matches!(kind, Kind::Directory);
        if is_dir && self.tree.get(name).is_some_and(|node| !node.is_dir()) {
            self.tree.remove(name);
        }
        self.tree.insert(name, meta, kind).map_err(TarProblem::Misplaced)?;
        Ok(())
    }

    fn ensure_parent(&mut self, name: &[u8]) -> Result<(), Failure> {
        let components = path::components(name).map_err(TarProblem::BadName)?;
        if let Some((_, parents)) = components.split_last()
            && !parents.is_empty()
        {
            let meta = Meta::root(0o755, Timestamp::default());
            self.tree.ensure_dir(parents.join(&b'/'), meta).map_err(TarProblem::Misplaced)?;
        }
        Ok(())
    }

    fn file(&self, records: &Records, name: &[u8], body: u64, size: u64) -> Result<Kind, Failure> {
        self.check(body, size)?;
        let file = Arc::clone(&self.file);
        let Some(len) = records.sparse_size else {
            return Ok(Kind::File(if size == 0 {
                Data::Bytes(Arc::new([]))
            } else {
                Data::Slice { file, offset: body, len: size }
            }));
        };
        if records.sparse_version != Some((1, 0)) {
            let name = path::display(name);
            return Err(TarProblem::UnsupportedMember { name, flag: 'S' }.into());
        }
        let bad = || TarProblem::BadSparseMap(path::display(name));
        let (map, map_len) = self.read_map(body, size)?.ok_or_else(bad)?;
        let extents = place_extents(&map, body + map_len, size - map_len, len).ok_or_else(bad)?;
        Ok(Kind::File(Data::Sparse { file, extents: extents.into(), len }))
    }

    /// The map of a PAX 1.0 sparse member: decimal lines (count, then start and length of each part), padded to a
    /// block. Gives the map and the bytes it takes.
    #[allow(clippy::type_complexity, reason = "a map and its length, used once")]
    fn read_map(&self, body: u64, size: u64) -> Result<Option<(Vec<(u64, u64)>, u64)>, Failure> {
        const MAX_PARTS: u64 = 1 << 20;
        let mut at = 0;
        let mut numbers = Vec::new();
        let mut digits = 0u64;
        let mut seen_digit = false;
        loop {
            if at + BLOCK > size {
                return Ok(None);
            }
            for byte in self.read_block(body + at)? {
                match byte {
                    b'0'..=b'9' => {
                        let next = digits.checked_mul(10).and_then(|n| n.checked_add(u64::from(byte - b'0')));
                        let Some(next) = next else { return Ok(None) };
                        digits = next;
                        seen_digit = true;
                    }
                    b'\n' if seen_digit => {
                        numbers.push(digits);
                        digits = 0;
                        seen_digit = false;
                        if numbers[0] > MAX_PARTS {
                            return Ok(None);
                        }
                        if numbers.len() as u64 == 1 + 2 * numbers[0] {
                            let pairs = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                            return Ok(Some((pairs, at + BLOCK)));
                        }
                    }
                    _ => return Ok(None),
                }
            }
            at += BLOCK;
        }
    }

    /// An old GNU sparse member: the map is in the header and in the blocks that follow it.
    fn old_sparse(&self, header: &Header, name: &[u8], body: u64, size: u64) -> Result<(Data, u64), Failure> {
        const MAX_MAP: u64 = 16 << 20;
        let bad = || TarProblem::BadSparseMap(path::display(name));
        let mut map = header.sparse.clone();
        let mut more = header.sparse_continues;
        let mut map_len = 0;
        while more {
            if map_len >= MAX_MAP {
                return Err(bad().into());
            }
            let block = self.read_block(body + map_len)?;
            more = header::parse_sparse(&block, 0, 21, &mut map)?;
            map_len += BLOCK;
        }
        self.check(body, map_len.saturating_add(size))?;
        let extents = place_extents(&map, body + map_len, size, header.real_size).ok_or_else(bad)?;
        let file = Arc::clone(&self.file);
        Ok((Data::Sparse { file, extents: extents.into(), len: header.real_size }, map_len))
    }

    /// Makes the hard links, in as many rounds as links to links need; writers of tars need no more than two.
    fn finish(mut self) -> Result<Tree, (u64, Failure)> {
        const MAX_ROUNDS: usize = 40;
        let mut links = std::mem::take(&mut self.links);
        for round in 1.. {
            let before = links.len();
            let mut waiting = Vec::new();
            for link in links {
                match self.tree.get(&link.target) {
                    Some(node) if !node.is_dir() => {
                        self.ensure_parent(&link.name).map_err(|failure| (link.offset, failure))?;
                        self.tree
                            .link(&link.target, &link.name)
                            .map_err(|error| (link.offset, TarProblem::Misplaced(error).into()))?;
                    }
                    _ => waiting.push(link),
                }
            }
            if (waiting.len() == before || round == MAX_ROUNDS)
                && let Some(link) = waiting.first()
            {
                let (name, target) = (path::display(&link.name), path::display(&link.target));
                return Err((link.offset, TarProblem::DanglingLink { name, target }.into()));
            }
            if waiting.is_empty() {
                break;
            }
            links = waiting;
        }
        Ok(self.tree)
    }

    /// Moves behind a body of `size` bytes.
    fn skip(&mut self, body: u64, size: u64) -> Result<(), Failure> {
        self.check(body, size)?;
        // The padding of the last member may be missing.
        self.at = (body + size).next_multiple_of(BLOCK).min(self.len);
        Ok(())
    }

    fn check(&self, body: u64, size: u64) -> Result<(), Failure> {
        match body.checked_add(size) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(TarProblem::Truncated.into()),
        }
    }

    fn read_block(&self, at: u64) -> Result<[u8; BLOCK as usize], Failure> {
        self.check(at, BLOCK)?;
        let mut block = [0; BLOCK as usize];
        open_file(&self.file).read_exact_at(&mut block, at)?;
        Ok(block)
    }

    fn read_body(&self, at: u64, size: u64) -> Result<Vec<u8>, Failure> {
        const MAX: u64 = 8 << 20;
        if size > MAX {
            return Err(TarProblem::HeaderTooLarge(size).into());
        }
        self.check(at, size)?;
        let mut body = vec![0; size as usize];
        open_file(&self.file).read_exact_at(&mut body, at)?;
        Ok(body)
    }
}

fn open_file(file: &SourceFile) -> &File {
    file.held_open().expect("`from_tar` opened the tar to stay open")
}

/// Parts of a sparse file, packed one after the other from `offset` on, as extents. None unless they ascend, end within
/// `len`, which is a possible length of a file, and take no more than `available` bytes.
fn place_extents(map: &[(u64, u64)], mut offset: u64, mut available: u64, len: u64) -> Option<Vec<Extent>> {
    // Linux counts bytes of files in 63 bits.
    if len > i64::MAX.cast_unsigned() {
        return None;
    }
    let mut extents = Vec::new();
    let mut end = 0;
    for (start, part) in map {
        if *start < end {
            return None;
        }
        end = start.checked_add(*part).filter(|end| *end <= len)?;
        available = available.checked_sub(*part)?;
        if *part > 0 {
            extents.push(Extent { start: *start, len: *part, offset });
        }
        offset += part;
    }
    Some(extents)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(len);
    bytes
}
