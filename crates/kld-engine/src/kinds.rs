//! The types of things that a machine is made of. Each is one file; [`ALL`] is the only list of them.

mod account;
mod dataset;
mod file;
mod image;
mod package;
mod unit;

pub use dataset::put_aside;
pub(crate) use dataset::{Locked, check_locked, is_birth, is_dataset, is_there_already, makes_a_dataset_at};
pub(crate) use file::{Settings, is_file, kept_content, put_settings, settings_of, shown_settings};
pub(crate) use package::{replaced as replaced_packages, root_dataset};
pub(crate) use unit::{
    leaves, look as look_at_units, properties as unit_properties, property as unit_property, recovers,
};

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::history::Store;
use crate::host::{Host, HostError};
use crate::locked::OffLock;
use crate::plan::{Action, Left, Step, key};
use crate::reboot::AtStart;
use crate::secrets::Secrets;
use crate::wanted::Wanted;

/// Every kind, in the order in which changes are made: data has a place before programs come, accounts come with
/// packages before files belong to them, files are there before images are pulled, and those before units start.
pub(crate) const ALL: [&dyn AnyKind; 6] =
    [&dataset::Dataset, &package::Package, &account::Account, &file::File, &image::Image, &unit::Unit];

/// What a kind has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Changes, in order.
    pub(crate) steps: Vec<Step>,
    /// What the manifest no longer mentions.
    pub(crate) left: Vec<Left>,
    /// What only a start of the machine brings.
    pub(crate) at_start: Option<AtStart>,
    /// Bytes on disk that the changes take, about.
    pub(crate) takes: u64,
    /// What is installed in another version than the lock file's, and stays.
    pub(crate) off_lock: Vec<OffLock>,
    /// Datasets that wait for a passphrase.
    pub(crate) locked: Vec<Locked>,
    /// Digest of each wanted thing by name.
    pub(crate) items: BTreeMap<String, String>,
    /// What the changes need and nobody may read, by [`crate::plan::key`].
    pub(crate) secrets: Secrets,
}

/// Why a kind has no plan.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It could not look at something.
    Look(&'static str, HostError),
    /// The pool is not there.
    NoPool(String, HostError),
    /// The manifest asks for what cannot be done.
    Refused { name: String, reason: String, hint: String },
}

/// What taking a change back means, once it has been lived with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WayBack {
    /// It is as before already, or nobody minds.
    Nothing,
    /// It stays, because others may need it by now; a command removes it.
    Stays(String),
    /// What happens to the thing, in words.
    Goes(Action, String),
}

/// A type of thing.
pub(crate) trait Kind: Sync {
    /// What is to be done with one thing, as a plan and a journal keep it.
    type Change: Serialize + DeserializeOwned;
    /// What it takes to go back.
    type Memory: Serialize + DeserializeOwned;
    /// The word for it in plans.
    const NAME: &'static str;
    /// Whether changes of it are changes of files on the root's dataset.
    const ON_ROOT: bool = true;
    /// Whether what it has brought stays when a plan that held is taken back, because others may need it by now.
    const STAYS: bool = false;

    /// Looks and compares. `before` holds the digests of what was wanted last, by [`crate::plan::key`]; `earlier` the
    /// steps that come before those of this kind.
    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        earlier: &[Step],
    ) -> Result<Found, Refusal>;

    /// What it takes to go back from a change that is about to be made. Changes nothing but the store.
    fn remember(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Self::Change,
    ) -> Result<Self::Memory, HostError>;

    /// Makes a change. What is done already is not done again.
    fn make(&self, host: &dyn Host, store: &Store<'_>, change: &Self::Change) -> Result<(), HostError>;

    /// Goes back, however much of the change was made. What is undone already is not undone again.
    fn undo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Self::Change,
        memory: &Self::Memory,
    ) -> Result<(), HostError>;

    /// What going back will do.
    fn way_back(
        &self,
        store: &Store<'_>,
        change: &Self::Change,
        memory: &Self::Memory,
    ) -> Result<WayBack, HostError>;

    /// How the thing differs from what the change has made of it, in words: somebody has changed it since, and going back would
    /// undo that, too. `None` when it is as it was left, or as it was before.
    fn changed(
        &self,
        _host: &dyn Host,
        _store: &Store<'_>,
        _change: &Self::Change,
        _memory: &Self::Memory,
    ) -> Result<Option<String>, HostError> {
        Ok(None)
    }

    /// What it takes to make a change once more that is about to be undone, `store` being that of the undo.
    fn remember_back(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Self::Change,
    ) -> Result<Self::Memory, HostError> {
        self.remember(host, store, change)
    }

    /// Goes forward to what was there before the change was undone, however much of it was: `memory` is what
    /// [`Kind::remember_back`] has found, `store` that of the undo, `of` that of the change. Nothing is asked of others.
    fn redo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        of: &Store<'_>,
        change: &Self::Change,
        memory: &Self::Memory,
    ) -> Result<(), HostError>;

    /// The names among [`Found::items`] of what a step changes.
    fn items_of(&self, name: &str, _change: &Self::Change) -> Vec<String> {
        vec![name.to_owned()]
    }

    /// Which of these things are no longer as they were wanted: names and digests as [`Found::items`] had them.
    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError>;
}

/// A [`Kind`] whose data is JSON.
pub(crate) trait AnyKind: Sync {
    fn name(&self) -> &'static str;
    fn is_on_root(&self) -> bool;
    fn stays(&self) -> bool;
    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        earlier: &[Step],
    ) -> Result<Found, Refusal>;
    fn remember(&self, host: &dyn Host, store: &Store<'_>, change: &Value) -> Result<Value, HostError>;
    fn make(&self, host: &dyn Host, store: &Store<'_>, change: &Value) -> Result<(), HostError>;
    fn undo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Value,
        memory: &Value,
    ) -> Result<(), HostError>;
    fn way_back(&self, store: &Store<'_>, change: &Value, memory: &Value) -> Result<WayBack, HostError>;
    fn changed(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Value,
        memory: &Value,
    ) -> Result<Option<String>, HostError>;
    fn remember_back(&self, host: &dyn Host, store: &Store<'_>, change: &Value) -> Result<Value, HostError>;
    fn redo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        of: &Store<'_>,
        change: &Value,
        memory: &Value,
    ) -> Result<(), HostError>;
    fn items_of(&self, step: &Step) -> Result<Vec<String>, HostError>;
    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError>;
}

impl<K: Kind> AnyKind for K {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn is_on_root(&self) -> bool {
        K::ON_ROOT
    }

    fn stays(&self) -> bool {
        K::STAYS
    }

    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        earlier: &[Step],
    ) -> Result<Found, Refusal> {
        Kind::compare(self, host, wanted, before, earlier)
    }

    fn remember(&self, host: &dyn Host, store: &Store<'_>, change: &Value) -> Result<Value, HostError> {
        Ok(to_value(&Kind::remember(self, host, store, &from_value(change)?)?))
    }

    fn make(&self, host: &dyn Host, store: &Store<'_>, change: &Value) -> Result<(), HostError> {
        Kind::make(self, host, store, &from_value(change)?)
    }

    fn undo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Value,
        memory: &Value,
    ) -> Result<(), HostError> {
        Kind::undo(self, host, store, &from_value(change)?, &from_value(memory)?)
    }

    fn way_back(&self, store: &Store<'_>, change: &Value, memory: &Value) -> Result<WayBack, HostError> {
        Kind::way_back(self, store, &from_value(change)?, &from_value(memory)?)
    }

    fn changed(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Value,
        memory: &Value,
    ) -> Result<Option<String>, HostError> {
        Kind::changed(self, host, store, &from_value(change)?, &from_value(memory)?)
    }

    fn remember_back(&self, host: &dyn Host, store: &Store<'_>, change: &Value) -> Result<Value, HostError> {
        Ok(to_value(&Kind::remember_back(self, host, store, &from_value(change)?)?))
    }

    fn redo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        of: &Store<'_>,
        change: &Value,
        memory: &Value,
    ) -> Result<(), HostError> {
        Kind::redo(self, host, store, of, &from_value(change)?, &from_value(memory)?)
    }

    fn items_of(&self, step: &Step) -> Result<Vec<String>, HostError> {
        Ok(Kind::items_of(self, &step.name, &from_value(&step.change)?))
    }

    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError> {
        Kind::drifted(self, host, items)
    }
}

/// Names of a kind that were wanted last, `before`, and are not among `items`, which are wanted now.
fn gone<'a>(
    kind: &str,
    before: &'a BTreeMap<String, String>,
    items: &'a BTreeMap<String, String>,
) -> impl DoubleEndedIterator<Item = &'a str> {
    let prefix = key(kind, "");
    let names = before.keys().filter_map(move |item| item.strip_prefix(prefix.as_str()));
    names.filter(|name| !items.contains_key(*name))
}

/// The kind with this name.
pub(crate) fn find(name: &str) -> Option<&'static dyn AnyKind> {
    ALL.into_iter().find(|kind| kind.name() == name)
}

/// Whether a step may cut somebody off who has come through the network.
pub(crate) fn may_cut_off(step: &Step) -> bool {
    step.kind == crate::services::KIND || file::describes_an_interface(step)
}

/// Plain data as JSON.
pub(crate) fn to_value<T: Serialize>(data: &T) -> Value {
    serde_json::to_value(data).expect("changes and memories have string keys and plain values only")
}

pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, HostError> {
    serde_json::from_value(value.clone()).map_err(|error| {
        HostError::Parse(kld_host::ParseError {
            tool: "kldload's journal",
            reason: format!("{error}; was it written by another version?"),
        })
    })
}

/// A digest of anything that prints itself.
pub(crate) fn digest(of: &impl std::fmt::Debug) -> String {
    hex(&Sha256::digest(format!("{of:?}").as_bytes()))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
