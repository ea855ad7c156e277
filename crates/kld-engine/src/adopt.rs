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

mod above;
mod back;
mod compare;
mod confirm;
mod error;
mod ground;
mod kernel;
mod settle;
mod store;
mod units;
pub(crate) mod users;
mod walk;
pub(crate) mod wish;

pub use back::Return;
pub use compare::{Comparison, Difference, Survey};
pub use error::AdoptError;
pub use ground::Ground;
pub use store::{Adoption, Stage};
pub use units::users_of_dataset;
pub use users::{User, users_of_device};
pub use wish::{Prospect, Wish};

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use kld_host::mounts::{self, Mount};
use kld_host::{Cmd, zfs};

use crate::engine::chain;
use crate::host::{Entry, HostError, Node};
use crate::pools;
use error::list;
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
    stop: &'a AtomicBool,
    person: Option<u32>,
}

/// Nobody wants anything to stop.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Why a directory does not become a dataset.
enum Failure {
    /// In words.
    Failed(String),
    /// Somebody wanted it to stop.
    Stopped,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
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

/// Users that stopping services does not end, or all.
fn in_the_way(users: &[User], stop: bool) -> Vec<User> {
    users.iter().filter(|user| !stop || user.unit.is_none()).cloned().collect()
}

pub(crate) fn mounts_of(ground: &dyn Ground) -> Result<Vec<Mount>, HostError> {
    Ok(mounts::parse(&crate::host::read(ground, "/proc/self/mountinfo")?.unwrap_or_default()))
}

impl<'a> Adopter<'a> {
    /// An adopter for a machine.
    pub fn new(ground: &'a dyn Ground) -> Self {
        Self { ground, starting: false, stop: &NEVER, person: None }
    }

    /// The same for a machine that is starting: services come later, by themselves.
    #[must_use]
    pub fn while_starting(mut self) -> Self {
        self.starting = true;
        self
    }

    /// The same that looks at this wherever it can still go back, also while it copies and compares, and does when it is set.
    #[must_use]
    pub fn unless(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = stop;
        self
    }

    /// The same for somebody who has become root to ask for it: what they could do in directories of theirs, they may do as root.
    #[must_use]
    pub fn on_behalf_of(mut self, person: Option<u32>) -> Self {
        self.person = person;
        self
    }

    /// What would be done, or why it cannot be.
    ///
    /// # Errors
    /// When it cannot be, or cannot be looked at.
    pub fn look(&self, wish: &Wish) -> Result<Prospect, AdoptError> {
        wish::look(self.ground, wish, self.person)
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
        let in_the_way = in_the_way(&prospect.users, stop);
        if !in_the_way.is_empty() {
            return Err(AdoptError::InUse { path, users: in_the_way });
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
            Err(failure) => {
                let error = match &failure {
                    Failure::Failed(reason) => reason.clone(),
                    Failure::Stopped => "told to stop".to_owned(),
                };
                // A journal that cannot take this line (a full disk) is read as interrupted, which means the same.
                let _ = store.write(&Event::Failed { error });
                watch.doing("it goes back");
                let stuck = |source| AdoptError::Stuck { path: path.clone(), source };
                let left = self.go_back(&store, watch).map_err(stuck)?;
                Err(match failure {
                    Failure::Failed(reason) => AdoptError::Failed { path, reason, left },
                    Failure::Stopped => AdoptError::Stopped { path, left },
                })
            }
        }
    }

    fn carry_out(
        &self,
        store: &Store<'_>,
        prospect: &Prospect,
        watch: &mut dyn Watch,
    ) -> Result<(), Failure> {
        let Adoption { path, dataset, aside, .. } = &store.adoption;
        let said = |error: HostError| Failure::Failed(chain(&error));
        self.is_wanted_still()?;
        watch.doing(&format!("make {dataset}"));
        self.create(&store.adoption).map_err(said)?;
        let units = units_of(&prospect.users);
        if !units.is_empty() {
            watch.doing(&format!("stop {}", units.iter().map(String::as_str).collect::<Vec<_>>().join(" ")));
            self.stop(store, &units).map_err(said)?;
        }
        self.is_wanted_still()?;
        self.unused(path)?;
        let fill = fill_mount(store.adoption.number);
        self.mount_for_filling(&store.adoption).map_err(said)?;
        let before = self.ground.survey(path).map_err(said)?;
        watch.doing(&format!("copy {} files and directories", before.entries));
        let copied = self.ground.run_unless(&copy_cmd(path, &fill), self.stop).map_err(said)?;
        copied.ok_or(Failure::Stopped)?;
        watch.doing("compare the copy with the directory");
        let comparison = self.ground.compare_unless(path, &fill, self.stop).map_err(said)?;
        let comparison = comparison.ok_or(Failure::Stopped)?;
        if !comparison.differences.is_empty() {
            return Err(format!("the copy is not the directory{}", list(&comparison.differences)).into());
        }
        if comparison.old != before.stamp {
            return Err("something in it was changed while it was copied, and copied all the same"
                .to_owned()
                .into());
        }
        let Comparison { old, new, .. } = comparison;
        store.write(&Event::Compared { old: old.clone(), new }).map_err(said)?;
        self.ground.run(&Cmd::new("umount").arg(&fill)).map_err(said)?;
        self.ground.put(aside, &PLACEHOLDER).map_err(said)?;
        self.unused(path)?;
        self.is_wanted_still()?;
        if let Some((reason, _)) = above::is_of_others(self.ground, path, self.person).map_err(said)? {
            return Err(reason.into());
        }
        watch.doing("exchange them");
        store.write(&Event::Swapping).map_err(said)?;
        self.exchange(path, aside).map_err(said)?;
        if self.ground.number(aside).map_err(said)? != Some(store.adoption.directory) {
            return Err("somebody has put another directory into its place".to_owned().into());
        }
        if !self.ground.list(path).map_err(said)?.is_empty() {
            return Err("something was written into its place in that instant".to_owned().into());
        }
        self.is_wanted_still()?;
        self.ground.run(&in_place_cmd(&store.adoption)).map_err(said)?;
        self.mount(&store.adoption).map_err(said)?;
        if self.is_something_hidden(&store.adoption).map_err(said)? {
            return Err("something was written into its place in that instant".to_owned().into());
        }
        // Whoever had it open across the exchange writes where nobody will look.
        self.unused(aside)?;
        if self.ground.survey(aside).map_err(said)?.stamp != old {
            let changed = self.ground.compare(aside, path).map_err(said)?;
            return Err(format!("it was changed after it was copied{}", list(&changed.differences)).into());
        }
        self.is_wanted_still()?;
        self.commit(store, watch).map_err(said)
    }

    fn is_wanted_still(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::SeqCst) { Err(Failure::Stopped) } else { Ok(()) }
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

    /// The dataset is in place, and that is on disk.
    fn complete(&self, adoption: &Adoption) -> Result<(), HostError> {
        self.ground.remove(&fill_mount(adoption.number))?;
        self.sync(adoption)
    }

    /// The same, known to systemd, and used by its services again.
    fn commit(&self, store: &Store<'_>, watch: &mut dyn Watch) -> Result<(), HostError> {
        // What its services write must not keep it from going back.
        self.complete(&store.adoption)?;
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

    /// Waits until all that was written is on disk, also where the directory lies, which may be another pool.
    fn sync(&self, adoption: &Adoption) -> Result<(), HostError> {
        pools::sync(self.ground, [adoption.dataset.as_str()], &[&adoption.aside])
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

    /// Brings what was interrupted to an end: by a kill or a power cut. Nothing to do is the usual case. One that cannot be ended
    /// keeps no other from its end, and is tried again the next time; the first of those is the error.
    pub fn recover(&self, watch: &mut dyn Watch) -> (Vec<Mended>, Result<(), AdoptError>) {
        let (mut mended, mut all) = (Vec::new(), Ok(()));
        let stores = match store::each(self.ground) {
            Ok(stores) => stores,
            Err(error) => return (mended, Err(error.into())),
        };
        for store in stores {
            match store.map_err(AdoptError::from).and_then(|store| self.mend(store, watch)) {
                Ok(done) => mended.extend(done),
                Err(error) if all.is_ok() => all = Err(error),
                Err(error) => watch.warn(&chain(&error)),
            }
        }
        (mended, all)
    }

    fn mend(&self, store: Store<'_>, watch: &mut dyn Watch) -> Result<Option<Mended>, AdoptError> {
        let stage = store.stage()?;
        let stuck = |source| AdoptError::Stuck { path: store.adoption.path.clone(), source };
        if self.starting && stage == Stage::Unconfirmed {
            // The cache may have been older than the dataset.
            self.mount_again(&store.adoption).map_err(stuck)?;
        }
        if stage != Stage::Interrupted {
            return Ok(None);
        }
        let (forward, left) = self.end(&store, watch).map_err(stuck)?;
        Ok(Some(Mended { adoption: store.adoption, forward, left }))
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
        // It does not go back from here: services need not wait for what may fail for other reasons.
        self.settle(store, watch);
        self.leave_fill_mount(&store.adoption)?;
        self.complete(&store.adoption)?;
        store.write(&Event::Adopted)?;
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
