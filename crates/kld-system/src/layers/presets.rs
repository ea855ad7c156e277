//! What the presets of `hardening:` hold: a set of directives for a kind of work, each with its reason.
//!
//! Two questions make a sandbox: what the service does, and how it starts. A unit that kldload writes starts as its account and
//! needs no right of root; a package's unit starts as root and hands over to an account by itself.

use kld_manifest::model::{Preset, Service};

use super::hardening::{Hardening, sandbox};

/// How a service starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// As its account: the manifest has its `command`.
    AsAccount,
    /// As root, by the unit of its package.
    AsRoot,
}

impl Start {
    /// How this one does.
    pub(crate) fn of(service: &Service) -> Self {
        if service.command.is_some() { Self::AsAccount } else { Self::AsRoot }
    }

    /// The preset of a service that names none.
    pub(crate) fn preset(self) -> Preset {
        match self {
            Self::AsAccount => Preset::Strict,
            Self::AsRoot => Preset::Packaged,
        }
    }
}

/// The preset of a service.
pub(crate) fn of(service: &Service) -> Preset {
    service.preset.as_ref().map_or_else(|| Start::of(service).preset(), |preset| preset.value)
}

/// Whether it sees the machine's own file systems, as what mounts for containers must: nothing may give it others.
pub(crate) fn sees_all_files(preset: Preset) -> bool {
    preset == Preset::ContainerHost
}

/// The directives of a preset, in order.
pub(crate) fn directives(preset: Preset, start: Start) -> Vec<Hardening> {
    let (set, rights): (&[Hardening], [&[Hardening]; 2]) = match preset {
        Preset::Strict => (STRICT, [&[], &[]]),
        Preset::Packaged => (PACKAGED, [&[], &[]]),
        Preset::Database => (DATABASE, [DATABASE_AS_ACCOUNT, HANDS_OVER]),
        Preset::Web => (WEB, [WEB_AS_ACCOUNT, HANDS_OVER]),
        Preset::ContainerHost => (CONTAINER_HOST, [&[], &[]]),
    };
    let [as_account, as_root] = rights;
    let rights = if start == Start::AsRoot { as_root } else { as_account };
    set.iter().chain(rights).copied().collect()
}

/// What it talks by.
pub(crate) fn families(preset: Preset) -> Hardening {
    const NAME: &str = "RestrictAddressFamilies";
    match preset {
        Preset::ContainerHost => (
            NAME,
            "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "local sockets, the internet protocols, and netlink, by which networks of containers are made",
        ),
        _ => (NAME, "AF_UNIX AF_INET AF_INET6", "local sockets and the internet protocols, no odd ones"),
    }
}

/// What a web server that listens on a port of the system's needs besides, unless it starts as root and has it anyway.
pub(crate) fn low_port(start: Start) -> Vec<Hardening> {
    const RIGHT: &str = "CAP_NET_BIND_SERVICE";
    const REASON: &str = "it listens below port 1024, which is a right of root, and has no other";
    match start {
        Start::AsAccount => {
            vec![("CapabilityBoundingSet", RIGHT, REASON), ("AmbientCapabilities", RIGHT, REASON)]
        }
        Start::AsRoot => {
            vec![("CapabilityBoundingSet", RIGHT, "it listens below port 1024, which is a right of root")]
        }
    }
}

/// Knows nothing of the service but what the manifest says of it.
pub(crate) const STRICT: &[Hardening] = sandbox![
    ("ProtectSystem", "strict", "everything is read only but what is listed"),
    ("ProtectHome", "yes", "people's files are not its business"),
    ("PrivateTmp", "yes", "a /tmp of its own: no file of another service in the way"),
    ("PrivateDevices", "yes", "no disks, no memory, no terminals"),
    ("DevicePolicy", "closed", "no devices but null, zero, full, random"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "logs and certificates rest on the clock"),
    ("ProtectProc", "invisible", "processes of others are not seen"),
    ("ProcSubset", "pid", "nothing about the machine in /proc"),
    ("RestrictNamespaces", "yes", "containers inside a service are how kernels get attacked"),
    ("MemoryDenyWriteExecute", "yes", "memory is written or executed, never both"),
    ("SystemCallFilter", "@system-service", "the calls that services make"),
    ("SystemCallFilter", "~@privileged @resources", "less those that need rights it does not have"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error the program can report"),
    ("CapabilityBoundingSet", "", "no right of root, whatever happens"),
    ("AmbientCapabilities", "", "no right of root, whatever happens"),
    ("RemoveIPC", "yes", "shared memory goes when the service goes"),
    ("UMask", "0077", "its files are its own"),
    ("KeyringMode", "private", "keys of others are not seen"),
];

/// For a unit that a package brings. These do not take part in how such units start: as root, changing the account.
pub(crate) const PACKAGED: &[Hardening] = sandbox![
    ("ProtectSystem", "strict", "everything is read only but what is listed"),
    ("ProtectHome", "yes", "people's files are not its business"),
    ("PrivateTmp", "yes", "a /tmp of its own: no file of another service in the way"),
    ("PrivateDevices", "yes", "no disks, no memory, no terminals"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "logs and certificates rest on the clock"),
    ("RestrictNamespaces", "yes", "containers inside a service are how kernels get attacked"),
    ("SystemCallFilter", "@system-service", "the calls that services make"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error the program can report"),
    (
        "CapabilityBoundingSet",
        "CAP_SETUID CAP_SETGID CAP_DAC_OVERRIDE CAP_FOWNER CAP_CHOWN CAP_KILL CAP_NET_BIND_SERVICE CAP_SYS_RESOURCE",
        "what a start as root needs to hand over to an account, and no more",
    ),
    ("KeyringMode", "private", "keys of others are not seen"),
];

/// The rights of a package's unit whose work is known.
const HANDS_OVER: &[Hardening] = &[(
    "CapabilityBoundingSet",
    "CAP_SETUID CAP_SETGID CAP_DAC_OVERRIDE CAP_FOWNER CAP_CHOWN CAP_KILL CAP_SYS_RESOURCE",
    "what a start as root needs to hand over to an account, and no more",
)];

/// After PostgreSQL 17 and MariaDB 11.8.
const DATABASE: &[Hardening] = sandbox![
    ("ProtectSystem", "strict", "everything is read only but its data, its socket and its log"),
    ("ProtectHome", "yes", "people's files are not its business"),
    ("PrivateTmp", "yes", "a /tmp of its own; sorting spills beside the data"),
    ("PrivateDevices", "yes", "no disks, no terminals; shared memory (/dev/shm) stays"),
    ("DevicePolicy", "closed", "no devices but null, zero, full, random"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "transactions are ordered by the clock"),
    ("ProcSubset", "all", "it asks /proc/meminfo how large huge pages are"),
    ("RestrictNamespaces", "yes", "containers inside a service are how kernels get attacked"),
    ("MemoryDenyWriteExecute", "no", "PostgreSQL compiles queries (JIT), MariaDB regular expressions"),
    ("RemoveIPC", "no", "another server of the same account may use its own shared memory"),
    ("SystemCallFilter", "@system-service", "the calls that services make, with shared memory and aio"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error the program can report"),
    ("KeyringMode", "private", "keys of others are not seen"),
];

const DATABASE_AS_ACCOUNT: &[Hardening] = &[
    ("ProtectProc", "invisible", "processes of others are not seen"),
    (
        "SystemCallFilter",
        "~@privileged",
        "less what needs rights; it may place its memory and raise its own limits",
    ),
    ("CapabilityBoundingSet", "", "no right of root, whatever happens"),
    ("AmbientCapabilities", "", "no right of root, whatever happens"),
    ("UMask", "0077", "its files are its own"),
];

/// After nginx, and what Node.js, PHP, Java and Python ask of a machine.
const WEB: &[Hardening] = sandbox![
    ("ProtectSystem", "strict", "everything is read only but what is listed"),
    ("ProtectHome", "yes", "people's files are not served by accident"),
    ("PrivateTmp", "yes", "a /tmp of its own: uploads meet no file of another service"),
    ("PrivateDevices", "yes", "no disks, no memory, no terminals"),
    ("DevicePolicy", "closed", "no devices but null, zero, full, random"),
    ("ProtectKernelModules", "yes", "it loads no kernel code"),
    ("ProtectClock", "yes", "certificates rest on the clock"),
    ("ProcSubset", "all", "runtimes size heaps by /proc/meminfo and threads by /proc/cpuinfo"),
    ("RestrictNamespaces", "yes", "containers inside a service are how kernels get attacked"),
    ("MemoryDenyWriteExecute", "no", "Node.js, Java, PHP and nginx's PCRE compile while they run"),
    ("RemoveIPC", "yes", "shared memory goes when the service goes"),
    ("SystemCallFilter", "@system-service", "the calls that services make"),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error the program can report"),
    ("KeyringMode", "private", "keys of others are not seen"),
];

const WEB_AS_ACCOUNT: &[Hardening] = &[
    ("ProtectProc", "invisible", "processes of others are not seen"),
    ("SystemCallFilter", "~@privileged @resources", "less those that need rights it does not have"),
    ("CapabilityBoundingSet", "", "no right of root"),
    ("AmbientCapabilities", "", "no right of root"),
    ("UMask", "0077", "its files are its own"),
];

/// Podman as root. Nothing here gives it file systems of its own, as the common part would: what it mounts for a container must
/// be seen by the rest of podman. What a container may do is the container's own matter, and inherits this.
const CONTAINER_HOST: &[Hardening] = &[
    ("NoNewPrivileges", "yes", "no program in a container gains rights, setuid or not"),
    ("RestrictRealtime", "yes", "no container starves everything else"),
    ("LockPersonality", "yes", "no odd execution domains, which have odd bugs"),
    ("SystemCallArchitectures", "native", "no 32-bit calls, which have been holes before"),
    ("Delegate", "yes", "podman makes a group of processes for each container"),
    (
        "SystemCallFilter",
        "~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap",
        "no container needs the clock, kernel code, raw disks or a restart",
    ),
    ("SystemCallErrorNumber", "EPERM", "a refused call is an error the program can report"),
    (
        "CapabilityBoundingSet",
        "CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD \
         CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_ADMIN \
         CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_RESOURCE",
        "to mount, to make networks and to hand over to containers: no kernel code, raw disks or clock",
    ),
    ("KeyringMode", "private", "keys of others are not seen"),
];
