//! Decompression of blocks: every algorithm OpenZFS has.

use std::io::Read;

/// Codes of `enum zio_compress`.
mod code {
    pub(super) const OFF: u8 = 2;
    pub(super) const LZJB: u8 = 3;
    pub(super) const EMPTY: u8 = 4;
    pub(super) const GZIP: std::ops::RangeInclusive<u8> = 5..=13;
    pub(super) const ZLE: u8 = 14;
    pub(super) const LZ4: u8 = 15;
    pub(super) const ZSTD: u8 = 16;
}

/// Why bytes could not be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No algorithm has this number.
    Unknown(u8),
    /// The bytes are not what the algorithm makes, or the wrong amount came out.
    Corrupt,
}

/// Decompresses `stored` to exactly `lsize` bytes.
pub(crate) fn decompress(code: u8, stored: Vec<u8>, lsize: usize) -> Result<Vec<u8>, Failure> {
    let out = match code {
        code::OFF => stored,
        code::EMPTY => vec![0; lsize],
        code::LZJB => lzjb(&stored, lsize).ok_or(Failure::Corrupt)?,
        code::ZLE => zle(&stored, lsize).ok_or(Failure::Corrupt)?,
        code::LZ4 => lz4(&stored, lsize).ok_or(Failure::Corrupt)?,
        code::ZSTD => zstd(&stored, lsize).ok_or(Failure::Corrupt)?,
        code if code::GZIP.contains(&code) => {
            let mut out = Vec::new();
            let mut decoder = flate2::read::ZlibDecoder::new(stored.as_slice()).take(lsize as u64);
            decoder.read_to_end(&mut out).map_err(|_| Failure::Corrupt)?;
            out
        }
        code => return Err(Failure::Unknown(code)),
    };
    if out.len() == lsize { Ok(out) } else { Err(Failure::Corrupt) }
}

/// The part behind a big-endian length.
fn with_length(stored: &[u8], header: usize) -> Option<&[u8]> {
    let len = u32::from_be_bytes(*stored.first_chunk()?) as usize;
    stored.get(header..header.checked_add(len)?)
}

fn lz4(stored: &[u8], lsize: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; lsize];
    let len = lz4_flex::block::decompress_into(with_length(stored, 4)?, &mut out).ok()?;
    (len == lsize).then_some(out)
}

/// Length, a word of version and level, and a frame that lacks its magic number.
fn zstd(stored: &[u8], lsize: usize) -> Option<Vec<u8>> {
    const MAGIC: [u8; 4] = 0xfd2f_b528u32.to_le_bytes();
    let body = with_length(stored, 8)?;
    let mut frame = Vec::with_capacity(body.len() + MAGIC.len());
    frame.extend(MAGIC);
    frame.extend(body);
    zstd::bulk::decompress(&frame, lsize).ok()
}

/// A control byte for every eight items: a literal, or a length and a distance in two bytes.
fn lzjb(stored: &[u8], lsize: usize) -> Option<Vec<u8>> {
    const LENGTH_BITS: u32 = 6;
    const LEAST: usize = 3;
    let mut input = stored.iter().copied();
    let mut out = Vec::with_capacity(lsize);
    let mut control = 0u8;
    let mut left = 0;
    while out.len() < lsize {
        if left == 0 {
            control = input.next()?;
            left = 8;
        }
        left -= 1;
        if control & 1 == 1 {
            let pair = u16::from_be_bytes([input.next()?, input.next()?]);
            let len = usize::from(pair >> (16 - LENGTH_BITS)) + LEAST;
            let distance = usize::from(pair & ((1 << (16 - LENGTH_BITS)) - 1));
            let start = out.len().checked_sub(distance).filter(|_| distance > 0)?;
            for i in 0..len.min(lsize - out.len()) {
                out.push(*out.get(start + i)?);
            }
        } else {
            out.push(input.next()?);
        }
        control >>= 1;
    }
    Some(out)
}

/// Runs of zeros, and literals of at most 64 bytes.
fn zle(stored: &[u8], lsize: usize) -> Option<Vec<u8>> {
    const LITERALS: usize = 64;
    let mut rest = stored;
    let mut out = Vec::with_capacity(lsize);
    while out.len() < lsize {
        let (first, behind) = rest.split_first()?;
        rest = behind;
        let len = 1 + usize::from(*first);
        if len <= LITERALS {
            let (literal, behind) = rest.split_at_checked(len)?;
            out.extend(literal);
            rest = behind;
        } else {
            out.resize(out.len() + len - LITERALS, 0);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_streams() {
        // Literals a, b, c, then 9 bytes from a distance of 3.
        assert_eq!(lzjb(&[0b1000, b'a', b'b', b'c', 6 << 2, 3], 12).unwrap(), b"abcabcabcabc");
        assert_eq!(zle(&[2, b'x', b'y', b'z', 64 + 4], 8).unwrap(), b"xyz\0\0\0\0\0");
        let mut gzip = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
        gzip.write_all(&[7; 1000]).unwrap();
        let mut stored = gzip.finish().unwrap();
        stored.resize(512, 0);
        assert_eq!(decompress(10, stored, 1000), Ok(vec![7; 1000]));
        assert_eq!(decompress(4, vec![], 512), Ok(vec![0; 512]));
        assert_eq!(decompress(99, vec![], 512), Err(Failure::Unknown(99)));
    }

    proptest! {
        #[test]
        fn nothing_panics(code in 0u8..20, stored in proptest::collection::vec(any::<u8>(), 0..300), lsize in 0usize..5000) {
            if let Ok(out) = decompress(code, stored, lsize) {
                prop_assert_eq!(out.len(), lsize);
            }
        }
    }
}
