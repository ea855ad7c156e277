//! Why a key is as it was.

use crate::machine::MachineError;

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
    /// Nobody has given its passphrase since the machine was started.
    #[error("`{dataset}` is locked")]
    Locked {
        /// The dataset.
        dataset: String,
    },
    /// It is not this passphrase that it has.
    #[error("that is not the passphrase of `{dataset}`")]
    WrongPassphrase {
        /// The dataset.
        dataset: String,
    },
    /// The machine itself has its key.
    #[error("`{dataset}` has no passphrase: this machine unlocks it by itself")]
    NoPassphrase {
        /// The dataset.
        dataset: String,
    },
    /// ZFS has taken a passphrase, and does not know it again.
    #[error("the new passphrase of `{dataset}` does not load it, though ZFS has taken it")]
    NotProven {
        /// The dataset.
        dataset: String,
        /// What ZFS says.
        source: MachineError,
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
            Self::Inherited { of, .. } => Some(format!("name `{of}`: what happens to its key is for both")),
            Self::Locked { dataset } => {
                Some(format!("`kldload key unlock {dataset}` asks for its passphrase; then again"))
            }
            Self::WrongPassphrase { dataset } => {
                Some(format!("`kldload key unlock {dataset}` asks again; nothing was changed"))
            }
            Self::NoPassphrase { dataset } => Some(format!(
                "`kldload key passphrase {dataset}` gives it one; when it is not mounted, `systemctl restart kldload-identity`"
            )),
            Self::NotProven { dataset, .. } => Some(format!(
                "`kldload key rotate {dataset}` gives it a machine key, as long as this machine does not restart"
            )),
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
