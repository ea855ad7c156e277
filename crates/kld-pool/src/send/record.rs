//! Records of a stream as they are written (`dmu_replay_record_t` of OpenZFS): 312 bytes, perhaps with a payload behind
//! them, and a checksum that runs over everything before it.

use crate::format::checksum::{Checksum, fletcher4};
use crate::format::put_u64;

/// Bytes of a record without its payload.
pub(super) const RECORD: usize = 312;
/// Where the checksum of all bytes before it stands, in every record but the first.
pub(super) const SUM_AT: usize = RECORD - 32;

/// `drr_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Begin = 0,
    Object = 1,
    FreeObjects = 2,
    Write = 3,
    Free = 4,
    End = 5,
    Spill = 7,
    WriteEmbedded = 8,
}

/// A record that is being filled.
#[derive(Clone, Debug)]
pub(super) struct Record(pub(super) [u8; RECORD]);

impl Record {
    /// A record of this kind, all fields 0.
    pub(super) fn new(kind: Kind) -> Record {
        let mut bytes = [0; RECORD];
        bytes[0] = kind as u8;
        Record(bytes)
    }

    /// A 64-bit field at byte `at`.
    pub(super) fn u64(mut self, at: usize, value: u64) -> Record {
        put_u64(&mut self.0, at, value);
        self
    }

    /// A 32-bit field at byte `at`.
    pub(super) fn u32(mut self, at: usize, value: u32) -> Record {
        crate::format::put_u32(&mut self.0, at, value);
        self
    }

    /// An 8-bit field at byte `at`.
    pub(super) fn u8(mut self, at: usize, value: u8) -> Record {
        self.0[at] = value;
        self
    }

    /// Four words at byte `at`.
    pub(super) fn sum(mut self, at: usize, words: Checksum) -> Record {
        for (i, word) in words.into_iter().enumerate() {
            put_u64(&mut self.0, at + i * 8, word);
        }
        self
    }
}

/// Fletcher-4 over bytes that come in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Running(pub(super) Checksum);

impl Running {
    /// Goes on with `data`, a whole number of 32-bit words.
    pub(super) fn add(&mut self, data: &[u8]) {
        // The sum of `data` alone is independent of what came before, and quicker to find. What came before enters the
        // new sums once for each word of `data`, times the number of ways that lead through the sums above it.
        let words = (data.len() / 4) as u128;
        let (once, twice) = (words as u64, (words * (words + 1) / 2) as u64);
        let thrice = (words * (words + 1) * (words + 2) / 6) as u64;
        let ([a, b, c, d], own) = (self.0, fletcher4(data));
        let sum = |terms: &[(u64, u64)], own: u64| {
            terms.iter().fold(own, |sum, (factor, before)| sum.wrapping_add(factor.wrapping_mul(*before)))
        };
        self.0 = [
            sum(&[(1, a)], own[0]),
            sum(&[(1, b), (once, a)], own[1]),
            sum(&[(1, c), (once, b), (twice, a)], own[2]),
            sum(&[(1, d), (once, c), (twice, b), (thrice, a)], own[3]),
        ];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_have_the_sum_of_the_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u32>(), 0..200), 0..8)) {
            let mut running = Running::default();
            let mut whole = Vec::new();
            for piece in pieces {
                let bytes: Vec<u8> = piece.iter().flat_map(|word| word.to_le_bytes()).collect();
                running.add(&bytes);
                whole.extend(bytes);
            }
            prop_assert_eq!(running.0, fletcher4(&whole));
        }
    }
}
