//! Secrets that people give to a machine that runs, and all that it has.
//!
//! A value goes to systemd-creds(1) through its stdin and lies sealed where the first start puts those that it makes:
//! services need not know where theirs has come from, and the next start keeps it.

use std::path::Path;

use kld_system::SECRETS;
use kld_system::node::{NodeConfig, NodeSecret, NodeSecretSource};
use serde::Serialize;

use crate::identity::secrets::seal;
use crate::machine::{Machine, MachineError};

/// What systemd takes as a credential: systemd.exec(5).
pub const MAX_BYTES: usize = 1 << 20;

/// Why a secret is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The machine refused.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Nothing is in it.
    #[error("the value of `{name}` is empty")]
    Empty {
        /// The secret.
        name: String,
    },
    /// systemd would not hand it to a service.
    #[error("the value of `{name}` is larger than a credential may be")]
    TooLarge {
        /// The secret.
        name: String,
    },
}

impl SecretError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Machine(error) => error.hint(),
            Self::Empty { name } => Some(format!("`kldload secret set {name} FILE` takes all of a file")),
            Self::TooLarge { .. } => Some("a credential has at most 1 MiB".to_owned()),
        }
    }
}

/// Where the value of a secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The machine makes it at its first start.
    Generated,
    /// A person gives it.
    Supplied,
    /// A person has given it, and no manifest of this machine asks for it yet.
    Unknown,
}

/// A secret, but for its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Where its value comes from.
    pub origin: Origin,
    /// Whether the machine has it.
    pub is_there: bool,
    /// When it was sealed, in seconds since 1970.
    pub since: Option<u64>,
    /// Where it lies sealed.
    pub sealed: String,
    /// The units that are started with it.
    pub used_by: Vec<String>,
}

/// Every secret that the machine has or should have, by name. A machine that nothing was applied to yet has no `config`.
///
/// # Errors
/// When the folder of secrets cannot be read.
pub fn list(machine: &dyn Machine, config: Option<&NodeConfig>) -> Result<Vec<Secret>, SecretError> {
    let there = machine.list(Path::new(SECRETS))?;
    let known: &[NodeSecret] = config.map_or(&[], |config| &config.secrets);
    let secret = |name: &str, sealed: String, origin, used_by| Secret {
        name: name.to_owned(),
        origin,
        is_there: there.contains(&format!("{name}.cred")),
        since: machine.modified(Path::new(&sealed)),
        sealed,
        used_by,
    };
    let mut all: Vec<Secret> = known
        .iter()
        .map(|of| {
            let origin = match of.source {
                NodeSecretSource::Generate { .. } => Origin::Generated,
                NodeSecretSource::Supplied { .. } => Origin::Supplied,
            };
            secret(&of.name, of.credential_file.clone(), origin, of.used_by.clone())
        })
        .collect();
    let others = there.iter().filter_map(|name| name.strip_suffix(".cred"));
    for name in others.filter(|name| !known.iter().any(|of| of.name == **name)) {
        all.push(secret(name, format!("{SECRETS}/{name}.cred"), Origin::Unknown, Vec::new()));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Whether a value can be one. Touches nothing.
///
/// # Errors
/// When it cannot.
pub fn check(name: &str, value: &[u8]) -> Result<(), SecretError> {
    match value.len() {
        0 => Err(SecretError::Empty { name: name.to_owned() }),
        length if length > MAX_BYTES => Err(SecretError::TooLarge { name: name.to_owned() }),
        _ => Ok(()),
    }
}

/// Seals a value for this machine alone and puts it at `sealed`, in place of an older one.
///
/// # Errors
/// When it cannot be sealed or written; then the older one is there.
pub fn set(machine: &dyn Machine, name: &str, sealed: &Path, value: &[u8]) -> Result<(), SecretError> {
    check(name, value)?;
    machine.make_folder(Path::new(SECRETS))?;
    Ok(seal(machine, name, value, sealed)?)
}
