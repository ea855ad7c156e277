//! One account in passwd(5), group(5) and the files like them, brought back to what it was; everybody else stays.
//!
//! People add accounts and change groups between an apply and the day on which it is taken back.

/// Makes one text of a path, what is in it now, what was in it before, and the account.
pub(super) type Merge = fn(&str, &str, &str, &str) -> String;

/// Where the names of members stand: the last field of group(5) and gshadow(5).
const MEMBERS: [&str; 2] = ["/etc/group", "/etc/gshadow"];

/// The text of a file with the account's own lines as `before`, and its memberships; without them when it was not there.
///
/// An account that somebody has removed since does not come back.
pub(super) fn merge(path: &str, now: &str, before: &str, account: &str) -> String {
    let has_members = MEMBERS.contains(&path);
    let mut text = String::new();
    for line in now.lines() {
        let old = before.lines().find(|old| key(old) == key(line));
        let merged = match old {
            None if key(line) == account => continue,
            Some(old) if key(line) == account => old.to_owned(),
            Some(old) if has_members => with_membership(line, account, members(old).any(|of| of == account)),
            _ => line.to_owned(),
        };
        text.push_str(&merged);
        text.push('\n');
    }
    text
}

/// The same for an account whose lines were taken away a moment ago: they come back, behind the others.
pub(super) fn merge_again(path: &str, now: &str, before: &str, account: &str) -> String {
    let mut text = merge(path, now, before, account);
    let is_there = now.lines().any(|line| key(line) == account);
    for line in before.lines().filter(|line| key(line) == account && !is_there) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Whose line it is.
pub(super) fn key(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}

fn members(line: &str) -> impl Iterator<Item = &str> {
    line.rsplit(':').next().unwrap_or_default().split(',').filter(|name| !name.is_empty())
}

fn with_membership(line: &str, account: &str, is_member: bool) -> String {
    if members(line).any(|name| name == account) == is_member {
        return line.to_owned();
    }
    let Some((rest, _)) = line.rsplit_once(':') else { return line.to_owned() };
    let others = members(line).filter(|name| *name != account);
    let all: Vec<&str> = others.chain(is_member.then_some(account)).collect();
    format!("{rest}:{}", all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_goes_and_one_that_came_later_stays() {
        let before = "root:x:0:0:root:/root:/bin/bash\n";
        let now = "root:x:0:0:root:/root:/bin/sh\napp:x:999:999::/srv:/usr/sbin/nologin\nbob:x:1001:1001::/home/bob:/bin/sh\n";
        let merged = "root:x:0:0:root:/root:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n";
        assert_eq!(merge("/etc/passwd", now, before, "app"), merged);
        assert_eq!(merge("/etc/passwd", now, now, "app"), now);
    }

    #[test]
    fn an_account_gets_its_old_line_and_is_not_made_again() {
        let before = "app:x:999:999::/srv:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n";
        let now = "app:x:999:999::/var:/bin/false\n";
        assert_eq!(merge("/etc/passwd", now, before, "app"), "app:x:999:999::/srv:/bin/sh\n");
        assert_eq!(merge("/etc/passwd", "", before, "app"), "");
        let later = "carol:x:1002:1002::/home/carol:/bin/sh\n";
        let again = format!("{later}app:x:999:999::/srv:/bin/sh\n");
        assert_eq!(merge_again("/etc/passwd", later, before, "app"), again);
        assert_eq!(merge_again("/etc/passwd", &again, before, "app"), again);
    }

    #[test]
    fn memberships_of_others_stay() {
        let before = "sudo:x:27:alice\nadm:x:4:app\napp:x:999:\n";
        let now = "sudo:x:27:alice,app,bob\nadm:x:4:bob\napp:x:999:bob\nlater:x:1002:app\n";
        let merged = "sudo:x:27:alice,bob\nadm:x:4:bob,app\napp:x:999:\nlater:x:1002:app\n";
        assert_eq!(merge("/etc/group", now, before, "app"), merged);
        // The last field of others is no list of names.
        assert_eq!(merge("/etc/subuid", "bob:1:app\n", "bob:1:\n", "app"), "bob:1:app\n");
    }
}
