//! What was done is on disk, in the pools that it was done in.

use std::collections::BTreeSet;

use kld_host::mounts::{self, Mount};
use kld_host::zfs::pool_of;
use kld_host::{Cmd, zpool};

use crate::history::MEMORY;
use crate::host::{Host, HostError, read};

/// Waits until all that was written is on disk: in the pools of these datasets, and in those that these paths, `/` and the
/// journal lie on. `zpool sync` without names visits every pool, and fails at one that is suspended or was imported read-only,
/// though nothing was done there.
pub(crate) fn sync<'a>(
    host: &dyn Host,
    datasets: impl IntoIterator<Item = &'a str>,
    paths: &[&str],
) -> Result<(), HostError> {
    let mounts = mounts::parse(&read(host, "/proc/self/mountinfo")?.unwrap_or_default());
    let mut pools = concerned(&mounts, datasets, paths);
    // What is not imported has nothing to write.
    let imported = host.list(zpool::KSTAT)?;
    pools.retain(|pool| imported.contains(pool));
    if pools.is_empty() {
        return Ok(());
    }
    host.run(&Cmd::new("zpool").arg("sync").args(pools)).map(drop)
}

fn concerned<'a>(
    mounts: &[Mount],
    datasets: impl IntoIterator<Item = &'a str>,
    paths: &[&str],
) -> BTreeSet<String> {
    let paths = paths.iter().copied().chain(["/", MEMORY]);
    let below = paths.filter_map(|path| mounts::above(mounts, path)).filter(|mount| mount.kind == "zfs");
    let mut pools: BTreeSet<String> = datasets.into_iter().map(|name| pool_of(name).to_owned()).collect();
    pools.extend(below.map(|mount| pool_of(&mount.source).to_owned()));
    pools
}

/// The datasets that these paths lie on.
pub(crate) fn datasets_of<'a>(
    host: &dyn Host,
    paths: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeSet<String>, HostError> {
    let mounts = mounts::parse(&read(host, "/proc/self/mountinfo")?.unwrap_or_default());
    let below = paths.into_iter().filter_map(|path| mounts::above(&mounts, path));
    Ok(below.filter(|mount| mount.kind == "zfs").map(|mount| mount.source.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_those_that_something_was_done_in() {
        let of = |root: &str, datasets: &[&str], paths: &[&str]| {
            let text = format!(
                "22 1 0:23 / / rw - {root} rw\n40 22 0:40 / /var/lib rw - zfs data/lib rw\n\
                 41 22 0:41 / /backup ro - zfs backup ro\n42 22 0:42 / /home rw - zfs people rw\n"
            );
            let pools = concerned(&mounts::parse(&text), datasets.iter().copied(), paths);
            pools.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            of("zfs rpool/ROOT/debian", &["tank/a", "tank/b"], &["/home/.a"]),
            "data people rpool tank"
        );
        assert_eq!(of("ext4 /dev/vda2", &[], &["/srv/.a"]), "data");
        let none = mounts::parse("22 1 0:23 / / rw - ext4 /dev/vda2 rw\n");
        assert_eq!(concerned(&none, [], &[]), BTreeSet::new());
    }
}
