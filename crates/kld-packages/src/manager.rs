//! What differs between distributions.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_host::Cmd;

use crate::apt::Apt;
use crate::error::PackageError;
use crate::path_filters::PathFilters;
use crate::request::Change;

/// Reading the lists of every archive on a slow line.
const LOOKING: Duration = Duration::from_secs(900);

/// A package manager: commands as words, for whoever runs them where the packages are.
pub trait PackageManager: fmt::Debug {
    /// Looks which versions there are.
    fn refresh(&self) -> Vec<String>;

    /// Changes packages without a question.
    fn change(&self, change: &Change) -> Vec<String>;

    /// Variables for both.
    fn environment(&self) -> &'static [(&'static str, &'static str)];

    /// Says what is not consistent; nothing when all is.
    fn audit(&self) -> Vec<String>;

    /// Names what [`Self::audit`] says, one finding each.
    fn audited(&self, output: &str) -> Vec<String>;

    /// Compares the files of these packages with what the database says of them.
    fn verify(&self, packages: &[&str]) -> Vec<String>;

    /// Names the files that [`Self::verify`] found changed and that nobody may change; what this system leaves out of packages
    /// is none of them.
    fn verified(&self, output: &str) -> Vec<String>;

    /// Programs that list what an initial RAM file system holds, given its path; the first one that is there is asked.
    fn initramfs_listers(&self) -> &'static [&'static str];

    /// Folders that it wants to find there.
    fn cache_folders(&self) -> &'static [&'static str];

    /// What [`preview`] runs, with everything that is fetched below `cache`.
    fn preview(&self, change: &Change, cache: &str) -> PreviewCommands;

    /// Reads what they say.
    fn previewed(&self, simulated: &str, fetched: &str) -> Preview;
}

/// Commands that tell what would be done, and do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewCommands {
    /// Looks which versions there are.
    pub refresh: Vec<String>,
    /// Says what would be changed.
    pub simulate: Vec<String>,
    /// Says what would be fetched.
    pub fetch: Vec<String>,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// Packages that would be others.
    pub changes: Vec<crate::PackageChange>,
    /// Bytes that would be fetched.
    pub download: u64,
}

/// The package manager of the system below `root`.
///
/// # Errors
/// When it is none that is known, or its configuration cannot be read.
pub fn manager_of(root: &Path) -> Result<Box<dyn PackageManager>, PackageError> {
    if root.join("usr/bin/apt-get").exists() && root.join("var/lib/dpkg/status").exists() {
        let filters = PathFilters::of(root).map_err(PackageError::file("read", root.join("etc/dpkg")))?;
        return Ok(Box::new(Apt { filters }));
    }
    Err(PackageError::NoManager)
}

/// Says what a change of the running system's packages would be, with today's lists, and touches nothing of it.
///
/// # Errors
/// When the archives do not answer, or a package is not there.
pub fn preview(manager: &dyn PackageManager, change: &Change) -> Result<Preview, PackageError> {
    let cache = PathBuf::from(format!("/var/tmp/kldload-lists-{}", std::process::id()));
    let mut made = std::fs::create_dir(&cache).map_err(PackageError::file("make", &cache));
    for folder in manager.cache_folders() {
        let folder = cache.join(folder);
        made =
            made.and_then(|()| std::fs::create_dir_all(&folder).map_err(PackageError::file("make", folder)));
    }
    let looked = made.and_then(|()| {
        let commands = manager.preview(change, &cache.to_string_lossy());
        let run = |words: &[String]| {
            let cmd = Cmd::new(&words[0]).args(&words[1..]).timeout(LOOKING);
            cmd.stdout_string().map_err(PackageError::Exec)
        };
        run(&commands.refresh)?;
        Ok(manager.previewed(&run(&commands.simulate)?, &run(&commands.fetch)?))
    });
    // What cannot be removed is cleared by systemd-tmpfiles, as everything in that place.
    let _ = std::fs::remove_dir_all(&cache);
    looked
}
