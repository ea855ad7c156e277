//! `snapshot_policy` and `replication_policy`.

use std::net::IpAddr;

use super::fields::{Fields, impossible, parse_name};
use super::network::plane_number;
use super::schedule::{parse_schedule, parse_weekly};
use crate::diagnostic::Reporter;
use crate::keys::{REPLICATION, SCHEDULE, SNAPSHOTS, TARGET};
use crate::model::{Replication, ReplicationHost, Schedule, SnapshotPolicy};
use crate::names::{DatasetName, HostName, InterfaceName, UserName};
use crate::span::{Span, Spanned};
use crate::syntax::Node;
use crate::text::Text;
use crate::values::Wrong;

/// What a manifest without the section means: sanoid's own `template_production` (sanoid.conf of sanoid 2.2).
pub(super) fn default_snapshots() -> SnapshotPolicy {
    SnapshotPolicy {
        template: "production".to_owned(),
        frequent_period_minutes: 15,
        frequently: 0,
        hourly: 36,
        daily: 30,
        weekly: 0,
        monthly: 3,
        yearly: 0,
        span: Span::DEFAULT,
    }
}

/// The policy; `None` for `snapshot_policy: none`.
pub(super) fn lower_snapshots(node: &Node<'_>, report: &mut Reporter) -> Option<SnapshotPolicy> {
    if node.value.is_some_and(|value| value.as_str() == "none") {
        super::fields::no_deeper_lines(node, report);
        return None;
    }
    let fields = Fields::of(&SNAPSHOTS, node, report);
    let mut number = |name: &str| fields.integer::<u32>(name, report).map(|number| number.value);
    let written_period = number("frequent_period");
    let period = written_period.unwrap_or(15).max(1);
    let frequently = number("frequently").unwrap_or(if written_period.is_some() { 60 / period } else { 0 });
    let mut count = |name: &str| number(name).unwrap_or(0);
    let (hourly, daily, weekly) = (count("hourly"), count("daily"), count("weekly"));
    let (monthly, yearly) = (count("monthly"), count("yearly"));
    let template = fields.string("template", report).map_or_else(|| "production".to_owned(), |t| t.value);
    Some(SnapshotPolicy {
        template,
        frequent_period_minutes: period,
        frequently,
        hourly,
        daily,
        weekly,
        monthly,
        yearly,
        span: node.span(),
    })
}

/// The replication, and whether the text promises encryption at rest (with its place).
pub(super) fn lower_replication(
    node: &Node<'_>,
    report: &mut Reporter,
) -> (Option<Replication>, Option<Span>) {
    let fields = Fields::of(&REPLICATION, node, report);
    let at_rest = fields.string("encryption", report).filter(|text| {
        let text = text.value.to_lowercase();
        text.contains("at-rest") || text.contains("at rest")
    });
    let plane = transport(&fields, report);
    let schedule = fields.node("schedule").and_then(|node| schedule(node, report));
    let target = fields.node("target").and_then(|node| target(node, report));
    let place = fields.node("target").map(|node| node.value.map_or(node.span(), Text::span));
    let span = place.unwrap_or(node.span());
    let replication = target.zip(schedule).zip(plane).map(|(((user, host, dataset), schedule), plane)| {
        Replication { user, host, dataset, schedule, plane, span }
    });
    (replication, at_rest.map(|text| text.span))
}

/// The plane named in the text; wg2 when there is none.
fn transport(fields: &Fields<'_>, report: &mut Reporter) -> Option<Spanned<InterfaceName>> {
    let wg2 = || Spanned::default_value("wg2".parse().expect("`wg2` is an interface name"));
    if !fields.has("transport") {
        return Some(wg2());
    }
    let text = fields.text("transport", report)?.bare();
    let bare = |word: Text<'_>| word.as_str().trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    let mut planes: Vec<Text<'_>> =
        text.words().into_iter().filter(|word| plane_number(&bare(*word)).is_some()).collect();
    planes.dedup_by_key(|word| bare(*word));
    match planes.as_slice() {
        [plane] => parse_name::<InterfaceName>(trimmed(*plane), report),
        [] => {
            report
                .error("replication-over-public", text.span(), format!("`{}` names no plane", text.as_str()))
                .hint("replication travels over a WireGuard plane: write `transport: wg2`");
            None
        }
        [_, second, ..] => {
            report
                .error("transport-twice", second.span(), "replication travels over one plane")
                .hint("name one plane");
            None
        }
    }
}

/// The word without punctuation around it.
fn trimmed(word: Text<'_>) -> Text<'_> {
    let text = word.as_str();
    let start = text.len() - text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).len();
    let end = text.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
    word.slice(start, end.max(start))
}

fn schedule(node: &Node<'_>, report: &mut Reporter) -> Option<Spanned<Schedule>> {
    let parsed = |text: Text<'_>, result: Result<Schedule, Wrong>, report: &mut Reporter| match result {
        Ok(schedule) => Some(text.with(schedule)),
        Err(wrong) => {
            report
                .error(
                    "schedule-not-understood",
                    text.span(),
                    format!("`{}` is not understood: {}", text.as_str(), wrong.reason),
                )
                .maybe_hint(wrong.hint);
            None
        }
    };
    if let Some(value) = node.value {
        super::fields::no_deeper_lines(node, report);
        let value = value.bare();
        return parsed(value, parse_schedule(value.as_str()), report);
    }
    let fields = Fields::of(&SCHEDULE, node, report);
    let mut entries = fields.entries();
    let (first, second) = (entries.next(), entries.next());
    let Some((key, entry)) = first else {
        if !node.any_pending() && node.children.is_empty() {
            report
                .error("missing-value", node.span(), "`schedule` has no value")
                .hint("for example `schedule: nightly at 02:00`");
        }
        return None;
    };
    if let Some((other, again)) = second {
        report
            .error("schedule-twice", again.span(), format!("`{}` stands beside `{}`", other.name, key.name))
            .hint("write one of them");
        return None;
    }
    match key.name {
        "every_minutes" => {
            let minutes = fields.integer::<u32>(key.name, report)?;
            Some(Spanned::new(Schedule::EveryMinutes(minutes.value), minutes.span))
        }
        "hourly" => {
            let minute = fields.integer::<u8>(key.name, report)?;
            Some(Spanned::new(Schedule::Hourly { minute: minute.value }, minute.span))
        }
        "daily" => {
            let text = fields.text(key.name, report)?.bare();
            let clock = super::schedule::parse_clock(text.as_str());
            parsed(text, clock.map(|(hour, minute)| Schedule::Daily { hour, minute }), report)
        }
        _ => {
            let text = fields.text(key.name, report)?.bare();
            debug_assert_eq!(entry.key.map(Text::as_str), Some("weekly"));
            parsed(text, parse_weekly(text.as_str()), report)
        }
    }
}

type Target = (UserName, ReplicationHost, DatasetName);

fn target(node: &Node<'_>, report: &mut Reporter) -> Option<Target> {
    if let Some(value) = node.value {
        super::fields::no_deeper_lines(node, report);
        let value = value.bare();
        let parts = value.split_once("@").and_then(|(user, rest)| {
            // `[2001:db8::1]:tank/x`: the brackets keep the address's colons apart.
            let (host, dataset) = match rest.as_str().find("]:") {
                Some(at) => (rest.slice(0, at + 1), rest.from(at + 2)),
                None => rest.split_once(":")?,
            };
            Some((user, host, dataset))
        });
        let Some((user, host, dataset)) = parts else {
            report
                .error(
                    "target-not-understood",
                    value.span(),
                    format!("`{}` is not `user@host:pool/dataset`", value.as_str()),
                )
                .hint("for example `backup@10.8.2.9:tank/web`");
            return None;
        };
        let user = parse_name::<UserName>(user, report);
        let host = replication_host(host, report);
        let dataset = parse_name::<DatasetName>(dataset, report);
        return Some((user?.value, host?, dataset?.value));
    }
    let fields = Fields::of(&TARGET, node, report);
    let user = fields.parsed::<UserName>("user", report);
    let host = fields.text("host", report).and_then(|host| replication_host(host.bare(), report));
    let dataset = fields.parsed::<DatasetName>("dataset", report);
    Some((user?.value, host?, dataset?.value))
}

fn replication_host(host: Text<'_>, report: &mut Reporter) -> Option<ReplicationHost> {
    let plain = host.as_str().trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = plain.parse::<IpAddr>() {
        return Some(ReplicationHost::Address(address));
    }
    if !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let wrong = Wrong::because("it is neither an address nor a host name").hint("for example `10.8.2.9`");
        impossible("host", host, wrong, report);
        return None;
    }
    parse_name::<HostName>(host, report).map(|host| ReplicationHost::Name(host.value))
}
