//! `kldload node init`: everything that makes this machine this machine and no other.
//!
//! Every step makes what is missing and leaves what is there. Steps are independent: one that fails is reported, and
//! the others still run, so that a machine with a broken secret can still be reached over its mesh. A step killed at
//! any instant is finished by the next run.

mod authorized_keys;
mod certificate;
pub(crate) mod encrypted;
mod entries;
mod esp;
mod host_id;
mod host_name;
mod issue;
pub(crate) mod mounts;
mod operator;
mod pool;
mod replication;
pub(crate) mod secrets;
mod seed;
mod ssh;
mod wireguard;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::config as test_config;

use crate::machine::{Machine, MachineError};
use kld_disk::boot_entry::EntryError;
use kld_system::node::NodeConfig;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a step sees.
struct Node<'a> {
    machine: &'a dyn Machine,
    config: &'a NodeConfig,
}

/// What a step has done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// What was made, one phrase each; never a secret.
    made: Vec<String>,
    /// What was given and cannot be used, and why; what waits for a person.
    warnings: Vec<String>,
}

impl Changes {
    fn made(what: impl Into<String>) -> Self {
        Self { made: vec![what.into()], warnings: Vec::new() }
    }
}

type StepResult = Result<Changes, IdentityError>;

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("the EFI system partition is not mounted on `{mount}`")]
    EspNotMounted { mount: String },
    #[error("no boot entry is in `{folder}`")]
    NoBootEntry { folder: String },
    #[error("boot entry `{path}` cannot be read")]
    BootEntry { path: String, source: EntryError },
    #[error("`{path}` does not hold a WireGuard key")]
    NotAKey { path: String },
    #[error("`{tool}` answered something unknown: {reason}")]
    Answer { tool: &'static str, reason: String },
    #[error("secret `{name}` was not given: there is no credential `{credential}`")]
    NotSupplied { name: String, credential: String },
    #[error(transparent)]
    Key(#[from] crate::keys::KeyError),
    #[error("{} of {all} failed: {}", failed.len(), failed.join("; "))]
    Several { all: usize, failed: Vec<String> },
}

impl IdentityError {
    /// Some of `all` have failed.
    fn several(all: usize, failed: &[Self]) -> Self {
        Self::Several { all, failed: failed.iter().map(|error| chain(error)).collect() }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Machine(error) => error.hint(),
            Self::EspNotMounted { mount } => {
                Some(format!("look at `systemctl status {}`", mount_unit(mount)))
            }
            Self::NoBootEntry { folder } => Some(format!("`ls -l {folder}` shows what is there")),
            Self::BootEntry { path, .. } => Some(format!("mend or remove `{path}`")),
            Self::NotAKey { path } => {
                Some(format!("remove `{path}` to have a new key made; peers must learn it"))
            }
            Self::Key(error) => error.hint(),
            Self::Answer { .. } => None,
            Self::NotSupplied { name, credential } => Some(format!(
                "`kldload secret set {name} FILE`, or start the machine with the systemd credential `{credential}`"
            )),
            Self::Several { .. } => {
                Some("the service that needs it does not start until it is there".to_owned())
            }
        }
    }
}

/// The name of the mount unit of a path: `/srv/a-b` → `srv-a\x2db.mount`.
fn mount_unit(path: &str) -> String {
    format!("{}.mount", unit_name(path.trim_matches('/')))
}

/// As systemd writes a path or a dataset in the name of a unit (systemd.unit(5), *String escaping*).
pub(crate) fn unit_name(path: &str) -> String {
    let mut name = String::new();
    for (index, byte) in path.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(char::from(byte)),
            other => name.push_str(&format!("\\x{other:02x}")),
        }
    }
    name
}

/// An error and everything that led to it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was there.
    Kept,
    /// Something was missing and is there now.
    Made,
    /// Something is still missing.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kept => "kept",
            Self::Made => "made",
            Self::Failed => "failed",
        })
    }
}

/// One step of [`init`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// The identity: `host-id`, `wireguard` …
    pub step: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was made; never a secret.
    pub made: Vec<String>,
    /// What was given to the machine and cannot be used, and why; what waits for a person.
    pub warnings: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// What the user can do.
    pub hint: Option<String>,
}

impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<15} {}", self.step, self.outcome)?;
        let details: Vec<&str> = self.made.iter().chain(&self.error).map(String::as_str).collect();
        if !details.is_empty() {
            write!(f, "  {}", details.join(", "))?;
        }
        for warning in &self.warnings {
            write!(f, "\n{:<15} warning  {warning}", self.step)?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n{:<15} hint  {hint}", self.step))
    }
}

/// What [`init`] has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitReport {
    /// In the order in which they ran.
    pub steps: Vec<StepReport>,
}

impl InitReport {
    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.steps.iter().all(|step| step.outcome != Outcome::Failed)
    }

    /// Whether nothing had to be made.
    pub fn is_unchanged(&self) -> bool {
        self.steps.iter().all(|step| step.outcome == Outcome::Kept)
    }
}

/// Makes every identity that is missing. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`; `done` is called after
/// each step.
pub fn init(
    machine: &dyn Machine,
    config: &NodeConfig,
    credentials: Option<&Path>,
    mut done: impl FnMut(&StepReport),
) -> InitReport {
    let node = Node { machine, config };
    let (supplied, mut notes) = seed::gather(machine, credentials);
    let mut report = InitReport { steps: Vec::new() };
    let mut step = |name: &'static str, result: StepResult| {
        let step = to_report(name, result);
        done(&step);
        report.steps.push(step);
    };
    // The loader first: without the host id in it, the next start after a power cut could not import the pool.
    let in_label = host_id::is_in_label(&node);
    step("esp", esp::ensure(&node));
    step("host-id", host_id::ensure(&node));
    step("host-name", host_name::ensure(&node, supplied.host_name.as_deref()));
    step("wireguard", wireguard::ensure(&node));
    step(
        "operators",
        operator::ensure(&node, &supplied.operators).map(|mut changes| {
            notes.append(&mut changes.warnings);
            changes.warnings = std::mem::take(&mut notes);
            changes
        }),
    );
    step("authorized-keys", authorized_keys::ensure(&node, &supplied.ssh_keys));
    step("ssh-host-keys", ssh::ensure(&node));
    step("certificate", certificate::ensure(&node));
    step("secrets", secrets::ensure(&node, credentials));
    step("disk", pool::ensure_disk_guid(&node));
    step("pool-guid", pool::ensure_guid(&node));
    step("label", host_id::settle(&node, in_label));
    step("pool-size", pool::ensure_size(&node));
    step("encryption", encrypted::ensure(&node));
    step("replication", replication::ensure(&node));
    step("issue", issue::ensure(&node));
    report
}

fn to_report(step: &'static str, result: StepResult) -> StepReport {
    match result {
        Ok(Changes { made, warnings }) => {
            let outcome = if made.is_empty() { Outcome::Kept } else { Outcome::Made };
            StepReport { step, outcome, made, warnings, error: None, hint: None }
        }
        Err(error) => StepReport {
            step,
            outcome: Outcome::Failed,
            made: Vec::new(),
            warnings: Vec::new(),
            error: Some(chain(&error)),
            hint: error.hint(),
        },
    }
}

/// Where the machine remembers what can be done only once and leaves no other trace.
const MARKERS: &str = "/var/lib/kldload/identity";

/// Runs `act` once in the machine's life. It may run twice when the machine dies right after it.
fn once(machine: &dyn Machine, marker: &str, act: impl FnOnce() -> StepResult) -> StepResult {
    let path = PathBuf::from(MARKERS).join(marker);
    if machine.has(&path) {
        return Ok(Changes::default());
    }
    let changes = act()?;
    machine.write(
        &path,
        format!("{}\n", changes.made.join(", ")).as_bytes(),
        crate::machine::Access::PUBLIC,
    )?;
    Ok(changes)
}

/// Writes a file unless it holds these bytes already.
fn write_if_other(
    machine: &dyn Machine,
    path: &str,
    bytes: &[u8],
    access: crate::machine::Access<'_>,
) -> Result<bool, MachineError> {
    let path = Path::new(path);
    if machine.read(path)?.as_deref() == Some(bytes) {
        return Ok(false);
    }
    machine.write(path, bytes, access)?;
    Ok(true)
}

/// The running kernel's host id.
pub(crate) const HOST_ID_PARAMETER: &str = host_id::PARAMETER;

/// The host id in `/etc/hostid`.
pub(crate) fn stored_host_id(machine: &dyn Machine) -> Result<Option<u32>, MachineError> {
    host_id::read_file(machine)
}

/// Every boot entry with the host id it carries, or why they cannot be read, in one line.
pub(crate) fn loader_host_ids(
    machine: &dyn Machine,
    esp: &str,
) -> Result<Vec<(String, Option<u32>)>, String> {
    let entries = entries::read(machine, esp).map_err(|error| chain(&error))?;
    let name = |path: PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(entries.into_iter().map(|(path, entry)| (name(path), host_id::entry_id(&entry))).collect())
}
