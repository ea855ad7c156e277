//! Whether units start by themselves.

use std::collections::{BTreeMap, BTreeSet};

use kld_host::Cmd;
use kld_system::{Enablement, RECOVERY_UNIT};
use serde::{Deserialize, Serialize};

use super::{Found, Kind, Refusal, WayBack, to_value};
use crate::history::Store;
use crate::host::{Host, HostError};
use crate::plan::{Action, Because, Cause, Left, Step, key};
use crate::services::UNIT_FILES;
use crate::wanted::Wanted;

pub(super) struct Unit;

/// A unit and the state it is to be in, as `systemctl is-enabled` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    unit: String,
    state: String,
    /// It is in the manifest no more, and its file goes: before that, or nobody knows its links.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    leaves: bool,
}

/// The state it was in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    state: String,
}

impl Kind for Unit {
    type Change = Change;
    type Memory = Memory;
    const NAME: &'static str = "unit";

    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        earlier: &[Step],
    ) -> Result<Found, Refusal> {
        let seen = look(host, wanted).map_err(|error| Refusal::Look("the units", error))?;
        let packages_come = earlier.iter().any(|step| step.kind == "package");
        let mut found = Found::default();
        // Switched off after everything is switched on: `Also=` of one unit switches others on.
        let mut units: Vec<_> = wanted.system.units.iter().collect();
        units.sort_by_key(|unit| unit.state != Enablement::Enabled);
        for unit in units {
            let name = unit.unit.to_string();
            found.items.insert(name.clone(), unit.state.to_string());
            let state = seen.get(&name).map_or("", |unit| property(unit, "UnitFileState"));
            // Packages that come switch their units on.
            let may_come = state.is_empty() && packages_come;
            let is_as_wanted = is_as_wanted(unit.state, state);
            if is_as_wanted && !(may_come && unit.state == Enablement::Disabled) {
                continue;
            }
            found.steps.push(switch(name, unit.state, Because::from(&unit.because), false));
        }
        leaving(host, before, earlier, &mut found).map_err(|error| Refusal::Look("the units", error))?;
        Ok(found)
    }

    fn remember(&self, host: &dyn Host, _store: &Store<'_>, change: &Change) -> Result<Memory, HostError> {
        let mut states = states(host, &[&change.unit])?;
        Ok(Memory { state: states.remove(&change.unit).unwrap_or_default() })
    }

    fn make(&self, host: &dyn Host, _store: &Store<'_>, change: &Change) -> Result<(), HostError> {
        let states = states(host, &[&change.unit])?;
        match (states.get(&change.unit).map_or("", String::as_str), change.state.as_str()) {
            ("", "disabled") => return Ok(()),
            // By hand.
            ("masked", "enabled") => {
                drop(host.run(&Cmd::new("systemctl").args(["unmask", "--quiet", &change.unit]))?);
            }
            _ => {}
        }
        set(host, &change.unit, &change.state)
    }

    fn undo(
        &self,
        host: &dyn Host,
        _store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        let states = states(host, &[&change.unit])?;
        let now = states.get(&change.unit).map_or("", String::as_str);
        if now == "masked" && memory.state != "masked" {
            host.run(&Cmd::new("systemctl").args(["unmask", &change.unit]))?;
        }
        match memory.state.as_str() {
            // Its file came back a moment ago, and systemd has not heard of it.
            "enabled" if now.is_empty() && host.entry(&own_file(&change.unit))?.is_some() => {
                host.run(&Cmd::new("systemctl").arg("daemon-reload"))?;
                set(host, &change.unit, "enabled")
            }
            // Going back may be interrupted and done once more, or somebody has taken the unit away since: nothing can be switched on,
            // and of what was there only links are left, which go before systemd says that it knows no such unit.
            "enabled" if now.is_empty() => Ok(()),
            state @ ("enabled" | "masked") => set(host, &change.unit, state),
            _ if change.state == "enabled" && now.is_empty() => {
                host.run(&set_cmd(&change.unit, "disabled").accept(1)).map(drop)
            }
            _ if change.state == "enabled" => set(host, &change.unit, "disabled"),
            _ => Ok(()),
        }
    }

    fn way_back(&self, _store: &Store<'_>, change: &Change, memory: &Memory) -> Result<WayBack, HostError> {
        Ok(match (memory.state.as_str(), change.state.as_str()) {
            ("enabled", _) => WayBack::Goes(Action::Add, "starts by itself".to_owned()),
            ("masked", _) => WayBack::Goes(Action::Change, "cannot be started".to_owned()),
            (_, "enabled") => WayBack::Goes(Action::Change, "no longer starts by itself".to_owned()),
            (_, "masked") => WayBack::Goes(Action::Change, "can be started".to_owned()),
            _ => WayBack::Nothing,
        })
    }

    fn changed(
        &self,
        host: &dyn Host,
        _store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<Option<String>, HostError> {
        let states = states(host, &[&change.unit])?;
        let now = states.get(&change.unit).map_or("", String::as_str);
        let left = Enablement::ALL.into_iter().find(|state| state.to_string() == change.state);
        let is_as_left = left.is_none_or(|left| is_as_wanted(left, now));
        Ok((!is_as_left && now != memory.state).then(|| match now {
            "" => "it is gone since".to_owned(),
            now => format!("{now} by hand since"),
        }))
    }

    fn redo(
        &self,
        host: &dyn Host,
        _store: &Store<'_>,
        _of: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        let states = states(host, &[&change.unit])?;
        let now = states.get(&change.unit).map_or("", String::as_str);
        if now == memory.state {
            return Ok(());
        }
        if now == "masked" {
            host.run(&Cmd::new("systemctl").args(["unmask", &change.unit]))?;
        }
        match memory.state.as_str() {
            state @ ("enabled" | "masked") => set(host, &change.unit, state),
            _ if now == "enabled" => set(host, &change.unit, "disabled"),
            _ => Ok(()),
        }
    }

    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError> {
        let names: Vec<&str> = items.iter().map(|(name, _)| *name).collect();
        let states = states(host, &names)?;
        let is_as_wanted = |(name, wanted): &&(&str, &str)| {
            let wanted = Enablement::ALL.into_iter().find(|state| state.to_string() == *wanted);
            wanted.is_none_or(|wanted| is_as_wanted(wanted, states.get(*name).map_or("", String::as_str)))
        };
        let drifted = items.iter().filter(|item| !is_as_wanted(item));
        Ok(drifted.map(|(name, _)| (*name).to_owned()).collect())
    }
}

/// Units that started by themselves and are in the manifest no more. What goes with its file is switched off; a package's unit is left
/// as the package is.
fn leaving(
    host: &dyn Host,
    before: &BTreeMap<String, String>,
    earlier: &[Step],
    found: &mut Found,
) -> Result<(), HostError> {
    let gone = super::gone(Unit::NAME, before, &found.items);
    let gone: Vec<&str> =
        gone.filter(|unit| before[&key(Unit::NAME, unit)] == Enablement::Enabled.to_string()).collect();
    let states = states(host, &gone)?;
    for unit in gone.into_iter().filter(|unit| states.get(*unit).is_some_and(|state| state == "enabled")) {
        let name = unit.to_owned();
        let file = own_file(unit);
        let file = earlier.iter().find(|step| step.action == Action::Remove && step.name == file);
        match file {
            Some(file) => {
                found.steps.push(switch(name, Enablement::Disabled, file.because.clone(), true));
            }
            None => found.left.push(Left {
                kind: Unit::NAME.to_owned(),
                remove_with: format!("systemctl disable --now {name}"),
                name,
            }),
        }
    }
    Ok(())
}

fn switch(unit: String, state: Enablement, because: Because, leaves: bool) -> Step {
    let (action, summary) = match state {
        Enablement::Enabled => (Action::Add, "starts by itself"),
        Enablement::Disabled => (Action::Change, "no longer starts by itself"),
        Enablement::Masked => (Action::Change, "cannot be started"),
    };
    Step {
        kind: Unit::NAME.to_owned(),
        name: unit.clone(),
        action,
        cause: Cause::Wish,
        summary: summary.to_owned(),
        interrupts: None,
        notes: Vec::new(),
        because,
        change: to_value(&Change { unit, state: state.to_string(), leaves }),
    }
}

/// Whether a step switches a unit off whose file goes.
pub(crate) fn leaves(step: &Step) -> bool {
    step.kind == Unit::NAME && super::from_value::<Change>(&step.change).is_ok_and(|change| change.leaves)
}

/// Whether a step is for the unit that undoes what was interrupted, or for its file.
pub(crate) fn recovers(step: &Step) -> bool {
    match step.kind.as_str() {
        Unit::NAME => step.name == RECOVERY_UNIT,
        _ => super::file::is_file(step) && step.name == own_file(RECOVERY_UNIT),
    }
}

fn own_file(unit: &str) -> String {
    format!("{UNIT_FILES}{unit}")
}

fn set(host: &dyn Host, unit: &str, state: &str) -> Result<(), HostError> {
    host.run(&set_cmd(unit, state)).map(drop)
}

fn set_cmd(unit: &str, state: &str) -> Cmd {
    let verb = match state {
        "enabled" => "enable",
        "masked" => "mask",
        _ => "disable",
    };
    Cmd::new("systemctl").args([verb, "--quiet", unit])
}

/// Units that cannot be switched on, because nothing says what that would mean, are as good as switched on.
fn is_as_wanted(wanted: Enablement, state: &str) -> bool {
    match wanted {
        Enablement::Enabled => {
            matches!(state, "enabled" | "enabled-runtime" | "static" | "alias" | "generated" | "indirect")
        }
        // A unit that is not there does not start.
        Enablement::Disabled => !matches!(state, "enabled" | "enabled-runtime"),
        Enablement::Masked => state == "masked",
    }
}

/// All that a plan asks about the units and services of a manifest: one question, whoever asks it.
pub(crate) fn look(host: &dyn Host, wanted: &Wanted) -> Result<Units, HostError> {
    let units = wanted.system.units.iter().map(|unit| unit.unit.as_str());
    let names: BTreeSet<&str> = units.chain(wanted.services()).collect();
    properties(host, &names.into_iter().collect::<Vec<_>>(), "LoadState,ActiveState,UnitFileState")
}

/// A property of a unit, or nothing.
pub(crate) fn property<'a>(unit: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    unit.get(name).map_or("", String::as_str)
}

/// Properties of units, by unit and name.
pub(crate) type Units = BTreeMap<String, BTreeMap<String, String>>;

/// `UnitFileState` of units, in one process.
fn states(host: &dyn Host, units: &[&str]) -> Result<BTreeMap<String, String>, HostError> {
    let properties = properties(host, units, "UnitFileState")?;
    Ok(properties
        .into_iter()
        .map(|(unit, mut found)| (unit, found.remove("UnitFileState").unwrap_or_default()))
        .collect())
}

/// Some properties of units, by the names that were asked for.
pub(crate) fn properties(host: &dyn Host, units: &[&str], names: &str) -> Result<Units, HostError> {
    let mut seen = Units::new();
    for units in kld_host::batches(units) {
        let cmd =
            Cmd::new("systemctl").args(["show", "--property", &format!("Id,{names}"), "--"]).args(units);
        let text = host.text(&cmd)?;
        // One block for each unit, in the order in which they were asked for; an alias answers with its real name.
        let blocks = text.split("\n\n").map(|block| {
            block
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect()
        });
        seen.extend(units.iter().map(|unit| (*unit).to_owned()).zip(blocks));
    }
    Ok(seen)
}
