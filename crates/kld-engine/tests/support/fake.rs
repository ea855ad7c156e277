//! A machine in memory: files, datasets, packages and units, with tools that keep state as the real ones do.
//!
//! `fuel` is how many changes it still takes before it dies; `refuse` is the number of the change that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard};

use kld_engine::{CONFIRM_TIMER, Entry, Host, HostError, Node};
use kld_host::{Cmd, ExecError, Output};

type Files = BTreeMap<String, Entry>;

/// What a package of the archive brings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deb {
    pub(crate) files: Vec<(&'static str, &'static str)>,
    pub(crate) units: Vec<&'static str>,
    pub(crate) depends: Vec<&'static str>,
}

/// All that there is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Machine {
    pub(crate) files: Files,
    /// Properties of their own, by dataset.
    pub(crate) datasets: BTreeMap<String, BTreeMap<String, String>>,
    /// Datasets that are not mounted though they could be, and the files on them.
    pub(crate) unmounted: BTreeMap<String, Files>,
    pub(crate) active: BTreeSet<String>,
}

#[derive(Default)]
struct State {
    machine: Machine,
    archive: BTreeMap<String, Deb>,
    /// Files of the root dataset at a moment.
    snapshots: BTreeMap<String, Machine>,
    archives: BTreeMap<String, Vec<(String, Option<Entry>)>>,
    fuel: Option<usize>,
    refuse: Option<usize>,
    /// `/` is no dataset.
    foreign_root: bool,
    /// Bytes that are left on `/`; none is plenty.
    room: Option<u64>,
    changes: usize,
    log: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Fake(Mutex<State>);

const ROOT: &str = "rpool/ROOT/debian";
/// Names of installed packages.
const STATUS: &str = "/var/lib/dpkg/status";
/// A file for each unit that is switched on or masked, in place of its links.
const UNITS: &str = "/etc/systemd/fake-state";

/// Where files of units are.
const UNIT_FILES: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];

fn error(reason: impl Into<String>) -> HostError {
    refused(1, reason)
}

/// A tool that ends with this status.
fn refused(code: i32, reason: impl Into<String>) -> HostError {
    let status = ExitStatus::from_raw(code << 8);
    ExecError::Failed { command: "a fake tool".to_owned(), status, stderr: reason.into() }.into()
}

fn absent(dataset: &str) -> HostError {
    error(format!("cannot open '{dataset}': dataset does not exist"))
}

fn dead(path: &str) -> HostError {
    HostError::File {
        action: "go on with",
        path: path.into(),
        source: io::Error::other("the machine is dead"),
    }
}

fn file(text: &str) -> Entry {
    Entry { node: Node::File(text.as_bytes().to_vec()), mode: 0o644, uid: 0, gid: 0 }
}

fn directory() -> Entry {
    Entry { node: Node::Directory, mode: 0o755, uid: 0, gid: 0 }
}

impl Fake {
    /// Debian with a pool and an archive.
    pub(crate) fn new(archive: BTreeMap<String, Deb>) -> Self {
        let fake = Self::default();
        {
            let mut state = fake.state();
            state.archive = archive;
            for (path, text) in [
                ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
                ("/etc/group", "root:x:0:\nsudo:x:27:\n"),
                ("/etc/shadow", "root:*:1::::::\n"),
                ("/etc/gshadow", "root:*::\n"),
            ] {
                state.put(path, file(text));
            }
            let own = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
            };
            state.machine.datasets.insert("rpool".to_owned(), own(&[("mountpoint", "none")]));
            state
                .machine
                .datasets
                .insert(ROOT.to_owned(), own(&[("mountpoint", "/"), ("canmount", "noauto")]));
        }
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    /// All that there is but kldload's memory.
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = self.state().machine.clone();
        machine.files.retain(|path, _| !path.starts_with("/var/lib/kldload"));
        machine
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Machine)) {
        change(&mut self.state().machine);
    }

    /// How many changes were made so far.
    pub(crate) fn changes(&self) -> usize {
        self.state().changes
    }

    /// Dies after this many further changes; `None`: never, and comes back when dead.
    pub(crate) fn fuel(&self, fuel: Option<usize>) {
        self.state().fuel = fuel;
    }

    /// Refuses the change of this number from now, from 0.
    pub(crate) fn refuse(&self, number: Option<usize>) {
        let mut state = self.state();
        state.refuse = number.map(|number| state.changes + number);
    }

    /// Puts `/` on another file system than ZFS.
    pub(crate) fn foreign_root(&self) {
        self.state().foreign_root = true;
    }

    /// Bytes left on `/`.
    pub(crate) fn room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    pub(crate) fn snapshots(&self) -> Vec<String> {
        self.state().snapshots.keys().cloned().collect()
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

impl State {
    /// Counts a change; fails when the machine is dead, or when this one is refused. `/run` is forgotten with the machine.
    fn burn(&mut self, what: &str) -> Result<(), HostError> {
        if what.starts_with("/run/") && self.fuel != Some(0) {
            return Ok(());
        }
        if let Some(fuel) = &mut self.fuel {
            if *fuel == 0 {
                return Err(dead(what));
            }
            *fuel -= 1;
        }
        self.changes += 1;
        if self.refuse == Some(self.changes - 1) {
            self.refuse = None;
            return Err(refused(2, format!("no space left on device: {what}")));
        }
        Ok(())
    }

    fn put(&mut self, path: &str, entry: Entry) {
        for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
            self.machine.files.entry(path[..end].to_owned()).or_insert_with(directory);
        }
        self.machine.files.insert(path.to_owned(), entry);
    }

    fn is_empty(&self, path: &str) -> bool {
        !self.machine.files.keys().any(|of| of.starts_with(&format!("{path}/")))
    }

    fn text(&self, path: &str) -> String {
        match self.machine.files.get(path) {
            Some(Entry { node: Node::File(bytes), .. }) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    fn append_line(&mut self, path: &str, line: &str) {
        let text = self.text(path) + line + "\n";
        let entry = Entry { node: Node::File(text.into_bytes()), ..self.machine.files[path].clone() };
        self.machine.files.insert(path.to_owned(), entry);
    }

    fn run(&mut self, program: &str, args: &[&str]) -> Result<String, HostError> {
        match program {
            "zfs" => self.zfs(args),
            "zpool" => self.burn("zpool sync").map(|()| String::new()),
            "findmnt" if self.foreign_root => Ok("/dev/vda2 ext4\n".to_owned()),
            "findmnt" => Ok(format!("{ROOT} zfs\n")),
            "dpkg" => Ok(String::new()),
            "dpkg-query" => {
                Ok(self.text(STATUS).lines().map(|name| format!("installed\t{name}\n")).collect())
            }
            "apt-get" => self.apt(args),
            "apt-cache" => Ok(args[2..].iter().fold(String::new(), |text, name| {
                text + &format!("Package: {name}\nInstalled-Size: 100\nSize: 25000\n\n")
            })),
            "df" => Ok(format!("     Avail\n{}\n", self.room.unwrap_or(8 << 30))),
            "systemd-analyze" => self.exposure(args[args.len() - 1]),
            "systemctl" => self.systemctl(args),
            "groupadd" => {
                self.burn("groupadd")?;
                let name = args[args.len() - 1];
                if !self.text("/etc/group").lines().any(|line| line.starts_with(&format!("{name}:"))) {
                    let gid = after(args, "--gid");
                    self.append_line("/etc/group", &format!("{name}:x:{gid}:"));
                }
                Ok(String::new())
            }
            "useradd" => {
                if self.account(args[args.len() - 1]).is_some() {
                    return Err(refused(
                        9,
                        format!("useradd: user '{}' already exists", args[args.len() - 1]),
                    ));
                }
                self.burn("useradd")?;
                let (uid, gid, name) = (after(args, "--uid"), after(args, "--gid"), args[args.len() - 1]);
                let (home, shell) = (after(args, "--home-dir"), after(args, "--shell"));
                self.append_line("/etc/passwd", &format!("{name}:x:{uid}:{gid}::{home}:{shell}"));
                self.burn("useradd")?;
                self.append_line("/etc/shadow", &format!("{name}:!:1::::::"));
                self.join(name, args);
                Ok(String::new())
            }
            "usermod" => {
                let name = args[args.len() - 1];
                if self.account(name).is_none() {
                    return Err(refused(6, format!("usermod: user '{name}' does not exist")));
                }
                self.burn("usermod")?;
                let lines: Vec<String> = self
                    .text("/etc/passwd")
                    .lines()
                    .map(|line| {
                        let mut fields: Vec<&str> = line.split(':').collect();
                        if fields[0] == name {
                            (fields[5], fields[6]) = (after(args, "--home"), after(args, "--shell"));
                        }
                        fields.join(":") + "\n"
                    })
                    .collect();
                let entry = Entry { node: Node::File(lines.concat().into_bytes()), ..file("") };
                self.machine.files.insert("/etc/passwd".to_owned(), entry);
                self.join(name, args);
                Ok(String::new())
            }
            "systemd-run" => {
                self.burn("systemd-run")?;
                self.machine.active.insert(CONFIRM_TIMER.to_owned());
                Ok(String::new())
            }
            "tar" => self.tar(args),
            _ => Err(error(format!("`{program}` is not installed"))),
        }
    }

    /// The line of an account.
    fn account(&self, name: &str) -> Option<String> {
        let text = self.text("/etc/passwd");
        text.lines().find(|line| line.split(':').next() == Some(name)).map(str::to_owned)
    }

    fn join(&mut self, name: &str, args: &[&str]) {
        let groups: Vec<&str> = after(args, "--groups").split(',').collect();
        let text: String = self
            .text("/etc/group")
            .lines()
            .map(|line| match line.split(':').next() {
                Some(group)
                    if groups.contains(&group) && !line.rsplit([':', ',']).any(|member| member == name) =>
                {
                    let comma = if line.ends_with(':') { "" } else { "," };
                    format!("{line}{comma}{name}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        self.machine.files.insert("/etc/group".to_owned(), file(&text));
    }

    fn zfs(&mut self, args: &[&str]) -> Result<String, HostError> {
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
                for pair in &args[1..args.len() - 1] {
                    let (name, value) = pair.split_once('=').ok_or_else(|| error("bad property"))?;
                    let own = self.machine.datasets.get_mut(&last).ok_or_else(|| absent(&last))?;
                    let none = value == "none" && LIMITS.contains(&name);
                    own.insert(name.to_owned(), exact(name, if none { "0" } else { value }));
                    if (name, value) == ("canmount", "off") && self.is_mounted(&last) {
                        self.unmount(&last);
                    }
                }
                Ok(String::new())
            }
            "inherit" if LIMITS.contains(&args[1]) || args[1] == "canmount" => {
                Err(error(format!("'{}' property cannot be inherited", args[1])))
            }
            "inherit" => {
                self.burn(&args.join(" "))?;
                self.machine.datasets.get_mut(&last).ok_or_else(|| absent(&last))?.remove(args[1]);
                Ok(String::new())
            }
            "create" => {
                self.burn(&args.join(" "))?;
                let mut own = BTreeMap::new();
                for pair in args[1..args.len() - 1].iter().filter(|word| **word != "-o") {
                    let (name, value) = pair.split_once('=').ok_or_else(|| error("bad property"))?;
                    own.insert(name.to_owned(), exact(name, value));
                }
                let parent = last.rsplit_once('/').map_or("", |(parent, _)| parent);
                if self.machine.datasets.contains_key(&last) {
                    return Err(error(format!("cannot create '{last}': dataset already exists")));
                }
                if !self.machine.datasets.contains_key(parent) {
                    return Err(error(format!("cannot create '{last}': parent does not exist")));
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
                }
                Ok(String::new())
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
                self.machine.datasets.remove(&last).map(|_| String::new()).ok_or_else(|| absent(&last))
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
            "mount" => {
                self.burn(&args.join(" "))?;
                let files = self.machine.unmounted.remove(&last).unwrap_or_default();
                self.put(&self.property(&last, "mountpoint").0, directory());
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
                    if let Some(files) = self.machine.unmounted.remove(&name) {
                        self.machine.unmounted.insert(renamed(&name), files);
                    }
                    let snapshots = std::mem::take(&mut self.snapshots);
                    let own = format!("{name}@");
                    let rename = |of: String| if of.starts_with(&own) { renamed(&of) } else { of };
                    self.snapshots =
                        snapshots.into_iter().map(|(of, machine)| (rename(of), machine)).collect();
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

    fn has_snapshots(&self, dataset: &str) -> bool {
        self.snapshots.keys().any(|name| name.starts_with(&format!("{dataset}@")))
    }

    fn is_mounted(&self, dataset: &str) -> bool {
        let may =
            self.property(dataset, "canmount").0 != "off" && !self.machine.unmounted.contains_key(dataset);
        may && self.property(dataset, "mountpoint").0.starts_with('/')
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
    fn property(&self, dataset: &str, name: &str) -> (String, String) {
        if name == "mounted" {
            let mounted = self.machine.datasets.contains_key(dataset) && self.is_mounted(dataset);
            return (if mounted { "yes" } else { "no" }.to_owned(), "-".to_owned());
        }
        let inherits = !LIMITS.contains(&name) && name != "canmount";
        let mut at = dataset;
        loop {
            if let Some(value) = self.machine.datasets.get(at).and_then(|own| own.get(name)) {
                let source = if at == dataset { "local".to_owned() } else { format!("inherited from {at}") };
                // Each below its parent.
                let value = match &dataset[at.len()..] {
                    below if name == "mountpoint" && value.starts_with('/') && !below.is_empty() => {
                        value.trim_end_matches('/').to_owned() + below
                    }
                    _ => value.clone(),
                };
                return (value, source);
            }
            match at.rsplit_once('/') {
                Some((parent, _)) if inherits => at = parent,
                _ => break,
            }
        }
        let default = match name {
            "recordsize" => "131072",
            "atime" | "canmount" | "exec" | "setuid" | "devices" => "on",
            "compression" => "lz4",
            "acltype" | "xattr" | "dnodesize" => "posix",
            _ => "0",
        };
        (default.to_owned(), "default".to_owned())
    }

    fn apt(&mut self, args: &[&str]) -> Result<String, HostError> {
        if let Some(at) = args.iter().position(|word| *word == "purge") {
            return args[at + 1..].iter().try_for_each(|name| self.purge(name)).map(|()| String::new());
        }
        let names: Vec<&str> = args.iter().skip_while(|word| **word != "install").skip(1).copied().collect();
        let mut wanted: Vec<String> = Vec::new();
        let mut open: Vec<&str> = names.clone();
        let mut of = BTreeMap::new();
        while let Some(name) = open.pop() {
            let deb = self.archive.get(name).cloned();
            let deb = deb.ok_or_else(|| refused(100, format!("E: Unable to locate package {name}")))?;
            if !self.text(STATUS).lines().any(|of| of == name) && !wanted.iter().any(|of| of == name) {
                open.extend(deb.depends.clone());
                wanted.push(name.to_owned());
                of.insert(name.to_owned(), deb);
            }
        }
        if args.contains(&"-s") {
            return Ok(wanted.iter().map(|name| format!("Inst {name} (1.0)\n")).collect());
        }
        if self.text("/usr/sbin/policy-rc.d").is_empty() {
            return Err(error("services would start without their configuration"));
        }
        for name in wanted {
            for (path, text) in &of[&name].files {
                self.burn(path)?;
                if !self.machine.files.contains_key(*path) {
                    self.put(path, file(text));
                }
            }
            self.burn("dpkg status")?;
            for unit in &of[&name].units {
                self.put(&format!("/usr/lib/systemd/system/{unit}"), file("[Install]\n"));
                self.put(&format!("{UNITS}/{unit}"), file("enabled"));
            }
            let status = self.text(STATUS) + &name + "\n";
            self.put(STATUS, file(&status));
        }
        Ok(String::new())
    }

    fn purge(&mut self, name: &str) -> Result<(), HostError> {
        self.burn("dpkg status")?;
        let deb = self.archive[name].clone();
        for path in deb
            .files
            .iter()
            .map(|(path, _)| (*path).to_owned())
            .chain(deb.units.iter().map(|unit| format!("{UNITS}/{unit}")))
        {
            self.machine.files.remove(&path);
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            if self.is_empty(above) {
                self.machine.files.remove(above);
            }
        }
        let status: String =
            self.text(STATUS).lines().filter(|line| *line != name).map(|line| format!("{line}\n")).collect();
        self.put(STATUS, file(&status));
        Ok(())
    }

    fn systemctl(&mut self, args: &[&str]) -> Result<String, HostError> {
        let args = if args[0] == "--no-block" { &args[1..] } else { args };
        let units: Vec<&str> = args[1..].iter().filter(|word| !word.starts_with('-')).copied().collect();
        if args[0] == "show" {
            let asked: Vec<&str> = after(args, "--property").split(',').collect();
            let units = &args[4..];
            let block = |unit: &&str| {
                let state = self.unit_state(unit);
                let load = match state.as_str() {
                    "masked" => "masked",
                    _ if self.is_there(unit) => "loaded",
                    _ => "not-found",
                };
                let active = if self.machine.active.contains(*unit) { "active" } else { "inactive" };
                let all =
                    [("Id", *unit), ("LoadState", load), ("ActiveState", active), ("UnitFileState", &state)];
                let shown = all.iter().filter(|(name, _)| asked.contains(name));
                shown.map(|(name, value)| format!("{name}={value}\n")).collect::<String>()
            };
            return Ok(units.iter().map(block).collect::<Vec<_>>().join("\n"));
        }
        self.burn(&format!("systemctl {}", args.join(" ")))?;
        for unit in units {
            let there = self.is_there(unit);
            match args[0] {
                "restart" | "try-reload-or-restart" if !there => {
                    return Err(refused(5, format!("Unit {unit} not found.")));
                }
                "stop" if !there && !self.machine.active.contains(unit) => {
                    return Err(refused(5, format!("Unit {unit} not loaded.")));
                }
                // What has links is switched off though its file is gone.
                "enable" | "disable" if !there && (args[0] == "enable" || !self.has_links(unit)) => {
                    return Err(error(format!("Unit {unit} does not exist")));
                }
                "enable" | "disable" if self.unit_state(unit) == "static" => {}
                "enable" => self.put(&format!("{UNITS}/{unit}"), file("enabled")),
                "mask" => self.put(&format!("{UNITS}/{unit}"), file("masked")),
                "disable" | "unmask" => drop(self.machine.files.remove(&format!("{UNITS}/{unit}"))),
                "restart" => drop(self.machine.active.insert(unit.to_owned())),
                "stop" => drop(self.machine.active.remove(unit)),
                _ => {}
            }
        }
        Ok(String::new())
    }

    /// The fewer lines of a sandbox a unit's files have, the more exposed it is; the files of a directory in memory win.
    fn exposure(&self, unit: &str) -> Result<String, HostError> {
        const HARDENING: [&str; 6] = ["Protect", "Private", "Restrict", "NoNew", "System", "Capability"];
        let files = |dir: &str| -> Vec<String> {
            let paths = self.machine.files.keys().filter(|path| path.starts_with(&format!("{dir}{unit}")));
            paths.map(|path| self.text(path)).collect()
        };
        let mut dirs = self.machine.files.keys().filter_map(|path| path.strip_suffix(unit));
        let scratch = dirs.rfind(|dir| dir.starts_with("/run/kldload-plan-"));
        let mut texts = scratch.map_or_else(Vec::new, files);
        if texts.is_empty() {
            texts = files("/etc/systemd/system/");
        }
        if texts.is_empty() {
            return Err(error(format!("Failed to load unit file {unit}: No such file or directory")));
        }
        let lines = texts.iter().flat_map(|text| text.lines());
        let counts =
            |line: &&str| HARDENING.iter().any(|word| line.starts_with(word)) && !line.ends_with("=no");
        let hardened = lines.filter(counts).count();
        let tenths = 96_usize.saturating_sub(3 * hardened);
        Ok(format!("→ Overall exposure level for {unit}: {}.{} OK", tenths / 10, tenths % 10))
    }

    /// `UnitFileState`.
    fn unit_state(&self, unit: &str) -> String {
        let state = self.text(&format!("{UNITS}/{unit}"));
        let installs = |dir: &str| self.text(&format!("{dir}/{unit}")).contains("[Install]");
        match state.as_str() {
            "masked" => state,
            _ if !self.is_there(unit) => String::new(),
            "" if UNIT_FILES.into_iter().any(installs) => "disabled".to_owned(),
            "" => "static".to_owned(),
            _ => state,
        }
    }

    fn has_links(&self, unit: &str) -> bool {
        self.machine.files.contains_key(&format!("{UNITS}/{unit}"))
    }

    fn is_there(&self, unit: &str) -> bool {
        let template = unit
            .split_once('@')
            .and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
        let has = |dir: &str, name: &str| self.machine.files.contains_key(&format!("{dir}/{name}"));
        let named = |name: &str| UNIT_FILES.iter().any(|dir| has(dir, name));
        named(unit) || template.is_some_and(|template| named(&template))
    }

    /// `tar -cf ARCHIVE -C /.zfs/snapshot/NAME -T LIST`, `tar -xpf ARCHIVE -C /`.
    fn tar(&mut self, args: &[&str]) -> Result<String, HostError> {
        if args.contains(&"-cf") {
            let name = after(args, "-C").trim_start_matches("/.zfs/snapshot/");
            let list = self.text(after(args, "-T"));
            let from = &self.snapshots[&format!("{ROOT}@{name}")].files;
            let entries = list.split('\0').filter(|path| !path.is_empty()).map(|path| {
                let path = format!("/{path}");
                let entry = from.get(&path).cloned();
                (path, entry)
            });
            let entries = entries.collect();
            self.archives.insert(after(args, "-cf").to_owned(), entries);
        } else {
            let entries = self.archives.get(after(args, "-xpf")).cloned().unwrap_or_default();
            for (path, entry) in entries {
                self.burn(&path)?;
                self.machine.files.insert(path, entry.expect("it was in the snapshot"));
            }
        }
        Ok(String::new())
    }
}

fn after<'a>(args: &[&'a str], word: &str) -> &'a str {
    args.iter().position(|of| *of == word).and_then(|at| args.get(at + 1)).copied().unwrap_or_default()
}

/// What no dataset takes over from its parent: `zfs inherit` refuses them.
const LIMITS: [&str; 6] =
    ["quota", "refquota", "reservation", "refreservation", "filesystem_limit", "snapshot_limit"];

/// Numbers as `zfs get -p` prints them.
fn exact(name: &str, value: &str) -> String {
    let sizes = ["recordsize", "quota", "refquota", "reservation", "refreservation"];
    let (digits, shift) = match value.to_ascii_lowercase() {
        v if v.ends_with('k') => (v[..v.len() - 1].to_owned(), 10),
        v if v.ends_with('m') => (v[..v.len() - 1].to_owned(), 20),
        v if v.ends_with('g') => (v[..v.len() - 1].to_owned(), 30),
        v => (v, 0),
    };
    match digits.parse::<u64>() {
        Ok(number) if sizes.contains(&name) => (number << shift).to_string(),
        _ => value.to_owned(),
    }
}

impl Host for Fake {
    fn entry(&self, path: &str) -> Result<Option<Entry>, HostError> {
        Ok(self.state().machine.files.get(path).cloned())
    }

    fn list(&self, path: &str) -> Result<Vec<String>, HostError> {
        let state = self.state();
        let below = format!("{path}/");
        let names = state.machine.files.keys().filter_map(|of| of.strip_prefix(&below));
        let mut names: Vec<String> =
            names.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    fn put(&self, path: &str, entry: &Entry) -> Result<(), HostError> {
        let mut state = self.state();
        state.burn(path)?;
        state.put(path, entry.clone());
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), HostError> {
        let mut state = self.state();
        let is_directory = state.machine.files.get(path).is_some_and(|entry| entry.node == Node::Directory);
        if is_directory && !state.is_empty(path) {
            let source = io::ErrorKind::DirectoryNotEmpty.into();
            return Err(HostError::File { action: "remove", path: path.into(), source });
        }
        state.burn(path)?;
        state.machine.files.remove(path);
        Ok(())
    }

    fn append(&self, path: &str, bytes: &[u8]) -> Result<(), HostError> {
        let mut state = self.state();
        let is_last = state.fuel == Some(0);
        let burnt = state.burn(path);
        // The power fails in the middle of a line.
        let bytes = if is_last { &bytes[..bytes.len() / 2] } else { bytes };
        if burnt.is_ok() || is_last {
            let mut text = state.text(path).into_bytes();
            text.extend(bytes);
            state.put(path, Entry { node: Node::File(text), mode: 0o600, uid: 0, gid: 0 });
        }
        burnt
    }

    fn run(&self, command: &Cmd) -> Result<Output, HostError> {
        let program = command.program().to_string_lossy().into_owned();
        let args: Vec<String> = command.argv().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut state = self.state();
        if state.fuel == Some(0) {
            return Err(dead(&program));
        }
        // execve(2): a zero and a pointer for each word, and 2 MiB for all.
        if args.iter().map(|word| word.len() + 9).sum::<usize>() > 2 << 20 {
            let source = io::ErrorKind::ArgumentListTooLong.into();
            return Err(ExecError::Start { command: program, source }.into());
        }
        state.log.push(command.to_string());
        let said = state.run(&program, &args);
        match said {
            Ok(text) => Ok(Output { code: 0, stdout: text.into_bytes(), stderr: String::new() }),
            Err(HostError::Exec(ExecError::Failed { status, stderr, .. }))
                if status.code().is_some_and(|code| command.accepts(code)) =>
            {
                Ok(Output { code: status.code().unwrap_or_default(), stdout: Vec::new(), stderr })
            }
            Err(error) => Err(error),
        }
    }

    fn now(&self) -> u64 {
        1_800_000_000
    }
}
