//! What the rules do with a packet, decided without a kernel.
//!
//! A packet begins a connection: what belongs to one that was accepted is accepted, in both directions. Rates count as not
//! reached. A test sends the same packets through real nftables (`tests/checkers.rs`).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use kld_manifest::model::Protocol;

use super::TABLE;
use super::flow::{self, Broken, Flow};
use super::rule::{Action, Chain, Match, Names, Rule};
use crate::context::Context;
use crate::system::Item;

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

/// The first packet of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it meets the rules.
    pub way: Way,
    /// Where it comes from.
    pub from: IpAddr,
    /// Where it goes to.
    pub to: IpAddr,
    /// `true`: TCP, `false`: UDP.
    pub tcp: bool,
    /// The port it comes from.
    pub source_port: u16,
    /// The port it goes to.
    pub port: u16,
}

/// Which way a packet takes through the machine, and with it the chain that the kernel asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It is for the machine.
    In {
        /// The interface it comes in through.
        interface: String,
    },
    /// The machine sends it.
    Out {
        /// The interface it leaves through.
        interface: String,
        /// Whose process sends it; `None`: the kernel itself.
        sender: Option<Sender>,
    },
    /// It passes through.
    Through {
        /// The interface it comes in through.
        from: String,
        /// The interface it leaves through.
        to: String,
        /// It was for a port of the machine that a container has published.
        published: bool,
    },
}

/// An account that sends a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// Its name.
    pub name: String,
    /// Its number; `None` for an account that a package makes, whose number only the machine knows.
    pub number: Option<u32>,
}

impl Sender {
    /// Whether a rule that names an account, by name or number, means this one.
    fn is(&self, user: &str) -> bool {
        user.parse().map_or(self.name == user, |number: u32| self.number == Some(number))
    }
}

impl Way {
    /// The chain that the kernel asks.
    fn hook(&self) -> &'static str {
        match self {
            Self::In { .. } => "input",
            Self::Out { .. } => "output",
            Self::Through { .. } => "forward",
        }
    }

    /// The interface that it came in through. Without one the kernel compares with nothing: `""`.
    fn came_in(&self) -> &str {
        match self {
            Self::In { interface } | Self::Through { from: interface, .. } => interface,
            Self::Out { .. } => "",
        }
    }

    /// The interface that it leaves through.
    fn leaves(&self) -> &str {
        match self {
            Self::Out { interface, .. } | Self::Through { to: interface, .. } => interface,
            Self::In { .. } => "",
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { way, from, to, source_port, port, .. } = self;
        let protocol = if self.tcp { "tcp" } else { "udp" };
        write!(f, "{protocol} {}", std::net::SocketAddr::new(*from, *source_port))?;
        write!(f, " to {} ", std::net::SocketAddr::new(*to, *port))?;
        match way {
            Way::In { interface } => write!(f, "through {interface}"),
            Way::Out { interface, sender } => {
                let sender = sender.as_ref().map_or("the kernel", |sender| &sender.name);
                write!(f, "out through {interface} by {sender}")
            }
            Way::Through { from, to, published } => {
                let published = if *published { ", published" } else { "" };
                write!(f, "passing from {from} to {to}{published}")
            }
        }
    }
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It does not.
    Drop,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        })
    }
}

impl Ruleset {
    pub(super) fn new(chains: Vec<Chain>, context: &Context<'_>) -> Self {
        Self { chains, flows: flow::all(context) }
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

    /// The first flow whose verdict is not the manifest's; there is none unless the rules are wrong.
    pub fn broken(&self) -> Option<Broken> {
        self.flows.iter().find_map(|flow| {
            let (verdict, rule) = self.decide(&flow.packet);
            (verdict != flow.wanted).then(|| Broken { flow: flow.clone(), verdict, rule })
        })
    }

    /// What happens to a packet.
    pub fn verdict(&self, packet: &Packet) -> Verdict {
        self.decide(packet).0
    }

    /// What happens to a packet, and the rule that says so.
    fn decide(&self, packet: &Packet) -> (Verdict, String) {
        let hook = packet.way.hook();
        let Some(chain) = self.chains.iter().find(|chain| chain.name == hook) else {
            return (Verdict::Accept, format!("no chain `{hook}`"));
        };
        match self.walk(chain, packet) {
            Some((verdict, chain, rule)) => (verdict, format!("{}: {}", chain.name, rule.value)),
            None => {
                let accepts = chain.hook.is_some_and(|hook| hook.contains("policy accept"));
                let verdict = if accepts { Verdict::Accept } else { Verdict::Drop };
                (verdict, format!("{hook}: policy {verdict}"))
            }
        }
    }

    /// `None`: the chain decides nothing, and the one that jumped here goes on.
    fn walk<'a>(&'a self, chain: &'a Chain, packet: &Packet) -> Option<(Verdict, &'a Chain, &'a Item<Rule>)> {
        let mut rules =
            chain.rules.iter().filter(|rule| rule.value.matches.iter().all(|m| matches(m, packet)));
        rules.find_map(|rule| match &rule.value.action {
            Action::Accept | Action::AcceptLimited { .. } => Some((Verdict::Accept, chain, rule)),
            Action::Drop => Some((Verdict::Drop, chain, rule)),
            Action::DropAbove { .. } | Action::Log { .. } => None,
            Action::Jump(name) => {
                self.chains.iter().find(|of| of.name == *name).and_then(|of| self.walk(of, packet))
            }
        })
    }
}

fn matches(condition: &Match, packet: &Packet) -> bool {
    let in_one =
        |networks: &[IpNet], address: IpAddr| networks.iter().any(|network| network.contains(&address));
    let is = |protocol: Protocol| packet.tcp == (protocol == Protocol::Tcp);
    match condition {
        Match::In(names) => names.hold(packet.way.came_in()),
        Match::Out(names) => names.hold(packet.way.leaves()),
        Match::User(user) => {
            matches!(&packet.way, Way::Out { sender: Some(sender), .. } if sender.is(user))
        }
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

impl Names {
    /// Whether an interface is one of these.
    pub(super) fn hold(&self, interface: &str) -> bool {
        match self {
            Self::Any(names) => names.iter().any(|name| name == interface),
            Self::Not(names) => !names.iter().any(|name| name == interface),
        }
    }
}

/// Conditions that are written as they are: some of `udp sport N`, `udp dport N`, `ip6 saddr NETWORK`, `ct status dnat`. What
/// speaks of anything else (ICMP) is of no packet that is decided here.
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
        ["ct", "status", "dnat"] => matches!(packet.way, Way::Through { published: true, .. }),
        _ => false,
    })
}

#[cfg(test)]
impl Ruleset {
    /// The rules of a chain, to be spoilt.
    pub(super) fn rules_of(&mut self, chain: &str) -> &mut Vec<Item<Rule>> {
        &mut self.chains.iter_mut().find(|of| of.name == chain).expect("there is such a chain").rules
    }
}
