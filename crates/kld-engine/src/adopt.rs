//! A directory becomes a dataset: copied, compared, exchanged, and the directory kept until somebody says it may go.
//!
//! ```text
//! /srv/app                                  the directory, later the mount point of the dataset
//! /srv/.app.before-adopt-000001             an empty directory, later the directory itself
//! /run/kldload/adopt-000001                 where the dataset is mounted while it is filled
//! ```
//!
//! The copy is compared by code that is no relative of the copier. Nothing of the directory changes until it is the same; then
//! the two directories change places in one instant, and one `zfs set` mounts the dataset. That property is the point of
//! no doubt: whatever the machine dies of, [`Adopter::recover`] reads it, and goes back before and forward after it. The
//! directory must be what was compared when it lies aside, or all goes back; and once more before it is removed.

mod compare;
mod ground;
mod mounts;
mod store;
mod users;
mod walk;
mod wish;

pub use compare::{Comparison, Difference, Survey};
pub use ground::Ground;
pub use store::{Adoption, Stage};
pub use users::User;
pub use wish::{Prospect, Wish};

use std::collections::BTreeSet;
use std::time::Duration;

use kld_host::{Cmd, zfs};

use crate::engine::chain;
use crate::host::{Entry, HostError, Node};
use mounts::Mount;
use store::{Event, Store, Told};

/// Marks a dataset as being made by the adoption of this number.
const MARK: &str = "org.kldload:adoption";
/// Nobody looks into it while it is empty, and no service writes into what its dataset is to hide.
const PLACEHOLDER: Entry = Entry { node: Node::Directory, mode: 0, uid: 0, gid: 0 };

/// Where an adopter says what it does.
pub trait Watch {
    /// What is being done.
    fn doing(&mut self, what: &str);
    /// What is not as it should be, though the work goes on.
    fn warn(&mut self, what: &str);
}

/// What a directory cannot be adopted for, or not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It cannot be: nothing was touched.
    #[error("cannot adopt `{path}`: {reason}")]
    Refused {
        /// The directory.
        path: String,
        /// Why not.
        reason: String,
        /// What the person can do.
        hint: String,
    },
    /// Somebody uses it: nothing was touched.
    #[error("`{path}` is in use{}", list(users))]
    InUse {
        /// The directory.
        path: String,
        /// By whom.
        users: Vec<User>,
    },
    /// It did not work out, and the directory is as it was.
    #[error("`{path}` was not adopted, and is as it was: {reason}")]
    Failed {
        /// The directory.
        path: String,
        /// Why, in the tool's own words.
        reason: String,
        /// What was written into its place meanwhile, when something was.
        left: Vec<String>,
    },
    /// Nothing of this name waits to be confirmed.
    #[error("`{path}` is not an adopted directory that waits to be confirmed")]
    NotWaiting {
        /// The directory.
        path: String,
    },
    /// The directory that was kept is not what was copied.
    #[error("the directory kept as `{aside}` has changed since it was copied{}", list(differences))]
    Changed {
        /// Where it is.
        aside: String,
        /// How it differs from the dataset now.
        differences: Vec<Difference>,
    },
    /// An adoption was interrupted, and cannot be brought to an end.
    #[error("cannot end the adoption of `{path}`, which was interrupted")]
    Stuck {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: HostError,
    },
    /// The machine refused.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// One per line, indented.
fn list<T: std::fmt::Display>(of: &[T]) -> String {
    of.iter().map(|one| format!("\n  {one}")).collect()
}

impl AdoptError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::InUse { users, .. } => {
                let units = units_of(users);
                Some(if units.is_empty() {
                    "end what uses it; a shell that works in it leaves it with `cd /`".to_owned()
                } else {
                    let units: Vec<&str> = units.iter().map(String::as_str).collect();
                    format!(
                        "`systemctl stop {}`, or `--stop-services` stops and starts them again",
                        units.join(" ")
                    )
                })
            }
            Self::Failed { left, .. } if !left.is_empty() => {
                Some(format!("`{}` holds what was written meanwhile", left.join("`, `")))
            }
            Self::Failed { reason, .. } if reason.contains("access control list") => {
                Some("`-o acltype=posix -o xattr=sa` gives the dataset access control lists".to_owned())
            }
            Self::Failed { reason, .. } if reason.contains("of chattr") => {
                Some("`lsattr` shows the flag, `chattr` takes it away".to_owned())
            }
            Self::Failed { .. } => Some("mend what it names, and adopt again".to_owned()),
            Self::NotWaiting { .. } => Some("`kldload adopt --list` shows what was adopted".to_owned()),
            Self::Changed { aside, .. } => {
                Some(format!("take what you need from `{aside}` and remove it yourself, or `--undo`"))
            }
            Self::Stuck { .. } => {
                Some("mend what the error names, then `kldload recover` goes on".to_owned())
            }
            Self::Host(error) => error.hint(),
        }
    }
}

/// What [`Adopter::look_back`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// What was adopted.
    pub adoption: Adoption,
    /// How the dataset differs from the directory by now; the dataset is kept when there is something.
    pub differences: Vec<Difference>,
    /// Whether something was written since.
    pub is_changed: bool,
    /// Who uses it.
    pub users: Vec<User>,
}

/// How [`Adopter::recover`] has brought something to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// What was interrupted.
    pub adoption: Adoption,
    /// Whether the dataset is in place; otherwise the directory is.
    pub forward: bool,
    /// What was written meanwhile and lies elsewhere.
    pub left: Vec<String>,
}

/// Adopts directories of one machine. Whoever uses it holds the machine's lock.
#[derive(Clone, Copy)]
pub struct Adopter<'a> {
    ground: &'a dyn Ground,
    starting: bool,
}

impl std::fmt::Debug for Adopter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Adopter")
    }
}

/// The units that can be stopped.
pub(crate) fn units_of(users: &[User]) -> BTreeSet<String> {
    users.iter().filter_map(|user| user.unit.clone()).collect()
}

fn mounts_of(ground: &dyn Ground) -> Result<Vec<Mount>, HostError> {
    Ok(mounts::parse(&crate::host::read(ground, "/proc/self/mountinfo")?.unwrap_or_default()))
}

impl<'a> Adopter<'a> {
    /// An adopter for a machine.
    pub fn new(ground: &'a dyn Ground) -> Self {
        Self { ground, starting: false }
    }

    /// The same for a machine that is starting: services come later, by themselves.
    #[must_use]
    pub fn while_starting(mut self) -> Self {
        self.starting = true;
        self
    }

    /// What would be done, or why it cannot be.
    ///
    /// # Errors
    /// When it cannot be, or cannot be looked at.
    pub fn look(&self, wish: &Wish) -> Result<Prospect, AdoptError> {
        wish::look(self.ground, wish)
    }

    /// Every adoption and how far it is, oldest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn all(&self) -> Result<Vec<(Adoption, Stage)>, HostError> {
        store::all(self.ground)?
            .into_iter()
            .map(|store| Ok((store.adoption.clone(), store.stage()?)))
            .collect()
    }

    /// Adopts a directory. With `stop`, the services that use it are stopped meanwhile.
    ///
    /// # Errors
    /// When it fails; then the directory is as it was, unless the error is [`AdoptError::Stuck`].
    pub fn adopt(
        &self,
        prospect: &Prospect,
        by: &str,
        stop: bool,
        watch: &mut dyn Watch,
    ) -> Result<Adoption, AdoptError> {
        let path = prospect.path.clone();
        let nobody_else = prospect.users.iter().all(|user| user.unit.is_some());
        if !prospect.users.is_empty() && !(stop && nobody_else) {
            let users = prospect.users.iter().filter(|user| !stop || user.unit.is_none()).cloned().collect();
            return Err(AdoptError::InUse { path, users });
        }
        let number = store::next(self.ground)?;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let Some(directory) = self.ground.number(&path)? else {
            return Err(AdoptError::Failed { path, reason: "it is gone".to_owned(), left: Vec::new() });
        };
        let adoption = Adoption {
            number,
            at: self.ground.now(),
            by: by.to_owned(),
            aside: format!("{above}/.{name}.before-adopt-{number:06}"),
            dataset: prospect.dataset.clone(),
            properties: prospect.properties.clone(),
            directory,
            path: path.clone(),
        };
        let store = store::begin(self.ground, adoption)?;
        match self.carry_out(&store, prospect, watch) {
            Ok(()) => Ok(store.adoption),
            Err(reason) => {
                // A journal that cannot take this line (a full disk) is read as interrupted, which means the same.
                let _ = store.write(&Event::Failed { error: reason.clone() });
                watch.doing("it goes back");
                let stuck = |source| AdoptError::Stuck { path: path.clone(), source };
                let left = self.go_back(&store, watch).map_err(stuck)?;
                Err(AdoptError::Failed { path, reason, left })
            }
        }
    }

    fn carry_out(&self, store: &Store<'_>, prospect: &Prospect, watch: &mut dyn Watch) -> Result<(), String> {
        let Adoption { path, dataset, aside, .. } = &store.adoption;
        let said = |error: HostError| chain(&error);
        watch.doing(&format!("make {dataset}"));
        self.create(&store.adoption).map_err(said)?;
        let units = units_of(&prospect.users);
        if !units.is_empty() {
            watch.doing(&format!("stop {}", units.iter().map(String::as_str).collect::<Vec<_>>().join(" ")));
            self.stop(store, &units).map_err(said)?;
        }
        self.unused(path)?;
        let fill = fill_mount(store.adoption.number);
        self.mount_for_filling(&store.adoption).map_err(said)?;
        let before = self.ground.survey(path).map_err(said)?;
        watch.doing(&format!("copy {} files and directories", before.entries));
        self.ground.run(&copy_cmd(path, &fill)).map_err(said)?;
        watch.doing("compare the copy with the directory");
        let comparison = self.ground.compare(path, &fill).map_err(said)?;
        if !comparison.differences.is_empty() {
            return Err(format!("the copy is not the directory{}", list(&comparison.differences)));
        }
        if comparison.old != before.stamp {
            return Err("something in it was changed while it was copied, and copied all the same".to_owned());
        }
        let Comparison { old, new, .. } = comparison;
        store.write(&Event::Compared { old: old.clone(), new }).map_err(said)?;
        self.ground.run(&Cmd::new("umount").arg(&fill)).map_err(said)?;
        self.ground.put(aside, &PLACEHOLDER).map_err(said)?;
        self.unused(path)?;
        watch.doing("exchange them");
        store.write(&Event::Swapping).map_err(said)?;
        self.exchange(path, aside).map_err(said)?;
        if self.ground.number(aside).map_err(said)? != Some(store.adoption.directory) {
            return Err("somebody has put another directory into its place".to_owned());
        }
        if !self.ground.list(path).map_err(said)?.is_empty() {
            return Err("something was written into its place in that instant".to_owned());
        }
        self.ground.run(&in_place_cmd(&store.adoption)).map_err(said)?;
        self.mount(&store.adoption).map_err(said)?;
        if self.is_something_hidden(&store.adoption).map_err(said)? {
            return Err("something was written into its place in that instant".to_owned());
        }
        // Whoever had it open across the exchange writes where nobody will look.
        self.unused(aside)?;
        if self.ground.survey(aside).map_err(said)?.stamp != old {
            let changed = self.ground.compare(aside, path).map_err(said)?;
            return Err(format!("it was changed after it was copied{}", list(&changed.differences)));
        }
        self.commit(store, watch).map_err(said)
    }

    /// Whether something lies in the empty directory, below the dataset that is mounted on it.
    fn is_something_hidden(&self, adoption: &Adoption) -> Result<bool, HostError> {
        let (above, name) = adoption.path.rsplit_once('/').unwrap_or(("", &adoption.path));
        let above = if above.is_empty() { "/" } else { above };
        let fill = fill_mount(adoption.number);
        // What is mounted below does not come along.
        self.ground.run(&Cmd::new("mount").args(["--bind", above, &fill]))?;
        let found = self.ground.list(&format!("{fill}/{name}"));
        self.ground.run(&Cmd::new("umount").arg(&fill))?;
        Ok(!found?.is_empty())
    }

    /// The dataset is in place: on disk, known to systemd, used by its services again.
    fn commit(&self, store: &Store<'_>, watch: &mut dyn Watch) -> Result<(), HostError> {
        self.ground.remove(&fill_mount(store.adoption.number))?;
        self.sync()?;
        self.settle(store, watch);
        store.write(&Event::Adopted)
    }

    /// Nobody uses it, or an error that says who does.
    fn unused(&self, path: &str) -> Result<(), String> {
        let users = self.ground.users(path).map_err(|error| chain(&error))?;
        if users.is_empty() { Ok(()) } else { Err(format!("it is in use{}", list(&users))) }
    }

    fn create(&self, adoption: &Adoption) -> Result<(), HostError> {
        let number = adoption.number.to_string();
        let mut properties = vec![("canmount", "noauto"), ("mountpoint", "legacy"), (MARK, &number)];
        properties.extend(adoption.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.ground.run(&zfs::create_cmd(&adoption.dataset, &properties)).map(drop)
    }

    /// Stops services, and remembers all that stopped with them.
    fn stop(&self, store: &Store<'_>, units: &BTreeSet<String>) -> Result<(), HostError> {
        let before = self.active()?;
        store.write(&Event::Stopped { units: units.iter().cloned().collect() })?;
        self.ground.run(&Cmd::new("systemctl").arg("stop").args(units))?;
        let after = self.active()?;
        let units: BTreeSet<String> = before.difference(&after).chain(units).cloned().collect();
        store.write(&Event::Stopped { units: units.into_iter().collect() })
    }

    fn active(&self) -> Result<BTreeSet<String>, HostError> {
        let cmd = Cmd::new("systemctl").args([
            "list-units",
            "--plain",
            "--no-legend",
            "--type=service",
            "--state=active",
        ]);
        let text = String::from_utf8_lossy(&self.ground.run(&cmd)?.stdout).into_owned();
        Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    fn mount_for_filling(&self, adoption: &Adoption) -> Result<(), HostError> {
        let fill = fill_mount(adoption.number);
        self.ground.put(&fill, &Entry { mode: 0o700, ..PLACEHOLDER })?;
        self.ground.run(&Cmd::new("mount").args(["-t", "zfs", &adoption.dataset, &fill])).map(drop)
    }

    /// `path` becomes the empty directory, `aside` the directory.
    fn exchange(&self, path: &str, aside: &str) -> Result<(), HostError> {
        if self.ground.exchange(path, aside)? {
            return Ok(());
        }
        self.ground.remove(aside)?;
        self.ground.rename(path, aside)?;
        self.ground.put(path, &PLACEHOLDER)
    }

    /// Mounts the dataset in its place, unless it is.
    fn mount(&self, adoption: &Adoption) -> Result<(), HostError> {
        if self.is_mounted(adoption)? {
            return Ok(());
        }
        self.ground.run(&zfs::mount_cmd(&adoption.dataset)).map(drop)
    }

    fn is_mounted(&self, adoption: &Adoption) -> Result<bool, HostError> {
        let mounts = mounts_of(self.ground)?;
        Ok(mounts::mounted_on(&mounts, &adoption.path).is_some_and(|mount| mount.source == adoption.dataset))
    }

    fn sync(&self) -> Result<(), HostError> {
        self.ground.run(&Cmd::new("zpool").arg("sync")).map(drop)
    }

    /// What the dataset of an adoption has for a mount point; `None`: there is none, or another has that name.
    fn mount_point(&self, adoption: &Adoption) -> Result<Option<String>, HostError> {
        let there = Cmd::new("zfs").args(["list", "-H", "-o", "name", &adoption.dataset]).accept(1);
        if self.ground.run(&there)?.code != 0 {
            return Ok(None);
        }
        let output = self.ground.run(&zfs::get_cmd(&adoption.dataset, &["mountpoint", MARK], false))?;
        let found = zfs::parse_get(&String::from_utf8_lossy(&output.stdout))?;
        let value = |name: &str| found.iter().find(|property| property.name == name);
        let number = adoption.number.to_string();
        let is_ours =
            value(MARK).is_some_and(|mark| mark.value == number && !mark.source.starts_with("inherited"));
        Ok(value("mountpoint").filter(|_| is_ours).map(|property| property.value.clone()))
    }

    /// The directory is in its place again, and the dataset is gone, or kept when something was written into it. What is
    /// done already is not done again. Gives what lies elsewhere now.
    fn go_back(&self, store: &Store<'_>, watch: &mut dyn Watch) -> Result<Vec<String>, HostError> {
        let adoption = &store.adoption;
        let events = store.events()?;
        self.leave_fill_mount(adoption)?;
        let point = self.mount_point(adoption)?;
        if point.is_some() && self.is_mounted(adoption)? {
            // Not `zfs unmount`, which refuses one whose mount point is `legacy` by now.
            self.ground.run(&Cmd::new("umount").arg(&adoption.path))?;
        }
        if point.as_ref().is_some_and(|point| *point == adoption.path) {
            let aside = [("canmount", "noauto"), ("mountpoint", "legacy")];
            self.ground.run(&zfs::set_cmd(&adoption.dataset, &aside))?;
        }
        let mut left = Vec::new();
        left.extend(self.bring_back(adoption)?);
        let kept = format!("{}.undone-adopt-{:06}", adoption.dataset, adoption.number);
        if point.is_some() {
            self.forget_in_cache(adoption)?;
            // Before they began to change places, nobody could write into it.
            if events.as_slice().began_to_swap() && !self.is_untouched(adoption, &events)? {
                self.ground.run(&Cmd::new("zfs").args(["rename", &adoption.dataset, &kept]))?;
            } else {
                // A timer may have snapshotted it: nothing is in those either.
                let snapshots = format!("{}@%", adoption.dataset);
                self.ground.run(&Cmd::new("zfs").args(["destroy", &snapshots]).accept(1))?;
                self.ground.run(&Cmd::new("zfs").args(["destroy", &adoption.dataset]))?;
            }
        }
        if self.ground.run(&Cmd::new("zfs").args(["list", "-H", "-o", "name", &kept]).accept(1))?.code == 0 {
            left.push(kept);
        }
        self.ground.remove(&fill_mount(adoption.number))?;
        self.sync()?;
        self.settle(store, watch);
        store.write(&Event::TakenBack)?;
        Ok(left)
    }

    fn leave_fill_mount(&self, adoption: &Adoption) -> Result<(), HostError> {
        let fill = fill_mount(adoption.number);
        if mounts::mounted_on(&mounts_of(self.ground)?, &fill).is_none() {
            return Ok(());
        }
        self.ground.run(&Cmd::new("umount").arg(&fill)).map(drop)
    }

    /// Nothing has happened to the dataset since it was a copy of the directory, and nothing was made in it.
    fn is_untouched(&self, adoption: &Adoption, events: &[Event]) -> Result<bool, HostError> {
        let Some((_, new)) = events.stamps() else { return Ok(false) };
        let below = Cmd::new("zfs").args([
            "list",
            "-H",
            "-r",
            "-o",
            "name",
            "-t",
            "filesystem,volume",
            &adoption.dataset,
        ]);
        let below = String::from_utf8_lossy(&self.ground.run(&below)?.stdout).lines().count();
        self.mount_for_filling(adoption)?;
        let survey = self.ground.survey(&fill_mount(adoption.number));
        self.ground.run(&Cmd::new("umount").arg(fill_mount(adoption.number)))?;
        Ok(below == 1 && survey?.stamp == new)
    }

    /// The directory is in its place, and the empty one is gone. Gives what was written into that one meanwhile.
    fn bring_back(&self, adoption: &Adoption) -> Result<Option<String>, HostError> {
        let Adoption { path, aside, directory, .. } = adoption;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let meanwhile = format!("{above}/.{name}.meanwhile-adopt-{:06}", adoption.number);
        if self.ground.number(path)? != Some(*directory) {
            if self.ground.number(aside)? != Some(*directory) {
                let what = "not the directory that was to be adopted, and neither is that kept aside";
                return Err(HostError::InTheWay { path: path.clone(), what });
            }
            let is_there = self.ground.number(path)?.is_some();
            if !(is_there && self.ground.exchange(path, aside)?) {
                if is_there {
                    self.put_away(path, &meanwhile)?;
                }
                self.ground.rename(aside, path)?;
            }
        }
        if self.ground.number(aside)?.is_some() {
            self.put_away(aside, &meanwhile)?;
        }
        Ok(self.ground.number(&meanwhile)?.map(|_| meanwhile))
    }

    /// Removes an empty directory; renames one that is not.
    fn put_away(&self, path: &str, name: &str) -> Result<(), HostError> {
        if self.ground.list(path)?.is_empty() {
            self.ground.remove(path)
        } else {
            self.ground.rename(path, name)
        }
    }

    /// The next start will mount what is mounted now, and what was stopped runs again. What cannot be done is said.
    fn settle(&self, store: &Store<'_>, watch: &mut dyn Watch) {
        if self.starting {
            return;
        }
        if let Some(warning) = self.wait_for_cache(&store.adoption) {
            watch.warn(&warning);
        }
        if let Err(error) = self.ground.run(&Cmd::new("systemctl").arg("daemon-reload")) {
            watch.warn(&chain(&error));
        }
        let units = store.events().map(|events| events.as_slice().stopped()).unwrap_or_default();
        if !units.is_empty() {
            watch.doing(&format!("start {}", units.join(" ")));
            if let Err(error) = self.ground.run(&Cmd::new("systemctl").arg("start").args(units)) {
                watch.warn(&chain(&error));
            }
        }
    }

    /// Mount units are made of a cache that ZFS's event daemon writes: until it has, a start would not mount the dataset.
    fn wait_for_cache(&self, adoption: &Adoption) -> Option<String> {
        let is_there = self.is_mounted(adoption).unwrap_or(false);
        let cache = cache_of(adoption);
        (!self.cache_comes_to(adoption, is_there)).then(|| {
            format!("`{cache}` is not up to date: `systemctl restart zfs-zed`, or the next start does not mount what it should")
        })
    }

    /// A start must not mount what is about to go, and would fail when it is gone.
    fn forget_in_cache(&self, adoption: &Adoption) -> Result<(), HostError> {
        // While the machine starts, the daemon does not run yet.
        if !self.starting && self.cache_comes_to(adoption, false) {
            return self.sync();
        }
        let cache = cache_of(adoption);
        let Some(text) = crate::host::read(self.ground, &cache)? else { return Ok(()) };
        let line = format!("{}\t", adoption.dataset);
        let rest: String =
            text.lines().filter(|of| !of.starts_with(&line)).map(|of| format!("{of}\n")).collect();
        if rest == text {
            return Ok(());
        }
        let entry = Entry { node: Node::File(rest.into_bytes()), mode: 0o644, uid: 0, gid: 0 };
        self.ground.put(&cache, &entry)
    }

    /// Waits until the cache mounts the dataset in its place, or does not; `false`: it takes too long.
    fn cache_comes_to(&self, adoption: &Adoption, wanted: bool) -> bool {
        let line = format!("{}\t{}\ton\t", adoption.dataset, adoption.path);
        for _ in 0..50 {
            // A machine without a cache mounts by other means.
            let Ok(Some(text)) = crate::host::read(self.ground, &cache_of(adoption)) else { return true };
            if text.lines().any(|of| of.starts_with(&line)) == wanted {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// Brings what was interrupted to an end: by a kill or a power cut. Nothing to do is the usual case.
    ///
    /// # Errors
    /// When it cannot be ended; then it is tried again the next time.
    pub fn recover(&self, watch: &mut dyn Watch) -> Result<Vec<Mended>, AdoptError> {
        let mut mended = Vec::new();
        for store in store::all(self.ground)? {
            let stage = store.stage()?;
            let stuck = |source| AdoptError::Stuck { path: store.adoption.path.clone(), source };
            if self.starting && stage == Stage::Unconfirmed {
                // The cache may have been older than the dataset.
                self.mount_again(&store.adoption).map_err(stuck)?;
            }
            if stage != Stage::Interrupted {
                continue;
            }
            let (forward, left) = self.end(&store, watch).map_err(stuck)?;
            mended.push(Mended { adoption: store.adoption, forward, left });
        }
        Ok(mended)
    }

    fn mount_again(&self, adoption: &Adoption) -> Result<(), HostError> {
        let point = self.mount_point(adoption)?;
        if point.is_some_and(|point| point == adoption.path) { self.mount(adoption) } else { Ok(()) }
    }

    fn end(&self, store: &Store<'_>, watch: &mut dyn Watch) -> Result<(bool, Vec<String>), HostError> {
        let is_in_place =
            self.mount_point(&store.adoption)?.is_some_and(|point| point == store.adoption.path);
        let must_go_back = store.events()?.as_slice().has_failed();
        if !is_in_place || must_go_back {
            return Ok((false, self.go_back(store, watch)?));
        }
        self.mount(&store.adoption)?;
        self.leave_fill_mount(&store.adoption)?;
        self.commit(store, watch)?;
        Ok((true, Vec::new()))
    }

    fn waiting(&self, path: &str, stages: &[Stage]) -> Result<Store<'a>, AdoptError> {
        let stores = store::all(self.ground)?;
        let found = stores.into_iter().rev().find(|store| store.adoption.path == path);
        match found {
            Some(store) if stages.contains(&store.stage()?) => Ok(store),
            _ => Err(AdoptError::NotWaiting { path: path.to_owned() }),
        }
    }

    /// What removing the kept directory would free: the directory as it is, and the adoption.
    ///
    /// # Errors
    /// When nothing waits there, or what was kept is not what was copied.
    pub fn look_at_kept(&self, path: &str) -> Result<(Adoption, Survey), AdoptError> {
        let store = self.waiting(path, &[Stage::Unconfirmed, Stage::Freeing])?;
        let Adoption { aside, .. } = &store.adoption;
        if self.ground.number(aside)?.is_none() {
            return Ok((store.adoption, Survey::default()));
        }
        let survey = self.ground.survey(aside)?;
        let events = store.events()?;
        let was = events.as_slice().stamps().map(|(old, _)| old);
        let is_same =
            was == Some(&survey.stamp) && self.ground.number(aside)? == Some(store.adoption.directory);
        // One that is removed by half is no longer what it was.
        if store.stage()? == Stage::Unconfirmed && !is_same {
            let differences = self.ground.compare(aside, path)?.differences;
            return Err(AdoptError::Changed { aside: aside.clone(), differences });
        }
        if !self.is_mounted(&store.adoption)? {
            let reason = format!(
                "`{}` is not mounted on it, and `{aside}` may be all there is",
                store.adoption.dataset
            );
            let hint = format!("`zfs mount {}`", store.adoption.dataset);
            return Err(AdoptError::Refused { path: path.to_owned(), reason, hint });
        }
        Ok((store.adoption, survey))
    }

    /// Removes the kept directory. Interrupted, it goes on when it is called again.
    ///
    /// # Errors
    /// As [`Adopter::look_at_kept`], or when it cannot be removed.
    pub fn confirm(&self, path: &str) -> Result<Adoption, AdoptError> {
        self.look_at_kept(path)?;
        let store = self.waiting(path, &[Stage::Unconfirmed, Stage::Freeing])?;
        store.write(&Event::Freeing)?;
        let remove = Cmd::new("rm").args(["-rf", "--one-file-system", "--", &store.adoption.aside]);
        self.ground.run(&remove)?;
        self.ground.run(&Cmd::new("zfs").args(["inherit", MARK, &store.adoption.dataset]))?;
        self.sync()?;
        store.write(&Event::Confirmed)?;
        Ok(store.adoption)
    }

    /// What taking an adoption back would mean.
    ///
    /// # Errors
    /// When nothing waits there, or the directory is not where it was kept.
    pub fn look_back(&self, path: &str) -> Result<Return, AdoptError> {
        let store = self.waiting(path, &[Stage::Unconfirmed])?;
        let Adoption { aside, directory, dataset, .. } = &store.adoption;
        let refuse =
            |reason: String, hint: String| AdoptError::Refused { path: path.to_owned(), reason, hint };
        if self.ground.number(aside)? != Some(*directory) {
            return Err(refuse(
                format!("the directory is no longer kept as `{aside}`"),
                "the dataset stays".to_owned(),
            ));
        }
        if self.mount_point(&store.adoption)?.as_deref() != Some(path) {
            let hint = format!("`zfs set mountpoint={path} {dataset}` when it still is the one");
            return Err(refuse(format!("`{dataset}` does not belong there any more"), hint));
        }
        let mounts = mounts_of(self.ground)?;
        if let Some(mount) =
            mounts.iter().find(|mount| mount.point != path && mounts::is_within(&mount.point, path))
        {
            let reason = format!("`{}` is mounted inside of it, on `{}`", mount.source, mount.point);
            return Err(refuse(reason, format!("`umount {}` first", mount.point)));
        }
        let mut differences = Vec::new();
        let mut is_changed = false;
        if self.is_mounted(&store.adoption)? {
            let events = store.events()?;
            let was = events.as_slice().stamps().map(|(_, new)| new);
            is_changed = was != Some(&self.ground.survey(path)?.stamp);
            if is_changed {
                differences = self.ground.compare(aside, path)?.differences;
            }
        }
        let users = self.ground.users(path)?;
        Ok(Return { adoption: store.adoption, differences, is_changed, users })
    }

    /// Brings the directory back. What was written since stays in the dataset, which gets another name. Gives where that is.
    ///
    /// # Errors
    /// As [`Adopter::look_back`]; when the dataset is in use; when it cannot be done.
    pub fn take_back(
        &self,
        path: &str,
        stop: bool,
        watch: &mut dyn Watch,
    ) -> Result<Vec<String>, AdoptError> {
        let Return { users, .. } = self.look_back(path)?;
        let mut others = users.clone();
        others.retain(|user| !stop || user.unit.is_none());
        if !others.is_empty() {
            return Err(AdoptError::InUse { path: path.to_owned(), users: others });
        }
        let store = self.waiting(path, &[Stage::Unconfirmed])?;
        // What adopting it has stopped runs again long since.
        store.write(&Event::Stopped { units: Vec::new() })?;
        store.write(&Event::TakingBack)?;
        let units = units_of(&users);
        let stopped = if units.is_empty() { Ok(()) } else { self.stop(&store, &units) };
        match stopped.and_then(|()| self.go_back(&store, watch)) {
            Ok(left) => Ok(left),
            Err(source) => {
                // Usually nothing has happened: the dataset was busy.
                self.end(&store, watch)
                    .map_err(|source| AdoptError::Stuck { path: path.to_owned(), source })?;
                Err(source.into())
            }
        }
    }
}

/// What mount units are made of: zfs-mount-generator(8).
fn cache_of(adoption: &Adoption) -> String {
    let pool = adoption.dataset.split('/').next().unwrap_or_default();
    format!("/etc/zfs/zfs-list.cache/{pool}")
}

/// Where a dataset is mounted while it is filled: in a RAM disk, for root alone.
fn fill_mount(number: u32) -> String {
    format!("/run/kldload/adopt-{number:06}")
}

/// `cp` is in every Debian, and takes along links, sparse files, attributes, ACLs, capabilities and devices. Blocks are not
/// shared with the original (`--reflink`): files get the block size and compression of their new dataset, and what is
/// compared is a copy. It ends when this process does, however that ends.
fn copy_cmd(from: &str, to: &str) -> Cmd {
    let words = ["--pdeathsig", "KILL", "--", "cp", "-a", "--reflink=never", "--"];
    Cmd::new("setpriv").args(words).arg(format!("{from}/.")).arg(to).needs("cp")
}

/// The one change after which the dataset is what lies at the path: set in one transaction, and mounted.
fn in_place_cmd(adoption: &Adoption) -> Cmd {
    zfs::set_cmd(&adoption.dataset, &[("canmount", "on"), ("mountpoint", &adoption.path)])
}
