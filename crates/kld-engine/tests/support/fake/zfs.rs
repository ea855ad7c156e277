//! `zfs` of the machine in memory.

use kld_host::zfs::pool_of;

use super::*;

impl State {
    pub(super) fn zfs(&mut self, args: &[&str]) -> Result<String, HostError> {
        let last = args[args.len() - 1].to_owned();
        match args[0] {
            "get" => {
                let names = args[args.len() - 2];
                let recursive = args[1].contains('r');
                if !self.machine.datasets.contains_key(&last) {
                    return Err(absent(&last));
                }
                let of = |dataset: &String| {
                    *dataset == last || (recursive && dataset.starts_with(&format!("{last}/")))
                };
                let datasets: Vec<String> = self.machine.datasets.keys().filter(|d| of(d)).cloned().collect();
                let columns: Vec<&str> = after(args, "-o").split(',').collect();
                let line = |dataset: &String, name: &str| {
                    let (value, source) = self.property(dataset, name);
                    let column = |of: &&str| match *of {
                        "name" => dataset.clone(),
                        "property" => name.to_owned(),
                        "value" => value.clone(),
                        _ => source.clone(),
                    };
                    columns.iter().map(column).collect::<Vec<_>>().join("\t") + "\n"
                };
                Ok(datasets.iter().flat_map(|d| names.split(',').map(move |n| line(d, n))).collect())
            }
            // A snapshot was made at the second that its name ends with.
            "list" if args.contains(&"name,creation") => {
                if !self.machine.datasets.contains_key(&last) {
                    return Err(error(format!("cannot open '{last}': dataset does not exist")));
                }
                let of = self.snapshots.keys().filter(|name| name.starts_with(&format!("{last}@")));
                let created = |name: &String| name.rsplit('-').next().unwrap_or_default().to_owned();
                Ok(of.map(|name| format!("{name}\t{}\n", created(name))).collect())
            }
            "list" if last == "filesystem,volume" => {
                Ok(self.machine.datasets.keys().map(|name| format!("{name}\n")).collect())
            }
            "list" if last == "name" => Ok(self.snapshots.keys().map(|name| format!("{name}\n")).collect()),
            "list" if args.contains(&"snapshot") => {
                let found = self.snapshots.contains_key(&last);
                if found { Ok(last + "\n") } else { Err(absent(&last)) }
            }
            "list" => {
                let found = self.and_below(&last);
                let shown = if args.contains(&"-r") { found.len() } else { found.len().min(1) };
                if found.is_empty() { Err(absent(&last)) } else { Ok(found[..shown].join("\n") + "\n") }
            }
            "set" => {
                self.burn(&args.join(" "))?;
                if let Some(pair) = args.iter().find(|pair| FIXED.iter().any(|of| pair.starts_with(of))) {
                    let name = pair.split('=').next().unwrap_or_default();
                    return Err(refused(
                        255,
                        format!("cannot set property for '{last}': '{name}' is readonly"),
                    ));
                }
                for pair in &args[1..args.len() - 1] {
                    let (name, value) = pair.split_once('=').ok_or_else(|| error("bad property"))?;
                    if name == "mountpoint" || (name, value) == ("canmount", "off") {
                        self.may_unmount(&last)?;
                    }
                    if (name, value) == ("canmount", "off") && self.is_mounted(&last) {
                        self.unmount(&last);
                    }
                    // That it may be mounted mounts nothing.
                    if (name, value) == ("canmount", "on") && self.property(&last, "canmount").0 == "off" {
                        self.machine.unmounted.entry(last.clone()).or_default();
                    }
                    let value = self.printed(name, value);
                    let own = self.machine.datasets.get_mut(&last).ok_or_else(|| absent(&last))?;
                    own.insert(name.to_owned(), value);
                }
                Ok(String::new())
            }
            "inherit" if LIMITS.contains(&args[1]) || args[1] == "canmount" => {
                Err(error(format!("'{}' property cannot be inherited", args[1])))
            }
            "inherit" => {
                self.burn(&args.join(" "))?;
                let name = args[args.len() - 2];
                self.machine.datasets.get_mut(&last).ok_or_else(|| absent(&last))?.remove(name);
                Ok(String::new())
            }
            "create" => {
                self.burn(&args.join(" "))?;
                let mut own = BTreeMap::new();
                for pair in args[1..args.len() - 1].iter().filter(|word| **word != "-o") {
                    let (name, value) = pair.split_once('=').ok_or_else(|| error("bad property"))?;
                    own.insert(name.to_owned(), self.printed(name, value));
                }
                let parent = last.rsplit_once('/').map_or("", |(parent, _)| parent);
                if self.machine.datasets.contains_key(&last) {
                    return Err(error(format!("cannot create '{last}': dataset already exists")));
                }
                if !self.machine.datasets.contains_key(parent) {
                    return Err(error(format!("cannot create '{last}': parent does not exist")));
                }
                if let Some(location) = own.get("keylocation") {
                    let key = self.text(location.trim_start_matches("file://"));
                    if key.len() != 32 {
                        return Err(error("Raw key too short (expected 32)."));
                    }
                    self.machine.keys.insert(last.clone(), key);
                }
                let may_mount = own.get("canmount").map_or("on", String::as_str).to_owned();
                self.machine.datasets.insert(last.clone(), own);
                let path = self.property(&last, "mountpoint").0;
                match may_mount.as_str() {
                    "on" if path.starts_with('/') && !self.machine.files.contains_key(&path) => {
                        self.put(&path, directory());
                    }
                    "noauto" => drop(self.machine.unmounted.insert(last, Files::new())),
                    _ => {}
                }
                Ok(String::new())
            }
            // The kernel: `zfs_ioc_snapshot` takes names of one pool.
            "snapshot" if args[1..].iter().any(|name| pool_of(name) != pool_of(args[1])) => {
                Err(error("cannot create snapshots : multiple snapshots of same fs not allowed"))
            }
            "snapshot" => {
                self.burn(&args.join(" "))?;
                if let Some(name) = args[1..].iter().find(|name| self.snapshots.contains_key(**name)) {
                    return Err(error(format!("cannot create snapshot '{name}': dataset already exists")));
                }
                for name in &args[1..] {
                    let mut machine = self.machine.clone();
                    // A dataset of its own.
                    machine.files.retain(|path, _| !path.starts_with("/var/lib/kldload/"));
                    self.snapshots.insert((*name).to_owned(), machine);
                    self.boot_snapshot(name);
                }
                Ok(String::new())
            }
            "hold" => {
                self.burn(&args.join(" "))?;
                if !self.snapshots.contains_key(&last) {
                    return Err(absent(&last));
                }
                self.holds.insert(last);
                Ok(String::new())
            }
            "release" => {
                self.burn(&args.join(" "))?;
                let none = || error(format!("cannot release hold from snapshot '{last}': no such tag"));
                self.holds.take(&last).map(|_| String::new()).ok_or_else(none)
            }
            "destroy" if last.contains('@') && self.is_held(&last) => {
                self.burn(&args.join(" "))?;
                Err(error("cannot destroy snapshot: dataset is busy"))
            }
            "destroy" if last.ends_with("@%") => {
                self.burn(&args.join(" "))?;
                let before = self.snapshots.len();
                self.snapshots.retain(|name, _| !name.starts_with(last.trim_end_matches('%')));
                if self.snapshots.len() == before {
                    return Err(error("could not find any snapshots to destroy; check snapshot names."));
                }
                Ok(String::new())
            }
            "destroy" if last.contains('@') => {
                self.burn(&args.join(" "))?;
                let none = || error("could not find any snapshots to destroy; check snapshot names.");
                if self.snapshots.contains_key(&last) {
                    self.boot_forget(&last)?;
                }
                self.snapshots.remove(&last).map(|_| String::new()).ok_or_else(none)
            }
            "destroy" => {
                self.burn(&args.join(" "))?;
                if self.and_below(&last).len() > 1 || self.has_snapshots(&last) {
                    return Err(error(format!("cannot destroy '{last}': filesystem has children")));
                }
                if self.is_mounted(&last) {
                    self.unmount(&last);
                }
                self.machine.unmounted.remove(&last);
                self.machine.keys.remove(&last);
                self.machine.datasets.remove(&last).map(|_| String::new()).ok_or_else(|| absent(&last))
            }
            "load-key" => {
                let (location, source) = self.property(&last, "keylocation");
                if source != "local" {
                    return Err(error("Keys must be loaded for encryption root"));
                }
                let given = self.text(location.trim_start_matches("file://"));
                let fits = self.machine.keys.get(&last) == Some(&given);
                if fits { Ok(String::new()) } else { Err(error("Incorrect key provided")) }
            }
            "unmount" if !self.is_mounted(&last) => {
                Err(error(format!("cannot unmount '{last}': not currently mounted")))
            }
            "unmount" => {
                self.burn(&args.join(" "))?;
                self.unmount(&last);
                Ok(String::new())
            }
            "mount" if self.is_mounted(&last) => {
                Err(error(format!("cannot mount '{last}': filesystem already mounted")))
            }
            "mount" if self.property(&last, "keystatus").0 == "unavailable" => {
                Err(error(format!("cannot mount '{last}': encryption key not loaded")))
            }
            "mount" => {
                self.burn(&args.join(" "))?;
                let files = self.machine.unmounted.remove(&last).unwrap_or_default();
                // The root of it has the owner that it had.
                let place = self.property(&last, "mountpoint").0;
                self.machine.files.entry(place).or_insert_with(directory);
                self.machine.files.extend(files);
                Ok(String::new())
            }
            "rename" => {
                self.burn(&args.join(" "))?;
                let renamed = |name: &str| format!("{last}{}", &name[args[1].len()..]);
                let all = self.and_below(args[1]);
                if all.is_empty() {
                    return Err(absent(args[1]));
                }
                for name in all {
                    let own = self.machine.datasets.remove(&name).unwrap_or_default();
                    self.machine.datasets.insert(renamed(&name), own);
                    if let Some(key) = self.machine.keys.remove(&name) {
                        self.machine.keys.insert(renamed(&name), key);
                    }
                    if let Some(files) = self.machine.unmounted.remove(&name) {
                        self.machine.unmounted.insert(renamed(&name), files);
                    }
                    let snapshots = std::mem::take(&mut self.snapshots);
                    let own = format!("{name}@");
                    let rename = |of: String| if of.starts_with(&own) { renamed(&of) } else { of };
                    self.snapshots =
                        snapshots.into_iter().map(|(of, machine)| (rename(of), machine)).collect();
                    self.holds = std::mem::take(&mut self.holds).into_iter().map(rename).collect();
                }
                Ok(String::new())
            }
            "diff" => {
                let (old, new) = (&self.snapshots[args[2]].files, &self.snapshots[&last].files);
                let kind = |entry: &Entry| if entry.node == Node::Directory { '/' } else { 'F' };
                let gone = old.iter().filter(|(path, _)| !new.contains_key(*path));
                let gone = gone.map(|(path, entry)| format!("-\t{}\t{path}\n", kind(entry)));
                let there = new.iter().filter_map(|(path, entry)| match old.get(path) {
                    None => Some(format!("+\t{}\t{path}\n", kind(entry))),
                    Some(before) if before != entry => Some(format!("M\t{}\t{path}\n", kind(entry))),
                    Some(_) => None,
                });
                Ok(gone.chain(there).collect())
            }
            verb => Err(error(format!("zfs: unknown verb {verb}"))),
        }
    }

    /// A dataset and those below it, in order; nothing when it is not there.
    fn and_below(&self, dataset: &str) -> Vec<String> {
        let below = format!("{dataset}/");
        let names = self.machine.datasets.keys().filter(|name| *name == dataset || name.starts_with(&below));
        if self.machine.datasets.contains_key(dataset) { names.cloned().collect() } else { Vec::new() }
    }

    /// One snapshot, or any of them when the name ends with `%`.
    fn is_held(&self, snapshot: &str) -> bool {
        match snapshot.strip_suffix('%') {
            Some(all) => self.holds.iter().any(|held| held.starts_with(all)),
            None => self.holds.contains(snapshot),
        }
    }

    fn has_snapshots(&self, dataset: &str) -> bool {
        self.snapshots.keys().any(|name| name.starts_with(&format!("{dataset}@")))
    }

    pub(super) fn is_mounted(&self, dataset: &str) -> bool {
        let may =
            self.property(dataset, "canmount").0 != "off" && !self.machine.unmounted.contains_key(dataset);
        may && self.property(dataset, "mountpoint").0.starts_with('/')
    }

    /// What is mounted, as the kernel says it.
    pub(super) fn mountinfo(&self) -> String {
        let root = self.root.map_or_else(|| format!("{ROOT} zfs"), str::to_owned);
        let (source, kind) = root.split_once(' ').expect("source and type");
        let mounted = self.machine.datasets.keys().filter(|name| self.is_mounted(name));
        let mounted = mounted.map(|name| (self.property(name, "mountpoint").0, name));
        mounted
            .filter(|(point, _)| point != "/")
            .fold(format!("1 0 0:1 / / rw - {kind} {source} rw\n"), |text, (point, name)| {
                text + &format!("2 1 0:2 / {point} rw - zfs {name} rw\n")
            })
    }

    /// Those that are imported.
    pub(super) fn pools(&self) -> Vec<String> {
        self.machine.datasets.keys().filter(|name| !name.contains('/')).cloned().collect()
    }

    /// Some pool is always suspended, or was imported read-only: who names none has asked that one, too.
    pub(super) fn zpool_sync(&mut self, pools: &[&str]) -> Result<(), HostError> {
        if pools.is_empty() {
            return Err(error("cannot sync 'backup': pool is read-only"));
        }
        let known = self.pools();
        if let Some(unknown) = pools.iter().find(|pool| !known.iter().any(|known| known == *pool)) {
            return Err(error(format!("cannot open '{unknown}': no such pool")));
        }
        self.burn("zpool sync")
    }

    pub(super) fn is_mountpoint(&self, path: &str) -> bool {
        let mut all = self.machine.datasets.keys();
        all.any(|name| self.is_mounted(name) && self.property(name, "mountpoint").0 == path)
    }

    /// A file system goes together with those that have their place from it, unless somebody is in one.
    fn may_unmount(&self, dataset: &str) -> Result<(), HostError> {
        let path = self.property(dataset, "mountpoint").0;
        if !self.machine.datasets.contains_key(dataset) || !self.is_mounted(dataset) {
            return Ok(());
        }
        let goes_along = |other: &String| {
            let own = |name: &str| self.machine.datasets[name].contains_key("mountpoint");
            let above =
                other.match_indices('/').map(|(end, _)| &other[..end]).skip_while(|of| *of != dataset);
            other.starts_with(&format!("{dataset}/")) && !own(other) && !above.skip(1).any(own)
        };
        let stays = |other: &&String| {
            let at = self.property(other, "mountpoint").0;
            at.starts_with(&format!("{path}/")) && self.is_mounted(other) && !goes_along(other)
        };
        let held = self.held.iter().any(|(at, _)| is_within(at, &path));
        if held || self.machine.datasets.keys().any(|other| stays(&other)) {
            return Err(refused(255, format!("cannot unmount '{path}': pool or dataset is busy")));
        }
        Ok(())
    }

    /// Files on it are out of sight, and the directory stays.
    fn unmount(&mut self, dataset: &str) {
        let below = self.property(dataset, "mountpoint").0 + "/";
        let on_it = |path: &String| path.starts_with(&below);
        let files = self.machine.files.iter().filter(|(path, _)| on_it(path));
        let files: Files = files.map(|(path, entry)| (path.clone(), entry.clone())).collect();
        self.machine.files.retain(|path, _| !on_it(path));
        self.machine.unmounted.insert(dataset.to_owned(), files);
    }

    /// The value of a property and where it comes from; what nobody set is inherited or default.
    pub(super) fn property(&self, dataset: &str, name: &str) -> (String, String) {
        if name == "mounted" {
            let mounted = self.machine.datasets.contains_key(dataset) && self.is_mounted(dataset);
            return (if mounted { "yes" } else { "no" }.to_owned(), "-".to_owned());
        }
        let inherits = !LIMITS.contains(&name) && !["canmount", "keylocation"].contains(&name);
        let mut at = dataset;
        loop {
            if let Some(value) = self.machine.datasets.get(at).and_then(|own| own.get(name)) {
                let source = match name {
                    "encryption" | "keyformat" | "keystatus" => "-".to_owned(),
                    _ if at == dataset => "local".to_owned(),
                    _ => format!("inherited from {at}"),
                };
                // Each below its parent.
                let value = match &dataset[at.len()..] {
                    below if name == "mountpoint" && value.starts_with('/') && !below.is_empty() => {
                        value.trim_end_matches('/').to_owned() + below
                    }
                    _ => value.clone(),
                };
                return (value, source);
            }
            // What `zfs receive` has brought is beneath what is set, as in ZFS itself.
            let received =
                self.machine.datasets.get(at).and_then(|own| own.get(&format!("{name}{RECEIVED}")));
            if let Some(value) = received.filter(|_| at == dataset) {
                return (value.clone(), "received".to_owned());
            }
            match at.rsplit_once('/') {
                Some((parent, _)) if inherits => at = parent,
                _ => break,
            }
        }
        if name == "keystatus" {
            let is_off = self.property(dataset, "encryption").0 == "off";
            return (if is_off { "-" } else { "available" }.to_owned(), "-".to_owned());
        }
        let default = match name {
            "recordsize" => "131072",
            "atime" | "canmount" | "exec" | "setuid" | "devices" => "on",
            "compression" => "lz4",
            "xattr" => self.xattr_names()[0],
            "acltype" => "off",
            "dnodesize" => "legacy",
            "encryption" => "off",
            "keyformat" | "keylocation" => "none",
            _ => "0",
        };
        (default.to_owned(), "default".to_owned())
    }

    /// Names of the two ways to store extended attributes, each as it is printed: that of `on`, then the other.
    fn xattr_names(&self) -> [&'static str; 2] {
        match self.zfs_version() {
            "2.1.11" => ["on", "sa"],
            "2.3.2" => ["on", "dir"],
            _ => ["sa", "dir"],
        }
    }

    /// A value as `zfs get -p` prints it: numbers in full, and of several names the first in ZFS's table.
    fn printed(&self, name: &str, value: &str) -> String {
        let (on, other) = self.xattr_names().into();
        let is_old = self.zfs_version() == "2.1.11";
        let first = match (name, value) {
            ("xattr", "on") => on,
            ("xattr", "sa") => {
                if is_old {
                    other
                } else {
                    on
                }
            }
            ("xattr", "dir") => {
                if is_old {
                    on
                } else {
                    other
                }
            }
            ("acltype", "posixacl") => "posix",
            ("acltype", "noacl") => "off",
            ("compression", "gzip-6") => "gzip",
            ("compression", "zstd-fast-1") => "zstd-fast",
            (_, "none") if SIZES.contains(&name) => "0",
            _ => value,
        };
        let digits = first.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match first[digits.len()..].to_ascii_lowercase().as_str() {
            "k" => 10,
            "m" => 20,
            "g" => 30,
            _ => 0,
        };
        match digits.parse::<u64>() {
            Ok(number) if SIZES.contains(&name) => (number << shift).to_string(),
            _ => first.to_owned(),
        }
    }
}

/// How the name of a property ends whose value was received.
const RECEIVED: &str = "$recvd";

impl super::Machine {
    /// The property has the value that `zfs receive` has brought.
    pub(crate) fn receive(&mut self, dataset: &str, property: &str, value: &str) {
        let own = self.datasets.get_mut(dataset).expect("it is there");
        own.remove(property);
        own.insert(format!("{property}{RECEIVED}"), value.to_owned());
    }
}

/// What no dataset takes over from its parent: `zfs inherit` refuses them.
const LIMITS: [&str; 6] =
    ["quota", "refquota", "reservation", "refreservation", "filesystem_limit", "snapshot_limit"];

/// What is never changed.
const FIXED: [&str; 2] = ["encryption=", "keyformat="];

/// Numbers of bytes; `none` of them is 0.
const SIZES: [&str; 6] =
    ["recordsize", "special_small_blocks", "quota", "refquota", "reservation", "refreservation"];
