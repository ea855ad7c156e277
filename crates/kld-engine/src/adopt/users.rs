//! Who uses a directory: open files, working directories, programs, sockets, mounts in the name spaces of services, swap
//! files and loop devices. All of it is in `/proc` and `/sys`, so no tool needs to be installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use kld_host::mounts::{self, is_within};

/// Somebody who uses a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The name of its program, or `kernel`.
    pub name: String,
    /// Its number; none for the kernel.
    pub process: Option<u32>,
    /// The unit that it belongs to.
    pub unit: Option<String>,
    /// What it does: `has /srv/app/db open`.
    pub does: String,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if let Some(process) = self.process {
            write!(f, " (process {process})")?;
        }
        if let Some(unit) = self.unit.as_ref().filter(|unit| **unit != self.name) {
            write!(f, " of {unit}")?;
        }
        write!(f, " {}", self.does)
    }
}

/// Everybody who keeps what is mounted on a directory from being unmounted, but for this process. Other name spaces do not:
/// what is unmounted here goes from them, too.
pub(crate) fn find_holders(path: &str) -> io::Result<Vec<User>> {
    let mut users = kernel_users(path);
    let below = format!("{}/", path.trim_end_matches('/'));
    let mounts = mounts::parse(&fs::read_to_string("/proc/self/mountinfo")?);
    // Whether datasets go along with the one above them, ZFS knows.
    let others = mounts.iter().filter(|mount| mount.point.starts_with(&below) && mount.kind != "zfs");
    users.extend(others.map(|mount| kernel(format!("has {} mounted on {}", mount.kind, mount.point))));
    users.extend(processes(path, |_| None)?);
    users.sort();
    Ok(users)
}

/// Everybody who uses a directory or something below it, but for this process.
pub(crate) fn find(path: &str) -> io::Result<Vec<User>> {
    let own_mounts = mounts::parse(&fs::read_to_string("/proc/self/mountinfo")?);
    let place = mounts::place_of(&own_mounts, path);
    let mut users = kernel_users(path);
    let sees = |text: &str| {
        let (device, root) = place.as_ref()?;
        let of_it = |mount: &mounts::Mount| mount.device == *device && is_within(&mount.root, root);
        mounts::parse(text).into_iter().find(of_it).map(|mount| mount.point)
    };
    let own_space = fs::read_link("/proc/self/ns/mnt").ok();
    if let Some(point) = sees(&fs::read_to_string("/proc/self/mountinfo")?) {
        users.push(kernel(format!("shows it on {point}, too")));
    }
    let mut answers: BTreeMap<std::path::PathBuf, Option<String>> = BTreeMap::new();
    users.extend(processes(path, |base| {
        let space =
            fs::read_link(base.join("ns/mnt")).ok().filter(|space| Some(space) != own_space.as_ref())?;
        let ask = || sees(&fs::read_to_string(base.join("mountinfo")).ok()?);
        answers.entry(space).or_insert_with(ask).as_ref().map(|point| format!("has it mounted on {point}"))
    })?);
    users.sort();
    Ok(users)
}

/// Processes that use a directory, or of which `also` knows what they do with it.
fn processes(path: &str, mut also: impl FnMut(&Path) -> Option<String>) -> io::Result<Vec<User>> {
    let sockets = sockets_below(&fs::read_to_string("/proc/net/unix").unwrap_or_default(), path);
    let mut users = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(process) = name.parse::<u32>() else { continue };
        if process == std::process::id() {
            continue;
        }
        let base = Path::new("/proc").join(&name);
        let does = uses(&base, path, &sockets).or_else(|| also(&base));
        // A process that ended meanwhile uses nothing.
        if let Some(does) = does {
            let comm = fs::read_to_string(base.join("comm")).unwrap_or_default();
            let unit = unit_of(&fs::read_to_string(base.join("cgroup")).unwrap_or_default());
            users.push(User { name: comm.trim().to_owned(), process: Some(process), unit, does });
        }
    }
    Ok(users)
}

fn kernel(does: String) -> User {
    User { name: "kernel".to_owned(), process: None, unit: None, does }
}

/// What a process does with a directory.
fn uses(base: &Path, path: &str, sockets: &BTreeSet<String>) -> Option<String> {
    let target = |of: &str| {
        let link = fs::read_link(base.join(of)).ok()?.to_string_lossy().into_owned();
        let name = link.strip_suffix(" (deleted)").unwrap_or(&link);
        is_within(name, path).then(|| name.to_owned())
    };
    if let Some(at) = target("cwd") {
        return Some(format!("works in {at}"));
    }
    if let Some(at) = target("root") {
        return Some(format!("has {at} for its root"));
    }
    if let Some(at) = target("exe") {
        return Some(format!("runs {at}"));
    }
    // `map_files` names what is mapped and closed, such as a library.
    for folder in ["fd", "map_files"] {
        for entry in fs::read_dir(base.join(folder)).into_iter().flatten().flatten() {
            let of = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if let Some(at) = target(&of) {
                return Some(format!("has {at} open"));
            }
            let link = fs::read_link(base.join(&of)).unwrap_or_default();
            if sockets.contains(link.to_string_lossy().as_ref()) {
                return Some(format!("listens on a socket in {path}"));
            }
        }
    }
    None
}

/// `socket:[12345]` for each socket of `/proc/net/unix` whose path lies below a directory.
fn sockets_below(text: &str, path: &str) -> BTreeSet<String> {
    let of = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let at = columns.get(7)?;
        is_within(at, path).then(|| format!("socket:[{}]", columns[6]))
    };
    text.lines().filter_map(of).collect()
}

/// The service of `/proc/PID/cgroup`: what can be stopped and started again. A session is none.
fn unit_of(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.split('/').find(|part| part.ends_with(".service")).map(str::to_owned)
}

/// Swap files and the files behind loop devices, which no process holds open.
fn kernel_users(path: &str) -> Vec<User> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swaps = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let swaps = swaps.filter(|file| is_within(file, path)).map(|file| kernel(format!("swaps to {file}")));
    let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten().filter_map(|entry| {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        let file = file.trim_end().to_owned();
        let device = entry.file_name().to_string_lossy().into_owned();
        is_within(&file, path).then(|| kernel(format!("has {file} behind /dev/{device}")))
    });
    swaps.chain(loops).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_what_can_be_stopped() {
        for (text, want) in [
            ("0::/system.slice/webapp.service\n", Some("webapp.service")),
            ("0::/system.slice/greeter.service/libpod-payload-1\n", Some("greeter.service")),
            ("0::/user.slice/user-0.slice/session-3.scope\n", None),
            ("1:cpu:/x.service\n", None),
        ] {
            assert_eq!(unit_of(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn sockets_are_known_by_their_path() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 2345 /srv/app/a.sock\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 2346 /srv/apple.sock\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 2347\n";
        assert_eq!(sockets_below(text, "/srv/app").into_iter().collect::<Vec<_>>(), ["socket:[2345]"]);
    }

    #[test]
    fn a_child_that_works_in_a_directory_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().canonicalize().expect("it is there").display().to_string();
        assert_eq!(
            (find(&path).expect("readable"), find_holders(&path).expect("readable")),
            (vec![], vec![])
        );
        let child = kld_host::Cmd::new("sleep").arg("60").cwd(dir.path()).spawn().expect("it starts");
        // Until it runs its program, a child is still its parent.
        let found = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            Some(find(&path).expect("readable")).filter(|users| !users.is_empty())
        });
        let users = found.expect("it is found");
        assert_eq!(users[0].does, format!("works in {path}"));
        assert_eq!(find_holders(&path).expect("readable"), users);
        assert_eq!(find(&format!("{path}/below")).expect("readable"), []);
        drop(child);
    }
}
