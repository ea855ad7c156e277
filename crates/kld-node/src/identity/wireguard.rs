//! One WireGuard key pair for each plane. A private key is in one file and on stdin, nowhere else.

use super::{Changes, IdentityError, Node, StepResult, write_if_other};
use crate::machine::{Access, Machine, MachineError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kld_host::Cmd;
use kld_system::node::NodePlane;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

/// 32 bytes that are written as 44 characters of base64; not all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PublicKey([u8; 32]);

impl FromStr for PublicKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes: [u8; 32] = STANDARD.decode(text).map_err(drop)?.try_into().map_err(drop)?;
        if bytes == [0; 32] { Err(()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

pub(super) fn ensure(node: &Node<'_>) -> StepResult {
    let mut changes = Changes::default();
    for plane in &node.config.planes {
        let new = ensure_private(node.machine, plane)?;
        let private = node.machine.read(Path::new(&plane.key_file))?.unwrap_or_default();
        let public = node.machine.run(Cmd::new("wg").arg("pubkey").timeout(DEADLINE), &private)?;
        let public = String::from_utf8_lossy(&public).trim().to_owned();
        if public.parse::<PublicKey>().is_err() {
            return Err(IdentityError::NotAKey { path: plane.key_file.clone() });
        }
        let path = public_path(plane);
        let written = write_if_other(node.machine, &path, format!("{public}\n").as_bytes(), Access::PUBLIC)?;
        if new || written {
            changes.made.push(format!("{} {public}", plane.interface));
        }
    }
    Ok(changes)
}

/// Whether a key had to be made. A key that is there is never replaced: peers know it.
fn ensure_private(machine: &dyn Machine, plane: &NodePlane) -> Result<bool, IdentityError> {
    let path = Path::new(&plane.key_file);
    match machine.read(path)? {
        Some(bytes) if is_key(&bytes) => {
            machine.set_access(path, Access::NETWORK)?;
            Ok(false)
        }
        Some(_) => Err(IdentityError::NotAKey { path: plane.key_file.clone() }),
        None => {
            let key = machine.run(Cmd::new("wg").arg("genkey").timeout(DEADLINE), &[])?;
            if !is_key(&key) {
                return Err(IdentityError::Answer { tool: "wg genkey", reason: "not a key".to_owned() });
            }
            machine.write(path, &key, Access::NETWORK)?;
            Ok(true)
        }
    }
}

fn is_key(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.trim_end().parse::<PublicKey>().is_ok())
}

/// Where the public key of a plane is: `wg0.key` → `wg0.pub`.
pub(super) fn public_path(plane: &NodePlane) -> String {
    Path::new(&plane.key_file).with_extension("pub").display().to_string()
}

/// The public key of a plane, once it is made.
pub(super) fn read_public(
    machine: &dyn Machine,
    plane: &NodePlane,
) -> Result<Option<PublicKey>, MachineError> {
    Ok(machine.read_text(public_path(plane))?.and_then(|text| text.trim().parse().ok()))
}
