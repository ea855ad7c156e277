//! Services that run what a package is about to replace. A process keeps the program and the libraries that it has started
//! with, so a package in another version is in use only after a restart; a package manager that is told to start nothing tells nobody.

use std::collections::{BTreeMap, BTreeSet};

use kld_host::Cmd;

use crate::host::{Host, HostError};
use crate::kinds::{unit_properties, unit_property};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Of these services those that run, and a file of these packages that each has in use.
pub(super) fn users(
    host: &dyn Host,
    services: &BTreeSet<&str>,
    packages: &[String],
) -> Result<BTreeMap<String, String>, HostError> {
    if packages.is_empty() || services.is_empty() {
        return Ok(BTreeMap::new());
    }
    let files = host.text(&Cmd::new("dpkg-query").arg("-L").args(packages).accept(1))?;
    let files: BTreeSet<&str> = files.lines().filter(|line| line.starts_with('/')).map(without_usr).collect();
    let names: Vec<&str> = services.iter().copied().collect();
    let seen = unit_properties(host, &names, "ActiveState,ControlGroup,ExecStart,FragmentPath")?;
    let mut users = BTreeMap::new();
    for (unit, of) in &seen {
        if unit_property(of, "ActiveState") != "active" {
            continue;
        }
        let named = [unit_property(of, "FragmentPath"), program(unit_property(of, "ExecStart"))];
        let mapped = mapped(host, unit_property(of, "ControlGroup"));
        let in_use = named.into_iter().chain(mapped.iter().map(String::as_str));
        if let Some(path) =
            in_use.filter(|path| path.starts_with('/')).find(|path| files.contains(without_usr(path)))
        {
            users.insert(unit.clone(), path.to_owned());
        }
    }
    Ok(users)
}

/// `/lib` leads to `/usr/lib`, and dpkg knows files by either.
fn without_usr(path: &str) -> &str {
    path.strip_prefix("/usr").filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

/// The program in `{ path=/usr/bin/gunicorn ; argv[]=… }`.
fn program(exec: &str) -> &str {
    exec.split_once("path=").and_then(|(_, rest)| rest.split([' ', ';']).next()).unwrap_or_default()
}

/// Files that the processes of a unit have mapped. One that ends meanwhile has none, and neither has a unit without processes.
fn mapped(host: &dyn Host, control_group: &str) -> BTreeSet<String> {
    if control_group.is_empty() {
        return BTreeSet::new();
    }
    let read = |path: String| host.read(&path).ok().flatten().unwrap_or_default();
    let processes = read(format!("{CGROUPS}{control_group}/cgroup.procs"));
    let maps = processes.lines().map(|pid| read(format!("/proc/{pid}/maps")));
    maps.flat_map(|maps| maps.lines().filter_map(file_of).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// proc_pid_maps(5): addresses, permissions, offset, device and inode come before the path.
fn file_of(line: &str) -> Option<&str> {
    let path = line.split_ascii_whitespace().nth(5)?;
    let at = line.find(path).filter(|_| path.starts_with('/'))?;
    Some(&line[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_where_systemd_and_the_kernel_write_them() {
        let exec = "{ path=/usr/bin/gunicorn ; argv[]=/usr/bin/gunicorn --workers 2 ; ignore_errors=no }";
        assert_eq!(program(exec), "/usr/bin/gunicorn");
        assert_eq!(program(""), "");
        let line =
            "7f0c5b400000-7f0c5b4c0000 r-xp 00028000 00:1b 41735      /usr/lib/x86_64-linux-gnu/libssl.so.3";
        assert_eq!(file_of(line), Some("/usr/lib/x86_64-linux-gnu/libssl.so.3"));
        assert_eq!(file_of("7ffd1c000000-7ffd1c021000 rw-p 00000000 00:00 0          [stack]"), None);
        assert_eq!(file_of("7f0c5b400000-7f0c5b4c0000 rw-p 00000000 00:00 0"), None);
        let own =
            crate::host::read(&crate::RealHost, "/proc/self/maps").expect("readable").expect("it is there");
        let program = std::env::current_exe().expect("it has one");
        assert!(own.lines().any(|line| file_of(line) == program.to_str()), "{own}");
        assert_eq!(without_usr("/usr/lib/x"), without_usr("/lib/x"));
        assert_eq!(without_usr("/usrlocal"), "/usrlocal");
    }
}
