//! System attributes: what is known about a file, packed by numbered layouts into its dnode and perhaps a spill block.

use std::collections::BTreeMap;

use super::bytes::{text, u16_at, u32_at};
use super::error::ReadError;
use super::objset::ObjectSet;

const MAGIC: u32 = 0x2f_505a;
/// Layouts for which one list of attributes is believed.
const MAX_ATTRIBUTES: usize = 256;

/// The attributes that are read; all others are skipped over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attribute {
    AccessTime,
    ModificationTime,
    ChangeTime,
    CreationTime,
    Generation,
    Mode,
    Size,
    Parent,
    Links,
    XattrDirectory,
    Device,
    Flags,
    Owner,
    Group,
    Symlink,
    AclCount,
    Acl,
    Xattrs,
    Project,
}

const NAMES: &[(&str, Attribute)] = &[
    ("ZPL_ATIME", Attribute::AccessTime),
    ("ZPL_MTIME", Attribute::ModificationTime),
    ("ZPL_CTIME", Attribute::ChangeTime),
    ("ZPL_CRTIME", Attribute::CreationTime),
    ("ZPL_GEN", Attribute::Generation),
    ("ZPL_MODE", Attribute::Mode),
    ("ZPL_SIZE", Attribute::Size),
    ("ZPL_PARENT", Attribute::Parent),
    ("ZPL_LINKS", Attribute::Links),
    ("ZPL_XATTR", Attribute::XattrDirectory),
    ("ZPL_RDEV", Attribute::Device),
    ("ZPL_FLAGS", Attribute::Flags),
    ("ZPL_UID", Attribute::Owner),
    ("ZPL_GID", Attribute::Group),
    ("ZPL_SYMLINK", Attribute::Symlink),
    ("ZPL_DACL_COUNT", Attribute::AclCount),
    ("ZPL_DACL_ACES", Attribute::Acl),
    ("ZPL_DXATTR", Attribute::Xattrs),
    ("ZPL_PROJID", Attribute::Project),
];

/// Values of a file's attributes.
pub(crate) type Attributes = BTreeMap<Attribute, Vec<u8>>;

/// Which attributes a file system knows and how they are packed.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    /// By number: which attribute it is, if one that is read, and its length; 0 is variable.
    attributes: BTreeMap<u16, (Option<Attribute>, usize)>,
    /// By number: the attributes in order.
    layouts: BTreeMap<u16, Vec<u16>>,
}

impl Layouts {
    /// Reads the tables below the attribute master object.
    pub(crate) fn read(set: &ObjectSet, master: u64) -> Result<Layouts, ReadError> {
        let mut known = Layouts::default();
        let master = set.zap(master)?;
        if let Some(registry) = master.number("REGISTRY")? {
            for entry in set.zap(registry)?.entries()? {
                let number = entry.number().unwrap_or(0);
                let name = text(&entry.name);
                let attribute =
                    NAMES.iter().find(|(known, _)| *known == name).map(|(_, attribute)| *attribute);
                // length << 24 | byte swapping << 16 | number
                known
                    .attributes
                    .insert((number & 0xffff) as u16, (attribute, ((number >> 24) & 0xffff) as usize));
            }
        }
        if let Some(layouts) = master.number("LAYOUTS")? {
            for entry in set.zap(layouts)?.entries()? {
                let number = std::str::from_utf8(&entry.name).ok().and_then(|name| name.parse().ok());
                if let Some(number) = number
                    && entry.integer_size == 2
                    && entry.value.len() <= MAX_ATTRIBUTES * 2
                {
                    let list = entry.value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                    known.layouts.insert(number, list.collect());
                }
            }
        }
        Ok(known)
    }

    /// Takes one packed buffer apart, adding to `attributes`.
    pub(crate) fn unpack(&self, buffer: &[u8], attributes: &mut Attributes) -> Result<(), &'static str> {
        const SHORT: &str = "its attributes are cut off";
        const LAYOUT_BITS: u32 = 10;
        const LENGTHS_AT: usize = 6;
        if u32_at(buffer, 0) != Some(MAGIC) {
            return Err("its attributes do not start like such");
        }
        let info = u16_at(buffer, 4).ok_or(SHORT)?;
        let layout = info & ((1 << LAYOUT_BITS) - 1);
        let mut at = usize::from(info >> LAYOUT_BITS) * 8;
        let list = self.layouts.get(&layout).ok_or("its attributes are of an unknown layout")?;
        let mut variable = 0;
        for number in list {
            let (attribute, length) =
                self.attributes.get(number).ok_or("its layout has an unknown attribute")?;
            let length = if *length == 0 {
                let length = u16_at(buffer, LENGTHS_AT + variable * 2).ok_or(SHORT)?;
                variable += 1;
                usize::from(length)
            } else {
                *length
            };
            let value = buffer.get(at..at + length).ok_or(SHORT)?;
            if let Some(attribute) = attribute {
                attributes.insert(*attribute, value.to_vec());
            }
            at += length.next_multiple_of(8);
        }
        Ok(())
    }
}

/// Attributes of a file from before there were system attributes (`znode_phys_t`), the last part a short link target.
pub(crate) fn from_znode(bonus: &[u8]) -> Option<Attributes> {
    const LEN: usize = 264;
    const FIELDS: [(Attribute, usize, usize); 14] = [
        (Attribute::AccessTime, 0, 16),
        (Attribute::ModificationTime, 16, 16),
        (Attribute::ChangeTime, 32, 16),
        (Attribute::CreationTime, 48, 16),
        (Attribute::Generation, 64, 8),
        (Attribute::Mode, 72, 8),
        (Attribute::Size, 80, 8),
        (Attribute::Parent, 88, 8),
        (Attribute::Links, 96, 8),
        (Attribute::XattrDirectory, 104, 8),
        (Attribute::Device, 112, 8),
        (Attribute::Flags, 120, 8),
        (Attribute::Owner, 128, 8),
        (Attribute::Group, 136, 8),
    ];
    let mut attributes = Attributes::new();
    for (attribute, at, len) in FIELDS {
        attributes.insert(attribute, bonus.get(at..at + len)?.to_vec());
    }
    if let Some(link) = bonus.get(LEN..).filter(|link| !link.is_empty()) {
        attributes.insert(Attribute::Symlink, link.to_vec());
    }
    Some(attributes)
}
