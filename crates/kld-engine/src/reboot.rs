//! What no apply does, because a machine starts from it: a wrong one would keep it from starting, and nothing could be proven
//! before. It is said, with the command that does it.

use std::collections::{BTreeMap, BTreeSet};

use kld_system::Layer;
use serde::{Deserialize, Serialize};

use crate::host::{Host, HostError};
use crate::plan::Because;
use crate::wanted::Wanted;

/// What the machine needs a start for, and a plan leaves alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtStart {
    /// The type of the thing: `package`, `kernel argument`.
    pub kind: String,
    /// The thing, or several.
    pub name: String,
    /// Why it is wanted.
    pub because: Because,
    /// What does it.
    pub with: String,
}

/// reboot-required(7) of Debian: packages put it there, and the start takes it away.
const MARK: &str = "/run/reboot-required";
const MARKED_BY: &str = "/run/reboot-required.pkgs";
const ARGUMENTS: &str = "/proc/cmdline";

/// Packages that wait for the next start by their own word. `None`: none does.
///
/// # Errors
/// When the mark is there and cannot be read.
pub fn waits_for_reboot(host: &dyn Host) -> Result<Option<Vec<String>>, HostError> {
    if host.read(MARK)?.is_none() {
        return Ok(None);
    }
    let names = host.read(MARKED_BY)?.unwrap_or_default();
    let names: BTreeSet<&str> = names.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    Ok(Some(names.into_iter().map(str::to_owned).collect()))
}

/// Packages to start from that are missing.
pub(crate) fn packages(wanted: &Wanted, installed: &BTreeMap<&str, &str>) -> Option<AtStart> {
    let distro = &wanted.system.distro;
    let is_there = |name: &str| {
        installed.contains_key(name)
            || (distro.is_kernel(name) && installed.keys().any(|there| distro.is_kernel(there)))
    };
    let of_boot = wanted.system.packages.iter().filter(|item| item.because.layer == Layer::Boot);
    let missing: Vec<_> = of_boot.filter(|item| !is_there(item.value.as_str())).collect();
    let first = missing.first()?;
    let because = if missing.iter().all(|item| item.because == first.because) {
        Because::from(&first.because)
    } else {
        of_the_start("what every machine needs to start and to be looked at")
    };
    let names: Vec<&str> = missing.iter().map(|item| item.value.as_str()).collect();
    Some(AtStart {
        kind: "package".to_owned(),
        name: names.join(", "),
        because,
        with: format!(
            "`kpkg install {}` puts it into a clone of the system, `reboot` starts that",
            names.join(" ")
        ),
    })
}

/// What else waits for a start: what was installed before, and arguments of the kernel that a line of the manifest asks for.
pub(crate) fn rest(host: &dyn Host, wanted: &Wanted) -> Result<Vec<AtStart>, HostError> {
    let mut rest = Vec::new();
    if let Some(names) = waits_for_reboot(host)? {
        rest.push(AtStart {
            kind: "package".to_owned(),
            name: if names.is_empty() { "installed before".to_owned() } else { names.join(", ") },
            because: of_the_start("installed, and not in use before the next start"),
            with: "`reboot`".to_owned(),
        });
    }
    let Some(running) = host.read(ARGUMENTS)? else { return Ok(rest) };
    let running: BTreeSet<&str> = running.split_whitespace().collect();
    for argument in &wanted.system.kernel_args {
        if argument.because.span.is_written() && !running.contains(argument.value.as_str()) {
            rest.push(AtStart {
                kind: "kernel argument".to_owned(),
                name: argument.value.clone(),
                because: Because::from(&argument.because),
                with: "add it to what the boot entry gives the kernel, then `reboot`".to_owned(),
            });
        }
    }
    Ok(rest)
}

fn of_the_start(reason: &str) -> Because {
    Because { layer: Layer::Boot.to_string(), line: None, reason: reason.to_owned() }
}
