//! The verifier: every block of a pool is read, and everything that a pool says twice is compared.
//!
//! It starts at the uberblock and visits each block once: the blocks of a snapshot or file system are those born after the
//! snapshot before it. Every copy on every device must have its checksum and must decompress. What was visited is then
//! compared with the space maps (leaks, space used twice, space in use that is marked free), with the accounting of
//! datasets, deadlists and objects, and with the reference counts of features. Tables and directories are checked for what
//! a checksum cannot see: hashes, chains, link counts.
//!
//! Threads read and check in parallel; the list of findings does not depend on their order.

mod check;
mod clones;
mod dsl;
mod features;
mod files;
mod labels;
mod lists;
mod segments;
mod space;
#[cfg(test)]
mod tests;
mod unreferenced;
mod walk;

use std::fmt;

use crate::device::Progress;
use crate::read::Pool;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A vdev label is damaged or differs from its siblings.
    Label,
    /// A copy of a block is bad.
    Copy,
    /// A block, or a structure in it, cannot be read at all: what is below it was not checked.
    Unreadable,
    /// Something contradicts itself although its checksum is right.
    Structure,
    /// Space is marked used, but nothing uses it.
    Leak,
    /// Space is used by two blocks.
    DoubleAllocation,
    /// Space is used, but marked free: the next write may destroy what is there.
    NotAllocated,
    /// A space map contradicts itself.
    SpaceMap,
    /// Space accounting of a dataset or an object is wrong.
    Accounting,
    /// The reference count of a feature is wrong.
    FeatureCount,
    /// The number of names of a file, or of entries of a directory, is wrong.
    Links,
}

/// Where something was found; what is not known or does not apply is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Place {
    /// Dataset or snapshot; `$MOS` is the pool's own objects.
    pub dataset: Option<String>,
    /// Object in it.
    pub object: Option<u64>,
    /// Path of that object, if it is a file.
    pub path: Option<String>,
    /// Level (0 is data) and number of a block of the object.
    pub block: Option<(u8, u64)>,
    /// Top-level vdev, first byte of its space, and length.
    pub space: Option<(u32, u64, u64)>,
}

/// Something wrong with a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Finding {
    /// Where it was found.
    pub place: Place,
    /// What it is about.
    pub kind: FindingKind,
    /// What is wrong.
    pub problem: String,
}

/// What came out of verifying a pool.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Everything that is wrong, ordered by place.
    pub findings: Vec<Finding>,
    /// Parts of the pool that could not be checked, and why; empty for a pool that uses nothing unusual.
    pub not_checked: Vec<String>,
    /// Blocks visited, holes and embedded ones left out.
    pub blocks: u64,
    /// Copies of them that were read, and the bytes in them.
    pub copies: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes in use on each top-level vdev.
    pub used: Vec<u64>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match (&self.dataset, &self.path) {
            (Some(dataset), Some(path)) => parts.push(format!("`{path}` of `{dataset}`")),
            (Some(dataset), None) => parts.push(format!("`{dataset}`")),
            _ => {}
        }
        if let Some(object) = self.object {
            parts.push(format!("object {object}"));
        }
        if let Some((level, number)) = self.block {
            parts.push(format!("block {number} of level {level}"));
        }
        if let Some((vdev, offset, len)) = self.space {
            parts.push(format!("vdev {vdev} at {offset:#x}, {len} bytes"));
        }
        if parts.is_empty() { f.write_str("pool") } else { f.write_str(&parts.join(", ")) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Checks all of a pool. `progress` hears how many of the allocated bytes have been visited.
pub fn verify(pool: &Pool, progress: &dyn Progress) -> Report {
    let mut report = Report::default();
    labels::check(pool, &mut report);
    let maps = space::read(pool, &mut report);
    let walked = walk::walk(pool, maps.allocated(), progress, &mut report);
    space::compare(pool, maps, &walked, &mut report);
    dsl::check(pool, &walked, &mut report);
    clones::check(pool, &walked, &mut report);
    features::check(pool, &walked, &mut report);
    files::check(pool, &mut report);
    files::name_paths(pool, &mut report);
    report.findings.sort();
    report.findings.dedup();
    report
}

impl Report {
    fn add(&mut self, kind: FindingKind, place: Place, problem: impl Into<String>) {
        self.findings.push(Finding { place, kind, problem: problem.into() });
    }

    /// Takes the value out of a result; an error becomes a finding.
    fn take<T>(&mut self, place: Place, result: Result<T, crate::read::ReadError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(FindingKind::Unreadable, place, error.to_string());
                None
            }
        }
    }
}

impl Place {
    fn dataset(name: &str) -> Place {
        Place { dataset: Some(name.to_owned()), ..Place::default() }
    }

    /// An object of the pool itself.
    fn mos(object: u64) -> Place {
        Place { object: Some(object), ..Place::dataset("$MOS") }
    }
}
