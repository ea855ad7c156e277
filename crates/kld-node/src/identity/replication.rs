//! What this machine needs to send its snapshots to another: an account that may, and an SSH key.

use super::{Changes, Node, StepResult};
use crate::machine::Access;
use kld_host::Cmd;
use std::path::Path;
use std::time::Duration;

/// An incremental stream holds its snapshots while it is sent, so that sanoid does not remove one of them.
const PERMISSIONS: &str = "send,hold";
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn ensure(node: &Node<'_>) -> StepResult {
    let Some(replication) = &node.config.replication else { return Ok(Changes::default()) };
    let machine = node.machine;
    for dataset in &replication.datasets {
        // Given again at every start: asking takes as long as giving, and a dataset that was received anew has lost it.
        // Not only here (`-l`): for sending, ZFS takes snapshots for descendents; for holding, it asks the dataset.
        let allow = Cmd::new("zfs").args(["allow", "-u", &replication.account, PERMISSIONS, dataset]);
        machine.run(allow.timeout(DEADLINE), &[])?;
    }
    let (private, public) = (replication.key_file.clone(), format!("{}.pub", replication.key_file));
    if machine.has(&private) && machine.has(&public) {
        return Ok(Changes::default());
    }
    if let Some(folder) = Path::new(&private).parent() {
        machine.make_folder(folder)?;
    }
    // The pair is made beside its place: ssh-keygen asks before it overwrites, and a killed one leaves half a pair.
    let (new_private, new_public) = (format!("{private}.new"), format!("{private}.new.pub"));
    machine.remove(Path::new(&new_private))?;
    machine.remove(Path::new(&new_public))?;
    let comment = format!("kldload replication of {}", node.config.host_name);
    let command =
        Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", &comment, "-f", &new_private]);
    machine.run(command.timeout(DEADLINE), &[])?;
    machine.set_access(Path::new(&new_private), Access::SECRET)?;
    machine.rename(Path::new(&new_public), Path::new(&public))?;
    machine.rename(Path::new(&new_private), Path::new(&private))?;
    Ok(Changes::made(format!("public key in {public}")))
}
