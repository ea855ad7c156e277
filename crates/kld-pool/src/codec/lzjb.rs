//! LZJB, the oldest compression of ZFS: each byte of flags is followed by eight items, copied bytes or matches.
//!
//! A match is two bytes: 6 bits of length (3 to 66) and 10 bits of distance, counted back from where it is copied to.

const MATCH_BITS: u32 = 6;
const MATCH_MIN: usize = 3;
const MATCH_MAX: usize = (1 << MATCH_BITS) + MATCH_MIN - 1;
/// Farthest a match reaches back.
const WINDOW: usize = (1 << (16 - MATCH_BITS)) - 1;
const TABLE: usize = 1024;

/// Appends the compressed form of `data` to `out`.
pub(super) fn compress(data: &[u8], out: &mut Vec<u8>) {
    // Where three bytes with some hash were last seen, plus one; 0 is nowhere.
    let mut seen = vec![0usize; TABLE];
    let mut flags_at = 0;
    let mut items = 8;
    let mut at = 0;
    while at < data.len() {
        if items == 8 {
            flags_at = out.len();
            out.push(0);
            items = 0;
        }
        match find(data, at, &mut seen) {
            Some((distance, len)) => {
                out[flags_at] |= 1 << items;
                out.push(((len - MATCH_MIN) << (8 - MATCH_BITS) | distance >> 8) as u8);
                out.push(distance as u8);
                at += len;
            }
            None => {
                out.push(data[at]);
                at += 1;
            }
        }
        items += 1;
    }
}

/// An earlier place, as distance and length, where what starts at `at` also stands.
fn find(data: &[u8], at: usize, seen: &mut [usize]) -> Option<(usize, usize)> {
    if at + MATCH_MAX > data.len() {
        return None;
    }
    let word = usize::from(data[at]) << 16 | usize::from(data[at + 1]) << 8 | usize::from(data[at + 2]);
    let hash = word + (word >> 9);
    let earlier = std::mem::replace(&mut seen[(hash + (hash >> 5)) % TABLE], at + 1).checked_sub(1)?;
    let same = (0..MATCH_MAX).take_while(|i| data[earlier + i] == data[at + i]).count();
    (at - earlier <= WINDOW && same >= MATCH_MIN).then_some((at - earlier, same))
}

#[cfg(test)]
pub(super) fn decompress(stream: &[u8], len: usize) -> Vec<u8> {
    let mut data = Vec::new();
    let mut bytes = stream.iter().map(|byte| usize::from(*byte));
    while data.len() < len {
        let flags = bytes.next().unwrap();
        for item in 0..8 {
            if data.len() >= len {
                break;
            }
            let first = bytes.next().unwrap();
            if flags & 1 << item == 0 {
                data.push(first as u8);
                continue;
            }
            let distance = (first << 8 | bytes.next().unwrap()) & WINDOW;
            for _ in 0..(first >> (8 - MATCH_BITS)) + MATCH_MIN {
                data.push(data[data.len() - distance]);
            }
        }
    }
    data
}
