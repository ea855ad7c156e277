//! The package database of a system that is mounted anywhere: what is installed, and what differs between two.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where dpkg keeps it.
const DPKG: &str = "var/lib/dpkg/status";

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its version.
    pub version: String,
    /// Whether dpkg has ended its work on it.
    pub is_configured: bool,
}

/// What is installed, by `NAME` or, for foreign architectures too, `NAME:ARCHITECTURE`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packages(pub BTreeMap<String, Package>);

/// A package that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its version before; nothing when it is new.
    pub before: Option<String>,
    /// Its version after; nothing when it is gone.
    pub after: Option<String>,
}

impl fmt::Display for PackageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {} {after}", self.name),
            (Some(before), None) => write!(f, "- {} {before}", self.name),
            (before, after) => write!(
                f,
                "  {} {} -> {}",
                self.name,
                before.as_deref().unwrap_or_default(),
                after.as_deref().unwrap_or_default()
            ),
        }
    }
}

impl Packages {
    /// Reads the database below `root`; `None` when there is none that is known.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn of(root: &Path) -> io::Result<Option<Self>> {
        match fs::read(root.join(DPKG)) {
            Ok(bytes) => Ok(Some(Self::parse_dpkg(&String::from_utf8_lossy(&bytes)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads dpkg's `status`: paragraphs of `Key: value`. What was removed and left its configuration is not installed.
    pub fn parse_dpkg(text: &str) -> Self {
        let mut packages = BTreeMap::new();
        for paragraph in text.split("\n\n") {
            let field = |name: &str| {
                let lines = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
                let value = lines.filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name);
                value.map(|(_, value)| value.trim())
            };
            let (Some(name), Some(status), Some(version)) =
                (field("Package"), field("Status"), field("Version"))
            else {
                continue;
            };
            let state = status.split_ascii_whitespace().nth(2).unwrap_or_default();
            if ["not-installed", "config-files"].contains(&state) {
                continue;
            }
            let architecture = field("Architecture").unwrap_or("all");
            let is_same = field("Multi-Arch") == Some("same");
            let name = if is_same { format!("{name}:{architecture}") } else { name.to_owned() };
            let package = Package { version: version.to_owned(), is_configured: state == "installed" };
            packages.insert(name, package);
        }
        Self(packages)
    }

    /// What is different in `after`, by name.
    pub fn changes(&self, after: &Self) -> Vec<PackageChange> {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(after.0.keys()).collect();
        let version = |of: &Self, name: &String| of.0.get(name).map(|package| package.version.clone());
        let all = names.into_iter().map(|name| PackageChange {
            name: name.clone(),
            before: version(self, name),
            after: version(after, name),
        });
        all.filter(|change| change.before != change.after).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATUS: &str = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2\nDescription: a shell\n Version: not this\n\n\
        Package: libc6\nStatus: install ok half-configured\nArchitecture: amd64\nMulti-Arch: same\nVersion: 2.41\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
        Package: held\nStatus: hold ok installed\nArchitecture: all\nVersion: 1:1~rc1\n";

    #[test]
    fn what_is_installed_is_read_and_what_differs_is_told() {
        let before = Packages::parse_dpkg(STATUS);
        let names: Vec<&String> = before.0.keys().collect();
        assert_eq!(names, ["bash", "held", "libc6:amd64"]);
        assert!(before.0["bash"].is_configured && !before.0["libc6:amd64"].is_configured);
        let after = STATUS.replace("5.2", "5.3").replace("deinstall ok config-files", "install ok installed");
        let after = Packages::parse_dpkg(&after.replace("hold ok installed", "deinstall ok config-files"));
        let changes: Vec<String> = before.changes(&after).iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["  bash 5.2 -> 5.3", "+ gone 1", "- held 1:1~rc1"]);
        assert!(after.changes(&after).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "((Package|Status|Version|Architecture): ?[a-z ]{0,12}\n|\n|\\PC{0,8}\n){0,20}") {
            let packages = Packages::parse_dpkg(&text);
            prop_assert!(packages.changes(&packages).is_empty());
        }
    }
}
