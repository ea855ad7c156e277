//! Where the space of a pool is: datasets with their snapshots as `zfs list` knows them, a tree of them, sums that add up.
//!
//! Pure but for [`pools`], which reads what the kernel says of its pools. One `zfs list` gives everything.

mod list;
mod pools;
mod tree;

pub use list::{Dataset, Growth, Kind, Snapshot, list_cmd, parse_list};
pub use pools::{Pool, pools};
pub use tree::{Forest, Node, Sum};
