//! What may come in.

use ipnet::IpNet;
use kld_manifest::Span;
use kld_manifest::model::{Allow, Carrier, Plane, PortRange, Protocol, Zone, ZoneKind};

use super::rule::{Action, Chain, Match, Names, SourceSet, by_family};
use super::{BRIDGE, plane_names, public, public_zones};
use crate::context::{Context, NODE_EXPORTER_PORT, protocol_name};
use crate::system::{Because, Layer};

/// New connections a second from one source on a public port, unless the manifest says otherwise: more than a browser
/// opens, less than a scanner or a flood.
const PUBLIC_RATE: u32 = 50;
/// A burst is twice the rate.
const BURST_FACTOR: u32 = 2;

/// A port or several, opened on one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The interface; `*` for every public one.
    pub(crate) interface: String,
    pub(crate) kind: ZoneKind,
    pub(crate) protocol: Protocol,
    pub(crate) ports: Vec<PortRange>,
    pub(crate) from: Vec<IpNet>,
    pub(crate) rate_per_second: Option<u32>,
    pub(crate) reason: String,
    pub(crate) span: Span,
}

/// Everything the manifest opens: the zones' ports, and the ports of the planes themselves.
pub(crate) fn openings(context: &Context<'_>) -> Vec<Opening> {
    let mut all: Vec<Opening> = context.planes.iter().map(|plane| plane_opening(plane)).collect();
    for zone in &context.zones {
        all.extend(zone.allow.iter().flat_map(|allow| zone_openings(zone, allow, context)));
    }
    all.sort_by(|a, b| key(a).cmp(&key(b)));
    all
}

fn key(o: &Opening) -> (ZoneKind, &str, Protocol, &[PortRange], &[IpNet]) {
    (o.kind, &o.interface, o.protocol, &o.ports, &o.from)
}

fn plane_opening(plane: &Plane) -> Opening {
    let (interface, kind) = match &plane.carrier.value {
        Carrier::Public => ("*".to_owned(), ZoneKind::Public),
        Carrier::Plane(carrier) => (carrier.to_string(), ZoneKind::Plane),
    };
    Opening {
        interface,
        kind,
        protocol: Protocol::Udp,
        ports: vec![PortRange { first: plane.port.value, last: plane.port.value }],
        from: Vec::new(),
        rate_per_second: None,
        reason: format!("WireGuard of {}: silent to whoever has no key", plane.interface.value),
        span: plane.port.span,
    }
}

fn zone_openings(zone: &Zone, allow: &Allow, context: &Context<'_>) -> Vec<Opening> {
    // Ports that a plane opens for itself need not be opened again by a line that mentions them.
    let carried = |range: &PortRange| {
        allow.protocol == Protocol::Udp
            && context.planes.iter().any(|plane| {
                let here = match &plane.carrier.value {
                    Carrier::Public => zone.kind == ZoneKind::Public,
                    Carrier::Plane(carrier) => *carrier == zone.interface.value,
                };
                here && range.first == plane.port.value && range.last == plane.port.value
            })
    };
    let ports: Vec<_> = allow.ports.iter().copied().filter(|r| !carried(r)).collect();
    let interface = match zone.kind {
        ZoneKind::Public if public_zones(context) < 2 => "*".to_owned(),
        _ => zone.interface.to_string(),
    };
    let opening = |ports: Vec<PortRange>, from: Vec<IpNet>| Opening {
        interface: interface.clone(),
        kind: zone.kind,
        protocol: allow.protocol,
        ports,
        from,
        rate_per_second: allow.rate_per_second,
        reason: allow.purpose.clone().unwrap_or_else(|| "asked for in the manifest".to_owned()),
        span: allow.span,
    };
    // Only Prometheus may read the machine's metrics, when the manifest says who that is.
    let scrapers: Vec<IpNet> =
        context.appliance.monitoring.prometheus.iter().map(|a| IpNet::from(a.value)).collect();
    let is_exporter = |r: &PortRange| r.first == NODE_EXPORTER_PORT && r.last == NODE_EXPORTER_PORT;
    let guarded = zone.kind == ZoneKind::Plane && allow.from.is_empty() && !scrapers.is_empty();
    let (exporter, others): (Vec<_>, Vec<_>) = ports.into_iter().partition(|r| guarded && is_exporter(r));
    [(exporter, scrapers), (others, allow.from.clone())]
        .into_iter()
        .filter(|(ports, _)| !ports.is_empty())
        .map(|(ports, from)| opening(ports, from))
        .collect()
}

/// The chain the kernel calls, and one for each zone.
pub(crate) fn chains(context: &Context<'_>) -> Vec<Chain> {
    let because = |reason: &str| Because::always(Layer::Firewall, reason);
    let hook = Some("type filter hook input priority filter; policy drop;");
    let mut input = Chain::new("input", hook, because("what comes in and is not accepted below is dropped"));
    input.add(vec![Match::State("invalid")], Action::Drop, because("belongs to no connection"));
    let known = vec![Match::State("established,related")];
    input.add(known, Action::Accept, because("belongs to a connection that was accepted"));
    input.add(
        vec![Match::In(Names::Any(vec!["lo".to_owned()]))],
        Action::Accept,
        because("the machine talks to itself"),
    );
    for plane in &context.planes {
        add_no_spoofing(plane, &mut input);
    }
    add_icmp(&mut input);
    for plane in &context.planes {
        let interface = plane.interface.to_string();
        let reason = format!("what peers of {interface} may do");
        let because = Because::new(Layer::Firewall, plane.interface.span, reason);
        let chain = chain_name(ZoneKind::Plane, &interface);
        input.add(vec![Match::In(Names::Any(vec![interface]))], Action::Jump(chain), because);
    }
    if !context.appliance.containers.is_empty() {
        let bridge = Match::In(Names::Any(vec![BRIDGE.to_owned()]));
        let dns = |protocol| Match::Ports(protocol, vec![PortRange { first: 53, last: 53 }]);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            input.add(
                vec![bridge.clone(), dns(protocol)],
                Action::Accept,
                because("containers ask for each other's names"),
            );
        }
    }
    let reason = "everything that is not a plane is public";
    input.add(vec![Match::In(public(context))], Action::Jump("public".to_owned()), because(reason));
    input.add(vec![], Action::Log { prefix: "kld-drop-in" }, because("what is dropped is seen in the log"));
    input.add(vec![], Action::Drop, because("the policy, with a counter"));

    let mut chains = zone_chains(context);
    chains.push(input);
    chains
}

fn zone_chains(context: &Context<'_>) -> Vec<Chain> {
    let openings = openings(context);
    let mut public = Chain::new("public", None, Because::always(Layer::Firewall, "what anybody may do"));
    let mut chains = Vec::new();
    for opening in openings.iter().filter(|o| o.kind == ZoneKind::Public) {
        add_opening(opening, &mut public);
    }
    chains.push(public);
    for name in plane_names(context) {
        let because = Because::always(Layer::Firewall, format!("what peers of {name} may do"));
        let mut chain = Chain::new(chain_name(ZoneKind::Plane, &name), None, because);
        for opening in openings.iter().filter(|o| o.kind == ZoneKind::Plane && o.interface == name) {
            add_opening(opening, &mut chain);
        }
        chains.push(chain);
    }
    chains
}

fn chain_name(kind: ZoneKind, interface: &str) -> String {
    match kind {
        ZoneKind::Public => "public".to_owned(),
        // Interface names may hold `.` and `-`, chain names may not begin with a digit.
        ZoneKind::Plane => format!("plane_{}", interface.replace(['.', '-'], "_")),
    }
}

fn add_opening(opening: &Opening, chain: &mut Chain) {
    let because = |reason: String| Because::new(Layer::Firewall, opening.span, reason);
    let mut place = Vec::new();
    if opening.kind == ZoneKind::Public && opening.interface != "*" {
        place.push(Match::In(Names::Any(vec![opening.interface.clone()])));
    }
    let ports = Match::Ports(opening.protocol, opening.ports.clone());
    let rate = opening.rate_per_second.or((opening.kind == ZoneKind::Public).then_some(PUBLIC_RATE));
    if let Some(per_second) = rate {
        for ipv6 in [false, true] {
            let action = Action::DropAbove {
                set: SourceSet { name: set_name(opening, ipv6), ipv6 },
                per_second,
                burst: per_second.saturating_mul(BURST_FACTOR),
            };
            let matches = place.iter().cloned().chain([ports.clone()]).collect();
            let reason = format!("one source opens at most {per_second} new connections a second");
            chain.add(matches, action, because(reason));
        }
    }
    let sources = by_family(&opening.from);
    let sources = if sources.is_empty() { vec![None] } else { sources.into_iter().map(Some).collect() };
    for source in sources {
        let matches = place.iter().cloned().chain(source.map(Match::From)).chain([ports.clone()]).collect();
        chain.add(matches, Action::Accept, because(opening.reason.clone()));
    }
}

/// A name that says what is counted: `public_tcp_80_443_ipv4`.
fn set_name(opening: &Opening, ipv6: bool) -> String {
    let place = match (opening.kind, opening.interface.as_str()) {
        (ZoneKind::Public, "*") => "public".to_owned(),
        (_, interface) => interface.replace(['.', '-'], "_"),
    };
    let ports: Vec<_> = opening.ports.iter().map(|r| r.first.to_string()).collect();
    let family = if ipv6 { "ipv6" } else { "ipv4" };
    // Kernels take 255 characters; nobody reads more than a few ports.
    let ports = ports.get(..8).unwrap_or(&ports).join("_");
    format!("{place}_{}_{ports}_{family}", protocol_name(opening.protocol))
}

fn add_no_spoofing(plane: &Plane, input: &mut Chain) {
    let interface = plane.interface.to_string();
    let elsewhere = Match::In(Names::Not(vec![interface.clone()]));
    let because = |reason: String| Because::new(Layer::Firewall, plane.address.span, reason);
    let network = plane.address.trunc();
    let reason = format!("only {interface} carries packets of its own network");
    input.add(vec![elsewhere.clone(), Match::From(vec![network])], Action::Drop, because(reason));
    let own = IpNet::from(plane.address.addr());
    let reason = format!("this machine's address in {interface} is reached over {interface} only");
    input.add(vec![elsewhere, Match::To(vec![own])], Action::Drop, because(reason));
}

fn add_icmp(input: &mut Chain) {
    let because = |reason: &str| Because::always(Layer::Firewall, reason);
    for (what, reason) in [
        (
            "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
            "paths with a smaller packet size, and errors, are learned this way",
        ),
        (
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
            "paths with a smaller packet size, and errors, are learned this way",
        ),
    ] {
        input.add(vec![Match::Is(what)], Action::AcceptLimited { per_second: 100 }, because(reason));
    }
    let neighbours =
        "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255";
    input.add(
        vec![Match::Is(neighbours)],
        Action::Accept,
        because("IPv6 finds neighbours and routers this way"),
    );
    let listeners = "icmpv6 type { mld-listener-query, mld2-listener-report } ip6 saddr fe80::/10";
    input.add(
        vec![Match::Is(listeners)],
        Action::Accept,
        because("switches forward IPv6 neighbour discovery this way"),
    );
    for (what, reason) in [
        ("icmp type echo-request", "somebody may ask whether the machine is there, ten times a second"),
        ("icmpv6 type echo-request", "somebody may ask whether the machine is there, ten times a second"),
    ] {
        input.add(vec![Match::Is(what)], Action::AcceptLimited { per_second: 10 }, because(reason));
    }
    let dhcp = "udp sport 547 udp dport 546 ip6 saddr fe80::/10";
    input.add(
        vec![Match::Is(dhcp)],
        Action::Accept,
        because("DHCPv6 answers come from another address than was asked"),
    );
}
