//! What a plan needs and nobody may read: it goes from the manifest to a tool's stdin and is neither written nor printed.

use std::collections::BTreeMap;
use std::fmt;

use crate::host::HostError;

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
