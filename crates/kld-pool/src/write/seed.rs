//! Where GUIDs and salts come from: a hash of the seed and of what the number is for.
//!
//! A number depends on its purpose alone, never on the order in which numbers were asked for.

use sha2::{Digest, Sha256};

/// The source of all numbers of a pool that look random.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed([u8; 32]);

impl Seed {
    pub(crate) fn new(seed: [u8; 32]) -> Seed {
        Seed(seed)
    }

    /// A non-zero number for `purpose`, different for each `index`.
    pub(crate) fn number(&self, purpose: &str, index: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(index.to_le_bytes());
        let digest = hash.finalize();
        let mut word = [0; 8];
        word.copy_from_slice(&digest[..8]);
        u64::from_le_bytes(word).max(1)
    }

    /// An independent seed for a part of the pool.
    pub(crate) fn part(&self, name: &str) -> Seed {
        Seed(
            Sha256::new()
                .chain_update(self.0)
                .chain_update([1])
                .chain_update(name.as_bytes())
                .finalize()
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_seed_part_purpose_and_index() {
        let seed = Seed::new([7; 32]);
        let all = [
            seed.number("guid", 0),
            seed.number("guid", 1),
            seed.number("salt", 0),
            seed.part("a").number("guid", 0),
            seed.part("b").number("guid", 0),
            Seed::new([8; 32]).number("guid", 0),
        ];
        let distinct: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(seed.number("guid", 0), all[0]);
    }
}
