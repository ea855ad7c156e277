//! What an installation costs: bytes to download, bytes on disk; and which files apt would take.

use std::collections::BTreeMap;
use std::time::Duration;

use kld_host::Cmd;

use super::apt::provided_by;
use crate::host::{Host, HostError};

/// Sums over packages, as their index states them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) download: u64,
    pub(super) on_disk: u64,
    /// SHA-256 of each package file, by the package's name.
    pub(super) digests: BTreeMap<String, String>,
    /// Other names of these packages, and whose they are.
    pub(super) providers: BTreeMap<String, String>,
}

/// What apt's index says of the versions that it would install.
pub(super) fn of(host: &dyn Host, words: &[String]) -> Result<Cost, HostError> {
    let cmd = Cmd::new("apt-cache")
        .args(["show", "--no-all-versions"])
        .args(words)
        .timeout(Duration::from_secs(60));
    Ok(sum(&host.text(&cmd)?))
}

/// Adds up `Size:`, in bytes, and `Installed-Size:`, in KiB (Debian policy 5.6.20).
fn sum(text: &str) -> Cost {
    let mut cost = Cost::default();
    let mut name = "";
    for (field, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let (value, number) = (value.trim(), || value.trim().parse::<u64>().unwrap_or_default());
        match field {
            "Package" => name = value,
            "Size" => cost.download += number(),
            "Installed-Size" => cost.on_disk += number() << 10,
            "Provides" => {
                cost.providers.extend(provided_by(value).map(|other| (other.to_owned(), name.to_owned())))
            }
            "SHA256" => drop(cost.digests.insert(name.to_owned(), value.to_owned())),
            _ => {}
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_added_up() {
        let text = "Package: a\nInstalled-Size: 10\nSize: 1500\nSHA256: ab\nDescription: a\n Size: 7\n\n\
                    Package: b\nSize: 500\nInstalled-Size: 1\nProvides: c (= 1), d\n";
        let digests = [("a".to_owned(), "ab".to_owned())].into();
        let providers = ["c", "d"].map(|name| (name.to_owned(), "b".to_owned())).into();
        assert_eq!(sum(text), Cost { download: 2000, on_disk: 11 << 10, digests, providers });
    }
}
