//! `wireguard` → planes with addresses, ports, carriers and peers; defaults for what is not written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::fields::{Fields, impossible, items};
use super::network::plane_number;
use super::rules::network;
use crate::diagnostic::Reporter;
use crate::keys::{PEER, PLANE, WIREGUARD};
use crate::model::{Carrier, Peer, Plane, Zone, ZoneKind};
use crate::names::InterfaceName;
use crate::span::{Span, Spanned};
use crate::syntax::Node;
use crate::text::Text;
use crate::values::{Wrong, parse_base64};

/// What the section says, before defaults.
#[derive(Debug, Default)]
pub(super) struct Written {
    planes: BTreeMap<u8, WrittenPlane>,
    /// Each with the plane it names.
    peers: Vec<(Spanned<String>, Peer)>,
    /// Something in the section is still a placeholder or wrong.
    pub(super) incomplete: bool,
}

#[derive(Debug)]
struct WrittenPlane {
    interface: Spanned<InterfaceName>,
    address: Option<Spanned<IpNet>>,
    port: Option<Spanned<u16>>,
    over: Option<Spanned<String>>,
}

/// Reads the section.
pub(super) fn lower(node: &Node<'_>, report: &mut Reporter) -> Written {
    let mut written = Written { incomplete: node.any_pending(), ..Written::default() };
    super::fields::no_value(node, report);
    let mut rest = Vec::new();
    for child in &node.children {
        let Some((key, number)) = child.key.and_then(|key| Some((key, plane_number(key.as_str())?))) else {
            rest.push(child.clone());
            continue;
        };
        let Ok(name) = key.as_str().parse::<InterfaceName>() else { continue };
        if let Some(first) = written.planes.get(&number) {
            report
                .error("duplicate-key", key.span(), format!("`{}` is written twice", key.as_str()))
                .related(first.interface.span, "first written here");
            continue;
        }
        let plane = plane(key.with(name), child, report);
        written.planes.insert(number, plane);
    }
    let fields = Fields::read(&WIREGUARD, node.span(), rest, report);
    if let Some(peers) = fields.node("peers") {
        for item in items(peers, report) {
            match peer(item, report) {
                Some(peer) => written.peers.push(peer),
                None => written.incomplete = true,
            }
        }
    }
    written
}

fn plane(interface: Spanned<InterfaceName>, node: &Node<'_>, report: &mut Reporter) -> WrittenPlane {
    let fields = Fields::of(&PLANE, node, report);
    let address = fields.text("address", report).and_then(|text| {
        let text = text.bare();
        match parse_interface_address(text.as_str()) {
            Ok(address) => Some(text.with(address)),
            Err(wrong) => {
                impossible("address", text, wrong, report);
                None
            }
        }
    });
    let port = fields.integer("port", report);
    WrittenPlane { interface, address, port, over: fields.string("over", report) }
}

fn parse_interface_address(text: &str) -> Result<IpNet, Wrong> {
    let wrong = || {
        Wrong::because("an address on a plane has the length of its network behind it")
            .hint("for example `10.8.0.1/24`")
    };
    if !text.contains('/') {
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => wrong().hint(format!("write `{text}/24`")),
            Ok(IpAddr::V6(_)) => wrong().hint(format!("write `{text}/64`")),
            Err(_) => wrong(),
        });
    }
    let address: IpNet = text.parse().map_err(|_| wrong())?;
    let last = matches!(address, IpNet::V4(v4) if v4.prefix_len() < 31 && v4.addr() == v4.broadcast());
    if address.prefix_len() < address.max_prefix_len() - 1 && (address.addr() == address.network() || last) {
        return Err(Wrong::because("this is the network's own address, not a machine's")
            .hint("for example the first host: `10.8.0.1/24`"));
    }
    Ok(address)
}

fn peer(item: &Node<'_>, report: &mut Reporter) -> Option<(Spanned<String>, Peer)> {
    let fields = Fields::of(&PEER, item, report);
    let name = fields.string("name", report);
    let plane = fields.string("plane", report);
    let public_key = fields.text("public_key", report).and_then(|text| {
        let text = text.bare();
        match parse_base64(text.as_str()) {
            Some(bytes) if bytes.len() == 32 && bytes.iter().any(|b| *b != 0) => {
                Some(text.with(text.as_str().to_owned()))
            }
            _ => {
                let wrong = Wrong::because(
                    "a WireGuard public key is 32 bytes in base64, 44 characters with `=` at the end",
                )
                .hint("copy what `wg pubkey` prints, or `wg show wg0 public-key` on the peer");
                impossible("public_key", text, wrong, report);
                None
            }
        }
    });
    let allowed: Vec<Text<'_>> = fields.list("allowed_ips", report);
    let allowed_ips: Vec<_> = allowed.iter().filter_map(|word| network(*word, report)).collect();
    let endpoint = fields.string("endpoint", report);
    let keepalive_seconds = fields.integer("keepalive", report);
    let peer = Peer { name: name?, public_key: public_key?, allowed_ips, endpoint, keepalive_seconds };
    Some((plane?, peer))
}

/// The planes: what is written, and defaults for the rest. `target` is the other end of the replication, which must not
/// be given away as an own address.
pub(super) fn resolve(
    written: Written,
    zones: &[Zone],
    target: Option<IpAddr>,
    report: &mut Reporter,
) -> Vec<Plane> {
    let mut planes = written.planes;
    for zone in zones.iter().filter(|zone| zone.kind == ZoneKind::Plane) {
        if let Some(number) = plane_number(zone.interface.as_str()) {
            planes.entry(number).or_insert_with(|| WrittenPlane {
                interface: zone.interface.clone(),
                address: None,
                port: None,
                over: None,
            });
        }
    }
    let mut peers: BTreeMap<u8, Vec<Peer>> = BTreeMap::new();
    for (plane, peer) in written.peers {
        match plane_number(&plane.value).filter(|number| planes.contains_key(number)) {
            Some(number) => peers.entry(number).or_default().push(peer),
            None => unknown_plane(&plane, &planes, report),
        }
    }
    let has_wg0 = planes.contains_key(&0);
    let names: Vec<InterfaceName> = planes.values().map(|plane| plane.interface.value.clone()).collect();
    let mut resolved = Vec::new();
    for (number, plane) in planes {
        let peers = peers.remove(&number).unwrap_or_default();
        let address =
            plane.address.unwrap_or_else(|| Spanned::default_value(free_address(number, &peers, target)));
        let port = plane.port.unwrap_or_else(|| Spanned::default_value(51_820 + u16::from(number)));
        let carrier = match plane.over {
            None if number > 0 && has_wg0 => Spanned::default_value(Carrier::Plane(wg0())),
            None => Spanned::default_value(Carrier::Public),
            Some(over) => carrier(&over, &names, report),
        };
        resolved.push(Plane { interface: plane.interface, address, port, carrier, peers });
    }
    check_carriers(&resolved, report);
    resolved
}

fn wg0() -> InterfaceName {
    "wg0".parse().expect("`wg0` is an interface name")
}

fn unknown_plane(plane: &Spanned<String>, planes: &BTreeMap<u8, WrittenPlane>, report: &mut Reporter) {
    let known: Vec<&str> = planes.values().map(|plane| plane.interface.as_str()).collect();
    let hint = if known.is_empty() {
        "name the plane in `network_topology`".to_owned()
    } else {
        format!("the planes are {}", crate::keys::all_of(&known))
    };
    report.error("unknown-plane", plane.span, format!("there is no plane `{}`", plane.value)).hint(hint);
}

/// The first host of 10.8.N.0/24 that nobody else has.
fn free_address(number: u8, peers: &[Peer], target: Option<IpAddr>) -> IpNet {
    let taken = |address: Ipv4Addr| {
        let address = IpAddr::V4(address);
        let by_peer = |peer: &Peer| {
            // A peer that routes the whole network does not have every address of it.
            peer.allowed_ips.iter().any(|net| net.prefix_len() > 24 && net.contains(&address))
        };
        target == Some(address) || peers.iter().any(by_peer)
    };
    let free = (1..=254).map(|host| Ipv4Addr::new(10, 8, number, host)).find(|address| !taken(*address));
    let address = free.unwrap_or(Ipv4Addr::new(10, 8, number, 1));
    IpNet::V4(Ipv4Net::new(address, 24).expect("24 is a prefix length of IPv4"))
}

fn carrier(over: &Spanned<String>, planes: &[InterfaceName], report: &mut Reporter) -> Spanned<Carrier> {
    if over.value == "public" {
        return Spanned::new(Carrier::Public, over.span);
    }
    if let Some(plane) = planes.iter().find(|plane| plane.as_str() == over.value) {
        return Spanned::new(Carrier::Plane(plane.clone()), over.span);
    }
    let known: Vec<&str> = planes.iter().map(InterfaceName::as_str).chain(["public"]).collect();
    report
        .error("unknown-plane", over.span, format!("there is no plane `{}` to go over", over.value))
        .hint(format!("write {}", crate::keys::one_of(&known)));
    Spanned::new(Carrier::Public, over.span)
}

/// Follows every plane down to the public interface.
fn check_carriers(planes: &[Plane], report: &mut Reporter) {
    for plane in planes {
        let mut at = plane;
        for _ in 0..=planes.len() {
            match &at.carrier.value {
                Carrier::Public => break,
                Carrier::Plane(next) if *next == plane.interface.value => {
                    let span: Span = if plane.carrier.span.is_written() {
                        plane.carrier.span
                    } else {
                        plane.interface.span
                    };
                    report
                        .error(
                            "carrier-loop",
                            span,
                            format!("`{}` would travel over itself", plane.interface.value),
                        )
                        .hint("one plane goes over `public`");
                    break;
                }
                Carrier::Plane(next) => match planes.iter().find(|p| p.interface.value == *next) {
                    Some(next) => at = next,
                    None => break,
                },
            }
        }
    }
}
