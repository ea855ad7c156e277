//! Debian and what was made from it: apt, dpkg, initramfs-tools.

use crate::database::PackageChange;
use crate::manager::{PackageManager, Preview, PreviewCommands};
use crate::path_filters::PathFilters;
use crate::request::Change;

/// apt-get and dpkg.
#[derive(Debug, Clone, Default)]
pub(crate) struct Apt {
    /// What this system's dpkg leaves out of packages.
    pub(crate) filters: PathFilters,
}

/// Configuration that a person has changed stays; what is fetched goes; one sync at the end stands for one after each file,
/// since nothing starts a clone that is not finished.
const OPTIONS: [&str; 6] = [
    "Dpkg::Options::=--force-confdef",
    "Dpkg::Options::=--force-confold",
    "Dpkg::Options::=--force-unsafe-io",
    "Dpkg::Use-Pty=0",
    "APT::Keep-Downloaded-Packages=false",
    "APT::Get::Assume-Yes=true",
];

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

/// `upgrade`, `install -- NAME…` …
fn verb(change: &Change) -> Vec<String> {
    let named = |verb: &str, names: &[crate::PackageName]| {
        let names = names.iter().map(|name| name.as_str().to_owned());
        [verb.to_owned(), "--".to_owned()].into_iter().chain(names).collect()
    };
    match change {
        Change::Upgrade { full: false } => words(&["upgrade", "--with-new-pkgs"]),
        Change::Upgrade { full: true } => words(&["dist-upgrade"]),
        Change::Install(names) => named("install", names),
        Change::Remove(names) => named("remove", names),
    }
}

impl PackageManager for Apt {
    fn refresh(&self) -> Vec<String> {
        words(&["apt-get", "--quiet", "--error-on=any", "update"])
    }

    fn change(&self, change: &Change) -> Vec<String> {
        let options = OPTIONS.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]);
        words(&["apt-get", "--quiet"]).into_iter().chain(options).chain(verb(change)).collect()
    }

    fn environment(&self) -> &'static [(&'static str, &'static str)] {
        &[("DEBIAN_FRONTEND", "noninteractive"), ("NEEDRESTART_SUSPEND", "1")]
    }

    fn audit(&self) -> Vec<String> {
        words(&["dpkg", "--audit"])
    }

    fn audited(&self, output: &str) -> Vec<String> {
        // Sentences for people, and below each its packages, indented.
        let packages = output.lines().filter(|line| line.starts_with(' '));
        packages.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    fn verify(&self, packages: &[&str]) -> Vec<String> {
        words(&["dpkg", "--verify"]).into_iter().chain(packages.iter().map(|of| (*of).to_owned())).collect()
    }

    fn verified(&self, output: &str) -> Vec<String> {
        // `??5??????   /usr/bin/x`, `missing     /usr/bin/x`; with a ` c ` between, it is configuration.
        let files = output.lines().filter_map(|line| line.split_once(" /"));
        let files = files.map(|(state, path)| (state.trim_end(), format!("/{path}")));
        let changed = files.filter(|(state, path)| {
            let is_left_out = *state == "missing" && self.filters.leave_out(path);
            !state.ends_with(" c") && path.starts_with("/usr/") && !is_left_out
        });
        changed.map(|(_, path)| path).collect()
    }

    fn initramfs_listers(&self) -> &'static [&'static str] {
        // Of initramfs-tools, and of dracut.
        &["lsinitramfs", "lsinitrd"]
    }

    fn cache_folders(&self) -> &'static [&'static str] {
        &["lists/partial", "archives/partial"]
    }

    fn preview(&self, change: &Change, cache: &str) -> PreviewCommands {
        let elsewhere = [
            format!("Dir::State::Lists={cache}/lists"),
            format!("Dir::Cache={cache}"),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let elsewhere = || elsewhere.iter().flat_map(|option| ["-o".to_owned(), option.clone()]);
        let command = |first: &[&str], rest: Vec<String>| -> Vec<String> {
            words(first).into_iter().chain(elsewhere()).chain(rest).collect()
        };
        PreviewCommands {
            refresh: command(&["apt-get", "--quiet", "--error-on=any"], words(&["update"])),
            simulate: command(&["apt-get", "--simulate", "--quiet"], verb(change)),
            fetch: command(&["apt-get", "--print-uris", "--quiet", "--yes"], verb(change)),
        }
    }

    fn previewed(&self, simulated: &str, fetched: &str) -> Preview {
        let bracketed = |text: &str, open: char, close: char| -> Option<String> {
            let inner = text.split_once(open)?.1.split_once(close)?.0;
            inner.split_whitespace().next().map(str::to_owned)
        };
        let changes = simulated.lines().filter_map(|line| {
            let (what, rest) = line.split_once(' ')?;
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            // `Inst bash [5.2] (5.3 Debian:13/stable [amd64])`, `Remv bash [5.2]`
            let (before, after) = match what {
                "Inst" => {
                    let (old, new) = rest.split_once('(').unwrap_or((rest, ""));
                    (bracketed(old, '[', ']'), bracketed(&format!("({new}"), '(', ')'))
                }
                "Remv" => (bracketed(rest, '[', ']'), None),
                _ => return None,
            };
            Some(PackageChange { name: name.to_owned(), before, after })
        });
        // `'http://…/bash_5.3_amd64.deb' bash_5.3_amd64.deb 1234 SHA256:…`
        let sizes = fetched.lines().filter(|line| line.starts_with('\''));
        let sizes = sizes.filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok());
        Preview { changes: changes.collect(), download: sizes.sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_taken_for_an_option() {
        let install = Change::Install(vec!["bash".parse().expect("a name")]);
        let command = Apt::default().change(&install);
        assert_eq!(command[command.len() - 3..], ["install", "--", "bash"]);
        assert_eq!(
            Apt::default().change(&Change::Upgrade { full: false }).last().map(String::as_str),
            Some("--with-new-pkgs")
        );
        let preview = Apt::default().preview(&install, "/c");
        for command in [&preview.refresh, &preview.simulate, &preview.fetch] {
            assert!(command.contains(&"Dir::State::Lists=/c/lists".to_owned()), "{command:?}");
        }
    }

    #[test]
    fn what_the_tools_say_is_read() {
        let simulated = "NOTE: This is only a simulation!\nInst bash [5.2] (5.3 Debian:13/stable [amd64])\n\
                         Inst new (1:1.0 localhost [all]) []\nRemv old [0.9]\nConf bash (5.3 Debian:13/stable [amd64])\n";
        let fetched = "Reading package lists...\n'file:/x/bash.deb' bash_5.3_amd64.deb 1000 SHA256:00\n\
                       'file:/x/new.deb' new_1_all.deb 24 \n";
        let preview = Apt::default().previewed(simulated, fetched);
        let changes: Vec<String> = preview.changes.iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["  bash 5.2 -> 5.3", "+ new 1:1.0", "- old 0.9"]);
        assert_eq!(preview.download, 1024);
        let verified = "??5?????? c /etc/bash.bashrc\n??5??????   /usr/bin/bash\nmissing     /usr/lib/x y\n\
                        ??5?????? c /usr/share/conf\n??5??????   /boot/vmlinuz\n";
        assert_eq!(Apt::default().verified(verified), ["/usr/bin/bash", "/usr/lib/x y"]);
        let root = tempfile::tempdir().expect("writable");
        std::fs::create_dir_all(root.path().join("etc/dpkg")).expect("writable");
        std::fs::write(root.path().join("etc/dpkg/dpkg.cfg"), "path-exclude=/usr/share/doc/*\n")
            .expect("writable");
        let apt = Apt { filters: PathFilters::of(root.path()).expect("readable") };
        let verified =
            "missing     /usr/share/doc/x/README\nmissing     /usr/lib/x\n??5??????   /usr/share/doc/x/y\n";
        assert_eq!(apt.verified(verified), ["/usr/lib/x", "/usr/share/doc/x/y"]);
        let audit = "The following packages are only half configured, probably due to problems\nconfiguring them:\n bad                  A package\n";
        assert_eq!(Apt::default().audited(audit), ["bad"]);
        assert_eq!(Apt::default().audited(""), [""; 0]);
    }
}
