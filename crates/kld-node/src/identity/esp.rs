//! The EFI system partition is mounted, so that the boot entries on it can be changed.

use super::{Changes, IdentityError, Node, StepResult};
use crate::machine::{Machine, MachineError};
use kld_host::Cmd;
use std::path::Path;
use std::time::Duration;

pub(super) fn ensure(node: &Node<'_>) -> StepResult {
    let mount = &node.config.esp.mount;
    // Looking into it lets systemd mount it, when it is to be mounted on first use.
    let _ = node.machine.list(&Path::new(mount).join("loader"));
    if is_mounted(node.machine, mount)? {
        return Ok(Changes::default());
    }
    node.machine.run(Cmd::new("mount").arg(mount).timeout(Duration::from_secs(30)), &[])?;
    if is_mounted(node.machine, mount)? {
        return Ok(Changes::made(format!("mounted {mount}")));
    }
    Err(IdentityError::EspNotMounted { mount: mount.clone() })
}

/// Whether a file system, and not only systemd's promise of one, is on `mount`.
fn is_mounted(machine: &dyn Machine, mount: &str) -> Result<bool, MachineError> {
    let table = machine.read_text("/proc/self/mounts")?.unwrap_or_default();
    Ok(table.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(mount) && fields.next().is_some_and(|kind| kind != "autofs")
    }))
}
