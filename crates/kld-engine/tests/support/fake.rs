//! A machine in memory: files, datasets, packages and units, with tools that keep state as the real ones do.
//!
//! `fuel` is how many changes it still takes before it dies; `refuse` is the number of the change that fails.

pub(crate) mod boot;
mod nft;
mod node;
pub(crate) mod packages;
mod podman;
mod units;
mod zfs;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard};

use kld_engine::{CONFIRM_TIMER, Entry, Host, HostError, Node, User};
use kld_host::mounts::is_within;
use kld_host::zpool::KSTAT;
use kld_host::{Cmd, ExecError, Output};

type Files = BTreeMap<String, Entry>;

/// What a package of the archive brings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deb {
    pub(crate) files: Vec<(&'static str, &'static str)>,
    pub(crate) units: Vec<&'static str>,
    pub(crate) depends: Vec<&'static str>,
    /// Other names that it has.
    pub(crate) provides: Vec<&'static str>,
    /// The newest first; none is `1.0`.
    pub(crate) versions: Vec<&'static str>,
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
    /// Images of containers, and which of them runs, by unit or whoever has started it.
    pub(crate) images: BTreeSet<String>,
    pub(crate) containers: BTreeMap<String, String>,
    /// The keys that datasets are encrypted with.
    pub(crate) keys: BTreeMap<String, String>,
    /// The text of the rules that the kernel has.
    pub(crate) rules: String,
}

#[derive(Default)]
struct State {
    machine: Machine,
    archive: BTreeMap<String, Deb>,
    /// Images that a registry has.
    registry: BTreeSet<String>,
    /// Files of the root dataset at a moment.
    snapshots: BTreeMap<String, Machine>,
    /// Snapshots that somebody holds.
    holds: BTreeSet<String>,
    archives: BTreeMap<String, Vec<(String, Option<Entry>)>>,
    fuel: Option<usize>,
    refuse: Option<usize>,
    /// What `/` is on, when it is not [`ROOT`], as `findmnt` says it.
    root: Option<&'static str>,
    /// Boot partitions and environments; `None` where nothing is known of a loader.
    boot: Option<boot::disks::Fake>,
    /// Bytes that are left on `/`; none is plenty.
    room: Option<u64>,
    /// Who keeps a directory busy.
    held: Vec<(String, User)>,
    /// A feature that the pool does not have.
    lacks: Option<&'static str>,
    /// The version of ZFS, when it is not that of Debian 13.
    zfs: Option<&'static str>,
    changes: usize,
    log: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Fake(Mutex<State>);

const ROOT: &str = "rpool/ROOT/debian";
/// Names and versions of installed packages.
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
            state.boot = Some(boot::disks::Fake::new());
            for (path, text) in [
                ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
                ("/etc/group", "root:x:0:\nsudo:x:27:\n"),
                ("/etc/shadow", "root:*:1::::::\n"),
                ("/etc/gshadow", "root:*::\n"),
                ("/usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\n"),
            ] {
                state.put(path, file(text));
            }
            let link = Node::Link("../usr/lib/os-release".to_owned());
            state.put("/etc/os-release", Entry { node: link, mode: 0o777, uid: 0, gid: 0 });
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

    /// All that there is but kldload's memory, sealed keys, which stay whatever happens, and what a RAM disk holds.
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = self.state().machine.clone();
        let out = ["/var/lib/kldload", kld_system::SEALED_KEYS, kld_system::KEYS_IN_MEMORY];
        machine.files.retain(|path, _| !out.iter().any(|out| path.starts_with(out)));
        machine
    }

    /// Whether every encrypted dataset would be there after a restart: what is sealed for it, in every place, is its key.
    pub(crate) fn keys_load(&self) -> bool {
        let state = self.state();
        state.machine.keys.iter().all(|(dataset, key)| {
            let path = dataset.trim_start_matches("rpool/");
            let name = path.split(".undone-").next().unwrap_or(path).replace('/', "@");
            let folders = ["/var/lib/kldload/keys", kld_system::SEALED_KEYS];
            folders.iter().all(|folder| state.text(&format!("{folder}/{name}.cred")) == *key)
        })
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Machine)) {
        change(&mut self.state().machine);
    }

    /// Has its archive changed by somebody.
    pub(crate) fn change_archive(&self, change: impl FnOnce(&mut BTreeMap<String, Deb>)) {
        change(&mut self.state().archive);
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

    /// Puts `/` on something else, or back: source and type.
    pub(crate) fn root(&self, root: Option<&'static str>) {
        self.state().root = root;
    }

    /// Bytes left on `/`.
    pub(crate) fn room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    /// Lets somebody use a directory, or nobody any.
    pub(crate) fn hold(&self, held: &[(&str, User)]) {
        self.state().held = held.iter().map(|(path, user)| ((*path).to_owned(), user.clone())).collect();
    }

    pub(crate) fn lacks(&self, feature: Option<&'static str>) {
        self.state().lacks = feature;
    }

    /// Another version of ZFS: 2.1.11, 2.3.2 or 2.4.4.
    pub(crate) fn zfs(&self, version: &'static str) {
        self.state().zfs = Some(version);
    }

    /// Lets a registry have an image.
    pub(crate) fn publish(&self, image: &str) {
        self.state().registry.insert(image.to_owned());
    }

    /// The text of a file, kldload's own too.
    pub(crate) fn text(&self, path: &str) -> String {
        self.state().text(path)
    }

    /// All files with their texts, kldload's own too.
    pub(crate) fn texts(&self) -> Vec<(String, String)> {
        let state = self.state();
        state.machine.files.keys().map(|path| (path.clone(), state.text(path))).collect()
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

    fn zfs_version(&self) -> &'static str {
        self.zfs.unwrap_or("2.3.2")
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

    fn run(&mut self, program: &str, args: &[&str], stdin: &str) -> Result<String, HostError> {
        match program {
            "zfs" => self.zfs(args),
            "podman" => self.podman(args),
            "nft" => Ok(nft::list(&self.machine.rules)),
            "zpool" if args[0] == "get" => Ok(args[4].split(',').fold(String::new(), |text, feature| {
                let is_missing = feature.strip_prefix("feature@") == self.lacks;
                text + &format!("{feature}\t{}\n", if is_missing { "disabled" } else { "enabled" })
            })),
            "zpool" => self.zpool_sync(&args[1..]).map(|()| String::new()),
            "findmnt" => Ok(self.root.map_or_else(|| format!("{ROOT} zfs\n"), |root| format!("{root}\n"))),
            "dpkg" | "networkctl" => Ok(String::new()),
            "dpkg-query" if args[0] == "-L" => self.files_of(&args[1..]),
            "dpkg-query" => {
                let line = |line: &str| {
                    let (name, version) = line.split_once(' ').unwrap_or((line, ""));
                    format!("installed\t{name}\t{version}\t{}\n", self.provided_by(name))
                };
                Ok(self.text(STATUS).lines().map(line).collect())
            }
            "apt-get" => self.apt(args),
            "apt-cache" => Ok(self.apt_show(&args[2..])),
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
                let gid = self.gid_of("useradd", after(args, "--gid"))?;
                self.groups_exist("useradd", args)?;
                self.burn("useradd")?;
                let (uid, name) = (after(args, "--uid"), args[args.len() - 1]);
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
                self.groups_exist("usermod", args)?;
                self.burn("usermod")?;
                if args[0] == "--password" {
                    self.set_password(name, args[1]);
                    return Ok(String::new());
                }
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
            "chpasswd" => {
                let line = stdin.strip_suffix('\n').filter(|line| !line.contains('\n'));
                let pair = line.and_then(|line| line.split_once(':')).filter(|_| args == ["--encrypted"]);
                let (name, hash) = pair.ok_or_else(|| error("chpasswd: line 1: missing new password"))?;
                if self.account(name).is_none() {
                    return Err(error(format!("chpasswd: line 1: user '{name}' does not exist")));
                }
                self.burn("chpasswd")?;
                self.set_password(name, hash);
                Ok(String::new())
            }
            "/usr/lib/systemd/systemd-sysctl" => {
                self.burn("systemd-sysctl")?;
                self.set_settings(stdin);
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

    /// The number of a group that is told by name or number.
    fn gid_of(&self, program: &str, group: &str) -> Result<String, HostError> {
        let text = self.text("/etc/group");
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = lines.find(|fields| fields[0] == group || fields[2] == group);
        let found = found.map(|fields| fields[2].to_owned());
        found.ok_or_else(|| refused(6, format!("{program}: group '{group}' does not exist")))
    }

    fn groups_exist(&self, program: &str, args: &[&str]) -> Result<(), HostError> {
        let groups = after(args, "--groups").split(',').filter(|group| !group.is_empty());
        groups.map(|group| self.gid_of(program, group)).try_for_each(|gid| gid.map(drop))
    }

    /// The line of an account.
    fn account(&self, name: &str) -> Option<String> {
        let text = self.text("/etc/passwd");
        text.lines().find(|line| line.split(':').next() == Some(name)).map(str::to_owned)
    }

    /// The day of the change is set, too.
    fn set_password(&mut self, name: &str, hash: &str) {
        let lines = self.text("/etc/shadow").lines().fold(String::new(), |text, line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            if fields[0] == name {
                (fields[1], fields[2]) = (hash, "20000");
            }
            text + &fields.join(":") + "\n"
        });
        let entry =
            Entry { node: Node::File(lines.into_bytes()), ..self.machine.files["/etc/shadow"].clone() };
        self.machine.files.insert("/etc/shadow".to_owned(), entry);
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

impl Host for Fake {
    fn entry(&self, path: &str) -> Result<Option<Entry>, HostError> {
        let state = self.state();
        if path == "/proc/self/mountinfo" {
            return Ok(Some(file(&state.mountinfo())));
        }
        if path == "/sys/module/zfs/version" {
            return Ok(Some(file(&format!("{}-1\n", state.zfs_version()))));
        }
        if let Some((name, path)) = path.strip_prefix("/.zfs/snapshot/").and_then(|rest| rest.split_once('/'))
        {
            let snapshot = state.snapshots.get(&format!("{ROOT}@{name}"));
            return Ok(snapshot.and_then(|machine| machine.files.get(&format!("/{path}"))).cloned());
        }
        Ok(state.machine.files.get(path).cloned())
    }

    fn list(&self, path: &str) -> Result<Vec<String>, HostError> {
        let state = self.state();
        if path == KSTAT {
            return Ok(state.pools());
        }
        let below = format!("{path}/");
        let names = state.machine.files.keys().filter_map(|of| of.strip_prefix(&below));
        let mut names: Vec<String> =
            names.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    fn put(&self, path: &str, entry: &Entry) -> Result<(), HostError> {
        let mut state = self.state();
        let there = state.machine.files.get(path);
        if entry.node == Node::Directory && there.is_some_and(|there| matches!(there.node, Node::Link(_))) {
            return Err(HostError::InTheWay { path: path.to_owned(), what: "a symbolic link" });
        }
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
        if is_directory && state.is_mountpoint(path) {
            let source = io::ErrorKind::ResourceBusy.into();
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
        let stdin = String::from_utf8_lossy(command.stdin_content()).into_owned();
        let said = state.run(&program, &args, &stdin);
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

    fn holders(&self, mountpoint: &str) -> Result<Vec<User>, HostError> {
        let state = self.state();
        let held = state.held.iter().filter(|(at, _)| is_within(at, mountpoint));
        Ok(held.map(|(_, user)| user.clone()).collect())
    }

    fn now(&self) -> u64 {
        1_800_000_000
    }
}
