//! `systemctl show`: the state of units, as key and value.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Cmd, ParseError};

/// Is there while systemd runs the machine: sd_booted(3).
pub const RUNS: &str = "/run/systemd/system";

const DEADLINE: Duration = Duration::from_secs(10);
/// Asked for by name: all properties of a unit are three hundred and cost systemd a second on a small machine.
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestampMonotonic";

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
    /// When it became active, in seconds since the kernel started; 0 when it never was.
    pub active_since: u64,
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
                "NRestarts" | "ActiveEnterTimestampMonotonic" => {
                    let number: u64 = value.parse().map_err(|_| error(format!("no number in `{line}`")))?;
                    // Microseconds.
                    match key {
                        "NRestarts" => unit.restarts = number,
                        _ => unit.active_since = number / 1_000_000,
                    }
                }
                _ => {}
            }
        }
        units.insert(name.ok_or_else(|| error("a unit without `Id`".to_owned()))?, unit);
    }
    Ok(units)
}

/// How exposed a unit is, as `systemd-analyze security` rates it: 0 is a sealed box, 10 has every right.
pub fn exposure_cmd(unit: &str) -> Cmd {
    Cmd::new("systemd-analyze").args(["security", "--no-pager", "--", unit]).timeout(DEADLINE)
}

/// Rates a unit by its files, whether it is loaded or not; those in the directory `before` win over those in place.
pub fn exposure_of_files_cmd(unit: &str, before: Option<&str>) -> Cmd {
    let cmd = Cmd::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--", unit])
        .timeout(DEADLINE);
    match before {
        // systemd.unit(5): an empty last part stands for the usual directories.
        Some(dir) => cmd.env("SYSTEMD_UNIT_PATH", format!("{}:", dir.trim_end_matches('/'))),
        None => cmd,
    }
}

/// Reads the last line of [`exposure_cmd`] or [`exposure_of_files_cmd`], `→ Overall exposure level for UNIT: 1.2 OK`, in tenths.
///
/// # Errors
/// When there is no such line: systemd does not rate units that it has not loaded.
pub fn parse_exposure(text: &str) -> Result<u8, ParseError> {
    let error = |reason: String| ParseError { tool: "systemd-analyze security", reason };
    let line = text.lines().rev().find(|line| line.contains("Overall exposure level"));
    let line = line.ok_or_else(|| error("no overall exposure level".to_owned()))?;
    let number = line.rsplit(": ").next().and_then(|rest| rest.split_ascii_whitespace().next());
    let (whole, tenth) = number.and_then(|n| n.split_once('.')).unwrap_or_default();
    match (whole.parse::<u8>(), tenth.parse::<u8>()) {
        (Ok(whole @ 0..=10), Ok(tenth @ 0..=9)) => Ok(whole * 10 + tenth),
        _ => Err(error(format!("no number in `{line}`"))),
    }
}

/// Tenths as systemd prints them: `1.2`.
pub fn shown_exposure(tenths: u8) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_services_timers_and_unknown_units() {
        let text = "Result=success\nNRestarts=2\nActiveEnterTimestampMonotonic=61500000\nId=nginx.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\n\
                    Result=success\nId=sanoid.timer\nLoadState=loaded\nActiveState=active\nSubState=waiting\n\n\
                    Id=nope.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n";
        let units = parse_show(text).expect("is what systemctl writes");
        assert_eq!(units.len(), 3);
        let nginx = &units["nginx.service"];
        assert_eq!((nginx.restarts, nginx.active_since, &*nginx.sub), (2, 61, "running"));
        assert_eq!(units["sanoid.timer"].active, "active");
        assert_eq!(units["nope.service"].load, "not-found");
        for bad in ["ActiveState=active", "Id=a\nrubbish", "Id=a\nNRestarts=x"] {
            assert!(parse_show(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_show(""), Ok(BTreeMap::new()));
    }

    #[test]
    fn reads_the_exposure_of_a_unit() {
        let line =
            |rating| format!("  NAME\n✓ User=\n\n→ Overall exposure level for a@b.service: {rating} 🙂\n");
        for (rating, tenths) in [("0.0 SAFE", 0), ("1.2 OK", 12), ("9.6 UNSAFE", 96), ("10.0 DANGEROUS", 100)]
        {
            assert_eq!(parse_exposure(&line(rating)), Ok(tenths), "{rating}");
        }
        for bad in ["", "Overall exposure level for a: OK", &line("11.0 OK"), &line("1,2 OK")] {
            assert!(parse_exposure(bad).is_err(), "{bad}");
        }
    }
}
