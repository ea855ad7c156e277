//! A clone made ready for a package manager: mounted in this process's own namespace, with devices, `/proc`, `/sys` and a
//! `/run` of its own, and everything beside it that is mounted on this machine to be read and not written.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_host::mounts::{self, Mount};
use kld_host::{Cmd, ExecError, Output};

use crate::error::PackageError;

/// Where the clone is, in this namespace and in no other.
const ROOT: &str = "/run/kbe/.inside";
/// Longer than a large upgrade takes on a slow machine: unpacking, modules, initial RAM file systems.
const DEADLINE: Duration = Duration::from_secs(4 * 3600);
/// What keeps packages from starting services (invoke-rc.d(8)); 101 is "not allowed".
const POLICY: &str = "usr/sbin/policy-rc.d";
/// Places beside the root that packages may write to: logs, and what can be made again.
const WRITABLE: [&str; 3] = ["/var/log", "/var/cache", "/var/tmp"];
/// Where it has a file system of its own, or that of the machine.
const OWN: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];
/// How often unmounting is tried, a second apart: what a package has left running may need a moment to end.
const TRIES: usize = 20;

/// The clone.
#[derive(Debug)]
pub(crate) struct Room {
    /// Whether [`POLICY`] was made for the mount only.
    made_policy: bool,
}

impl Room {
    /// Mounts it.
    pub(crate) fn enter(dataset: &str) -> Result<Self, PackageError> {
        fs::create_dir_all(ROOT).map_err(PackageError::file("make", ROOT))?;
        let others = mounted_datasets()?;
        mount(&["-t", "zfs", "-o", "rw,zfsutil", dataset, ROOT])?;
        for (kind, options, place) in [
            ("proc", "nosuid,nodev,noexec", "proc"),
            ("sysfs", "ro,nosuid,nodev,noexec", "sys"),
            ("tmpfs", "mode=0755,nosuid,nodev", "run"),
            ("tmpfs", "mode=1777,nosuid,nodev", "tmp"),
        ] {
            let target = Self::path(place);
            mount(&["-t", kind, "-o", options, kind, &target.to_string_lossy()])?;
        }
        let dev = Self::path("dev");
        mount(&["--rbind", "/dev", &dev.to_string_lossy()])?;
        for place in &others {
            let target = Self::path(place);
            // One that is a link in the clone would lead out of it.
            if !fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_dir()) {
                continue;
            }
            let options = if WRITABLE.contains(&place.as_str()) { "rw" } else { "ro" };
            mount(&["--bind", "-o", options, place, &target.to_string_lossy()])?;
        }
        resolver()?;
        let made_policy = forbid_services()?;
        Ok(Self { made_policy })
    }

    /// A place in the clone.
    pub(crate) fn path(place: &str) -> PathBuf {
        Path::new(ROOT).join(place.trim_start_matches('/'))
    }

    /// Runs a command in the clone, and takes every exit code for an answer.
    pub(crate) fn ask<S: AsRef<OsStr>>(words: &[S]) -> Result<Output, PackageError> {
        let cmd = (1..=255).fold(command(words), Cmd::accept);
        Ok(cmd.output()?)
    }

    /// Runs a command in the clone that must succeed.
    pub(crate) fn run(
        words: &[String],
        environment: &[(&str, &str)],
        say: &mut dyn FnMut(&str),
    ) -> Result<(), PackageError> {
        let cmd = environment.iter().fold(command(words), |cmd, (name, value)| cmd.env(name, value));
        match cmd.stream(|line| say(line.text())) {
            Err(ExecError::Failed { stderr, .. }) => {
                Err(PackageError::Manager { program: words[0].clone(), said: stderr })
            }
            done => Ok(done?),
        }
    }

    /// Lets packages start services again, which nobody does until the clone runs.
    pub(crate) fn end_work(&mut self) -> Result<(), PackageError> {
        let policy = Self::path(POLICY);
        Cmd::new("umount").arg(&policy).run()?;
        if std::mem::take(&mut self.made_policy) {
            fs::remove_file(&policy).map_err(PackageError::file("remove", &policy))?;
        }
        Ok(())
    }

    /// Puts everything on disk and unmounts it, so that the clone can be destroyed or mounted elsewhere.
    pub(crate) fn leave(self) -> Result<(), PackageError> {
        Cmd::new("sync").args(["--file-system", ROOT]).run()?;
        for _ in 1..TRIES {
            if Cmd::new("umount").args(["--recursive", ROOT]).run().is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(Cmd::new("umount").args(["--recursive", ROOT]).run()?)
    }
}

/// The caller's own place for temporary files may not be there (libpam-tmpdir), and the one that is in memory is small.
fn command<S: AsRef<OsStr>>(words: &[S]) -> Cmd {
    Cmd::new("chroot").arg(ROOT).args(words).env("TMPDIR", "/var/tmp").timeout(DEADLINE)
}

fn mount(words: &[&str]) -> Result<(), PackageError> {
    Ok(Cmd::new("mount").args(words).run()?)
}

/// Where datasets are mounted beside the root, parents first.
fn mounted_datasets() -> Result<Vec<String>, PackageError> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(PackageError::file("read", path))?;
    let mut places: Vec<String> =
        mounts::parse(&text).into_iter().filter(is_dataset_beside).map(|mount| mount.point).collect();
    places.sort();
    places.dedup();
    Ok(places)
}

/// Whether it is a dataset other than the root, and not where the room has something of its own.
fn is_dataset_beside(mount: &Mount) -> bool {
    let place = Path::new(&mount.point);
    let is_own = OWN.iter().any(|own| place.starts_with(own));
    let is_snapshot = place.components().any(|part| part.as_os_str() == ".zfs");
    mount.kind == "zfs" && mount.point != "/" && !is_own && !is_snapshot
}

/// Names are looked up as outside: whoever writes `resolv.conf` to `/run` has it there, and the links in the clone lead to it.
fn resolver() -> Result<(), PackageError> {
    for path in resolver_files(fs::canonicalize("/etc/resolv.conf").ok()) {
        if let Ok(bytes) = fs::read(&path) {
            let to = Room::path(&path.to_string_lossy());
            let folder = to.parent().unwrap_or(Path::new(ROOT));
            fs::create_dir_all(folder).map_err(PackageError::file("make", folder))?;
            fs::write(&to, bytes).map_err(PackageError::file("write", &to))?;
        }
    }
    // What daemons find there after a start, and tools that only check a configuration, too.
    for name in ["run/lock", "run/sshd"] {
        let place = Room::path(name);
        fs::create_dir_all(&place).map_err(PackageError::file("make", &place))?;
    }
    Ok(())
}

/// Files of resolvers in `/run`: those of systemd, and what this machine's `/etc/resolv.conf` is in the end.
fn resolver_files(used: Option<PathBuf>) -> Vec<PathBuf> {
    let of_systemd =
        ["stub-resolv.conf", "resolv.conf"].map(|name| Path::new("/run/systemd/resolve").join(name));
    let used = used.filter(|path| path.starts_with("/run") && !of_systemd.contains(path));
    of_systemd.iter().cloned().chain(used).collect()
}

/// Puts a script over [`POLICY`] that forbids everything; whether the file below it was made for that.
fn forbid_services() -> Result<bool, PackageError> {
    let policy = Room::path(POLICY);
    let is_there = fs::symlink_metadata(&policy).is_ok();
    if !is_there {
        fs::write(&policy, "").map_err(PackageError::file("write", &policy))?;
    }
    let script = Room::path("run/policy-rc.d");
    fs::write(&script, "#!/bin/sh\nexit 101\n").map_err(PackageError::file("write", &script))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).map_err(PackageError::file("make executable", &script))?;
    mount(&["--bind", &script.to_string_lossy(), &policy.to_string_lossy()])?;
    Ok(!is_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_beside_the_root_are_found() {
        let at = |place: &str, kind: &str| {
            let line = format!("36 35 0:40 / {place} rw,relatime shared:1 - {kind} rpool/x rw,xattr");
            let found = mounts::parse(&line).into_iter().find(is_dataset_beside);
            found.map(|mount| mount.point)
        };
        assert_eq!(at("/var/log", "zfs").as_deref(), Some("/var/log"));
        assert_eq!(at("/srv/a\\040b", "zfs").as_deref(), Some("/srv/a b"));
        for (place, kind) in [
            ("/", "zfs"),
            ("/run/kbe/x", "zfs"),
            ("/home/.zfs/snapshot/a", "zfs"),
            ("/efi", "vfat"),
            ("/tmp", "tmpfs"),
            ("/tmp", "zfs"),
            ("/tmp/build", "zfs"),
            ("/run", "zfs"),
            ("/dev/x", "zfs"),
            ("/proc/x", "zfs"),
            ("/sys/x", "zfs"),
            ("/.zfs/snapshot/a", "zfs"),
        ] {
            assert_eq!(at(place, kind), None, "{place} {kind}");
        }
        assert_eq!(at("/tmpl", "zfs").as_deref(), Some("/tmpl"));
    }

    #[test]
    fn the_resolver_file_in_use_comes_along() {
        let of_systemd = ["/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf"];
        for (used, more) in [
            (None, None),
            (Some("/etc/resolv.conf"), None),
            (Some("/running/resolv.conf"), None),
            (Some("/run/systemd/resolve/stub-resolv.conf"), None),
            (Some("/run/resolvconf/resolv.conf"), Some("/run/resolvconf/resolv.conf")),
        ] {
            let expected: Vec<PathBuf> = of_systemd.into_iter().chain(more).map(PathBuf::from).collect();
            assert_eq!(resolver_files(used.map(PathBuf::from)), expected, "{used:?}");
        }
    }

    #[test]
    fn temporary_files_have_a_place_in_the_room() {
        let shown = command(&["x"]).to_string();
        assert!(shown.contains("TMPDIR=/var/tmp"), "{shown}");
    }
}
