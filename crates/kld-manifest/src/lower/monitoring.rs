//! `monitoring` → alerts.

use std::net::IpAddr;
use std::time::Duration;

use super::fields::{Fields, impossible, items, no_deeper_lines};
use crate::diagnostic::Reporter;
use crate::keys::{ALERT, MONITORING};
use crate::model::{Alert, AlertCondition, Monitoring, Severity};
use crate::names::UnitName;
use crate::nearest::did_you_mean;
use crate::syntax::Node;
use crate::text::Text;
use crate::values::{Wrong, parse_duration, parse_integer};

const FORMS: &str = "write `pool DEGRADED`, `NAME down >1m`, `any service down`, `disk usage >80%` or \
                     `replication lag >90 minutes`, then `: page` or `: warn`";

/// The units an alert may name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Units<'u> {
    pub(super) known: &'u [UnitName],
    /// Some are still to be filled in, so an unknown one is not an error yet.
    pub(super) incomplete: bool,
}

/// Reads the section.
pub(super) fn lower(node: &Node<'_>, units: Units<'_>, report: &mut Reporter) -> Monitoring {
    let fields = Fields::of(&MONITORING, node, report);
    let mut monitoring = Monitoring::default();
    if let Some(alerts) = fields.node("alerts") {
        super::fields::no_value(alerts, report);
        for item in items(alerts, report) {
            monitoring.alerts.extend(alert(item, units, report));
        }
    }
    for word in fields.list("prometheus", report) {
        match word.as_str().parse::<IpAddr>() {
            Ok(address) => monitoring.prometheus.push(word.with(address)),
            Err(_) => {
                let wrong = Wrong::because("it is not an IP address").hint("for example `10.8.1.9`");
                impossible("prometheus", word, wrong, report);
            }
        }
    }
    monitoring
}

fn alert(item: &Node<'_>, units: Units<'_>, report: &mut Reporter) -> Option<Alert> {
    if item.any_pending() {
        return None;
    }
    let first = item.children.first()?;
    let structured =
        item.children.len() > 1 || first.key.is_some_and(|key| ALERT.key(key.as_str()).is_some());
    if structured { structured_alert(item, units, report) } else { one_line_alert(first, units, report) }
}

/// `gitea down >1m: page immediately`.
fn one_line_alert(line: &Node<'_>, units: Units<'_>, report: &mut Reporter) -> Option<Alert> {
    no_deeper_lines(line, report);
    let Some((condition, action)) = line.key.zip(line.value) else {
        let message = format!("`{}` does not say how loud the alert is", line.text.as_str());
        report.error("alert-not-understood", line.text.span(), message).hint(FORMS);
        return None;
    };
    let severity = severity(action, report);
    let (condition, hold) = condition_of(condition.bare(), units, report)?;
    Some(Alert {
        condition,
        hold,
        severity: severity?,
        text: line.text.as_str().split_whitespace().collect::<Vec<_>>().join(" "),
        span: line.text.span(),
    })
}

fn structured_alert(item: &Node<'_>, units: Units<'_>, report: &mut Reporter) -> Option<Alert> {
    let fields = Fields::of(&ALERT, item, report);
    let kinds: Vec<&str> =
        ["metric", "condition", "expr"].into_iter().filter(|kind| fields.has(kind)).collect();
    let severity_key = if kinds == ["metric"] { "action" } else { "severity" };
    let span = item.text.span();
    let [kind] = kinds.as_slice() else {
        // An unknown key is already reported and may be the one that is missing.
        if kinds.len() > 1
            || item.children.iter().all(|line| line.key.is_some_and(|k| ALERT.key(k.as_str()).is_some()))
        {
            report
                .error("alert-not-understood", span, "an alert has one of `metric`, `condition` and `expr`")
                .hint("for example `metric: pool_health != ONLINE` with `action: page`");
        }
        return None;
    };
    let mut allowed = vec![*kind, severity_key, "for"];
    let chosen = fields.text("condition", report).map(|condition| condition.bare().as_str());
    match chosen {
        Some("service_down") => allowed.push("unit"),
        Some("disk_usage") => allowed.push("percent"),
        Some("replication_lag") => allowed.push("minutes"),
        _ => {}
    }
    if chosen.is_some() || *kind != "condition" {
        for (key, node) in fields.entries().filter(|(key, _)| !allowed.contains(&key.name)) {
            report
                .error(
                    "alert-not-understood",
                    node.span(),
                    format!("`{}` does not go with this alert", key.name),
                )
                .hint(format!("it takes {}", crate::keys::all_of(&allowed)));
        }
    }
    let severity = match fields.text(severity_key, report) {
        Some(action) => severity(action, report),
        None => {
            if !fields.has(severity_key) {
                report
                    .error("missing-key", span, format!("`{severity_key}` is missing here"))
                    .hint(format!("write `{severity_key}: page` or `{severity_key}: warn`"));
            }
            None
        }
    };
    let written_hold = fields.duration("for", report).map(|hold| hold.value);
    let (condition, hold) = match *kind {
        "metric" => condition_of(fields.text("metric", report)?.bare(), units, report)?,
        "expr" => (AlertCondition::Expression(fields.string("expr", report)?.value), Duration::ZERO),
        _ => (chosen_condition(chosen?, &fields, units, report)?, Duration::ZERO),
    };
    let text = item.children.iter().find(|line| line.key.is_some_and(|key| key.as_str() == *kind));
    let text = text.and_then(|line| line.value).map(|value| value.as_str().to_owned()).unwrap_or_default();
    Some(Alert { condition, hold: written_hold.unwrap_or(hold), severity: severity?, text, span })
}

fn chosen_condition(
    name: &str,
    fields: &Fields<'_>,
    units: Units<'_>,
    report: &mut Reporter,
) -> Option<AlertCondition> {
    let mut needed = |key: &str| {
        let number = fields.integer::<u32>(key, report);
        if !fields.has(key) {
            report.error("missing-key", fields.owner(), format!("`{key}` is missing here"));
        }
        number.map(|number| number.value)
    };
    Some(match name {
        "pool_not_online" => AlertCondition::PoolNotOnline,
        "replication_lag" => AlertCondition::ReplicationLag { minutes: needed("minutes")? },
        "disk_usage" => AlertCondition::DiskUsage { percent: u8::try_from(needed("percent")?).ok()? },
        _ => match fields.text("unit", report) {
            Some(unit) => AlertCondition::ServiceDown { unit: Some(known_unit(unit.bare(), units, report)?) },
            None => AlertCondition::ServiceDown { unit: None },
        },
    })
}

/// `page immediately`, `warn 24h before action required`: the first word counts.
fn severity(action: Text<'_>, report: &mut Reporter) -> Option<Severity> {
    let first = action.bare().words().into_iter().next()?;
    match first.as_str().trim_end_matches(',') {
        "page" => Some(Severity::Page),
        "warn" => Some(Severity::Warn),
        other => {
            report
                .error(
                    "alert-not-understood",
                    first.span(),
                    format!("`{other}` is not something an alert can do"),
                )
                .hint(
                    did_you_mean(other, ["page", "warn"])
                        .unwrap_or_else(|| "write `page` or `warn`".to_owned()),
                );
            None
        }
    }
}

/// What a line says must hold, and for how long.
fn condition_of(
    text: Text<'_>,
    units: Units<'_>,
    report: &mut Reporter,
) -> Option<(AlertCondition, Duration)> {
    match read_condition(text, units, report) {
        Ok(read) => read,
        Err(wrong) => {
            let message = format!("`{}` is not understood: {}", text.as_str(), wrong.reason);
            report.error("alert-not-understood", text.span(), message).maybe_hint(wrong.hint);
            None
        }
    }
}

/// `Ok(None)` when what is wrong has been reported.
fn read_condition(
    text: Text<'_>,
    units: Units<'_>,
    report: &mut Reporter,
) -> Result<Option<(AlertCondition, Duration)>, Wrong> {
    let wrong = |reason: &str| Wrong::because(reason).hint(FORMS);
    let (subject, limit) = match text.split_once(">") {
        Some((subject, limit)) => (subject, Some(limit.as_str())),
        None => (text, None),
    };
    let words = subject.words();
    let plain: Vec<String> = words.iter().map(|word| word.as_str().to_lowercase()).collect();
    let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
    let at_once = |condition| Ok(Some((condition, Duration::ZERO)));
    match (plain.as_slice(), limit) {
        (["pool", "degraded"] | ["pool_health", "!=", "online"], None) => {
            at_once(AlertCondition::PoolNotOnline)
        }
        (["service_up", "==", "0"], None) => at_once(AlertCondition::ServiceDown { unit: None }),
        (["replication_lag_minutes"], Some(limit)) => {
            at_once(AlertCondition::ReplicationLag { minutes: minutes(parse_integer(limit, 1, 525_600)?) })
        }
        (["replication", "lag"], Some(limit)) => {
            let lag = parse_duration(limit)?.as_secs();
            if lag < 60 || !lag.is_multiple_of(60) {
                return Err(wrong("the lag is measured in whole minutes"));
            }
            at_once(AlertCondition::ReplicationLag { minutes: minutes(lag / 60) })
        }
        (["disk_usage_percent"], Some(limit)) => at_once(disk_usage(limit)?),
        (["disk", "usage"], Some(limit)) => match limit.strip_suffix('%') {
            Some(percent) => at_once(disk_usage(percent.trim())?),
            None => Err(wrong("disk usage is compared with a percentage")),
        },
        ([.., "down"], limit) => {
            let hold = limit.map_or(Ok(Duration::ZERO), parse_duration)?;
            let unit = match (&plain[..plain.len() - 1], words.as_slice()) {
                (["any", "service"], _) => None,
                ([_], [unit, _]) => match known_unit(*unit, units, report) {
                    Some(unit) => Some(unit),
                    None => return Ok(None),
                },
                _ => return Err(wrong("one service, or `any service`, stands before `down`")),
            };
            Ok(Some((AlertCondition::ServiceDown { unit }, hold)))
        }
        _ => Err(wrong("no such condition is watched")),
    }
}

fn minutes(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn disk_usage(percent: &str) -> Result<AlertCondition, Wrong> {
    let percent = parse_integer(percent, 1, 99)
        .map_err(|_| Wrong::because("a percentage is a whole number from 1 to 99"))?;
    Ok(AlertCondition::DiskUsage { percent: u8::try_from(percent).unwrap_or(99) })
}

/// `gitea` or `gitea.service` → the unit of the manifest.
fn known_unit(word: Text<'_>, units: Units<'_>, report: &mut Reporter) -> Option<UnitName> {
    let written = word.as_str();
    let full = if written.ends_with(".service") { written.to_owned() } else { format!("{written}.service") };
    if let Some(unit) = units.known.iter().find(|unit| unit.as_str() == full) {
        return Some(unit.clone());
    }
    if !units.incomplete {
        let stems: Vec<&str> =
            units.known.iter().map(|unit| unit.as_str().trim_end_matches(".service")).collect();
        let hint = did_you_mean(written, stems.iter().copied()).unwrap_or_else(|| {
            if stems.is_empty() {
                "describe it under `services:`".to_owned()
            } else {
                format!("the services are {}", crate::keys::all_of(&stems))
            }
        });
        report
            .error(
                "unknown-service",
                word.span(),
                format!("no service `{written}` is described in this manifest"),
            )
            .hint(hint);
    }
    None
}
