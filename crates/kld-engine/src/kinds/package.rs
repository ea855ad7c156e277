//! Packages of the distribution, installed and taken back with its own package manager.
//!
//! One step installs all that is missing, as one transaction of apt. Services do not start by themselves: their
//! configuration comes after them. Going back puts the files of packages back as the snapshot of the root dataset has them, the package
//! database among them, whatever state dpkg was in.
//! Where `/` is no dataset, going back purges what has come, which is as good as its packages' own scripts; so there a version
//! that a lock file does not name is said, and not changed.

mod apt;
mod cost;
mod locked;
mod territory;

use std::collections::BTreeMap;
use std::time::Duration;

use kld_host::Cmd;
use kld_host::zfs;
use kld_system::Layer;
use kld_ui::ByteSize;
use serde::{Deserialize, Serialize};

use self::apt::{installed, installed_cmd, provided, purge, there};
use self::locked::Pinned;
use super::{Found, Kind, Refusal, WayBack, to_value};
use crate::history::Store;
use crate::host::{Entry, Host, HostError, KeptEntry, Node};
use crate::interruption::Interruption;
use crate::plan::{Because, Cause, Left, Step, key};
use crate::reboot;
use crate::wanted::Wanted;

pub(super) struct Package;

/// Packages to install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    names: Vec<String>,
    /// Versions that a lock file pins, of these and of what comes along.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<String, String>,
    /// Versions that some of these, and of what comes along, had before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    were: BTreeMap<String, String>,
    /// What must be there before they are configured, as in an image: files by path. PostgreSQL would make a database of its own.
    #[serde(default)]
    prepared: BTreeMap<String, String>,
}

/// What it takes to go back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum Memory {
    /// Files come back.
    Snapshot {
        /// The dataset that `/` is on.
        root: String,
        /// Its snapshot from before.
        before: String,
        /// The administrator's own [`POLICY`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<KeptEntry>,
    },
    /// Packages go.
    Listed {
        /// Those that were there.
        there: Vec<String>,
        /// The administrator's own [`POLICY`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<KeptEntry>,
    },
}

/// invoke-rc.d(8): 101 means that nothing may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str =
    "#!/bin/sh\n# kldload starts services when their configuration is there.\nexit 101\n";

/// The administrator's own policy, which is ours for as long as packages are installed. One of ours that is there was left by a
/// kill, and is nobody's.
fn keep_policy(host: &dyn Host, store: &Store<'_>) -> Result<Option<KeptEntry>, HostError> {
    let there = host.entry(POLICY)?;
    let is_ours = there.is_some_and(|entry| entry.node == Node::File(POLICY_TEXT.into()));
    if is_ours { Ok(None) } else { store.keep(POLICY) }
}

/// What is kept free besides.
const ROOM: u64 = 64 << 20;

const LIMIT: Duration = Duration::from_secs(3600);

impl Kind for Package {
    type Change = Change;
    type Memory = Memory;
    const NAME: &'static str = "package";
    const STAYS: bool = true;

    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        _earlier: &[Step],
    ) -> Result<Found, Refusal> {
        let look = |error| Refusal::Look("the packages", error);
        let text = host.text(&installed_cmd()).map_err(look)?;
        let installed = installed(&text);
        let mut found = Found::default();
        // What boots the machine is chosen when it is built, by exact release; what is missing of it is said.
        let mine = wanted.system.packages.iter().filter(|item| item.because.layer != Layer::Boot);
        let mut pinned = Pinned::new(wanted.lock.as_ref());
        let mut missing: Vec<(&str, Because)> = Vec::new();
        for item in mine {
            let (name, because) = (item.value.as_str(), Because::from(&item.because));
            let version = pinned.want(name)?;
            match installed.get(name) {
                None => missing.push((name, because)),
                // Without a snapshot there is no way back to a version that no archive may have any more.
                Some(there) if version.is_some_and(|version| version != *there) => {
                    if root_dataset(host).map_err(look)?.is_none() {
                        found.items.insert(name.to_owned(), String::new());
                        continue;
                    }
                    pinned.changed.insert(name.to_owned(), (*there).to_owned());
                    missing.push((name, because));
                }
                Some(_) => {}
            }
            found.items.insert(name.to_owned(), version.unwrap_or_default().to_owned());
        }
        for gone in super::gone(Self::NAME, before, &found.items) {
            if installed.contains_key(gone) {
                found.left.push(Left {
                    kind: Self::NAME.to_owned(),
                    name: gone.to_owned(),
                    remove_with: format!("apt-get purge {gone}"),
                });
            }
        }
        found.at_start = reboot::packages(wanted, &installed);
        if missing.is_empty() {
            found.off_lock = pinned.off(&installed);
            return Ok(found);
        }
        let names_of = |missing: &[(&str, Because)]| -> Vec<String> {
            missing.iter().map(|(name, _)| (*name).to_owned()).collect()
        };
        let simulated = pinned.simulate(host, &names_of(&missing))?;
        found.off_lock = pinned.off(&installed);
        // What apt would not bring is here by another name, which provides it.
        let (here, changes_nothing) = (provided(&text), simulated.changes_nothing());
        missing.retain(|(name, _)| simulated.brings(name) || !(changes_nothing || here.contains(name)));
        let Some((_, first)) = missing.first().cloned() else { return Ok(found) };
        let names = names_of(&missing);
        if let Some(removed) = simulated.removed.first() {
            return Err(Refusal::Refused {
                name: names.join(", "),
                reason: format!("apt would remove `{removed}` for it"),
                hint: "choose packages that fit together; `apt-get install -s` shows what conflicts"
                    .to_owned(),
            });
        }
        // One that is there in another version was not removed; its note has both versions.
        let by_hand: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| before.contains_key(&key(Self::NAME, name)) && !installed.contains_key(name))
            .collect();
        let was = |name: &String| Some((name.clone(), (*installed.get(name.as_str())?).to_owned()));
        let were = simulated.installed.iter().filter_map(|(name, _)| was(name)).collect();
        let along = simulated.installed.iter().filter(|(name, _)| !names.contains(name)).count();
        let (because, mut notes) = reasons(&missing, first);
        notes.extend(pinned.notes(&names));
        if !by_hand.is_empty() && by_hand.len() < names.len() {
            notes.push(format!("removed by hand since the last apply: {}", by_hand.join(", ")));
        }
        if along > 0 {
            notes.push(format!("{along} more come along"));
        }
        notes.extend(pinned.unknown(&simulated));
        let cost = cost::of(host, &pinned.shown(&simulated)).map_err(look)?;
        if let Some(name) = names.iter().find(|name| !simulated.brings(name)) {
            return Err(by_another_name(name, cost.providers.get(name)));
        }
        pinned.check_files(&cost.digests)?;
        let mut prepared = Vec::new();
        for file in &wanted.system.distro.prepared {
            // One that is there is an earlier apply's, or the image's, and not this one's to take away.
            if simulated.installed.iter().any(|(name, _)| file.is_read_by(name))
                && host.entry(&file.path).map_err(look)?.is_none()
            {
                prepared.push(file);
            }
        }
        notes.extend(prepared.iter().map(|file| format!("`{}` before them: {}", file.path, file.reason)));
        notes.push(format!("downloads {}, takes {}", ByteSize(cost.download), ByteSize(cost.on_disk)));
        if root_dataset(host).map_err(look)?.is_none() {
            notes.push(
                "`/` is not on ZFS: going back purges them, and keeps what their scripts have done elsewhere"
                    .to_owned(),
            );
        }
        let waits: Vec<String> = simulated
            .installed
            .iter()
            .filter(|(name, _)| wanted.system.distro.needs_reboot(name))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if !waits.is_empty() {
            notes.push(format!(
                "reboot: {} is in use after the next start; `kpkg install {}` would try that start first",
                waits.join(", "),
                names.join(" ")
            ));
        }
        has_room(host, &names, cost.on_disk)?;
        found.takes = cost.on_disk;
        found.steps.push(Step {
            kind: Self::NAME.to_owned(),
            name: names.join(", "),
            action: pinned.action(&names),
            cause: Cause::Wish,
            summary: pinned.summary(&names).to_owned(),
            interrupts: (!waits.is_empty()).then_some(Interruption::Reboot),
            notes,
            because,
            change: to_value(&Change {
                names,
                versions: pinned.versions,
                were,
                prepared: prepared.iter().map(|file| (file.path.clone(), file.text.clone())).collect(),
            }),
        });
        Ok(found)
    }

    fn remember(&self, host: &dyn Host, store: &Store<'_>, _change: &Change) -> Result<Memory, HostError> {
        let policy = keep_policy(host, store)?;
        let Some(root) = root_dataset(host)? else {
            let text = host.text(&installed_cmd())?;
            let there = there(&text).into_iter().map(str::to_owned).collect();
            return Ok(Memory::Listed { there, policy });
        };
        let before = format!("{root}@{}-packages", store.snapshot());
        snapshot_again(host, &before)?;
        Ok(Memory::Snapshot { root, before, policy })
    }

    fn make(&self, host: &dyn Host, store: &Store<'_>, change: &Change) -> Result<(), HostError> {
        let root = |text: &str, mode| Entry { node: Node::File(text.into()), mode, uid: 0, gid: 0 };
        for (path, text) in &change.prepared {
            host.put(path, &root(text, 0o644))?;
        }
        let own = keep_policy(host, store)?;
        host.put(POLICY, &root(POLICY_TEXT, 0o755))?;
        let words = apt::words(&change.names, &change.versions);
        let installed = host.run(&apt::install(&words, !change.versions.is_empty()).timeout(LIMIT));
        store.put_back(POLICY, own.as_ref())?;
        installed.map(drop)
    }

    fn undo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        // Who has killed the apply may have left its apt-get at work.
        host.run(&apt::wait().timeout(LIMIT))?;
        let (Memory::Snapshot { policy, .. } | Memory::Listed { policy, .. }) = memory;
        store.put_back(POLICY, policy.as_ref())?;
        let (root, before) = match memory {
            Memory::Snapshot { root, before, .. } => (root, before),
            Memory::Listed { there, .. } => {
                purge(host, there)?;
                return change.prepared.keys().try_for_each(|path| host.remove(path));
            }
        };
        // The last thing that going back does is to destroy it.
        if !has_snapshot(host, before)? {
            return Ok(());
        }
        let after = format!("{root}@{}-undo", store.snapshot());
        snapshot_again(host, &after)?;
        let diff = host.text(&zfs::diff_cmd(before, &after).timeout(LIMIT))?;
        let changes = zfs::parse_diff(&diff)?;
        let shipped = territory::shipped(host, &changes)?;
        let (remove, restore) = territory::split(changes, &shipped);
        for path in &remove {
            super::file::remove_if_empty(host, path)?;
        }
        if !restore.is_empty() {
            let name = before.rsplit_once('@').map_or("", |(_, name)| name);
            let list = restore.iter().fold(Vec::new(), |mut list, path| {
                list.extend(path.trim_start_matches('/').as_bytes());
                list.push(0);
                list
            });
            let (list_file, archive) = (store.path("restore.list"), store.path("restore.tar"));
            host.put(&list_file, &Entry { node: Node::File(list), mode: 0o600, uid: 0, gid: 0 })?;
            let tar = || Cmd::new("tar").args(["--acls", "--xattrs", "--numeric-owner"]).timeout(LIMIT);
            host.run(
                &tar().args(["--null", "--no-recursion", "--verbatim-files-from", "-cf", &archive]).args([
                    "-C",
                    &format!("/.zfs/snapshot/{name}"),
                    "-T",
                    &list_file,
                ]),
            )?;
            host.run(&tar().args(["-xpf", &archive, "-C", "/"]))?;
            host.remove(&archive)?;
            host.remove(&list_file)?;
        }
        host.run(&Cmd::new("systemctl").arg("daemon-reload"))?;
        for snapshot in [&after, before] {
            host.run(&Cmd::new("zfs").args(["destroy", snapshot]))?;
        }
        Ok(())
    }

    fn way_back(&self, store: &Store<'_>, change: &Change, _memory: &Memory) -> Result<WayBack, HostError> {
        let text = store.host.text(&installed_cmd())?;
        let installed = installed(&text);
        let is_new = |name: &&str| installed.contains_key(name) && !change.were.contains_key(*name);
        let new: Vec<&str> = change.names.iter().map(String::as_str).filter(is_new).collect();
        let differs = |(name, was): &(&String, &String)| {
            installed.get(name.as_str()).is_some_and(|version| *version != was.as_str())
        };
        let were = change.were.iter().filter(differs).map(|(name, was)| (name.clone(), was.clone()));
        let were = apt::words(&[], &were.collect());
        let purge = (!new.is_empty()).then(|| format!("apt-get purge {}", new.join(" ")));
        let install =
            (!were.is_empty()).then(|| format!("apt-get install --allow-downgrades {}", were.join(" ")));
        let commands: Vec<String> = purge.into_iter().chain(install).collect();
        Ok(match commands.is_empty() {
            true => WayBack::Nothing,
            false => WayBack::Stays(commands.join("; ")),
        })
    }

    fn redo(
        &self,
        _host: &dyn Host,
        _store: &Store<'_>,
        _of: &Store<'_>,
        _change: &Change,
        _memory: &Memory,
    ) -> Result<(), HostError> {
        Ok(())
    }

    fn items_of(&self, _name: &str, change: &Change) -> Vec<String> {
        change.names.clone()
    }

    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError> {
        let text = host.text(&installed_cmd())?;
        let (installed, provided) = (installed(&text), provided(&text));
        let differs = |name: &str, locked: &str| match installed.get(name) {
            Some(version) => !locked.is_empty() && *version != locked,
            None => !provided.contains(name),
        };
        let differing = items.iter().filter(|(name, locked)| differs(name, locked));
        Ok(differing.map(|(name, _)| (*name).to_owned()).collect())
    }
}

/// Refuses a name that apt takes for another: no plan would ever be empty.
fn by_another_name(name: &str, provider: Option<&String>) -> Refusal {
    let (reason, hint) = match provider {
        Some(it) => (format!("`{name}` is `{it}` here"), format!("write `{it}` in `packages:`")),
        None => (
            format!("apt has no package `{name}`, and would bring another for it"),
            format!("`apt-get install -s {name}` shows which: write that name in `packages:`"),
        ),
    };
    Refusal::Refused { name: name.to_owned(), reason, hint }
}

/// Why packages that come together are wanted: one reason, or a note for each.
fn reasons(missing: &[(&str, Because)], first: Because) -> (Because, Vec<String>) {
    if missing.iter().all(|(_, because)| *because == first) {
        return (first, Vec::new());
    }
    let note = |(name, because): &(&str, Because)| {
        let line = because.line.map_or_else(String::new, |line| format!(" (line {line})"));
        format!("`{name}`{line}: {}", because.reason)
    };
    let notes = missing.iter().map(note).collect();
    (Because { line: None, reason: "for several parts of the machine".to_owned(), ..first }, notes)
}

/// The packages that these steps give another version.
pub(crate) fn replaced(steps: &[Step]) -> Result<Vec<String>, HostError> {
    let mut names = Vec::new();
    for step in steps.iter().filter(|step| step.kind == Package::NAME) {
        let change: Change = super::from_value(&step.change)?;
        names.extend(change.were.into_keys());
    }
    Ok(names)
}

/// Refuses what would fill the file system of `/`: packages that are half unpacked are the worst way to learn of it.
fn has_room(host: &dyn Host, names: &[String], needed: u64) -> Result<(), Refusal> {
    let look = |error| Refusal::Look("how much room there is", error);
    let text = host.text(&Cmd::new("df").args(["-B1", "--output=avail", "/"])).map_err(look)?;
    let available: Option<u64> = text.lines().last().and_then(|line| line.trim().parse().ok());
    // What is unpacked lies beside what it replaces for a while.
    let available = available.filter(|available| needed.saturating_add(ROOM) > *available);
    let Some(available) = available else { return Ok(()) };
    Err(Refusal::Refused {
        name: names.join(", "),
        reason: format!("its packages take {}, and `/` has {} left", ByteSize(needed), ByteSize(available)),
        hint: "make room: `zfs list -o space` says what takes it, `apt-get clean` removes downloads"
            .to_owned(),
    })
}

/// The dataset that `/` is on, unless it is on another file system.
pub(crate) fn root_dataset(host: &dyn Host) -> Result<Option<String>, HostError> {
    let text = host.text(&Cmd::new("findmnt").args(["-n", "-o", "SOURCE,FSTYPE", "/"]))?;
    Ok(match text.split_whitespace().collect::<Vec<_>>()[..] {
        [dataset, "zfs"] => Some(dataset.to_owned()),
        _ => None,
    })
}

fn has_snapshot(host: &dyn Host, snapshot: &str) -> Result<bool, HostError> {
    let cmd = Cmd::new("zfs").args(["list", "-H", "-t", "snapshot", "-o", "name", snapshot]).accept(1);
    Ok(host.run(&cmd)?.code == 0)
}

/// Makes a snapshot, in place of one of that name that an earlier attempt has left.
fn snapshot_again(host: &dyn Host, snapshot: &str) -> Result<(), HostError> {
    if has_snapshot(host, snapshot)? {
        host.run(&Cmd::new("zfs").args(["destroy", snapshot]))?;
    }
    host.run(&Cmd::new("zfs").args(["snapshot", snapshot])).map(drop)
}
