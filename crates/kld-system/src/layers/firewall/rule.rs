//! nftables rules as typed values; text comes last. Follows nft(8), and keeps to what nftables 1.0.6 reads.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use kld_manifest::model::{PortRange, Protocol};

use crate::context::protocol_name;
use crate::system::{Because, Item};

/// A rule: everything it matches, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<Match>,
    pub(crate) action: Action,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// Came in through one of these.
    In(Names),
    /// Leaves through one of these.
    Out(Names),
    /// Comes from one of these networks, all of one family.
    From(Vec<IpNet>),
    /// Goes to one of these networks, all of one family.
    To(Vec<IpNet>),
    /// State of the connection, `established,related`.
    State(&'static str),
    /// Destination ports.
    Ports(Protocol, Vec<PortRange>),
    /// Source port of a protocol.
    SourcePort(Protocol, u16),
    /// Socket of this account, by name or number.
    User(String),
    /// Written as it is: ICMP types and the like, which need no variants.
    Is(&'static str),
}

/// Interfaces, as a list or as all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Names {
    /// One of these.
    Any(Vec<String>),
    /// None of these.
    Not(Vec<String>),
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    Drop,
    /// Accepts at most this many a second in all.
    AcceptLimited {
        per_second: u32,
    },
    /// Drops what one source sends beyond this; counts sources in the set.
    DropAbove {
        set: SourceSet,
        per_second: u32,
        burst: u32,
    },
    /// Writes to the log, at most five times a second, and goes on.
    Log {
        prefix: &'static str,
    },
    /// Goes on in another chain.
    Jump(String),
}

/// A set that counts sources of one address family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceSet {
    pub(crate) name: String,
    pub(crate) ipv6: bool,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        write!(f, "{}", self.action)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(names) => write!(f, "iifname {names}"),
            Self::Out(names) => write!(f, "oifname {names}"),
            Self::From(networks) => {
                write!(f, "{} saddr {}", family(networks), set(networks.iter().map(network)))
            }
            Self::To(networks) => {
                write!(f, "{} daddr {}", family(networks), set(networks.iter().map(network)))
            }
            Self::State(state) => write!(f, "ct state {state}"),
            Self::Ports(protocol, ports) => {
                write!(f, "{} dport {}", protocol_name(*protocol), set(ports.iter().map(range)))
            }
            Self::SourcePort(protocol, port) => write!(f, "{} sport {port}", protocol_name(*protocol)),
            Self::User(user) => match user.parse::<u32>() {
                Ok(number) => write!(f, "meta skuid {number}"),
                Err(_) => write!(f, "meta skuid \"{user}\""),
            },
            Self::Is(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |names: &[String]| set(names.iter().map(|name| format!("\"{name}\"")));
        match self {
            Self::Any(names) => f.write_str(&quoted(names)),
            Self::Not(names) => write!(f, "!= {}", quoted(names)),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("counter drop"),
            Self::AcceptLimited { per_second } => write!(f, "limit rate {per_second}/second accept"),
            Self::DropAbove { set, per_second, burst } => {
                // One household or attacker has a whole /64 of IPv6.
                let source = if set.ipv6 { "ip6 saddr and ffff:ffff:ffff:ffff::" } else { "ip saddr" };
                let name = &set.name;
                write!(
                    f,
                    "ct state new update @{name} {{ {source} limit rate over {per_second}/second burst {burst} packets }} counter drop"
                )
            }
            Self::Log { prefix } => {
                write!(f, "limit rate 5/second burst 10 packets log prefix \"{prefix}: \" level info")
            }
            Self::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}

/// A chain of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    /// `type filter hook input priority filter; policy drop;`, for a chain that the kernel calls.
    pub(crate) hook: Option<&'static str>,
    pub(crate) because: Because,
    pub(crate) rules: Vec<Item<Rule>>,
}

impl Chain {
    pub(crate) fn new(name: impl Into<String>, hook: Option<&'static str>, because: Because) -> Self {
        Self { name: name.into(), hook, because, rules: Vec::new() }
    }

    pub(crate) fn add(&mut self, matches: Vec<Match>, action: Action, because: Because) {
        self.rules.push(Item::new(Rule { matches, action }, because));
    }
}

/// The chains as text, with the sets they use, atomically replacing the table of that name.
pub(crate) fn to_text(table: &str, chains: &[Chain]) -> String {
    let mut text = format!(
        "#!/usr/sbin/nft -f\n\
         # What may come in, pass through and go out. Written by kldload; `kldload explain` names the manifest lines.\n\n\
         # Replaces this table in one step and leaves those of others alone.\n\
         table inet {table}\ndelete table inet {table}\n\ntable inet {table} {{\n"
    );
    let sets: BTreeSet<&SourceSet> = chains
        .iter()
        .flat_map(|chain| &chain.rules)
        .filter_map(|rule| match &rule.value.action {
            Action::DropAbove { set, .. } => Some(set),
            _ => None,
        })
        .collect();
    for set in sets {
        let kind = if set.ipv6 { "ipv6_addr" } else { "ipv4_addr" };
        text.push_str(&format!(
            "\tset {} {{\n\t\ttype {kind}\n\t\tsize 65535\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}}\n\n",
            set.name
        ));
    }
    for chain in chains {
        text.push_str(&format!("\tchain {} {{\n", chain.name));
        if let Some(hook) = chain.hook {
            text.push_str(&format!("\t\t{hook}\n"));
        }
        for rule in &chain.rules {
            text.push_str(&format!("\t\t# {}\n\t\t{}\n", rule.because.reason.replace('\n', " "), rule.value));
        }
        text.push_str("\t}\n\n");
    }
    text.truncate(text.trim_end().len());
    text + "\n}\n"
}

/// Networks of one family after the other: nftables wants `ip` and `ip6` apart. Empty when there are none.
pub(crate) fn by_family(networks: &[IpNet]) -> Vec<Vec<IpNet>> {
    let mut sorted: Vec<IpNet> = networks.iter().map(IpNet::trunc).collect();
    sorted.sort();
    // An interval set must not hold a network and a part of it.
    let sorted = IpNet::aggregate(&sorted);
    let (four, six): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|n| matches!(n, IpNet::V4(_)));
    [four, six].into_iter().filter(|family| !family.is_empty()).collect()
}

fn family(networks: &[IpNet]) -> &'static str {
    if matches!(networks.first(), Some(IpNet::V6(_))) { "ip6" } else { "ip" }
}

fn network(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.trunc().to_string()
    }
}

fn range(range: &PortRange) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}-{}", range.first, range.last)
    }
}

/// One element as it is, several in braces.
fn set(elements: impl Iterator<Item = String>) -> String {
    let elements: Vec<_> = elements.collect();
    match elements.as_slice() {
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().expect("the test states networks")).collect()
    }

    #[test]
    fn networks_are_split_by_family_and_merged_where_they_overlap() {
        let split = by_family(&networks(&["10.1.0.0/16", "2001:db8::1/128", "10.1.2.0/24", "10.0.0.7/8"]));
        assert_eq!(split, [networks(&["10.0.0.0/8"]), networks(&["2001:db8::1/128"])]);
        assert!(by_family(&[]).is_empty());
    }

    #[test]
    fn rules_read_as_nft_writes_them() {
        let range = |first, last| PortRange { first, last };
        for (matches, action, text) in [
            (vec![], Action::Drop, "counter drop"),
            (
                vec![
                    Match::From(networks(&["10.0.0.0/8", "192.0.2.1/32"])),
                    Match::Ports(Protocol::Tcp, vec![range(22, 22), range(80, 90)]),
                ],
                Action::Accept,
                "ip saddr { 10.0.0.0/8, 192.0.2.1 } tcp dport { 22, 80-90 } accept",
            ),
            (
                vec![
                    Match::In(Names::Not(vec!["lo".into(), "wg0".into()])),
                    Match::To(networks(&["fd00::/8"])),
                ],
                Action::Jump("public".into()),
                "iifname != { \"lo\", \"wg0\" } ip6 daddr fd00::/8 jump public",
            ),
            (vec![Match::User("800".into())], Action::Accept, "meta skuid 800 accept"),
            (vec![Match::User("postgres".into())], Action::Accept, "meta skuid \"postgres\" accept"),
        ] {
            assert_eq!(Rule { matches, action }.to_string(), text);
        }
    }
}
