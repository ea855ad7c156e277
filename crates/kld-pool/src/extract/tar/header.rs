//! Headers of tar members: POSIX ustar, with PAX records for what does not fit.

use crate::tree::Timestamp;

/// Headers and bodies are padded to this.
pub(super) const BLOCK: usize = 512;
/// What GNU tar and [`crate::tree::Tree::from_tar`] read; more is nobody's extended header.
pub(super) const MAX_RECORDS: usize = 8 << 20;

/// What a member is, as its type flag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    File = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    CharDevice = b'3' as isize,
    BlockDevice = b'4' as isize,
    Directory = b'5' as isize,
    Fifo = b'6' as isize,
    Records = b'x' as isize,
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Member<'a> {
    pub(super) name: &'a [u8],
    pub(super) flag: Flag,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of the body.
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    /// Target of a link.
    pub(super) link: &'a [u8],
    pub(super) device: (u32, u32),
}

/// PAX records under construction.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    /// `length key=value`, where the length counts its own digits.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        let base = key.len() + value.len() + " =\n".len();
        let mut len = base;
        while base + len.to_string().len() != len {
            len = base + len.to_string().len();
        }
        self.0.extend(len.to_string().bytes().chain([b' ']));
        self.0.extend([key, b"=", value, b"\n"].concat());
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A key that holds an attribute's name: `=` would end it.
    pub(super) fn attribute_key(name: &[u8]) -> Vec<u8> {
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in name {
            match byte {
                b'=' => key.extend(b"%3D"),
                b'%' => key.extend(b"%25"),
                byte => key.push(*byte),
            }
        }
        key
    }
}

/// The header of a member with the extended header before it, if it needs one: `records` are part of that.
pub(super) fn encode(member: &Member<'_>, mut records: Records) -> Vec<u8> {
    const MAX_SECONDS: i64 = 0o77_777_777_777;
    const MAX_OWNER: u32 = 0o7_777_777;
    const MAX_SIZE: u64 = 0o77_777_777_777;
    let Timestamp { sec, nsec } = member.mtime;
    let mut late = Records::default();
    for (key, text, room) in [("path", member.name, 100), ("linkpath", member.link, 100)] {
        if text.len() > room || !text.is_ascii() {
            late.add(key.as_bytes(), text);
        }
    }
    if !(0..=MAX_SECONDS).contains(&sec) || nsec > 0 {
        late.add(b"mtime", decimal(member.mtime).as_bytes());
    }
    for (key, owner) in [("uid", member.uid), ("gid", member.gid)] {
        if owner > MAX_OWNER {
            late.add(key.as_bytes(), owner.to_string().as_bytes());
        }
    }
    if member.size > MAX_SIZE {
        late.add(b"size", member.size.to_string().as_bytes());
    }
    let mut out = Vec::new();
    if !records.0.is_empty() || !late.0.is_empty() {
        let is_text = |text: &[u8]| std::str::from_utf8(text).is_ok();
        if !is_text(member.name) || !is_text(member.link) {
            // Names are bytes, not the UTF-8 that PAX takes them for.
            let mut charset = Records::default();
            charset.add(b"hdrcharset", b"BINARY");
            charset.0.append(&mut records.0);
            records = charset;
        }
        records.0.append(&mut late.0);
        let extended = Member {
            name: b"PaxHeaders/member",
            flag: Flag::Records,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: records.0.len() as u64,
            mtime: Timestamp::default(),
            link: b"",
            device: (0, 0),
        };
        out.extend(block(&extended));
        out.append(&mut records.0);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.extend(block(member));
    out
}

/// The ustar header; what does not fit is cut off, and stands in the records.
fn block(member: &Member<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut text = |at: usize, text: &[u8], room: usize| {
        let len = text.len().min(room);
        block[at..at + len].copy_from_slice(&text[..len]);
    };
    text(0, member.name, 100);
    text(157, member.link, 100);
    text(257, b"ustar\x0000", 8);
    block[156] = member.flag as u8;
    let mut number = |at: usize, room: usize, value: u64| {
        let digits = format!("{value:0width$o}", width = room - 1);
        if digits.len() < room {
            block[at..at + room - 1].copy_from_slice(digits.as_bytes());
        } else if room == 8 {
            // As GNU tar writes large numbers: big-endian behind a mark.
            block[at..at + room].copy_from_slice(&(value | 1 << 63).to_be_bytes());
        }
    };
    number(100, 8, member.mode.into());
    number(108, 8, member.uid.into());
    number(116, 8, member.gid.into());
    number(124, 12, member.size);
    number(136, 12, u64::try_from(member.mtime.sec).unwrap_or(0));
    if matches!(member.flag, Flag::CharDevice | Flag::BlockDevice) {
        number(329, 8, member.device.0.into());
        number(337, 8, member.device.1.into());
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// Seconds with a fraction: -1.25 is 750 000 000 ns after -2.
fn decimal(time: Timestamp) -> String {
    let Timestamp { sec, nsec } = time;
    match (sec, nsec) {
        (_, 0) => sec.to_string(),
        (0.., _) => format!("{sec}.{nsec:09}"),
        (_, _) => format!("-{}.{:09}", (i128::from(sec) + 1).unsigned_abs(), 1_000_000_000 - nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for value in [0, 1, 4, 5, 6, 92, 93, 94, 95, 990, 991, 992, 993] {
            let mut records = Records::default();
            records.add(b"k", &vec![b'.'; value]);
            let line = String::from_utf8(records.0).unwrap();
            let (len, _) = line.split_once(' ').unwrap();
            assert_eq!(len.parse::<usize>().unwrap(), line.len(), "{line}");
        }
    }

    #[test]
    fn times_before_1970() {
        for (sec, nsec, text) in [
            (7, 0, "7"),
            (7, 5, "7.000000005"),
            (-2, 750_000_000, "-1.250000000"),
            (-1, 500_000_000, "-0.500000000"),
            (-3, 0, "-3"),
            (i64::MIN, 1, "-9223372036854775807.999999999"),
        ] {
            assert_eq!(decimal(Timestamp { sec, nsec }), text);
        }
    }
}
