//! `/proc/self/mountinfo`, proc_pid_mountinfo(5).

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The device number of its file system, `0:43`.
    pub(crate) device: String,
    /// The directory of that file system which is seen.
    pub(crate) root: String,
    /// Where it is seen.
    pub(crate) point: String,
    /// `zfs`.
    pub(crate) kind: String,
    /// The dataset or device.
    pub(crate) source: String,
}

/// Every mount, in the order in which they were made. Lines that are not as the kernel writes them are left out.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    let (kind, source) = (right.next()?, right.next()?);
    Some(Mount {
        device: (*left.get(2)?).to_owned(),
        root: unescape(left.get(3)?),
        point: unescape(left.get(4)?),
        kind: kind.to_owned(),
        source: unescape(source),
    })
}

/// `\040` is a space: the kernel writes white space and backslashes in octal.
fn unescape(word: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether `path` is `of` or below it.
pub(crate) fn is_within(path: &str, of: &str) -> bool {
    path.strip_prefix(of.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is mounted on a path: of several, the one that is seen.
pub(crate) fn mounted_on<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == path)
}

/// Where a path lies in its file system: the device, and the directory there. What is mounted on the path itself does not
/// count: the directory below it is meant.
pub(crate) fn place_of(mounts: &[Mount], path: &str) -> Option<(String, String)> {
    let holds = |mount: &&Mount| mount.point != path && is_within(path, &mount.point);
    // The longest; of those on one path, the last.
    let mount = mounts.iter().filter(holds).max_by_key(|mount| mount.point.trim_end_matches('/').len())?;
    let below = path.strip_prefix(mount.point.trim_end_matches('/')).unwrap_or_default();
    Some((mount.device.clone(), format!("{}{below}", mount.root.trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        22 1 0:23 / / rw,relatime shared:1 - zfs rpool/ROOT/debian rw\n\
        40 22 0:40 / /srv/web rw shared:9 - zfs rpool/srv/web rw\n\
        41 22 0:23 /srv/app\\040one /mnt/a\\134b rw shared:9 - zfs rpool/ROOT/debian rw\n\
        nonsense\n";

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[1].source, "rpool/srv/web");
        assert_eq!((mounts[2].root.as_str(), mounts[2].point.as_str()), ("/srv/app one", "/mnt/a\\b"));
        assert_eq!(mounted_on(&mounts, "/srv/web").map(|mount| mount.kind.as_str()), Some("zfs"));
        assert_eq!(mounted_on(&mounts, "/srv"), None);
    }

    #[test]
    fn a_place_is_that_below_what_is_mounted_on_it() {
        let mounts = parse(TABLE);
        let place = |path: &str| place_of(&mounts, path).expect("everything is below the root");
        assert_eq!(place("/srv/app"), ("0:23".to_owned(), "/srv/app".to_owned()));
        assert_eq!(place("/srv/web"), ("0:23".to_owned(), "/srv/web".to_owned()));
        assert_eq!(place("/srv/web/a"), ("0:40".to_owned(), "/a".to_owned()));
        assert_eq!(place("/mnt/a\\b/c"), ("0:23".to_owned(), "/srv/app one/c".to_owned()));
        assert!(is_within("/srv/app", "/srv/app") && is_within("/srv/app/x", "/srv/app"));
        assert!(!is_within("/srv/apple", "/srv/app") && is_within("/srv", "/"));
    }
}
