//! Where the space of a pool is: datasets with their snapshots as `zfs list` knows them, a tree of them, sums that add up.
//!
//! Pure: one `zfs list` gives everything, and whoever runs it decides.

mod list;
mod tree;

pub use list::{Dataset, Growth, Kind, Snapshot, list_cmd, parse_list};
pub use tree::{Forest, Node, Sum};
