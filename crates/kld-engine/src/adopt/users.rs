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
    users.extend(processes_in(path, |_| None)?);
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
    users.extend(processes_in(path, |base| {
        let space =
            fs::read_link(base.join("ns/mnt")).ok().filter(|space| Some(space) != own_space.as_ref())?;
        let ask = || sees(&fs::read_to_string(base.join("mountinfo")).ok()?);
        answers.entry(space).or_insert_with(ask).as_ref().map(|point| format!("has it mounted on {point}"))
    })?);
    users.sort();
    Ok(users)
}

/// Every process that has something of the file system mounted on `point` open, or works in it, but for this one; `on` knows its
/// paths.
pub(super) fn find_on(point: &str, on: &dyn Fn(&str) -> bool) -> io::Result<Vec<User>> {
    let sockets = sockets_below(&fs::read_to_string("/proc/net/unix").unwrap_or_default(), point);
    processes(|base| uses(base, on, &sockets))
}

/// Every process that has a device open, or a partition of it, but for this one.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn users_of_device(device: &str) -> io::Result<Vec<User>> {
    let is_it =
        |path: &str| path.strip_prefix(device).is_some_and(|rest| rest.is_empty() || rest.starts_with('p'));
    processes(|base| uses(base, &is_it, &BTreeSet::new()))
}

/// Whether a path lies on what is mounted on `point`. What is mounted below is another file system.
pub(super) fn on(mountinfo: &str, point: &str) -> impl Fn(&str) -> bool + use<> {
    let mounts = mounts::parse(mountinfo).into_iter().map(|mount| mount.point);
    let below: Vec<String> = mounts.filter(|at| at != point && is_within(at, point)).collect();
    let point = point.to_owned();
    move |path| is_within(path, &point) && !below.iter().any(|at| is_within(path, at))
}

/// Processes that use a directory, or of which `also` knows what they do with it.
fn processes_in(path: &str, mut also: impl FnMut(&Path) -> Option<String>) -> io::Result<Vec<User>> {
    let sockets = sockets_below(&fs::read_to_string("/proc/net/unix").unwrap_or_default(), path);
    processes(|base| uses(base, &|at| is_within(at, path), &sockets).or_else(|| also(base)))
}

/// Those that do something, as `does` says of a folder of `/proc`, in the order of their numbers; but for this process.
fn processes(mut does: impl FnMut(&Path) -> Option<String>) -> io::Result<Vec<User>> {
    let mut users = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(process) = name.parse::<u32>() else { continue };
        if process == std::process::id() {
            continue;
        }
        let base = Path::new("/proc").join(&name);
        // A process that ended meanwhile does nothing.
        if let Some(does) = does(&base) {
            let comm = fs::read_to_string(base.join("comm")).unwrap_or_default();
            let unit = unit_of(&fs::read_to_string(base.join("cgroup")).unwrap_or_default());
            users.push(User { name: comm.trim().to_owned(), process: Some(process), unit, does });
        }
    }
    users.sort_by_key(|user| user.process);
    Ok(users)
}

fn kernel(does: String) -> User {
    User { name: "kernel".to_owned(), process: None, unit: None, does }
}

/// What a process does with the paths that `is_of_it` knows.
fn uses(base: &Path, is_of_it: &dyn Fn(&str) -> bool, sockets: &BTreeSet<String>) -> Option<String> {
    let target = |of: &str| {
        let link = fs::read_link(base.join(of)).ok()?.to_string_lossy().into_owned();
        let name = link.strip_suffix(" (deleted)").unwrap_or(&link);
        is_of_it(name).then(|| name.to_owned())
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
                return Some("listens on a socket in it".to_owned());
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
pub(super) fn unit_of(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // What a person's own systemd has started ends with it, and is not the machine's.
    if path.starts_with("/user.slice/") {
        return None;
    }
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
            ("0::/user.slice/user-7.slice/user@7.service/app.slice/editor.service\n", None),
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
    fn whoever_has_a_device_or_a_partition_of_it_open_is_found() {
        let folder = tempfile::tempdir().expect("writable");
        let folder = folder.path().canonicalize().expect("there");
        let part = folder.join("zd16p1");
        fs::write(&part, "").expect("written");
        let child = kld_host::Cmd::new("sleep").arg("60").stdin_file(&part).spawn().expect("it starts");
        let of = |name: &str| users_of_device(folder.join(name).to_str().expect("text")).expect("readable");
        let (users, others) = (of("zd16"), of("zd1"));
        assert_eq!(users.iter().map(|user| user.process).collect::<Vec<_>>(), [Some(child.id())]);
        assert!(users[0].does.ends_with("/zd16p1 open"), "{}", users[0]);
        assert!(others.is_empty());
    }

    #[test]
    fn what_is_mounted_below_is_another_file_system() {
        let mounts = "22 1 0:23 / / rw - zfs r/ROOT/d rw\n40 22 0:40 / /srv/app rw - zfs r/app rw\n\
                      41 40 0:41 / /srv/app/db rw - zfs r/app/db rw\n42 22 0:42 / /srv/apple rw - zfs r/apple rw\n";
        let on_it = on(mounts, "/srv/app");
        assert!(on_it("/srv/app") && on_it("/srv/app/dba"));
        assert!(!on_it("/srv/app/db") && !on_it("/srv/app/db/x") && !on_it("/srv/apple") && !on_it("/srv"));
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
