//! The two checksums a pool needs: fletcher-4 for blocks, SHA-256 for the self-checking areas of a label.

use sha2::{Digest, Sha256};

use super::put_u64;

/// `zec_magic` of the trailer that embeds a checksum into the area it covers.
const TRAILER_MAGIC: u64 = 0x0210_da7a_b10c_7a11;
/// Magic (8 bytes) and checksum (32 bytes) at the end of a self-checking area.
const TRAILER_LEN: usize = 40;

/// The four 64-bit words that a block pointer stores for a block.
pub(crate) type Checksum = [u64; 4];

/// Fletcher-4 over little-endian 32-bit words.
///
/// `data` is a whole number of 32-bit words, as every block is. Four independent lanes (word `i` goes to lane
/// `i mod 4`) keep a processor's adders busy; the lanes are then combined into what the plain recurrence
/// a += w, b += a, c += b, d += c gives. The coefficients are the binomials that count how often a lane's partial
/// sum enters the serial one.
pub(crate) fn fletcher4(data: &[u8]) -> Checksum {
    let (mut a, mut b, mut c, mut d) = ([0u64; 4], [0u64; 4], [0u64; 4], [0u64; 4]);
    let quads = data.chunks_exact(16);
    let rest = quads.remainder();
    for quad in quads {
        for lane in 0..4 {
            let at = lane * 4;
            let word = u32::from_le_bytes([quad[at], quad[at + 1], quad[at + 2], quad[at + 3]]);
            a[lane] = a[lane].wrapping_add(u64::from(word));
            b[lane] = b[lane].wrapping_add(a[lane]);
            c[lane] = c[lane].wrapping_add(b[lane]);
            d[lane] = d[lane].wrapping_add(c[lane]);
        }
    }
    let mut sum = [
        weigh(&[(a, [1, 1, 1, 1])]),
        weigh(&[(a, [0, -1, -2, -3]), (b, [4, 4, 4, 4])]),
        weigh(&[(a, [0, 0, 1, 3]), (b, [-6, -10, -14, -18]), (c, [16, 16, 16, 16])]),
        weigh(&[(a, [0, 0, 0, -1]), (b, [4, 10, 20, 34]), (c, [-48, -64, -80, -96]), (d, [64, 64, 64, 64])]),
    ];
    for word in rest.chunks_exact(4) {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        sum[0] = sum[0].wrapping_add(u64::from(word));
        for i in 1..4 {
            sum[i] = sum[i].wrapping_add(sum[i - 1]);
        }
    }
    sum
}

/// The sum, modulo 2^64, of each lane times its coefficient.
fn weigh(terms: &[([u64; 4], [i64; 4])]) -> u64 {
    terms
        .iter()
        .flat_map(|(lanes, factors)| lanes.iter().zip(factors))
        .fold(0u64, |sum, (lane, factor)| sum.wrapping_add(lane.wrapping_mul(factor.cast_unsigned())))
}

/// Closes a self-checking area of a label: its last 40 bytes become the trailer.
///
/// The checksum covers the whole area, its own field holding `device_offset` (where the area lies on the vdev),
/// so that an area copied elsewhere is not accepted. Each digest word is stored byte-swapped.
pub(crate) fn seal_area(area: &mut [u8], device_offset: u64) {
    let trailer = area.len() - TRAILER_LEN;
    put_u64(area, trailer, TRAILER_MAGIC);
    for (i, word) in [device_offset, 0, 0, 0].into_iter().enumerate() {
        put_u64(area, trailer + 8 + i * 8, word);
    }
    let digest = Sha256::digest(&*area);
    for (i, word) in digest.chunks_exact(8).enumerate() {
        let mut swapped = [0; 8];
        swapped.copy_from_slice(word);
        put_u64(area, trailer + 8 + i * 8, u64::from_be_bytes(swapped));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scalar(data: &[u8]) -> Checksum {
        let mut sum = [0u64; 4];
        for word in data.chunks_exact(4) {
            sum[0] = sum[0].wrapping_add(u64::from(u32::from_le_bytes(word.try_into().unwrap())));
            for i in 1..4 {
                sum[i] = sum[i].wrapping_add(sum[i - 1]);
            }
        }
        sum
    }

    proptest! {
        #[test]
        fn four_lanes_equal_the_recurrence(words in proptest::collection::vec(any::<u32>(), 0..3000)) {
            let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            prop_assert_eq!(fletcher4(&data), scalar(&data));
        }
    }

    #[test]
    fn wrapping_sums_agree() {
        let data = vec![0xff; 1 << 20];
        assert_eq!(fletcher4(&data), scalar(&data));
    }

    #[test]
    fn a_sealed_area_depends_on_place_and_content() {
        let sealed = |offset, byte| {
            let mut area = vec![byte; 1024];
            seal_area(&mut area, offset);
            area[1024 - 40..].to_vec()
        };
        let base = sealed(0, 0);
        assert_eq!(base[..8], 0x0210_da7a_b10c_7a11u64.to_le_bytes());
        assert_ne!(base, sealed(8192, 0));
        assert_ne!(base, sealed(0, 1));
        // Independent of this crate: the area with its offset in place, hashed, each 8 bytes reversed.
        let mut area = vec![0u8; 1024 - 40];
        area.extend(0x0210_da7a_b10c_7a11u64.to_le_bytes());
        area.extend([0; 32]);
        let digest: Vec<u8> = Sha256::digest(&area)
            .chunks(8)
            .flat_map(|word| word.iter().rev().copied().collect::<Vec<_>>())
            .collect();
        assert_eq!(base[8..], digest);
    }
}
