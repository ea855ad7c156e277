//! How old the data is that a recovery brings back: the newest snapshot of each dataset.

use std::time::Duration;

use kld_host::Cmd;
use serde::{Deserialize, Serialize};

use crate::host::Host;

/// The snapshot that every dataset of an image has: it is as old as the image, and nobody's work is in it.
const INSTALL: &str = "install";

/// The newest snapshot of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newest {
    /// The dataset's name in the manifest.
    pub(super) dataset: String,
    /// The snapshot's full name on this machine, and when it was made, in seconds since 1970.
    pub(super) snapshot: Option<(String, u64)>,
}

/// The newest of each dataset that is not younger than `until`. A dataset that is not here has none.
pub(super) fn newest(host: &dyn Host, data: &[Vec<String>], until: u64) -> Vec<Newest> {
    let of = |names: &Vec<String>| {
        let snapshot = names.iter().find_map(|name| {
            let list = ["list", "-Hp", "-t", "snapshot", "-d", "1", "-o", "name,creation", name];
            // A dataset that is not here, a pool that is not imported, a machine without ZFS: no snapshot.
            let text = host.text(&Cmd::new("zfs").args(list).timeout(Duration::from_secs(60))).ok()?;
            newest_in(&text, until)
        });
        Newest { dataset: names.first().cloned().unwrap_or_default(), snapshot }
    };
    data.iter().map(of).collect()
}

fn newest_in(text: &str, until: u64) -> Option<(String, u64)> {
    let snapshots = text.lines().filter_map(|line| {
        let (name, created) = line.split_once('\t')?;
        let (_, short) = name.split_once('@')?;
        let created: u64 = created.parse().ok()?;
        (short != INSTALL && created <= until).then(|| (name.to_owned(), created))
    });
    snapshots.max_by_key(|(_, created)| *created)
}

#[cfg(test)]
mod tests {
    use super::newest_in;

    #[test]
    fn the_newest_that_was_there_in_time_counts() {
        let text = "t/a@install\t90\nt/a@one\t100\nt/a@two\t200\nt/a@three\t300\n";
        assert_eq!(newest_in(text, 250), Some(("t/a@two".to_owned(), 200)));
        assert_eq!(newest_in(text, 99), None);
        assert_eq!(newest_in("", 99), None);
    }
}
