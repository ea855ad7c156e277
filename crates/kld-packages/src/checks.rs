//! Whether a changed system can start and be well. What was wrong before the change counts for nothing.

use std::fmt;
use std::path::Path;

use kld_host::Output;
use serde::{Deserialize, Serialize};

use crate::database::{PackageChange, Packages};
use crate::error::PackageError;
use crate::initramfs::unfit;
use crate::manager::PackageManager;
use crate::programs::{enabled_units, programs};
use crate::request::Request;
use crate::room::Room;
use crate::unit_verdicts::refused_units;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The kernel, and the ZFS module beside it.
    Kernel,
    /// Its initial RAM file system.
    Initramfs,
    /// The package database, and the files that it says are there.
    Packages,
    /// Programs that enabled units start.
    Programs,
    /// Unit files.
    Units,
    /// `/etc/fstab`.
    Fstab,
    /// The SSH server's configuration.
    Ssh,
}

impl Check {
    /// What the person can do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Kernel => {
                "install the ZFS module of that kernel with it, or `apt-mark hold` the kernel until there is one"
            }
            Self::Initramfs => "`update-initramfs -u -v` says what goes into it and what does not",
            Self::Packages => {
                "`dpkg --audit` and `apt-get -f install` show what the running system makes of it"
            }
            Self::Programs | Self::Units => "leave out the package that brought it, or mend its unit first",
            Self::Fstab => "`findmnt --verify` says what is wrong with a line",
            Self::Ssh => "`sshd -t` says what is wrong with the configuration",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Packages => "packages",
            Self::Programs => "programs",
            Self::Units => "units",
            Self::Fstab => "fstab",
            Self::Ssh => "sshd",
        })
    }
}

/// Something that speaks against starting a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// What was seen, in one line.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

fn all(check: Check, lines: impl IntoIterator<Item = String>) -> Vec<Finding> {
    lines.into_iter().map(|what| Finding { check, what }).collect()
}

fn has(place: &str) -> bool {
    std::fs::symlink_metadata(Room::path(place)).is_ok()
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &output.stderr;
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What is quickly looked at, before and after the change.
pub(crate) fn light(manager: &dyn PackageManager) -> Result<Vec<Finding>, PackageError> {
    let root = Room::path("");
    let audit = Room::ask(&manager.audit())?;
    let audited = manager.audited(&String::from_utf8_lossy(&audit.stdout));
    let mut found = all(Check::Packages, audited.into_iter().map(|of| format!("`{of}` is not configured")));
    let units = enabled_units(&root);
    found.extend(linked(&root, &units)?);
    if has("usr/bin/systemd-analyze") {
        // Those that exist: a link to a unit that is gone is no harm.
        let there = units.iter().filter(|unit| {
            ["etc/systemd/system", "usr/lib/systemd/system"].iter().any(|of| has(&format!("{of}/{unit}")))
        });
        let verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--"];
        let output = Room::ask(&verify.into_iter().chain(there.map(String::as_str)).collect::<Vec<_>>())?;
        if output.code != 0 {
            found.extend(all(Check::Units, refused_units(&lines(&output))));
        }
    }
    if has("usr/bin/findmnt") && has("etc/fstab") {
        let output = Room::ask(&["findmnt", "--verify", "--tab-file", "/etc/fstab"])?;
        found.extend(all(Check::Fstab, wrong_lines(&lines(&output))));
    }
    if has("usr/sbin/sshd") {
        let output = Room::ask(&["/usr/sbin/sshd", "-t"])?;
        if output.code != 0 {
            found.extend(all(Check::Ssh, lines(&output)));
        }
    }
    Ok(found)
}

/// Errors of `findmnt --verify`: what cannot be read, and what the start would wait for in vain. Warnings are none.
fn wrong_lines(lines: &[String]) -> Vec<String> {
    let mut of = "";
    let mut wrong = Vec::new();
    for line in lines {
        if line.starts_with('/') || line == "none" || line == "swap" {
            of = line;
        } else if let Some(error) = line.strip_prefix("[E]") {
            wrong.push(format!("{of}: {}", error.trim()));
        } else if line.contains("parse error at line") {
            wrong.push(line.trim_start_matches("findmnt: ").to_owned());
        }
    }
    wrong
}

/// Whether the programs of enabled units are there, with every library that they are linked to.
fn linked(root: &Path, units: &std::collections::BTreeSet<String>) -> Result<Vec<Finding>, PackageError> {
    let programs = programs(root, units);
    // Two programs at least: with one, ldd does not say of which it speaks.
    let named = ["/usr/bin/env", "/bin/sh"].into_iter().chain(programs.keys().map(String::as_str));
    let ldd: Vec<&str> = ["ldd"].into_iter().chain(named).collect();
    if !has("usr/bin/ldd") {
        return Ok(Vec::new());
    }
    let output = Room::ask(&ldd)?;
    let missing = missing(&String::from_utf8_lossy(&output.stdout), &output.stderr);
    let of = |program: &str| programs.get(program).map_or("a unit", String::as_str);
    let said =
        missing.into_iter().map(|(program, what)| format!("{} starts `{program}`: {what}", of(&program)));
    Ok(all(Check::Programs, said))
}

/// Programs that cannot be started, as ldd says it.
fn missing(stdout: &str, stderr: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut program = "";
    for line in stdout.lines() {
        match line.strip_suffix(':') {
            Some(name) if line.starts_with('/') => program = name,
            _ if line.trim_end().ends_with("=> not found") => {
                let library = line.split_whitespace().next().unwrap_or_default();
                found.push((program.to_owned(), format!("no `{library}`")));
            }
            _ => {}
        }
    }
    for line in stderr.lines().filter(|line| line.ends_with(": No such file or directory")) {
        let name = line.split(": ").nth(1).unwrap_or_default().trim_start_matches("./");
        found.push((format!("/{}", name.trim_start_matches('/')), "there is no such program".to_owned()));
    }
    found
}

/// What takes its time, after the change only.
pub(crate) fn heavy(
    manager: &dyn PackageManager,
    packages: &Packages,
    changes: &[PackageChange],
    kernel: Option<&str>,
    request: &Request,
) -> Result<Vec<Finding>, PackageError> {
    let mut found = Vec::new();
    match kernel {
        None => found.extend(all(Check::Kernel, ["there is no kernel in /boot".to_owned()])),
        Some(release) => {
            found.extend(module(release)?);
            found.extend(initramfs(manager, release, request)?);
        }
    }
    let unfinished = packages.0.iter().filter(|(_, package)| !package.is_configured);
    found.extend(all(Check::Packages, unfinished.map(|(name, _)| format!("`{name}` is not configured"))));
    let changed: Vec<&str> =
        changes.iter().filter(|of| of.after.is_some()).map(|of| of.name.as_str()).collect();
    if !changed.is_empty() {
        let output = Room::ask(&manager.verify(&changed))?;
        let files = manager.verified(&String::from_utf8_lossy(&output.stdout));
        found.extend(all(
            Check::Packages,
            files.into_iter().map(|of| format!("`{of}` is not as its package says")),
        ));
    }
    found.dedup();
    Ok(found)
}

/// Whether a kernel has a ZFS module, of the version of the tools.
fn module(release: &str) -> Result<Vec<Finding>, PackageError> {
    let module = Room::ask(&["modinfo", "-k", release, "-F", "version", "zfs"])?;
    let module = String::from_utf8_lossy(&module.stdout).trim().to_owned();
    let tools = Room::ask(&["zfs", "--version"])?;
    let tools = String::from_utf8_lossy(&tools.stdout).lines().next().unwrap_or_default().to_owned();
    let signer = Room::ask(&["modinfo", "-k", release, "-F", "signer", "zfs"])?;
    let signer = String::from_utf8_lossy(&signer.stdout).trim().to_owned();
    let [enforced, lockdown] =
        [SIGNED_ONLY, LOCKDOWN].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let wrong = versions_differ(release, &module, &tools);
    Ok(all(Check::Kernel, wrong.or_else(|| is_refused(release, &signer, &enforced, &lockdown))))
}

/// Whether the kernel that runs loads signed modules only: `module.sig_enforce`, and what Secure Boot brings
/// (kernel_lockdown(7)). The next one is started by the same firmware.
const SIGNED_ONLY: &str = "/sys/module/module/parameters/sig_enforce";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

fn is_refused(release: &str, signer: &str, enforced: &str, lockdown: &str) -> Option<String> {
    let signed_only =
        enforced.trim() == "Y" || lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]");
    let refused = signed_only && signer.is_empty();
    refused.then(|| {
        format!("{release} has a zfs.ko without a signature, and this machine loads signed modules only")
    })
}

fn versions_differ(release: &str, module: &str, tools: &str) -> Option<String> {
    // `zfs-2.3.9-0+deb13u1` is 2.3.9.
    let upstream =
        |text: &str| text.trim_start_matches("zfs-").split('-').next().unwrap_or_default().to_owned();
    match (upstream(module), upstream(tools)) {
        (module, _) if module.is_empty() => {
            Some(format!("{release} has no zfs.ko: its root would not be found"))
        }
        (module, tools) if module != tools => {
            Some(format!("{release} has zfs.ko {module}, and the tools are {tools}"))
        }
        _ => None,
    }
}

/// Whether an initial RAM file system can find the root.
fn initramfs(
    manager: &dyn PackageManager,
    release: &str,
    request: &Request,
) -> Result<Vec<Finding>, PackageError> {
    let path = ["initrd.img-", "initramfs-"].map(|name| format!("/boot/{name}{release}"));
    let Some(path) = path.into_iter().find(|path| has(path)) else { return Ok(Vec::new()) };
    let listers = manager.initramfs_listers();
    let lister = listers.iter().find(|lister| has(&format!("usr/bin/{lister}"))).or(listers.first());
    let Some(lister) = lister else { return Ok(Vec::new()) };
    let output = Room::ask(&[lister, path.as_str()])?;
    let needs_host_id = !request.host_id_by_entry && has("etc/hostid");
    Ok(all(Check::Initramfs, unfit(&path, &output, release, needs_host_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_cannot_be_started_are_named() {
        let stdout = "/usr/bin/env:\n\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/libc.so.6 (0x0)\n/usr/sbin/a:\n\
                      \tliba.so.1 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x0)\n/usr/lib/s:\n\tnot a dynamic executable\n";
        let stderr =
            "ldd: ./usr/sbin/b: No such file or directory\nldd: /usr/sbin/c: No such file or directory\n";
        let found = missing(stdout, stderr);
        let found: Vec<String> = found.iter().map(|(program, what)| format!("{program} {what}")).collect();
        assert_eq!(
            found,
            [
                "/usr/sbin/a no `liba.so.1`",
                "/usr/sbin/b there is no such program",
                "/usr/sbin/c there is no such program"
            ]
        );
    }

    #[test]
    fn errors_of_fstab_are_told_from_warnings() {
        let text = "findmnt: /etc/fstab: parse error at line 3 -- ignored\n/efi\n   [W] target is not a directory\n/data\n   [E] unreachable on boot required source: LABEL=x\n\n1 parse error, 1 error, 1 warning\n";
        let all: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(
            wrong_lines(&all),
            [
                "/etc/fstab: parse error at line 3 -- ignored",
                "/data: unreachable on boot required source: LABEL=x"
            ]
        );
    }

    #[test]
    fn a_kernel_needs_its_module_and_the_tools_theirs() {
        assert_eq!(versions_differ("6.12", "2.3.9-0+deb13u1\n", "zfs-2.3.9-1"), None);
        assert!(versions_differ("6.12", "", "zfs-2.3.9-1").is_some_and(|of| of.contains("no zfs.ko")));
        assert_eq!(
            versions_differ("6.12", "2.3.9-1", "zfs-2.4.0-1").as_deref(),
            Some("6.12 has zfs.ko 2.3.9, and the tools are 2.4.0")
        );
        let [open, locked] = ["[none] integrity confidentiality\n", "none [integrity] confidentiality\n"];
        assert_eq!(is_refused("6.12", "", "N\n", open), None);
        assert_eq!(is_refused("6.12", "DKMS module signing key", "Y\n", locked), None);
        for (enforced, lockdown) in [("Y\n", open), ("N\n", locked), ("", locked)] {
            assert!(
                is_refused("6.12", "", enforced, lockdown)
                    .is_some_and(|of| of.contains("without a signature"))
            );
        }
    }
}
