//! What there is: environments, their snapshots and entries, boot partitions, and what will start next.

use std::fmt;
use std::time::Duration;

use kld_host::mounts;
use kld_host::zfs::pool_of;
use kld_host::{Cmd, ParseError};

use crate::action::{Action, Plan};
use crate::error::{BootError, Protection};
use crate::esp::{self, Entry, Esp};
use crate::loader::{self, Loader};
use crate::machine::{Machine, MachineError};
use crate::mount::unmount_leftovers;
use crate::trial::Trial;

const DEADLINE: Duration = Duration::from_secs(60);

/// On a snapshot: the environment that it was taken for.
pub(crate) const MADE_FOR: &str = "org.kldload:kbe-for";
/// On an environment that is being made or destroyed.
pub(crate) const STATE: &str = "org.kldload:kbe-state";
/// On an environment that no person has made: who has.
pub(crate) const MADE_BY: &str = "org.kldload:kbe-by";
/// On an environment: when it was last known to be well, in seconds since 1970; how often it was started and well; which
/// start was the last of those.
pub(crate) const GOOD: &str = "org.kldload:kbe-good";

/// On an environment that was changed and must prove itself.
pub(crate) const TRIAL: &str = "org.kldload:kbe-trial";

const COLUMNS: [&str; 17] = [
    "name",
    "type",
    "origin",
    "creation",
    "createtxg",
    "used",
    "usedbydataset",
    "referenced",
    "available",
    "mountpoint",
    "clones",
    "userrefs",
    MADE_FOR,
    STATE,
    GOOD,
    MADE_BY,
    TRIAL,
];

/// Who has made an environment, and decides when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// Somebody.
    Person,
    /// An apply. It is a person's as soon as somebody starts, activates or renames it.
    Apply,
}

impl Maker {
    /// What is written on its dataset.
    pub(crate) fn mark(self) -> Option<&'static str> {
        match self {
            Self::Person => None,
            Self::Apply => Some("apply"),
        }
    }
}

/// Something that was begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Its creation.
    Making,
    /// Its destruction.
    Leaving,
}

/// A snapshot of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `rpool/ROOT/debian@before-20261127-041300`.
    pub name: String,
    /// Its place in time.
    pub txg: u64,
    /// Bytes that only it holds.
    pub used: u64,
    /// Datasets that were made from it.
    pub clones: Vec<String>,
    /// Holds that keep it.
    pub holds: u64,
    /// The environment that `kbe` took it for.
    pub made_for: Option<String>,
}

impl Snapshot {
    /// What is behind the `@`.
    pub fn short(&self) -> &str {
        self.name.rsplit_once('@').map_or(&*self.name, |(_, short)| short)
    }
}

/// A boot environment: a dataset with a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `rpool/ROOT/debian`.
    pub dataset: String,
    /// The snapshot it was cloned from.
    pub origin: Option<String>,
    /// When, in seconds since 1970.
    pub created: u64,
    /// Bytes that come free with it and its snapshots.
    pub used: u64,
    /// Bytes that only its files hold, and none of its snapshots.
    pub own: u64,
    /// Bytes that its files name, shared ones too.
    pub referenced: u64,
    /// Where it is mounted, `/` first.
    pub mounted: Vec<String>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Datasets below it.
    pub children: Vec<String>,
    /// What was interrupted.
    pub unfinished: Option<Unfinished>,
    /// When it was last known to be well.
    pub good: Option<Good>,
    /// Who has made it.
    pub maker: Maker,
    /// Whether it was changed and has not been found well since.
    pub trial: Option<Trial>,
}

/// What is remembered of an environment that was well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// When it was, the last time; seconds since 1970.
    pub at: u64,
    /// How many starts of it were.
    pub boots: u64,
    /// The kernel's name for the last of them.
    pub boot_id: String,
}

impl Good {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (at, boots) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { at, boots, boot_id: words.next()?.to_owned() })
    }
}

impl fmt::Display for Good {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at, self.boots, self.boot_id)
    }
}

impl Environment {
    /// The last part of its dataset's name.
    pub fn name(&self) -> &str {
        self.dataset.rsplit_once('/').map_or(&*self.dataset, |(_, name)| name)
    }

    /// Whether it is the system that runs.
    pub fn is_running(&self) -> bool {
        self.mounted.iter().any(|place| place == "/")
    }
}

/// All that decides about boot environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The dataset whose children are the environments.
    pub root: String,
    /// Bytes that are free in the pool.
    pub available: u64,
    /// The environments, oldest first.
    pub environments: Vec<Environment>,
    /// Datasets beside them that are none.
    pub others: Vec<String>,
    /// The boot partitions, at least one.
    pub partitions: Vec<Esp>,
    /// What the loader was told.
    pub loader: Loader,
    /// The pool's own word on what to start, for loaders that read it.
    pub bootfs: Option<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Looked {
    /// Looks.
    ///
    /// # Errors
    /// When the root is not ZFS, the loader does not read boot entries, or something cannot be read.
    pub fn at(machine: &dyn Machine) -> Result<Self, BootError> {
        let mounts = esp::mounts(machine)?;
        let running = match mounts::mounted_on(&mounts, "/") {
            Some(mount) if mount.kind == "zfs" => mount.source.clone(),
            other => {
                let kind = other.map_or("unknown", |mount| &*mount.kind).to_owned();
                return Err(BootError::NotZfs { kind });
            }
        };
        let root = running.rsplit_once('/').map(|(root, _)| root.to_owned());
        let root = root.ok_or_else(|| BootError::NoParent { dataset: running.clone() })?;
        let pool = pool_of(&root).to_owned();

        let loader = Loader::read(machine)?;
        let (partitions, notes) = esp::find(machine)?;
        let is_systemd = loader.name.as_ref().is_none_or(|name| name.starts_with("systemd-boot"));
        if !is_systemd || partitions.is_empty() {
            return Err(BootError::NoLoader { found: other_loader(machine, &loader)?, notes });
        }
        if let Some(esp) = partitions.iter().find(|esp| !esp.has_loader) {
            return Err(BootError::LoaderElsewhere { mount: esp.mount.clone() });
        }

        let columns = COLUMNS.join(",");
        let list = Cmd::new("zfs")
            .args([
                "list",
                "-Hp",
                "-r",
                "-t",
                "filesystem,volume,snapshot",
                "-s",
                "createtxg",
                "-o",
                &columns,
            ])
            .arg(&root)
            .timeout(DEADLINE);
        let mut looked = read_list(&root, &machine.run(&list)?)?;
        for mount in mounts.iter().filter(|mount| mount.kind == "zfs") {
            if let Some(environment) =
                looked.environments.iter_mut().find(|environment| environment.dataset == mount.source)
            {
                environment.mounted.push(mount.point.clone());
                environment.mounted.sort();
            }
        }
        let bootfs = Cmd::new("zpool").args(["get", "-H", "-o", "value", "bootfs", &pool]).timeout(DEADLINE);
        let bootfs = machine.run(&bootfs)?.trim().to_owned();
        looked.bootfs = (bootfs != "-" && !bootfs.is_empty()).then_some(bootfs);
        (looked.partitions, looked.loader, looked.notes) = (partitions, loader, notes);
        Ok(looked)
    }

    /// Looks before something is changed: what a killed command has left mounted for its own look goes first.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn before_change(machine: &dyn Machine) -> Result<Self, BootError> {
        unmount_leftovers(machine)?;
        Self::at(machine)
    }

    /// What would be seen once a plan has given the boot partitions entries, what they boot from, and a default.
    pub(crate) fn after(&self, plan: &Plan) -> Self {
        let mut looked = self.clone();
        for action in &plan.actions {
            if let Action::DefaultVariable { entry } = action {
                looked.loader.default.clone_from(entry);
            }
        }
        for esp in &mut looked.partitions {
            plan.actions.iter().for_each(|action| esp.after(action));
        }
        looked
    }

    /// The environment that runs.
    pub fn running(&self) -> Option<&Environment> {
        self.environments.iter().find(|environment| environment.is_running())
    }

    /// The environment of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn environment(&self, name: &str) -> Result<&Environment, BootError> {
        let found = self.environments.iter().find(|environment| environment.name() == name);
        found.ok_or_else(|| BootError::NoSuch {
            name: name.to_owned(),
            there: self.environments.iter().map(|environment| environment.name().to_owned()).collect(),
        })
    }

    /// The entry that starts an environment, on the first boot partition that has a whole one. Of several (one for each
    /// kernel), the one that was started or would be, else the last of the menu.
    pub fn entry(&self, dataset: &str) -> Option<&Entry> {
        self.entry_on(dataset, |_| true).map(|(_, entry)| entry)
    }

    /// The same of those that are meant, and where it is.
    pub(crate) fn entry_on(
        &self,
        dataset: &str,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> Option<(&Esp, &Entry)> {
        let default = self.default_id();
        let chosen = |entry: &&Entry| {
            let id = Some(&entry.id);
            id == self.loader.selected.as_ref() || id == default.as_ref()
        };
        self.partitions.iter().find_map(|esp| {
            let whole = || esp.entries_of(dataset).filter(|entry| esp.is_complete(entry) && is_meant(entry));
            Some((esp, whole().find(chosen).or_else(|| whole().last())?))
        })
    }

    /// The entry that the loader takes unless it is told otherwise for once: by its variable, else by the first `loader.conf` that
    /// names one.
    pub fn default_id(&self) -> Option<String> {
        let exists = |id: &str| {
            self.partitions.iter().flat_map(|esp| &esp.entries).any(|entry| entry.id.eq_ignore_ascii_case(id))
        };
        let last = || self.loader.last.clone().filter(|id| exists(id));
        let variable = match self.loader.default.as_deref() {
            Some(saved) if loader::is_saved(saved) => last(),
            variable => variable.filter(|id| exists(id)).map(str::to_owned),
        };
        if variable.is_some() {
            return variable;
        }
        let last = last();
        self.partitions.iter().find_map(|esp| esp.default_id(last.as_deref()))
    }

    /// Whether what was started last decides what starts.
    pub(crate) fn starts_the_last(&self) -> bool {
        match self.loader.default.as_deref() {
            Some(default) => loader::is_saved(default),
            None => {
                let mut defaults = self.partitions.iter().filter_map(|esp| loader::default_of(&esp.conf));
                defaults.any(loader::is_saved)
            }
        }
    }

    fn environment_of(&self, told: &str) -> Option<&Environment> {
        let entries = || self.partitions.iter().flat_map(|esp| &esp.entries);
        let entry = entries().find(|entry| entry.is_meant_by(told))?;
        self.environments.iter().find(|environment| entry.dataset() == Some(&environment.dataset))
    }

    /// What means an entry that counts tries, and no other.
    pub(crate) fn meant_alone(&self, id: &str) -> String {
        let pattern = loader::pattern_of(id);
        let mut entries = self.partitions.iter().flat_map(|esp| &esp.entries);
        match entries.any(|entry| entry.id != id && entry.is_meant_by(&pattern)) {
            false => pattern,
            // Nothing that the loader can read means `x.conf` and `x+1.conf` and not `x.y.conf`.
            true if self.loader.knows_names_without_counts() => id.to_owned(),
            true => loader::counted_pattern_of(id),
        }
    }

    /// The environment that starts unless the loader is told otherwise for once.
    pub fn default_environment(&self) -> Option<&Environment> {
        self.environment_of(&self.default_id()?)
    }

    /// The environment that starts next, and only once.
    pub fn once(&self) -> Option<&Environment> {
        self.environment_of(self.loader.once.as_ref()?)
    }

    /// The environment that was last known to be well; without such knowledge the one that runs.
    pub fn last_good(&self) -> Option<&Environment> {
        let at = |environment: &&Environment| environment.good.as_ref().map(|good| good.at);
        let known = self.environments.iter().filter(|environment| environment.good.is_some());
        known.max_by_key(at).or_else(|| self.running())
    }

    /// Why an environment must stay, if it must.
    pub fn protection(&self, environment: &Environment) -> Option<Protection> {
        let is =
            |other: Option<&Environment>| other.is_some_and(|other| other.dataset == environment.dataset);
        if environment.is_running() {
            Some(Protection::Running)
        } else if is(self.default_environment()) {
            Some(Protection::Next)
        } else if is(self.once()) {
            Some(Protection::Once)
        } else if is(self.last_good()) {
            Some(Protection::LastGood)
        } else {
            environment.mounted.first().cloned().map(Protection::Mounted)
        }
    }

    /// [`Self::protection`] as a refusal.
    pub(crate) fn must_be_free(&self, environment: &Environment) -> Result<(), BootError> {
        match self.protection(environment) {
            Some(why) => Err(BootError::Protected { name: environment.name().to_owned(), why }),
            None => Ok(()),
        }
    }

    /// A snapshot of an environment by its whole name, and whose it is.
    pub fn snapshot(&self, name: &str) -> Option<(&Environment, &Snapshot)> {
        self.environments.iter().find_map(|environment| {
            let snapshot = environment.snapshots.iter().find(|snapshot| snapshot.name == name)?;
            Some((environment, snapshot))
        })
    }
}

fn read_list(root: &str, text: &str) -> Result<Looked, MachineError> {
    let mut looked = Looked {
        root: root.to_owned(),
        available: 0,
        environments: Vec::new(),
        others: Vec::new(),
        partitions: Vec::new(),
        loader: Loader::default(),
        bootfs: None,
        notes: Vec::new(),
    };
    let bad = |line: &str| ParseError {
        tool: "zfs list",
        reason: format!("{} columns with numbers expected in `{line}`", COLUMNS.len()),
    };
    let (mut snapshots, mut children) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        if columns.len() != COLUMNS.len() {
            return Err(bad(line).into());
        }
        let [name, kind, origin] = [columns[0], columns[1], columns[2]];
        let number = |column: usize| columns[column].parse::<u64>().map_err(|_| bad(line));
        let said = |column: usize| Some(columns[column]).filter(|value| *value != "-" && !value.is_empty());
        if kind == "snapshot" {
            snapshots.push(Snapshot {
                name: name.to_owned(),
                txg: number(4)?,
                used: number(5)?,
                clones: said(10).map(|all| all.split(',').map(str::to_owned).collect()).unwrap_or_default(),
                holds: number(11)?,
                made_for: said(12).map(str::to_owned),
            });
            continue;
        }
        let Some(below) = name.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) else {
            looked.available = number(8)?;
            continue;
        };
        if let Some((owner, _)) = below.split_once('/') {
            children.push((format!("{root}/{owner}"), name.to_owned()));
            continue;
        }
        // What is never mounted at `/` is no system; volumes are not mounted at all.
        if !["/", "legacy", "none"].contains(&columns[9]) {
            looked.others.push(name.to_owned());
            continue;
        }
        looked.environments.push(Environment {
            dataset: name.to_owned(),
            origin: said(2).map(|_| origin.to_owned()),
            created: number(3)?,
            used: number(5)?,
            own: number(6)?,
            referenced: number(7)?,
            mounted: Vec::new(),
            snapshots: Vec::new(),
            children: Vec::new(),
            unfinished: match columns[13] {
                "making" => Some(Unfinished::Making),
                "leaving" => Some(Unfinished::Leaving),
                _ => None,
            },
            good: said(14).and_then(Good::parse),
            maker: if columns[15] == "apply" { Maker::Apply } else { Maker::Person },
            trial: said(16).map(Trial::parse),
        });
    }
    for snapshot in snapshots {
        let dataset = snapshot.name.split('@').next().unwrap_or_default();
        if let Some(owner) = looked.environments.iter_mut().find(|of| of.dataset == dataset) {
            owner.snapshots.push(snapshot);
        }
    }
    // One that was renamed into its place may be older than what it lies below.
    for (owner, child) in children {
        if let Some(owner) = looked.environments.iter_mut().find(|of| of.dataset == owner) {
            owner.children.push(child);
        }
    }
    Ok(looked)
}

/// What starts this machine, when it is not something that reads boot entries.
fn other_loader(machine: &dyn Machine, loader: &Loader) -> Result<Option<String>, MachineError> {
    if let Some(name) = loader.name.as_ref().filter(|name| !name.starts_with("systemd-boot")) {
        return Ok(Some(name.clone()));
    }
    for (directory, name, what) in [
        ("/boot/grub", "grub.cfg", "GRUB"),
        ("/boot/grub2", "grub.cfg", "GRUB"),
        ("/etc/zfsbootmenu", "config.yaml", "ZFSBootMenu"),
        ("/boot/efi/EFI", "ZBM", "ZFSBootMenu"),
        ("/boot/efi/EFI", "zbm", "ZFSBootMenu"),
        ("/efi/EFI", "ZBM", "ZFSBootMenu"),
        ("/efi/EFI", "zbm", "ZFSBootMenu"),
        ("/boot", "extlinux", "extlinux"),
    ] {
        if machine.list(directory)?.iter().any(|of| of == name) {
            return Ok(Some(format!("{what} (`{directory}/{name}`)")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read() {
        let text = "rpool/ROOT\tfilesystem\t-\t1\t1\t900\t96\t96\t5000\tnone\t-\t-\t-\t-\t-\t-\t-\n\
                    rpool/ROOT/new/old\tfilesystem\t-\t9\t1\t8\t8\t600\t5000\t/old\t-\t-\t-\t-\t-\t-\t-\n\
                    rpool/ROOT/debian\tfilesystem\t-\t10\t2\t700\t400\t600\t5000\t/\t-\t-\t-\t-\t99 3 id\t-\t-\n\
                    rpool/ROOT/debian@a\tsnapshot\t-\t11\t5\t7\t-\t600\t-\t-\trpool/ROOT/new,rpool/x\t1\tnew\t-\t99 3 id\t-\t-\n\
                    rpool/ROOT/new\tfilesystem\trpool/ROOT/debian@a\t12\t6\t8\t8\t600\t5000\t/\t-\t-\t-\tmaking\t-\tapply\twaiting\n\
                    rpool/ROOT/new/var\tfilesystem\t-\t13\t7\t8\t8\t600\t5000\t/var\t-\t-\t-\tmaking\t-\t-\t-\n\
                    rpool/ROOT/new/swap\tvolume\t-\t13\t7\t8\t8\t600\t5000\t-\t-\t-\t-\tmaking\t-\t-\t-\n\
                    rpool/ROOT/swap\tvolume\t-\t13\t7\t8\t8\t600\t5000\t-\t-\t-\t-\t-\t-\t-\t-\n\
                    rpool/ROOT/data\tfilesystem\t-\t14\t8\t8\t8\t600\t5000\t/data\t-\t-\t-\t-\t-\t-\t-\n";
        let looked = read_list("rpool/ROOT", text).expect("readable");
        let names: Vec<&str> = looked.environments.iter().map(Environment::name).collect();
        assert_eq!((names, looked.available), (vec!["debian", "new"], 5000));
        let [debian, new] = &looked.environments[..] else { panic!() };
        let good = debian.good.as_ref().expect("it was well");
        assert_eq!((good.at, good.boots, good.boot_id.as_str()), (99, 3, "id"));
        assert_eq!((good.to_string().as_str(), debian.origin.as_deref()), ("99 3 id", None));
        let snapshot = &debian.snapshots[0];
        assert_eq!((snapshot.short(), snapshot.txg, snapshot.used, snapshot.holds), ("a", 5, 7, 1));
        assert_eq!(snapshot.clones, ["rpool/ROOT/new", "rpool/x"]);
        assert_eq!(snapshot.made_for.as_deref(), Some("new"));
        assert_eq!(new.unfinished, Some(Unfinished::Making));
        assert_eq!((debian.maker, new.maker), (Maker::Person, Maker::Apply));
        assert_eq!(new.children, ["rpool/ROOT/new/old", "rpool/ROOT/new/var", "rpool/ROOT/new/swap"]);
        assert_eq!(looked.others, ["rpool/ROOT/swap", "rpool/ROOT/data"]);
        assert_eq!((&new.trial, &debian.trial), (&Some(Trial::Waiting), &None));
        assert!(read_list("rpool/ROOT", "cannot open 'rpool'").is_err());
    }
}
