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

/// The kernels that an environment mounted at `at` has, newest first: those whose modules are there before the others.
fn versions(machine: &dyn Machine, at: &str) -> Result<Vec<(String, String)>, MachineError> {
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
        has(b).cmp(&has(a)).then_with(|| parts(b).cmp(&parts(a)))
    });
    Ok(found)
}

/// A release as something that can be compared: `6.9.1` is before `6.12.0`.
fn parts(version: &str) -> Vec<(u64, String)> {
    let pieces = version.split(['.', '-', '+', '~', '_']);
    pieces.map(|piece| (piece.parse().unwrap_or(0), piece.to_owned())).collect()
}

/// The release of the kernel that would be started from what is mounted at `at`, unless one is named.
///
/// # Errors
/// When its `/boot` cannot be read.
pub fn newest_kernel(machine: &dyn Machine, at: &str) -> Result<Option<String>, MachineError> {
    Ok(versions(machine, at)?.into_iter().next().map(|(version, _)| version))
}

/// The kernel of the environment mounted at `at`: the one of this release when it is there, else the newest.
pub(crate) fn find(
    machine: &dyn Machine,
    at: &str,
    release: Option<&str>,
) -> Result<Option<Kernel>, MachineError> {
    let versions = versions(machine, at)?;
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
}
