//! The lines of a file that change.

use std::collections::BTreeMap;

use crate::host::{Entry, Node};

/// More of them, or longer ones, are counted and not shown.
const MOST: usize = 6;
const LONGEST: usize = 120;
/// The bit that lets everybody read a file: inode(7).
const READ_BY_ALL: u32 = 0o004;

/// Lines of one that the other does not have, and of the other that the first does not have, however often: enough to say how much
/// changes, and what.
pub(super) fn differing<'a>(old: &'a str, new: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    (beyond(old, new), beyond(new, old))
}

fn beyond<'a>(text: &'a str, other: &'a str) -> Vec<&'a str> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    other.lines().for_each(|line| *count.entry(line).or_default() += 1);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.retain(|line| match count.get_mut(line) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    });
    lines
}

/// What changes, when it is little: lines that go, and lines that come. Of a file that not everybody may read nothing is shown: plans
/// are kept and sent on.
pub(super) fn shown(old: &Entry, new: &Node, mode: u32) -> Vec<String> {
    let (Node::File(before), Node::File(after)) = (&old.node, new) else { return Vec::new() };
    let (Ok(before), Ok(after)) = (std::str::from_utf8(before), std::str::from_utf8(after)) else {
        return Vec::new();
    };
    let (removed, added) = differing(before, after);
    let lines = [("−", &removed), ("+", &added)];
    let fits = |line: &str| line.chars().count() <= LONGEST && !line.contains(char::is_control);
    let mut all = removed.iter().chain(&added);
    let is_little = removed.len() + added.len() <= MOST && all.all(|line| fits(line.trim()));
    if !is_little || old.mode & mode & READ_BY_ALL == 0 {
        return Vec::new();
    }
    let shown = lines.into_iter().flat_map(|(sign, lines)| {
        lines.iter().filter(|line| !line.trim().is_empty()).map(move |line| format!("{sign} {}", line.trim()))
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Node {
        Node::File(text.into())
    }

    fn notes(old: &str, new: &str, modes: (u32, u32)) -> Vec<String> {
        shown(&Entry { node: file(old), mode: modes.0, uid: 0, gid: 0 }, &file(new), modes.1)
    }

    #[test]
    fn changes_are_lines_of_one_that_the_other_has_not() {
        assert_eq!(differing("a\nb\nc\n", "a\nx\nc\ny\n"), (vec!["b"], vec!["x", "y"]));
        assert_eq!(differing("a\na\n", "a\n"), (vec!["a"], vec![]));
    }

    #[test]
    fn little_is_shown_and_much_is_not() {
        let (open, old) = ((0o644, 0o644), "a\n  b\n\n");
        assert_eq!(notes(old, "a\n  c\n", open), ["− b", "+ c"]);
        assert_eq!(notes(old, "1\n2\n3\n4\n5\n6\n7\n", open), [""; 0]);
        assert_eq!(notes(old, &"x".repeat(LONGEST + 1), open), [""; 0]);
        assert_eq!(notes(old, "a\n\x1b[2J\n", open), [""; 0], "a terminal takes it for a command");
    }

    #[test]
    fn what_not_everybody_may_read_is_not_shown() {
        assert_eq!(notes("a\n", "b\n", (0o644, 0o640)), [""; 0]);
        assert_eq!(notes("a\n", "b\n", (0o600, 0o644)), [""; 0]);
    }
}
