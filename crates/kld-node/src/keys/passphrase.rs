//! A passphrase in place of a key of the machine, and unlocking by it.
//!
//! It goes to ZFS through standard input and nowhere else.

use std::fmt;

use kld_host::zfs;
use kld_system::node::NodeConfig;

use super::{Holder, KeyError, check, find, forget, state, waiting};
use crate::machine::{Machine, MachineError};

/// What ZFS takes: zfsprops(7), *keyformat*.
pub const MAX_BYTES: usize = 512;
const MIN_BYTES: usize = 8;

/// What `keyformat` and `keylocation` become.
const FORMAT: [(&str, &str); 2] = [("keyformat", "passphrase"), ("keylocation", "prompt")];

/// One line that ZFS takes as a passphrase. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Vec<u8>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Why something is no passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// ZFS takes no shorter one.
    #[error("a passphrase has at least {MIN_BYTES} bytes")]
    TooShort,
    /// ZFS takes no longer one.
    #[error("a passphrase has at most {MAX_BYTES} bytes")]
    TooLong,
    /// Nobody could type it at a console.
    #[error("a passphrase is one line of text, without control characters")]
    NotALine,
}

impl PassphraseError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooShort => {
                Some("four words that have nothing to do with each other are a good one".to_owned())
            }
            Self::TooLong | Self::NotALine => None,
        }
    }
}

impl Passphrase {
    /// The line break at the end of a line is not a part of it.
    ///
    /// # Errors
    /// When ZFS would not take it, or would take a part of it only.
    pub fn new(line: &[u8]) -> Result<Self, PassphraseError> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match text.len() {
            _ if text.iter().any(u8::is_ascii_control) => Err(PassphraseError::NotALine),
            0..MIN_BYTES => Err(PassphraseError::TooShort),
            length if length > MAX_BYTES => Err(PassphraseError::TooLong),
            _ => Ok(Self([text, b"\n"].concat())),
        }
    }

    /// It, without the line break.
    pub fn text(&self) -> &[u8] {
        self.0.strip_suffix(b"\n").unwrap_or(&self.0)
    }
}

/// Gives a dataset a passphrase, or another one, and says each step. No key of the machine is left.
///
/// # Errors
/// When a step fails; then the dataset has the key that it had, or the passphrase: the next start will find out, and removes
/// the sealed key in that case.
pub fn set_passphrase(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
    passphrase: &Passphrase,
    say: &mut dyn FnMut(&str),
) -> Result<(), KeyError> {
    let holder = check(machine, config, dataset)?;
    let key = find(config, dataset)?;
    if holder == Holder::Machine {
        waiting::let_go(machine, key)?;
    }
    say("zfs change-key");
    machine.run(zfs::change_key_cmd(dataset, &FORMAT), &passphrase.0)?;
    say("prove that the passphrase loads the dataset");
    let proven = machine.run(zfs::check_key_cmd(dataset), &passphrase.0);
    // Proven or not, it loads the dataset no more.
    if forget(machine, key)? {
        say("the sealed key is removed");
    }
    proven.map(drop).map_err(|source| KeyError::NotProven { dataset: dataset.to_owned(), source })
}

/// Whether a dataset waits for its passphrase. Touches nothing.
///
/// # Errors
/// When it has none.
pub fn asks(machine: &dyn Machine, config: &NodeConfig, dataset: &str) -> Result<bool, KeyError> {
    find(config, dataset)?;
    let found = state(machine, dataset)?;
    if !found.by_passphrase {
        return Err(KeyError::NoPassphrase { dataset: dataset.to_owned() });
    }
    Ok(!found.is_loaded())
}

/// What is there again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unlocked {
    /// The datasets that were mounted.
    pub mounted: Vec<String>,
    /// The services that were started.
    pub started: Vec<String>,
}

/// Loads the key of a dataset, when it waits for its `passphrase`; mounts it and those below it that have no key of their own,
/// and starts the services that have waited for them.
///
/// # Errors
/// When the passphrase is wrong; then nothing has changed. When something cannot be mounted or started; once more does the rest.
pub fn unlock(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
    passphrase: Option<&Passphrase>,
) -> Result<Unlocked, KeyError> {
    if let Some(Passphrase(line)) = passphrase {
        machine.run(zfs::check_key_cmd(dataset), line).map_err(|error| or_wrong(error, dataset))?;
        waiting::stop_asking(machine, dataset)?;
        machine.run(zfs::load_key_cmd(dataset), line).map_err(|error| or_wrong(error, dataset))?;
    }
    let mounted = waiting::mount(machine, config, dataset)?;
    let started = waiting::start(machine, config, dataset)?;
    Ok(Unlocked { mounted, started })
}

fn or_wrong(error: MachineError, dataset: &str) -> KeyError {
    let said = error.exec().and_then(kld_host::ExecError::stderr).unwrap_or_default();
    if said.contains("Incorrect key provided") {
        return KeyError::WrongPassphrase { dataset: dataset.to_owned() };
    }
    error.into()
}
