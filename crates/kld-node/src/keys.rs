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

mod sealed;

use std::path::Path;
use std::time::Duration;

use kld_host::{Cmd, zfs};
use kld_system::node::{NodeConfig, NodeDatasetKey};
use serde::Serialize;

use crate::identity::secrets::{seal, unseal};
use crate::machine::{Machine, MachineError};

use sealed::{KEPT, differ, newest, put_for_zfs, put_in_both};
pub(crate) use sealed::{prepare, settle, unseal_for_zfs};

const DEADLINE: Duration = Duration::from_secs(60);

/// Why a key is as it was.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The machine refused.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No key of this machine belongs to it.
    #[error("kldload keeps no key of `{dataset}`")]
    Unknown {
        /// What was asked for.
        dataset: String,
        /// Those that it keeps.
        known: Vec<String>,
    },
    /// It uses the key of another dataset.
    #[error("`{dataset}` uses the key of `{of}`")]
    Inherited {
        /// What was asked for.
        dataset: String,
        /// Whose key that is.
        of: String,
    },
    /// Without its key, a dataset takes no other.
    #[error("the key of `{dataset}` is not loaded")]
    NotLoaded {
        /// The dataset.
        dataset: String,
    },
    /// What came out of the seal is not what was sealed.
    #[error("the new key of `{dataset}` cannot be unsealed: systemd-creds gives other bytes")]
    NotTheSame {
        /// The dataset.
        dataset: String,
    },
    /// No sealed key fits.
    #[error("none of the sealed keys loads `{dataset}`")]
    NoneLoads {
        /// The dataset.
        dataset: String,
    },
    /// It is loaded, and would be for the last time.
    #[error("the key of `{dataset}` is loaded, and no sealed key is the same")]
    OnlyLoaded {
        /// The dataset.
        dataset: String,
    },
    /// A new one would not load what is there.
    #[error("the sealed key of `{dataset}` is missing")]
    Missing {
        /// The dataset.
        dataset: String,
        /// Where it should lie.
        kept: String,
    },
    /// A dataset of this name is there, and lies in clear.
    #[error("`{dataset}` is there, and is not encrypted")]
    NotEncrypted {
        /// The dataset.
        dataset: String,
    },
    /// Another dataset was made with the sealed key of this one: it was put aside, or renamed.
    #[error("`{with}` needs the sealed key of `{dataset}`")]
    Shared {
        /// What was asked for.
        dataset: String,
        /// Who needs it, too.
        with: String,
    },
}

impl KeyError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Machine(error) => error.hint(),
            Self::Unknown { dataset, known } if known.is_empty() => {
                Some(format!("`zfs change-key {dataset}` asks for a new passphrase, when it has one"))
            }
            Self::Unknown { known, .. } => Some(format!("it keeps those of: {}", known.join(", "))),
            Self::Inherited { of, .. } => Some(format!("`kldload key rotate {of}` changes it for both")),
            Self::NotLoaded { dataset } => Some(format!("`zfs load-key {dataset}`")),
            Self::NotTheSame { .. } => {
                Some("`systemd-creds --version` and the TPM are worth a look".to_owned())
            }
            Self::NoneLoads { dataset } => Some(format!(
                "`zfs load-key -L prompt {dataset}` takes a key from a backup; keep both sealed files"
            )),
            Self::OnlyLoaded { dataset } => Some(format!(
                "`kldload key rotate {dataset}` gives it a new one, as long as this machine does not restart"
            )),
            Self::Missing { kept, .. } => Some(format!(
                "put it back, from a backup or another boot environment (`kbe list`): {kept}; then `systemctl restart kldload-identity`"
            )),
            Self::NotEncrypted { .. } => {
                Some("make a dataset beside it, copy into it, and swap their mountpoints".to_owned())
            }
            Self::Shared { with, .. } => {
                Some(format!("copy what you need of it; then `zfs destroy -r {with}`"))
            }
        }
    }
}

/// A key of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The dataset.
    pub dataset: String,
    /// `aes-256-gcm`.
    pub algorithm: String,
    /// `available` or `unavailable`, as ZFS says.
    pub status: String,
    /// Where it lies sealed.
    pub sealed: String,
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
    for (dataset, key) in kept(config) {
        let sealed = Path::new(&key.credential_file);
        keys.push(Key {
            dataset: dataset.to_owned(),
            algorithm: key.algorithm.clone(),
            status: status(machine, dataset)?,
            sealed: key.credential_file.clone(),
            since: machine.modified(sealed),
            interrupted: differ(machine, key)?,
        });
    }
    Ok(keys)
}

fn kept(config: &NodeConfig) -> impl Iterator<Item = (&str, &NodeDatasetKey)> {
    config.encrypted.iter().filter_map(|wanted| Some((wanted.dataset.as_str(), wanted.key.as_ref()?)))
}

/// Whether a dataset could be given a new key. Touches nothing.
///
/// # Errors
/// When it could not.
pub fn check(machine: &dyn Machine, config: &NodeConfig, dataset: &str) -> Result<(), KeyError> {
    let key = find(config, dataset)?;
    let named = || dataset.to_owned();
    if status(machine, dataset)? != "available" {
        return Err(KeyError::NotLoaded { dataset: named() });
    }
    let text = machine.run_text(zfs::get_cmd(&config.pool, &["keylocation"], true))?;
    let location = format!("file://{}", key.key_file);
    let found = zfs::parse_get(&text).map_err(MachineError::from)?;
    let mut others = found.into_iter().filter(|of| of.dataset != dataset);
    match others.find(|of| of.value == location) {
        Some(other) => Err(KeyError::Shared { dataset: named(), with: other.dataset }),
        None => Ok(()),
    }
}

/// Gives a dataset a new key, and says each step.
///
/// # Errors
/// When a step fails; then the dataset has the key that it had, or the next start will find out which it has.
pub fn rotate(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
    say: &mut dyn FnMut(&str),
) -> Result<(), KeyError> {
    check(machine, config, dataset)?;
    let key = find(config, dataset)?;
    match settle(machine, dataset, key) {
        // That is what a new one is for.
        Err(KeyError::OnlyLoaded { .. }) => {}
        other => drop(other?),
    }
    let done = replace(machine, dataset, key, say);
    if done.is_err() {
        // What ZFS reads is the key that it has; when this fails too, the next start does it.
        let _ = settle(machine, dataset, key);
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
    say: &mut dyn FnMut(&str),
) -> Result<(), KeyError> {
    let newest = newest(key);
    say("make a new key and seal it");
    let mut bytes = [0; 32];
    machine.fill_random(&mut bytes);
    machine.make_folder(Path::new(KEPT))?;
    seal(machine, &key.credential, &bytes, &newest)?;
    let unsealed = unseal(machine, &key.credential, &newest)?;
    if unsealed != bytes {
        return Err(KeyError::NotTheSame { dataset: dataset.to_owned() });
    }
    put_for_zfs(machine, key, &unsealed)?;
    say("zfs change-key");
    machine.run(zfs::change_key_cmd(dataset), &[])?;
    say("prove that the sealed key loads the dataset");
    machine.run(zfs::check_key_cmd(dataset), &[])?;
    Ok(put_in_both(machine, key, &newest)?)
}

/// Ends rotations that were interrupted; the datasets whose keys were settled.
///
/// # Errors
/// When one cannot be ended.
pub fn recover(machine: &dyn Machine, config: &NodeConfig) -> Result<Vec<String>, KeyError> {
    let mut settled = Vec::new();
    for (dataset, key) in kept(config) {
        if differ(machine, key)? && settle(machine, dataset, key)? {
            settled.push(dataset.to_owned());
        }
    }
    Ok(settled)
}

fn status(machine: &dyn Machine, dataset: &str) -> Result<String, MachineError> {
    let get = Cmd::new("zfs").args(["get", "-H", "-o", "name,property,value,source", "keystatus", dataset]);
    let text = machine.run_text(get.timeout(DEADLINE))?;
    Ok(zfs::parse_get(&text)?.into_iter().next().map(|property| property.value).unwrap_or_default())
}
