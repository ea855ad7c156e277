//! A file system as a tar: what [`crate::tree::Tree::from_tar`], GNU tar and others read.
//!
//! The format is PAX: names of any length and bytes, times to the nanosecond, extended attributes as `SCHILY.xattr.*` (POSIX
//! ACLs and capabilities are attributes as well), files with holes in the sparse format 1.0 of GNU tar, since a hole written
//! as zeros would make a tar of as many terabytes as the file seems to have. A tar cannot hold sockets, nor the times of
//! access. The same file system gives the same bytes.

mod header;

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;

use header::{BLOCK, Flag, MAX_RECORDS, Member, Records, encode};

use super::report::{ExtractError, LeftOut, Report, Trouble};
use super::visit::{At, Visitor, split, visit};
use crate::device::Progress;
use crate::read::{Filesystem, Node, NodeKind, Piece};
use crate::tree::display;

/// Parts of a sparse file; of more the smallest holes are filled with zeros.
const MAX_PARTS: usize = 1 << 20;
/// Who owns what belongs to somebody in a foreign domain.
const NOBODY: u32 = 65534;

/// Writes the file or directory `from` of a file system to `out` as a tar; a directory's members are named from there on,
/// itself is `./`.
///
/// Bytes that cannot be read are zeros in the tar, and a problem in the report. `threads` read each large file, 0 is one per
/// core. `progress` hears of the bytes that were read, as with [`super::extract_dir`].
pub fn extract_tar(
    filesystem: &Filesystem<'_>,
    from: &str,
    out: &mut dyn Write,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Report, ExtractError> {
    let top = filesystem.lookup(from)?;
    let (base, name) = if top.is_dir() { (from, "") } else { split(from) };
    let report = Report::below(base);
    let mut tar = Tar { filesystem, out, threads, progress, report, links: BTreeMap::new() };
    if top.is_dir() {
        visit(filesystem, &top, &mut tar)?;
    } else {
        tar.file(At { path: name.as_bytes(), name: name.as_bytes() }, &top)?;
    }
    tar.write(&[], &[0; 2 * BLOCK])?;
    tar.out.flush().map_err(|source| ExtractError::Write { path: String::new(), source })?;
    Ok(tar.report)
}

struct Tar<'f, 'a> {
    filesystem: &'f Filesystem<'a>,
    out: &'f mut dyn Write,
    threads: usize,
    progress: &'f dyn Progress,
    report: Report,
    /// Files that may come again, by object: their first names.
    links: BTreeMap<u64, Vec<u8>>,
}

impl Visitor for Tar<'_, '_> {
    fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    fn enter(&mut self, at: At<'_>, node: &Node) -> Result<bool, ExtractError> {
        self.report.directories += 1;
        let name = if at.path.is_empty() { b"./".to_vec() } else { [at.path, b"/"].concat() };
        let records = self.attributes(at, node);
        self.member(at, node, Member { name: &name, ..plain(Flag::Directory) }, records)?;
        Ok(true)
    }

    fn leave(&mut self, _path: &[u8]) -> Result<(), ExtractError> {
        Ok(())
    }

    fn file(&mut self, at: At<'_>, node: &Node) -> Result<(), ExtractError> {
        let may_come_again = node.metadata().links > 1;
        if may_come_again && let Some(first) = self.links.get(&node.object()).cloned() {
            self.report.hard_links += 1;
            let member = Member { name: at.path, link: &first, ..plain(Flag::HardLink) };
            return self.member(at, node, member, Records::default());
        }
        let mut member = Member { name: at.path, ..plain(Flag::File) };
        let target;
        match node.metadata().kind {
            // Visits go into directories.
            NodeKind::Directory => return Ok(()),
            NodeKind::File => {}
            NodeKind::Symlink => {
                target = match self.filesystem.read_link(node) {
                    Ok(target) => target,
                    Err(error) => {
                        self.report.problem(at.path, None, Trouble::Read(error));
                        return Ok(());
                    }
                };
                (member.flag, member.link) = (Flag::Symlink, &target);
            }
            NodeKind::CharDevice { major, minor } => {
                (member.flag, member.device) = (Flag::CharDevice, (major, minor));
            }
            NodeKind::BlockDevice { major, minor } => {
                (member.flag, member.device) = (Flag::BlockDevice, (major, minor));
            }
            NodeKind::Fifo => member.flag = Flag::Fifo,
            NodeKind::Socket => {
                self.report.leave_out(LeftOut::Sockets, at.path);
                return Ok(());
            }
        }
        let records = self.attributes(at, node);
        if member.flag == Flag::File {
            self.content(at, node, records)?;
        } else {
            self.report.others += 1;
            self.member(at, node, member, records)?;
        }
        if may_come_again {
            self.links.insert(node.object(), at.path.to_owned());
        }
        Ok(())
    }
}

/// A member without anything.
fn plain(flag: Flag) -> Member<'static> {
    let mtime = crate::tree::Timestamp::default();
    Member { name: &[], flag, mode: 0, uid: 0, gid: 0, size: 0, mtime, link: &[], device: (0, 0) }
}

impl Tar<'_, '_> {
    /// Writes a header with what is known of every kind of file.
    fn member(
        &mut self,
        at: At<'_>,
        node: &Node,
        mut member: Member<'_>,
        records: Records,
    ) -> Result<(), ExtractError> {
        let found = node.metadata();
        let (uid, gid) = (u32::try_from(found.uid), u32::try_from(found.gid));
        if uid.is_err() || gid.is_err() {
            self.report.leave_out(LeftOut::Owners, at.path);
        }
        member.uid = uid.unwrap_or(NOBODY);
        member.gid = gid.unwrap_or(NOBODY);
        (member.mode, member.mtime) = (found.mode, found.modified);
        self.write(at.path, &encode(&member, records))
    }

    fn attributes(&mut self, at: At<'_>, node: &Node) -> Records {
        let mut records = Records::default();
        match self.filesystem.xattrs(node) {
            Ok(attributes) => {
                for (name, value) in &attributes {
                    let key = Records::attribute_key(name);
                    if records.len() + key.len() + value.len() < MAX_RECORDS {
                        records.add(&key, value);
                    } else {
                        self.report.leave_out(LeftOut::attribute(name), at.path);
                    }
                }
            }
            Err(error) => self.report.problem(at.path, None, Trouble::Read(error)),
        }
        records
    }

    /// Writes a regular file.
    fn content(&mut self, at: At<'_>, node: &Node, mut records: Records) -> Result<(), ExtractError> {
        let size = node.metadata().size;
        let ranges = fill_holes(self.filesystem.data_ranges(node), MAX_PARTS);
        let is_whole = size == 0 || ranges.first() == Some(&(0..size));
        let data: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let member = plain(Flag::File);
        if is_whole {
            self.member(at, node, Member { name: at.path, size, ..member }, records)?;
        } else {
            let map = map(&ranges, size);
            records.add(b"GNU.sparse.major", b"1");
            records.add(b"GNU.sparse.minor", b"0");
            records.add(b"GNU.sparse.name", at.path);
            records.add(b"GNU.sparse.realsize", size.to_string().as_bytes());
            let name = b"GNUSparseFile.0/member";
            self.member(at, node, Member { name, size: map.len() as u64 + data, ..member }, records)?;
            self.write(at.path, &map)?;
        }
        self.report.files += 1;
        let mut body = Body { ranges: &ranges, at: 0 };
        let (out, report, progress) = (&mut *self.out, &mut self.report, self.progress);
        let fail = |source| ExtractError::Write { path: display(at.path), source };
        self.filesystem.read_pieces::<ExtractError>(node, self.threads, &mut |piece| {
            match piece {
                Piece::Data { offset, bytes } => {
                    body.put(offset, &bytes, out).map_err(fail)?;
                    report.bytes += bytes.len() as u64;
                    progress.bytes(report.bytes, 0);
                }
                Piece::Unreadable { range, error } => {
                    report.problem(at.path, Some(range), Trouble::Read(error));
                }
            }
            Ok(())
        })?;
        body.put(size, &[], out).map_err(fail)?;
        let padding = data.next_multiple_of(BLOCK as u64) - data;
        self.write(at.path, &[0; BLOCK][..padding as usize])
    }

    fn write(&mut self, path: &[u8], bytes: &[u8]) -> Result<(), ExtractError> {
        self.out.write_all(bytes).map_err(|source| ExtractError::Write { path: display(path), source })
    }
}

/// The parts of a file that a tar holds, one behind the other.
struct Body<'r> {
    ranges: &'r [Range<u64>],
    /// Bytes of the file that were written, or are holes.
    at: u64,
}

impl Body<'_> {
    /// Writes zeros up to `offset`, and then `bytes`, as far as either lies in the parts: how many bytes come out in the end
    /// depends on the parts alone.
    fn put(&mut self, offset: u64, bytes: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let end = offset + bytes.len() as u64;
        while let Some((range, rest)) = self.ranges.split_first().filter(|(range, _)| range.start < end) {
            let mut at = self.at.max(range.start);
            while at < range.end.min(offset) {
                let len = (range.end.min(offset) - at).min(ZEROS.len() as u64);
                out.write_all(&ZEROS[..len as usize])?;
                at += len;
            }
            if at < range.end.min(end) {
                let to = range.end.min(end);
                out.write_all(&bytes[(at - offset) as usize..(to - offset) as usize])?;
                at = to;
            }
            self.at = at;
            if at < range.end {
                break;
            }
            self.ranges = rest;
        }
        Ok(())
    }
}

/// Joins parts over the smallest holes until there are at most `most`.
fn fill_holes(mut ranges: Vec<Range<u64>>, most: usize) -> Vec<Range<u64>> {
    let mut hole = 512;
    while ranges.len() > most {
        ranges.dedup_by(|later, first| {
            let is_near = later.start - first.end <= hole;
            if is_near {
                first.end = later.end;
            }
            is_near
        });
        hole *= 2;
    }
    ranges
}

/// The map before the body of a sparse member: lines with the number of parts, and start and length of each. An empty part at
/// the end says how long a file is that ends with a hole.
fn map(ranges: &[Range<u64>], size: u64) -> Vec<u8> {
    let end = Some(size..size).filter(|_| ranges.last().is_none_or(|last| last.end < size));
    let mut text = format!("{}\n", ranges.len() + usize::from(end.is_some()));
    for Range { start, end } in ranges.iter().chain(&end) {
        text.push_str(&format!("{start}\n{}\n", end - start));
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_holes_are_filled() {
        let ranges = vec![0..10, 600..700, 90_000..90_001, 90_101..90_102];
        assert_eq!(fill_holes(ranges.clone(), 4), ranges);
        assert_eq!(fill_holes(ranges.clone(), 3), [0..10, 600..700, 90_000..90_102]);
        assert_eq!(fill_holes(ranges.clone(), 2), [0..700, 90_000..90_102]);
        assert_eq!(fill_holes(ranges, 1).first(), Some(&(0..90_102)));
    }

    #[test]
    fn a_body_is_as_long_as_its_map_whatever_is_read() {
        let ranges = [2..4, 10..13];
        for (pieces, text) in [
            (&[(2, "ab"), (10, "cde")][..], "abcde"),
            (&[(0, "__ab______cde___")], "abcde"),
            (&[(3, "b"), (12, "e")], "\0b\0\0e"),
            (&[(4, "_")], "\0\0\0\0\0"),
            (&[], "\0\0\0\0\0"),
        ] {
            let mut out = Vec::new();
            let mut body = Body { ranges: &ranges, at: 0 };
            for (offset, bytes) in pieces {
                body.put(*offset, bytes.as_bytes(), &mut out).unwrap();
            }
            body.put(20, &[], &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text, "{pieces:?}");
        }
    }
}
