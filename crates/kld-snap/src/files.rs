//! Files that differ: `zfs diff`.

use std::time::Duration;

use kld_host::{Cmd, ParseError};
use serde::Serialize;

/// A large dataset takes its time.
const DEADLINE: Duration = Duration::from_secs(600);

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

/// One file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Its path.
    pub path: String,
    /// Where it moved.
    pub to: Option<String>,
}

/// What differs between a snapshot and another, or the dataset as it is now.
pub fn diff_cmd(from: &str, to: &str) -> Cmd {
    Cmd::new("zfs").args(["diff", "-H", from, to]).timeout(DEADLINE)
}

/// Reads the output of [`diff_cmd`].
///
/// # Errors
/// When a line is no change.
pub fn parse_diff(text: &str) -> Result<Vec<Change>, ParseError> {
    text.lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<Change, ParseError> {
    let error = || ParseError { tool: "zfs diff", reason: format!("a change expected in `{line}`") };
    let mut columns = line.split('\t');
    let kind = match columns.next() {
        Some("+") => ChangeKind::Added,
        Some("-") => ChangeKind::Removed,
        Some("M") => ChangeKind::Modified,
        Some("R") => ChangeKind::Renamed,
        _ => return Err(error()),
    };
    let path = unescape(columns.next().ok_or_else(error)?);
    Ok(Change { kind, path, to: columns.next().map(unescape) })
}

/// `zfs diff` writes white space and bytes beyond ASCII as `\0ooo`, four octal digits.
fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        let digits =
            tail.get(..4).filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let value = digits
            .map(|digits| digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_diffs_with_any_names() {
        let text = "M\t/srv/a/\n+\t/srv/a/new\\0040file\n-\t/srv/a/gr\\0303\\0266\\0303\\0237e\nR\t/srv/a/x\t/srv/a/y\n";
        let changes = parse_diff(text).expect("good");
        let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["/srv/a/", "/srv/a/new file", "/srv/a/größe", "/srv/a/x"]);
        assert_eq!((changes[3].kind, changes[3].to.as_deref()), (ChangeKind::Renamed, Some("/srv/a/y")));
        assert_eq!(unescape("a\\b\\04"), "a\\b\\04");
        assert!(parse_diff("cannot diff").is_err());
    }
}
