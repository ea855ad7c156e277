//! The kernel of an environment: what lies in its `/boot`, and what it is called on the boot partition.

use kld_disk::boot_entry::BootFile;
use sha2::{Digest, Sha256};

use crate::machine::{Machine, MachineError};

/// A file that is booted from, as it lies in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it is now.
    pub(crate) path: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// What it is called on a boot partition: by its content.
    pub(crate) target: String,
}

/// The kernel of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Its release.
    pub(crate) version: String,
    /// The kernel.
    pub(crate) linux: Source,
    /// Its initial RAM file system.
    pub(crate) initrd: Source,
}

/// The kernels that an environment mounted at `at` has, newest first: those whose modules are there before the others, and of
/// those the flavour of the release `like`, which has started here.
fn versions(
    machine: &dyn Machine,
    at: &str,
    like: Option<&str>,
) -> Result<Vec<(String, String)>, MachineError> {
    let names = machine.list(&format!("{at}/boot"))?;
    let mut modules = machine.list(&format!("{at}/usr/lib/modules"))?;
    modules.extend(machine.list(&format!("{at}/lib/modules"))?);
    let mut found: Vec<(String, String)> = Vec::new();
    for version in names.iter().filter_map(|name| name.strip_prefix("vmlinuz-")) {
        let initrd = [
            format!("initrd.img-{version}"),
            format!("initramfs-{version}.img"),
            format!("initramfs-{version}"),
            format!("initrd-{version}"),
        ];
        if let Some(initrd) = initrd.into_iter().find(|initrd| names.contains(initrd)) {
            found.push((version.to_owned(), initrd));
        }
    }
    found.sort_by(|(a, _), (b, _)| {
        let has = |version: &String| modules.contains(version);
        let is_like = |version: &String| like.is_some_and(|like| flavour(like) == flavour(version));
        has(b).cmp(&has(a)).then_with(|| is_like(b).cmp(&is_like(a))).then_with(|| parts(b).cmp(&parts(a)))
    });
    Ok(found)
}

/// What a kernel was built for, as its release says it: `rt-amd64` of `6.1.0-40-rt-amd64`, nothing of `6.11.4-300.fc41.x86_64`.
fn flavour(release: &str) -> &str {
    let mut rest = release.split_once('-').map_or("", |(_, rest)| rest);
    // `40-amd64`, `rc6-amd64`: still which release it is.
    while let Some((piece, after)) = rest.split_once('-').or((!rest.is_empty()).then_some((rest, ""))) {
        if !piece.trim_start_matches("rc").starts_with(|first: char| first.is_ascii_digit()) {
            break;
        }
        rest = after;
    }
    rest
}

/// A release as something that can be compared: `6.9.1` is before `6.12.0`.
fn parts(version: &str) -> Vec<(u64, String)> {
    let pieces = version.split(['.', '-', '+', '~', '_']);
    pieces.map(|piece| (piece.parse().unwrap_or(0), piece.to_owned())).collect()
}

/// The releases of the kernels that could be started from what is mounted at `at`, best first: see [`kernel_after`].
///
/// # Errors
/// When its `/boot` cannot be read.
pub fn kernels(machine: &dyn Machine, at: &str, like: Option<&str>) -> Result<Vec<String>, MachineError> {
    Ok(versions(machine, at, like)?.into_iter().map(|(version, _)| version).collect())
}

/// The release to start after a change of packages, of the [`kernels`] before it and after it: the best of those that came, and
/// of the one that is started now. What was there before and is not started is nobody's choice, as long as there is another.
pub fn kernel_after<'a>(before: &[String], after: &'a [String], started: Option<&str>) -> Option<&'a str> {
    let is_meant = |of: &&String| started == Some(of.as_str()) || !before.contains(of);
    after.iter().find(is_meant).or(after.first()).map(String::as_str)
}

/// The kernel of the environment mounted at `at`: the one of this release when it is there, else the newest of its
/// flavour, else the newest.
pub(crate) fn find(
    machine: &dyn Machine,
    at: &str,
    release: Option<&str>,
) -> Result<Option<Kernel>, MachineError> {
    let versions = versions(machine, at, release)?;
    let wanted = versions.iter().find(|(version, _)| Some(version.as_str()) == release);
    let Some((version, initrd)) = wanted.or_else(|| versions.first()) else { return Ok(None) };
    let linux = source(machine, format!("{at}/boot/vmlinuz-{version}"), BootFile::Linux)?;
    let initrd = source(machine, format!("{at}/boot/{initrd}"), BootFile::Initrd)?;
    Ok(linux.zip(initrd).map(|(linux, initrd)| Kernel { version: version.clone(), linux, initrd }))
}

/// A file that is booted from; `None` when it is none, or an empty one.
pub(crate) fn source(
    machine: &dyn Machine,
    path: String,
    kind: BootFile,
) -> Result<Option<Source>, MachineError> {
    let Some(bytes) = machine.read(&path)?.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    let target = kind.path(&Sha256::digest(&bytes).into());
    Ok(Some(Source { path, size: bytes.len() as u64, target }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        let mut all = ["6.9.1-amd64", "6.12.0-amd64", "6.12.0+deb13-amd64", "5.10.0"];
        all.sort_by_key(|version| parts(version));
        assert_eq!(all.last(), Some(&"6.12.0+deb13-amd64"));
        assert_eq!(all.first(), Some(&"5.10.0"));
    }

    #[test]
    fn a_release_says_what_it_was_built_for() {
        for (release, want) in [
            ("6.12.57+deb13-amd64", "amd64"),
            ("6.12.57+deb13-cloud-amd64", "cloud-amd64"),
            ("6.1.0-40-amd64", "amd64"),
            ("6.1.0-40-rt-amd64", "rt-amd64"),
            ("6.1.0-0.deb11.5-cloud-amd64", "cloud-amd64"),
            ("6.18-rc6-amd64", "amd64"),
            ("6.8.0-49-generic", "generic"),
            ("6.11.4-300.fc41.x86_64", ""),
            ("6.12.1", ""),
            ("linux-lts", "lts"),
        ] {
            assert_eq!(flavour(release), want, "{release}");
        }
    }

    #[test]
    fn what_was_there_and_is_not_started_is_not_chosen() {
        let all = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (before, after, started, want) in [
            // Nothing came: what starts goes on starting.
            ("6.99-amd64 6.12.1-amd64", "6.99-amd64 6.12.1-amd64", "6.12.1-amd64", "6.12.1-amd64"),
            // One came, beside one that nobody has started.
            (
                "6.99-amd64 6.12.1-amd64",
                "6.99-amd64 6.12.2-amd64 6.12.1-amd64",
                "6.12.1-amd64",
                "6.12.2-amd64",
            ),
            ("6.12.1-amd64", "6.12.2-amd64 6.12.1-amd64", "6.12.1-amd64", "6.12.2-amd64"),
            // The one that starts is gone, and none came.
            ("6.99-amd64 6.12.1-amd64", "6.99-amd64", "6.12.1-amd64", "6.99-amd64"),
            // The entry does not say which it starts.
            ("6.12.1-amd64", "6.12.1-amd64", "Debian", "6.12.1-amd64"),
        ] {
            let (before, after) = (all(before), all(after));
            assert_eq!(kernel_after(&before, &after, Some(started)), Some(want), "{before:?} {after:?}");
        }
        assert_eq!(kernel_after(&all("6.12.1"), &[], Some("6.12.1")), None);
    }
}
