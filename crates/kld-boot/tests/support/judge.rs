//! What systemd-boot and the initramfs would do with a disk.

use kld_disk::BootEntry;

use super::{Disk, address};

impl Disk {
    /// The entry and the dataset that start when the firmware takes this boot partition; an error when nothing does.
    pub(crate) fn would_start(&self, esp: &str) -> Result<(String, String), String> {
        let folder = format!("{esp}/loader/entries/");
        let mut menu: Vec<(String, BootEntry)> = Vec::new();
        // Names that begin with `auto-` are those of what it finds itself.
        let is_read = |path: &str| {
            path.strip_prefix(&folder).is_some_and(|file| !file.to_ascii_lowercase().starts_with("auto-"))
        };
        for (path, bytes) in self.fat.iter().filter(|(path, _)| is_read(path)) {
            let text = String::from_utf8_lossy(bytes);
            let entry = BootEntry::parse(&text).map_err(|error| format!("{path}: {error}"))?;
            // The loader passes over an entry without a kernel, or whose kernel is not there.
            let linux = entry.get("linux").map(|linux| format!("{esp}{linux}"));
            if linux.is_some_and(|linux| self.fat.contains_key(&linux)) {
                menu.push((path[folder.len()..].to_owned(), entry));
            }
        }
        menu.sort_by_key(|(file, entry)| {
            let is_bad = count(file).is_some_and(|(_, left, _)| left == 0);
            (is_bad, entry.get("sort-key").unwrap_or_default().to_owned())
        });
        let conf = self.conf_default(esp);
        let last = self.variables.get("LoaderEntryLastBooted");
        let or_last = |default: Option<&'_ String>| match default.map(String::as_str) {
            Some("@saved") => last.cloned(),
            default => default.map(str::to_owned),
        };
        let told = [
            self.variables.get("LoaderEntryOneShot").cloned(),
            or_last(self.variables.get("LoaderEntryDefault")),
            or_last(conf.as_ref()),
        ];
        let chosen = told
            .into_iter()
            .flatten()
            .find_map(|told| menu.iter().find(|(file, _)| is_meant(&told, &self.id_of(file))));
        let (id, entry) = chosen.or(menu.first()).ok_or("the menu is empty")?;

        for (key, name) in [("linux", "linux"), ("initrd", "initrd")] {
            let path = entry.get(key).ok_or_else(|| format!("{id} has no {key}"))?;
            let bytes = self.fat.get(&format!("{esp}{path}")).ok_or_else(|| format!("{id}: no {path}"))?;
            if address(bytes, name) != path {
                return Err(format!("{id}: {path} is broken"));
            }
        }
        let dataset = entry.option("root").and_then(|root| root.strip_prefix("ZFS=")).unwrap_or_default();
        let files = &self.datasets.get(dataset).ok_or_else(|| format!("{id}: no {dataset}"))?.files;
        let version = entry.get("version").unwrap_or_default();
        let kernel = files.get(&format!("/boot/vmlinuz-{version}"));
        if kernel != self.fat.get(&format!("{esp}{}", entry.get("linux").unwrap_or_default())) {
            return Err(format!("{id}: {dataset} has another kernel {version}"));
        }
        if !files.contains_key(&format!("/usr/lib/modules/{version}/modules.dep")) {
            return Err(format!("{id}: {dataset} has no modules of {version}"));
        }
        Ok((id.clone(), dataset.to_owned()))
    }
}

impl Disk {
    /// The `default` of a `loader.conf`.
    fn conf_default(&self, esp: &str) -> Option<String> {
        let conf = self.fat.get(&format!("{esp}/loader/loader.conf"));
        let conf = String::from_utf8_lossy(conf.map_or(&[][..], Vec::as_slice)).into_owned();
        conf.lines().filter_map(|line| line.strip_prefix("default ")).next_back().map(str::to_owned)
    }

    /// What an entry is called: before version 258 the count is a part of the name.
    fn id_of(&self, file: &str) -> String {
        let is_new = self.variables.get("LoaderInfo").is_some_and(|info| info.as_str() >= "systemd-boot 258");
        match count(file).filter(|_| is_new) {
            Some((name, ..)) => format!("{name}.conf"),
            None => file.to_owned(),
        }
    }

    /// Remembers what is started, as the loader does (`save_selected_entry`): what the variable for one start has named is not
    /// saved, and with a pattern it has named nothing.
    pub(crate) fn remember(&mut self, esp: &str, file: &str) {
        let id = self.id_of(file);
        let once = self.variables.remove("LoaderEntryOneShot");
        self.variables.insert("LoaderEntrySelected".to_owned(), id.clone());
        if once.as_ref() == Some(&id) {
            return;
        }
        let default = self.variables.get("LoaderEntryDefault").cloned().or_else(|| self.conf_default(esp));
        match default.as_deref() {
            Some("@saved") => self.variables.insert("LoaderEntryLastBooted".to_owned(), id),
            _ => self.variables.remove("LoaderEntryLastBooted"),
        };
    }

    /// Counts a try of the entry in this file, as the loader does before it starts it.
    pub(crate) fn count_try(&mut self, esp: &str, file: &str) {
        if let Some((name, left, done)) = count(file) {
            let folder = format!("{esp}/loader/entries");
            let entry = self.fat.remove(&format!("{folder}/{file}")).expect("it was started");
            let counted = format!("{folder}/{name}+{}-{}.conf", left.saturating_sub(1), done + 1);
            self.fat.insert(counted, entry);
        }
    }
}

/// `name+LEFT-DONE.conf`.
fn count(file: &str) -> Option<(String, u32, u32)> {
    let (name, count) = file.strip_suffix(".conf")?.rsplit_once('+')?;
    let (left, done) = count.split_once('-').unwrap_or((count, "0"));
    Some((name.to_owned(), left.parse().ok()?, done.parse().ok()?))
}

/// A name, or a pattern of the forms that are in use here: `name[+.]*conf` and `name+*.conf`.
fn is_meant(told: &str, file: &str) -> bool {
    let pattern = told.split_once("[+.]*").map(|(before, after)| (before, after, &['+', '.'][..]));
    let pattern =
        pattern.or_else(|| told.split_once("+*").map(|(before, after)| (before, after, &['+'][..])));
    match pattern {
        None => told == file,
        Some((before, after, first)) => {
            let rest = file.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            rest.is_some_and(|rest| rest.starts_with(first))
        }
    }
}
