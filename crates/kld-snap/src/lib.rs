//! Snapshots by short names, on any OpenZFS from 2.1: which one is meant, what a rollback would lose, what a policy keeps.
//!
//! Everything here is pure: commands are made and their output is read, and whoever runs them decides. A short name stands
//! for all snapshots `NAME-YYYYmmdd-HHMMSS` (UTC); the newest is meant.

mod bookmark;
mod destroy;
mod find;
mod freed;
mod name;
mod pace;
mod prune;
mod rollback;
mod snapshot;
mod swap;
mod words;

pub use bookmark::{Bookmark, bookmarks_cmd, parse_bookmarks};
pub use destroy::{Destroyed, destroy_cmd, destroy_together_cmd, parse_destroyed};
pub use find::{Unclear, choose, find};
pub use freed::{by_snapshots_cmd, known, parse_by_snapshots, parse_reclaim, reclaim_cmds};
pub use name::{NameError, ShortName, short_of, stamp};
pub use pace::Pace;
pub use prune::{Keep, KeepError, Pruned, Spared, prune, spared};
pub use rollback::{Blocker, IsSystem, Rollback, is_no_system, rollback};
pub use snapshot::{
    Snapshot, is_gone, list_cmd, list_these_cmd, names_cmd, parse_list, parse_names, parse_these,
    rollback_cmd, snapshot_cmd,
};
pub use swap::{Seen, Swap, SwapError, grants_cmd, has_grants, marks_cmd, parse_marks, properties_cmd};
pub use words::{WordsError, split_words};
