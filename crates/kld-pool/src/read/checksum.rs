//! Checksums of blocks and of areas that check themselves.

use sha2::{Digest, Sha256, Sha512_256};

use super::bytes::{u32_at, u64_at};

/// Four 64-bit words.
pub(crate) type Checksum = [u64; 4];

/// Magic number and checksum at the end of an area that checks itself.
pub(crate) const TRAILER: usize = 40;
const TRAILER_MAGIC: u64 = 0x0210_da7a_b10c_7a11;

/// Codes of `enum zio_checksum`.
pub(crate) mod kind {
    pub(crate) const OFF: u8 = 2;
    pub(crate) const FLETCHER2: u8 = 6;
    pub(crate) const FLETCHER4: u8 = 7;
    pub(crate) const SHA256: u8 = 8;
    pub(crate) const ZILOG2: u8 = 9;
    pub(crate) const NO_PARITY: u8 = 10;
    pub(crate) const SHA512: u8 = 11;
    pub(crate) const SKEIN: u8 = 12;
    pub(crate) const EDONR: u8 = 13;
    pub(crate) const BLAKE3: u8 = 14;
}

/// What came out of checking a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The bytes are the ones that were written.
    Good,
    /// They are not.
    Bad,
    /// The algorithm has a name but no code here.
    NotSupported(&'static str),
    /// No algorithm has this number.
    Unknown,
}

/// Compares `data` with its checksum. `salt` is the pool's, for algorithms that take one; `authenticated` says that half
/// of the stored words belong to the encryption.
pub(crate) fn check(
    kind: u8,
    data: &[u8],
    stored: &Checksum,
    salt: Option<&[u8; 32]>,
    authenticated: bool,
) -> Outcome {
    let mut found = match kind {
        kind::OFF | kind::NO_PARITY => return Outcome::Good,
        kind::FLETCHER2 => fletcher2(data),
        kind::FLETCHER4 => fletcher4(data),
        kind::SHA256 => sha256(data),
        kind::SHA512 => little_endian(Sha512_256::digest(data).as_slice()),
        kind::BLAKE3 => match salt {
            Some(salt) => little_endian(blake3::keyed_hash(salt, data).as_bytes()),
            None => return Outcome::NotSupported("blake3 without the pool's salt"),
        },
        kind::SKEIN => return Outcome::NotSupported("skein"),
        kind::EDONR => return Outcome::NotSupported("edonr"),
        _ => return Outcome::Unknown,
    };
    if !authenticated {
        return if found == *stored { Outcome::Good } else { Outcome::Bad };
    }
    if !matches!(kind, kind::SHA256 | kind::SHA512 | kind::BLAKE3) {
        fold(&mut found);
    }
    if found[..2] == stored[..2] { Outcome::Good } else { Outcome::Bad }
}

/// Whether an area that ends with its own checksum is whole; `verifier` stands in the checksum's place while it is hashed.
pub(crate) fn check_area(area: &[u8], verifier: Checksum) -> bool {
    area_sums(area, verifier).is_some_and(|(found, stored)| found == stored)
}

/// Like [`check_area`], for the list of parts of a block; `authenticated` ones have half of the checksum.
pub(crate) fn check_gang(area: &[u8], verifier: Checksum, authenticated: bool) -> bool {
    area_sums(area, verifier).is_some_and(|(mut found, stored)| {
        if authenticated {
            fold(&mut found);
            return found[..2] == stored[..2];
        }
        found == stored
    })
}

/// The checksum an area has, and the one it says it has.
fn area_sums(area: &[u8], verifier: Checksum) -> Option<(Checksum, Checksum)> {
    let trailer = area.len().checked_sub(TRAILER)?;
    if u64_at(area, trailer) != Some(TRAILER_MAGIC) {
        return None;
    }
    let (head, stored) = area.split_at(trailer + 8);
    let mut hash = Sha256::new_with_prefix(head);
    verifier.iter().for_each(|word| hash.update(word.to_le_bytes()));
    Some((big_endian(hash.finalize().as_slice()), little_endian(stored)))
}

/// Brings a checksum into its first half.
fn fold(sum: &mut Checksum) {
    sum[0] ^= sum[2];
    sum[1] ^= sum[3];
}

/// Whether a block of an intent log, which carries its checksum in its head, is whole.
pub(crate) fn check_log_block(block: &[u8], expected: &Checksum) -> bool {
    // 8 bytes of padding, the next pointer, the used length, then magic and checksum.
    const USED_AT: usize = 136;
    const MAGIC_AT: usize = 144;
    const SUM_AT: usize = 152;
    const UNIT: u64 = 4096;
    if u64_at(block, MAGIC_AT) != Some(TRAILER_MAGIC) {
        return false;
    }
    let used = u64_at(block, USED_AT).and_then(|used| used.checked_next_multiple_of(UNIT));
    let Some(used) = used.and_then(|used| block.get(..usize::try_from(used).ok()?)) else { return false };
    let Some(stored) = used.get(SUM_AT..SUM_AT + 32) else { return false };
    let stored = little_endian(stored);
    let mut zeroed = used.to_vec();
    for (word, to) in expected.iter().zip(zeroed[SUM_AT..SUM_AT + 32].chunks_exact_mut(8)) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    fletcher4(&zeroed) == stored
}

fn sha256(data: &[u8]) -> Checksum {
    big_endian(Sha256::digest(data).as_slice())
}

fn big_endian(digest: &[u8]) -> Checksum {
    little_endian(digest).map(u64::swap_bytes)
}

/// The first four words of a digest; missing ones are 0.
fn little_endian(digest: &[u8]) -> Checksum {
    [0, 8, 16, 24].map(|at| u64_at(digest, at).unwrap_or(0))
}

/// Four running sums over 32-bit words, each over the one before it.
fn fletcher4(data: &[u8]) -> Checksum {
    let [mut a, mut b, mut c, mut d] = [0u64; 4];
    for word in data.chunks_exact(4) {
        a = a.wrapping_add(u64::from(u32_at(word, 0).unwrap_or(0)));
        b = b.wrapping_add(a);
        c = c.wrapping_add(b);
        d = d.wrapping_add(c);
    }
    [a, b, c, d]
}

/// Two pairs of running sums over alternating 64-bit words.
fn fletcher2(data: &[u8]) -> Checksum {
    let [mut a0, mut a1, mut b0, mut b1] = [0u64; 4];
    for pair in data.chunks_exact(16) {
        a0 = a0.wrapping_add(u64_at(pair, 0).unwrap_or(0));
        a1 = a1.wrapping_add(u64_at(pair, 8).unwrap_or(0));
        b0 = b0.wrapping_add(a0);
        b1 = b1.wrapping_add(a1);
    }
    [a0, a1, b0, b1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_a_small_block() {
        let data: Vec<u8> = [1u32, 2, 3, 4].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(fletcher4(&data), [10, 20, 35, 56]);
        assert_eq!(fletcher2(&data), [1 | 2 << 32, 3 | 4 << 32, 1 | 2 << 32, 3 | 4 << 32]);
        assert_eq!(check(kind::FLETCHER4, &data, &[10, 20, 35, 56], None, false), Outcome::Good);
        assert_eq!(check(kind::FLETCHER4, &data, &[10, 20, 35, 57], None, false), Outcome::Bad);
        assert_eq!(check(kind::FLETCHER4, &data, &[10 ^ 35, 20 ^ 56, 7, 7], None, true), Outcome::Good);
        assert_eq!(check(kind::SKEIN, &data, &[0; 4], None, false), Outcome::NotSupported("skein"));
        assert_eq!(check(99, &data, &[0; 4], None, false), Outcome::Unknown);
    }

    #[test]
    fn short_areas_are_not_whole() {
        assert!(!check_area(&[], [0; 4]));
        assert!(!check_area(&[0; 100], [0; 4]));
        assert!(!check_log_block(&[0; 100], &[0; 4]));
    }
}
