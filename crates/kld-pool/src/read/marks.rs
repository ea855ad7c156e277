//! What marks snapshots: holds, which keep them, and bookmarks, which outlive them.

use super::bytes::{array, text};
use super::dataset::{Dataset, DatasetPhys};
use super::error::ReadError;
use super::pool::Pool;
use super::zap::Entry;

/// Field of a dataset's own table: the object with its bookmarks (`DS_FIELD_BOOKMARK_NAMES`).
const BOOKMARKS: &str = "com.delphix:bookmarks";
/// Words of `zfs_bookmark_phys_t`, in its first version and today.
const WORDS: std::ops::RangeInclusive<usize> = 3..=12;
/// `ZBM_FLAG_HAS_FBN` and `ZBM_FLAG_SNAPSHOT_EXISTS`.
const FLAG_FREED: u64 = 1;
const FLAG_SNAPSHOT: u64 = 2;

/// A bookmark of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bookmark {
    /// Full name, such as `rpool/home#monday`.
    pub name: String,
    /// GUID of the snapshot that it remembers.
    pub guid: u64,
    /// When that snapshot was taken, in seconds since 1970.
    pub created: u64,
    /// The transaction group that took it.
    pub created_txg: u64,
    /// More than the oldest readers know is in it.
    pub(crate) is_long: bool,
    /// What the snapshot held, and what was freed between it and the next one, in bytes.
    pub(crate) space: Option<(u64, u64)>,
    /// The snapshot is still there.
    pub(crate) has_snapshot: bool,
}

/// A hold on a snapshot: while there is one, it cannot be destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// What it is called.
    pub tag: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Pool<'_> {
    /// The bookmarks of a dataset, by name. A snapshot has none.
    pub fn bookmarks(&self, dataset: &Dataset) -> Result<Vec<Bookmark>, ReadError> {
        Ok(self.bookmarks_of(dataset.object, &dataset.name)?.unwrap_or_default())
    }

    /// The bookmarks of the dataset that is `object` and called `name`; none when it has no table of them.
    pub(crate) fn bookmarks_of(&self, object: u64, name: &str) -> Result<Option<Vec<Bookmark>>, ReadError> {
        let Some(table) = self.dataset_field(object, BOOKMARKS)? else { return Ok(None) };
        let entries = self.mos.zap(table)?.entries()?;
        let decoded = entries.iter().map(|entry| {
            let name = format!("{name}#{}", text(&entry.name));
            decode(entry, &name).ok_or_else(|| ReadError::damaged(name, "it is no bookmark"))
        });
        decoded.collect::<Result<_, _>>().map(Some)
    }

    /// The holds on a snapshot, by tag. Other datasets have none.
    pub fn holds(&self, snapshot: &Dataset) -> Result<Vec<Hold>, ReadError> {
        self.holds_of(&snapshot.phys, &snapshot.name)
    }

    pub(crate) fn holds_of(&self, snapshot: &DatasetPhys, name: &str) -> Result<Vec<Hold>, ReadError> {
        if snapshot.holds == 0 {
            return Ok(Vec::new());
        }
        let entries = self.mos.zap(snapshot.holds)?.entries()?;
        let decoded = entries.iter().map(|entry| match entry.number() {
            Some(created) => Ok(Hold { tag: text(&entry.name), created }),
            None => Err(ReadError::damaged(name, "a hold on it has no time")),
        });
        decoded.collect()
    }
}

fn decode(entry: &Entry, name: &str) -> Option<Bookmark> {
    let count = entry.value.len() / 8;
    if entry.integer_size != 8 || !WORDS.contains(&count) {
        return None;
    }
    let at = |index: usize| array(&entry.value, index * 8).map_or(0, u64::from_be_bytes);
    let flags = at(4);
    Some(Bookmark {
        name: name.to_owned(),
        guid: at(0),
        created_txg: at(1),
        created: at(2),
        is_long: count > *WORDS.start(),
        space: (flags & FLAG_FREED != 0).then(|| (at(5), at(8))),
        has_snapshot: flags & FLAG_SNAPSHOT != 0,
    })
}
