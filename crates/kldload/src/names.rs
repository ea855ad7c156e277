//! The names that the one program answers to: called as `kst` it is `kldload status`.

use std::ffi::OsString;
use std::path::Path;

use clap::CommandFactory as _;

/// Each name, and the command that it stands for.
const NAMES: &[(&str, &[&str])] = &[
    ("kbe", &["be"]),
    ("kdf", &["df"]),
    ("kdir", &["dir"]),
    ("kpkg", &["pkg"]),
    ("ksnap", &["snap"]),
    ("kst", &["status"]),
    ("kupgrade", &["pkg", "upgrade"]),
];

/// The names beside `kldload`.
pub(crate) fn short_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// `kst --json` → `kldload status --json`.
pub(crate) fn expand(mut args: Vec<OsString>) -> Vec<OsString> {
    let called = args
        .first()
        .and_then(|name| Path::new(name).file_name())
        .map(|name| name.to_string_lossy().into_owned());
    if let Some((_, command)) = NAMES.iter().find(|(name, _)| called.as_deref() == Some(name)) {
        args.splice(..1, ["kldload"].iter().chain(*command).map(Into::into));
    }
    args
}

/// The command that a name stands for, called by it.
pub(crate) fn command_of(name: &'static str) -> clap::Command {
    let all = crate::Args::command();
    let global: Vec<clap::Arg> = all.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let words = NAMES.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, words)| words);
    let found = words.iter().try_fold(&all, |command, word| command.find_subcommand(word)).cloned();
    found.unwrap_or_default().name(name).bin_name(name).args(global)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_expands_and_is_a_command() {
        let expanded = |words: &[&str]| expand(words.iter().map(Into::into).collect());
        assert_eq!(expanded(&["/usr/bin/kst", "--json"]), ["kldload", "status", "--json"]);
        assert_eq!(expanded(&["ksnap", "tank", "--", "-x"]), ["kldload", "snap", "tank", "--", "-x"]);
        assert_eq!(expanded(&["kbe", "list"]), ["kldload", "be", "list"]);
        assert_eq!(expanded(&["kupgrade", "--yes"]), ["kldload", "pkg", "upgrade", "--yes"]);
        assert_eq!(expanded(&["kldload", "check"]), ["kldload", "check"]);
        for name in short_names() {
            let command = command_of(name);
            assert!(command.get_about().is_some(), "{name}");
            command.debug_assert();
        }
    }
}
