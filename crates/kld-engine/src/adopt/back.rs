//! The directory comes back into its place.

use kld_host::{Cmd, zfs};

use super::compare::Difference;
use super::mounts;
use super::store::{Adoption, Event, Stage, Store, Told as _};
use super::users::User;
use super::{AdoptError, Adopter, Watch, fill_mount, in_the_way, mounts_of, units_of};
use crate::destroy::destroyed;
use crate::host::HostError;

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

impl Adopter<'_> {
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
        let users = super::units::users(self.ground, path)?;
        Ok(Return { adoption: store.adoption, differences, is_changed, users })
    }

    /// Brings the directory back. What was written since stays in the dataset, which gets another name. Gives where that is.
    ///
    /// # Errors
    /// As [`Adopter::look_back`]; when the dataset is in use; when it cannot be done, or somebody wants it to stop before it has
    /// begun.
    pub fn take_back(
        &self,
        path: &str,
        stop: bool,
        watch: &mut dyn Watch,
    ) -> Result<Vec<String>, AdoptError> {
        let Return { users, .. } = self.look_back(path)?;
        let in_the_way = in_the_way(&users, stop);
        if !in_the_way.is_empty() {
            return Err(AdoptError::InUse { path: path.to_owned(), users: in_the_way });
        }
        let store = self.waiting(path, &[Stage::Unconfirmed])?;
        // What adopting it has stopped runs again long since.
        store.write(&Event::Stopped { units: Vec::new() })?;
        store.write(&Event::TakingBack)?;
        let units = units_of(&users);
        let stopped = if units.is_empty() { Ok(()) } else { self.stop(&store, &units) };
        let done = match (stopped, self.is_wanted_still()) {
            (Ok(()), Ok(())) => self.go_back(&store, watch).map_err(AdoptError::from),
            (Ok(()), Err(_)) => Err(AdoptError::Stopped { path: path.to_owned(), left: Vec::new() }),
            (Err(error), _) => Err(error.into()),
        };
        if done.is_err() {
            // Usually nothing has happened: the dataset was busy.
            self.end(&store, watch).map_err(|source| AdoptError::Stuck { path: path.to_owned(), source })?;
        }
        done
    }

    /// The directory is in its place again, and the dataset is gone, or kept when something was written into it, or when somebody
    /// holds or has cloned a snapshot of it. What is done already is not done again. Gives what lies elsewhere now.
    pub(super) fn go_back(&self, store: &Store<'_>, watch: &mut dyn Watch) -> Result<Vec<String>, HostError> {
        let adoption = &store.adoption;
        let events = store.events()?;
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
        let forgotten = if point.is_some() { self.forget_in_cache(adoption) } else { Ok(()) };
        // The directory is in its place. Whatever else fails, services do not stay down for it.
        self.settle(store, watch);
        forgotten?;
        self.leave_fill_mount(adoption)?;
        let kept = format!("{}.undone-adopt-{:06}", adoption.dataset, adoption.number);
        if point.is_some() {
            // Before they began to change places, nobody could write into it.
            let may_go = !events.as_slice().began_to_swap() || self.is_untouched(adoption, &events)?;
            if !(may_go && destroyed(self.ground, &adoption.dataset)?) {
                self.ground.run(&Cmd::new("zfs").args(["rename", &adoption.dataset, &kept]))?;
            }
        }
        if self.ground.run(&Cmd::new("zfs").args(["list", "-H", "-o", "name", &kept]).accept(1))?.code == 0 {
            left.push(kept);
        }
        self.ground.remove(&fill_mount(adoption.number))?;
        self.sync(adoption)?;
        store.write(&Event::TakenBack)?;
        Ok(left)
    }

    pub(super) fn leave_fill_mount(&self, adoption: &Adoption) -> Result<(), HostError> {
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
}
