//! Planes and peers: no address, network, port or key is given twice.

use ipnet::IpNet;

use crate::diagnostic::Reporter;
use crate::lower::Draft;
use crate::model::{Peer, Plane};
use crate::span::Span;

pub(super) fn check(draft: &Draft, report: &mut Reporter) {
    let planes = &draft.planes;
    for (at, plane) in planes.iter().enumerate() {
        for earlier in &planes[..at] {
            pair(earlier, plane, report);
        }
        peers(plane, report);
    }
    let all: Vec<(&Plane, &Peer)> =
        planes.iter().flat_map(|plane| plane.peers.iter().map(move |peer| (plane, peer))).collect();
    for (at, (plane, peer)) in all.iter().enumerate() {
        let same = all[..at].iter().find(|(_, other)| other.public_key.value == peer.public_key.value);
        if let Some((first_plane, first)) = same {
            let message = if first_plane.interface.value == plane.interface.value {
                format!("`{}` and `{}` have the same public key", first.name.value, peer.name.value)
            } else {
                format!(
                    "the same public key is used on `{}` and `{}`",
                    first_plane.interface.value, plane.interface.value
                )
            };
            report
                .error("peer-key-twice", peer.public_key.span, message)
                .hint("make a key pair for every peer on every plane: `wg genkey`")
                .related(first.public_key.span, "first used here");
        }
    }
}

/// Where to point: the value when it is written, else the plane's name.
fn place(value: Span, plane: &Plane) -> Span {
    if value.is_written() { value } else { plane.interface.span }
}

fn pair(earlier: &Plane, plane: &Plane, report: &mut Reporter) {
    let (a, b) = (&earlier.address, &plane.address);
    if overlap(&a.value, &b.value) {
        // The written one is at fault when the other is a default.
        let (at_fault, by, other, other_plane) = if b.span.is_written() || !a.span.is_written() {
            (place(b.span, plane), plane, place(a.span, earlier), earlier)
        } else {
            (a.span, earlier, plane.interface.span, plane)
        };
        let message = if a.addr() == b.addr() {
            format!("`{}` and `{}` have the same address", other_plane.interface.value, by.interface.value)
        } else {
            let networks = (other_plane.address.trunc(), by.address.trunc());
            format!(
                "the networks of `{}` ({}) and `{}` ({}) overlap",
                other_plane.interface.value, networks.0, by.interface.value, networks.1
            )
        };
        report
            .error("network-overlap", at_fault, message)
            .hint("give each plane a network of its own, for example 10.8.N.0/24")
            .related(other, format!("`{}` is here", other_plane.interface.value));
    }
    if earlier.port.value == plane.port.value {
        let (at_fault, other) = if plane.port.span.is_written() {
            (plane.port.span, place(earlier.port.span, earlier))
        } else {
            (place(earlier.port.span, earlier), plane.interface.span)
        };
        let message = format!(
            "`{}` and `{}` both use UDP port {}",
            earlier.interface.value, plane.interface.value, plane.port.value
        );
        report
            .error("wireguard-port-twice", at_fault, message)
            .hint("give each plane a port of its own; the default for wgN is 51820 + N")
            .related(other, "the other plane");
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn peers(plane: &Plane, report: &mut Reporter) {
    for (at, peer) in plane.peers.iter().enumerate() {
        let earlier = &plane.peers[..at];
        if let Some(first) = earlier.iter().find(|other| other.name.value == peer.name.value) {
            let message =
                format!("two peers of `{}` are called `{}`", plane.interface.value, peer.name.value);
            report
                .error("duplicate-value", peer.name.span, message)
                .related(first.name.span, "first named here");
        }
        for net in &peer.allowed_ips {
            if !plane.address.contains(&net.value) {
                let message = format!(
                    "`{}` is outside the network of `{}`, {}",
                    net.value,
                    plane.interface.value,
                    plane.address.trunc()
                );
                report
                    .error("outside-plane", net.span, message)
                    .hint("a peer uses addresses of its plane")
                    .related(plane.address.span, "the plane's address");
                continue;
            }
            if net.prefix_len() == net.max_prefix_len() && net.addr() == plane.address.addr() {
                let message =
                    format!("`{}` is this machine's own address on `{}`", net.addr(), plane.interface.value);
                report
                    .error("address-twice", net.span, message)
                    .hint("give the peer another address")
                    .related(plane.address.span, "the machine's address");
            }
            let taken = earlier.iter().flat_map(|p| p.allowed_ips.iter().map(move |n| (p, n)));
            if let Some((first, other)) = taken.clone().find(|(_, other)| overlap(&other.value, &net.value)) {
                report
                    .error(
                        "address-twice",
                        net.span,
                        format!("`{}` already belongs to `{}`", net.value, first.name.value),
                    )
                    .hint("WireGuard sends each address to one peer only")
                    .related(other.span, "first given here");
            }
        }
    }
}
