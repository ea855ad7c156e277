//! Bookmarks: moments that replication goes on from, of which only the mark is left. A rollback takes newer ones with it.

use kld_host::{Cmd, ParseError};
use serde::Serialize;

use crate::snapshot::DEADLINE;

/// One bookmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bookmark {
    /// Its dataset.
    pub dataset: String,
    /// What stands behind the `#`.
    pub name: String,
    /// When the snapshot was made that it marks, in seconds since 1970.
    pub created: u64,
    /// The transaction group of that snapshot.
    pub txg: u64,
}

/// The bookmarks of a dataset.
pub fn bookmarks_cmd(dataset: &str) -> Cmd {
    let columns =
        ["list", "-Hp", "-t", "bookmark", "-d", "1", "-o", "name,creation,createtxg", "-s", "createtxg"];
    Cmd::new("zfs").args(columns).arg(dataset).timeout(DEADLINE)
}

/// Reads the output of [`bookmarks_cmd`].
///
/// # Errors
/// When a line has other columns.
pub fn parse_bookmarks(text: &str) -> Result<Vec<Bookmark>, ParseError> {
    let bookmark = |line: &str| {
        let [name, created, txg] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
        let (dataset, name) = name.split_once('#')?;
        let (dataset, name) = (dataset.to_owned(), name.to_owned());
        Some(Bookmark { dataset, name, created: created.parse().ok()?, txg: txg.parse().ok()? })
    };
    let read = |line| {
        bookmark(line).ok_or_else(|| ParseError {
            tool: "zfs list",
            reason: format!("three columns of a bookmark expected in `{line}`"),
        })
    };
    text.lines().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_are_read_as_zfs_lists_them() {
        assert_eq!(
            bookmarks_cmd("tank/a b").to_string(),
            "zfs list -Hp -t bookmark -d 1 -o name,creation,createtxg -s createtxg 'tank/a b'"
        );
        let bookmarks = parse_bookmarks("tank/a b#sent\t1795752780\t77\n").expect("good");
        let (dataset, name) = ("tank/a b".to_owned(), "sent".to_owned());
        assert_eq!(bookmarks, [Bookmark { dataset, name, created: 1_795_752_780, txg: 77 }]);
        assert_eq!(parse_bookmarks(""), Ok(Vec::new()));
        for bad in ["t/a@x\t1\t2", "t/a#x\t1", "t/a#x\t-\t2"] {
            assert!(parse_bookmarks(bad).is_err(), "{bad}");
        }
    }
}
