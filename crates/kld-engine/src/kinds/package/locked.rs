//! Packages in the versions that a lock file names, and no others.

use std::collections::BTreeMap;

use super::apt::{self, Simulated};
use crate::host::Host;
use crate::kinds::Refusal;
use crate::locked::{Locked, OffLock};
use crate::plan::Action;

/// What a lock file says of one installation; without a lock file it says nothing.
#[derive(Default)]
pub(super) struct Pinned<'a> {
    lock: Option<&'a Locked>,
    /// Versions of what is asked for and of what comes along.
    pub(super) versions: BTreeMap<String, String>,
    /// What is installed in another version, and gets the locked one: versions now.
    pub(super) changed: BTreeMap<String, String>,
}

impl<'a> Pinned<'a> {
    pub(super) fn new(lock: Option<&'a Locked>) -> Self {
        Self { lock, ..Self::default() }
    }

    fn refused(lock: &Locked, name: &str, reason: String) -> Refusal {
        Refusal::Refused { name: name.to_owned(), reason, hint: lock.hint() }
    }

    /// The version that a package of the manifest must have.
    pub(super) fn want(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let Some(lock) = self.lock else { return Ok(None) };
        let missing = || Self::refused(lock, name, format!("it is not in the lock file `{}`", lock.file));
        lock.version(name).map(Some).ok_or_else(missing)
    }

    /// What apt would do for these, when what comes along has the locked versions, too.
    pub(super) fn simulate(&mut self, host: &dyn Host, names: &[String]) -> Result<Simulated, Refusal> {
        let lock = self.lock;
        let version = |name: &str| lock.and_then(|lock| lock.version(name));
        let own = |name: &str| version(name).map(|version| (name.to_owned(), version.to_owned()));
        self.versions = names.iter().filter_map(|name| own(name)).collect();
        loop {
            let words = apt::words(names, &self.versions);
            let simulated = apt::simulate(host, &words, lock.is_some())
                .map_err(|error| apt::unavailable(&words, lock, error))?;
            let others =
                simulated.installed.iter().filter(|(name, of)| version(name).is_some_and(|it| it != of));
            let others: Vec<_> = others.filter_map(|(name, _)| own(name)).collect();
            // What it has been told and does otherwise would go on for ever.
            let before = self.versions.len();
            self.versions.extend(others);
            if self.versions.len() == before {
                return Ok(simulated);
            }
        }
    }

    /// How apt's index is asked about what would be installed.
    pub(super) fn shown(&self, simulated: &Simulated) -> Vec<String> {
        let names: Vec<String> = simulated.installed.iter().map(|(name, _)| name.clone()).collect();
        let is_installed = |name: &String| names.contains(name);
        let versions = self.versions.iter().filter(|(name, _)| is_installed(name));
        apt::words(&names, &versions.map(|(name, version)| (name.clone(), version.clone())).collect())
    }

    /// The archive's files must be those that were locked: a version can be built twice.
    pub(super) fn check_files(&self, digests: &BTreeMap<String, String>) -> Result<(), Refusal> {
        let Some(lock) = self.lock else { return Ok(()) };
        for (name, found) in digests {
            let locked = lock.packages.get(name).and_then(|package| package.sha256.as_ref());
            if let Some(locked) = locked.filter(|locked| *locked != found) {
                let version = lock.version(name).unwrap_or_default();
                let reason = format!(
                    "the archive has another file of {version}: its SHA-256 is {found}, and {locked} is locked"
                );
                return Err(Self::refused(lock, name, reason));
            }
        }
        Ok(())
    }

    /// The versions of what is asked for.
    pub(super) fn notes(&self, names: &[String]) -> Vec<String> {
        let note = |name: &String| {
            let version = self.versions.get(name)?;
            let was = self.changed.get(name).map_or_else(String::new, |was| format!("{was} → "));
            Some(format!("{name} {was}{version} (locked)"))
        };
        names.iter().filter_map(note).collect()
    }

    /// What comes along without being in the lock file.
    pub(super) fn unknown(&self, simulated: &Simulated) -> Option<String> {
        let lock = self.lock?;
        let unknown = simulated.installed.iter().filter(|(name, _)| lock.version(name).is_none());
        let unknown: Vec<String> = unknown.map(|(name, version)| format!("{name} {version}")).collect();
        (!unknown.is_empty())
            .then(|| format!("not in the lock file, and as the archive has them: {}", unknown.join(", ")))
    }

    pub(super) fn action(&self, names: &[String]) -> Action {
        if self.changed.len() == names.len() { Action::Change } else { Action::Add }
    }

    pub(super) fn summary(&self, names: &[String]) -> &'static str {
        match self.changed.len() {
            0 => "install",
            changed if changed == names.len() => "change the version",
            _ => "install, or change the version",
        }
    }

    /// What is installed in another version than the lock file's, and what no step changes.
    pub(super) fn off(&self, installed: &BTreeMap<&str, &str>) -> Vec<OffLock> {
        let packages = self.lock.into_iter().flat_map(|lock| &lock.packages);
        let off = packages.filter_map(|(name, locked)| {
            let installed = installed.get(name.as_str()).filter(|version| **version != locked.version)?;
            let installed = (*installed).to_owned();
            Some(OffLock { name: name.clone(), installed, locked: locked.version.clone() })
        });
        off.filter(|off| !self.versions.contains_key(&off.name)).collect()
    }
}
