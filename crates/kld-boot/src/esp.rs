//! The boot partitions: FAT file systems with boot entries, where they are mounted and what lies on them.

use std::collections::{BTreeMap, BTreeSet};

use kld_disk::BootEntry;
use kld_disk::boot_entry::{ENTRIES, FALLBACK_LOADER, LOADER_CONF, SYSTEMD_LOADER};
use kld_host::mounts::{self, Mount};

use crate::action::Action;
use crate::entries::PER_FILE;
use crate::loader;
use crate::machine::{Machine, MachineError};
use crate::name::is_passed_over;

/// Where a boot partition is mounted when nobody says where: by systemd, or as installers do.
const USUAL: [&str; 3] = ["/efi", "/boot", "/boot/efi"];
/// Where kernels lie that are named by their content.
pub(crate) const KERNELS: &str = "/EFI/kldload";
/// At the end of the name of an entry that stands in for another while that is written.
const STAND_IN: &str = ".stand-in.conf";

/// A boot entry on a boot partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its file below `loader/entries`.
    pub file: String,
    /// The name by which the loader knows it.
    pub id: String,
    /// What it says.
    pub entry: BootEntry,
}

impl Entry {
    /// What the loader reads in a file.
    fn read(file: String, text: &str) -> Self {
        // It passes over a key without a value, and takes the rest.
        let has_value = |line: &&str| line.trim().contains([' ', '\t']) || line.trim_start().starts_with('#');
        let text: Vec<&str> = text.lines().filter(has_value).collect();
        let entry = BootEntry::parse(&text.join("\n")).unwrap_or_default();
        Self { id: loader::id_of(&file), file, entry }
    }

    /// The dataset that it starts.
    pub fn dataset(&self) -> Option<&str> {
        dataset_of(&self.entry)
    }

    /// The files that it boots from.
    pub fn boot_files(&self) -> impl Iterator<Item = &str> {
        self.entry.get("linux").into_iter().chain(self.entry.get_all("initrd"))
    }

    /// How often the loader may still start it before it counts as bad; `None` when it does not count.
    pub fn tries_left(&self) -> Option<u32> {
        loader::tries_left(&self.file)
    }

    /// Whether a name or pattern that the loader was told means it.
    pub(crate) fn is_meant_by(&self, told: &str) -> bool {
        loader::matches(told, &self.id) || loader::matches(told, &self.file)
    }

    /// Whether it only stands in for another.
    pub fn is_stand_in(&self) -> bool {
        self.file.ends_with(STAND_IN)
    }
}

/// The dataset that an entry starts, as the initramfs of Debian, dracut and Arch are told.
pub(crate) fn dataset_of(entry: &BootEntry) -> Option<&str> {
    let value = entry.option("root").or_else(|| entry.option("zfs"))?;
    let dataset = value.strip_prefix("ZFS=").or_else(|| value.strip_prefix("zfs:")).unwrap_or(value);
    dataset.contains('/').then_some(dataset).filter(|name| !name.starts_with('/'))
}

/// A boot partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Esp {
    /// Where it is mounted.
    pub mount: String,
    /// Bytes that still fit.
    pub free: u64,
    /// `loader.conf`; empty when there is none.
    pub conf: String,
    /// The boot entries, in order of their files; stand-ins too.
    pub entries: Vec<Entry>,
    /// Whether a loader lies beside the entries.
    pub has_loader: bool,
    /// Files named by content, and those that entries name, with their sizes.
    pub files: BTreeMap<String, u64>,
}

impl Esp {
    /// Where a file of the boot partition is in the system.
    pub fn path(&self, file: &str) -> String {
        format!("{}/{}", self.mount, file.trim_start_matches('/'))
    }

    /// Whether a file of the system lies on it.
    fn is_below(&self, path: &str) -> bool {
        path.strip_prefix(&self.mount).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Where an entry's file is in the system.
    pub fn entry_path(&self, file: &str) -> String {
        format!("{}/{ENTRIES}/{file}", self.mount)
    }

    /// Where `loader.conf` is in the system.
    pub fn conf_path(&self) -> String {
        format!("{}/{LOADER_CONF}", self.mount)
    }

    /// The entries that start a dataset.
    pub fn entries_of<'a, 'd>(&'a self, dataset: &'d str) -> impl Iterator<Item = &'a Entry> + use<'a, 'd> {
        self.entries.iter().filter(move |entry| !entry.is_stand_in() && entry.dataset() == Some(dataset))
    }

    /// Whether all that an entry boots from is there.
    pub fn is_complete(&self, entry: &Entry) -> bool {
        entry.entry.get("linux").is_some()
            && entry.boot_files().all(|file| self.files.get(file).is_some_and(|&size| size > 0))
    }

    /// Files named by content that no entry needs, once those are gone that `leaves` says.
    pub fn unneeded(&self, leaves: impl Fn(&Entry) -> bool) -> Vec<(&str, u64)> {
        let stay = self.entries.iter().filter(|entry| !leaves(entry));
        let needed: BTreeSet<&str> = stay.flat_map(Entry::boot_files).collect();
        let ours = self.files.iter().filter(|(path, _)| path.starts_with(KERNELS));
        ours.filter(|(path, _)| !needed.contains(path.as_str()))
            .map(|(path, size)| (path.as_str(), *size))
            .collect()
    }

    /// The entry of this name that starts something else than a dataset. Case makes no difference to FAT.
    pub(crate) fn taken(&self, id: &str, dataset: &str) -> Option<&Entry> {
        // One that says nothing is what a power cut leaves.
        let is_other = |of: &&Entry| {
            of.id.eq_ignore_ascii_case(id)
                && of.entry != BootEntry::default()
                && of.dataset() != Some(dataset)
        };
        self.entries.iter().find(is_other)
    }

    /// The entry that its `loader.conf` names; `last` was started last.
    pub(crate) fn default_id(&self, last: Option<&str>) -> Option<String> {
        let pattern = loader::default_of(&self.conf)?;
        if loader::is_saved(pattern) {
            return last.map(str::to_owned);
        }
        let entry = self.entries.iter().find(|entry| loader::matches(pattern, &entry.id));
        entry.map(|entry| entry.id.clone())
    }

    /// What an action gives it, beside all that is there.
    pub(crate) fn gains(&mut self, action: &Action) {
        let there = self.entries.clone();
        self.after(action);
        let is_gone = |of: &Entry| !self.entries.contains(of);
        let gone: Vec<Entry> = there.into_iter().filter(is_gone).collect();
        self.entries.extend(gone);
        let size = match action {
            Action::Copy { to, size, .. } if self.is_below(to) => size + PER_FILE,
            Action::Write { path, .. } if self.is_below(path) => PER_FILE,
            _ => 0,
        };
        self.free = self.free.saturating_sub(size);
    }

    /// What would be read after an action that gives it something.
    pub(crate) fn after(&mut self, action: &Action) {
        match action {
            Action::Write { path, text } if *path == self.conf_path() => text.clone_into(&mut self.conf),
            Action::Write { path, text } => {
                let Some(file) = path.strip_prefix(&self.entry_path("")) else { return };
                self.entries.retain(|of| of.file != file);
                self.entries.push(Entry::read(file.to_owned(), text));
                self.entries.sort_by(|a, b| a.file.cmp(&b.file));
            }
            Action::Copy { to, size, .. } if self.is_below(to) => {
                self.files.insert(to[self.mount.len()..].to_owned(), *size);
            }
            _ => {}
        }
    }

    fn read(machine: &dyn Machine, mount: &str) -> Result<Self, MachineError> {
        let mut esp = Self {
            mount: mount.to_owned(),
            free: machine.free(mount)?,
            conf: String::new(),
            entries: Vec::new(),
            has_loader: false,
            files: BTreeMap::new(),
        };
        for loader in [SYSTEMD_LOADER, FALLBACK_LOADER] {
            esp.has_loader |= machine.size(&esp.path(loader))?.is_some();
        }
        esp.conf = machine.text(&esp.conf_path())?.unwrap_or_default();
        for file in machine.list(&format!("{mount}/{ENTRIES}"))? {
            // Names with a dot in front are being written.
            if !file.ends_with(".conf") || file.starts_with('.') || is_passed_over(&file) {
                continue;
            }
            let text = machine.text(&esp.entry_path(&file))?.unwrap_or_default();
            esp.entries.push(Entry::read(file, &text));
        }
        let mut wanted: BTreeSet<String> =
            esp.entries.iter().flat_map(Entry::boot_files).map(str::to_owned).collect();
        for address in machine.list(&format!("{mount}{KERNELS}"))? {
            for name in machine.list(&format!("{mount}{KERNELS}/{address}"))? {
                wanted.insert(format!("{KERNELS}/{address}/{name}"));
            }
        }
        for file in wanted {
            if let Some(size) = machine.size(&esp.path(&file))? {
                esp.files.insert(file, size);
            }
        }
        Ok(esp)
    }
}

/// What is mounted; the last mount of a place is the one that is seen.
pub(crate) fn mounts(machine: &dyn Machine) -> Result<Vec<Mount>, MachineError> {
    Ok(mounts::parse(&machine.text("/proc/self/mountinfo")?.unwrap_or_default()))
}

/// Boot partitions, and what was found instead of them or on them that a person should know. They are those that `/etc/fstab`
/// names, and what is at the usual places: what else is mounted may be another machine's.
pub(crate) fn find(machine: &dyn Machine) -> Result<(Vec<Esp>, Vec<String>), MachineError> {
    let before = mounts(machine)?;
    let is_mounted = |place: &str, kinds: &[&str]| {
        before.iter().any(|mount| mount.point == place && kinds.contains(&&*mount.kind))
    };
    let fstab = machine.text("/etc/fstab")?.unwrap_or_default();
    let named = fstab.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let place = mounts::unescape(columns.get(1)?);
        let place = place.trim_end_matches('/').to_owned();
        (columns.get(2) == Some(&"vfat") || is_mounted(&place, &["vfat"])).then_some(place)
    });
    // systemd mounts a boot partition that nobody names when somebody looks.
    let usual = USUAL.into_iter().filter(|place| is_mounted(place, &["vfat", "autofs"])).map(str::to_owned);
    let places: BTreeSet<String> = named.chain(usual).collect();
    let (mut found, mut notes, mut devices) = (Vec::new(), Vec::new(), BTreeSet::new());
    for place in &places {
        // Looking mounts what is mounted when somebody looks.
        let looked = machine.list(&format!("{place}/loader"));
        let is_there = mounts(machine)?.into_iter().rev().find(|mount| mount.point == *place);
        let device = match (looked, is_there) {
            (Ok(names), Some(mount))
                if mount.kind == "vfat" && names.iter().any(|name| name == "entries") =>
            {
                mount.device
            }
            (Err(error @ MachineError::File { .. }), _) if is_refusal(&error) => return Err(error),
            (Err(error), _) => {
                notes.push(format!("`{place}` cannot be looked at: {error}"));
                continue;
            }
            _ => continue,
        };
        if devices.insert(device) {
            found.push(Esp::read(machine, place)?);
        }
    }
    if found.is_empty() {
        let strangers = before.iter().filter(|mount| mount.kind == "vfat" && !places.contains(&mount.point));
        for place in strangers.map(|mount| &mount.point) {
            let names = machine.list(&format!("{place}/loader")).unwrap_or_default();
            if names.iter().any(|name| name == "entries") {
                notes.push(format!("`{place}` holds boot entries, and is not in `/etc/fstab`"));
            }
        }
    }
    Ok((found, notes))
}

fn is_refusal(error: &MachineError) -> bool {
    matches!(error, MachineError::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_say_which_dataset_they_start() {
        for (options, want) in [
            ("root=ZFS=rpool/ROOT/debian rw", Some("rpool/ROOT/debian")),
            ("root=zfs:rpool/ROOT/fedora", Some("rpool/ROOT/fedora")),
            ("zfs=zroot/ROOT/arch", Some("zroot/ROOT/arch")),
            ("root=/dev/sda2", None),
            ("root=UUID=7", None),
            ("root=zfs:AUTO", None),
        ] {
            assert_eq!(dataset_of(&BootEntry::from_fields([("options", options)])), want, "{options}");
        }
    }
}
