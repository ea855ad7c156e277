//! Datasets that nothing is in go, unless somebody has come to need them.

use kld_host::Cmd;

use crate::host::{Host, HostError};

/// Destroys a dataset that nothing is in. `false`: ZFS does not, because somebody holds a snapshot of it, or has cloned one.
pub(crate) fn destroyed(host: &dyn Host, dataset: &str) -> Result<bool, HostError> {
    let zfs_destroy = |name: &str| host.run(&Cmd::new("zfs").args(["destroy", name]).accept(1));
    // A timer may have snapshotted it: nothing is in those either.
    zfs_destroy(&format!("{dataset}@%"))?;
    Ok(zfs_destroy(dataset)?.code == 0)
}
