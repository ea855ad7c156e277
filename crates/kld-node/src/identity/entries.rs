//! Boot entries, changed so that a power cut at any instant leaves one that boots.
//!
//! They lie on FAT, which has no atomic rename: until all of it is on disk, a name that was renamed over may lead to
//! clusters that are free again, and the check of the file system at the next start then makes an empty file of it. So
//! a second entry with the old content, the *stand-in*, is on disk before the entry is touched, and goes when the new
//! one is on disk. systemd-boot passes over entries without a kernel, and takes the stand-in.

use super::IdentityError;
use crate::machine::{Access, Machine, MachineError};
use kld_disk::BootEntry;
use kld_disk::boot_entry::ENTRIES;
use std::path::{Path, PathBuf};

/// FAT keeps no modes: chmod(2) there only succeeds for what the mount's mask leaves of 0755.
const FAT: Access<'static> = Access { mode: 0o755, group: None };
const EXTENSION: &str = ".conf";
/// At the end of a stand-in's name, before the extension.
const STAND_IN: &str = ".stand-in";

/// Every boot entry of the loader with its path, in order of their names. What an interrupted [`replace`] left is
/// brought to an end first.
pub(super) fn read(machine: &dyn Machine, esp: &str) -> Result<Vec<(PathBuf, BootEntry)>, IdentityError> {
    let folder = Path::new(esp).join(ENTRIES);
    for name in machine.list(&folder)? {
        if let Some(stem) = name.strip_suffix(EXTENSION).and_then(|stem| stem.strip_suffix(STAND_IN)) {
            let original = folder.join(format!("{stem}{EXTENSION}"));
            take_back(machine, &original, &folder.join(&name))?;
        }
    }
    let mut entries = Vec::new();
    for name in machine.list(&folder)? {
        // Names with a dot in front are being written.
        if name.ends_with(EXTENSION) && !name.starts_with('.') {
            let path = folder.join(name);
            entries.extend(parse(machine, &path)?.map(|entry| (path, entry)));
        }
    }
    Ok(entries)
}

/// Gives an entry new content.
pub(super) fn replace(machine: &dyn Machine, path: &Path, entry: &BootEntry) -> Result<(), MachineError> {
    let stand_in = stand_in_of(path);
    if let Some(old) = machine.read(path)? {
        machine.write(&stand_in, &old, FAT)?;
        machine.sync(path)?;
    }
    finish(machine, path, entry, &stand_in)
}

/// Ends what a stand-in was made for: its entry is written again unless it is whole.
fn take_back(machine: &dyn Machine, original: &Path, stand_in: &Path) -> Result<(), IdentityError> {
    match (parse(machine, original), parse(machine, stand_in)) {
        (Ok(Some(_)), _) => {
            machine.remove(stand_in)?;
            machine.sync(original)?;
        }
        (_, Ok(Some(old))) => finish(machine, original, &old, stand_in)?,
        // Neither is whole: for a person to look at.
        _ => {}
    }
    Ok(())
}

fn finish(
    machine: &dyn Machine,
    path: &Path,
    entry: &BootEntry,
    stand_in: &Path,
) -> Result<(), MachineError> {
    machine.write(path, entry.to_string().as_bytes(), FAT)?;
    machine.sync(path)?;
    machine.remove(stand_in)?;
    machine.sync(path)
}

/// An entry that has a kernel.
fn parse(machine: &dyn Machine, path: &Path) -> Result<Option<BootEntry>, IdentityError> {
    let Some(text) = machine.read_text(path)? else { return Ok(None) };
    let entry = BootEntry::parse(&text)
        .map_err(|source| IdentityError::BootEntry { path: path.display().to_string(), source })?;
    Ok(entry.get("linux").is_some().then_some(entry))
}

fn stand_in_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.strip_suffix(EXTENSION).unwrap_or(&name);
    path.with_file_name(format!("{stem}{STAND_IN}{EXTENSION}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_an_entry_of_its_own() {
        let path = stand_in_of(Path::new("/efi/loader/entries/debian.conf"));
        assert_eq!(path, Path::new("/efi/loader/entries/debian.stand-in.conf"));
    }
}
