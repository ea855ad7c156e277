//! What is in a stream.

use std::io;

use crate::read::decompress::decompress;

/// What a receiver must be able to do for a stream (`DMU_BACKUP_FEATURE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamFeature {
    /// Files have system attributes, perhaps in spill blocks.
    Spill,
    /// Blocks that are embedded in their pointers.
    Embedded,
    /// Blocks compressed with LZ4.
    Lz4,
    /// Blocks larger than 128 KiB.
    LargeBlocks,
    /// The stream goes on where another was interrupted.
    Resuming,
    /// Blocks that are compressed.
    Compressed,
    /// Objects with more than one slot.
    LargeDnodes,
    /// Blocks compressed with Zstandard.
    Zstd,
    /// Names longer than 255 bytes.
    LongNames,
    /// Tables in one block larger than 128 KiB.
    LargeTables,
}

impl StreamFeature {
    pub(super) const ALL: [StreamFeature; 10] = [
        StreamFeature::Spill,
        StreamFeature::Embedded,
        StreamFeature::Lz4,
        StreamFeature::LargeBlocks,
        StreamFeature::Resuming,
        StreamFeature::Compressed,
        StreamFeature::LargeDnodes,
        StreamFeature::Zstd,
        StreamFeature::LongNames,
        StreamFeature::LargeTables,
    ];

    /// Its bit among the features of a stream.
    pub(super) fn bit(self) -> u64 {
        1 << match self {
            StreamFeature::Spill => 2,
            StreamFeature::Embedded => 16,
            StreamFeature::Lz4 => 17,
            StreamFeature::LargeBlocks => 19,
            StreamFeature::Resuming => 20,
            StreamFeature::Compressed => 22,
            StreamFeature::LargeDnodes => 23,
            StreamFeature::Zstd => 25,
            StreamFeature::LongNames => 28,
            StreamFeature::LargeTables => 29,
        }
    }
}

/// What the first record says about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Full name of the snapshot where it was sent from.
    pub name: String,
    /// Its GUID.
    pub guid: u64,
    /// GUID of the snapshot it is the difference from.
    pub from_guid: Option<u64>,
    /// That snapshot belongs to another dataset.
    pub is_clone: bool,
    /// When the snapshot was made, in seconds since 1970.
    pub created: u64,
    /// A volume, not a file system.
    pub is_volume: bool,
    /// What the receiver must be able to do.
    pub features: Vec<StreamFeature>,
    /// Object and byte where it goes on, when another stream came before.
    pub resume: Option<(u64, u64)>,
}

/// A record of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// The first one.
    Begin(StreamInfo),
    /// An object; what follows until the next one belongs to it.
    #[non_exhaustive]
    Object {
        /// Its number.
        number: u64,
        /// What it is (`dmu_object_type_t`).
        object_type: u8,
        /// What its bonus is.
        bonus_type: u8,
        /// Bytes of its blocks.
        block_size: u32,
        /// Slots that its dnode takes.
        slots: u8,
        /// The bonus: of a file its attributes.
        bonus: Vec<u8>,
        /// It has a spill block.
        has_spill: bool,
    },
    /// No object has these numbers.
    FreeObjects {
        /// The first number.
        first: u64,
        /// How many they are.
        count: u64,
    },
    /// A block, or a part of one.
    Write {
        /// Its object.
        object: u64,
        /// Its first byte in the object.
        offset: u64,
        /// Its content.
        block: StreamBlock,
    },
    /// A range of an object that reads as zeros.
    Free {
        /// The object.
        object: u64,
        /// Its first byte.
        offset: u64,
        /// Its length in bytes; none is up to the end.
        length: Option<u64>,
    },
    /// A spill block: more attributes of a file.
    Spill {
        /// The object of the file.
        object: u64,
        /// It is the one that the receiver has already.
        unmodified: bool,
        /// Its content.
        content: Vec<u8>,
    },
    /// The last one: everything came as it was sent.
    End,
}

/// The content of a block as a stream has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamBlock {
    /// Bytes of the block when decoded.
    pub size: u32,
    /// How it is compressed (`enum zio_compress`).
    pub compression: Option<u8>,
    /// It is embedded in its pointer.
    pub embedded: bool,
    /// The bytes as they are in the stream.
    pub bytes: Vec<u8>,
}

impl StreamBlock {
    /// The content, decompressed: `size` bytes.
    pub fn decode(&self) -> Result<Vec<u8>, StreamError> {
        let Some(code) = self.compression else { return Ok(self.bytes.clone()) };
        decompress(code, self.bytes.clone(), self.size as usize)
            .map_err(|_| StreamError::Compression { code })
    }
}

/// A stream that is not to be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// It does not begin like one.
    #[error("this is no send stream")]
    NotAStream,
    /// It ends before its last record.
    #[error("the stream ends after {at} bytes, before its end")]
    Truncated {
        /// Bytes that there were.
        at: u64,
    },
    /// A checksum is wrong: something before it changed on the way.
    #[error("the stream is damaged: the checksum of the record at byte {at} is wrong")]
    Checksum {
        /// First byte of the record with the checksum.
        at: u64,
    },
    /// A record contradicts itself or the ones before it, although its checksum is right.
    #[error("the record at byte {at} of the stream makes no sense: {problem}")]
    Damaged {
        /// Its first byte.
        at: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A block cannot be decompressed.
    #[error("a block of the stream cannot be decompressed: its compression is {code}")]
    Compression {
        /// How it is compressed (`enum zio_compress`).
        code: u8,
    },
    /// Something that OpenZFS can receive and this cannot.
    #[error("{what} are not supported")]
    NotSupported {
        /// What it is.
        what: &'static str,
    },
    /// The stream cannot be read.
    #[error("cannot read the stream")]
    Read(#[source] io::Error),
}
