//! The flows that a manifest promises and forbids: what its lines say of a packet, told without a look at the rules.

mod inbound;
mod outbound;
mod passing;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kld_manifest::Span;
use kld_manifest::model::{Plane, PortRange, Protocol, ZoneKind};

use super::BRIDGE;
use super::verdict::{Packet, Verdict};
use crate::context::{Context, protocol_name};

/// A packet whose verdict the manifest decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The packet.
    pub packet: Packet,
    /// What must happen to it.
    pub wanted: Verdict,
    /// Why.
    pub reason: String,
    /// The line that says so.
    pub span: Span,
}

/// A flow that the rules decide otherwise: a fault of kldload's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The flow.
    pub flow: Flow,
    /// What would happen to it.
    pub verdict: Verdict,
    /// The rule that decides, with its chain.
    pub rule: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flow: Flow { packet, wanted, reason, span }, verdict, rule } = self;
        let line = if span.is_written() { format!("line {}: ", span.line) } else { String::new() };
        write!(f, "the rules would {verdict} `{packet}` by `{rule}`, and must {wanted} it ({line}{reason})")
    }
}

/// Every flow that is asked about.
pub(super) fn all(context: &Context<'_>) -> Vec<Flow> {
    let mut flows = inbound::flows(context);
    flows.extend(outbound::flows(context));
    flows.extend(passing::flows(context));
    flows
}

/// Ports that people probe, whatever the manifest says.
const PROBED: [u16; 8] = [22, 53, 80, 111, 443, 5432, 8000, 9100];
/// RFC 5737 and RFC 3849: addresses that are nobody's.
const STRANGERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99))];
/// What the machine is called by on its public interface, in these packets.
const PUBLIC: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
/// A container and its gateway, in podman's default network.
const CONTAINER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 2));
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 1));
const PUBLIC_INTERFACE: &str = "eth0";
const SOURCE_PORT: u16 = 40_000;

/// What the manifest says of a packet.
struct Said {
    verdict: Verdict,
    reason: String,
    span: Span,
}

impl Said {
    fn accept(reason: impl Into<String>, span: Span) -> Self {
        Self { verdict: Verdict::Accept, reason: reason.into(), span }
    }

    fn drop(reason: impl Into<String>, span: Span) -> Self {
        Self { verdict: Verdict::Drop, reason: reason.into(), span }
    }

    fn of(self, packet: Packet) -> Flow {
        Flow { packet, wanted: self.verdict, reason: self.reason, span: self.span }
    }
}

/// The public interfaces, at least one.
fn public_interfaces(context: &Context<'_>) -> Vec<String> {
    let zones = context.zones.iter().filter(|zone| zone.kind == ZoneKind::Public);
    let mut names: Vec<String> = zones.map(|zone| zone.interface.to_string()).collect();
    if names.is_empty() {
        names.push(PUBLIC_INTERFACE.to_owned());
    }
    names
}

/// Every interface that packets come in or leave through, but for `lo`.
fn interfaces(context: &Context<'_>) -> Vec<String> {
    let mut names = public_interfaces(context);
    names.extend(context.planes.iter().map(|plane| plane.interface.to_string()));
    if !context.appliance.containers.is_empty() {
        names.push(BRIDGE.to_owned());
    }
    names
}

/// Somebody else in a plane.
fn peer(plane: &Plane) -> IpAddr {
    let own = plane.address.addr();
    plane.address.hosts().find(|address| *address != own).unwrap_or(own)
}

/// The plane that an address lies in, when a packet to it would leave through something else.
fn leaves_in_clear<'a>(context: &Context<'a>, to: IpAddr, interface: &str) -> Option<&'a Plane> {
    context
        .planes
        .iter()
        .copied()
        .find(|plane| plane.address.contains(&to) && plane.interface.as_str() != interface)
}

/// The machine's own address for what goes to `to` through an interface.
fn own_address(context: &Context<'_>, interface: &str, to: IpAddr) -> IpAddr {
    let plane = context.planes.iter().find(|plane| plane.interface.as_str() == interface);
    let address = plane.map(|plane| plane.address.addr()).filter(|own| own.is_ipv4() == to.is_ipv4());
    address.unwrap_or(PUBLIC[usize::from(to.is_ipv6())])
}

/// An address of a network that is not the network's own.
fn inside(network: &IpNet) -> IpAddr {
    network.hosts().next().unwrap_or_else(|| network.addr())
}

fn is_tcp(protocol: Protocol) -> bool {
    protocol == Protocol::Tcp
}

fn holds(ports: &[PortRange], port: u16) -> bool {
    ports.iter().any(|range| (range.first..=range.last).contains(&port))
}

/// The ends of ranges, and what lies right outside of them.
fn edges(ports: &[PortRange]) -> impl Iterator<Item = u16> {
    let of = |range: &PortRange| {
        [range.first.saturating_sub(1).max(1), range.first, range.last, range.last.saturating_add(1)]
    };
    ports.iter().flat_map(of)
}

fn shown_port(packet: &Packet) -> String {
    let protocol = if packet.tcp { Protocol::Tcp } else { Protocol::Udp };
    format!("{} {}", protocol_name(protocol), packet.port)
}

#[cfg(test)]
mod tests;
