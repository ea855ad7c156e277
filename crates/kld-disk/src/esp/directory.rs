//! Directory entries with long names (fatgen103, *FAT Directory Structure* and *FAT Long Directory Entries*).

const SLOT: usize = 32;
/// UTF-16 units that one long-name slot holds.
const UNITS: usize = 13;
const ATTR_LABEL: u8 = 0x08;
const ATTR_FOLDER: u8 = 0x10;
const ATTR_FILE: u8 = 0x20;
const ATTR_LONG: u8 = 0x0F;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    Folder,
    File { len: u32 },
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    /// First cluster; 0 for an empty file.
    pub(super) cluster: u32,
    pub(super) kind: EntryKind,
}

impl Entry {
    /// The 32-byte slots that an entry called `name` takes.
    pub(super) fn slots(name: &str) -> usize {
        1 + if exact_short_name(name).is_some() { 0 } else { name.len().div_ceil(UNITS) }
    }
}

/// The slots of a folder: its label (root only), `.` and `..` (`dots`: own cluster and the parent's), its entries.
pub(super) fn render_directory(
    entries: &[Entry],
    label: Option<[u8; 11]>,
    dots: Option<(u32, u32)>,
    epoch: u64,
) -> Vec<u8> {
    let time = DosTime::from_epoch(epoch);
    let mut slots = Vec::new();
    if let Some(label) = label {
        push_slot(&mut slots, label, ATTR_LABEL, 0, 0, time);
    }
    if let Some((own, parent)) = dots {
        push_slot(&mut slots, *b".          ", ATTR_FOLDER, own, 0, time);
        push_slot(&mut slots, *b"..         ", ATTR_FOLDER, parent, 0, time);
    }
    let mut taken: Vec<[u8; 11]> = entries.iter().filter_map(|entry| exact_short_name(&entry.name)).collect();
    for entry in entries {
        let short = exact_short_name(&entry.name).unwrap_or_else(|| {
            let short = tilde_name(&entry.name, &taken);
            taken.push(short);
            push_long_name(&mut slots, &entry.name, short);
            short
        });
        let (attributes, len) = match entry.kind {
            EntryKind::Folder => (ATTR_FOLDER, 0),
            EntryKind::File { len } => (ATTR_FILE, len),
        };
        push_slot(&mut slots, short, attributes, entry.cluster, len, time);
    }
    slots
}

fn push_slot(slots: &mut Vec<u8>, name: [u8; 11], attributes: u8, cluster: u32, len: u32, time: DosTime) {
    let mut slot = [0; SLOT];
    slot[..11].copy_from_slice(&name);
    slot[11] = attributes;
    slot[14..16].copy_from_slice(&time.time.to_le_bytes()); // created
    slot[16..18].copy_from_slice(&time.date.to_le_bytes());
    slot[18..20].copy_from_slice(&time.date.to_le_bytes()); // accessed
    slot[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    slot[22..24].copy_from_slice(&time.time.to_le_bytes()); // written
    slot[24..26].copy_from_slice(&time.date.to_le_bytes());
    slot[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    slot[28..32].copy_from_slice(&len.to_le_bytes());
    slots.extend_from_slice(&slot);
}

/// The long name, last part first, each part marked with the checksum of the short name it belongs to.
fn push_long_name(slots: &mut Vec<u8>, name: &str, short: [u8; 11]) {
    /// Where in a slot its 13 units are.
    const PLACES: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    let checksum = short.iter().fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let parts = units.chunks(UNITS).enumerate();
    for (index, part) in parts.rev() {
        let mut slot = [0; SLOT];
        let last = (index + 1) * UNITS >= units.len();
        slot[0] = (index + 1) as u8 | if last { 0x40 } else { 0 };
        slot[11] = ATTR_LONG;
        slot[13] = checksum;
        // A name that does not fill its last slot ends with 0, then all ones.
        let padded = part.iter().copied().chain(std::iter::once(0)).chain(std::iter::repeat(0xFFFF));
        for (place, unit) in PLACES.into_iter().zip(padded) {
            slot[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        slots.extend_from_slice(&slot);
    }
}

/// The 8.3 field of a name that is one as it stands: capitals, digits and a few signs.
fn exact_short_name(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let fits = (1..=8).contains(&base.len())
        && extension.len() <= 3
        && (!name.contains('.') || !extension.is_empty())
        && base.bytes().chain(extension.bytes()).all(is_short_byte);
    fits.then(|| short_field(base, extension))
}

fn is_short_byte(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit() || b"!#$%&'()-@^_`{}~".contains(&b)
}

fn short_field(base: &str, extension: &str) -> [u8; 11] {
    let mut field = [b' '; 11];
    field[..base.len()].copy_from_slice(base.as_bytes());
    field[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    field
}

/// `LOADER~1CON`: the first number that no other entry of the folder has.
fn tilde_name(name: &str, taken: &[[u8; 11]]) -> [u8; 11] {
    let (base, extension) = match name.rsplit_once('.') {
        Some((base, extension)) if !base.is_empty() => (base, extension),
        _ => (name, ""),
    };
    let reduce = |part: &str, len: usize| -> String {
        part.to_ascii_uppercase()
            .chars()
            .filter(|c| u8::try_from(*c).is_ok_and(is_short_byte))
            .take(len)
            .collect()
    };
    let extension = reduce(extension, 3);
    (1_u32..)
        .map(|number| {
            let tail = format!("~{number}");
            short_field(&format!("{}{tail}", reduce(base, 8_usize.saturating_sub(tail.len()))), &extension)
        })
        .find(|short| !taken.contains(short))
        .expect("a folder holds far fewer than 2^32 entries")
}

/// A time as FAT keeps it: even seconds, from 1980 to 2107, taken as UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DosTime {
    date: u16,
    time: u16,
}

impl DosTime {
    fn from_epoch(epoch: u64) -> Self {
        const FIRST: u64 = 315_532_800; // 1980-01-01 00:00:00
        const LAST: u64 = 4_354_819_198; // 2107-12-31 23:59:58
        let epoch = epoch.clamp(FIRST, LAST);
        let (year, month, day) = civil_from_days(epoch / 86_400);
        let second = epoch % 86_400;
        Self {
            date: (((year - 1980) << 9) | (month << 5) | day) as u16,
            time: (((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second % 60 / 2)) as u16,
        }
    }
}

/// Days since 1970 → year, month, day of the Gregorian calendar, counting years from March so that leap days come last
/// (Hinnant, *chrono-Compatible Low-Level Date Algorithms*).
pub fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil_from_days(11_016), (2000, 2, 29));
        assert_eq!(civil_from_days(20_779), (2026, 11, 22));
        assert_eq!(DosTime::from_epoch(0), DosTime { date: 1 << 5 | 1, time: 0 });
        assert_eq!(DosTime::from_epoch(u64::MAX).date, 127 << 9 | 12 << 5 | 31);
    }

    #[test]
    fn short_names() {
        let text = |field: [u8; 11]| String::from_utf8(field.to_vec()).unwrap();
        assert_eq!(exact_short_name("BOOTX64.EFI").map(text).as_deref(), Some("BOOTX64 EFI"));
        assert_eq!(exact_short_name("EFI").map(text).as_deref(), Some("EFI        "));
        for long in ["loader.conf", "linux", "A.", "TOOLONGNAME", "A.B.C", "A.LONG", ".A"] {
            assert_eq!(exact_short_name(long), None, "{long}");
        }
        let mut taken = Vec::new();
        for (name, short) in [
            ("loader.conf", "LOADER~1CON"),
            ("loader.config", "LOADER~2CON"),
            ("a1b2c3d4e5f60718", "A1B2C3~1   "),
            (".hidden", "HIDDEN~1   "),
            ("a b.c d", "AB~1    CD "),
        ] {
            let field = tilde_name(name, &taken);
            assert_eq!(text(field), short, "{name}");
            taken.push(field);
        }
    }
}
