//! `network_topology` and `outbound` → zones and outbound rules.

use super::fields::{Fields, items, map_entries, no_deeper_lines, parse_name};
use super::rules::{Direction, Rule, networks, parse_rate, ports, read_rules};
use crate::diagnostic::Reporter;
use crate::keys::{ALLOW, OUTBOUND_RULE, ZONE};
use crate::model::{Allow, Outbound, OutboundRule, PortRange, Protocol, Zone, ZoneKind};
use crate::names::{InterfaceName, UserName};
use crate::span::Spanned;
use crate::syntax::Node;
use crate::text::Text;

/// The number of a plane: `wg2` → 2.
pub(crate) fn plane_number(interface: &str) -> Option<u8> {
    let digits = interface.strip_prefix("wg")?;
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The zones, in the order written.
pub(super) fn lower_zones(node: &Node<'_>, report: &mut Reporter) -> Vec<Zone> {
    let mut zones: Vec<Zone> = Vec::new();
    for (key, entry) in map_entries(node, "interfaces", report) {
        let Some(interface) = parse_name::<InterfaceName>(key, report) else { continue };
        if let Some(first) = zones.iter().find(|zone| zone.interface.value == interface.value) {
            report
                .error(
                    "duplicate-key",
                    key.span(),
                    format!("the interface `{}` is written twice", key.as_str()),
                )
                .hint("put all of its rules on one line, separated by commas")
                .related(first.interface.span, "first written here");
            continue;
        }
        if key.as_str() == "lo" {
            report
                .error("loopback-zone", key.span(), "`lo` is no zone: the machine always talks to itself")
                .hint("leave the line out; services on loopback say `listens: localhost:PORT`");
            continue;
        }
        if key.as_str().starts_with("wg") && plane_number(key.as_str()).is_none() {
            report
                .error("invalid-name", key.span(), format!("`{}` is not a plane", key.as_str()))
                .hint("planes are `wg0` to `wg255`");
            continue;
        }
        zones.push(zone(interface, entry, report));
    }
    zones
}

fn zone(interface: Spanned<InterfaceName>, entry: &Node<'_>, report: &mut Reporter) -> Zone {
    let kind = if plane_number(interface.as_str()).is_some() { ZoneKind::Plane } else { ZoneKind::Public };
    let mut zone = Zone { interface, kind, allow: Vec::new(), note: None };
    if entry.pending {
        return zone;
    }
    if let Some(line) = entry.value {
        no_deeper_lines(entry, report);
        let (note, rules) = read_rules(line.bare(), Direction::In, report);
        zone.note = note.map(|note| note.with(note.as_str().to_owned()));
        zone.allow = rules.into_iter().map(Rule::into_allow).collect();
    } else {
        let fields = Fields::of(&ZONE, entry, report);
        zone.note = fields.string("note", report);
        if let Some(node) = fields.node("allow") {
            for item in items(node, report) {
                zone.allow.extend(allow(item, report));
            }
        }
    }
    check_openings(&zone.allow, report);
    zone
}

fn allow(item: &Node<'_>, report: &mut Reporter) -> Option<Allow> {
    let fields = Fields::of(&ALLOW, item, report);
    let from = networks(&fields.list("from", report), report);
    let rate = fields.text("rate", report).and_then(|rate| parse_rate(rate.as_str()).ok());
    let purpose = fields.string("purpose", report).map(|purpose| purpose.value);
    let (protocol, ports) = protocol_and_ports(&fields, report)?;
    Some(Allow { protocol, ports, purpose, from, rate_per_second: rate, span: item.text.span() })
}

fn protocol_and_ports(fields: &Fields<'_>, report: &mut Reporter) -> Option<(Protocol, Vec<PortRange>)> {
    let (protocol, name) = match (fields.has("tcp"), fields.has("udp")) {
        (true, false) => (Protocol::Tcp, "tcp"),
        (false, true) => (Protocol::Udp, "udp"),
        (both, _) => {
            let message = if both {
                "a rule is for `tcp` or for `udp`, not both"
            } else {
                "`tcp` or `udp` is missing here"
            };
            report.error("missing-key", fields.owner(), message).hint(if both {
                "write two rules"
            } else {
                "for example `tcp: 443`"
            });
            return None;
        }
    };
    Some((protocol, ports(&fields.list(name, report), report)?))
}

/// The connections the machine may open.
pub(super) fn lower_outbound(node: &Node<'_>, report: &mut Reporter) -> Outbound {
    let mut outbound = Outbound { allow: Vec::new(), unrestricted: false, span: node.span() };
    if node.pending {
        return outbound;
    }
    match node.value.map(Text::bare) {
        Some(line) if line.as_str() == "any" => outbound.unrestricted = true,
        Some(line) if line.as_str() == "nothing" => {}
        Some(line) => {
            let (note, rules) = read_rules(line, Direction::Out, report);
            if let Some(note) = note {
                report
                    .error(
                        "rule-not-understood",
                        note.span(),
                        format!("`{}` is not an outbound rule", note.as_str()),
                    )
                    .hint("write `TCP 80,443 package updates`, `any` or `nothing`");
            }
            outbound.allow = rules.into_iter().map(Rule::into_outbound).collect();
        }
        None => {
            for item in items(node, report) {
                outbound.allow.extend(outbound_rule(item, report));
            }
            return outbound;
        }
    }
    no_deeper_lines(node, report);
    outbound
}

fn outbound_rule(item: &Node<'_>, report: &mut Reporter) -> Option<OutboundRule> {
    let fields = Fields::of(&OUTBOUND_RULE, item, report);
    let to = networks(&fields.list("to", report), report);
    let user = fields.parsed::<UserName>("user", report).map(|user| user.value);
    let purpose = fields.string("purpose", report).map(|purpose| purpose.value);
    let (protocol, ports) = protocol_and_ports(&fields, report)?;
    Some(OutboundRule { protocol, ports, to, user, purpose, span: item.text.span() })
}

/// Two rules of a zone that open one port to the same senders contradict each other in purpose or rate.
fn check_openings(rules: &[Allow], report: &mut Reporter) {
    for (at, rule) in rules.iter().enumerate() {
        let same = |other: &&Allow| {
            other.protocol == rule.protocol
                && other.from == rule.from
                && other
                    .ports
                    .iter()
                    .any(|a| rule.ports.iter().any(|b| a.first <= b.last && b.first <= a.last))
        };
        if let Some(first) = rules[..at].iter().find(same) {
            report
                .error("port-twice", rule.span, "a port of this rule is already open in this zone")
                .related(first.span, "first opened here");
        }
    }
}
