//! What apt and dpkg are asked, and what they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kld_host::Cmd;

use super::LIMIT;
use crate::host::{Host, HostError};
use crate::kinds::Refusal;
use crate::locked::Locked;

/// Asks dpkg what is installed.
pub(super) fn installed_cmd() -> Cmd {
    Cmd::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}\t${Package}\t${Version}\t${Provides}\n"])
}

/// State, name, version and what it provides of each line.
fn states(text: &str) -> impl Iterator<Item = [&str; 4]> {
    text.lines().filter_map(|line| line.split('\t').collect::<Vec<_>>().try_into().ok())
}

/// Names of all that dpkg has on disk, in whatever state.
pub(super) fn there(text: &str) -> Vec<&str> {
    let there = states(text).filter(|[state, ..]| !matches!(*state, "not-installed" | "config-files"));
    there.map(|[_, name, ..]| name).collect()
}

/// Versions of the packages that are installed, by name.
pub(super) fn installed(text: &str) -> BTreeMap<&str, &str> {
    let installed = states(text).filter(|[state, ..]| *state == "installed");
    installed.map(|[_, name, version, _]| (name, version)).collect()
}

/// Names that installed packages provide besides their own.
pub(super) fn provided(text: &str) -> BTreeSet<&str> {
    let installed = states(text).filter(|[state, ..]| *state == "installed");
    installed.flat_map(|[.., provides]| provided_by(provides)).collect()
}

/// The names of a field `Provides`: `libssl3 (= 3.5.1-1), libcrypto`.
pub(super) fn provided_by(field: &str) -> impl Iterator<Item = &str> {
    field.split(',').filter_map(|one| one.split_whitespace().next())
}

pub(super) fn apt() -> Cmd {
    Cmd::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-y", "-q", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"])
        // Somebody else may be at it: unattended-upgrades, or the apt-get of an apply that was killed. Seconds.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        // The files of the manifest win over those of packages.
        .args(["-o", "Dpkg::Options::=--force-confold"])
}

/// How apt is told of a package: with the version that it must have, if there is one.
pub(super) fn words(names: &[String], versions: &BTreeMap<String, String>) -> Vec<String> {
    let word = |name: &String, version: &String| format!("{name}={version}");
    let asked =
        names.iter().map(|name| versions.get(name).map_or(name.clone(), |version| word(name, version)));
    let along = versions.iter().filter(|(name, _)| !names.contains(name));
    asked.chain(along.map(|(name, version)| word(name, version))).collect()
}

/// Ends when nobody is at work on packages. That dpkg was interrupted is no matter here.
pub(super) fn wait() -> Cmd {
    apt().arg("check").accept(100)
}

/// Installs these. A locked version counts whether it is newer or older than what is there.
pub(super) fn install(words: &[String], is_locked: bool) -> Cmd {
    apt().args(is_locked.then_some("--allow-downgrades")).arg("install").args(words)
}

/// What apt would do.
pub(super) struct Simulated {
    /// Names and versions.
    pub(super) installed: Vec<(String, String)>,
    pub(super) removed: Vec<String>,
}

impl Simulated {
    pub(super) fn changes_nothing(&self) -> bool {
        self.installed.is_empty() && self.removed.is_empty()
    }

    /// Whether it would install a package of this name.
    pub(super) fn brings(&self, name: &str) -> bool {
        self.installed.iter().any(|(of, _)| of == name)
    }
}

pub(super) fn simulate(host: &dyn Host, words: &[String], is_locked: bool) -> Result<Simulated, HostError> {
    let text = host.text(&install(words, is_locked).arg("-s").timeout(Duration::from_secs(120)))?;
    Ok(parse(&text))
}

/// `Inst git [1:2.39.2-1] (1:2.47.3-0 Debian:13/stable [amd64])`, `Remv git [1:2.39.2-1]`.
fn parse(text: &str) -> Simulated {
    let installed = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("Inst ")?;
        let version = rest.split_once('(').map_or("", |(_, version)| version);
        let until = |text: &str| text.split([' ', ')']).next().unwrap_or_default().to_owned();
        Some((until(rest), until(version)))
    });
    let removed = text.lines().filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next());
    Simulated { installed: installed.collect(), removed: removed.map(str::to_owned).collect() }
}

/// Why apt cannot install these.
pub(super) fn unavailable(words: &[String], lock: Option<&Locked>, error: HostError) -> Refusal {
    let said = match &error {
        HostError::Exec(exec) => exec.stderr().unwrap_or_default(),
        _ => "",
    };
    let line_with = |texts: [&str; 2]| {
        let line = said.lines().find(|line| texts.iter().any(|text| line.contains(text)));
        line.map(|line| line.trim_start_matches("E: ").to_owned())
    };
    let refused = |reason, hint: String| Refusal::Refused { name: words.join(", "), reason, hint };
    if let (Some(reason), Some(lock)) = (line_with(["Version '", "versions of"]), lock) {
        let hint = format!("when `apt-get update` does not bring that version, it is gone: {}", lock.hint());
        return refused(reason, hint);
    }
    match line_with(["Unable to locate package", "no installation candidate"]) {
        Some(reason) => {
            let hint = "check the spelling in `packages:`, and whether `apt-get update` has run";
            refused(reason, hint.to_owned())
        }
        None => Refusal::Look("what apt would do", error),
    }
}

/// Removes every package that was not there, whatever state it is in by now.
pub(super) fn purge(host: &dyn Host, there_before: &[String]) -> Result<(), HostError> {
    let text = host.text(&installed_cmd())?;
    let come: Vec<&str> =
        there(&text).into_iter().filter(|name| !there_before.iter().any(|of| of == name)).collect();
    if come.is_empty() {
        return Ok(());
    }
    // What was half unpacked can only be removed once it is configured, or has failed to.
    let _ = host.run(&Cmd::new("dpkg").args(["--configure", "-a"]).timeout(LIMIT));
    host.run(&apt().arg("purge").args(come).timeout(LIMIT)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_would_do_is_read_with_versions() {
        let text = "Inst git [1:2.39.2-1] (1:2.47.3-0 Debian:13/stable [amd64])\nInst a (1.0 [all])\n\
                    Inst b (2.0)\nRemv c [1]\nConf git (1:2.47.3-0 Debian:13/stable [amd64])\n";
        let simulated = parse(text);
        let pairs: Vec<_> =
            simulated.installed.iter().map(|(name, of)| (name.as_str(), of.as_str())).collect();
        assert_eq!(pairs, [("git", "1:2.47.3-0"), ("a", "1.0"), ("b", "2.0")]);
        assert_eq!(simulated.removed, ["c"]);
    }

    #[test]
    fn what_installed_packages_provide_is_read() {
        let text = "installed\tlibssl3t64\t3.5\tlibssl3 (= 3.5), libcrypto\ninstalled\tgit\t1:2.47\t\n\
                    config-files\tmawk\t1.3\tawk\n";
        assert_eq!(installed(text), [("git", "1:2.47"), ("libssl3t64", "3.5")].into());
        assert_eq!(provided(text), ["libcrypto", "libssl3"].into());
    }

    #[test]
    fn what_is_asked_for_comes_first_and_with_its_version() {
        let of = |names: &[&str], versions: &[(&str, &str)]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let own = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
            words(&names, &versions.iter().map(own).collect())
        };
        assert_eq!(of(&["b", "a"], &[]), ["b", "a"]);
        assert_eq!(of(&["b", "c"], &[("a", "1"), ("b", "2-1")]), ["b=2-1", "c", "a=1"]);
    }
}
