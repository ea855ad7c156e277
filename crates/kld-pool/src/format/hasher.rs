//! Checksums a dataset can choose for its blocks (`checksum=`).

use sha2::{Digest, Sha256, Sha512_256};

use super::checksum::{Checksum, fletcher4};

/// How the four words of a block pointer are computed from a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// None; only for content, metadata then has fletcher-4.
    Off,
    Fletcher4,
    Sha256,
    /// SHA-512/256.
    Sha512,
    /// Keyed with the pool's salt.
    Blake3,
}

/// An algorithm with the pool's salt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    pub(crate) algorithm: Algorithm,
    salt: [u8; 32],
}

impl Algorithm {
    /// `enum zio_checksum` code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Algorithm::Off => 2,
            Algorithm::Fletcher4 => 7,
            Algorithm::Sha256 => 8,
            Algorithm::Sha512 => 11,
            Algorithm::Blake3 => 14,
        }
    }
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm, salt: [u8; 32]) -> Hasher {
        Hasher { algorithm, salt }
    }

    /// What OpenZFS uses for metadata when content has `self`.
    pub(crate) fn for_metadata(self) -> Hasher {
        match self.algorithm {
            Algorithm::Off => Hasher { algorithm: Algorithm::Fletcher4, ..self },
            _ => self,
        }
    }

    /// The checksum of a block.
    pub(crate) fn sum(&self, data: &[u8]) -> Checksum {
        match self.algorithm {
            Algorithm::Off => [0; 4],
            Algorithm::Fletcher4 => fletcher4(data),
            // SHA-256 predates byte order as a property of blocks: its words are big-endian for ever.
            Algorithm::Sha256 => checksum(Sha256::digest(data).as_slice(), u64::from_be_bytes),
            Algorithm::Sha512 => checksum(Sha512_256::digest(data).as_slice(), u64::from_le_bytes),
            Algorithm::Blake3 => {
                checksum(blake3::keyed_hash(&self.salt, data).as_bytes(), u64::from_le_bytes)
            }
        }
    }
}

fn checksum(digest: &[u8], word: fn([u8; 8]) -> u64) -> Checksum {
    let mut sum = [0; 4];
    for (value, bytes) in sum.iter_mut().zip(digest.chunks_exact(8)) {
        let mut chunk = [0; 8];
        chunk.copy_from_slice(bytes);
        *value = word(chunk);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_of_known_digests() {
        for (algorithm, word) in [
            (Algorithm::Off, 0),
            // FIPS 180-4 examples for "abc".
            (Algorithm::Sha256, 0xba78_16bf_8f01_cfea),
            (Algorithm::Sha512, 0x5304_8e26_8194_1ef9u64.swap_bytes()),
        ] {
            assert_eq!(Hasher::new(algorithm, [0; 32]).sum(b"abc")[0], word, "{algorithm:?}");
        }
        let salted = |salt| Hasher::new(Algorithm::Blake3, [salt; 32]).sum(b"abc");
        assert_ne!(salted(1), salted(2));
    }
}
