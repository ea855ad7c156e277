//! Versions of packages that a lock file pins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A lock file, as far as packages are installed by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// The file, as a person finds it.
    pub file: String,
    /// Its packages by name.
    pub packages: BTreeMap<String, LockedPackage>,
}

/// The one version of a package that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// As the distribution writes it.
    pub version: String,
    /// SHA-256 of the package file in hexadecimal; `None` for what no archive has.
    pub sha256: Option<String>,
}

/// A package that is installed in another version than the lock file's, and that no step changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct OffLock {
    pub name: String,
    pub installed: String,
    pub locked: String,
}

impl Locked {
    /// The version that a package must have.
    pub(crate) fn version(&self, name: &str) -> Option<&str> {
        self.packages.get(name).map(|package| package.version.as_str())
    }

    /// How another lock file is made.
    pub(crate) fn hint(&self) -> String {
        format!(
            "`kldload build --update MANIFEST --output IMAGE` writes a new one beside the image: `cp IMAGE.lock {}`",
            self.file
        )
    }
}
