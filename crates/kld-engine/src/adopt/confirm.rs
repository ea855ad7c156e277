//! The directory that was kept may go.

use kld_host::Cmd;

use super::compare::Survey;
use super::store::{Adoption, Event, Stage, Told as _};
use super::{AdoptError, Adopter, MARK};

impl Adopter<'_> {
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
        let is_it = self.ground.number(aside)? == Some(store.adoption.directory);
        // One that is removed by half is no longer what it was.
        let is_half = store.stage()? == Stage::Freeing;
        if !(is_it && (is_half || was == Some(&survey.stamp))) {
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
        self.sync(&store.adoption)?;
        store.write(&Event::Confirmed)?;
        Ok(store.adoption)
    }
}
