//! What a plan needs and nobody may read: it goes from the manifest to a tool's stdin and is neither written nor printed. And
//! what services need and is not in the manifest.

use std::collections::BTreeMap;
use std::fmt;

use kld_system::NodeSecretSource;

use crate::host::{Host, HostError};
use crate::wanted::Wanted;

/// Where `ImportCredential=` finds what was given to the machine at its start, or put there since: systemd.exec(5).
const GIVEN: [&str; 8] = [
    "/run/credentials/@system",
    "/run/credentials/@encrypted",
    "/etc/credstore",
    "/run/credstore",
    "/usr/lib/credstore",
    "/etc/credstore.encrypted",
    "/run/credstore.encrypted",
    "/usr/lib/credstore.encrypted",
];

/// A secret that a person must give, that is not sealed on the machine, and that its next identity would not find either.
pub(crate) fn missing(host: &dyn Host, wanted: &Wanted) -> Result<Option<String>, HostError> {
    for secret in wanted.system.node.iter().flat_map(|node| &node.secrets) {
        let NodeSecretSource::Supplied { credential } = &secret.source else { continue };
        let given = GIVEN.iter().map(|folder| format!("{folder}/{credential}"));
        let is_there = |path: &String| Ok(host.entry(path)?.is_some());
        let mut found = [secret.credential_file.clone()].into_iter().chain(given).map(|path| is_there(&path));
        if !found.any(|found: Result<bool, HostError>| !matches!(found, Ok(false))) {
            return Ok(Some(secret.name.clone()));
        }
    }
    Ok(None)
}

/// Texts by the step that needs them, see [`crate::plan::key`].
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secrets(BTreeMap<String, String>);

impl Secrets {
    pub(crate) fn insert(&mut self, step: String, text: String) {
        self.0.insert(step, text);
    }

    /// # Errors
    /// When the plan is one that was read from disk: it can be looked at, and not carried out.
    pub(crate) fn get(&self, step: &str) -> Result<&str, HostError> {
        self.0.get(step).map(String::as_str).ok_or_else(|| HostError::NoSecret(step.to_owned()))
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
