//! What may go out, and what may pass through.

use ipnet::IpNet;
use kld_manifest::Span;
use kld_manifest::model::{Carrier, Outbound, OutboundRule, Plane, PortRange, Protocol, ReplicationHost};

use super::rule::{Action, Chain, Match, Names, by_family};
use super::{BRIDGE, public};
use crate::context::{Context, SSH_PORT};
use crate::layers::replication::ACCOUNT;
use crate::layers::users::uid_of;
use crate::system::{Because, Layer};

const DNS: u16 = 53;
const NTP: u16 = 123;

/// What passes through the machine: nothing, or what containers need.
pub(crate) fn forward(context: &Context<'_>) -> Chain {
    let because = |reason: &str| Because::always(Layer::Firewall, reason);
    let hook = Some("type filter hook forward priority filter; policy drop;");
    let mut chain = Chain::new("forward", hook, because("this machine is not a router"));
    if !context.appliance.containers.is_empty() {
        let bridge = || Names::Any(vec![BRIDGE.to_owned()]);
        let known = vec![Match::State("established,related")];
        chain.add(known, Action::Accept, because("belongs to a connection that was accepted"));
        add_never_in_clear(context, &mut chain);
        for container in &context.appliance.containers {
            for publish in &container.publish {
                let from = match &publish.listen.on {
                    kld_manifest::model::ListenOn::Plane(interface) => {
                        Names::Any(vec![interface.to_string()])
                    }
                    kld_manifest::model::ListenOn::Public(_) => public(context),
                    kld_manifest::model::ListenOn::Loopback => continue,
                };
                let port = PortRange { first: publish.container_port, last: publish.container_port };
                let reason = format!("container {} answers here", container.name.value);
                chain.add(
                    vec![
                        Match::In(from),
                        Match::Out(bridge()),
                        Match::Is("ct status dnat"),
                        Match::Ports(publish.listen.protocol, vec![port]),
                    ],
                    Action::Accept,
                    Because::new(Layer::Firewall, publish.listen.span, reason),
                );
            }
        }
        let out = [Match::In(bridge()), Match::Out(public(context))];
        if context.appliance.outbound.unrestricted {
            let because = Because::new(Layer::Firewall, context.appliance.outbound.span, "outbound: any");
            chain.add(out.to_vec(), Action::Accept, because);
        }
        // A rule for one account is not one for containers: their processes have no account here.
        for rule in sorted(&context.appliance.outbound).into_iter().filter(|r| r.user.is_none()) {
            add_rule(rule, &[Match::In(bridge())], context, &mut chain);
        }
    }
    chain.add(
        vec![],
        Action::Log { prefix: "kld-drop-forward" },
        because("what is dropped is seen in the log"),
    );
    chain.add(vec![], Action::Drop, because("the policy, with a counter"));
    chain
}

/// What the machine itself may open.
pub(crate) fn output(context: &Context<'_>) -> Chain {
    let outbound = &context.appliance.outbound;
    let because = |reason: &str| Because::always(Layer::Firewall, reason);
    let (hook, reason) = if outbound.unrestricted {
        ("type filter hook output priority filter; policy accept;", "outbound: any")
    } else {
        (
            "type filter hook output priority filter; policy drop;",
            "the machine opens only what is named below",
        )
    };
    let mut chain = Chain::new("output", Some(hook), Because::new(Layer::Firewall, outbound.span, reason));
    let lo = Match::Out(Names::Any(vec!["lo".to_owned()]));
    chain.add(vec![lo], Action::Accept, because("the machine talks to itself"));
    add_never_in_clear(context, &mut chain);
    if outbound.unrestricted {
        return chain;
    }
    let known = vec![Match::State("established,related")];
    chain.add(known, Action::Accept, because("answers to what was accepted"));
    if !context.appliance.containers.is_empty() {
        let bridge = Match::Out(Names::Any(vec![BRIDGE.to_owned()]));
        chain.add(
            vec![bridge],
            Action::Accept,
            because("published ports of containers are reached from here too"),
        );
    }
    add_essentials(context, &mut chain);
    for plane in &context.planes {
        add_wireguard(plane, context, &mut chain);
    }
    add_replication(context, &mut chain);
    for rule in sorted(outbound) {
        add_rule(rule, &[], context, &mut chain);
    }
    chain.add(vec![], Action::Log { prefix: "kld-drop-out" }, because("what is dropped is seen in the log"));
    chain.add(vec![], Action::Drop, because("the policy, with a counter"));
    chain
}

/// What is meant for a plane stops when the plane is down.
fn add_never_in_clear(context: &Context<'_>, chain: &mut Chain) {
    for plane in &context.planes {
        let reason = format!("what is meant for peers of {} never leaves in clear", plane.interface.value);
        let elsewhere = Match::Out(Names::Not(vec![plane.interface.to_string()]));
        let because = Because::new(Layer::Firewall, plane.address.span, reason);
        chain.add(vec![elsewhere, Match::To(vec![plane.address.trunc()])], Action::Drop, because);
    }
}

fn add_essentials(context: &Context<'_>, chain: &mut Chain) {
    let because = |reason: &str| Because::always(Layer::Firewall, reason);
    let neighbours =
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }";
    chain.add(
        vec![Match::Is(neighbours)],
        Action::Accept,
        because("IPv6 finds neighbours and routers this way"),
    );
    for what in [
        "icmp type { echo-request, destination-unreachable }",
        "icmpv6 type { echo-request, destination-unreachable, packet-too-big }",
    ] {
        let action = Action::AcceptLimited { per_second: 100 };
        chain.add(vec![Match::Is(what)], action, because("ping, and errors that others must learn of"));
    }
    let out = Match::Out(public(context));
    for what in ["udp sport 68 udp dport 67", "udp sport 546 udp dport 547"] {
        chain.add(vec![out.clone(), Match::Is(what)], Action::Accept, because("DHCP"));
    }
    let accounts = &context.distro.accounts;
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let port = Match::Ports(protocol, vec![PortRange { first: DNS, last: DNS }]);
        let reason = "only the resolver asks for names: nothing else hides in such questions";
        chain.add(vec![Match::User(accounts.resolver.clone()), port], Action::Accept, because(reason));
    }
    let ntp = Match::Ports(Protocol::Udp, vec![PortRange { first: NTP, last: NTP }]);
    let clock = vec![Match::User(accounts.time.clone()), ntp];
    chain.add(clock, Action::Accept, because("only the clock asks for the time"));
}

fn add_wireguard(plane: &Plane, context: &Context<'_>, chain: &mut Chain) {
    let out = match &plane.carrier.value {
        Carrier::Public => public(context),
        Carrier::Plane(carrier) => Names::Any(vec![carrier.to_string()]),
    };
    let reason =
        format!("WireGuard of {}: its own port is the source, wherever the peer is", plane.interface.value);
    let because = Because::new(Layer::Firewall, plane.port.span, reason);
    chain.add(
        vec![Match::Out(out), Match::SourcePort(Protocol::Udp, plane.port.value)],
        Action::Accept,
        because,
    );
}

fn add_replication(context: &Context<'_>, chain: &mut Chain) {
    let Some(replication) = &context.appliance.replication else { return };
    let mut matches = vec![Match::Out(Names::Any(vec![replication.plane.to_string()]))];
    if let ReplicationHost::Address(address) = replication.host {
        matches.push(Match::To(vec![IpNet::from(address)]));
    }
    // By number: the name is known only once the machine's accounts are.
    matches.push(Match::User(ACCOUNT.1.to_string()));
    matches.push(Match::Ports(Protocol::Tcp, vec![PortRange { first: SSH_PORT, last: SSH_PORT }]));
    let because = Because::new(Layer::Firewall, replication.span, "replication");
    chain.add(matches, Action::Accept, because);
}

/// In an order that does not depend on the manifest's.
fn sorted(outbound: &Outbound) -> Vec<&OutboundRule> {
    let mut rules: Vec<_> = outbound.allow.iter().collect();
    rules.sort_by(|a, b| (a.protocol, &a.ports, &a.to, &a.user).cmp(&(b.protocol, &b.ports, &b.to, &b.user)));
    rules
}

fn add_rule(rule: &OutboundRule, first: &[Match], context: &Context<'_>, chain: &mut Chain) {
    let reason = rule.purpose.clone().unwrap_or_else(|| "asked for in the manifest".to_owned());
    let because = |span: Span| Because::new(Layer::Firewall, span, reason.clone());
    // Inside a plane's network the packet leaves through the plane: an earlier rule sees to it.
    let in_a_plane = |n: &IpNet| context.planes.iter().any(|p| p.address.trunc().contains(n));
    let (inside, outside): (Vec<IpNet>, Vec<IpNet>) = rule.to.iter().partition(|n| in_a_plane(n));
    let mut destinations: Vec<(Option<Match>, Vec<IpNet>)> =
        by_family(&inside).into_iter().map(|networks| (None, networks)).collect();
    let outside = if rule.to.is_empty() { vec![Vec::new()] } else { by_family(&outside) };
    let through = Match::Out(public(context));
    destinations.extend(outside.into_iter().map(|networks| (Some(through.clone()), networks)));
    for (out, networks) in destinations {
        let mut matches = first.to_vec();
        matches.extend(out);
        if !networks.is_empty() {
            matches.push(Match::To(networks));
        }
        if let Some(user) = &rule.user {
            // Numbers of the manifest's accounts are known; those of packages are looked up when the rules are loaded.
            let user =
                uid_of(user, context.appliance).map_or_else(|| user.to_string(), |uid| uid.to_string());
            matches.push(Match::User(user));
        }
        matches.push(Match::Ports(rule.protocol, rule.ports.clone()));
        chain.add(matches, Action::Accept, because(rule.span));
    }
}
