//! Name/value lists as they lie in the memory of a little-endian machine (`NV_ENCODE_NATIVE`): what tokens of interrupted
//! receivers hold.
//!
//! A pair is its size (32 bits), the length of its name (16) and a reserve (16), the number of elements (32) and the type
//! (32); then the name with its NUL, and from the next multiple of 8 bytes on the value. A size of zero ends the list.

use super::{NvList, Value};
use crate::read::bytes::{u32_at, u64_at};

const PAIR: usize = 16;
const ALIGN: usize = 8;

/// The list behind the four bytes that say how it is encoded.
pub(super) fn unpack(body: &[u8]) -> Option<NvList> {
    // Version and flags.
    let mut rest = body.get(8..)?;
    let mut list = NvList::default();
    loop {
        let size = u32_at(rest, 0)? as usize;
        if size == 0 {
            return Some(list);
        }
        let (pair, behind) = rest.split_at_checked(size)?;
        list.0.push(decode(pair)?);
        rest = behind;
    }
}

fn decode(pair: &[u8]) -> Option<(Vec<u8>, Value)> {
    let name_len = usize::from(u16::from_le_bytes(*pair.get(4..)?.first_chunk()?));
    let (count, kind) = (u32_at(pair, 8)? as usize, u32_at(pair, 12)?);
    let (nul, name) = pair.get(PAIR..PAIR + name_len)?.split_last()?;
    if *nul != 0 {
        return None;
    }
    let value = pair.get((PAIR + name_len).next_multiple_of(ALIGN)..)?;
    let value = match kind {
        1 => Value::Flag,
        8 => Value::Number(u64_at(value, 0)?),
        9 => Value::Text(value.split(|byte| *byte == 0).next()?.to_vec()),
        16 => {
            let (words, _) = value.as_chunks::<8>();
            Value::Numbers(words.get(..count)?.iter().map(|word| u64::from_le_bytes(*word)).collect())
        }
        _ => Value::Other,
    };
    Some((name.to_vec(), value))
}
