//! Which Debian package has a program that kldload runs (Debian 12, 13; Ubuntu 24.04 agrees).

use std::ffi::OsStr;

const PACKAGES: &[(&str, &[&str])] = &[
    ("apt", &["apt-cache", "apt-get"]),
    ("binutils", &["ld", "objcopy", "objdump"]),
    ("dosfstools", &["fsck.fat", "mkfs.fat", "mkfs.vfat"]),
    ("dpkg", &["dpkg", "dpkg-deb", "dpkg-query"]),
    ("e2fsprogs", &["debugfs", "e2fsck", "mke2fs", "mkfs.ext4"]),
    ("erofs-utils", &["dump.erofs", "mkfs.erofs"]),
    ("fdisk", &["fdisk", "sfdisk"]),
    ("gpg", &["gpg"]),
    ("gpgv", &["gpgv"]),
    ("initramfs-tools", &["lsinitramfs", "update-initramfs"]),
    ("iproute2", &["ip", "ss"]),
    ("kmod", &["depmod", "modinfo", "modprobe"]),
    ("libcap2-bin", &["getcap", "setcap"]),
    ("mmdebstrap", &["mmdebstrap"]),
    ("mount", &["losetup", "mount", "umount"]),
    ("mtools", &["mcopy", "mdir"]),
    ("nftables", &["nft"]),
    ("ovmf", &["OVMF_CODE_4M.fd"]),
    ("podman", &["podman"]),
    ("prometheus", &["prometheus", "promtool"]),
    ("qemu-system-x86", &["qemu-system-x86_64"]),
    ("qemu-utils", &["qemu-img", "qemu-nbd"]),
    ("sanoid", &["sanoid", "syncoid"]),
    ("squashfs-tools", &["mksquashfs", "unsquashfs"]),
    ("swtpm", &["swtpm"]),
    ("swtpm-tools", &["swtpm_setup"]),
    ("systemd", &["bootctl", "journalctl", "systemctl", "systemd-analyze", "systemd-creds"]),
    ("tar", &["tar"]),
    ("uidmap", &["newgidmap", "newuidmap"]),
    ("util-linux", &["blkid", "lsblk", "setpriv", "unshare"]),
    ("wireguard-tools", &["wg", "wg-quick"]),
    ("xorriso", &["xorriso"]),
    ("zfsutils-linux", &["zdb", "zfs", "zpool"]),
    ("zstd", &["zstd"]),
];

/// The Debian package that has this program; `None` when the table does not know it.
pub fn package_of(program: impl AsRef<OsStr>) -> Option<&'static str> {
    let program = program.as_ref().to_str()?;
    PACKAGES.iter().find(|(_, programs)| programs.contains(&program)).map(|&(package, _)| package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_each_program_once() {
        assert!(PACKAGES.is_sorted());
        let mut programs: Vec<&str> = PACKAGES.iter().flat_map(|(_, programs)| *programs).copied().collect();
        let count = programs.len();
        programs.sort_unstable();
        programs.dedup();
        assert_eq!(programs.len(), count);
    }

    #[test]
    fn knows_what_a_build_needs() {
        let table = [
            ("qemu-system-x86_64", Some("qemu-system-x86")),
            ("newuidmap", Some("uidmap")),
            ("mount", Some("mount")),
            ("sfdisk", Some("fdisk")),
            ("zpool", Some("zfsutils-linux")),
            ("frobnicate", None),
        ];
        for (program, want) in table {
            assert_eq!(package_of(program), want, "{program}");
        }
    }
}
