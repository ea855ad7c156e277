//! The writer: a [`crate::PoolSpec`] becomes bytes.
//!
//! [`pool`] is the order of things; [`fs`] writes one file system, [`volume`] one volume, both block by block through
//! [`pipeline`]; [`dsl`] writes the tree of datasets and snapshots above them, [`media`] puts blocks where [`allocator`] says.
//! A dataset whose snapshots differ is written state by state, and [`blocks`] remembers what the last one had.

pub(crate) mod allocator;
pub(crate) mod blocks;
pub(crate) mod contents;
pub(crate) mod dsl;
pub(crate) mod error;
pub(crate) mod fs;
pub(crate) mod indirect;
pub(crate) mod label;
pub(crate) mod media;
pub(crate) mod objset;
pub(crate) mod origins;
pub(crate) mod outputs;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod raidz;
pub(crate) mod seed;
pub(crate) mod shape;
pub(crate) mod space;
pub(crate) mod totals;
pub(crate) mod txg;
pub(crate) mod volume;
