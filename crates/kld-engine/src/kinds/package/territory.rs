//! Which files of the root dataset are packages' own, and go back with them. What services keep there is their data, and stays.

use std::collections::BTreeSet;

use kld_host::mounts::is_within;
use kld_host::zfs::{Change, ChangeKind};

use super::POLICY;
use crate::host::{Host, HostError, Node};

/// Where nobody but packages and the administrator puts files. `/usr/local` is the administrator's own.
const PACKAGES: [&str; 6] = ["/usr", "/etc", "/boot", "/var/cache", "/bin", "/lib"];
/// Where services keep their data, too: there only what new packages have brought goes, and [`RECORDS`].
const SHARED: [&str; 2] = ["/var/lib", "/opt"];
/// What maintainer scripts and the tools that they call write down of packages.
const RECORDS: [&str; 15] = [
    "/var/lib/apt",
    "/var/lib/dictionaries-common",
    "/var/lib/dkms",
    "/var/lib/doc-base",
    "/var/lib/dpkg",
    "/var/lib/emacsen-common",
    "/var/lib/initramfs-tools",
    "/var/lib/pam",
    "/var/lib/python",
    "/var/lib/sgml-base",
    "/var/lib/systemd/deb-systemd-helper-enabled",
    "/var/lib/systemd/deb-systemd-helper-masked",
    "/var/lib/systemd/deb-systemd-user-helper-enabled",
    "/var/lib/ucf",
    "/var/lib/xml-core",
];
/// Files of others among them, which change by themselves; and the policy, which is kept by itself.
const FOREIGN: [&str; 3] = ["/usr/local", "/etc/resolv.conf", POLICY];

const LISTS: &str = "/var/lib/dpkg/info/";

fn within(path: &str, places: &[&str]) -> bool {
    places.iter().any(|of| is_within(path, of))
}

/// What the packages that have come, as these changes have it, say that they brought to where services keep their data.
pub(super) fn shipped(host: &dyn Host, changes: &[Change]) -> Result<BTreeSet<String>, HostError> {
    let is_list = |change: &&Change| {
        change.kind == ChangeKind::Added && change.path.starts_with(LISTS) && change.path.ends_with(".list")
    };
    let mut shipped = BTreeSet::new();
    for list in changes.iter().filter(is_list) {
        let Some(Node::File(text)) = host.entry(&list.path)?.map(|entry| entry.node) else { continue };
        let text = String::from_utf8_lossy(&text);
        shipped.extend(text.lines().filter(|path| within(path, &SHARED)).map(str::to_owned));
    }
    Ok(shipped)
}

/// What is to be removed, the deepest first, and what is to be put back, in order.
pub(super) fn split(changes: Vec<Change>, shipped: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    // A directory that was there is shared with others, whoever ships it, too.
    let brought: BTreeSet<String> = changes
        .iter()
        .filter(|change| change.kind == ChangeKind::Added && shipped.contains(&change.path))
        .map(|change| change.path.clone())
        .collect();
    let ours = |path: &String| {
        within(path, &RECORDS)
            || brought.iter().any(|of| is_within(path, of))
            || within(path, &PACKAGES) && !within(path, &FOREIGN)
    };
    let (mut remove, mut restore) = (Vec::new(), Vec::new());
    for change in changes {
        match change.kind {
            ChangeKind::Added => remove.push(change.path),
            ChangeKind::Removed | ChangeKind::Modified => restore.push(change.path),
            ChangeKind::Renamed => {
                remove.extend(change.to);
                restore.push(change.path);
            }
        }
    }
    remove.retain(ours);
    restore.retain(ours);
    remove.sort_by(|a, b| b.cmp(a));
    restore.sort();
    (remove, restore)
}

#[cfg(test)]
mod tests {
    use kld_host::zfs::parse_diff;

    use super::*;

    #[test]
    fn a_difference_is_taken_back_deepest_first_and_only_where_packages_are() {
        let text = "M\t/\t/usr/bin\n+\tF\t/usr/bin/new\n+\t/\t/usr/share/new\n+\tF\t/usr/share/new/a\\0040b\n\
                    -\tF\t/etc/old\nR\tF\t/etc/a\t/etc/b\nM\tF\t/var/lib/dpkg/status\n+\tF\t/srv/of-a-person\n\
                    M\tF\t/var/lib/systemd/timers/x\nM\tF\t/usr/local/bin/own\n\
                    +\tF\t/var/lib/systemd/deb-systemd-helper-enabled/new.service.dsh-also\n";
        let (remove, restore) = split(parse_diff(text).expect("readable"), &BTreeSet::new());
        let (enabled, new) =
            ("/var/lib/systemd/deb-systemd-helper-enabled/new.service.dsh-also", "/usr/share/new");
        assert_eq!(remove, [enabled, "/usr/share/new/a b", new, "/usr/bin/new", "/etc/b"]);
        assert_eq!(restore, ["/etc/a", "/etc/old", "/usr/bin", "/var/lib/dpkg/status"]);
    }

    #[test]
    fn data_of_services_stays_beside_what_packages_have_brought() {
        let text = "M\tF\t/var/lib/mysql/ibdata1\n+\tF\t/var/lib/mysql/binlog.000002\n-\tF\t/var/lib/mysql/old\n\
                    +\t/\t/opt/game\n+\tF\t/opt/game/world\nM\t/\t/var/lib\n\
                    +\t/\t/var/lib/new\n+\tF\t/var/lib/new/made-by-its-script\n+\tF\t/var/lib/newer\n\
                    M\t/\t/var/lib/shared\n+\tF\t/var/lib/shared/plugin\n+\tF\t/var/lib/shared/of-a-person\n";
        let shipped = ["/var/lib", "/var/lib/new", "/var/lib/shared", "/var/lib/shared/plugin"];
        let shipped = shipped.map(str::to_owned).into();
        let (remove, restore) = split(parse_diff(text).expect("readable"), &shipped);
        assert_eq!(remove, ["/var/lib/shared/plugin", "/var/lib/new/made-by-its-script", "/var/lib/new"]);
        assert_eq!(restore, [""; 0]);
    }
}
