//! Turns the bytes of a block into what is stored: a hole, an embedded payload, or compressed or plain sectors.
//!
//! Formats: lz4 is a big-endian length and a raw LZ4 block; zstd is a big-endian length, a big-endian word of
//! library version and level, and a frame without magic, content size and checksum; gzip is a zlib stream; zle and lzjb
//! are bare.

mod lzjb;
mod output;
mod zle;

use std::io;

use crate::format::blkptr::{EMBEDDED_MAX, Extent};
use crate::format::hasher::Hasher;

pub(crate) use output::Output;

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
/// The length before a raw LZ4 block.
const LZ4_HEADER: usize = 4;

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
    pub(crate) fn encode(&mut self, data: &[u8], allow: Allow, out: &mut Output) -> io::Result<Block> {
        let lsize = data.len() as u64;
        if allow.holes && self.compression != Compression::Off && is_zero(data) {
            return Ok(Block { lsize, form: Form::Hole });
        }
        if let Some((code, len)) = self.compress(data, out)? {
            if allow.embedded && len <= EMBEDDED_MAX {
                let payload = out.room(len).to_vec();
                return Ok(Block { lsize, form: Form::Embedded { payload, compression: code } });
            }
            // Worth it only with a gain of an eighth, and when whole allocation units are saved.
            let psize = (len as u64).next_multiple_of(self.unit);
            if psize < lsize && len as u64 <= lsize - lsize / 8 {
                let stored = out.take(len, psize as usize);
                let extent = self.extent(lsize, psize, code, stored);
                return Ok(Block { lsize, form: Form::Stored(extent) });
            }
        }
        Ok(self.store_plain(data, out))
    }

    /// Appends `data` as it is.
    pub(crate) fn store_plain(&self, data: &[u8], out: &mut Output) -> Block {
        let lsize = data.len() as u64;
        let asize = lsize.next_multiple_of(self.unit);
        out.room(data.len()).copy_from_slice(data);
        out.take(data.len(), asize as usize);
        let extent = Extent { asize, ..self.extent(lsize, lsize, CODE_OFF, data) };
        Block { lsize, form: Form::Stored(extent) }
    }

    fn extent(&self, lsize: u64, psize: u64, compression: u8, stored: &[u8]) -> Extent {
        let algorithm = self.hasher.algorithm.code();
        Extent { lsize, psize, asize: psize, compression, algorithm, checksum: self.hasher.sum(stored) }
    }

    /// Puts the compressed form with its header into the room of `out`; gives its code and length, or none when not
    /// compressing.
    fn compress(&mut self, data: &[u8], out: &mut Output) -> io::Result<Option<(u8, usize)>> {
        let scratch = &mut self.scratch;
        scratch.clear();
        let code = match self.compression {
            Compression::Off => return Ok(None),
            Compression::Lz4 => {
                let room = out.room(LZ4_HEADER + lz4_flex::block::get_maximum_output_size(data.len()));
                let len = lz4_flex::block::compress_into(data, &mut room[LZ4_HEADER..])
                    .map_err(io::Error::other)?;
                room[..LZ4_HEADER].copy_from_slice(&(len as u32).to_be_bytes());
                return Ok(Some((CODE_LZ4, LZ4_HEADER + len)));
            }
            Compression::Zstd(_) | Compression::ZstdFast(_) => {
                let (Some(zstd), Some((_, level))) = (&mut self.zstd, self.compression.zstd_level()) else {
                    return Ok(None);
                };
                return Ok(Some((CODE_ZSTD, compress_zstd(zstd, level, data, out)?)));
            }
            Compression::Lzjb => {
                lzjb::compress(data, scratch);
                CODE_LZJB
            }
            Compression::Zle => {
                zle::compress(data, scratch);
                CODE_ZLE
            }
            Compression::Gzip(level) => {
                *scratch = miniz_oxide::deflate::compress_to_vec_zlib(data, level);
                CODE_GZIP + level - 1
            }
        };
        out.room(scratch.len()).copy_from_slice(scratch);
        Ok(Some((code, scratch.len())))
    }
}

/// Gives the length of the compressed form in the room of `out`.
fn compress_zstd(
    zstd: &mut zstd::bulk::Compressor,
    level: u8,
    data: &[u8],
    out: &mut Output,
) -> io::Result<usize> {
    const HEADER: usize = 8;
    // The frame is compressed to end up right behind the header: its magic is overwritten by the header.
    let frame_at = HEADER - ZSTD_MAGIC_LEN;
    let room = out.room(frame_at + zstd::zstd_safe::compress_bound(data.len()));
    let len = zstd.compress_to_buffer(data, &mut room[frame_at..])?;
    room[..4].copy_from_slice(&((len - ZSTD_MAGIC_LEN) as u32).to_be_bytes());
    room[4..8].copy_from_slice(&(ZSTD_VERSION << 8 | u32::from(level)).to_be_bytes());
    Ok(frame_at + len)
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
            let mut out = Output::default();
            encoder(Compression::Off, 9).store_plain(&[9; 512], &mut out);
            let block = encoder(compression, 12).encode(&data, ALLOW_ALL, &mut out).unwrap();
            match block.form {
                Form::Hole => prop_assert!(is_zero(&data)),
                Form::Embedded { payload, compression } => prop_assert_eq!(decode(compression, &payload, data.len()), data),
                Form::Stored(extent) => {
                    prop_assert_eq!(out.bytes().len() as u64 - 512, extent.asize);
                    prop_assert_eq!(extent.asize % 4096, 0);
                    prop_assert_eq!(decode(extent.compression, &out.bytes()[512..], data.len()), data);
                }
            }
        }
    }

    #[test]
    fn forms_by_content() {
        let form = |compression, data: &[u8]| {
            let mut out = Output::default();
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

    /// Matches of all lengths and distances between literals, from a generator.
    fn mixture(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize
        };
        let mut data: Vec<u8> = vec![7; 64];
        while data.len() < len {
            let (at, run) = (next() % data.len(), 1 + next() % 40);
            if next() % 3 == 0 {
                data.extend((0..run).map(|_| next() as u8));
            } else {
                let from = data[at..data.len().min(at + run)].to_vec();
                data.extend(from);
            }
        }
        data.truncate(len);
        data
    }

    /// With and without the features `safe-encode` and `overflow-checks`: images must not depend on how it was compiled.
    #[test]
    fn lz4_gives_the_bytes_it_always_gave() {
        for (len, first_words) in [
            (32 << 10, [0x70f_aa93_6e71, 0x51_5261_8656_dc80]),
            (128 << 10, [0x27d4_f9ab_4953, 0x6ce_4f37_e2ea_384f]),
        ] {
            let mut out = Output::default();
            let block = encoder(Compression::Lz4, 12).encode(&mixture(len), ALLOW_ALL, &mut out).unwrap();
            let Form::Stored(extent) = block.form else { panic!("{len}: not stored") };
            assert_eq!(extent.checksum[..2], first_words, "{len}");
        }
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
