//! What the enabled units of a system start: read from their files, below any root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Where units lie, the first that has one winning.
const UNITS: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// Units that some target wants, by the links that `systemctl enable` and packages make.
pub(crate) fn enabled_units(root: &Path) -> BTreeSet<String> {
    let mut units = BTreeSet::new();
    for folder in UNITS {
        for target in names(&root.join(folder)) {
            if target.ends_with(".wants") || target.ends_with(".requires") {
                units.extend(names(&root.join(folder).join(target)));
            }
        }
    }
    units
}

/// The programs that these units start and cannot do without, with the unit that starts each.
pub(crate) fn programs(root: &Path, units: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut programs = BTreeMap::new();
    for unit in units.iter().filter(|unit| unit.ends_with(".service")) {
        // `getty@tty1.service` is made of `getty@.service`.
        let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
        let files = [Some(unit.clone()), template].into_iter().flatten();
        let text = files
            .flat_map(|file| UNITS.map(|folder| root.join(folder).join(&file)))
            .find_map(|path| fs::read_to_string(path).ok());
        for program in text.iter().flat_map(|text| started(text)) {
            programs.entry(program).or_insert_with(|| unit.clone());
        }
    }
    programs
}

fn names(folder: &Path) -> Vec<String> {
    kld_host::folder::names_in(folder).unwrap_or_default()
}

/// The programs of `ExecStart=` and `ExecStartPre=` that must succeed (systemd.service(5)).
fn started(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let commands = lines.filter(|(key, _)| ["ExecStart", "ExecStartPre"].contains(&key.trim()));
    let programs = commands.filter_map(|(_, command)| {
        let word = command.split_whitespace().next()?;
        let path = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
        let flags = &word[..word.len() - path.len()];
        (path.starts_with('/') && !flags.contains('-') && !path.contains(['$', '%', '"']))
            .then(|| path.to_owned())
    });
    programs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_enabled_units_start_is_found() {
        let root = tempfile::tempdir().expect("writable");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
            fs::write(path, text).expect("writable");
        };
        put("etc/systemd/system/multi-user.target.wants/a.service", "");
        put("etc/systemd/system/getty.target.wants/getty@tty1.service", "");
        put("usr/lib/systemd/system/sysinit.target.wants/b.timer", "");
        put("usr/lib/systemd/system/a.service", "[Service]\nExecStart=/old\n");
        put(
            "etc/systemd/system/a.service",
            "[Service]\n#ExecStart=/no\nExecStartPre=-/maybe x\nExecStart=!/usr/sbin/a --x\nExecStart=\nExecStop=/stop\n",
        );
        put("usr/lib/systemd/system/getty@.service", "ExecStart = -/sbin/agetty\nExecStart=/sbin/getty %I\n");
        put("usr/lib/systemd/system/idle.service", "ExecStart=/never\n");
        let units = enabled_units(root.path());
        assert_eq!(units.iter().collect::<Vec<_>>(), ["a.service", "b.timer", "getty@tty1.service"]);
        let programs = programs(root.path(), &units);
        let found: Vec<(&str, &str)> =
            programs.iter().map(|(path, unit)| (path.as_str(), unit.as_str())).collect();
        assert_eq!(found, [("/sbin/getty", "getty@tty1.service"), ("/usr/sbin/a", "a.service")]);
    }
}
