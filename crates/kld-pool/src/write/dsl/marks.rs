//! What marks snapshots: holds, which keep them, and bookmarks, which outlive them.

use super::Builder;
use crate::features::Feature;
use crate::format::blkptr::BlockPointer;
use crate::format::dnode::object_type;
use crate::write::error::WriteError;
use crate::write::fs::Version;
use crate::write::plan::Planned;
use crate::write::seed::Seed;
use crate::write::totals::total;

/// `ZBM_FLAG_HAS_FBN` and `ZBM_FLAG_SNAPSHOT_EXISTS`: what was freed before the next snapshot is known; the snapshot is
/// still there.
const FLAG_FREED: u64 = 1;
const FLAG_SNAPSHOT: u64 = 2;

impl Builder<'_, '_> {
    /// The table of a snapshot's holds, each with the time it was made; 0 when there are none.
    pub(super) fn add_holds(&mut self, tags: &[String]) -> Result<u64, WriteError> {
        if tags.is_empty() {
            return Ok(0);
        }
        let mut zap = self.zap("holds", self.objects.next());
        tags.iter().for_each(|tag| zap.add_u64(tag, self.created));
        self.add_zap(object_type::USER_REFERENCES, &zap)
    }

    /// The table of a dataset's bookmarks, if it has any; `dead` is what each of its states let go of.
    pub(super) fn add_bookmarks<'d>(
        &mut self,
        planned: &Planned,
        seed: &Seed,
        states: &[&Version],
        dead: &dyn Fn(usize) -> &'d [BlockPointer],
    ) -> Result<Option<u64>, WriteError> {
        if planned.bookmarks.is_empty() {
            return Ok(None);
        }
        let with_space = self.enabled.has(Feature::BookmarkV2) && self.enabled.has(Feature::BookmarkWritten);
        let mut zap = self.zap("bookmarks", self.objects.next());
        for (name, snapshot) in &planned.bookmarks {
            // `zfs_bookmark_phys_t`, whose first version ends behind the time.
            let mut words =
                vec![seed.number("guid", *snapshot as u64), planned.state_txg(*snapshot), self.created];
            if with_space {
                let (held, freed) =
                    (states[*snapshot].space, total(dead(snapshot + 1), self.media.deflation()));
                let (redaction, encryption) = (0, 0);
                words.extend([redaction, FLAG_FREED | FLAG_SNAPSHOT]);
                words.extend([held.referenced, held.compressed, held.uncompressed]);
                words.extend([freed.referenced, freed.compressed, freed.uncompressed]);
                words.push(encryption);
                self.usage.count(Feature::BookmarkV2);
                self.usage.count(Feature::BookmarkWritten);
            }
            zap.add_u64s(name, &words);
        }
        Ok(Some(self.add_zap(object_type::ZAP_METADATA, &zap)?))
    }
}
