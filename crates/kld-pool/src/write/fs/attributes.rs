//! System attributes (SA): what an inode holds, packed into the bonus buffer of its dnode, the rest into a spill block.
//!
//! A buffer is a header that names a *layout* (an ordered list of attributes), then the attributes, each padded to
//! 8 bytes. Layouts are numbered per dataset and recorded in its layout table.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::acl::{ACE, trivial_acl};
use crate::format::dnode::{BONUS_OFFSET, SLOT, SPILL_POINTER};
use crate::format::nvlist::{NvList, Value};
use crate::format::{put_u16, put_u32};
use crate::tree::{Kind, Meta};

/// `SA_MAGIC`.
const MAGIC: u32 = 0x002f_505a;
/// Layout numbers 0 and 1 are reserved for objects from before SA.
const FIRST_LAYOUT: u16 = 2;
/// The largest dnode: 16 KiB.
pub(crate) const MAX_SLOTS: u8 = 32;
/// Longest value and longest packed list of extended attributes (`DXATTR_MAX_ENTRY_SIZE`, `DXATTR_MAX_SA_SIZE`).
pub(crate) const MAX_XATTR_VALUE: usize = 32 << 10;
pub(super) const MAX_XATTRS: usize = (64 << 10) - 8;

/// Name, registered length (0 = variable), byteswap class and number of every attribute of the ZPL.
pub(crate) const REGISTRY: [(&str, u64, u64); 22] = [
    ("ATIME", 16, 0),
    ("MTIME", 16, 0),
    ("CTIME", 16, 0),
    ("CRTIME", 16, 0),
    ("GEN", 8, 0),
    ("MODE", 8, 0),
    ("SIZE", 8, 0),
    ("PARENT", 8, 0),
    ("LINKS", 8, 0),
    ("XATTR", 8, 0),
    ("RDEV", 8, 0),
    ("FLAGS", 8, 0),
    ("UID", 8, 0),
    ("GID", 8, 0),
    ("PAD", 32, 0),
    ("ZNODE_ACL", 88, 3),
    ("DACL_COUNT", 8, 0),
    ("SYMLINK", 0, 3),
    ("SCANSTAMP", 32, 3),
    ("DACL_ACES", 0, 4),
    ("DXATTR", 0, 3),
    ("PROJID", 8, 0),
];

/// Numbers of the attributes that are written: their places in [`REGISTRY`].
mod attr {
    pub(super) const ATIME: u16 = 0;
    pub(super) const MTIME: u16 = 1;
    pub(super) const CTIME: u16 = 2;
    pub(super) const CRTIME: u16 = 3;
    pub(super) const GEN: u16 = 4;
    pub(super) const MODE: u16 = 5;
    pub(super) const SIZE: u16 = 6;
    pub(super) const PARENT: u16 = 7;
    pub(super) const LINKS: u16 = 8;
    pub(super) const XATTR: u16 = 9;
    pub(super) const RDEV: u16 = 10;
    pub(super) const FLAGS: u16 = 11;
    pub(super) const UID: u16 = 12;
    pub(super) const GID: u16 = 13;
    pub(super) const DACL_COUNT: u16 = 16;
    pub(super) const SYMLINK: u16 = 17;
    pub(super) const DACL_ACES: u16 = 19;
    pub(super) const DXATTR: u16 = 20;
    pub(super) const PROJID: u16 = 21;
}

/// File type bits of a mode.
const IFMT_DIR: u32 = 0o040_000;
const IFMT_FILE: u32 = 0o100_000;
const IFMT_LINK: u32 = 0o120_000;
const IFMT_CHAR: u32 = 0o020_000;
const IFMT_BLOCK: u32 = 0o060_000;
const IFMT_FIFO: u32 = 0o010_000;
const IFMT_SOCKET: u32 = 0o140_000;

/// What a node is within its dataset, besides its own metadata.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// Object number of the directory that holds its first name.
    pub(crate) parent: u64,
    /// Names of a file; subdirectories plus two of a directory.
    pub(crate) links: u64,
    /// Entries of a directory.
    pub(crate) entries: u64,
    /// Transaction group its object was made in.
    pub(crate) born: u64,
    /// The hidden directory of its large extended attributes.
    pub(crate) xattr_dir: Option<u64>,
    /// Whether it is such a directory, or a file in one.
    pub(crate) is_hidden: bool,
}

/// What the dataset allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Slots of a dnode.
    pub(crate) max_slots: u8,
    /// Whether files belong to projects.
    pub(crate) projects: bool,
}

/// Packed attributes.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bonus: Vec<u8>,
    pub(crate) spill: Option<Vec<u8>>,
}

/// Extended attributes exceed what a system attribute can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct XattrsTooLarge {
    pub(crate) bytes: usize,
}

/// The layouts in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layouts {
    numbers: BTreeMap<Vec<u16>, u16>,
}

impl Layouts {
    fn number(&mut self, attributes: Vec<u16>) -> u16 {
        let next = FIRST_LAYOUT + self.numbers.len() as u16;
        *self.numbers.entry(attributes).or_insert(next)
    }

    /// Number and attributes of each layout, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &[u16])> {
        let mut all: Vec<(u16, &[u16])> =
            self.numbers.iter().map(|(list, number)| (*number, list.as_slice())).collect();
        all.sort_unstable();
        all.into_iter()
    }
}

struct Attribute<'a> {
    number: u16,
    value: Held<'a>,
}

/// The value of an attribute.
enum Held<'a> {
    Word(u64),
    Time([u64; 2]),
    Bytes(Cow<'a, [u8]>),
}

impl Attribute<'_> {
    fn is_variable(&self) -> bool {
        REGISTRY[usize::from(self.number)].1 == 0
    }

    fn len(&self) -> usize {
        match &self.value {
            Held::Word(_) => 8,
            Held::Time(_) => 16,
            Held::Bytes(bytes) => bytes.len(),
        }
    }
}

/// How many slots the dnode of a node needs.
pub(crate) fn slots(meta: &Meta, kind: &Kind, place: Place, limits: Limits) -> Result<u8, XattrsTooLarge> {
    let whole = packed_len(&attributes_of(meta, kind, place, limits.projects)?);
    Ok(slots_for(whole, limits).unwrap_or(1))
}

/// Slots for attributes that take `whole` bytes; none when they do not fit into the largest dnode.
fn slots_for(whole: usize, limits: Limits) -> Option<u8> {
    let slots = (whole + BONUS_OFFSET).div_ceil(SLOT);
    (slots <= usize::from(limits.max_slots)).then_some(slots as u8)
}

/// Packs the attributes of a node.
pub(crate) fn pack(
    meta: &Meta,
    kind: &Kind,
    place: Place,
    limits: Limits,
    layouts: &mut Layouts,
) -> Result<Packed, XattrsTooLarge> {
    let attributes = attributes_of(meta, kind, place, limits.projects)?;
    if slots_for(packed_len(&attributes), limits).is_some() {
        return Ok(Packed { bonus: pack_buffer(&attributes, layouts), spill: None });
    }
    // The longest prefix that leaves room for the spill pointer stays in the smallest dnode.
    const ROOM: usize = SLOT - BONUS_OFFSET - SPILL_POINTER;
    let kept = (0..attributes.len())
        .rev()
        .find(|kept| packed_len(&attributes[..*kept]) <= ROOM)
        .expect("no attributes at all fit anywhere");
    let (bonus, spilled) = attributes.split_at(kept);
    Ok(Packed {
        bonus: pack_buffer(bonus, layouts),
        spill: Some(crate::format::pad_to_sector(pack_buffer(spilled, layouts))),
    })
}

fn attributes_of<'a>(
    meta: &Meta,
    kind: &'a Kind,
    place: Place,
    projects: bool,
) -> Result<Vec<Attribute<'a>>, XattrsTooLarge> {
    let is_dir = matches!(kind, Kind::Directory);
    let is_link = matches!(kind, Kind::Symlink(_));
    let has_project = projects && (is_dir || matches!(kind, Kind::File(_)));
    let permissions = if is_link { 0o777 } else { meta.mode & 0o7777 };
    let size = match kind {
        Kind::Directory => place.entries + 2,
        Kind::File(data) => data.len(),
        Kind::Symlink(target) => target.len() as u64,
        _ => 0,
    };
    let acl = trivial_acl(permissions, is_dir);
    let time = [meta.mtime.sec.cast_unsigned(), u64::from(meta.mtime.nsec)];

    let mut aces = Vec::with_capacity(acl.len() * ACE);
    acl.iter().for_each(|ace| aces.extend_from_slice(&ace.to_bytes()));

    let mut list = Vec::with_capacity(17);
    let mut add = |number: u16, value: Held<'a>| list.push(Attribute { number, value });
    add(attr::MODE, Held::Word(u64::from(format_bits(kind) | permissions)));
    add(attr::SIZE, Held::Word(size));
    add(attr::GEN, Held::Word(place.born));
    add(attr::UID, Held::Word(u64::from(meta.uid)));
    add(attr::GID, Held::Word(u64::from(meta.gid)));
    add(attr::PARENT, Held::Word(place.parent));
    add(attr::FLAGS, Held::Word(flags(permissions, is_dir, has_project) | u64::from(place.is_hidden)));
    for number in [attr::ATIME, attr::MTIME, attr::CTIME, attr::CRTIME] {
        add(number, Held::Time(time));
    }
    add(attr::LINKS, Held::Word(place.links));
    if has_project {
        add(attr::PROJID, Held::Word(0));
    }
    if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = kind {
        // The kernel's own dev_t: 12 and 20 bits.
        add(attr::RDEV, Held::Word(u64::from(*major) << 20 | u64::from(*minor)));
    }
    if let Some(xattr_dir) = place.xattr_dir {
        add(attr::XATTR, Held::Word(xattr_dir));
    }
    add(attr::DACL_COUNT, Held::Word(acl.len() as u64));
    add(attr::DACL_ACES, Held::Bytes(aces.into()));
    if let Kind::Symlink(target) = kind {
        add(attr::SYMLINK, Held::Bytes(target.into()));
    }
    if !meta.xattrs.is_empty() {
        add(attr::DXATTR, Held::Bytes(pack_xattrs(&meta.xattrs)?.into()));
    }
    Ok(list)
}

fn pack_xattrs(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Vec<u8>, XattrsTooLarge> {
    if let Some(value) = xattrs.values().find(|value| value.len() > MAX_XATTR_VALUE) {
        return Err(XattrsTooLarge { bytes: value.len() });
    }
    let packed = packed_xattrs(xattrs);
    if packed.len() > MAX_XATTRS { Err(XattrsTooLarge { bytes: packed.len() }) } else { Ok(packed) }
}

/// The list of attributes as the inode keeps it.
pub(super) fn packed_xattrs(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    xattrs
        .iter()
        .fold(NvList::new(), |list, (name, value)| list.with(name, Value::Bytes(value.clone())))
        .pack()
}

fn format_bits(kind: &Kind) -> u32 {
    match kind {
        Kind::Directory => IFMT_DIR,
        Kind::File(_) => IFMT_FILE,
        Kind::Symlink(_) => IFMT_LINK,
        Kind::CharDevice { .. } => IFMT_CHAR,
        Kind::BlockDevice { .. } => IFMT_BLOCK,
        Kind::Fifo => IFMT_FIFO,
        Kind::Socket => IFMT_SOCKET,
    }
}

/// The type a directory entry states for what it names (`DT_*`).
pub(crate) fn entry_type(kind: &Kind) -> u64 {
    u64::from(format_bits(kind) >> 12)
}

/// `z_pflags` as Linux OpenZFS sets them on new objects; what is hidden has the lowest bit (`ZFS_XATTR`) besides.
fn flags(permissions: u32, is_dir: bool, has_project: bool) -> u64 {
    const ARCHIVE: u64 = 0x8_0000_0000;
    const AV_MODIFIED: u64 = 0x400_0000_0000;
    const PROJECT_ID: u64 = 1 << 47;
    const ACL_TRIVIAL: u64 = 0x4;
    const ACL_AUTO_INHERIT: u64 = 0x40;
    const NO_EXECS_DENIED: u64 = 0x100;
    let all_may_execute = permissions & 0o111 == 0o111;
    ARCHIVE
        | AV_MODIFIED
        | ACL_TRIVIAL
        | if all_may_execute { NO_EXECS_DENIED } else { 0 }
        | if is_dir { ACL_AUTO_INHERIT } else { 0 }
        | if has_project { PROJECT_ID } else { 0 }
}

/// The header: magic, layout, and the length of each attribute that has no fixed one.
fn header_len(attributes: &[Attribute]) -> usize {
    let variable = attributes.iter().filter(|attribute| attribute.is_variable()).count();
    (6 + 2 * variable.max(1)).next_multiple_of(8)
}

fn packed_len(attributes: &[Attribute]) -> usize {
    let values: usize = attributes.iter().map(|attribute| attribute.len().next_multiple_of(8)).sum();
    header_len(attributes) + values
}

fn pack_buffer(attributes: &[Attribute], layouts: &mut Layouts) -> Vec<u8> {
    let layout = layouts.number(attributes.iter().map(|attribute| attribute.number).collect());
    let header = header_len(attributes);
    let mut buffer = Vec::with_capacity(packed_len(attributes));
    buffer.resize(header, 0);
    put_u32(&mut buffer, 0, MAGIC);
    put_u16(&mut buffer, 4, layout | ((header / 8) as u16) << 10);
    for (i, attribute) in attributes.iter().filter(|attribute| attribute.is_variable()).enumerate() {
        put_u16(&mut buffer, 6 + i * 2, attribute.len() as u16);
    }
    for attribute in attributes {
        match &attribute.value {
            Held::Word(word) => buffer.extend_from_slice(&word.to_le_bytes()),
            Held::Time(words) => words.iter().for_each(|word| buffer.extend_from_slice(&word.to_le_bytes())),
            Held::Bytes(bytes) => buffer.extend_from_slice(bytes),
        }
        buffer.resize(buffer.len().next_multiple_of(8), 0);
    }
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Data, Timestamp};

    fn meta(mode: u32, xattr_len: usize) -> Meta {
        let mut meta = Meta::root(mode, Timestamp { sec: 1_700_000_000, nsec: 5 });
        if xattr_len > 0 {
            meta.xattrs.insert(b"user.k".to_vec(), vec![1; xattr_len]);
        }
        meta
    }

    fn limits(max_slots: u8) -> Limits {
        Limits { max_slots, projects: true }
    }

    #[test]
    fn sizes_by_content_and_dnode_limit() {
        let file = Kind::File(Data::bytes(*b"x"));
        let link = |len| Kind::Symlink(vec![b't'; len]);
        for (mode, xattr, kind, max, expected, bonus, spill) in [
            (0o644, 0, &file, 32, 1, 176, None),
            (0o007, 0, &file, 32, 1, 192, None),
            (0o644, 30, &file, 32, 1, 264, None),
            (0o644, 3000, &file, 32, 7, 3232, None),
            (0o644, 3000, &file, 1, 1, 176, Some(3072)),
            (0o644, 20_000, &file, 32, 1, 176, Some(20_480)),
            (0o777, 0, &link(100), 1, 1, 280, None),
            (0o777, 0, &link(400), 1, 1, 168, Some(512)),
        ] {
            let (meta, place) = (meta(mode, xattr), Place::default());
            let packed = pack(&meta, kind, place, limits(max), &mut Layouts::default()).unwrap();
            let slots = super::slots(&meta, kind, place, limits(max)).unwrap();
            let found = (slots, packed.bonus.len(), packed.spill.map(|spill| spill.len()));
            assert_eq!(found, (expected, bonus, spill), "{mode:o} {xattr} {max}");
        }
    }

    #[test]
    fn too_large_attributes_are_refused() {
        let file = Kind::File(Data::bytes(*b"x"));
        let mut layouts = Layouts::default();
        let error =
            pack(&meta(0o644, 40_000), &file, Place::default(), limits(32), &mut layouts).unwrap_err();
        assert_eq!(error.bytes, 40_000);
        let mut three = meta(0o644, 30_000);
        three.xattrs.insert(b"user.l".to_vec(), vec![1; 30_000]);
        three.xattrs.insert(b"user.m".to_vec(), vec![1; 30_000]);
        assert!(pack(&three, &file, Place::default(), limits(32), &mut layouts).is_err());
    }

    #[test]
    fn layouts_are_numbered_as_they_appear() {
        let mut layouts = Layouts::default();
        let file = Kind::File(Data::bytes(*b"x"));
        for kind in [&file, &Kind::Fifo, &file] {
            pack(&meta(0o644, 0), kind, Place::default(), limits(32), &mut layouts).unwrap();
        }
        let numbers: Vec<_> = layouts.iter().map(|(number, list)| (number, list.len())).collect();
        assert_eq!(numbers, [(2, 15), (3, 14)]);
    }
}
