//! Turns the bytes of a block into what is stored: a hole, an embedded payload, or compressed or plain sectors.
//!
//! Formats: lz4 is a big-endian length and a raw LZ4 block; zstd is a big-endian length, a big-endian word of
//! library version and level, and a frame without magic, content size and checksum; gzip is a zlib stream; zle and lzjb
//! are bare.

mod lzjb;
mod zle;

use std::io;

use crate::format::blkptr::{EMBEDDED_MAX, Extent};
use crate::format::hasher::Hasher;

/// `enum zio_compress` codes.
const CODE_OFF: u8 = 2;
const CODE_LZJB: u8 = 3;
/// That of gzip-1; the other levels follow.
const CODE_GZIP: u8 = 5;
const CODE_ZLE: u8 = 14;
const CODE_LZ4: u8 = 15;
pub(crate) const CODE_ZSTD: u8 = 16;
/// The zstd version OpenZFS 2.x names in each block it compresses (1.4.5); readers only use it for statistics.
const ZSTD_VERSION: u32 = 10405;
const ZSTD_MAGIC_LEN: usize = 4;

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Stored as they are.
    Off,
    /// LZJB.
    Lzjb,
    /// Only runs of zeros.
    Zle,
    /// Deflate with its level, 1 to 9.
    Gzip(u8),
    /// LZ4.
    Lz4,
    /// Zstandard with its level, 1 to 19.
    Zstd(u8),
    /// Zstandard with a negative level, one of [`ZSTD_FAST_LEVELS`].
    ZstdFast(u16),
}

/// Levels of `zstd-fast`, in the order of the numbers ZFS gives them.
pub const ZSTD_FAST_LEVELS: [u16; 21] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 500, 1000];
/// `ZIO_ZSTD_LEVEL_FAST_1`.
const ZSTD_FAST_1: u8 = 103;

impl Compression {
    /// The level of zstd and its number in ZFS (`enum zio_zstd_levels`); none for anything but zstd.
    pub(crate) fn zstd_level(self) -> Option<(i32, u8)> {
        match self {
            Compression::Zstd(level) => Some((i32::from(level), level)),
            Compression::ZstdFast(level) => {
                let at = ZSTD_FAST_LEVELS.iter().position(|known| *known >= level).unwrap_or_default();
                Some((-i32::from(level), ZSTD_FAST_1 + at as u8))
            }
            _ => None,
        }
    }

    /// The compression that ZFS numbers so among the levels of zstd.
    pub(crate) fn from_zstd_level(number: u8) -> Option<Compression> {
        match number.checked_sub(ZSTD_FAST_1) {
            Some(fast) => ZSTD_FAST_LEVELS.get(usize::from(fast)).copied().map(Compression::ZstdFast),
            None => Some(Compression::Zstd(number)),
        }
    }
}

/// What became of one block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) lsize: u64,
    pub(crate) form: Form,
}

#[derive(Debug)]
pub(crate) enum Form {
    /// All zeros: nothing is stored.
    Hole,
    /// Fits into its block pointer.
    Embedded { payload: Vec<u8>, compression: u8 },
    /// `extent.asize` bytes appended to the caller's buffer.
    Stored(Extent),
}

impl Block {
    pub(crate) fn compression_code(&self) -> Option<u8> {
        match &self.form {
            Form::Hole => None,
            Form::Embedded { compression, .. } => Some(*compression),
            Form::Stored(extent) => Some(extent.compression),
        }
    }
}

/// Which short cuts the reader of a block allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allow {
    pub(crate) embedded: bool,
    pub(crate) holes: bool,
}

/// Encodes blocks with one compression setting; keeps its working memory between blocks.
pub(crate) struct Encoder {
    compression: Compression,
    hasher: Hasher,
    /// Allocation unit in bytes: `1 << ashift`.
    unit: u64,
    scratch: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("compression", &self.compression).field("unit", &self.unit).finish()
    }
}

impl Encoder {
    /// Fails when zstd does not accept the level.
    pub(crate) fn new(compression: Compression, hasher: Hasher, ashift: u8) -> io::Result<Encoder> {
        use zstd::zstd_safe::CParameter;
        let zstd = match compression.zstd_level() {
            Some((level, _)) => {
                let mut zstd = zstd::bulk::Compressor::new(level)?;
                zstd.set_parameter(CParameter::ContentSizeFlag(false))?;
                zstd.set_parameter(CParameter::ChecksumFlag(false))?;
                Some(zstd)
            }
            None => None,
        };
        Ok(Encoder { compression, hasher, unit: 1 << ashift, scratch: Vec::new(), zstd })
    }

    /// Changes the checksum of the blocks to come.
    pub(crate) fn set_hasher(&mut self, hasher: Hasher) {
        self.hasher = hasher;
    }

    /// Encodes `data` (a multiple of 512 bytes); stored sectors, padded to the allocation unit, are appended to `out`.
    pub(crate) fn encode(&mut self, data: &[u8], allow: Allow, out: &mut Vec<u8>) -> io::Result<Block> {
        let lsize = data.len() as u64;
        if allow.holes && self.compression != Compression::Off && is_zero(data) {
            return Ok(Block { lsize, form: Form::Hole });
        }
        if let Some(code) = self.compress(data)? {
            if allow.embedded && self.scratch.len() <= EMBEDDED_MAX {
                let payload = self.scratch.clone();
                return Ok(Block { lsize, form: Form::Embedded { payload, compression: code } });
            }
            // Worth it only with a gain of an eighth, and when whole allocation units are saved.
            let psize = (self.scratch.len() as u64).next_multiple_of(self.unit);
            if psize < lsize && self.scratch.len() as u64 <= lsize - lsize / 8 {
                let start = out.len();
                out.extend_from_slice(&self.scratch);
                out.resize(start + psize as usize, 0);
                let extent = self.extent(lsize, psize, code, &out[start..]);
                return Ok(Block { lsize, form: Form::Stored(extent) });
            }
        }
        Ok(self.store_plain(data, out))
    }

    /// Appends `data` as it is.
    pub(crate) fn store_plain(&self, data: &[u8], out: &mut Vec<u8>) -> Block {
        let lsize = data.len() as u64;
        let asize = lsize.next_multiple_of(self.unit);
        let start = out.len();
        out.extend_from_slice(data);
        out.resize(start + asize as usize, 0);
        let extent = Extent { asize, ..self.extent(lsize, lsize, CODE_OFF, data) };
        Block { lsize, form: Form::Stored(extent) }
    }

    fn extent(&self, lsize: u64, psize: u64, compression: u8, stored: &[u8]) -> Extent {
        let algorithm = self.hasher.algorithm.code();
        Extent { lsize, psize, asize: psize, compression, algorithm, checksum: self.hasher.sum(stored) }
    }

    /// Leaves the compressed form with its header in `scratch`; gives its code, or none when not compressing.
    fn compress(&mut self, data: &[u8]) -> io::Result<Option<u8>> {
        let scratch = &mut self.scratch;
        let code = match self.compression {
            Compression::Off => return Ok(None),
            Compression::Lzjb => {
                scratch.clear();
                lzjb::compress(data, scratch);
                CODE_LZJB
            }
            Compression::Zle => {
                scratch.clear();
                zle::compress(data, scratch);
                CODE_ZLE
            }
            Compression::Gzip(level) => {
                *scratch = miniz_oxide::deflate::compress_to_vec_zlib(data, level);
                CODE_GZIP + level - 1
            }
            Compression::Lz4 => {
                let most = lz4_flex::block::get_maximum_output_size(data.len());
                scratch.resize(4 + most, 0);
                let len =
                    lz4_flex::block::compress_into(data, &mut scratch[4..]).map_err(io::Error::other)?;
                scratch.truncate(4 + len);
                scratch[..4].copy_from_slice(&(len as u32).to_be_bytes());
                CODE_LZ4
            }
            Compression::Zstd(_) | Compression::ZstdFast(_) => {
                let (Some(zstd), Some((_, level))) = (&mut self.zstd, self.compression.zstd_level()) else {
                    return Ok(None);
                };
                compress_zstd(zstd, level, data, scratch)?;
                CODE_ZSTD
            }
        };
        Ok(Some(code))
    }
}

fn compress_zstd(
    zstd: &mut zstd::bulk::Compressor,
    level: u8,
    data: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    const HEADER: usize = 8;
    // The frame is compressed to end up right behind the header: its magic is overwritten by the header.
    let frame_at = HEADER - ZSTD_MAGIC_LEN;
    let most = zstd::zstd_safe::compress_bound(data.len());
    out.resize(frame_at + most, 0);
    let len = zstd.compress_to_buffer(data, &mut out[frame_at..])?;
    out.truncate(frame_at + len);
    out[..4].copy_from_slice(&((len - ZSTD_MAGIC_LEN) as u32).to_be_bytes());
    out[4..8].copy_from_slice(&(ZSTD_VERSION << 8 | u32::from(level)).to_be_bytes());
    Ok(())
}

/// Whether `data` is only zeros; stops at the first 64 bytes that are not.
pub(crate) fn is_zero(data: &[u8]) -> bool {
    let lines = data.chunks_exact(64);
    let tail = lines.remainder();
    lines.into_iter().all(|line| line.iter().fold(0, |seen, byte| seen | byte) == 0)
        && tail.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    use crate::format::hasher::Algorithm;

    const ALLOW_ALL: Allow = Allow { embedded: true, holes: true };

    fn encoder(compression: Compression, ashift: u8) -> Encoder {
        Encoder::new(compression, Hasher::new(Algorithm::Fletcher4, [0; 32]), ashift).unwrap()
    }

    fn decode(code: u8, stored: &[u8], lsize: usize) -> Vec<u8> {
        let len = u32::from_be_bytes(stored[..4].try_into().unwrap()) as usize;
        match code {
            CODE_LZJB => lzjb::decompress(stored, lsize),
            CODE_ZLE => zle::decompress(stored, lsize),
            CODE_GZIP..CODE_ZLE => miniz_oxide::inflate::decompress_to_vec_zlib(stored).unwrap(),
            CODE_LZ4 => lz4_flex::block::decompress(&stored[4..4 + len], lsize).unwrap(),
            CODE_ZSTD => {
                let mut frame = 0xfd2f_b528u32.to_le_bytes().to_vec();
                frame.extend(&stored[8..8 + len]);
                zstd::bulk::decompress(&frame, lsize).unwrap()
            }
            _ => stored[..lsize].to_vec(),
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_decodes_to_the_block(
            seed in proptest::collection::vec(any::<u8>(), 1..600),
            sectors in 1usize..80,
            kind in 0usize..8,
        ) {
            let data: Vec<u8> = seed.iter().copied().cycle().take(sectors * 512).collect();
            let compression = [
                Compression::Off,
                Compression::Lz4,
                Compression::Zstd(3),
                Compression::ZstdFast(1000),
                Compression::Gzip(1),
                Compression::Gzip(9),
                Compression::Zle,
                Compression::Lzjb,
            ][kind];
            let mut out = vec![9; 7];
            let block = encoder(compression, 12).encode(&data, ALLOW_ALL, &mut out).unwrap();
            match block.form {
                Form::Hole => prop_assert!(is_zero(&data)),
                Form::Embedded { payload, compression } => prop_assert_eq!(decode(compression, &payload, data.len()), data),
                Form::Stored(extent) => {
                    prop_assert_eq!(out.len() as u64 - 7, extent.asize);
                    prop_assert_eq!(extent.asize % 4096, 0);
                    prop_assert_eq!(decode(extent.compression, &out[7..], data.len()), data);
                }
            }
        }
    }

    #[test]
    fn forms_by_content() {
        let form = |compression, data: &[u8]| {
            let mut out = Vec::new();
            let block = encoder(compression, 12).encode(data, ALLOW_ALL, &mut out).unwrap();
            match block.form {
                Form::Hole => "hole".to_owned(),
                Form::Embedded { .. } => "embedded".to_owned(),
                Form::Stored(extent) => format!("{} of {}", extent.psize, extent.lsize),
            }
        };
        assert_eq!(form(Compression::Lz4, &[0; 8192]), "hole");
        assert_eq!(form(Compression::Off, &[0; 8192]), "8192 of 8192");
        assert_eq!(form(Compression::Lz4, &[1; 8192]), "embedded");
        assert_eq!(form(Compression::Zstd(19), &[1; 131_072]), "embedded");
        assert_eq!(form(Compression::Off, &[1; 512]), "512 of 512");
        let mixed: Vec<u8> =
            (0..32768u32).map(|i| if i < 8192 { ((i * i * 7) >> 5) as u8 } else { 1 }).collect();
        assert_eq!(form(Compression::Lz4, &mixed[..512]), "512 of 512");
    }

    #[test]
    fn numbers_of_zstd_levels() {
        for (compression, number) in [
            (Compression::Zstd(19), 19),
            (Compression::ZstdFast(1), 103),
            (Compression::ZstdFast(10), 112),
            (Compression::ZstdFast(1000), 123),
        ] {
            assert_eq!(compression.zstd_level().unwrap().1, number);
            assert_eq!(Compression::from_zstd_level(number), Some(compression));
        }
    }

    #[test]
    fn a_single_bit_is_not_zero() {
        for at in [0, 63, 64, 999] {
            let mut data = vec![0; 1000];
            assert!(is_zero(&data));
            data[at] = 1;
            assert!(!is_zero(&data), "{at}");
        }
    }
}
