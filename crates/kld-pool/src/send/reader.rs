//! Takes a stream apart: every checksum is verified, and nothing is believed that contradicts what came before.
//!
//! Shares no code with what makes streams, not even the checksum.

use std::io::Read;

use super::stream::{Record, StreamBlock, StreamError, StreamFeature, StreamInfo};
use crate::read::bytes::{text, u32_at, u64_at};
use crate::read::nvlist::NvList;

const RECORD: usize = 312;
const SUM_AT: usize = 280;
/// Largest block (`SPA_MAXBLOCKSIZE`), largest one that needs no feature, and unit of sizes.
const MAX_BLOCK: u64 = 16 << 20;
const OLD_MAX_BLOCK: u64 = 128 << 10;
const SECTOR: u64 = 512;
/// Longest payload of the first record that is believed.
const MAX_BEGIN: u64 = 1 << 20;
/// Slots of the largest object, and bytes of a slot and of what comes before the bonus.
const MAX_SLOTS: u8 = 32;
const SLOT: u64 = 512;
const BONUS_AT: u64 = 192;
/// Codes of `enum zio_compress` that have a feature, and the last one.
const LZ4: u8 = 15;
const ZSTD: u8 = 16;

/// Reads records; ends behind the last one, or with the first error.
#[derive(Debug)]
pub struct StreamReader<R> {
    input: R,
    sum: [u64; 4],
    at: u64,
    state: State,
    /// Checksums count. Fuzzing looks past them, at what they would protect.
    verified: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing was read.
    Start,
    Open(Open),
    /// Behind the last record, or behind an error.
    Over,
}

/// What a stream said so far.
#[derive(Clone, Copy, Debug)]
struct Open {
    guid: u64,
    features: u64,
    object: Option<Object>,
    /// The first number that may follow.
    next_object: u64,
}

/// The object that blocks belong to now.
#[derive(Clone, Copy, Debug)]
struct Object {
    number: u64,
    block_size: u64,
    has_spill: bool,
    /// The first byte that may be written next.
    next: u64,
}

/// Reads a stream to its end; gives what it is.
pub fn check(input: impl Read) -> Result<StreamInfo, StreamError> {
    read_all(StreamReader::new(input))
}

/// The same, with any checksums.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_unverified(input: impl Read) -> Result<StreamInfo, StreamError> {
    read_all(StreamReader { verified: false, ..StreamReader::new(input) })
}

fn read_all(records: StreamReader<impl Read>) -> Result<StreamInfo, StreamError> {
    let mut info = None;
    for record in records {
        match record? {
            Record::Begin(begin) => info = Some(begin),
            Record::Write { block, .. } => drop(block.decode()?),
            _ => {}
        }
    }
    info.ok_or(StreamError::NotAStream)
}

impl<R: Read> StreamReader<R> {
    /// A reader of the one stream in `input`. Reads are small: give it something buffered.
    pub fn new(input: R) -> StreamReader<R> {
        StreamReader { input, sum: [0; 4], at: 0, state: State::Start, verified: true }
    }

    /// What is behind the records read so far.
    pub fn get_ref(&self) -> &R {
        &self.input
    }

    fn record(&mut self) -> Result<(Record, State), StreamError> {
        let start = self.at;
        let bytes: [u8; RECORD] = match self.take(RECORD as u64)?.try_into() {
            Ok(bytes) => bytes,
            // A short file that is something else has no end that could be missing.
            Err(_) if start == 0 => return Err(StreamError::NotAStream),
            Err(_) => return Err(StreamError::Truncated { at: self.at }),
        };
        let fields = Fields { bytes: &bytes, at: start };
        match self.state {
            State::Start => {
                fields.expect_begin()?;
                self.add(&bytes);
                self.begin(&fields)
            }
            State::Open(open) => {
                let before = self.sum;
                self.add(&bytes[..SUM_AT]);
                if self.verified && fields.sum(SUM_AT) != self.sum {
                    return Err(StreamError::Checksum { at: start });
                }
                self.add(&bytes[SUM_AT..]);
                self.follow(&fields, open, before)
            }
            State::Over => Err(fields.damaged("nothing may follow")),
        }
    }

    fn begin(&mut self, fields: &Fields<'_>) -> Result<(Record, State), StreamError> {
        const SINGLE: u64 = 1;
        const NAME_AT: usize = 56;
        const VOLUME: u32 = 3;
        const FILESYSTEM: u32 = 2;
        const CLONE: u32 = 1;
        let payload = self.payload(fields.u32(4).into(), MAX_BEGIN, fields)?;
        let info = fields.u64(16);
        if info & 3 != SINGLE {
            return Err(StreamError::NotSupported { what: "packages of streams" });
        }
        let features = info >> 2;
        let known: u64 = StreamFeature::ALL.into_iter().map(StreamFeature::bit).sum();
        if features & !known != 0 {
            return Err(StreamError::NotSupported { what: "features of the stream" });
        }
        let kind = fields.u32(32);
        if !matches!(kind, FILESYSTEM | VOLUME) {
            return Err(fields.damaged("it is of an unknown kind"));
        }
        let resume = NvList::unpack(&payload)
            .and_then(|list| Some((list.number("resume_object")?, list.number("resume_offset")?)));
        if (features & StreamFeature::Resuming.bit() != 0) != resume.is_some() {
            return Err(fields.damaged("it does not say where it goes on"));
        }
        let name = fields.bytes[NAME_AT..].split(|byte| *byte == 0).next().unwrap_or_default();
        let begin = StreamInfo {
            name: text(name),
            guid: fields.u64(40),
            from_guid: Some(fields.u64(48)).filter(|guid| *guid != 0),
            is_clone: fields.u32(36) & CLONE != 0,
            created: fields.u64(24),
            is_volume: kind == VOLUME,
            features: StreamFeature::ALL
                .into_iter()
                .filter(|feature| features & feature.bit() != 0)
                .collect(),
            resume,
        };
        let open = Open { guid: begin.guid, features, object: None, next_object: 0 };
        Ok((Record::Begin(begin), State::Open(open)))
    }

    /// Every record behind the first one; `before` is the checksum of everything before it.
    fn follow(
        &mut self,
        fields: &Fields<'_>,
        mut open: Open,
        before: [u64; 4],
    ) -> Result<(Record, State), StreamError> {
        let record = match fields.u32(0) {
            1 => self.object(fields, &mut open)?,
            2 => {
                let (first, count) = (fields.u64(8), fields.u64(16));
                fields.of_stream(24, open)?;
                let end = first.checked_add(count).filter(|_| first >= open.next_object);
                open.next_object = end.ok_or_else(|| fields.damaged("its numbers are not the next ones"))?;
                open.object = None;
                Record::FreeObjects { first, count }
            }
            3 => self.write(fields, &mut open)?,
            4 => {
                fields.of_stream(32, open)?;
                let object = fields.current(&mut open)?.number;
                let length = Some(fields.u64(24)).filter(|length| *length != u64::MAX);
                Record::Free { object, offset: fields.u64(16), length }
            }
            5 => {
                fields.of_stream(40, open)?;
                if self.verified && fields.sum(8) != before {
                    return Err(StreamError::Checksum { at: fields.at });
                }
                return Ok((Record::End, State::Over));
            }
            7 => self.spill(fields, &mut open)?,
            8 => self.write_embedded(fields, &mut open)?,
            6 => return Err(StreamError::NotSupported { what: "deduplicated streams" }),
            9 => return Err(StreamError::NotSupported { what: "raw streams" }),
            10 => return Err(StreamError::NotSupported { what: "redacted streams" }),
            _ => return Err(fields.damaged("it is of an unknown kind")),
        };
        Ok((record, State::Open(open)))
    }

    fn object(&mut self, fields: &Fields<'_>, open: &mut Open) -> Result<Record, StreamError> {
        const SPILL: u8 = 1 << 2;
        fields.of_stream(40, *open)?;
        let number = fields.u64(8);
        if number == 0 || number < open.next_object {
            return Err(fields.damaged("its number is not the next one"));
        }
        // Streams of old releases leave it at 0.
        let slots = fields.u8(34).max(1);
        if slots > MAX_SLOTS || (slots > 1 && !open.has(StreamFeature::LargeDnodes)) {
            return Err(fields.damaged("it has too many slots"));
        }
        let block_size = fields.u32(24);
        fields.block_size(block_size.into(), *open)?;
        let types = [fields.u32(16), fields.u32(20)].map(u8::try_from);
        let [Ok(object_type), Ok(bonus_type)] = types else {
            return Err(fields.damaged("its type is unknown"));
        };
        let len = u64::from(fields.u32(28));
        let most = u64::from(slots) * SLOT - BONUS_AT;
        let mut bonus = self.payload(len.next_multiple_of(8), most, fields)?;
        bonus.truncate(len as usize);
        let has_spill = fields.u8(35) & SPILL != 0;
        open.object = Some(Object { number, block_size: block_size.into(), has_spill, next: 0 });
        open.next_object = number.saturating_add(slots.into());
        Ok(Record::Object { number, object_type, bonus_type, block_size, slots, bonus, has_spill })
    }

    fn write(&mut self, fields: &Fields<'_>, open: &mut Open) -> Result<Record, StreamError> {
        fields.of_stream(40, *open)?;
        let (offset, size) = (fields.u64(24), fields.u64(32));
        let object = fields.advance(open, offset, size)?;
        let compression = Some(fields.u8(50)).filter(|code| *code != 0);
        let len = match compression {
            None => size,
            Some(code) => {
                if !open.has(StreamFeature::Compressed) {
                    return Err(fields.damaged("it is compressed without saying so"));
                }
                fields.compression(code, *open)?;
                fields.u64(96)
            }
        };
        if len == 0 || !len.is_multiple_of(8) {
            return Err(fields.damaged("its length is impossible"));
        }
        let bytes = self.payload(len, size, fields)?;
        let block = StreamBlock { size: size as u32, compression, embedded: false, bytes };
        Ok(Record::Write { object, offset, block })
    }

    fn write_embedded(&mut self, fields: &Fields<'_>, open: &mut Open) -> Result<Record, StreamError> {
        const MAX_EMBEDDED: u64 = 112;
        const DATA: u8 = 0;
        fields.of_stream(32, *open)?;
        let (offset, size) = (fields.u64(16), fields.u64(24));
        let object = fields.advance(open, offset, size)?;
        let (code, len) = (fields.u8(40), u64::from(fields.u32(52)));
        if !open.has(StreamFeature::Embedded) {
            return Err(fields.damaged("it is embedded without saying so"));
        }
        fields.compression(code, *open)?;
        if fields.u8(41) != DATA || u64::from(fields.u32(48)) != size || len == 0 {
            return Err(fields.damaged("it embeds something unknown"));
        }
        let mut bytes = self.payload(len.next_multiple_of(8), MAX_EMBEDDED, fields)?;
        bytes.truncate(len as usize);
        let block = StreamBlock { size: size as u32, compression: Some(code), embedded: true, bytes };
        Ok(Record::Write { object, offset, block })
    }

    fn spill(&mut self, fields: &Fields<'_>, open: &mut Open) -> Result<Record, StreamError> {
        const UNMODIFIED: u8 = 1 << 2;
        fields.of_stream(24, *open)?;
        let object = fields.current(open)?;
        if !object.has_spill {
            return Err(fields.damaged("its object has no spill block"));
        }
        let number = object.number;
        let len = fields.u64(16);
        fields.block_size(len, *open)?;
        let content = self.payload(len, MAX_BLOCK, fields)?;
        let unmodified = fields.u8(32) & UNMODIFIED != 0;
        Ok(Record::Spill { object: number, unmodified, content })
    }

    /// What follows a record: `len` bytes, at most `most`.
    fn payload(&mut self, len: u64, most: u64, fields: &Fields<'_>) -> Result<Vec<u8>, StreamError> {
        if len > most || !len.is_multiple_of(4) {
            return Err(fields.damaged("its length is impossible"));
        }
        let payload = self.take(len)?;
        if payload.len() as u64 != len {
            return Err(StreamError::Truncated { at: self.at });
        }
        self.add(&payload);
        Ok(payload)
    }

    /// Up to `len` bytes, fewer at the end of the input.
    fn take(&mut self, len: u64) -> Result<Vec<u8>, StreamError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(len).read_to_end(&mut bytes).map_err(StreamError::Read)?;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }

    /// Fletcher-4 of everything so far.
    fn add(&mut self, bytes: &[u8]) {
        let [mut a, mut b, mut c, mut d] = self.sum;
        for word in bytes.chunks_exact(4) {
            a = a.wrapping_add(u32::from_le_bytes([word[0], word[1], word[2], word[3]]).into());
            b = b.wrapping_add(a);
            c = c.wrapping_add(b);
            d = d.wrapping_add(c);
        }
        self.sum = [a, b, c, d];
    }
}

impl<R: Read> Iterator for StreamReader<R> {
    type Item = Result<Record, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.state, State::Over) {
            return None;
        }
        match self.record() {
            Ok((record, state)) => {
                self.state = state;
                Some(Ok(record))
            }
            Err(error) => {
                self.state = State::Over;
                Some(Err(error))
            }
        }
    }
}

impl Open {
    fn has(self, feature: StreamFeature) -> bool {
        self.features & feature.bit() != 0
    }
}

/// A record whose fields are read; `at` is its place in the stream.
struct Fields<'b> {
    bytes: &'b [u8; RECORD],
    at: u64,
}

impl Fields<'_> {
    fn u8(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    fn u32(&self, at: usize) -> u32 {
        u32_at(self.bytes, at).unwrap_or(0)
    }

    fn u64(&self, at: usize) -> u64 {
        u64_at(self.bytes, at).unwrap_or(0)
    }

    fn sum(&self, at: usize) -> [u64; 4] {
        [0, 8, 16, 24].map(|word| self.u64(at + word))
    }

    fn damaged(&self, problem: &'static str) -> StreamError {
        StreamError::Damaged { at: self.at, problem }
    }

    fn expect_begin(&self) -> Result<(), StreamError> {
        const BEGIN: u32 = 0;
        const MAGIC: u64 = 0x2_f5ba_cbac;
        match (self.u32(0), self.u64(8)) {
            (BEGIN, MAGIC) => Ok(()),
            (BEGIN, magic) if magic.swap_bytes() == MAGIC => {
                Err(StreamError::NotSupported { what: "streams of big-endian machines" })
            }
            _ => Err(StreamError::NotAStream),
        }
    }

    /// Every record names the snapshot that is sent.
    fn of_stream(&self, at: usize, open: Open) -> Result<(), StreamError> {
        if self.u64(at) == open.guid { Ok(()) } else { Err(self.damaged("it is of another stream")) }
    }

    /// The object that the record belongs to, which must be the last one described.
    fn current<'o>(&self, open: &'o mut Open) -> Result<&'o mut Object, StreamError> {
        let object = open.object.as_mut().filter(|object| object.number == self.u64(8));
        object.ok_or_else(|| self.damaged("it is not of the last object"))
    }

    /// Takes the next `size` bytes at `offset` of the object; gives its number.
    fn advance(&self, open: &mut Open, offset: u64, size: u64) -> Result<u64, StreamError> {
        self.block_size(size, *open)?;
        let object = self.current(open)?;
        let end = offset.checked_add(size);
        // Spill blocks that were sent as data (https://github.com/openzfs/zfs/issues/18239) lie behind all files.
        let end =
            end.filter(|end| offset >= object.next && size <= object.block_size && *end <= i64::MAX as u64);
        object.next = end.ok_or_else(|| self.damaged("it is not the next block"))?;
        Ok(object.number)
    }

    fn block_size(&self, size: u64, open: Open) -> Result<(), StreamError> {
        let most = if open.has(StreamFeature::LargeBlocks) { MAX_BLOCK } else { OLD_MAX_BLOCK };
        if size == 0 || size > most || !size.is_multiple_of(SECTOR) {
            return Err(self.damaged("its size is impossible"));
        }
        Ok(())
    }

    fn compression(&self, code: u8, open: Open) -> Result<(), StreamError> {
        let is_known = match code {
            0 => false,
            LZ4 => open.has(StreamFeature::Lz4),
            ZSTD => open.has(StreamFeature::Zstd),
            code => code < LZ4,
        };
        if is_known { Ok(()) } else { Err(self.damaged("it is compressed in an unknown way")) }
    }
}
