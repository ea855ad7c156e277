//! Block pointers as they are read: where the copies of a block lie, how large it is and what it must hash to.
//!
//! Bit positions: `spa.h` of OpenZFS.

use super::bytes::u64_at;

/// Bytes of a pointer.
pub(crate) const POINTER: usize = 128;
/// Payload of an embedded pointer.
const PAYLOAD: usize = 112;
const SECTOR: u64 = 512;
const WORD_PROPERTIES: usize = 6;
const WORD_PHYSICAL_BIRTH: usize = 9;
const WORD_BIRTH: usize = 10;
const WORD_FILL: usize = 11;

/// Where one copy of a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Dva {
    /// Index of the top-level vdev.
    pub(crate) vdev: u32,
    /// Bytes from the start of the allocatable space.
    pub(crate) offset: u64,
    /// Allocated bytes.
    pub(crate) asize: u64,
    /// What lies there is a list of parts, not the block.
    pub(crate) gang: bool,
}

/// A block that lies on vdevs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    dvas: [Option<Dva>; 3],
    /// Bytes on disk.
    pub(crate) psize: usize,
    pub(crate) compression: u8,
    pub(crate) checksum_kind: u8,
    pub(crate) checksum: [u64; 4],
    /// Half of the checksum is a message authentication code.
    pub(crate) authenticated: bool,
    /// The bytes on disk are a cipher. Of dnodes only the bonus is.
    pub(crate) encrypted: bool,
    pub(crate) dedup: bool,
}

/// How a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Reads as zeros.
    Hole,
    /// The compressed block itself.
    Embedded { payload: [u8; PAYLOAD], len: usize, compression: u8 },
    /// The content was left out when the dataset was received.
    Redacted,
    /// On vdevs.
    Stored(Stored),
}

/// A block pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockPointer {
    pub(crate) object_type: u8,
    pub(crate) level: u8,
    /// Bytes of the block when decoded.
    pub(crate) lsize: usize,
    /// Transaction group that decides which snapshots have the block.
    pub(crate) birth: u64,
    /// Transaction group that gave the block its content; older than `birth` when it was only moved (`zfs rewrite`).
    pub(crate) logical_birth: u64,
    /// Transaction group that wrote the bytes.
    pub(crate) physical_birth: u64,
    pub(crate) fill: u64,
    pub(crate) body: Body,
}

/// A pointer that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadPointer {
    /// Fewer than 128 bytes.
    Short,
    /// Written by a big-endian machine.
    BigEndian,
    /// An embedded payload longer than a pointer, or of an unknown sort.
    BadPayload,
}

impl BadPointer {
    pub(crate) fn text(self) -> &'static str {
        match self {
            BadPointer::Short => "a block pointer is cut off",
            BadPointer::BigEndian => "a block pointer is damaged, or of a big-endian machine",
            BadPointer::BadPayload => "a block pointer embeds something unknown",
        }
    }
}

fn bits(word: u64, low: u32, count: u32) -> u64 {
    (word >> low) & ((1 << count) - 1)
}

impl Stored {
    pub(crate) fn dvas(&self) -> impl Iterator<Item = Dva> + use<> {
        self.dvas.into_iter().flatten()
    }
}

/// `DMU_OT_DNODE`, `DMU_OT_OBJSET`.
const TYPE_DNODE: u8 = 10;
const TYPE_OBJSET: u8 = 11;

/// Whether objects of this type are encrypted in encrypted datasets (`dmu_ot` of OpenZFS).
fn is_secret(object_type: u8) -> bool {
    const NEW_TYPE: u8 = 0x80;
    const ENCRYPTED: u8 = 0x20;
    const OLD: [u8; 18] = [9, TYPE_DNODE, 18, 19, 20, 22, 23, 25, 26, 33, 34, 35, 39, 40, 44, 45, 46, 47];
    if object_type & NEW_TYPE != 0 { object_type & ENCRYPTED != 0 } else { OLD.contains(&object_type) }
}

impl BlockPointer {
    /// Decodes the first 128 bytes of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<BlockPointer, BadPointer> {
        let mut words = [0; 16];
        for (i, word) in words.iter_mut().enumerate() {
            *word = u64_at(bytes, i * 8).ok_or(BadPointer::Short)?;
        }
        let properties = words[WORD_PROPERTIES];
        let is_embedded = bits(properties, 39, 1) == 1;
        let rewritten = bits(words[WORD_PHYSICAL_BIRTH], 63, 1) == 1;
        let physical = bits(words[WORD_PHYSICAL_BIRTH], 0, 63);
        let logical_birth = words[WORD_BIRTH];
        let mut pointer = BlockPointer {
            object_type: bits(properties, 48, 8) as u8,
            level: bits(properties, 56, 5) as u8,
            lsize: ((bits(properties, 0, 16) + 1) * SECTOR) as usize,
            birth: logical_birth,
            logical_birth,
            physical_birth: if physical == 0 { logical_birth } else { physical },
            fill: words[WORD_FILL],
            body: Body::Hole,
        };
        if !is_embedded && words[0] == 0 && words[1] == 0 {
            if properties == 0 {
                pointer.lsize = 0;
            }
            pointer.fill = 0;
            return Ok(pointer);
        }
        if bits(properties, 63, 1) == 0 {
            return Err(BadPointer::BigEndian);
        }
        pointer.body = if is_embedded {
            pointer.fill = 1;
            pointer.physical_birth = logical_birth;
            pointer.lsize = (bits(properties, 0, 25) + 1) as usize;
            Self::embedded(&words, bytes)?
        } else {
            if rewritten {
                pointer.birth = physical;
            }
            let stored = Self::stored(&words, pointer.object_type, pointer.level, &mut pointer.fill);
            Body::Stored(stored)
        };
        Ok(pointer)
    }

    fn embedded(words: &[u64; 16], bytes: &[u8]) -> Result<Body, BadPointer> {
        const DATA: u64 = 0;
        const REDACTED: u64 = 2;
        let properties = words[WORD_PROPERTIES];
        match bits(properties, 40, 8) {
            DATA => {}
            REDACTED => return Ok(Body::Redacted),
            _ => return Err(BadPointer::BadPayload),
        }
        let len = (bits(properties, 25, 7) + 1) as usize;
        if len > PAYLOAD {
            return Err(BadPointer::BadPayload);
        }
        let mut payload = [0; PAYLOAD];
        let own = [WORD_PROPERTIES, WORD_BIRTH];
        let chunks = bytes.chunks_exact(8).enumerate().filter(|(i, _)| !own.contains(i));
        for (to, (_, from)) in payload.chunks_exact_mut(8).zip(chunks) {
            to.copy_from_slice(from);
        }
        Ok(Body::Embedded { payload, len, compression: bits(properties, 32, 7) as u8 })
    }

    fn stored(words: &[u64; 16], object_type: u8, level: u8, fill: &mut u64) -> Stored {
        let properties = words[WORD_PROPERTIES];
        let crypt = bits(properties, 61, 1) == 1;
        // Encrypted blocks keep salt and initialisation vector in the third address and in half of the fill count.
        let secret = crypt && level == 0 && is_secret(object_type);
        let addresses = if secret { 2 } else { 3 };
        if secret {
            *fill &= u64::from(u32::MAX);
        }
        let mut dvas = [None; 3];
        for (i, dva) in dvas.iter_mut().enumerate().take(addresses) {
            let (first, second) = (words[i * 2], words[i * 2 + 1]);
            if (first, second) != (0, 0) {
                *dva = Some(Dva {
                    vdev: bits(first, 32, 24) as u32,
                    // 63 bits of sectors exceed 64 bits of bytes: such an offset lies past any device.
                    offset: bits(second, 0, 63).saturating_mul(SECTOR),
                    asize: bits(first, 0, 24) * SECTOR,
                    gang: bits(second, 63, 1) == 1,
                });
            }
        }
        Stored {
            dvas,
            psize: ((bits(properties, 16, 16) + 1) * SECTOR) as usize,
            compression: bits(properties, 32, 7) as u8,
            checksum_kind: bits(properties, 40, 8) as u8,
            checksum: [words[12], words[13], words[14], words[15]],
            authenticated: crypt && object_type != TYPE_OBJSET,
            encrypted: secret && object_type != TYPE_DNODE,
            dedup: bits(properties, 62, 1) == 1,
        }
    }

    pub(crate) fn is_hole(&self) -> bool {
        self.body == Body::Hole
    }

    /// Bytes that all copies take on their vdevs.
    pub(crate) fn asize(&self) -> u64 {
        match &self.body {
            Body::Stored(stored) => stored.dvas().map(|dva| dva.asize).sum(),
            Body::Hole | Body::Embedded { .. } | Body::Redacted => 0,
        }
    }
}
