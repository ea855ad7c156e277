//! Keys of encrypted datasets: which there are, and new ones in place of old ones.
//!
//! A key lies sealed by systemd-creds(1) in two places: in the boot environment, where boot unseals it, and outside of every
//! boot environment, in `/var/lib/kldload/keys`. `zfs change-key` and these files cannot change in one instant, so
//!
//! 1. the new key is sealed in `/var/lib/kldload/keys`, unsealed again, and put where ZFS reads it;
//! 2. `zfs change-key`: from here on, the new one counts;
//! 3. `zfs load-key -n` proves it;
//! 4. the sealed key of the boot environment is replaced.
//!
//! `settle` runs at every start, before a key is loaded: when the two files differ, it tries both and keeps the one that
//! loads. So a death at any of these steps costs nothing, and neither does going back to a boot environment whose key is old,
//! or that has none.
//!
//! A person can have the key instead: a passphrase, of which nothing is kept. Which it is, ZFS knows (`keyformat`), and that
//! changes in one instant, with the key. So a sealed key of a dataset that has a passphrase is a leftover, and every start
//! removes it; unless another dataset was made with it, which was put aside or renamed since.

mod error;
mod passphrase;
mod sealed;
mod waiting;

use std::collections::BTreeMap;
use std::path::Path;

use kld_host::zfs;
use kld_system::node::{NodeConfig, NodeDatasetKey};
use serde::Serialize;

use crate::identity::secrets::unseal;
use crate::machine::{Machine, MachineError};

pub use error::KeyError;
pub use passphrase::{MAX_BYTES, Passphrase, PassphraseError, Unlocked, asks, set_passphrase, unlock};
use sealed::{differ, forget, newest, put_for_zfs, put_in_both, remains};
pub(crate) use sealed::{prepare, settle, unseal_for_zfs};

/// A key of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The dataset.
    pub dataset: String,
    /// `aes-256-gcm`.
    pub algorithm: String,
    /// `available` or `unavailable`, as ZFS says; `not there`: there is no such dataset.
    pub status: String,
    /// Whether a person has it, as a passphrase: it is sealed nowhere.
    pub passphrase: bool,
    /// Where it lies sealed.
    pub sealed: Option<String>,
    /// When it was sealed, in seconds since 1970; `None`: it is not there.
    pub since: Option<u64>,
    /// Whether a rotation was interrupted.
    pub interrupted: bool,
}

/// Every key that this machine keeps.
///
/// # Errors
/// When ZFS or a file cannot be asked.
pub fn list(machine: &dyn Machine, config: &NodeConfig) -> Result<Vec<Key>, KeyError> {
    let mut keys = Vec::new();
    let mut states = states(machine, config)?;
    for (dataset, key) in kept(config) {
        let not_there = || State { status: "not there".to_owned(), by_passphrase: false };
        let State { status, by_passphrase } = states.remove(dataset).unwrap_or_else(not_there);
        let sealed = (!by_passphrase).then(|| key.credential_file.clone());
        keys.push(Key {
            dataset: dataset.to_owned(),
            algorithm: key.algorithm.clone(),
            status,
            passphrase: by_passphrase,
            since: sealed.as_ref().and_then(|sealed| machine.modified(Path::new(sealed))),
            sealed,
            interrupted: match by_passphrase {
                true => remains(machine, key) && needed_by(machine, config, dataset, key)?.is_none(),
                false => differ(machine, key)?,
            },
        });
    }
    Ok(keys)
}

fn kept(config: &NodeConfig) -> impl Iterator<Item = (&str, &NodeDatasetKey)> {
    config.encrypted.iter().filter_map(|wanted| Some((wanted.dataset.as_str(), wanted.key.as_ref()?)))
}

/// Whether a dataset could be given a new key. Touches nothing, and says who has the one that it has.
///
/// # Errors
/// When it could not.
pub fn check(machine: &dyn Machine, config: &NodeConfig, dataset: &str) -> Result<Holder, KeyError> {
    let key = find(config, dataset)?;
    let named = || dataset.to_owned();
    let now = state(machine, dataset)?;
    match (now.is_loaded(), now.by_passphrase) {
        (true, _) => {}
        (false, true) => return Err(KeyError::Locked { dataset: named() }),
        (false, false) => return Err(KeyError::NotLoaded { dataset: named() }),
    }
    match needed_by(machine, config, dataset, key)? {
        Some(with) => Err(KeyError::Shared { dataset: named(), with }),
        None => Ok(if now.by_passphrase { Holder::Person } else { Holder::Machine }),
    }
}

/// Another dataset that was made with the sealed key of this one: it was put aside, or renamed.
fn needed_by(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
    key: &NodeDatasetKey,
) -> Result<Option<String>, MachineError> {
    let text = machine.run_text(zfs::get_cmd(&config.pool, &["keylocation"], true))?;
    let location = format!("file://{}", key.key_file);
    let mut others = zfs::parse_get(&text)?.into_iter().filter(|of| of.dataset != dataset);
    Ok(others.find(|of| of.value == location).map(|other| other.dataset))
}

/// What became of the sealed key of a dataset that has a passphrase.
pub(crate) enum Leftover {
    /// There was none.
    None,
    /// It is gone.
    Removed,
    /// This dataset has no other.
    NeededBy(String),
}

/// Removes the sealed key of a dataset that has a passphrase, when it is nobody else's.
pub(crate) fn forget_leftover(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
    key: &NodeDatasetKey,
) -> Result<Leftover, MachineError> {
    if !remains(machine, key) {
        return Ok(Leftover::None);
    }
    if let Some(other) = needed_by(machine, config, dataset, key)? {
        return Ok(Leftover::NeededBy(other));
    }
    forget(machine, key)?;
    Ok(Leftover::Removed)
}

/// Gives a dataset a new key, and says each step. One that has a passphrase has a key of the machine from then on.
///
/// # Errors
/// When a step fails; then the dataset has the key that it had, or the next start will find out which it has.
pub fn rotate(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
    say: &mut dyn FnMut(&str),
) -> Result<(), KeyError> {
    let holder = check(machine, config, dataset)?;
    let key = find(config, dataset)?;
    if holder == Holder::Machine {
        match settle(machine, dataset, key) {
            // That is what a new one is for.
            Err(KeyError::OnlyLoaded { .. }) => {}
            other => drop(other?),
        }
    }
    let done = replace(machine, dataset, key, holder, say);
    if done.is_err() {
        // What ZFS reads is the key that it has; when this fails too, the next start does it.
        let _ = state(machine, dataset).map(|now| tidy(machine, config, dataset, key, &now));
    }
    done
}

fn find<'a>(config: &'a NodeConfig, dataset: &str) -> Result<&'a NodeDatasetKey, KeyError> {
    let of = |name: &str| kept(config).find(|(kept, _)| *kept == name).map(|(_, key)| key);
    if let Some(key) = of(dataset) {
        return Ok(key);
    }
    let dataset = dataset.to_owned();
    let above = dataset.match_indices('/').map(|(end, _)| &dataset[..end]);
    let root = above.rev().find(|name| of(name).is_some());
    Err(match root.map(str::to_owned) {
        Some(of) if config.encrypted.iter().any(|wanted| wanted.dataset == dataset) => {
            KeyError::Inherited { dataset, of }
        }
        _ => {
            let known = kept(config).map(|(name, _)| name.to_owned()).collect();
            KeyError::Unknown { dataset, known }
        }
    })
}

fn replace(
    machine: &dyn Machine,
    dataset: &str,
    key: &NodeDatasetKey,
    holder: Holder,
    say: &mut dyn FnMut(&str),
) -> Result<(), KeyError> {
    let newest = newest(key);
    say("make a new key and seal it");
    let bytes = sealed::make(machine, key)?;
    let unsealed = unseal(machine, &key.credential, &newest)?;
    if unsealed != bytes {
        return Err(KeyError::NotTheSame { dataset: dataset.to_owned() });
    }
    // A start of the identity's unit would take it for a leftover, as long as the dataset has its passphrase.
    let sealed = machine.read(&newest)?.unwrap_or_default();
    put_for_zfs(machine, key, &unsealed)?;
    say("zfs change-key");
    let location = format!("file://{}", key.key_file);
    let format: &[_] = match holder {
        Holder::Machine => &[],
        Holder::Person => &[("keyformat", "raw"), ("keylocation", &location)],
    };
    machine.run(zfs::change_key_cmd(dataset, format), &[])?;
    say("prove that the sealed key loads the dataset");
    machine.run(zfs::check_key_cmd(dataset), &[])?;
    Ok(put_in_both(machine, key, &sealed)?)
}

/// Ends changes of keys that were interrupted; the datasets whose keys were settled. One that cannot be ended keeps no other from
/// its end.
///
/// # Errors
/// When one cannot be ended: the first.
pub fn recover(machine: &dyn Machine, config: &NodeConfig) -> Result<Vec<String>, KeyError> {
    let (mut settled, mut first) = (Vec::new(), None);
    let states = states(machine, config)?;
    for (dataset, key) in kept(config).filter(|(dataset, _)| states.contains_key(*dataset)) {
        match tidy(machine, config, dataset, key, &states[dataset]) {
            Ok(true) => settled.push(dataset.to_owned()),
            Ok(false) => {}
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.map_or(Ok(settled), Err)
}

/// What is sealed is what loads the dataset, and nothing is when that is a passphrase. Whether something was not so.
fn tidy(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
    key: &NodeDatasetKey,
    now: &State,
) -> Result<bool, KeyError> {
    if now.by_passphrase {
        let left = forget_leftover(machine, config, dataset, key)?;
        return Ok(matches!(left, Leftover::Removed));
    }
    if differ(machine, key)? { settle(machine, dataset, key) } else { Ok(false) }
}

/// Who has the key of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This machine, sealed.
    Machine,
    /// Whoever knows its passphrase.
    Person,
}

/// How it is with the key of a dataset.
#[derive(Default)]
pub(crate) struct State {
    /// `available` or `unavailable`.
    status: String,
    pub(crate) by_passphrase: bool,
}

impl State {
    pub(crate) fn is_loaded(&self) -> bool {
        self.status == "available"
    }

    /// `-` is that of a dataset in clear.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.status == "unavailable"
    }
}

/// Asks ZFS, which alone knows.
pub(crate) fn state(machine: &dyn Machine, dataset: &str) -> Result<State, MachineError> {
    let mut found = ask(machine, dataset, false)?;
    Ok(found.remove(dataset).unwrap_or_default())
}

/// Of every dataset that is there.
fn states(machine: &dyn Machine, config: &NodeConfig) -> Result<BTreeMap<String, State>, MachineError> {
    ask(machine, &config.pool, true)
}

fn ask(
    machine: &dyn Machine,
    dataset: &str,
    recursive: bool,
) -> Result<BTreeMap<String, State>, MachineError> {
    let text = machine.run_text(zfs::get_cmd(dataset, &["keyformat", "keystatus"], recursive))?;
    let mut found = BTreeMap::new();
    for property in zfs::parse_get(&text)? {
        let of: &mut State = found.entry(property.dataset).or_default();
        match &property.name[..] {
            "keystatus" => of.status = property.value,
            _ => of.by_passphrase = property.value == "passphrase",
        }
    }
    Ok(found)
}

/// Every dataset with a key of its own that nobody has given the passphrase of.
///
/// # Errors
/// When ZFS cannot be asked.
pub(crate) fn locked(machine: &dyn Machine, config: &NodeConfig) -> Result<Vec<String>, MachineError> {
    let states = states(machine, config)?;
    let is_locked =
        |name: &&str| states.get(*name).is_some_and(|now| now.by_passphrase && now.is_unavailable());
    Ok(kept(config).map(|(dataset, _)| dataset).filter(is_locked).map(str::to_owned).collect())
}
