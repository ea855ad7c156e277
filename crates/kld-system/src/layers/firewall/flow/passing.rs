//! What may pass through: nothing, or what containers need.

use kld_manifest::Span;
use kld_manifest::model::{ListenOn, Publish};

use super::super::verdict::{Packet, Way};
use super::super::{BRIDGE, public};
use super::outbound::{Promise, asked_for, destinations, probed};
use super::{
    CONTAINER, Flow, SOURCE_PORT, STRANGERS, Said, interfaces, is_tcp, leaves_in_clear, peer, shown_port,
};
use crate::context::Context;

pub(super) fn flows(context: &Context<'_>) -> Vec<Flow> {
    let mut promises = asked_for(context);
    // A line for one account is not one for containers: their processes have no account here.
    promises.retain(|promise| promise.sender.is_none());
    let mut ports = probed(&promises);
    ports.extend(published(context).map(|of| (is_tcp(of.listen.protocol), of.container_port)));
    ports.sort_unstable();
    ports.dedup();
    let mut packets = Vec::new();
    let interfaces = interfaces(context);
    for from in &interfaces {
        for to in interfaces.iter().filter(|to| *to != from) {
            for (source, destination) in ends(context, from, to) {
                let published = [false, true].into_iter().take(if to == BRIDGE { 2 } else { 1 });
                for (published, (tcp, port)) in
                    published.flat_map(|of| ports.iter().map(move |port| (of, *port)))
                {
                    let way = Way::Through { from: from.clone(), to: to.clone(), published };
                    packets.push(Packet {
                        way,
                        from: source,
                        to: destination,
                        tcp,
                        source_port: SOURCE_PORT,
                        port,
                    });
                }
            }
        }
    }
    packets.into_iter().map(|packet| said(context, &promises, &packet).of(packet)).collect()
}

/// Who sends through one interface, and to whom through another.
fn ends(context: &Context<'_>, from: &str, to: &str) -> Vec<(std::net::IpAddr, std::net::IpAddr)> {
    let plane = |name: &str| context.planes.iter().find(|plane| plane.interface.as_str() == name);
    let sources = match plane(from) {
        Some(plane) => vec![peer(plane)],
        None if from == BRIDGE => vec![CONTAINER],
        None => STRANGERS.to_vec(),
    };
    let destinations = if to == BRIDGE {
        vec![CONTAINER]
    } else if from == BRIDGE {
        destinations(context).into_iter().filter(|to| *to != CONTAINER).collect()
    } else {
        plane(to).map_or_else(|| STRANGERS.to_vec(), |plane| vec![peer(plane)])
    };
    let pair = |source: std::net::IpAddr| {
        let fits = destinations.iter().filter(move |to| to.is_ipv4() == source.is_ipv4() && **to != source);
        fits.map(move |to| (source, *to)).collect::<Vec<_>>()
    };
    sources.into_iter().flat_map(pair).collect()
}

fn published<'a>(context: &Context<'a>) -> impl Iterator<Item = &'a Publish> {
    context.appliance.containers.iter().flat_map(|container| &container.publish)
}

fn said(context: &Context<'_>, promises: &[Promise], packet: &Packet) -> Said {
    let Way::Through { from, to, published: is_published } = &packet.way else {
        unreachable!("only what passes through is asked here")
    };
    let answers = |publish: &&Publish| {
        let here = match &publish.listen.on {
            ListenOn::Plane(interface) => interface.as_str() == from,
            ListenOn::Public(_) => public(context).hold(from),
            ListenOn::Loopback => false,
        };
        here && is_tcp(publish.listen.protocol) == packet.tcp && publish.container_port == packet.port
    };
    if let Some(plane) = leaves_in_clear(context, packet.to, to) {
        let reason = format!("what is meant for peers of {} never leaves in clear", plane.interface.value);
        return Said::drop(reason, plane.address.span);
    }
    if *is_published
        && to == BRIDGE
        && let Some(publish) = published(context).find(answers)
    {
        return Said::accept("a container answers here", publish.listen.span);
    }
    let outbound = &context.appliance.outbound;
    if from == BRIDGE {
        if outbound.unrestricted && public(context).hold(to) {
            return Said::accept("outbound: any", outbound.span);
        }
        if let Some(promise) = promises.iter().find(|promise| promise.covers(packet, to, None)) {
            return Said::accept(promise.reason.clone(), promise.span);
        }
    }
    Said::drop(format!("nothing lets {} pass from {from} to {to}", shown_port(packet)), Span::DEFAULT)
}
