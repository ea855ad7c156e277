//! What must be told that something has changed: units that are started again, rules that are loaded.
//!
//! These steps are worked out from the others and come after them; they have no undo of their own. Going back runs them
//! again, once everything else is as it was.

mod programs;

use std::collections::{BTreeMap, BTreeSet};

use kld_host::Cmd;
use kld_system::{IDENTITY_UNIT, NODE_CONFIG_PATH, RECOVERY_UNIT};
use serde::{Deserialize, Serialize};

use crate::firewall;
use crate::host::{Host, HostError, Node};
use crate::interruption::Interruption;
use crate::kinds::{
    Settings, is_birth, look_at_units, put_settings, replaced_packages, shown_settings, to_value,
    unit_properties, unit_property,
};
use crate::plan::{Action, Because, Cause, Step, key};
use crate::wanted::Wanted;

pub(crate) const KIND: &str = "service";

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Tell {
    /// systemd reads its units again.
    DaemonReload,
    /// A unit that is running stops: before others start, which may want its sockets.
    Stop { unit: String },
    /// A unit that is running starts again, one that is not starts.
    Restart { unit: String },
    /// A unit reads its configuration again, when it is running.
    Reload { unit: String },
    /// The kernel is told again what it had been told. Going back is the business of the files that say it.
    Settings { values: Settings },
}

/// What a file belongs to: a path or the beginning of one, and what is told when it changes. The first that fits counts.
const READERS: [(&str, Reader); 12] = [
    (firewall::RULES, Reader::Reload(firewall::UNIT)),
    (NODE_CONFIG_PATH, Reader::Restart(IDENTITY_UNIT)),
    ("/etc/ssh/", Reader::Reload("ssh.service")),
    ("/etc/systemd/network/", Reader::Reload("systemd-networkd.service")),
    ("/etc/systemd/resolved.conf", Reader::Restart("systemd-resolved.service")),
    ("/etc/systemd/timesyncd.conf", Reader::Restart("systemd-timesyncd.service")),
    ("/etc/systemd/journald.conf", Reader::Restart("systemd-journald.service")),
    ("/etc/sysctl.d/", Reader::Restart("systemd-sysctl.service")),
    ("/etc/modules-load.d/", Reader::Restart("systemd-modules-load.service")),
    ("/etc/tmpfiles.d/", Reader::Restart("systemd-tmpfiles-setup.service")),
    ("/etc/default/prometheus-node-exporter", Reader::Restart("prometheus-node-exporter.service")),
    ("/etc/zfs/", Reader::Nobody),
];

#[derive(Clone, Copy)]
enum Reader {
    Restart(&'static str),
    Reload(&'static str),
    /// systemd's generator, at the next reload of its units.
    Nobody,
}

/// Where unit files are, and their drop-ins.
pub(crate) const UNIT_FILES: &str = "/etc/systemd/system/";
/// Directories of units and of what systemd makes units of.
const UNITS: [&str; 2] = [UNIT_FILES, "/etc/containers/systemd/"];

/// Why rules are loaded again.
const NOT_LOADED: &str = "the rules in the kernel are not those of /etc/nftables.conf";

/// Works out what must be told.
pub(crate) fn restarts(
    host: &dyn Host,
    wanted: &Wanted,
    before: &BTreeMap<String, String>,
    steps: &[Step],
) -> Result<Vec<Step>, HostError> {
    let services: BTreeSet<&str> = wanted.services().collect();
    let mut why: BTreeMap<Tell, (Cause, String)> = BTreeMap::new();
    let mut add = |tell: Tell, reason: String| {
        why.entry(tell).or_insert((Cause::Wish, reason));
    };
    let changed: BTreeSet<&str> =
        steps.iter().filter(|step| step.kind == "file").map(|step| step.name.as_str()).collect();
    let mut readers = None;
    for path in &changed {
        if let Some(unit) = unit_of_file(path) {
            add(Tell::DaemonReload, format!("{path} changes"));
            if services.contains(&unit.as_str()) {
                add(Tell::Restart { unit }, format!("{path} changes"));
            }
        } else if let Some((_, reader)) = READERS.iter().find(|(of, _)| path.starts_with(of)) {
            let reason = format!("{path} changes");
            match reader {
                Reader::Restart(unit) => add(Tell::Restart { unit: (*unit).to_owned() }, reason),
                Reader::Reload(unit) => add(Tell::Reload { unit: (*unit).to_owned() }, reason),
                Reader::Nobody => add(Tell::DaemonReload, reason),
            }
        } else {
            let readers = readers.get_or_insert_with(|| readers_of(wanted, &services));
            for service in above(path).filter_map(|above| readers.get(above)).flatten() {
                add(Tell::Restart { unit: (*service).to_owned() }, format!("{path} changes"));
            }
        }
    }
    for step in steps.iter().filter(|step| is_birth(&step.kind, &step.change)) {
        add(Tell::Restart { unit: IDENTITY_UNIT.to_owned() }, format!("it makes {}", step.name));
    }
    for (unit, path) in programs::users(host, &services, &replaced_packages(steps)?)? {
        add(Tell::Restart { unit }, format!("it runs {path}, which its package replaces"));
    }
    for step in steps.iter().filter(|step| step.kind == "unit") {
        let unit = step.name.clone();
        add(Tell::DaemonReload, format!("{unit} is switched"));
        match step.action {
            // It undoes what was interrupted, at the next start: now it would wait for us.
            Action::Add if unit == RECOVERY_UNIT => {}
            Action::Add => add(Tell::Restart { unit }, "it starts by itself from now on".to_owned()),
            _ => add(Tell::Stop { unit }, "it is switched off".to_owned()),
        }
    }
    for (unit, path) in leaving(host, &services, steps)? {
        add(Tell::Stop { unit }, format!("{path} goes"));
    }
    // Services that must run and do not. Those of containers are no units of the manifest, their files are.
    let files = before.keys().filter_map(|item| item.strip_prefix(key("file", "").as_str()));
    let contained: BTreeSet<String> = files.filter_map(unit_of_file).collect();
    let seen = look_at_units(host, wanted)?;
    for unit in &services {
        let state = seen.get(*unit).map_or("", |unit| unit_property(unit, "ActiveState"));
        if !runs(state) {
            // It ran when the last apply was done: that was its proof.
            let has_run = before.contains_key(&key("unit", unit)) || contained.contains(*unit);
            let cause = if has_run { Cause::Drift } else { Cause::Wish };
            let reason = format!("it is {}", if state.is_empty() { "not there yet" } else { state });
            why.entry(Tell::Restart { unit: (*unit).to_owned() }).or_insert((cause, reason));
        }
    }
    // Rules that are loaded anyway are not looked at.
    let is_of_rules = |tell: &Tell| match tell {
        Tell::DaemonReload | Tell::Settings { .. } => false,
        Tell::Stop { unit } | Tell::Restart { unit } | Tell::Reload { unit } => unit == firewall::UNIT,
    };
    if !why.keys().any(is_of_rules) && !firewall::is_loaded(host, wanted)? {
        let unit = firewall::UNIT.to_owned();
        let is_active =
            seen.get(firewall::UNIT).is_some_and(|unit| unit_property(unit, "ActiveState") == "active");
        let tell = if is_active { Tell::Reload { unit } } else { Tell::Restart { unit } };
        why.insert(tell, (Cause::Drift, NOT_LOADED.to_owned()));
    }
    let mut why: Vec<_> = why.into_iter().collect();
    why.sort_by_key(|(tell, _)| rank(tell));
    Ok(why.into_iter().map(|(tell, (cause, reason))| step(&tell, cause, reason)).collect())
}

/// What is told when applies are taken back.
#[derive(Debug, Default)]
pub(crate) struct BackTold {
    /// Before everything else.
    pub(crate) stops: Vec<Step>,
    /// After it.
    pub(crate) restarts: Vec<Step>,
}

/// Works out what must be told of a way back. `told` is what the applies have told and whether its unit ran before, the newest
/// first; `settings` what the kernel had been told before all of them.
pub(crate) fn back(host: &dyn Host, told: &[(Tell, bool, String)], settings: Settings) -> BackTold {
    // The oldest has seen what was before all of them.
    let mut units: BTreeMap<&str, (bool, bool, &str)> = BTreeMap::new();
    let mut reload = None;
    for (tell, was_active, reason) in told {
        let Some(unit) = unit_told(tell) else {
            reload.get_or_insert(reason);
            continue;
        };
        let before = units.get(unit).copied();
        let only_reloads = matches!(tell, Tell::Reload { .. }) && before.is_none_or(|(reloads, ..)| reloads);
        units
            .insert(unit, (only_reloads, *was_active, before.map_or(reason.as_str(), |(.., reason)| reason)));
    }
    let mut told = BackTold::default();
    let mut tells: Vec<(Tell, String)> =
        reload.map(|reason| (Tell::DaemonReload, reason.clone())).into_iter().collect();
    for (unit, (only_reloads, was_active, reason)) in units {
        let (unit, reason) = (unit.to_owned(), reason.to_owned());
        if !was_active {
            told.stops.push(step(&Tell::Stop { unit }, Cause::Wish, "it did not run before".to_owned()));
        } else if only_reloads {
            tells.push((Tell::Reload { unit }, reason));
        } else {
            tells.push((Tell::Restart { unit }, reason));
        }
    }
    tells.sort_by_key(|(tell, _)| rank(tell));
    told.restarts = tells.into_iter().map(|(tell, reason)| step(&tell, Cause::Wish, reason)).collect();
    if !settings.is_empty() {
        let notes = shown_settings(host, &settings);
        let reason = "without its file a setting stays".to_owned();
        let step = step(&Tell::Settings { values: settings }, Cause::Wish, reason);
        told.restarts.push(Step { notes, ..step });
    }
    told
}

/// Who comes first: keys are made before the network reads that it needs them, interfaces and rules are there before services
/// start that bind to them.
fn rank(tell: &Tell) -> usize {
    match tell {
        Tell::DaemonReload => 0,
        Tell::Stop { .. } => 1,
        Tell::Restart { unit } if unit == IDENTITY_UNIT => 2,
        Tell::Reload { .. } => 3,
        Tell::Restart { .. } => 4,
        Tell::Settings { .. } => 5,
    }
}

/// The same on the way back, where what was stopped starts again.
pub(crate) fn rank_back(tell: &Tell) -> usize {
    match tell {
        Tell::Stop { unit } => rank(&Tell::Restart { unit: unit.clone() }),
        other => rank(other),
    }
}

fn step(tell: &Tell, cause: Cause, reason: String) -> Step {
    let (name, summary, interrupts) = match tell {
        Tell::DaemonReload => ("systemd", "reads its units again", None),
        Tell::Restart { unit } => (unit.as_str(), "starts again", Some(Interruption::Restart)),
        Tell::Reload { unit } => (unit.as_str(), "reads its configuration again", Some(Interruption::Reload)),
        Tell::Stop { unit } => (unit.as_str(), "stops", Some(Interruption::Stop)),
        Tell::Settings { .. } => ("kernel", "has its settings again", None),
    };
    Step {
        kind: KIND.to_owned(),
        name: name.to_owned(),
        action: Action::Change,
        cause,
        summary: summary.to_owned(),
        interrupts,
        notes: Vec::new(),
        because: Because { layer: "services".to_owned(), line: None, reason },
        change: to_value(tell),
    }
}

/// `webapp.service` of `webapp.service` and of `webapp.service.d/10-x.conf`, in a directory of units.
pub(crate) fn unit_of(path: &str) -> Option<String> {
    let first = path.split('/').next()?;
    if let Some(container) = first.strip_suffix(".container") {
        return Some(format!("{container}.service"));
    }
    Some(first.strip_suffix(".d").unwrap_or(first).to_owned())
}

/// The unit that a file is of, when it is a file of a unit.
pub(crate) fn unit_of_file(path: &str) -> Option<String> {
    UNITS.iter().find_map(|dir| unit_of(path.strip_prefix(dir)?))
}

/// Units that run and whose own files go, with these.
fn leaving(
    host: &dyn Host,
    services: &BTreeSet<&str>,
    steps: &[Step],
) -> Result<Vec<(String, String)>, HostError> {
    let files = steps.iter().filter(|step| step.kind == "file" && step.action == Action::Remove);
    let own = |path: &str| {
        let name = UNITS.iter().find_map(|dir| path.strip_prefix(dir)).filter(|name| !name.contains('/'))?;
        unit_of(name).filter(|unit| !services.contains(unit.as_str()))
    };
    let gone: Vec<(String, String)> =
        files.filter_map(|step| Some((own(&step.name)?, step.name.clone()))).collect();
    let running = running_of(host, gone.iter().map(|(unit, _)| unit.as_str()).collect())?;
    Ok(gone.into_iter().filter(|(unit, _)| running.contains(unit)).collect())
}

/// Services by the paths that their own files name.
fn readers_of<'a>(wanted: &'a Wanted, services: &BTreeSet<&'a str>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut readers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, file) in &wanted.files {
        let Some(unit) = unit_of_file(path) else { continue };
        let (Some(service), Node::File(bytes)) = (services.get(unit.as_str()), &file.node) else { continue };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, '=' | ':' | '"' | '\''));
        for word in words.filter(|word| word.len() > 1 && word.starts_with('/')) {
            readers.entry(word.trim_end_matches('/')).or_default().insert(*service);
        }
    }
    readers
}

/// A path, and every directory above it.
fn above(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(end, _)| end).filter(|end| *end > 0);
    ends.chain([path.len()]).map(|end| &path[..end])
}

/// Does it. Restarting a unit that does not exist is an error; that is what a proof is for.
pub(crate) fn make(host: &dyn Host, tell: &Tell) -> Result<(), HostError> {
    let systemctl = |words: &[&str]| host.run(&Cmd::new("systemctl").args(words)).map(drop);
    match tell {
        Tell::DaemonReload => systemctl(&["daemon-reload"]),
        Tell::Restart { unit } => systemctl(&["restart", unit]),
        Tell::Reload { unit } => systemctl(&["try-reload-or-restart", unit]),
        Tell::Stop { .. } => stop(host, tell),
        Tell::Settings { values } => put_settings(host, values),
    }
}

/// Stops a unit that did not run before a plan.
pub(crate) fn stop(host: &dyn Host, tell: &Tell) -> Result<(), HostError> {
    let Some(unit) = unit_told(tell) else { return Ok(()) };
    // After an undo that was interrupted its file may be gone, and then there is nothing to stop, unless it still runs.
    let seen = unit_properties(host, &[unit], "LoadState,ActiveState")?;
    let is =
        |name: &str, value: &str| seen.get(unit).and_then(|of| of.get(name)).is_some_and(|of| of == value);
    if !is("LoadState", "not-found") || is("ActiveState", "active") {
        host.run(&Cmd::new("systemctl").args(["stop", unit]))?;
    }
    // One that ends with an error when it is told to end has failed, and would be known for that when its file is long gone.
    host.run(&Cmd::new("systemctl").args(["reset-failed", unit]).accept(1)).map(drop)
}

/// Brings a unit that ran back to how it was before a plan: started again with its old configuration.
pub(crate) fn bring_back(host: &dyn Host, tell: &Tell) -> Result<(), HostError> {
    if matches!(tell, Tell::Settings { .. }) {
        return Ok(());
    }
    let Some(unit) = unit_told(tell) else {
        return host.run(&Cmd::new("systemctl").arg("daemon-reload")).map(drop);
    };
    let reload = matches!(tell, Tell::Reload { .. });
    host.run(&Cmd::new("systemctl").args([if reload { "try-reload-or-restart" } else { "restart" }, unit]))
        .map(drop)
}

fn unit_told(tell: &Tell) -> Option<&str> {
    match tell {
        Tell::DaemonReload | Tell::Settings { .. } => None,
        Tell::Restart { unit } | Tell::Reload { unit } | Tell::Stop { unit } => Some(unit),
    }
}

/// Those that run of the units that are to be told.
pub(crate) fn running(host: &dyn Host, tells: &[Tell]) -> Result<BTreeSet<String>, HostError> {
    running_of(host, tells.iter().filter_map(unit_told).collect())
}

/// Those of these units that run.
fn running_of(host: &dyn Host, units: BTreeSet<&str>) -> Result<BTreeSet<String>, HostError> {
    let found = unit_properties(host, &units.into_iter().collect::<Vec<_>>(), "ActiveState")?;
    let running = found.into_iter().filter(|(_, of)| runs(unit_property(of, "ActiveState")));
    Ok(running.map(|(unit, _)| unit).collect())
}

/// Whether a unit in this `ActiveState` runs, or is about to.
fn runs(state: &str) -> bool {
    matches!(state, "active" | "activating" | "reloading")
}

/// Whether what is told is among those; what is no unit always runs.
pub(crate) fn is_among(running: &BTreeSet<String>, tell: &Tell) -> bool {
    unit_told(tell).is_none_or(|unit| running.contains(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_belongs_to_its_unit() {
        let of = |path: &str| unit_of_file(path);
        assert_eq!(of("/etc/systemd/system/webapp.service").as_deref(), Some("webapp.service"));
        let drop_in = "/etc/systemd/system/postgresql@17-main.service.d/kldload.conf";
        assert_eq!(of(drop_in).as_deref(), Some("postgresql@17-main.service"));
        assert_eq!(of("/etc/containers/systemd/web.container").as_deref(), Some("web.service"));
        assert_eq!(of("/etc/ssh/sshd_config"), None);
    }
}
