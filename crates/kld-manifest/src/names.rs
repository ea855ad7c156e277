//! Names, each checked once: a value of one of these types is valid wherever it goes.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {reason}")]
pub struct NameError {
    /// The kind of name.
    pub what: &'static str,
    /// The text.
    pub text: String,
    /// The rule it breaks.
    pub reason: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(reason) => Err(NameError { what: $what, text: text.to_owned(), reason }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A host name: labels of letters, digits and `-`, joined by dots; at most 64 characters (Linux HOST_NAME_MAX).
    HostName, "host name", |t| {
        require(!t.is_empty() && t.len() <= 64, "it must have 1 to 64 characters")?;
        require(t.split('.').all(|l| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')),
            "labels hold letters, digits and `-` (not first or last)")
    }
);
name!(
    /// A ZFS pool name.
    PoolName, "pool name", |t| {
        require(!t.is_empty() && t.len() <= 255, "it must have 1 to 255 characters")?;
        require(t.starts_with(|c: char| c.is_ascii_alphabetic()), "it must start with a letter")?;
        require(t.bytes().all(is_zfs_byte), "only letters, digits, `-`, `_`, `.` and `:` are allowed")?;
        require(!["mirror", "raidz", "draid", "spare"].iter().any(|r| t.starts_with(r)) && t != "log",
            "ZFS keeps names that begin with mirror, raidz, draid or spare, and `log`, for itself")
    }
);
name!(
    /// A full dataset name, pool first: `rpool/srv/gitea`.
    DatasetName, "dataset name", |t| {
        require(t.len() <= 255, "it must have at most 255 characters")?;
        let mut parts = t.split('/');
        let pool = parts.next().unwrap_or_default();
        require(pool.parse::<PoolName>().is_ok(), "it must begin with a pool name")?;
        require(parts.all(|p| !p.is_empty() && p != "." && p != ".." && p.bytes().all(is_zfs_byte)),
            "parts hold letters, digits, `-`, `_`, `.` and `:`, and none is empty")
    }
);
name!(
    /// A network interface name (at most 15 characters, Linux IFNAMSIZ).
    InterfaceName, "interface name", |t| {
        require(!t.is_empty() && t.len() <= 15, "it must have 1 to 15 characters")?;
        require(t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && t != "." && t != "..",
            "only letters, digits, `-`, `_` and `.` are allowed")
    }
);
name!(
    /// A systemd unit name without or with its type: `gitea.service`, `postgresql@17-main.service`.
    UnitName, "unit name", |t| {
        require(!t.is_empty() && t.len() <= 255, "it must have 1 to 255 characters")?;
        require(t.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b)),
            "only letters, digits and `:-_.\\@` are allowed")
    }
);
name!(
    /// A user or group name, as `adduser` takes it.
    UserName, "user name", |t| {
        require(!t.is_empty() && t.len() <= 31, "it must have 1 to 31 characters")?;
        require(t.starts_with(|c: char| c.is_ascii_lowercase() || c == '_'), "it must start with a small letter or `_`")?;
        require(t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b)),
            "only small letters, digits, `-` and `_` are allowed")
    }
);
name!(
    /// A distribution package name.
    PackageName, "package name", |t| {
        require(t.len() >= 2 && t.len() <= 128, "it must have 2 to 128 characters")?;
        require(t.starts_with(|c: char| c.is_ascii_alphanumeric()), "it must start with a letter or digit")?;
        require(t.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b)),
            "only letters, digits and `+-._` are allowed")
    }
);
name!(
    /// The name of a secret; also the name of its systemd credential.
    SecretName, "secret name", |t| {
        require(!t.is_empty() && t.len() <= 64, "it must have 1 to 64 characters")?;
        require(t.starts_with(|c: char| c.is_ascii_lowercase()), "it must start with a small letter")?;
        require(t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b)),
            "only small letters, digits, `-` and `_` are allowed")
    }
);
name!(
    /// A Linux capability, as capabilities(7) writes it.
    Capability, "capability", |t| {
        require(CAPABILITIES.contains(&t), "capabilities(7) lists `CAP_CHOWN`, `CAP_SETUID`, `CAP_NET_ADMIN` and others")
    }
);

/// Of Linux 6.12, `include/uapi/linux/capability.h`, in its order.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

impl DatasetName {
    /// The pool: everything before the first `/`.
    pub fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The part after the pool, empty for the pool's own dataset.
    pub fn path_in_pool(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, rest)| rest)
    }

    /// The parent dataset; `None` for the pool's own.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }
}

/// Bytes that ZFS takes in a dataset name besides `/` and space. Spaces are legal in ZFS, but not in this notation.
fn is_zfs_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.:".contains(&b)
}

fn require(good: bool, reason: &'static str) -> Result<(), &'static str> {
    if good { Ok(()) } else { Err(reason) }
}
