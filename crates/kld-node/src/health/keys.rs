//! Whether a dataset waits for somebody who knows its passphrase.

use super::{Probe, Status, View};
use crate::keys;

pub(super) fn probe(view: &View) -> Vec<Probe> {
    // A machine without encrypted datasets has nothing to be told.
    let Some(config) = view.config.as_ref().filter(|of| of.encrypted.iter().any(|of| of.key.is_some()))
    else {
        return Vec::new();
    };
    let locked = match keys::locked(&*view.machine, config) {
        Ok(locked) => locked,
        Err(error) => return vec![Probe::unanswered("keys", &error)],
    };
    vec![match &locked[..] {
        [] => Probe::new("keys", Status::Ok, "no dataset is locked"),
        some => Probe::new("keys", Status::Warn, format!("locked: {}", some.join(", ")))
            .with_subjects(some)
            .with_command(
                Vec::from_iter(some.iter().map(|of| format!("kldload key unlock {of}"))).join("; "),
            ),
    }]
}
