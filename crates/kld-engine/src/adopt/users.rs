//! Who uses a directory: open files, working directories, programs, sockets, mounts in the name spaces of services, and the
//! kernel itself. All of it is in `/proc` and `/sys`, so no tool needs to be installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use kld_host::mounts::{self, Mount, is_within};

use super::kernel::{self, kernel};

const PROC: &str = "/proc";

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
    let mut users = kernel::files(path);
    let below = format!("{}/", path.trim_end_matches('/'));
    let mounts = mounts_of(Path::new("/proc/self"))?;
    // Whether datasets go along with the one above them, ZFS knows.
    let others = mounts.iter().filter(|mount| mount.point.starts_with(&below) && mount.kind != "zfs");
    users.extend(others.map(|mount| kernel(format!("has {} mounted on {}", mount.kind, mount.point))));
    let sockets =
        sockets_below(&fs::read_to_string("/proc/net/unix").unwrap_or_default(), &|at| is_within(at, path));
    users.extend(processes(Path::new(PROC), |base| uses(base, &|at| is_within(at, path), &sockets))?);
    users.sort();
    Ok(users)
}

/// Everybody who uses a directory or something below it, but for this process.
pub(crate) fn find(path: &str) -> io::Result<Vec<User>> {
    let proc = Path::new(PROC);
    let mounts = mounts_of(&proc.join("self"))?;
    let place = mounts::place_of(&mounts, path);
    let unix = fs::read_to_string(proc.join("net/unix")).unwrap_or_default();
    let look = |mounts: &[Mount], is_own| {
        let (paths, stays) = names_of(mounts, place.as_ref(), path, is_own);
        Seen::new(mounts, &unix, move |at| paths.iter().any(|path| is_within(at, path)), stays)
    };
    let mut own = look(&mounts, true);
    let mut users = kernel::files(path);
    users.extend(own.stays.take().map(|point| kernel(format!("shows it on {point}, too"))));
    users.extend(own.overlay.take().map(kernel));
    users.extend(kernel::exporting(&kernel::exports(), &mounts, path));
    users.extend(in_spaces(proc, &own, |mounts| look(mounts, false))?);
    users.sort();
    Ok(users)
}

/// Everybody who uses a dataset, wherever it is mounted and in whichever name space, but for this process; processes are told of
/// in `proc`. What is mounted below it is another file system and does not count.
pub(super) fn find_dataset(proc: &Path, dataset: &str) -> io::Result<Vec<User>> {
    let mounts = mounts_of(&proc.join("self"))?;
    let unix = fs::read_to_string(proc.join("net/unix")).unwrap_or_default();
    let look = |mounts: &[Mount]| {
        let stays = mounts.iter().find(|mount| is_of(mount, dataset) && !mount.follows);
        Seen::new(mounts, &unix, on(mounts, dataset), stays.map(|mount| mount.point.clone()))
    };
    let mut own = Seen { stays: None, ..look(&mounts) };
    let mut users: Vec<User> = own.overlay.take().map(kernel).into_iter().collect();
    users.extend(in_spaces(proc, &own, look)?);
    Ok(users)
}

/// Whether a path lies on a dataset.
pub(super) fn on(mounts: &[Mount], dataset: &str) -> impl Fn(&str) -> bool + use<> {
    let (mounts, dataset) = (mounts.to_vec(), dataset.to_owned());
    move |at| mounts::above(&mounts, at).is_some_and(|mount| is_of(mount, &dataset))
}

fn is_of(mount: &Mount, dataset: &str) -> bool {
    mount.kind == "zfs" && mount.source == dataset
}

/// The mounts that a process sees.
fn mounts_of(process: &Path) -> io::Result<Vec<Mount>> {
    Ok(mounts::parse(&fs::read_to_string(process.join("mountinfo"))?))
}

/// What of a directory or a dataset is seen in a mount name space.
struct Seen {
    /// Whether a path there is of it.
    has: Box<dyn Fn(&str) -> bool>,
    /// The sockets in it.
    sockets: BTreeSet<String>,
    /// Where it is seen still when something else has its place.
    stays: Option<String>,
    /// That an overlay is made of something in it.
    overlay: Option<String>,
}

impl Seen {
    fn new(
        mounts: &[Mount],
        unix: &str,
        has: impl Fn(&str) -> bool + 'static,
        stays: Option<String>,
    ) -> Self {
        let overlay = kernel::overlay(mounts, &has);
        let overlay = overlay.map(|(point, layer)| format!("has {layer} in the overlay on {point}"));
        Self { sockets: sockets_below(unix, &has), has: Box::new(has), stays, overlay }
    }
}

/// The names of a directory in a mount name space, its own and those that it has through mounts of what is above it; and where
/// it is seen still when something else has its place.
fn names_of(
    mounts: &[Mount],
    place: Option<&(String, String)>,
    path: &str,
    is_own: bool,
) -> (Vec<String>, Option<String>) {
    let (mut paths, mut stays) = (vec![path.to_owned()], None);
    let Some(place) = place else { return (paths, stays) };
    let (device, root) = place;
    for mount in mounts.iter().filter(|mount| mount.device == *device) {
        if is_within(&mount.root, root) {
            stays.get_or_insert_with(|| mount.point.clone());
            continue;
        }
        let Some(below) = root.strip_prefix(mount.root.trim_end_matches('/')) else { continue };
        let at = format!("{}{below}", mount.point.trim_end_matches('/'));
        // Not what only begins alike, nor what another mount hides.
        if mounts::place_of(mounts, &at).as_ref() != Some(place) {
            continue;
        }
        if !(mount.follows || is_own && at == path) {
            stays.get_or_insert_with(|| at.clone());
        }
        paths.push(at);
    }
    (paths, stays)
}

/// Every process that uses it, but for this one: as `own` has it, and in another name space as `look` finds it in the mounts there.
fn in_spaces(proc: &Path, own: &Seen, look: impl Fn(&[Mount]) -> Seen) -> io::Result<Vec<User>> {
    let own_space = fs::read_link(proc.join("self/ns/mnt")).ok();
    let mut spaces = BTreeMap::new();
    processes(proc, |base| {
        let space = fs::read_link(base.join("ns/mnt")).ok().filter(|space| Some(space) != own_space.as_ref());
        let seen = match space {
            None => own,
            Some(space) => spaces.entry(space).or_insert_with(|| look(&mounts_of(base).unwrap_or_default())),
        };
        let stays = || seen.stays.as_ref().map(|point| format!("has it mounted on {point}"));
        uses(base, &*seen.has, &seen.sockets).or_else(stays).or_else(|| seen.overlay.clone())
    })
}

/// Every process that has a device open, or a partition of it, but for this one.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn users_of_device(device: &str) -> io::Result<Vec<User>> {
    let is_it =
        |path: &str| path.strip_prefix(device).is_some_and(|rest| rest.is_empty() || rest.starts_with('p'));
    processes(Path::new(PROC), |base| uses(base, &is_it, &BTreeSet::new()))
}

/// Those that do something, as `does` says of a folder of `proc`, in the order of their numbers; but for this process.
fn processes(proc: &Path, mut does: impl FnMut(&Path) -> Option<String>) -> io::Result<Vec<User>> {
    let mut users = Vec::new();
    for entry in fs::read_dir(proc)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(process) = name.parse::<u32>() else { continue };
        if process == std::process::id() {
            continue;
        }
        let base = proc.join(&name);
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

/// `socket:[12345]` for each socket of `/proc/net/unix` whose path `is_of_it`.
fn sockets_below(text: &str, is_of_it: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
    let of = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let at = columns.get(7)?;
        is_of_it(at).then(|| format!("socket:[{}]", columns[6]))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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
        let of_it = |at: &str| is_within(at, "/srv/app");
        assert_eq!(sockets_below(text, &of_it).into_iter().collect::<Vec<_>>(), ["socket:[2345]"]);
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

    /// A `/proc` of processes with one open file each: number, name space, mounts, file. The first is the caller.
    fn proc_of(processes: &[(u32, &str, &str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("writable");
        for (process, space, mounts, file) in processes {
            let name = if dir.path().join("self").exists() { process.to_string() } else { "self".to_owned() };
            let base = dir.path().join(name);
            for folder in ["ns", "fd"] {
                fs::create_dir_all(base.join(folder)).expect("made");
            }
            symlink(format!("mnt:[{space}]"), base.join("ns/mnt")).expect("made");
            symlink(file, base.join("fd/3")).expect("made");
            fs::write(base.join("comm"), "db\n").expect("written");
            fs::write(base.join("cgroup"), format!("0::/system.slice/u{process}.service\n"))
                .expect("written");
            fs::write(base.join("mountinfo"), mounts).expect("written");
        }
        dir
    }

    #[test]
    fn a_dataset_is_used_under_whatever_name_and_in_whichever_name_space() {
        let host = "22 1 0:23 / / rw shared:1 - zfs r/ROOT/d rw\n40 22 0:40 / /srv/db rw shared:2 - zfs r/db rw\n\
                    41 40 0:41 / /srv/db/old rw shared:3 - zfs r/db/old rw\n42 22 0:40 /sub /mnt rw shared:2 - zfs r/db rw\n";
        let with = |point: &str, source: &str, follows: &str| {
            format!("70 1 0:70 / / rw - overlay o rw\n71 70 0:40 / {point} rw {follows}- zfs {source} rw\n")
        };
        let [data, other, slave, hidden] = [
            with("/data", "r/db", ""),
            with("/srv/db", "r/other", ""),
            with("/data", "r/db", "master:2 "),
            with("/data", "r/db", "master:2 ") + "72 71 0:80 / /data rw - tmpfs t rw\n",
        ];
        let dir = proc_of(&[
            (1, "1", host, "/dev/null"),
            (11, "1", host, "/srv/db/table"),
            (12, "1", host, "/mnt/table"),
            // What is mounted below is another file system; nor is what begins alike.
            (13, "1", host, "/srv/db/old/table"),
            (14, "1", host, "/srv/dba"),
            // `podman run -v /srv/db:/data`, whether it has a file of it open at the moment or not.
            (21, "2", &data, "/data/table"),
            (22, "2", &data, "/dev/null"),
            // Another one that has the same name there.
            (31, "3", &other, "/srv/db/table"),
            (41, "4", &slave, "/data/table"),
            (42, "4", &slave, "/dev/null"),
            (51, "5", &hidden, "/data/table"),
        ]);
        let users = find_dataset(dir.path(), "r/db").expect("readable");
        let said: Vec<String> = users.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "db (process 11) of u11.service has /srv/db/table open",
                "db (process 12) of u12.service has /mnt/table open",
                "db (process 21) of u21.service has /data/table open",
                "db (process 22) of u22.service has it mounted on /data",
                "db (process 41) of u41.service has /data/table open",
            ]
        );
    }

    #[test]
    fn a_directory_is_known_by_its_name_in_each_name_space() {
        let place = ("0:23".to_owned(), "/srv/app".to_owned());
        let seen = |text: &str, is_own| {
            let (paths, stays) = names_of(&mounts::parse(text), Some(&place), "/srv/app", is_own);
            (paths[1..].join(" "), stays)
        };
        let stays = |point: &str| Some(point.to_owned());
        for (table, paths, point) in [
            // A service, which follows; a container with `-v /srv:/data`, and with `-v /srv/app:/app`.
            ("22 1 0:23 / / rw shared:3 master:1 - zfs r/d rw\n", "/srv/app", None),
            (
                "22 1 0:9 / / rw - overlay o rw\n40 22 0:23 /srv /data rw - zfs r/d rw\n",
                "/data/app",
                stays("/data/app"),
            ),
            (
                "22 1 0:9 / / rw - overlay o rw\n40 22 0:23 /srv /data rw master:1 - zfs r/d rw\n",
                "/data/app",
                None,
            ),
            ("22 1 0:9 / / rw - overlay o rw\n40 22 0:23 /srv/app /app rw - zfs r/d rw\n", "", stays("/app")),
            // One that begins alike; one that something else is mounted over.
            ("22 1 0:9 / / rw - overlay o rw\n40 22 0:23 /srv/ap /x rw - zfs r/d rw\n", "", None),
            ("40 1 0:23 / / rw - zfs r/d rw\n41 40 0:8 / /srv rw - tmpfs t rw\n", "", None),
        ] {
            assert_eq!(seen(table, false), (paths.to_owned(), point), "{table}");
        }
        // Its own place is no other one, though nothing is shared there.
        let own = "22 1 0:23 / / rw - zfs r/d rw\n";
        assert_eq!(seen(own, true), ("/srv/app".to_owned(), None));
        let twice = format!("{own}40 22 0:23 /srv /mnt rw - zfs r/d rw\n");
        assert_eq!(seen(&twice, true), ("/srv/app /mnt/app".to_owned(), stays("/mnt/app")));
    }

    #[test]
    fn an_overlay_is_made_of_what_it_has_by_whatever_name() {
        for (layer, is_of_it) in [("/srv/app/lower", true), ("/mnt/app/lower", true), ("/mnt/apple", false)] {
            let mounts = format!("50 22 0:50 / /merged rw - overlay o rw,lowerdir=/a:{layer}\n");
            let has = |at: &str| ["/srv/app", "/mnt/app"].iter().any(|path| is_within(at, path));
            let seen = Seen::new(&mounts::parse(&mounts), "", has, None);
            assert_eq!(seen.overlay, is_of_it.then(|| format!("has {layer} in the overlay on /merged")));
        }
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
