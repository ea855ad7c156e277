//! What may go out, and by whom.

use std::net::IpAddr;

use ipnet::IpNet;
use kld_manifest::Span;
use kld_manifest::model::{Carrier, OutboundRule, PortRange, Protocol, ReplicationHost};

use super::super::rule::Names;
use super::super::verdict::{Packet, Sender, Way};
use super::super::{BRIDGE, public};
use super::{
    CONTAINER, Flow, SOURCE_PORT, STRANGERS, Said, edges, holds, inside, interfaces, is_tcp, leaves_in_clear,
    own_address, peer, shown_port,
};
use crate::context::{Context, SSH_PORT};
use crate::layers::replication::ACCOUNT;
use crate::layers::users::uid_of;

/// Something that may go out.
pub(super) struct Promise {
    /// Only through these.
    through: Option<Names>,
    /// Only there; anywhere when empty.
    to: Vec<IpNet>,
    /// Only sent by this account.
    pub(super) sender: Option<Sender>,
    protocol: Protocol,
    /// Only from this port.
    source_port: Option<u16>,
    ports: Vec<PortRange>,
    pub(super) reason: String,
    pub(super) span: Span,
}

const ANY_PORT: PortRange = PortRange { first: 1, last: u16::MAX };

impl Promise {
    fn of_the_system(protocol: Protocol, port: u16, reason: &str) -> Self {
        Self {
            through: None,
            to: Vec::new(),
            sender: None,
            protocol,
            source_port: None,
            ports: vec![PortRange { first: port, last: port }],
            reason: reason.to_owned(),
            span: Span::DEFAULT,
        }
    }

    /// Whether it promises this packet, that leaves through an interface.
    pub(super) fn covers(&self, packet: &Packet, interface: &str, sender: Option<&Sender>) -> bool {
        is_tcp(self.protocol) == packet.tcp
            && holds(&self.ports, packet.port)
            && self.source_port.is_none_or(|port| port == packet.source_port)
            && self.through.as_ref().is_none_or(|names| names.hold(interface))
            && (self.to.is_empty() || self.to.iter().any(|network| network.contains(&packet.to)))
            && (self.sender.is_none() || self.sender.as_ref() == sender)
    }
}

pub(super) fn flows(context: &Context<'_>) -> Vec<Flow> {
    let promises = promises(context);
    let mut packets = Vec::new();
    let mut add = |interface: &str, to, sender: &Option<Sender>, tcp, source_port, port| {
        let from = if interface == "lo" { to } else { own_address(context, interface, to) };
        let way = Way::Out { interface: interface.to_owned(), sender: sender.clone() };
        packets.push(Packet { way, from, to, tcp, source_port, port });
    };
    let senders = senders(context, &promises);
    let probed = probed(&promises);
    for interface in interfaces(context) {
        for to in destinations(context) {
            for sender in &senders {
                for (tcp, port) in &probed {
                    add(&interface, to, sender, *tcp, SOURCE_PORT, *port);
                }
            }
            for promise in &promises {
                if let Some(source_port) = promise.source_port {
                    let tcp = is_tcp(promise.protocol);
                    let port = promise.ports[0].last.min(SOURCE_PORT + 1);
                    add(&interface, to, &None, tcp, source_port, port);
                }
            }
        }
    }
    for sender in &senders {
        add("lo", IpAddr::from([127, 0, 0, 1]), sender, true, SOURCE_PORT, 5432);
    }
    packets.into_iter().map(|packet| said(context, &promises, &packet).of(packet)).collect()
}

fn said(context: &Context<'_>, promises: &[Promise], packet: &Packet) -> Said {
    let Way::Out { interface, sender } = &packet.way else {
        unreachable!("only what goes out is asked here")
    };
    if interface == "lo" {
        return Said::accept("the machine talks to itself", Span::DEFAULT);
    }
    if let Some(plane) = leaves_in_clear(context, packet.to, interface) {
        let reason = format!("what is meant for peers of {} never leaves in clear", plane.interface.value);
        return Said::drop(reason, plane.address.span);
    }
    let outbound = &context.appliance.outbound;
    if outbound.unrestricted {
        return Said::accept("outbound: any", outbound.span);
    }
    if interface == BRIDGE {
        return Said::accept("published ports of containers are reached from here too", Span::DEFAULT);
    }
    match promises.iter().find(|promise| promise.covers(packet, interface, sender.as_ref())) {
        Some(promise) => Said::accept(promise.reason.clone(), promise.span),
        None => {
            Said::drop(format!("nothing lets {} out through {interface}", shown_port(packet)), outbound.span)
        }
    }
}

/// What the system itself needs, and what the manifest allows.
fn promises(context: &Context<'_>) -> Vec<Promise> {
    let accounts = &context.distro.accounts;
    let account = |name: &str| Some(Sender { name: name.to_owned(), number: None });
    let mut all = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let names = Promise::of_the_system(protocol, 53, "only the resolver asks for names");
        all.push(Promise { sender: account(&accounts.resolver), ..names });
    }
    let clock = Promise::of_the_system(Protocol::Udp, 123, "only the clock asks for the time");
    all.push(Promise { sender: account(&accounts.time), ..clock });
    for (source_port, port) in [(68, 67), (546, 547)] {
        let dhcp = Promise::of_the_system(Protocol::Udp, port, "DHCP");
        all.push(Promise { source_port: Some(source_port), through: Some(public(context)), ..dhcp });
    }
    for plane in &context.planes {
        let through = match &plane.carrier.value {
            Carrier::Public => public(context),
            Carrier::Plane(carrier) => Names::Any(vec![carrier.to_string()]),
        };
        all.push(Promise {
            through: Some(through),
            to: Vec::new(),
            sender: None,
            protocol: Protocol::Udp,
            source_port: Some(plane.port.value),
            ports: vec![ANY_PORT],
            reason: format!("WireGuard of {}", plane.interface.value),
            span: plane.port.span,
        });
    }
    if let Some(replication) = &context.appliance.replication {
        let to = match replication.host {
            ReplicationHost::Address(address) => vec![IpNet::from(address)],
            ReplicationHost::Name(_) => Vec::new(),
        };
        all.push(Promise {
            through: Some(Names::Any(vec![replication.plane.to_string()])),
            to,
            sender: Some(Sender { name: ACCOUNT.0.to_owned(), number: Some(ACCOUNT.1) }),
            span: replication.span,
            ..Promise::of_the_system(Protocol::Tcp, SSH_PORT, "replication")
        });
    }
    all.extend(asked_for(context));
    all
}

/// What lines of the manifest allow.
pub(super) fn asked_for(context: &Context<'_>) -> Vec<Promise> {
    let allowed = |rule: &OutboundRule, through, to| Promise {
        through,
        to,
        sender: rule.user.as_ref().map(|name| {
            let known = [("root", 0), ACCOUNT].into_iter().find(|(known, _)| *known == name.as_str());
            let number = uid_of(name, context.appliance).or(known.map(|(_, number)| number));
            Sender { name: name.to_string(), number }
        }),
        protocol: rule.protocol,
        source_port: None,
        ports: rule.ports.clone(),
        reason: rule.purpose.clone().unwrap_or_else(|| "asked for in the manifest".to_owned()),
        span: rule.span,
    };
    let mut all = Vec::new();
    for rule in &context.appliance.outbound.allow {
        if rule.to.is_empty() {
            all.push(allowed(rule, Some(public(context)), Vec::new()));
        }
        // What lies in a plane leaves through it; everything else through what is public.
        all.extend(rule.to.iter().map(|network| {
            let plane = context.planes.iter().find(|plane| plane.address.trunc().contains(network));
            let name = plane.map(|plane| Names::Any(vec![plane.interface.to_string()]));
            allowed(rule, Some(name.unwrap_or_else(|| public(context))), vec![*network])
        }));
    }
    all
}

/// Accounts that send: those that may something, and two that may nothing by themselves.
fn senders(context: &Context<'_>, promises: &[Promise]) -> Vec<Option<Sender>> {
    let mut all: Vec<Sender> = promises.iter().filter_map(|promise| promise.sender.clone()).collect();
    for (name, number) in [("root", 0), ("nobody", 65_534)] {
        all.push(Sender { name: name.to_owned(), number: Some(number) });
    }
    all.extend(context.appliance.users.iter().map(|user| {
        let name = &user.name.value;
        Sender { name: name.to_string(), number: uid_of(name, context.appliance) }
    }));
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(Some).collect()
}

/// Strangers, peers, containers, and whoever a line of the manifest names.
pub(super) fn destinations(context: &Context<'_>) -> Vec<IpAddr> {
    let mut all = STRANGERS.to_vec();
    all.extend(context.planes.iter().map(|plane| peer(plane)));
    all.extend(context.appliance.outbound.allow.iter().flat_map(|rule| &rule.to).map(inside));
    if let Some(ReplicationHost::Address(address)) = context.appliance.replication.as_ref().map(|r| &r.host) {
        all.push(*address);
    }
    if !context.appliance.containers.is_empty() {
        all.push(CONTAINER);
    }
    all.retain(|to| context.planes.iter().all(|plane| plane.address.addr() != *to));
    all.sort_unstable();
    all.dedup();
    all
}

/// Ports that something is promised for or that lie beside one, and what people use.
pub(super) fn probed(promises: &[Promise]) -> Vec<(bool, u16)> {
    let with_one = promises.iter().filter(|promise| promise.source_port.is_none());
    let mut all: Vec<(bool, u16)> = with_one
        .flat_map(|promise| edges(&promise.ports).map(|port| (is_tcp(promise.protocol), port)))
        .collect();
    all.extend([(true, 22), (true, 443), (false, 443)]);
    all.sort_unstable();
    all.dedup();
    all
}
