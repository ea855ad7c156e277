//! `/proc/self/mountinfo`, proc_pid_mountinfo(5).

use crate::octal;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device number of its file system, `0:43`.
    pub device: String,
    /// The directory of that file system which is seen.
    pub root: String,
    /// Where it is seen.
    pub point: String,
    /// `zfs`.
    pub kind: String,
    /// The dataset or device.
    pub source: String,
    /// The options of its file system as the kernel writes them, escaped: `rw,lowerdir=/a:/b`.
    pub options: String,
    /// Whether what is mounted below it elsewhere comes here, too (mount_namespaces(7), *Shared subtrees*).
    pub follows: bool,
}

/// Every mount, in the order in which they were made. Lines that are not as the kernel writes them are left out.
pub fn parse(text: &str) -> Vec<Mount> {
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
        options: right.next().unwrap_or_default().to_owned(),
        follows: left
            .iter()
            .skip(6)
            .any(|field| field.starts_with("shared:") || field.starts_with("master:")),
    })
}

/// A word of this file or of fstab(5): white space and backslashes are in octal, `\040` is a space.
pub fn unescape(word: &str) -> String {
    octal::unescape(word, 3)
}

/// Whether `path` is `of` or below it; names of datasets are such paths, too.
pub fn is_within(path: &str, of: &str) -> bool {
    path.strip_prefix(of.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is mounted on a path: of several, the one that is seen.
pub fn mounted_on<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == path)
}

/// The mount on which a path lies, or which lies on it.
pub fn above<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    deepest(mounts.iter().filter(|mount| is_within(path, &mount.point)))
}

/// The one with the longest path; of those on one path, the last.
fn deepest<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Option<&'a Mount> {
    mounts.max_by_key(|mount| mount.point.trim_end_matches('/').len())
}

/// Where a path lies in its file system: the device, and the directory there. What is mounted on the path itself does not
/// count: the directory below it is meant.
pub fn place_of(mounts: &[Mount], path: &str) -> Option<(String, String)> {
    let holds = |mount: &&Mount| mount.point != path && is_within(path, &mount.point);
    let mount = deepest(mounts.iter().filter(holds))?;
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
    fn any_number_of_optional_fields_is_passed_over() {
        let line = "36 35 8:1 / /a\\040b rw,relatime shared:1 master:2 - vfat /dev/sda1 rw,errors=x";
        let mount = parse_line(line).expect("a mount");
        assert_eq!((mount.device.as_str(), mount.point.as_str()), ("8:1", "/a b"));
        let follows =
            |fields: &str| parse_line(&line.replace("shared:1 master:2 ", fields)).map(|mount| mount.follows);
        assert_eq!([mount.follows, follows("master:2 ").expect("a mount")], [true, true]);
        assert_eq!([follows(""), follows("unbindable ")], [Some(false), Some(false)]);
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("vfat", "/dev/sda1"));
        assert_eq!(mount.options, "rw,errors=x");
        assert_eq!(parse_line("nothing"), None);
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
