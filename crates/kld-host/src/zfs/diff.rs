//! Files that differ between a snapshot and what came after it: `zfs diff`.

use serde::Serialize;

use super::DEADLINE;
use crate::{Cmd, ParseError, octal};

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It came.
    Added,
    /// It went.
    Removed,
    /// It is another.
    Modified,
    /// It moved.
    Renamed,
}

impl ChangeKind {
    /// As `zfs diff` writes it.
    pub fn letter(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Modified => 'M',
            Self::Renamed => 'R',
        }
    }
}

/// One file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Whether it is a directory.
    #[serde(skip)]
    pub is_directory: bool,
    /// Its path.
    pub path: String,
    /// Where it moved.
    pub to: Option<String>,
}

/// What differs between a snapshot and another, or the dataset as it is now. A large dataset takes its time: set a timeout.
pub fn diff_cmd(from: &str, to: &str) -> Cmd {
    Cmd::new("zfs").args(["diff", "-FH", from, to]).timeout(DEADLINE)
}

/// Reads the output of [`diff_cmd`].
///
/// # Errors
/// When a line is no change.
pub fn parse_diff(text: &str) -> Result<Vec<Change>, ParseError> {
    text.lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<Change, ParseError> {
    let (kind, file, path, to) = match line.split('\t').collect::<Vec<_>>()[..] {
        ["+", file, path] => (ChangeKind::Added, file, path, None),
        ["-", file, path] => (ChangeKind::Removed, file, path, None),
        // The last column says how many links it has more or fewer: `(+1)`.
        ["M", file, path] | ["M", file, path, _] => (ChangeKind::Modified, file, path, None),
        ["R", file, path, to] => (ChangeKind::Renamed, file, path, Some(to)),
        _ => {
            let reason = format!("a change expected in `{line}`");
            return Err(ParseError { tool: "zfs diff", reason });
        }
    };
    let unescape = |path: &str| octal::unescape(path, 4);
    Ok(Change { kind, is_directory: file == "/", path: unescape(path), to: to.map(unescape) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_diffs_with_any_names() {
        let text = "M\t/\t/srv/a/\n+\tF\t/srv/a/new\\0040file\n-\tF\t/srv/a/gr\\0303\\0266\\0303\\0237e\n\
                    R\tF\t/srv/a/x\t/srv/a/y\nM\tF\t/srv/a/linked\t(+1)\n";
        let changes = parse_diff(text).expect("good");
        let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["/srv/a/", "/srv/a/new file", "/srv/a/größe", "/srv/a/x", "/srv/a/linked"]);
        assert_eq!((changes[3].kind, changes[3].to.as_deref()), (ChangeKind::Renamed, Some("/srv/a/y")));
        assert_eq!((changes[4].kind, changes[4].to.as_deref()), (ChangeKind::Modified, None));
        assert!(changes[0].is_directory && !changes[1].is_directory);
        for bad in ["cannot diff", "?\tF\t/x\n", "+\tF\n", "R\tF\t/x\n"] {
            assert!(parse_diff(bad).is_err(), "{bad}");
        }
    }
}
