//! The SSH server's host keys.

use super::{Changes, Node, StepResult};
use kld_host::Cmd;
use std::time::Duration;

const FOLDER: &str = "/etc/ssh";
const KINDS: [&str; 3] = ["ecdsa", "ed25519", "rsa"];

pub(super) fn ensure(node: &Node<'_>) -> StepResult {
    let key = |kind: &str| format!("{FOLDER}/ssh_host_{kind}_key");
    let missing =
        KINDS.into_iter().any(|kind| !node.machine.has(key(kind)) || !node.machine.has(key(kind) + ".pub"));
    // Without a server's configuration there is no server, and nobody to know by its keys.
    if !missing || !node.machine.has(format!("{FOLDER}/sshd_config")) {
        return Ok(Changes::default());
    }
    // It makes each kind that is missing, beside its place, and renames it.
    node.machine.run(Cmd::new("ssh-keygen").arg("-A").timeout(Duration::from_secs(120)), &[])?;
    Ok(Changes::made(KINDS.join(" ")))
}
