//! `systemctl show`: the state of units, as key and value.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Cmd, ParseError, ToolError};

const DEADLINE: Duration = Duration::from_secs(10);
/// Asked for by name: all properties of a unit are three hundred and cost systemd a second on a small machine.
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,NRestarts";

/// The state of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked` …
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating` …
    pub active: String,
    /// `running`, `exited`, `dead`, `waiting` …
    pub sub: String,
    /// Of the last run: `success`, `exit-code`, `timeout` …; empty for units that do not run.
    pub result: String,
    /// Automatic restarts since it was started.
    pub restarts: u64,
}

/// The state of these units. An unknown unit is an answer too (`LoadState=not-found`).
pub fn show_cmd(units: &[&str]) -> Cmd {
    Cmd::new("systemctl").args(["show", "--property", PROPERTIES, "--"]).args(units).timeout(DEADLINE)
}

/// Reads the output of [`show_cmd`]: blocks of `Key=value`, an empty line between units.
///
/// # Errors
/// When a block has no `Id`, or a line no `=`.
pub fn parse_show(text: &str) -> Result<BTreeMap<String, UnitState>, ParseError> {
    let error = |reason: String| ParseError { tool: "systemctl show", reason };
    let mut units = BTreeMap::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let (mut name, mut unit) = (None, UnitState::default());
        for line in block.lines() {
            let (key, value) = line.split_once('=').ok_or_else(|| error(format!("no `=` in `{line}`")))?;
            match key {
                "Id" => name = Some(value.to_owned()),
                "LoadState" => value.clone_into(&mut unit.load),
                "ActiveState" => value.clone_into(&mut unit.active),
                "SubState" => value.clone_into(&mut unit.sub),
                "Result" => value.clone_into(&mut unit.result),
                "NRestarts" => {
                    unit.restarts = value.parse().map_err(|_| error(format!("no number in `{line}`")))?
                }
                _ => {}
            }
        }
        units.insert(name.ok_or_else(|| error("a unit without `Id`".to_owned()))?, unit);
    }
    Ok(units)
}

/// What a node asks of systemd.
pub trait Systemd {
    /// The state of these units, by their full names (`nginx.service`).
    ///
    /// # Errors
    /// When systemd does not answer.
    fn show(&self, units: &[&str]) -> Result<BTreeMap<String, UnitState>, ToolError>;
}

/// The real `systemctl`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealSystemd;

impl Systemd for RealSystemd {
    fn show(&self, units: &[&str]) -> Result<BTreeMap<String, UnitState>, ToolError> {
        Ok(parse_show(&show_cmd(units).stdout_string()?)?)
    }
}

/// Units in memory; others are `not-found`.
#[derive(Debug, Default)]
pub struct FakeSystemd {
    /// The units by name.
    pub units: Mutex<BTreeMap<String, UnitState>>,
}

impl Systemd for FakeSystemd {
    fn show(&self, units: &[&str]) -> Result<BTreeMap<String, UnitState>, ToolError> {
        let known = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || UnitState {
            load: "not-found".to_owned(),
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
            ..UnitState::default()
        };
        let state = |&name: &&str| (name.to_owned(), known.get(name).cloned().unwrap_or_else(unknown));
        Ok(units.iter().map(state).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_services_timers_and_unknown_units() {
        let text = "Result=success\nNRestarts=2\nId=nginx.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\n\
                    Result=success\nId=sanoid.timer\nLoadState=loaded\nActiveState=active\nSubState=waiting\n\n\
                    Id=nope.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n";
        let units = parse_show(text).expect("is what systemctl writes");
        assert_eq!(units.len(), 3);
        assert_eq!((units["nginx.service"].restarts, &*units["nginx.service"].sub), (2, "running"));
        assert_eq!(units["sanoid.timer"].active, "active");
        let unknown = FakeSystemd::default().show(&["nope.service"]).expect("the fake answers");
        assert_eq!(unknown["nope.service"], units["nope.service"]);
        for bad in ["ActiveState=active", "Id=a\nrubbish", "Id=a\nNRestarts=x"] {
            assert!(parse_show(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_show(""), Ok(BTreeMap::new()));
    }
}
