//! What the rules do with a packet, decided without a kernel, and the flows that a manifest promises and forbids.
//!
//! A packet begins a connection: what belongs to one that was accepted is accepted, in both directions. Rates count as not
//! reached. The same table is sent through real nftables in a test (`tests/verdicts.rs`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use kld_manifest::model::{PortRange, Protocol, ZoneKind};

use super::TABLE;
use super::inbound::openings;
use super::rule::{Action, Chain, Match, Names};
use crate::context::{Context, protocol_name};

/// The rules of a machine, and what they must do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    chains: Vec<Chain>,
    flows: Vec<Flow>,
}

/// What can be seen of a chain in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outline<'a> {
    /// Its name.
    pub name: &'a str,
    /// `input`, `forward`, `output`; `None` for a chain that others jump to.
    pub hook: Option<&'a str>,
    /// `accept` or `drop`, of a chain with a hook.
    pub policy: Option<&'a str>,
    /// How many rules it has.
    pub rules: usize,
}

/// The first packet of a connection that somebody opens to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The interface it comes in through.
    pub interface: String,
    /// Where it comes from.
    pub from: IpAddr,
    /// Where it goes to: an address of the machine.
    pub to: IpAddr,
    /// `true`: TCP, `false`: UDP.
    pub tcp: bool,
    /// The port it comes from.
    pub source_port: u16,
    /// The port it goes to.
    pub port: u16,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, from, to, source_port, port, .. } = self;
        let protocol = if self.tcp { "tcp" } else { "udp" };
        write!(f, "{protocol} {from}:{source_port} to {to}:{port} through {interface}")
    }
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It comes in.
    Accept,
    /// It does not.
    Drop,
}

/// A packet whose verdict the manifest decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The packet.
    pub packet: Packet,
    /// What must happen to it.
    pub wanted: Verdict,
    /// Why.
    pub reason: String,
}

impl Ruleset {
    pub(super) fn new(chains: Vec<Chain>, context: &Context<'_>) -> Self {
        Self { chains, flows: flows(context) }
    }

    /// Family and name of the table that they are in.
    pub const TABLE: (&'static str, &'static str) = ("inet", TABLE);

    /// The chains as the kernel lists them.
    pub fn outlines(&self) -> impl Iterator<Item = Outline<'_>> {
        // `type filter hook input priority filter; policy drop;`
        fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
            let mut words = text.split([' ', ';']);
            words.find(|of| *of == word).and_then(|_| words.next())
        }
        self.chains.iter().map(|chain| Outline {
            name: &chain.name,
            hook: chain.hook.and_then(|text| after(text, "hook")),
            policy: chain.hook.and_then(|text| after(text, "policy")),
            rules: chain.rules.len(),
        })
    }

    /// What the manifest promises and forbids.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Flows whose verdict is not the manifest's; there are none unless the rules are wrong.
    pub fn broken(&self) -> Vec<&Flow> {
        self.flows.iter().filter(|flow| self.verdict(&flow.packet) != flow.wanted).collect()
    }

    /// What happens to a packet that comes in.
    pub fn verdict(&self, packet: &Packet) -> Verdict {
        let Some(input) = self.chains.iter().find(|chain| chain.name == "input") else {
            return Verdict::Accept;
        };
        let policy = if input.hook.is_some_and(|hook| hook.contains("policy accept")) {
            Verdict::Accept
        } else {
            Verdict::Drop
        };
        self.walk(input, packet).unwrap_or(policy)
    }

    /// `None`: the chain decides nothing, and the one that jumped here goes on.
    fn walk(&self, chain: &Chain, packet: &Packet) -> Option<Verdict> {
        chain.rules.iter().filter(|rule| rule.value.matches.iter().all(|m| matches(m, packet))).find_map(
            |rule| match &rule.value.action {
                Action::Accept | Action::AcceptLimited { .. } => Some(Verdict::Accept),
                Action::Drop => Some(Verdict::Drop),
                Action::DropAbove { .. } | Action::Log { .. } => None,
                Action::Jump(name) => {
                    self.chains.iter().find(|of| of.name == *name).and_then(|of| self.walk(of, packet))
                }
            },
        )
    }
}

fn matches(condition: &Match, packet: &Packet) -> bool {
    let in_one =
        |networks: &[IpNet], address: IpAddr| networks.iter().any(|network| network.contains(&address));
    let is = |protocol: Protocol| packet.tcp == (protocol == Protocol::Tcp);
    match condition {
        Match::In(names) => named(names, &packet.interface),
        Match::Out(_) | Match::User(_) => false,
        Match::From(networks) => in_one(networks, packet.from),
        Match::To(networks) => in_one(networks, packet.to),
        // It begins a connection.
        Match::State(state) => state.split(',').any(|word| word == "new"),
        Match::Ports(protocol, ports) => {
            is(*protocol) && ports.iter().any(|range| (range.first..=range.last).contains(&packet.port))
        }
        Match::SourcePort(protocol, port) => is(*protocol) && packet.source_port == *port,
        Match::Is(text) => written(text, packet),
    }
}

fn named(names: &Names, interface: &str) -> bool {
    match names {
        Names::Any(names) => names.iter().any(|name| name == interface),
        Names::Not(names) => !names.iter().any(|name| name == interface),
    }
}

/// Conditions that are written as they are: pairs of `udp sport N`, `udp dport N`, `ip6 saddr NETWORK`. What speaks of
/// anything else (ICMP, translated addresses) is of no packet that is decided here.
fn written(text: &str, packet: &Packet) -> bool {
    let words: Vec<&str> = text.split(' ').collect();
    words.chunks(3).all(|condition| match condition {
        ["udp" | "tcp", what, number] => {
            let port = if *what == "sport" { packet.source_port } else { packet.port };
            (condition[0] == "tcp") == packet.tcp && number.parse() == Ok(port)
        }
        ["ip6", "saddr", network] => {
            network.parse::<IpNet>().is_ok_and(|network| network.contains(&packet.from))
        }
        _ => false,
    })
}

/// Ports that people probe, whatever the manifest says.
const PROBED: [u16; 8] = [22, 53, 80, 111, 443, 5432, 8000, 9100];
/// RFC 5737: an address that is nobody's.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));
/// What the machine is called by on its public interface, in these packets.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PUBLIC_INTERFACE: &str = "eth0";
const SOURCE_PORT: u16 = 40_000;

/// A place from which packets come.
struct Place {
    interface: String,
    kind: ZoneKind,
    from: IpAddr,
    to: IpAddr,
}

fn flows(context: &Context<'_>) -> Vec<Flow> {
    let openings = openings(context);
    let public = context.zones.iter().find(|zone| zone.kind == ZoneKind::Public);
    let public = public.map_or_else(|| PUBLIC_INTERFACE.to_owned(), |zone| zone.interface.to_string());
    let mut places =
        vec![Place { interface: public.clone(), kind: ZoneKind::Public, from: STRANGER, to: PUBLIC }];
    for plane in &context.planes {
        let (interface, kind, to) = (plane.interface.to_string(), ZoneKind::Plane, plane.address.addr());
        let peer = plane.address.hosts().find(|address| *address != to).unwrap_or(to);
        places.push(Place { interface, kind, from: peer, to });
    }
    let mut probed: Vec<(bool, u16)> =
        [true, false].iter().flat_map(|tcp| PROBED.map(|port| (*tcp, port))).collect();
    probed.extend(openings.iter().flat_map(|opening| {
        opening.ports.iter().flat_map(|range| {
            [
                (opening.protocol == Protocol::Tcp, range.first),
                (opening.protocol == Protocol::Tcp, range.last),
            ]
        })
    }));
    probed.sort_unstable();
    probed.dedup();

    let mut flows = Vec::new();
    for place in &places {
        for (tcp, port) in &probed {
            let here = |interface: &str, kind| {
                kind == place.kind && (interface == "*" || interface == place.interface)
            };
            let opening = openings.iter().find(|opening| {
                here(&opening.interface, opening.kind)
                    && (opening.protocol == Protocol::Tcp) == *tcp
                    && opening.ports.iter().any(|PortRange { first, last }| (first..=last).contains(&port))
            });
            // Whoever may come in, when not everybody may.
            let from = opening.and_then(|o| o.from.first()).map_or(place.from, IpNet::addr);
            let same_family = from.is_ipv4() == place.to.is_ipv4();
            let packet = Packet {
                interface: place.interface.clone(),
                from: if same_family { from } else { place.from },
                to: place.to,
                tcp: *tcp,
                source_port: SOURCE_PORT,
                port: *port,
            };
            let protocol = protocol_name(if *tcp { Protocol::Tcp } else { Protocol::Udp });
            let (wanted, reason) = match opening {
                Some(opening) if same_family => (Verdict::Accept, opening.reason.clone()),
                Some(_) => continue,
                None => (Verdict::Drop, format!("nothing opens {protocol} {port} on {}", place.interface)),
            };
            flows.push(Flow { packet, wanted, reason });
        }
        // A plane's addresses are of no use outside of it.
        for plane in context.planes.iter().filter(|plane| plane.interface.as_str() != place.interface) {
            let inside = plane.address.hosts().find(|address| *address != plane.address.addr());
            let mut spoofed = |from, to, reason: String| {
                let (interface, port) = (place.interface.clone(), 22);
                let packet = Packet { interface, from, to, tcp: true, source_port: SOURCE_PORT, port };
                flows.push(Flow { packet, wanted: Verdict::Drop, reason });
            };
            if let Some(inside) = inside.filter(|inside| inside.is_ipv4() == place.to.is_ipv4()) {
                spoofed(inside, place.to, format!("only {} carries its own network", plane.interface.value));
            }
            if plane.address.addr().is_ipv4() == place.from.is_ipv4() {
                let reason =
                    format!("{} is reached over {} only", plane.address.addr(), plane.interface.value);
                spoofed(place.from, plane.address.addr(), reason);
            }
        }
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render;

    fn recipe() -> Ruleset {
        let text = include_str!("../../../../../recipes/webapp/appliance.manifest");
        let appliance = kld_manifest::check(text).appliance.expect("the recipe is good");
        render(&appliance).expect("it renders").firewall
    }

    #[test]
    fn the_recipe_keeps_its_promises() {
        let rules = recipe();
        assert_eq!(rules.broken(), [] as [&Flow; 0]);
        let accepted: Vec<String> = rules
            .flows()
            .iter()
            .filter(|flow| flow.wanted == Verdict::Accept)
            .map(|flow| flow.packet.to_string())
            .collect();
        expect_test::expect![[r#"
            udp 192.0.2.99:40000 to 192.0.2.1:51820 through eth0
            udp 10.8.0.2:40000 to 10.8.0.1:51821 through wg0
            udp 10.8.0.2:40000 to 10.8.0.1:51822 through wg0
            tcp 10.8.0.2:40000 to 10.8.0.1:22 through wg0
            tcp 10.8.0.2:40000 to 10.8.0.1:8000 through wg0
            tcp 10.8.1.2:40000 to 10.8.1.1:9100 through wg1"#]]
        .assert_eq(&accepted.join("\n"));
    }

    #[test]
    fn a_wrong_rule_breaks_a_promise() {
        let mut rules = recipe();
        // An open door.
        rules.chains.iter_mut().find(|chain| chain.name == "public").expect("there").rules[0]
            .value
            .matches
            .clear();
        let public = rules.chains.iter_mut().find(|chain| chain.name == "public").expect("there");
        public.rules[0].value.action = Action::Accept;
        assert!(
            rules.broken().iter().any(|flow| flow.wanted == Verdict::Drop && flow.packet.interface == "eth0")
        );
        // A closed one.
        let mut rules = recipe();
        rules.chains.iter_mut().find(|chain| chain.name == "plane_wg0").expect("there").rules.clear();
        assert!(rules.broken().iter().any(|flow| flow.wanted == Verdict::Accept && flow.packet.port == 8000));
    }
}
