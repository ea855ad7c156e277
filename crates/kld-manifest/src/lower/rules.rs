//! Rules on one line: `TCP 80,443 what they are for`.
//!
//! The next rule begins after `, TCP` or `, UDP`. A line of prose that mentions a port without opening it is refused
//! rather than taken for a remark: a reader would believe the port open.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fields::impossible;
use crate::diagnostic::Reporter;
use crate::model::{Allow, OutboundRule, PortRange, Protocol};
use crate::span::{Span, Spanned};
use crate::text::Text;
use crate::values::{self, Wrong};

/// Which way the connections of a rule go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

impl Direction {
    /// The word before the networks of a rule.
    fn networks_word(self) -> &'static str {
        match self {
            Direction::In => "from",
            Direction::Out => "to",
        }
    }
}

/// A rule as one line says it.
#[derive(Debug)]
pub(super) struct Rule {
    protocol: Protocol,
    ports: Vec<PortRange>,
    purpose: Option<String>,
    networks: Vec<IpNet>,
    rate: Option<u32>,
    span: Span,
}

impl Rule {
    pub(super) fn into_allow(self) -> Allow {
        let Rule { protocol, ports, purpose, networks, rate, span } = self;
        Allow { protocol, ports, purpose, from: networks, rate_per_second: rate, span }
    }

    pub(super) fn into_outbound(self) -> OutboundRule {
        let Rule { protocol, ports, purpose, networks, rate: _, span } = self;
        OutboundRule { protocol, ports, to: networks, user: None, purpose, span }
    }
}

/// The remark before the first rule, and the rules.
pub(super) fn read_rules<'a>(
    line: Text<'a>,
    direction: Direction,
    report: &mut Reporter,
) -> (Option<Text<'a>>, Vec<Rule>) {
    let parts = line.list();
    let mut rules: Vec<(Protocol, Text<'a>)> = Vec::new();
    let mut note: Option<Text<'a>> = None;
    let start_of = |text: Text<'_>| (text.span().column - line.span().column) as usize;
    let bytes = |characters: usize| {
        line.as_str().char_indices().nth(characters).map_or(line.as_str().len(), |(at, _)| at)
    };
    for part in parts {
        let from = bytes(start_of(part));
        let to = from + part.as_str().len();
        match (starting_protocol(part), rules.last_mut()) {
            (Some(protocol), _) => rules.push((protocol, part)),
            // A comma inside a rule (`TCP 80,443 a, b`): the rule goes on.
            (None, Some((_, rule))) => *rule = line.slice(bytes(start_of(*rule)), to),
            (None, None) => note = Some(line.slice(note.map_or(from, |n| bytes(start_of(n))), to)),
        }
    }
    if let Some(hidden) = note.and_then(hidden_port) {
        not_a_rule(hidden, report);
    }
    (
        note,
        rules
            .into_iter()
            .filter_map(|(protocol, rule)| read_rule(protocol, rule, direction, report))
            .collect(),
    )
}

fn not_a_rule(hidden: Text<'_>, report: &mut Reporter) {
    report
        .error(
            "rule-not-understood",
            hidden.span(),
            format!("`{}` opens nothing where it stands", hidden.as_str()),
        )
        .hint("a rule begins with `TCP` or `UDP` at the start of the line or after a comma");
}

/// `TCP` or `UDP` as the first word.
fn starting_protocol(text: Text<'_>) -> Option<Protocol> {
    protocol(text.words().first()?.as_str())
}

fn protocol(word: &str) -> Option<Protocol> {
    if word.eq_ignore_ascii_case("tcp") {
        Some(Protocol::Tcp)
    } else if word.eq_ignore_ascii_case("udp") {
        Some(Protocol::Udp)
    } else {
        None
    }
}

/// `TCP 443` in the middle of prose; what stands in parentheses is a remark.
fn hidden_port(text: Text<'_>) -> Option<Text<'_>> {
    let words = text.words();
    let mut depth = 0_i32;
    for (at, word) in words.iter().enumerate() {
        let number = words.get(at + 1).filter(|next| next.as_str().starts_with(|c: char| c.is_ascii_digit()));
        if let (0, Some(_), Some(next)) = (depth, protocol(word.as_str()), number) {
            let length = (next.span().column + next.span().length - word.span().column) as usize;
            let start = (word.span().column - text.span().column) as usize;
            let bytes =
                |n: usize| text.as_str().char_indices().nth(n).map_or(text.as_str().len(), |(b, _)| b);
            return Some(text.slice(bytes(start), bytes(start + length)));
        }
        for c in word.as_str().chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
        }
    }
    None
}

fn read_rule(
    protocol: Protocol,
    rule: Text<'_>,
    direction: Direction,
    report: &mut Reporter,
) -> Option<Rule> {
    let words = rule.words();
    let mut rest = words.iter().copied().skip(1).peekable();
    let mut numbers = Vec::new();
    while let Some(word) =
        rest.next_if(|word| numbers.is_empty() || word.as_str().starts_with(|c: char| c.is_ascii_digit()))
    {
        numbers.extend(word.list());
        if !word.as_str().ends_with(',') {
            break;
        }
    }
    if !numbers.first().is_some_and(|n| n.as_str().starts_with(|c: char| c.is_ascii_digit())) {
        report
            .error("rule-not-understood", rule.span(), "no port stands in this rule")
            .hint("write the ports behind `TCP` or `UDP`: `TCP 80,443 web`");
        return None;
    }
    let ports = ports(&numbers, report);
    let (mut found, mut rate, mut purpose) = (Vec::new(), None, Vec::new());
    let mut good = true;
    while let Some(word) = rest.next() {
        let next = rest.peek().copied();
        // `to mirror.example.com` is not a remark: the reader would believe the rule narrower than it is.
        let is_place = |t: &Text<'_>| {
            let inner = t.as_str().trim_end_matches([',', '.']);
            inner.starts_with(|c: char| c.is_ascii_digit()) || inner.contains(['.', ':', '/'])
        };
        if let Some(next) = next.filter(|n| word.as_str() == direction.networks_word() && is_place(n)) {
            rest.next();
            let (mut list, mut last) = (next.list(), next);
            while let Some(more) = rest.next_if(|w| last.as_str().ends_with(',') && is_place(w)) {
                list.extend(more.list());
                last = more;
            }
            let read = networks(&list, report);
            good &= read.len() == list.len();
            found.extend(read);
        } else if let Some(next) = next.filter(|n| word.as_str() == "rate" && n.as_str().contains('/')) {
            rest.next();
            match parse_rate(next.as_str().trim_end_matches(',')) {
                Ok(_) if direction == Direction::Out => {
                    report.error("rule-not-understood", next.span(), "outbound rules have no rate");
                    good = false;
                }
                Ok(number) => rate = Some(number),
                Err(wrong) => {
                    impossible("rate", next, wrong, report);
                    good = false;
                }
            }
        } else {
            purpose.push(word);
        }
    }
    if let Some(hidden) = remaining(rule, &purpose).and_then(hidden_port) {
        not_a_rule(hidden, report);
    }
    let purpose = purpose.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ");
    let purpose = Some(without_parentheses(purpose.trim_end_matches(','))).filter(|p| !p.is_empty());
    let ports = ports.filter(|_| good)?;
    Some(Rule { protocol, ports, purpose, networks: found, rate, span: rule.span() })
}

/// The piece of `rule` from the first of `words` on.
fn remaining<'a>(rule: Text<'a>, words: &[Text<'a>]) -> Option<Text<'a>> {
    let first = words.first()?;
    let characters = (first.span().column - rule.span().column) as usize;
    let at = rule.as_str().char_indices().nth(characters).map(|(at, _)| at)?;
    Some(rule.from(at))
}

fn without_parentheses(purpose: &str) -> String {
    match purpose.strip_prefix('(').and_then(|p| p.strip_suffix(')')) {
        Some(inner) if !inner.contains(['(', ')']) => inner.trim().to_owned(),
        _ => purpose.trim().to_owned(),
    }
}

/// Ports and ranges, sorted; `None` when one of them is wrong.
pub(super) fn ports(words: &[Text<'_>], report: &mut Reporter) -> Option<Vec<PortRange>> {
    let mut ranges: Vec<(PortRange, Text<'_>)> = Vec::new();
    for word in words {
        match values::parse_port_range(word.as_str()) {
            Ok(range) => ranges.push((range, *word)),
            Err(wrong) => impossible("port", *word, wrong, report),
        }
    }
    let complete = ranges.len() == words.len();
    ranges.sort_by_key(|(range, _)| *range);
    for pair in ranges.windows(2) {
        if let [(a, first), (b, second)] = pair
            && a.last >= b.first
        {
            report
                .error("port-twice", second.span(), format!("`{}` is opened twice", second.as_str()))
                .related(first.span(), "first opened here");
            return None;
        }
    }
    (complete && !ranges.is_empty()).then(|| ranges.into_iter().map(|(range, _)| range).collect())
}

pub(super) fn networks(words: &[Text<'_>], report: &mut Reporter) -> Vec<IpNet> {
    words.iter().filter_map(|word| network(*word, report)).map(|net| net.value).collect()
}

/// A network; an address alone is the network of that address.
pub(super) fn network(word: Text<'_>, report: &mut Reporter) -> Option<Spanned<IpNet>> {
    match parse_network(word.as_str()) {
        Ok(net) => Some(word.with(net)),
        Err(wrong) => {
            impossible("network", word, wrong, report);
            None
        }
    }
}

fn parse_network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let net: IpNet = text.parse().map_err(|_| {
        Wrong::because("a network is an address and the length of its prefix")
            .hint("for example `10.8.0.0/24`")
    })?;
    if net.addr() == net.network() {
        return Ok(net);
    }
    Err(Wrong::because("there are host bits behind its prefix").hint(format!(
        "write `{}` for the network or `{}` for the address",
        net.trunc(),
        net.addr()
    )))
}

/// `20/second` → 20.
pub(crate) fn parse_rate(text: &str) -> Result<u32, Wrong> {
    let wrong =
        || Wrong::because("a rate is a number of connections per second").hint("for example `20/second`");
    let number = text.strip_suffix("/second").ok_or_else(wrong)?;
    let number = values::parse_integer(number, 1, 1_000_000).map_err(|_| wrong())?;
    u32::try_from(number).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Option<String>, Vec<Rule>, Vec<crate::Diagnostic>) {
        let mut report = Reporter::default();
        let (note, rules) = read_rules(Text::new(line, 1, 1), Direction::In, &mut report);
        (note.map(|n| n.as_str().to_owned()), rules, report.finish())
    }

    #[test]
    fn lines_of_the_topology() {
        let table = [
            (
                "TCP 80,443 (HTTPS only — Nginx reverse proxy)",
                "Tcp 80-80 443-443 [HTTPS only — Nginx reverse proxy]",
            ),
            (
                "TCP 3000 Gitea admin UI, TCP 22 SSH git push (backplane only)",
                "Tcp 3000-3000 [Gitea admin UI]; Tcp 22-22 [SSH git push (backplane only)]",
            ),
            ("UDP 27015-27030 game", "Udp 27015-27030 [game]"),
            ("tcp 80, 443 web, also for b", "Tcp 80-80 443-443 [web, also for b]"),
            ("TCP 22", "Tcp 22-22 []"),
            (
                "TCP 22 SSH from 10.8.0.0/28,10.8.1.5 rate 5/second",
                "Tcp 22-22 [SSH] from 10.8.0.0/28 10.8.1.5/32 rate 5",
            ),
            ("TCP 22 SSH from 10.8.0.2, 10.8.0.3 3.5", "Tcp 22-22 [SSH 3.5] from 10.8.0.2/32 10.8.0.3/32"),
            ("TCP 22 SSH from anywhere", "Tcp 22-22 [SSH from anywhere]"),
            ("syncoid source — all three, nightly", "note syncoid source — all three, nightly; "),
            ("é bastion, TCP 22 SSH", "note é bastion; Tcp 22-22 [SSH]"),
        ];
        for (line, expected) in table {
            let (note, rules, diagnostics) = read(line);
            assert_eq!(diagnostics, [], "{line}");
            let rules: Vec<String> = rules
                .iter()
                .map(|rule| {
                    let ports: Vec<String> =
                        rule.ports.iter().map(|p| format!("{}-{}", p.first, p.last)).collect();
                    let mut text = format!(
                        "{:?} {} [{}]",
                        rule.protocol,
                        ports.join(" "),
                        rule.purpose.as_deref().unwrap_or_default()
                    );
                    if !rule.networks.is_empty() {
                        let nets: Vec<String> = rule.networks.iter().map(ToString::to_string).collect();
                        text.push_str(&format!(" from {}", nets.join(" ")));
                    }
                    if let Some(rate) = rule.rate {
                        text.push_str(&format!(" rate {rate}"));
                    }
                    text
                })
                .collect();
            let note = note.map(|n| format!("note {n}; ")).unwrap_or_default();
            assert_eq!(format!("{note}{}", rules.join("; ")), expected, "{line}");
        }
    }

    #[test]
    fn ports_that_only_seem_open_are_errors() {
        for line in [
            "HTTPS on TCP 443",
            "TCP 80 web and TCP 443 web",
            "TCP any",
            "TCP 22 from host.example",
            "TCP 0",
            "TCP 80-70",
            "TCP 22, 22",
        ] {
            assert!(!read(line).2.is_empty(), "{line}");
        }
    }
}
