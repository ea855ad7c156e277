//! Secrets of services, kept encrypted by systemd-creds(1) for this machine alone.

use super::{Changes, IdentityError, Node, StepResult};
use crate::machine::{Access, Machine, MachineError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kld_host::Cmd;
use kld_system::node::{NodeSecret, NodeSecretSource};
use std::path::Path;
use std::time::Duration;

/// A TPM takes its time.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn ensure(node: &Node<'_>, credentials: Option<&Path>) -> StepResult {
    let mut changes = Changes::default();
    let mut failed = Vec::new();
    for secret in &node.config.secrets {
        match ensure_one(node.machine, secret, credentials) {
            Ok(true) => changes.made.push(format!("`{}`", secret.name)),
            Ok(false) => {}
            Err(error) => failed.push(error),
        }
    }
    match failed.len() {
        0 => Ok(changes),
        1 if node.config.secrets.len() == 1 => Err(failed.remove(0)),
        _ => Err(IdentityError::several(node.config.secrets.len(), &failed)),
    }
}

fn ensure_one(
    machine: &dyn Machine,
    secret: &NodeSecret,
    credentials: Option<&Path>,
) -> Result<bool, IdentityError> {
    let path = Path::new(&secret.credential_file);
    if machine.has(path) {
        return Ok(false);
    }
    let value = match &secret.source {
        NodeSecretSource::Generate { bytes } => {
            let mut random = vec![0; usize::from(*bytes)];
            machine.fill_random(&mut random);
            STANDARD.encode(random).into_bytes()
        }
        NodeSecretSource::Supplied { credential } => {
            let given =
                credentials.map(|folder| machine.read(&folder.join(credential))).transpose()?.flatten();
            given.ok_or_else(|| IdentityError::NotSupplied {
                name: secret.name.clone(),
                credential: credential.clone(),
            })?
        }
    };
    seal(machine, &secret.name, &value, path)?;
    Ok(true)
}

/// Bound to the TPM itself, when there is one, and to no measurement: up to systemd 257 the state of Secure Boot (PCR 7) would have
/// to stay as it is, and an update of the firmware would lose what is sealed for good.
const NO_MEASUREMENTS: &str = "--tpm2-pcrs=";

/// Encrypts `value` under `name` and puts it at `path`.
pub(crate) fn seal(machine: &dyn Machine, name: &str, value: &[u8], path: &Path) -> Result<(), MachineError> {
    let name = format!("--name={name}");
    let command = Cmd::new("systemd-creds").args(["encrypt", &name, NO_MEASUREMENTS, "-", "-"]);
    let sealed = machine.run(command.timeout(DEADLINE), value)?;
    machine.write(path, &sealed, Access::SECRET)
}

/// Decrypts what [`seal`] has put at `path`.
pub(crate) fn unseal(machine: &dyn Machine, name: &str, path: &Path) -> Result<Vec<u8>, MachineError> {
    let command = Cmd::new("systemd-creds").arg("decrypt").arg(format!("--name={name}")).arg(path).arg("-");
    machine.run(command.timeout(DEADLINE), &[])
}
