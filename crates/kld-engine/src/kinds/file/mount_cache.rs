//! `/etc/zfs/zfs-list.cache/POOL`, which belongs to two: the manifest's datasets must be mounted by the next start whatever
//! happens to ZFS's event daemon until then, and the daemon keeps the lines of all others (zfs-mount-generator(8)).
//!
//! A line is a dataset's, named in its first column. Where the key of one is that has a passphrase, ZFS alone knows. The daemon
//! writes how a dataset is mounted, where it is: with `atime=off`, `relatime` is what the kernel makes of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::host::{Entry, Node};
use crate::wanted::WantedFile;

/// The columns of `atime` and `relatime`.
const ATIME: usize = 3;
const RELATIME: usize = 4;
/// The column of `keylocation`.
const KEY_LOCATION: usize = 11;
/// What is there when a person has the key.
const PROMPT: &str = "prompt";

pub(super) fn is_one(path: &str) -> bool {
    path.strip_prefix(kld_system::MOUNT_CACHE).is_some_and(|name| name.starts_with('/'))
}

/// What is to be in the file, with the lines of datasets that the manifest does not know.
pub(super) fn shared<'a>(path: &str, file: &'a WantedFile, there: Option<&Entry>) -> Cow<'a, WantedFile> {
    let (Node::File(ours), Some(Entry { node: Node::File(there), .. })) = (&file.node, there) else {
        return Cow::Borrowed(file);
    };
    if !is_one(path) {
        return Cow::Borrowed(file);
    }
    let text = merge(&String::from_utf8_lossy(ours), &String::from_utf8_lossy(there));
    Cow::Owned(WantedFile { node: Node::File(text.into_bytes()), ..file.clone() })
}

fn dataset(line: &str) -> &str {
    line.split('\t').next().unwrap_or_default()
}

fn datasets(text: &str) -> BTreeSet<&str> {
    text.lines().map(dataset).collect()
}

/// In the order in which the daemon sorts them.
fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: BTreeSet<&str> = lines.collect();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn columns(line: &str) -> Vec<&str> {
    line.split('\t').collect()
}

/// `text` with what `now` says of the same dataset and is not the manifest's: where its key is, when a person has it or had it, and
/// `relatime` where it means nothing.
fn with_theirs(text: &str, now: &str) -> String {
    let known: BTreeMap<&str, Vec<&str>> = now.lines().map(|line| (dataset(line), columns(line))).collect();
    let line = |line: &str| {
        let mut ours = columns(line);
        if let Some(theirs) = known.get(dataset(line)).filter(|theirs| theirs.len() == ours.len()) {
            let is = |of: &[&str], at: usize, value: &str| of.get(at) == Some(&value);
            if is(theirs, KEY_LOCATION, PROMPT) || is(&ours, KEY_LOCATION, PROMPT) {
                ours[KEY_LOCATION] = theirs[KEY_LOCATION];
            }
            if is(theirs, ATIME, "off") && is(&ours, ATIME, "off") && ours.len() > RELATIME {
                ours[RELATIME] = theirs[RELATIME];
            }
        }
        ours.join("\t") + "\n"
    };
    text.lines().map(line).collect()
}

/// `there` itself where it says the same: the order is the daemon's.
fn merge(ours: &str, there: &str) -> String {
    let own = datasets(ours);
    let ours = with_theirs(ours, there);
    let text = joined(ours.lines().chain(there.lines().filter(|line| !own.contains(dataset(line)))));
    if text == joined(there.lines()) { there.to_owned() } else { text }
}

/// The file as it was before `made` was written, but for datasets that came or went since.
pub(super) fn back(before: &str, made: &str, now: &str) -> String {
    let (known, ours, still) = (datasets(before), datasets(made), datasets(now));
    let went = |name: &str| ours.contains(name) && !still.contains(name);
    let came = |name: &str| !ours.contains(name) && !known.contains(name);
    let before = with_theirs(before, now);
    let old = before.lines().filter(|line| !went(dataset(line)));
    joined(old.chain(now.lines().filter(|line| came(dataset(line)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_datasets_stay() {
        let ours = "rpool/a\t/a\ton\nrpool/c\t/c\ton\n";
        let there = "rpool/a\t/old\toff\nrpool/b\t/b\ton\n";
        assert_eq!(merge(ours, there), "rpool/a\t/a\ton\nrpool/b\t/b\ton\nrpool/c\t/c\ton\n");
        assert_eq!(merge(ours, ours), ours);
        let unsorted = "rpool/x\t/x\ton\nrpool/c\t/c\ton\nrpool/a\t/a\ton\n";
        assert_eq!(merge(ours, unsorted), unsorted);
        assert_eq!(merge(ours, ""), ours);
    }

    #[test]
    fn who_has_the_key_of_a_dataset_is_not_changed() {
        let line = |mountpoint: &str, key: &str| {
            format!("rpool/v\t{mountpoint}\ton\ton\toff\ton\ton\toff\ton\toff\trpool/v\t{key}\t-\t-\n")
        };
        let sealed = "file:///run/kldload/keys/v";
        assert_eq!(merge(&line("/v", sealed), &line("/v", "prompt")), line("/v", "prompt"));
        assert_eq!(merge(&line("/new", sealed), &line("/v", "prompt")), line("/new", "prompt"));
        assert_eq!(merge(&line("/v", sealed), &line("/v", "none")), line("/v", sealed));
        assert_eq!(merge(&line("/v", sealed), ""), line("/v", sealed));
        let (before, made) = (line("/v", sealed), line("/new", sealed));
        assert_eq!(back(&before, &made, &line("/new", "prompt")), line("/v", "prompt"));
        let (before, made) = (line("/v", "prompt"), line("/new", "prompt"));
        assert_eq!(back(&before, &made, &line("/new", sealed)), line("/v", sealed));
    }

    #[test]
    fn how_rarely_access_times_are_written_means_nothing_where_they_are_not() {
        let line = |atime: &str, relatime: &str| format!("rpool/v\t/v\ton\t{atime}\t{relatime}\ton\ton\n");
        assert_eq!(merge(&line("off", "off"), &line("off", "on")), line("off", "on"));
        assert_eq!(merge(&line("on", "off"), &line("on", "on")), line("on", "off"));
        assert_eq!(merge(&line("off", "off"), &line("on", "on")), line("off", "off"));
    }

    #[test]
    fn what_came_or_went_since_is_left_so() {
        let before = "rpool/a\t/a\nrpool/b\t/b\n";
        let made = "rpool/a\t/new\nrpool/b\t/b\nrpool/c\t/c\n";
        assert_eq!(back(before, made, made), before);
        let now = "rpool/a\t/new\nrpool/c\t/c\nrpool/d\t/d\n";
        assert_eq!(back(before, made, now), "rpool/a\t/a\nrpool/d\t/d\n");
    }
}
