//! The 512-byte header of a tar member (POSIX ustar with the GNU variations).

use super::TarProblem;

/// Headers and bodies are padded to this.
pub(super) const BLOCK: u64 = 512;

/// A header, decoded.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of the body that follows.
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) flag: u8,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// Old GNU sparse members: first parts, whether more follow, size of the file.
    pub(super) sparse: Vec<(u64, u64)>,
    pub(super) sparse_continues: bool,
    pub(super) real_size: u64,
}

impl Header {
    /// Decodes a header; none for the zero block that ends an archive.
    pub(super) fn parse(block: &[u8; BLOCK as usize]) -> Result<Option<Header>, TarProblem> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        const CHECKSUM: std::ops::Range<usize> = 148..156;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(i, byte)| if CHECKSUM.contains(&i) { u64::from(b' ') } else { u64::from(*byte) })
            .sum();
        if number(&block[CHECKSUM]) != Some(i128::from(sum)) {
            return Err(TarProblem::NotAHeader);
        }
        let flag = block[156];
        let is_posix = &block[257..263] == b"ustar\0";
        let mut name = text(&block[..100]);
        let prefix = text(&block[345..500]);
        if is_posix && !prefix.is_empty() {
            name = [prefix.as_slice(), b"/", &name].concat();
        }
        let is_device = matches!(flag, b'3' | b'4');
        let mut sparse = Vec::new();
        let is_sparse = flag == b'S';
        let sparse_continues = is_sparse && parse_sparse(block, 386, 4, &mut sparse)?;
        Ok(Some(Header {
            name,
            link: text(&block[157..257]),
            mode: field(block, 100..108, "mode")?,
            uid: field(block, 108..116, "uid")?,
            gid: field(block, 116..124, "gid")?,
            size: field(block, 124..136, "size")?,
            mtime: field(block, 136..148, "mtime")?,
            flag,
            major: if is_device { field(block, 329..337, "devmajor")? } else { 0 },
            minor: if is_device { field(block, 337..345, "devminor")? } else { 0 },
            sparse,
            sparse_continues,
            real_size: if is_sparse { field(block, 483..495, "realsize")? } else { 0 },
        }))
    }
}

/// Reads up to `count` parts (start, length) at `at`; says whether another block of them follows.
pub(super) fn parse_sparse(
    block: &[u8; BLOCK as usize],
    at: usize,
    count: usize,
    parts: &mut Vec<(u64, u64)>,
) -> Result<bool, TarProblem> {
    const PART: usize = 24;
    for i in 0..count {
        let part = at + i * PART;
        if block[part] == 0 {
            break;
        }
        parts.push((
            field(block, part..part + 12, "sparse")?,
            field(block, part + 12..part + PART, "sparse")?,
        ));
    }
    Ok(block[at + count * PART] != 0)
}

fn field<T: TryFrom<i128>>(
    block: &[u8; BLOCK as usize],
    range: std::ops::Range<usize>,
    name: &'static str,
) -> Result<T, TarProblem> {
    number(&block[range]).and_then(|value| T::try_from(value).ok()).ok_or(TarProblem::BadNumber(name))
}

/// An octal number, or a base-256 one when the first byte has its high bit set. An empty field is 0.
fn number(field: &[u8]) -> Option<i128> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement, the marker bit replaced by the sign.
        let negative = first & 0x40 != 0;
        let start = i128::from(first & 0x7f) - if negative { 0x80 } else { 0 };
        return Some(rest.iter().fold(start, |value, byte| value << 8 | i128::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let len = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    digits[..len].iter().try_fold(0i128, |value, byte| match byte {
        b'0'..=b'7' => Some(value * 8 + i128::from(byte - b'0')),
        _ => None,
    })
}

fn text(field: &[u8]) -> Vec<u8> {
    field.iter().copied().take_while(|byte| *byte != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"77777777", Some(0o7777_7777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"12x", None),
            (b"9", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
