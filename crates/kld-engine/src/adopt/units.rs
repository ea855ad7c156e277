//! Services whose units name a directory: they use it, though nothing in it may be open at the moment, and see it through
//! mounts of their own.

use std::path::Path;

use kld_host::mounts::{self, is_within};
use kld_host::{Cmd, systemd};

use super::Ground;
use super::users::{User, find_dataset, on, unit_of};
use crate::host::{Host, HostError, RealHost};

/// Settings that name directories, systemd.exec(5) and systemd.unit(5).
const ASKED: &str = "Id,ActiveState,SubState,MainPID,WorkingDirectory,ReadWritePaths,BindPaths,BindReadOnlyPaths,RequiresMountsFor";

/// Everybody who uses a directory: who has something of it, and services that run and name it.
pub(super) fn users(ground: &dyn Ground, path: &str) -> Result<Vec<User>, HostError> {
    with_units(ground, ground.users(path)?, &|at| is_within(at, path))
}

/// Everybody on this machine who uses a dataset, wherever it is mounted, in containers, too; but for this process and the service
/// that it is part of. What is mounted below does not count: it is another file system.
///
/// # Errors
/// When it cannot be asked.
pub fn users_of_dataset(dataset: &str) -> Result<Vec<User>, HostError> {
    let proc = Path::new("/proc");
    let fail = |source| HostError::File { action: "find who uses a dataset in", path: proc.into(), source };
    let mut users = find_dataset(proc, dataset).map_err(fail)?;
    if Path::new(systemd::RUNS).is_dir() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(fail)?;
        users = with_units(&RealHost, users, &on(&mounts::parse(&mounts), dataset))?;
    }
    if let Some(own) = unit_of(&std::fs::read_to_string("/proc/self/cgroup").map_err(fail)?) {
        users.retain(|user| user.unit.as_ref() != Some(&own));
    }
    Ok(users)
}

/// These users, and services that run and name a path that `is_of_it` knows.
fn with_units(
    host: &dyn Host,
    mut users: Vec<User>,
    is_of_it: &dyn Fn(&str) -> bool,
) -> Result<Vec<User>, HostError> {
    let show = Cmd::new("systemctl").args(["show", "--property", ASKED, "*.service"]);
    let text = String::from_utf8_lossy(&host.run(&show)?.stdout).into_owned();
    for user in parse(&text, is_of_it) {
        if users.iter().all(|known| known.unit != user.unit) {
            users.push(user);
        }
    }
    Ok(users)
}

/// One block for each unit, separated by empty lines.
fn parse(text: &str, is_of_it: &dyn Fn(&str) -> bool) -> Vec<User> {
    text.split("\n\n").filter_map(|block| parse_unit(block, is_of_it)).collect()
}

fn parse_unit(block: &str, is_of_it: &dyn Fn(&str) -> bool) -> Option<User> {
    let value = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let unit = value("Id")?.to_owned();
    // What ran once and has ended stays active, and is not to run again.
    if matches!(value("ActiveState")?, "inactive" | "failed") || value("SubState")? == "exited" {
        return None;
    }
    let process = value("MainPID").and_then(|text| text.parse().ok()).filter(|process| *process != 0);
    let names = |line: &str| {
        let (setting, paths) = line.split_once('=')?;
        // `-/srv/app`, `/srv/app:/data:rbind`, `!/srv/app`.
        let mut parts = paths.split([' ', ':']).map(|part| part.trim_start_matches(['-', '+', '!']));
        parts.any(|part| part.starts_with('/') && is_of_it(part)).then(|| setting.to_owned())
    };
    let setting = block.lines().find_map(names)?;
    Some(User { name: unit.clone(), process, unit: Some(unit), does: format!("names it in {setting}=") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_name_a_directory_use_it() {
        let unit = |id: &str, state: &str, rest: &str| {
            let (active, sub) = state.split_once('/').expect("both");
            format!("MainPID=7\nId={id}.service\nActiveState={active}\nSubState={sub}\n{rest}\n")
        };
        let text = [
            unit("a", "active/running", "ReadWritePaths=/srv/web -/srv/app\nRequiresMountsFor=/srv/web"),
            unit("b", "activating/start", "BindPaths=/srv/app/data:/data:rbind"),
            unit("c", "active/running", "WorkingDirectory=!/srv/app"),
            unit("d", "active/running", "ReadWritePaths=/srv/apple /srv\nWorkingDirectory="),
            unit("e", "active/exited", "RequiresMountsFor=/srv/app"),
            unit("f", "inactive/dead", "RequiresMountsFor=/srv/app"),
        ]
        .join("\n");
        let said: Vec<String> =
            parse(&text, &|at| is_within(at, "/srv/app")).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "a.service (process 7) names it in ReadWritePaths=",
                "b.service (process 7) names it in BindPaths=",
                "c.service (process 7) names it in WorkingDirectory=",
            ]
        );
    }
}
