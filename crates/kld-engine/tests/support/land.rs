//! A machine in memory whose file systems are mounted, renamed and exchanged, for adopting directories.
//!
//! `fuel` is how many changes it still takes before it dies. A writer may write before any change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use kld_engine::{Comparison, Difference, Entry, Ground, Host, HostError, Node, Survey, User};
use kld_host::zpool::KSTAT;
use kld_host::{Cmd, ExecError, Output};

/// A file or directory: its number, when it was changed, what it is.
type Thing = (u64, usize, Entry);
/// By path from the root of the file system, which is "".
type Files = BTreeMap<String, Thing>;

/// All that there is.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// By dataset; `root` and `run` are the others.
    systems: BTreeMap<String, Files>,
    /// Mount points and what is mounted, the last on top.
    mounts: Vec<(String, String)>,
    /// A mount point that shows a directory once more, without what is mounted on its way.
    bind: Option<(String, String)>,
    pub(crate) datasets: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) active: BTreeSet<String>,
    pub(crate) users: Vec<User>,
    /// Units that name the directory, and have nothing of it open.
    pub(crate) naming: BTreeSet<String>,
    /// Whether somebody holds a snapshot of each new dataset.
    pub(crate) holds: bool,
    /// Whether the pool takes no more writes.
    pub(crate) refuses_sync: bool,
    /// Whether ZFS's event daemon runs.
    pub(crate) daemon_runs: bool,
    /// Whether the file system can exchange two names.
    pub(crate) exchanges: bool,
    pub(crate) fuel: Option<usize>,
    /// Before which change somebody writes which file.
    pub(crate) writer: Option<(usize, String)>,
    /// Whether that was possible.
    pub(crate) written: bool,
    /// Before which change somebody wants it to stop, and where that is said.
    pub(crate) teller: Option<(usize, Arc<AtomicBool>)>,
    /// What the next start mounts, as the event daemon has written it: slow, but done before anybody reads it.
    cached: BTreeMap<String, String>,
    changes: usize,
    numbers: u64,
}

pub(crate) struct Land(Mutex<State>);

pub(crate) const PATH: &str = "/srv/app";
const CACHE: &str = "/etc/zfs/zfs-list.cache/rpool";

fn error(reason: impl Into<String>) -> HostError {
    let status = ExitStatus::from_raw(0x100);
    ExecError::Failed { command: "a fake tool".to_owned(), status, stderr: reason.into() }.into()
}

fn no(action: &'static str, path: &str, kind: io::ErrorKind) -> HostError {
    HostError::File { action, path: path.into(), source: kind.into() }
}

fn directory(mode: u32) -> Entry {
    Entry { node: Node::Directory, mode, uid: 0, gid: 0 }
}

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

fn is_within(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Land {
    /// A pool, and a directory with three files that is in nobody's use.
    pub(crate) fn new(exchanges: bool) -> Self {
        let mut state = State { exchanges, daemon_runs: true, ..State::default() };
        for system in ["root", "run"] {
            state.systems.insert(system.to_owned(), Files::from([(String::new(), (1, 0, directory(0o755)))]));
        }
        state.mounts = vec![("/".to_owned(), "root".to_owned()), ("/run".to_owned(), "run".to_owned())];
        for (name, mountpoint) in [("rpool", "none"), ("rpool/srv", "/srv")] {
            let own = [("mountpoint", mountpoint), ("canmount", "off"), ("available", "100000000000")];
            let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            state.datasets.insert(name.to_owned(), own);
        }
        for path in ["/srv", PATH, "/srv/app/below", "/run/kldload"] {
            state.place(path, directory(0o750));
        }
        for (path, text) in
            [("/srv/app/a", "one"), ("/srv/app/below/b", "two"), ("/srv/app/below/c", "three")]
        {
            state.place(path, file(text));
        }
        state.active = ["webapp.service", "other.service"].map(str::to_owned).into();
        Self(Mutex::new(state))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    pub(crate) fn changes(&self) -> usize {
        self.state().changes
    }

    pub(crate) fn fuel(&self, fuel: Option<usize>) {
        self.state().fuel = fuel;
    }

    /// Everything below a path as it is seen, by path, without kldload's memory.
    pub(crate) fn seen(&self, path: &str) -> BTreeMap<String, Entry> {
        let state = self.state();
        let (system, at) = state.find(path);
        let below = state.systems[&system].iter().filter(|(name, _)| is_within(name, &at));
        below.map(|(name, thing)| (name[at.len()..].to_owned(), thing.2.clone())).collect()
    }

    /// Whether any file system has a file of this name.
    pub(crate) fn has_anywhere(&self, name: &str) -> bool {
        self.state().systems.values().flatten().any(|(path, _)| path.ends_with(name))
    }

    /// Names in `/srv`, as they are in its file system.
    pub(crate) fn beside(&self) -> Vec<String> {
        let state = self.state();
        let names = state.systems["root"].keys().filter_map(|path| path.strip_prefix("/srv/"));
        names.filter(|name| !name.contains('/')).map(str::to_owned).collect()
    }

    pub(crate) fn mounted(&self) -> Vec<(String, String)> {
        self.state().mounts[2..].to_vec()
    }

    /// What a power cut leaves, and a start makes of it: RAM disks are empty, datasets that want it are mounted.
    pub(crate) fn cut_power(&self, cache_is_fresh: bool) {
        if cache_is_fresh {
            self.state().refresh();
        }
        let mut state = self.state();
        state.fuel = None;
        state.mounts.truncate(2);
        state.bind = None;
        state.systems.insert("run".to_owned(), Files::from([(String::new(), (1, 0, directory(0o755)))]));
        state.place("/run/kldload", directory(0o755));
        let mounts: Vec<(String, String)> =
            state.cached.iter().map(|(name, at)| (at.clone(), name.clone())).collect();
        assert!(
            mounts.iter().all(|(_, name)| state.datasets.contains_key(name)),
            "the start waits for ever: {mounts:?}"
        );
        state.mounts.extend(mounts);
    }
}

pub(crate) fn file(text: &str) -> Entry {
    Entry { node: Node::File(text.as_bytes().to_vec()), mode: 0o640, uid: 7, gid: 7 }
}

impl State {
    /// The file system of a path, and the path in it.
    fn find(&self, path: &str) -> (String, String) {
        if let Some((point, of)) = self.bind.as_ref().filter(|(point, _)| is_within(path, point)) {
            return ("root".to_owned(), format!("{of}{}", &path[point.len()..]));
        }
        let holds = |(point, _): &&(String, String)| *point == "/" || is_within(path, point);
        let (point, system) =
            self.mounts.iter().filter(holds).max_by_key(|(point, _)| point.len()).expect("there is a root");
        (system.clone(), path[if point == "/" { 0 } else { point.len() }..].to_owned())
    }

    fn thing(&self, path: &str) -> Option<&Thing> {
        let (system, at) = self.find(path);
        self.systems[&system].get(if at == "/" { "" } else { &at })
    }

    /// Puts something into place, with the directories above it.
    fn place(&mut self, path: &str, entry: Entry) {
        let (system, at) = self.find(path);
        let changes = self.changes;
        let mut above = at.clone();
        while let Some((rest, _)) = above.rsplit_once('/') {
            above = rest.to_owned();
            if !self.systems[&system].contains_key(&above) {
                self.numbers += 1;
                let thing = (self.numbers + 100, changes, directory(0o755));
                self.systems.get_mut(&system).expect("it is there").insert(above.clone(), thing);
            }
        }
        self.numbers += 1;
        let number = self.systems[&system].get(&at).map_or(self.numbers + 100, |thing| thing.0);
        self.systems.get_mut(&system).expect("it is there").insert(at, (number, changes, entry));
    }

    fn burn(&mut self, what: &str) -> Result<(), HostError> {
        if self.fuel == Some(0) {
            let source = io::Error::other("the machine is dead");
            return Err(HostError::File { action: "go on with", path: what.into(), source });
        }
        if let Some(fuel) = &mut self.fuel {
            *fuel -= 1;
        }
        if let Some((_, told)) = self.teller.as_ref().filter(|(at, _)| *at == self.changes) {
            told.store(true, Ordering::SeqCst);
        }
        if let Some((at, path)) = self.writer.clone().filter(|(at, _)| *at == self.changes) {
            // Where its directory is not, or is not one, it cannot.
            if self.thing(above(&path)).is_some_and(|thing| thing.2.node == Node::Directory) {
                self.changes += 1;
                self.place(&path, file("precious"));
                self.written = true;
            }
            self.writer = self.writer.take().filter(|(of, _)| *of != at);
        }
        self.changes += 1;
        Ok(())
    }

    /// The event daemon comes by.
    fn refresh(&mut self) {
        let wants =
            |own: &BTreeMap<String, String>| own["canmount"] == "on" && own["mountpoint"].starts_with('/');
        let all = self.datasets.iter().filter(|(_, own)| wants(own));
        self.cached = all.map(|(name, own)| (name.clone(), own["mountpoint"].clone())).collect();
    }

    fn below(&self, path: &str) -> (String, Vec<String>) {
        let (system, at) = self.find(path);
        let names = self.systems[&system].keys().filter(|name| is_within(name, &at)).cloned().collect();
        (system, names)
    }

    fn run(&mut self, program: &str, args: &[&str]) -> Result<String, HostError> {
        match program {
            "zfs" => self.zfs(args),
            // Some pool is always suspended, or was imported read-only: who names none has asked that one, too.
            "zpool" => match args[1..] {
                ["rpool"] if !self.refuses_sync => self.burn("zpool").map(|()| String::new()),
                _ => Err(error("cannot sync 'backup': pool is read-only")),
            },
            "mount" => {
                self.burn("mount")?;
                if args[0] == "--bind" {
                    self.bind = Some((args[2].to_owned(), args[1].to_owned()));
                    return Ok(String::new());
                }
                if self.mounts.iter().any(|(_, system)| system == args[2]) || self.thing(args[3]).is_none() {
                    return Err(error(format!("{} cannot be mounted on {}", args[2], args[3])));
                }
                self.mounts.push((args[3].to_owned(), args[2].to_owned()));
                Ok(String::new())
            }
            "umount" => {
                self.burn("umount")?;
                if args[0] == PATH && !self.users.is_empty() {
                    return Err(error("target is busy"));
                }
                if self.bind.take_if(|(point, _)| point == args[0]).is_some() {
                    return Ok(String::new());
                }
                let at = self.mounts.iter().rposition(|(point, _)| point == args[0]);
                self.mounts.remove(at.ok_or_else(|| error("not mounted"))?);
                Ok(String::new())
            }
            // `cp`, which dies with whoever has started it.
            "setpriv" => {
                let from = args[7].trim_end_matches("/.").to_owned();
                let (system, names) = self.below(&from);
                let start = self.find(&from).1.len();
                for name in names {
                    self.burn("cp")?;
                    if self.teller.as_ref().is_some_and(|(_, told)| told.load(Ordering::SeqCst)) {
                        return Err(error("cp was killed"));
                    }
                    let entry = self.systems[&system].get(&name).map(|thing| thing.2.clone());
                    let entry = entry.ok_or_else(|| error(format!("cp: cannot stat '{name}'")))?;
                    self.place(&format!("{}{}", args[8], &name[start..]), entry);
                }
                Ok(String::new())
            }
            "rm" => {
                let (system, names) = self.below(args[3]);
                for name in names.iter().rev() {
                    self.burn("rm")?;
                    self.systems.get_mut(&system).expect("it is there").remove(name);
                }
                Ok(String::new())
            }
            "systemctl" => {
                if args[0] == "list-units" {
                    return Ok(self
                        .active
                        .iter()
                        .map(|unit| format!("{unit} loaded active running\n"))
                        .collect());
                }
                if args[0] == "show" {
                    let named = self.naming.iter().filter(|unit| self.active.contains(*unit));
                    let block = |unit: &String| {
                        format!(
                            "MainPID=9\nId={unit}\nActiveState=active\nSubState=running\nReadWritePaths={PATH}\n"
                        )
                    };
                    return Ok(named.map(block).collect::<Vec<_>>().join("\n"));
                }
                self.burn("systemctl")?;
                for unit in &args[1..] {
                    match args[0] {
                        "stop" => {
                            self.active.remove(*unit);
                            self.users.retain(|user| user.unit.as_deref() != Some(unit));
                        }
                        _ => drop(self.active.insert((*unit).to_owned())),
                    }
                }
                Ok(String::new())
            }
            _ => Err(error(format!("`{program}` is not installed"))),
        }
    }

    fn zfs(&mut self, args: &[&str]) -> Result<String, HostError> {
        let last = args[args.len() - 1].to_owned();
        let missing = || error(format!("cannot open '{last}': dataset does not exist"));
        match args[0] {
            "list" if args.contains(&"-r") => Ok(self
                .datasets
                .keys()
                .filter(|name| is_within(name, &last))
                .map(|name| format!("{name}\n"))
                .collect()),
            "list" => self.datasets.get(&last).map(|_| last.clone()).ok_or_else(missing),
            "get" => {
                let all = last.contains(',');
                let names = if all { last.clone() } else { args[args.len() - 2].to_owned() };
                if !all && !self.datasets.contains_key(&last) {
                    return Err(missing());
                }
                let of = self.datasets.iter().filter(|(name, _)| all || **name == last);
                let line = |name: &str, property: &str, own: &BTreeMap<String, String>| {
                    let value = own.get(property).map_or("-", String::as_str);
                    format!("{name}\t{property}\t{value}\tlocal\n")
                };
                Ok(of.flat_map(|(name, own)| names.split(',').map(move |p| line(name, p, own))).collect())
            }
            "create" => {
                self.burn("zfs create")?;
                let pairs = args.iter().filter_map(|word| word.split_once('='));
                let mut own: BTreeMap<String, String> =
                    pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                if own.get("recordsize").is_some_and(|size| size == "odd") {
                    return Err(error("'recordsize' must be a power of 2"));
                }
                if self.datasets.contains_key(&last) || !self.datasets.contains_key(above(&last)) {
                    return Err(error("cannot create"));
                }
                own.entry("canmount".to_owned()).or_insert_with(|| "on".to_owned());
                self.datasets.insert(last.clone(), own);
                self.systems.insert(last, Files::from([(String::new(), (34, 0, directory(0o755)))]));
                Ok(String::new())
            }
            "set" => {
                self.burn("zfs set")?;
                let own = self.datasets.get_mut(&last).ok_or_else(missing)?;
                let was_legacy = own["mountpoint"] == "legacy";
                for (name, value) in args.iter().filter_map(|word| word.split_once('=')) {
                    own.insert(name.to_owned(), value.to_owned());
                }
                let (canmount, point) = (own["canmount"].clone(), own["mountpoint"].clone());
                if was_legacy && canmount == "on" && point.starts_with('/') {
                    // The properties are set, and the power fails before it is mounted.
                    self.burn("zfs set: mount")?;
                    self.mounts.push((point, last));
                }
                Ok(String::new())
            }
            "inherit" => {
                self.burn("zfs inherit")?;
                self.datasets.get_mut(&last).ok_or_else(missing)?.remove(args[1]);
                Ok(String::new())
            }
            "mount" => {
                self.burn("zfs mount")?;
                let point = self.datasets.get(&last).ok_or_else(missing)?["mountpoint"].clone();
                self.mounts.push((point, last));
                Ok(String::new())
            }
            "rename" => {
                self.burn("zfs rename")?;
                let own = self.datasets.remove(args[1]).ok_or_else(missing)?;
                let files = self.systems.remove(args[1]).expect("a dataset has files");
                self.datasets.insert(last.clone(), own);
                self.systems.insert(last, files);
                Ok(String::new())
            }
            "destroy" if last.ends_with("@%") && !self.holds => {
                self.burn("zfs destroy").map(|()| String::new())
            }
            "destroy" => {
                self.burn("zfs destroy")?;
                if self.holds {
                    return Err(error("a snapshot of it is held"));
                }
                if self.mounts.iter().any(|(_, system)| *system == last) {
                    return Err(error("dataset is busy"));
                }
                self.datasets.remove(&last).ok_or_else(missing)?;
                self.systems.remove(&last);
                Ok(String::new())
            }
            verb => Err(error(format!("zfs: unknown verb {verb}"))),
        }
    }

    /// Gives a tree another name in its file system.
    fn moved(&mut self, from: &str, to: &str) {
        let (system, names) = self.below(from);
        let (start, target) = (self.find(from).1.len(), self.find(to).1);
        let files = self.systems.get_mut(&system).expect("it is there");
        for name in names {
            let thing = files.remove(&name).expect("it is there");
            files.insert(format!("{target}{}", &name[start..]), thing);
        }
    }

    fn is_mount(&self, path: &str) -> bool {
        self.mounts.iter().any(|(point, _)| point == path)
    }
}

impl Host for Land {
    fn entry(&self, path: &str) -> Result<Option<Entry>, HostError> {
        let mut state = self.state();
        if path == CACHE {
            // While the machine starts, it does not run.
            if state.daemon_runs {
                state.refresh();
            }
            let lines = state.cached.iter().map(|(name, at)| format!("{name}\t{at}\ton\toff\n"));
            return Ok(Some(file(&lines.collect::<String>())));
        }
        if path == "/proc/self/mountinfo" {
            let bind = state.bind.iter().map(|(point, _)| (point.clone(), "root".to_owned()));
            let mounts: Vec<(String, String)> = state.mounts.iter().cloned().chain(bind).collect();
            let lines = mounts.iter().enumerate();
            let lines =
                lines.map(|(n, (point, system))| format!("{n} 1 0:{n} / {point} rw - zfs {system} rw\n"));
            return Ok(Some(file(&lines.collect::<String>())));
        }
        Ok(state.thing(path).map(|thing| thing.2.clone()))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, HostError> {
        if path == KSTAT {
            return Ok(["backup", "rpool"].map(str::to_owned).into());
        }
        let state = self.state();
        let (system, at) = state.find(path);
        let below = format!("{at}/");
        let names = state.systems[&system].keys().filter_map(|name| name.strip_prefix(&below));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn put(&self, path: &str, entry: &Entry) -> Result<(), HostError> {
        let mut state = self.state();
        state.burn(path)?;
        if let (CACHE, Node::File(bytes)) = (path, &entry.node) {
            let text = String::from_utf8_lossy(bytes).into_owned();
            state.cached.retain(|name, _| text.contains(&format!("{name}\t")));
            return Ok(());
        }
        state.place(path, entry.clone());
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), HostError> {
        let mut state = self.state();
        state.burn(path)?;
        let (system, names) = state.below(path);
        if names.len() > 1 || state.is_mount(path) {
            return Err(no("remove", path, io::ErrorKind::DirectoryNotEmpty));
        }
        let at = state.find(path).1;
        state.systems.get_mut(&system).expect("it is there").remove(&at);
        Ok(())
    }

    fn append(&self, path: &str, bytes: &[u8]) -> Result<(), HostError> {
        let mut state = self.state();
        let burnt = state.burn(path);
        // The power fails in the middle of a line.
        let bytes = if burnt.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let mut text = match state.thing(path) {
            Some((_, _, Entry { node: Node::File(text), .. })) => text.clone(),
            _ => Vec::new(),
        };
        text.extend(bytes);
        state.place(path, Entry { node: Node::File(text), mode: 0o600, uid: 0, gid: 0 });
        burnt
    }

    fn run(&self, command: &Cmd) -> Result<Output, HostError> {
        let program = command.program().to_string_lossy().into_owned();
        let args: Vec<String> = command.argv().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut state = self.state();
        if state.fuel == Some(0) {
            return Err(no("go on with", &program, io::ErrorKind::Other));
        }
        let asks = program == "zfs" && args[0] == "list";
        match state.run(&program, &args) {
            Ok(text) => Ok(Output { code: 0, stdout: text.into_bytes(), stderr: String::new() }),
            Err(HostError::Exec(_)) if asks || command.accepts(1) => {
                Ok(Output { code: 1, stdout: Vec::new(), stderr: String::new() })
            }
            Err(error) => Err(error),
        }
    }

    fn holders(&self, _mountpoint: &str) -> Result<Vec<User>, HostError> {
        Ok(self.state().users.clone())
    }

    fn now(&self) -> u64 {
        1_800_000_000
    }
}

impl Ground for Land {
    fn number(&self, path: &str) -> Result<Option<u64>, HostError> {
        Ok(self.state().thing(path).map(|thing| thing.0))
    }

    fn is_directory(&self, path: &str) -> Result<bool, HostError> {
        Ok(self.state().thing(path).is_some_and(|thing| thing.2.node == Node::Directory))
    }

    fn resolve(&self, path: &str) -> Result<Option<String>, HostError> {
        Ok(match self.state().thing(path) {
            Some((_, _, Entry { node: Node::Link(target), .. })) => Some(target.clone()),
            Some(_) => Some(path.to_owned()),
            None => None,
        })
    }

    fn exchange(&self, one: &str, other: &str) -> Result<bool, HostError> {
        let mut state = self.state();
        if !state.exchanges {
            return Ok(false);
        }
        state.burn("exchange")?;
        if state.is_mount(one) || state.is_mount(other) {
            return Err(no("exchange", one, io::ErrorKind::ResourceBusy));
        }
        if state.thing(one).is_none() || state.thing(other).is_none() {
            return Err(no("exchange", one, io::ErrorKind::NotFound));
        }
        state.moved(one, "/between");
        state.moved(other, one);
        state.moved("/between", other);
        Ok(true)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), HostError> {
        let mut state = self.state();
        state.burn("rename")?;
        if state.is_mount(from) {
            return Err(no("rename", from, io::ErrorKind::ResourceBusy));
        }
        if state.thing(from).is_none() || state.thing(to).is_some() {
            return Err(no("rename", from, io::ErrorKind::AlreadyExists));
        }
        state.moved(from, to);
        Ok(())
    }

    fn survey(&self, path: &str) -> Result<Survey, HostError> {
        let state = self.state();
        let (system, names) = state.below(path);
        let start = state.find(path).1.len();
        let told = |name: &String| {
            let thing = &state.systems[&system][name];
            format!("{} {thing:?}", &name[start..])
        };
        let stamp = names.iter().map(told).collect::<Vec<_>>().join("\n");
        Ok(Survey { entries: names.len() as u64, bytes: 1000, stamp, linked_outside: Vec::new() })
    }

    fn compare_unless(
        &self,
        old: &str,
        new: &str,
        stop: &AtomicBool,
    ) -> Result<Option<Comparison>, HostError> {
        if stop.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let (a, b) = (self.seen(old), self.seen(new));
        let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let differ = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
        let differences =
            differ.map(|name| Difference { path: name.clone(), what: "content".to_owned() }).collect();
        Ok(Some(Comparison { differences, old: self.survey(old)?.stamp, new: self.survey(new)?.stamp }))
    }

    fn run_unless(&self, command: &Cmd, stop: &AtomicBool) -> Result<Option<Output>, HostError> {
        match self.run(command) {
            Err(_) if stop.load(Ordering::SeqCst) => Ok(None),
            done => done.map(Some),
        }
    }

    fn users(&self, _path: &str) -> Result<Vec<User>, HostError> {
        Ok(self.state().users.clone())
    }
}
