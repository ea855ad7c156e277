//! Sandboxes: sets of systemd directives, each with its reason, and kernel settings.
//!
//! Follows systemd.exec(5) and systemd.resource-control(5). These are for kldload's own units, each as narrow as its work
//! allows; those of a manifest's services are in [`presets`](super::presets).

use crate::draft::Draft;
use crate::system::{Because, Layer, SystemFile};

/// Name, value, reason.
pub(crate) type Hardening = (&'static str, &'static str, &'static str);

/// Part of every sandbox: what no service of a server has a use for.
macro_rules! sandbox {
    ($($more:expr),* $(,)?) => {
        &[
            ("NoNewPrivileges", "yes", "no program it starts gains rights, setuid or not"),
            ("ProtectKernelTunables", "yes", "kernel settings are read only"),
            ("ProtectKernelLogs", "yes", "the kernel's log shows addresses and names"),
            ("ProtectControlGroups", "yes", "it cannot lift its own limits"),
            ("ProtectHostname", "yes", "the machine's name is not its business"),
            ("RestrictRealtime", "yes", "it cannot starve everything else"),
            ("RestrictSUIDSGID", "yes", "it leaves no door for later"),
            ("LockPersonality", "yes", "no odd execution domains, which have odd bugs"),
            ("SystemCallArchitectures", "native", "no 32-bit calls, which have been holes before"),
            $($more),*
        ]
    };
}

pub(crate) use sandbox;

/// For `kldload node init`: it makes keys, grows the pool and writes below /etc and /efi.
pub(crate) const IDENTITY: &[Hardening] = sandbox![
    ("ProtectHome", "tmpfs", "people's files are not its business"),
    ("BindPaths", "/root", "keys that a person gave for root go there"),
    ("ReadWritePaths", "-/sys/module/spl/parameters", "the running ZFS learns the host id"),
    ("ProtectProc", "invisible", "processes of others are not seen"),
    ("RestrictAddressFamilies", "AF_UNIX AF_NETLINK", "it talks to no other machine"),
    ("PrivateNetwork", "yes", "it talks to no other machine"),
    ("IPAddressDeny", "any", "it talks to no other machine"),
    ("MemoryDenyWriteExecute", "yes", "memory is written or executed, never both"),
    ("RestrictNamespaces", "yes", "it starts no containers"),
    ("UMask", "0077", "keys are for root"),
    ("KeyringMode", "private", "keys of others are not seen"),
    ("ProtectKernelModules", "yes", "ZFS is loaded before it starts"),
    ("ProtectClock", "yes", "the clock is not its business"),
    ("ReadOnlyPaths", "/usr", "it changes no program"),
    ("DevicePolicy", "closed", "only what it needs to grow a pool and to seal a key"),
    ("DeviceAllow", "/dev/zfs rw", "pools and datasets"),
    ("DeviceAllow", "block-* rw", "the partition grows with its disk"),
    ("DeviceAllow", "char-tpm rw", "the TPM holds the key of the keys, when there is one"),
    (
        "SystemCallFilter",
        "@system-service @mount",
        "the calls of services, and mounting a dataset it has made"
    ),
    ("SystemCallFilter", "~@resources", "it has no priority of its own to raise"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error it can report"),
    (
        "CapabilityBoundingSet",
        "CAP_SYS_ADMIN CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE",
        "pools and datasets need administration, files need owners",
    ),
];

/// For the unit that undoes a change. What it undoes may be anywhere, set-user-id programs among it, and datasets are
/// unmounted for all to see: nothing here gives it file systems of its own, as the common part would.
pub(crate) const RECOVERY: &[Hardening] = &[
    ("NoNewPrivileges", "yes", "no program it starts gains rights, setuid or not"),
    ("RestrictRealtime", "yes", "it cannot starve everything else"),
    ("LockPersonality", "yes", "no odd execution domains, which have odd bugs"),
    ("SystemCallArchitectures", "native", "no 32-bit calls, which have been holes before"),
    ("RestrictAddressFamilies", "AF_UNIX", "it talks to no other machine"),
    ("IPAddressDeny", "any", "it talks to no other machine"),
    ("MemoryDenyWriteExecute", "yes", "memory is written or executed, never both"),
    ("RestrictNamespaces", "yes", "it starts no containers"),
    ("KeyringMode", "private", "keys of others are not seen"),
    ("DevicePolicy", "closed", "only what it needs for datasets"),
    ("DeviceAllow", "/dev/zfs rw", "pools and datasets"),
    ("SystemCallFilter", "@system-service @mount", "the calls of services, and mounting a dataset"),
    ("SystemCallFilter", "~@resources", "it has no priority of its own to raise"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error it can report"),
    (
        "CapabilityBoundingSet",
        "CAP_SYS_ADMIN CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_DAC_OVERRIDE CAP_MKNOD CAP_SETFCAP",
        "files are put back with their owners, modes and capabilities",
    ),
];

/// For the unit that waits for the planes.
pub(crate) const MESH: &[Hardening] = sandbox![
    ("DynamicUser", "yes", "it only looks, so it needs no account"),
    ("ProtectSystem", "strict", "it writes nothing"),
    ("ProtectHome", "yes", "people's files are not its business"),
    ("PrivateTmp", "yes", "it needs no files"),
    ("PrivateDevices", "yes", "no disks, no memory, no terminals"),
    ("DevicePolicy", "closed", "no devices"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "the clock is not its business"),
    ("ProtectProc", "invisible", "processes of others are not seen"),
    ("RestrictNamespaces", "yes", "it starts no containers"),
    ("RestrictAddressFamilies", "AF_UNIX AF_NETLINK", "it asks the kernel and networkd, nobody else"),
    ("IPAddressDeny", "any", "it talks to no other machine"),
    ("MemoryDenyWriteExecute", "yes", "memory is written or executed, never both"),
    ("SystemCallFilter", "@system-service", "the calls that services make"),
    ("SystemCallFilter", "~@privileged @resources", "less those that need rights it does not have"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error it can report"),
    ("CapabilityBoundingSet", "", "no right of root"),
    ("UMask", "0077", "it makes no files for others"),
];

/// For a unit that decrypts the key of a dataset.
pub(crate) const KEY_UNLOCKER: &[Hardening] = sandbox![
    ("ProtectSystem", "strict", "it writes to its RAM disk only"),
    ("ProtectHome", "tmpfs", "people's files are not its business"),
    ("PrivateNetwork", "yes", "it talks to no other machine"),
    ("RestrictAddressFamilies", "AF_UNIX", "it talks to no other machine"),
    ("IPAddressDeny", "any", "it talks to no other machine"),
    ("DevicePolicy", "closed", "the TPM is the only device it needs"),
    ("DeviceAllow", "char-tpm rw", "the TPM holds the key of the key, when there is one"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "the clock is not its business"),
    ("ProtectProc", "invisible", "processes of others are not seen"),
    ("RestrictNamespaces", "yes", "it starts no containers"),
    ("MemoryDenyWriteExecute", "yes", "memory is written or executed, never both"),
    ("SystemCallFilter", "@system-service", "the calls that services make"),
    ("SystemCallFilter", "~@privileged @resources", "less those that need rights it does not have"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error it can report"),
    ("CapabilityBoundingSet", "", "root's own files need no right of root"),
];

/// For kldload's jobs that look at pools and the mesh and write one file.
pub(crate) const OBSERVER: &[Hardening] = sandbox![
    ("ProtectSystem", "strict", "it writes to one directory"),
    ("ProtectHome", "yes", "people's files are not its business"),
    ("PrivateTmp", "yes", "a /tmp of its own"),
    ("DevicePolicy", "closed", "the pool's control device is the only one"),
    ("DeviceAllow", "/dev/zfs rw", "it asks the pool how it is"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "the clock is not its business"),
    ("ProtectProc", "invisible", "processes of others are not seen"),
    ("RestrictNamespaces", "yes", "it starts no containers"),
    ("RestrictAddressFamilies", "AF_UNIX AF_NETLINK", "it asks the kernel and systemd, no other machine"),
    ("IPAddressDeny", "any", "it talks to no other machine"),
    ("MemoryDenyWriteExecute", "yes", "memory is written or executed, never both"),
    ("SystemCallFilter", "@system-service", "the calls that services make"),
    ("SystemCallFilter", "~@privileged @resources", "less those that need rights it does not have"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error it can report"),
    (
        "CapabilityBoundingSet",
        "CAP_NET_ADMIN",
        "the kernel tells who is connected to the planes only to administrators"
    ),
    ("UMask", "0022", "the exporter reads what it writes"),
];

/// For a job that needs ZFS administration: sanoid takes and removes snapshots.
pub(crate) const ZFS_JOB: &[Hardening] = sandbox![
    ("ProtectHome", "read-only", "people's files are not changed by it"),
    ("PrivateTmp", "yes", "a /tmp of its own"),
    ("DevicePolicy", "closed", "the pool's control device is the only one"),
    ("DeviceAllow", "/dev/zfs rw", "snapshots are made through it"),
    ("ProtectSystem", "strict", "it writes to its own directories only"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "the clock is not its business"),
    ("RestrictNamespaces", "yes", "it starts no containers"),
    ("MemoryDenyWriteExecute", "yes", "memory is written or executed, never both"),
    ("SystemCallFilter", "@system-service", "the calls that services make"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error it can report"),
    ("KeyringMode", "private", "keys of others are not seen"),
    ("UMask", "0077", "its files are for root"),
];

/// For syncoid, which runs as an account that may send its datasets and nothing else.
pub(crate) const REPLICATION: &[Hardening] = sandbox![
    ("ProtectSystem", "strict", "it writes to its own directory only"),
    ("ProtectHome", "yes", "people's files are not its business"),
    ("PrivateTmp", "yes", "a /tmp of its own"),
    ("DevicePolicy", "closed", "the pool's control device is the only one"),
    ("DeviceAllow", "/dev/zfs rw", "snapshots are read through it"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "the clock is not its business"),
    ("ProtectProc", "invisible", "processes of others are not seen"),
    ("RestrictNamespaces", "yes", "it starts no containers"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6", "SSH to the other machine"),
    ("MemoryDenyWriteExecute", "yes", "memory is written or executed, never both"),
    ("SystemCallFilter", "@system-service", "the calls that services make"),
    ("SystemCallFilter", "~@privileged @resources", "less those that need rights it does not have"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error it can report"),
    ("CapabilityBoundingSet", "", "zfs-allow(8) lets it send: no right of root"),
    ("KeyringMode", "private", "keys of others are not seen"),
    ("UMask", "0077", "its files are its own"),
];

/// Kernel settings of a server, sysctl.d(5).
const SYSCTL: &[Hardening] = &[
    ("net.ipv4.conf.all.accept_redirects", "0", "no neighbour changes the routes"),
    ("net.ipv4.conf.default.accept_redirects", "0", "no neighbour changes the routes"),
    ("net.ipv6.conf.all.accept_redirects", "0", "no neighbour changes the routes"),
    ("net.ipv6.conf.default.accept_redirects", "0", "no neighbour changes the routes"),
    ("net.ipv4.conf.all.send_redirects", "0", "this machine is not a router"),
    ("net.ipv4.conf.all.accept_source_route", "0", "senders do not choose paths"),
    ("net.ipv6.conf.all.accept_source_route", "0", "senders do not choose paths"),
    ("net.ipv4.conf.all.rp_filter", "2", "a source that no interface leads to is false"),
    ("net.ipv4.conf.all.arp_ignore", "1", "an address is answered for on its own interface only"),
    ("net.ipv4.conf.all.arp_announce", "2", "an address is named on its own interface only"),
    ("kernel.kptr_restrict", "2", "addresses of the kernel are not shown"),
    ("kernel.dmesg_restrict", "1", "the kernel's log is for root"),
    ("kernel.yama.ptrace_scope", "1", "a process looks into its children only"),
    ("kernel.unprivileged_bpf_disabled", "1", "BPF programs are for root"),
    ("fs.protected_fifos", "2", "no traps in shared directories"),
    ("fs.protected_regular", "2", "no traps in shared directories"),
];

/// Adds the kernel settings, and keeps systemd from opening doors of its own.
pub(crate) fn add(draft: &mut Draft) {
    let because = |reason: &str| Because::always(Layer::Hardening, reason);
    let mut text = String::from(
        "# Kernel settings. Written by kldload; `kldload explain` gives the reason of every line.\n",
    );
    let mut parts = Vec::new();
    for (name, value, reason) in SYSCTL {
        text.push_str(&format!("{name} = {value}\n"));
        parts.push(crate::system::Item::new(format!("{name} = {value}"), because(reason)));
    }
    let file = SystemFile::text(
        "/etc/sysctl.d/50-kldload.conf",
        text,
        because("the network stack of a machine that strangers reach"),
    );
    draft.file(file.with_parts(parts));
    draft.file(SystemFile::symlink(
        "/etc/systemd/system-generators/systemd-ssh-generator",
        "/dev/null",
        because("no SSH over host sockets: SSH is on a plane or nowhere"),
    ));
}
