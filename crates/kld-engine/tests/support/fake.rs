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
    changes: usize,
    log: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Fake(Mutex<State>);

const ROOT: &str = "rpool/ROOT/debian";
/// Names of installed packages.
const STATUS: &str = "/var/lib/dpkg/status";
/// A file for each unit that packages have brought, and what `systemctl is-enabled` says of it.
const UNITS: &str = "/etc/systemd/fake-state";

fn error(reason: impl Into<String>) -> HostError {
    ExecError::Failed {
        command: "a fake tool".to_owned(),
        status: ExitStatus::from_raw(0x100),
        stderr: reason.into(),
    }
    .into()
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

    pub(crate) fn snapshots(&self) -> Vec<String> {
        self.state().snapshots.keys().cloned().collect()
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

impl State {
    /// Counts a change; fails when the machine is dead, or when this one is refused.
    fn burn(&mut self, what: &str) -> Result<(), HostError> {
        if let Some(fuel) = &mut self.fuel {
            if *fuel == 0 {
                return Err(dead(what));
            }
            *fuel -= 1;
        }
        self.changes += 1;
        if self.refuse == Some(self.changes - 1) {
            self.refuse = None;
            return Err(error(format!("no space left on device: {what}")));
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
            "findmnt" => Ok(format!("{ROOT} zfs\n")),
            "dpkg-query" => {
                Ok(self.text(STATUS).lines().map(|name| format!("installed\t{name}\n")).collect())
            }
            "apt-get" => self.apt(args),
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
                self.burn("usermod")?;
                let name = args[args.len() - 1];
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

    fn join(&mut self, name: &str, args: &[&str]) {
        let groups: Vec<&str> = after(args, "--groups").split(',').collect();
        let text: String = self
            .text("/etc/group")
            .lines()
            .map(|line| match line.split(':').next() {
                Some(group) if groups.contains(&group) => {
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
                    return Err(error(format!("cannot open '{last}': dataset does not exist")));
                }
                let of = |dataset: &String| {
                    *dataset == last || (recursive && dataset.starts_with(&format!("{last}/")))
                };
                let datasets: Vec<String> = self.machine.datasets.keys().filter(|d| of(d)).cloned().collect();
                let line = |dataset: &String, name: &str| {
                    let (value, source) = self.property(dataset, name);
                    format!("{dataset}\t{name}\t{value}\t{source}\n")
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
            "list" => {
                let found = if args.contains(&"snapshot") {
                    self.snapshots.contains_key(&last)
                } else {
                    self.machine.datasets.contains_key(&last)
                };
                if found { Ok(last) } else { Err(error("does not exist")) }
            }
            "set" => {
                self.burn(&args.join(" "))?;
                for pair in &args[1..args.len() - 1] {
                    let (name, value) = pair.split_once('=').ok_or_else(|| error("bad property"))?;
                    let own = self.machine.datasets.get_mut(&last).ok_or_else(|| error("does not exist"))?;
                    own.insert(name.to_owned(), exact(name, value));
                }
                Ok(String::new())
            }
            "inherit" => {
                self.burn(&args.join(" "))?;
                self.machine.datasets.get_mut(&last).ok_or_else(|| error("does not exist"))?.remove(args[1]);
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
                if !self.machine.datasets.contains_key(parent) || self.machine.datasets.contains_key(&last) {
                    return Err(error(format!("cannot create '{last}'")));
                }
                if let Some(path) = own.get("mountpoint").filter(|path| path.starts_with('/')).cloned()
                    && !self.machine.files.contains_key(&path)
                {
                    self.put(&path, directory());
                }
                self.machine.datasets.insert(last, own);
                Ok(String::new())
            }
            "snapshot" => {
                self.burn(&args.join(" "))?;
                for name in &args[1..] {
                    let mut machine = self.machine.clone();
                    // A dataset of its own.
                    machine.files.retain(|path, _| !path.starts_with("/var/lib/kldload/"));
                    if self.snapshots.insert((*name).to_owned(), machine).is_some() {
                        return Err(error(format!("`{name}` exists")));
                    }
                }
                Ok(String::new())
            }
            "destroy" if last.ends_with("@%") => {
                self.burn(&args.join(" "))?;
                self.snapshots.retain(|name, _| !name.starts_with(last.trim_end_matches('%')));
                Ok(String::new())
            }
            "destroy" if last.contains('@') => {
                self.burn(&args.join(" "))?;
                self.snapshots.remove(&last).map(|_| String::new()).ok_or_else(|| error("does not exist"))
            }
            "destroy" => {
                self.burn(&args.join(" "))?;
                let own = self.machine.datasets.remove(&last).ok_or_else(|| error("does not exist"))?;
                if let Some(path) = own.get("mountpoint").filter(|path| self.is_empty(path)) {
                    // Unmounting removes the directory that mounting made, and those above it stay.
                    self.machine.files.remove(path);
                }
                Ok(String::new())
            }
            "unmount" => self.burn(&args.join(" ")).map(|()| String::new()),
            "rename" => {
                self.burn(&args.join(" "))?;
                let own = self.machine.datasets.remove(args[1]).ok_or_else(|| error("does not exist"))?;
                self.machine.datasets.insert(last, own);
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

    /// The value of a property and where it comes from; what nobody set is inherited or default.
    fn property(&self, dataset: &str, name: &str) -> (String, String) {
        let inherits =
            !matches!(name, "quota" | "refquota" | "reservation" | "refreservation" | "canmount" | "mounted");
        let mut at = dataset;
        loop {
            if let Some(value) = self.machine.datasets.get(at).and_then(|own| own.get(name)) {
                let source = if at == dataset { "local".to_owned() } else { format!("inherited from {at}") };
                return (value.clone(), source);
            }
            match at.rsplit_once('/') {
                Some((parent, _)) if inherits => at = parent,
                _ => break,
            }
        }
        let default = match name {
            "recordsize" => "131072",
            "atime" | "canmount" | "exec" | "setuid" | "devices" => "on",
            "mounted" => "yes",
            "compression" => "lz4",
            "acltype" | "xattr" | "dnodesize" => "posix",
            _ => "0",
        };
        (default.to_owned(), "default".to_owned())
    }

    fn apt(&mut self, args: &[&str]) -> Result<String, HostError> {
        let names: Vec<&str> = args.iter().skip_while(|word| **word != "install").skip(1).copied().collect();
        let mut wanted: Vec<String> = Vec::new();
        let mut open: Vec<&str> = names.clone();
        let mut of = BTreeMap::new();
        while let Some(name) = open.pop() {
            let deb = self.archive.get(name).cloned();
            let deb = deb.ok_or_else(|| error(format!("E: Unable to locate package {name}")))?;
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
                self.put(&format!("{UNITS}/{unit}"), file("enabled"));
            }
            let status = self.text(STATUS) + &name + "\n";
            self.put(STATUS, file(&status));
        }
        Ok(String::new())
    }

    fn systemctl(&mut self, args: &[&str]) -> Result<String, HostError> {
        let args = if args[0] == "--no-block" { &args[1..] } else { args };
        let units: Vec<&str> = args[1..].iter().filter(|word| !word.starts_with('-')).copied().collect();
        if args[0] == "show" {
            let units = &args[4..];
            let block = |unit: &&str| {
                let there = self.is_there(unit);
                format!(
                    "Id={unit}\nLoadState={}\nActiveState={}\nUnitFileState={}\n",
                    if there { "loaded" } else { "not-found" },
                    if self.machine.active.contains(*unit) { "active" } else { "inactive" },
                    match self.text(&format!("{UNITS}/{unit}")).as_str() {
                        "" if there => "static",
                        state => state,
                    },
                )
            };
            return Ok(units.iter().map(block).collect::<Vec<_>>().join("\n"));
        }
        self.burn(&format!("systemctl {}", args.join(" ")))?;
        for unit in units {
            let there = self.is_there(unit);
            match args[0] {
                "enable" | "restart" if !there => return Err(error(format!("Unit {unit} not found."))),
                "enable" => self.put(&format!("{UNITS}/{unit}"), file("enabled")),
                "mask" => self.put(&format!("{UNITS}/{unit}"), file("masked")),
                "disable" | "unmask" if there => self.put(&format!("{UNITS}/{unit}"), file("disabled")),
                "restart" => drop(self.machine.active.insert(unit.to_owned())),
                "stop" => drop(self.machine.active.remove(unit)),
                _ => {}
            }
        }
        Ok(String::new())
    }

    fn is_there(&self, unit: &str) -> bool {
        let template = unit
            .split_once('@')
            .and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
        let files = ["/etc/systemd/system", "/usr/lib/systemd/system"];
        let named =
            |name: &str| files.iter().any(|dir| self.machine.files.contains_key(&format!("{dir}/{name}")));
        named(unit)
            || template.is_some_and(|template| named(&template))
            || self.machine.files.contains_key(&format!("{UNITS}/{unit}"))
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
        state.log.push(command.to_string());
        let said = state.run(&program, &args);
        // The one question whose answer may be no.
        let asks = program == "zfs" && args[0] == "list";
        match said {
            Ok(text) => Ok(Output { code: 0, stdout: text.into_bytes(), stderr: String::new() }),
            Err(_) if asks => Ok(Output { code: 1, stdout: Vec::new(), stderr: String::new() }),
            Err(error) => Err(error),
        }
    }

    fn now(&self) -> u64 {
        1_800_000_000
    }
}
