//! The directives that `hardening:` may hold.
//!
//! Names from systemd.exec(5) (sandboxing, capabilities, security, credentials of the process, limits), and
//! systemd.resource-control(5) of systemd 258. Directives that would undo what a layer must decide (`ExecStart`,
//! `EnvironmentFile`, `LoadCredential`, …) are not in the table: they have keys of their own or no place in a manifest.

/// What chooses a set of directives among them: `hardening: web` for short.
pub(crate) const PRESET: &str = "preset";

/// Every directive, sorted.
pub(crate) const DIRECTIVES: &[&str] = &[
    "AllowedCPUs",
    "AmbientCapabilities",
    "AppArmorProfile",
    "BindPaths",
    "BindReadOnlyPaths",
    "CPUAccounting",
    "CPUQuota",
    "CPUSchedulingPolicy",
    "CPUSchedulingPriority",
    "CPUWeight",
    "CapabilityBoundingSet",
    "DeviceAllow",
    "DevicePolicy",
    "DynamicUser",
    "ExecPaths",
    "Group",
    "IOAccounting",
    "IODeviceWeight",
    "IOReadBandwidthMax",
    "IOReadIOPSMax",
    "IOSchedulingClass",
    "IOSchedulingPriority",
    "IOWeight",
    "IOWriteBandwidthMax",
    "IOWriteIOPSMax",
    "IPAccounting",
    "IPAddressAllow",
    "IPAddressDeny",
    "InaccessiblePaths",
    "KeyringMode",
    "LimitAS",
    "LimitCORE",
    "LimitCPU",
    "LimitDATA",
    "LimitFSIZE",
    "LimitMEMLOCK",
    "LimitNICE",
    "LimitNOFILE",
    "LimitNPROC",
    "LimitRSS",
    "LimitRTPRIO",
    "LimitSTACK",
    "LockPersonality",
    "MemoryAccounting",
    "MemoryDenyWriteExecute",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMax",
    "MemoryMin",
    "MemorySwapMax",
    "MountFlags",
    "Nice",
    "NoExecPaths",
    "NoNewPrivileges",
    "OOMPolicy",
    "OOMScoreAdjust",
    "Personality",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RemoveIPC",
    "RestrictAddressFamilies",
    "RestrictFileSystems",
    "RestrictNamespaces",
    "RestrictNetworkInterfaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SecureBits",
    "SocketBindAllow",
    "SocketBindDeny",
    "StartupCPUWeight",
    "SupplementaryGroups",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "SystemCallLog",
    "TasksAccounting",
    "TasksMax",
    "TemporaryFileSystem",
    "UMask",
    "User",
];

/// Directives that take `yes` or `no` and nothing else; a typing error in one of these would leave a service open.
pub(crate) const SWITCHES: &[&str] = &[
    "CPUAccounting",
    "DynamicUser",
    "IOAccounting",
    "IPAccounting",
    "LockPersonality",
    "MemoryAccounting",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "ProtectClock",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "RemoveIPC",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "TasksAccounting",
];

/// The words a directive takes beside `yes` and `no`, where that is a closed set.
pub(crate) fn words_of(directive: &str) -> Option<&'static [&'static str]> {
    Some(match directive {
        "ProtectSystem" => &["strict", "full"],
        "ProtectHome" => &["read-only", "tmpfs"],
        "ProtectControlGroups" => &["private", "strict"],
        "ProtectHostname" => &["private"],
        "PrivateTmp" => &["disconnected"],
        "PrivateUsers" => &["self", "identity", "full"],
        _ if SWITCHES.contains(&directive) => &[],
        _ => return None,
    })
}

/// The first major version of systemd that does what a directive of the table says, where that is newer than 252, the oldest
/// that kldload has data for. An older one would pass over the line, and leave the service without it.
pub fn since(directive: &str, value: &str) -> Option<u32> {
    Some(match (directive, value) {
        ("PrivatePIDs", _)
        | ("PrivateTmp", "disconnected")
        | ("ProtectControlGroups", "private" | "strict") => 257,
        ("PrivateUsers", "self" | "identity") => 257,
        ("PrivateUsers", "full") | ("ProtectHostname", "private") => 258,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_and_agree() {
        assert!(DIRECTIVES.is_sorted_by(|a, b| a < b));
        assert!(SWITCHES.is_sorted_by(|a, b| a < b));
        assert!(SWITCHES.iter().all(|switch| DIRECTIVES.contains(switch)));
    }
}
