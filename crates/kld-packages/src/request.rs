//! What is asked of the process inside a clone, and what it answers.

use serde::{Deserialize, Serialize};

use crate::checks::Finding;
use crate::database::PackageChange;
use crate::name::PackageName;

/// What is done to the packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Newer versions of what is there.
    Upgrade {
        /// Also where another package must go for it.
        full: bool,
    },
    /// More packages.
    Install(Vec<PackageName>),
    /// Fewer packages; their configuration stays.
    Remove(Vec<PackageName>),
}

/// What the changed system is told for its first start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrialFile {
    /// The environment that it was made from.
    pub from: String,
    /// What `kst` found bad there, `services: app.service`: it counts for nothing.
    pub bad_before: Vec<String>,
    /// Services there that had ended and were started again, `app.service`: they may go on with it.
    #[serde(default)]
    pub restarted_before: Vec<String>,
}

/// All that the process inside needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What is done.
    pub change: Change,
    /// The program that judges the first start, as the clone has it: `/usr/bin/kldload`.
    pub program: String,
    /// The release of the kernel that the running system starts with, as its boot entry says it.
    pub kernel: Option<String>,
    /// Whether the kernel's command line brings the host id, so that the initial RAM file system need not.
    pub host_id_by_entry: bool,
    /// What the changed system is told.
    pub trial: TrialFile,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Packages that are others now; empty when nothing was to be done.
    pub changes: Vec<PackageChange>,
    /// What speaks against starting it, and was not so before.
    pub findings: Vec<Finding>,
    /// The release of the kernel that it would start with.
    pub kernel: Option<String>,
}
