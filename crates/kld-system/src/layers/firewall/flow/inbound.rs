//! What may come in.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use kld_manifest::Span;

use super::super::inbound::{Opening, openings};
use super::super::verdict::{Packet, Way};
use super::super::{BRIDGE, public};
use super::{
    CONTAINER, Flow, GATEWAY, PROBED, PUBLIC, SOURCE_PORT, STRANGERS, Said, edges, holds, is_tcp, peer,
    public_interfaces, shown_port,
};
use crate::context::Context;

/// A place from which packets come.
struct Place {
    interface: String,
    from: IpAddr,
    to: IpAddr,
}

pub(super) fn flows(context: &Context<'_>) -> Vec<Flow> {
    let openings = openings(context);
    let mut probed: Vec<(bool, u16)> =
        [true, false].iter().flat_map(|tcp| PROBED.map(|port| (*tcp, port))).collect();
    let of = |opening: &Opening| {
        let tcp = is_tcp(opening.protocol);
        edges(&opening.ports).map(move |port| (tcp, port)).collect::<Vec<_>>()
    };
    probed.extend(openings.iter().flat_map(of));
    probed.sort_unstable();
    probed.dedup();

    let mut packets = Vec::new();
    for Place { interface, from, to } in places(context) {
        let mut sources = vec![from];
        // Whoever may come in, when not everybody may; and who takes an address of a plane without being in it.
        sources.extend(openings.iter().flat_map(|opening| &opening.from).map(IpNet::addr));
        let elsewhere = context.planes.iter().filter(|plane| plane.interface.as_str() != interface);
        sources.extend(elsewhere.clone().map(|plane| peer(plane)));
        sources.retain(|source| source.is_ipv4() == to.is_ipv4());
        sources.sort_unstable();
        sources.dedup();
        let packet = |from, to, tcp, port| {
            let way = Way::In { interface: interface.clone() };
            Packet { way, from, to, tcp, source_port: SOURCE_PORT, port }
        };
        for source in sources {
            packets.extend(probed.iter().map(|(tcp, port)| packet(source, to, *tcp, *port)));
        }
        // A plane's addresses are of no use outside of it.
        let own = elsewhere.map(|plane| plane.address.addr()).filter(|own| own.is_ipv4() == from.is_ipv4());
        packets.extend(own.map(|own| packet(from, own, true, 22)));
    }
    let (way, own) = (Way::In { interface: "lo".to_owned() }, IpAddr::from([127, 0, 0, 1]));
    packets.push(Packet { way, from: own, to: own, tcp: true, source_port: SOURCE_PORT, port: 5432 });
    packets.extend(dhcp(context));
    packets.into_iter().map(|packet| said(context, &openings, &packet).of(packet)).collect()
}

fn places(context: &Context<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    for interface in public_interfaces(context) {
        for (from, to) in STRANGERS.into_iter().zip(PUBLIC) {
            places.push(Place { interface: interface.clone(), from, to });
        }
    }
    places.extend(context.planes.iter().map(|plane| {
        let (interface, to) = (plane.interface.to_string(), plane.address.addr());
        Place { interface, from: peer(plane), to }
    }));
    if !context.appliance.containers.is_empty() {
        places.push(Place { interface: BRIDGE.to_owned(), from: CONTAINER, to: GATEWAY });
    }
    places
}

/// The answer of a router, which nobody could know by its address.
fn dhcp(context: &Context<'_>) -> Vec<Packet> {
    let router = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    let ways = public_interfaces(context).into_iter().map(|interface| Way::In { interface });
    ways.flat_map(|way| {
        [router, STRANGERS[1]].map(|from| Packet {
            way: way.clone(),
            from,
            to: PUBLIC[1],
            tcp: false,
            source_port: 547,
            port: 546,
        })
    })
    .collect()
}

fn said(context: &Context<'_>, openings: &[Opening], packet: &Packet) -> Said {
    let Way::In { interface } = &packet.way else { unreachable!("only what comes in is asked here") };
    if interface == "lo" {
        return Said::accept("the machine talks to itself", Span::DEFAULT);
    }
    for plane in context.planes.iter().filter(|plane| plane.interface.as_str() != interface) {
        let name = &plane.interface.value;
        if plane.address.contains(&packet.from) {
            return Said::drop(format!("only {name} carries its own network"), plane.address.span);
        }
        if plane.address.addr() == packet.to {
            return Said::drop(format!("{} is reached over {name} only", packet.to), plane.address.span);
        }
    }
    let from_router = matches!(packet.from, IpAddr::V6(from) if from.is_unicast_link_local());
    if (packet.tcp, packet.source_port, packet.port) == (false, 547, 546) && from_router {
        return Said::accept("DHCPv6", Span::DEFAULT);
    }
    if interface == BRIDGE && packet.port == 53 {
        return Said::accept("containers ask for each other's names", Span::DEFAULT);
    }
    let is_public = public(context).hold(interface);
    let here = |opening: &&Opening| opening.interface == *interface || opening.interface == "*" && is_public;
    let opens = |opening: &&Opening| {
        is_tcp(opening.protocol) == packet.tcp
            && holds(&opening.ports, packet.port)
            && (opening.from.is_empty() || opening.from.iter().any(|from| from.contains(&packet.from)))
    };
    match openings.iter().filter(here).find(opens) {
        Some(opening) => Said::accept(opening.reason.clone(), opening.span),
        None => Said::drop(
            format!("nothing opens {} on {interface} to {}", shown_port(packet), packet.from),
            Span::DEFAULT,
        ),
    }
}
