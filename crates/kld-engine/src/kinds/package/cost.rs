//! What an installation costs: bytes to download, bytes on disk.

use std::time::Duration;

use kld_host::Cmd;

use crate::host::{Host, HostError};

/// Sums over packages, as their index states them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) download: u64,
    pub(super) on_disk: u64,
}

/// What apt's index says of the versions that it would install.
pub(super) fn of(host: &dyn Host, packages: &[String]) -> Result<Cost, HostError> {
    let cmd = Cmd::new("apt-cache")
        .args(["show", "--no-all-versions"])
        .args(packages)
        .timeout(Duration::from_secs(60));
    Ok(sum(&host.text(&cmd)?))
}

/// Adds up `Size:`, in bytes, and `Installed-Size:`, in KiB (Debian policy 5.6.20).
fn sum(text: &str) -> Cost {
    let of = |field: &str| -> u64 {
        let values = text.lines().filter_map(|line| line.strip_prefix(field)?.trim().parse::<u64>().ok());
        values.sum()
    };
    Cost { download: of("Size:"), on_disk: of("Installed-Size:") << 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_added_up() {
        let text = "Package: a\nInstalled-Size: 10\nSize: 1500\nDescription: a\n Size: 7\n\n\
                    Package: b\nSize: 500\nInstalled-Size: 1\n";
        assert_eq!(sum(text), Cost { download: 2000, on_disk: 11 << 10 });
    }
}
