//! Who listens where: the interface exists, its zone opens the port, and nobody else has it.

use crate::diagnostic::Reporter;
use crate::keys::one_of;
use crate::lower::Draft;
use crate::model::{Carrier, Listen, ListenOn, Protocol, Zone};
use crate::span::Span;

pub(super) fn check(draft: &Draft, report: &mut Reporter) {
    let services = draft.services.iter().flat_map(|s| s.listens.iter().map(|l| (s.unit.as_str(), l)));
    let containers =
        draft.containers.iter().flat_map(|c| c.publish.iter().map(|p| (c.name.as_str(), &p.listen)));
    let listening: Vec<(&str, &Listen)> = services.chain(containers).collect();
    for (at, (who, listen)) in listening.iter().enumerate() {
        interface_and_port(draft, who, listen, report);
        let same = listening[..at].iter().find(|(_, other)| {
            other.on == listen.on && other.port == listen.port && other.protocol == listen.protocol
        });
        if let Some((first, other)) = same {
            let message = if first == who {
                format!("`{who}` listens twice on {}", place(listen))
            } else {
                format!("`{first}` already listens on {}", place(listen))
            };
            report
                .error("listen-twice", listen.span, message)
                .hint("give one of them another port")
                .related(other.span, "first taken here");
        }
        wireguard_port(draft, listen, report);
    }
}

fn interface_of(on: &ListenOn) -> Option<&str> {
    match on {
        ListenOn::Loopback => None,
        ListenOn::Plane(interface) | ListenOn::Public(interface) => Some(interface.as_str()),
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn place(listen: &Listen) -> String {
    let on = interface_of(&listen.on).unwrap_or("localhost");
    format!("{} {} of `{on}`", protocol_name(listen.protocol), listen.port)
}

/// The first characters of the listen's place, which name the interface in the one-line form.
fn interface_span(listen: &Listen, interface: &str) -> Span {
    let length = crate::text::saturated(interface.chars().count());
    Span { length: length.min(listen.span.length).max(1), ..listen.span }
}

fn interface_and_port(draft: &Draft, who: &str, listen: &Listen, report: &mut Reporter) {
    let Some(interface) = interface_of(&listen.on) else { return };
    let zone = draft.zones.iter().find(|zone| zone.interface.as_str() == interface);
    let plane = draft.planes.iter().find(|plane| plane.interface.as_str() == interface);
    if zone.is_none() && plane.is_none() {
        if !draft.gaps.interfaces {
            let known: Vec<&str> = draft.zones.iter().map(|zone| zone.interface.as_str()).collect();
            let kind = if matches!(listen.on, ListenOn::Plane(_)) { "plane" } else { "interface" };
            let message =
                format!("`{who}` listens on the {kind} `{interface}`, which this manifest does not have");
            let protocol = protocol_name(listen.protocol);
            let add = format!("add `{interface}: {protocol} {}` to `network_topology`", listen.port);
            let hint = if known.is_empty() { add } else { format!("{add}, or listen on {}", one_of(&known)) };
            let code = if kind == "plane" { "unknown-plane" } else { "unknown-interface" };
            report.error(code, interface_span(listen, interface), message).hint(hint);
        }
        return;
    }
    let opens = |zone: &Zone| {
        zone.allow.iter().any(|allow| {
            allow.protocol == listen.protocol
                && allow.ports.iter().any(|range| (range.first..=range.last).contains(&listen.port))
        })
    };
    if zone.is_some_and(opens) || draft.gaps.interfaces {
        return;
    }
    let protocol = protocol_name(listen.protocol);
    let message = format!("no zone opens {protocol} {} on `{interface}`, where `{who}` listens", listen.port);
    let (hint, span) = match zone {
        Some(zone) => {
            (format!("add `{protocol} {}` to the line of `{interface}`", listen.port), zone.interface.span)
        }
        None => {
            (format!("add `{interface}: {protocol} {}` to `network_topology`", listen.port), Span::DEFAULT)
        }
    };
    report.error("port-not-open", listen.span, message).hint(hint).related(span, "the zone");
}

/// A UDP port that carries a plane is taken.
fn wireguard_port(draft: &Draft, listen: &Listen, report: &mut Reporter) {
    if listen.protocol != Protocol::Udp || listen.on == ListenOn::Loopback {
        return;
    }
    let carries = |carrier: &Carrier| match (carrier, &listen.on) {
        (Carrier::Public, ListenOn::Public(_)) => true,
        (Carrier::Plane(over), ListenOn::Plane(on)) => over == on,
        _ => false,
    };
    let taken = draft.planes.iter().find(|plane| plane.port.value == listen.port && carries(&plane.carrier));
    if let Some(plane) = taken {
        report
            .error(
                "listen-twice",
                listen.span,
                format!("{} carries the plane `{}`", place(listen), plane.interface.value),
            )
            .hint("give the service another port")
            .related(plane.interface.span, "the plane");
    }
}
